"""12-bit JPEG (Process 4) for pydicom, by GDCM.

pydicom hands GDCM single frames and refuses this one kind; of the permissive decoders only GDCM reads it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydicom.pixels.decoders import JPEGExtended12BitDecoder
from pydicom.uid import JPEGExtended12Bit

__all__ = ["register_jpeg_12_bit"]

# pydicom asks plug-ins for this when they are not available.
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("python-gdcm>=3.0.10",)}


@cache
def register_jpeg_12_bit() -> None:
    """Adds the decoder to pydicom's, behind its own."""
    JPEGExtended12BitDecoder.add_plugin("gdcm_12_bit", (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    """Whether GDCM is installed; pydicom asks."""
    try:
        import gdcm  # noqa: F401
    except ImportError:
        return False
    return uid == JPEGExtended12Bit


def decode_frame(source: bytes, runner: Any) -> bytes:
    """Decodes one frame, for pydicom's ``DecodeRunner``."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(runner.photometric_interpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    bits = runner.bits_stored
    image.SetPixelFormat(
        gdcm.PixelFormat(runner.samples_per_pixel, runner.bits_allocated, bits, bits - 1, runner.pixel_representation)
    )
    # GDCM gives its buffer as text.
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))
