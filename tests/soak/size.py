"""Memory of batch inference over few and many inputs, a long cine, and a large volume.

    python -m tests.soak.size --output tests/soak/results/size.json

Memory is that of all processes of a run at once, as PSS. The images are small and the network sees 32 x 32 pixels: what
counts there is how the runner keeps its cases. The cine goes through the network as shipped. The volume, as NIfTI and
as a DICOM series, is resampled to the 1 mm of the bundle and back; on two processors the network would take an hour for
its windows, so a threshold stands in for it in the same sliding windows, and ``windows`` is the network itself on the
same volume at 4 mm.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from tests.soak.seeds import make_dicom
from tests.soak.watch import describe_machine, predict_command, read_results, run_watched, write_results

MIB = 2**20
FEW, MANY = 200, 20_000
MOST_MORE = 0.15
"""Share by which many inputs may take more memory than few."""

CINE_MIB, VOLUME_MIB = 2048, 6144
"""Bounds of a run over the cine, and over the volume."""

FRAMES, FRAME = 600, (480, 640)
VOLUME, SPACING = (512, 512, 400), (0.7, 0.7, 1.0)
SECONDS = 3600
LARGE_NETWORK_INPUT = ["--image_size", "[256,256]", "--whole_overlays", "True"]
INFERER = {
    "_target_": "tests.soak.threshold_inferer.ThresholdInferer",
    "roi_size": "@roi_size",
    "sw_batch_size": 4,
    "overlap": 0.5,
    "mode": "gaussian",
}
STAND_IN = ["--spacing", "[1,1,1]", "--inferer", json.dumps(INFERER)]

Make = Callable[[Path], None]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the memory of batch inference.")
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--only", nargs="*", choices=PARTS, help="measure these, and keep what --output has of others")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    options = {"many": arguments.many}
    parts = read_results(arguments.output, **options).get("parts", {})
    for name in arguments.only if arguments.only is not None else PARTS:
        with tempfile.TemporaryDirectory(prefix="size") as folder:
            parts[name] = PARTS[name](Path(folder), arguments.many)
        print(f"{name}: {parts[name]}", file=sys.stderr, flush=True)
        write_results(arguments.output, describe(parts, options))
    return 0 if all(describe(parts, options)["held"].values()) else 1


def describe(parts: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Returns the results, checked against what is promises."""
    held = {
        name: parts[name]["peak_pss_mib"] <= bound
        for name, bound in (("cine", CINE_MIB), ("volume", VOLUME_MIB), ("series", VOLUME_MIB), ("windows", VOLUME_MIB))
        if name in parts
    }
    more = None
    if {"few", "many"} <= set(parts):
        more = round(parts["many"]["peak_pss_mib"] / parts["few"]["peak_pss_mib"] - 1, 3)
        held["many"] = more <= MOST_MORE
    return {
        "command": "python -m tests.soak.size",
        "options": options,
        "bounds": {"many_more_than_few": MOST_MORE, "cine_mib": CINE_MIB, "volume_mib": VOLUME_MIB},
        "many_more_than_few": more,
        "held": held,
        "parts": parts,
        "machine": describe_machine(),
    }


def measure(work: Path, dims: int, make: Make, *options: str) -> dict[str, Any]:
    """Returns what a run over what ``make`` writes takes, and how its report grew."""
    source, output = work / "in", work / "out"
    source.mkdir()
    make(source)
    command, folder = predict_command(dims, source, output, *options)
    with watch_report(output / "report.csv") as growth:
        watched = run_watched(command, folder, SECONDS)
    rows = list(csv.DictReader((output / "report.csv").open(newline="")))
    failures = [f"{row['case']}: {row['reason']}: {row['detail']}" for row in rows if row["status"] != "ok"]
    if watched.returncode or failures:
        raise SystemExit(f"error: the run ended with {watched.returncode}: {failures[:3]}: {watched.stderr[-1000:]}")
    shutil.rmtree(source)
    return {
        "cases": len({row["case"] for row in rows}),
        "peak_pss_mib": watched.peak_bytes // MIB,
        "seconds": round(watched.seconds),
        "rows_while_it_ran": growth,
    }


@contextmanager
def watch_report(path: Path) -> Iterator[list[int]]:
    """Counts the rows of a report every second; gives at most ten of the counts, spread over the time."""
    counts: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1):
            if path.is_file():
                counts.append(max(0, path.read_bytes().count(b"\n") - 1))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join()
        counts[:] = [counts[index] for index in np.unique(np.linspace(0, len(counts) - 1, 10).astype(int))]


def write_images(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(16):
        out = BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 32), np.uint8)).save(out, "PNG")
        pictures.append(out.getvalue())
    for index in range(number):
        place = folder / f"{index // 1000:03}"
        place.mkdir(exist_ok=True)
        (place / f"{index:06}.png").write_bytes(pictures[index % len(pictures)])


def write_cine(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for index in range(FRAMES):
        out = BytesIO()
        # Smooth noise that moves: coded as densely as a real frame.
        noise = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize(FRAME[::-1])
        noise.rotate(index).save(out, "JPEG", quality=85)
        frames.append(out.getvalue())
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    size = {"Rows": FRAME[0], "Columns": FRAME[1], "NumberOfFrames": FRAMES}
    data = make_dicom(np.zeros((8, 8), np.uint8), frames, JPEGBaseline8Bit, **size, **colours)
    (folder / "cine.dcm").write_bytes(data)


def make_slices() -> Iterator[np.ndarray]:
    """Yields slices (columns, rows) of a ball in noise."""
    rng = np.random.default_rng(0)
    x, y = np.ogrid[: VOLUME[0], : VOLUME[1]]
    for z in range(VOLUME[2]):
        inside = (x - 256) ** 2 + (y - 256) ** 2 + (z - 200) ** 2 < 120**2
        yield (rng.integers(0, 200, VOLUME[:2]) + 800 * inside).astype(np.int16)


def write_volume(folder: Path) -> None:
    header = nib.nifti1.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.diag([*SPACING, 1.0])).header
    header.set_data_shape(VOLUME)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    with gzip.open(folder / "volume.nii.gz", "wb", compresslevel=1) as file:
        file.write(header.binaryblock.ljust(352, b"\0"))
        for plane in make_slices():
            file.write(plane.T.tobytes())


def write_series(folder: Path) -> None:
    about = {
        "Modality": "MR",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "FrameOfReferenceUID": "1.2.826.0.2.1",
        "PixelSpacing": [SPACING[1], SPACING[0]],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    for index, plane in enumerate(make_slices()):
        position = {"ImagePositionPatient": [0, 0, index * SPACING[2]], "SOPInstanceUID": f"1.2.826.0.3.{index + 1}"}
        (folder / f"{index:03}.dcm").write_bytes(make_dicom(plane.T.astype(np.uint16), **about, **position))


def measure_images(work: Path, number: int) -> dict[str, Any]:
    return measure(work, 2, lambda folder: write_images(folder, number), "--overlays", "False")


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "few": lambda work, many: measure_images(work, FEW),
    "many": measure_images,
    "cine": lambda work, many: measure(work, 2, write_cine, *LARGE_NETWORK_INPUT),
    "volume": lambda work, many: measure(work, 3, write_volume, *STAND_IN),
    "series": lambda work, many: measure(work, 3, write_series, *STAND_IN),
    "windows": lambda work, many: measure(work, 3, write_volume),
}


if __name__ == "__main__":
    sys.exit(main())
