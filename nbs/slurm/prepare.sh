#!/bin/bash
# Prepare as an array of jobs: each takes a part of the clips, and all write to one face store.
# DATA=/data/ego4d sbatch nbs/slurm/prepare.sh       submit it where you cloned the project; -A and -p choose account and partition
# Killed or timed out: the same line again, finished clips are kept. One part again: sbatch --array=3 nbs/slurm/prepare.sh
# Logs: lam-prepare-JOB_N.log. Reports: outputs/prepare-N/report.html, one per part.
#SBATCH --job-name=lam-prepare --array=0-7
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=16 --mem=32G --time=12:00:00
#SBATCH --requeue --open-mode=append --output=lam-prepare-%A_%a.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
set +u                                                        # these scripts of others use variables that are not set
source "${LAM_ENV:-.venv/bin/activate}"                       # with conda: source ~/miniconda3/etc/profile.d/conda.sh; conda activate lam_nb
set -u
DATA=${DATA:-/data/ego4d} SPLITS=${SPLITS:-train,val,test} NUM_SHARDS=${NUM_SHARDS:-8}       # as many as --array has
OUT=${OUT:-outputs/prepare}-${SLURM_ARRAY_TASK_ID:?submit it as an array}

mkdir -p "$OUT"
exec papermill nbs/prepare.ipynb "$OUT/prepare.ipynb" -p data_dir "$DATA" -p out_dir "$OUT" \
  -p splits "$SPLITS" -p shard "$SLURM_ARRAY_TASK_ID" -p num_shards "$NUM_SHARDS" --no-progress-bar --stdout-file - --stderr-file - "$@"
