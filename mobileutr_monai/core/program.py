"""What a program does at its start and its end: a name for its user, and errors in one line."""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import TracebackType

__all__ = ["explain_errors", "name_user"]

_PACKAGE = Path(__file__).resolve().parents[1]
_VARIABLE = "MOBILEUTR_TRACEBACK"


def name_user() -> None:
    """Gives the user a name and a home where the system has none: MONAI and torch fail without them.

    Call it before they are imported; processes started later inherit both.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"user{os.getuid()}"
    try:
        Path.home()
    except (KeyError, RuntimeError):
        os.environ["HOME"] = tempfile.gettempdir()


def explain_errors() -> None:
    """Has a program that ends with an error of this package print its one line instead of MONAI's traceback.

    That is a ``ValueError`` or ``FileNotFoundError``, which say what is wrong with which file and what to do. All other
    errors, and all if the environment variable MOBILEUTR_TRACEBACK is set, are printed as before.
    """
    if sys.excepthook is not _print_line:
        sys.excepthook = _print_line


def _print_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    first = error
    while first.__cause__ is not None:  # MONAI wraps an error of a transform twice or more
        first = first.__cause__
    frames = traceback.extract_tb(first.__traceback__)
    is_ours = bool(frames) and _PACKAGE in Path(frames[-1].filename).resolve().parents
    if is_ours and isinstance(first, (ValueError, FileNotFoundError)) and not os.environ.get(_VARIABLE):
        print(f"mobileutr: error: {first}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # torch's threads that were reading at that moment would abort the program on its way out
    else:
        sys.__excepthook__(kind, error, trace)
