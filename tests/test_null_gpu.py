"""A rehearsal on pretended GPUs: their memory is host memory and their kernels do nothing, so a machine without a GPU can run it.

Device checks, autograd's threads, autocast, pinned memory, DDP, launching, saving and resuming are PyTorch's real code. Not rehearsed:
numbers, speed, cuDNN, cuBLAS, torch.compile; NCCL is replaced by gloo, with NCCL's demands on devices. tests/null_gpu has the parts.
"""
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT, until

sys.path.insert(0, str(ROOT / 'tests/null_gpu'))
import build

from lam_nb.models import read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(build.missing()), reason=f'no pretended GPUs: {build.missing()}')]


@pytest.fixture(scope='module')
def gpus(tmp_path_factory):
    "The environment in which Python finds pretended GPUs."
    environment = {name: value for name, value in os.environ.items() if name != 'CUDA_VISIBLE_DEVICES'}
    return environment | build.build(tmp_path_factory.mktemp('gpus')) | dict(OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')


@pytest.fixture(scope='module')
def rehearsed(gpus, sample, tmp_path_factory):
    "Name -> what became of each scenario; all in one process and its forks, because importing takes longest."
    command = [sys.executable, ROOT / 'tests/null_gpu/scenarios.py', sample, tmp_path_factory.mktemp('scenarios')]
    done = subprocess.run(command, cwd=ROOT, env=gpus, capture_output=True, text=True, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    assert done.returncode == 0 and lines, done.stderr[-3000:]
    print(f'{sum(line["seconds"] for line in lines):.0f} s of processor:', {line['name']: line['seconds'] for line in lines})
    return {line['name']: line for line in lines}


GOOD = ['one', 'all options', 'tf32', 'fp16, clipped', 'fp32, frozen, deterministic', 'evaluation', 'two seeds', 'stopped',
        'first minutes', 'T4', 'two', 'torchrun', *(f'notebook {name}' for name in '03_devices 25_batches'.split())]
SAME = 'Expected all tensors to be on the same device'
REFUSED = {
    'planted weights': SAME, 'planted labels': SAME, 'planted numbers': SAME, 'planted average': SAME,
    'planted first_gpu': 'null NCCL: a tensor on cuda:0, not cuda:1', 'planted same_gpu': 'Duplicate GPU detected',
    'T4, bf16': 'ValueError: precision = bf16, but null GPU 0 does not compute with bfloat16: use fp16, or auto',
    'V100': 'null GPU 0 (compute capability 7.0) is too old for this PyTorch',
    'full': 'would fit, for steps of the same size; bf16 and fp16 need about half',
    'three processes on two GPUs': 'num_processes = 3, but this machine has 2 GPUs: give at most 2, or device = cpu'}


def test_every_scenario_is_looked_at(rehearsed):
    assert set(rehearsed) == {*GOOD, *REFUSED}


@pytest.mark.parametrize('name', GOOD)
def test_runs(rehearsed, name):
    assert rehearsed[name]['good'], rehearsed[name]['text']


@pytest.mark.parametrize('name', REFUSED)
def test_is_found(rehearsed, name):
    assert not rehearsed[name]['good'] and REFUSED[name] in rehearsed[name]['text'], rehearsed[name]['text']


def test_the_first_minutes_say_that_kernels_that_do_nothing_are_wrong(rehearsed):
    said = rehearsed['first minutes']['text']
    assert 'WRONG scores in bf16' in said and 'FAILED' not in said and 'WRONG scores in fp32' in said and '"objects": true' in said


def test_papermill_on_two_gpus_is_stopped_and_goes_on_on_one(gpus, sample, tmp_path):
    out = tmp_path / 'run'
    given = dict(data_dir=sample, out_dir=out, epochs=300, train_stride=3, val_stride=8, batch_size=4, image_size=32, device='cuda',
                 schedule='constant', warmup=0, val_every=300, precision='auto', model='small:Small', save_every=1)

    def papermill(count, **changes):
        pairs = [word for name, value in (given | changes).items() for word in ('-p', name, str(value))]
        command = [sys.executable, '-m', 'papermill', 'nbs/train.ipynb', tmp_path / f'{count}.ipynb', *pairs, '--no-progress-bar']
        return subprocess.Popen(command, cwd=ROOT, env=gpus | dict(NULL_GPU_COUNT=str(count)), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    mill, last = papermill(2), out / 'checkpoints/last.pt'
    assert until(last.exists, 200) and mill.poll() is None
    works = psutil.Process(mill.pid).children(recursive=True)
    mill.send_signal(signal.SIGTERM)
    assert mill.wait(60) != 0 and until(lambda: not any(w.is_running() and w.status() != 'zombie' for w in works), 60)
    saved = read_checkpoint(last)
    assert saved['processes'] == 2 and saved['versions'] == saved['versions'] | dict(device='null GPU 0', computes='bf16')
    more = saved['epoch'] + 2
    mill = papermill(1, epochs=more, val_every=more)
    said = mill.communicate(timeout=200)[0]
    assert mill.returncode == 0, said
    metrics, notebook = json.loads((out / 'metrics.json').read_text()), (tmp_path / '1.ipynb').read_text()
    assert metrics['device'] == 'cuda' and metrics['processes'] == 1 and metrics['epochs'] == more
    assert '1 process on null GPU 0 (cuda:0), bf16, torch ' in notebook and '1 process instead of 2' in notebook + said
    assert (out / 'report.html').exists()
