"What several test files share: a tiny sample data set with its face store, and where other data may lie."
import os
from pathlib import Path

if not os.environ.get('LAM_NB_TEST_GPU'):          # set by `make test-gpu`
    os.environ['CUDA_VISIBLE_DEVICES'] = ''        # the same tests on every machine: several processes need several GPUs, or none

import pytest

from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.sample import make_sample

ROOT = Path(__file__).resolve().parent.parent
MINI = ROOT.parent / 'shared' / 'ego4d_mini'


SLOW = ['test_run_notebooks.py', 'test_training_processes.py', 'test_null_gpu.py', 'test_slurm.py', 'test_training.py',
        'test_training_options.py', 'test_comparison.py']


def pytest_collection_modifyitems(items):
    "The longest files come first: of two processes that share the files, none is left alone with a long one."
    place = {name: n for n, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path.name, len(SLOW)))


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
