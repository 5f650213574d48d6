"""``mobileutr export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mobileutr_monai.core.choices import EXPORT_FORMATS, WEB, check_export
from mobileutr_monai.verbs.files import keep_existing, require_file

__all__ = ["add_verb"]


def add_verb(verbs: Any) -> None:
    """Adds the verb to the command's parser."""
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
    export.add_argument(
        "--end-to-end", action="store_true", help="include pre- and postprocessing (onnx, openvino; 2D)"
    )
    export.add_argument(
        "--int8",
        type=Path,
        metavar="DIR",
        help="openvino: linear layers and attention in int8, calibrated on this folder of images like those of the "
        "training; the file is kept only if its masks are the bundle's",
    )
    export.add_argument("--weights", type=Path, help="state dict to use instead of the bundle's models/model.pt")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file, or page")
    export.set_defaults(verb=_export)


def _export(options: argparse.Namespace) -> int:
    from mobileutr_monai.bundle.find import find_bundle
    from mobileutr_monai.core.folders import require_configs

    options.bundles = [find_bundle(bundle) for bundle in options.bundles]
    for bundle in options.bundles:
        require_configs(bundle)
    if options.format == WEB:
        if options.int8 is not None:
            raise ValueError("--int8 is for --format openvino without --end-to-end; leave one of them out")
        from mobileutr_monai.verbs.web import export_web

        return export_web(options)
    if len(options.bundles) > 1 or options.onnxruntime_web is not None:
        if len(options.bundles) > 1:
            raise ValueError(f"several bundles are for --format web; for {options.format} export one at a time")
        raise ValueError("--onnxruntime-web is for --format web; leave it out")
    check_export(options.format, options.output, options.end_to_end, options.int8)
    require_file(options.weights, "weights")
    keep_existing(options.output, options.overwrite)
    from mobileutr_monai.export.bundle import export_bundle

    made = export_bundle(
        options.bundles[0],
        options.format,
        options.output,
        options.end_to_end,
        options.weights,
        int8=options.int8,
    )
    content = made.content
    for path in made.files:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, weights {content['facts']['weights_sha256'][:12]}")
    print(f"{made.report}: {content['percent_differing']} % of {content['pixels']} pixels differ from the bundle's")
    return 0
