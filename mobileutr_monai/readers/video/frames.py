"""The frames of a video by PyAV, one at a time, upright and as RGB.

PyAV (BSD) is the extra ``video``. Of its FFmpeg only the demuxers of MP4, MOV, AVI and Matroska are used, and
they open no other file.
"""

from __future__ import annotations

import errno
import importlib.util
import math
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobileutr_monai.core.limits import MAX_IMAGE_PIXELS, MAX_VIDEO_FRAMES
from mobileutr_monai.readers.video.containers import check_length

__all__ = ["VideoFrame", "can_read_video", "iter_video"]

PACKAGE = "av"

_REMEDY = "copy or export the file again"
_CONTAINER_OPTIONS = {
    # Not playlists, which open other files and addresses.
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm",
    "protocol_whitelist": "file",
}
_DECODER_OPTIONS = {
    # Otherwise damaged parts are filled in with what was there before.
    "err_detect": "explode",
    "max_pixels": str(MAX_IMAGE_PIXELS),
}


class VideoFrame(NamedTuple):
    """A frame as players show it.

    Attributes:
        pixels: (rows, columns, 3), RGB, uint8.
        seconds: since the first frame; NaN where the file does not say.
    """

    pixels: np.ndarray
    seconds: float


def can_read_video() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def iter_video(path: str | Path, start: int = 0) -> Iterator[VideoFrame]:
    """Yields the frames of the video in a file, rotated as the file says.

    Args:
        path: MP4, MOV, AVI, Matroska or WebM.
        start: first frame to yield, from 0; those before it are decoded, too.

    Raises:
        ValueError: the file is no video, cut off or damaged, has more than ``MAX_VIDEO_FRAMES`` frames or pixels than
            an image may have, or its frames differ in size.
        MemoryError: a frame does not fit.
    """
    import av

    path = Path(path).absolute()
    check_length(path)
    av.logging.set_level(av.logging.PANIC)
    count, first = -1, math.nan  # a frame's number, from 0, as in the table of frames
    shape: tuple[int, ...] = ()
    try:
        with av.open(str(path), container_options=_CONTAINER_OPTIONS, metadata_errors="replace") as container:
            count = 0
            stream: Any = container.streams.best("video")
            if stream is None:
                raise ValueError(f"{path}: the file has no video")
            if stream.codec_context is None:
                raise ValueError(f"{path}: no decoder for its codec; save it as H.264, for example with ffmpeg")
            _check_stream(path, stream)
            stream.thread_type = "NONE"
            stream.codec_context.options = _DECODER_OPTIONS
            with closing(_decode(container, stream)) as frames:
                for frame in frames:
                    if frame is None or frame.is_corrupt:
                        raise ValueError(f"{path}: frame {count} is damaged or cut off; {_REMEDY}")
                    seconds = math.nan if frame.time is None else float(frame.time)
                    first = seconds if math.isnan(first) else first
                    pixels = _to_upright(path, frame)
                    shape = shape or pixels.shape
                    if pixels.shape != shape:
                        sizes = [f"{columns} x {rows}" for rows, columns, _ in (shape, pixels.shape)]
                        raise ValueError(f"{path}: frame {count} is {sizes[1]} pixels, the first is {sizes[0]}")
                    if count >= start:
                        yield VideoFrame(pixels, seconds - first)
                    count += 1
    except av.error.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from None
        reason = error.strerror or type(error).__name__
        if count < 0:
            raise ValueError(f"{path}: the file is damaged, or not the video that its name says: {reason}") from None
        raise ValueError(f"{path}: frame {count} cannot be decoded: {reason}; {_REMEDY}") from None
    if not count:
        raise ValueError(f"{path}: the video has no frames")


def _check_stream(path: Path, stream: Any) -> None:
    """Checks what is declared, before anything is decoded."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_IMAGE_PIXELS:
        raise ValueError(f"{path}: {width} x {height} pixels are declared, limit {MAX_IMAGE_PIXELS}")
    frames = stream.frames
    if not frames and stream.container.duration and stream.average_rate:
        frames = int(stream.container.duration / 1e6 * float(stream.average_rate))
    if frames > MAX_VIDEO_FRAMES:
        raise ValueError(
            f"{path}: about {frames} frames, limit {MAX_VIDEO_FRAMES}; cut it into parts, for example with ffmpeg"
        )


def _decode(container: Any, stream: Any) -> Generator[Any, None, None]:
    """Yields frames; None for a packet that is not all there."""
    for packet in container.demux(stream):
        if packet.is_corrupt:
            yield None
        yield from packet.decode()


def _to_upright(path: Path, frame: Any) -> np.ndarray:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return np.asarray(frame.to_ndarray(format="rgb24"))
    a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5].tolist()
    if frame.rotation % 90 or a * d - b * c <= 0:
        raise ValueError(f"{path}: is to be shown mirrored or at a slant; save it upright, for example with ffmpeg")
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
