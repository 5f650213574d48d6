"""Resampling to a voxel size, in MONAI Label too, of volumes that fill the memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks.layers import AffineTransform
from monai.transforms import Spacingd, SpatialResample, create_translate
from monai.utils import TraceKeys, get_equivalent_dtype, get_torch_dtype_from_string

__all__ = ["ResampleToSpacingd"]

# Voxels of the result that are computed at a time; in float64 the places that they come from take 24 bytes each.
_VOXELS_AT_ONCE = 2**21
# What is resampled in parts: trilinear, with the border's values outside, as all bundles do.
_IN_PARTS: dict[str, Any] = {"mode": "bilinear", "padding_mode": "border", "align_corners": False}


class ResampleToSpacingd(Spacingd):
    """MONAI's ``Spacingd``, which it equals, where the data hold more than tensors and their meta dictionaries.

    In MONAI 1.6.0 and 1.6.1 ``Spacingd`` calls ``update`` on every entry whose key starts with ``image_`` and fails on
    the string ``image_path`` that MONAI Label puts there. Such entries are kept from it.

    Volumes of more than ``_VOXELS_AT_ONCE`` are resampled part by part, there and back: MONAI makes the places of all
    voxels, the volume and the result in float64, for the probabilities of a volume of 512 x 512 x 400 more than 5 GiB.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        whole = self.spacing_transform.sp_resample
        self.spacing_transform.sp_resample = _ResampleInParts(
            whole.mode, whole.padding_mode, whole.align_corners, whole.dtype, whole.lazy
        )

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        aside = {key: value for key, value in data.items() if key not in self.keys and not isinstance(value, Mapping)}
        resampled: dict[Hashable, torch.Tensor] = super().__call__(
            {key: value for key, value in data.items() if key not in aside}, lazy
        )
        return {**aside, **resampled}


class _ResampleInParts(SpatialResample):
    """MONAI's ``SpatialResample``, part by part where the result is large; meta and trace are MONAI's."""

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Any = None,
        mode: Any = None,
        padding_mode: Any = None,
        align_corners: bool | None = None,
        dtype: Any = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        how = {
            "mode": str(mode or self.mode),
            "padding_mode": str(padding_mode or self.padding_mode),
            "align_corners": bool(self.align_corners if align_corners is None else align_corners),
        }
        is_lazy = self.lazy if lazy is None else lazy
        sizes = None if spatial_size is None else [int(size) for size in np.atleast_1d(spatial_size)]
        if (
            is_lazy
            or how != _IN_PARTS
            or not isinstance(img, MetaTensor)
            or img.pending_operations
            or dst_affine is None
            or sizes is None
            or not img.ndim - 1 == len(sizes) == 3
            or np.prod(sizes) <= _VOXELS_AT_ONCE
            or sizes == list(img.shape[1:])  # nothing to do, perhaps
        ):
            whole: torch.Tensor = super().__call__(
                img, dst_affine, spatial_size, mode, padding_mode, align_corners, dtype, lazy
            )
            return whole
        precision = get_equivalent_dtype(dtype or self.dtype or img.dtype, torch.Tensor)
        source = img.affine.to("cpu", torch.float64)
        places = torch.as_tensor(np.linalg.solve(source.numpy(), np.asarray(dst_affine, np.float64)))
        meta = self.track_transform_meta(
            img,
            sp_size=torch.tensor(sizes),
            affine=places,
            extra_info={**how, "dtype": str(precision)[6:], "src_affine": source},
            orig_size=img.peek_pending_shape(),
            transform_info=self.get_transform_info(),
            lazy=False,
        )
        resampled = _resample(img.as_tensor(), places, sizes, precision)
        out: torch.Tensor = MetaTensor(resampled).copy_meta_from(meta)
        return out

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """MONAI's own, which calls ``SpatialResample``'s ``__call__`` whatever the class."""
        transform = self.pop_transform(data)
        how = dict(transform[TraceKeys.EXTRA_INFO])
        how["dtype"] = get_torch_dtype_from_string(how["dtype"])
        how["dst_affine"] = how.pop("src_affine")
        if how["align_corners"] == TraceKeys.NONE:
            how["align_corners"] = False
        with self.trace_transform(False):
            return self(data, spatial_size=transform[TraceKeys.ORIG_SIZE], **how)


def _resample(values: torch.Tensor, places: torch.Tensor, sizes: list[int], precision: torch.dtype) -> torch.Tensor:
    """Resamples a volume, planes by planes of the result, each from the part of the volume that it needs.

    Args:
        places: (4, 4), from voxels of the result to those of ``values``.
        sizes: of the result.
        precision: that is computed in.

    Shape:
        - values: (channels, x, y, z); output: (channels, *sizes), float32.
    """
    sample = AffineTransform(normalized=False, reverse_indexing=True, **_IN_PARTS)
    out = torch.empty((len(values), *sizes), dtype=torch.float32, device=values.device)
    planes = max(1, _VOXELS_AT_ONCE // (sizes[1] * sizes[2]))
    most = torch.tensor(values.shape[1:], dtype=torch.float64)
    for first in range(0, sizes[0], planes):
        last = min(first + planes, sizes[0])
        corners = torch.tensor([[*c, 1] for c in product((first, last - 1), (0, sizes[1] - 1), (0, sizes[2] - 1))])
        ends = (places @ corners.T.to(places))[:3]
        # One more on either side: the border of the part is that of the volume, or nobody's.
        low = torch.minimum((ends.amin(1).floor() - 1).clamp(min=0), most - 1)
        high = torch.maximum(torch.minimum(ends.amax(1).ceil() + 2, most), low + 1)
        part = values[(slice(None), *(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))]
        there = torch.as_tensor(create_translate(3, (-low).tolist()), dtype=torch.float64)
        back = torch.as_tensor(create_translate(3, (first, 0, 0)), dtype=torch.float64)
        theta = (there @ places @ back).to(values.device, precision)
        out[:, first:last] = sample(part.to(precision)[None], theta, (last - first, *sizes[1:]))[0]
    return out
