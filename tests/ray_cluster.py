"""A Ray cluster of several nodes on this machine, each a ``ray start`` of its own that can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 90
OBJECT_STORE = 80 * 2**20


class Node:
    """One ``ray start --block``: a raylet with its workers; the head has the cluster's state, too."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def find(self, name: str) -> list[psutil.Process]:
        """Returns the node's processes with a name in their command."""
        try:
            every = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = []
        for process in every:
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def actors(self) -> list[psutil.Process]:
        """Returns the processes of actors."""
        return self.find("ray::CaseActor")

    def kill(self) -> None:
        """Kills all of it at once, as a power cut does."""
        try:
            top = psutil.Process(self.process.pid)
            every = [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in every:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        self.process.wait(30)


class Cluster:
    """A head, whose node has a CPU for an actor, and further nodes."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.folder = folder
        self.log = (folder / "ray.log").open("ab")
        head = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={folder / 'ray'}"]
        self.nodes = [self._start(*head)]

    def add(self, prefix: Sequence[str] = ()) -> Node:
        """Starts a further node.

        Args:
            prefix: a command that becomes the one that follows it.
        """
        node = self._start(f"--address={self.address}", prefix=prefix)
        self.nodes.append(node)
        return node

    def _start(self, *options: str, prefix: Sequence[str] = ()) -> Node:
        command = [
            *prefix,
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--block",
            "--disable-usage-stats",
            "--num-cpus=1",
        ]
        command += ["--node-ip-address=127.0.0.1", f"--object-store-memory={OBJECT_STORE}", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_health_check_period_ms": "500"}
        # Ray's workers have a niceness of 15: beside other programs of a busy machine they hardly run.
        environment |= {"RAY_health_check_failure_threshold": "4", "RAY_worker_niceness": "0"}
        process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment, start_new_session=True)
        node = Node(process)
        end = time.monotonic() + START_SECONDS
        while not node.find("raylet/raylet"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no Ray node: {(self.folder / 'ray.log').read_text()[-2000:]}")
            time.sleep(0.2)
        if "--head" in options:
            self._wait_for_port(end)
        return node

    def _wait_for_port(self, end: float) -> None:
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        raise RuntimeError("the head of the cluster does not answer")

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.kill()
        self.log.close()


@contextmanager
def run_cluster() -> Iterator[Cluster]:
    """Has a cluster of two nodes; its folder has a short name, since that of a socket has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.add()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
