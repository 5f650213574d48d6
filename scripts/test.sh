#!/usr/bin/env bash
# Checks and tests: bash scripts/test.sh [--all | --rest | PYTEST ARGUMENTS]
# Without an option: the checks and the quick tests. --all: the checks and all tests. --rest: what --all adds.
source "$(dirname "$0")/setup_env.sh"
case "${1:-}" in
--all | --rest) install_project "[dev,servers]" ;; # a Ray cluster, and servers of object storage
*) install_project "[dev]" ;;
esac
# Waiting threads of torch must not spin: two processes on two cores slow each other down twenty times.
export OMP_WAIT_POLICY=PASSIVE

run_checks() {
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    .venv/bin/python scripts/render_bundles.py --check
}

# tests/conftest.py shares the tests out: a file's run in one process. A process that crashes ends the run, which would
# wait for ever otherwise (pytest-xdist 3.8), and so does a test that hangs.
parallel=(--numprocesses 2 --dist loadscope --max-worker-restart 0 --timeout 900 --durations 15)
rest="slow or soak or label"
case "${1:-}" in
"")
    run_checks
    set -- "${parallel[@]}" -m "not ($rest)"
    ;;
--all)
    run_checks
    set -- "${parallel[@]}"
    ;;
--rest)
    set -- "${parallel[@]}" -m "$rest"
    ;;
esac
exec .venv/bin/python -m pytest "$@"
