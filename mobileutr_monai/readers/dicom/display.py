"""DICOM frames as a person sees them: grey levels in 8 bits through LUT or window, palettes as RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.pixels.processing import apply_windowing

from mobileutr_monai.readers.dicom.header import DicomHeader, frame_attributes, numbers
from mobileutr_monai.readers.dicom.luts import MODALITY_LUT, VOI_LUT, apply_table, find_table

__all__ = ["find_padding", "measure_frame", "show_frame"]

# Centre and width of the window for display where a file has none, in HU: soft tissue.
DEFAULT_WINDOWS = {"CT": (40.0, 400.0)}

_PALETTES = ("Red", "Green", "Blue")


def show_frame(frame: np.ndarray, header: DicomHeader, index: int, photometric: str | None) -> np.ndarray:
    """Returns a frame as 8-bit grey or RGB; padding is black whatever the polarity.

    Args:
        frame: as stored, colours as RGB.
        photometric: what the samples are, whatever the header says.
    """
    interpretation = photometric or str(header.dataset.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        return _apply_palette(frame, header.dataset)
    if frame.ndim == 3:
        return _to_bytes(frame, int(header.dataset.BitsStored))
    attributes = frame_attributes(header.dataset, index)
    padding = find_padding(frame, attributes)
    shown = _window(frame, attributes, header.modality, padding)
    if interpretation == "MONOCHROME1":
        shown = 255 - shown
    return shown if padding is None else np.where(padding, np.uint8(0), shown)


def measure_frame(frame: np.ndarray, attributes: Dataset) -> np.ndarray:
    """Returns a frame after its modality LUT, or slope and intercept."""
    # Wide enough for what pydicom computes in the type of the array.
    wide = frame if frame.dtype.kind == "f" else frame.astype(np.int64)
    if attributes.get(MODALITY_LUT):
        table = find_table(attributes, MODALITY_LUT)
        if table is not None:
            return apply_table(wide, table)
        attributes = attributes.group_dataset(0x0028)
        del attributes[MODALITY_LUT]
    return np.asarray(apply_modality_lut(wide, attributes))


def find_padding(frame: np.ndarray, attributes: Dataset) -> np.ndarray | None:
    """Returns which pixels are padding, from PixelPaddingValue to PixelPaddingRangeLimit; None without any.

    PS3.3 C.7.5.1.1.2.

    Shape:
        - output: the frame's.
    """
    value, limit = (numbers(attributes, f"PixelPadding{name}", 1) for name in ("Value", "RangeLimit"))
    if value is None:
        return None
    ends = [_as_stored(end[0], frame) for end in (value, limit or value)]
    padding = (frame >= min(ends)) & (frame <= max(ends))
    return padding if padding.any() else None


def _as_stored(value: float, frame: np.ndarray) -> float:
    """Returns a value that was read as unsigned as one of signed pixels."""
    is_unsigned = frame.dtype.kind == "i" and value > np.iinfo(frame.dtype).max
    return value - 2 ** (8 * frame.dtype.itemsize) if is_unsigned else value


def _window(frame: np.ndarray, attributes: Dataset, modality: str, padding: np.ndarray | None) -> np.ndarray:
    """Grey levels through the VOI LUT, the first window, or what stands in for them, in 8 bits."""
    bits = int(attributes.get("BitsStored") or 0)
    values = measure_frame(frame, attributes)
    # What LINEAR subtracts from the width, one step of an integer, is nothing to fractions.
    shape = "LINEAR_EXACT" if frame.dtype.kind == "f" else str(attributes.get("VOILUTFunction") or "LINEAR")
    window = _read_window(attributes, shape)
    table = find_table(attributes, VOI_LUT)
    if table is not None:
        looked_up = apply_table(np.rint(values).astype(np.int64), table)
        highest = int(table.entries.max())
        if highest.bit_length() == table.bits:
            return _to_bytes(looked_up, table.bits)
        # Some tables have fewer bits than they declare.
        return np.asarray(np.rint(looked_up * (255 / max(1, highest))), np.uint8)
    is_bytes = 0 < bits <= 8 and frame.dtype.kind == "u" and find_table(attributes, MODALITY_LUT) is None
    if window is None and is_bytes:
        return _to_bytes(frame, bits)
    if window is None and modality in DEFAULT_WINDOWS and "RescaleSlope" in attributes:
        window = DEFAULT_WINDOWS[modality]
    if window is None:
        return _stretch(values, padding)
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


def _stretch(values: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """The range of the values becomes 0 to 255; padding and what is not finite is left out of it."""
    values = values.astype(np.float64)
    counts = np.isfinite(values)
    if padding is not None:
        counts &= ~padding
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
    # pydicom takes the byte order into account of segmented palettes only.
    if not dataset.original_encoding[1] and "RedPaletteColorLookupTableData" in palette:
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
