#!/usr/bin/env bash
# Segments the shipped breast ultrasound samples with the shipped weights: bash scripts/demo.sh [OUTPUT]
source "$(dirname "$0")/setup_env.sh"
output=${1:-demo_output}
[ -x .venv/bin/mobileutr ] || install_project ""
bundle=bundles/breast_ultrasound_segmentation
.venv/bin/mobileutr predict "$bundle" "$bundle/sample_data/images" --output "$output"
echo
echo "Masks:    $output/*_mask.png     label indices: 0 background, 1 lesion"
echo "Overlays: $output/*_overlay.png  open these"
echo "Table:    $output/report.csv"
echo "Research only. Not a medical device."
