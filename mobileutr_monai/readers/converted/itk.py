"""NRRD and MetaImage, converted to NIfTI by SimpleITK in a process of its own: ``python -m ... SOURCE TARGET``.

A file that crashes the library, takes too long or declares too much costs itself only. A volume whose file defines no
voxel size gets a NIfTI file without qform and sform, of which nothing is measured in mm.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from mobileutr_monai.core.limits import MAX_VOLUME_VOXELS
from mobileutr_monai.core.reasons import CaseError, Reason

__all__ = ["can_convert", "convert_to_nifti"]

PACKAGE = "SimpleITK"
TIME_LIMIT = 600.0
"""Seconds for one file."""

_HEADER_BYTES = 2**16
_DATA_FILE = re.compile(rb"^(?:data ?file:|ElementDataFile\s*=)\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_SPACING = re.compile(rb"^(?:space directions:|spacings:|ElementSpacing\s*=)", re.MULTILINE)
_SEGMENTATION = re.compile(rb"^Segment\d+_ID:=", re.MULTILINE)


def can_convert() -> bool:
    """Whether SimpleITK is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def convert_to_nifti(source: Path, target: Path) -> None:
    """Writes a volume or an image as NIfTI, with the date of its source.

    Args:
        target: file to make, ending in .nii, in a folder that need not exist.

    Raises:
        CaseError: the file cannot be converted.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", __name__, str(source), str(target)]
    try:
        ended = subprocess.run(  # noqa: S603 - this module
            command, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise CaseError(Reason.TIME, f"converting it took more than {TIME_LIMIT:g} s") from None
    if ended.returncode < 0:
        raise CaseError(Reason.CRASH, f"{PACKAGE} ended with signal {-ended.returncode}")
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise CaseError(Reason.UNREADABLE, lines[-1] if lines else f"{PACKAGE} cannot read it")
    stat = source.stat()
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # so that a run can be resumed


def check_header(start: bytes) -> None:
    """Checks what a file says before its values.

    Raises:
        ValueError: it is a segmentation, or its values are in a file elsewhere.
    """
    if _SEGMENTATION.search(start):
        raise ValueError("it is a segmentation of 3D Slicer, not an image")
    for match in _DATA_FILE.finditer(start):
        name = match[1].decode("utf-8", "replace")
        if re.search(r"[/\\%]", name) or name.upper().startswith("LIST"):
            raise ValueError(f"its values are in {name!r}; put them into one file next to it, or in it")


def main(source: Path, target: Path) -> None:
    """Converts in this process.

    Raises:
        ValueError: it cannot be read, or is too large.
    """
    import nibabel as nib
    import numpy as np
    import SimpleITK as sitk  # noqa: N813 - as everybody has it

    with source.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    check_header(start)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(source))
    try:
        reader.ReadImageInformation()
        voxels = 1
        for side in reader.GetSize():
            voxels *= int(side)
        if voxels * reader.GetNumberOfComponents() > MAX_VOLUME_VOXELS:
            raise ValueError(f"{voxels} voxels are declared, limit {MAX_VOLUME_VOXELS}")
        sitk.WriteImage(reader.Execute(), str(target))
    except RuntimeError as error:  # ITK's, of many lines, the last of which says what is wrong
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ITK ERROR: ")) from None
    if not _SPACING.search(start):
        image = nib.Nifti1Image.from_filename(target)
        values = np.array(image.dataobj)  # not mapped from the file that is written now
        image.set_qform(None, code=0)
        image.set_sform(None, code=0)
        nib.save(nib.Nifti1Image(values, None, image.header), target)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ValueError, OSError, MemoryError) as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        sys.exit(1)
