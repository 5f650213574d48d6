"""Writes the folder of the page: our files, the bundles as ONNX files, the runtime, and what describes them.

``site.json`` lists bundles, colours, limits and every file of the folder. The page reads it, the service worker keeps
the files for use without a network, and a later export with ``overwrite`` replaces the files listed there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.core.limits import MAX_MISMATCH_PERCENT
from mobileutr_monai.core.text import NOTICE
from mobileutr_monai.export.bundle import export_bundle
from mobileutr_monai.export.web.npm import DICOM_PARSER, LICENCE, PINNED, NpmPackage
from mobileutr_monai.handlers.contact_sheet import COLOURS
from mobileutr_monai.readers.dicom import calibration
from mobileutr_monai.readers.dicom.display import DEFAULT_WINDOWS
from mobileutr_monai.readers.image_content import BAR_TOLERANCE, MIN_BAR, MIN_BETWEEN_BARS

__all__ = ["POLICY", "SITE", "Site", "check_output", "export_site", "write_page"]

SITE = "site.json"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
"""What the page may load, and where it may connect to: its own folder's server, for its own files."""

MAX_PIXELS = 40_000_000
"""Of an image: with its probabilities, one of this size takes about 1 GB in the browser."""

_PAGE = Path(__file__).with_name("page")
_WORKER = "service-worker.js"
_VENDOR, _MODELS = "vendor", "models"
_FILLED_IN = ("index.html", _WORKER)


class Site(NamedTuple):
    """What was written.

    Attributes:
        folder: with index.html.
        content: of site.json.
    """

    folder: Path
    content: dict[str, Any]


def check_output(output: Path, overwrite: bool) -> None:
    """Checks that a folder can be written.

    Raises:
        FileExistsError: it has files, and is not to be replaced, or is no page of an earlier export.
        NotADirectoryError: it is a file.
    """
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{str(output)!r} is a file; give a folder as --output")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{str(output)!r} has files already; choose another --output, or give --overwrite")
    if not (output / SITE).is_file():
        raise FileExistsError(
            f"{str(output)!r} has other files than a page of mobileutr export; choose another --output"
        )


def export_site(
    bundles: Sequence[Path],
    output: Path,
    packages: Sequence[NpmPackage],
    *,
    weights: Path | None = None,
    overwrite: bool = False,
) -> Site:
    """Exports 2D bundles, each compared with the bundle itself, and writes the page that runs them.

    Configs are code: only export bundles that you trust.

    Args:
        bundles: folders, in the order of the page's menu.
        output: folder to write.
        packages: of ``find_packages``.
        weights: state dict to use instead of the bundle's own, of one bundle.
        overwrite: replace the page of an earlier export; other files in the folder stay.

    Raises:
        FileExistsError: there is something else in the folder.
        ValueError: a bundle cannot be exported end-to-end, or two have the same name.
    """
    check_output(output, overwrite)
    names = [bundle.resolve().name for bundle in bundles]
    if len(set(names)) < len(names):
        raise ValueError(f"two bundles are called {max(names, key=names.count)!r}; give bundles with different names")
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        made = Path(temporary) / "site"
        (made / _MODELS).mkdir(parents=True)
        entries = []
        for name, bundle in zip(names, bundles, strict=True):
            path = made / _MODELS / f"{name}.onnx"
            exported = export_bundle(bundle, "onnx", path, True, weights, with_probabilities=True)
            exported.report.unlink()
            entries.append(_describe(name, bundle, path, exported.content))
        content = write_page(made, entries, packages)
        _publish(made, output)
    return Site(output, content)


def write_page(folder: Path, bundles: Sequence[dict[str, Any]], packages: Sequence[NpmPackage]) -> dict[str, Any]:
    """Writes everything but the ONNX files, which are there; returns the content of site.json.

    Args:
        folder: exists; may be the place of a server or of a test.
        bundles: what site.json says of each bundle.
        packages: of npm; without any, the page can be looked at, but segments nothing.
    """
    vendor = folder / _VENDOR
    vendor.mkdir(parents=True, exist_ok=True)
    for package in packages:
        for source in package.files:
            shutil.copyfile(source, vendor / source.name)
    notices = [f"{name} {release}, MIT licence. {PINNED[name].copyright_notice}" for name, release, _ in packages]
    (vendor / "LICENCES.txt").write_text("\n".join([*notices, "", LICENCE]), encoding="utf-8")
    for source in _PAGE.iterdir():
        if source.name not in _FILLED_IN:
            shutil.copyfile(source, folder / source.name)
    content: dict[str, Any] = {
        "notice": NOTICE,
        "versions": {"mobileutr-monai": version("mobileutr-monai")}
        | {package.name: package.version for package in packages},
        "npm_integrity": {package.name: PINNED[package.name].integrity for package in packages},
        "bundles": list(bundles),
        "dicom": any(package.name == DICOM_PARSER for package in packages),
        "max_pixels": MAX_PIXELS,
        "max_mismatch_percent": MAX_MISMATCH_PERCENT,
        "bars": {"tolerance": BAR_TOLERANCE, "least": MIN_BAR, "between": MIN_BETWEEN_BARS},
        # In which DICOM files a pixel's size is one in the patient: readers/dicom/calibration.py.
        "spacing": {
            "cross_sections": calibration.CROSS_SECTIONS,
            "calibrations": calibration.CALIBRATIONS,
            "same_spacing": calibration.SAME_SPACING,
            "same_scale": calibration.SAME_SCALE,
            "overhang": calibration.REGION_OVERHANG,
        },
        "windows": DEFAULT_WINDOWS,
    }
    index = (_PAGE / "index.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(
        index.replace("__POLICY__", POLICY).replace("__NOTICE__", NOTICE), encoding="utf-8"
    )
    listed = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for name, path in listed.items()}
    worker = (_PAGE / _WORKER).read_text(encoding="utf-8")
    told = json.dumps([worker, content, files], sort_keys=True)
    content |= {"release": hashlib.sha256(told.encode()).hexdigest()[:16], "files": files}
    (folder / SITE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    large = [name for name in files if name.startswith((f"{_VENDOR}/", f"{_MODELS}/"))]
    kept = {
        "release": content["release"],
        "policy": POLICY,
        "page": ["./", SITE, *sorted(files.keys() - {*large, "index.html"})],
        "large": large,
    }
    (folder / _WORKER).write_text(worker.replace("__KEPT__", json.dumps(kept, indent=1)), encoding="utf-8")
    return content


def _describe(name: str, bundle: Path, path: Path, exported: dict[str, Any]) -> dict[str, Any]:
    """Returns what site.json says of a bundle."""
    facts = exported["facts"]
    meta = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    labels = {int(index): label for index, label in json.loads(facts["labels"]).items()}
    return {
        "id": name,
        "name": facts["name"],
        "version": facts["version"],
        "task": str(meta.get("task", "")),
        "use": str(meta.get("intended_use", "")),
        "modalities": json.loads(facts["modalities"]),
        "model": f"{_MODELS}/{path.name}",
        "bytes": path.stat().st_size,
        "weights_sha256": facts["weights_sha256"],
        "channels": int(facts["channels"]),
        "threshold": float(facts["threshold"]),
        "min_peak": float(facts["min_peak"]),
        "crop_bars": json.loads(facts["crop_bars"]),
        "largest_piece": json.loads(facts["largest_piece"]),
        "labels": [
            {
                "index": index,
                "name": label,
                "colour": "#{:02x}{:02x}{:02x}".format(*COLOURS[(index - 1) % len(COLOURS)]),
            }
            for index, label in sorted(labels.items())
            if index
        ],
        "percent_differing": exported["percent_differing"],
    }


def _publish(made: Path, output: Path) -> None:
    """Gives the folder its name, or moves its files over those of an earlier page."""
    if not output.is_dir():
        made.replace(output)
        return
    earlier = json.loads((output / SITE).read_text(encoding="utf-8")) if (output / SITE).is_file() else {}
    new = [path.relative_to(made) for path in sorted(made.rglob("*")) if path.is_file()]
    # The page finds a whole set of files at any time but this; the service worker comes last, and with it the new ones.
    for name in sorted(new, key=lambda name: name.name == _WORKER):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).replace(output / name)
    for name in earlier.get("files", {}):
        path = output / name
        if Path(name) not in new and path.resolve().is_relative_to(output.resolve()):
            path.unlink(missing_ok=True)
