"""Processor time of the web page in Chromium: until it is ready, and until the mask of the first and of a later image.

The folder of ``mobileutr export --format web`` is served on this machine to a fresh browser, for each visit: the first
one, and one that finds the page kept. Seconds are those that all processes of the browser computed, which other
programs hardly change; the seconds that passed are noted too.

Example::

    python benchmarks/bench_web.py site/ --output benchmarks/results/web.json
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from measuring import describe_machine, write_json

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.inference.report.browser import Browser, find_chromium  # noqa: E402

BUNDLE = "breast_ultrasound_segmentation"
IMAGES = ROOT / "bundles" / BUNDLE / "sample_data" / "images"


class QuietHandler(SimpleHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: object) -> None:
        """Does nothing."""


def read_browser_seconds() -> float:
    """Returns the seconds that the processes started by this one, and theirs, have computed (Linux)."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))

    def is_ours(process: int) -> bool:
        parent = parents.get(process)
        return parent is not None and (parent == os.getpid() or is_ours(parent))

    return sum(count for process, count in ticks.items() if is_ours(process)) / os.sysconf("SC_CLK_TCK")


def measure(call: Callable[[], object]) -> tuple[float, float]:
    """Returns the seconds that passed, and those that the browser computed."""
    started, computed = time.perf_counter(), read_browser_seconds()
    call()
    return time.perf_counter() - started, read_browser_seconds() - computed


def visit(address: str, samples: dict[str, list[tuple[float, float]]]) -> str:
    """Measures one browser's first visit, images, and second visit; returns what computes."""
    images = sorted(IMAGES.iterdir())[:4]

    def segment(page: Browser, path: Path) -> None:
        page.give_files("#files", [path])
        page.wait(f"document.body.dataset.shown === {json.dumps(f'{BUNDLE}/{path.name}')}")

    def go(page: Browser, to: str) -> None:
        page.visit(to)
        page.wait("document.body?.dataset.ready")

    program = find_chromium()
    if program is None:
        raise SystemExit("no Chromium")
    with TemporaryDirectory() as folder, Browser(program, net_log=Path(folder) / "net.json") as page:
        page.patience = 300.0
        time.sleep(2)  # the browser's own start
        samples["first visit, page ready"].append(measure(lambda: go(page, address)))
        for number, path in enumerate(images, start=1):
            sample = measure(lambda path=path: segment(page, path))  # type: ignore[misc]
            if number in (1, len(images)):
                samples[f"image {number}"].append(sample)
        page.wait("document.body.dataset.offline === 'true'")
        page.visit("about:blank")
        page.wait("location.protocol === 'about:'")
        samples["later visit, page ready"].append(measure(lambda: go(page, address)))
        samples["later visit, image 1"].append(measure(lambda: segment(page, images[0])))
        status: str = page.ask("document.querySelector('#status').textContent")
    return status.split(" · ")[0]


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="folder of mobileutr export --format web")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    handler = functools.partial(QuietHandler, directory=str(options.site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    steps = ("first visit, page ready", "image 1", "image 4", "later visit, page ready", "later visit, image 1")
    samples: dict[str, list[tuple[float, float]]] = {step: [] for step in steps}
    for _ in range(options.rounds):
        runtime = visit(f"http://127.0.0.1:{server.server_port}/", samples)
    rows = {
        step: {
            "cpu_seconds": round(statistics.median(cpu for _, cpu in values), 2),
            "seconds": round(statistics.median(wall for wall, _ in values), 2),
            "samples": [[round(wall, 2), round(cpu, 2)] for wall, cpu in values],
        }
        for step, values in samples.items()
    }
    print(json.dumps(rows, indent=1))
    write_json(
        options.output, {"machine": describe_machine(), "runtime": runtime, "rounds": options.rounds, "rows": rows}
    )


if __name__ == "__main__":
    main()
