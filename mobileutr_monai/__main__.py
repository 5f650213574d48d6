"""The ``mobileutr`` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "mobileutr"
RESEARCH_ONLY = "Research only. Not a medical device."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns 0 (all went well), 1 (some cases failed) or 2 (usage)."""
    options = _build_parser().parse_args(arguments)
    try:
        return int(options.verb(options))
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return 1


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=f"Segment medical images with MobileUtr. {RESEARCH_ONLY}"
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    predict = verbs.add_parser("predict", help="segment a folder of images with a bundle")
    predict.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle, with configs/ and models/")
    predict.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images, searched with its subfolders")
    predict.add_argument("--output", type=Path, required=True, help="folder for masks, overlays and the report")
    predict.add_argument("--weights", type=Path, help="state dict to use instead of the bundle's models/model.pt")
    predict.add_argument("--batch-size", type=_positive, help="images that go through the network together")
    predict.add_argument("--no-overlays", action="store_true", help="do not draw contours on the images")
    predict.set_defaults(verb=_predict)

    split = verbs.add_parser("split", help="make a datalist with a seeded split that keeps near-duplicates together")
    split.add_argument("folder", type=Path, metavar="DIR", help="folder with images/ and masks/0/ (masks/1/ ...)")
    split.add_argument("--output", type=Path, required=True, help="datalist (JSON) to write")
    split.add_argument(
        "--validation", type=_fraction, default=0.2, help="share of the cases to validate on (default 0.2)"
    )
    split.add_argument("--test", type=_fraction, default=0.0, help="share of the cases to set aside (default 0)")
    split.add_argument("--seed", type=int, default=0, help="another seed gives another split (default 0)")
    split.set_defaults(verb=_split)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1), got {value}")
    return value


def _predict(options: argparse.Namespace) -> int:
    from mobileutr_monai.inference.bundle import run_bundle

    overrides: dict[str, object] = {"overlays": not options.no_overlays}
    if options.weights is not None:
        overrides["weights"] = str(options.weights)
    if options.batch_size is not None:
        overrides["batch_size"] = options.batch_size
    return run_bundle(options.bundle, options.folder, options.output, overrides)


def _split(options: argparse.Namespace) -> int:
    from mobileutr_monai.data.datalist import make_datalist

    shares = {"validation": options.validation, "testing": options.test}
    datalist = make_datalist(options.folder, shares, options.seed)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(datalist, indent=1) + "\n", encoding="utf-8")
    counts = ", ".join(f"{len(items)} {name}" for name, items in datalist.items() if isinstance(items, list))
    print(f"{options.output}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
