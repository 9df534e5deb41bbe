#!/bin/bash
# Evaluate a checkpoint on one GPU.
# DATA=/data/ego4d CHECKPOINT=outputs/official/checkpoints/best.pt sbatch nbs/slurm/evaluate.sh
# For the challenge: SPLIT=test sbatch nbs/slurm/evaluate.sh. Submit it where you cloned the project; -A and -p choose account and partition.
# Killed or timed out: the same line again, finished clips are kept. Log: lam-evaluate-JOB.log. Report: outputs/official-val/report.html.
#SBATCH --job-name=lam-evaluate
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=16 --mem=64G --time=04:00:00
#SBATCH --requeue --open-mode=append --output=lam-evaluate-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
set +u                                                        # these scripts of others use variables that are not set
source "${LAM_ENV:-.venv/bin/activate}"                       # with conda: source ~/miniconda3/etc/profile.d/conda.sh; conda activate lam_nb
set -u
DATA=${DATA:-/data/ego4d} CHECKPOINT=${CHECKPOINT:-outputs/official/checkpoints/best.pt} SPLIT=${SPLIT:-val}
OUT=${OUT:-outputs/official-$SPLIT}

mkdir -p "$OUT"
exec papermill nbs/evaluate.ipynb "$OUT/evaluate.ipynb" -p data_dir "$DATA" -p checkpoint "$CHECKPOINT" -p out_dir "$OUT" \
  -p split "$SPLIT" -p device cuda --no-progress-bar --stdout-file - --stderr-file - "$@"
