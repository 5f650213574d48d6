#!/usr/bin/env bash
# Checks and tests: bash scripts/test.sh [PYTEST ARGUMENTS]
source "$(dirname "$0")/setup_env.sh"
install_project "[dev]"
# Threads of torch that wait must not spin: two processes on two cores slow each other down twenty times.
export OMP_WAIT_POLICY=PASSIVE
if [ $# -eq 0 ]; then
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    .venv/bin/python scripts/render_bundles.py --check
    # A file of tests is one process': its fixtures, servers among them, are made once.
    set -- --numprocesses 2 --dist loadfile --durations 15
fi
exec .venv/bin/python -m pytest "$@"
