"""Reading of cases with a bundle's own transforms, up to what the network takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from monai.utils import ImageMetaKey, convert_to_tensor

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.readers.dicom.reader import DicomReader
from mobileutr_monai.readers.video.reader import VideoReader

__all__ = ["CaseReader", "check_image", "check_variation"]


class CaseReader:
    """Reads and preprocesses; without the network, so that it can be sent to another process.

    Args:
        preprocessing: gives ``image`` from a path; ``LoadImaged`` first.
        channels: that the network takes.
        spatial_dims: 2 for images, 3 for volumes.
        frame_reader: reads the frames of cines; a bundle without one takes none.
        video_reader: likewise, of videos.
    """

    def __init__(
        self,
        preprocessing: Compose,
        channels: int,
        spatial_dims: int,
        frame_reader: DicomReader | None = None,
        video_reader: VideoReader | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.frame_reader, self.video_reader = frame_reader, video_reader
        self.channels, self.spatial_dims = channels, spatial_dims
        self._loading = Compose([t for t in preprocessing.transforms if isinstance(t, LoadImaged)])
        self._after_loading = Compose([t for t in preprocessing.transforms if not isinstance(t, LoadImaged)])

    def read(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Returns a dictionary with the preprocessed ``image`` of a file, or of the files of a series.

        Raises:
            ValueError: all values are the same, the file has another number of dimensions or channels than the network
                expects, or has NaN.
        """
        source = [str(path) for path in paths]
        data = self._loading({"image": source if len(source) > 1 else source[0]})
        check_variation(data["image"], "voxels" if self.spatial_dims == 3 else "pixels")
        return self._checked(self._after_loading(data))

    def read_frames(self, path: Path, kind: CaseKind = CaseKind.CINE) -> Iterator[dict[str, Any]]:
        """Yields what ``read`` returns for each frame of a cine or video, decoding one at a time; of a video also
        ``seconds`` since its first frame.

        A frame in which all values are the same becomes zeros, in which ``Segmenter`` finds nothing: resampling and
        scaling would make noise of it.
        """
        reader = self.video_reader if kind is CaseKind.VIDEO else self.frame_reader
        if reader is None:
            name = "video_reader for videos" if kind is CaseKind.VIDEO else "frame_reader for cines"
            raise ValueError(f"the bundle has no {name}")
        for array, meta in reader.iter_data(path):
            time = {"seconds": meta.pop("seconds")} if "seconds" in meta else {}
            meta[ImageMetaKey.FILENAME_OR_OBJ] = str(path)  # as LoadImaged does
            image = MetaTensor.ensure_torch_and_prune_meta(array.astype(np.float32), meta)
            data = self._checked(self._after_loading({"image": image}))
            if array.min() == array.max():
                data["image"] *= 0
            yield data | time

    def _checked(self, data: dict[str, Any]) -> dict[str, Any]:
        check_image(data["image"], self.channels, self.spatial_dims)
        return data


def check_variation(image: torch.Tensor, what: str) -> None:
    """Checks that there is something to see in an image, before resampling and scaling make noise of it.

    Args:
        what: pixels or voxels, for the error.

    Raises:
        ValueError: all values are the same.
    """
    values = convert_to_tensor(image, track_meta=False).cpu().numpy()
    if values.size and values.min() == values.max():
        raise ValueError(f"all {what} have the value {float(values.flat[0]):g}: there is nothing to segment")


def check_image(image: torch.Tensor, channels: int, spatial_dims: int) -> None:
    """Checks that an image fits the network.

    Shape:
        - image: (channels, height, width) or (channels, x, y, z).

    Raises:
        ValueError: it has another number of dimensions or channels, or NaN.
    """
    shape = tuple(image.shape)
    if (shape[0], len(shape) - 1) != (channels, spatial_dims):
        raise ValueError(
            f"has {pluralize(shape[0], 'channel')} and {pluralize(len(shape) - 1, 'dimension')}, "
            f"the network expects {pluralize(channels, 'channel')} and {pluralize(spatial_dims, 'spatial dimension')}"
            + (f"; {_say_what_to_do(shape[0], channels, spatial_dims)}" if len(shape) - 1 == spatial_dims else "")
        )
    # By NumPy, which takes a tenth of torch's time.
    if not np.isfinite(convert_to_tensor(image, track_meta=False).cpu().numpy()).all():
        raise ValueError("has values that are no numbers (NaN or infinite); replace them")


def _say_what_to_do(found: int, channels: int, spatial_dims: int) -> str:
    if spatial_dims == 2:
        kept = "if the fourth is transparency, save it as RGB; else " if (found, channels) == (4, 3) else ""
        return f"{kept}save the {pluralize(channels, 'channel')} that the network was trained on"
    return (
        f"save the {pluralize(channels, 'channel')} that the network was trained on, or train a bundle of your own "
        f"with mobileutr new-bundle --in-channels {found}"
    )
