"""DICOM through a real Orthanc: what MONAI Label sends back to it lies on the image as the mask does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_samples import LPS_TO_RAS, complete_series, write_series, write_still, write_ultrasound_series
from label_service import ROOT, LabelServer, Orthanc, ask, read_picture, serve
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

BREAST = ROOT / "bundles" / "breast_ultrasound_segmentation"
HIPPOCAMPUS = ROOT / "bundles" / "hippocampus_mri_segmentation"
SHARED = ROOT.parent / "shared" / "data" / "dicom"


class Pacs:
    """What lies in Orthanc: series UIDs, and the files that they are made of."""

    def __init__(self, orthanc: Orthanc, folder: Path) -> None:
        self.orthanc, self.folder = orthanc, folder
        sample = sorted((BREAST / "sample_data" / "images").iterdir())[0]
        self.stills = {}
        for mode in ("L", "RGB"):
            (folder / mode).mkdir()
            self.stills[mode] = write_still(sample, mode, folder / mode / "still.dcm")
        (folder / "several").mkdir()
        samples = [path for path in sorted(sample.parent.iterdir()) if "normal" not in path.name]
        self.several, self.several_stills = write_ultrasound_series(samples[1:3], folder / "several")
        (folder / "series").mkdir()
        self.series = write_series(sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0], folder / "series")
        self.volumes = {"series": self.series}
        if SHARED.is_dir():
            # A real MR series, as it is: a crop around a hippocampus.
            shutil.copytree(SHARED / "mr_series_Study2_14_HCropVolume", folder / "mr")
            self.volumes["mr"] = str(dcmread(next((folder / "mr").iterdir())).SeriesInstanceUID)
            # A real CT series, whose headers lack their UIDs.
            (folder / "ct").mkdir()
            part = slice(200, 280), slice(140, 204)
            self.volumes["ct"] = complete_series(SHARED / "ct_series_totalseg", folder / "ct", *part)
        for path in sorted(folder.rglob("*.dcm")):
            orthanc.store(path)

    def fetch_segmentations(self, of: str) -> list[Dataset]:
        """Returns the segmentations of a series or an instance, fetched over DICOMweb."""
        found = []
        for item in ask(f"{self.orthanc.dicom_web}/series?Modality=SEG").json:
            study, series = item["0020000D"]["Value"][0], item["0020000E"]["Value"][0]
            place = f"{self.orthanc.dicom_web}/studies/{study}/series/{series}/instances"
            for instance in ask(place).json:
                answer = ask(f"{place}/{instance['00080018']['Value'][0]}")
                start = answer.body.index(b"DICM") - 128
                dataset = dcmread(BytesIO(answer.body[start:]), force=True)
                source = dataset.ReferencedSeriesSequence[0]
                instances = [each.ReferencedSOPInstanceUID for each in source.ReferencedInstanceSequence]
                if of in (source.SeriesInstanceUID, *instances):
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


@pytest.fixture(scope="module")
def any_server(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    with serve(HIPPOCAMPUS, pacs.orthanc.dicom_web, tmp_path_factory.mktemp("any"), "--any-modality") as running:
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


def codes_of(segmentation: Dataset) -> dict[str, list[str]]:
    """Segment name -> code values of its type and of the modifiers of that."""
    types = {item.SegmentLabel: item.SegmentedPropertyTypeCodeSequence[0] for item in segmentation.SegmentSequence}
    return {
        name: [code.CodeValue, *(item.CodeValue for item in code.SegmentedPropertyTypeModifierCodeSequence)]
        for name, code in types.items()
    }


def write_nifti(folder: Path, path: Path) -> None:
    """Writes a series as NIfTI, by its positions; not with the code that is tested."""
    slices = sorted(map(dcmread, folder.iterdir()), key=lambda item: float(item.ImagePositionPatient[2]))
    first, last = slices[0], slices[-1]
    values = [item.pixel_array * float(item.get("RescaleSlope", 1)) for item in slices]
    volume = np.stack(values, -1).transpose(1, 0, 2) + float(first.get("RescaleIntercept", 0))
    affine = np.eye(4)
    across, down = np.reshape(first.ImageOrientationPatient, (2, 3))
    affine[:3, 0], affine[:3, 1] = across * first.PixelSpacing[1], down * first.PixelSpacing[0]
    affine[:3, 3] = first.ImagePositionPatient
    affine[:3, 2] = (np.array(last.ImagePositionPatient) - first.ImagePositionPatient) / (len(slices) - 1)
    nib.save(nib.nifti1.Nifti1Image(volume.astype(np.float32), LPS_TO_RAS @ affine), path)


def read_volume(content: bytes, path: Path) -> nib.nifti1.Nifti1Image:
    path.write_bytes(content)
    return nib.load(path)


@pytest.mark.parametrize("server_name", ["breast_server", "hippocampus_server", "any_server"])
def test_only_series_of_the_bundles_modality_are_listed(server_name, pacs, request):
    server = request.getfixturevalue(server_name)
    stills = [*pacs.stills.values(), *pacs.several_stills]
    magnetic = [uid for name, uid in pacs.volumes.items() if name != "ct"]
    expected = {
        "breast_server": stills,
        "hippocampus_server": magnetic,
        "any_server": [*stills, *pacs.volumes.values()],
    }
    assert set(server.ask("/datastore/", output="all").json["objects"]) == set(expected[server_name])
    assert server.ask("/datastore/").json["total"] == len(expected[server_name])


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


@pytest.mark.parametrize(
    ("name", "server_name"),
    [("series", "hippocampus_server"), ("mr", "hippocampus_server"), ("ct", "any_server")],
)
def test_the_segmentation_of_a_series_comes_back_from_the_pacs_as_the_mask(name, server_name, pacs, request, tmp_path):
    if name not in pacs.volumes:
        pytest.skip(f"no DICOM files in {SHARED}")
    server, series = request.getfixturevalue(server_name), pacs.volumes[name]
    answer = server.infer(series)
    assert answer.status == 200, answer.body
    mask = read_volume(answer.body, tmp_path / "mask.nii.gz")
    values = np.asarray(mask.dataobj)
    assert set(np.unique(values)) == {0, 1, 2}
    write_nifti(pacs.folder / name, tmp_path / "same.nii.gz")
    same = read_volume(server.infer(file=tmp_path / "same.nii.gz").body, tmp_path / "same_mask.nii.gz")
    assert np.allclose(same.affine, mask.affine, atol=1e-3)
    assert np.array_equal(np.asarray(same.dataobj), values)
    made = server.infer(series, output="dicom_seg", label_info=[])
    assert made.status == 200, made.body

    saved = server.save_label(series, tmp_path / "mask.nii.gz")
    assert saved.status == 200, saved.body
    (segmentation,) = pacs.fetch_segmentations(series)
    assert codes_of(segmentation) == segment_codes(HIPPOCAMPUS)
    headers = {path: dcmread(path, stop_before_pixels=True) for path in (pacs.folder / name).iterdir()}
    found = lay_on(segmentation, list(headers))
    for uid, plane in lay_on(dcmread(BytesIO(made.body)), list(headers)).items():
        assert np.array_equal(plane, found[uid])
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


def test_stills_that_share_a_series_are_images_of_their_own(breast_server, pacs, monai_bundle, tmp_path):
    target = ("--dataset_dir", pacs.folder / "several", "--output_dir", tmp_path, "--output_format", "plain")
    monai_bundle("run", "--config_file", "configs/inference.json", "--whole_overlays", "True", *target, cwd=BREAST)
    for index, still in enumerate(pacs.several_stills):
        expected = np.asarray(Image.open(tmp_path / f"{index}_mask.png"))
        assert expected.any()
        answer = breast_server.infer(still)
        assert answer.status == 200, answer.body
        assert np.array_equal(read_picture(answer.body), expected)
        made = breast_server.infer(still, output="dicom_seg", label_info=[])
        assert made.status == 200, made.body
        shown = read_volume(breast_server.ask("/datastore/image", image=still).body, tmp_path / "image.nii.gz")
        assert shown.shape[:2] == expected.T.shape

        label = tmp_path / "label.png"
        Image.fromarray(expected * 255).save(label)
        assert breast_server.save_label(still, label).status == 200
        (segmentation,) = pacs.fetch_segmentations(still)
        for each in (segmentation, dcmread(BytesIO(made.body))):
            (found,) = lay_on(each, [pacs.folder / "several" / f"{index}.dcm"]).values()
            assert np.array_equal(found, expected)


def test_the_next_sample_may_be_one_of_several_stills(breast_server, pacs):
    listed = [image for image in breast_server.ask("/datastore/", output="all").json["objects"]]
    answer = ask(f"{breast_server.url}/activelearning/first", "POST", b"{}", "application/json")
    assert answer.status == 200
    assert not answer.json or answer.json["id"] in listed


def test_a_series_of_several_stills_and_a_cine_are_refused_with_the_way_out(breast_server, pacs):
    answer = breast_server.infer(pacs.several)
    assert answer.status == 422
    assert "2 stills" in answer.detail and "SOP instance UID" in answer.detail
    cine = str(dcmread(pacs.folder / "several" / "2.dcm", stop_before_pixels=True).SOPInstanceUID)
    answer = breast_server.infer(cine)
    assert answer.status == 422
    assert "2 frames" in answer.detail


@pytest.mark.parametrize("case", ["text", "other size", "no label"])
def test_what_is_no_label_of_the_image_does_not_reach_the_pacs(breast_server, pacs, case, tmp_path):
    still = pacs.stills["RGB"]
    before = len(pacs.fetch_segmentations(still))
    values = (read_picture(breast_server.infer(still).body) > 0).astype(np.uint8)
    label = tmp_path / "label.png"
    match case:
        case "text":
            label.write_text("not a label")
        case "other size":
            Image.fromarray(values[:-4]).save(label)
        case "no label":
            Image.fromarray(values * 7).save(label)
    answer = breast_server.save_label(still, label)
    assert answer.status == 422
    assert answer.detail.startswith("the label cannot be used")
    assert "/" not in answer.detail
    assert len(pacs.fetch_segmentations(still)) == before


@pytest.mark.parametrize("image", ["1.2.3", "../../etc", "/etc/hostname", "a b"])
def test_what_the_pacs_does_not_have_is_not_found(breast_server, image):
    assert breast_server.infer(image).status == 404


def test_a_series_of_another_kind_is_refused_with_the_reason(breast_server, pacs):
    answer = breast_server.infer(pacs.series)
    assert answer.status == 422
    assert "dimensions" in answer.detail


def test_corrections_in_the_pacs_are_learnt_from(breast_server, pacs, tmp_path):
    """Last in this file: it changes the weights."""
    for series in (*pacs.stills.values(), *pacs.several_stills):
        label = tmp_path / "label.nii.gz"  # as 3D Slicer sends it
        mask = read_picture(breast_server.infer(series).body)
        nib.save(nib.nifti1.Nifti1Image(mask.T[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])), label)
        assert breast_server.save_label(series, label).status == 200
    job = breast_server.train(max_epochs=1, val_split=0.5, batch_size=1)
    assert job["status"] == "DONE", job["details"]
    assert "2 images to learn from, 2 held out" in breast_server.log.read_text()
    assert any("val_mean_dice" in line for line in job["details"])


def segment_codes(bundle: Path) -> dict[str, list[str]]:
    pred = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    return {
        pred["channel_def"][index]: [codes["type"]["value"], codes["type_modifier"]["value"]]
        for index, codes in pred["segment_codes"].items()
    }
