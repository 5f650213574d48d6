#!/usr/bin/env bash
# Segments the shipped samples of every bundle with the shipped weights: bash scripts/demo.sh [OUTPUT]
source "$(dirname "$0")/setup_env.sh"
output=${1:-demo_output}
install_project ""
for samples in bundles/*/sample_data/images; do
    bundle=${samples%/sample_data/images}
    echo "${bundle#bundles/}"
    .venv/bin/mobileutr predict "$bundle" "$samples" --output "$output/${bundle#bundles/}"
done
echo
echo "Reports:  $output/*/report.html    open one in a browser: all cases, with contours"
echo "Overlays: $output/*/*_overlay.png"
echo "Masks:    $output/*/*_mask.*       label indices: 0 background, 1 lesion ..."
echo "Tables:   $output/*/report.csv"
echo "Research only. Not a medical device."
