"""What it saves that ``mobileutr predict`` imports MONAI without what it does not use: one image, whole processes.

``before`` imports all of MONAI, as ``main()`` does in a program that may use the rest of it; ``after`` is the command.
They take turns. CPU time is that of the process itself, without the fork server's, which imports the same; on a
machine that other programs share it is the steadier one, and the ratio says more than the seconds.

Example::

    python benchmarks/bench_imports.py bundles/breast_ultrasound_segmentation --output benchmarks/results/imports.json
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import describe_machine, write_json

VERSIONS = {
    "before": "import sys; from mobileutr_monai.__main__ import main; sys.exit(main())",
    "after": "import sys; from mobileutr_monai.__main__ import command; sys.exit(command())",
}


def measure(program: str, bundle: Path, folder: Path) -> tuple[float, float]:
    """Returns the seconds that a run took, and those that its process computed."""
    with tempfile.TemporaryDirectory() as output:
        call = [sys.executable, "-W", "ignore", "-c", program, "predict", str(bundle), str(folder), "--output", output]
        started = time.perf_counter()
        with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"exit code {process.returncode}")
        return time.perf_counter() - started, used.ru_utime + used.ru_stime


def main() -> None:
    """Measures, prints the ratios and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in VERSIONS}
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = sorted((arguments.bundle / "sample_data" / "images").iterdir())[0]
        shutil.copyfile(sample, folder / sample.name)
        for number in range(arguments.rounds):
            for version in sorted(VERSIONS, reverse=bool(number % 2)):
                samples[version].append(measure(VERSIONS[version], arguments.bundle, folder))
                print(version, *(f"{value:.2f}" for value in samples[version][-1]), flush=True)
    rows: dict[str, dict[str, Any]] = {
        version: {
            "median_s": round(statistics.median(wall for wall, _ in values), 2),
            "cpu_median_s": round(statistics.median(cpu for _, cpu in values), 2),
            "samples_s": [[round(wall, 2), round(cpu, 2)] for wall, cpu in values],
        }
        for version, values in samples.items()
    }
    ratios = {
        key: round(statistics.median(b[i] / a[i] for b, a in zip(samples["before"], samples["after"], strict=True)), 2)
        for i, key in enumerate(("elapsed", "cpu"))
    }
    print(ratios)
    content = {"machine": machine, "rounds": arguments.rounds, "versions": rows, "before_over_after": ratios}
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
