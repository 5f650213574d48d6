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
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, get_frame
from pydicom.pixels import apply_color_lut, apply_modality_lut, convert_color_space, iter_pixels, pixel_array
from pydicom.pixels.processing import apply_voi, apply_windowing
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
from mobileutr_monai.readers.dicom.errors import READ_ERRORS, DicomError
from mobileutr_monai.readers.dicom.header import (
    DicomHeader,
    check_image,
    frame_attributes,
    numbers,
    read_header,
)
from mobileutr_monai.readers.dicom.jpeg12 import register_jpeg_12_bit
from mobileutr_monai.readers.dicom.jpeg_headers import FrameSize, read_frame_size
from mobileutr_monai.readers.pillow_io import to_mode

__all__ = ["PHOTOMETRIC_INTERPRETATIONS", "iter_frames", "iter_values", "read_frame", "read_values"]

# What the samples of a file that lies can be said to be.
PHOTOMETRIC_INTERPRETATIONS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422")

# Centre and width of the window for display where a file has none, in HU: soft tissue.
DEFAULT_WINDOWS = {"CT": (40.0, 400.0)}

# pydicom 3.0 corrects the signs of these in place, for which ``iter_pixels`` gives it a read-only array.
_CORRECTED = (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)

# pydicom asks GDCM first, which ends the process at broken JPEG 2000.
_SAFER_PLUGINS = ((JPEG2000TransferSyntaxes, "pylibjpeg"), (JPEGLSTransferSyntaxes, "pyjpegls"))

_PALETTES = ("Red", "Green", "Blue")

# Bytes of an encoded frame beyond its pixels' own, in shares of them and in bytes: no encoder makes it so much longer.
_EXPANSION, _EXPANSION_BYTES = 2, 2**16


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
            shown = _show(frame, header, index, photometric)
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
            yield _measure(frame, frame_attributes(header.dataset, index)).astype(np.float32)
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
                yield _to_rgb(frame, interpretation) if frame.ndim == 3 and options.get("raw") else frame
                count += 1
    except READ_ERRORS as error:
        raise _bad_pixels(header, start + count, error) from None
    if count < len(indices):
        raise DicomError(header.path, Reason.BAD_PIXELS, f"{pluralize(count, 'frame')}, {len(indices)} declared")


def _check_encoded(header: DicomHeader, file: BoundedReader, indices: range) -> Iterator[None]:
    """Goes through frames, looking at what each says of itself.

    Raises:
        ValueError: it says to be larger than the header says, or is longer than what the header says can be.
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
    file.seek(header.pixel_place)
    frames = (get_frame(file, index, **about) for index in indices)
    for frame in generate_frames(file, **about) if indices == range(header.frames) else frames:
        if len(frame) > _EXPANSION * pixel_bytes + _EXPANSION_BYTES:
            raise ValueError(f"{len(frame)} bytes encode {pixel_bytes}")
        declared = FrameSize(header.rows, header.columns, header.samples)
        size = None if syntax == RLELossless else read_frame_size(frame)
        if size is not None and size != declared:
            inside, outside = (f"{s.rows} x {s.columns} pixels of {s.components} samples" for s in (size, declared))
            raise ValueError(f"the encoded frame has {inside}, the header says {outside}")
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


def _to_rgb(frame: np.ndarray, interpretation: str) -> np.ndarray:
    if interpretation.startswith("YBR_PARTIAL"):
        # Stretched to the full range: PS3.3 C.7.6.3.1.2.
        low, high = np.float32(16), np.array([235, 240, 240], np.float32)
        full = (frame - low) * (255 / (high - low))
        return _convert_ybr(np.clip(np.rint(full), 0, 255).astype(np.uint8))
    return _convert_ybr(frame) if interpretation.startswith("YBR_FULL") else frame


def _convert_ybr(frame: np.ndarray) -> np.ndarray:
    return np.asarray(convert_color_space(frame, "YBR_FULL", "RGB"))


def _show(frame: np.ndarray, header: DicomHeader, index: int, photometric: str | None) -> np.ndarray:
    """A frame as 8-bit grey or RGB."""
    interpretation = photometric or str(header.dataset.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        return _apply_palette(frame, header.dataset)
    if frame.ndim == 3:
        return _to_bytes(frame, int(header.dataset.BitsStored))
    shown = _window(frame, frame_attributes(header.dataset, index), header.modality)
    return 255 - shown if interpretation == "MONOCHROME1" else shown


def _measure(frame: np.ndarray, attributes: Dataset) -> np.ndarray:
    # Wide enough for what pydicom computes in the type of the array.
    wide = frame if frame.dtype.kind == "f" else frame.astype(np.int64)
    return np.asarray(apply_modality_lut(wide, attributes))


def _window(frame: np.ndarray, attributes: Dataset, modality: str) -> np.ndarray:
    """Grey levels through the VOI LUT, the first window, or what stands in for them, in 8 bits."""
    bits = int(attributes.get("BitsStored") or 0)
    values = _measure(frame, attributes)
    # What LINEAR subtracts from the width, one step of an integer, is nothing to fractions.
    shape = "LINEAR_EXACT" if frame.dtype.kind == "f" else str(attributes.get("VOILUTFunction") or "LINEAR")
    window = _read_window(attributes, shape)
    if attributes.get("VOILUTSequence"):
        looked_up = apply_voi(np.rint(values).astype(np.int64), attributes)
        return _to_bytes(looked_up, int(attributes.VOILUTSequence[0].LUTDescriptor[2]))
    is_bytes = 0 < bits <= 8 and frame.dtype.kind == "u" and not attributes.get("ModalityLUTSequence")
    if window is None and is_bytes:
        return _to_bytes(frame, bits)
    if window is None and modality in DEFAULT_WINDOWS and "RescaleSlope" in attributes:
        window = DEFAULT_WINDOWS[modality]
    if window is None:
        return _stretch(frame, values, numbers(attributes, "PixelPaddingValue", 1))
    display = Dataset()
    display.BitsStored, display.PixelRepresentation, display.PhotometricInterpretation = 8, 0, "MONOCHROME2"
    display.WindowCenter, display.WindowWidth = window
    display.VOILUTFunction = shape
    return np.asarray(np.clip(np.rint(apply_windowing(values, display)), 0, 255), np.uint8)


def _read_window(attributes: Dataset, shape: str) -> tuple[float, float] | None:
    """Centre and width of the first window that can be applied."""
    center, width = (_first(attributes.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    least = 1 if shape == "LINEAR" else np.finfo(np.float32).tiny
    return (center, width) if center is not None and width is not None and width >= least else None


def _first(value: Any) -> float | None:
    try:
        return float(value[0] if isinstance(value, (list, tuple)) or hasattr(value, "append") else value)
    except (TypeError, ValueError, IndexError):
        return None


def _stretch(frame: np.ndarray, values: np.ndarray, padding: tuple[float, ...] | None) -> np.ndarray:
    """The range of the values becomes 0 to 255; padding and what is not finite is left out of it."""
    values = values.astype(np.float64)
    counts = np.isfinite(values)
    if padding is not None:
        counts &= frame != padding[0]
    if not counts.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[counts].min(), values[counts].max()
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / (high - low) if high > low else 0)
    return np.asarray(np.rint(np.clip(scaled, 0, 255)), np.uint8)


def _apply_palette(frame: np.ndarray, dataset: Dataset) -> np.ndarray:
    count, first, bits = (int(v) for v in dataset.RedPaletteColorLookupTableDescriptor)
    palette = Dataset()
    palette.update({element.tag: element for element in dataset.group_dataset(0x0028) if "Palette" in element.keyword})
    palette.set_original_encoding(*dataset.original_encoding)
    if not dataset.original_encoding[1]:
        for name in _PALETTES:
            data = palette[f"{name}PaletteColorLookupTableData"]
            data.value = np.frombuffer(data.value, ">u2").astype("<u2").tobytes()
    count = count or 2**16
    table = apply_color_lut(np.arange(first, first + count), palette)[:, :3]
    # Some 16-bit tables hold 8-bit entries.
    if bits == 16 and table.max() < 256:
        bits = 8
    return _to_bytes(table, bits)[np.clip(frame.astype(np.int64) - first, 0, count - 1)]


def _to_bytes(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned values of so many bits as bytes: the high ones, or the range stretched."""
    if bits > 8:
        values = values >> (bits - 8)
    elif bits < 8:
        values = np.rint(values * (255 / (2**bits - 1)))
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def _bad_pixels(header: DicomHeader, index: int, error: BaseException) -> DicomError:
    syntax = UID(header.syntax)
    # What decoders say is wanted, what quotes the file is not.
    said = error if isinstance(error, (RuntimeError, ValueError)) else type(error).__name__
    return DicomError(header.path, Reason.BAD_PIXELS, f"frame {index}, {syntax.name} ({syntax}): {said}")
