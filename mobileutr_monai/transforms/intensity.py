"""What scanners and cameras do to grey values, and MONAI has no transform for: each an array and a dictionary form.

Values may be in any range: each image's lowest value counts as black and its highest as white.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch.nn import functional as F

__all__ = [
    "RandDarkCorners",
    "RandDarkCornersd",
    "RandDepthGain",
    "RandDepthGaind",
    "RandGainField",
    "RandGainFieldd",
    "RandMarks",
    "RandMarksd",
]


class RandDepthGain(RandomizableTransform):
    """Time-gain compensation of ultrasound that is set otherwise: brightness changes exponentially with the row.

    Args:
        prob: probability of a change.
        max_exponent: the last row is at most ``exp(max_exponent)`` times brighter or darker than the first.

    Shape:
        - input: (channel, rows, columns); output: the same.
    """

    def __init__(self, prob: float = 0.4, max_exponent: float = 1.5) -> None:
        super().__init__(prob)
        self.max_exponent, self.exponent = max_exponent, 0.0

    def randomize(self, data: Any = None) -> None:
        """Draws whether and how much."""
        super().randomize(None)
        if self._do_transform:
            self.exponent = self.R.uniform(-self.max_exponent, self.max_exponent)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        low, high = img.min(), img.max()
        depth = torch.linspace(-0.5, 0.5, img.shape[1], device=img.device)[None, :, None]
        gained = (img - low) * torch.exp(self.exponent * depth) + low
        return torch.minimum(gained, high)


class RandGainField(RandomizableTransform):
    """Uneven gain or light: brightness changes smoothly over the image.

    MONAI's ``RandBiasField`` multiplies the values as they are, so the mean grey of a standardised image, 0, does not
    change; here their distances from black are multiplied.

    Args:
        prob: probability of a change.
        strength: standard deviation of the logarithm of the gain, on a grid of 4 x 4 points between which it is smooth.

    Shape:
        - input: (channel, rows, columns); output: the same.
    """

    def __init__(self, prob: float = 0.3, strength: float = 0.5) -> None:
        super().__init__(prob)
        self.strength, self.field = strength, np.zeros((4, 4))

    def randomize(self, data: Any = None) -> None:
        """Draws whether, and the gain at the points of the grid."""
        super().randomize(None)
        if self._do_transform:
            self.field = self.R.normal(0, self.strength, (4, 4))

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        coarse = torch.from_numpy(self.field).to(img.device, torch.float32)[None, None]
        field = F.interpolate(coarse, img.shape[1:], mode="bicubic", align_corners=True)[0]
        low, high = img.min(), img.max()
        return torch.minimum((img - low) * torch.exp(field) + low, high)


class RandMarks(RandomizableTransform):
    """Calipers and text, painted anywhere.

    Sonographers set crosses at the ends of a lesion, so a network learns to look for crosses; painted at random places
    they tell it nothing. A mark is up to four crosses, a dotted line between two of them, and a line of text.

    Args:
        prob: probability of marks.

    Shape:
        - input: (channel, rows, columns); output: the same.
    """

    def __init__(self, prob: float = 0.3) -> None:
        super().__init__(prob)
        self.crosses = np.zeros((0, 2))
        self.arm, self.level = 3, 1.0
        self.dotted, self.text = False, np.zeros((0, 0), dtype=bool)
        self.place = (0.0, 0.0)

    def randomize(self, data: Any = None) -> None:
        """Draws places, sizes, brightness and the pattern that stands for text."""
        super().randomize(None)
        if not self._do_transform:
            return
        self.crosses = self.R.random_sample((self.R.randint(2, 5), 2))
        self.arm, self.level = self.R.randint(2, 5), self.R.uniform(0.7, 1.0)
        self.dotted = self.R.random_sample() < 0.5
        written = self.R.random_sample() < 0.5
        self.text = self.R.random_sample((7, self.R.randint(15, 65) if written else 0)) < 0.45
        self.place = (self.R.random_sample(), self.R.random_sample())

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        drawn = self._draw(img.shape[1], img.shape[2])
        value = img.min() + (img.max() - img.min()) * self.level
        return torch.where(torch.from_numpy(drawn).to(img.device), value, img)

    def _draw(self, rows: int, columns: int) -> np.ndarray:
        drawn = np.zeros((rows, columns), dtype=bool)
        centres = (self.crosses * (rows, columns)).astype(int)
        for y, x in centres:
            drawn[max(0, y - self.arm) : y + self.arm + 1, x] = True
            drawn[y, max(0, x - self.arm) : x + self.arm + 1] = True
        if self.dotted:
            (y0, x0), (y1, x1) = centres[:2]
            count = max(2, int(np.hypot(y1 - y0, x1 - x0) / 4))
            drawn[np.linspace(y0, y1, count).astype(int), np.linspace(x0, x1, count).astype(int)] = True
        text = self.text[:rows, :columns]
        top, left = (
            int(at * (side - kept)) for at, side, kept in zip(self.place, drawn.shape, text.shape, strict=True)
        )
        drawn[top : top + text.shape[0], left : left + text.shape[1]] |= text
        return drawn


class RandDarkCorners(RandomizableTransform):
    """The dark corners of a dermatoscope: outside of a circle, or nearly one, the image turns black.

    Args:
        prob: probability of dark corners.

    Shape:
        - input: (channel, rows, columns); output: the same.
    """

    def __init__(self, prob: float = 0.15) -> None:
        super().__init__(prob)
        self.stretch, self.edge, self.steepness, self.level = 1.0, 1.1, 40.0, 0.0

    def randomize(self, data: Any = None) -> None:
        """Draws the circle's shape and size, how soft its edge is, and how dark the outside."""
        super().randomize(None)
        if self._do_transform:
            self.stretch, self.edge = self.R.uniform(0.8, 1.25), self.R.uniform(0.95, 1.3)
            self.steepness, self.level = self.R.uniform(15, 80), self.R.uniform(0, 0.1)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        y = torch.linspace(-1, 1, img.shape[1], device=img.device)[:, None]
        x = torch.linspace(-1, 1, img.shape[2], device=img.device)[None, :]
        radius = (y**2 + (x * self.stretch) ** 2).sqrt()
        light = torch.sigmoid((self.edge - radius) * self.steepness)
        dark = img.min() + (img.max() - img.min()) * self.level
        return img * light + dark * (1 - light)


class _EachImaged(MapTransform, RandomizableTransform):
    """Applies an array transform to each key, drawn once for all of them."""

    def __init__(self, keys: KeysCollection, transform: Any, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, transform.prob)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: Any = None) -> _EachImaged:
        self.transform.set_random_state(seed, state)
        super().set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.transform.randomize()
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], randomize=False)
        return d


class RandDepthGaind(_EachImaged):
    """Dictionary form of ``RandDepthGain``."""

    def __init__(
        self, keys: KeysCollection, prob: float = 0.4, max_exponent: float = 1.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, RandDepthGain(prob, max_exponent), allow_missing_keys)


class RandGainFieldd(_EachImaged):
    """Dictionary form of ``RandGainField``."""

    def __init__(
        self, keys: KeysCollection, prob: float = 0.3, strength: float = 0.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, RandGainField(prob, strength), allow_missing_keys)


class RandMarksd(_EachImaged):
    """Dictionary form of ``RandMarks``."""

    def __init__(self, keys: KeysCollection, prob: float = 0.3, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, RandMarks(prob), allow_missing_keys)


class RandDarkCornersd(_EachImaged):
    """Dictionary form of ``RandDarkCorners``."""

    def __init__(self, keys: KeysCollection, prob: float = 0.15, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, RandDarkCorners(prob), allow_missing_keys)
