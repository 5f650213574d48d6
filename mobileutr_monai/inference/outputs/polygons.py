"""Regions of pixels as polygons along the edges of pixels: filling one gives the same pixels again.

Corners are counted from the image's top left corner: the first pixel is the square from (0, 0) to (1, 1). Rings are
simple, and holes lie within their polygon and touch it or each other at corners at most, as OGC's simple features
demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

__all__ = ["Ring", "fill_rings", "trace_outlines", "trace_polygons"]

Ring = list[tuple[int, int]]
"""Corners (x, y); the last one is joined to the first. Outer rings have a positive area in these axes, holes a negative
one."""

# The edges of a pixel with the pixel on their right as seen on the screen: top, right, bottom, left.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
_STARTS = ((0, 0), (1, 0), (1, 1), (0, 1))
_NEIGHBOURS = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""(row, column) of the pixel beyond each edge."""


def trace_polygons(region: np.ndarray) -> list[list[Ring]]:
    """Returns one polygon per component: its outer ring, then its holes.

    Pixels that touch at a corner only are of different components.

    Shape:
        - region: (rows, columns), boolean.
    """
    pieces, _ = ndimage.label(region)
    polygons = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        top, left = box[0].start, box[1].start
        rings = [[(x + left, y + top) for x, y in ring] for ring in _trace(pieces[box] == number)]
        polygons.append(sorted(rings, key=_is_hole))
    return polygons


def trace_outlines(region: np.ndarray) -> list[Ring]:
    """Returns outer rings of pieces without holes that together are the region; a piece with a hole is cut through it.

    Shape:
        - region: (rows, columns), boolean.
    """
    outlines: list[Ring] = []
    pieces, _ = ndimage.label(region)
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[box] == number
        outer, *holes = sorted(_trace(piece), key=_is_hole)
        if holes:
            cut = min(y for _, y in holes[0]) + 1
            above, below = trace_outlines(piece[:cut]), trace_outlines(piece[cut:])
            rings = above + [[(x, y + cut) for x, y in ring] for ring in below]
        else:
            rings = [outer]
        outlines += [[(x + box[1].start, y + box[0].start) for x, y in ring] for ring in rings]
    return outlines


def fill_rings(rings: Sequence[Ring], shape: tuple[int, ...]) -> np.ndarray:
    """Returns which pixels have their centre within an odd number of rings.

    Shape:
        - output: (rows, columns), boolean.
    """
    inside = np.zeros(shape, bool)
    for ring in rings:
        for (x, y), (other_x, other_y) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if x == other_x:
                inside[min(y, other_y) : max(y, other_y), x:] ^= True
    return inside


def _trace(component: np.ndarray) -> Iterator[Ring]:
    """Yields the rings around a component and its holes."""
    edges = _find_edges(component)
    while edges:
        x, y, side = next(iter(edges))
        del edges[x, y, side]
        path, places = [(x, y, side)], {(x, y): 0}
        while path:
            x, y, side = path[-1]
            corner = x + _STEPS[side][0], y + _STEPS[side][1]
            if (begin := places.get(corner)) is not None:  # a ring within the path ends here
                yield _join_edges(path[begin:])
                for x, y, _ in path[begin:]:
                    del places[x, y]
                del path[begin:]
                if not path:
                    break
            # Where two pixels touch at the corner, along the same pixel.
            turns = ((*corner, turn % 4) for turn in (side + 1, side, side + 3))
            following = next(edge for edge in turns if edge in edges)
            del edges[following]
            places[corner] = len(path)
            path.append(following)


def _find_edges(component: np.ndarray) -> dict[tuple[int, int, int], None]:
    """Returns the edges between the component and the rest: corner (x, y) that each begins at, and its side."""
    padded = np.pad(component, 1)
    rows, columns = component.shape
    edges: dict[tuple[int, int, int], None] = {}
    for side, ((down, right), (x, y)) in enumerate(zip(_NEIGHBOURS, _STARTS, strict=True)):
        beyond = padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        for row, column in np.argwhere(component & ~beyond).tolist():
            edges[column + x, row + y, side] = None
    return edges


def _join_edges(path: list[tuple[int, int, int]]) -> Ring:
    """Returns the corners at which a closed path turns."""
    return [(x, y) for index, (x, y, side) in enumerate(path) if side != path[index - 1][2]]


def _is_hole(ring: Ring) -> bool:
    following = [*ring[1:], ring[0]]
    return sum(x * other_y - other_x * y for (x, y), (other_x, other_y) in zip(ring, following, strict=True)) < 0
