#!/bin/bash
# Evaluate a checkpoint on the GPUs of one machine.
# sbatch nbs/slurm/evaluate.sh           once killed: the same line again, finished clips are kept
# For the challenge: sbatch nbs/slurm/evaluate.sh -p split test
#SBATCH --job-name=lam-evaluate
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=16 --mem=64G --time=04:00:00
#SBATCH --requeue --open-mode=append --output=lam-evaluate-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source "${LAM_ENV:-.venv/bin/activate}"                       # or: module load ...; conda activate ...
DATA=${DATA:-/data/ego4d} CHECKPOINT=${CHECKPOINT:-outputs/official/checkpoints/best.pt} OUT=${OUT:-outputs/official-val}

mkdir -p "$OUT"
exec papermill nbs/evaluate.ipynb "$OUT/evaluate.ipynb" -p data_dir "$DATA" -p checkpoint "$CHECKPOINT" -p out_dir "$OUT" \
  -p device cuda --no-progress-bar "$@"
