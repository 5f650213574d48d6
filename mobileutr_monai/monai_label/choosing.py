"""The order in which images are offered: by the confidence in their masks, without doing the same work twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.inference.quality import LabelQuality
from mobileutr_monai.inference.segmenter import Segmenter

__all__ = ["choose_image", "confidence_of", "score_image"]


def score_image(segmenter: Segmenter, labels: Mapping[int, LabelQuality], source: Path) -> float:
    """Returns the Dice to expect of an image's mask, of its worst label; 0 where nothing is found.

    Args:
        labels: index -> calibration; of labels without one, the estimate that is calibrated elsewhere is taken.
        source: file, or folder of one image's DICOM files.
    """
    raw = segmenter.measure_confidence(segmenter.infer([segmenter.reader.read([source])])[0])
    found = [labels[index].calibrate(value) if index in labels else value for index, value in raw.items()]
    # Nothing found: either nothing is there, or the model is blind for it. Somebody should look.
    return min(found, default=0.0)


def choose_image(
    images: Sequence[str], scores: Mapping[str, Mapping[str, Any]], labelled: Iterable[str], offered: Iterable[str] = ()
) -> str | None:
    """Returns the image to annotate next, that with the lowest confidence; None if there is none.

    One image of each patient and of each group of near-duplicates comes before others of them.

    Args:
        images: without a label.
        scores: image -> ``confidence``, ``patient`` and ``group`` of near-duplicates, as far as they are known.
        labelled: images that have a label.
        offered: images that somebody may be annotating now: they come last.

    Example:
        >>> choose_image(["a", "b"], {"a": {"confidence": 0.9}, "b": {"confidence": 0.4}}, [])
        'b'
    """
    offered = set(offered)
    held = [scores.get(image, {}) for image in (*labelled, *offered)]
    seen = {(kind, item[kind]) for item in held for kind in ("patient", "group") if item.get(kind)}

    def order(image: str) -> tuple[bool, bool, bool, float, str]:
        item = scores.get(image, {})
        is_repeated = any((kind, item.get(kind)) in seen for kind in ("patient", "group"))
        return image in offered, item.get("confidence") is None, is_repeated, confidence_of(item), image

    return min(images, key=order, default=None)


def confidence_of(item: Mapping[str, Any]) -> float:
    """Returns a score's confidence, 1 if it has none."""
    value = item.get("confidence")
    return 1.0 if value is None else float(value)
