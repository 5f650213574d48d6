"""Augmentation of whole batches on their device, in tensor operations that a CUDA graph can hold.

The same operations, one image at a time, are the transforms of ``mobileutr_monai.transforms`` that the bundles' configs
name; parameters are drawn alike. Images are (B, C, H, W) in 0 to 1, masks (B, 1, H, W) of 0 and 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["AUGMENTATIONS", "Augmentation", "augment", "letterbox", "standardize"]


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges. Angles in radians, shifts in fractions of the size, zooms as factors."""

    vertical_flip: float = 0.0
    rotation: float = 0.35
    shear: float = 0.15
    zoom: tuple[float, float] = (0.65, 1.5)
    stretch: float = 0.15
    shift: float = 0.1
    affine: float = 0.9
    reflect: float = 0.3
    letterbox: float = 0.25
    gamma: tuple[float, float] = (0.5, 2.0)
    contrast: float = 0.4
    field: float = 0.0
    depth_gain: float = 0.0
    speckle: float = 0.0
    noise: float = 0.3
    blur: float = 0.4
    marks: float = 0.0
    colour: float = 0.0
    highlights: float = 0.0
    vignette: float = 0.0
    elastic: float = 0.0
    copy_paste: float = 0.0


AUGMENTATIONS = {
    "breast": Augmentation(field=0.3, depth_gain=0.4, speckle=0.3, marks=0.3),
    "colon": Augmentation(
        vertical_flip=0.5, rotation=math.pi, zoom=(0.5, 1.6), reflect=0.2, colour=0.6, highlights=0.3, field=0.2
    ),
    "skin": Augmentation(
        vertical_flip=0.5, rotation=math.pi, zoom=(0.6, 1.6), reflect=0.6, letterbox=0.1, colour=0.6, vignette=0.15
    ),
    # The last epochs: nearer to the images as they are.
    "breast_mild": Augmentation(
        rotation=0.2,
        shear=0.1,
        zoom=(0.8, 1.25),
        letterbox=0.15,
        gamma=(0.7, 1.4),
        contrast=0.25,
        field=0.15,
        depth_gain=0.2,
        speckle=0.15,
        marks=0.2,
        blur=0.2,
        noise=0.2,
    ),
    "colon_mild": Augmentation(
        vertical_flip=0.5,
        rotation=math.pi,
        zoom=(0.7, 1.4),
        letterbox=0.15,
        gamma=(0.7, 1.4),
        contrast=0.25,
        reflect=0.2,
        colour=0.4,
        highlights=0.15,
        field=0.1,
        blur=0.2,
        noise=0.2,
    ),
}
_PARTS: dict[str, dict[str, Any]] = {
    "without_affine": {"affine": 0.0, "reflect": 0.0},
    "without_bars": {"letterbox": 0.0},
    "without_gamma": {"gamma": (1.0, 1.0), "contrast": 0.0},
    "without_ultrasound": {"field": 0.0, "depth_gain": 0.0, "speckle": 0.0},
    "without_marks": {"marks": 0.0},
    "without_blur": {"blur": 0.0, "noise": 0.0},
    "with_elastic": {"elastic": 0.3},
    "with_copy_paste": {"copy_paste": 0.5},
}
AUGMENTATIONS |= {f"breast_{name}": replace(AUGMENTATIONS["breast"], **parts) for name, parts in _PARTS.items()}
"""One part of the breast recipe more or less, for paired comparisons."""
AUGMENTATIONS["breast_mild_with_copy_paste"] = replace(AUGMENTATIONS["breast_mild"], copy_paste=0.5)


def augment(image: torch.Tensor, mask: torch.Tensor, a: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns an augmented batch, intensities still in 0 to 1."""
    if a.copy_paste:
        image, mask = _copy_paste(image, mask, a.copy_paste)
    image, mask = _transform(image, mask, a)
    if a.colour:
        image = _change_colour(image, a.colour)
    if a.field:
        image = image * _chosen(image, a.field, torch.exp(_smooth_field(image) * 0.5))
    if a.depth_gain:
        depth = torch.linspace(-0.5, 0.5, image.shape[2], device=image.device).view(1, 1, -1, 1)
        image = image * _chosen(image, a.depth_gain, torch.exp(_uniform(image, -1.5, 1.5) * depth))
    image = image.clamp(0, 1)
    gamma = torch.exp(_uniform(image, math.log(a.gamma[0]), math.log(a.gamma[1])))
    image = image.clamp_min(1e-4) ** _chosen(image, 0.5, gamma)
    mean = image.mean((1, 2, 3), keepdim=True)
    contrast = _chosen(image, 0.5, torch.exp(_uniform(image, -a.contrast, a.contrast)))
    shift = _uniform(image, -0.2, 0.2) * _flag(image, 0.5)
    image = ((image - mean) * contrast + mean + shift).clamp(0, 1)
    if a.speckle:
        grain = F.avg_pool2d(torch.randn_like(image[:, :1]), 3, 1, 1) * 3
        image = image * (1 + grain * _uniform(image, 0, 0.2) * _flag(image, a.speckle))
    if a.blur:
        image = image + (_blur(image) - image) * _uniform(image, -0.6, 1.0) * _flag(image, a.blur)
    if a.highlights:
        image = _add_highlights(image, a.highlights)
    if a.marks:
        image = _paint_marks(image, a.marks)
    if a.vignette:
        image = _darken_corners(image, a.vignette)
    image = image + torch.randn_like(image) * _uniform(image, 0, 0.06) * _flag(image, a.noise)
    return image.clamp(0, 1), mask


def standardize(image: torch.Tensor) -> torch.Tensor:
    """Returns each image with zero mean and unit variance, as MONAI's ``NormalizeIntensity`` makes it."""
    mean = image.mean((1, 2, 3), keepdim=True)
    deviation = (image - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
    return (image - mean) / torch.where(deviation == 0, torch.ones_like(deviation), deviation)


def letterbox(image: torch.Tensor, mask: torch.Tensor, share: float, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch squeezed to the central ``share`` of an axis (0 rows, 1 columns) between black bars."""
    size = list(image.shape[2:])
    size[axis] = round(size[axis] * share)
    before = (image.shape[2 + axis] - size[axis]) // 2
    after = image.shape[2 + axis] - size[axis] - before
    bars = [0, 0, before, after] if axis == 0 else [before, after, 0, 0]
    squeezed = F.interpolate(image, size, mode="bilinear", antialias=True)
    return F.pad(squeezed, bars), F.pad(F.interpolate(mask, size, mode="nearest"), bars)


def _uniform(image: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.rand(len(image), 1, 1, 1, device=image.device) * (high - low) + low


def _flag(image: torch.Tensor, probability: float) -> torch.Tensor:
    return (torch.rand(len(image), 1, 1, 1, device=image.device) < probability).float()


def _chosen(image: torch.Tensor, probability: float, factor: torch.Tensor) -> torch.Tensor:
    return torch.where(_flag(image, probability) > 0, factor, torch.ones_like(factor))


def _vector(image: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.rand(len(image), device=image.device) * (high - low) + low


def _matrices(image: torch.Tensor, a: Augmentation) -> torch.Tensor:
    """Returns what leads from coordinates (x, y) of the result, -1 to 1, to those of the image: (B, 2, 3)."""
    one = torch.ones(len(image), device=image.device)
    active = (torch.rand(len(image), device=image.device) < a.affine).float()
    angle = _vector(image, -a.rotation, a.rotation) * active
    shear = _vector(image, -a.shear, a.shear) * active
    zoom = torch.exp(_vector(image, math.log(a.zoom[0]), math.log(a.zoom[1])) * active)
    stretch = torch.exp(_vector(image, -a.stretch, a.stretch) * active)
    across, down = 1 / (zoom * stretch), stretch / zoom
    flip = 1 - 2 * (torch.rand(len(image), device=image.device) < 0.5).float()
    flop = 1 - 2 * (torch.rand(len(image), device=image.device) < a.vertical_flip).float()
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_row = torch.stack((flip * across * (cos + shear * sin), flip * across * (shear * cos - sin)), 1)
    y_row = torch.stack((flop * down * sin, flop * down * cos), 1)
    shifts = torch.stack((_vector(image, -2, 2) * a.shift, _vector(image, -2, 2) * a.shift), 1) * active[:, None]
    return torch.cat((torch.stack((x_row, y_row), 1), shifts[:, :, None] * one[:, None, None]), 2)


def _transform(image: torch.Tensor, mask: torch.Tensor, a: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
    count, _, rows, columns = image.shape
    device = image.device
    y = (torch.arange(rows, device=device) * 2 + 1) / rows - 1
    x = (torch.arange(columns, device=device) * 2 + 1) / columns - 1
    grid = torch.stack((x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)), -1)
    grid = grid.expand(count, rows, columns, 2)
    # Bars: outside of a box the result is one grey level, mostly black.
    barred = torch.rand(count, 1, 1, 1, device=device) < a.letterbox
    both = torch.rand(count, 1, 1, 2, device=device) < 0.6
    share = torch.where(barred & both, torch.rand(count, 1, 1, 2, device=device) * 0.55 + 0.45, 1.0)
    centre = (1 - share) * (torch.rand(count, 1, 1, 2, device=device) * 2 - 1) * 0.5
    boxed = (grid - centre) / share
    inside = (boxed.abs() <= 1).all(-1, keepdim=True).permute(0, 3, 1, 2).float()
    matrices = _matrices(image, a)
    source = boxed @ matrices[:, None, :, :2].transpose(-1, -2) + matrices[:, None, None, :, 2]
    mirrored = 1 - ((source + 1).remainder(4) - 2).abs()
    if a.elastic:
        source = source + _displacement(image) * (torch.rand(count, 1, 1, 1, device=device) < a.elastic)
    reflect = torch.rand(count, 1, 1, 1, device=device) < a.reflect
    source = torch.where(reflect, mirrored, source)
    covered = (source.abs() <= 1).all(-1, keepdim=True).permute(0, 3, 1, 2).float()
    image = F.grid_sample(image, source, "bilinear", "border", align_corners=False)
    mask = F.grid_sample(mask, source, "nearest", "zeros", align_corners=False)
    bar = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.7, 0.0, torch.rand(count, 1, 1, 1, device=device))
    image = image * covered * inside + bar * (1 - covered * inside)
    return image, mask * inside * covered


def _displacement(image: torch.Tensor) -> torch.Tensor:
    """A smooth elastic displacement, with a standard deviation of 2 % of the size: (B, H, W, 2)."""
    coarse = torch.randn(len(image), 2, 6, 6, device=image.device) * 0.04
    smooth = F.interpolate(coarse, image.shape[2:], mode="bicubic", align_corners=True)
    return smooth.permute(0, 2, 3, 1)


def _copy_paste(image: torch.Tensor, mask: torch.Tensor, probability: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies the lesion of the next image of the batch, with what lies around it, into images without one.

    The copied part fades out over a twelfth of the image; its brightness is moved to that of the place.
    """
    other, lesion = image.roll(1, 0), mask.roll(1, 0)
    radius = image.shape[2] // 24
    near = F.max_pool2d(lesion, 2 * radius + 1, 1, radius)
    soft = F.avg_pool2d(near, 2 * radius + 1, 1, radius)
    rim = soft * (1 - lesion)
    area = rim.sum((2, 3), keepdim=True).clamp_min(1)
    ratio = (image * rim).sum((2, 3), keepdim=True) / (other * rim).sum((2, 3), keepdim=True).clamp_min(1e-3 * area)
    empty = (mask.sum((1, 2, 3), keepdim=True) == 0).float() * _flag(image, probability)
    soft = soft * empty
    return image + (other * ratio.clamp(0.5, 2) - image) * soft, torch.maximum(mask, lesion * empty)


def _smooth_field(image: torch.Tensor) -> torch.Tensor:
    coarse = torch.randn(len(image), 1, 4, 4, device=image.device)
    field: torch.Tensor = F.interpolate(coarse, image.shape[2:], mode="bicubic", align_corners=True)
    return field


def _blur(image: torch.Tensor) -> torch.Tensor:
    kernel = _binomial(image.device).expand(image.shape[1], 1, 5, 5)
    blurred: torch.Tensor = F.conv2d(F.pad(image, (2, 2, 2, 2), "replicate"), kernel, groups=image.shape[1])
    return blurred


@lru_cache
def _binomial(device: torch.device) -> torch.Tensor:
    # Kept, because a capture of a graph takes nothing from the host.
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=device) / 16
    return line[:, None] * line[None, :]


def _change_colour(image: torch.Tensor, probability: float) -> torch.Tensor:
    flag = _flag(image, probability)
    gains = torch.exp((torch.rand(len(image), 3, 1, 1, device=image.device) - 0.5) * 0.5)
    grey = image.mean(1, keepdim=True)
    saturation = _uniform(image, 0.4, 1.6)
    changed = ((grey + (image - grey) * saturation) * gains).clamp(0, 1)
    return torch.where(flag > 0, changed, image)


def _add_highlights(image: torch.Tensor, probability: float) -> torch.Tensor:
    """Specular highlights: up to eight small bright ellipses."""
    count, _, rows, columns = image.shape
    y = torch.arange(rows, device=image.device).view(1, 1, -1, 1) / rows
    x = torch.arange(columns, device=image.device).view(1, 1, 1, -1) / columns
    drawn = torch.rand(count, 8, 5, device=image.device)
    cy, cx, ry, rx = (drawn[:, :, i, None, None] for i in range(4))
    spots = ((y - cy) / (0.004 + 0.025 * ry)) ** 2 + ((x - cx) / (0.004 + 0.025 * rx)) ** 2 < 1
    spots = (spots & (drawn[:, :, 4, None, None] < 0.6)).any(1, keepdim=True).float()
    spots = spots * _flag(image, probability)
    return image + (1 - image) * spots * 0.9


def _paint_marks(image: torch.Tensor, probability: float) -> torch.Tensor:
    """Caliper crosses, a dotted line between two of them, and a line of text, anywhere in the image."""
    count, _, rows, columns = image.shape
    y = torch.arange(rows, device=image.device).view(1, 1, -1, 1).float()
    x = torch.arange(columns, device=image.device).view(1, 1, 1, -1).float()
    drawn = torch.rand(count, 4, 2, device=image.device)
    cy, cx = (drawn[:, :, 0, None, None] * rows).floor(), (drawn[:, :, 1, None, None] * columns).floor()
    arm = (2 + 3 * torch.rand(count, 1, 1, 1, device=image.device)).floor()
    dy, dx = (y - cy).abs(), (x - cx).abs()
    marks = (((dy < 0.5) & (dx <= arm)) | ((dx < 0.5) & (dy <= arm))).any(1, keepdim=True)
    # Dots on the line from the first cross to the second.
    ay, ax, by, bx = cy[:, :1], cx[:, :1], cy[:, 1:2], cx[:, 1:2]
    length = ((by - ay) ** 2 + (bx - ax) ** 2).sqrt().clamp_min(1)
    along = ((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / length
    across = ((y - ay) * (bx - ax) - (x - ax) * (by - ay)) / length
    dotted = (across.abs() < 0.6) & (along > 0) & (along < length) & (along.remainder(4) < 1)
    marks = marks | (dotted & (torch.rand(count, 1, 1, 1, device=image.device) < 0.5))
    # Text: a random pattern of strokes in a thin box.
    top = (torch.rand(count, 1, 1, 1, device=image.device) * (rows - 9)).floor()
    left = (torch.rand(count, 1, 1, 1, device=image.device) * (columns - 70)).floor()
    wide = 15 + 50 * torch.rand(count, 1, 1, 1, device=image.device)
    box = (y >= top) & (y < top + 7) & (x >= left) & (x < left + wide)
    strokes = torch.rand(count, 1, rows, columns, device=image.device) < 0.45
    marks = marks | (box & strokes & (torch.rand(count, 1, 1, 1, device=image.device) < 0.5))
    level = _uniform(image, 0.7, 1.0)
    return torch.where(marks & (_flag(image, probability) > 0), level, image)


def _darken_corners(image: torch.Tensor, probability: float) -> torch.Tensor:
    """The dark corners of a dermatoscope: black outside of a circle."""
    rows, columns = image.shape[2:]
    y = torch.linspace(-1, 1, rows, device=image.device).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, columns, device=image.device).view(1, 1, 1, -1)
    radius = (y**2 + (x * _uniform(image, 0.8, 1.25)) ** 2).sqrt()
    edge = _uniform(image, 0.95, 1.3)
    light = torch.sigmoid((edge - radius) * _uniform(image, 15, 80))
    dark = _uniform(image, 0, 0.1)
    return torch.where(_flag(image, probability) > 0, image * light + dark * (1 - light), image)
