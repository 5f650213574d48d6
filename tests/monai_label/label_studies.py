"""What lies in the folders of the servers: real images in every form, and files that are broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from label_service import BREAST, HIPPOCAMPUS
from PIL import Image


def write_pictures(folder: Path) -> None:
    """Writes one picture in every form that a picture comes in."""
    source = BREAST / "sample_data" / "images" / "malignant (53).jpg"  # a lesion that is found
    picture = Image.open(source).convert("RGB").crop((0, 0, 201, 177))
    grey = np.asarray(picture.convert("L"))
    picture.save(folder / "rgb.png")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("RGBA").save(folder / "rgba.png")
    picture.quantize(64).save(folder / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    picture.save(folder / "photo.jpg", quality=90)
    shutil.copy(source, folder / "whole sample.jpeg")
    nib.save(nib.nifti1.Nifti1Image(grey.T, np.eye(4)), folder / "flat.nii.gz")


def write_volumes(folder: Path) -> None:
    """Writes volumes, one of them with other directions of its axes."""
    sources = sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[:2]
    for source in sources:
        shutil.copy(source, folder)
    image = nib.load(sources[0])
    turned = np.flip(np.asarray(image.dataobj).transpose(1, 0, 2), 0)
    affine = np.array(image.affine)[:, [1, 0, 2, 3]]
    affine[:3, 3] += affine[:3, 0] * (turned.shape[0] - 1)
    affine[:3, 0] *= -1
    nib.save(nib.nifti1.Nifti1Image(turned.copy(), affine), folder / "turned.nii.gz")


def write_broken(folder: Path) -> None:
    """Writes files that are not what their names say."""
    sample = sorted(folder.glob("*.jpg"))[0]
    (folder / "cut.jpg").write_bytes(sample.read_bytes()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "noise.nii.gz").write_text("not a volume")
    nib.save(nib.nifti1.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), folder / "volume.nii.gz")


def read_truth(image: Path) -> np.ndarray:
    """Returns the true mask of a breast sample, 0 and 1."""
    with Image.open(BREAST / "sample_data" / "masks" / "0" / f"{image.stem}.png") as mask:
        return (np.asarray(mask.convert("L")) > 127).astype(np.uint8)
