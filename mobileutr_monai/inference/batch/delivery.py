"""Where results go other than a folder of this machine: an address that fsspec knows, or a DICOMweb server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mobileutr_monai.core.output_folder import OutputFolder
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.readers.cases import InputCase
from mobileutr_monai.readers.sources.dicomweb import DicomWebSource, store
from mobileutr_monai.readers.sources.remote import describe_failure, open_url, retry

__all__ = ["Deliver", "DicomWebStore", "RemoteFolder"]

Deliver = Callable[[InputCase, Mapping[str, Path]], None]
"""Sends the staged files of a case, ending -> file, somewhere; raises ``CaseError`` if they do not get there."""

_WHOLE_WHEN_PUT = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}
"""Storage in which a file that is being written is not there yet; elsewhere it gets its name when it is whole."""

_MARK = "run.json"
_FOR_PACS = ("_seg.dcm", "_sr.dcm", "_pr.dcm", "_rtstruct.dcm")


class RemoteFolder(OutputFolder):
    """An output folder whose results are sent to an address when they are whole; the rest of a run stays in the folder.

    A result is sent before the report lists it. A run that is killed in between sends it again, with the same bytes.

    Args:
        path: folder of this machine, for the report, the lock and results in the making.
        url: where the results go.
    """

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(path)
        self.file_system, self.root = open_url(url)
        self.url = url
        protocols = self.file_system.protocol
        self._protocols = {protocols} if isinstance(protocols, str) else set(protocols)

    def claim(self, is_resumed: bool) -> None:
        """Checks that the address is free, and marks it as that of this run.

        Raises:
            UsageError: it holds files that are not of this run, or cannot be written to.
        """
        mark = self.path / _MARK
        try:
            there = self.file_system.ls(self.root, detail=False) if self.file_system.exists(self.root) else []
            if not is_resumed and any(str(name).rstrip("/") != self.root for name in there):
                raise UsageError(
                    f"{self.url} holds files that are not of a run of {self.path}; choose another address, or the work "
                    "folder of the run that wrote them"
                )
            if mark.is_file():
                self._put(mark, _MARK)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - each storage has its own
            raise UsageError(f"{self.url} cannot be written to: {describe_failure(error)}") from None

    def deliver(self, case: InputCase, files: Mapping[str, Path]) -> None:
        """Sends the staged files of a case; see ``Deliver``."""
        for ending, path in files.items():
            try:
                self._put(path, case.output + ending)
            except Exception as error:
                raise CaseError(Reason.NOT_DELIVERED, f"{self.url}: {describe_failure(error)}") from error

    def deliver_report(self, paths: Iterable[Path]) -> None:
        """Sends files of the run itself.

        Raises:
            OSError: they do not get there.
        """
        for path in paths:
            try:
                self._put(path, path.relative_to(self.path).as_posix())
            except Exception as error:
                raise OSError(f"{path.name} cannot be sent to {self.url}: {describe_failure(error)}") from error

    def find_obstacle(self, stem: str, files: Mapping[str, str]) -> str:
        return ""

    def publish(self, stem: str, files: Mapping[str, str]) -> None:
        self.discard(stem)

    def is_whole(self, stem: str, files: Mapping[str, str], most_important: str) -> bool:
        """Whether the report lists files of a case: what is listed was sent, and is not looked at again."""
        return most_important in files

    def remove(self, stem: str, files: Mapping[str, str]) -> list[str]:
        for ending in files:
            path = f"{self.root}/{stem}{ending}"
            try:
                if self.file_system.exists(path):
                    retry(lambda path=path: self.file_system.rm_file(path))  # type: ignore[misc]
            except Exception as error:
                raise OSError(f"{stem}{ending} cannot be removed from {self.url}: {describe_failure(error)}") from error
        return []

    def _put(self, path: Path, name: str) -> None:
        target = f"{self.root}/{name}"
        self.file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
        if self._protocols & _WHOLE_WHEN_PUT:
            retry(lambda: self.file_system.put_file(str(path), target))
        else:
            retry(lambda: self.file_system.put_file(str(path), f"{target}.tmp"))
            self.file_system.mv(f"{target}.tmp", target)


class DicomWebStore:
    """Stores DICOM results but captures and probabilities on the server that the inputs come from.

    They have the same UIDs whenever they are made of the same input with the same weights and options, so that one
    that is stored again is the same object.
    """

    def __init__(self, source: DicomWebSource) -> None:
        self.source = source

    def deliver(self, case: InputCase, files: Mapping[str, Path]) -> None:
        """Stores the staged files of a case that are for a PACS; see ``Deliver``."""
        for ending, path in files.items():
            if ending.endswith(_FOR_PACS):
                try:
                    store(self.source.client, path)
                except OSError as error:
                    raise CaseError(Reason.NOT_DELIVERED, f"{self.source.url}: {error}") from error
