"""What a run says of inputs that are not for it, before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.batch.suitability import Suitability, check_found
from mobileutr_monai.readers import cases
from mobileutr_monai.readers.cases import find_cases

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
        check_found(find_cases(tmp_path), {}, 2, "IN")
    assert "\n" not in str(error.value)
