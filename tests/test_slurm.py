"Slurm without a cluster: submitit's local executor, and the job scripts with stand-ins for srun and scontrol."
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from test_training import finished, same, settings
from test_training_processes import TWO, until

from lam_nb.launching import train
from lam_nb.preparation import PrepareSettings
from lam_nb.runs import check_parameters
from lam_nb.scoring import EvaluateSettings
from lam_nb.slurm import submit_slurm

pytestmark = pytest.mark.slow
SCRIPTS = sorted(p.name for p in (ROOT / 'nbs/slurm').glob('*.sh'))


@pytest.fixture
def cluster(tmp_path):
    "The environment of a job's script: srun starts the command once per machine, here; scontrol and scancel do as they are told."
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
    for name, text in dict(srun=srun, scontrol=scontrol, scancel=scancel).items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / 'activate').write_text(f'PATH={tools}:{Path(sys.executable).parent}:$PATH')
    return {**os.environ, 'LAM_ENV': str(tmp_path / 'activate'), 'SLURM_SUBMIT_DIR': str(ROOT), 'SLURM_JOB_ID': str(os.getpid()),
            'SLURM_JOB_NODELIST': 'two[1-2]', 'SLURM_NNODES': '2', 'SLURM_CPUS_PER_TASK': '2', 'SLURM_ARRAY_TASK_ID': '1',
            'SLURM_ARRAY_TASK_COUNT': '2', 'OMP_NUM_THREADS': '1', 'TMPDIR': str(tmp_path)}


def job(script, cluster, *arguments, **environment):
    "Starts a job's script."
    return subprocess.Popen(['bash', ROOT / 'nbs/slurm' / script, *arguments], env=cluster | environment, cwd='/',
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_are_good_bash(script):
    subprocess.run(['bash', '-n', ROOT / 'nbs/slurm' / script], check=True)


def test_a_training_on_two_machines_is_queued_again_and_equals_two_processes(cluster, sample, tmp_path):
    "It gets the signal that comes before the time limit; the same job goes on. The first machine writes settings, results and the report."
    s = settings(sample, tmp_path / 'one', **TWO)
    recipe, out = tmp_path / 'recipe.yaml', tmp_path / 'run'
    changes = s.model_dump(mode='json', exclude={'data_dir', 'out_dir'}) | dict(num_processes=1, epochs=2)
    recipe.write_text(json.dumps(changes))
    where = dict(DATA=str(sample), OUT=str(out), RECIPE=str(recipe))
    first = job('train.sh', cluster, **where)
    assert until((out / 'checkpoints/last.pt').exists, 200), first.communicate()[0]
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=120)[0]
    assert first.returncode != 0 and 'stopped by SIGTERM' in said, said
    assert (tmp_path / 'requeued').read_text().split() == [cluster['SLURM_JOB_ID']]
    assert not (out / 'train.ipynb').exists()
    second = job('train.sh', cluster, **where)
    said = second.communicate(timeout=300)[0]
    assert second.returncode == 0 and 'resumed in epoch' in said and said.count('best checkpoint: ') == 1, said
    assert said.count('1 process on each of 2 machines on the CPU') == 2, said
    train(s)
    assert finished(out)['processes'] == 2 and same(finished(tmp_path / 'one'), finished(out))
    assert json.loads((out / 'metrics.json').read_text())['processes'] == 2
    assert (out / 'report.html').exists() and (out / 'train.ipynb').exists() and 'all 2 epochs were done before' in said


@pytest.mark.parametrize('script, cls, expected', [
    ('prepare.sh', PrepareSettings, dict(data_dir='/data', shard=1, num_shards=2, splits=['val'])),
    ('evaluate.sh', EvaluateSettings, dict(data_dir='/data', device='cuda', checkpoint='best.pt', splits=None))])
def test_other_scripts_start_their_notebook(cluster, tmp_path, script, cls, expected):
    "A stand-in for papermill notes what it is given; the settings take it."
    stand_in = tmp_path / 'bin/papermill'
    stand_in.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/given')
    stand_in.chmod(0o755)
    more = ['-p', 'splits', 'val'] if script == 'prepare.sh' else []
    done = job(script, cluster, *more, DATA='/data', OUT=str(tmp_path / 'out'), CHECKPOINT='best.pt')
    assert done.wait(20) == 0, done.communicate()[0]
    given = (tmp_path / 'given').read_text().splitlines()
    pairs = {name: value for flag, name, value in zip(given, given[1:], given[2:]) if flag == '-p'}
    s = check_parameters(cls, pairs)
    assert (ROOT / given[0]).is_file() and Path(given[1]).parent == Path(s.out_dir) and Path(s.out_dir).is_dir()
    assert {name: getattr(s, name, None) for name in expected} == expected


def test_a_job_that_is_interrupted_goes_on(sample, tmp_path):
    "With submitit's local executor, which interrupts and requeues as Slurm does."
    s = settings(sample, tmp_path / 'run', batch_size=4, save_every=1)
    job = submit_slurm(s, str(tmp_path / 'jobs'), cluster='local')
    last = tmp_path / 'run/checkpoints/last.pt'
    until(lambda: last.exists() or job.done(), 300)
    for task in psutil.Process(job._process.pid).children(): task.send_signal(signal.SIGUSR2)       # the time limit is near
    result, = job.result()
    assert result['epochs'] == 2 and 'Requeued job' in job.stdout() + (job.stderr() or '')


def test_a_job_may_start_a_thousand_times_and_asks_for_a_gpu(sample, tmp_path, monkeypatch):
    monkeypatch.setattr('submitit.slurm.slurm.SlurmExecutor.affinity', classmethod(lambda cls: 1))
    monkeypatch.setattr('submitit.slurm.slurm.SlurmExecutor._submit_command', lambda self, command: (_ for _ in ()).throw(Submitted(self)))
    for options, gpus in ((dict(), 1), (dict(gpus_per_node=4), 4), (dict(device='cpu'), 0)):
        s = settings(sample, tmp_path / 'run').model_copy(update=dict(device=options.pop('device', 'auto')))
        with pytest.raises(Submitted) as e: submit_slurm(s, str(tmp_path / 'jobs'), **options)
        executor = e.value.args[0]
        assert executor.max_num_timeout == 1000 and executor.parameters['gpus_per_node'] == gpus


class Submitted(Exception): "Stands in for sbatch."
