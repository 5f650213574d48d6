"""What every result says of its use."""

from __future__ import annotations

__all__ = ["NOTICE", "SHORT_NOTICE"]

NOTICE = "Research only. Not a medical device; not for diagnosis or treatment."

SHORT_NOTICE = "Research only. Not for diagnosis or treatment."
"""For fields of DICOM and NIfTI, which hold 64 and 80 characters."""
