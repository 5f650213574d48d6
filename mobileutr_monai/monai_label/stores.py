"""Where the images are: what all stores know of the bundles, and a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import LabelNotFoundException

from mobileutr_monai.datasets.duplicates import make_thumbnail
from mobileutr_monai.monai_label.bundles import ServedBundle, find_model
from mobileutr_monai.readers.pillow_io import open_image

__all__ = ["FolderStore", "Store"]

logger = logging.getLogger(__name__)

CONFLICT, UNPROCESSABLE = 409, 422


class Store(LocalDatastore):
    """What both kinds of stores know of the bundles that are served."""

    bundles: Sequence[ServedBundle]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._refused: dict[str, float] = {}
        self._inferred: dict[str, list[str]] = {}
        self._offered_to: ServedBundle | None = None
        super().__init__(*arguments, **options)

    def find_bundles(self, image: str) -> list[ServedBundle]:
        """Returns the bundles that take an image, as far as its kind tells."""
        raise NotImplementedError

    def check_model(self, image: str, model: str) -> None:
        """Raises 422 if a model does not take an image."""
        if model not in (found := [bundle.name for bundle in self.find_bundles(image)]):
            others = f"; {', '.join(found)} does" if found else ""
            raise HTTPException(UNPROCESSABLE, f"{model} does not take images of this kind{others}")

    def note_inferred(self, image: str, model: str) -> None:
        """Notes that a model has made a mask of an image."""
        self._inferred.setdefault(image, []).append(model)

    def refuse(self, image: str) -> None:
        """Notes that an image cannot be used as it is: strategies do not offer it."""
        self._refused[image] = self._changed(image)

    def _changed(self, image: str) -> float:
        return 0.0

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Returns the images without a final label that have not turned out to be useless."""
        found = super().get_unlabeled_images(label_tag, labels)
        usable = [image for image in found if self._refused.get(image) != self._changed(image)]
        if self._offered_to is None:
            return usable
        return [image for image in usable if self._offered_to in self.find_bundles(image)]

    @contextmanager
    def offering(self, bundle: ServedBundle | None) -> Iterator[None]:
        """Lets strategies see the images alone that a bundle takes."""
        self._offered_to = bundle
        try:
            yield
        finally:
            self._offered_to = None

    def image_source(self, image: str) -> str:
        """Returns what a bundle reads an image from."""
        return str(self.get_image_uri(image))

    def patient_of(self, image: str) -> str:
        """Returns what tells the patients of images apart, but not who they are; nothing if that is not known."""
        return ""

    def thumbnail_of(self, image: str) -> np.ndarray | None:
        """Returns the thumbnail of a 2D image by which near-duplicates are found."""
        try:
            return self._make_thumbnail(image)
        except Exception:  # noqa: BLE001 - what cannot be read has no duplicates
            return None

    def _make_thumbnail(self, image: str) -> np.ndarray | None:
        raise NotImplementedError

    def labels_of(self, model: str) -> list[dict[str, str]]:
        """Returns images and final labels that a model learns from."""
        chosen = []
        for case in self.datalist():
            image, _ = self._to_id(Path(case["image"]).name)
            try:
                info = self.get_label_info(image, DefaultLabelTag.FINAL)
                if find_model(self.find_bundles(image), info, ()) == model:
                    chosen.append({"image": case["image"], "label": case["label"]})
            except ValueError as error:
                logger.warning("the label of an image is left out: %s", error)
        return chosen

    def _find_model(self, image: str, info: Mapping[str, Any]) -> str:
        """Returns the bundle that a new label is of.

        Raises:
            HTTPException: 422, it may be of several.
        """
        try:
            return find_model(self.find_bundles(image), info, self._inferred.get(image, ()))
        except ValueError as error:
            raise HTTPException(UNPROCESSABLE, str(error)) from None

    def _bundle(self, name: str) -> ServedBundle:
        return next(bundle for bundle in self.bundles if bundle.name == name)


class FolderStore(Store):
    """A folder of images as MONAI Label's datastore."""

    def __init__(self, folder: str, bundles: Sequence[ServedBundle]) -> None:
        self.bundles = bundles
        super().__init__(folder, extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT, auto_reload=True)
        # Whoever may read the images may read their labels; all else that the server writes is for its owner alone.
        mode = Path(folder).stat().st_mode & 0o777
        for path in (None, DefaultLabelTag.FINAL, DefaultLabelTag.ORIGINAL):
            _set_mode(Path(self._datastore.label_path(path)), mode)
        _set_mode(Path(self._datastore_config_path), mode & 0o666)

    def find_bundles(self, image: str) -> list[ServedBundle]:
        """Returns the bundles for images, or those for volumes."""
        if len(self.bundles) == 1:
            return list(self.bundles)
        dimensions = _count_dimensions(Path(self.get_image_uri(image)))
        return [bundle for bundle in self.bundles if bundle.spatial_dims == dimensions]

    def _changed(self, image: str) -> float:
        path = Path(self.get_image_uri(image) or "/")
        return path.stat().st_mtime if path.is_file() else 0.0

    def _make_thumbnail(self, image: str) -> np.ndarray | None:
        path = Path(self.get_image_uri(image))
        if path.name.endswith((".nii", ".nii.gz")):
            return None
        with open_image(path, "image") as picture:
            return make_thumbnail(picture)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Adds an image.

        Raises:
            HTTPException: 409, one of that name is there; 422, it cannot be read.
        """
        if image_id in self._datastore.objects:
            raise HTTPException(CONFLICT, f"there is an image {image_id!r} already; remove it first")
        problems = [bundle.check.find_image_problem(Path(image_filename)) for bundle in self.bundles]
        if all(problems):
            raise HTTPException(UNPROCESSABLE, problems[0])
        return str(super().add_image(image_id, image_filename, image_info))

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keeps a label.

        Raises:
            HTTPException: 422 and what is wrong with it, in one line.
        """
        if image := self.get_image_uri(image_id):
            model = self._find_model(image_id, label_info)
            if problem := self._bundle(model).check.find_problem(Path(image), Path(label_filename)):
                raise HTTPException(UNPROCESSABLE, problem)
            label_info = {**label_info, "model": model}
        saved = str(super().save_label(image_id, label_filename, label_tag, label_info))
        _set_mode(Path(self.get_label_uri(image_id, label_tag)), Path(image).stat().st_mode & 0o666)
        return saved

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a label.

        Raises:
            LabelNotFoundException: there is none.
        """
        if self._datastore.label(label_id, label_tag) is None:
            raise LabelNotFoundException(f"there is no label {label_tag!r} of {label_id!r}")
        super().remove_label(label_id, label_tag)


def _set_mode(path: Path, mode: int) -> None:
    """Sets permissions where the file system and its owner let it."""
    with suppress(OSError):
        path.chmod(mode)


def _count_dimensions(path: Path) -> int:
    """Returns 3 for a NIfTI volume and 2 for everything else."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return 2
    try:
        shape = cast(nib.nifti1.Nifti1Image, nib.load(path)).shape
    except Exception:  # noqa: BLE001 - reading it says what is wrong
        return 2
    return 3 if sum(size > 1 for size in shape[:3]) > 2 else 2
