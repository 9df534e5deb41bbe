#!/bin/bash
# Train on the GPUs of one machine or several. At its time limit it saves and queues itself again, until it is done.
# DATA=/data/ego4d sbatch nbs/slurm/train.sh         one machine with four GPUs; submit it where you cloned the project
# OUT=outputs/official-seed1 sbatch --nodes=2 -A account -p partition nbs/slurm/train.sh seed=1     two of them; parameters stand at the end
# One task per machine: the command starts one process per GPU by itself. The windows of a step (64, as published) are shared among the GPUs.
# Log: lam-train-JOB.log (tail -f). Report: outputs/official/report.html. To end it for good: scancel JOB.
#SBATCH --job-name=lam-train
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=4 --cpus-per-task=36 --mem=128G --time=24:00:00
#SBATCH --requeue --open-mode=append --output=lam-train-%j.log --signal=B:TERM@180
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
set +u                                                        # these scripts of others use variables that are not set
source "${LAM_ENV:-.venv/bin/activate}"                       # with conda: source ~/miniconda3/etc/profile.d/conda.sh; conda activate lam_nb
set -u
DATA=${DATA:-/data/ego4d} RECIPE=${RECIPE:-nbs/recipes/official.yaml} OUT=${OUT:-outputs/official} STEP=${STEP:-64}
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK                # since Slurm 22.05 srun does not take it from sbatch
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
batch=$((STEP / (SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-4})))   # windows per GPU
port=$((20000 + SLURM_JOB_ID % 10000))                        # two jobs may share a machine

# Three minutes before the end Slurm sends SIGTERM to this script. It passes it on to the training, which saves and stops; then the job is
# queued again. (srun itself would answer SIGTERM by killing the training, and `scontrol requeue` ends the running job at once, so it comes last.)
asked=
again() { asked=1; scancel --signal=TERM "$SLURM_JOB_ID.0" || echo "the training could not be asked to save" >&2; }
trap again TERM
given=()                                                      # queued again it goes on, whatever was asked at first
for one in "$@"; do [[ $one == resume=* && ${SLURM_RESTART_COUNT:-0} -gt 0 ]] || given+=("$one"); done
srun --nodes="$SLURM_NNODES" --ntasks-per-node=1 python -u -m lam_nb.training "$RECIPE" data_dir="$DATA" out_dir="$OUT" num_processes=0 \
  batch_size="$batch" num_nodes="$SLURM_NNODES" rdzv_endpoint="$first:$port" ${given[@]+"${given[@]}"} &
training=$!
status=0
wait "$training" || status=$?
while kill -0 "$training" 2>/dev/null; do status=0; wait "$training" || status=$?; done   # a signal ends `wait` early
if [ "$status" != 0 ]; then
  [ -z "$asked" ] || scontrol requeue "$SLURM_JOB_ID" || echo "the job could not be queued again: sbatch the same line" >&2
  exit "$status"
fi
exec papermill nbs/train.ipynb "$OUT/train.ipynb" -f "$OUT/params.yaml" -p num_nodes 1 -p resume True --no-progress-bar  # the report
