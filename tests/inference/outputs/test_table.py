"""The table of outputs: which files a case gets, and that another kind of file is a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.inference.measure import Measurement
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.result import CaseResult, OutputOptions
from mobileutr_monai.inference.outputs.table import OUTPUTS, Output, find_outputs
from mobileutr_monai.inference.outputs.writers import CaseWriter
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.dicom.series import DicomCase

ALGORITHM = Algorithm("lesions", "1.0", "0" * 64)


def make_case(path: Path, kind: CaseKind, uid: str = "1.2") -> InputCase:
    dicom = None
    if kind in (CaseKind.STILL, CaseKind.CINE, CaseKind.SERIES):
        dicom = DicomCase(kind, (path,), "MR", "1.2.840", uid, uid, (uid,), 8, 8, 1, affine=np.eye(4))
    return InputCase(path.name, path.stem, kind, (path,), dicom)


@pytest.mark.parametrize(
    ("kind", "uid", "output_format", "label_map", "picture"),
    [
        (CaseKind.IMAGE, "", "auto", "_mask.png", "_overlay.png"),
        (CaseKind.NIFTI, "", "auto", "_mask.nii.gz", "_overlay.png"),
        (CaseKind.STILL, "1.2", "auto", "_seg.dcm", "_overlay.png"),
        (CaseKind.STILL, "1.2", "plain", "_mask.png", "_overlay.png"),
        (CaseKind.STILL, "", "auto", "_mask.png", "_overlay.png"),
        (CaseKind.SERIES, "1.2", "auto", "_seg.dcm", "_overlay.png"),
        (CaseKind.SERIES, "1.2", "plain", "_mask.nii.gz", "_overlay.png"),
        (CaseKind.SERIES, "", "auto", "_mask.nii.gz", "_overlay.png"),
        (CaseKind.CINE, "1.2", "auto", None, "_overlay.dcm"),
        (CaseKind.CINE, "", "auto", None, None),
    ],
)
def test_each_kind_of_case_gets_one_label_map_and_one_picture(
    kind: CaseKind, uid: str, output_format: str, label_map: str | None, picture: str | None
) -> None:
    case, options = make_case(Path("a"), kind, uid), OutputOptions([], ALGORITHM, output_format, True, False)
    for extras, ending in ((False, label_map), (True, picture)):
        assert [row.ending for row in find_outputs(case, options, extras=extras)] == [ending] * (ending is not None)


def test_another_kind_of_file_is_a_row_that_gets_the_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_area(result: CaseResult, path: Path) -> None:
        path.write_text("\n".join(f"{m.label} {m.pixels}" for m in result.measurements))

    row = Output("_area.txt", lambda case, options: case.kind is CaseKind.IMAGE, write_area)
    monkeypatch.setitem(OUTPUTS, "area", row)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    writer = CaseWriter(tmp_path / "out", OutputOptions([], ALGORITHM, "auto", False, False))
    case = make_case(tmp_path / "a.png", CaseKind.IMAGE)
    measurements = [Measurement("lesion", pixels=7)]
    written = writer.write(CaseResult(case, np.zeros((8, 8), np.uint8), measurements, writer.options))
    assert [path.name for path in written] == ["a_mask.png", "a_area.txt"]
    assert written[1].read_text() == "lesion 7"
