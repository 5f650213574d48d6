"""Puts the committed measurements into the tables of ``docs/reliability.md``; ``--check`` says whether they are there.

They are ``tests/soak/results/*.json``, ``benchmarks/results/cine_stability.json``, and each bundle's
``results/calibration.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibration_statistics import ANY_FLAG
from make_card import format_value, replace_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
SOAK = ROOT / "tests" / "soak" / "results"
MOST_REASONS = 8

SIZE_PARTS = {
    "few": "200 images",
    "many": "20,000 images",
    "cine": "a cine of 600 frames of 640 x 480",
    "volume": "NIfTI of 512 x 512 x 400, at 1 mm, a threshold for the network",
    "series": "the same as a DICOM series",
    "windows": "the same as NIfTI, at 4 mm, the network",
}


def make_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Returns a markdown table; all columns but the first are set to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(str(value) for value in row)} |" for row in [head, rule, *rows])


def make_kills(results: dict[str, Any]) -> str:
    """Returns how often runs were killed, and the result."""
    there, folders = results["kills_by_results_there"], results["folders"]
    rows = [
        ["kills", results["kills"]],
        ["of the process group", sum(kill["killed"] == "process group" for kill in results["each"])],
        ["of the program alone", sum(kill["killed"] == "program" for kill in results["each"])],
        ["before the first result", there["none"]],
        ["among the results", there["some"]],
        ["after the last result", there["all"]],
        ["that left a half-written file under another name", results["kills_that_left_a_half_written_file"]],
        ["output folders that were begun again until whole", sum(folders.values())],
        ["of these by the 3D bundle", folders.get("3D", 0)],
        ["differences from a run that nobody killed", len(results["violations"])],
    ]
    return make_table(["", "number"], rows)


def make_fuzz(results: dict[str, Any]) -> str:
    """Returns what became of hostile files."""
    runs = results["runs"]
    statuses = [[status, *(run["statuses"].get(status, 0) for run in runs.values())] for status in ("ok", "failed")]
    reasons = {name for run in runs.values() for name in run["reasons"] if name.startswith("failed")}
    counts = {name: [run["reasons"].get(name, 0) for run in runs.values()] for name in reasons}
    most = sorted(counts, key=lambda name: (-sum(counts[name]), name))[:MOST_REASONS]
    rows = [
        ["files", *(results["files"] for _ in runs)],
        *statuses,
        *([f"- {name.removeprefix('failed: ')}", *counts[name]] for name in most),
        ["skipped: not for this bundle", *(run["statuses"].get("skipped", 0) for run in runs.values())],
        ["longest case, s", *(round(run["longest_case_seconds"]) for run in runs.values())],
        ["most memory of all processes, MiB", *(run["peak_pss_mib"] for run in runs.values())],
        ["broken promises", *(len(run["violations"]) for run in runs.values())],
    ]
    return make_table(["", *(f"{name} bundle" for name in runs)], rows)


def make_fuzz_data(results: dict[str, Any]) -> str:
    """Returns how calls of ``check`` and ``split`` over hostile data sets ended."""
    ends = results["ends"]
    verbs = ("check", "split")
    rows = [
        ["files, each as an image and as a mask", *(results["files"] for _ in verbs)],
        *([f"exit code {code}", *(ends.get(f"{verb}: {code}", 0) for verb in verbs)] for code in (0, 1, 2)),
        ["broken promises", *(sum(text.startswith(verb) for text in results["violations"]) for verb in verbs)],
    ]
    return make_table(["", *(f"`{verb}`" for verb in verbs)], rows)


def make_size(results: dict[str, Any]) -> str:
    """Returns the memory of runs, and their bounds."""
    bounds = results["bounds"]
    limits = dict.fromkeys(SIZE_PARTS, bounds["volume_mib"]) | {"few": "", "many": "", "cine": bounds["cine_mib"]}
    if results["many_more_than_few"] is not None:
        more = f"{100 * results['many_more_than_few']:+.1f} % (at most {100 * bounds['many_more_than_few']:.0f} %)"
        limits["many"] = f"the above {more}"
    rows = [
        [name, results["parts"][part]["peak_pss_mib"], limits[part]]
        for part, name in SIZE_PARTS.items()
        if part in results["parts"]
    ]
    return make_table(["input", "peak, MiB", "bound, MiB"], rows)


def make_confidence(bundles: Path) -> str:
    """Returns what each bundle's confidence and flags are worth on its reported list."""
    rows = []
    for path in sorted(bundles.glob("*/results/calibration.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        report = results["report"][results["sections"]["report"]]
        flag = report["flags"][ANY_FLAG]
        rows.append(
            [
                f"[{path.parents[1].name}](../bundles/{path.parents[1].name}/docs/README.md)",
                report["n"],
                f"{100 * report['calibration_error_before']:.1f}",
                f"{100 * report['calibration_error']:.1f}",
                report["dice_under_0.6"],
                flag["raised"],
                *(format_value(flag[name]) for name in ("precision", "recall")),
            ]
        )
    head = ["bundle", "results", "error before %", "error %", "Dice under 0.6", "flagged", "precision %", "recall %"]
    return make_table(head, rows)


def make_cines(results: dict[str, Any]) -> str:
    """Returns the effect of averaging a cine's probabilities."""
    rows: list[list[object]] = []
    for motion, summary in results["synthetic"].items():
        for width in [f"{sigma:g}" for sigma in results["sigmas"]]:
            values = summary[width]
            change = format_value(values["dice_less_off"], digits=2) if "dice_less_off" in values else ""
            rows.append(
                [
                    f"synthetic, {motion}",
                    width,
                    format_value(values["dice"]),
                    change,
                    format_value(values["flicker"]),
                    f"{values.get('cines_with_dice_up', '')} / {values.get('cines_with_dice_down', '')}".strip(" /"),
                ]
            )
    for name, cine in results["real"].items():
        for width in [f"{sigma:g}" for sigma in results["sigmas"]]:
            rows.append([f"real, {name}", width, "", "", f"{100 * cine[width]['flicker']:.1f}", ""])
    table = make_table(["cines", "sigma", "Dice %", "change of Dice %", "flicker %", "better / worse"], rows)
    return f"{table}\n\nWeights of `{results['bundle']}` with the SHA-256 `{results['weights_sha256'][:8]}...`."


def make_page(text: str) -> str:
    """Returns the page with its tables as the committed results have them."""

    def read(path: Path) -> dict[str, Any]:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return results

    blocks = {
        "kills": make_kills(read(SOAK / "kills.json")),
        "fuzz": make_fuzz(read(SOAK / "fuzz.json")),
        "fuzz_data": make_fuzz_data(read(SOAK / "fuzz_data.json")),
        "size": make_size(read(SOAK / "size.json")),
        "confidence": make_confidence(ROOT / "bundles"),
        "cines": make_cines(read(ROOT / "benchmarks" / "results" / "cine_stability.json")),
    }
    for name, table in blocks.items():
        text = replace_block(text, name, table, "make_reliability_page.py")
    return text


def main() -> int:
    """Writes the page, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is stale")
    arguments = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    page = make_page(text)
    if not arguments.check:
        PAGE.write_text(page, encoding="utf-8")
    elif page != text:
        print(f"{PAGE} is stale: run python scripts/make_reliability_page.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
