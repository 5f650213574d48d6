"""A user id without a name."""

from __future__ import annotations

import getpass
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from mobileutr_monai.core.program import name_user

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME")


def test_a_user_id_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", fail)
    with pytest.raises(KeyError):
        getpass.getuser()  # as MONAI does when it is imported
    name_user()
    assert getpass.getuser() == f"user{os.getuid()}"
    assert Path.home() == Path(tempfile.gettempdir())


def test_a_user_with_a_name_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    name_user()
    assert dict(os.environ) == before
