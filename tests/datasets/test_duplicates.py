"""Near-duplicate images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.datasets.duplicates import NEAR_DUPLICATE_CORRELATION, find_near_duplicates, group_pairs


def draw_image(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC)


def to_16_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


# How the same scan comes twice: what was done to it, and the file's suffix.
COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "identical": (lambda image: image, ".png"),
    "recompressed": (lambda image: image, ".jpg"),
    "brightened": (lambda image: image.point(lambda value: int(0.7 * value + 60)), ".png"),
    "resized": (lambda image: image.resize((60, 75)), ".png"),
    "in colour": (lambda image: image.convert("RGB"), ".png"),
    "16-bit": (to_16_bit, ".png"),
}


@pytest.mark.parametrize(("alter", "suffix"), COPIES.values(), ids=COPIES)
def test_finds_a_copy_among_unrelated_images(
    alter: Callable[[Image.Image], Image.Image], suffix: str, tmp_path: Path
) -> None:
    images = {f"image{seed}": tmp_path / f"image{seed}.png" for seed in range(4)}
    for seed, path in enumerate(images.values()):
        draw_image(seed).save(path)
    images["copy"] = tmp_path / f"copy{suffix}"
    alter(draw_image(2)).save(images["copy"])
    [(first, second, correlation)] = find_near_duplicates(images)
    assert (first, second) == ("copy", "image2")
    assert NEAR_DUPLICATE_CORRELATION <= correlation <= 1 + 1e-9


def test_tells_16_bit_images_of_one_outline_apart(tmp_path: Path) -> None:
    images = {str(seed): tmp_path / f"{seed}.png" for seed in range(3)}
    for seed, path in enumerate(images.values()):
        image = draw_image(seed)
        image.paste(0, (0, 0, 48, 96))
        to_16_bit(image).save(path)
    assert find_near_duplicates(images) == []


def test_names_the_most_alike_pair_first(tmp_path: Path) -> None:
    noise = np.random.default_rng(9).normal(0, 40, (96, 96))
    images = {name: tmp_path / f"{name}.png" for name in ("a", "b", "noisy")}
    for name, path in images.items():
        pixels = np.asarray(draw_image(0)) + (noise if name == "noisy" else 0)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    pairs = find_near_duplicates(images, correlation=0.9)
    assert [pair[:2] for pair in pairs] == [("a", "b"), ("a", "noisy"), ("b", "noisy")]
    assert pairs[0][2] > pairs[1][2] == pytest.approx(pairs[2][2])


def test_constant_images_are_like_nothing(tmp_path: Path) -> None:
    images = {str(grey): tmp_path / f"{grey}.png" for grey in (0, 90, 91)}
    for grey, path in images.items():
        Image.new("L", (30, 30), int(grey)).save(path)
    assert find_near_duplicates(images) == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_pairs(count: int, tmp_path: Path) -> None:
    draw_image(0).save(tmp_path / "a.png")
    assert find_near_duplicates({"a": tmp_path / "a.png"} if count else {}) == []


# Names, pairs, groups.
GROUPS: dict[str, tuple[str, list[str], list[str]]] = {
    "alone": ("cab", [], ["a", "b", "c"]),
    "pair": ("abc", ["ca"], ["ac", "b"]),
    "chain": ("abcde", ["ab", "cd", "bc"], ["abcd", "e"]),
    "ring": ("abc", ["ab", "bc", "ca"], ["abc"]),
    "two groups": ("abcd", ["ac", "bd"], ["ac", "bd"]),
    "others are ignored": ("ab", ["ax", "xy"], ["a", "b"]),
    "itself": ("ab", ["aa"], ["a", "b"]),
}


@pytest.mark.parametrize(("names", "pairs", "groups"), GROUPS.values(), ids=GROUPS)
def test_joins_what_is_linked(names: str, pairs: list[str], groups: list[str]) -> None:
    assert group_pairs(names, [(*pair, 0.99) for pair in pairs]) == [list(group) for group in groups]
