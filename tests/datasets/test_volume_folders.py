"""NIfTI folders of the Decathlon and of nnU-Net: check, split, and a bundle trained on them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mobileutr_monai.__main__ import main
from mobileutr_monai.datasets.nifti_folders.check import check_volumes
from mobileutr_monai.datasets.nifti_folders.layout import find_volumes, has_volumes, make_volume_datalist

SPACING = (1.0, 1.0, 2.0)
SHAPE = (24, 20, 18)


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([*SPACING, 1.0]) if affine is None else affine), path)


def save_nnunet(root: Path, cases: int = 5, channels: int = 2) -> Path:
    generator = np.random.default_rng(0)
    for index in range(cases):
        label = np.zeros(SHAPE, np.uint8)
        label[4:12, 4:12, 4:12], label[14:20, 4:12, 4:12] = 1, 2
        for channel in range(channels):
            values = (generator.normal(size=SHAPE) + 3 * label).astype(np.float32)
            save(root / "imagesTr" / f"case_{index:03d}_{channel:04d}.nii.gz", values)
        save(root / "labelsTr" / f"case_{index:03d}.nii.gz", label)
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "core": 1, "edema": 2}}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def test_a_sound_nnunet_folder_has_no_problems_and_a_proposal(tmp_path: Path) -> None:
    report = check_volumes(save_nnunet(tmp_path))
    assert report.problems == []
    text = report.to_text()
    assert "1 core (in 5 volumes), 2 edema (in 5 volumes)" in text
    assert "--labels core,edema --spacing 1,1,2 --roi-size 16,16,16 --in-channels 2 --weights none" in text


def test_a_decathlon_folder_is_read_too(tmp_path: Path) -> None:
    save_nnunet(tmp_path, channels=1)
    text = check_volumes(tmp_path).to_text()
    assert "--roi-size 16,16,16" in text and "--weights none" not in text  # the bundle's weights fit one channel
    for path in (tmp_path / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"0": "MRI"}, "labels": {"0": "bg", "1": "a"}}))
    layout = find_volumes(tmp_path)
    assert {len(files) for files in layout.images.values()} == {1}
    assert (layout.label_names, layout.channel_names) == ({0: "bg", 1: "a"}, ["MRI"])
    assert {problem.kind for problem in check_volumes(tmp_path).problems} == {"unexpected_value"}  # 2 has no name


def test_what_is_wrong_is_told_by_kind_and_file(tmp_path: Path) -> None:
    save_nnunet(tmp_path, cases=7)
    labels = tmp_path / "labelsTr"
    whole = np.ones(SHAPE, np.uint8)
    save(labels / "case_000.nii.gz", whole[:-1])
    save(labels / "case_001.nii.gz", whole, np.diag([1, 1, 2.5, 1]))
    save(labels / "case_002.nii.gz", 0.5 * whole.astype(np.float32))
    save(labels / "case_003.nii.gz", 0 * whole)
    (labels / "case_004.nii.gz").unlink()
    (tmp_path / "imagesTr" / "case_005_0001.nii.gz").unlink()
    (tmp_path / "imagesTr" / "case_006_0000.nii.gz").write_bytes(b"no volume")
    found = {(problem.kind, problem.files[0].split("/")[1][:8]) for problem in check_volumes(tmp_path).problems}
    assert found == {
        ("size_mismatch", "case_000"),
        ("grid_mismatch", "case_001"),
        ("unexpected_value", "case_002"),
        ("empty_mask", "case_002"),
        ("empty_mask", "case_003"),
        ("missing_mask", "case_004"),
        ("missing_channel", "case_005"),
        ("unreadable_image", "case_006"),
    }


def test_equal_volumes_and_groups_stay_together(tmp_path: Path) -> None:
    save_nnunet(tmp_path, cases=6, channels=1)
    (tmp_path / "groups.csv").write_text(
        "image,group\n" + "".join(f"case_{i:03d}.nii.gz,patient{i // 2}\n" for i in range(6))
    )
    datalist = make_volume_datalist(tmp_path, {}, 0, folds=3, groups=tmp_path / "groups.csv")
    values = [item["fold"] for item in datalist["training"]]
    assert values[0::2] == values[1::2] and set(values) == {0, 1, 2}


def test_a_folder_of_pictures_has_no_volumes(breast: Path) -> None:
    assert not has_volumes(breast / "sample_data")


def test_check_split_new_bundle_train_and_predict_on_an_nnunet_folder(
    breast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_nnunet(tmp_path / "data", cases=4)
    hippocampus = breast.parent / "hippocampus_mri_segmentation"
    assert main(["check", str(data)]) == 0
    assert main(["split", str(data), "--output", str(data / "datalist.json"), "--validation", "0.25"]) == 0
    new = ["new-bundle", "brain", "--from", str(hippocampus), "--labels", "core,edema", "--output", str(tmp_path)]
    settings = ["--spacing", "1,1,2", "--roi-size", "16,16,16", "--in-channels", "2", "--weights", "none"]
    assert main([*new, *settings]) == 0
    train = ["train", str(tmp_path / "brain"), str(data), "--output", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*train, "--set", "precision=float32", "--install"]) == 0
    assert "3 cases to train on, 1 to validate on" in capsys.readouterr().out
    assert (tmp_path / "run" / "worst_cases.png").is_file()
    predict = ["predict", str(tmp_path / "brain"), str(data / "imagesTr"), "--output", str(tmp_path / "out")]
    assert main([*predict, "--workers", "0", "--no-page"]) == 0
    masks = sorted(path.name for path in (tmp_path / "out").glob("*_mask.nii.gz"))
    assert masks == [f"case_{index:03d}_mask.nii.gz" for index in range(4)]
    assert nib.load(tmp_path / "out" / masks[0]).shape == SHAPE
