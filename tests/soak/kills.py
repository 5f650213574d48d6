"""Batch inference killed at random moments and begun again, compared with a run that nobody killed.

    python -m tests.soak.kills --kills 50 --seed 0 --output tests/soak/results/kills.json

The folder is mixed: images, 2D and 3D NIfTI, DICOM stills, cines and series, an archive, and files that fail. Every
second kill takes the whole process group, as a power cut does, the others the program alone, as the kernel does that
runs out of memory, and the same command begins at once. What bears a result's name after a kill must be that result,
whole. When the command has come to its end, the output folder must be that of the run that nobody killed: nothing
missing, half-written, or twice.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.soak.seeds import ROOT, SHARED_DICOM, make_dicom, make_nifti
from tests.soak.watch import describe_machine, list_session, predict_command, read_results, run_watched, write_results

DATES = ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime")
"""What two runs' DICOM results differ in."""

GROWING = ("report.csv", "run.json")
"""What there is before a run has ended; everything else is a result."""

SECONDS_PER_RUN = 600
MOST_KILLS = 3
"""Of one output folder, before it is left to come to its end."""

BY_SECOND, MOST_DELAY = 0.25, 0.5
"""Share of kills by the clock; seconds at most between a number of files and a kill."""

WORK_DIR = ".mobileutr"
"""What a run keeps for itself: results in the making, thumbnails, unpacked archives."""

VOLUMES_EVERY = 5
"""Of so many folders one is of the 3D bundle."""


class Whole(NamedTuple):
    """A run that nobody killed: what it left, and the seconds that it took."""

    dims: int
    results: dict[str, str]
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs of batch inference and resume them.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="folders at a time")
    parser.add_argument("--images", type=int, default=24, help="of the folder; of other kinds there are fewer")
    parser.add_argument("--no-real", action="store_true", help="without the DICOM files next to the repository")
    parser.add_argument("--no-volumes", action="store_true", help="with the 2D bundle only")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then stop; call again to resume")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("seed", "images", "no_real", "no_volumes")}
    earlier = read_results(arguments.output, **options)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        found = kill_runs(Path(folder), arguments, earlier, started + arguments.seconds)
    results = {
        "command": f"python -m tests.soak.kills --kills {arguments.kills} --seed {arguments.seed}",
        "options": options,
        "with_shared_dicom": SHARED_DICOM.is_dir() and not arguments.no_real,
        "seconds": round(time.monotonic() - started) + earlier.get("seconds", 0),
        **found,
        "machine": describe_machine(),
    }
    write_results(arguments.output, results)
    return 1 if results["violations"] else 0


def kill_runs(work: Path, options: argparse.Namespace, earlier: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Returns how often runs were killed, and what was not as it should be."""
    source = work / "in"
    inputs = make_mixed_folder(source, options.images, not options.no_real)
    kills, violations = list(earlier.get("each", [])), list(earlier.get("violations", []))
    folders = Counter(earlier.get("folders", {}))
    whole = {dims: run_whole(source, work / f"whole{dims}", dims) for dims in ((2,) if options.no_volumes else (2, 3))}
    with ThreadPoolExecutor(options.jobs) as pool:
        while len(kills) < options.kills and time.monotonic() < deadline:
            first, left = sum(folders.values()), options.kills - len(kills)
            numbers = range(first, first + min(options.jobs, left))
            most = min(MOST_KILLS, left // len(numbers))
            volumes = [number % VOLUMES_EVERY == VOLUMES_EVERY - 1 and 3 in whole for number in numbers]
            ended = [
                pool.submit(kill_folder, work, number, whole[3 if volume else 2], options.seed, most)
                for number, volume in zip(numbers, volumes, strict=True)
            ]
            for future, volume in zip(ended, volumes, strict=True):
                found, wrong = future.result()
                kills += found
                violations += wrong
                folders["3D" if volume else "2D"] += 1
            print(f"{len(kills)} kills, {len(violations)} violations", file=sys.stderr, flush=True)
    return {
        "kills": len(kills),
        "folders": dict(folders),
        "inputs": inputs,
        "kills_by_results_there": {
            "none": sum(kill["results"] == 0 for kill in kills),
            "some": sum(0 < kill["results"] < kill["of"] for kill in kills),
            "all": sum(kill["results"] == kill["of"] for kill in kills),
        },
        "kills_that_left_a_half_written_file": sum(kill["half_written"] > 0 for kill in kills),
        "violations": violations,
        "each": kills,
    }


def run_whole(source: Path, output: Path, dims: int) -> Whole:
    watched = run_watched(*predict_command(dims, source, output), SECONDS_PER_RUN)
    if watched.returncode != 1:  # the folder has files that fail
        raise SystemExit(f"error: the run that nobody kills ended with {watched.returncode}: {watched.stderr[-2000:]}")
    return Whole(dims, describe_results(output), watched.seconds)


def kill_folder(work: Path, number: int, whole: Whole, seed: int, most: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Kills runs into one output folder, then lets one come to its end; returns the kills, and what was wrong."""
    rng = random.Random(f"{seed}:{number}")
    output, where, sessions = work / f"out{number}", f"folder {number} ({whole.dims}D)", []
    command = predict_command(whole.dims, work / "in", output)
    kills: list[dict[str, Any]] = []
    wrong: list[str] = []
    for attempt in range(rng.randint(1, most)):
        group = (number + attempt) % 2 == 0
        moment = draw_moment(rng, output, whole)
        watched = run_watched(*command, SECONDS_PER_RUN, kill_when=moment, kill_group=group)
        if watched.returncode != -signal.SIGKILL:
            break  # it had ended before
        sessions.append(watched.session)
        found = describe_results(output)
        killed = "process group" if group else "program"
        how = {"folder": number, "bundle": f"{whole.dims}D", "killed": killed, "second": round(watched.seconds, 2)}
        kills.append(how | describe_kill(found, whole.results))
        wrong += [f"{where}, killed: {what}" for what in compare(found, whole.results, ended=False)]
    watched = run_watched(*command, SECONDS_PER_RUN)
    if watched.returncode != 1 or "Traceback" in watched.stderr:
        wrong.append(f"{where}: ended with {watched.returncode}: {watched.stderr[-300:]}")
    wrong += [f"{where}: {what}" for what in compare(describe_results(output), whole.results, ended=True)]
    wrong += [f"{where}: processes of a killed run live on" for session in sessions if list_session(session)]
    shutil.rmtree(output)
    return kills, wrong


def draw_moment(rng: random.Random, output: Path, whole: Whole) -> Callable[[float], bool]:
    """Returns when to kill: at any second of a run, or, in three of four, soon after any share of its files is there.

    The begin of a run is mostly imports, and takes as long as the machine has else to do.
    """
    if rng.random() < BY_SECOND:
        second = rng.uniform(0, whole.seconds)
        return lambda now: now >= second
    files, delay = rng.random() * len(whole.results), rng.uniform(0, MOST_DELAY)
    there: list[float] = []

    def is_now(now: float) -> bool:
        if not there and sum(len(folders) + len(names) for _, folders, names in os.walk(output)) >= files:
            there.append(now)
        return bool(there) and now >= there[0] + delay

    return is_now


def describe_kill(found: dict[str, str], whole: dict[str, str]) -> dict[str, Any]:
    """Returns how far a killed run was."""
    results = [name for name, content in found.items() if content != "folder" and not _is_growing(name)]
    return {
        "results": len(results),
        "of": sum(content != "folder" and not _is_growing(name) for name, content in whole.items()),
        "half_written": sum(name.endswith(".tmp") for name in found),
    }


def make_mixed_folder(folder: Path, images: int, real: bool) -> dict[str, int]:
    """Makes inputs of every kind; returns how many there are of each."""
    rng = np.random.default_rng(0)
    made: Counter[str] = Counter()

    def put(kind: str, name: str, data: bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        made[kind] += 1

    for index in range(images):
        pixels = rng.integers(0, 255, (48 + index, 64, 3), np.uint8)
        format = ("png", "jpeg", "bmp", "tiff")[index % 4]
        out = BytesIO()
        Image.fromarray(pixels).save(out, format)
        put("image", f"images/{index:03}.{format}", out.getvalue())
    for index in range(max(2, images // 10)):
        put("2D NIfTI", f"flat/{index}.nii.gz", gzip.compress(make_nifti((40 + index, 24)), mtime=0))
        put("3D NIfTI", f"volumes/{index}.nii.gz", gzip.compress(make_nifti((24 + index, 24, 20)), mtime=0))
        put("DICOM still", f"stills/{index}.dcm", _with_uids(rng.integers(0, 255, (60, 50, 3), np.uint8), index))
        put("DICOM cine", f"cines/{index}.dcm", _with_uids(rng.integers(0, 255, (12, 40, 56), np.uint8), 100 + index))
        for number in range(12):
            plane = {"ImagePositionPatient": [0, 0, 2 * number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            pixels = rng.integers(0, 4000, (32, 30 + index), np.uint16)
            data = _with_uids(pixels, 1000 * (index + 1) + number, 200 + index, PixelSpacing=[1, 1], **plane)
            put("slice of a DICOM series", f"series{index}/{number:02}.dcm", data)
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for index in range(3):
            out = BytesIO()
            Image.fromarray(rng.integers(0, 255, (50, 60), np.uint8)).save(out, "png")
            packed.writestr(f"study/{index}.png", out.getvalue())
    put("archive", "study.zip", archive.getvalue())
    put("file that fails", "broken.png", (folder / "images/000.png").read_bytes()[:200])
    put("file that fails", "broken.nii.gz", (folder / "volumes/0.nii.gz").read_bytes()[:200])
    put("no image", "notes.txt", b"nothing")
    if real:
        for path in sorted((SHARED_DICOM / "us").glob("*.dcm")) if SHARED_DICOM.is_dir() else ():
            if path.stat().st_size < 300_000:
                put("real DICOM", f"real/{path.name}", path.read_bytes())
        for path in sorted((ROOT / "bundles").glob("*/sample_data/images/*"))[::4]:
            put("sample", f"samples/{path.name}", path.read_bytes())
    return dict(made)


def describe_results(output: Path) -> dict[str, str]:
    """Returns what is in an output folder: path -> hash without what two runs differ in, or that it is a folder."""
    return {
        path.relative_to(output).as_posix(): "folder" if path.is_dir() else _hash(path)
        for path in sorted(output.rglob("*"))
    }


def compare(found: dict[str, str], whole: dict[str, str], ended: bool) -> list[str]:
    """Returns what of an output folder is not as that of the run that nobody killed.

    Args:
        ended: the run has come to its end; otherwise results may be missing, and files may grow.
    """
    if not ended:
        found = {name: content for name, content in found.items() if not _is_growing(name)}
    wrong = [f"{name} is missing" for name in whole if ended and name not in found]
    wrong += [f"{name} should not be there" for name in found if name not in whole]
    return wrong + [f"{name} is another" for name in found if whole.get(name, found[name]) != found[name]]


def _is_growing(name: str) -> bool:
    return name in GROWING or name.endswith(".tmp") or name.split("/")[0] == WORK_DIR


def _hash(path: Path) -> str:
    return hashlib.sha256(_without_dates(path)).hexdigest()


def _without_dates(path: Path) -> bytes:
    if path.suffix == ".dcm":
        try:
            dataset = dcmread(path)
            dataset.walk(_remove_dates)
            out = BytesIO()
            dataset.save_as(out)
            return out.getvalue()
        except Exception as error:  # noqa: BLE001 - it is half-written, which the comparison says
            return f"cannot be read: {error}".encode()
    if path.name == "report.csv":
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            # A DICOM object holds the time at which it was written, so its hash is another.
            rows = [{**row, "seconds": "", "input_stat": ""} for row in csv.DictReader(file)]
            for row in rows:
                row["files"] = re.sub(r"(\.dcm:)[0-9a-f]+", r"\1", row["files"])
            return repr(rows).encode()
    if path.suffix == ".html":
        return re.sub(rb'"seconds": ?[0-9.e+-]+', b'"seconds": 0', path.read_bytes())
    if path.name == "report.json":
        return json.dumps({**json.loads(path.read_text()), "seconds": 0}).encode()
    return path.read_bytes()


def _remove_dates(dataset: Dataset, element: Any) -> None:
    if element.keyword in DATES:
        del dataset[element.tag]


def _with_uids(pixels: np.ndarray, number: int, series: int | None = None, **attributes: object) -> bytes:
    """A DICOM file of its own, of a series of its own unless it is given one."""
    uids = {
        "SOPInstanceUID": f"1.2.826.0.1.3680043.10.2.{number + 1}",
        "SeriesInstanceUID": f"1.2.826.0.1.{number + 1 if series is None else series}",
        "FrameOfReferenceUID": f"1.2.826.0.2.{number + 1 if series is None else series}",
        "PatientID": "soak",
    }
    if series is not None:
        uids |= {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}
    return make_dicom(pixels, **uids, **attributes)


if __name__ == "__main__":
    sys.exit(main())
