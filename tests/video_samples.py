"""Small videos, made of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

TICKS = 1000


def write_video(
    path: Path,
    pictures: Iterable[Image.Image],
    times: Sequence[float] = (),
    codec: str = "mpeg4",
    rotation: int = 0,
    title: str = "",
) -> Path:
    """Writes RGB pictures of one size, the container by the path's suffix.

    Args:
        times: seconds of each, 25 per second by default.
        rotation: degrees counterclockwise by which players turn it.
    """
    import av

    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=25, options={"qscale": "1"} if codec == "mpeg4" else {})
        if rotation:
            stream.set_display_rotation(rotation)
        for index, picture in enumerate(pictures):
            if not index:
                stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
                stream.codec_context.time_base = Fraction(1, TICKS)
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame.pts = round(TICKS * (times[index] if times else index / 25))
            frame.time_base = Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
