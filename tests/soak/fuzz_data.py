"""``mobileutr check`` and ``split`` over data sets with hostile files, compared with what they promise.

    python -m tests.soak.fuzz_data --files 10000 --seed 0 --output tests/soak/results/fuzz_data.json

Each file of the corpus is an image, then a mask, of a data set whose other files are sound; by turns a table or a list
is broken as well. Of each call: exit code 0, 1 or 2, no traceback, one line for each error, the broken file named where
something is wrong, and nothing written but the output.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobileutr_monai.__main__ import main as mobileutr
from mobileutr_monai.core.kinds import IMAGE_SUFFIXES
from tests.soak.corpus import GENERIC, make_file
from tests.soak.seeds import Seed, find_seeds
from tests.soak.watch import describe_machine, list_tree, read_results, write_results

SECONDS_PER_CALL = 60
SOUND = 4
"""Cases of the data set besides the hostile one."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Check and split data sets with hostile files.")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-real", action="store_true", help="mutate synthetic files only")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("first", "seed", "no_real")}
    earlier = read_results(arguments.output, **options)
    started, done = time.monotonic(), earlier.get("files", 0)
    numbers = range(arguments.first + done, arguments.first + arguments.files)
    found = check_files(numbers, arguments.seed, find_seeds(real=not arguments.no_real))
    ends = Counter(earlier.get("ends", {})) + found["ends"]
    violations = earlier.get("violations", []) + found["violations"]
    results = {
        "command": f"python -m tests.soak.fuzz_data --files {arguments.files} --seed {arguments.seed}",
        "options": options,
        "files": max(done, arguments.files),
        "calls": sum(ends.values()),
        "ends": dict(ends.most_common()),
        "seconds": round(time.monotonic() - started) + earlier.get("seconds", 0),
        "violations": violations,
        "machine": describe_machine(),
    }
    write_results(arguments.output, results)
    return 1 if violations else 0


def check_files(numbers: range, seed: int, seeds: list[Seed]) -> dict[str, Any]:
    """Returns how many calls ended how, and what was not as promised."""
    ends: Counter[str] = Counter()
    violations: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzz_data") as folder:
        root = Path(folder) / "data"
        for number in numbers:
            file = make_file(seed, number, seeds)
            suffix = Path(file.name).suffix.lower()
            name = f"f{number}{suffix if suffix in IMAGE_SUFFIXES else random.Random(number).choice(IMAGE_SUFFIXES)}"
            for place in ("images", "masks/0"):
                make_sound(root)
                put(root, place, name, file.data)
                break_text(root, random.Random(f"{seed}:{number}:{place}"))
                for verb in ("check", "split"):
                    end, wrong = call(verb, root, name)
                    ends[f"{verb}: {end}"] += 1
                    violations += [f"{verb}, {place}/{name} ({file.how}): {what}" for what in wrong]
                shutil.rmtree(root)
    return {"ends": ends, "violations": violations}


def make_sound(root: Path) -> None:
    for index in range(SOUND):
        put(root, "images", f"c{index}.png", draw(index))
        put(root, "masks/0", f"c{index}.png", draw(index, mask=True))


def put(root: Path, place: str, name: str, data: bytes) -> None:
    """Writes an image or a mask, and a sound one for it in the other folder."""
    for folder in ("images", "masks/0"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / place / name).write_bytes(data)
    other = root / ("masks/0" if place == "images" else "images")
    partner = other / f"{Path(name).stem}.png"
    if not partner.exists():
        partner.write_bytes(draw(9, mask=place == "images"))


def draw(seed: int, mask: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels // 128 * 255 if mask else pixels).save(out, "PNG")
    return out.getvalue()


def break_text(root: Path, rng: random.Random) -> None:
    """Adds a table of groups and a datalist, each of them broken by turns."""
    names = sorted(path.stem for path in (root / "images").iterdir())
    table = ("image,group\n" + "".join(f"{name},p{index % 3}\n" for index, name in enumerate(names))).encode()
    items = [{"image": f"images/{name}.png", "label": [f"masks/0/{name}.png"]} for name in names]
    datalist = json.dumps({"training": items[1:], "validation": items[:1]}).encode()
    if rng.random() < 0.3:
        table = rng.choice(GENERIC)(rng, table)
    if rng.random() < 0.3:
        datalist = rng.choice(GENERIC)(rng, datalist)
    (root / "groups.csv").write_bytes(table)
    if rng.random() < 0.5:
        (root / "datalist.json").write_bytes(datalist)


def call(verb: str, root: Path, name: str) -> tuple[str, list[str]]:
    """Calls a verb on a data set; returns how it ended, and what was not as promised."""
    output = root.parent / "out.json"
    output.unlink(missing_ok=True)
    options = {
        "check": ["--json", str(output)],
        "split": ["--output", str(output), "--groups", str(root / "groups.csv")],
    }
    before = list_tree(root)
    said = io.StringIO()
    started = time.monotonic()
    wrong = []
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = mobileutr([verb, str(root), *options[verb]])
    except BaseException as error:  # noqa: BLE001 - whatever gets out is what is looked for
        lines = traceback.format_exc().splitlines()
        return type(error).__name__, [f"{type(error).__name__}: {error} {lines[-3].strip() if len(lines) > 2 else ''}"]
    if code not in (0, 1, 2):
        wrong.append(f"exit code {code}")
    errors = [line for line in said.getvalue().splitlines() if "error: " in line]
    if code == 2 and len(said.getvalue().strip().splitlines()) != 1:
        wrong.append(f"{len(said.getvalue().splitlines())} lines for one error: {said.getvalue()[:300]!r}")
    if code == 2 and not any(str(root) in line for line in errors):
        wrong.append(f"an error without a file: {said.getvalue().strip()[:300]!r}")
    if code == 0 and not output.is_file():
        wrong.append("exit code 0 without a result")
    if list_tree(root) != before:
        wrong.append("the data set was changed")
    if time.monotonic() - started > SECONDS_PER_CALL:
        wrong.append(f"{time.monotonic() - started:.0f} s")
    return str(code), wrong


if __name__ == "__main__":
    sys.exit(main())
