"""Starting a bundle's own workflows, with ids of their configs replaced."""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from mobileutr_monai.core.folders import require_configs
from mobileutr_monai.core.model_settings import read_settings

__all__ = ["find_cause", "find_weights", "open_workflow", "run_bundle"]


def run_bundle(bundle: Path, dataset_dir: str | Path, output_dir: str | Path, overrides: Mapping[str, Any]) -> int:
    """Runs a bundle's inference on a folder: ``python -m monai.bundle run`` with its ids replaced.

    Settings that are kept next to the weights are used. Configs are code: only run bundles that you trust.

    Args:
        dataset_dir: folder, as ``Path``, or address of the inputs.
        output_dir: the same of the results.
        overrides: config id -> value; paths as ``Path``. An id that the config does not have is an error, not ignored.

    Returns:
        0 when all went well, 1 when cases failed, 2 when something given cannot be used.

    Raises:
        FileNotFoundError: the folder is no bundle.
        ValueError: an id is unknown or has a value that cannot be used, or settings next to the weights cannot be read.
    """
    values = {"dataset_dir": dataset_dir, "output_dir": output_dir, **overrides}
    workflow = open_workflow(bundle, ("inference",), values, settings_of=find_weights(bundle, overrides))
    try:
        workflow.initialize()
        workflow.run()
    except SystemExit as stop:
        return int(stop.code or 0)
    except RuntimeError as error:  # MONAI's, around what an object of the config says of its arguments
        cause = find_cause(error)
        if isinstance(cause, (ValueError, FileNotFoundError)):
            raise type(cause)(" ".join(str(cause).split())) from error
        raise
    return 0


def find_cause(error: BaseException) -> BaseException:
    """Returns the error that began a chain of them."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return error


def open_workflow(
    bundle: Path, configs: Sequence[str], values: Mapping[str, Any], settings_of: Path | None = None
) -> Any:
    """Returns a ``ConfigWorkflow`` of a bundle, not yet initialised, with its ids replaced.

    Paths are data: they are handed over as ``Path``, which MONAI's parser leaves alone. In a text it reads ``#`` as a
    separator of ids, and runs what begins with ``$``.

    Args:
        configs: names of files in ``configs``, later ones replace ids of earlier ones; or paths of such files.
        values: config id -> value; paths as ``Path``.
        settings_of: weights whose settings replace the config's where ``values`` has no others.

    Raises:
        FileNotFoundError: the folder is no bundle.
        ValueError: an id is unknown, or settings next to the weights cannot be read.
    """
    require_configs(bundle, (configs[0], "metadata"))
    files = [bundle / "configs" / f"{name}.json" if "." not in name else Path(name) for name in configs]
    kind = "inference" if configs[0] == "inference" else "train"
    settings = read_settings(settings_of) if settings_of is not None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI's imports: optional packages that this project does not use
        from monai.bundle import ConfigWorkflow

        with _quiet():  # it warns that there is no logging file
            workflow = ConfigWorkflow(
                config_file=[str(file) for file in files],
                meta_file=str(bundle / "configs" / "metadata.json"),
                logging_file=False,
                workflow_type=kind,
            )
    parser = workflow.parser
    values = {"bundle_root": bundle.resolve(), **{k: v for k, v in settings.items() if k in parser}, **values}
    for key in values:
        if key not in parser:
            close = difflib.get_close_matches(key, list(parser.get()), n=1)
            hint = f"did you mean {close[0]!r}?" if close else "open the file to see the available ids"
            raise ValueError(f"{files[0]} has no id {key!r}; {hint}")
        if kind == "inference":  # in training some take words, too, such as resume=auto
            _check_kind(key, parser[key], values[key])
    parser.update(values)
    return workflow


def _check_kind(key: str, default: Any, value: Any) -> None:
    """Checks that a value which replaces a truth value, a number or a size is one; any text would count as true.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, str) and value.startswith(("$", "@", "%")):  # an expression of MONAI
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{key} must be true or false, got {value!r}")
    elif isinstance(default, (int, float)) and (isinstance(value, bool) or not isinstance(value, Real)):
        raise ValueError(f"{key} must be a number, got {value!r}")
    elif isinstance(default, list) and default and all(isinstance(side, int) for side in default):
        is_list = isinstance(value, (list, tuple)) and len(value) == len(default)
        if not is_list or not all(isinstance(side, int) for side in value):
            raise ValueError(f"{key} must be {len(default)} whole numbers, such as {default}, got {value!r}")


def find_weights(bundle: Path, overrides: Mapping[str, Any]) -> Path:
    """Returns the weights that a run loads: those given, or the bundle's."""
    weights = overrides.get("weights") or bundle / "models" / "model.pt"
    return Path(weights[0] if isinstance(weights, (list, tuple)) else weights)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out warnings, and sets the level back whatever happens."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
