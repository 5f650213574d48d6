"""Batch inference over a folder with a bundle's own objects."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from mobileutr_monai.data.cases import InputCase, InputKind, UnusedFile, find_cases
from mobileutr_monai.data.dicom_errors import DicomError
from mobileutr_monai.inference.dicom_derived import Algorithm
from mobileutr_monai.inference.dicom_seg import read_segment_labels
from mobileutr_monai.inference.ledger import Ledger
from mobileutr_monai.inference.outputs import write_text
from mobileutr_monai.inference.report import NOTICE, CaseError, Measurement, Reason, Row, measure_frames, measure_labels
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.inference.writers import FORMATS, CaseWriter
from mobileutr_monai.networks.weights import load_weights

__all__ = ["BatchRunner", "UsageError"]

logger = logging.getLogger(__name__)

CASES_AHEAD = 2
"""How many cases each worker may be ahead of the network, or behind it."""

In = TypeVar("In")
Out = TypeVar("Out")


class UsageError(ValueError):
    """Something that the caller gave cannot be used; the message says what, and the way out."""


class BatchRunner:
    """Segments everything in a folder that a bundle is for, with the objects of its ``inference`` config.

    2D bundles take images (PNG, JPEG, BMP, TIFF, 2D NIfTI), DICOM stills and cines; 3D bundles take NIfTI volumes and
    DICOM series. Results lie in the output folder as the inputs lie in theirs, with the input's own size and geometry:

    - images: ``NAME_mask.png``, label indices, 0 is background;
    - NIfTI: ``NAME_mask.nii.gz``;
    - DICOM stills and series: ``NAME_seg.dcm``, a DICOM Segmentation;
    - cines: ``NAME_mask.nii.gz``, a stack of frames;
    - and, if asked, ``NAME_overlay.png``, of cines ``NAME_overlay.dcm``.

    ``report.csv`` gets a row a label of a case as they are done, ``report.json`` says at the end what ran. A case that
    fails is reported with its reason and does not stop the others. Every other file is whole or absent. A run that was
    stopped goes on where it was, if inputs, weights and options are the same.

    The constructor touches no file; ``run`` checks everything, so that a bundle without weights can be inspected.

    Args:
        dataset_dir: folder with inputs, searched with its subfolders.
        output_dir: folder to write to, outside ``dataset_dir``.
        segmenter: the bundle's network, transforms and inferer.
        weights: state dict file, loaded strictly into the network.
        metadata: of the bundle.
        bundle_root: folder of the bundle, whose config the report names by its hash.
        settings: what else decides the results; a run with others does not go on from an earlier one.
        batch_size: images that go through the network together.
        overlays: whether to draw contours.
        whole_overlays: draw on the whole of an ultrasound image, also where a name may be burned in.
        output_format: ``auto``, or ``plain`` for PNG and NIfTI instead of DICOM SEG.
        any_modality: also take DICOM of modalities that the bundle is not for.
        workers: threads that read and write beside the network; 0 for none.
        dry_run: only say what would be done.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        output_dir: str | Path,
        segmenter: Segmenter,
        weights: str | Path,
        metadata: Mapping[str, Any],
        bundle_root: str | Path,
        settings: Mapping[str, Any] | None = None,
        batch_size: int = 8,
        overlays: bool = True,
        whole_overlays: bool = False,
        output_format: str = "auto",
        any_modality: bool = False,
        workers: int = 2,
        dry_run: bool = False,
    ) -> None:
        self.dataset_dir, self.output_dir = Path(dataset_dir), Path(output_dir)
        self.segmenter, self.weights = segmenter, Path(weights)
        self.metadata, self.settings = metadata, dict(settings or {})
        self.config = Path(bundle_root) / "configs" / "inference.json"
        self.segment_labels = read_segment_labels(metadata)
        self.labels = {label.index: label.name for label in self.segment_labels}
        self.batch_size, self.workers, self.dry_run = batch_size, workers, dry_run
        self.overlays, self.whole_overlays = overlays, whole_overlays
        self.output_format, self.any_modality = output_format, any_modality

    def run(self) -> None:
        """Runs over the folder.

        Raises:
            SystemExit: with code 2 when folder, weights or options cannot be used, with code 1 when cases failed.
        """
        try:
            counts = self._run()
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except OSError as error:  # a full disk, say, outside of any case
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            print("stopped; the same command goes on where it was", file=sys.stderr)
            raise SystemExit(1) from None
        if counts:
            numbers = f"{counts['ok']} cases segmented, {counts['failed']} failed, {counts['skipped']} skipped"
            print(f"{numbers}; see {self.output_dir / 'report.csv'}", file=sys.stderr)
        if counts.get("failed"):
            raise SystemExit(1)

    def load_network(self) -> None:
        """Loads the weights and switches the network to evaluation.

        Raises:
            UsageError: they do not exist, cannot be read or do not fit.
        """
        try:
            load_weights(self.segmenter.network, self.weights)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(str(error)) from error
        self.segmenter.network.eval()

    def _run(self) -> dict[str, int]:
        self._check_options()
        found = find_cases(self.dataset_dir)
        rejected = {case.name: self._reject(case) for case in found.cases}
        wanted = [case for case in found.cases if rejected[case.name] is None]
        if self.dry_run:
            self._describe(found.cases, found.unused, rejected)
            return {}
        if not wanted and not any(file.failed for file in found.unused):
            kinds = "images" if self.segmenter.spatial_dims == 2 else "volumes"
            number = len(found.cases) + len(found.unused)
            reasons = sorted({str(error) for error in rejected.values() if error is not None})
            why = f"; {reasons[0]}" if reasons else ""
            raise UsageError(f"no {kinds} for this bundle in {self.dataset_dir} ({number} other files{why})")
        self.load_network()
        self._make_output_dir()
        started = time.perf_counter()
        weights_sha256 = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        input_ids = {case.name: _identify_input(case) for case in wanted}
        identity = self._identify_run(weights_sha256)
        ledger = Ledger(self.output_dir, identity, list(self.labels.values()))
        done = ledger.open(input_ids)
        if done:
            logger.warning("going on from an earlier run: %d of %d cases are done", len(done), len(wanted))
        for file in found.unused:
            status = "failed" if file.failed else "skipped"
            row = Row(case=file.name, status=status, reason=file.reason, detail=file.detail)
            row.study_uid, row.series_uid = file.study_uid, file.series_uid
            ledger.append([row])
        for case in found.cases:
            error = rejected[case.name]
            if error is not None:
                ledger.append([_failed_row(case, error)])
        todo = [case for case in wanted if case.name not in done]
        algorithm = Algorithm(str(self.metadata["name"]), str(self.metadata["version"]), weights_sha256)
        writer = CaseWriter(
            self.output_dir, self.segment_labels, algorithm, self.output_format, self.overlays, self.whole_overlays
        )
        for case in todo:
            writer.clear(case)
        with tqdm(total=len(wanted), initial=len(done), desc="Segmenting", unit="case") as progress:
            for rows in _Run(self.segmenter, writer, self.labels, self.batch_size, self.workers).segment(todo):
                for row in rows:
                    row.input_id = input_ids[row.case]
                ledger.append(rows)
                progress.update()
        names = [case.name for case in found.cases] + [file.name for file in found.unused]
        counts = ledger.close(sorted(names))
        self._write_summary(counts, time.perf_counter() - started, identity)
        return counts

    def _check_options(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.workers < 0:
            raise UsageError(f"workers must be 0 or more, got {self.workers}")
        if self.output_format not in FORMATS:
            raise UsageError(f"output_format must be one of {', '.join(FORMATS)}, got {self.output_format!r}")
        if not self.dataset_dir.is_dir():
            raise UsageError(f"{str(self.dataset_dir)!r} is not a folder; give the folder that holds the images")
        source, target = self.dataset_dir.resolve(), self.output_dir.resolve()
        if target == source or source in target.parents:
            raise UsageError(f"output folder {target} lies inside the input folder; choose one outside")

    def _reject(self, case: InputCase) -> CaseError | None:
        """Returns why a case is not for this bundle, None if it is."""
        dims = self.segmenter.spatial_dims
        if case.spatial_dims != dims:
            found, taken = ("volume", "images") if dims == 2 else ("2D image or cine", "volumes")
            detail = f"{case.kind.value}, a {found}; the bundle takes {taken}"
            return CaseError(Reason.DIMENSION.value, detail, skipped=True)
        modalities = self.metadata["modalities"]
        if case.dicom is not None and not self.any_modality and case.dicom.modality not in modalities:
            detail = (
                f"{case.dicom.modality or 'none'}, the bundle is for {', '.join(modalities)}; --any-modality takes it"
            )
            return CaseError(Reason.MODALITY.value, detail, skipped=True)
        return None

    def _describe(
        self, cases: Sequence[InputCase], unused: Sequence[UnusedFile], rejected: Mapping[str, CaseError | None]
    ) -> None:
        for case in cases:
            error = rejected[case.name]
            print(f"{case.name}: {case.kind.value}, {'would be segmented' if error is None else error}")
        for file in unused:
            print(f"{file.name}: {file.reason}{f': {file.detail}' if file.detail else ''}")

    def _make_output_dir(self) -> None:
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the output folder {self.output_dir}: {error.strerror}") from error
        if not os.access(self.output_dir, os.W_OK):
            raise UsageError(f"cannot write to the output folder {self.output_dir}; choose another one")

    def _identify_run(self, weights_sha256: str) -> dict[str, Any]:
        options = {
            "output_format": self.output_format,
            "overlays": self.overlays,
            "whole_overlays": self.whole_overlays,
        }
        settings = json.loads(json.dumps(self.settings, default=str))
        return {
            "weights_sha256": weights_sha256,
            "config_sha256": hashlib.sha256(self.config.read_bytes()).hexdigest(),
            "bundle": f"{self.metadata['name']} {self.metadata['version']}",
            "settings": settings,
            "options": options,
            "versions": {name: version(name) for name in ("mobileutr-monai", "monai", "torch", "numpy", "pillow")},
        }

    def _write_summary(self, counts: Mapping[str, int], seconds: float, identity: Mapping[str, Any]) -> None:
        summary = {
            "notice": NOTICE,
            "cases": dict(counts),
            "seconds": round(seconds, 2),
            "labels": self.labels,
            "device": str(self.segmenter.device),
            "precision": "float32",
            "python": platform.python_version(),
            **identity,
        }
        write_text(self.output_dir / "report.json", json.dumps(summary, indent=2) + "\n")


class _Run:
    """The cases of one run on their way: read by workers, through the network in batches, written by workers."""

    def __init__(
        self, segmenter: Segmenter, writer: CaseWriter, labels: Mapping[int, str], batch_size: int, workers: int
    ) -> None:
        self.segmenter, self.writer, self.labels = segmenter, writer, labels
        self.batch_size, self.workers = batch_size, workers

    def segment(self, cases: Sequence[InputCase]) -> Iterator[list[Row]]:
        """Yields the rows of each case; in the order in which they end."""
        singles = [case for case in cases if case.kind is not InputKind.CINE]
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            submit = pool.submit if self.workers else _call
            ahead = self.batch_size + CASES_AHEAD * self.workers
            try:
                yield from _map_ahead(
                    submit, _call_now, self._infer(_map_ahead(submit, self._read, singles, ahead)), ahead
                )
            finally:
                pool.shutdown(cancel_futures=True)
        for case in cases:
            if case.kind is InputKind.CINE:
                yield self._segment_cine(case)

    def _read(self, case: InputCase) -> tuple[InputCase, dict[str, Any] | CaseError, float]:
        started = time.perf_counter()
        try:
            data: dict[str, Any] | CaseError = self.segmenter.read(case.paths)
        except Exception as error:  # noqa: BLE001 - whatever a decoder throws costs this case only
            data = _case_error(Reason.UNREADABLE, _explain(case, error))
        return case, data, time.perf_counter() - started

    def _infer(
        self, items: Iterable[tuple[InputCase, dict[str, Any] | CaseError, float]]
    ) -> Iterator[Callable[[], list[Row]]]:
        """Yields what is left to be done for each case behind the network."""
        for chunk in _chunks(items, self.batch_size):
            groups: dict[tuple[int, ...], list[tuple[InputCase, dict[str, Any], float]]] = {}
            for case, data, seconds in chunk:
                if isinstance(data, CaseError):
                    yield partial(self._finish, case, data, seconds)
                else:
                    groups.setdefault(tuple(data["image"].shape), []).append((case, data, seconds))
            for group in groups.values():
                started = time.perf_counter()
                results = self._infer_batch([data for _, data, _ in group])
                share = (time.perf_counter() - started) / len(group)
                for (case, _, seconds), result in zip(group, results, strict=True):
                    yield partial(self._finish, case, result, seconds + share)

    def _infer_batch(self, data: list[dict[str, Any]]) -> Sequence[dict[str, Any] | CaseError]:
        try:
            return self.segmenter.infer(data)
        except Exception as error:  # noqa: BLE001 - out of memory, for one, costs this batch only
            return [_case_error(Reason.NETWORK, error)] * len(data)

    def _finish(self, case: InputCase, result: dict[str, Any] | CaseError, seconds: float) -> list[Row]:
        if isinstance(result, CaseError):
            return [_failed_row(case, result, seconds)]
        started = time.perf_counter()
        try:
            label = self.segmenter.make_label_map(result)
            output, spacing = self.writer.write(case, label)
        except Exception as error:  # noqa: BLE001 - a full disk or an object that cannot be written
            return [_failed_row(case, _case_error(Reason.OUTPUT, error), seconds)]
        measurements = measure_labels(label, self.labels, spacing)
        confidence = self.segmenter.measure_confidence(result)
        seconds += time.perf_counter() - started
        return self._rows(case, output, label.shape, measurements, confidence, seconds)

    def _segment_cine(self, case: InputCase) -> list[Row]:
        started = time.perf_counter()
        pixels: dict[int, list[int]] = {index: [] for index in self.labels}
        confidence: dict[int, list[float]] = {}
        shape: tuple[int, ...] = ()

        def labels() -> Iterator[np.ndarray]:
            nonlocal shape
            for batch in _chunks(self.segmenter.read_frames(case.paths[0]), self.batch_size):
                for result in self.segmenter.infer(batch):
                    label = self.segmenter.make_label_map(result)
                    shape = (*label.shape, len(pixels[1]) + 1)
                    for index, counts in pixels.items():
                        counts.append(int((label == index).sum()))
                    for index, value in self.segmenter.measure_confidence(result).items():
                        confidence.setdefault(index, []).append(value)
                    yield label

        try:
            output = self.writer.write_cine(case, labels())
        except Exception as error:  # noqa: BLE001 - a frame that cannot be decoded, a full disk
            reason = Reason.OUTPUT if isinstance(error, OSError) else Reason.UNREADABLE
            return [_failed_row(case, _case_error(reason, error), time.perf_counter() - started)]
        counted = {self.labels[index]: counts for index, counts in pixels.items()}
        measurements = measure_frames(counted, shape[0] * shape[1])
        means = {index: float(np.mean(values)) for index, values in confidence.items()}
        return self._rows(case, output, shape, measurements, means, time.perf_counter() - started)

    def _rows(
        self,
        case: InputCase,
        output: Path,
        shape: Sequence[int],
        measurements: Sequence[Measurement],
        confidence: Mapping[int, float],
        seconds: float,
    ) -> list[Row]:
        rows = []
        detail = self.writer.why_no_overlay(case)
        for index, measurement in zip(self.labels, measurements, strict=True):
            row = _row(case, seconds)
            row.output = output.relative_to(self.writer.folder).as_posix()
            row.shape = " x ".join(map(str, shape))
            for name, value in asdict(measurement).items():
                setattr(row, name, value)
            row.confidence = round(confidence[index], 4) if index in confidence else None
            row.flag = "" if measurement.pixels else "nothing found"
            row.detail = detail
            rows.append(row)
        return rows


def _row(case: InputCase, seconds: float) -> Row:
    row = Row(case=case.name, kind=case.kind.value, seconds=round(seconds, 3))
    if case.dicom is not None:
        row.study_uid, row.series_uid = case.dicom.study_uid, case.dicom.series_uid
    return row


def _failed_row(case: InputCase, error: CaseError, seconds: float = 0.0) -> Row:
    row = _row(case, seconds)
    row.status = "skipped" if error.skipped else "failed"
    row.reason, row.detail = error.reason, error.detail
    if not error.skipped:
        logger.warning("%s: %s", case.name, error)
    return row


def _case_error(reason: Reason, error: BaseException) -> CaseError:
    while error.__cause__ is not None:  # MONAI wraps a transform's error in one about the transform
        error = error.__cause__
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, DicomError):  # says more precisely what is wrong
        return CaseError(error.reason.value, error.detail)
    return CaseError(reason.value, detail)


def _explain(case: InputCase, error: Exception) -> Exception:
    """Returns what is wrong with a file in plainer words, where they can be had."""
    try:
        if case.paths[0].stat().st_size == 0:
            return ValueError("the file is empty")
        if case.kind is InputKind.IMAGE:
            with Image.open(case.paths[0]) as image:
                image.load()
    except UnidentifiedImageError:
        return ValueError("the file is cut off, or not the image that its name says")
    except Exception as plainer:  # noqa: BLE001 - Pillow's own words for a picture that it cannot decode
        return plainer
    return error


def _identify_input(case: InputCase) -> str:
    """Returns a short hash of the sizes and times of a case's files, which changes when they do; empty without them."""
    try:
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in case.paths]
    except OSError:  # the reason comes when it is read
        return ""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _call_now(function: Callable[[], Out]) -> Out:
    return function()


def _call(function: Callable[[In], Out], argument: In) -> Future[Out]:
    future: Future[Out] = Future()
    future.set_result(function(argument))
    return future


def _map_ahead(
    submit: Callable[..., Future[Out]], function: Callable[[In], Out], items: Iterable[In], ahead: int
) -> Iterator[Out]:
    """Maps in workers, in order, with at most ``ahead`` results waiting."""
    waiting: list[Future[Out]] = []
    for item in items:
        waiting.append(submit(function, item))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _chunks(items: Iterable[In], size: int) -> Iterator[list[In]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
