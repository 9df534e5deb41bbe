"benchmarks/first_gpu.py: no part of it can cost the others, and nothing wrong passes. On a pretended GPU: test_null_gpu.py."
import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import first_gpu


def sleeps(part): time.sleep(60)
def dies(part): os._exit(3)
def raises(part): raise RuntimeError('CUDA error: an illegal memory access was encountered')
def works(part): return dict(figure=1.5)


def test_a_part_that_fails_dies_or_hangs_costs_itself(tmp_path):
    part, begin = SimpleNamespace(root=tmp_path), time.monotonic()
    rows = {work.__name__: first_gpu.run_part(part, work, 1) for work in (sleeps, dies, raises, works)}
    assert time.monotonic() - begin < 10
    assert rows['sleeps']['failed'] == 'stopped after 1 s' and rows['dies']['failed'] == 'it died'
    assert 'illegal memory access' in rows['raises']['failed'] and rows['works']['figure'] == 1.5
    assert [line.split(':')[0] for line in first_gpu.verdict(list(rows.values()))] == ['FAILED sleeps', 'FAILED dies', 'FAILED raises']


@pytest.mark.parametrize('row, says', [
    (dict(part='correctness', tf32=dict(largest_score_error=.2, lstm='torch.float32')), 'WRONG scores in tf32'),
    (dict(part='correctness', bf16=dict(largest_score_error=.01, lstm='torch.float16')), 'WRONG type of the LSTM: torch.float16'),
    (dict(part='repeatable', same_twice=True, same_after_a_resume=False), 'WRONG repeatable: same_after_a_resume'),
    (dict(part='nccl', objects=False), 'WRONG nccl: objects'), (dict(part='command', status=1), 'WRONG command: exit status 1'),
    (dict(part='nccl', alone=dict(failed='RuntimeError: NCCL error')), 'FAILED nccl, alone'),
    (dict(part='command', stopped=True, resumed=False, status=0), 'WRONG command: resumed')])
def test_nothing_wrong_passes(row, says):
    assert [line for line in first_gpu.verdict([row]) if line.startswith(says)]


def test_goals_are_said():
    rows = [dict(part='step_rates', **{'ours, tf32': dict(times_the_official=1.4), 'ours, bf16': dict(times_the_official=2.2)}),
            dict(part='loader', **{'batch 64, 8 workers': dict(of_bare=.97, waiting=.01)}),
            dict(part='batches', **{'fp32, 512': dict(failed='OutOfMemoryError: CUDA out of memory.')})]
    said = first_gpu.verdict(rows)
    assert said[0].startswith('ours, tf32: 1.4 times') and '97% of the bare step' in said[2] and len(said) == 3


@pytest.mark.slow
def test_it_runs_on_the_cpu():
    command = [sys.executable, 'benchmarks/first_gpu.py', '--tiny', '--device', 'cpu', '--only', 'hardware,correctness,saving']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    rows = {row['part']: row for row in map(json.loads, (line for line in done.stdout.splitlines() if line.startswith('{')))}
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert set(rows) == {'hardware', 'correctness', 'saving'} and rows['correctness']['fp32']['largest_score_error'] == 0
    assert rows['saving']['MB'] > 100 and re.search('float32|bf16', rows['hardware']['line'])    # what this processor can do
