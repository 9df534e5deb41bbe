"What several test files share: a tiny sample data set with its face store, and where other data may lie."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

if not os.environ.get('LAM_NB_TEST_GPU'):          # set by `make test-gpu`
    os.environ['CUDA_VISIBLE_DEVICES'] = ''        # the same tests on every machine: several processes need several GPUs, or none

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:   # a shell's background jobs and their children ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:   # so do those of nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest

from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.sample import make_sample

ROOT = Path(__file__).resolve().parent.parent
MINI = ROOT.parent / 'shared' / 'ego4d_mini'


SLOW = [f'test_{name}.py' for name in (
    'run_notebooks studies training_processes null_gpu training comparison inference training_options training_report runs '
    'report_sections command talking preparation slurm own_model windows folders').split()]


def pytest_collection_modifyitems(items):
    "The longest files come first: of two processes that share the files, none is left alone with a long one."
    place = {name: n for n, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path.name, len(SLOW)))


def until(condition, seconds):
    "Whether it came true in so many seconds."
    end = time.time() + seconds
    while not condition() and time.time() < end: time.sleep(.1)
    return condition()


@pytest.fixture(autouse=True)
def environment():
    "What a test, or a library in it, leaves in the environment (Dask: OMP_NUM_THREADS) does not reach the next test."
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope='session')
def mini():
    "A small data set in Ego4D's layout with the official code's results, kept beside the repository by some."
    if not MINI.exists(): pytest.skip(f'no {MINI.name} beside the repository')
    return MINI


@pytest.fixture(scope='session')
def sample(tmp_path_factory):
    "A few seconds of sample data with faces of 64 pixels, all splits."
    root = make_sample(tmp_path_factory.mktemp('data') / 'sample', train_clips=2, val_clips=2, test_clips=1, seconds=1, progress=False)
    settings = PrepareSettings(image_size=64, workers=1)
    tables = {split: split_faces(root, split, settings)[0] for split in ('train', 'val', 'test')}
    prepare_faces(tables, root, root / 'faces', settings)
    return root


@pytest.fixture
def cluster(tmp_path):
    "The environment of a Slurm job's script: srun starts its command once per machine, here; the others note or do what they are told."
    tools = tmp_path / 'bin'
    tools.mkdir()
    srun = f"""#!/usr/bin/env bash
for option in "$@"; do case $option in --nodes=*) nodes=${{option#*=}};; --*) ;; *) break;; esac; shift; done
trap 'kill -KILL $(jobs -p)' TERM                      # as srun does: it passes SIGTERM on as SIGKILL
for node in $(seq 0 $((nodes - 1))); do
  SLURM_NODEID=$node SLURM_PROCID=$node SLURM_STEP_NUM_TASKS=$nodes SLURM_STEP_NUM_NODES=$nodes "$@" & pids+=($!)
done
echo "${{pids[@]}}" > {tmp_path}/tasks
status=0
for pid in "${{pids[@]}}"; do wait $pid || status=$?; done
exit $status
"""
    scontrol = f"""#!/usr/bin/env bash
if [ "$1" = requeue ]; then echo "$2" >> {tmp_path}/requeued; else echo localhost; echo localhost; fi
"""
    scancel = f"""#!/usr/bin/env bash
[ "$*" = "--signal=TERM $SLURM_JOB_ID.0" ] && kill -TERM $(cat {tmp_path}/tasks)
"""
    papermill = f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/given'
    for name, text in dict(srun=srun, scontrol=scontrol, scancel=scancel, papermill=papermill).items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / 'activate').write_text(f'PATH={tools}:{Path(sys.executable).parent}:$PATH')
    return {**os.environ, 'LAM_ENV': str(tmp_path / 'activate'), 'SLURM_SUBMIT_DIR': str(ROOT), 'SLURM_JOB_ID': str(os.getpid()),
            'SLURM_JOB_NODELIST': 'two[1-2]', 'SLURM_NNODES': '2', 'SLURM_CPUS_PER_TASK': '2', 'SLURM_ARRAY_TASK_ID': '1',
            'SLURM_GPUS_ON_NODE': '1', 'OMP_NUM_THREADS': '1', 'TMPDIR': str(tmp_path)}


def job(script, cluster, *arguments, **environment):
    "Starts a job's script."
    return subprocess.Popen(['bash', ROOT / 'nbs/slurm' / script, *arguments], env=cluster | environment, cwd='/',
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
