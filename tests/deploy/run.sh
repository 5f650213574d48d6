#!/usr/bin/env bash
# The packed hippocampus bundle in MONAI Deploy's bundle operator: bash tests/deploy/run.sh
# Needs the CUDA runtime library (libcudart.so.13), which holoscan links to, but no GPU.
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/setup_env.sh"
install_project "[dev]"
if [ ! -f .venv-deploy/installed ]; then
    .venv/bin/python -m venv .venv-deploy
    .venv-deploy/bin/python -m pip install --quiet wheel-axle-runtime # links holoscan's libraries as they are installed
    .venv-deploy/bin/python -m pip install --quiet --no-deps -r tests/deploy/requirements.txt
    # Everything else is .venv's, but for this project: .pth files of a folder that one adds are not read.
    site=$(.venv-deploy/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/project.pth"
    touch .venv-deploy/installed
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=hippocampus_mri_segmentation
mkdir "$work/series"
.venv/bin/python - "$work/series" <<PYTHON
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from dicom_samples import write_series
write_series(sorted(Path("bundles/$bundle/sample_data/images").iterdir())[0], Path(sys.argv[1]))
PYTHON
.venv/bin/python scripts/pack_bundle.py bundles/$bundle --output "$work/bundle.zip"
.venv/bin/python -m zipfile -e "$work/bundle.zip" "$work"
.venv/bin/mobileutr predict bundles/$bundle "$work/series" --output "$work/expected" --format plain --no-overlays
ulimit -s 32768 # MONAI Deploy's threads need it
.venv-deploy/bin/python -W ignore tests/deploy/app.py "$work/$bundle" "$work/series" "$work/pred.npy" \
    "$(find "$work/expected" -name '*_mask.nii.gz')"
