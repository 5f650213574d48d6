"""DICOM through a real Orthanc: what MONAI Label sends back to it lies on the image as the mask does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_samples import write_series, write_still
from label_service import ROOT, LabelServer, Orthanc, ask, read_picture, serve
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
HIPPOCAMPUS = ROOT / "bundles" / "hippocampus_mri_segmentation"


class Pacs:
    """What lies in Orthanc: series UIDs, and the files that they are made of."""

    def __init__(self, orthanc: Orthanc, folder: Path) -> None:
        self.orthanc, self.folder = orthanc, folder
        sample = sorted((BREAST / "sample_data" / "images").iterdir())[0]
        self.stills = {}
        for mode in ("L", "RGB"):
            (folder / mode).mkdir()
            self.stills[mode] = write_still(sample, mode, folder / mode / "still.dcm")
        (folder / "series").mkdir()
        self.series = write_series(sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0], folder / "series")
        for path in sorted(folder.rglob("*.dcm")):
            orthanc.store(path)

    def fetch_segmentations(self, of: str) -> list[Dataset]:
        """Returns the segmentations of a series, fetched over DICOMweb."""
        found = []
        for item in ask(f"{self.orthanc.dicom_web}/series?Modality=SEG").json:
            study, series = item["0020000D"]["Value"][0], item["0020000E"]["Value"][0]
            answer = ask(f"{self.orthanc.dicom_web}/studies/{study}/series/{series}")
            start = answer.body.index(b"DICM") - 128
            dataset = dcmread(BytesIO(answer.body[start:]), force=True)
            if dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == of:
                found.append(dataset)
        return found


@pytest.fixture(scope="module")
def pacs(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Pacs:
    return Pacs(orthanc, tmp_path_factory.mktemp("dicom"))


@pytest.fixture(scope="module")
def breast_server(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    with serve(BREAST, pacs.orthanc.dicom_web, tmp_path_factory.mktemp("breast")) as running:
        yield running


@pytest.fixture(scope="module")
def hippocampus_server(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    with serve(HIPPOCAMPUS, pacs.orthanc.dicom_web, tmp_path_factory.mktemp("hippocampus")) as running:
        yield running


def lay_on(segmentation: Dataset, files: list[Path]) -> dict[str, np.ndarray]:
    """Returns SOP instance UID -> label map of that file, by the references of the segmentation's frames."""
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    masks = {str(header.SOPInstanceUID): np.zeros((header.Rows, header.Columns), np.uint8) for header in headers}
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        shared = segmentation.SharedFunctionalGroupsSequence[0]
        holder = group if "SegmentIdentificationSequence" in group else shared
        number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        masks[str(uid)][frame > 0] = number
    return masks


def segments_of(segmentation: Dataset) -> dict[str, str]:
    return {
        item.SegmentLabel: item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning
        for item in segmentation.SegmentSequence
    }


def read_volume(content: bytes, path: Path) -> nib.nifti1.Nifti1Image:
    path.write_bytes(content)
    return nib.load(path)


@pytest.mark.parametrize("server_name", ["breast_server", "hippocampus_server"])
def test_only_series_of_the_bundles_modality_are_listed(server_name, pacs, request):
    server = request.getfixturevalue(server_name)
    expected = [pacs.series] if server_name == "hippocampus_server" else pacs.stills.values()
    listed = server.ask("/datastore/", output="all").json
    assert server.ask("/datastore/").json["total"] == len(expected), listed


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_mask_of_an_ultrasound_still_is_that_of_the_bundle(breast_server, pacs, mode, monai_bundle, tmp_path):
    target = ("--dataset_dir", pacs.folder / mode, "--output_dir", tmp_path, "--output_format", "plain")
    monai_bundle("run", "--config_file", "configs/inference.json", "--whole_overlays", "True", *target, cwd=BREAST)
    expected = np.asarray(Image.open(next(tmp_path.rglob("*_mask.png"))))
    answer = breast_server.infer(pacs.stills[mode])
    assert answer.status == 200, answer.body
    assert np.array_equal(read_picture(answer.body), expected)
    assert expected.any()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_segmentation_of_a_still_comes_back_from_the_pacs_as_the_mask(breast_server, pacs, mode, tmp_path):
    series = pacs.stills[mode]
    mask = breast_server.infer(series)
    made = breast_server.infer(series, output="dicom_seg", label_info=[])
    assert made.status == 200, made.body
    assert segments_of(dcmread(BytesIO(made.body))) == {"lesion": "Lesion"}

    label = tmp_path / "label.png"
    label.write_bytes(mask.body)
    saved = breast_server.save_label(series, label)
    assert saved.status == 200, saved.body
    (segmentation,) = pacs.fetch_segmentations(series)
    assert segments_of(segmentation) == {"lesion": "Lesion"}
    (found,) = lay_on(segmentation, [pacs.folder / mode / "still.dcm"]).values()
    assert np.array_equal(found, read_picture(mask.body))


def test_the_segmentation_of_a_series_comes_back_from_the_pacs_as_the_mask(hippocampus_server, pacs, tmp_path):
    answer = hippocampus_server.infer(pacs.series)
    assert answer.status == 200, answer.body
    mask = read_volume(answer.body, tmp_path / "mask.nii.gz")
    values = np.asarray(mask.dataobj)
    assert set(np.unique(values)) == {0, 1, 2}
    made = hippocampus_server.infer(pacs.series, output="dicom_seg", label_info=[])
    assert made.status == 200, made.body

    saved = hippocampus_server.save_label(pacs.series, tmp_path / "mask.nii.gz")
    assert saved.status == 200, saved.body
    (segmentation,) = pacs.fetch_segmentations(pacs.series)
    names = list(segments_of(segmentation))
    assert names == [label["name"] for label in label_names(HIPPOCAMPUS)]
    headers = {path: dcmread(path, stop_before_pixels=True) for path in (pacs.folder / "series").iterdir()}
    found = lay_on(segmentation, list(headers))
    assert sum(np.count_nonzero(plane) for plane in found.values()) == np.count_nonzero(values)
    to_index = np.linalg.inv(mask.affine)
    for header in headers.values():
        position = np.array([*header.ImagePositionPatient, 1.0]) * [-1, -1, 1, 1]
        slice_index = round(float((to_index @ position)[2]))
        assert np.array_equal(found[str(header.SOPInstanceUID)].T, values[..., slice_index])


def test_a_series_is_given_to_viewers_on_its_own_grid(hippocampus_server, pacs, tmp_path):
    answer = hippocampus_server.ask("/datastore/image", image=pacs.series)
    image = read_volume(answer.body, tmp_path / "image.nii.gz")
    source = nib.load(sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0])
    assert np.allclose(nib.as_closest_canonical(image).affine, nib.as_closest_canonical(source).affine, atol=1e-3)
    assert nib.as_closest_canonical(image).shape == nib.as_closest_canonical(source).shape


def test_corrections_in_the_pacs_are_learnt_from(breast_server, pacs, tmp_path):
    for series in pacs.stills.values():
        label = tmp_path / "label.nii.gz"  # as 3D Slicer sends it
        mask = read_picture(breast_server.infer(series).body)
        nib.save(nib.nifti1.Nifti1Image(mask.T[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])), label)
        assert breast_server.save_label(series, label).status == 200
    job = breast_server.train(max_epochs=1, val_split=0.5, batch_size=1)
    assert job["status"] == "DONE", job["details"]
    assert any("val_mean_dice" in line for line in job["details"])


@pytest.mark.parametrize("image", ["1.2.3", "../../etc", "/etc/hostname", "a b"])
def test_what_the_pacs_does_not_have_is_not_found(breast_server, image):
    assert breast_server.infer(image).status == 404


def test_a_series_of_another_kind_is_refused_with_the_reason(breast_server, pacs):
    answer = breast_server.infer(pacs.series)
    assert answer.status == 422
    assert "dimensions" in answer.detail


def label_names(bundle: Path) -> list[dict]:
    channels = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    return [{"name": name} for index, name in channels["channel_def"].items() if int(index)]
