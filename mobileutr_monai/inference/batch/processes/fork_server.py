"""The server that worker processes are forked from: started as early as may be, it imports while its parent does."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver

from mobileutr_monai.inference.batch.processes.light_imports import LEFT_OUT

__all__ = ["start_fork_server"]

_PACKAGE = "mobileutr_monai.inference.batch"


def start_fork_server(left_out: Sequence[str] = ()) -> None:
    """Begins to import what the processes need, in the background; does nothing where there is no fork server.

    Args:
        left_out: packages that need not be imported, of ``find_unused``.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    multiprocessing.set_forkserver_preload([f"{_PACKAGE}.processes.light_imports", f"{_PACKAGE}.runner"])
    # Warnings are those of MONAI's imports: optional packages that this project does not use.
    with _environment({"PYTHONWARNINGS": "ignore"} | ({LEFT_OUT: ",".join(left_out)} if left_out else {})):
        forkserver.ensure_running()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
