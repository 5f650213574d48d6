"""Starting a bundle's own inference workflow."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobileutr_monai.core.folders import require_configs

__all__ = ["run_bundle"]


def run_bundle(bundle: Path, dataset_dir: Path, output_dir: Path, overrides: Mapping[str, Any]) -> int:
    """Runs a bundle's inference on a folder: ``python -m monai.bundle run`` with its ids replaced.

    Configs are code: only run bundles that you trust. Paths are not: they are handed over as ``Path``, which MONAI's
    parser leaves alone. In a text it reads ``#`` as a separator of ids, and runs what begins with ``$``.

    Args:
        overrides: config id -> value; paths as ``Path``. An id that the config does not have is an error, not ignored.

    Returns:
        0 when all went well, 1 when cases failed, 2 when something given cannot be used.

    Raises:
        FileNotFoundError: the folder is no bundle.
        ValueError: an id is unknown.
    """
    require_configs(bundle)
    config_file, meta_file = bundle / "configs" / "inference.json", bundle / "configs" / "metadata.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI's imports: optional packages that this project does not use
        from monai.bundle import ConfigWorkflow

        with _quiet():  # it warns that there is no logging file
            workflow = ConfigWorkflow(
                config_file=str(config_file), meta_file=str(meta_file), logging_file=False, workflow_type="inference"
            )
        values = {"bundle_root": bundle.resolve(), "dataset_dir": dataset_dir, "output_dir": output_dir, **overrides}
        unknown = [key for key in values if key not in workflow.parser]
        if unknown:
            raise ValueError(f"{config_file} has no id {unknown[0]!r}; see its ids with a text editor")
        workflow.parser.update(values)
        workflow.initialize()
        try:
            workflow.run()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out warnings, and sets the level back whatever happens."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
