"""Where a bundle is that is given by its name: in the checkout, or in an installed package.

A package of bundles has them as folders inside and names itself in an entry point of the group ``BUNDLES_GROUP``, as
``mobileutr-monai-bundles`` does. It is not imported.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import entry_points
from pathlib import Path

import mobileutr_monai
from mobileutr_monai.core.choices import END_TO_END_SUFFIXES

__all__ = ["BUNDLES_GROUP", "BUNDLES_PACKAGE", "find_bundle", "list_bundles"]

BUNDLES_GROUP = "mobileutr_monai.bundles"
BUNDLES_PACKAGE = "mobileutr-monai-bundles"

_CONFIG = Path("configs") / "inference.json"


def find_bundle(bundle: str | Path) -> Path:
    """Returns the folder of a bundle: a path as it is, otherwise the folder of the name.

    Bundles of a checkout come before installed ones.

    Raises:
        FileNotFoundError: there is neither; the message says which names there are.
    """
    path = Path(bundle)
    if path.exists() or len(path.parts) != 1 or path.suffix in END_TO_END_SUFFIXES:
        return path
    known = list_bundles()
    if path.name in known:
        return known[path.name]
    names = f"known names: {', '.join(known)}" if known else f"install the wheel {BUNDLES_PACKAGE}, or give a folder"
    raise FileNotFoundError(f"{str(bundle)!r} is not a bundle's folder or name; {names}")


def list_bundles() -> dict[str, Path]:
    """Returns name -> folder of the bundles of this checkout and of installed packages, sorted by name."""
    checkout = Path(mobileutr_monai.__file__).resolve().parents[1] / "bundles"
    roots = [checkout] if (checkout / "_shared").is_dir() else []
    for entry in entry_points(group=BUNDLES_GROUP):
        spec = importlib.util.find_spec(entry.module)
        roots += map(Path, (spec.submodule_search_locations or ()) if spec else ())
    found: dict[str, Path] = {}
    for root in roots:
        for config in sorted(root.glob(f"*/{_CONFIG.as_posix()}")):
            found.setdefault(config.parents[1].name, config.parents[1])
    return dict(sorted(found.items()))
