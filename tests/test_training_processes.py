"Several processes, on one machine or two: the same training, exact resume, signals, errors."
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from conftest import ROOT, job, until
from test_training import STATEFUL, as_arguments, finished, same, same_training, settings

sys.path.insert(0, str(ROOT / 'tests/null_gpu'))
import build

from lam_nb import launching, training
from lam_nb.evaluation import lam_metrics
from lam_nb.scoring import EvaluateSettings, predict_split
from lam_nb.processes import launch, rank_and_size
from lam_nb.launching import train, train_process
from lam_nb.training import TrainSettings

pytestmark = pytest.mark.slow                                              # each process takes seconds to start
TWO = dict(STATEFUL, num_processes=2, batch_size=5)                         # 40 windows: 4 batches of each process, so 2 steps


def train_and_signal(parameters, rank, count, number):
    "In each process: trains, and one of them sends itself a signal when it has done so many batches."
    real, calls = training.train_step, []
    def step(*args, **kwargs):
        calls.append(1)
        if rank_and_size()[0] == rank and len(calls) == count: os.kill(os.getpid(), number)
        return real(*args, **kwargs)
    training.train_step = step
    train_process(parameters)


@pytest.fixture(scope='module')
def whole(sample, tmp_path_factory):
    "Two epochs in two processes, undisturbed."
    s = settings(sample, tmp_path_factory.mktemp('two'), **TWO)
    return s, train(s)


def test_two_processes_stop_together_and_resume_exactly(whole, sample, tmp_path):
    "Rank 1 gets SIGTERM in the middle of a step; then a random rank is killed for good at a random batch; then on to the end."
    s, seed = whole[0].model_copy(update={'out_dir': str(tmp_path)}), random.randrange(10 ** 6)
    with pytest.raises(training.Stopped, match='^stopped by SIGTERM in epoch 1 after batch 2 of 4.*the same command goes on from there$'):
        launch(train_and_signal, s.model_dump(), 1, 1, signal.SIGTERM, num_processes=2)
    assert finished(tmp_path)['step'] == 2
    rank, count = random.Random(seed).randrange(2), random.Random(seed + 1).randrange(1, 6)
    print(f'seed {seed}: rank {rank} is killed at batch {count} of this start')
    with pytest.raises(Exception, match='SIGKILL|exitcode: -9|Connection'):
        launch(train_and_signal, s.model_dump(), rank, count, signal.SIGKILL, num_processes=2)
    train(s)
    same_training(s, Path(whole[0].out_dir), tmp_path)


# SIGTERM to papermill: test_null_gpu.py
@pytest.mark.parametrize('number', [signal.SIGINT, *[signal.SIGTERM] * bool(build.missing())])
def test_a_signal_to_papermill_saves_first(sample, tmp_path, number):
    "Papermill dies of it at once; the training goes on for as long as it needs to save."
    s = settings(sample, tmp_path / 'run', epochs=1000, train_stride=1, val_stride=50, batch_size=1, save_every=10 ** 6)
    command = ['-m', 'papermill', 'nbs/train.ipynb', str(tmp_path / 'out.ipynb'), '-f', *as_arguments(s, tmp_path), '--no-progress-bar']
    mill = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    status, last = tmp_path / 'run/status.json', tmp_path / 'run/checkpoints/last.pt'
    assert until(status.exists, 200) and mill.poll() is None
    works, begin = psutil.Process(mill.pid).children(recursive=True), time.time()
    mill.send_signal(number)
    assert mill.wait(60) != 0 and until(lambda: not any(w.is_running() and w.status() != 'zombie' for w in works), 60)
    n_batches = len(launching.train_windows(s))
    assert last.stat().st_mtime > begin or finished(tmp_path / 'run')['step'] in (0, n_batches)    # or it was just validating


def test_metrics_are_those_of_the_saved_weights(whole, sample):
    "Batch-norm statistics differ between processes; the best checkpoint still gives the metrics of metrics.json."
    s, metrics = whole
    assert metrics['processes'] == 2
    one = EvaluateSettings(data_dir=str(sample), checkpoint=metrics['best_checkpoint'], num_workers=0, num_processes=1, stride=s.val_stride)
    table = predict_split(one)                                    # in two processes: test_inference.py
    assert abs(lam_metrics(table)['mAP'] - metrics['mAP']) < 1e-9
    assert abs(training.score_loss(table, s.weights) - metrics['val_loss']) < 1e-6


def test_another_number_of_processes_goes_on_and_says_so(whole, tmp_path, capsys):
    s, _ = whole
    (tmp_path / 'checkpoints').mkdir()
    saved = torch.load(Path(s.out_dir) / 'checkpoints/last.pt', weights_only=True)
    torch.save(saved | dict(epoch=1, step=2, history=saved['history'][:1], loss_sum=1.4, loss_steps=2), tmp_path / 'checkpoints/last.pt')
    metrics = train(s.model_copy(update=dict(out_dir=str(tmp_path), num_processes=1)))
    assert 'no longer bit-identical to an uninterrupted training: 1 process instead of 2' in capsys.readouterr().out
    assert metrics['epochs'] == 2 and 0.2 < metrics['train_loss'] < 2           # a mean of batch losses, whatever the number of processes


def test_a_training_on_two_machines_is_queued_again_and_equals_two_processes(whole, cluster, sample, tmp_path):
    "It gets the signal that comes before the time limit; the same job goes on. The first machine writes settings, results and the report."
    s, _ = whole
    recipe, out = tmp_path / 'recipe.yaml', tmp_path / 'run'
    changes = s.model_dump(mode='json', exclude={'data_dir', 'out_dir'}) | dict(num_processes=1, epochs=2)
    recipe.write_text(json.dumps(changes))
    where = dict(DATA=str(sample), OUT=str(out), RECIPE=str(recipe), STEP='10')
    first = job('train.sh', cluster, 'resume=false', **where)
    assert until((out / 'checkpoints/last.pt').exists, 200), first.communicate()[0]
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=120)[0]
    assert first.returncode != 0 and 'stopped by SIGTERM' in said, said
    assert (tmp_path / 'requeued').read_text().split() == [cluster['SLURM_JOB_ID']]
    assert not (tmp_path / 'given').exists()
    second = job('train.sh', cluster, 'resume=false', SLURM_RESTART_COUNT='1', **where)         # as a user may have asked at first
    said = second.communicate(timeout=300)[0]
    assert second.returncode == 0 and 'resumed in epoch' in said and said.count('best checkpoint: ') == 1, said
    assert said.count('1 process on each of 2 machines on the CPU') == said.count('steps of 20 windows') == 2, said
    assert finished(out)['processes'] == 2 and same(finished(Path(s.out_dir)), finished(out))
    assert json.loads((out / 'metrics.json').read_text())['processes'] == 2
    given = (tmp_path / 'given').read_text().splitlines()                              # to papermill, for the report
    assert given[:2] == ['nbs/train.ipynb', str(out / 'train.ipynb')] and given[2:4] == ['-f', str(out / 'params.yaml')]
    again = TrainSettings(**yaml.safe_load((out / 'params.yaml').read_text()) | dict(num_nodes=1, resume=True))
    train(again)
    assert json.loads((out / 'metrics.json').read_text())['processes'] == 2
