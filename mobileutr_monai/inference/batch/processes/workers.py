"""Calls in processes of their own: one that crashes, hangs or takes too much memory costs that call alone.

The processes come from multiprocessing's fork server, which imports MONAI once, so that a process that was lost is
replaced at once. concurrent.futures gives up all its calls when a process dies and has no time limit for a call;
torch's DataLoader ends when a worker does.
"""

from __future__ import annotations

import faulthandler
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor

from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.processes.fork_server import start_fork_server

if sys.platform != "win32":
    import resource

__all__ = ["WorkerError", "WorkerPool", "read_total_memory"]

In = TypeVar("In")
Out = TypeVar("Out")

START_SECONDS = 120
"""How long a process may take to begin, which imports MONAI where there is no fork server."""

ORPHAN_SECONDS = 10
"""How much longer than the time limit a call may go on in a process whose parent is gone."""


class WorkerError(Exception):
    """No worker process can be started."""


class WorkerPool:
    """Threads that each have a process of their own in which an object's methods are called.

    Args:
        target: picklable object whose methods are called.
        workers: how many; 0 calls in this process, without protection.
        time_limit: seconds that a call, or the wait for the next item of a stream, may take.
        memory_limit: bytes that a process may take on top of what it starts with; not held on Windows and macOS.

    Raises:
        TypeError: the target cannot be sent to another process.
    """

    def __init__(self, target: object, workers: int, time_limit: float, memory_limit: int) -> None:
        self._target, self._workers = target, workers
        self._time_limit, self._memory_limit = time_limit, memory_limit
        self._own = threading.local()
        self._processes: list[_Worker] = []
        self._threads = ThreadPoolExecutor(max(1, workers))
        if workers:
            start_fork_server()
            self._pickled = _pickle_target(target)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.retire()
        self._threads.shutdown()
        for process in self._processes:
            process.kill()

    def submit(self, function: Callable[[In], Out], argument: In) -> Future[Out]:
        """Runs a function in a thread, where ``call`` uses the thread's process; at once without workers."""
        if self._workers:
            return self._threads.submit(function, argument)
        future: Future[Out] = Future()
        future.set_result(function(argument))
        return future

    def call(self, method: str, *arguments: object) -> Any:
        """Returns what a method of the target returns.

        Raises:
            CaseError: the process crashed or took too long.
            WorkerError: no process can be started.
        """
        if not self._workers:
            return getattr(self._target, method)(*arguments)
        return self._process().call(method, *arguments)

    def stream(self, method: str, *arguments: object) -> Generator[Any, None, None]:
        """Yields what a method of the target yields, as it does.

        Raises:
            CaseError: the process crashed or took too long for an item.
            WorkerError: no process can be started.
        """
        if not self._workers:
            yield from getattr(self._target, method)(*arguments)
        else:
            yield from self._process().stream(method, *arguments)

    def _process(self) -> _Worker:
        if not hasattr(self._own, "process"):
            self._own.process = _Worker(self._pickled, self._time_limit, self._memory_limit)
            self._processes.append(self._own.process)
        process: _Worker = self._own.process
        return process


class _Worker:
    """One process, begun when it is needed and again when it was lost."""

    def __init__(self, target: bytes, time_limit: float, memory_limit: int) -> None:
        self._target, self._time_limit, self._memory_limit = target, time_limit, memory_limit
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_answering = False
        self._retired = False

    def call(self, method: str, *arguments: object) -> Any:
        """Returns the method's value."""
        results = self.stream(method, *arguments)
        while True:
            try:
                next(results)
            except StopIteration as end:
                return end.value

    def stream(self, method: str, *arguments: object) -> Generator[Any, None, Any]:
        """Yields the method's items; returns its value."""
        if self._is_answering:  # a stream that was left, and is not closed yet: what it still sends is for nobody
            self.kill()
        connection = self._connect()
        self._is_answering = True
        ended = False
        try:
            _send(connection, (method, arguments))
            while True:
                if not connection.poll(self._time_limit):
                    raise CaseError(Reason.TIME, f"more than {self._time_limit:g} s")
                kind, value = _receive(connection)
                ended = kind != "item"
                if kind == "error":
                    raise value
                if kind == "end":
                    return value
                yield value
        except (EOFError, ConnectionError) as error:
            if self._retired:
                raise CancelledError from error
            raise CaseError(Reason.CRASH, f"{self._how_it_ended()} while it worked on this file") from error
        finally:
            if connection is self._connection:  # otherwise another call has begun, in another process
                self._is_answering = False
                if not ended:
                    self.kill()

    def retire(self) -> None:
        """Ends the process for good, from another thread than the one that calls."""
        self._retired = True
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """Ends the process; the next call begins another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        self._is_answering = False

    def _connect(self) -> Connection:
        if self._process is not None and self._process.is_alive() and self._connection is not None:
            return self._connection
        self.kill()
        if self._retired:
            raise CancelledError
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        ours: Connection
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._target, self._time_limit, self._memory_limit), daemon=True
        )
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self._process, self._connection = process, ours
        try:
            started = ours.poll(START_SECONDS) and ours.recv_bytes() == b"ready"
        except (EOFError, ConnectionError):
            started = False
        if not started:
            how = self._how_it_ended()
            self.kill()
            raise WorkerError(
                f"a worker process could not start ({how}): a script that runs this needs "
                "`if __name__ == '__main__':`; or set workers to 0, which reads in this process"
            )
        return ours

    def _how_it_ended(self) -> str:
        if self._process is None:
            return "it was ended"
        self._process.join(1)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"the process died of {signal.Signals(-code).name}"
        return f"the process ended with code {code}"


def read_total_memory() -> int:
    """Returns the bytes of memory of the machine or its control group; a very large number where neither is said."""
    sizes = []
    if sys.platform != "win32":
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            sizes.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no control group, or "max"
            continue
    return min(sizes, default=2**62)


def _serve(connection: Connection, target: bytes, time_limit: float, memory_limit: int) -> None:
    """Answers the calls of one parent until it is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes itself
    # What decoders print may be of a patient, and belongs to no case.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    torch.set_num_threads(1)
    worker = pickle.loads(target)  # noqa: S301 - of the parent
    _limit_memory(memory_limit)
    connection.send_bytes(b"ready")
    while True:
        try:
            method, arguments = _receive(connection)
            answers = _answer(getattr(worker, method), arguments)
            while True:
                # The parent's own limit comes first; this one ends a call whose parent was killed and whose decoder
                # lets no other thread run.
                faulthandler.dump_traceback_later(time_limit + ORPHAN_SECONDS, exit=True)
                answer = next(answers, None)
                faulthandler.cancel_dump_traceback_later()
                if answer is None:
                    break
                _send(connection, answer)
        except (EOFError, ConnectionError):
            return


def _answer(method: Callable[..., Any], arguments: tuple[object, ...]) -> Iterator[tuple[str, Any]]:
    try:
        value = method(*arguments)
        if isinstance(value, Iterator):
            for item in value:
                yield "item", item
            value = None
        yield "end", value
    except Exception as error:  # noqa: BLE001 - it is raised again by the parent
        yield "error", _as_picklable(error)


def _as_picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - of this process
    except Exception:  # noqa: BLE001 - an exception may have arguments of any kind
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """Ends this process when its parent is killed: it would write at the same time as the resumed run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _limit_memory(limit: int) -> None:
    """Has allocations fail that go beyond ``limit`` bytes more than there are now."""
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = pages * resource.getpagesize() + limit
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


class _Pickler(pickle.Pickler):
    """Hands on tensors as arrays, whose bytes pickle leaves out, so that a volume is not copied."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) not in (torch.Tensor, MetaTensor) or value.dtype is torch.bfloat16:
            return NotImplemented
        meta = dict(value.__dict__) if isinstance(value, MetaTensor) else None
        plain = value.as_tensor() if isinstance(value, MetaTensor) else value
        return _rebuild_tensor, (plain.detach().contiguous().numpy(), meta)


def _rebuild_tensor(array: np.ndarray, meta: dict[str, Any] | None) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if meta is None:
        return tensor
    result = tensor.as_subclass(MetaTensor)
    result.__dict__.update(meta)
    return result


def _pickle_target(target: object) -> bytes:
    try:
        return pickle.dumps(target)
    except Exception as error:
        raise TypeError(f"cannot be sent to a worker process: {error}") from error


def _send(connection: Connection, message: object) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = io.BytesIO()
    _Pickler(head, protocol=5, buffer_callback=buffers.append).dump(message)
    raw = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps([len(view) for view in raw]))
    connection.send_bytes(head.getbuffer())
    for view in raw:
        _send_raw(connection, view)


def _send_raw(connection: Connection, view: memoryview) -> None:
    if sys.platform == "win32":
        connection.send_bytes(view)
        return
    while view:
        view = view[os.write(connection.fileno(), view) :]


def _receive_raw(connection: Connection, size: int) -> bytearray:
    """Returns what ``_send_raw`` sent, read where it stays; ``Connection`` would copy it three times on its way."""
    buffer = bytearray(size)
    if sys.platform == "win32":
        connection.recv_bytes_into(buffer)
        return buffer
    left = memoryview(buffer)
    while left:
        count = os.readv(connection.fileno(), [left])
        if not count:
            raise EOFError
        left = left[count:]
    return buffer


def _receive(connection: Connection) -> Any:
    sizes: list[int] = pickle.loads(connection.recv_bytes())  # noqa: S301 - of the other end, which is this program
    head = connection.recv_bytes()
    buffers = [_receive_raw(connection, size) for size in sizes]
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - as above
