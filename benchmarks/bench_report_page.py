"""Cost of the report page: images a second with it and without, and memory over few cases and many.

Speed: the bundle's samples as in ``bench_batch_inference.py``, at the network's own size; the two take turns. CPU
time: the same in one process with one thread, which other programs on the machine hardly change. Memory of the page:
it is written for few and for many cases, whose rows and thumbnails are those of a run over the samples, many times.
Memory of a run: over few and over many images, which the network sees at 32 x 32, so that it takes no hours. Both are
the most memory that a process of its own took.

Example::

    python benchmarks/bench_report_page.py bundles/breast_ultrasound_segmentation --threads 2 \
        --output benchmarks/results/report_page.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_batch_inference import make_images
from measuring import describe_machine
from monai.bundle import ConfigParser

VERSIONS = {"without the page": False, "with the page": True}
CPU_IMAGES = 24


def run(bundle: Path, folder: Path, output: Path, **overrides: object) -> float:
    """Returns the seconds of a run without overlays, without the reading of configs and weights before it."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser.update({"bundle_root": bundle, "dataset_dir": folder, "output_dir": output})
    parser.update({"overlays": False, **overrides})
    with contextlib.redirect_stderr(io.StringIO()):
        runner = parser.get_parsed_content("runner")
        started = time.perf_counter()
        runner.run()
    return time.perf_counter() - started


def measure_speed(bundle: Path, images: int, rounds: int) -> dict[str, Any]:
    """Returns images a second with and without the page, and the size of what it adds."""
    seconds: dict[str, list[float]] = {name: [] for name in VERSIONS}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in", Path(folder) / "out"
        source.mkdir()
        make_images(bundle, source, images)
        run(bundle, source, output / "first", report_page=True)  # starts the fork server, not measured
        for number in range(rounds):
            for name, page in VERSIONS.items():
                seconds[name].append(run(bundle, source, output / f"{name} {number}", report_page=page))
        page_bytes = (output / "with the page 0" / "report.html").stat().st_size
    speed = {name: round(images / statistics.median(values), 2) for name, values in seconds.items()}
    return {
        "images": images,
        "images_per_second": speed,
        "share": round(speed["with the page"] / speed["without the page"], 3),
        "page_kilobytes_a_case": round(page_bytes / images / 1000, 1),
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
    }


def measure_cpu(bundle: Path, rounds: int) -> dict[str, Any]:
    """Returns the CPU seconds an image with and without the page, all in one process with one thread."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in VERSIONS}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in", Path(folder) / "out"
        source.mkdir()
        make_images(bundle, source, CPU_IMAGES)
        for number in range(rounds):
            for name, page in VERSIONS.items():
                started = time.process_time()
                run(bundle, source, output / f"{name} {number}", report_page=page, workers=0)
                seconds[name].append(round((time.process_time() - started) / CPU_IMAGES, 4))
    return {name: {"median": statistics.median(values), "all": values} for name, values in seconds.items()}


def measure_memory(bundle: Path, cases: int) -> dict[str, Any]:
    """Returns the peak of the main process over so many cases, and the pages that were made."""
    with tempfile.TemporaryDirectory() as folder:
        images, source, output = (Path(folder) / name for name in ("images", "in", "out"))
        images.mkdir()
        source.mkdir()
        make_images(bundle, images, 8)
        paths = sorted(images.iterdir())
        for index in range(cases):
            (source / f"{index:06}.png").symlink_to(paths[index % len(paths)])
        command = [sys.executable, "-W", "ignore", __file__, str(bundle), "--run", str(source), str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this file
        return {"cases": cases, **json.loads(done.stdout), **describe_pages(output)}


def measure_page(bundle: Path, cases: int) -> dict[str, Any]:
    """Returns the peak of a process that writes the page of so many cases, and the pages that were made."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in", Path(folder) / "out"
        source.mkdir()
        make_images(bundle, source, 8)
        run(bundle, source, output)
        header, *rows = (output / "report.csv").read_text().splitlines(keepends=True)
        originals = sorted((output / ".thumbnails").iterdir())
        with (output / "report.csv").open("w") as report:
            report.write(header)
            for index in range(cases):
                original = originals[index % len(originals)]
                (output / ".thumbnails" / f"{index:06}.json").symlink_to(original)
                report.write(rows[index % len(rows)].replace(original.stem, f"{index:06}"))
        command = [sys.executable, "-W", "ignore", __file__, str(bundle), "--write-page", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this file
        return {"cases": cases, **json.loads(done.stdout), **describe_pages(output)}


def write_page(output: Path) -> None:
    """Writes the page of an output folder and prints the peak of this process before it and in all."""
    from mobileutr_monai.inference.report.pages import write_pages

    summary = json.loads((output / "report.json").read_text())
    before, started = read_peak(), time.perf_counter()
    write_pages(output, summary, summary["labels"].values())
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"before_the_page": before, "peak_mebibytes": read_peak(), "seconds": seconds}))


def describe_pages(output: Path) -> dict[str, Any]:
    """Returns how many pages there are, and the size of the largest."""
    pages = [output / "report.html", *(output / "report_pages").glob("*.html")]
    return {"pages": len(pages), "largest_page_megabytes": round(max(p.stat().st_size for p in pages) / 1e6, 1)}


def run_once(bundle: Path, source: Path, output: Path) -> None:
    """Runs over a folder and prints the peak of this process, before the page is written and in all."""
    from mobileutr_monai.inference.batch import runner

    write_pages, before = runner.write_pages, []

    def watch(*arguments: Any) -> list[Path]:
        before.append(read_peak())
        return write_pages(*arguments)

    runner.write_pages = watch
    seconds = run(bundle, source, output, image_size=[32, 32])
    print(json.dumps({"before_the_page": before[0], "peak_mebibytes": read_peak(), "seconds": round(seconds, 1)}))


def read_peak() -> float:
    """Returns the most memory of this process so far, in MiB; getrusage would count that of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed; 0 for none")
    parser.add_argument("--cpu-rounds", type=int, default=3, help="of the measurement of CPU time; 0 for none")
    parser.add_argument("--cases", type=int, nargs="*", default=[200, 5000], help="of each run whose memory is taken")
    parser.add_argument("--page-cases", type=int, nargs="*", default=[200, 20000], help="of each page")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--write-page", type=Path, metavar="OUT", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, nargs=2, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    if arguments.write_page:
        write_page(arguments.write_page)
        return
    if arguments.run:
        run_once(arguments.bundle, *arguments.run)
        return
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if arguments.rounds:
        result["speed"] = measure_speed(arguments.bundle, arguments.images, arguments.rounds)
    if arguments.cpu_rounds:
        result["cpu_seconds_an_image"] = measure_cpu(arguments.bundle, arguments.cpu_rounds)
    if arguments.cases:
        result["memory_of_a_run"] = [measure_memory(arguments.bundle, cases) for cases in arguments.cases]
    if arguments.page_cases:
        result["memory_of_the_page"] = [measure_page(arguments.bundle, cases) for cases in arguments.page_cases]
    print(json.dumps(result, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
