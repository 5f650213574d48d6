"""Label maps as NIfTI."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.readers.nifti import read_unit

__all__ = ["save_label_volume"]


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
    write_atomic(path, lambda file: file.write(gzip.compress(data, compresslevel=6, mtime=0)))
