"""How long the command takes to begin: wall-clock seconds of whole processes that take turns.

- ``mobileutr --help``;
- ``mobileutr predict MODEL.onnx``, an exported file with pixels in and label map out, on one picture;
- ``mobileutr predict BUNDLE`` on the same picture, without overlays, with the default engine.

Example::

    mobileutr export bundles/breast_ultrasound_segmentation --end-to-end --output breast.onnx
    python benchmarks/bench_startup.py bundles/breast_ultrasound_segmentation breast.onnx \
        --output benchmarks/results/startup.json
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import describe_machine, summarise, take_turns, write_json

HELP, ONNX, BUNDLE = "mobileutr --help", "mobileutr predict MODEL.onnx", "mobileutr predict BUNDLE"


def run(*arguments: object) -> None:
    """Runs the command as its script does."""
    command = [sys.executable, "-W", "ignore", "-m", "mobileutr_monai", *map(str, arguments)]
    subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - this project's own command


def run_fresh(model: Path, folder: Path, *options: str) -> None:
    """Predicts into a folder of its own, so that nothing is taken over from the turn before."""
    with tempfile.TemporaryDirectory() as output:
        run("predict", model, folder, "--output", output, *options)


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = sorted((arguments.bundle / "sample_data" / "images").iterdir())[0]
        shutil.copyfile(sample, folder / sample.name)
        versions = {
            HELP: lambda: run("--help"),
            ONNX: lambda: run_fresh(arguments.model, folder),
            BUNDLE: lambda: run_fresh(arguments.bundle, folder, "--no-overlays"),
        }
        rows = summarise(take_turns(versions, arguments.rounds), HELP)
    print("| command | median | interquartile range | CPU time |")
    print("| --- | ---: | ---: | ---: |")
    for command, row in rows.items():
        quartiles = f"{row['q1_s']:.2f} - {row['q3_s']:.2f} s"
        print(f"| `{command}` | {row['median_s']:.2f} s | {quartiles} | {row['cpu_median_s']:.2f} s |")
    write_json(arguments.output, {"machine": machine, "rounds": arguments.rounds, "commands": rows})


if __name__ == "__main__":
    main()
