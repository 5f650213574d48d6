#!/usr/bin/env bash
# The tests without bundles' servers and soaks on the oldest versions that setup.cfg allows: bash scripts/test_oldest.sh
# Installs into .venv-oldest, which nothing else uses. TORCH=2.14.0 installs another torch; PYTHON=python3.12 uses another
# interpreter. PYTEST ARGUMENTS choose the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_WAIT_POLICY=PASSIVE
python=${PYTHON:-python3.11}

oldest() { # every requirement of the plain install and of the tests, its lower bound as its version
    "$python" -I - "$@" <<'PYTHON'
import configparser
import sys

config = configparser.ConfigParser()
config.read("setup.cfg")
extras = config["options.extras_require"]
lines = config["options"]["install_requires"].split() + extras["onnxruntime"].split() + extras["openvino"].split()
lines += [line for line in extras["dev"].split() if line.startswith(("jsonschema", "matplotlib", "pytest"))]
lines = list(dict.fromkeys(lines))
torch = sys.argv[1] if len(sys.argv) > 1 else ""
for line in lines:
    name = line.partition(">=")[0]
    print(f"torch=={torch}" if name == "torch" and torch else line.partition(",")[0].replace(">=", "=="))
PYTHON
}

requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
oldest ${TORCH:+"$TORCH"} >"$requirements"
if ! cmp -s "$requirements" .venv-oldest/installed; then
    rm -rf .venv-oldest
    "$python" -m venv .venv-oldest
    .venv-oldest/bin/python -m pip install --quiet --upgrade pip "setuptools<81" wheel
    .venv-oldest/bin/python -m pip install --quiet --no-build-isolation -r "$requirements"
    .venv-oldest/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
    rm -rf .venv-oldest/lib/*/site-packages/tests    # of MONAI 1.5.2's wheel; it hides parts of ours
    cp "$requirements" .venv-oldest/installed
fi
[ $# -gt 0 ] || set -- -m "not (slow or soak or label)" tests/core tests/datasets tests/handlers tests/networks tests/readers \
    tests/transforms tests/inference
exec .venv-oldest/bin/python -m pytest "$@"
