"""What the readers alone do with each hostile file: a process for each, its end, its seconds, its memory.

    python -m tests.soak.probe --files 2000 --seed 0 --output results.json

The runner keeps a reader's crash to its case; this shows which files make a reader crash, hang or take memory at all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.soak.cases_by_hand import CASES
from tests.soak.corpus import make_file
from tests.soak.seeds import ROOT, find_seeds

BUNDLES = ("breast_ultrasound_segmentation", "hippocampus_mri_segmentation")
SECONDS = 20.0
MEBIBYTES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description="Read hostile files, each in a process of its own.")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by-hand", action="store_true", help="only the cases written by hand, once each")
    parser.add_argument("--only", default="", help="only files whose name contains this")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the files that crash, hang or take memory")
    options = parser.parse_args()
    seeds = find_seeds()
    if options.by_hand:
        files = ((name, make) for name, make in CASES.items() if options.only in name)
    else:
        numbers = range(options.first, options.first + options.files)
        made = (make_file(options.seed, number, seeds) for number in numbers)
        files = ((file.name, (lambda data=file.data: data)) for file in made if options.only in file.name)
    readers = load_readers()
    baseline = run_alone(lambda: None, SECONDS)["mebibytes"]
    ends: Counter[str] = Counter()
    bad = []
    for name, make in files:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(make())
            for dims, reader in readers.items():
                result = run_alone(lambda folder=folder, r=reader: read_all(Path(folder), r), SECONDS)
                result["mebibytes"] -= baseline
                ends[result["end"].split(":")[0]] += 1
                if options.by_hand:
                    print(f"{dims}D {name}: {result}", flush=True)
                if is_bad(result):
                    bad.append({"name": name, "dims": dims, **result})
                    if not options.by_hand:
                        print(json.dumps(bad[-1]), flush=True)
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, options.keep / name)
    summary = {"ends": dict(ends), "baseline_mebibytes": baseline, "bad": bad}
    print(json.dumps(summary["ends"]))
    if options.output:
        options.output.write_text(json.dumps(summary, indent=1) + "\n")


def is_bad(result: dict[str, Any]) -> bool:
    return result["end"].startswith(("signal", "hang", "uncaught")) or result["mebibytes"] > MEBIBYTES


def load_readers() -> dict[int, Any]:
    from monai.bundle import ConfigParser

    readers = {}
    for name in BUNDLES:
        bundle = ROOT / "bundles" / name
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "inference.json"))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        parser.update({"bundle_root": str(bundle)} | ({"image_size": [32, 32]} if "breast" in name else {}))
        reader = parser.get_parsed_content("segmenter").reader
        readers[reader.spatial_dims] = reader
    return readers


def read_all(folder: Path, reader: Any) -> str:
    """Reads every case of a folder as the runner does; returns what became of the last one."""
    from mobileutr_monai.core.kinds import CaseKind
    from mobileutr_monai.readers.cases import find_cases

    found = find_cases(folder)
    said = [f"unused: {file.reason}: {file.detail}" for file in found.unused]
    for case in found.cases:
        if case.spatial_dims != reader.spatial_dims:
            said.append("other dimensions")
            continue
        try:
            if case.kind is CaseKind.CINE:
                for _ in reader.read_frames(case.paths[0]):
                    pass
            else:
                reader.read(case.paths)
            said.append("read")
        except Exception as error:  # noqa: BLE001 - what the runner does
            while error.__cause__ is not None:
                error = error.__cause__
            said.append(f"error: {type(error).__name__}: {error}"[:300])
    return " | ".join(said)


def run_alone(work: Callable[[], str | None], seconds: float) -> dict[str, Any]:
    """Runs something in a child; returns how it ended, its seconds, and the most memory it had."""
    receive, send = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(receive)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        try:
            said = work() or ""
        except BaseException as error:  # noqa: BLE001 - anything that the readers let through
            said = f"uncaught: {type(error).__name__}: {error}"
        os.write(send, said.encode(errors="backslashreplace")[:1000])
        os._exit(0)
    os.close(send)
    end = ""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - started > seconds:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            end = "hang"
            break
        time.sleep(0.002)
    with os.fdopen(receive, "rb") as file:
        said = file.read().decode(errors="replace")
    if not end:
        end = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said or "nothing"
    return {"end": end, "seconds": round(time.monotonic() - started, 2), "mebibytes": usage.ru_maxrss // 1024}


if __name__ == "__main__":
    # A blow-up shall not take the machine.
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30,) * 2)
    sys.exit(main())
