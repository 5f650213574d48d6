"""Label maps as NIfTI."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.readers.nifti_geometry import make_label_header

__all__ = ["save_label_volume"]


def save_label_volume(label: np.ndarray, source: nib.nifti1.Nifti1Header, path: Path) -> None:
    """Writes label indices as an 8-bit, compressed NIfTI with the geometry of the image that they belong to.

    Args:
        source: header of that image; qform, sform, their codes, voxel sizes and unit are copied as they are.

    Shape:
        - label: (columns, rows) or (x, y, z).
    """
    header = make_label_header(source, label.shape)
    kind = nib.nifti2.Nifti2Image if isinstance(header, nib.nifti2.Nifti2Header) else nib.nifti1.Nifti1Image
    # Without an affine, nibabel leaves the header as it is.
    output = kind(np.asarray(label, np.uint8), None, header)
    # nibabel would put the time and the name into the gzip header; without them a run's bytes are the same every time.
    data = output.to_bytes()
    write_atomic(path, lambda file: file.write(gzip.compress(data, compresslevel=6, mtime=0)))
