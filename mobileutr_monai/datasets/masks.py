"""How masks are coded, and what their values stand for.

A coding is declared once for a data set, as ``mask_coding`` in its datalist or as an option, or guessed from all its
masks. What it does not cover is refused, never guessed file by file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobileutr_monai.readers.pillow_io import open_image, to_mask

__all__ = ["MaskCoding", "ValueCounts", "guess_coding", "parse_coding", "read_mask"]

FILES = ("class", "folder", "merge")
KINDS = ("two-valued", "threshold", "indices", "values")
THRESHOLDS = {"0/1": 0.5, "0/255": 127.5, "0/65535": 32767.5}
WAY_OUT = "declare the coding with --masks, or mask_coding in the datalist"

LOW, HIGH = 31, 224
"""Values of 8 bit up to and from which a pixel is nearly background, nearly foreground."""

FLAT_SHARE = 0.05
"""Share of a value's pixels with eight like neighbours from which it is a level of its own and not part of an edge."""

FEW_VALUES = 8
"""Up to this many different values, small ones are no traces of compression."""

LARGEST_INDEX = 31
"""Largest value that is taken for a class index without a declaration."""

MOST_VALUES = 65536
"""Different values that are counted: as many as 16 bit have. Masks have few; photographs taken for masks have more."""

UNNAMED = "NAME?"
"""Stands in a proposed coding for the number of a label that only a person knows."""

CLUSTER_DISTANCE = 64
"""Grey levels (in each colour channel) around a frequent value whose values count as traces of it."""

SMALLEST_CLUSTER = 0.002
"""Share of all level pixels from which a cluster of values is proposed as a class."""

MOST_PROPOSED = 12
"""Values that a proposal has at most."""

LOSSY_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class MaskCoding:
    """What the values of masks stand for, and how several files of a case go together.

    Args:
        kind: ``"two-valued"``: each file has a background of 0 and a foreground of 1, 255, 65535 or one colour,
            perhaps with soft edges. ``"threshold"``: foreground is above ``threshold``. ``"indices"``: values are class
            indices. ``"values"``: each value's class index is in ``values``.
        threshold: for ``"threshold"``.
        values: stored value, as ``to_mask`` gives it, -> class index, 0 for background.
        tolerance: grey levels (in each colour channel) by which a pixel may miss a value, for lossy files.
        files: several files of a case are one class each in order (``"class"``), one class per folder in order of the
            folders (``"folder"``), or parts of one mask (``"merge"``). Masks with class indices are merged.
    """

    kind: str = "two-valued"
    threshold: float = 127.5
    values: Mapping[int, int] = field(default_factory=dict)
    tolerance: int = 0
    files: str = "class"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"mask coding kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.files not in FILES:
            raise ValueError(f"mask coding files must be one of {', '.join(FILES)}, got {self.files!r}")
        if self.kind == "values" and not self.values:
            raise ValueError("mask coding 'values' needs values, such as 0=0,128=1 or #000000=0,#ff0000=1")
        if any(not 0 <= index <= 255 for index in self.values.values()):
            raise ValueError(f"class indices of a mask coding must be in 0 to 255, got {sorted(self.values.values())}")

    def __str__(self) -> str:
        if self.kind == "threshold":
            return next(
                (name for name, t in THRESHOLDS.items() if t == self.threshold), f"threshold={self.threshold:g}"
            )
        return _format_pairs(self.values) if self.kind == "values" else self.kind

    def to_json(self) -> dict[str, Any]:
        """Returns the coding as a datalist holds it; ``parse_coding`` reads it back."""
        entry: dict[str, Any] = {"kind": self.kind, "files": self.files}
        if self.kind == "threshold":
            entry["threshold"] = self.threshold
        if self.kind == "values":
            entry |= {"values": {_format_value(v): i for v, i in self.values.items()}, "tolerance": self.tolerance}
        return entry

    def decode(self, masks: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
        """Merges the masks of a case, as ``to_mask`` gives them, into a label map; a later file wins.

        Args:
            masks: values of each file.
            names: path of each file.

        Shape:
            - masks: (rows, columns) each, output: (rows, columns), uint8.

        Raises:
            ValueError: a mask has values that the coding does not cover, or another size than the first.
        """
        label = np.zeros(masks[0].shape, np.uint8)
        folders = list(dict.fromkeys(str(Path(name).parent) for name in names))
        for number, (values, name) in enumerate(zip(masks, names, strict=True), start=1):
            if values.shape != label.shape:
                raise ValueError(f"{name} is {_size(values)}, but {names[0]} of the same case {_size(label)}")
            part = self._decode_file(values, name)
            if self.kind in ("two-valued", "threshold") and self.files != "merge":
                part = part * np.uint8(number if self.files == "class" else folders.index(str(Path(name).parent)) + 1)
            np.copyto(label, part, where=part > 0)
        return label

    def _decode_file(self, values: np.ndarray, name: str) -> np.ndarray:
        if self.kind == "values":
            return self._look_up(values, name)
        if self.kind == "two-valued":
            return _decode_two_valued(values, name)
        low, high = values.min(), values.max()
        if low < 0:
            raise ValueError(f"mask {name} has colours ({_format_value(low)}), but the coding is {self}; {WAY_OUT}")
        if self.kind == "threshold":
            return (values > self.threshold).astype(np.uint8)
        if high >= 255 or (values != values.astype(np.uint8)).any():
            raise ValueError(f"mask {name} has the value {high:g}, which is no class index; {WAY_OUT}, with {high:g}=0")
        return values.astype(np.uint8)

    def _look_up(self, values: np.ndarray, name: str) -> np.ndarray:
        found, places = np.unique(values, return_inverse=True)
        codes = list(self.values)
        distance = np.abs(_channels(found)[:, None] - _channels(np.array(codes))[None]).max(axis=-1)
        unknown = found[distance.min(axis=1) > self.tolerance]
        if len(unknown):
            raise ValueError(
                f"mask {name} has values that the coding {self} lacks: {_format_values(unknown)}; "
                f"fix the mask, or {WAY_OUT}"
            )
        indices = np.array(list(self.values.values()), np.uint8)[distance.argmin(axis=1)]
        label: np.ndarray = indices[places].reshape(values.shape)
        return label


def parse_coding(coding: MaskCoding | Mapping[str, Any] | str, files: str = "class") -> MaskCoding:
    """Reads a coding from a datalist's entry or from text.

    Text is ``two-valued``, ``indices``, ``0/1``, ``0/255``, ``0/65535``, ``threshold=NUMBER``, or pairs
    ``VALUE=INDEX,...`` whose values are grey levels or colours ``#rrggbb``, perhaps with ``tolerance=NUMBER``.

    Args:
        coding: a coding is returned as it is.
        files: for a text or an entry that does not say it.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(coding, MaskCoding):
        return coding
    try:
        if isinstance(coding, str):
            return _parse_text(coding.strip(), files)
        entry = {"files": files, **coding}
        entry["values"] = {_parse_value(value): int(index) for value, index in entry.get("values", {}).items()}
        return MaskCoding(**entry)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"mask coding {coding!r} cannot be read: {error}") from None


def read_mask(path: str | Path) -> np.ndarray:
    """Returns a mask's values as ``to_mask`` gives them, or those of a 2D NIfTI; an error names the file."""
    try:
        with open_image(path, "mask") as image:
            return to_mask(image)
    except ValueError:
        from mobileutr_monai.readers.nifti import NiftiImageReader, is_nifti  # and MONAI, which pictures do without

        if not is_nifti(Path(path)):
            raise
    values, _ = NiftiImageReader("L").get_data([Path(path)])
    return np.ascontiguousarray(values.T)


class ValueCounts:
    """How often each value occurs in masks, added one at a time; keeps counts, not masks."""

    def __init__(self) -> None:
        self.pixels: Counter[float] = Counter()
        self.flat: Counter[float] = Counter()
        self.example: dict[float, str] = {}
        self.masks = 0
        self.lossy = ""
        self.both_foregrounds = ""

    def add(self, values: np.ndarray, name: str) -> None:
        """Counts the values of a mask."""
        found = _count(values)
        self.masks += 1
        self.pixels.update(found)
        for value in found:
            self.example.setdefault(value, name)
        if name.lower().endswith(LOSSY_SUFFIXES):
            self.lossy = self.lossy or name
        if {1, 255} <= found.keys():
            self.both_foregrounds = self.both_foregrounds or name
        self.flat.update(_count(_flat_values(values)) if len(found) > 2 else found)

    def update(self, other: ValueCounts) -> None:
        """Adds the counts of other masks; new values are left out once there are ``MOST_VALUES``."""
        self.masks += other.masks
        self.lossy = self.lossy or other.lossy
        self.both_foregrounds = self.both_foregrounds or other.both_foregrounds
        for value, number in other.pixels.items():
            if value in self.pixels or len(self.pixels) < MOST_VALUES:
                self.pixels[value] += number
                self.flat[value] += other.flat[value]
                self.example.setdefault(value, other.example[value])

    def levels(self) -> list[float]:
        """Returns the values that fill areas, sorted; the others are edges."""
        return sorted(value for value, n in self.flat.items() if n and n >= FLAT_SHARE * self.pixels[value])


def guess_coding(counts: ValueCounts, files: str = "class") -> tuple[MaskCoding, str]:
    """Tells the coding of all masks of a data set from their values, and why.

    Raises:
        ValueError: it could be more than one; the message has a file, its values and what to declare.
    """
    if not counts.masks:
        raise ValueError("there is no mask to tell the coding from")
    values = sorted(counts.pixels)
    n = f"all {counts.masks} masks" if counts.masks > 1 else "the mask"
    if values == [0]:
        return MaskCoding(files=files), f"{n} are empty: any coding of two values will do"
    if set(values) <= {0, 1, 255} and {1, 255} <= set(values) and not counts.both_foregrounds:
        return MaskCoding(files=files), f"{n} have two values, 0/1 in some and 0/255 in others"
    found = _find_threshold(counts)
    if found is not None:
        return MaskCoding("threshold", found[0], files=files), f"{n} have {found[1]}"
    if len(values) == 2 and 0 in values:
        (other,) = (value for value in values if value)
        pair = {0: 0, int(other): 1}
        return MaskCoding("values", values=pair, files=files), f"{n} have two values, 0 and {_format_value(other)}"
    if _are_indices(values) and not counts.lossy:
        indices = {int(value): int(value) for value in values}
        gaps = sorted(set(range(int(values[-1]) + 1)) - indices.keys())
        missing = f"; no mask has {_format_values(gaps)}" if gaps else ""
        return (
            MaskCoding("values", values=indices, files=files),
            f"{n} have small whole numbers, class indices 0 to {values[-1]:g}{missing}",
        )
    raise ValueError(_explain_doubt(counts))


def _find_threshold(counts: ValueCounts) -> tuple[float, str] | None:
    """Returns the threshold between two levels, and what was seen, or None where there are not two."""
    values = sorted(counts.pixels)
    top = values[-1]
    if values[0] < 0:
        return None
    if set(values) <= {0, top} and top in (1, 255, 65535):
        name = f"0/{top:g}"
        return THRESHOLDS[name], f"the values {name}" if len(values) == 2 else f"the value {top:g} alone"
    if top <= 1:
        return 0.5, f"fractions from {values[0]:g} to {top:g}: soft masks, foreground is above 0.5"
    if not HIGH <= top <= 255 or values[0] > LOW or len(values) <= 4:
        return None
    levels = counts.levels()
    near = {level for level in levels if level <= LOW or level >= HIGH}
    exact = len(values) <= FEW_VALUES and not set(levels) <= {0, top}
    if len(near) < len(levels) <= LARGEST_INDEX or exact:
        return None
    total = sum(counts.pixels.values())
    between = sum(number for value, number in counts.pixels.items() if LOW < value < HIGH)
    seen = "compressed (JPEG) two-valued masks" if counts.lossy else "two levels with grey edges"
    return 127.5, f"{seen}, {100 * between / total:.2f} % of the pixels in between: foreground is above 127.5"


def _are_indices(values: Sequence[float]) -> bool:
    largest = values[-1]
    whole = all(value >= 0 and float(value).is_integer() for value in values)
    return whole and values[0] == 0 and largest <= LARGEST_INDEX and 2 * len(values) > largest


def _explain_doubt(counts: ValueCounts) -> str:
    values = sorted(counts.pixels)
    common, tolerance = _propose_values(counts)
    odd = next((value for value in common or values if value not in (0, 1, 255)), values[-1])
    seen = (
        f"the coding of the masks is not clear: {counts.example[odd]} has the value {_format_value(odd)}, all masks "
        f"together have {_format_values(values)}"
    )
    if not common:
        return f"{seen}, which are no few classes; save masks as label indices, 0 for background, in PNG"
    # No numbers: a proposal that numbers the values in order, pasted as it is, would swap labels silently.
    proposal = ",".join(f"{_format_value(value)}={0 if value == 0 else UNNAMED}" for value in common)
    return (
        f"{seen}; give --masks '{proposal}{f',tolerance={tolerance}' if tolerance else ''}' with the "
        f"number of its label in place of each {UNNAMED}: 1, 2 ... in the order of new-bundle --labels, 0 for "
        "background"
    )


def _propose_values(counts: ValueCounts) -> tuple[list[int], int]:
    """Returns the values of a coding that covers all masks, and its tolerance; no values where there is none.

    In masks that were compressed, or whose edges are smooth, the values around a frequent one belong to it.
    """
    values = np.array(sorted(counts.pixels, key=lambda value: -(counts.flat[value] or 0)))
    if len(values) <= MOST_PROPOSED and not counts.lossy:
        found, tolerance = values, 0
    else:
        weights = np.array([counts.flat[value] for value in values.tolist()])
        channels, left = _channels(values), np.ones(len(values), bool)
        centres: list[int] = []
        while left.any() and len(centres) <= MOST_PROPOSED:
            centre = int(np.argmax(left))  # the most frequent that is left
            near = left & (np.abs(channels - channels[centre]).max(axis=1) <= CLUSTER_DISTANCE)
            if weights[near].sum() < SMALLEST_CLUSTER * weights.sum() or not weights[centre]:
                break
            centres.append(centre)
            left &= ~near
        found = values[centres]
        distance = np.abs(channels[:, None] - channels[centres][None]).max(axis=-1).min(axis=1) if centres else [0]
        tolerance = int(np.ceil(np.max(distance)))
    if not 2 <= len(found) <= MOST_PROPOSED or (found != np.round(found)).any():
        return [], 0
    if len(counts.pixels) >= MOST_VALUES:  # others were not counted
        tolerance = 255
    chosen = sorted((int(value) for value in found), key=lambda value: (abs(value), value))
    try:  # over all the values that all the masks have
        MaskCoding("values", values=dict.fromkeys(chosen, 0), tolerance=tolerance).decode([values[None]], ["all masks"])
    except ValueError:
        return [], 0
    return chosen, tolerance


def _decode_two_valued(values: np.ndarray, name: str) -> np.ndarray:
    counts = ValueCounts()
    counts.add(values, name)
    found = sorted(counts.pixels)
    if found in ([0], [0, 1], [0, 255]) or (len(found) == 2 and found[0] < 0 == found[1]):
        return np.where(values != 0, np.uint8(1), np.uint8(0))
    threshold = _find_threshold(counts)
    if threshold is None:
        raise ValueError(
            f"mask {name} has the values {_format_values(found)}, which are not two (0/1, 0/255, one colour on black); "
            f"{WAY_OUT} (mobileutr check guesses it from all masks)"
        )
    return np.where(values > threshold[0], np.uint8(1), np.uint8(0))


def _parse_text(text: str, files: str) -> MaskCoding:
    if text in ("two-valued", "indices"):
        return MaskCoding(text, files=files)
    if text in THRESHOLDS:
        return MaskCoding("threshold", THRESHOLDS[text], files=files)
    if UNNAMED in text:
        raise ValueError(
            f"mask coding {text!r} has {UNNAMED}; replace each by the number of its label: 1, 2 ... in the order of "
            "new-bundle --labels, 0 for background"
        )
    try:
        pairs = dict(part.strip().split("=") for part in text.split(","))
        if set(pairs) == {"threshold"}:
            return MaskCoding("threshold", float(pairs["threshold"]), files=files)
        tolerance = int(pairs.pop("tolerance", 0))
        values = {_parse_value(value): int(index) for value, index in pairs.items()}
    except ValueError:
        raise ValueError(
            f"mask coding {text!r} cannot be read; write two-valued, indices, {', '.join(THRESHOLDS)}, threshold=100, "
            "or pairs such as 0=0,128=1 or #000000=0,#ff0000=1"
        ) from None
    return MaskCoding("values", values=values, tolerance=tolerance, files=files)


def _parse_value(text: str | int) -> int:
    if not isinstance(text, str) or not text.startswith("#"):
        return int(text)
    red, green, blue = bytes.fromhex(text[1:])
    return red if red == green == blue else -int(text[1:], 16)


def _format_value(value: float) -> str:
    return f"#{-int(value):06x}" if value < 0 else f"{value:g}"


def _format_values(values: Iterable[float]) -> str:
    shown = sorted(values, key=lambda value: (abs(value), value))
    names = [_format_value(value) for value in shown[:6]]
    return ", ".join(names) + (f" ... {_format_value(shown[-1])} ({len(shown)} values)" if len(shown) > 6 else "")


def _format_pairs(values: Mapping[int, int]) -> str:
    return ",".join(f"{_format_value(value)}={index}" for value, index in values.items())


def _count(values: np.ndarray) -> dict[float, int]:
    """Returns value -> number of pixels."""
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _flat_values(values: np.ndarray) -> np.ndarray:
    """Returns the values of the pixels whose eight neighbours have the same value."""
    level = values[:, 1:] == values[:, :-1]
    row = level[:, 1:] & level[:, :-1]
    upright = values[1:, 1:-1] == values[:-1, 1:-1]
    flat = row[1:-1] & row[:-2] & row[2:] & upright[1:] & upright[:-1]
    inner: np.ndarray = values[1:-1, 1:-1][flat]
    return inner


def _channels(values: np.ndarray) -> np.ndarray:
    """Returns red, green and blue of values; deep grey counts as it is."""
    values = values.astype(np.float64)  # those of a NIfTI can exceed every integer
    packed = np.clip(-values, 0, 0xFFFFFF).astype(np.int64)
    colour = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)
    return np.where((values < 0)[:, None], colour, values[:, None])


def _size(values: np.ndarray) -> str:
    return f"{values.shape[1]} x {values.shape[0]}"
