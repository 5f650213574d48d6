"""Segmenting a folder of images with a file of ``mobileutr export --end-to-end``: without torch and MONAI.

Needs ONNX Runtime or OpenVINO, Pillow and NumPy alone, and starts in a second or two. Names of results, the report,
resuming and what may be removed are those of a run with a bundle. DICOM, NIfTI and overlays need one:
``mobileutr predict BUNDLE``.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.core.folders import check_folders
from mobileutr_monai.core.kinds import IMAGE_SUFFIXES, CaseKind, begins_like_image, strip_suffix
from mobileutr_monai.core.output_folder import OutputFolder, format_files, hash_files, name_outputs, stat_files
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import NOT_DECODED, escape, pluralize
from mobileutr_monai.core.walk import list_files
from mobileutr_monai.inference.end_to_end import EndToEndModel
from mobileutr_monai.inference.outputs.png import save_label_image
from mobileutr_monai.inference.report.csv import ReportTable, Wanted, check_report
from mobileutr_monai.inference.report.earlier import EarlierRun
from mobileutr_monai.inference.report.row import Row
from mobileutr_monai.readers.pillow_io import look_at

__all__ = ["Image", "main", "segment_folder"]

logger = logging.getLogger(__name__)

MASK_ENDING = "_mask.png"
_NEEDS_BUNDLE = "an exported file reads images only; mobileutr predict with the bundle reads it"
_DICOM, _DICOM_PLACE = b"DICM", 128


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
        return _foresee_folder(model, folder, output, overwrite)
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
    table = _open_table(network, output, overwrite)
    target = table.folder
    stats = {image.name: stat_files([image.path]) for image in found.images}
    wanted = {image.name: _want(image, stats[image.name]) for image in found.images}
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


def _open_table(network: EndToEndModel, output: Path, overwrite: bool) -> ReportTable:
    table = ReportTable(OutputFolder(output), _identify(network), list(network.labels.values()))
    if (changes := table.find_changes()) and not overwrite:
        raise ValueError(
            f"{output} has the results of a run with other settings: {'; '.join(changes)}; choose another output "
            "folder, or replace them with --overwrite"
        )
    return table


def _want(image: Image, stat: str) -> Wanted:
    return Wanted(image.stem, stat, partial(hash_files, [image.path]))


def _identify(network: EndToEndModel) -> dict[str, object]:
    """Returns what decides the results, as a run with a bundle has it."""
    return {
        "weights_sha256": network.sha256,
        "config_sha256": "",
        "settings": {},
        "options": {},
        "versions": {name: version(name) for name in ("mobileutr-monai", network.runtime.package, "numpy", "pillow")},
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


def _foresee_folder(model: Path, folder: Path, output: Path, overwrite: bool) -> int:
    """Prints what a dry run, which decodes nothing, can say of each file; returns the code of the run."""
    found = _find(folder, output)
    earlier = EarlierRun(_open_table(EndToEndModel(model), output, overwrite))
    fails = any(row.status == "failed" for row in found.others)
    for image in found.images:
        said = _foresee(image, earlier)
        fails = fails or said.startswith("would fail")
        print(f"{image.name}: image, {said}")
    for row in found.others:
        becomes = "fail" if row.status == "failed" else "be skipped"
        print(f"{row.case}: would {becomes}: {row.detail or row.reason}")
    print(NOT_DECODED, file=sys.stderr)
    return int(fails)


def _foresee(image: Image, earlier: EarlierRun) -> str:
    try:
        look_at(image.path)
    except (FileNotFoundError, ValueError) as error:
        return f"would fail: {_explain(error, image.path)}"
    wanted = _want(image, stat_files([image.path]))
    if earlier.is_done(image.name, wanted):
        return "done in an earlier run"
    failure = earlier.find_failure(image.name, wanted)
    return f"would fail as in an earlier run: {failure}" if failure else "would be segmented"


def _explain(error: Exception, path: Path) -> str:
    """Returns what is wrong in one line, without the file, which is named next to it."""
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return detail.removeprefix(f"image {path} cannot be read: ")
