"""Label maps of images as GeoJSON annotations, as QuPath imports them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobileutr_monai.core.atomic import write_text
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.inference.outputs.overlay import COLOURS
from mobileutr_monai.inference.outputs.polygons import Ring, trace_polygons

__all__ = ["write_geojson"]


def write_geojson(label: np.ndarray, labels: Sequence[SegmentLabel], path: Path) -> None:
    """Writes one feature per label that is in a label map, its outlines along the edges of pixels.

    Coordinates are pixels from the image's top left corner, as QuPath has them.

    Shape:
        - label: (rows, columns).
    """
    features = []
    for number, item in enumerate(labels):
        polygons = [[_close(ring) for ring in rings] for rings in trace_polygons(label == item.index)]
        if not polygons:
            continue
        is_one = len(polygons) == 1
        geometry = {
            "type": "Polygon" if is_one else "MultiPolygon",
            "coordinates": polygons[0] if is_one else polygons,
        }
        classification = {"name": item.name, "color": list(COLOURS[number % len(COLOURS)])}
        properties: dict[str, Any] = {"objectType": "annotation", "classification": classification}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")


def _close(ring: Ring) -> Ring:
    return [*ring, ring[0]]
