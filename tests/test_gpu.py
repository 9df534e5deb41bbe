"What needs a real GPU: make test-gpu. The same on a pretended one, without numbers: test_null_gpu.py."
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_training import finished, same, settings

from lam_nb.devices import autocast, chosen_precision, set_arithmetic
from lam_nb.inference import predict
from lam_nb.launching import train
from lam_nb.models import BaselineLSTM

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU: make test-gpu')]
NEAR = dict(fp32=1e-4, tf32=1e-2, bf16=5e-2, fp16=1e-2)                              # of a score
CUDA = torch.device('cuda', 0)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return BaselineLSTM().eval()


def precisions() -> list[str]: return [p for p in NEAR if p != 'bf16' or torch.cuda.is_bf16_supported(including_emulation=False)]


def test_scores_are_those_of_the_cpu(model, sample):
    clips = [p.stem for p in sorted((sample / 'faces').glob('*.arrow'))][:2]
    exact = predict(model, sample / 'faces', clips, precision='fp32').score
    for precision in precisions():
        set_arithmetic(precision)
        other = predict(model.to(CUDA), sample / 'faces', clips, precision=precision).score
        model.to('cpu')
        assert np.abs(other - exact).max() < NEAR[precision], precision


def test_the_recurrent_part_is_float32(model):
    kinds = []
    hook = model.lstm.register_forward_hook(lambda *a: kinds.append(a[-1][0].dtype))
    with autocast('auto', CUDA): model.to(CUDA)(torch.rand(2, 7, 3, 64, 64, device=CUDA))
    hook.remove()
    model.to('cpu')
    assert kinds == [torch.float32]


@pytest.mark.parametrize('precision', ['tf32', 'auto', 'fp16'])
def test_a_training_is_resumed_to_the_bit_where_that_is_asked_for(sample, tmp_path, precision):
    options = dict(precision=precision, deterministic=True, device='cuda', epochs=2, schedule='constant', warmup=0)
    train(settings(sample, tmp_path / 'whole', **options))
    train(settings(sample, tmp_path / 'parts', **options | dict(epochs=1)))
    metrics = train(settings(sample, tmp_path / 'parts', **options))
    assert metrics['device'] == 'cuda' and same(finished(tmp_path / 'whole'), finished(tmp_path / 'parts'))
    assert finished(tmp_path / 'parts')['versions']['computes'] == chosen_precision(precision, CUDA)


def test_a_compiled_training(sample, tmp_path):
    assert 0 <= train(settings(sample, tmp_path, precision='auto', compile=True, device='cuda', epochs=1))['mAP'] <= 1


def test_the_first_minutes(tmp_path):
    done = subprocess.run([sys.executable, 'benchmarks/first_gpu.py', '--tiny'], cwd=ROOT, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    assert done.returncode == 0 and len(rows) == 12, done.stdout[-3000:] + done.stderr[-1000:]
