"""Segmenting a folder of pictures with an ONNX file of ``mobileutr export --raw``: without torch and MONAI.

Needs onnxruntime, Pillow and NumPy alone, and starts in a second or two. DICOM, NIfTI, overlays and a stopped run that
goes on are the bundle's: ``mobileutr predict BUNDLE``.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mobileutr_monai.core.atomic import hash_file, write_atomic
from mobileutr_monai.core.folders import check_folders, has_other_report
from mobileutr_monai.core.kinds import strip_suffix
from mobileutr_monai.core.output_folder import IN_THE_WAY, find_foreign, name_outputs
from mobileutr_monai.core.text import escape, guard_cell, pluralize, unguard_cell
from mobileutr_monai.core.walk import list_files
from mobileutr_monai.readers.image_content import find_between_bars
from mobileutr_monai.readers.pillow_io import look_at, open_image, to_mode

__all__ = ["EndToEndModel", "segment_folder"]

COLUMNS = ("case", "status", "detail", "output", "shape", "label", "pixels", "percent", "seconds", "sha256")
_WAY_OUT = "make one with mobileutr export BUNDLE --raw --output FILE.onnx"
_DICOM, _DICOM_PLACE = b"DICM", 128

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
"""Names that promise a picture: what cannot be read is an error then, otherwise it is skipped."""


class EndToEndModel:
    """An ONNX file that takes pixels and gives a label map.

    Args:
        path: file of ``mobileutr export --format onnx --raw``.
        threads: that one image uses; 0 for all.

    Attributes:
        labels: index -> name, without the background.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: onnxruntime is not installed, or the file is of another kind.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no ONNX file at {path}")
        if importlib.util.find_spec("onnxruntime") is None:
            raise ValueError('an ONNX file needs onnxruntime: pip install "mobileutr-monai[onnxruntime]"')
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001 - onnxruntime has no class for its errors
            release = onnxruntime.__version__
            raise ValueError(f"{path} is no ONNX model that onnxruntime {release} can run; {_WAY_OUT}") from None
        self.facts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if self.facts.get("raw") != "true":
            raise ValueError(f"{path} is an ONNX model, but takes no pixels; {_WAY_OUT}")
        names = {int(index): name for index, name in json.loads(self.facts["labels"]).items()}
        self.labels = {index: name for index, name in sorted(names.items()) if index}
        self._crop_bars = self.facts.get("crop_bars") == "true"
        self._mode = "RGB" if self.facts["channels"] == "3" else "L"

    def segment(self, path: Path) -> np.ndarray:
        """Returns the label map of a picture.

        Shape:
            - output: (rows, columns), uint8.

        Raises:
            ValueError: it cannot be read, or all its pixels are the same.
        """
        with open_image(path, "image") as image:
            array = np.asarray(to_mode(image, self._mode))
        if array.min() == array.max():
            raise ValueError(f"all pixels have the value {array.flat[0]}: there is nothing to segment")
        array = array.reshape(*array.shape[:2], -1)
        top, left, bottom, right = find_between_bars(array) if self._crop_bars else (0, 0, *array.shape[:2])
        content = np.ascontiguousarray(array[top:bottom, left:right])
        label = np.zeros(array.shape[:2], np.uint8)
        label[top:bottom, left:right] = self._session.run(None, {"pixels": content})[0]
        return label


class _Result(NamedTuple):
    rows: list[dict[str, Any]]
    failed: bool


def segment_folder(model: Path, folder: Path, output: Path, dry_run: bool = False) -> int:
    """Writes ``NAME_mask.png`` for every picture of a folder and its subfolders, and ``report.csv``.

    Args:
        dry_run: only say what would be done with each file.

    Returns:
        0 when all went well, 1 when pictures failed.

    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: model or folders cannot be used.
    """
    check_folders(folder, output)
    path = output / "report.csv"
    if has_other_report(path, COLUMNS):
        raise ValueError(f"{path} is not of a run with an ONNX file; choose another output folder")
    if not path.exists() and (foreign := find_foreign(output)):
        raise ValueError(f"output folder {output} holds other files ({foreign}); choose an empty folder")
    network = EndToEndModel(model, threads=1)
    listing = list_files(folder)
    paths = listing.paths
    cases = {path: path.relative_to(folder) for path in paths}
    pictures = [path for path in paths if _is_picture(path)]
    stems = name_outputs(
        [escape(cases[path].as_posix()) for path in pictures],
        [escape(strip_suffix(cases[path]).as_posix()) for path in pictures],
    )
    masks = {path: output / f"{stem}_mask.png" for path, stem in zip(pictures, stems, strict=True)}
    if not any(path.suffix.lower() in SUFFIXES for path in paths):
        others = pluralize(len(paths), "other file")
        raise ValueError(f"no images in {folder} ({others}); DICOM and NIfTI are read with the bundle")
    if dry_run:
        for path in paths:
            print(f"{escape(path.relative_to(folder).as_posix())}: {_foresee(path)}")
        return 0
    report = _Report(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        report.begin()
    except OSError as error:
        raise ValueError(f"cannot make the output folder {output}: {error.strerror}; choose another one") from None

    def segment(path: Path) -> _Result:
        return _segment(network, path, cases[path].as_posix(), masks.get(path), report)

    # One image per thread: the fastest way through a folder, and images are read and written meanwhile.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = []
        for result in pool.map(segment, paths):
            results.append(result)
            if result.failed:
                print(f"{result.rows[0]['case']}: {result.rows[0]['detail']}", file=sys.stderr)
    report.close([row for result in results for row in result.rows])
    failed = sum(result.failed for result in results)
    done = sum(result.rows[0]["status"] == "ok" for result in results)
    skipped = len(results) - done - failed
    numbers = f"{pluralize(done, 'case')} segmented, {failed} failed, {skipped} skipped"
    print(f"{numbers}; see {output / 'report.csv'}", file=sys.stderr)
    return 1 if failed else 0


def _segment(network: EndToEndModel, path: Path, case: str, mask: Path | None, report: _Report) -> _Result:
    started = time.perf_counter()
    try:
        if mask is None:
            raise ValueError(_say_what_else(path))
        label = network.segment(path)
        name = report.claim(mask)
        picture = _to_png(label)
        rows = [
            {
                "case": case,
                "status": "ok",
                "detail": "; ".join(look_at(path).losses),
                "output": name,
                "shape": f"{label.shape[0]} x {label.shape[1]}",
                "label": text,
                "pixels": (pixels := int((label == index).sum())),
                "percent": round(100 * pixels / label.size, 3),
                "sha256": hashlib.sha256(picture).hexdigest(),
                "seconds": round(time.perf_counter() - started, 3),
            }
            for index, text in network.labels.items()
        ]
        report.append(rows)  # before the file has its name: what lies in the folder is listed
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(mask, lambda file: file.write(picture))
    except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this picture only
        failed = path.suffix.lower() in SUFFIXES
        detail = _explain(error, path) if failed else _say_what_else(path)
        return _Result([{"case": case, "status": "failed" if failed else "skipped", "detail": detail}], failed)
    return _Result(rows, False)


class _Report:
    """``report.csv`` of an output folder: what earlier runs wrote there, and what this one does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "report.csv"
        self._earlier = list(self._read())
        self._lock = Lock()

    def begin(self) -> None:
        """Says from the beginning whose folder it is."""
        self._write(self._earlier)

    def claim(self, mask: Path) -> str:
        """Returns the name of a mask in the report.

        Raises:
            ValueError: there is such a file, and no run wrote it, or somebody has changed it since.
        """
        name = mask.relative_to(self.folder).as_posix()
        if os.path.lexists(mask):
            digests = {row["sha256"] for row in self._earlier if row["output"] == name}
            if not digests or hash_file(mask) not in digests:
                raise ValueError(f"{name} {IN_THE_WAY}")
        return name

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        with self._lock, self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            self._writer(file).writerows(map(_to_text, rows))

    def close(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes all rows in order; results whose pictures are gone stay listed."""
        cases, outputs = {row["case"] for row in rows}, {row.get("output") for row in rows}
        gone = (
            {**row, "detail": "input is gone"}
            for row in self._earlier
            if row["output"]
            and row["case"] not in cases
            and row["output"] not in outputs
            and (self.folder / row["output"]).is_file()
        )
        self._write([*rows, *gone])

    def _read(self) -> Iterator[dict[str, str]]:
        try:
            with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                for row in csv.DictReader(file):
                    if set(row) == set(COLUMNS) and None not in row.values():
                        yield {key: unguard_cell(value) for key, value in row.items()}
        except (OSError, csv.Error):
            return

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(map(_to_text, rows))
        write_atomic(self.path, lambda file: file.write(text.getvalue().encode(errors="surrogateescape")))

    @staticmethod
    def _writer(file: Any) -> csv.DictWriter:
        return csv.DictWriter(file, COLUMNS, restval="")


def _to_text(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: guard_cell(str(value)) for key, value in row.items()}


def _to_png(label: np.ndarray) -> bytes:
    """Returns label indices as an 8-bit PNG."""
    data = io.BytesIO()
    Image.fromarray(label).save(data, format="PNG")
    return data.getvalue()


def _foresee(path: Path) -> str:
    """Returns what a dry run, which decodes nothing, can say of a file."""
    try:
        look_at(path)
        return "image, would be segmented"
    except (FileNotFoundError, ValueError) as error:
        if path.suffix.lower() in SUFFIXES:
            return f"image, would fail: {_explain(error, path)}"
        return _say_what_else(path)


def _explain(error: Exception, path: Path) -> str:
    """Returns what is wrong in one line, without the file, which is named next to it."""
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return detail.removeprefix(f"image {path} cannot be read: ")


def _say_what_else(path: Path) -> str:
    """Returns what a file is that is no picture."""
    try:
        with path.open("rb") as file:
            is_dicom = file.read(_DICOM_PLACE + len(_DICOM))[_DICOM_PLACE:] == _DICOM
    except OSError:
        is_dicom = False
    kind = "DICOM" if is_dicom else "NIfTI" if path.name.lower().endswith((".nii", ".nii.gz")) else ""
    way_out = "an ONNX file reads pictures only; mobileutr predict with the bundle reads it"
    return f"{kind}: {way_out}" if kind else "not an image"


def _is_picture(path: Path) -> bool:
    """Whether a file may be segmented, by its name or its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        look_at(path)
    except (OSError, ValueError):
        return False
    return True
