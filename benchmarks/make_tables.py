"""Writes the tables of measurements into README.md and pages of docs from the JSON of the benchmarks.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; ``NAME_on_MACHINE`` is that of another
machine, of JSON with the same ending. ``--check`` writes nothing and fails when one is not what the JSON says.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "monai_label.md",
    ROOT / "docs" / "scale.md",
)
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def read(name: str, machine: str) -> dict[str, Any]:
    """Returns a benchmark's result, of a machine that is not the usual one if it has an ending."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}{machine}.json").read_text(encoding="utf-8"))
    return content


def to_table(head: list[str], rows: list[list[str]]) -> str:
    """Returns a table in Markdown, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def describe(result: dict[str, Any]) -> str:
    """Returns a sentence on the machine of a result."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "onnxruntime", "openvino") if name in machine)
    load = machine["load_average"]
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    return (
        f"\n{gpu}{machine['cpu']} ({', '.join(machine['flags'])}), {machine['cpus']} CPUs, "
        f"{machine['threads']} threads, {versions}; load average when it began {load:.1f}; {machine['date'][:10]}.\n"
    )


def tell_times(row: dict[str, Any]) -> str:
    """Returns median and quartiles in milliseconds."""
    digits = 1 if row["median_s"] < 0.02 else 0
    median, q1, q3 = (f"{1e3 * row[key]:.{digits}f}" for key in ("median_s", "q1_s", "q3_s"))
    return f"{median} ({q1} - {q3})"


def make_network(machine: str) -> str:
    """Speed and size of networks and engines."""
    result = read("network", machine)
    networks = result["networks"]
    batches = {"one image": "batch_1", "batch of 8": "batch_8"}
    batches = {text: key for text, key in batches.items() if all(key in row for row in networks.values())}
    by_cpu, peak = "gpu" not in result["machine"], all("peak_mb_batch_8" in row for row in networks.values())
    head = ["version"]
    for text in batches:
        head += [f"{text}, ms", "times torch", "times plain", *(["by CPU time"] if by_cpu else [])]
    rows = []
    for name, row in networks.items():
        cells = [name]
        for key in batches.values():
            default = networks["engine torch"][key]["median_s"] / row[key]["median_s"]
            cells += [tell_times(row[key]), f"{default:.2f}", f"{row[key]['speedup']:.2f}"]
            cells += [f"{row[key]['cpu_speedup']:.2f}"] if by_cpu else []
        rows.append([*cells, *([f"{row['peak_mb_batch_8']:.0f}"] if peak else [])])
    return to_table([*head, *(["peak MB"] if peak else [])], rows) + describe(result)


def make_sizes(machine: str) -> str:
    """Parameters, MACs and file sizes of the networks."""
    networks = read("network", machine)["networks"]
    rows = [
        [
            "MobileUtr" if name == "plain" else name,
            f"{row['parameters']:,}",
            f"{row['gmac']:.2f}",
            f"{row['file_mb']:.1f}",
        ]
        for name, row in networks.items()
        if not name.startswith("engine ")
    ]
    return to_table(["network", "parameters", "GMAC of 256 x 256", "file, MB"], rows)


def make_engines(machine: str) -> str:
    """Engines at several sizes."""
    result = read("engines", machine)
    rows = [
        [
            f"{case}, {name}",
            tell_times(row),
            f"{row['speedup']:.2f}",
            f"{row['cpu_speedup']:.2f}",
            f"{row['ready_s']:.2f}",
        ]
        for case, engines in result["cases"].items()
        for name, row in engines.items()
    ]
    head = ["batch, engine", "ms", "times torch", "by CPU time", "ready in, s"]
    return to_table(head, rows) + describe(result)


def make_verdicts(_machine: str) -> str:
    """What engines' masks differ in; in float32 that does not depend on the machine."""
    rows = []
    for path in sorted((ROOT / "bundles").glob("*/results/engines.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for name, row in result["engine_parity"]["engines"].items():
            bundle, how = path.parents[1].name.removesuffix("_segmentation"), result["measured"][name]
            verdict = "accepted" if row["accepted"] else "refused"
            numbers = [
                f"{row[key]:.5f}" for key in ("percent_differing", "percent_differing_worst_case", "dice_change")
            ]
            rows.append([f"{bundle}, {name}", f"{how['cases']} of {how['of']}", *numbers, verdict])
    head = ["bundle, engine", "cases", "% of pixels", "worst case, %", "change of mean Dice", "verdict"]
    return to_table(head, rows)


def make_batch(machine: str) -> str:
    """Batch inference over PNGs."""
    result = read("batch_engines", machine)
    columns = {
        "images a second": ("images_per_second", "{:.1f}"),
        "share of the engine alone": ("share_of_engine", "{:.2f}"),
        "steady images a second": ("steady_images_per_second", "{:.1f}"),
        "steady share": ("steady_share", "{:.2f}"),
        "CPU ms an image": ("cpu_ms_per_image", "{:.1f}"),
        "share if no CPU waits": ("ceiling", "{:.2f}"),
    }
    first = next(iter(result["versions"].values()))
    columns = {head: column for head, column in columns.items() if column[0] in first}  # older results have two
    rows = [
        [name, *(text.format(row[key]) for key, text in columns.values())] for name, row in result["versions"].items()
    ]
    return to_table(["version", *columns], rows) + describe(result)


def make_startup(machine: str) -> str:
    """How long commands take to begin."""
    result = read("startup", machine)
    rows = [
        [
            f"`{name}`",
            f"{row['median_s']:.2f}",
            f"{row['q1_s']:.2f} - {row['q3_s']:.2f}",
            f"{row['cpu_median_s']:.2f}",
        ]
        for name, row in result["commands"].items()
    ]
    return to_table(["command", "median, s", "interquartile range", "CPU time, s"], rows) + describe(result)


def make_imports(machine: str) -> str:
    """What importing less of MONAI saves."""
    result = read("imports", machine)
    names = {"before": "all of MONAI", "after": "without what it does not use"}
    rows = [
        [names[name], f"{row['cpu_median_s']:.2f}", f"{row['median_s']:.1f}"]
        for name, row in result["versions"].items()
    ]
    ratios = result["before_over_after"]
    rows.append(["ratio, median of the pairs", f"{ratios['cpu']:.2f}", f"{ratios['elapsed']:.2f}"])
    return to_table(["`mobileutr predict BUNDLE`", "CPU time, s", "elapsed, s"], rows) + describe(result)


def make_profile(machine: str) -> str:
    """Where the time of OpenVINO goes."""
    result = read("profile", machine)
    rows = [
        [
            f"{engine}, {kind}",
            str(row["operators"]),
            f"{row['ms']:.1f}",
            f"{row['percent']:.1f}",
            f"{row['gb_per_s']:.1f}",
        ]
        for engine, found in result["engines"].items()
        for kind, row in found["operators"].items()
        if row["percent"] >= 1
    ]
    ceilings, head = result["ceilings"], ["engine, type of operator", "number", "ms", "% of the time", "GB/s"]
    text = (
        f"\nCopying by one thread: {ceilings['copy_memory_gb_per_s']:.0f} GB/s from and to memory, "
        f"{ceilings['copy_cache_gb_per_s']:.0f} GB/s within the second-level cache"
    )
    if "gemm_float32_gflop_per_s" in ceilings:  # measured by an earlier benchmark; now a table of its own
        text += f"; matrix product {ceilings['gemm_float32_gflop_per_s']:.0f} GFLOP/s in float32"
    text += ".\n"
    for engine, found in result["engines"].items():
        rates = " and ".join(f"{rate:.0f} in {name} layers" for name, rate in found["gflop_per_s"].items())
        text += f"{engine}: {found['total_ms']:.0f} ms, GFLOP/s: {rates}.\n"
    return to_table(head, rows) + text + describe(result)


def make_ceiling(machine: str) -> str:
    """How near each engine comes to a matrix product."""
    result = read("profile", machine)
    ceilings = result["ceilings"]
    head = ["engine", "CPU ms", "arithmetic, ms", "times", "arithmetic and memory, ms", "times"]
    rows = []
    for name, row in ceilings["engines"].items():
        cells = [name, f"{row['cpu_median_ms']:.1f}"]
        for bound in ("arithmetic", "arithmetic_and_memory"):
            cells += [f"{row[f'{bound}_ms']:.1f}", f"{row[f'times_{bound}']:.2f}"]
        rows.append(cells)
    products = "; ".join(
        f"{precision} {', '.join(f'{rate:.0f} ({library})' for library, rate in found.items())}"
        for precision, found in ceilings["gemm_gflop_per_s"].items()
    )
    total = sum(result["gflop"].values())
    text = f"\nMatrix product of one thread, GFLOP/s: {products}. The network: {total:.2f} GFLOP.\n"
    return to_table(head, rows) + text + describe(result)


def make_training(machine: str) -> str:
    """Whole epochs of training."""
    result = read("training", machine)
    rows = [
        [
            name,
            f"{row['images_per_second']:.2f}",
            f"{row['median_s']:.1f}",
            f"{row['speedup']:.2f}",
            f"{row['cpu_speedup']:.2f}",
        ]
        for name, row in result["versions"].items()
    ]
    head = ["version", "images a second", "s an epoch", "times plain", "by CPU time"]
    return to_table(head, rows) + describe(result)


def make_training_step(machine: str) -> str:
    """A training step."""
    result = read("training_step", machine)
    rows = [[row["version"], tell_times(row), f"{row['speedup']:.2f}"] for row in result["versions"]]
    return to_table(["version", "step, ms", "times plain"], rows) + describe(result)


def make_memory(machine: str) -> str:
    """Peak memory against the input's size."""
    result = read("memory", machine)
    rows = [
        [
            f"{row['bundle'].removesuffix('_segmentation')}, {' x '.join(map(str, row['size']))}",
            f"{row['peak_mb']:,}",
            f"{row['imports_mb']:,}",
            f"{row['window_mb']:,}",
        ]
        for row in result["rows"]
    ]
    return to_table(["bundle, size", "peak, MB", "after imports, MB", "network, MB"], rows) + describe(result)


def make_peers(machine: str) -> str:
    """MobileUtr and MONAI's networks under one recipe."""
    result = read("peers", machine)

    def tell(summary: dict[str, Any], digits: int = 1) -> str:
        low, high = (f"{100 * bound:.{digits}f}" for bound in summary["interval"])
        return f"{100 * summary['mean']:.{digits}f} ({low} to {high})"

    rows = []
    for name, row in result["networks"].items():
        cells = [
            name,
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['gmac']:.2f}",
            f"{1e3 * row['one_image']['median_s']:.0f}",
        ]
        for target in ("breast", "colon"):
            scores = row[target]
            cells += [tell(scores["dice"]), f"{100 * scores['iou']['mean']:.1f}"]
            cells.append(tell(scores["dice_minus_base"]) if "dice_minus_base" in scores else "-")
        rows.append(cells)
    head = ["network", "M parameters", "GMAC at 256 x 256", "ms an image at 256 x 256"]
    for text in ("BUSI + BUS-BRA", "Kvasir + CVC"):
        head += [f"{text}: Dice %", "IoU %", "Dice minus base, points"]
    return to_table(head, rows) + describe(result)


RECIPE = {
    "breast": "the recipe",
    "breast_without_affine": "without rotation, shear, zoom and shift",
    "breast_without_bars": "without bars next to the image",
    "breast_without_gamma": "without gamma and contrast",
    "breast_without_ultrasound": "without uneven gain, gain by depth and speckle",
    "breast_without_marks": "without painted calipers and text",
    "breast_without_blur": "without blur, sharpening and noise",
    "breast_with_elastic": "with elastic deformation",
    "breast_with_copy_paste": "with lesions copied onto normal images",
    "polish": "at 256 pixels",
    "polish_320": "at 320 pixels",
    "polish_normals": "18 instead of 8 % normal images",
    "polish_normals_copy_paste": "the same, lesions copied onto half of them",
}
"""Run of a plan -> what differs."""


def make_recipe(plan: str) -> str:
    """Trainings of a plan that differ by one part of the recipe."""
    runs = read("recipe", "")[plan]

    def tell(summary: dict[str, Any] | None) -> str:
        if summary is None:
            return "-"
        mean, low, high = (f"{100 * value:.1f}" for value in (summary["mean"], *summary["interval"]))
        return f"{mean} ({low} to {high})"

    rows = [
        [
            RECIPE[name],
            f"{100 * run['validation']['mean']:.1f}",
            tell(run["validation"].get("gain")),
            *(f"{100 * run['sets'][of]:.1f}" for of in ("busi", "busbra")),
            f"{100 * run['validation_letterboxed']['mean']:.1f}",
            tell(run["validation_letterboxed"].get("gain")),
            "{} of {}".format(*run["normal_images_outlined"]),
        ]
        for name, run in runs.items()
    ]
    head = ["training", "Dice %", "gain, points", "BUSI (45)", "BUS-BRA (110)"]
    return to_table([*head, "between bars: Dice %", "gain, points", "normal images outlined"], rows)


def make_active_learning(machine: str) -> str:
    """Strategies of MONAI Label by the number of annotated images."""
    result = read("active_learning", machine)

    def tell(gain: dict[str, Any]) -> str:
        mean, low, high = (f"{100 * value:.1f}" for value in (gain["mean"], *gain["interval"]))
        return f"{mean} ({low} to {high})"

    rows = [
        [
            number,
            str(row["seeds"]),
            *(f"{100 * row[name]:.1f}" for name in ("random", "uncertainty")),
            tell(row["gain"]),
        ]
        for number, row in result["annotated"].items()
    ]
    later = list(result["annotated"])[1:]
    if "gain_after_the_start" in result:
        gain = result["gain_after_the_start"]
        rows.append([f"mean of {later[0]} to {later[-1]}", str(len(gain["by_seed"])), "", "", tell(gain)])
    head = [
        "annotated images",
        "seeds",
        "`random`, Dice %",
        "`uncertainty`, Dice %",
        "difference, points (95 % interval)",
    ]
    return to_table(head, rows) + describe(result)


def make_scale(machine: str) -> str:
    """Batch inference against the number of inputs, without a network."""
    result = read("scale", machine)
    runs = result["runs"]
    head = ["run", "inputs", "seconds", "CPU s of the command", "of the actor", "MiB of the command", "of the actor"]
    rows = [
        [
            run["how"],
            f"{run['inputs']:,}",
            f"{run['seconds']:.0f}",
            f"{run['driver_cpu_seconds']:.1f}",
            f"{run['actor_cpu_seconds']:.1f}" if "actor_cpu_seconds" in run else "",
            str(run["driver_peak_mib"]),
            str(run.get("actor_peak_mib", "")),
        ]
        for run in runs
    ]
    slopes = []
    for how in dict.fromkeys(run["how"] for run in runs):
        few, *_, many = (run for run in runs if run["how"] == how)
        for name, key in (("the command", "driver_cpu_seconds"), ("actors", "actor_cpu_seconds")):
            if key in many:
                slope = 1000 * (many[key] - few[key]) / (many["cases"] - few["cases"])
                slopes.append(f"{how}, {name}: {slope:.1f}")
    shared = "; other heavy programs ran on the machine" if result["machine"]["shared_with_other_jobs"] else ""
    machine_line = f"{result['machine']['processor']}, {result['machine']['cores']} CPUs{shared}."
    return to_table(head, rows) + f"\nCPU ms per further image: {'; '.join(slopes)}.\n\n{machine_line}\n"


def make_ray_kills(_machine: str) -> str:
    """What kills did to runs on a cluster."""
    path = ROOT / "tests" / "soak" / "results" / "ray_kills.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for kind, times in result["seconds_until_it_went_on"].items():
        middle = f"{times[len(times) // 2]:.0f}" if times else ""
        rows.append([kind, str(result["kills"].get(kind, 0)), middle, f"{max(times):.0f}" if times else ""])
    told = f"{len(result['violations'])} results missing, torn, twice or other than without Ray"
    return to_table(["killed", "times", "seconds until the report grew again, median", "at most"], rows) + (
        f"\n{result['folders']} folders of {result['images'] + 1} files; {told}.\n"
    )


TABLES: dict[str, Callable[[str], str]] = {
    "network": make_network,
    "sizes": make_sizes,
    "engines": make_engines,
    "verdicts": make_verdicts,
    "batch": make_batch,
    "startup": make_startup,
    "imports": make_imports,
    "profile": make_profile,
    "ceiling": make_ceiling,
    "training": make_training,
    "training_step": make_training_step,
    "memory": make_memory,
    "peers": make_peers,
    "ablations": lambda _: make_recipe("ablations"),
    "polishes": lambda _: make_recipe("polishes"),
    "active_learning": make_active_learning,
    "scale": make_scale,
    "ray_kills": make_ray_kills,
}


def make_table(name: str) -> str:
    """Returns the table that a mark names."""
    table, on, machine = name.partition("_on_")
    return TABLES[table](on + machine)


def main() -> int:
    """Writes the pages; with ``--check``, returns 1 if anything would be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a table is stale")
    arguments = parser.parse_args()
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = MARK.sub(lambda found: f"{found[1]}{make_table(found[2])}{found[3]}", text)
        if made != text:
            stale.append(page)
            if not arguments.check:
                page.write_text(made, encoding="utf-8")
    for page in stale:
        print(f"{'stale' if arguments.check else 'wrote'}: {page.relative_to(ROOT)}")
    return int(bool(stale) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
