"""DICOM for MONAI's ``LoadImaged``: stills and frames as Pillow would give them, series as volumes.

MONAI's own ``PydicomReader`` orders slices by InstanceNumber, stacks mixed series, swaps the axes of cines
(Project-MONAI/MONAI#8265), makes up affines (#8468) and ignores MONOCHROME1, palettes and windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.header import is_dicom
from mobileutr_monai.readers.dicom.pixels import iter_frames, iter_values, read_frame, read_values
from mobileutr_monai.readers.dicom.series import DicomCase, find_one_case

__all__ = ["DicomFiles", "DicomReader", "read_volume"]


@dataclass(frozen=True)
class DicomFiles:
    """What ``DicomReader.read`` returns: files that are DICOM, not opened yet."""

    paths: tuple[Path, ...]


class DicomReader(ImageReader):
    """Reads DICOM by content, whatever the names; a ``reader`` of ``LoadImaged``.

    - A file with one frame: axes and meta as ``PILReader`` gives them, for the same transforms.
    - A file with more frames, or a file of any kind when ``frame`` is given: that frame, likewise.
    - The files of one series, its folder, or an enhanced multi-frame image: a volume after the modality LUT (HU for
      CT), its slices in order, with its affine.

    ``LoadImaged`` tries the last of its readers first, and MONAI's own ones after a reader that fails to ``read``.
    So ``read`` fails only for what is not DICOM (``[PILReader(), DicomReader()]`` reads PNGs too), and what is wrong
    with DICOM files is raised by ``get_data``: no other reader gets to guess.

    Args:
        mode: of stills and frames, ``"RGB"`` or ``"L"`` (grey).
        frame: which frame to read, from 0; needed for cines.
        photometric: what the samples are, for files that lie; see ``PHOTOMETRIC_INTERPRETATIONS``.

    Shape:
        stills and frames: (columns, rows, 3) or, for ``"L"``, (columns, rows), uint8.
        volumes: (columns, rows, slices), float32.

    Example::

        LoadImaged(keys="image", reader=DicomReader(mode="L"))({"image": "still.dcm"})
    """

    def __init__(self, mode: str = "RGB", frame: int | None = None, photometric: str | None = None) -> None:
        super().__init__()
        self.mode = mode
        self.frame = frame
        self.photometric = photometric

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether all files, or those in a folder, are DICOM by their content."""
        try:
            self.read(filename)
        except DicomError:
            return False
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> DicomFiles:
        """Takes a file, the files of a series, or its folder.

        Raises:
            DicomError: if one is not DICOM, or none in a folder.
        """
        paths: list[Path] = []
        for path in map(Path, ensure_tuple(data)):
            inside = [file for file in sorted(path.iterdir()) if is_dicom(file)] if path.is_dir() else [path]
            if not inside or not is_dicom(inside[0]):
                raise DicomError(path, Reason.NOT_DICOM)
            paths += inside
        return DicomFiles(tuple(paths))

    def get_data(self, img: DicomFiles) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the array and its meta data.

        Raises:
            DicomError: if the files cannot be read as what they are asked for.
        """
        if self.frame is not None and len(img.paths) == 1:
            return self._as_pillow(read_frame(img.paths[0], self.frame, self.mode, self.photometric))
        case = find_one_case(img.paths)
        if case.kind is CaseKind.SERIES:
            return read_volume(case), _volume_meta(case)
        if case.kind is CaseKind.CINE:
            remedy = "choose one with frame, or iterate with iter_data"
            raise DicomError(case.paths[0], Reason.NOT_ONE_FRAME, f"{case.frames} frames; {remedy}")
        return self._as_pillow(read_frame(case.paths[0], 0, self.mode, self.photometric))

    def iter_data(
        self, path: str | Path, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Yields each frame of a file as ``get_data`` returns a still, decoding one at a time.

        Args:
            path: a file with any number of frames.
            start: first frame, from 0.
            stop: one more than the last frame; all by default.

        Raises:
            DicomError: if the file is no image, or cannot be decoded.
        """
        return map(self._as_pillow, iter_frames(path, self.mode, start, stop, self.photometric))

    def _as_pillow(self, frame: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        height, width = frame.shape[:2]
        meta = {
            "format": "DICOM",
            "mode": self.mode,
            "width": width,
            "height": height,
            MetaKeys.SPATIAL_SHAPE: np.asarray((width, height)),
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if frame.ndim == 3 else float("nan"),
        }
        return np.moveaxis(frame, 0, 1), meta


def read_volume(case: DicomCase) -> np.ndarray:
    """Decodes a series, after the modality LUT.

    Shape:
        (columns, rows, slices), float32.

    Raises:
        DicomError: if a slice cannot be decoded.
    """
    volume = np.empty((case.frames, case.rows, case.columns), np.float32)
    if case.frame_order:
        places = np.argsort(case.frame_order)
        for place, values in zip(places, iter_values(case.paths[0]), strict=True):
            volume[place] = values
    else:
        for index, path in enumerate(case.paths):
            volume[index] = read_values(path)
    return volume.transpose(2, 1, 0)


def _volume_meta(case: DicomCase) -> dict[str, Any]:
    return {
        "format": "DICOM",
        MetaKeys.AFFINE: np.array(case.affine),
        MetaKeys.ORIGINAL_AFFINE: np.array(case.affine),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray((case.columns, case.rows, case.frames)),
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
    }
