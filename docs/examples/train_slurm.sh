#!/bin/bash
# Training on the GPUs of several nodes with Slurm: sbatch docs/examples/train_slurm.sh BUNDLE DATA RUN
# BUNDLE is the folder of a bundle, DATA that of the images, RUN that of the log and the weights; all of them, and the
# Python environment, have the same paths on every node.
#SBATCH --job-name=mobileutr-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
if [ $# -ne 3 ]; then
    echo "usage: sbatch $0 BUNDLE DATA RUN" >&2
    exit 2
fi
bundle=$1 data=$2 run=$3

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts%%$'\n'*}  # the first line; a pipe into head(1) can end scontrol by SIGPIPE, and pipefail the script
cd "$bundle"
# Restarted processes would otherwise read the addresses of those that died (pytorch issue 135712, docs/scale.md).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# A rank that dies ends the others; torchrun starts all of them again, and they resume from the last epoch.
srun torchrun \
    --nnodes="$SLURM_NNODES" \
    --nproc_per_node="${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_backend=c10d \
    --rdzv_endpoint="$head:29500" \
    --rdzv_id="$SLURM_JOB_ID" \
    --max-restarts=3 \
    -m monai.bundle run \
    --config_file "['configs/train.json','configs/multi_gpu_train.json']" \
    --dataset_dir "$data" --output_dir "$run" --ckpt_dir "$run/models" --resume auto
