"""Pictures as a MONAI image reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import PILReader
from monai.utils import ensure_tuple
from PIL import Image

from mobileutr_monai.readers.pillow_io import open_image, to_mode

__all__ = ["ImageFileReader"]


class ImageFileReader(PILReader):
    """MONAI's reader of pictures, within ``MAX_IMAGE_PIXELS`` and with one error for whatever is wrong with a file.

    ``read`` does not fail, so that ``LoadImage`` does not guess with MONAI's other readers.

    Args:
        mode: ``"RGB"`` or ``"L"`` (grey), see ``to_mode``.

    Shape:
        (columns, rows, 3) or, for ``"L"``, (columns, rows), uint8.
    """

    def __init__(self, mode: str = "RGB") -> None:
        super().__init__()
        self.mode = mode

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        return True

    def read(self, data: Sequence[PathLike] | PathLike | np.ndarray, **kwargs: Any) -> list[Path]:
        """Takes a file, or one a channel; they are opened by ``get_data``."""
        return [Path(path) for path in ensure_tuple(data)]

    def get_data(self, img: list[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the array and its meta data; several files are stacked as MONAI does it.

        Raises:
            ValueError: a file cannot be read.
            MemoryError: it does not fit.
        """
        images = [self._load(path) for path in img]
        data, meta = super().get_data(images if len(images) > 1 else images[0])
        return data, meta

    def _load(self, path: Path) -> Image.Image:
        try:
            with open_image(path, "image") as image:
                return to_mode(image, self.mode).copy()  # which stays when the file is closed
        except ValueError as error:
            if isinstance(error.__cause__, MemoryError):
                raise error.__cause__ from None
            raise ValueError(str(error)) from None  # Pillow's own words are in it
