"""Bars of one grey level next to the image, as screens, videos and exports add them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch.nn import functional as F

__all__ = ["RandLetterbox", "RandLetterboxd"]


class RandLetterbox(RandomizableTransform):
    """Squeezes an image into a random box of its frame; the rest becomes bars of one grey level, mostly black.

    A network that was trained without bars takes them for lesions: half of the pixels that the first weights for breast
    ultrasound predicted on such images lay in the bars.

    Args:
        prob: probability of bars.
        min_share: smallest share of the frame's height and of its width that the image keeps.
        black: probability that the bars have the image's lowest value; otherwise they have any value of its range.

    Shape:
        - input: (channel, rows, columns); output: the same.

    Raises:
        ValueError: ``min_share`` is not in (0, 1].

    Example::

        barred = RandLetterbox(prob=1.0)(torch.rand(1, 64, 64))
    """

    def __init__(self, prob: float = 0.25, min_share: float = 0.45, black: float = 0.7) -> None:
        super().__init__(prob)
        if not 0 < min_share <= 1:
            raise ValueError(f"min_share must be in (0, 1], got {min_share!r}; 0.45 keeps about half of each side")
        self.min_share, self.black = min_share, black
        self.shares = self.places = (1.0, 1.0)
        self.level: float | None = None

    def randomize(self, data: Any = None) -> None:
        """Draws whether there are bars, the image's share and place along both axes, and the bars' level."""
        super().randomize(None)
        if not self._do_transform:
            return
        drawn = [self.R.uniform(self.min_share, 1) if self.R.random_sample() < 0.6 else 1.0 for _ in range(2)]
        self.shares = (drawn[0], drawn[1])
        self.places = (self.R.random_sample(), self.R.random_sample())
        self.level = None if self.R.random_sample() < self.black else float(self.R.random_sample())

    def __call__(self, img: torch.Tensor, mode: str = "bilinear", randomize: bool = True) -> torch.Tensor:
        """Returns the image in its box.

        Args:
            mode: ``bilinear``, or ``nearest-exact`` for label maps, whose bars are 0.
        """
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        frame = img.shape[1:]
        size = [max(1, round(side * share)) for side, share in zip(frame, self.shares, strict=True)]
        before = [round((side - kept) * place) for side, kept, place in zip(frame, size, self.places, strict=True)]
        smooth = {"antialias": True} if mode == "bilinear" else {}
        boxed: torch.Tensor = F.interpolate(img[None].float(), size, mode=mode, **smooth)[0]
        value = 0.0
        if mode == "bilinear":
            low, high = float(img.min()), float(img.max())
            value = low + (high - low) * (self.level or 0.0)
        after = [side - kept - first for side, kept, first in zip(frame, size, before, strict=True)]
        return F.pad(boxed, (before[1], after[1], before[0], after[0]), value=value)


class RandLetterboxd(MapTransform, RandomizableTransform):
    """Dictionary form of ``RandLetterbox``: images and label maps get the same box.

    Args:
        mode: for each key, as ``RandLetterbox`` takes it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mode: list[str] | tuple[str, ...] = ("bilinear", "nearest-exact"),
        prob: float = 0.25,
        min_share: float = 0.45,
        black: float = 0.7,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.mode = list(mode)
        self.letterbox = RandLetterbox(prob, min_share, black)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandLetterboxd:
        self.letterbox.set_random_state(seed, state)
        super().set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.letterbox.randomize()
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self.letterbox(d[key], mode, randomize=False)
        return d
