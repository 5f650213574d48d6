"""MONAI without what it imports for training and plots: half of the time that ``mobileutr predict`` takes to start.

``import monai`` imports all of MONAI, and with it these packages if they are installed: ignite (and with it
``torch.distributed.fsdp`` and sympy), matplotlib, TensorBoard, ``scipy.signal``, jsonschema. The runner uses none of
them. MONAI works without any of them, so they are hidden while it is imported, and only then: what imports them later
finds them, but MONAI's own engines, TensorBoard handlers and plots are missing in this process. Therefore only
processes that do nothing but ``mobileutr predict`` call this, and only for bundles whose config needs none of it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["LEFT_OUT", "UNUSED", "find_unused", "import_monai_without"]

UNUSED = ("ignite", "jsonschema", "matplotlib", "scipy.signal", "tensorboard")

LEFT_OUT = "MOBILEUTR_LEFT_OUT"
"""Environment variable for the fork server: names with commas. It can only be told what to import."""

_RUN = ["$@runner.main()"]
_KNOWN_IMPORTS = {"copy", "glob", "json", "math", "mobileutr_monai", "monai", "numpy", "os", "pathlib", "sys", "torch"}
_NEEDED_BY = re.compile(r"UltrasoundConfidenceMap|SignalRemoveFrequency|TensorBoard|matplotlib|ignite|scipy\.signal")


def find_unused(config: Path) -> tuple[str, ...]:
    """Returns what need not be imported for the config of an inference: ``UNUSED``, or nothing where it is not sure.

    Sure is it of configs that only start the runner, whose classes are MONAI's and ours, and that import no others.
    """
    try:
        text = config.read_text(encoding="utf-8")
        content: dict[str, Any] = json.loads(text)
        imports = [re.match(r"\$(?:import|from) (\w+)", line) for line in content.get("imports", [])]
        classes = re.findall(r'"_target_": *"([\w.]+)\.\w+"', text)
    except (OSError, ValueError, TypeError, AttributeError):
        return ()
    if content.get("run") != _RUN or _NEEDED_BY.search(text) or "@evaluator" in json.dumps(content.get("runner")):
        return ()
    modules = {match[1] if match else "" for match in imports} | {name.split(".")[0] for name in classes}
    return UNUSED if modules <= _KNOWN_IMPORTS else ()


def import_monai_without(names: Sequence[str]) -> None:
    """Imports MONAI as if packages were not installed; does nothing if it has been imported."""
    if "monai" in sys.modules:
        return
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: importing it is an ImportError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of optional packages that this project does not use
            import monai  # noqa: F401 - it is imported for those that import it later
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                del sys.modules[name]


if LEFT_OUT in os.environ:
    import_monai_without(os.environ[LEFT_OUT].split(","))
