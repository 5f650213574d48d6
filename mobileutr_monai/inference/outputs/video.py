"""Results of videos: contours on the frames as a video, and a table of the frames.

The video is VP9 in MP4, by libvpx (BSD) of PyAV's FFmpeg: browsers play it, and unlike H.264's encoder it is not under
the GPL. It has the frames and times of its source and no sound.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from mobileutr_monai.core.atomic import write_atomic, write_text
from mobileutr_monai.core.text import SHORT_NOTICE
from mobileutr_monai.inference.outputs.dicom.provenance import OutputCheckError
from mobileutr_monai.inference.outputs.overlay import draw_contours
from mobileutr_monai.readers.video.frames import iter_video

__all__ = ["FrameTable", "write_frame_table", "write_overlay_video"]

CODEC = "libvpx-vp9"
_CODEC_OPTIONS = {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0"}
_TICKS = 90000
"""Per second, in which times of frames are written."""

_DEFAULT_RATE = 25
"""Frames per second of a video that says no times."""


class FrameTable(NamedTuple):
    """What was counted of each frame.

    Attributes:
        seconds: since the first frame; NaN where the file does not say.
        pixels: name of each label -> its pixels in each frame.
    """

    seconds: list[float]
    pixels: Mapping[str, list[int]]


def write_frame_table(table: FrameTable, output: Path) -> None:
    """Writes one row per label per frame, frames numbered from 0, atomically."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("frame", "seconds", "label", "pixels"))
    for index, seconds in enumerate(table.seconds):
        time = "" if math.isnan(seconds) else f"{seconds:.6f}"
        writer.writerows((index, time, label, counts[index]) for label, counts in table.pixels.items())
    write_text(output, text.getvalue())


def write_overlay_video(source: Path, labels: Iterable[np.ndarray], output: Path) -> None:
    """Writes the contours on the frames of a video atomically.

    Args:
        source: the video.
        labels: one per frame.

    Shape:
        - labels: (rows, columns) each.

    Raises:
        ValueError: a frame cannot be decoded, or there are more frames than label maps.
        OutputCheckError: what was written has not as many frames as were given.
    """

    def write(file: IO[bytes]) -> None:
        count = _encode(source, labels, file)
        file.flush()
        if (written := _count_frames(Path(file.name))) != count:
            raise OutputCheckError(f"{output}: {written} frames are in the video, {count} were written")

    write_atomic(output, write)


def _encode(source: Path, labels: Iterable[np.ndarray], file: IO[bytes]) -> int:
    import av

    count, last = 0, -1
    with av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = SHORT_NOTICE
        stream: Any = container.add_stream(CODEC, rate=_DEFAULT_RATE, options=_CODEC_OPTIONS)
        for (pixels, seconds), label in zip(iter_video(source), labels, strict=True):
            if not count:
                stream.height, stream.width = label.shape
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, _TICKS)
                stream.codec_context.thread_count = 1
            picture = draw_contours(Image.fromarray(pixels), label)
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            time = last + _TICKS // _DEFAULT_RATE if math.isnan(seconds) else round(seconds * _TICKS)
            last = frame.pts = max(time, last + 1)
            frame.time_base = Fraction(1, _TICKS)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def _count_frames(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)
