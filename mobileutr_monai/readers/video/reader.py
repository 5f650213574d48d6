"""Frames of videos as the transforms of a bundle take them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import MetaKeys
from PIL import Image

from mobileutr_monai.readers.pillow_io import to_mode
from mobileutr_monai.readers.video.frames import iter_video

__all__ = ["VideoReader"]


class VideoReader:
    """Reads the frames of a video file as ``DicomReader`` reads those of a cine; needs the extra ``video``.

    Args:
        mode: ``"RGB"`` or ``"L"`` (grey).
    """

    def __init__(self, mode: str = "RGB") -> None:
        if mode not in ("RGB", "L"):
            raise ValueError(f'mode is {mode!r}, allowed are "RGB" and "L"')
        self.mode = mode

    def iter_data(self, path: str | Path) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Yields the array and the meta data of each frame, ``seconds`` since the first one among them.

        Shape:
            (columns, rows, 3) or, for ``"L"``, (columns, rows), uint8.

        Raises:
            ValueError, MemoryError: see ``iter_video``.
        """
        for pixels, seconds in iter_video(path):
            array = np.asarray(to_mode(Image.fromarray(pixels), self.mode))
            height, width = array.shape[:2]
            meta = {
                "format": "video",
                "mode": self.mode,
                "width": width,
                "height": height,
                "seconds": seconds,
                MetaKeys.SPATIAL_SHAPE: np.asarray((width, height)),
                MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if array.ndim == 3 else float("nan"),
            }
            yield np.moveaxis(array, 0, 1), meta
