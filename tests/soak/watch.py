"""A command as a user runs it, watched from outside: its memory, its time, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.soak.seeds import ROOT

__all__ = [
    "BUNDLES",
    "Watched",
    "describe_machine",
    "list_session",
    "list_tree",
    "predict_command",
    "read_results",
    "run_watched",
    "write_results",
]

BUNDLES = {2: "breast_ultrasound_segmentation", 3: "hippocampus_mri_segmentation"}
SAMPLE_SECONDS, KILL_SECONDS = 0.2, 0.005
SAMPLE_SHARE = 0.05
"""Of the time that looking at the memory may take: the kernel walks through all pages for it."""
ORPHAN_SECONDS = 60.0
"""What the end of a process that has imported torch may take on a busy machine."""


@dataclass(frozen=True)
class Watched:
    """What became of a command.

    Attributes:
        returncode: negative if a signal ended it, None if the watchdog did.
        peak_bytes: most memory of it and its children at once, as PSS: pages that are shared count once.
        orphans: commands of its session that outlived it by ``ORPHAN_SECONDS``, unless the program alone was killed.
        session: its number, for ``list_session``.
    """

    returncode: int | None
    stderr: str
    seconds: float
    peak_bytes: int
    orphans: list[str]
    session: int


def predict_command(dims: int, source: Path, output: Path, *options: str) -> tuple[list[str], Path]:
    """Returns the command of batch inference and the folder to run it in.

    The network sees small images and coarse volumes, which changes what is found in them and nothing about their files.
    """
    config = ["--config_file", "configs/inference.json", "--any_modality", "True"]
    small = ["--image_size", "[32,32]"] if dims == 2 else ["--spacing", "[4,4,4]"]
    folders = ["--dataset_dir", str(source), "--output_dir", str(output)]
    program = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *config, *small, *folders, *options]
    return program, ROOT / "bundles" / BUNDLES[dims]


def run_watched(
    command: Sequence[str],
    folder: Path,
    seconds: float,
    kill_when: Callable[[float], bool] | None = None,
    kill_group: bool = True,
    temporary: Path | None = None,
) -> Watched:
    """Runs a command in a session of its own.

    Args:
        seconds: after which it hangs and is killed.
        kill_when: says, of the seconds since its begin, whether it shall be killed now; asked every few milliseconds.
        kill_group: kill all of its processes, as a power cut would; otherwise the program alone.
        temporary: folder for temporary files.
    """
    places = {} if temporary is None else {"TMPDIR": str(temporary)}
    started = time.monotonic()
    peak = 0
    hung = False
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **places},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        ) as process,
    ):
        while process.poll() is None:
            now = time.monotonic() - started
            if kill_when is not None and kill_when(now):
                (os.killpg if kill_group else os.kill)(process.pid, signal.SIGKILL)
            elif now > seconds:
                hung = True
                os.killpg(process.pid, signal.SIGKILL)
            elif kill_when is None:
                peak = max(peak, sum(_memory(member) for member in list_session(process.pid)))
            sampled = time.monotonic() - started - now
            rest = max(SAMPLE_SECONDS, sampled / SAMPLE_SHARE)
            with suppress(subprocess.TimeoutExpired):
                process.wait(rest if kill_when is None else KILL_SECONDS)
        took = time.monotonic() - started
        orphans = _wait_for_end(process.pid, ORPHAN_SECONDS) if kill_group else []
        left = [_command(member) for member in orphans]
        for member in orphans:
            os.kill(member, signal.SIGKILL)
        stderr.seek(0)
        said = stderr.read().decode(errors="backslashreplace")
    return Watched(None if hung else process.returncode, said, took, peak, left, process.pid)


def list_tree(folder: Path, without: Sequence[Path] = ()) -> dict[str, str]:
    """Returns what is in a folder: path -> hash of the content, for files and links."""
    tree = {}
    for path in sorted(folder.rglob("*")):
        if any(path == other or other in path.parents for other in without):
            continue
        name = os.fsencode(path.relative_to(folder)).decode(errors="backslashreplace")
        if path.is_symlink():
            tree[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            with path.open("rb") as file:
                tree[name] = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            tree[name] = "folder or other"
    return tree


def list_session(leader: int) -> list[int]:
    """Returns the processes of a session, by its first one's number."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            members.append(int(entry.name))
    return members


def describe_machine() -> dict[str, Any]:
    """Returns what a result was measured on."""
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "python": platform.python_version(),
        "torch": version("torch"),
        "shared_with_other_jobs": os.getloadavg()[0] > 1.5,
    }


def read_results(path: Path | None, **options: object) -> dict[str, Any]:
    """Returns what an earlier call with the same options wrote, from which this one resumes; nothing if there is none.

    Raises:
        SystemExit: it was written with other options.
    """
    if path is None or not path.is_file():
        return {}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if results["options"] != options:
        raise SystemExit(f"error: {path} is of {results['options']}, not {options}; remove it, or name another file")
    return results


def write_results(path: Path | None, results: dict[str, Any]) -> None:
    """Writes results as JSON, or to the screen."""
    text = json.dumps(results, indent=1) + "\n"
    if path is None:
        print(text)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:100]
    except OSError:
        return "gone by now"


def _memory(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _wait_for_end(leader: int, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while (members := list_session(leader)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return members
