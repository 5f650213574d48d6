"""Series of a DICOMweb server: found by QIDO-RS, fetched by WADO-RS as they are stored, results stored by STOW-RS.

User and password, or a token, come from the environment: ``DICOMWEB_USERNAME`` and ``DICOMWEB_PASSWORD``, or
``DICOMWEB_TOKEN``. What requests reads holds, too: ``.netrc``, ``REQUESTS_CA_BUNDLE``, ``HTTPS_PROXY``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword

from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.walk import Ignored, Listing
from mobileutr_monai.readers.sources.remote import FULL_DISK, describe_failure, is_url, retry
from mobileutr_monai.readers.sources.units import Fetched, Grouping, Unit

__all__ = ["DicomWebSource", "is_dicomweb", "open_server", "parse_query", "store"]

USER, PASSWORD, TOKEN = "DICOMWEB_USERNAME", "DICOMWEB_PASSWORD", "DICOMWEB_TOKEN"
PAGE_SIZE = 200
"""Series that are asked for at once; a server may answer with less."""
MOST_PAGES_WITHOUT_NEWS = 2
_AT_ONCE = 4
"""Series that are fetched at the same time: each is an answer of many files."""
_SECONDS = 60.0
_AS_STORED = (("application/dicom", "*"),)
"""Without this a server decodes what it sends, and Orthanc fails where it has no decoder."""
_STUDY, _SERIES, _MODALITY, _INSTANCES = "0020000D", "0020000E", "00080060", "00201209"
_OF_SLICES = frozenset({"CT", "MR", "PT", "NM"})
_SLICE_BYTES, _OTHER_BYTES = 2**20, 2**25
"""What an instance is taken for, since no server tells its size: a slice, or what may be a cine."""
_UID = re.compile(r"[0-9.]{1,64}")


def is_dicomweb(place: object) -> bool:
    """Whether a place is the address of a DICOMweb server."""
    return is_url(place) and str(place).lower().startswith(("http://", "https://"))


def parse_query(text: str) -> dict[str, str]:
    """Returns keyword -> value of a query such as ``Modality=US,StudyDate=20240101-``.

    A part without ``=`` belongs to the value before it, so that a value may be a list of UIDs.

    Raises:
        ValueError: a keyword is none of DICOM's, or has no value.
    """
    query: dict[str, str] = {}
    keyword = ""
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if equals:
            keyword = name.strip()
            query[keyword] = value.strip()
        elif keyword:
            query[keyword] += f",{part.strip()}"
        else:
            raise ValueError(f"--query {text!r} has no keyword; write Modality=US,StudyDate=20240101-")
    for name, value in query.items():
        if tag_for_keyword(name) is None:
            raise ValueError(f"--query: {name!r} is no keyword of DICOM, such as Modality, StudyDate, PatientID")
        if not value:
            raise ValueError(f"--query: {name} has no value")
    return query


def open_server(url: str) -> Any:
    """Returns a client of a DICOMweb server; nothing is asked of it yet.

    Raises:
        ValueError: the address has a password in it, or dicomweb-client is missing.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        shown = f"{parts.scheme}://...@{parts.hostname}"
        raise ValueError(f"{shown} has a user or password in it; leave it out and set {USER} and {PASSWORD}")
    try:
        import requests
        from dicomweb_client.web import DICOMwebClient
    except ImportError:
        raise ValueError(f'{url} needs dicomweb-client: pip install "mobileutr-monai[dicomweb]"') from None
    session = requests.Session()
    if token := os.environ.get(TOKEN):
        session.headers["Authorization"] = f"Bearer {token}"
        session.trust_env = False  # else a .netrc would replace the token
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    elif user := os.environ.get(USER):
        session.auth = (user, os.environ.get(PASSWORD, ""))
    client = DICOMwebClient(url.rstrip("/"), session=session, timeout=_SECONDS)
    client.set_http_retry_params(retry=False)  # ``retry`` does; both together take half a minute to say "no connection"
    return client


class DicomWebSource:
    """The series that a DICOMweb server has for a query; each is a unit, its folder is ``STUDY/SERIES``.

    Args:
        url: root of the server's DICOMweb, such as ``https://host/dicom-web``.
        query: see ``parse_query``; without one every series.
    """

    is_local = False

    def __init__(self, url: str, query: str = "") -> None:
        self.url, self.place = url.rstrip("/"), url
        self.query = parse_query(query)
        self.client = open_server(url)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the client out: it holds credentials, and every node has its own in its environment."""
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.client = open_server(self.url)

    def check(self) -> None:
        try:
            self._search(0, 1)
        except Exception as error:  # noqa: BLE001 - of requests, or of what is no DICOMweb
            raise ValueError(f"{self.url} cannot be searched: {describe_failure(error)}") from None

    def list_units(self, grouping: Grouping) -> Iterator[Unit]:
        seen: set[str] = set()  # of the last pages alone: a server may ignore limit or offset
        offset = without_news = 0
        while True:
            try:
                page = retry(lambda start=offset: self._search(start, PAGE_SIZE))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - as above
                raise ValueError(f"{self.url} cannot be searched: {describe_failure(error)}") from None
            if not page:
                return
            units = list(filter(None, map(_make_unit, page)))
            new = [unit for unit in units if unit.key not in seen]
            without_news = 0 if new else without_news + 1
            if without_news == MOST_PAGES_WITHOUT_NEWS:
                return
            yield from new
            seen = {unit.key for unit in units}
            offset += len(page)

    def fetch(self, units: Sequence[Unit], folder: Path) -> Fetched:
        folder.mkdir(parents=True)
        listing = Listing()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for unit, problem in zip(units, pool.map(lambda unit: self._fetch(unit, folder), units), strict=True):
                target = folder / unit.key
                if problem is None:
                    listing.paths += sorted(target.iterdir())
                else:
                    listing.ignored.append(Ignored(target, *problem, True))
        return Fetched(folder, listing)

    def _search(self, offset: int, limit: int) -> list[Mapping[str, Any]]:
        found = self.client.search_for_series(
            search_filters=self.query, fields=["NumberOfSeriesRelatedInstances"], limit=limit, offset=offset
        )
        return list(found)

    def _fetch(self, unit: Unit, folder: Path) -> tuple[Reason, str] | None:
        """Returns what is wrong, None if the series is there whole."""
        study, _, series = unit.key.partition("/")
        target = folder / unit.key

        def fetch_once() -> int:
            target.mkdir(parents=True, exist_ok=True)
            names: set[str] = set()
            for dataset in self.client.iter_series(study, series, media_types=_AS_STORED):
                uid = str(dataset.SOPInstanceUID)
                if not _UID.fullmatch(uid):
                    raise ValueError("a SOP instance UID is no UID")
                dataset.save_as(target / f"{uid}.dcm", enforce_file_format=True)
                names.add(uid)
            return len(names)

        try:
            number = retry(fetch_once)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise
            return Reason.NOT_FETCHED, describe_failure(error)
        if not number:
            return Reason.NOT_FOUND, "the server has no files of this series"
        if number < unit.expected:
            return Reason.NOT_FETCHED, f"{number} files came, {unit.expected} were listed"
        return None


def store(client: Any, path: Path) -> None:
    """Stores a DICOM file on a server by STOW-RS.

    Raises:
        OSError: the server does not answer, or refuses the file.
    """
    dataset = dcmread(path)
    try:
        answer = retry(lambda: client.store_instances([dataset]))
    except Exception as error:
        raise OSError(describe_failure(error)) from error
    if failed := answer.get("FailedSOPSequence"):
        code = failed[0].get("FailureReason")
        raise OSError(f"the server refused {path.suffix} (failure reason {code})")


def _make_unit(series: Mapping[str, Any]) -> Unit | None:
    """Returns the unit of a series as QIDO-RS lists it; None if its UIDs are none."""
    study, uid = _value(series, _STUDY), _value(series, _SERIES)
    if not (_UID.fullmatch(study) and _UID.fullmatch(uid)):
        return None
    text = _value(series, _INSTANCES)
    number = int(text) if text.isdecimal() else 0
    each = _SLICE_BYTES if _value(series, _MODALITY) in _OF_SLICES else _OTHER_BYTES
    return Unit(f"{study}/{uid}", expected=number, expected_bytes=each * max(1, number))


def _value(item: Mapping[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])
