"""Suffixes of input files, in lower case."""

from __future__ import annotations

__all__ = ["DICOM_SUFFIXES", "IMAGE_SUFFIXES", "VOLUME_SUFFIXES"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
