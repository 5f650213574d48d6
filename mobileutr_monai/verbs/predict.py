"""``mobileutr predict``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mobileutr_monai.core.choices import END_TO_END_SUFFIXES, ENGINES, SEG_TYPES
from mobileutr_monai.verbs.files import require_file
from mobileutr_monai.verbs.options import amount, count, duration, formats, location, positive, setting

__all__ = ["add_verb"]


def add_verb(verbs: Any) -> None:
    """Adds the verb to the command's parser."""
    predict = verbs.add_parser("predict", help="segment images, videos, NIfTI or DICOM with a bundle")
    predict.add_argument(
        "bundle",
        type=Path,
        metavar="BUNDLE",
        help="name or folder of a bundle, with configs/ and models/; or FILE.onnx or FILE.xml "
        "(OpenVINO) of export --end-to-end, which needs no torch",
    )
    predict.add_argument(
        "sources",
        type=location,
        nargs="*",
        metavar="SOURCE",
        help="files, or folders of images, videos, NIfTI or DICOM, searched with their subfolders; or one address: "
        "s3://bucket/prefix, file://, or a DICOMweb server, https://host/dicom-web",
    )
    predict.add_argument(
        "--list",
        dest="file_list",
        metavar="FILE",
        help="segment only the files in this list, one path per line, relative to SOURCE (default: current folder); "
        "-: read it from standard input",
    )
    predict.add_argument(
        "--output",
        type=location,
        required=True,
        help="folder for masks, overlays and the report; or an address, which needs --work",
    )
    predict.add_argument(
        "--query",
        metavar="KEY=VALUE,...",
        help="series of a DICOMweb server to segment, such as Modality=US,StudyDate=20240101-",
    )
    predict.add_argument(
        "--store",
        action="store_true",
        help="also store the DICOM objects that are written (SEG, SR, presentation states, structure sets) on the "
        "DICOMweb server that the inputs come from",
    )
    predict.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="segment on the nodes of a Ray cluster: auto, or its address; paths must be the same on all nodes",
    )
    predict.add_argument(
        "--actors",
        type=positive,
        metavar="N",
        help="copies of the bundle on the cluster (default: one per GPU, or per CPU)",
    )
    predict.add_argument(
        "--work", type=Path, metavar="DIR", help="folder for the report and for resuming, if --output is an address"
    )
    predict.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="weights to use instead of the bundle's models/model.pt; the probabilities of several files are averaged",
    )
    predict.add_argument("--tta", action="store_true", help="also average over mirrored images (2 or 4 times slower)")
    predict.add_argument(
        "--engine",
        choices=ENGINES,
        metavar="NAME",
        help="inference engine: torch (default), torch-folded, torch-bf16, torch-fp16 (GPU), onnxruntime, openvino, "
        "openvino-bf16; auto: the fastest on this machine whose masks match torch",
    )
    predict.add_argument("--batch-size", type=positive, help="number of images per network call")
    predict.add_argument("--no-overlays", action="store_true", help="do not draw contours on the images")
    predict.add_argument("--no-page", action="store_true", help="do not write report.html, the page with all cases")
    predict.add_argument(
        "--whole-overlays",
        action="store_true",
        help="draw on the whole ultrasound image, including areas that may show burned-in patient names",
    )
    predict.add_argument(
        "--format",
        type=formats,
        metavar="NAME,...",
        help="auto: DICOM SEG for DICOM (default); plain: PNG and NIfTI; besides, with commas between them: "
        "nrrd (3D Slicer), coco (coco.json), parquet (report.parquet), geojson (QuPath), rtstruct (DICOM series)",
    )
    predict.add_argument(
        "--seg-type",
        choices=SEG_TYPES,
        help="DICOM SEG with one frame per label and slice (binary, default) or one per slice (labelmap; few viewers "
        "read it yet)",
    )
    predict.add_argument(
        "--keep-empty-frames",
        action="store_true",
        help="also write frames of DICOM SEG without a pixel, for viewers that misplace segments otherwise",
    )
    predict.add_argument(
        "--place-stills",
        action="store_true",
        help="give DICOM SEG of stills without a place in the patient a synthetic one, for viewers that need it (OHIF)",
    )
    predict.add_argument(
        "--probabilities",
        action="store_true",
        help="also write the probabilities of DICOM as NAME_probabilities.dcm, a fractional DICOM SEG",
    )
    predict.add_argument(
        "--structured-report",
        action="store_true",
        help="also write the measurements of DICOM as NAME_sr.dcm (TID 1500)",
    )
    predict.add_argument(
        "--presentation-state",
        action="store_true",
        help="also write the contours of DICOM stills and cines as NAME_pr.dcm (GSPS)",
    )
    predict.add_argument(
        "--components", action="store_true", help="also report every component of a label, in a row of its own"
    )
    predict.add_argument("--any-modality", action="store_true", help="segment DICOM of any modality")
    predict.add_argument("--crop-to-tissue", action="store_true", help="crop ultrasound DICOM to its tissue regions")
    predict.add_argument("--workers", type=count, help="number of reader/writer processes (default 2)")
    predict.add_argument(
        "--time-limit", type=duration, metavar="SECONDS", help="maximum seconds per case (default 600)"
    )
    predict.add_argument(
        "--memory-limit", type=amount, metavar="GIB", help="maximum memory per case (default: half of the machine's)"
    )
    predict.add_argument(
        "--set",
        dest="settings",
        action="append",
        type=setting,
        metavar="ID=VALUE",
        help="replace an id of configs/inference.json, as in image_size=[320,416]; may be repeated",
    )
    predict.add_argument(
        "--dry-run", action="store_true", help="list what would be done with each file, without decoding it, and stop"
    )
    predict.add_argument(
        "--overwrite", action="store_true", help="replace the results of a run with other weights or settings"
    )
    predict.set_defaults(verb=_predict)


def _predict(options: argparse.Namespace) -> int:
    if options.bundle.suffix in END_TO_END_SUFFIXES:
        return _predict_with_file(options)
    from mobileutr_monai.core.folders import check_folders, check_inputs, require_configs

    # What can be told before MONAI is imported.
    require_configs(options.bundle)
    source, inputs = _find_source(options)
    if isinstance(source, Path) and isinstance(options.output, Path) and not options.file_list:
        if inputs:
            check_inputs(inputs, source, options.output)
        elif not source.exists():
            raise FileNotFoundError(f"no file or folder {str(source)!r}")
        else:
            check_folders(source, options.output)
    for path in options.weights or ():
        require_file(path, "weights")
    from mobileutr_monai.inference.batch.processes.light_imports import find_unused, import_monai_without

    is_as_shipped = options.is_alone and not options.settings  # --set may name any object of MONAI
    unused = find_unused(options.bundle / "configs" / "inference.json") if is_as_shipped else ()
    if options.workers != 0:
        from mobileutr_monai.inference.batch.processes.fork_server import start_fork_server

        start_fork_server(unused)  # before MONAI is imported here, so that it is imported in both at once
    if unused:
        import_monai_without(unused)
    from mobileutr_monai.bundle.running import run_bundle

    overrides: dict[str, object] = {
        "overlays": not options.no_overlays,
        "whole_overlays": options.whole_overlays,
        "report_page": not options.no_page,
        "any_modality": options.any_modality,
        "dry_run": options.dry_run,
        "overwrite": options.overwrite,
    }
    given = {
        "inputs": inputs or None,
        "file_list": options.file_list,
        "work_dir": options.work,
        "query": options.query,
        "ray": options.ray,
        "actors": options.actors,
        "store": True if options.store else None,
        "weights": options.weights[0] if options.weights and len(options.weights) == 1 else options.weights,
        "tta": True if options.tta else None,
        "engine": options.engine,
        "batch_size": options.batch_size,
        "workers": options.workers,
        "time_limit": options.time_limit,
        "memory_limit": options.memory_limit,
        "output_format": options.format,
        "seg_type": options.seg_type,
        "keep_empty_frames": True if options.keep_empty_frames else None,
        "place_stills": True if options.place_stills else None,
        "probabilities": True if options.probabilities else None,
        "structured_report": True if options.structured_report else None,
        "presentation_state": True if options.presentation_state else None,
        "components": True if options.components else None,
        "crop_to_tissue": True if options.crop_to_tissue else None,
    }
    overrides |= {name: value for name, value in given.items() if value is not None}
    overrides |= dict(options.settings or ())
    return run_bundle(options.bundle, source, options.output, overrides)


def _find_source(options: argparse.Namespace) -> tuple[str | Path, list[Path]]:
    """Returns the folder or address of the inputs, and the files and folders in it that are chosen, if not all."""
    from mobileutr_monai.core.walk import find_common_folder

    sources = options.sources
    if not sources and options.file_list is None:
        raise ValueError("no SOURCE: name the folder or the address that holds the inputs, or a list with --list")
    if not sources:
        return Path(), []
    if len(sources) == 1 and (isinstance(sources[0], str) or options.file_list or not sources[0].is_file()):
        return sources[0], []
    if any(isinstance(source, str) for source in sources):
        raise ValueError("an address is segmented alone; give one SOURCE")
    if options.file_list:
        raise ValueError("the paths of --list are relative to one folder; give one SOURCE")
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"no file or folder {str(source)!r}")
    return find_common_folder(sources)


def _predict_with_file(options: argparse.Namespace) -> int:
    from mobileutr_monai.inference.predict_onnx import main as predict_onnx

    own = {"bundle", "sources", "output", "no_overlays", "no_page", "dry_run", "overwrite"}
    own |= {"verb", "name_of_verb", "is_alone"}  # set by the command itself
    given = [name for name, value in vars(options).items() if name not in own and value not in (None, False)]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is for bundles; an exported file has its settings in it")
    source, inputs = _find_source(options)
    if inputs or isinstance(source, str) or isinstance(options.output, str):
        raise ValueError("an exported file segments one folder; use a bundle for files, several folders and addresses")
    return predict_onnx(options.bundle, source, options.output, options.dry_run, options.overwrite)
