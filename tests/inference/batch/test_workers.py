"""Calls in other processes: what they give, and what a crash, a hang or too much memory costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import Target
from monai.data import MetaTensor

from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.processes.workers import WorkerPool

MEMORY = 2**30


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(Target(), 1, time_limit=2, memory_limit=MEMORY) as pool:
        yield pool


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_call_runs_in_another_process_that_stays(pool):
    first = pool.call("pid")
    assert first != os.getpid()
    assert pool.call("pid") == first


@pytest.mark.parametrize(
    ("deed", "reason", "words"), [("crash", Reason.CRASH, "SIGSEGV"), ("hang", Reason.TIME, "more than 2 s")]
)
def test_a_lost_process_costs_its_call_only(pool, capfd, deed, reason, words):
    first = pool.call("pid")
    with pytest.raises(CaseError, match=words) as error:
        pool.call("do", deed)
    assert error.value.reason is reason
    assert pool.call("pid") not in (first, os.getpid())
    assert "last words" not in "".join(capfd.readouterr())


def test_too_much_memory_is_an_error_of_the_call(pool):
    first = pool.call("pid")
    with pytest.raises(MemoryError):
        pool.call("do", "swell")
    assert pool.call("pid") == first


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_method_is_raised_as_it_is(workers):
    with WorkerPool(Target(), workers, 2, MEMORY) as pool, pytest.raises(FileNotFoundError, match="gone"):
        pool.call("fail", FileNotFoundError("gone"))


def test_an_error_that_cannot_be_sent_keeps_its_words(pool):
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        pool.call("fail_oddly")
    assert pool.call("add", 1, 2) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_comes_item_by_item_and_ends_with_its_error(workers):
    with WorkerPool(Target(), workers, 2, MEMORY) as pool:
        assert list(pool.stream("count", 3)) == [0, 1, 2]
        items = pool.stream("count", 2, ValueError("the third frame"))
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(ValueError, match="the third frame"):
            next(items)


def test_a_stream_that_is_left_does_not_answer_the_next_call(pool):
    items = pool.stream("count", 1000)
    next(items)
    items.close()
    assert pool.call("add", 1, 1) == 2


def test_a_stream_that_is_left_unclosed_does_not_answer_the_next_call(pool):
    left = pool.stream("count", 1000)
    next(left)
    assert pool.call("add", 1, 1) == 2
    second = pool.call("pid")
    left.close()  # as late as the garbage is collected
    assert pool.call("pid") == second


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bfloat16])
def test_tensors_arrive_as_they_were(pool, dtype):
    image = MetaTensor(torch.arange(24).reshape(1, 4, 6).to(dtype), affine=torch.diag(torch.tensor([2.0, 3, 1, 1])))
    image.applied_operations.append({"class": "Resize", "orig_size": (8, 12)})
    image.meta["spacing"] = np.array([2.0, 3.0])
    result = pool.call("add", {"image": image}["image"], 0)
    assert type(result) is MetaTensor
    assert result.dtype is dtype
    assert torch.equal(result.as_tensor(), image.as_tensor())
    assert torch.equal(result.affine, image.affine)
    assert result.applied_operations == image.applied_operations
    assert np.array_equal(result.meta["spacing"], image.meta["spacing"])
    result += 1  # what arrives can be written to


def test_a_view_and_an_empty_array_arrive(pool):
    columns = np.arange(12).reshape(3, 4)[:, ::2]
    assert np.array_equal(pool.call("add", columns, 1), columns + 1)
    assert pool.call("add", np.zeros((0, 3)), 1).shape == (0, 3)


def test_no_process_is_left_behind():
    with WorkerPool(Target(), 2, 2, MEMORY) as pool:
        pids = {pool.submit(lambda _: pool.call("pid"), None).result() for _ in range(4)}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does this on Linux")
def test_a_killed_program_takes_its_processes_with_it():
    program = """if __name__ == "__main__":
    from hostile import Target
    from mobileutr_monai.inference.batch.processes.workers import WorkerPool
    with WorkerPool(Target(), 1, 600, 2**30) as pool:
        print(pool.call("pid"), flush=True)
        pool.call("do", "hang")
"""
    folders = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": folders, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as process:
        worker = int(process.stdout.readline())
        time.sleep(0.5)  # it hangs by now, and does not wait for a message
        process.kill()
    deadline = time.monotonic() + 10
    while is_running(worker):
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)


def test_a_target_that_cannot_be_sent_says_so():
    target = Target()
    target.deed = lambda: None
    with pytest.raises(TypeError, match="cannot be sent to a worker process"):
        WorkerPool(target, 1, 2, MEMORY)
    assert WorkerPool(target, 0, 2, MEMORY).call("add", 1, 2) == 3
