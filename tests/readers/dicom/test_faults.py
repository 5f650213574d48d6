"""DICOM whose header and pixels disagree, or whose header is broken: read as the pixels are, or said in plain words."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.header import check_image, read_header
from mobileutr_monai.readers.dicom.notes import find_dicom_notes
from mobileutr_monai.readers.dicom.pixels import iter_frames, read_frame, read_values
from mobileutr_monai.readers.dicom.series import find_dicom_cases

GREY = (np.arange(64 * 60) // 16).astype(np.uint8).reshape(64, 60)
DEEP = GREY.astype(np.uint16) * 17  # 12 bits

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def seen(path: Path) -> np.ndarray:
    return read_frame(path, 0, "L")


def lut(**attributes: Any) -> list[Dataset]:
    dataset = Dataset()
    for keyword, value in attributes.items():
        dataset.add_new(keyword, "US", value)
    return [dataset]


UNUSABLE = {
    "no descriptor": (lut(LUTData=[1, 2]), "it has no LUTDescriptor"),
    "an empty descriptor": (lut(LUTDescriptor=None, LUTData=[1, 2]), "it has no LUTDescriptor"),
    "no data": (lut(LUTDescriptor=[2, 0, 16]), "its LUTData has 0 of 2 entries"),
    "empty data": (lut(LUTDescriptor=[2, 0, 16], LUTData=None), "its LUTData has 0 of 2 entries"),
    "too little data": (lut(LUTDescriptor=[4, 0, 16], LUTData=[1, 2]), "its LUTData has 2 of 4 entries"),
    "an odd depth": (lut(LUTDescriptor=[2, 0, 99], LUTData=[1, 2]), "its entries have 99 bits"),
}


@pytest.mark.parametrize(("table", "words"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize(("keyword", "name"), [("ModalityLUTSequence", "modality LUT"), ("VOILUTSequence", "VOI LUT")])
def test_a_table_that_cannot_be_used_is_ignored_and_said(write_dicom, table, words: str, keyword: str, name: str):
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "BitsStored": 12, "HighBit": 11}
    expected = seen(write_dicom("plain", DEEP, **window))
    path = write_dicom("a", DEEP, **window, **{keyword: table})
    assert np.array_equal(seen(path), expected)
    assert np.array_equal(read_values(path), DEEP)
    assert find_dicom_notes(path) == (f"the {name} is ignored: {words}",)


@pytest.mark.parametrize(("stored", "declared"), [(8, 16), (12, 16), (10, 12)])
def test_a_voi_lut_with_fewer_bits_than_it_declares_is_scaled_by_its_maximum(write_dicom, stored: int, declared: int):
    entries = [round(index * (2**stored - 1) / 4095) for index in range(4096)]
    deep = {"BitsStored": 12, "HighBit": 11}
    path = write_dicom("a", DEEP, VOILUTSequence=lut(LUTDescriptor=[4096, 0, declared], LUTData=entries), **deep)
    assert np.abs(seen(path).astype(int) - DEEP * (255 / 4095)).max() < 1
    assert find_dicom_notes(path) == (
        f"the VOI LUT declares {declared} bits, its values have {stored}: their maximum is white",
    )
    right = write_dicom("b", DEEP, VOILUTSequence=lut(LUTDescriptor=[4096, 0, stored], LUTData=entries), **deep)
    assert np.abs(seen(right).astype(int) - seen(path)).max() <= 1
    assert find_dicom_notes(right) == ()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_samples_in_the_high_bits_are_those_in_the_low_ones(write_dicom, tmp_path: Path, signed: bool, syntax: str):
    values = DEEP.astype(np.int16) - 2048 if signed else DEEP
    high = np.left_shift(values, 4) | 5  # rubbish below
    path = write_dicom("high", high.astype(values.dtype), BitsStored=12, HighBit=15)
    if syntax != ExplicitVRLittleEndian:
        dataset = dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    assert np.array_equal(read_values(path), values)


def test_a_high_bit_within_the_stored_ones_is_refused(write_dicom):
    with pytest.raises(DicomError, match="HighBit is 7, BitsStored 12, BitsAllocated 16"):
        check_image(read_header(write_dicom("a", DEEP, BitsStored=12, HighBit=7)))


WINDOW = {"WindowCenter": 1500, "WindowWidth": 3000}
PADDED = np.array([[0, 3, 9, 1000, 2000, 3000]], np.uint16)


@pytest.mark.parametrize(
    ("attributes", "grey"),
    [
        ({"PixelPaddingValue": 0}, [0, 0, 1, 85, 170, 255]),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 9}, [0, 0, 0, 0, 128, 255]),
        ({"PixelPaddingValue": 9, "PixelPaddingRangeLimit": 0}, [0, 0, 0, 0, 128, 255]),
        ({"PixelPaddingValue": 3000}, [0, 0, 1, 128, 255, 0]),
        ({"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"}, [0, 255, 254, 170, 85, 0]),
        (
            {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 9, "PhotometricInterpretation": "MONOCHROME1"},
            [0, 0, 0, 255, 127, 0],
        ),
        (
            {
                "PixelPaddingValue": 0,
                "PhotometricInterpretation": "MONOCHROME1",
                **WINDOW,
            },
            [0, 255, 254, 170, 85, 0],
        ),
    ],
)
def test_padding_is_darkest_and_out_of_the_range_of_the_image(write_dicom, attributes: dict[str, Any], grey: list[int]):
    assert np.abs(seen(write_dicom("a", PADDED, **attributes)).astype(int) - [grey]).max() <= 1


def test_signed_padding_is_found_however_it_was_written(write_dicom):
    pixels = np.array([[-2000, -2000, 0, 100]], np.int16)
    path = write_dicom("a", pixels, PixelPaddingValue=-2000)
    assert seen(path).tolist() == [[0, 0, 0, 255]]


def segmented_palette(order: str, is_bytes: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    top, kind = (0xFF, "u1") if is_bytes else (0xFFFF, f"{order}u2")
    # One discrete entry, then 255 more on a line up to the top.
    segments = np.array([0, 1, 0, 1, 255, top], kind).tobytes()
    for name in ("Red", "Green", "Blue"):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8 if is_bytes else 16]
        attributes[f"Segmented{name}PaletteColorLookupTableData"] = segments
    return attributes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_bytes", [False, True])
def test_segmented_palettes_are_read_in_both_byte_orders(write_dicom, order: str, is_bytes: bool):
    path = write_dicom("a", GREY, **segmented_palette(order, is_bytes))
    if order == ">":
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset["PixelData"].VR = "OB"
        dcmwrite(path, dataset, little_endian=False, implicit_vr=False, force_encoding=True)
    assert np.abs(read_frame(path)[..., 0].astype(int) - GREY).max() <= 1


def element(syntax: str, tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH", *tag)
    if syntax == ImplicitVRLittleEndian:
        return head + struct.pack("<L", len(value)) + value
    length = b"\0\0" + struct.pack("<L", len(value)) if vr == b"SQ" else struct.pack("<H", len(value))
    return head + vr + length + value


ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))


def stray(syntax: str) -> dict[str, bytes]:
    inner = element(syntax, (0x0008, 0x1150), b"UI", b"1.2.3.4.5\0")
    item = ITEM + struct.pack("<L", len(inner)) + inner
    empty = element(syntax, (0x0008, 0x1140), b"SQ", b"")
    return {
        "an empty item": ITEM + bytes(4),
        "an item with an element": item,
        "the end of a sequence": SEQUENCE_END + bytes(4),
        "a sequence of length 0 and its item": empty
        + ITEM
        + struct.pack("<L", len(inner))
        + inner
        + SEQUENCE_END
        + bytes(4),
        "a sequence of length 0 and an empty item": empty + ITEM + bytes(4) + SEQUENCE_END + bytes(4),
        "the end of an item": ITEM_END + bytes(4),
        "an item without a length": ITEM + b"\xff\xff\xff\xff" + ITEM_END + bytes(4),
    }


@pytest.mark.parametrize("name", stray(ExplicitVRLittleEndian))
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_stray_items_between_elements_are_passed_over_or_said(write_dicom, name: str, syntax: str):
    path = write_dicom("a", GREY, syntax=syntax)
    content = path.read_bytes()
    place = content.index(struct.pack("<HH", 0x0028, 0x0002))
    path.write_bytes(content[:place] + stray(syntax)[name] + content[place:])
    cases, problems = find_dicom_cases([path])
    if name.startswith(("the end of an item", "an item without")):
        assert cases == [] and [problem.reason for problem in problems] == [Reason.BAD_HEADER]
        assert "Error" not in problems[0].detail or "dcmdump" in problems[0].detail
    else:
        assert len(cases) == 1 and not problems
        assert np.array_equal(seen(path), GREY)


@pytest.mark.parametrize("declared", [JPEGBaseline8Bit, ExplicitVRLittleEndian, JPEGLosslessSV1])
@pytest.mark.parametrize("actual", [JPEGLSLossless, JPEG2000Lossless])
def test_pixels_are_decoded_as_their_stream_says(write_dicom, declared: str, actual: str):
    path = write_dicom("a", DEEP, BitsStored=12, HighBit=11)
    dataset = dcmread(path)
    dataset.compress(actual, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = declared
    dataset["PixelData"].VR = "OB"
    path.unlink()
    # pydicom refuses to write compressed pixels as uncompressed: the UID is changed in the file.
    dataset.file_meta.TransferSyntaxUID = actual
    dataset.save_as(path)
    old, new = (str(uid).encode() + b"\0" * (len(uid) % 2) for uid in (actual, declared))
    content = path.read_bytes()
    old_element, new_element = (b"\2\0\x10\0UI" + struct.pack("<H", len(uid)) + uid for uid in (old, new))
    assert content.count(old_element) == 1
    path.write_bytes(content.replace(old_element, new_element))
    assert np.array_equal(read_values(path), DEEP)
    (note,) = find_dicom_notes(path)
    assert "though it declares" in note


def test_lossless_jpeg_that_declares_baseline_is_decoded(dicom_folder: Path, tmp_path: Path):
    source = dicom_folder / "ct_syntaxes" / "CT1_JPLL.dcm"
    dataset = dcmread(source)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(tmp_path / "a.dcm")
    assert np.array_equal(read_values(tmp_path / "a.dcm"), read_values(source))
    (note,) = find_dicom_notes(tmp_path / "a.dcm")
    assert (
        note == "encoded as JPEG Lossless, Non-Hierarchical (Process 14), though it declares JPEG Baseline (Process 1)"
    )


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("has_offsets", [True, False])
def test_frames_that_are_not_counted_are_an_error_with_both_numbers(write_dicom, syntax: str, has_offsets: bool):
    path = write_dicom("a", np.stack([GREY, GREY, GREY]))
    dataset = dcmread(path)
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
        if not has_offsets:
            from pydicom.encaps import generate_frames

            frames = list(generate_frames(dataset.PixelData, number_of_frames=3))
            dataset.PixelData = encapsulate(frames, has_bot=False)
    del dataset.NumberOfFrames
    dataset.save_as(path)
    with pytest.raises(DicomError, match=r"3 frames .*the header declares 1; correct NumberOfFrames"):
        list(iter_frames(path))


def test_samples_that_are_not_counted_are_an_error(write_dicom):
    colour = np.stack([GREY] * 3, axis=2)
    path = write_dicom("a", colour, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2")
    with pytest.raises(DicomError, match="correct NumberOfFrames or SamplesPerPixel"):
        read_frame(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_what_a_decoder_says_inside_is_not_repeated(write_dicom, syntax: str):
    path = write_dicom("a", GREY)
    dataset = dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    content = bytearray(dataset.PixelData)
    content[len(content) // 2 : len(content) // 2 + 40] = b"\xff" * 40
    dataset.PixelData = bytes(content)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    try:
        read_frame(path)
    except DicomError as error:
        assert not re.search(r"0x[0-9a-f]{6}|<.*>|Traceback|plugin", str(error))
        assert "damaged or cut off" in error.detail or "header says" in error.detail


def test_slices_that_share_a_uid_are_an_error_when_they_are_found(write_dicom):
    attributes = {"Modality": "MR", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    paths = [
        write_dicom(f"a{index}", GREY, ImagePositionPatient=[0, 0, index], SOPInstanceUID="1.2.3.9", **attributes)
        for index in range(3)
    ]
    cases, (problem,) = find_dicom_cases(paths)
    assert cases == [] and problem.reason is Reason.DUPLICATE_UIDS
    assert problem.detail == "3 of 3 slices have the SOPInstanceUID 1.2.3.9; give each a UID of its own"
    # Slices without a UID have no name that another could have.
    nameless = [
        write_dicom(
            f"b{index}", GREY, ImagePositionPatient=[0, 0, index], SOPInstanceUID=None, preamble=False, **attributes
        )
        for index in range(3)
    ]
    assert [case.kind for case in find_dicom_cases(nameless).cases] == [CaseKind.SERIES]


def frames_at(*positions: tuple[float, ...] | None) -> list[Dataset]:
    groups = []
    for position in positions:
        group = Dataset()
        if position is not None:
            plane = Dataset()
            plane.ImagePositionPatient = list(position)
            group.PlanePositionSequence = [plane]
        groups.append(group)
    return groups


@pytest.mark.parametrize(
    ("modality", "groups", "words"),
    [
        ("MR", None, "3 frames of MR without ImagePositionPatient, ImageOrientationPatient, PixelSpacing of each"),
        ("CT", frames_at((0, 0, 0), (0, 0, 1), None), "3 frames of CT without ImagePositionPatient of each"),
        (
            "MR",
            frames_at((0, 0, 0), (0, 0, 1)),
            "3 frames of MR with positions of 2 in PerFrameFunctionalGroups",
        ),
        ("CT", frames_at(*[(0, 0, 0)] * 3), "3 frames of CT, all in the same place"),
        ("US", None, ""),
    ],
)
def test_frames_that_form_no_volume_say_what_is_missing(write_dicom, modality: str, groups, words: str):
    shared, plane, pixel = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, pixel.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [pixel]
    attributes: dict[str, Any] = {"Modality": modality}
    if groups is not None:
        attributes |= {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": groups}
    (case,), _ = find_dicom_cases([write_dicom("a", np.stack([GREY] * 3), **attributes)])
    assert (case.kind, case.why_no_volume) == (CaseKind.CINE, words)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_frames_of_fewer_bits_than_declared_are_said(write_dicom, syntax: str):
    path = write_dicom("a", GREY.astype(np.uint16), BitsStored=8, HighBit=7)
    dataset = dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    assert find_dicom_notes(path) == ("encoded with 8 bits, though it declares 12",)
    dataset.BitsStored, dataset.HighBit = 8, 7
    dataset.save_as(path)
    assert find_dicom_notes(path) == ()
