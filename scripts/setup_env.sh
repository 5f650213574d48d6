# Sourced by the other scripts: goes to the project's root, makes .venv if there is none and installs the project.
# A second call is fast: it installs only when setup.cfg or constraints.txt have changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A CPU build of torch: plain `torch`, or a build environment without the pin, may download gigabytes of CUDA.
export PIP_CONSTRAINT="$PWD/constraints.txt"
export PIP_DISABLE_PIP_VERSION_CHECK=1

find_python() {
    for name in python3.11 python3.12 python3; do # 3.12 is not tested
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: no Python 3.11 or 3.12 found; install one" >&2
    return 2
}

install_project() { # $1: extras, for example [dev]
    local stamp
    local stamps=(".venv/installed$1" ".venv/installed[dev,servers]") # the second has all that the others have
    if [ "$1" != "[dev,servers]" ]; then
        stamps+=(".venv/installed[dev]")
    fi
    for stamp in "${stamps[@]}"; do
        if [ -f "$stamp" ] && cmp -s "$stamp" <(cat setup.cfg constraints.txt); then
            return
        fi
    done
    if [ ! -x .venv/bin/python ]; then
        local python
        python=$(find_python)
        echo "making .venv with $python"
        "$python" -m venv .venv
    fi
    echo "installing the project (a few minutes the first time)"
    .venv/bin/python -m pip install --quiet --upgrade pip
    .venv/bin/python -m pip install --quiet -r constraints.txt
    .venv/bin/python -m pip install --quiet --editable ".$1"
    cat setup.cfg constraints.txt >".venv/installed$1"
}
