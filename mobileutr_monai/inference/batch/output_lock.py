"""The output folder of one run, which no other run may use at the same time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.report.csv import ReportTable

__all__ = ["check_changes", "lock_output", "make_unpacking_dir"]

LOCK_FILE, UNPACKING_DIR = "lock", "unpacked"


def check_changes(ledger: ReportTable, *, overwrite: bool) -> None:
    """Checks that an earlier run in the output folder had the same settings.

    Raises:
        UsageError: it had others, and is not to be overwritten.
    """
    if (changes := ledger.find_changes()) and not overwrite:
        raise UsageError(
            f"{ledger.folder.path} has the results of a run with other settings: {'; '.join(changes)}; choose another "
            "output folder, or replace them with --overwrite"
        )


@contextmanager
def lock_output(folder: OutputFolder) -> Iterator[None]:
    """Makes the output folder and keeps other runs out of it; the lock of a run that was killed is open.

    Raises:
        UsageError: the folder cannot be made or written to, or another run has it.
    """
    output_dir = folder.path
    made = not output_dir.exists()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the output folder {output_dir}: {error.strerror}") from error
    if not os.access(output_dir, os.W_OK):
        raise UsageError(f"cannot write to the output folder {output_dir}; choose another one")
    folder.work.mkdir(exist_ok=True)
    lock = FileLock(folder.work / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            f"another run is writing to {output_dir}; wait until it has ended, or choose another folder"
        ) from None
    try:
        yield
    except UsageError:
        if made:
            folder.close()
        raise
    finally:
        lock.release()


@contextmanager
def make_unpacking_dir(folder: OutputFolder) -> Iterator[Path]:
    """Has a folder for what is in archives, empty also after a run that was killed."""
    unpacking = folder.work / UNPACKING_DIR
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        yield unpacking
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
