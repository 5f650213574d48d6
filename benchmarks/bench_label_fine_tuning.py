"""Does correcting 20 images of another kind teach a bundle that kind? Through MONAI Label, over HTTP, as people do it.

The kind is made of BUSI: what a device with a coarse, noisy transducer shows. Of the reported list's cases that have no
near-duplicate in training, 20 are corrected (their true masks are submitted as final labels, a fifth is held out to
choose the epoch by) and others measure, as they are (old kind) and changed (new kind), before and after one training
with the defaults but for ``--epochs``. Masks are by ``mobileutr predict``, with which the server's are equal pixel by
pixel (``tests/monai_label/test_inference.py``). Intervals are percentile bootstraps over images, at 95 %; those of
differences are paired.

Example::

    python benchmarks/bench_label_fine_tuning.py bundles/breast_ultrasound_segmentation DATA \
        --output benchmarks/results/label_fine_tuning.json
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import describe_machine
from PIL import Image
from scipy.stats import bootstrap

from mobileutr_monai.__main__ import main as run_command
from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.datasets.datalist import load_datalist
from mobileutr_monai.inference.inferers import computes_bfloat16

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "monai_label"))
from label_service import serve

RESAMPLES = 9999
# The device: pixels of the image to one of it; share of speckle, a Rayleigh factor; e-fold of the gain over the depth.
COARSENESS, SPECKLE, ATTENUATION = 4, 0.8, 0.7


def change_kind(image: np.ndarray, seed: int) -> np.ndarray:
    """Returns what the other device would show.

    Shape:
        - image, output: (rows, columns), uint8.
    """
    rows, columns = image.shape
    coarse = Image.fromarray(image).resize((columns // COARSENESS, rows // COARSENESS), Image.Resampling.BILINEAR)
    values = np.asarray(coarse, np.float64)
    grain = np.random.default_rng(seed).rayleigh(np.sqrt(2 / np.pi), values.shape)
    values *= 1 - SPECKLE + SPECKLE * grain
    values *= np.exp(-ATTENUATION * np.linspace(0, 1, len(values)))[:, None]
    seen = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return np.asarray(seen.resize((columns, rows), Image.Resampling.BILINEAR))


def choose_cases(dataset_dir: Path, datalist: Path, count: int) -> list[dict[str, Any]]:
    """Returns cases of the reported list without a near-duplicate, in an order of its own."""
    with (dataset_dir / "busi" / "near_duplicates.csv").open(newline="") as file:
        alike = {row[side] for row in csv.DictReader(file) for side in ("a", "b")}
    cases = [case for case in load_datalist(dataset_dir, datalist)["testing"] if Path(case["image"]).stem not in alike]
    cases = [case for case in cases if not Path(case["image"]).stem.startswith("normal")]
    order = np.random.default_rng(0).permutation(len(cases))
    if len(cases) < count:
        raise ValueError(f"{len(cases)} cases, {count} are needed")
    return [cases[index] for index in order[:count]]


def read_grey(path: str | Path) -> np.ndarray:
    """Returns an image, (rows, columns), uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def measure(bundle: Path, weights: Path, images: Path, truths: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the Dice of each image, in the order of the truths."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["predict", str(bundle), str(images), "--weights", str(weights), "--output", folder, "--no-overlays"]
        if run_command(command):
            raise RuntimeError(f"images in {images} have failed")
        scores = []
        for name, truth in truths.items():
            found = read_grey(Path(folder) / f"{name}_mask.png") > 0
            scores.append(2 * np.sum(found & truth) / max(1, np.sum(found) + np.sum(truth)))
    return np.asarray(scores)


def fine_tune(bundle: Path, cases: Sequence[Mapping[str, Any]], folder: Path, epochs: int) -> Path:
    """Submits the masks of the cases to a server, trains there, and returns the weights.

    Args:
        cases: images of the new kind, ``image``, and their masks, ``label``, (rows, columns).
        folder: for the server; the weights are in it.
    """
    studies = folder / "studies"
    studies.mkdir()
    for case in cases:
        Image.fromarray(case["image"]).save(studies / f"{case['name']}.png")
    with serve(bundle.resolve(), studies, folder / "work") as server:
        for case in cases:
            label = folder / f"{case['name']}.png"
            Image.fromarray(case["label"].astype(np.uint8) * 255).save(label)
            assert server.save_label(case["name"], label).status == 200
        job = server.train(max_epochs=epochs, force=True)
        assert job["status"] == "DONE", job["details"]
        return server.weights


def summarise(values: np.ndarray) -> dict[str, Any]:
    """Returns the mean and its interval."""
    interval = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    return {"mean": round(float(np.mean(values)), 4), "interval": [round(float(end), 4) for end in interval]}


def describe_command(dataset_dir: Path) -> str:
    """Returns the command of this process, with every option that it was given."""
    given = ["DATA" if argument == str(dataset_dir) else argument for argument in sys.argv[1:]]
    return shlex.join(["python", "benchmarks/bench_label_fine_tuning.py", *given])


def name_precision() -> str:
    """Returns what the server trains in on this machine, as ``monai_label.tasks.TrainTask`` chooses it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bfloat16" if computes_bfloat16(device) else "float32"


def main() -> None:
    """Runs the experiment and writes its numbers."""
    parser = argparse.ArgumentParser(description="Fine-tune a 2D bundle over MONAI Label on another kind of images.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("--datalist", type=Path, help="default: the bundle's datalists/busi_split1.json")
    parser.add_argument("--corrected", type=int, default=20)
    parser.add_argument("--measured", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trained", type=Path, metavar="FILE", help="weights of an earlier run, to measure again")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    datalist = options.datalist or options.bundle / "datalists" / "busi_split1.json"
    cases = choose_cases(options.dataset_dir, datalist, options.corrected + options.measured)
    truths = {Path(case["image"]).stem: read_grey(case["label"][0]) > 127 for case in cases}
    names = list(truths)
    corrected, measured = names[: options.corrected], names[options.corrected :]
    shipped = options.bundle / "models" / "model.pt"
    changed = {Path(case["image"]).stem: change_kind(read_grey(case["image"]), seed) for seed, case in enumerate(cases)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kinds = {kind: folder / kind for kind in ("old", "new")}
        for path in kinds.values():
            path.mkdir()
        for case in cases:
            if (name := Path(case["image"]).stem) in measured:
                Image.fromarray(read_grey(case["image"])).save(kinds["old"] / f"{name}.png")
                Image.fromarray(changed[name]).save(kinds["new"] / f"{name}.png")
        held_out = {name: truths[name] for name in measured}
        lessons = [{"name": name, "image": changed[name], "label": truths[name]} for name in corrected]
        trained = options.trained or fine_tune(options.bundle, lessons, folder, options.epochs)
        before = {kind: measure(options.bundle, shipped, path, held_out) for kind, path in kinds.items()}
        after = {kind: measure(options.bundle, trained, path, held_out) for kind, path in kinds.items()}
    results = {}
    for kind, earlier in before.items():
        parts = {"before": earlier, "after": after[kind], "difference": after[kind] - earlier}
        pairs = zip(measured, earlier.tolist(), after[kind].tolist(), strict=True)
        cases_of_kind = {name: [round(first, 4), round(second, 4)] for name, first, second in pairs}
        results[kind] = {name: summarise(values) for name, values in parts.items()} | {"cases": cases_of_kind}
        print(kind, *(f"{name} {results[kind][name]['mean']} {results[kind][name]['interval']}" for name in parts))
    content = {
        "command": describe_command(options.dataset_dir),
        "machine": describe_machine(),
        "weights_sha256": hash_file(shipped),
        # None: the weights are of an earlier run, on whatever machine that was.
        "training_precision": None if options.trained else name_precision(),
        "kind": {"coarseness": COARSENESS, "speckle": SPECKLE, "attenuation": ATTENUATION},
        "corrected": corrected,
        "epochs": options.epochs,
        "dice": results,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
