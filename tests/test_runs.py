"Runs and processes: several of them, their errors, signals, and files that are whole or absent."
import os
import random
import signal
import subprocess
import sys
import time
from importlib import import_module

import psutil
import pytest
from conftest import ROOT

from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError

from lam_nb.runs import _MOVED, Progress, atomic_path
from lam_nb.processes import _launch_config, _plain_stops, launch, rank_and_size, stop_requests


def rank_or_fail(bad_rank):
    rank, size = rank_and_size()
    if rank == bad_rank: raise ValueError(f'rank {rank} of {size} found an empty face')
    return rank, size


def test_processes_return_rank_0():
    assert launch(rank_or_fail, None, num_processes=3) == (0, 3)


def test_error_of_any_rank_arrives_with_its_own_traceback():
    with pytest.raises(Exception) as error: launch(rank_or_fail, 1, num_processes=2)
    assert 'rank 1 of 2 found an empty face' in str(error.value)
    assert 'rank_or_fail' in str(error.value)


def test_atomic_path_keeps_the_old_file(tmp_path):
    file = tmp_path / 'a.csv'
    file.write_text('old')
    with pytest.raises(KeyboardInterrupt), atomic_path(file) as part:
        part.write_text('new')
        raise KeyboardInterrupt
    assert file.read_text() == 'old' and os.listdir(tmp_path) == ['a.csv']


def test_progress_is_sparse(capsys):
    with Progress(100_000, 'counting') as progress:
        for _ in range(100_000): progress.update()
    assert 1 <= capsys.readouterr().out.count('\n') <= 3


def test_signals_that_others_answer_or_ignore_are_left_to_them():
    heard, before = [], {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, lambda *_: heard.append('theirs'))           # as submitit
    signal.signal(signal.SIGHUP, signal.SIG_IGN)                               # as nohup
    try:
        with stop_requests() as asked:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): os.kill(os.getpid(), number)
            time.sleep(.1)
    finally:
        for number, handler in before.items(): signal.signal(number, handler)
    assert heard == ['theirs'] and asked == ['SIGINT']


def test_processes_do_not_outlive_a_launcher_that_is_killed():
    "However early it dies."
    seconds = random.choice([0, 2, 5])
    print(f'it dies after {seconds} s')
    code = 'import time; from lam_nb.processes import launch; launch(time.sleep, 600, num_processes=2)'
    launcher, processes, end = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT), [], time.time() + 60
    while len(processes) < 2 and time.time() < end:
        processes = [p for p in psutil.Process(launcher.pid).children() if 'spawn_main' in ' '.join(p.cmdline())]
        time.sleep(.05)
    time.sleep(seconds)
    launcher.kill()
    launcher.wait()
    gone, left = psutil.wait_procs(processes, timeout=60)
    for p in left: p.kill()
    assert len(gone) == 2


def test_a_notebook_that_another_notebook_starts_is_not_watched():
    "The name of the outer notebook is inherited by all that it starts."
    code = "import lam_nb.runs as r; r._in_kernel = lambda: True; print('watched', r._in_lab())"
    told = dict(env={**os.environ, 'JPY_SESSION_NAME': 'outer.ipynb'}, capture_output=True, text=True, cwd=ROOT)
    assert subprocess.run([sys.executable, '-c', code], **told).stdout == 'watched True\n'
    assert subprocess.run(['sh', '-c', f'"{sys.executable}" -c "{code}"; true'], **told).stdout == 'watched False\n'


def test_another_machine_that_is_gone_is_told_plainly():
    with pytest.raises(ConnectionError, match='rdzv_endpoint does not answer .*Start the same command again on all'), _plain_stops():
        raise RendezvousConnectionError('The connection to the C10d store has failed')


def test_names_of_version_0_1_are_found_where_they_are_now():
    "What `_MOVED` promises exists and is public there; an unknown name is an AttributeError as ever."
    for home, names in _MOVED.items():
        for name in names.split():
            assert name in import_module(f'lam_nb.{home}').__all__, f'{name} is not in {home}'
    for module, name in (('training', 'start_training'), ('inference', 'load_model'), ('evaluation', 'best_threshold'),
                         ('preparation', 'alignment'), ('runs', 'launch')):
        with pytest.warns(DeprecationWarning, match=f'{name} is in lam_nb'):
            found = getattr(import_module(f'lam_nb.{module}'), name)
        assert found.__name__ == name
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"): import_module(f'lam_nb.{module}').nothing


def listening():
    "Rank and size, and the addresses on which the launcher and its processes listen, after they have talked."
    import torch
    import torch.distributed as dist
    if rank_and_size()[1] > 1: dist.all_reduce(torch.ones(2), group=dist.new_group(backend='gloo'))
    family = [psutil.Process().parent(), *psutil.Process().parent().children(recursive=True)]
    return rank_and_size(), [c.laddr.ip for p in family for c in p.net_connections('inet') if c.status == 'LISTEN']


@pytest.mark.parametrize('n', [1, 2])
def test_the_processes_of_one_machine_listen_on_its_own_address_only(n, monkeypatch):
    monkeypatch.setattr('lam_nb.processes._headless', lambda: True)                  # so that one process is a new one too
    place, addresses = launch(listening, num_processes=n, apart=True)
    assert place == (0, n) and bool(addresses) == (n > 1)                            # alone it needs no group
    assert all(address.startswith('127.') or address == '::1' for address in addresses)


def test_machines_share_a_name_that_others_do_not_know():
    names = [_launch_config(1, 2, endpoint, '').run_id for endpoint in ('a:29400', 'a:29400', 'b:29400')]
    assert names[0] == names[1] != names[2] and names[0] != 'lam_nb'
