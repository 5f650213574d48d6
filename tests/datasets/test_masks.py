"""How masks are coded: guessing, declaring, decoding, refusing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.datasets.masks import MaskCoding, ValueCounts, guess_coding, parse_coding, read_mask

SIDE = 48
RED, BLUE = (255, 0, 0), (0, 0, 255)


def draw_label(labels: int = 1) -> np.ndarray:
    """A disc of each label on background 0."""
    rows, columns = np.mgrid[:SIDE, : SIDE * labels]
    label = np.zeros(rows.shape, np.uint8)
    for index in range(labels):
        label[(rows - SIDE / 2) ** 2 + (columns - SIDE * (index + 0.5)) ** 2 < 15**2] = index + 1
    return label


def recode(label: np.ndarray, codes: Sequence[Any], dtype: Any = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(codes, dtype)[label])


def soften(label: np.ndarray) -> Image.Image:
    small = Image.fromarray(label * 255)
    return small.resize((3 * small.width, 3 * small.height), Image.Resampling.BICUBIC).resize(small.size)


def make_palette(label: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    indexed = Image.frombytes("P", label.shape[::-1], label.tobytes())
    indexed.putpalette([value for colour in colours for value in colour])
    return indexed


def make_transparent(label: np.ndarray) -> Image.Image:
    colours = np.array([(255, 255, 255, 0), (*RED, 128)], np.uint8)
    return Image.fromarray(colours[label])


ONE, TWO = draw_label(1), draw_label(2)
# A mask, its suffix, its label map, and what its coding is guessed to be.
CODINGS: dict[str, tuple[Image.Image, str, np.ndarray, str]] = {
    "0/1": (recode(ONE, (0, 1)), ".png", ONE, "0/1"),
    "0/255": (recode(ONE, (0, 255)), ".png", ONE, "0/255"),
    "1-bit": (recode(ONE, (0, 255)).convert("1"), ".png", ONE, "0/255"),
    "0/65535": (recode(ONE, (0, 65535), np.uint16), ".png", ONE, "0/65535"),
    "0/1 of 16 bit": (recode(ONE, (0, 1), np.uint16), ".png", ONE, "0/1"),
    "grey level": (recode(ONE, (0, 128)), ".png", ONE, "0=0,128=1"),
    "soft edges": (soften(ONE), ".png", ONE, "0/255"),
    "fractions": (recode(ONE, (0.1, 0.9), np.float32), ".tif", ONE, "0/1"),
    "JPEG": (recode(ONE, (0, 255)), ".jpg", ONE, "0/255"),
    "colour JPEG": (recode(ONE, (0, 255)).convert("RGB"), ".jpg", ONE, "0/255"),
    "RGB": (recode(ONE, (0, 255)).convert("RGB"), ".png", ONE, "0/255"),
    "one colour": (recode(ONE, ((0, 0, 0), RED)), ".png", ONE, "0=0,#ff0000=1"),
    "RGBA": (make_transparent(ONE), ".png", ONE, "0=0,#ff0000=1"),
    "palette": (make_palette(TWO, (0, 0, 0), RED, BLUE), ".png", TWO, "0=0,1=1,2=2"),
    "indices": (recode(TWO, (0, 1, 2)), ".png", TWO, "0=0,1=1,2=2"),
    "indices with a gap": (recode(TWO, (0, 1, 3)), ".png", recode(TWO, (0, 1, 3)), "0=0,1=1,3=3"),
    "empty": (recode(ONE, (0, 0)), ".png", 0 * ONE, "two-valued"),
    "full": (recode(ONE, (255, 255)), ".png", 0 * ONE + 1, "0/255"),
}
# A mask and its suffix, what is said of it, and the coding that reads it.
DOUBTS: dict[str, tuple[Image.Image, str, str, str]] = {
    "grey levels": (recode(TWO, (0, 128, 255)), ".png", "--masks '0=0,128=NAME?,255=NAME?'", "0=0,128=1,255=2"),
    "void": (recode(TWO, (0, 1, 255)), ".png", "--masks '0=0,1=NAME?,255=NAME?'", "0=0,1=1,255=2"),
    "distant indices": (recode(TWO, (0, 10, 20)), ".png", "--masks '0=0,10=NAME?,20=NAME?'", "0=0,10=1,20=2"),
    "no background": (recode(TWO, (1, 2, 1)), ".png", "--masks '1=NAME?,2=NAME?'", "1=1,2=2"),
    "colours": (
        recode(TWO, ((0, 0, 0), BLUE, RED)),
        ".png",
        "--masks '0=0,#0000ff=NAME?,#ff0000=NAME?'",
        "#000000=0,#0000ff=1,#ff0000=2",
    ),
    "grey levels in JPEG": (
        recode(TWO, (0, 128, 255)),
        ".jpg",
        "255=NAME?,tolerance=",
        "0=0,128=1,255=2,tolerance=64",
    ),
}


def save(image: Image.Image, path: Path) -> Path:
    image.save(path, **({"quality": 90} if path.suffix == ".jpg" else {}))
    return path


def count(*paths: Path) -> ValueCounts:
    counts = ValueCounts()
    for path in paths:
        one = ValueCounts()
        one.add(read_mask(path), str(path))
        counts.update(one)
    return counts


@pytest.mark.parametrize(("image", "suffix", "label", "name"), CODINGS.values(), ids=CODINGS)
def test_guesses_a_coding_that_reads_the_masks(
    image: Image.Image, suffix: str, label: np.ndarray, name: str, tmp_path: Path
) -> None:
    path = save(image, tmp_path / f"mask{suffix}")
    coding, reason = guess_coding(count(path))
    assert str(coding) == name
    assert reason.startswith("the mask ") or "masks" in reason
    read = coding.decode([read_mask(path)], [str(path)])
    assert read.dtype == np.uint8
    assert np.mean(read != np.asarray(label)) < 0.005


@pytest.mark.parametrize("name", [name for name in CODINGS if name not in ("grey level", "palette")])
def test_masks_of_two_values_need_no_declaration_and_others_are_refused(name: str, tmp_path: Path) -> None:
    image, suffix, label, _ = CODINGS[name]
    path = save(image, tmp_path / f"mask{suffix}")
    if name.startswith("indices"):
        with pytest.raises(ValueError, match=r"mask .*mask\.png has the values 0, 1, [23], which are not two"):
            MaskCoding().decode([read_mask(path)], [str(path)])
    else:
        read = MaskCoding().decode([read_mask(path)], [str(path)])
        assert np.mean(read != label) < 0.005


@pytest.mark.parametrize(("image", "suffix", "advice", "coding"), DOUBTS.values(), ids=DOUBTS)
def test_refuses_what_could_be_several_things_and_says_what_to_declare(
    image: Image.Image, suffix: str, advice: str, coding: str, tmp_path: Path
) -> None:
    path = save(image, tmp_path / f"mask{suffix}")
    with pytest.raises(ValueError, match="the coding of the masks is not clear") as caught:
        guess_coding(count(path))
    message = str(caught.value)
    assert advice in message and path.name in message and "\n" not in message
    with pytest.raises(ValueError, match=r"replace each by the number of its label"):
        parse_coding(message.split("--masks '")[1].split("'")[0])
    with pytest.raises(ValueError, match=f"mask .*{path.name} has the values"):
        MaskCoding().decode([read_mask(path)], [str(path)])
    read = parse_coding(coding).decode([read_mask(path)], [str(path)])
    expected = np.where(TWO == 0, 1, np.where(TWO == 1, 2, 1)) if coding == "1=1,2=2" else TWO
    assert np.mean(read != expected) < (0.08 if suffix == ".jpg" else 1e-9)


def test_guesses_from_all_masks_and_not_from_one(tmp_path: Path) -> None:
    """A label map of class 2 alone, or of class 1 alone, looks like a mask of two values."""
    paths = [
        save(recode(TWO, codes), tmp_path / f"{i}.png") for i, codes in enumerate([(0, 1, 2), (0, 0, 2), (0, 1, 0)])
    ]
    coding, reason = guess_coding(count(*paths))
    assert str(coding) == "0=0,1=1,2=2"
    assert reason == "all 3 masks have small whole numbers, class indices 0 to 2"
    read = [int(coding.decode([read_mask(path)], [str(path)]).max()) for path in paths]
    assert read == [2, 2, 1]
    with pytest.raises(ValueError, match="0, 2, which are not two"):
        MaskCoding().decode([read_mask(paths[1])], [str(paths[1])])


def test_masks_of_0_and_1_among_masks_of_0_and_255_are_read_each_by_itself(tmp_path: Path) -> None:
    paths = [save(recode(ONE, (0, top)), tmp_path / f"{top}.png") for top in (1, 255)]
    coding, reason = guess_coding(count(*paths))
    assert (coding.kind, reason) == ("two-valued", "all 2 masks have two values, 0/1 in some and 0/255 in others")
    for path in paths:
        assert np.array_equal(coding.decode([read_mask(path)], [str(path)]), ONE)


def test_two_colours_in_jpeg_are_two_classes_and_the_proposal_reads_all_masks(tmp_path: Path) -> None:
    paths = []
    for index, codes in enumerate([((0, 0, 0), RED, BLUE), ((0, 0, 0), RED, RED), ((0, 0, 0), BLUE, BLUE)]):
        image = recode(TWO, codes).resize((160, 120), Image.Resampling.NEAREST)
        image.save(tmp_path / f"{index}.jpg", quality=70)  # with its colours at half the resolution
        paths.append(tmp_path / f"{index}.jpg")
    with pytest.raises(ValueError, match="is not clear") as caught:
        guess_coding(count(*paths))
    (proposal,) = re.findall(r"--masks '([^']+)'", str(caught.value))
    pairs = proposal.split(",")
    assert len(pairs) == 4 and pairs[-1].startswith("tolerance=")
    labels = {"0": "0", "#00": "2", "#fe": "1", "#ff": "1"}
    named = [pair.replace("NAME?", labels[pair[:3]] if pair.startswith("#") else "0") for pair in pairs]
    for path in paths:
        read = parse_coding(",".join(named)).decode([read_mask(path)], [str(path)])
        expected = np.asarray(Image.fromarray(TWO).resize((160, 120), Image.Resampling.NEAREST))
        if path is paths[0]:
            assert np.mean(read != expected) < 0.05


def test_a_photograph_gets_no_proposal(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="which are no few classes; save masks as label indices"):
        guess_coding(count(save(Image.fromarray(pixels), tmp_path / "photo.png")))


def test_a_jpeg_holds_no_class_indices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not clear"):
        guess_coding(count(save(recode(TWO, (0, 3, 6)), tmp_path / "mask.jpg")))


def test_without_masks_there_is_nothing_to_tell() -> None:
    with pytest.raises(ValueError, match="there is no mask"):
        guess_coding(ValueCounts())


A, B = np.array([[255, 255, 0]], np.uint8), np.array([[0, 255, 0]], np.uint8)
# Files of a case, how they go together, and the label map.
FILES: dict[str, tuple[list[str], str, list[int]]] = {
    "a class each": (["m/a.png", "m/b.png"], "class", [1, 2, 0]),
    "parts of one mask": (["m/a.png", "m/b.png"], "merge", [1, 1, 0]),
    "a class per folder": (["0/a.png", "1/a.png"], "folder", [1, 2, 0]),
    "parts in one folder": (["0/a.png", "0/a_1.png"], "folder", [1, 1, 0]),
}


@pytest.mark.parametrize(("names", "files", "label"), FILES.values(), ids=FILES)
def test_merges_the_files_of_a_case(names: list[str], files: str, label: list[int]) -> None:
    assert MaskCoding(files=files).decode([A, B], names).tolist() == [label]


# A coding, the values of a mask, and the message.
REFUSED: dict[str, tuple[str, list[float], str]] = {
    "unknown value": ("0=0,1=1", [0, 3, 7], "mask a.png has values that the coding 0=0,1=1 lacks: 3, 7; fix the mask"),
    "unknown colour": ("0=0,#ff0000=1", [0, -255], "lacks: #0000ff"),
    "colour and threshold": ("0/255", [0, -255], r"mask a.png has colours \(#0000ff\), but the coding is 0/255"),
    "void index": ("indices", [0, 1, 255], "has the value 255, which is no class index; declare"),
    "odd index": ("indices", [0, 1.5], "has the value 1.5, which is no class index"),
    "not in tolerance": ("0=0,200=1,tolerance=9", [0, 190], "lacks: 190"),
}


@pytest.mark.parametrize(("coding", "values", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_values_that_the_coding_does_not_cover(coding: str, values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_coding(coding).decode([np.array([values])], ["a.png"])


def test_refuses_files_of_different_sizes() -> None:
    with pytest.raises(ValueError, match=r"b\.png is 2 x 1, but a\.png of the same case 3 x 1"):
        MaskCoding().decode([A, B[:, :2]], ["a.png", "b.png"])


TEXTS = ("two-valued", "indices", "0/1", "0/255", "0/65535", "threshold=100", "0=0,128=1,#ff0000=2")


@pytest.mark.parametrize("text", TEXTS)
def test_a_coding_goes_to_a_datalist_and_back(text: str) -> None:
    coding = parse_coding(text, files="merge")
    assert str(coding) == text
    assert parse_coding(coding.to_json()) == coding
    assert parse_coding(coding) is coding


@pytest.mark.parametrize(
    ("coding", "message"),
    [
        ("0/2", "mask coding '0/2' cannot be read; write two-valued"),
        ("red=1", "cannot be read"),
        ("0=0,1=300", "class indices of a mask coding must be in 0 to 255"),
        ({"kind": "soft"}, "mask coding kind must be one of two-valued, threshold, indices, values, got 'soft'"),
        ({"kind": "values"}, "needs values"),
        ({"files": "all"}, "mask coding files must be one of class, folder, merge, got 'all'"),
        ({"treshold": 3}, "cannot be read: .*treshold"),
        ({"values": [1]}, "cannot be read"),
    ],
)
def test_names_a_coding_that_cannot_be_read(coding: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_coding(coding)


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_names_a_mask_that_cannot_be_read(content: bytes | str, tmp_path: Path) -> None:
    path = save(recode(ONE, (0, 255)), tmp_path / "mask.png")
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"mask .*mask\.png cannot be read"):
        read_mask(path)


def test_a_mask_may_be_nifti(tmp_path: Path) -> None:
    nib.save(nib.nifti1.Nifti1Image(TWO.T, np.eye(4)), tmp_path / "mask.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "mask.nii.gz"), TWO)
