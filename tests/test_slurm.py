"Slurm without a cluster: submitit's local executor, and the job scripts with stand-ins for srun and scontrol."
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, job, until
from test_training import settings

from lam_nb.preparation import PrepareSettings
from lam_nb.runs import check_parameters
from lam_nb.scoring import EvaluateSettings
from lam_nb.slurm import submit_slurm

pytestmark = pytest.mark.slow
SCRIPTS = sorted(p.name for p in (ROOT / 'nbs/slurm').glob('*.sh'))


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_are_good_bash(script):
    subprocess.run(['bash', '-n', ROOT / 'nbs/slurm' / script], check=True)


@pytest.mark.parametrize('script, cls, expected', [
    ('prepare.sh', PrepareSettings, dict(data_dir='/data', shard=1, num_shards=8, splits=['val'])),
    ('evaluate.sh', EvaluateSettings, dict(data_dir='/data', device='cuda', checkpoint='best.pt', split='test'))])
def test_other_scripts_start_their_notebook(cluster, tmp_path, script, cls, expected):
    "The settings take what papermill is given."
    done = job(script, cluster, DATA='/data', OUT=str(tmp_path / 'out'), CHECKPOINT='best.pt', SPLIT='test', SPLITS='val')
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
