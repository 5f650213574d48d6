"""Pieces of a label map that do not touch."""

from __future__ import annotations

import numpy as np

__all__ = ["keep_largest_pieces"]


def keep_largest_pieces(label: np.ndarray) -> np.ndarray:
    """Keeps of each label the largest piece; corners do not count as touch.

    MONAI's ``KeepLargestConnectedComponent`` needs scikit-image, which is more than this asks for.

    Shape:
        - input and output: (rows, columns) or (x, y, z), label indices.
    """
    from scipy import ndimage  # a bundle that keeps all pieces, as an ONNX file, runs without scipy

    kept = np.zeros_like(label)
    for index in np.unique(label[label > 0]):
        pieces, _ = ndimage.label(label == index)
        kept[pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()] = index
    return kept
