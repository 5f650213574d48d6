"""DICOM pixels, as seen and as measured."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.readers.dicom import header
from mobileutr_monai.readers.dicom.errors import DicomError
from mobileutr_monai.readers.dicom.header import check_image, is_dicom, read_header
from mobileutr_monai.readers.dicom.pixels import iter_frames, iter_values, read_frame, read_values

INDEX = Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom" / "index.csv"
LOSSY_JPEG = "1.2.840.10008.1.2.4.50"
# What the index's decoder, given whole files only, failed on, and why we do; None where we decode it.
FAILURES: dict[str, Reason | None] = {
    "odd/DICOMDIR": Reason.DICOMDIR,
    "odd/UN_sequence.dcm": Reason.NO_PIXELS,
    "odd/dwv-test_no-number-rows.dcm": Reason.INCOMPLETE,
    # The last fragment has no delimiter; its ten frames are whole.
    "odd/emri_small_jpeg_2k_lossless_too_short.dcm": None,
    "odd/fodicom_GH340.dcm": Reason.INCOMPLETE,
    "odd/meta_missing_tsyntax.dcm": Reason.INCOMPLETE,
    "odd/no_meta.dcm": Reason.NOT_DICOM,
    "odd/rtstruct.dcm": Reason.NOT_AN_IMAGE_OBJECT,
}
# Decodes, and is still no image of a patient.
DOSE = "odd/rtdose.dcm"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def with_rows(select: Callable[[dict[str, str]], bool]) -> pytest.MarkDecorator:
    """Runs a test on the real files that are chosen from the index, if they are there."""
    rows: list[Any] = [pytest.param({}, marks=pytest.mark.skip(reason=f"no {INDEX}"))]
    if INDEX.is_file():
        with INDEX.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if select(row)]
    return pytest.mark.parametrize("indexed", rows, ids=lambda row: row.get("file", "absent"))


def is_exact(row: dict[str, str]) -> bool:
    return bool(row["pixels_md5"]) and LOSSY_JPEG not in row["transfer_syntax"] and row["file"] != DOSE


def stored(path: Path, row: dict[str, str]) -> np.ndarray:
    """The samples as the index has them, from what is measured or seen."""
    shape, dtype = row["decoded"].split()
    if row["photometric"].startswith("MONOCHROME"):
        dataset = read_header(path).dataset
        values = np.stack(list(iter_values(path))).astype(np.float64)
        values = (values - float(dataset.get("RescaleIntercept", 0))) / float(dataset.get("RescaleSlope", 1))
    else:
        values = np.stack(list(iter_frames(path)))
    if "1.2.840.10008.1.2.2)" in row["transfer_syntax"]:
        dtype = np.dtype(dtype).newbyteorder(">").str
    return values.reshape([int(side) for side in shape.split("x")]).astype(dtype)


@with_rows(lambda row: is_exact(row) and row["photometric"] != "PALETTE COLOR" and row["bits"] != "32/32")
def test_lossless_pixels_are_those_of_the_index(indexed: dict[str, str], dicom_folder: Path) -> None:
    values = stored(dicom_folder / indexed["file"], indexed)
    assert hashlib.md5(values.tobytes()).hexdigest() == indexed["pixels_md5"]


@with_rows(lambda row: row["photometric"] == "PALETTE COLOR" or row["file"] == "odd/SC_rgb_32bit.dcm")
def test_palettes_and_deep_colours_come_from_the_pixels_of_the_index(
    indexed: dict[str, str], dicom_folder: Path
) -> None:
    path = dicom_folder / indexed["file"]
    dataset = dcmread(path)
    pixels = dataset.pixel_array
    assert hashlib.md5(pixels.tobytes()).hexdigest() == indexed["pixels_md5"]
    is_palette = indexed["photometric"] == "PALETTE COLOR"
    wide = apply_color_lut(pixels, dataset) if is_palette else pixels
    expected = (wide >> (8 * wide.dtype.itemsize - 8)).astype(np.uint8)
    assert np.array_equal(np.stack(list(iter_frames(path))).reshape(expected.shape), expected)


@with_rows(lambda row: LOSSY_JPEG in row["transfer_syntax"])
def test_lossy_jpeg_is_within_two_grey_levels_of_pillow(indexed: dict[str, str], dicom_folder: Path) -> None:
    path = dicom_folder / indexed["file"]
    dataset = dcmread(path)
    encoded = generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    for source, frame in zip(encoded, iter_frames(path), strict=True):
        image = Image.open(io.BytesIO(source))
        if indexed["photometric"] == "RGB":
            image.draft("YCbCr", image.size)  # as they are stored
            expected = np.asarray(image)
        else:
            expected = np.asarray(image.convert("RGB"))
        assert np.abs(expected.astype(int) - frame).max() <= 2


@with_rows(lambda row: not row["pixels_md5"])
def test_what_the_index_could_not_decode_has_a_reason(indexed: dict[str, str], dicom_folder: Path) -> None:
    path, reason = dicom_folder / indexed["file"], FAILURES[indexed["file"]]
    if reason is None:
        expected = list(iter_frames(dicom_folder / "odd" / "emri_small.dcm"))
        assert np.array_equal(list(iter_frames(path)), expected)
        return
    with pytest.raises(DicomError, match=path.name) as error:
        read_frame(path)
    assert error.value.reason is reason
    assert "\n" not in str(error.value)


def test_a_dose_is_no_image(dicom_folder: Path) -> None:
    with pytest.raises(DicomError) as error:
        read_frame(dicom_folder / DOSE)
    assert error.value.reason is Reason.NOT_AN_IMAGE_OBJECT
    assert error.value.reason.is_skip


@with_rows(lambda row: row["frames"] not in ("", "1") and row["file"] != DOSE and row["pixels_md5"])
def test_one_frame_and_a_range_are_those_of_the_stream(indexed: dict[str, str], dicom_folder: Path) -> None:
    path = dicom_folder / indexed["file"]
    frames = list(iter_frames(path, "L"))
    last = len(frames) - 1
    assert np.array_equal(read_frame(path, last, "L"), frames[last])
    assert np.array_equal(list(iter_frames(path, "L", last - 1, last + 1)), frames[last - 1 :])


def test_one_ct_slice_is_the_same_in_all_lossless_syntaxes(dicom_folder: Path) -> None:
    slices = [read_values(dicom_folder / "ct_syntaxes" / f"CT1_{name}.dcm") for name in ("RLE", "J2KR", "JLSL", "JPLL")]
    assert slices[0].min() == -3024  # HU; the padding of -2000 and the intercept of -1024
    assert all(np.array_equal(other, slices[0]) for other in slices[1:])


GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
COLOUR = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


def seen(path: Path, **arguments: Any) -> np.ndarray:
    return read_frame(path, **{"mode": "L", **arguments})


def test_bytes_without_a_window_stay_as_they_are(write_dicom) -> None:
    assert np.array_equal(seen(write_dicom("a", GREY)), GREY)


def test_monochrome1_is_inverted(write_dicom) -> None:
    path = write_dicom("a", GREY, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(seen(path), 255 - GREY)
    assert np.array_equal(seen(path, photometric="MONOCHROME2"), GREY)


@pytest.mark.parametrize(
    ("pixels", "attributes", "expected"),
    [
        (np.array([[0, 1, 2, 3]], np.uint8), {"BitsStored": 2, "HighBit": 1}, [0, 85, 170, 255]),
        (np.array([[-5, 0, 5, 10]], np.int16), {}, [0, 85, 170, 255]),
        (np.array([[7, 7, 7, 7]], np.uint16), {}, [0, 0, 0, 0]),
        (np.array([[-2000, 0, 50, 100]], np.int16), {"PixelPaddingValue": -2000}, [0, 0, 128, 255]),
        (np.array([[0, 100, 200, 4000]], np.uint16), {"WindowCenter": 100.5, "WindowWidth": 201}, [0, 128, 255, 255]),
        # The first of several windows.
        (
            np.array([[0, 100, 200, 4000]], np.uint16),
            {"WindowCenter": [100.5, 9], "WindowWidth": [201, 9]},
            [0, 128, 255, 255],
        ),
        # In HU, and a width of 0 is none.
        (
            np.array([[0, 1024, 1064, 4000]], np.int16),
            {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 0, "WindowWidth": 0},
            [0, 102, 128, 255],
        ),
        (np.array([[0, 10, 20, 40]], np.uint16), {"RescaleSlope": -2, "RescaleIntercept": 80}, [255, 191, 128, 0]),
    ],
)
def test_grey_levels_in_eight_bits(
    write_dicom, pixels: np.ndarray, attributes: dict[str, Any], expected: list[int]
) -> None:
    assert np.abs(seen(write_dicom("a", pixels, **attributes)).astype(int) - [expected]).max() <= 1


def lut(first: int, entries: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return item


def test_lookup_tables_for_measuring_and_display(write_dicom) -> None:
    pixels = np.array([[9, 10, 11, 12, 200]], np.uint8)
    measured = lut(10, [100, 300, 200], 16)
    shown = lut(100, [0] * 100 + [4095] * 101, 12)
    path = write_dicom("a", pixels, ModalityLUTSequence=[measured], VOILUTSequence=[shown])
    assert read_values(path).tolist() == [[100, 100, 300, 200, 200]]
    assert seen(path).tolist() == [[0, 0, 255, 255, 255]]


def test_measured_values_are_rescaled_and_signed(write_dicom) -> None:
    path = write_dicom("a", np.array([[-1, 0, 1]], np.int16), RescaleSlope=0.5, RescaleIntercept=-10)
    assert read_values(path).dtype == np.float32
    assert read_values(path).tolist() == [[-10.5, -10, -9.5]]


def test_unused_high_bits_do_not_count(write_dicom) -> None:
    pixels = np.array([[0x0FFF, 0xF001]], np.uint16)
    assert read_values(write_dicom("a", pixels, BitsStored=12, HighBit=11)).tolist() == [[4095, 1]]


def test_fractions_are_shown_in_their_window(write_dicom) -> None:
    path = write_dicom("a", np.array([[0, 1]], np.uint32), WindowCenter=0.5, WindowWidth=1, PixelRepresentation=None)
    dataset = dcmread(path)
    del dataset.PixelData
    dataset.FloatPixelData = np.array([[0.0, 0.5]], np.float32).tobytes()
    dataset.save_as(path)
    assert seen(path).tolist() == [[0, 128]]


def palette(entries: np.ndarray, bits: int, first: int = 0) -> dict[str, Any]:
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for index, name in enumerate(("Red", "Green", "Blue")):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [len(entries), first, bits]
        attributes[f"{name}PaletteColorLookupTableData"] = entries[:, index].tobytes()
    return attributes


@pytest.mark.parametrize(("dtype", "bits", "scale"), [("<u2", 16, 257), ("<u2", 16, 1), ("<u2", 8, 1), ("u1", 8, 1)])
def test_palettes_of_any_depth(write_dicom, dtype: str, bits: int, scale: int) -> None:
    colours = np.random.default_rng(1).integers(0, 200, (100, 3))
    path = write_dicom("a", GREY, **palette((colours * scale).astype(dtype), bits, first=10))
    expected = colours[np.clip(GREY.astype(int) - 10, 0, 99)]
    assert np.array_equal(read_frame(path), expected)
    assert np.array_equal(seen(path), np.asarray(Image.fromarray(expected.astype(np.uint8)).convert("L")))


def test_a_segmented_palette_is_expanded(write_dicom) -> None:
    attributes = palette(np.zeros((256, 3), np.uint8), 16)
    # One discrete entry, then 255 more on a line up to the top.
    segments = np.array([0, 1, 0, 1, 255, 0xFFFF], "<u2").tobytes()
    for name in ("Red", "Green", "Blue"):
        del attributes[f"{name}PaletteColorLookupTableData"]
        attributes[f"Segmented{name}PaletteColorLookupTableData"] = segments
    frame = read_frame(write_dicom("a", GREY, **attributes))
    assert np.abs(frame[..., 0].astype(int) - GREY).max() <= 1


def test_planes_of_colour(write_dicom) -> None:
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    path = write_dicom("a", COLOUR, PlanarConfiguration=1, PixelData=planes.tobytes())
    assert np.array_equal(read_frame(path), COLOUR)


def to_ybr(colours: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(colours).convert("YCbCr"))


def test_ybr_becomes_rgb_and_what_lies_can_be_told(write_dicom) -> None:
    ybr = to_ybr(COLOUR)
    honest = write_dicom("honest", ybr, PhotometricInterpretation="YBR_FULL")
    assert np.abs(read_frame(honest).astype(int) - COLOUR).max() <= 3
    assert np.array_equal(read_frame(honest, photometric="RGB"), ybr)
    lies = write_dicom("lies", ybr)
    assert np.array_equal(read_frame(lies), ybr)
    assert np.array_equal(read_frame(lies, photometric="YBR_FULL"), read_frame(honest))


def test_subsampled_ybr_and_what_is_only_called_so(write_dicom) -> None:
    ybr = to_ybr(np.repeat(COLOUR[:, ::2], 2, axis=1))
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    full = read_frame(write_dicom("full", ybr, PhotometricInterpretation="YBR_FULL"))
    half = write_dicom("half", ybr, PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes())
    called_so = write_dicom("called", ybr, PhotometricInterpretation="YBR_FULL_422")
    assert np.array_equal(read_frame(half), full)
    assert np.array_equal(read_frame(called_so), full)


def test_partial_range_ybr(write_dicom) -> None:
    matrix = np.array([[0.2568, 0.5041, 0.0979], [-0.1482, -0.2910, 0.4392], [0.4392, -0.3678, -0.0714]])
    ybr = np.rint(COLOUR @ matrix.T + [16, 128, 128]).astype(np.uint8)
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, ::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    path = write_dicom("a", ybr, PhotometricInterpretation="YBR_PARTIAL_422", PixelData=pairs.tobytes())
    assert np.abs(read_frame(path)[:, ::2].astype(int) - COLOUR[:, ::2]).max() <= 5


SMOOTH = np.asarray(Image.fromarray(COLOUR).resize((64, 48), Image.Resampling.BICUBIC))


def encode(colours: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def with_adobe_marker(jpeg: bytes, transform: int) -> bytes:
    """Adobe's marker in the place of JFIF's: it says whether the samples are YCbCr (1) or RGB (0)."""
    after = 4 + int.from_bytes(jpeg[4:6], "big")
    segment = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return jpeg[:2] + segment + jpeg[after:]


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("has_adobe_marker", [False, True])
def test_jpeg_colours_are_converted_once(write_dicom, subsampling: str, has_adobe_marker: bool) -> None:
    jpeg = encode(SMOOTH, subsampling=subsampling)
    jpeg = with_adobe_marker(jpeg, transform=1) if has_adobe_marker else jpeg
    path = write_dicom("a", SMOOTH, [jpeg], JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    expected = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    assert np.abs(read_frame(path).astype(int) - expected).max() <= 2


def test_a_jpeg_without_planar_configuration_is_read(write_dicom) -> None:
    attributes = {"PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": None}
    assert read_frame(write_dicom("a", SMOOTH, [encode(SMOOTH)], JPEGBaseline8Bit, **attributes)).shape == SMOOTH.shape


def test_jpeg_that_lies_about_its_colours_can_be_told(write_dicom) -> None:
    # No JFIF marker, and the header says RGB.
    jpeg = with_adobe_marker(encode(SMOOTH, subsampling="4:4:4"), transform=1)
    after = 4 + int.from_bytes(jpeg[4:6], "big")
    path = write_dicom("a", SMOOTH, [jpeg[:2] + jpeg[after:]], JPEGBaseline8Bit)
    assert np.abs(read_frame(path).astype(int) - SMOOTH).mean() > 20
    assert np.abs(read_frame(path, photometric="YBR_FULL").astype(int) - SMOOTH).mean() < 5


def test_twelve_bit_jpeg_is_read() -> None:
    path = get_testdata_file("JPGExtended.dcm", download=False)
    assert read_header(path).syntax == JPEGExtended12Bit
    values = read_values(path)
    # What libjpeg decodes, by pydicom's own tests.
    assert (values[420, 140], values[230, 120]) == (244, 95)


def test_deflated_files_and_data_sets_without_preamble(write_dicom) -> None:
    deflated = write_dicom("deflated", GREY, syntax=DeflatedExplicitVRLittleEndian)
    bare = write_dicom("bare", GREY, preamble=False)
    assert is_dicom(deflated) and is_dicom(bare)
    assert np.array_equal(seen(deflated), GREY)
    assert np.array_equal(seen(bare), GREY)


def test_a_wrongly_declared_value_representation_does_not_matter(write_dicom, tmp_path: Path) -> None:
    path = write_dicom("a", GREY)
    explicit, implicit = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"
    lying = tmp_path / "lying"
    lying.write_bytes(path.read_bytes().replace(explicit, implicit))
    assert not read_header(lying).declares_syntax
    assert np.array_equal(seen(lying), GREY)


def test_the_frames_of_a_cine_are_streamed(write_dicom) -> None:
    cine = np.stack([GREY + index for index in range(5)])
    path = write_dicom("a", cine)
    assert np.array_equal(list(iter_frames(path, "L")), cine)
    assert np.array_equal(list(iter_frames(path, "L", 1, 3)), cine[1:3])
    with pytest.raises(DicomError, match="frames 5 to 5 of 0 to 4"):
        read_frame(path, 5)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": None}, Reason.NO_PIXELS),
        ({"Rows": None}, Reason.INCOMPLETE),
        ({"Rows": 13}, Reason.BAD_PIXELS),
        ({"NumberOfFrames": 2}, Reason.BAD_PIXELS),
        ({"Rows": 65535, "Columns": 65535}, Reason.TOO_LARGE),
        ({"BitsAllocated": 12}, Reason.INCOMPLETE),
        ({"SamplesPerPixel": 4}, Reason.UNSUPPORTED_IMAGE),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, Reason.NOT_AN_IMAGE_OBJECT),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "PixelData": None}, Reason.NOT_AN_IMAGE_OBJECT),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1", "PixelData": None}, Reason.NOT_AN_IMAGE_OBJECT),
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, Reason.DICOMDIR),
    ],
)
def test_the_header_says_why_not(write_dicom, attributes: dict[str, Any], reason: Reason) -> None:
    path = write_dicom("a", GREY, **attributes)
    with pytest.raises(DicomError) as error:
        check_image(read_header(path))
    assert error.value.reason is reason
    assert "SECRET" not in str(error.value)
    assert str(path) in str(error.value)


def test_tiles_of_a_slide_are_no_image(write_dicom) -> None:
    slide = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6", "TotalPixelMatrixRows": 99, "TotalPixelMatrixColumns": 99}
    with pytest.raises(DicomError, match="tiles"):
        check_image(read_header(write_dicom("a", np.stack([COLOUR, COLOUR]), **slide)))


def test_a_missing_decoder_is_named(write_dicom, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DicomError, match=r"unsupported transfer syntax: MPEG2 .*transcode"):
        read_frame(write_dicom("a", GREY, [b"\0\0"], MPEG2MPML))

    class Decoder:
        is_available = False

    monkeypatch.setattr(header, "get_decoder", lambda syntax: Decoder())
    with pytest.raises(DicomError, match=r"JPEG Baseline .*pip install python-gdcm"):
        read_frame(write_dicom("b", SMOOTH, [encode(SMOOTH)], JPEGBaseline8Bit))


def test_broken_pixels_name_the_file_the_frame_and_the_syntax(write_dicom) -> None:
    path = write_dicom("a", SMOOTH, [encode(SMOOTH)[:40]], JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    with pytest.raises(DicomError, match="a: pixels cannot be decoded: frame 0, JPEG Baseline") as error:
        read_frame(path)
    assert "\n" not in str(error.value)


def test_a_missing_frame_is_an_error(write_dicom) -> None:
    path = write_dicom("a", GREY, [b"\0" * 64 + b"\0" * 10], RLELossless, NumberOfFrames=2)
    with pytest.raises(DicomError):
        list(iter_frames(path))


def test_what_inflates_without_end_is_refused(write_dicom, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom("a", np.zeros((1000, 1000), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(header, "MAX_INFLATED_BYTES", 500_000)
    with pytest.raises(DicomError, match="inflates to more than 500000 bytes"):
        read_header(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 200, b"\x08\x00", b"\x08\x00" + b"\xff" * 300, b"x" * 500]
)
def test_other_files_are_not_dicom(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not is_dicom(path)
    with pytest.raises(DicomError):
        read_header(path)


def test_a_folder_is_not_dicom(tmp_path: Path) -> None:
    assert not is_dicom(tmp_path)
    with pytest.raises(DicomError):
        read_header(tmp_path)


@pytest.mark.parametrize(("arguments", "named"), [({"mode": "CMYK"}, "mode"), ({"photometric": "BGR"}, "photometric")])
def test_rejects_unknown_modes(write_dicom, arguments: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_frame(write_dicom("a", GREY), **arguments)


def test_colours_are_not_measured(write_dicom) -> None:
    with pytest.raises(DicomError, match="colour"):
        read_values(write_dicom("a", COLOUR))
