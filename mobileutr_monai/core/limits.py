"""How much one input may declare: checked before anything is allocated or inflated.

They are generous for images of patients and end what a few lying bytes can ask for. Within them a case still has to fit
into the memory and the time that the runner gives it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_HEADER_ELEMENTS",
    "MAX_IMAGE_PIXELS",
    "MAX_INFLATED_BYTES",
    "MAX_MISMATCH_PERCENT",
    "MAX_VIDEO_FRAMES",
    "MAX_VOLUME_MM3",
    "MAX_VOLUME_VOXELS",
    "BoundedReader",
    "ReadTooLargeError",
]

MAX_IMAGE_PIXELS = 2**28 // 3
"""Of an image, or a frame of DICOM: 9459 x 9459, 256 MiB as RGB. A mammogram has 20 million."""

MAX_VIDEO_FRAMES = 2**15 - 1
"""Of a video: the label maps of its frames become a side of a NIfTI file. 21 minutes at 25 frames per second."""

MAX_VOLUME_VOXELS = 2**30
"""Of a volume: 512 x 512 x 4096, 4 GiB as float32."""

MAX_VOLUME_MM3 = 2**30
"""Of the box around a volume, in mm3, 1.07 cubic metres: what resampling to voxels of 1 mm makes voxels of."""

MAX_HEADER_BYTES = 2**28
"""Of all that comes before the values: elements before the pixels of DICOM, extensions of NIfTI."""

MAX_HEADER_ELEMENTS = 2**18
"""Of elements and sequence items before the pixels of DICOM: in memory each is a hundred times its least 8 bytes."""

MAX_INFLATED_BYTES = 2**29
"""Of the data set of a deflated DICOM file."""


MAX_MISMATCH_PERCENT = 0.1
"""Percent of the pixels of a list of cases that an engine or an export may label differently from torch in float32."""


class ReadTooLargeError(Exception):
    """More bytes were asked for at once than a file may give."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes at once")
        self.size = size


class BoundedReader(io.BufferedReader):
    """A file of which never more is asked for than it holds.

    Python's own files allocate what they are asked for first: 4 GiB for an element that says to be so long.

    Args:
        max_read: bytes that one read may ask for; None for no limit.
    """

    def __init__(self, path: str | Path, max_read: int | None = None) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size
        self.max_read = max_read

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads up to ``size`` bytes, or the rest.

        Raises:
            ReadTooLargeError: ``size`` is above ``max_read``.
        """
        if self.max_read is not None and size is not None and size > self.max_read:
            raise ReadTooLargeError(size)
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))
