"""Compares every engine's masks with those of ``torch`` in float32, on a list of cases with labels.

An engine is accepted if at most 0.1 % of the pixels of all cases differ, at the images' own size, and if the mean Dice
over cases and labels changes by under 0.002. One that is not accepted is refused by the runner for this bundle. Writes
``results/engines.json`` and the id ``engine_parity`` of ``configs/inference.json``, as ``render_bundles.py`` does.
With ``--file`` a file of ``mobileutr export`` is compared instead, and nothing is written.

Example::

    python scripts/compare_engines.py bundles/breast_ultrasound_segmentation DATA \
        --datalist bundles/breast_ultrasound_segmentation/datalists/busi_split1.json
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibrate_bundle import measure_dice
from monai.utils import convert_to_tensor
from score_bundle import Scorer, resolve
from tqdm import tqdm

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.choices import SUFFIXES
from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.export.formats import FORMATS, require
from mobileutr_monai.inference.engines.choice import DEFAULT_ENGINE, LARGEST_DICE_CHANGE, find_versions
from mobileutr_monai.inference.engines.table import ENGINES, Predictor, start_engine


def start_engines(scorer: Scorer, names: Sequence[str]) -> dict[str, Predictor]:
    """Returns the predictors of engines."""
    segmenter = scorer.segmenter
    batch_size = int(getattr(segmenter.inferer, "sw_batch_size", 1))
    return {name: start_engine(name, segmenter.network, segmenter.device, batch_size) for name in names}


def open_file(path: Path) -> Predictor:
    """Returns what runs an exported network."""
    (kind,) = (FORMATS[name] for name, suffix in SUFFIXES.items() if suffix == path.suffix)
    run, _ = kind.open(path)
    return lambda images: torch.from_numpy(run(convert_to_tensor(images, track_meta=False).numpy()))


def compare_engines(
    scorer: Scorer, others: Mapping[str, Predictor], items: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Returns the verdict on each predictor, by its name.

    Args:
        items: ``image`` and ``label`` of the cases, as paths.
    """
    segmenter, names = scorer.segmenter, list(others)
    predictors = {**start_engines(scorer, [DEFAULT_ENGINE]), **others}
    differing = dict.fromkeys(names, 0)
    worst = dict.fromkeys(names, 0.0)
    dice: dict[str, list[float]] = {name: [] for name in predictors}
    pixels = 0
    for item in tqdm(items, unit="case"):
        data = segmenter.reader.read([Path(item["image"])])
        truth = np.asarray(scorer.original_label({"label": item["label"]})["label"][0])
        masks = {}
        for name, predictor in predictors.items():
            torch.backends.cudnn.allow_tf32 = name != DEFAULT_ENGINE  # on a GPU float32 is TF32 unless told otherwise
            segmenter.predictor = predictor
            (result,) = segmenter.infer([data])
            masks[name] = segmenter.make_label_map(result)
            dice[name] += [measure_dice(masks[name] == index, truth == index) for index in scorer.labels]
        expected = masks[DEFAULT_ENGINE]
        pixels += expected.size
        for name in names:
            count = int((masks[name] != expected).sum())
            differing[name] += count
            worst[name] = max(worst[name], 100 * count / expected.size)
    verdicts = {}
    for name in names:
        percent = 100 * differing[name] / pixels
        change = float(np.mean(dice[name]) - np.mean(dice[DEFAULT_ENGINE]))
        verdicts[name] = {
            "accepted": percent <= MAX_MISMATCH_PERCENT and abs(change) < LARGEST_DICE_CHANGE,
            "percent_differing": round(percent, 5),
            "percent_differing_worst_case": round(worst[name], 5),
            "dice_change": round(change, 6),
        }
    return verdicts


def read_earlier(path: Path, subject: dict[str, Any], cases: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns earlier verdicts on the same weights, settings and list, and how each was measured.

    Their number of cases may be another one: an engine that is slow on a machine is compared on fewer.
    """
    if not path.is_file():
        return {}, {}
    results = json.loads(path.read_text(encoding="utf-8"))
    known: dict[str, Any] = results["engine_parity"]
    same = all(known[key] == value for key, value in subject.items())
    if not same or any(results.get(key) != value for key, value in cases.items()):
        return {}, {}
    return known["engines"], results["measured"]


def describe_cpu() -> str:
    """Returns what decides which instructions the engines use."""
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """Compares and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset_dir", type=Path, help="folder that the datalist's paths are relative to")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--section", default="validation", help="list of cases (default: validation)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    names = [name for name in ENGINES if name != DEFAULT_ENGINE]
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"of {', '.join(names)}; others keep what was measured of them on the same list, with their number of "
        "cases (default: those that auto chooses among on the device)",
    )
    parser.add_argument("--limit", type=int, help="only every n-th case, so that at most this many are compared")
    parser.add_argument(
        "--file", type=Path, help="an exported network (.xml, .onnx, .ts) to compare instead of engines"
    )
    arguments = parser.parse_args()

    device = torch.device(arguments.device)
    usual = [name for name in names if device.type in ENGINES[name].devices]
    compared = [] if arguments.file else arguments.engines or usual
    for name in compared:
        require(ENGINES[name].packages, ENGINES[name].extra, f"engine {name}")
    scorer = Scorer(arguments.bundle, {"device": device})
    datalist = json.loads(arguments.datalist.read_text(encoding="utf-8"))
    listed = datalist[arguments.section]
    step = -(-len(listed) // arguments.limit) if arguments.limit else 1
    items = [resolve(item, arguments.dataset_dir) for item in listed[::step]]
    if arguments.file:
        verdict = compare_engines(scorer, {arguments.file.name: open_file(arguments.file)}, items)
        print(json.dumps({"cases": len(items), "of": len(listed), **verdict}, indent=1))
        return
    output = arguments.bundle / "results" / "engines.json"
    subject = {"weights_sha256": hash_file(scorer.weights), "settings": scorer.settings}
    cases = {"datalist": arguments.datalist.name, "section": arguments.section}
    how = {
        "cases": len(items),
        "of": len(listed),
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else describe_cpu(),
        "versions": find_versions(),
    }
    earlier, measured = read_earlier(output, subject, cases)
    engines = earlier | compare_engines(scorer, start_engines(scorer, compared), items)
    measured |= dict.fromkeys(compared, how)
    verdicts = {**subject, "engines": {name: engines[name] for name in names if name in engines}}
    results = {
        "engine_parity": verdicts,
        **cases,
        "limits": {"percent_differing": MAX_MISMATCH_PERCENT, "dice_change": LARGEST_DICE_CHANGE},
        "measured": {name: measured[name] for name in names if name in engines},
    }
    text = json.dumps(results, indent=1) + "\n"
    output.parent.mkdir(exist_ok=True)  # a bundle of one's own has no results yet
    output.write_text(text, encoding="utf-8")
    config = arguments.bundle / "configs" / "inference.json"
    content = json.loads(config.read_text(encoding="utf-8")) | {"engine_parity": verdicts}
    config.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
