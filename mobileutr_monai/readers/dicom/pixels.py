"""DICOM pixels: as a person sees them (8 bit), or as they were measured (after the modality LUT).

pydicom decodes. Added here: palettes of any depth and partial-range colours brought to 8-bit RGB, windows brought to
8 bits, a forced photometric interpretation, and one error for whatever goes wrong. Overlays are not drawn.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import generate_frames, get_frame
from pydicom.pixels import convert_color_space, iter_pixels, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from mobileutr_monai.core.limits import BoundedReader
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.readers.dicom.display import measure_frame, show_frame
from mobileutr_monai.readers.dicom.errors import READ_ERRORS, DicomError
from mobileutr_monai.readers.dicom.header import (
    DicomHeader,
    check_image,
    frame_attributes,
    read_header,
)
from mobileutr_monai.readers.dicom.jpeg12 import register_jpeg_12_bit
from mobileutr_monai.readers.dicom.jpeg_headers import FrameSize, count_encoded_frames, read_frame_size
from mobileutr_monai.readers.pillow_io import to_mode

__all__ = ["PHOTOMETRIC_INTERPRETATIONS", "iter_frames", "iter_values", "read_frame", "read_values"]

# What the samples of a file that lies can be said to be.
PHOTOMETRIC_INTERPRETATIONS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422")

# pydicom 3.0 corrects the signs of these in place, for which ``iter_pixels`` gives it a read-only array.
_CORRECTED = (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)

# pydicom asks GDCM first, which ends the process at broken JPEG 2000.
_SAFER_PLUGINS = ((JPEG2000TransferSyntaxes, "pylibjpeg"), (JPEGLSTransferSyntaxes, "pyjpegls"))

# Bytes of an encoded frame beyond its pixels' own, in shares of them and in bytes: no encoder makes it so much longer.
_EXPANSION, _EXPANSION_BYTES = 2, 2**16


class PixelMismatchError(ValueError):
    """Encoded frames are not those that the header declares; the message is for people."""


def iter_frames(
    path: str | Path, mode: str = "RGB", start: int = 0, stop: int | None = None, photometric: str | None = None
) -> Generator[np.ndarray, None, None]:
    """Yields the frames of a file as a person would see them, one at a time.

    Grey: modality LUT, then VOI LUT or first window; without either, 8-bit values stay as they are, CT gets a
    soft-tissue window and the rest the range of the frame. MONOCHROME1 is inverted.

    Args:
        path: a DICOM file with any number of frames.
        mode: ``"RGB"`` or ``"L"`` (grey), whatever the file holds.
        start: first frame, from 0.
        stop: one more than the last frame; all by default.
        photometric: what the samples are, whatever the header says, one of ``PHOTOMETRIC_INTERPRETATIONS``.

    Shape:
        each frame: (rows, columns, 3) or, for ``"L"``, (rows, columns), uint8.

    Raises:
        DicomError: if the file is no image, or cannot be decoded.
    """
    if mode not in ("RGB", "L"):
        raise ValueError(f'mode is {mode!r}, allowed are "RGB" and "L"')
    if photometric is not None and photometric not in PHOTOMETRIC_INTERPRETATIONS:
        raise ValueError(f"photometric is {photometric!r}, allowed are {', '.join(PHOTOMETRIC_INTERPRETATIONS)}")
    header = read_header(path)
    check_image(header)
    for index, frame in enumerate(_decode(header, start, stop, photometric), start):
        try:
            shown = show_frame(frame, header, index, photometric)
        except READ_ERRORS as error:
            raise _bad_pixels(header, index, error) from None
        yield np.asarray(to_mode(Image.fromarray(shown), mode))


def iter_values(path: str | Path, start: int = 0, stop: int | None = None) -> Generator[np.ndarray, None, None]:
    """Yields the frames of a grey file as they were measured: after the modality LUT, in HU for CT.

    Shape:
        each frame: (rows, columns), float32.

    Raises:
        DicomError: if the file is no grey image, or cannot be decoded.
    """
    header = read_header(path)
    check_image(header)
    if header.samples > 1 or header.dataset.PhotometricInterpretation == "PALETTE COLOR":
        raise DicomError(path, Reason.NOT_A_VOLUME, "a colour image")
    for index, frame in enumerate(_decode(header, start, stop, None), start):
        try:
            yield measure_frame(frame, frame_attributes(header.dataset, index)).astype(np.float32)
        except READ_ERRORS as error:
            raise _bad_pixels(header, index, error) from None


def read_frame(path: str | Path, index: int = 0, mode: str = "RGB", photometric: str | None = None) -> np.ndarray:
    """Returns one frame of ``iter_frames``."""
    with closing(iter_frames(path, mode, index, index + 1, photometric)) as frames:
        return next(frames)


def read_values(path: str | Path, index: int = 0) -> np.ndarray:
    """Returns one frame of ``iter_values``."""
    with closing(iter_values(path, index, index + 1)) as frames:
        return next(frames)


def _decode(header: DicomHeader, start: int, stop: int | None, photometric: str | None) -> Iterator[np.ndarray]:
    """Yields frames as stored, colours as RGB, all of them or an error."""
    stop = header.frames if stop is None else stop
    if not 0 <= start < stop <= header.frames:
        raise DicomError(header.path, Reason.NOT_ONE_FRAME, f"frames {start} to {stop - 1} of 0 to {header.frames - 1}")
    if header.syntax == JPEGExtended12Bit:
        register_jpeg_12_bit()
    interpretation, options = _decoding_options(header, photometric)
    shift = _count_low_bits(header)
    if shift:
        options["bits_stored"] = int(header.dataset.BitsAllocated)
    indices, count = range(start, stop), 0
    try:
        with ExitStack() as files:
            source: Any = files.enter_context(BoundedReader(header.path))
            checked = _check_encoded(header, files.enter_context(BoundedReader(header.path)), indices)
            # A file is read piece by piece. What pydicom would misread so is read whole.
            if not header.declares_syntax or header.syntax == DeflatedExplicitVRLittleEndian:
                source = dcmread(source, force=True)
                source.file_meta.TransferSyntaxUID = UID(header.syntax)
            # Each is checked before it is decoded.
            for _, frame in zip(checked, _read_frames(source, header, indices, options), strict=False):
                values = _keep_stored_bits(frame, header) if shift else frame
                yield _to_rgb(values, interpretation) if frame.ndim == 3 and options.get("raw") else values
                count += 1
    except READ_ERRORS as error:
        raise _bad_pixels(header, start + count, error) from None
    if count < len(indices):
        raise DicomError(header.path, Reason.BAD_PIXELS, f"{pluralize(count, 'frame')}, {len(indices)} declared")


def _check_encoded(header: DicomHeader, file: BoundedReader, indices: range) -> Iterator[None]:
    """Goes through frames, looking at what each says of itself.

    Raises:
        PixelMismatchError: it says to be larger than the header says, or is longer than what the header says can be, or
            there are more than the header says.
    """
    syntax = UID(header.syntax)
    if not syntax.is_encapsulated:
        yield from repeat(None, len(indices))
        return
    offsets = header.dataset.get("ExtendedOffsetTable"), header.dataset.get("ExtendedOffsetTableLengths")
    about: dict[str, Any] = {
        "number_of_frames": header.frames,
        "extended_offsets": offsets if all(offsets) else None,
    }
    pixel_bytes = header.rows * header.columns * header.samples * int(header.dataset.BitsAllocated) // 8
    if indices == range(header.frames):
        encoded = count_encoded_frames(file, header.pixel_place, syntax == RLELossless)
        if encoded > header.frames:
            raise PixelMismatchError(
                f"{pluralize(encoded, 'frame')} encoded, the header declares {header.frames}; correct NumberOfFrames"
            )
    file.seek(header.pixel_place)
    frames = (get_frame(file, index, **about) for index in indices)
    for frame in generate_frames(file, **about) if indices == range(header.frames) else frames:
        if len(frame) > _EXPANSION * pixel_bytes + _EXPANSION_BYTES:
            raise PixelMismatchError(f"{len(frame)} bytes encode {pixel_bytes}")
        declared = FrameSize(header.rows, header.columns, header.samples)
        size = None if syntax == RLELossless else read_frame_size(frame)
        if size is not None and size != declared:
            inside, outside = (f"{s.rows} x {s.columns} pixels of {s.components} samples" for s in (size, declared))
            raise PixelMismatchError(f"the encoded frame has {inside}, the header says {outside}")
        yield


def _read_frames(source: Any, header: DicomHeader, indices: range, options: dict[str, Any]) -> Iterator[np.ndarray]:
    if header.samples == 1 and header.syntax in _CORRECTED:
        return (pixel_array(source, index=index, **options) for index in indices)
    # The frames of a compressed file are found by walking through it, which is quicker done once.
    whole = indices == range(header.frames)
    return iter_pixels(source, indices=None if whole else indices, **options)


def _decoding_options(header: DicomHeader, photometric: str | None) -> tuple[str, dict[str, Any]]:
    """What the samples are, and pydicom's options; with ``raw`` the colours are left to us."""
    dataset = header.dataset
    interpretation = photometric or str(dataset.PhotometricInterpretation)
    options: dict[str, Any] = {}
    for syntaxes, plugin in _SAFER_PLUGINS:
        if header.syntax in syntaxes:
            options["decoding_plugin"] = plugin
    if header.samples == 1:
        return interpretation, options
    if dataset.get("PlanarConfiguration") is None:
        options["planar_configuration"] = 0
    whole_bytes = header.rows * header.columns * header.samples * header.frames
    if UID(header.syntax).is_encapsulated:
        options["raw"] = photometric is not None or interpretation.startswith("YBR_PARTIAL")
    elif interpretation.endswith("_422") and (header.pixel_bytes or 0) >= whole_bytes:
        # Called subsampled, but all samples are there.
        interpretation = interpretation.removesuffix("_422")
        options |= {"raw": True, "photometric_interpretation": "YBR_FULL"}
    else:
        subsampled = "YBR_FULL_422" if interpretation.endswith("_422") else "YBR_FULL"
        is_ybr = interpretation.startswith("YBR")
        options |= {"raw": True, "photometric_interpretation": subsampled if is_ybr else interpretation}
    return interpretation, options


def _count_low_bits(header: DicomHeader) -> int:
    """Returns how many bits below the stored ones a sample has: HighBit counts only where samples are not encoded."""
    syntax = UID(header.syntax)
    high_bit, stored = header.dataset.get("HighBit"), header.dataset.get("BitsStored")
    if (syntax.is_encapsulated and syntax != RLELossless) or high_bit is None or not stored or header.samples > 1:
        return 0
    return int(high_bit) + 1 - int(stored)


def _keep_stored_bits(frame: np.ndarray, header: DicomHeader) -> np.ndarray:
    """Returns samples without the bits above and below the stored ones, with their sign."""
    bits = 8 * frame.dtype.itemsize
    upper = np.left_shift(frame, bits - 1 - int(header.dataset.HighBit))
    return np.asarray(np.right_shift(upper, bits - int(header.dataset.BitsStored)))


def _to_rgb(frame: np.ndarray, interpretation: str) -> np.ndarray:
    if interpretation.startswith("YBR_PARTIAL"):
        # Stretched to the full range: PS3.3 C.7.6.3.1.2.
        low, high = np.float32(16), np.array([235, 240, 240], np.float32)
        full = (frame - low) * (255 / (high - low))
        return _convert_ybr(np.clip(np.rint(full), 0, 255).astype(np.uint8))
    return _convert_ybr(frame) if interpretation.startswith("YBR_FULL") else frame


def _convert_ybr(frame: np.ndarray) -> np.ndarray:
    return np.asarray(convert_color_space(frame, "YBR_FULL", "RGB"))


def _bad_pixels(header: DicomHeader, index: int, error: BaseException) -> DicomError:
    syntax = UID(header.syntax)
    # Decoders quote the file, addresses in memory and each other.
    said = str(error) if isinstance(error, PixelMismatchError) else "they are damaged or cut off"
    if isinstance(error, MemoryError):
        said = "they do not fit into the memory"
    return DicomError(header.path, Reason.BAD_PIXELS, f"frame {index}, {syntax.name} ({syntax}): {said}")
