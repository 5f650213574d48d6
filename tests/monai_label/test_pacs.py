"""DICOM through a real Orthanc: what MONAI Label sends back to it lies on the image as the mask does."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

import nibabel as nib
import numpy as np
import pytest
from dicom_samples import LPS_TO_RAS
from label_pacs import SHARED
from label_service import BREAST, HIPPOCAMPUS, ask, read_picture
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset


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


@pytest.mark.parametrize("server_name", ["pacs_server", "any_server"])
def test_only_images_of_the_bundles_modalities_are_listed(server_name, pacs, request):
    """A cine is none, alone in its series or not."""
    server = request.getfixturevalue(server_name)
    stills = [*pacs.stills.values(), *pacs.several_stills]
    magnetic = [uid for name, uid in pacs.volumes.items() if name != "ct"]
    expected = {"pacs_server": [*stills, *magnetic], "any_server": [*stills, *pacs.volumes.values()]}
    assert set(server.ask("/datastore/", output="all").json["objects"]) == set(expected[server_name])
    assert server.ask("/datastore/").json["total"] == len(expected[server_name])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_mask_of_an_ultrasound_still_is_that_of_the_bundle(pacs_server, pacs, mode, run_bundle, tmp_path):
    run_bundle(BREAST, pacs.folder / mode, tmp_path, output_format="plain", whole_overlays=True)
    expected = np.asarray(Image.open(next(tmp_path.rglob("*_mask.png"))))
    answer = pacs_server.infer(pacs.stills[mode])
    assert answer.status == 200, answer.body
    assert np.array_equal(read_picture(answer.body), expected)
    assert expected.any()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_segmentation_of_a_still_comes_back_from_the_pacs_as_the_mask(pacs_server, pacs, mode, tmp_path):
    series = pacs.stills[mode]
    mask = pacs_server.infer(series)
    made = pacs_server.infer(series, output="dicom_seg", label_info=[])
    assert made.status == 200, made.body
    assert segments_of(dcmread(BytesIO(made.body))) == {"lesion": "Lesion"}

    label = tmp_path / "label.png"
    label.write_bytes(mask.body)
    saved = pacs_server.save_label(series, label)
    assert saved.status == 200, saved.body
    (segmentation,) = pacs.fetch_segmentations(series)
    assert segments_of(segmentation) == {"lesion": "Lesion"}
    (found,) = lay_on(segmentation, [pacs.folder / mode / "still.dcm"]).values()
    assert np.array_equal(found, read_picture(mask.body))


@pytest.mark.parametrize(
    ("name", "server_name"),
    [("series", "pacs_server"), ("mr", "pacs_server"), ("ct", "any_server")],
)
def test_the_segmentation_of_a_series_comes_back_from_the_pacs_as_the_mask(name, server_name, pacs, request, tmp_path):
    if name not in pacs.volumes:
        pytest.skip(f"no DICOM files in {SHARED}")
    server, series = request.getfixturevalue(server_name), pacs.volumes[name]
    model = {"model": HIPPOCAMPUS.name}
    answer = server.infer(series, **model)
    assert answer.status == 200, answer.body
    mask = read_volume(answer.body, tmp_path / "mask.nii.gz")
    values = np.asarray(mask.dataobj)
    assert set(np.unique(values)) == {0, 1, 2}
    write_nifti(pacs.folder / name, tmp_path / "same.nii.gz")
    same = read_volume(server.infer(file=tmp_path / "same.nii.gz", **model).body, tmp_path / "same_mask.nii.gz")
    assert np.allclose(same.affine, mask.affine, atol=1e-3)
    assert np.array_equal(np.asarray(same.dataobj), values)
    made = server.infer(series, output="dicom_seg", label_info=[], **model)
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


def test_a_series_is_given_to_viewers_on_its_own_grid(pacs_server, pacs, tmp_path):
    answer = pacs_server.ask("/datastore/image", image=pacs.series)
    image = read_volume(answer.body, tmp_path / "image.nii.gz")
    source = nib.load(sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0])
    assert np.allclose(nib.as_closest_canonical(image).affine, nib.as_closest_canonical(source).affine, atol=1e-3)
    assert nib.as_closest_canonical(image).shape == nib.as_closest_canonical(source).shape


def test_stills_that_share_a_series_are_images_of_their_own(pacs_server, pacs, run_bundle, tmp_path):
    run_bundle(BREAST, pacs.folder / "several", tmp_path, output_format="plain", whole_overlays=True)
    for index, still in enumerate(pacs.several_stills):
        expected = np.asarray(Image.open(tmp_path / f"{index}_mask.png"))
        assert expected.any()
        answer = pacs_server.infer(still)
        assert answer.status == 200, answer.body
        assert np.array_equal(read_picture(answer.body), expected)
        made = pacs_server.infer(still, output="dicom_seg", label_info=[])
        assert made.status == 200, made.body
        shown = read_volume(pacs_server.ask("/datastore/image", image=still).body, tmp_path / "image.nii.gz")
        assert shown.shape[:2] == expected.T.shape

        label = tmp_path / "label.png"
        Image.fromarray(expected * 255).save(label)
        assert pacs_server.save_label(still, label).status == 200
        (segmentation,) = pacs.fetch_segmentations(still)
        for each in (segmentation, dcmread(BytesIO(made.body))):
            (found,) = lay_on(each, [pacs.folder / "several" / f"{index}.dcm"]).values()
            assert np.array_equal(found, expected)


def test_the_next_sample_may_be_one_of_several_stills(pacs_server, pacs):
    listed = [image for image in pacs_server.ask("/datastore/", output="all").json["objects"]]
    answer = ask(f"{pacs_server.url}/activelearning/first", "POST", b"{}", "application/json")
    assert answer.status == 200
    assert not answer.json or answer.json["id"] in listed


def test_a_series_of_several_stills_and_a_cine_are_refused_with_its_remedy(pacs_server, pacs):
    answer = pacs_server.infer(pacs.several)
    assert answer.status == 422
    assert "2 stills" in answer.detail and "SOP instance UID" in answer.detail
    cine = str(dcmread(pacs.folder / "several" / "2.dcm", stop_before_pixels=True).SOPInstanceUID)
    answer = pacs_server.infer(cine)
    assert answer.status == 422
    assert "2 frames" in answer.detail
    answer = pacs_server.infer(pacs.cine)
    assert answer.status == 422
    assert "2 frames" in answer.detail


@pytest.mark.parametrize("case", ["text", "other size", "no label"])
def test_what_is_no_label_of_the_image_does_not_reach_the_pacs(pacs_server, pacs, case, tmp_path):
    still = pacs.stills["RGB"]
    before = len(pacs.fetch_segmentations(still))
    values = (read_picture(pacs_server.infer(still).body) > 0).astype(np.uint8)
    label = tmp_path / "label.png"
    match case:
        case "text":
            label.write_text("not a label")
        case "other size":
            Image.fromarray(values[:-4]).save(label)
        case "no label":
            Image.fromarray(values * 7).save(label)
    answer = pacs_server.save_label(still, label)
    assert answer.status == 422
    assert answer.detail.startswith("the label cannot be used")
    assert "/" not in answer.detail
    assert len(pacs.fetch_segmentations(still)) == before


@pytest.mark.parametrize(
    ("image", "status"), [("1.2.3", 404), ("a b", 404), ("../../etc", 422), ("/etc/hostname", 422)]
)
def test_what_the_pacs_does_not_have_is_not_found(pacs_server, image, status):
    assert pacs_server.infer(image).status == status


def test_a_series_of_another_kind_is_refused_with_the_reason(pacs_server, pacs):
    answer = pacs_server.infer(pacs.series)
    assert answer.status == 422
    assert f"{HIPPOCAMPUS.name} does" in answer.detail


@pytest.mark.parametrize(
    ("name", "params", "kind", "creator"),
    [("RGB", {"creator": "Ada Lovelace"}, "SEMIAUTOMATIC", "Ada Lovelace"), ("untouched", {}, "MANUAL", "")],
)
def test_a_persons_label_is_stored_as_a_persons(pacs_server, pacs, name, params, kind, creator, tmp_path):
    still, label = pacs.stills[name], tmp_path / "label.png"
    if kind == "SEMIAUTOMATIC":
        assert pacs_server.infer(still).status == 200
    header = dcmread(pacs.folder / name / "still.dcm", stop_before_pixels=True)
    values = np.zeros((header.Rows, header.Columns), np.uint8)
    values[5:9, 7:20] = 1
    Image.fromarray(values).save(label)
    assert pacs_server.save_label(still, label, **params).status == 200
    segmentation = max(pacs.fetch_segmentations(still), key=lambda item: item.ContentDate + item.ContentTime)
    (segment,) = segmentation.SegmentSequence
    assert segment.SegmentAlgorithmType == kind
    assert ("SegmentAlgorithmName" in segment) == (kind != "MANUAL")
    assert str(segmentation.get("ContentCreatorName") or "") == creator
    assert segmentation.SeriesDescription != f"Research only: {segmentation.ManufacturerModelName}"
    assert "person" in segmentation.ContentDescription


def test_nothing_is_removed_from_or_added_to_the_pacs(pacs_server, pacs, tmp_path):
    still = pacs.stills["L"]
    before = len(pacs.fetch_segmentations(still))
    query = urlencode({"id": still, "tag": "final"})
    answer = ask(f"{pacs_server.url}/datastore/label?{query}", "DELETE")
    assert answer.status == 405
    assert "in the PACS" in answer.detail
    assert ask(f"{pacs_server.url}/datastore/image?{query}", "DELETE").status == 405
    assert len(pacs.fetch_segmentations(still)) == before
    assert ask(f"{pacs_server.url}/datastore/label?{urlencode({'id': still, 'tag': 'no'})}", "DELETE").status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("studies", 200),
        ("qido/series", 200),
        ("servers", 403),
        ("", 403),
        ("..%2f..%2fsystem", 422),
        ("studies/..%2f..%2f..%2fsystem", 422),
        ("studies%2f..%252f..%252fsystem", 403),
        ("studies/%252e%252e/%252e%252e/system", 403),
    ],
)
def test_the_proxy_leads_to_dicomweb_alone(pacs_server, path, status):
    answer = ask(f"{pacs_server.url}/proxy/dicom/{path}")
    assert answer.status == status
    assert b"DatabaseVersion" not in answer.body


def test_one_series_may_be_asked_for_twice_at_once(pacs_server, pacs):
    """By a call and by the job of a batch, each in a process of its own."""
    for folder in pacs_server.workspace.glob("dicom/*/[0-9]*"):
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    assert pacs_server.post(f"/batch/infer/{BREAST.name}", max_workers=4).status == 200
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(pacs_server.infer, [*pacs.stills.values()] * 4))
    assert {answer.status for answer in answers} == {200}
    job = pacs_server.wait_for("/batch/infer")
    assert job["status"] == "DONE", job["details"]
    assert "Errno 39" not in pacs_server.log.read_text()


def test_corrections_in_the_pacs_are_learnt_from(pacs_server, pacs, tmp_path):
    """Last in this file: it changes the weights."""
    for series in (*pacs.stills.values(), *pacs.several_stills):
        label = tmp_path / "label.nii.gz"  # as 3D Slicer sends it
        mask = read_picture(pacs_server.infer(series).body)
        nib.save(nib.nifti1.Nifti1Image(mask.T[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])), label)
        assert pacs_server.save_label(series, label).status == 200
    job = pacs_server.train(max_epochs=1, val_split=0.4, batch_size=1)
    assert job["status"] == "DONE", job["details"]
    assert "3 images to learn from, 2 held out" in pacs_server.log.read_text()
    assert any("val_mean_dice" in line for line in job["details"])


def segment_codes(bundle: Path) -> dict[str, list[str]]:
    pred = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    return {
        pred["channel_def"][index]: [codes["type"]["value"], codes["type_modifier"]["value"]]
        for index, codes in pred["segment_codes"].items()
    }
