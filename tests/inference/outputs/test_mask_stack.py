"""A stack of masks is whole whether or not the number of frames is known before."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mobileutr_monai.inference.outputs import mask_stack
from mobileutr_monai.inference.outputs.mask_stack import iter_frame_masks, write_mask_stack

MASKS = np.random.default_rng(0).integers(0, 3, (7, 11, 13), np.uint8)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_stack_whose_frames_are_counted_as_they_come_is_that_of_a_known_number(name: str, tmp_path: Path) -> None:
    write_mask_stack(Path("clip.mp4"), MASKS, tmp_path / name)
    write_mask_stack(Path("clip.mp4"), MASKS, tmp_path / f"b{name}", (11, 13, 7))
    assert (tmp_path / name).read_bytes() == (tmp_path / f"b{name}").read_bytes()
    assert np.array_equal(np.asarray(nib.load(tmp_path / name).dataobj), MASKS.transpose(2, 1, 0))
    assert np.array_equal(np.stack(list(iter_frame_masks(tmp_path / name))), MASKS)


def test_a_compressed_stack_is_one_member_with_its_checksum(tmp_path: Path) -> None:
    write_mask_stack(Path("clip.mp4"), MASKS, tmp_path / "a.nii.gz")
    content = (tmp_path / "a.nii.gz").read_bytes()
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert len(inflate.decompress(content)) == 352 + MASKS.size
    assert inflate.eof and not inflate.unused_data
    assert gzip.decompress(content)[352:] == MASKS.tobytes()  # which checks the CRC


def test_a_stack_that_nifti_cannot_hold_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_stack, "_MAX_SIDE", 13)
    with pytest.raises(ValueError, match=r"clip.mp4: \(13, 11, 14\) is more than the 13 a side"):
        write_mask_stack(Path("clip.mp4"), np.zeros((14, 11, 13)), tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())
