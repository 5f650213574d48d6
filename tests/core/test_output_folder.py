"""Results of a case get their names only when they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileutr_monai.core.atomic import hash_file, write_atomic
from mobileutr_monai.core.output_folder import OutputFolder


def test_what_a_killed_process_was_writing_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = OutputFolder(tmp_path)
    staged = folder.stage("clip")
    (staged / "clip_mask.nii.gz").write_bytes(b"whole")
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda *_: None)  # it gets neither as far as the name, nor to tidying up
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        write_atomic(staged / "clip_overlay.mp4", lambda file: file.write(b"half"))
    assert len(list(staged.iterdir())) == 2
    files = folder.list_staged("clip")
    assert files == {"_mask.nii.gz": hash_file(staged / "clip_mask.nii.gz")}
    folder.publish("clip", files)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["clip_mask.nii.gz"]
