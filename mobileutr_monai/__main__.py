"""The ``mobileutr`` command."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

PROGRAM = "mobileutr"
NAMED = ("predict", "export", "new-bundle")
"""Verbs whose bundle may be given by its name; those that write into it take its folder."""
RESEARCH_ONLY = "Research only. Not a medical device."


def command() -> int:
    """What a process does that is started as the command."""
    return main(is_alone=True)


def main(arguments: Sequence[str] | None = None, *, is_alone: bool = False) -> int:
    """Runs one verb; returns 0 (all went well), 1 (some cases failed) or 2 (usage).

    Args:
        is_alone: nothing else runs in this process, so that a verb may import MONAI without what the verb does not use.
    """
    import warnings

    from mobileutr_monai.bundle.find import find_bundle
    from mobileutr_monai.core.program import name_user
    from mobileutr_monai.verbs.options import location

    parser = _build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown and vars(options).get("sources", "") == [] and not any(text.startswith("-") for text in unknown):
        # argparse takes an optional SOURCE for left out when an option stands before it.
        options.sources, unknown = list(map(location, unknown)), []
    if unknown:
        parser.exit(2, _say_usage(f"unrecognized arguments: {' '.join(unknown)}", f"{PROGRAM} {options.name_of_verb}"))
    options.is_alone = is_alone
    name_user()
    logging.getLogger("monai").setLevel(logging.ERROR)  # it warns of optional packages that this project does not use
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow warns of what is then said in the verb's own words
            if options.name_of_verb in NAMED:
                for name in {"bundle", "parent"} & vars(options).keys():
                    setattr(options, name, find_bundle(getattr(options, name)))
            return int(options.verb(options))
    except (
        FileExistsError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
        ValueError,
    ) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, _say_usage(message, self.prog))


def _say_usage(message: str, command: str) -> str:
    return f"{PROGRAM}: error: {message}; see {command} --help\n"


def _build_parser() -> argparse.ArgumentParser:
    import mobileutr_monai
    from mobileutr_monai.core.choices import ENGINES, EXPORT_FORMATS, SEG_TYPES
    from mobileutr_monai.verbs import labels, training
    from mobileutr_monai.verbs.options import (
        amount,
        count,
        duration,
        formats,
        fraction,
        location,
        positive,
        setting,
        sides,
        spacing,
    )

    parser = _Parser(prog=PROGRAM, description=f"Segment medical images with MobileUtr. {RESEARCH_ONLY}")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {mobileutr_monai.__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", dest="name_of_verb")

    predict = verbs.add_parser("predict", help="segment a folder of images, NIfTI or DICOM with a bundle")
    predict.add_argument(
        "bundle",
        type=Path,
        metavar="BUNDLE",
        help="name or folder of a bundle, with configs/ and models/; or FILE.onnx of export --end-to-end, which needs "
        "no torch",
    )
    predict.add_argument(
        "sources",
        type=location,
        nargs="*",
        metavar="SOURCE",
        help="files, or folders of images, NIfTI or DICOM, searched with their subfolders; or one address: "
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

    export = verbs.add_parser("export", help="convert a bundle's network for another runtime and compare the result")
    export.add_argument(
        "bundles",
        type=Path,
        nargs="+",
        metavar="BUNDLE",
        help="name or folder of a bundle, with configs/ and models/; several for --format web",
    )
    export.add_argument(
        "--format",
        choices=EXPORT_FORMATS,
        default="onnx",
        help="onnx (default), openvino, torchscript, executorch; or web: a folder with a page that segments images in "
        "the browser, on the user's device",
    )
    export.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="file to write, ending in .onnx, .xml, .ts or .pte; for web, the folder",
    )
    export.add_argument(
        "--onnxruntime-web",
        type=Path,
        metavar="DIR",
        help="web: node_modules folder with onnxruntime-web and dicom-parser (default: ./node_modules)",
    )
    export.add_argument("--end-to-end", action="store_true", help="include pre- and postprocessing (onnx, 2D)")
    export.add_argument("--weights", type=Path, help="state dict to use instead of the bundle's models/model.pt")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file, or page")
    export.set_defaults(verb=_export)

    masks = (
        "meaning of the mask values: two-valued, indices, 0/1, 0/255, threshold=100, or pairs such as 0=0,128=1 "
        "and #000000=0,#ff0000=1 (default: the datalist's mask_coding, else guessed from all masks)"
    )
    classes = (
        "class of an image: folder, prefix (the first letters of its name), none, or a CSV file with the columns "
        "image and class (default: folder, if the folders are few and large)"
    )
    layouts = (
        "folder with images/ and masks/0/ (masks/1/ ...) or masks/, or with NAME.png and NAME_mask.png; or a CSV table "
        "with the columns image and mask, and perhaps group, class and split"
    )

    check = verbs.add_parser("check", help="find faults in a folder of images and masks before training")
    check.add_argument("folder", type=Path, metavar="DIR", help=layouts)
    check.add_argument("--json", type=Path, metavar="FILE", help="write all problems to a file")
    check.add_argument("--datalist", metavar="FILE", default="", help="list to check (default: the folder's)")
    check.add_argument("--fold", type=int, default=1, help="number of the text list to check (default 1)")
    check.add_argument("--masks", metavar="CODING", help=masks)
    check.add_argument("--classes", metavar="RULE", default="", help=classes)
    check.set_defaults(verb=_check)

    split = verbs.add_parser("split", help="make a datalist with a seeded split that keeps near-duplicates together")
    split.add_argument("folder", type=Path, metavar="DIR", help=layouts)
    split.add_argument("--output", type=Path, required=True, help="datalist (JSON) to write")
    split.add_argument(
        "--validation", type=fraction, help="share of the cases for validation (default 0.2; none with --folds)"
    )
    split.add_argument("--test", type=fraction, default=0.0, help="share of the cases for testing (default 0)")
    split.add_argument(
        "--folds",
        type=positive,
        default=0,
        metavar="N",
        help="assign training cases to N cross-validation folds instead",
    )
    split.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    split.add_argument("--classes", metavar="RULE", default="", help=f"keep the shares of the classes; {classes}")
    split.add_argument(
        "--groups",
        metavar="RULE",
        default="",
        help="keep images together, such as those of a patient: folder, or a CSV file with the columns image and group "
        "(default: folder, if the folders are many and small)",
    )
    split.add_argument("--masks", metavar="CODING", help=masks)
    split.add_argument("--overwrite", action="store_true", help="replace an existing datalist")
    split.set_defaults(verb=_split)

    convert = verbs.add_parser("convert", help="convert a checkpoint of the authors' code to weights for a bundle")
    convert.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint (.pth or .pt), 2D or 3D, base or large"
    )
    convert.add_argument("--output", type=Path, required=True, metavar="FILE", help="state dict to write: model.pt")
    convert.add_argument(
        "--preprocessing",
        choices=("official",),
        help="also write NAME.overlay.json, a config with the authors' preprocessing for a 2D bundle",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace an existing FILE and its overlay")
    convert.set_defaults(verb=_convert)

    new = verbs.add_parser("new-bundle", help="make a bundle of your own from another, ready to train on your data")
    new.add_argument("name", metavar="NAME", help="name of the new folder, for example my_lesions")
    new.add_argument("--from", dest="parent", type=Path, required=True, metavar="BUNDLE", help="bundle to start from")
    new.add_argument("--labels", required=True, help="names of labels 1, 2 ..., separated by commas: lesion,shadow")
    new.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="parent folder of the bundle (default: here)"
    )
    new.add_argument(
        "--weights",
        choices=("parent", "none"),
        default="parent",
        help="parent (default): start from BUNDLE's weights, with a re-initialised output layer if the number of "
        "labels differs; none: start from random weights",
    )
    new.add_argument("--variant", choices=("base", "large"), help="size of the network (default: BUNDLE's)")
    new.add_argument("--in-channels", type=positive, metavar="N", help="channels of the images (default: BUNDLE's)")
    new.add_argument("--image-size", type=sides, metavar="H,W", help="2D: size of the network's input, in pixels")
    new.add_argument("--roi-size", type=sides, metavar="X,Y,Z", help="3D: size of the windows, in voxels")
    new.add_argument("--spacing", type=spacing, metavar="X,Y,Z", help="3D: voxel size, in mm")
    new.set_defaults(verb=_new_bundle)
    training.add_verbs(verbs)
    labels.add_verb(verbs)
    return parser


def _predict(options: argparse.Namespace) -> int:
    if options.bundle.suffix == ".onnx":
        return _predict_with_onnx(options)
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
        _require_file(path, "weights")
    from mobileutr_monai.inference.batch.light_imports import find_unused, import_monai_without

    is_as_shipped = options.is_alone and not options.settings  # --set may name any object of MONAI
    unused = find_unused(options.bundle / "configs" / "inference.json") if is_as_shipped else ()
    if options.workers != 0:
        from mobileutr_monai.inference.batch.fork_server import start_fork_server

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


def _predict_with_onnx(options: argparse.Namespace) -> int:
    from mobileutr_monai.inference.predict_onnx import main as predict_onnx

    own = {"bundle", "sources", "output", "verb", "name_of_verb", "no_overlays", "no_page", "dry_run", "overwrite"}
    given = [name for name, value in vars(options).items() if name not in own and value not in (None, False)]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is for bundles; an ONNX file has its settings in it")
    source, inputs = _find_source(options)
    if inputs or isinstance(source, str) or isinstance(options.output, str):
        raise ValueError("an ONNX file segments one folder; use a bundle for files, several folders and addresses")
    return predict_onnx(options.bundle, source, options.output, options.dry_run, options.overwrite)


def _export(options: argparse.Namespace) -> int:
    from mobileutr_monai.bundle.find import find_bundle
    from mobileutr_monai.core.choices import WEB, check_export
    from mobileutr_monai.core.folders import require_configs

    options.bundles = [find_bundle(bundle) for bundle in options.bundles]
    for bundle in options.bundles:
        require_configs(bundle)
    if options.format == WEB:
        from mobileutr_monai.verbs.web import export_web

        return export_web(options)
    if len(options.bundles) > 1 or options.onnxruntime_web is not None:
        if len(options.bundles) > 1:
            raise ValueError(f"several bundles are for --format web; for {options.format} export one at a time")
        raise ValueError("--onnxruntime-web is for --format web; leave it out")
    check_export(options.format, options.output, options.end_to_end)
    _require_file(options.weights, "weights")
    _keep_existing(options.output, options.overwrite)
    from mobileutr_monai.export.bundle import export_bundle

    made = export_bundle(options.bundles[0], options.format, options.output, options.end_to_end, options.weights)
    content = made.content
    for path in made.files:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, weights {content['facts']['weights_sha256'][:12]}")
    print(f"{made.report}: {content['percent_differing']} % of {content['pixels']} pixels differ from the bundle's")
    return 0


def _check(options: argparse.Namespace) -> int:
    from mobileutr_monai.datasets.check import ERROR, check_folder
    from mobileutr_monai.datasets.nifti_folders.layout import has_volumes
    from mobileutr_monai.verbs.options import separate_table

    folder, table = separate_table(options.folder)
    if table is None and has_volumes(folder):
        from mobileutr_monai.datasets.nifti_folders.check import check_volumes

        report = check_volumes(options.folder)
    else:
        report = check_folder(
            folder,
            datalist=options.datalist or table or "",
            fold=options.fold,
            coding=options.masks,
            classes=options.classes,
        )
    if options.json is not None:
        _write_json(options.json, report.to_json())
    print(report.to_text())
    return 1 if report.count(ERROR) else 0


def _split(options: argparse.Namespace) -> int:
    _keep_existing(options.output, options.overwrite)
    from mobileutr_monai.datasets.check_cases import check_to_split, check_volumes_to_split
    from mobileutr_monai.datasets.layout import find_layout
    from mobileutr_monai.datasets.nifti_folders.layout import has_volumes, make_volume_datalist
    from mobileutr_monai.datasets.split import make_datalist
    from mobileutr_monai.verbs.options import separate_table

    if options.folds and options.validation is not None:
        raise ValueError("--folds and --validation exclude each other; each fold is validated on in its turn")
    validation = 0.2 if options.validation is None else options.validation
    shares = {"testing": options.test} if options.folds else {"validation": validation, "testing": options.test}
    folder, table = separate_table(options.folder)
    if table is None and has_volumes(folder):
        if options.masks or options.classes:
            raise ValueError(f"{options.folder} has volumes; leave out --masks and --classes, which are for images")
        report = check_volumes_to_split(options.folder)
        volumes = make_volume_datalist(
            options.folder, shares, options.seed, folds=options.folds, groups=options.groups, pairs=report.pairs
        )
        _write_json(options.output, volumes)
        counts = ", ".join(f"{len(items)} {name}" for name, items in volumes.items() if isinstance(items, list))
        print(f"{options.output}: {counts}")
        print(volumes["description"])
        _print_warnings(report.summarise("warning"))
        return 0
    report = check_to_split(folder, options.masks, options.classes, table)
    datalist = make_datalist(
        folder,
        shares,
        options.seed,
        folds=options.folds,
        classes=options.classes,
        groups=options.groups,
        coding=report.coding,
        pairs=report.pairs,
        table=table,
    )
    _write_json(options.output, datalist)
    for ignored in find_layout(folder).ignored if table is None else ():
        print(f"not used: {ignored.path}: {ignored.reason}, {ignored.detail}", file=sys.stderr)
    counts = ", ".join(f"{len(items)} {name}" for name, items in datalist.items() if isinstance(items, list))
    print(f"{options.output}: {counts}")
    print(datalist["description"])
    print(f"masks: {report.coding} - {report.coding_reason}")
    _print_warnings(report.summarise("warning"))
    return 0


def _print_warnings(warned: str) -> None:
    if warned:
        print(f"warning: {warned}; mobileutr check lists all", file=sys.stderr)


def _convert(options: argparse.Namespace) -> int:
    from mobileutr_monai.core.folders import overlay_path

    official = options.preprocessing == "official"
    for path in (options.output, overlay_path(options.output)) if official else (options.output,):
        if options.checkpoint.resolve() != path.resolve():  # which has an error of its own
            _keep_existing(path, options.overwrite)
    _require_file(options.checkpoint, "checkpoint")
    from mobileutr_monai.bundle.convert import convert_checkpoint

    shape = convert_checkpoint(options.checkpoint, options.output, official)
    print(f"{options.output}: {shape}")
    if official:
        overlay = overlay_path(options.output)
        print(overlay.read_text(encoding="utf-8"), end="")
        print(f"{overlay}: the preprocessing above; in a 2D bundle's folder:")
        configs = f"['configs/inference.json','{overlay.resolve()}']"
        print(f'python -m monai.bundle run --config_file "{configs}" --weights {options.output.resolve()}')
    return 0


def _new_bundle(options: argparse.Namespace) -> int:
    from mobileutr_monai.core.folders import require_configs

    require_configs(options.parent)
    from mobileutr_monai.bundle.new_bundle import make_bundle

    labels = [label.strip() for label in options.labels.split(",")]
    pretrained = options.weights == "parent"
    given = {name: getattr(options, name) for name in ("variant", "in_channels", "image_size", "roi_size", "spacing")}
    settings = {name: value for name, value in given.items() if value is not None}
    made = make_bundle(options.name, options.parent, labels, options.output, pretrained=pretrained, settings=settings)
    folder = made.folder.resolve() if ".." in made.folder.parts else made.folder
    print(f"{folder}: {', '.join(f'{i} {label}' for i, label in enumerate(['background', *labels]))}")
    print(f"weights: {made.weights}")
    print(f"mobileutr train {folder} DATA{' --pretrained' if pretrained else ''}")
    return 0


def _require_file(path: Path | None, what: str) -> None:
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}")


def _keep_existing(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; give a file as --output")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already; choose another --output, or give --overwrite")


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(command())
