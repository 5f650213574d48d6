"""Lookup tables of grey DICOM images: modality LUT and VOI LUT (PS3.3 C.11.1 and C.11.2).

pydicom's own functions fail on tables without a descriptor or data and trust the depth that the descriptor declares. A
table that cannot be used is ignored here, as the standard's identity, and that is said.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset

__all__ = ["MODALITY_LUT", "VOI_LUT", "LookupTable", "apply_table", "explain_unusable", "find_table"]

MODALITY_LUT, VOI_LUT = "ModalityLUTSequence", "VOILUTSequence"
_NAMES = {MODALITY_LUT: "modality LUT", VOI_LUT: "VOI LUT"}
_DEPTHS = range(8, 17)
_SIGN = 2**15


class LookupTable(NamedTuple):
    """A table, and the value that its first entry stands for; values outside get its first or last entry.

    Attributes:
        bits: of an entry, as declared.
    """

    first: int
    entries: np.ndarray
    bits: int


def find_table(attributes: Dataset, keyword: str) -> LookupTable | None:
    """Returns the first table of a sequence, None if there is none or it cannot be used."""
    return None if not attributes.get(keyword) else _read_table(attributes, keyword)[0]


def explain_unusable(attributes: Dataset) -> list[str]:
    """Returns what is wrong with the tables that are ignored, in words for the report."""
    found = []
    for keyword, name in _NAMES.items():
        if attributes.get(keyword):
            table, problem = _read_table(attributes, keyword)
            if table is None:
                found.append(f"the {name} is ignored: {problem}")
            elif keyword == VOI_LUT and int(table.entries.max()).bit_length() < table.bits:
                stored = int(table.entries.max()).bit_length()
                found.append(f"the {name} declares {table.bits} bits, its values have {stored}: their maximum is white")
    return found


def apply_table(values: np.ndarray, table: LookupTable) -> np.ndarray:
    """Returns what a table has for each value.

    Shape:
        - values: any, integers; output: the same.
    """
    first = table.first
    # Of signed values the first may have been read as unsigned.
    if first >= _SIGN and values.size and values.min() < 0:
        first -= 2 * _SIGN
    places = np.clip(values.astype(np.int64) - first, 0, len(table.entries) - 1)
    return np.asarray(table.entries[places])


def _read_table(attributes: Dataset, keyword: str) -> tuple[LookupTable | None, str]:
    item = attributes[keyword].value[0]
    descriptor = _numbers(item.get("LUTDescriptor"))
    if len(descriptor) != 3:
        return None, "it has no LUTDescriptor"
    count, first, bits = descriptor
    count = count or 2**16
    if count < 0:  # read as signed
        count += 2**16
    if bits not in _DEPTHS:
        return None, f"its entries have {bits} bits"
    data: Any = item.get("LUTData")
    if isinstance(data, bytes):
        order = "<" if attributes.original_encoding[1] is not False else ">"
        is_bytes = bits == 8 and len(data) < 2 * count
        entries = np.frombuffer(
            data[: len(data) // 2 * 2] if not is_bytes else data, "u1" if is_bytes else f"{order}u2"
        )
    else:
        entries = np.asarray(_numbers(data), np.int64)
    if len(entries) < count:
        return None, f"its LUTData has {len(entries)} of {count} entries"
    entries = entries[:count].astype(np.int64)
    return LookupTable(first, np.where(entries < 0, entries + 2**16, entries), bits), ""


def _numbers(value: Any) -> list[int]:
    try:
        if value is None or isinstance(value, (str, bytes)):
            return []
        return [int(v) for v in value] if hasattr(value, "__iter__") else [int(value)]
    except (TypeError, ValueError, OverflowError):
        return []
