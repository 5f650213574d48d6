"""What readers raise on files that are broken; also without pydicom and torch."""

from __future__ import annotations

import struct
import zlib

__all__ = ["READ_ERRORS"]

READ_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Of Python, its libraries and the decoders; Pillow, pydicom and zipfile have some of their own."""
