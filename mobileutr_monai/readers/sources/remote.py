"""Files of object storage and other file systems that fsspec knows: ``s3://bucket/prefix``, ``file://``, ``memory://``.

Credentials come from where each storage's library looks for them: the environment, or its own files. An address with a
password in it is refused, so that none gets into a report or a log.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import escape
from mobileutr_monai.core.walk import SYSTEM_FOLDER_DETAIL, Ignored, Listing, is_hidden, is_system_folder
from mobileutr_monai.readers.sources.local import check_list, read_list
from mobileutr_monai.readers.sources.units import Entry, Fetched, Grouping, Unit, group_units

__all__ = ["FULL_DISK", "RemoteSource", "describe_failure", "is_url", "open_url", "retry", "safe_target"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_AT_ONCE = 16
"""Requests under way; a server answers many small ones at once."""
_ATTEMPTS, _WAIT_SECONDS = 3, 0.5
_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "created")
_EXTRAS = {"az": "azure", "abfs": "azure", "abfss": "azure", "gs": "gcs", "gcs": "gcs"}
"""Scheme of an address -> extra that is for it, in place of ``remote``."""
_NETWORK = {
    "ConnectionError": "no connection to the server",
    "ConnectTimeout": "no connection to the server",
    "ReadTimeout": "the server does not answer in time",
    "SSLError": "its certificate is not trusted",
    "JSONDecodeError": "it is no DICOMweb server",
    "NoCredentialsError": "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "EndpointConnectionError": "no connection to the server",
    "ServiceRequestError": "no connection to the server",
    "ClientConnectorError": "no connection to the server",
    "ClientAuthenticationError": "the server refuses the credentials, or there are none; set "
    "AZURE_STORAGE_CONNECTION_STRING",
    "DefaultCredentialsError": "there are no credentials; set GOOGLE_APPLICATION_CREDENTIALS",
}
"""Name of an exception of requests, botocore, Azure or Google -> what it means; its own text has the request in it."""
_TALKATIVE = ("azure", "gcsfs")
"""Loggers of libraries that write pages, with requests in them, about what the run says in one line."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

In = TypeVar("In")
Out = TypeVar("Out")


def is_url(place: object) -> bool:
    """Whether a place is an address such as ``s3://bucket``, and not a path."""
    return isinstance(place, str) and _URL.match(place) is not None


def open_url(url: str) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it.

    Raises:
        ValueError: it has a password in it, is of an unknown kind, or a package is missing.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        shown = f"{parts.scheme}://...@{parts.hostname}"
        raise ValueError(f"{shown} has a user or password in it; leave it out, credentials come from the environment")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ValueError(f'{url} needs fsspec: pip install "mobileutr-monai[remote]"') from None
    try:
        file_system, path = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        extra = _EXTRAS.get(parts.scheme, "remote")
        raise ValueError(f'{url}: {error}; for {parts.scheme}://, pip install "mobileutr-monai[{extra}]"') from None
    except ValueError as error:
        raise ValueError(f"{url} cannot be opened: {error}") from None
    return file_system, str(path).rstrip("/")


class RemoteSource:
    """What lies below an address, fetched in parts.

    Args:
        url: of a folder, or a prefix that ends at a slash; or of one file.
        file_list: file with one name per line, relative to the address, or ``-``; without one everything is listed.
    """

    is_local = False

    def __init__(self, url: str, file_list: str = "") -> None:
        self.file_system, self.root = open_url(url)
        self.url, self.file_list = url.rstrip("/"), file_list
        self._only = ""
        self.place = f"the list {file_list}" if file_list else url

    def check(self) -> None:
        check_list(self.file_list)
        try:
            is_file = self.file_system.isfile(self.root)
            if not (is_file or self.file_list or self.file_system.exists(self.root)):
                raise FileNotFoundError(errno.ENOENT, "there is nothing at this address")
        except Exception as error:  # noqa: BLE001 - each storage has its own
            raise ValueError(f"{self.url} cannot be listed: {describe_failure(error)}") from None
        if is_file and not self.file_list:
            self.root, _, self._only = self.root.rpartition("/")

    def list_units(self, grouping: Grouping) -> Iterator[Unit]:
        if self.file_list or self._only:
            yield from group_units(self._read_entries(), grouping)
        else:
            yield from self._walk(grouping)

    def fetch(self, units: Sequence[Unit], folder: Path) -> Fetched:
        folder.mkdir(parents=True)
        listing = Listing()
        for unit in units:
            listing.ignored += [ignored._replace(path=folder / ignored.path) for ignored in unit.ignored]
        entries = [entry for unit in units for entry in unit.entries]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for problem, entry in zip(
                pool.map(lambda entry: self._fetch(entry, folder), entries), entries, strict=True
            ):
                if problem is None:
                    listing.paths.append(folder / entry.name)
                else:
                    path = folder / PurePosixPath(entry.name.replace("..", "__").lstrip("/"))
                    listing.ignored.append(Ignored(path, *problem, True))
        return Fetched(folder, listing)

    def _walk(self, grouping: Grouping) -> Iterator[Unit]:
        folders = [""]
        while folders:
            folder = folders.pop()
            path = f"{self.root}/{folder}".rstrip("/")
            try:
                found = retry(lambda path=path: self.file_system.ls(path, detail=True))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - as above
                if not folder:
                    raise ValueError(f"{self.url} cannot be listed: {describe_failure(error)}") from None
                yield _ignore(folder, Reason.FOLDER, describe_failure(error), failed=True)
                continue
            inner: list[str] = []
            files: dict[str, dict[str, Any]] = {}
            for info in found:
                name = str(info["name"]).rstrip("/").rpartition("/")[2]
                if str(info["name"]).rstrip("/") == path or not name or name.startswith("."):
                    continue
                if info["type"] == "directory":
                    inner.append(name)
                else:
                    files[f"{folder}/{name}".lstrip("/")] = info
            del found
            yield from group_units((_entry(name, files[name]) for name in sorted(files)), grouping)
            for name in sorted(inner, reverse=True):
                place = f"{folder}/{name}".lstrip("/")
                if is_system_folder(name):
                    yield _ignore(place, Reason.SYSTEM_FOLDER, SYSTEM_FOLDER_DETAIL, failed=False)
                else:
                    folders.append(place)

    def _read_entries(self) -> Iterator[Entry]:
        names = iter([self._only]) if self._only else self._read_names()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(names, 16 * _AT_ONCE)):
                yield from pool.map(self._look_up, some)

    def _read_names(self) -> Iterator[str]:
        for number, line in enumerate(read_list(self.file_list), start=1):
            name = line.removeprefix(f"{self.url}/")
            if is_url(name) or is_hidden(Path(name)) or name.startswith("/"):
                raise ValueError(
                    f"line {number} of {self.place}: {escape(line)} is not below {self.url}; give the address that all "
                    "files lie below"
                )
            yield name

    def _look_up(self, name: str) -> Entry:
        try:
            return _entry(name, retry(lambda: self.file_system.info(f"{self.root}/{name}")))
        except Exception:  # noqa: BLE001 - it is said when the file is fetched
            return Entry(name)

    def _fetch(self, entry: Entry, folder: Path) -> tuple[Reason, str] | None:
        """Returns what is wrong, None if the file is there whole."""
        target = safe_target(folder, entry.name)
        if target is None:
            return Reason.NOT_FETCHED, "its name leads out of the folder"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            retry(lambda: self.file_system.get_file(f"{self.root}/{entry.name}", str(target)))
        except FileNotFoundError:
            return Reason.NOT_FOUND, "it is not there, or not any longer"
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise
            return Reason.NOT_FETCHED, describe_failure(error)
        if target.is_dir():
            return Reason.NOT_FOUND, "it is a folder; list its files"
        if entry.size >= 0 and target.stat().st_size != entry.size:
            return Reason.NOT_FETCHED, f"{target.stat().st_size} bytes came, {entry.size} were listed"
        return None


def retry(function: Callable[[], Out]) -> Out:
    """Calls a function again when a server fails; not when something is not there, or not allowed."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return function()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception as error:
            if attempt == _ATTEMPTS or (isinstance(error, OSError) and error.errno in FULL_DISK):
                raise
            time.sleep(_WAIT_SECONDS * 2 ** (attempt - 1))
    raise AssertionError


def describe_failure(error: BaseException) -> str:
    """Returns what went wrong, without what a library says of its request: that may hold an address with a key."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.splitlines()[0]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return f"the server answered {status}"
    return _NETWORK.get(type(error).__name__, type(error).__name__)


def safe_target(folder: Path, name: str) -> Path | None:
    """Returns the path of a name in a folder; None if it leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        return None
    return folder / path


def _entry(name: str, info: dict[str, Any]) -> Entry:
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
    size = info.get("size")
    return Entry(name, -1 if size is None else int(size), stamp)


def _ignore(name: str, reason: Reason, detail: str, failed: bool) -> Unit:
    return Unit(escape(name), ignored=(Ignored(Path(name), reason, detail, failed),))
