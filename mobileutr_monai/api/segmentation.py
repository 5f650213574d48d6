"""An open bundle as a function of an image, with the pipeline of ``mobileutr predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mobileutr_monai.api.inputs import ImageInput, TemporaryFolder, save_input
from mobileutr_monai.api.result import SegmentationResult, SegmentedCase
from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.reasons import CaseError, Reason
from mobileutr_monai.inference.batch.channels import group_channels
from mobileutr_monai.inference.batch.cine import CineMeter
from mobileutr_monai.inference.batch.processes.case_worker import CaseLoader, measure_case, to_case_error
from mobileutr_monai.inference.batch.processes.workers import WorkerError, WorkerPool, read_total_memory
from mobileutr_monai.inference.batch.runner import BatchRunner
from mobileutr_monai.inference.batch.stream import CaseStream
from mobileutr_monai.inference.measure import Assessment, Measurement, read_affine
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.result import OutputOptions
from mobileutr_monai.inference.quality import Judge
from mobileutr_monai.readers.cases import FoundInputs, InputCase, UnusedFile, find_cases
from mobileutr_monai.readers.notes import find_notes

__all__ = ["BundleSegmenter"]

BYTES_PER_GIB = 2**30

HOW_TO_ACCEPT = 'load_bundle(..., settings={"any_modality": True}) accepts it'
"""What to do about an image of another modality."""


class _Source(NamedTuple):
    """An input in its place among the others: a case, or why it gives none; and the folder that its files are in."""

    name: str
    case: InputCase | None
    error: CaseError | None = None
    folder: TemporaryFolder | None = None


class BundleSegmenter:
    """Segments images with a bundle: what ``mobileutr predict`` finds in the same file is found here.

    Args:
        runner: of the bundle's ``inference`` config; it loads weights and engine and says what the bundle is for.
        keep: what has to stay as long as this does, such as a temporary folder.

    Attributes:
        labels: index in label maps -> name, from 1 on.
        spatial_dims: 2 for images, 3 for volumes.

    Raises:
        FileNotFoundError, ValueError: see ``loading.load_bundle``.
    """

    def __init__(self, runner: BatchRunner, keep: object = None) -> None:
        self.runner, self._keep = runner, keep
        runner.check_options()
        if not runner.weights.is_file():
            raise FileNotFoundError(f"no weights at {str(runner.weights)!r}; give weights=")
        runner.load_network()
        runner.start_engine()
        self._suitability = replace(runner.suitability, how_to_accept=HOW_TO_ACCEPT)
        digest = hash_file(runner.weights)
        self.labels: Mapping[int, str] = dict(runner.labels)
        self.spatial_dims: int = runner.segmenter.spatial_dims
        self._quality = runner.choose_quality(digest)
        algorithm = Algorithm(str(runner.metadata["name"]), str(runner.metadata["version"]), digest)
        self._options = OutputOptions(runner.segment_labels, algorithm, "auto", overlays=True, whole_overlays=False)

    def __call__(self, image: ImageInput, affine: np.ndarray | None = None) -> SegmentationResult:
        """Segments one image, volume, cine or video.

        Args:
            image: a path (of a file, of the folder or zip of one series), several paths of one series, a PIL image,
                NumPy array, MetaTensor, pydicom Dataset, or NIfTI image of nibabel. An object in memory is written to
                a temporary folder, which is removed with its result.
            affine: (4, 4), from the indices of an array of a volume to RAS in mm.

        Shape:
            array: (rows, columns) or (rows, columns, 3); of 3D bundles (x, y, z). ``save_input`` has the others.

        Raises:
            FileNotFoundError: there is no such file.
            TypeError: the image is nothing of that.
            ValueError: it cannot be segmented; the message has the name, the reason and the detail.
        """
        source = self._find_case(image, affine)
        (result,) = self._segment([source], workers=0)
        if result.error is not None:
            raise ValueError(f"{result.name}: {result.error}") from result.error
        return result

    def many(self, images: str | Path | Iterable[ImageInput], workers: int = 0) -> Iterator[SegmentationResult]:
        """Yields the result of each image, in their order, in batches; errors are results with ``error``.

        Args:
            images: taken as they are needed, so that they may be made on the way; one that is there twice has two
                results; or a folder, all of whose cases are
                segmented as ``mobileutr predict`` does.
            workers: processes that read ahead, so that a crash of a decoder costs its image only; 0 reads in this one.

        Raises:
            FileNotFoundError: there is no such folder.
            TypeError: ``images`` is one image.
            ValueError: ``workers`` is negative.

        Example::

            for result in segment.many(Path("images").glob("*.png")):
                print(result.name, result.error or result.confidence)
        """
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, got {workers}")
        if isinstance(images, (np.ndarray, torch.Tensor, Mapping)) or not isinstance(images, (str, Path, Iterable)):
            raise TypeError(f"many() takes a folder or a list of images, got {type(images).__name__}; give a list")
        if isinstance(images, (str, Path)):
            if not Path(images).is_dir():
                raise FileNotFoundError(f"no folder {str(images)!r}; give a list for single images")
            return self._segment(self._list_folder(Path(images)), workers)
        return self._segment(starmap(self._try_case, enumerate(images)), workers)

    def _list_folder(self, path: Path) -> Iterator[_Source]:
        folder = TemporaryFolder()
        found = self._find_cases([path.absolute()], folder)
        for case in found.cases:
            yield _Source(case.name, case, self._suitability.why_rejected(case), folder)
        yield from (_Source(file.name, None, _to_error(file)) for file in found.unused if file.failed)

    def _try_case(self, index: int, image: ImageInput) -> _Source:
        try:
            return self._find_case(image, stem=f"image_{index}")
        except (OSError, TypeError, ValueError) as error:
            name = str(image) if isinstance(image, (str, Path)) else type(image).__name__
            reason = Reason.NOT_FOUND if isinstance(error, FileNotFoundError) else Reason.UNREADABLE
            return _Source(name, None, CaseError(reason, str(error)))

    def _find_case(self, image: ImageInput, affine: np.ndarray | None = None, stem: str = "image") -> _Source:
        """Returns the one case of an image, or why it has none."""
        folder = TemporaryFolder()
        paths = save_input(image, folder.path, self.spatial_dims, affine, stem)
        found = self._find_cases(paths, folder)
        if len(found.cases) > 1:
            what = paths[0].name if len(paths) == 1 else f"{len(paths)} paths"
            raise ValueError(f"{what}: {len(found.cases)} images, not one; pass one of them, or pass them to many()")
        if not found.cases:
            errors = [_to_error(file) for file in found.unused]
            return _Source(paths[0].name, None, errors[0] if errors else CaseError(Reason.NOT_AN_IMAGE))
        case = found.cases[0]
        is_inside = any(folder.path in path.parents for path in case.paths)
        return _Source(case.name, case, self._suitability.why_rejected(case), folder if is_inside else None)

    def _find_cases(self, paths: Sequence[Path], folder: TemporaryFolder) -> FoundInputs:
        found = find_cases(paths, folder.path / "unpacked")
        return group_channels(found, self.runner.segmenter.network.in_channels, self.spatial_dims)

    def _segment(self, sources: Iterable[_Source], workers: int) -> Iterator[SegmentationResult]:
        """Yields results in the order of the sources; they come back from the network in another one."""
        runner = self.runner
        limit = int(runner.memory_limit * BYTES_PER_GIB) or read_total_memory() // 2
        waiting: dict[int, _Source] = {}
        ended: dict[int, SegmentationResult | None] = {}

        def list_cases() -> Iterator[InputCase]:
            for index, source in enumerate(sources):
                waiting[index] = source
                if source.case is None or source.error is not None:
                    ended[index] = self._fail(source, source.error or CaseError(Reason.NOT_AN_IMAGE))
                elif source.case.kind.has_frames:
                    ended[index] = None  # segmented when it is its turn
                else:
                    yield replace(source.case, output=str(index))

        with WorkerPool(CaseLoader(runner.segmenter.reader), workers, runner.time_limit, limit) as pool:
            stream = CaseStream(runner.segmenter, pool, runner.batch_size, runner.temporal_sigma)
            inferred = stream.infer(list_cases(), stream.count_ahead(workers) if workers else 0)
            turn, following = 0, next(inferred, None)
            while waiting or following is not None:
                while turn in ended:
                    source, result = waiting.pop(turn), ended.pop(turn)
                    yield self._segment_cine(stream, source) if result is None else result
                    turn += 1
                if following is not None:
                    index = int(following.case.output)
                    ended[index] = self._finish(waiting[index], following.result)
                    following = next(inferred, None)

    def _finish(self, source: _Source, result: dict[str, Any] | CaseError) -> SegmentationResult:
        assert source.case is not None
        if isinstance(result, CaseError):
            return self._fail(source, result)
        segmenter = self.runner.segmenter
        try:
            raw = segmenter.measure_confidence(result)
            judge = Judge(self._quality, raw, self._quality.measure_distance(result["image"]))
            label = segmenter.make_label_map(result)
            measured = measure_case(source.case, label, self.labels, judge)
            affine = read_affine(source.case, label.ndim)
        except Exception as error:  # noqa: BLE001 - out of memory, for one, costs this image only
            return self._fail(source, to_case_error(Reason.NETWORK, error, source.case.paths[0]))
        compute = partial(segmenter.make_probabilities, result)
        return self._make_result(source, label, measured.measurements, measured.assessments, compute, affine)

    def _segment_cine(self, stream: CaseStream, source: _Source) -> SegmentationResult:
        assert source.case is not None
        meter = CineMeter(stream.segmenter, self._quality, self.labels, source.case)
        try:
            label = np.stack([np.uint8(frame) for frame in meter.watch(stream.infer_frames(source.case))], axis=-1)
        except CaseError as error:
            return self._fail(source, error)
        except WorkerError:
            raise
        except Exception as error:  # noqa: BLE001 - as for images
            return self._fail(source, to_case_error(Reason.NETWORK, error, source.case.paths[0]))
        measurements = meter.measure()
        result = self._make_result(source, label, measurements, meter.assess(measurements), _refuse_probabilities, None)
        return replace(result, frame_times=np.array(meter.frames.seconds) if source.case.dicom is None else None)

    def _make_result(
        self,
        source: _Source,
        label: np.ndarray,
        measurements: Sequence[Measurement],
        assessments: Sequence[Assessment],
        compute_probabilities: Callable[[], np.ndarray],
        affine: np.ndarray | None,
    ) -> SegmentationResult:
        assert source.case is not None
        names = list(self.labels.values())
        whole = np.ascontiguousarray(label, dtype=np.uint8)
        return SegmentationResult(
            name=source.name,
            labels=self.labels,
            confidence={name: each.confidence for name, each in zip(names, assessments, strict=True)},
            measurements=dict(zip(names, measurements, strict=True)),
            flags={name: tuple(each.flags) for name, each in zip(names, assessments, strict=True)},
            notes=find_notes(source.case),
            affine=affine,
            segmented=SegmentedCase(source.case, whole, compute_probabilities, self._options, source.folder),
        )

    def _fail(self, source: _Source, error: CaseError) -> SegmentationResult:
        return SegmentationResult(source.name, self.labels, error=error)


def _to_error(file: UnusedFile) -> CaseError:
    return CaseError(file.reason, file.detail)


def _refuse_probabilities() -> np.ndarray:
    raise ValueError("the probabilities of a cine or video are not kept; segment its frames one by one")
