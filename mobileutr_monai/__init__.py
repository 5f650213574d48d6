"""MobileUtr, MONAI-native: the network, and what its MONAI bundles are made of. Research only.

``load_bundle`` opens a bundle, ``list_bundles`` says which there are. Both are imported when they are used:
``load_bundle`` needs torch and MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobileutr_monai.api.loading import load_bundle
    from mobileutr_monai.bundle.find import list_bundles

__all__ = ["__version__", "list_bundles", "load_bundle"]

__version__ = "0.1.0"


_HOMES = {"list_bundles": "mobileutr_monai.bundle.find", "load_bundle": "mobileutr_monai.api.loading"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
