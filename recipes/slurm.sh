#!/bin/bash
# A training on one or several nodes under SLURM, over as many jobs as the time limit makes of it (docs/clusters.md):
#
#     sbatch --nodes 2 recipes/slurm.sh main_pretrain.py --data_path DIR --output_dir OUT [options]
#
#SBATCH --job-name=msmae
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.txt
set -u

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=0 torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$head:29500" \
    "$@" --resume auto &
running=$!

# five minutes before the time limit (--signal): the scripts save within the epoch, and the queued job goes on from there
stop_and_queue() {
    echo "the time limit is near: the run saves, and the job is queued again"
    scancel --signal=TERM "$SLURM_JOB_ID.0"
    wait "$running"
    scontrol requeue "$SLURM_JOB_ID"
}
trap stop_and_queue TERM
wait "$running"
