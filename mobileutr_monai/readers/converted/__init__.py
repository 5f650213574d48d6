"""Formats that are converted to NIfTI before they are read."""
