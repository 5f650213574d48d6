"""Which cluster a run uses."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any

from mobileutr_monai.inference.batch.errors import UsageError

__all__ = ["ClusterOptions", "connect"]

CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """A Ray cluster, or none.

    Attributes:
        address: ``auto`` for the cluster that this machine belongs to, HOST:PORT, or ``ray://HOST:PORT``; empty: no
            cluster.
        actors: copies of the bundle that segment at the same time; 0: one per GPU, or per CPU where there is none.
    """

    address: str = ""
    actors: int = 0

    def check(self) -> None:
        """Connects to the cluster, if there is to be one, before anything is written.

        Raises:
            UsageError: Ray is not installed, or there is no such cluster.
        """
        if self.is_needed:
            connect(self.address)

    @property
    def is_needed(self) -> bool:
        """Whether a run uses a cluster."""
        return bool(self.address)


def connect(address: str) -> Any:
    """Returns Ray's module, connected to a cluster; once more if it is already.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError:
        raise UsageError('--ray needs Ray: pip install "mobileutr-monai[ray]"') from None
    _check_port(address)
    try:
        ray.init(
            address=address,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except Exception as error:
        what = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"there is no Ray cluster at {address!r} ({what}); start one with: ray start --head --disable-usage-stats"
        ) from error
    return ray


def _check_port(address: str) -> None:
    """Checks that something listens at HOST:PORT; Ray itself tries for minutes.

    Raises:
        UsageError: nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError):
        raise UsageError(
            f"there is no Ray cluster at {address!r}: nothing answers there; start one with: ray start --head "
            "--disable-usage-stats"
        ) from None
