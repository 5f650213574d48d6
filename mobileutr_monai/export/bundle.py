"""A bundle's network as one file for another runtime, compared with the bundle itself before it is kept."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image
from scipy.ndimage import zoom

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.choices import check_export
from mobileutr_monai.core.folders import require_configs
from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.core.model_settings import read_settings
from mobileutr_monai.core.text import NOTICE, pluralize
from mobileutr_monai.export.end_to_end import EndToEndModel, check_preprocessing
from mobileutr_monai.export.formats import FORMATS, convert_to_openvino, describe_ranges, require, save_onnx
from mobileutr_monai.export.int8 import EXTRA, INT8, PACKAGES, collect_inputs, quantize, split_images
from mobileutr_monai.export.label_pixels import label_pixels
from mobileutr_monai.export.prepare import quiet
from mobileutr_monai.networks import fold_network, load_weights
from mobileutr_monai.readers.pillow_io import open_image, to_mode

__all__ = ["Exported", "export_bundle"]

logger = logging.getLogger(__name__)

MAX_SAMPLES = 8
_SEEDED_SIDES = {2: ((256, 256), (300, 420), (777, 513), (96, 128)), 3: ((48, 56, 40),)}
_EXAMPLE_SIDES = (300, 420)


class Exported(NamedTuple):
    """What was written.

    Attributes:
        files: the exported file, or files.
        report: JSON: what was compared, and how far it agrees.
        content: of the report.
    """

    files: list[Path]
    report: Path
    content: dict[str, Any]


def export_bundle(
    bundle: Path,
    file_format: str,
    output: Path,
    end_to_end: bool = False,
    weights: Path | None = None,
    *,
    with_probabilities: bool = False,
    int8: Path | None = None,
) -> Exported:
    """Writes a bundle's network, reopens it, compares, and keeps it if its label maps are the bundle's.

    Configs are code: only export bundles that you trust.

    Args:
        file_format: name in ``FORMATS``.
        output: file to write; the report lies next to it, with ``.parity.json`` behind its name.
        end_to_end: bake pre- and postprocessing in: ONNX and OpenVINO of 2D bundles.
        weights: state dict to use instead of the bundle's own.
        with_probabilities: an end-to-end file has a second output, ``probabilities``.
        int8: folder of images like those of the training: an OpenVINO file is quantised with most of them, and
            compared on the others as well.

    Raises:
        FileNotFoundError: there is no such bundle, or it has no weights.
        ValueError: the format is not for this, a package is missing, weights do not fit, or the label maps differ.
    """
    kind = FORMATS[file_format]
    check_export(file_format, output, end_to_end, int8)
    require(kind.packages, kind.extra, f"--format {file_format}")
    if int8 is not None:
        require(PACKAGES, EXTRA, "--int8")
    parser = _read_bundle(bundle, weights or bundle / "models" / "model.pt")
    segmenter, path = parser.get_parsed_content("segmenter"), weights or Path(parser.get_parsed_content("weights"))
    load_weights(segmenter.network, path)
    segmenter.network.eval()
    if end_to_end and segmenter.spatial_dims != 2:
        raise ValueError("--end-to-end and --format web are for 2D bundles; export this one in another way")
    if segmenter.spatial_dims not in kind.spatial_dims:
        raise ValueError(f"--format {file_format} is for 2D bundles; export this one in another format")
    sides = json.dumps(list(parser.get_parsed_content("image_size"))) if kind.fixed_size else None
    calibrating, held_out = split_images(int8) if int8 is not None else ([], [])
    facts = _describe(parser, path, segmenter, end_to_end, sides)
    if int8 is not None:
        facts["precision"] = INT8
    logger.warning("exporting %s as %s, which may take half a minute", facts["name"], file_format)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        made = Path(folder) / output.name
        if end_to_end:
            source = made if file_format == "onnx" else made.with_suffix(".onnx")
            _write_end_to_end(parser, segmenter, source, facts, with_probabilities)
            if file_format == "openvino":
                convert_to_openvino(source, made, facts)
        else:
            kind.write(segmenter.network, made, facts)
        if int8 is not None:
            logger.warning("calibrating int8 with %s", pluralize(len(calibrating), "image"))
            quantize(made, collect_inputs(segmenter, calibrating))
        run, found = kind.open(made)
        if found != facts:
            raise ValueError(f"{file_format} does not keep what it was told of the bundle; report this as a fault")
        samples = _find_samples(bundle)
        paths = [*samples, *held_out] or list(_make_inputs(Path(folder), segmenter.spatial_dims))
        logger.warning("comparing it with the bundle on %s", pluralize(len(paths), "image"))
        if end_to_end:
            clean = parser.get_parsed_content("keep_largest_pieces") if parser.get("largest_piece", False) else None
            crop_bars = bool(parser.get("crop_bars", False))
            segment = partial(label_pixels, run, crop_bars=crop_bars, clean=clean)
            compared = _compare_end_to_end(paths, segmenter, segment)
        else:
            compared = _compare(paths, segmenter, run)
        content = {
            "notice": NOTICE,
            "format": file_format,
            "end_to_end": end_to_end,
            "facts": facts,
            "sha256": {part.name: hash_file(part) for part in kind.files(made)},
            "compared_with": "the bundle in float32 by torch, label maps at the images' own size",
            "images": [path.name for path in (*samples, *held_out)]
            or f"{pluralize(len(paths), 'seeded one')}: the bundle ships no samples",
            **compared,
            "limit_percent": MAX_MISMATCH_PERCENT,
            "versions": {name: version(name) for name in ("mobileutr-monai", "monai", "torch", *kind.packages)},
        }
        if compared["percent_differing"] > MAX_MISMATCH_PERCENT:
            raise ValueError(
                f"the exported file labels {compared['percent_differing']} % of the pixels otherwise than the bundle "
                f"(at most {MAX_MISMATCH_PERCENT} %); nothing was written"
            )
        report = output.with_name(f"{output.name}.parity.json")
        made_report = Path(folder) / report.name
        made_report.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        files = [part.replace(output.parent / part.name) for part in kind.files(made)]
        made_report.replace(report)
    return Exported(files, report, content)


def _read_bundle(bundle: Path, weights: Path) -> ConfigParser:
    """Reads a bundle's config, with the settings that its weights were trained with."""
    require_configs(bundle)
    config, meta = bundle / "configs" / "inference.json", bundle / "configs" / "metadata.json"
    parser = ConfigParser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI's imports: optional packages that this project does not use
        parser.read_config(str(config))
        parser.read_meta(str(meta))
        settings = {name: value for name, value in read_settings(weights).items() if name in parser}
        parser.update({**settings, "bundle_root": bundle, "device": torch.device("cpu")})
        parser.parse(True)
        parser.get_parsed_content("segmenter")  # here, since its readers warn; the parser keeps it
    return parser


def _describe(
    parser: ConfigParser, weights: Path, segmenter: Any, end_to_end: bool, sides: str | None
) -> dict[str, str]:
    """Returns what the file says of itself."""
    meta = parser["_meta_"]
    outputs = meta["network_data_format"]["outputs"]["pred"]
    if end_to_end:
        taken = f"uint8 pixels (rows, columns, {segmenter.network.in_channels}) of one image of any size"
        given = "uint8 label indices (rows, columns)"
    else:
        ranges = describe_ranges(segmenter.spatial_dims) if sides is None else f"one image of {sides}"
        taken = f"float32 (batch, channels, sides), {ranges}; preprocessed as the bundle does"
        given = "float32 logits, of the input's size"
    return {
        "name": str(meta["name"]),
        "version": str(meta["version"]),
        "notice": NOTICE,
        "labels": json.dumps(outputs["channel_def"]),
        "modalities": json.dumps(meta["modalities"]),
        "weights_sha256": hash_file(weights),
        "input": taken,
        "output": given,
        "end_to_end": json.dumps(end_to_end),
        # What "mobileutr predict" does before and after such a file; others may do it themselves.
        "crop_bars": json.dumps(end_to_end and bool(parser.get("crop_bars", False))),
        "largest_piece": json.dumps(end_to_end and bool(parser.get("largest_piece", False))),
        "channels": str(segmenter.network.in_channels),
        "threshold": str(segmenter.threshold),
        "min_peak": str(parser.get("min_peak", 0.0)),
        "settings": json.dumps(parser.get_parsed_content("settings"), default=str),
        "mobileutr-monai": version("mobileutr-monai"),
    } | ({} if sides is None else {"sides": sides})


def _write_end_to_end(
    parser: ConfigParser, segmenter: Any, path: Path, facts: dict[str, str], with_probabilities: bool
) -> None:
    size = parser.get_parsed_content("image_size")
    check_preprocessing(segmenter.reader.preprocessing, size)
    network = fold_network(segmenter.network)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's overloads lack it
    example = torch.zeros(*_EXAMPLE_SIDES, segmenter.network.in_channels, dtype=torch.uint8)
    dims = {0: torch.export.Dim("rows", min=2, max=2**16), 1: torch.export.Dim("columns", min=2, max=2**16)}
    model = EndToEndModel(
        network,
        size,
        segmenter.threshold,
        float(parser.get("min_peak", 0.0)),
        with_probabilities=with_probabilities,
    )
    with quiet():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(dims,),
            input_names=["pixels"],
            output_names=["label", "probabilities"] if with_probabilities else ["label"],
            opset_version=20,
            verbose=False,
        )
    save_onnx(program, path, facts)


def _find_samples(bundle: Path) -> list[Path]:
    folder = bundle / "sample_data" / "images"
    return sorted(folder.iterdir())[:MAX_SAMPLES] if folder.is_dir() else []


def _compare(paths: Sequence[Path], segmenter: Any, run: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Compares logits and label maps, each at its own size."""
    network = segmenter.predictor
    pixels = differing = 0
    largest = 0.0
    for path in paths:
        case, results = segmenter.reader.read([path]), []
        for predictor in (network, lambda image: torch.from_numpy(run(np.ascontiguousarray(image.numpy())))):
            segmenter.predictor = predictor
            results += segmenter.infer([case])
        largest = max(largest, float(np.abs(np.asarray(results[0]["pred"]) - np.asarray(results[1]["pred"])).max()))
        expected, found = (segmenter.make_label_map(result) for result in results)
        pixels, differing = pixels + expected.size, differing + int((expected != found).sum())
    segmenter.predictor = network
    return {**_count(differing, pixels), "largest_logit_difference": float(f"{largest:.2e}")}


def _compare_end_to_end(
    paths: Sequence[Path], segmenter: Any, run: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Compares label maps, each at its own size."""
    mode = "RGB" if segmenter.network.in_channels == 3 else "L"
    pixels = differing = 0
    for path in paths:
        expected = segmenter.make_label_map(segmenter.infer([segmenter.reader.read([path])])[0])
        with open_image(path, "image") as image:
            array = np.asarray(to_mode(image, mode))
        found = run(array.reshape(*array.shape[:2], -1))
        pixels, differing = pixels + expected.size, differing + int((expected != found).sum())
    return _count(differing, pixels)


def _count(differing: int, pixels: int) -> dict[str, Any]:
    percent = round(100 * differing / pixels, 5)
    return {"pixels": pixels, "pixels_differing": differing, "percent_differing": percent}


def _make_inputs(folder: Path, spatial_dims: int) -> Iterator[Path]:
    """Writes smooth pictures or volumes, the same every time, for bundles that ship no samples."""
    random = np.random.default_rng(0)
    for index, sides in enumerate(_SEEDED_SIDES[spatial_dims]):
        coarse = random.uniform(0, 255, [-(-side // 32) + 1 for side in sides])
        smooth = zoom(coarse, [side / have for side, have in zip(sides, coarse.shape, strict=True)], order=1)
        if spatial_dims == 2:
            path = folder / f"{index}.png"
            Image.fromarray(smooth.astype(np.uint8)).save(path)
        else:
            path = folder / f"{index}.nii.gz"
            nib.save(nib.nifti1.Nifti1Image(smooth.astype(np.float32), np.eye(4)), path)
        yield path
