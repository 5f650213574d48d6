"""Batch inference over a folder with a bundle's own objects."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file, write_text
from mobileutr_monai.core.choices import SEG_TYPES, Formats, check_formats, parse_formats
from mobileutr_monai.core.folders import check_folders, check_inputs, refuse_mangled
from mobileutr_monai.core.output_folder import OutputFolder, parse_files
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.core.text import NOT_DECODED, NOTICE, pluralize
from mobileutr_monai.core.walk import Listing, list_inputs
from mobileutr_monai.inference.batch.channels import group_channels
from mobileutr_monai.inference.batch.delivery import Deliver, RemoteFolder
from mobileutr_monai.inference.batch.errors import UsageError
from mobileutr_monai.inference.batch.foresight import foresee_run
from mobileutr_monai.inference.batch.networks import load_networks, start_engines
from mobileutr_monai.inference.batch.output_lock import check_changes, lock_output, make_unpacking_dir
from mobileutr_monai.inference.batch.pipeline import Pipeline, failed_row, hash_input, stat_input
from mobileutr_monai.inference.batch.processes.case_worker import CaseWorker, is_full_disk
from mobileutr_monai.inference.batch.processes.fork_server import start_fork_server
from mobileutr_monai.inference.batch.processes.workers import WorkerError, WorkerPool, read_total_memory
from mobileutr_monai.inference.batch.streaming import StreamOptions, StreamRun, unused_row
from mobileutr_monai.inference.batch.suitability import Suitability, check_found
from mobileutr_monai.inference.cluster.options import ClusterOptions
from mobileutr_monai.inference.engines.choice import AUTO, DEFAULT_ENGINE
from mobileutr_monai.inference.engines.table import ENGINES
from mobileutr_monai.inference.ensemble import describe_average
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.dicom.seg import read_segment_labels
from mobileutr_monai.inference.outputs.result import OutputOptions
from mobileutr_monai.inference.outputs.writers import CaseWriter
from mobileutr_monai.inference.quality import QualityCheck
from mobileutr_monai.inference.report.coco import COCO, check_coco, clear_coco, write_coco
from mobileutr_monai.inference.report.csv import ReportTable, Wanted, check_report
from mobileutr_monai.inference.report.pages import PAGE, PAGES_DIR, clear_pages, write_pages
from mobileutr_monai.inference.report.parquet import PARQUET, check_parquet, clear_parquet, write_parquet
from mobileutr_monai.inference.report.row import Row
from mobileutr_monai.inference.report.thumbnails import clear_thumbnails, thumbnail_path
from mobileutr_monai.inference.segmenter import Segmenter
from mobileutr_monai.networks.mobileutr import SIZE_DIVISOR, MobileUtr
from mobileutr_monai.readers.cases import FoundInputs, InputCase, find_cases

if TYPE_CHECKING:
    from mobileutr_monai.inference.cluster.ray_pipeline import RayPipeline

__all__ = ["BatchRunner", "RunResult", "UsageError"]

logger = logging.getLogger(__name__)

LOCK_FILE, UNPACKING_DIR = "lock", "unpacked"
VERSIONS = ("mobileutr-monai", "monai", "torch", "numpy", "pillow")
BYTES_PER_GIB = 2**30


class RunResult(NamedTuple):
    """How a run went.

    Attributes:
        counts: status -> number of cases; empty for a dry run.
        report: the page, or the table where no page is asked for; None for a dry run.
        foreseen: of a dry run, a line for each case and each file that is not used; ``counts`` then has those that are
            known to fail.
        refusal: of a dry run, why the run would not begin; empty if nothing is known to be in its way.
    """

    counts: Mapping[str, int]
    report: Path | None
    foreseen: tuple[str, ...] = ()
    refusal: str = ""


class BatchRunner:
    """Segments everything in a folder that a bundle is for, with the objects of its ``inference`` config.

    2D bundles take images (PNG, JPEG, BMP, TIFF, WebP, GIF, 2D NIfTI), DICOM stills and cines, and videos; 3D bundles
    take NIfTI volumes and DICOM series. Results lie in the output folder as the inputs lie in theirs, with the input's
    own size and geometry:

    - images: ``NAME_mask.png``, label indices, 0 is background;
    - NIfTI: ``NAME_mask.nii.gz``;
    - DICOM stills and series: ``NAME_seg.dcm``, a DICOM Segmentation;
    - cines and videos: ``NAME_mask.nii.gz``, a stack of frames;
    - and, if asked, ``NAME_overlay.png``, of cines ``NAME_overlay.dcm``, of videos ``NAME_overlay.mp4``.

    ``report.csv`` gets one row per label per case as they are done, ``report.json`` says at the end what ran, and
    ``report.html`` shows all of it. A case that fails is reported with its reason and does not stop the others. Every
    other file is whole or absent. A run that was stopped resumes, if inputs, weights and options are the
    same.

    The constructor touches no file; ``run`` checks everything, so that a bundle without weights can be inspected.

    Args:
        dataset_dir: folder with inputs, searched with its subfolders, or an address such as ``s3://bucket/prefix``.
        output_dir: folder to write to, outside ``dataset_dir``, or an address.
        segmenter: the bundle's network, transforms and inferer.
        weights: state dict file, loaded strictly into the network; of several, the probabilities are averaged.
        metadata: of the bundle.
        bundle_root: folder of the bundle, whose config the report names by its hash.
        settings: what else decides the results; a run with others does not resume an earlier one.
        model_settings: config id -> value that weights are trained with; other weights are refused.
        check_settings: whether to compare ``model_settings`` with those kept next to the weights.
        quality: gives results their confidence and flags; without one the confidence stays empty.
        engine: what computes the logits, a name in ``ENGINES``, or ``auto`` for the fastest on this machine.
        engine_parity: which engines give the masks of ``torch`` with these weights; others are refused.
        batch_size: images that go through the network together.
        temporal_sigma: frames over which the probabilities of a cine are averaged (standard deviation); 0 for none.
        overlays: whether to draw contours.
        whole_overlays: draw on the whole of an ultrasound image, including areas that may show burned-in patient names.
        report_page: whether to make ``report.html``, with small pictures of the same parts of images as overlays.
        output_format: ``auto``, or ``plain`` for PNG and NIfTI instead of DICOM SEG; and what results are also written
            in, of ``FURTHER_FORMATS``: a list, or a text with commas.
        seg_type: ``binary``: DICOM SEG with one frame per label and slice; ``labelmap``: one frame per slice.
        keep_empty_frames: also write frames of DICOM SEG without a pixel.
        place_stills: give the DICOM SEG of stills without a place in the patient a synthetic one.
        probabilities: also write ``NAME_probabilities.dcm`` for DICOM stills and series, a fractional DICOM SEG.
        structured_report: also write ``NAME_sr.dcm`` for DICOM stills and series, their measurements.
        presentation_state: also write ``NAME_pr.dcm`` for DICOM stills and cines, their contours.
        components: give every component of a label a row of its own in ``report.csv``, too.
        any_modality: also take DICOM of modalities that the bundle is not for.
        workers: processes that read and write while the network runs, so that a decoder's crash costs its case only; 0
            reads and writes in this process, without that protection.
        time_limit: seconds that reading or writing a case, or reading a frame of a cine or video, may take.
        memory_limit: GiB that reading or writing a case may take; 0 for half of the machine's memory.
        dry_run: only say what would be done.
        overwrite: replace the results of an earlier run with other weights or settings; without, it is an error.
        inputs: files and folders in ``dataset_dir`` to segment, all of it by default.
        stream: inputs and results that do not lie in one folder each.
        cluster: a Ray cluster that segments the cases; of each node, ``workers`` and limits hold for every actor.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        output_dir: str | Path,
        segmenter: Segmenter,
        weights: str | Path | Sequence[str | Path],
        metadata: Mapping[str, Any],
        bundle_root: str | Path,
        settings: Mapping[str, Any] | None = None,
        model_settings: Mapping[str, Any] | None = None,
        check_settings: bool = True,
        quality: QualityCheck | None = None,
        engine: str = DEFAULT_ENGINE,
        engine_parity: Mapping[str, Any] | None = None,
        batch_size: int = 8,
        temporal_sigma: float = 0.0,
        overlays: bool = True,
        whole_overlays: bool = False,
        report_page: bool = True,
        output_format: str | Sequence[str] = "auto",
        seg_type: str = "binary",
        keep_empty_frames: bool = False,
        place_stills: bool = False,
        probabilities: bool = False,
        structured_report: bool = False,
        presentation_state: bool = False,
        components: bool = False,
        any_modality: bool = False,
        workers: int = 2,
        time_limit: float = 600.0,
        memory_limit: float = 0.0,
        dry_run: bool = False,
        overwrite: bool = False,
        inputs: Sequence[str | Path] = (),
        stream: StreamOptions | None = None,
        cluster: ClusterOptions | None = None,
    ) -> None:
        every = [weights] if isinstance(weights, (str, Path)) else list(weights)
        if not every:
            raise ValueError("weights must name a file at least")
        self._given_paths = {"dataset_dir": dataset_dir, "output_dir": output_dir}
        self._given_paths |= {"weights" if not i else f"weights {i}": path for i, path in enumerate(every)}
        # Absolute: MONAI's LoadImage takes a "~" at the beginning for the home directory.
        self.dataset_dir = Path(dataset_dir).absolute()
        self.inputs = [Path(path).absolute() for path in inputs]
        self.stream, self.cluster = stream or StreamOptions(), cluster or ClusterOptions()
        self.output_dir = Path(self.stream.work_dir or output_dir)
        if self.cluster.is_needed:  # an actor has a current folder of its own
            self.output_dir = self.output_dir.absolute()
        self.segmenter, self.weights = segmenter, Path(every[0])
        self.every_weights = [Path(path) for path in every]
        self.members: list[MobileUtr] = []
        self.metadata, self.settings = metadata, dict(settings or {})
        self.folder = OutputFolder(self.output_dir)
        self.is_stream = self.stream.is_needed(dataset_dir, output_dir)
        self.model_settings = dict(model_settings or {}) if check_settings else {}
        self.config = Path(bundle_root) / "configs" / "inference.json"
        self.segment_labels = read_segment_labels(metadata)
        self.labels = {label.index: label.name for label in self.segment_labels}
        self.quality, self.temporal_sigma = quality or QualityCheck(), temporal_sigma
        self.engine, self.engine_parity = engine, dict(engine_parity or {})
        self.batch_size, self.workers, self.dry_run = batch_size, workers, dry_run
        self.overwrite = overwrite
        self.time_limit, self.memory_limit = time_limit, memory_limit
        self.overlays, self.whole_overlays, self.report_page = overlays, whole_overlays, report_page
        self.output_format = output_format
        self.suitability = Suitability(segmenter.spatial_dims, metadata["modalities"], any_modality)
        self.seg_type, self.keep_empty_frames, self.probabilities = seg_type, keep_empty_frames, probabilities
        self.components, self.structured_report = components, structured_report
        self.presentation_state, self.place_stills = presentation_state, place_stills

    def main(self) -> None:
        """Runs over the folder with a progress bar and says on stderr how it went: the config's entry point.

        Raises:
            SystemExit: with code 2 when folder, weights or options cannot be used, with code 1 when cases failed.
        """
        try:
            result = self.run(progress=True)
        except (UsageError, WorkerError) as error:
            print(f"mobileutr: error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except OSError as error:
            what = f"the disk of {self.output_dir} is full; make room" if is_full_disk(error) else str(error)
            print(f"mobileutr: error: {what}; run the same command again to resume", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            print("mobileutr: stopped; run the same command again to resume", file=sys.stderr)
            raise SystemExit(1) from None
        for line in result.foreseen:
            print(line)
        if self.dry_run:
            print(NOT_DECODED, file=sys.stderr)
            if result.refusal:
                print(f"mobileutr: error: {result.refusal}", file=sys.stderr)
                raise SystemExit(2)
            if result.counts["failed"]:
                raise SystemExit(1)
            return
        counts = result.counts
        numbers = f"{pluralize(counts['ok'], 'case')} segmented, {counts['failed']} failed, {counts['skipped']} skipped"
        report = result.report.resolve() if result.report else ""
        print(f"{numbers}; see {report}", file=sys.stderr)
        if counts["failed"]:
            raise SystemExit(1)

    def run(self, progress: bool = False) -> RunResult:
        """Runs over the folder; it neither prints nor exits.

        Args:
            progress: whether to draw a progress bar on stderr.

        Raises:
            UsageError: folder, weights or options cannot be used.
            WorkerError: no worker process can be started.
            OSError: the disk is full, or the output folder cannot be written to.
        """
        self.check_options()
        self._check_folders()
        self.cluster.check()
        streamed = self._open_stream(progress) if self.is_stream else None
        if self.dry_run:
            return RunResult(*foresee_run(self, streamed))
        if self.workers and not self.cluster.is_needed:
            start_fork_server()
        self.load_network()
        self.start_engine()
        with lock_output(self.folder), make_unpacking_dir(self.folder) as unpacked:
            started = time.perf_counter()
            if streamed is not None:
                identity = self.identify_run()
                counts = streamed.segment(unpacked, identity)
            else:
                found = self.find_cases(unpacked)
                rejected = self.suitability.reject_all(found)
                check_found(found, rejected, self.segmenter.spatial_dims, self.dataset_dir, self.inputs)
                identity = self.identify_run()
                counts = self._segment(found, rejected, identity, progress)
            summary = self.summarise(counts, time.perf_counter() - started, identity)
            write_text(self.output_dir / "report.json", json.dumps(summary, indent=2) + "\n")
            if self.report_page:
                self._write_at_end("report page", lambda: write_pages(self.output_dir, summary, self.labels.values()))
            if "coco" in self.formats.further:
                self._write_at_end(COCO, lambda: write_coco(self.output_dir, self.segment_labels, identity["bundle"]))
            if "parquet" in self.formats.further:
                self._write_at_end(PARQUET, lambda: write_parquet(self.output_dir))
            self._deliver_report()
        return RunResult(counts, self.output_dir / (PAGE if self.report_page else "report.csv"))

    @cached_property
    def formats(self) -> Formats:
        """What results are written in."""
        return parse_formats(self.output_format)

    def load_network(self) -> None:
        """Loads the weights and switches the network to evaluation.

        Raises:
            UsageError: they do not exist, cannot be read or do not fit.
        """
        name = str(self.metadata["name"])
        self.members = load_networks(self.segmenter.network, self.every_weights, self.model_settings, name)

    def start_engine(self) -> None:
        """Has the segmenter use the engine, after the weights are loaded; ``auto`` is chosen here.

        Raises:
            UsageError: the engine is refused for these weights, not installed or not for the device.
        """
        self.engine = start_engines(
            self.engine,
            self.segmenter,
            self.members,
            self.every_weights,
            self.engine_parity,
            self.settings,
            self.batch_size,
        )

    def choose_quality(self, weights_sha256: str) -> QualityCheck:
        """Returns the quality check that holds for these weights and averages; the log says what does not."""
        average = describe_average(len(self.every_weights), self.segmenter.flip_axes)
        if not average:
            return self.quality.for_weights(weights_sha256)
        logger.warning("confidence stays empty: it is not calibrated for means of %s", average)
        return self.quality.without_calibration()

    def _open_stream(self, progress: bool) -> StreamRun:
        source, output = self._given_paths["dataset_dir"], self._given_paths["output_dir"]
        self.folder = self.stream.choose_folder(output)
        if isinstance(self.folder, RemoteFolder) and "coco" in self.formats.further:
            raise UsageError(f"{COCO} is made from the masks of a folder, and {output} is an address; leave coco out")
        return StreamRun(self, self.stream.open_source(source, self.output_dir), progress)

    def _deliver_report(self) -> None:
        """Sends the report after the results, where these go to an address."""
        if isinstance(self.folder, RemoteFolder):
            names = ("report.csv", "run.json", "report.json", PAGE, PARQUET)
            pages = sorted((self.output_dir / PAGES_DIR).glob("*.html"))
            paths = [self.output_dir / name for name in names]
            self.folder.deliver_report(path for path in (*paths, *pages) if path.is_file())

    def find_cases(self, unpacked: Path, root: Path | None = None, listing: Listing | None = None) -> FoundInputs:
        """Finds the cases of the input folder, of the chosen inputs in it, or of some files in another one."""
        if listing is None and self.inputs:
            _, listing = list_inputs(self.inputs)
        found = find_cases(root or self.dataset_dir, unpacked, listing)
        return group_channels(found, self.segmenter.network.in_channels, self.segmenter.spatial_dims)

    def _write_at_end(self, name: str, write: Callable[[], object]) -> None:
        """Makes a file of all results; what is wrong with it costs it alone."""
        try:
            write()
        except Exception as error:
            if is_full_disk(error):
                raise
            logger.warning("no %s: %s; report.csv has all results", name, str(error) or type(error).__name__)

    def _segment(
        self, found: FoundInputs, rejected: Mapping[str, CaseError | None], identity: dict[str, Any], progress: bool
    ) -> dict[str, int]:
        wanted = [case for case in found.cases if rejected[case.name] is None]
        input_stats = {case.name: stat_input(case) for case in wanted}
        ledger = ReportTable(self.folder, identity, list(self.labels.values()))
        self.prepare_output(ledger)
        done = ledger.open(
            {case.name: Wanted(case.output, input_stats[case.name], partial(hash_input, case)) for case in wanted},
            [case.name for case in found.cases if rejected[case.name]] + [file.name for file in found.unused],
        )
        if done:
            logger.warning("resuming an earlier run: %d of %s done", len(done), pluralize(len(wanted), "case"))
        for file in found.unused:
            ledger.append([unused_row(file)])
            if file.failed or self.dataset_dir / file.name in self.inputs:
                logger.warning("%s: %s", file.name, CaseError(file.reason, file.detail))
        for case in found.cases:
            error = rejected[case.name]
            if error is not None:
                ledger.append([failed_row(case, error)])
                if self.dataset_dir / case.name in self.inputs:
                    logger.warning("%s: %s", case.name, error)
        todo = [case for case in wanted if case.name not in done]
        disable = None if progress else True  # None draws the bar on a terminal alone: in a file it would break lines
        try:
            with (
                self.open_pipeline(identity) as pipeline,
                tqdm(total=len(wanted), initial=len(done), desc="Segmenting", unit="case", disable=disable) as bar,
            ):
                for case, rows in pipeline.segment(todo, input_stats, self.workers):
                    self.publish(case, rows, ledger)
                    bar.update()
        finally:
            self.folder.discard_all()  # what was on its way when the run was stopped
        return ledger.close()

    def prepare_output(self, ledger: ReportTable) -> None:
        """Checks that an earlier run had the same settings, and removes what it left in the making.

        Raises:
            UsageError: it had others, and is not to be overwritten.
        """
        check_changes(ledger, overwrite=self.overwrite)
        clear_pages(self.output_dir)
        clear_coco(self.output_dir)
        clear_parquet(self.output_dir)
        if not self.report_page:
            clear_thumbnails(self.output_dir)
        self.folder.discard_all()

    @contextmanager
    def open_pipeline(
        self, identity: Mapping[str, Any], deliver: Deliver | None = None
    ) -> Iterator[Pipeline | RayPipeline]:
        """Has what segments cases: this process and its workers, or the actors of a cluster.

        Raises:
            UsageError: there is no such cluster.
        """
        if self.cluster.is_needed:
            from mobileutr_monai.inference.cluster.ray_pipeline import RayPipeline  # which imports this package's floor

            with RayPipeline(self, identity, deliver) as actors:
                yield actors
        else:
            worker = self.make_worker(identity)
            with self.make_pool(worker) as pool:
                yield self.make_pipeline(worker, pool, identity, deliver)

    def make_pipeline(
        self, worker: CaseWorker, pool: WorkerPool, identity: Mapping[str, Any], deliver: Deliver | None = None
    ) -> Pipeline:
        """Returns what segments cases with this runner's network."""
        average = describe_average(len(self.every_weights), self.segmenter.flip_axes)
        quality = self.choose_quality(identity["weights_sha256"])
        versions = ", ".join(f"{name} {number}" for name, number in identity["versions"].items())
        return Pipeline(
            self.segmenter, worker, pool, quality, self.batch_size, self.temporal_sigma, versions, average, deliver
        )

    def publish(self, case: InputCase, rows: Sequence[Row], ledger: ReportTable) -> str:
        """Enters a case into the report, then gives its files their names, unless others have them.

        Returns:
            the status of the case.
        """
        files = parse_files(rows[0].files)
        if obstacle := self.folder.find_obstacle(case.output, files):
            rows = [failed_row(case, CaseError(Reason.IN_THE_WAY, obstacle), rows[0].seconds)]
            files = {}
        ledger.append(rows)
        if files:
            self._publish_thumbnail(case)
            self.folder.publish(case.output, files)
        self.folder.discard(case.output)
        return rows[0].status

    def _publish_thumbnail(self, case: InputCase) -> None:
        staged = thumbnail_path(self.folder.find_staged(case.output), case.output)
        if staged.is_file():
            target = thumbnail_path(self.output_dir, case.output)
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)

    def make_worker(self, identity: Mapping[str, Any]) -> CaseWorker:
        algorithm = Algorithm(str(self.metadata["name"]), str(self.metadata["version"]), identity["weights_sha256"])
        options = OutputOptions(
            self.segment_labels,
            algorithm,
            self.formats.mask,
            self.overlays,
            self.whole_overlays,
            thumbnails=self.report_page,
            structured_report=self.structured_report,
            presentation_state=self.presentation_state,
            formats=self.formats.further,
            seg_type=self.seg_type,
            keep_empty_frames=self.keep_empty_frames,
            place_stills=self.place_stills,
            probabilities=self.probabilities,
        )
        writer = CaseWriter(self.output_dir, options)
        return CaseWorker(self.segmenter.reader, writer, self.labels, measures_components=self.components)

    def make_pool(self, worker: CaseWorker) -> WorkerPool:
        limit = int(self.memory_limit * BYTES_PER_GIB) or read_total_memory() // 2
        try:
            return WorkerPool(worker, self.workers, self.time_limit, limit)
        except TypeError as error:
            raise UsageError(
                f"the bundle's transforms: {error}; set workers to 0, which reads in this process"
            ) from error

    def check_options(self) -> None:
        """Checks what does not depend on folders.

        Raises:
            UsageError: an option has a value that cannot be used.
        """
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.workers < 0:
            raise UsageError(f"workers must be 0 or more, got {self.workers}")
        if not 0 <= self.temporal_sigma < math.inf:
            raise UsageError(f"temporal_sigma must be 0 or more frames, got {self.temporal_sigma}")
        self._check_size()
        if self.time_limit <= 0:
            raise UsageError(f"time_limit must be more than 0 seconds, got {self.time_limit}")
        if self.memory_limit < 0:
            raise UsageError(f"memory_limit must be 0 or more GiB, got {self.memory_limit}")
        if self.engine not in (AUTO, *ENGINES):
            raise UsageError(f"engine {self.engine!r} is unknown; choose one of {AUTO}, {', '.join(ENGINES)}")
        if self.seg_type not in SEG_TYPES:
            raise UsageError(f"seg_type must be one of {', '.join(SEG_TYPES)}, got {self.seg_type!r}")
        try:
            check_formats(self.formats, self.segmenter.spatial_dims)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _check_size(self) -> None:
        """Checks the sides of images or windows that the network is given, where the config has them as a setting."""
        for name in {"image_size", "roi_size"} & self.settings.keys():
            size, dims = self.settings[name], self.segmenter.spatial_dims
            is_size = isinstance(size, (list, tuple)) and len(size) == dims
            if not is_size or not all(isinstance(side, int) and side > 0 and side % SIZE_DIVISOR == 0 for side in size):
                raise UsageError(
                    f"{name} must be {dims} multiples of {SIZE_DIVISOR}, such as {[256] * dims}, got {size!r}"
                )

    def _check_folders(self) -> None:
        try:
            refuse_mangled(**self._given_paths)
            if self.inputs and self.is_stream:
                raise ValueError(
                    "several files or folders cannot be combined with a list or an address; give one source"
                )
            if self.inputs:
                check_inputs(self.inputs, self.dataset_dir, self.output_dir)
            elif not self.is_stream:
                check_folders(self.dataset_dir, self.output_dir)
            check_report(self.output_dir)
            if "coco" in self.formats.further:
                check_coco(self.output_dir)
            if "parquet" in self.formats.further:
                check_parquet(self.output_dir)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def identify_run(self, engine: str = "") -> dict[str, Any]:
        """Returns what decides the results, and what the report says of the run besides.

        Args:
            engine: name in ``ENGINES``; that of the run by default.
        """
        engine = engine or self.engine
        options: dict[str, Any] = {
            "output_format": ",".join(self.formats.of_cases),
            "overlays": self.overlays,
            "whole_overlays": self.whole_overlays,
            "seg_type": self.seg_type,
            "keep_empty_frames": self.keep_empty_frames,
            "place_stills": self.place_stills,
            "probabilities": self.probabilities,
            "structured_report": self.structured_report,
            "presentation_state": self.presentation_state,
            "components": self.components,
            "temporal_sigma": self.temporal_sigma,
            "flip_axes": list(self.segmenter.flip_axes),
            "networks": len(self.every_weights),
        }
        if isinstance(self.folder, RemoteFolder):
            options["output"] = self.folder.url
        settings = json.loads(json.dumps(self.settings, default=str))
        return {
            "weights_sha256": self._hash_weights(),
            "config_sha256": hash_file(self.config),
            "bundle": f"{self.metadata['name']} {self.metadata['version']}",
            "settings": settings,
            "options": options,
            "engine": engine,
            "versions": {name: version(name) for name in (*VERSIONS, *ENGINES[engine].packages)},
        }

    def _hash_weights(self) -> str:
        """Returns the hash of the weights; of several, that of their hashes in order."""
        hashes = [hash_file(path) for path in self.every_weights]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def summarise(self, counts: Mapping[str, int], seconds: float, identity: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "notice": NOTICE,
            "cases": dict(counts),
            "seconds": round(seconds, 2),
            "labels": self.labels,
            "device": str(self.segmenter.device),
            "precision": ENGINES[self.engine].precision,
            "python": platform.python_version(),
            **identity,
        }
