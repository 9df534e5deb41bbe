"Runs: several processes, their errors, and files that are whole or absent."
import os

import pytest

from lam_nb.runs import Progress, atomic_path, launch, rank_and_size


def rank_or_fail(bad_rank):
    rank, size = rank_and_size()
    if rank == bad_rank: raise ValueError(f'rank {rank} of {size} found an empty face')
    return rank, size


@pytest.mark.parametrize('n', [2, 3])
def test_processes_return_rank_0(n):
    assert launch(rank_or_fail, None, num_processes=n) == (0, n)


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
