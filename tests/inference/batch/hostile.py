"""Transforms that do to a process what a hostile file may do to a decoder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ImageMetaKey


def crash(_: Path) -> None:
    print("a decoder's last words")
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(_: Path) -> None:
    time.sleep(600)


def swell(_: Path) -> None:
    np.ones(2**34, np.uint8)


def change(path: Path) -> None:
    os.utime(path, (0, 0))


def vanish(path: Path) -> None:
    path.unlink()


DEEDS: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (crash, hang, swell, change, vanish)}


class DoWhatItsNameSays:
    """Does to ``crash.jpg`` what the name says; other files pass."""

    def __call__(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        path = Path(data["image"].meta[ImageMetaKey.FILENAME_OR_OBJ])
        if path.stem in DEEDS:
            DEEDS[path.stem](path)
        return data


class OddError(Exception):
    """An exception that pickle takes and cannot make again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Target:
    """An object whose methods are called in another process."""

    def add(self, first: Any, second: Any) -> Any:
        return first + second

    def do(self, deed: str) -> int:
        DEEDS[deed](Path())
        return os.getpid()

    def pid(self) -> int:
        return os.getpid()

    def count(self, end: int, error: Exception | None = None) -> Any:
        yield from range(end)
        if error is not None:
            raise error

    def fail(self, error: Exception) -> None:
        raise error

    def fail_oddly(self) -> None:
        raise OddError(1, 2)
