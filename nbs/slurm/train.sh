#!/bin/bash
# Train on the GPUs of one machine or several; queued again by itself until it is done.
# sbatch nbs/slurm/train.sh              one machine with four GPUs; further parameters at the end: seed=1
# sbatch --nodes=2 nbs/slurm/train.sh    two of them
# One task a machine: the command starts one process a GPU by itself. batch_size is that of a GPU: read the recipe.
#SBATCH --job-name=lam-train
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=4 --cpus-per-task=32 --mem=128G --time=24:00:00
#SBATCH --requeue --open-mode=append --output=lam-train-%j.log --signal=B:TERM@180
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source "${LAM_ENV:-.venv/bin/activate}"                       # or: module load ...; conda activate ...
DATA=${DATA:-/data/ego4d} RECIPE=${RECIPE:-nbs/recipes/official.yaml} OUT=${OUT:-outputs/official}
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK                # since Slurm 22.05 srun does not take it from sbatch
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
port=$((20000 + SLURM_JOB_ID % 10000))                        # two jobs may share a machine

# Three minutes before the end Slurm sends SIGTERM to this script. It passes it on to the training, which saves and stops; then the job is
# queued again. (srun itself would answer SIGTERM by killing the training, and a job that is queued again is ended at once.)
asked=
again() { asked=1; scancel --signal=TERM "$SLURM_JOB_ID.0" || echo "the training could not be asked to save" >&2; }
trap again TERM
srun --nodes="$SLURM_NNODES" --ntasks-per-node=1 python -u -m lam_nb.training "$RECIPE" data_dir="$DATA" out_dir="$OUT" \
  num_nodes="$SLURM_NNODES" rdzv_endpoint="$first:$port" "$@" &
training=$!
status=0
wait "$training" || status=$?
while kill -0 "$training" 2>/dev/null; do status=0; wait "$training" || status=$?; done   # a signal ends `wait` early
if [ "$status" != 0 ]; then
  [ -z "$asked" ] || scontrol requeue "$SLURM_JOB_ID" || echo "the job could not be queued again: sbatch the same line" >&2
  exit "$status"
fi
exec papermill nbs/train.ipynb "$OUT/train.ipynb" -f "$OUT/params.yaml" -p num_nodes 1 --no-progress-bar     # the report
