"""Seconds from ``bash scripts/monai_label.sh`` to the first answer of ``/info/``, once it is installed, and those of a
mask: the first one, later ones, and those while a training runs.

The server is started and stopped ``--rounds`` times; the load average of each start says what else ran, and its own
CPU seconds, whatever else ran, what it had to do.

Example::

    python benchmarks/bench_label_start.py bundles/breast_ultrasound_segmentation --output \
        benchmarks/results/label_start.json
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measuring import describe_machine, write_json
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "monai_label"))
from label_service import LabelServer, ask, serve


def read_cpu_seconds(pid: int) -> float:
    """Returns what a process and those that it waited for have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def time_inference(server: LabelServer, images: list[Path], masks: Path, scratch: Path) -> dict[str, float]:
    """Returns the seconds of a mask: the first one, the median of all images, and that while a training runs."""

    def infer(image: Path) -> float:
        begin = time.perf_counter()
        assert server.infer(image.stem).status == 200
        return time.perf_counter() - begin

    first = infer(images[0])
    later = statistics.median(map(infer, images))
    for image in images:
        label = scratch / f"{image.stem}.png"
        with Image.open(masks / f"{image.stem}.png") as mask:
            mask.convert("1").convert("L").save(label)
        assert server.save_label(image.stem, label).status == 200
    assert server.post(f"/train/{server.model}", max_epochs=1000).status == 200
    while "Epoch" not in server.log.read_text():  # the job imports and reads for a while
        time.sleep(0.5)
    training = statistics.median(map(infer, images))
    ask(f"{server.url}/train/", "DELETE")
    return {"first_infer": first, "infer": later, "infer_while_training": training}


def main() -> None:
    """Measures and writes the numbers."""
    parser = argparse.ArgumentParser(description="Time until MONAI Label answers.")
    parser.add_argument("bundle", type=Path, help="its sample_data/images are the studies, its masks the labels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    studies = (options.bundle / "sample_data" / "images").resolve()
    starts = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as work:
            images = Path(work) / "studies"  # MONAI Label writes into it
            images.mkdir()
            for image in studies.iterdir():
                (images / image.name).symlink_to(image)
            load, begin = os.getloadavg()[0], time.perf_counter()
            with serve(options.bundle.resolve(), images, Path(work) / "work") as server:
                seconds, cpu_seconds = time.perf_counter() - begin, read_cpu_seconds(server.process.pid)
                masks = options.bundle / "sample_data" / "masks" / "0"
                cases = [image for image in sorted(images.glob("*.jpg")) if (masks / f"{image.stem}.png").is_file()]
                asked = time_inference(server, cases, masks, Path(work)) if cases else {}
            times = {"seconds": seconds, "cpu_seconds": cpu_seconds, "load_average": load, **asked}
            starts.append({name: round(value, 2) for name, value in times.items()})
        print(starts[-1], flush=True)
    content = {
        "command": shlex.join(["python", "benchmarks/bench_label_start.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "starts": starts,
        "median_s": statistics.median(start["seconds"] for start in starts),
    }
    write_json(options.output, content)


if __name__ == "__main__":
    main()
