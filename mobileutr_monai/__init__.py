"""MobileUtr, MONAI-native: the network, and what its MONAI bundles are made of. Research only.

``load_bundle`` is imported when it is used, since it needs torch and MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobileutr_monai.api.segmentation import load_bundle

__all__ = ["__version__", "load_bundle"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_bundle":
        return import_module("mobileutr_monai.api.segmentation").load_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
