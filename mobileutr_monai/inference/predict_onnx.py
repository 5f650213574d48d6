"""Segmenting a folder of images with an ONNX file of ``mobileutr export --end-to-end``: without torch and MONAI.

Needs onnxruntime, Pillow and NumPy alone, and starts in a second or two. Names of results, the report, resuming and
what may be removed are those of a run with a bundle. DICOM, NIfTI and overlays need one: ``mobileutr predict BUNDLE``.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.folders import check_folders
from mobileutr_monai.core.kinds import IMAGE_SUFFIXES, CaseKind, begins_like_image, strip_suffix
from mobileutr_monai.core.output_folder import OutputFolder, format_files, hash_files, name_outputs, stat_files
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import NOT_DECODED, escape, pluralize
from mobileutr_monai.core.walk import list_files
from mobileutr_monai.export.label_pixels import label_pixels
from mobileutr_monai.inference.outputs.png import save_label_image
from mobileutr_monai.inference.pieces import keep_largest_pieces
from mobileutr_monai.inference.report.csv import ReportTable, Wanted, check_report
from mobileutr_monai.inference.report.row import Row
from mobileutr_monai.readers.pillow_io import look_at, open_image, to_mode

__all__ = ["EndToEndModel", "Image", "main", "segment_folder"]

logger = logging.getLogger(__name__)

MASK_ENDING = "_mask.png"
_REMEDY = "make one with mobileutr export BUNDLE --end-to-end --output FILE.onnx"
_NEEDS_BUNDLE = "an ONNX file reads images only; mobileutr predict with the bundle reads it"
_DICOM, _DICOM_PLACE = b"DICM", 128


class EndToEndModel:
    """An ONNX file that takes pixels and gives a label map.

    Args:
        path: file of ``mobileutr export --format onnx --end-to-end``.
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
            raise ValueError(f"{path} is no ONNX model that onnxruntime {release} can run; {_REMEDY}") from None
        self.facts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if self.facts.get("end_to_end") != "true":
            raise ValueError(f"{path} is an ONNX model, but takes no pixels; {_REMEDY}")
        names = {int(index): name for index, name in json.loads(self.facts["labels"]).items()}
        self.labels = {index: name for index, name in sorted(names.items()) if index}
        self._crop_bars = self.facts.get("crop_bars") == "true"
        self._largest_piece = self.facts.get("largest_piece") == "true"
        self._mode = "RGB" if self.facts["channels"] == "3" else "L"

    def segment(self, path: Path) -> np.ndarray:
        """Returns the label map of an image.

        Shape:
            - output: (rows, columns), uint8.

        Raises:
            ValueError: it cannot be read, or all its pixels are the same.
        """
        with open_image(path, "image") as image:
            array = np.asarray(to_mode(image, self._mode))
        if array.min() == array.max():
            raise ValueError(f"all pixels have the value {array.flat[0]}: there is nothing to segment")
        clean = keep_largest_pieces if self._largest_piece else None
        return label_pixels(self._run, array.reshape(*array.shape[:2], -1), crop_bars=self._crop_bars, clean=clean)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        label: np.ndarray = self._session.run(None, {"pixels": pixels})[0]
        return label


class Image(NamedTuple):
    """An image of the folder: its path, its name in the report, and what the names of its results begin with."""

    path: Path
    name: str
    stem: str


class Found(NamedTuple):
    """The images of a folder, and the rows of the files that are none."""

    images: list[Image]
    others: list[Row]


def main(model: Path, folder: Path, output: Path, dry_run: bool = False, overwrite: bool = False) -> int:
    """Runs ``segment_folder`` and prints how it went; returns 0 when all went well, 1 when images failed."""
    if dry_run:
        EndToEndModel(model)
        for line in _foresee(_find(folder, output)):
            print(line)
        print(NOT_DECODED, file=sys.stderr)
        return 0
    counts = segment_folder(model, folder, output, overwrite)
    numbers = f"{pluralize(counts['ok'], 'case')} segmented, {counts['failed']} failed, {counts['skipped']} skipped"
    print(f"{numbers}; see {(output / 'report.csv').resolve()}", file=sys.stderr)
    return int(bool(counts["failed"]))


def segment_folder(model: Path, folder: Path, output: Path, overwrite: bool = False) -> dict[str, int]:
    """Writes ``NAME_mask.png`` for every image of a folder and its subfolders, and ``report.csv``.

    Args:
        overwrite: replace the results of an earlier run with another file; without, that is an error.

    Returns:
        status -> number of cases.

    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: model or folders cannot be used.
    """
    found = _find(folder, output)
    network = EndToEndModel(model, threads=1)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the output folder {output}: {error.strerror}; choose another one") from None
    target = OutputFolder(output)
    table = ReportTable(target, _identify(model), list(network.labels.values()))
    if (changes := table.find_changes()) and not overwrite:
        raise ValueError(
            f"{output} has the results of a run with other settings: {'; '.join(changes)}; choose another output "
            "folder, or replace them with --overwrite"
        )
    stats = {image.name: stat_files([image.path]) for image in found.images}
    wanted = {
        image.name: Wanted(image.stem, stats[image.name], partial(hash_files, [image.path])) for image in found.images
    }
    target.discard_all()
    done = table.open(wanted, [row.case for row in found.others])
    for row in found.others:
        table.append([row])

    def segment(image: Image) -> tuple[Image, list[Row]]:
        return image, _segment(network, image, stats[image.name], target)

    # One image per thread: the fastest way through a folder, and images are read and written meanwhile.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for image, rows in pool.map(segment, [image for image in found.images if image.name not in done]):
            files = dict(_staged_files(target, image, rows))
            if obstacle := target.find_obstacle(image.stem, files):
                rows, files = [_failed(image, Reason.IN_THE_WAY, obstacle)], {}
            table.append(rows)
            if files:
                target.publish(image.stem, files)
            target.discard(image.stem)
            if rows[0].status == "failed":
                logger.warning("%s: %s: %s", image.name, rows[0].reason, rows[0].detail)
    return table.close()


def _identify(model: Path) -> dict[str, object]:
    """Returns what decides the results, as a run with a bundle has it."""
    return {
        "weights_sha256": hash_file(model),
        "config_sha256": "",
        "settings": {},
        "options": {},
        "versions": {name: version(name) for name in ("mobileutr-monai", "onnxruntime", "numpy", "pillow")},
    }


def _find(folder: Path, output: Path) -> Found:
    check_folders(folder, output)
    check_report(output)
    listing = list_files(folder)
    others = [
        Row(
            case=escape(path.relative_to(folder).as_posix()),
            status="failed" if failed else "skipped",
            reason=reason.value,
            detail=detail,
        )
        for path, reason, detail, failed in listing.ignored
    ]
    paths = [path for path in listing.paths if _is_image(path)]
    names = [escape(path.relative_to(folder).as_posix()) for path in paths]
    stems = name_outputs(names, [strip_suffix(Path(name)).as_posix() for name in names])
    for path in sorted(set(listing.paths) - set(paths)):
        name = escape(path.relative_to(folder).as_posix())
        others.append(Row(case=name, status="skipped", reason=Reason.NOT_AN_IMAGE.value, detail=_say_what_else(path)))
    if not paths:
        files = pluralize(len(listing.paths), "other file")
        raise ValueError(f"no images in {folder} ({files}); DICOM and NIfTI are read with the bundle")
    return Found([Image(*image) for image in zip(paths, names, stems, strict=True)], others)


def _is_image(path: Path) -> bool:
    """Whether a file is an image by its content, or promises to be one by its name."""
    start = _read_start(path)
    if start[_DICOM_PLACE:] == _DICOM:
        return False
    return begins_like_image(start) or path.suffix.lower() in IMAGE_SUFFIXES


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_DICOM_PLACE + len(_DICOM))
    except OSError:
        return b""


def _say_what_else(path: Path) -> str:
    """Returns what a file is that is no image, if it is something that a bundle reads."""
    is_dicom = _read_start(path)[_DICOM_PLACE:] == _DICOM
    kind = "DICOM" if is_dicom else "NIfTI" if path.name.lower().endswith((".nii", ".nii.gz")) else ""
    return f"{kind}: {_NEEDS_BUNDLE}" if kind else ""


def _segment(network: EndToEndModel, image: Image, stat: str, target: OutputFolder) -> list[Row]:
    """Stages the label map of an image; returns its rows."""
    started = time.perf_counter()
    try:
        label = network.segment(image.path)
    except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this image only
        return [_failed(image, Reason.UNREADABLE, _explain(error, image.path), stat)]
    try:
        save_label_image(label, target.stage(image.stem) / f"{image.stem}{MASK_ENDING}")
        files = format_files(target.list_staged(image.stem))
    except OSError as error:
        return [_failed(image, Reason.OUTPUT, error.strerror or type(error).__name__, stat)]
    input_id = hash_files([image.path])
    rows = []
    for index, name in network.labels.items():
        pixels = int((label == index).sum())
        rows.append(
            Row(
                case=image.name,
                input_id=input_id,
                input_stat=stat,
                kind=CaseKind.IMAGE.value,
                detail="; ".join(look_at(image.path).losses),
                output=f"{image.stem}{MASK_ENDING}",
                files=files,
                shape=f"{label.shape[0]} x {label.shape[1]}",
                label=name,
                pixels=pixels,
                percent=round(100 * pixels / label.size, 3),
                seconds=round(time.perf_counter() - started, 3),
            )
        )
    return rows


def _staged_files(target: OutputFolder, image: Image, rows: list[Row]) -> dict[str, str]:
    return target.list_staged(image.stem) if rows[0].status == "ok" else {}


def _failed(image: Image, reason: Reason, detail: str, stat: str = "") -> Row:
    return Row(
        case=image.name,
        input_stat=stat,
        kind=CaseKind.IMAGE.value,
        status="failed",
        reason=reason.value,
        detail=detail,
    )


def _foresee(found: Found) -> Iterator[str]:
    """Yields what a dry run, which decodes nothing, can say of each file."""
    for image in found.images:
        try:
            look_at(image.path)
            yield f"{image.name}: image, would be segmented"
        except (FileNotFoundError, ValueError) as error:
            yield f"{image.name}: image, would fail: {_explain(error, image.path)}"
    for row in found.others:
        yield f"{row.case}: {row.detail or row.reason}"


def _explain(error: Exception, path: Path) -> str:
    """Returns what is wrong in one line, without the file, which is named next to it."""
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return detail.removeprefix(f"image {path} cannot be read: ")
