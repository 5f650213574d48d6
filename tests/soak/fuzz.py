"""Batch inference over hostile files, with both kinds of bundle, checked against what it promises.

    python -m tests.soak.fuzz --files 10000 --seed 0 --output tests/soak/results/fuzz.json

Of each run: exit code 0 or 1, no traceback, no hang; a row for every input; a reason and one line for every failure,
which says what is wrong with the file, not with the network or the output; a result of the input's size for every
success; nothing written outside of the output folder, nothing half-written left; the memory of all processes under
``MEMORY_BOUND``.
"""

from __future__ import annotations

import argparse
import csv
import errno
import os
import re
import shutil
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
from PIL import Image
from pydicom import dcmread

from mobileutr_monai.readers.nifti_file import read_nifti_header
from tests.soak.cases_by_hand import make_traps
from tests.soak.corpus import make_corpus
from tests.soak.seeds import SHARED_DICOM, Seed, find_seeds
from tests.soak.watch import (
    BUNDLES,
    describe_machine,
    list_tree,
    predict_command,
    read_results,
    run_watched,
    write_results,
)

CASE_GIB, CASE_SECONDS = 2, 20
"""Limits of a case, given to the runs: hostile files need no more, and a hang shall cost little."""
MIB = 2**20
MEMORY_BOUND = 7 * 2**30
"""Of a run with two workers: twice ``CASE_GIB``, and what MONAI and torch take in four processes."""
CHUNK = 1000
NOT_THE_FILES = ("network failed", "output cannot be written")
"""Reasons that no file may be the cause of, unless results cannot have its size or a name so long."""
NO_SUCH_RESULT = (os.strerror(errno.ENAMETOOLONG), "a side that NIfTI can hold")
UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
SECONDS_PER_FILE, SECONDS_PER_RUN = 3, 900
_GUARDED = re.compile(r"^'(?='*[=+\-@\t\r])")
"""The apostrophe before a cell that a spreadsheet would take for a formula."""


@dataclass
class Tally:
    """What runs did, and what they should not have done.

    Attributes:
        statuses, reasons: how many cases have each.
        longest_case_seconds: of the report.
        peak_pss_mib: of a run with all its processes.
    """

    inputs: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    longest_case_seconds: float = 0.0
    peak_pss_mib: int = 0
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.statuses, self.reasons = Counter(self.statuses), Counter(self.reasons)

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.statuses += other.statuses
        self.reasons += other.reasons
        self.longest_case_seconds = max(self.longest_case_seconds, other.longest_case_seconds)
        self.peak_pss_mib = max(self.peak_pss_mib, other.peak_pss_mib)
        self.violations += other.violations

    def describe(self) -> dict[str, Any]:
        ordered = {name: dict(getattr(self, name).most_common()) for name in ("statuses", "reasons")}
        return asdict(self) | ordered


def main() -> int:
    parser = argparse.ArgumentParser(description="Run batch inference over hostile files.")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then stop; call again to resume")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="files of a run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--no-real", action="store_true", help="mutate synthetic files only")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for files whose runs broke a promise")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("first", "seed", "no_real")}
    earlier = read_results(arguments.output, **options)
    seeds = find_seeds(real=not arguments.no_real)
    tallies = {dims: Tally(**earlier.get("runs", {}).get(f"{dims}D", {})) for dims in BUNDLES}
    started = time.monotonic()
    done = earlier.get("files", 0)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        while done < arguments.files and time.monotonic() - started < arguments.seconds:
            ends = [*range(done, arguments.files, arguments.chunk), arguments.files][: arguments.jobs + 1]
            work = [
                pool.submit(check_chunk, range(*pair), arguments.first, arguments.seed, seeds, arguments.keep)
                for pair in pairwise(ends)
            ]
            for chunk in work:
                for dims, tally in chunk.result().items():
                    tallies[dims].add(tally)
            done = ends[-1]
            print(f"{done} files, {time.monotonic() - started:.0f} s: {describe(tallies)}", file=sys.stderr, flush=True)
    results = {
        "command": f"python -m tests.soak.fuzz --files {arguments.files} --seed {arguments.seed}",
        "options": options,
        "files": done,
        "seeds": len(seeds),
        "with_shared_dicom": SHARED_DICOM.is_dir() and not arguments.no_real,
        "seconds": round(time.monotonic() - started) + earlier.get("seconds", 0),
        "limits_of_a_case": {"memory_gib": CASE_GIB, "seconds": CASE_SECONDS},
        "memory_bound_mib": MEMORY_BOUND // MIB,
        "runs": {f"{dims}D": tally.describe() for dims, tally in tallies.items()},
        "machine": describe_machine(),
    }
    write_results(arguments.output, results)
    return 1 if any(tally.violations for tally in tallies.values()) else 0


def check_chunk(numbers: range, first: int, seed: int, seeds: list[Seed], keep: Path | None = None) -> dict[int, Tally]:
    """Runs both bundles over some files, the first ones among traps."""
    tallies = {dims: Tally() for dims in BUNDLES}
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        work = Path(folder)
        how = make_corpus(work / "in", len(numbers), seed, first + numbers.start, seeds)
        if numbers.start == 0:
            make_traps(work / "in" / "traps")
        for dims, tally in tallies.items():
            check_run(work, dims, how, tally, keep)
    return tallies


def describe(tallies: dict[int, Tally]) -> str:
    return "; ".join(
        f"{dims}D {dict(tally.statuses)}, {tally.peak_pss_mib} MiB, {len(tally.violations)} violations"
        for dims, tally in tallies.items()
    )


def check_run(work: Path, dims: int, how: dict[str, str], tally: Tally, keep: Path | None = None) -> None:
    """Runs one bundle over ``work/in`` and adds what it did to the tally."""
    source, output, temporary = work / "in", work / f"out{dims}", work / "tmp"
    temporary.mkdir(exist_ok=True)
    before = list_tree(work)
    limits = ["--time_limit", str(CASE_SECONDS), "--memory_limit", str(CASE_GIB)]
    command, folder = predict_command(dims, source, output, *limits)
    watched = run_watched(command, folder, SECONDS_PER_RUN + SECONDS_PER_FILE * len(how), temporary=temporary)
    wrong: list[tuple[str, str]] = []  # what, and the input that it is about
    if watched.returncode not in (0, 1):
        end = "hung" if watched.returncode is None else f"ended with {watched.returncode}"
        wrong.append((f"the run {end}: {_last_line(watched.stderr)}", ""))
    if "Traceback (most recent call last)" in watched.stderr:
        wrong.append((f"traceback: {_last_line(watched.stderr)}", ""))
    if watched.peak_bytes > MEMORY_BOUND:
        wrong.append((f"{watched.peak_bytes // MIB} MiB of memory", ""))
    if watched.orphans:
        wrong.append((f"processes left: {'; '.join(watched.orphans)}", ""))
    after = list_tree(work, without=[output])
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    wrong += [(f"changed outside of the output: {name}", "") for name in changed[:5]]
    wrong += [(f"half-written: {path.name}", "") for path in output.rglob("*.tmp")]
    rows = read_report(output / "report.csv")
    names = list_inputs(source)
    tally.inputs += len(names)
    for name in names:
        said = name_in_report(name)
        mine = rows.get(said) or [row for case in rows if case.startswith(f"{said}/") for row in rows[case]]
        if not mine:
            wrong.append(("no row", name))
            continue
        for row in mine:
            wrong += [(problem, name) for problem in check_row(row, source / name, output)]
    for case in rows.values():
        tally.statuses[case[0]["status"]] += 1
        tally.longest_case_seconds = max(tally.longest_case_seconds, float(case[0]["seconds"]))
        if case[0]["status"] != "ok":
            tally.reasons[f"{case[0]['status']}: {case[0]['reason']}"] += 1
    tally.peak_pss_mib = max(tally.peak_pss_mib, watched.peak_bytes // MIB)
    for what, name in wrong:
        made = how.get(Path(name).name, "")
        tally.violations.append(f"{what}: {_printable(name)} ({made})" if name else what)
        if keep is not None and name:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, keep / Path(name).name)
    if wrong and keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"stderr_{dims}_{len(tally.violations)}.txt").write_text(watched.stderr[-20_000:])
    shutil.rmtree(output, ignore_errors=True)


def list_inputs(source: Path) -> list[str]:
    """Returns the files that the run must speak of, relative to the folder: regular ones, not hidden."""
    names = []
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            names.append(relative.as_posix())
    return sorted(names)


def name_in_report(name: str) -> str:
    """Returns a name as the report has it: in one line, in characters that UTF-8 has."""
    return "".join(
        c.encode("unicode_escape").decode() if c == "\\" or unicodedata.category(c) in UNPRINTABLE else c for c in name
    )


def read_report(path: Path) -> dict[str, list[dict[str, str]]]:
    """Returns the rows of each case."""
    rows: dict[str, list[dict[str, str]]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            try:
                for cells in csv.DictReader(file):
                    row = {key: _GUARDED.sub("", cell) for key, cell in cells.items()}
                    rows.setdefault(row["case"], []).append(row)
            except csv.Error as error:
                print(f"{path}: {error}", file=sys.stderr)  # the cases behind it have no row
    return rows


def check_row(row: dict[str, str], source: Path, output: Path) -> list[str]:
    """Returns what is wrong with a row of the report on a file."""
    if row["status"] == "skipped":
        return [] if row["reason"] else ["skipped without a reason"]
    if row["status"] == "failed":
        wrong = [] if row["reason"] else ["failed without a reason"]
        if len(row["detail"].splitlines()) > 1:
            wrong.append("a detail of several lines")
        if not row["detail"]:
            wrong.append(f"failed without a detail: {row['reason']}")
        if row["reason"] in NOT_THE_FILES and not any(words in row["detail"] for words in NO_SUCH_RESULT):
            wrong.append(f"{row['reason']}: {row['detail']}")
        return wrong
    try:
        sizes = read_output_size(output / row["output"]), read_input_size(source, row["kind"])
    except Exception as error:  # noqa: BLE001 - whatever a result cannot be opened for
        return [f"the result cannot be opened: {type(error).__name__}: {error}"]
    return [] if sizes[1] is None or sizes[0] == sizes[1] else [f"result of {sizes[0]}, input of {sizes[1]}"]


def read_output_size(path: Path) -> tuple[int, ...]:
    """Returns (rows, columns) of a result, or (x, y, z)."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            return image.height, image.width
    if path.suffix == ".dcm":
        dataset = dcmread(path)
        assert dataset.pixel_array.size
        return int(dataset.Rows), int(dataset.Columns)
    image = nib.load(path)
    assert image.get_fdata().size
    return image.shape


def read_input_size(path: Path, kind: str) -> tuple[int, ...] | None:
    """Returns what ``read_output_size`` should; None for members of archives."""
    if path.suffix == ".zip":
        return None
    if kind == "image":
        with Image.open(path) as image:
            return image.height, image.width
    if kind == "NIfTI":
        shape = read_nifti_header(path).get_data_shape()  # nibabel goes by the name, and a .nii may be compressed
        while len(shape) > 3 and shape[-1] == 1:  # axes of one place behind the volume's, which results leave out
            shape = shape[:-1]
        return shape
    dataset = dcmread(path, stop_before_pixels=True, force=True)
    if kind == "DICOM cine":
        return int(dataset.Columns), int(dataset.Rows), int(dataset.NumberOfFrames)
    return int(dataset.Rows), int(dataset.Columns)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace").encode("unicode_escape").decode()


if __name__ == "__main__":
    sys.exit(main())
