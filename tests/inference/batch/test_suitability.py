"""What a run says of inputs that are not for it, before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.batch.suitability import Suitability, check_found
from mobileutr_monai.readers import cases
from mobileutr_monai.readers.cases import find_cases
from tests.dicom_samples import write_series

VOLUME = (
    Path(__file__).resolve().parents[3]
    / "bundles/hippocampus_mri_segmentation/sample_data/images/hippocampus_093.nii.gz"
)
VIDEO = b"\0\0\0\x18ftypisom" + bytes(32)


def test_a_video_is_not_for_a_bundle_of_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "can_read_video", lambda: True)
    (tmp_path / "clip.mp4").write_bytes(VIDEO)
    (case,) = find_cases(tmp_path).cases
    assert Suitability(2, ["US"]).why_rejected(case) is None
    error = Suitability(3, ["MR"]).why_rejected(case)
    assert error is not None
    assert (error.reason, error.detail, error.skipped) == (Reason.DIMENSION, "a video; the bundle takes volumes", True)


def test_a_run_on_a_video_without_the_extra_ends_in_a_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "can_read_video", lambda: False)
    (tmp_path / "clip.mp4").write_bytes(VIDEO)
    with pytest.raises(UsageError, match=r'1 other file; video .*pip install "mobileutr-monai\[video\]"\)$') as error:
        check_found(find_cases(tmp_path), {}, 2, tmp_path, [])
    assert "\n" not in str(error.value)
    clip = tmp_path / "clip.mp4"
    with pytest.raises(UsageError, match=r"clip.mp4 cannot be read: video is not supported; .*\[video\]\"$"):
        check_found(find_cases([clip]), {}, 2, tmp_path, [clip])


def test_a_file_that_is_given_alone_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_series(VOLUME, tmp_path)
    first, second, *_ = sorted(tmp_path.iterdir())
    suitability = Suitability(3, ["MR"])
    found = find_cases([first])
    with pytest.raises(UsageError) as error:
        check_found(found, suitability.reject_all(found), 3, tmp_path, [first])
    assert str(error.value) == (
        f"{first} is not for this bundle: DICOM still, a 2D image or cine; the "
        "bundle takes volumes; give the folder with all slices of its series"
    )
    flat = Suitability(2, ["US"])
    found = find_cases([first, second])
    with pytest.raises(UsageError, match="no images for this bundle in the 2 paths that are given"):
        check_found(found, flat.reject_all(found), 2, tmp_path, [first, second])


def test_another_modality_is_refused_in_the_words_of_the_caller(tmp_path: Path) -> None:
    write_series(VOLUME, tmp_path)
    (case,) = find_cases(tmp_path).cases
    detail = "MR, the bundle is for CT; --any-modality accepts it"
    for suitability, expected in (
        (Suitability(3, ["CT"]), detail),
        (Suitability(3, ["CT"], how_to_accept="ask"), detail.replace("--any-modality accepts it", "ask")),
    ):
        error = suitability.why_rejected(case)
        assert error is not None and error.detail == expected
    assert Suitability(3, ["CT"], any_modality=True).why_rejected(case) is None
