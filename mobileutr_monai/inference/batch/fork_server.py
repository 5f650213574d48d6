"""The server that worker processes are forked from: started as early as may be, it imports while its parent does."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

__all__ = ["start_fork_server"]


def start_fork_server() -> None:
    """Begins to import what the processes need, in the background; does nothing where there is no fork server."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    multiprocessing.set_forkserver_preload(["mobileutr_monai.inference.batch.runner"])
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"  # of MONAI's imports: optional packages that this project does not use
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
