"""Which mask belongs to which image, from the names of files and folders.

- ``images/NAME.EXT`` with ``masks/<class>/NAME.EXT`` (one folder per class) or ``masks/NAME.EXT``; the folders may be
  called ``imgs`` and ``labels``, too, and may hold one folder per patient or lie in one;
- ``NAME.EXT`` with ``NAME_mask.EXT`` next to it, in the folder or in its subfolders (one per diagnosis, as in BUSI).

A mask may be called NAME, NAME_mask, NAME_segmentation, NAME_seg, NAME_label or NAME_gt, with a number behind for
further parts of it: NAME_mask_1, NAME_mask_2. Names may differ by a word in front: img_007 and mask_007.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobileutr_monai.core.kinds import IMAGE_SUFFIXES
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.core.walk import Ignored, list_files
from mobileutr_monai.datasets.tables import compose, read_cases

__all__ = ["Layout", "find_layout", "layout_of_table"]

_MASK_NAME = re.compile(r"(.+?)[ _-](?:mask|segmentation|seg|label|gt)(?:[ _-]?\d+)?", re.IGNORECASE)

_MASK_PREFIX = re.compile(r"(?:mask|segmentation|seg|label|gt)[ _-](?=.)", re.IGNORECASE)
_IMAGE_PREFIX = re.compile(r"(?:image|img)[ _-](?=.)", re.IGNORECASE)
IMAGE_FOLDERS = ("images", "imgs", "image", "img")
MASK_FOLDERS = ("masks", "labels", "mask", "label", "annotations", "gt")


@dataclass
class Layout:
    """The images of a folder and their masks.

    Args:
        mask_folders: what to call the place of the masks, one per class.
        files: how several mask files of a case go together, see ``MaskCoding``.
        images: name -> image.
        masks: for each class, name -> files of its mask.
        diagnosis: name -> folder that the image lies in, where the folders are classes of images.
        orphans: for each class, masks that have no image.
        same_name: pairs of files whose names differ in the suffix only, or in the form of letters: one character or two
            for one with an accent.
        left_out: files that are no images, or lie too deep.
        ignored: what was not looked at, such as links to folders.
        groups, classes: name -> group, class, where a table has them.
        sections: section -> names, where a table has them.
    """

    mask_folders: list[Path]
    files: str
    images: dict[str, Path] = field(default_factory=dict)
    masks: list[dict[str, list[Path]]] = field(default_factory=list)
    diagnosis: dict[str, str] = field(default_factory=dict)
    orphans: list[list[Path]] = field(default_factory=list)
    same_name: list[tuple[Path, Path]] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    sections: dict[str, list[str]] = field(default_factory=dict)

    def without_mask(self, index: int) -> list[str]:
        """Returns the names of the images that have no mask of a class."""
        return sorted(self.images.keys() - self.masks[index].keys())

    def mask_files(self, name: str) -> list[Path]:
        """Returns the mask files of an image, in order of the classes."""
        return [path for masks in self.masks for path in masks.get(name, [])]


def find_layout(root: Path) -> Layout:
    """Pairs the images of a folder with their masks, as far as they go together; hidden files and folders are left out.

    Raises:
        FileNotFoundError: the folder has neither ``images/`` and ``masks/`` nor masks next to their images.
        ValueError: masks lie both in ``masks/`` and in folders of it.
    """
    images, masks = _find_folder(root, IMAGE_FOLDERS), _find_folder(root, MASK_FOLDERS)
    if images is not None:
        layout = None if masks is None else _find_in_folders(images, masks)
    else:
        layout = _find_per_patient(root) or _find_beside(root)
    if layout is None:
        raise FileNotFoundError(_say_what_is_missing(root, images, masks))
    return layout


def layout_of_table(path: Path) -> Layout:
    """Returns the cases of a table by ``read_cases`` as a layout; files need not exist.

    Raises:
        ValueError: the table cannot be read, or its images are volumes.
    """
    layout = Layout(mask_folders=[path.parent], files="class", masks=[{}], orphans=[[]])
    for case in read_cases(path):
        if case.image.name.endswith((".nii", ".nii.gz")):
            raise ValueError(
                f"{path}, line {case.line}: {case.image.name} is a volume; tables of volumes are for mobileutr train "
                "alone, put them into imagesTr/ and labelsTr/ for check and split"
            )
        name = compose(case.image.relative_to(path.parent).with_suffix("").as_posix())
        if name in layout.images:
            layout.same_name.append((layout.images[name], case.image))
            continue
        layout.images[name] = case.image
        if case.masks:
            layout.masks[0][name] = case.masks
        for value, found in ((case.group, layout.groups), (case.kind, layout.classes)):
            if value:
                found[name] = value
        if case.split:
            layout.sections.setdefault(case.split, []).append(name)
    return layout


def _find_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Returns the first folder of some names, in any case."""
    found = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    return next((found[name] for name in names if name in found), None)


def _say_what_is_missing(root: Path, images: Path | None, masks: Path | None) -> str:
    if images is not None and masks is None:
        what = f"has {images.name}/ but no masks/ (or labels/) next to it"
    elif images is not None and masks is not None:
        empty = images if not any(_is_image(path) for path in images.rglob("*")) else masks
        what = f"has {images.name}/ and {masks.name}/, but no images in {empty.name}/"
    elif masks is not None:
        what = f"has {masks.name}/ but no images/ (or imgs/) next to it"
    else:
        what = _say_what_is_near(root)
    return f"{root} {what}; docs/own_data.md shows the layouts"


def _say_what_is_near(root: Path) -> str:
    """Says what is missing from the layout that a folder without images/ and masks/ comes closest to."""
    names = {path.name.lower(): path.name for path in root.glob("[!.]*") if path.is_dir()} if root.is_dir() else {}
    for folder, other in (("imagestr", "labelsTr"), ("labelstr", "imagesTr")):
        if folder in names:
            return f"has {names[folder]}/ but no volumes NAME.nii.gz in it and in {other}/, as nnU-Net has them"
    for name in sorted(names.values()):
        if _find_folder(root / name, IMAGE_FOLDERS) and _find_folder(root / name, MASK_FOLDERS):
            return f"has no images/ and masks/, but {name}/ has: give that folder"
    images = sum(map(_is_image, root.rglob("*"))) if root.is_dir() else 0
    if images:
        return (
            f"has {pluralize(images, 'image')} and no masks: each NAME.png needs NAME_mask.png next to it, or put them "
            "into images/ and masks/ under the same names"
        )
    return "has no images/ with masks/0/ (or masks/) next to it, nor NAME_mask.png next to NAME.png"


def _find_in_folders(images: Path, masks: Path) -> Layout | None:
    patients = {path.name for path in images.glob("[!.]*") if path.is_dir()}
    classes = sorted((p for p in masks.glob("[!.]*") if p.is_dir()), key=_class_order)
    direct = any(_is_image(path) for path in masks.glob("[!.]*"))
    if not direct and patients and patients >= {path.name for path in classes}:  # images/PATIENT/, masks/PATIENT/
        layout = Layout(mask_folders=[masks], files="folder")
        layout.images = _take_images(layout, images, deep=True)
        _take_masks(layout, _take_images(layout, masks, deep=True))
        return _group_by_folder(layout) if layout.masks[0] else None
    if direct and classes:
        raise ValueError(f"{masks} has masks and folders; put the masks into a folder of their class, such as masks/0/")
    layout = Layout(mask_folders=classes or [masks], files="folder")
    layout.images = _take_images(layout, images)
    if not layout.images or not (classes or direct):
        return None
    for folder in layout.mask_folders:
        _take_masks(layout, _take_images(layout, folder))
    return layout


def _find_per_patient(root: Path) -> Layout | None:
    """Finds PATIENT/images/ with PATIENT/masks/."""
    layout = Layout(mask_folders=[root], files="folder")
    found: dict[str, Path] = {}
    for patient in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        images, masks = _find_folder(patient, IMAGE_FOLDERS), _find_folder(patient, MASK_FOLDERS)
        if images is None or masks is None:
            continue
        prefix = compose(patient.name)
        layout.images |= {f"{prefix}/{name}": path for name, path in _take_images(layout, images).items()}
        found |= {f"{prefix}/{name}": path for name, path in _take_images(layout, masks).items()}
    if not layout.images or not found:
        return None
    _take_masks(layout, found)
    return _group_by_folder(layout)


def _group_by_folder(layout: Layout) -> Layout:
    if any("/" in name for name in layout.images):
        layout.diagnosis = {name: name.rpartition("/")[0] for name in layout.images}
    return layout


def _find_beside(root: Path) -> Layout | None:
    layout = Layout(mask_folders=[root], files="merge")
    found = _take_images(layout, root, deep=True)
    layout.images = {name: path for name, path in found.items() if not _MASK_NAME.fullmatch(name)}
    for name in _find_masks_by_prefix(layout.images):
        del layout.images[name]
    _take_masks(layout, {name: path for name, path in found.items() if name not in layout.images})
    return _group_by_folder(layout) if layout.masks[0] else None


def _take_images(layout: Layout, folder: Path, deep: bool = False) -> dict[str, Path]:
    """Returns name, composed, -> image of a folder, with its subfolders if ``deep``, and notes what else there is."""
    found: dict[str, Path] = {}
    listing = list_files(folder)
    layout.ignored += listing.ignored
    for path in listing.paths:
        name = compose(path.relative_to(folder).with_suffix("").as_posix())
        if not _is_image(path) or ("/" in name and not deep):
            layout.left_out.append(path)
        elif name in found:
            layout.same_name.append((found[name], path))
        else:
            found[name] = path
    return found


def _take_masks(layout: Layout, found: dict[str, Path]) -> None:
    """Adds the masks of one class."""
    masks: dict[str, list[Path]] = {}
    orphans = []
    by_number = {_without_prefix(name, _IMAGE_PREFIX): name for name in layout.images}
    for name, path in found.items():
        match = None if name in layout.images else _MASK_NAME.fullmatch(name)
        image = match[1] if match else name
        if image not in layout.images and (other := by_number.get(_without_prefix(name, _MASK_PREFIX))):
            image = other
        if image in layout.images:
            masks.setdefault(image, []).append(path)
        else:
            orphans.append(path)
    layout.masks.append(masks)
    layout.orphans.append(orphans)


def _find_masks_by_prefix(names: Collection[str]) -> list[str]:
    """Returns the names that are masks by the word in front, as there is an image that differs in it only."""
    masks = {name for name in names if _MASK_PREFIX.match(name.rpartition("/")[2])}
    images = {_without_prefix(name, _IMAGE_PREFIX) for name in names if name not in masks}
    return [name for name in masks if _without_prefix(name, _MASK_PREFIX) in images]


def _without_prefix(name: str, prefix: re.Pattern[str]) -> str:
    """Returns a name without the word that tells images or masks: mask_007 and img_007 are both 007."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{prefix.sub('', last)}"


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES


def _class_order(folder: Path) -> tuple[float, str]:
    return (int(folder.name) if folder.name.isdecimal() else math.inf, folder.name)
