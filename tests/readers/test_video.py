"""Frames of videos are those that were written, at their times and upright; a damaged file is an error of one line."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.readers.cases import find_cases
from mobileutr_monai.readers.video import frames as video_frames
from mobileutr_monai.readers.video.frames import iter_video
from mobileutr_monai.readers.video.reader import VideoReader
from tests.video_samples import write_video

pytest.importorskip("av")

SAMPLES = Path(__file__).resolve().parents[2] / "bundles" / "breast_ultrasound_segmentation" / "sample_data" / "images"
SIZE = (160, 120)
TIMES = (0.0, 0.04, 0.5, 0.54, 2.0, 2.04)
CODECS = {".mp4": "mpeg4", ".mov": "mpeg4", ".avi": "mpeg4", ".mkv": "mpeg4", ".webm": "libvpx-vp9"}
MOST_DIFFERENCE = 12.0
"""Mean difference in grey levels that compression makes; that of two of the pictures is above 25."""


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.open(path).convert("RGB").resize(SIZE) for path in sorted(SAMPLES.glob("*.jpg"))[:6]]


def differ(frame: np.ndarray, picture: Image.Image) -> float:
    return float(np.abs(frame.astype(np.int16) - np.asarray(picture)).mean())


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_are_those_that_were_written_at_their_times(
    suffix: str, pictures: list[Image.Image], tmp_path: Path
) -> None:
    times = () if suffix == ".avi" else TIMES  # an AVI has a constant rate
    write_video(tmp_path / f"clip{suffix}", pictures, times, CODECS[suffix])
    (case,) = find_cases(tmp_path).cases
    assert (case.kind, case.output, case.spatial_dims) == (CaseKind.VIDEO, "clip", 2)
    frames = list(iter_video(case.paths[0]))
    assert [frame.seconds for frame in frames] == pytest.approx(times or [index / 25 for index in range(6)], abs=2e-3)
    assert max(differ(frame.pixels, picture) for frame, picture in zip(frames, pictures, strict=True)) < MOST_DIFFERENCE
    (fifth,) = islice(iter_video(case.paths[0], 4), 1)
    assert np.array_equal(fifth.pixels, frames[4].pixels)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_a_video_is_turned_as_the_file_says(
    rotation: int, turns: int, pictures: list[Image.Image], tmp_path: Path
) -> None:
    path = write_video(tmp_path / "phone.mp4", pictures[:1], rotation=rotation)
    (frame,) = iter_video(path)
    assert differ(frame.pixels, Image.fromarray(np.rot90(pictures[0], turns))) < MOST_DIFFERENCE


def test_a_reader_gives_frames_as_the_transforms_take_them(pictures: list[Image.Image], tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", pictures[:2])
    (array, meta), _ = VideoReader("L").iter_data(path)
    assert (array.shape, array.dtype, meta["seconds"]) == (SIZE, np.uint8, 0.0)
    (array, meta), _ = VideoReader("RGB").iter_data(path)
    assert (array.shape, meta["original_channel_dim"]) == ((*SIZE, 3), -1)


def cut_off(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def overwrite(content: bytes) -> bytes:
    middle = len(content) // 2
    noise = np.random.default_rng(0).integers(0, 256, 1000, np.uint8).tobytes()
    return content[:middle] + noise + content[middle + len(noise) :]


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut_off, "cut off: "), (overwrite, "frame [0-9] cannot be decoded|is damaged at byte")],
)
def test_damage_is_an_error_and_not_fewer_frames(
    suffix: str, damage: Callable[[bytes], bytes], message: str, pictures: list[Image.Image], tmp_path: Path
) -> None:
    path = write_video(tmp_path / f"clip{suffix}", pictures, codec=CODECS[suffix])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        list(iter_video(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello", "damaged, or not the video that its name says"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "damaged, or not the video that its name says"),
        (struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0), "damaged, or not the video that its name says"),
        (b"\x1aE\xdf\xa3\x80", "damaged, or not the video that its name says"),
    ],
)
def test_what_is_no_video_is_an_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(iter_video(tmp_path / "clip.mp4"))


def test_a_video_that_is_too_long_or_large_is_refused_before_it_is_decoded(
    pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "clip.mp4", pictures)
    monkeypatch.setattr(video_frames, "MAX_VIDEO_FRAMES", 5)
    with pytest.raises(ValueError, match="about 6 frames, limit 5; cut it into parts"):
        next(iter_video(path))
    monkeypatch.setattr(video_frames, "MAX_IMAGE_PIXELS", math.prod(SIZE) - 1)
    with pytest.raises(ValueError, match=r"160 x 120 pixels are declared, limit 19199"):
        next(iter_video(path))


def test_a_title_that_is_not_utf_8_does_not_matter(pictures: list[Image.Image], tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", pictures[:2], title="Muellerx")
    path.write_bytes(path.read_bytes().replace(b"Muellerx", "Müller x".encode("latin-1")))
    assert len(list(iter_video(path))) == 2


def test_an_unknown_codec_is_an_error_that_says_what_to_do(pictures: list[Image.Image], tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", pictures[:2])
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_ZZZZZ/ISO/ASP"))
    with pytest.raises(ValueError, match=r"no decoder for its codec; save it as H\.264"):
        list(iter_video(path))
