"""Writing results so that a file is whole or absent."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from PIL import Image

from mobileutr_monai.data.nifti import read_unit

__all__ = ["save_label_image", "save_label_volume", "save_picture", "unfinished", "write_text", "write_whole"]


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file under another name, forces it to the disk, and gives it its name."""
    temporary = unfinished(path)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """Returns the name that a file has while it is written; one that is left was being written by a killed run."""
    return path.with_name(f"{path.name}.tmp")


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a PNG."""
    write_whole(path, lambda file: picture.save(file, format="PNG"))


def save_label_image(label: np.ndarray, path: Path) -> None:
    """Writes label indices as an 8-bit PNG.

    Shape:
        - label: (rows, columns).
    """
    save_picture(Image.fromarray(label.astype(np.uint8)), path)


def save_label_volume(label: np.ndarray, source: nib.nifti1.Nifti1Image, path: Path) -> None:
    """Writes label indices as an 8-bit, compressed NIfTI with the geometry of the volume that they belong to.

    Shape:
        - label: the source's own.
    """
    header = nib.nifti1.Nifti1Header()
    header.set_xyzt_units(xyz=read_unit(source.header))
    output = nib.nifti1.Nifti1Image(np.asarray(label, np.uint8), source.affine, header)
    output.set_sform(source.affine, max(1, int(source.header["sform_code"])))
    output.set_qform(source.affine, max(1, int(source.header["qform_code"])), strip_shears=True)
    # nibabel would put the time and the name into the gzip header; without them a run's bytes are the same every time.
    data = output.to_bytes()
    write_whole(path, lambda file: file.write(gzip.compress(data, compresslevel=6, mtime=0)))
