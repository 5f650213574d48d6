#!/usr/bin/env bash
# MONAI Label with bundles: bash scripts/monai_label.sh BUNDLE [BUNDLE ...] STUDIES [PORT] [options, see --help]
# BUNDLE: a folder, or a name in bundles/. STUDIES: a folder of images or NIfTI, or the URL of a DICOMweb server.
caller=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

usage() {
    echo "monai_label: error: $1; usage: bash scripts/monai_label.sh BUNDLE... STUDIES [PORT]" >&2
    exit 2
}

install_monai_label() {
    local stamp=.venv-label/installed requirements=scripts/monai_label_requirements.txt site
    if [ -f "$stamp" ] && cmp -s "$stamp" "$requirements"; then
        return
    fi
    if [ ! -x .venv-label/bin/python ]; then
        local python # MONAI Label 0.8.5 runs on Python 3.11 and 3.12 with these versions
        python=$(command -v python3.11 || command -v python3.12) || usage "MONAI Label needs Python 3.11 or 3.12"
        "$python" -m venv .venv-label
    fi
    echo "installing MONAI Label into .venv-label (a few minutes the first time)"
    # Every version is pinned and nothing else is taken: MONAI Label's own list asks for sam2 and, with it, for CUDA.
    .venv-label/bin/python -m pip install --quiet --no-deps -r "$requirements"
    .venv-label/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
    site=$(.venv-label/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # pydicom-seg 0.4.1 imports a module that pydicom 3 has renamed.
    echo 'from pydicom.uid import *' >"$site/pydicom/_storage_sopclass_uids.py"
    # PyPI's torchvision is built for CUDA; with a CPU torch it has no operators to register anything for.
    sed -i -E 's/^@torch.library.register_fake\("torchvision::(\w+)"\)/@register_meta("\1")/' \
        "$site/torchvision/_meta_registrations.py"
    cp "$requirements" "$stamp"
}

if [ "${1:-}" = --install ]; then # for continuous integration: the environment alone
    install_monai_label
    exit
fi
[ $# -ge 2 ] || usage "BUNDLE and STUDIES are needed"
for place in "$1" "$caller/$1" "bundles/$1"; do
    [ -d "$place/configs" ] && break
done
[ -d "$place/configs" ] || usage "'$1' is neither the folder of a bundle nor a name in bundles/"
install_monai_label
# Paths are those of the caller's folder.
MOBILEUTR_CALLER=$caller exec .venv-label/bin/python -m mobileutr_monai.monai_label "$@"
