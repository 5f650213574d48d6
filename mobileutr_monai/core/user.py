"""A user id without a name, as a container started with ``--user`` has it."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

__all__ = ["name_user"]


def name_user() -> None:
    """Gives the user a name and a home where the system knows none: MONAI and torch fail without.

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
