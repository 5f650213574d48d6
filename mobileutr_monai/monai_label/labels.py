"""Labels that clients send or leave in a folder, compared with their image and the bundle before anything learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from PIL import UnidentifiedImageError

from mobileutr_monai.core.kinds import IMAGE_SUFFIXES
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.datasets.masks import read_mask
from mobileutr_monai.inference.batch.processes.case_worker import to_case_error
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.readers.pillow_io import open_image

__all__ = ["LabelCheck", "explain", "to_indices"]

_FOREGROUND = 255
# Largest difference of two affines of one grid, in mm: formats round differently.
_AFFINE_TOLERANCE = 1e-2


def explain(path: Path, error: Exception, kind: str = Reason.UNREADABLE.value) -> str:
    """Returns in one line, without the path, why a file cannot be used.

    Args:
        kind: what stands before words of a decoder.
    """
    problem = to_case_error(Reason.UNREADABLE, _in_plainer_words(path, error), path)
    reason = kind if problem.reason is Reason.UNREADABLE else problem.reason.value
    detail = problem.detail.removeprefix(f"{path.name}: ").replace(f"mask {path}", "it").replace(str(path), "the file")
    # What to do with the command line helps nobody who draws.
    detail = "; ".join(part for part in detail.split("; ") if " --" not in part)
    return ": ".join(filter(None, (reason, detail)))


def _in_plainer_words(path: Path, error: Exception) -> Exception:
    """Returns what is wrong with a file in Pillow's words, where MONAI's readers have less plain ones."""
    try:
        if path.is_file() and path.stat().st_size == 0:
            return ValueError("the file is empty")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            with open_image(path, "image") as image:
                image.load()
    except Exception as plainer:  # noqa: BLE001 - of a picture that it cannot decode
        error = plainer
        if isinstance(plainer.__cause__ or plainer, UnidentifiedImageError):
            return ValueError("the file is cut off, or not the image that its name says")
    return error


def to_indices(values: np.ndarray, labels: Sequence[SegmentLabel]) -> np.ndarray:
    """Returns a label map of the labels' indices; a mask of 0 and 255 is one of a bundle's only label.

    Raises:
        ValueError: it has other values.
    """
    if len(labels) == 1 and np.isin(values, (0, _FOREGROUND)).all():
        return np.where(values == _FOREGROUND, labels[0].index, 0)
    known = [0, *(label.index for label in labels)]
    found = np.unique(values)
    if unknown := found[~np.isin(found, known)].tolist():
        raise ValueError(f"has the value {unknown[0]:g}, which is no label; labels are {', '.join(map(str, known))}")
    return values


class LabelCheck:
    """Reads labels as a bundle's training does.

    Args:
        bundle: ``image_transforms`` and ``label_transforms`` of its ``configs/train.json`` load the files.
        labels: what a label map may hold.
    """

    def __init__(self, bundle: Path, labels: Sequence[SegmentLabel]) -> None:
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "train.json"))
        parser["bundle_root"] = bundle
        self.labels = labels
        self._load_image, self._load_label = (
            next(step for step in parser.get_parsed_content(f"{key}_transforms") if isinstance(step, LoadImaged))
            for key in ("image", "label")
        )

    def find_image_problem(self, image: Path) -> str:
        """Returns in one line why an image cannot be used; nothing if it can."""
        try:
            self._load_image({"image": str(image)})
        except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this image only
            return f"the image cannot be used: {explain(image, error, '')}"
        return ""

    def find_problem(self, image: Path, label: Path) -> str:
        """Returns in one line what is wrong with a label, or with its image; nothing if both can be learnt from."""
        for path, load, key in ((image, self._load_image, "image"), (label, self._load_label, "label")):
            try:
                read = load({key: str(path)})[key]
                if key == "image":
                    grid = _find_grid(read)
                else:
                    # Readers of masks forgive soft edges, with which a photograph would be a mask, too.
                    to_indices(read_mask(path) if len(grid[0]) == 2 else read.numpy(), self.labels)
                    _check_grid(_find_grid(read), grid)
            except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this label only
                return f"the {key} cannot be used: {explain(path, error, '')}"
        return ""


def _find_grid(image: MetaTensor) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the size, and a volume's affine in mm, its axes turned to RAS: a label may have them in another order."""
    shape = tuple(map(int, image.meta["spatial_shape"]))
    if len(shape) < 3:
        return shape, np.eye(4)
    affine = np.asarray(image.affine)
    turn = io_orientation(affine)
    return apply_orientation(np.empty(shape, bool), turn).shape, affine @ inv_ornt_aff(turn, shape)


def _check_grid(label: tuple[tuple[int, ...], np.ndarray], image: tuple[tuple[int, ...], np.ndarray]) -> None:
    if label[0] != image[0]:
        sizes = (" x ".join(map(str, shape)) for shape in (label[0], image[0]))
        raise ValueError("is {}, the image is {}".format(*sizes))
    if not np.allclose(label[1], image[1], atol=_AFFINE_TOLERANCE):
        raise ValueError("lies elsewhere than the image: their affines differ")
