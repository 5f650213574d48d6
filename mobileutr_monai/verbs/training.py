"""``mobileutr train`` and ``mobileutr evaluate``."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from mobileutr_monai.verbs.options import positive, separate_table, setting

__all__ = ["add_verbs"]

WORST_CASES = 8


def add_verbs(verbs: Any) -> None:
    """Adds the verbs to the command's parser."""
    train = verbs.add_parser("train", help="train a bundle on a folder of images with masks, into a folder of its own")
    train.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle, as new-bundle makes it")
    train.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="images and masks, with the datalist.json of split; or a CSV table: image, mask, split",
    )
    train.add_argument("--output", type=Path, help="folder of the run (default: BUNDLE/runs/DATE_TIME)")
    train.add_argument("--epochs", type=positive, help="how often all cases are seen (default: the bundle's)")
    train.add_argument(
        "--pretrained",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="start from the bundle's weights, or from FILE; without this option, from random ones",
    )
    train.add_argument(
        "--install",
        action="store_true",
        help="always make the result the bundle's models/model.pt; without this option, only if there is none or its "
        "score on the same cases is not higher",
    )
    train.add_argument("--resume", action="store_true", help="continue the run in --output after a stop")
    train.add_argument(
        "--early-stopping", type=positive, metavar="N", help="end after N validations without a better score"
    )
    train.add_argument("--folds", type=positive, metavar="N", help="train N times, each fold held out once")
    train.add_argument("--fold", type=int, metavar="K", help="number of the fold to validate on")
    train.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="NAME",
        help="config of the bundle to merge over train.json, such as gpu_train or paper_recipe; may be repeated",
    )
    _add_common(train, "configs/train.json", "learning_rate=0.0005")
    train.set_defaults(verb=_train)

    evaluate = verbs.add_parser("evaluate", help="score a bundle's weights on a section of a datalist")
    evaluate.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle with weights")
    evaluate.add_argument("folder", type=Path, metavar="DIR", help="images and masks, with a datalist.json")
    evaluate.add_argument(
        "--output", type=Path, help="folder for metrics.csv and one table per metric (default: BUNDLE/eval)"
    )
    evaluate.add_argument("--section", default="testing", help="section of the datalist to score (default: testing)")
    evaluate.add_argument("--weights", type=Path, help="state dict to use instead of the bundle's models/model.pt")
    _add_common(evaluate, "configs/train.json", "threshold=0.4")
    evaluate.set_defaults(verb=_evaluate)


def _add_common(parser: argparse.ArgumentParser, config: str, example: str) -> None:
    parser.add_argument("--datalist", type=Path, metavar="FILE", help="list to use (default: the folder's)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        type=setting,
        metavar="ID=VALUE",
        help=f"replace an id of {config}, as in {example}; may be repeated",
    )


def _train(options: argparse.Namespace) -> int:
    from mobileutr_monai.core.folders import require_configs

    bundle, (data, table) = options.bundle.resolve(), separate_table(options.folder.resolve())
    require_configs(bundle, ("train", "metadata"))
    if not data.is_dir():
        raise NotADirectoryError(f"{str(options.folder)!r} is not a folder; give the folder that holds the images")
    for name in options.overlay:
        if not (bundle / "configs" / f"{name}.json").is_file():
            raise FileNotFoundError(f"{str(options.bundle)!r} has no configs/{name}.json; leave out --overlay {name}")
    if options.folds and options.fold is not None:
        raise ValueError("--folds and --fold exclude each other; --fold trains one of them")
    pretrained = options.pretrained
    if pretrained is not None:
        pretrained = (bundle / "models" / "model.pt" if pretrained == Path() else pretrained).resolve()
        if not pretrained.is_file():
            raise FileNotFoundError(f"no weights at {pretrained}; leave out --pretrained to start from random ones")
    given = {
        "max_epochs": options.epochs,
        "pretrained": pretrained,
        "datalist": table if options.datalist is None else options.datalist.resolve(),
        "early_stopping": options.early_stopping,
        "fold": options.fold,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    overrides |= {"worst_cases": WORST_CASES, **dict(options.settings)}
    now = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if options.folds:
        return _train_folds(options, bundle, data, overrides)
    if options.resume and options.output is None:
        raise ValueError("--resume needs the --output of the run that was stopped")
    output = (options.output or bundle / "runs" / now).resolve()
    from mobileutr_monai.bundle.training import train_bundle

    overrides |= {"install": "always" if options.install else "better", "resume": options.resume}
    train_bundle(bundle, data, output, overrides, options.overlay)
    for name in ("curve.png", "worst_cases.png"):
        if (output / name).is_file():
            print(output / name)
    return 0


def _train_folds(options: argparse.Namespace, bundle: Path, data: Path, overrides: dict[str, Any]) -> int:
    output = (options.output or bundle / "runs" / f"{options.folds}_folds").resolve()
    from mobileutr_monai.bundle.folds import train_folds
    from mobileutr_monai.verbs.options import make_folds

    print(
        train_folds(
            bundle, data, output, options.folds, overrides, options.overlay, lambda folds: make_folds(data, folds)
        )
    )
    weights = " ".join(str(path) for path in sorted(output.glob("fold_*/model.pt")))
    print(f"together: mobileutr predict {options.bundle} IMAGES --output OUT --weights {weights}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from mobileutr_monai.bundle.training import evaluate_bundle, format_scores
    from mobileutr_monai.core.folders import read_labels

    data, table = separate_table(options.folder.resolve())
    given = {"section": options.section, "weights": options.weights, "datalist": options.datalist or table}
    overrides = {name: value for name, value in given.items() if value is not None} | dict(options.settings)
    output = (options.output or options.bundle / "eval").resolve()
    metrics = evaluate_bundle(options.bundle.resolve(), data, output, overrides)
    print(format_scores(output, metrics, read_labels(options.bundle)))
    print(output / "metrics.csv")
    return 0
