"""``mobileutr export --format web``."""

from __future__ import annotations

import argparse

__all__ = ["export_web"]


def export_web(options: argparse.Namespace) -> int:
    """Writes the page and says how to look at it."""
    from mobileutr_monai.export.web.npm import INSTALL, find_packages

    if options.end_to_end:
        raise ValueError("--format web always includes pre- and postprocessing; leave --end-to-end out")
    if options.weights is not None:
        if len(options.bundles) > 1:
            raise ValueError("--weights is for one bundle; leave it out, or export one bundle")
        if not options.weights.is_file():
            raise FileNotFoundError(f"no weights at {options.weights}")
    packages = find_packages(options.onnxruntime_web)
    from mobileutr_monai.export.web.site import check_output, export_site

    check_output(options.output, options.overwrite)
    site = export_site(options.bundles, options.output, packages, weights=options.weights, overwrite=options.overwrite)
    for bundle in site.content["bundles"]:
        print(f"{bundle['id']}: {bundle['percent_differing']} % of the pixels differ from the bundle's")
    size = sum(file["bytes"] for file in site.content["files"].values())
    print(f"{site.folder}: {len(site.content['files'])} files, {size / 1e6:.0f} MB")
    if not site.content["dicom"]:
        print(f"without DICOM; for it, run {INSTALL} and export again with --overwrite")
    print(f"python -m http.server --bind 127.0.0.1 --directory {site.folder} 8000    # http://localhost:8000")
    return 0
