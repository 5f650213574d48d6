"""Random transforms of whole batches, on the device that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.networks.layers import gaussian_1d
from monai.transforms import (
    Compose,
    NormalizeIntensityd,
    RandAdjustContrastd,
    RandAffined,
    RandCoarseDropoutd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.utils import create_rotate, create_scale, create_shear, create_translate
from torch.nn import functional as F

from mobileutr_monai.transforms.intensity import RandDarkCornersd, RandDepthGaind, RandGainFieldd, RandMarksd
from mobileutr_monai.transforms.letterbox import RandLetterboxd

__all__ = ["BatchAugmentation"]


class BatchAugmentation:
    """Applies MONAI's random transforms to 2D batches at once, on their device: a trainer's ``prepare_batch``.

    Called by themselves they take one image each, which costs more time than a step of a GPU. Here they only draw their
    parameters, image by image, so that probabilities, ranges and seeding are theirs; what they do is done to the batch
    in a few kernels. Flips, quarter turns and the affine are one resampling, and noise is drawn on the device.
    kornia is not used: on a CPU it took a third longer, its parameters are not MONAI's, and its gamma clips images to
    0..1 (``docs/performance.md``).

    Args:
        transforms: first those of ``image`` and ``label`` (flips, quarter turns, at most one affine, then bars), then
            those of ``image`` alone (intensities).

    Shape:
        - ``image``: (B, C, rows, columns), ``label``: (B, 1, rows, columns); float32 when they are returned.

    Raises:
        ValueError: a transform is not one of those known here, or in another place.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.spatial = [transform for transform in transforms if type(transform) in _MATRIX]
        self.letterbox = [transform for transform in transforms if isinstance(transform, RandLetterboxd)]
        self.intensity = list(transforms[len(self.spatial) + len(self.letterbox) :])
        for listed, known, keys in (
            (self.spatial, _MATRIX, ("image", "label")),
            (self.intensity, _INTENSITY, ("image",)),
        ):
            for transform in listed:
                if type(transform) not in known or tuple(transform.keys) != keys:
                    raise ValueError(
                        f"{type(transform).__name__} of {', '.join(getattr(transform, 'keys', ()))} cannot be applied "
                        "to batches in this place; leave it out of augmentation, or train without gpu_train.json"
                    )
        affines = [transform for transform in self.spatial if isinstance(transform, RandAffined)]
        if len(affines) > 1:
            raise ValueError(
                "augmentation of batches takes one RandAffined; leave one out, or train without gpu_train.json"
            )
        self.modes = affines[0].mode if affines else ("bilinear", "nearest")
        self.padding_modes = affines[0].padding_mode if affines else ("zeros", "zeros")
        self.random = Compose(list(transforms))

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> BatchAugmentation:
        """Seeds the transforms, as MONAI's ``Compose`` does. Noise comes from torch's generator of the device."""
        self.random.set_random_state(seed, state)
        return self

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = (batchdata[key].to(device, torch.float32, non_blocking, **kwargs) for key in ("image", "label"))
        if self.spatial:
            grid = self._draw_grid(image)
            image, label = (
                F.grid_sample(value, grid, str(mode), str(padding_mode), align_corners=False)
                for value, mode, padding_mode in zip((image, label), self.modes, self.padding_modes, strict=True)
            )
        for transform in self.letterbox:
            done = [transform({"image": one, "label": of}) for one, of in zip(image, label, strict=True)]
            image, label = (torch.stack([item[key] for item in done]) for key in ("image", "label"))
        for transform in self.intensity:
            image = _INTENSITY[type(transform)](transform, image)
        return image, label

    def _draw_grid(self, image: torch.Tensor) -> torch.Tensor:
        """Returns where each pixel of the results comes from, as ``grid_sample`` wants it."""
        size = tuple(image.shape[2:])
        matrices = np.stack([np.eye(3)] * len(image))  # (row, column) from the centre in the result -> in the image
        for transform in self.spatial:
            matrices = matrices @ np.stack([_MATRIX[type(transform)](transform, size) for _ in range(len(image))])
        half = np.array(size) / 2
        linear = matrices[:, :2, :2] * half / half[:, None]
        theta = np.concatenate((linear[:, ::-1, ::-1], (matrices[:, :2, 2:] / half[:, None])[:, ::-1]), axis=2)
        return F.affine_grid(_to(theta, image), list(image.shape), align_corners=False)


def _to(values: Any, image: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(image.device, non_blocking=True)


def _drawn(transform: Any, name: str) -> Any:
    """Returns what a transform of MONAI has drawn; MONAI has no public way to read it, so its version is bounded."""
    if not hasattr(transform, name):
        raise RuntimeError(
            f"this MONAI's {type(transform).__name__} has no {name}; install MONAI as setup.cfg bounds it"
        )
    return getattr(transform, name)


def _drew(transform: Any) -> bool:
    """Whether the last draw of a transform is to change the image."""
    return bool(_drawn(transform, "_do_transform"))


def _draw_flip(transform: RandFlipd, _size: tuple[int, ...]) -> np.ndarray:
    transform.randomize(None)
    matrix = np.eye(3)
    if _drew(transform):
        axes = transform.flipper.spatial_axis
        for axis in range(2) if axes is None else np.atleast_1d(axes):
            matrix[axis, axis] = -1
    return matrix


def _draw_quarter_turns(transform: RandRotate90d, size: tuple[int, ...]) -> np.ndarray:
    transform.randomize()
    if not _drew(transform):
        return np.eye(3)
    if size[0] != size[1] or tuple(transform.spatial_axes) != (0, 1):
        raise ValueError(f"quarter turns of a batch are about axes (0, 1) of equal sides, got {size}; set image_size")
    turn = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    return np.linalg.matrix_power(turn, _drawn(transform, "_rand_k"))


def _draw_affine(transform: RandAffined, _size: tuple[int, ...]) -> np.ndarray:
    transform.randomize(None)
    if not _drew(transform):
        return np.eye(3)
    drawn = transform.rand_affine.rand_affine_grid
    drawn.randomize()
    matrix = np.eye(3)
    for create, parameters in (  # in the order of MONAI's AffineGrid
        (create_rotate, drawn.rotate_params),
        (create_shear, drawn.shear_params),
        (create_translate, drawn.translate_params),
        (create_scale, drawn.scale_params),
    ):
        matrix = matrix @ create(2, parameters) if parameters else matrix
    return matrix


_MATRIX: dict[type, Callable[[Any, tuple[int, ...]], np.ndarray]] = {
    RandFlipd: _draw_flip,
    RandRotate90d: _draw_quarter_turns,
    RandAffined: _draw_affine,
}
"""Transform -> what draws its matrix for one image, from the result's coordinates to the image's."""


def _draw(transform: Any, inner: Any, image: torch.Tensor, read: Callable[[], Any], otherwise: Any) -> list[Any]:
    """Returns what ``read`` tells of each image's draw, ``otherwise`` where it is left as it is."""
    values, one = [], image[0]  # of which only the number of channels counts
    for _ in range(len(image)):
        transform.randomize(None)
        if _drew(transform):
            inner.randomize(one)
        values.append(read() if _drew(transform) else otherwise)
    return values


def _draw_by_channel(transform: Any, inner: Any, image: torch.Tensor, read: Callable[[], Any]) -> torch.Tensor:
    """Returns one drawn value for each channel or for each image, 0 where it is left as it is: (B, C or 1, 1, 1)."""
    channels = image.shape[1] if inner.channel_wise else 1
    drawn = _draw(transform, inner, image, read, [0.0] * channels)
    return _to(drawn, image).reshape(len(image), channels, 1, 1)


def _scale(transform: RandScaleIntensityd, image: torch.Tensor) -> torch.Tensor:
    inner = transform.scaler
    return image * (1 + _draw_by_channel(transform, inner, image, lambda: np.atleast_1d(inner.factor)))


def _shift(transform: RandShiftIntensityd, image: torch.Tensor) -> torch.Tensor:
    inner = transform.shifter
    return image + _draw_by_channel(transform, inner, image, lambda: np.atleast_1d(_drawn(inner, "_offset")))


def _adjust_contrast(transform: RandAdjustContrastd, image: torch.Tensor) -> torch.Tensor:
    inner = transform.adjuster
    gamma = _to(_draw(transform, inner, image, lambda: inner.gamma_value, 1.0), image).reshape(-1, 1, 1, 1)
    lowest, highest = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    extent = highest - lowest
    return ((image - lowest) / (extent + 1e-7)) ** gamma * extent + lowest


def _add_noise(transform: RandGaussianNoised, image: torch.Tensor) -> torch.Tensor:
    inner = transform.rand_gaussian_noise
    strengths = []
    for _ in range(len(image)):
        transform.randomize(None)
        drawn = transform.R.uniform(0, inner.std) if inner.sample_std else inner.std
        strengths.append((inner.mean, drawn) if _drew(transform) else (0.0, 0.0))
    mean, std = _to(strengths, image).reshape(-1, 2, 1, 1, 1).unbind(1)
    return image + mean + std * torch.randn_like(image)


def _smooth(transform: RandGaussianSmoothd, image: torch.Tensor) -> torch.Tensor:
    inner = transform.rand_smooth
    sigmas = _draw(transform, inner, image, lambda: (inner.x, inner.y), None)
    planes = image.flatten(0, 1)[None]  # (1, B C, rows, columns), each with its own kernel
    for axis in (0, 1):
        kernels = [
            torch.ones(1) if sigma is None else gaussian_1d(torch.tensor(sigma[axis]), approx=inner.approx)
            for sigma in sigmas
        ]
        reach = max(len(kernel) for kernel in kernels) // 2
        weight = torch.stack([F.pad(kernel, [reach - len(kernel) // 2] * 2) for kernel in kernels])
        weight = weight.repeat_interleave(image.shape[1], 0).to(image.device, non_blocking=True)
        weight = weight[:, None, :, None] if axis == 0 else weight[:, None, None, :]
        planes = F.conv2d(planes, weight, padding="same", groups=len(weight))
    return planes.reshape(image.shape)


def _drop_holes(transform: RandCoarseDropoutd, image: torch.Tensor) -> torch.Tensor:
    inner = transform.dropper
    image = image.clone()
    for one in image:
        transform.randomize(None)
        if _drew(transform):
            inner.randomize(one.shape[1:])
            for hole in inner.hole_coords:
                one[hole] = inner.fill_value
    return image


def _apply_each(transform: Any, image: torch.Tensor) -> torch.Tensor:
    """Applies a transform of ours, which runs on the images' device, to one image after the other."""
    return torch.stack([transform({"image": one})["image"] for one in image])


def _normalize(transform: NormalizeIntensityd, image: torch.Tensor) -> torch.Tensor:
    inner = transform.normalizer
    if inner.nonzero or inner.channel_wise or inner.subtrahend is not None or inner.divisor is not None:
        raise ValueError(
            "normalization of batches takes NormalizeIntensityd of the whole image; train without gpu_train.json"
        )
    deviation, mean = torch.std_mean(image, (1, 2, 3), correction=0, keepdim=True)
    return (image - mean) / torch.where(deviation == 0, torch.ones_like(deviation), deviation)


_INTENSITY: dict[type, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    RandScaleIntensityd: _scale,
    RandShiftIntensityd: _shift,
    RandAdjustContrastd: _adjust_contrast,
    RandGaussianNoised: _add_noise,
    RandGaussianSmoothd: _smooth,
    RandCoarseDropoutd: _drop_holes,
    RandDepthGaind: _apply_each,
    RandMarksd: _apply_each,
    RandDarkCornersd: _apply_each,
    RandGainFieldd: _apply_each,
    NormalizeIntensityd: _normalize,
}
"""Transform -> what draws for each image of a batch and changes the batch."""
