"""Makes the picture at the top of the README: contours of the shipped weights on shipped samples, one strip.

    python scripts/make_strip.py    # after the weights of a bundle have changed

A bundle whose data may not be shipped has no samples and is left out.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from mobileutr_monai.bundle.running import run_bundle

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = {
    "breast_ultrasound_segmentation": ("benign (91).jpg", "malignant (53).jpg"),
    "skin_dermoscopy_segmentation": ("ISIC_0012792.jpg", "ISIC_0014291.jpg"),
    "hippocampus_mri_segmentation": ("hippocampus_093.nii.gz",),
}
HEIGHT, GAP = 200, 6
"""In pixels."""


def draw_overlays(bundle: Path, names: tuple[str, ...]) -> list[Image.Image]:
    """Returns the overlays that ``mobileutr predict`` draws on some of a bundle's samples."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, output = Path(folder) / "in", Path(folder) / "out"
        inputs.mkdir()
        for name in names:
            shutil.copyfile(bundle / "sample_data" / "images" / name, inputs / name)
        code = run_bundle(bundle, inputs, output, {"workers": 0, "report_page": False})
        if code:
            raise SystemExit(code)
        overlays = []
        for name in names:
            with Image.open(output / f"{name.split('.')[0]}_overlay.png") as overlay:
                overlays.append(overlay.convert("RGB"))
    return overlays


def join(images: list[Image.Image]) -> Image.Image:
    """Returns the images in a row, at one height."""
    scaled = [image.resize((round(image.width * HEIGHT / image.height), HEIGHT)) for image in images]
    strip = Image.new("RGB", (sum(image.width for image in scaled) + GAP * (len(scaled) - 1), HEIGHT), "white")
    left = 0
    for image in scaled:
        strip.paste(image, (left, 0))
        left += image.width + GAP
    return strip


def main() -> None:
    """Writes the strip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "strip.jpg", help="image to write")
    options = parser.parse_args()
    images = [image for name, samples in SAMPLES.items() for image in draw_overlays(ROOT / "bundles" / name, samples)]
    join(images).save(options.output, quality=88)
    print(options.output)


if __name__ == "__main__":
    main()
