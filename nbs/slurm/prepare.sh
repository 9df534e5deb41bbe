#!/bin/bash
# Prepare as an array of jobs: each takes a part of the clips, and all write to one face store.
# sbatch nbs/slurm/prepare.sh            once killed or timed out: the same line again, finished clips are kept
# Reports: outputs/prepare-N/report.html, one per part. Submit it where you cloned the project.
#SBATCH --job-name=lam-prepare --array=0-7
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=16 --mem=32G --time=12:00:00
#SBATCH --requeue --open-mode=append --output=lam-prepare-%A_%a.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source "${LAM_ENV:-.venv/bin/activate}"                       # or: module load ...; conda activate ...
DATA=${DATA:-/data/ego4d}
OUT=${OUT:-outputs/prepare}-${SLURM_ARRAY_TASK_ID:?submit it as an array}

mkdir -p "$OUT"
exec papermill nbs/prepare.ipynb "$OUT/prepare.ipynb" -p data_dir "$DATA" -p out_dir "$OUT" \
  -p shard "$SLURM_ARRAY_TASK_ID" -p num_shards "${SLURM_ARRAY_TASK_COUNT:-8}" --no-progress-bar "$@"
