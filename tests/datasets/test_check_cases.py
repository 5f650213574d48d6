"""Split and training run the errors of ``mobileutr check`` over what they use."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.__main__ import main
from mobileutr_monai.datasets import check
from mobileutr_monai.datasets.check_cases import check_training
from mobileutr_monai.datasets.masks import MaskCoding
from tests.bundle.training_data import save_images
from tests.datasets.test_volume_folders import SHAPE, save, save_nnunet


def save_frames(path: Path) -> None:
    frames = [Image.fromarray(np.full((40, 48), value, np.uint8)) for value in (10, 200)]
    frames[0].save(path.with_suffix(".tif"), save_all=True, append_images=frames[1:])
    path.unlink()


def save_values(path: Path, *values: int, shape: tuple[int, int] = (40, 48)) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[5:20, 5:20] = values[0]
    mask[25:35, 5:20] = values[-1]
    Image.fromarray(mask).save(path)


def copy_with_other_mask(data: Path) -> None:
    shutil.copy(data / "images" / "0.png", data / "images" / "9.png")
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((36, 0), (44, 0)))).save(data / "masks" / "9.png")


FAULTS: list[tuple[str, Callable[[Path], object]]] = [
    ("size_mismatch", lambda data: save_values(data / "masks" / "1.png", 255, shape=(48, 40))),
    ("unreadable_mask", lambda data: (data / "masks" / "1.png").write_bytes(b"no mask")),
    ("unreadable_image", lambda data: (data / "images" / "1.png").write_bytes(b"no image")),
    ("several_frames", lambda data: save_frames(data / "images" / "1.png")),
    ("duplicate_conflict", copy_with_other_mask),
    ("missing_mask", lambda data: (data / "masks" / "1.png").unlink()),
]


def list_items(data: Path) -> list[dict[str, Any]]:
    images = sorted((data / "images").iterdir())
    masks = {path.stem: path for path in (data / "masks").iterdir()}
    return [{"image": str(path), "label": [str(masks[path.stem])] if path.stem in masks else []} for path in images]


@pytest.mark.parametrize(("kind", "spoil"), FAULTS, ids=[kind for kind, _ in FAULTS])
def test_an_error_of_check_stops_split_and_training(
    kind: str, spoil: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_images(tmp_path / "data")
    (data / "datalist.json").unlink()
    spoil(data)
    assert main(["check", str(data)]) == 1
    capsys.readouterr()
    assert main(["split", str(data), "--output", str(tmp_path / "list.json")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mobileutr: error: ")]
    assert f"1 {kind} (" in line and f"mobileutr check {data} lists all" in line
    assert not (tmp_path / "list.json").exists()
    with pytest.raises(ValueError, match=rf"1 {kind} \(.*--set check_data=false trains anyway"):
        check_training(list_items(data), [], MaskCoding())


def test_warnings_of_check_are_said_and_stop_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = save_images(tmp_path / "data")
    save_values(data / "masks" / "1.png", 0)
    assert main(["split", str(data), "--output", str(tmp_path / "list.json")]) == 0
    assert "1 empty_mask (" in capsys.readouterr().err
    with caplog.at_level(logging.WARNING):
        check_training(list_items(data), [], MaskCoding())
    assert "1 empty_mask (" in caplog.text and "masks/1.png" in caplog.text


def test_only_what_is_used_is_looked_at_and_the_two_sides_are_compared(tmp_path: Path) -> None:
    data = save_images(tmp_path / "data")
    shutil.copy(data / "images" / "0.png", data / "images" / "9.png")
    shutil.copy(data / "masks" / "0.png", data / "masks" / "9.png")
    items = list_items(data)
    check_training(items, [], MaskCoding())
    with pytest.raises(ValueError, match=r"1 split_leak \(.* such as 0\.png = 9\.png: training and validation"):
        check_training(items[:-1], items[-1:], MaskCoding())
    with pytest.raises(ValueError, match=r"1 split_overlap \("):
        check_training(items[:-1], items[1:2], MaskCoding())
    with pytest.raises(ValueError, match=r"unexpected_value \("):
        check_training(items, [], MaskCoding("values", values={0: 0, 7: 1}))


def test_images_as_nifti_are_left_to_their_reader(tmp_path: Path) -> None:
    cases = []
    for index in range(2):
        image, mask = tmp_path / f"{index}.nii.gz", tmp_path / f"{index}.png"
        nib.save(nib.nifti1.Nifti1Image(np.full((48, 40), index, np.uint8), np.eye(4)), image)
        save_values(mask, 255)
        cases.append({"image": str(image), "label": [str(mask)]})
    check_training(cases[:1], cases[1:], MaskCoding("two-valued"))


def test_files_that_have_not_changed_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = list_items(save_images(tmp_path / "data"))
    check_training(items, [], MaskCoding())
    with monkeypatch.context() as patch:
        patch.setattr(check, "_look_at", lambda case, coding: pytest.fail(f"{case.image} is read again"))
        check_training(items[:3], items[3:], MaskCoding())
    save_values(Path(items[0]["label"][0]), 0, 128)
    with pytest.raises(ValueError, match="unexpected_value"):
        check_training(items, [], MaskCoding("values", values={0: 0, 255: 1}))


def test_volumes_are_checked_and_near_duplicates_stay_on_one_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_nnunet(tmp_path, cases=6, channels=1)
    image = nib.load(data / "imagesTr" / "case_000_0000.nii.gz")
    values = np.asarray(image.dataobj)
    for index, changed in ((6, 2 * values + 5), (7, values + np.random.default_rng(1).normal(0, 0.2, SHAPE))):
        save(data / "imagesTr" / f"case_{index:03d}_0000.nii.gz", changed.astype(np.float32))
        shutil.copy(data / "labelsTr" / "case_000.nii.gz", data / "labelsTr" / f"case_{index:03d}.nii.gz")
    for seed in range(3):
        split = ["split", str(data), "--output", str(data / "datalist.json"), "--validation", "0.4", "--overwrite"]
        assert main([*split, "--seed", str(seed)]) == 0
        made = json.loads((data / "datalist.json").read_text())
        validation = {item["label"] for item in made["validation"]}
        assert len({f"labelsTr/case_{index:03d}.nii.gz" in validation for index in (0, 6, 7)}) == 1
        assert "near-duplicates kept together" in capsys.readouterr().out
        assert main(["check", str(data)]) == 0
    items = [
        {"image": str(data / "imagesTr" / f"case_{i:03d}_0000.nii.gz"), "label": f"{data}/labelsTr/case_{i:03d}.nii.gz"}
        for i in range(8)
    ]
    check_training(items, [], None)
    with pytest.raises(ValueError, match=r"2 split_leak \(.*training and validation, correlation"):
        check_training(items[:6], items[6:], None)
    (data / "datalist.json").write_text(json.dumps({**made, "validation": made["validation"] + made["training"][:1]}))
    assert main(["check", str(data)]) == 1
    assert "split_overlap" in capsys.readouterr().out
    save(data / "labelsTr" / "case_003.nii.gz", np.ones(SHAPE, np.uint8), np.diag([1, 1, 2.5, 1]))
    with pytest.raises(ValueError, match=r"1 grid_mismatch \("):
        check_training(items, [], None)
    assert main(["split", str(data), "--output", str(tmp_path / "new.json")]) == 2
    assert "1 grid_mismatch (" in capsys.readouterr().err
