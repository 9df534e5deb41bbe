"The window rule against a slow second implementation, batches against single reads, and what worker processes do."
import json
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hard_cases import make_hard_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from lam_nb.annotations import split_clips
from lam_nb.faces import ClipFaces, write_store
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.windows import FaceWindows, _pinned, window_batches, window_rows


def slow_window(track, frame, missing, black, centre, length=7):
    "One window, frame by frame, as the rule is told in words."
    where = {(t, f): i for i, (t, f) in enumerate(zip(track, frame))}
    half = length // 2
    rows = [where.get((track[centre], frame[centre] + d)) for d in range(-half, half + 1)]
    lacking = [r is None or missing[r] for r in rows]
    if any(lacking): lacking = [no or black[r] for no, r in zip(lacking, rows)]
    lacking[half] = False
    kept = [r for r, no in zip(rows, lacking) if not no]
    return [kept[0]] * sum(lacking[:half]) + kept + [kept[-1]] * sum(lacking[half + 1:])


@st.composite
def clips(draw):
    "A few tracks of ascending frames with gaps, missing and black crops."
    tracks = draw(st.lists(st.lists(st.integers(0, 25), unique=True, min_size=1, max_size=15).map(sorted), max_size=3))
    track = np.array([i for i, frames in enumerate(tracks) for _ in frames], int)
    frame = np.array([f for frames in tracks for f in frames], int)
    flags = st.lists(st.booleans(), min_size=len(frame), max_size=len(frame))
    return track, frame, np.array(draw(flags), bool), np.array(draw(flags), bool)


@settings(deadline=None, max_examples=300)
@given(clips(), st.sampled_from([1, 3, 5, 7, 7, 7, 13]))
def test_rule_equals_the_slow_one(clip, length):
    rows = window_rows(*clip, length)
    assert rows.shape == (len(clip[0]), length)
    for i in range(len(rows)): assert rows[i].tolist() == slow_window(*clip, i, length)


def test_batches_equal_single_windows(sample):
    windows = FaceWindows(sample / 'faces', split_clips(sample, 'train'), stride=7)
    batch = windows.__getitems__([3, 1, 1, 0])
    for i, item in enumerate([3, 1, 1, 0]):
        assert np.array_equal(batch['images'][i], windows[item]['images'])
        assert batch['label'][i] == windows.labels[item]
    assert batch['images'].shape == (4, 7, 64, 64, 3)


@pytest.fixture(scope='module')
def windows(sample):
    return FaceWindows(sample / 'faces', split_clips(sample, 'train'), stride=2)


@pytest.mark.filterwarnings('ignore:This DataLoader will create')
@pytest.mark.parametrize('workers', [0, 1, 3])
@pytest.mark.parametrize('slow', [False, True])
def test_workers_give_the_same_batches_in_order(windows, workers, slow):
    "Also for a slow reader, while workers run ahead as far as they can: no batch is overwritten while it is used."
    order = np.random.default_rng(0).permutation(len(windows))[:70]
    batches = [order[i:i + 3] for i in range(0, len(order), 3)]
    seen = 0
    for batch, items in zip(window_batches(windows, batches, workers), batches, strict=True):
        if slow: time.sleep(0.02)
        plain = windows.__getitems__(items)
        assert batch.keys() == plain.keys() and all(np.array_equal(batch[k], plain[k]) for k in plain)
        seen += len(items)
    assert seen == len(order) == 70 and len(batch['item']) == 1


@pytest.mark.parametrize('length', [1, 5])
def test_windows_of_another_length_are_the_middle_of_longer_ones(sample, length):
    "Where a track has no gap; batches of workers have their shape."
    seven, other = (FaceWindows(sample / 'faces', split_clips(sample, 'train'), stride=7, length=n) for n in (7, length))
    inside = [i for i in range(len(seven)) if (np.diff(seven.rows[i]) == 1).all()]
    out = (7 - length) // 2
    assert len(inside) > 5 and np.array_equal(seven.rows[inside, out:7 - out], other.rows[inside])
    batch, = window_batches(other, [np.array(inside[:3])], num_workers=1)
    assert batch['images'].shape == (3, length, 64, 64, 3)
    assert np.array_equal(batch['images'], seven.__getitems__(inside[:3])['images'][:, out:7 - out])


def test_workers_draw_no_random_numbers(windows):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    next(window_batches(windows, [np.array([0, 1])], num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_batches_no_workers(windows): assert list(window_batches(windows, [], num_workers=2)) == []


def test_an_error_of_a_worker_reaches_the_reader(sample, tmp_path):
    windows = FaceWindows(sample / 'faces', split_clips(sample, 'train')[:1])
    windows.stores[0].image = lambda row: b'no image'
    with pytest.raises(ValueError, match=r'\.arrow, row \d+: .*face store is damaged'):
        list(window_batches(windows, [np.array([0])], num_workers=1))


def test_pinned_batches_are_copies_one_ahead(monkeypatch):
    "Without a GPU nothing can be pinned: a copy stands in for it."
    monkeypatch.setattr(torch.Tensor, 'pin_memory', torch.Tensor.clone)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    room, asked = torch.zeros(1), []

    def in_turns():
        for i in range(4):
            asked.append(i)
            yield dict(images=room.fill_(i))
    kept = []
    for batch in _pinned(in_turns(), torch.device('cuda', 0)): kept.append(batch['images'])
    assert [k.item() for k in kept] == [0, 1, 2, 3] and asked == [0, 1, 2, 3]
    reader = _pinned(in_turns(), torch.device('cuda', 0))
    assert next(reader)['images'].item() == 0 and next(reader)['images'].item() == 1


def test_the_index_keeps_no_tables(windows):
    assert not any('table' in store.__dict__ for store in windows.stores)
    assert windows.clip.nbytes + windows.rows.nbytes + windows.labels.nbytes == 33 * len(windows)


MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import numpy as np
from lam_nb.windows import FaceWindows, window_batches
windows = FaceWindows(sys.argv[1], [f'clip-{i}' for i in range(300)])
one_of_each = np.unique(windows.clip, return_index=True)[1]
batches = window_batches(windows, np.array_split(one_of_each, 10), num_workers=2)
print(sum(int(b['images'].numpy().any((1, 2, 3, 4)).sum()) for b in batches), 'of', len(one_of_each))
"""


def test_hundreds_of_stores_need_no_file_descriptors(sample, tmp_path):
    "300 stores are open at once in a process that may open 64 files."
    store = ClipFaces(next((sample / 'faces').glob('*.arrow')))
    faces, images = store.table.head(9), [([row], bytes(store.image(row))) for row in range(9)]
    for i in range(300): write_store(tmp_path / f'clip-{i}.arrow', faces.assign(clip_uid=f'clip-{i}'), images, store.about)
    done = subprocess.run([sys.executable, '-c', MANY, tmp_path], capture_output=True, text=True)
    assert done.stdout.split() == ['300', 'of', '300'], done.stderr[-2000:]


TERM = """
import os, signal, sys, time
import multiprocessing as mp
import numpy as np
import lam_nb.windows as W
W._GRACE = 2
windows = W.FaceWindows(sys.argv[1], sys.argv[2:])
batches = W.window_batches(windows, [np.array([0, 1])] * 50, num_workers=2)
for p in mp.active_children(): os.kill(p.pid, signal.SIGTERM)          # when they hardly live
next(batches)
for p in mp.active_children(): os.kill(p.pid, signal.SIGTERM)
print(sum(len(next(batches)['item']) for _ in range(10)))
"""


def test_workers_outlive_sigterm_but_not_the_reader(sample):
    "They go on for a while after SIGTERM, and a reader that leaves with batches unread is not held up by them."
    command = [sys.executable, '-c', TERM, sample / 'faces', *split_clips(sample, 'train')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.stdout == '20\n' and done.returncode == 0, done.stderr[-2000:]


def test_hard_cases_equal_the_official_loader_bit_for_bit(tmp_path):
    "Every window of every hard case: the checksums were made by the official code (tests/reference/make_window_reference.py)."
    root = make_hard_cases(tmp_path)
    options = PrepareSettings(source='frames', image_format='png', workers=1)
    faces, _ = split_faces(root, 'val', options)
    done = prepare_faces({'val': faces}, root, root / 'faces', options)
    assert done.missing.sum() > 20 and done.black.sum() > 20                # the cases are there
    windows = FaceWindows(root / 'faces', split_clips(root, 'val'))
    sums = {}
    for item, (clip, rows) in enumerate(zip(windows.clip, windows.rows)):
        row = windows.stores[clip].table.iloc[rows[3]]
        sums[f'{row.clip_uid}:{row.track_id}:{row.frame}'] = zlib.crc32(windows[item]['images'].tobytes())
    official = json.loads((Path(__file__).parent / 'reference/windows.json').read_text())
    assert len(official) > 400 and sums.keys() == official.keys()
    assert not [key for key in official if sums[key] != official[key]]
