#!/usr/bin/env bash
# Checks and tests: bash scripts/test.sh [PYTEST ARGUMENTS]
source "$(dirname "$0")/setup_env.sh"
install_project "[dev]"
if [ $# -eq 0 ]; then
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    .venv/bin/python scripts/render_bundles.py --check
fi
exec .venv/bin/python -m pytest "$@"
