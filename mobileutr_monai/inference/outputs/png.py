"""Pictures and label maps as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mobileutr_monai.core.atomic import write_atomic

__all__ = ["save_label_image", "save_picture"]


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a PNG."""
    write_atomic(path, lambda file: picture.save(file, format="PNG"))


def save_label_image(label: np.ndarray, path: Path) -> None:
    """Writes label indices as an 8-bit PNG.

    Shape:
        - label: (rows, columns).
    """
    save_picture(Image.fromarray(label.astype(np.uint8)), path)
