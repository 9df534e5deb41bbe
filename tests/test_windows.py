"The window rule against a slow second implementation, and batches against single reads."
import json
import zlib
from pathlib import Path

import numpy as np
from hard_cases import make_hard_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from lam_nb.annotations import split_clips
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.windows import FaceWindows, window_rows


def slow_window(track, frame, missing, black, centre):
    "One window, frame by frame, as official_baseline describes it in words."
    where = {(t, f): i for i, (t, f) in enumerate(zip(track, frame))}
    rows = [where.get((track[centre], frame[centre] + d)) for d in range(-3, 4)]
    lacking = [r is None or missing[r] for r in rows]
    if any(lacking): lacking = [no or black[r] for no, r in zip(lacking, rows)]
    lacking[3] = False
    kept = [r for r, no in zip(rows, lacking) if not no]
    return [kept[0]] * sum(lacking[:3]) + kept + [kept[-1]] * sum(lacking[4:])


@st.composite
def clips(draw):
    "A few tracks of ascending frames with gaps, missing and black pictures."
    tracks = draw(st.lists(st.lists(st.integers(0, 25), unique=True, min_size=1, max_size=15).map(sorted), max_size=3))
    track = np.array([i for i, frames in enumerate(tracks) for _ in frames], int)
    frame = np.array([f for frames in tracks for f in frames], int)
    flags = st.lists(st.booleans(), min_size=len(frame), max_size=len(frame))
    return track, frame, np.array(draw(flags), bool), np.array(draw(flags), bool)


@settings(deadline=None, max_examples=300)
@given(clips())
def test_rule_equals_the_slow_one(clip):
    rows = window_rows(*clip)
    assert rows.shape == (len(clip[0]), 7)
    for i in range(len(rows)): assert rows[i].tolist() == slow_window(*clip, i)


def test_batches_equal_single_windows(sample):
    windows = FaceWindows(sample / 'faces', split_clips(sample, 'train'), stride=7)
    batch = windows.__getitems__([3, 1, 1, 0])
    for i, item in enumerate([3, 1, 1, 0]):
        assert np.array_equal(batch['images'][i], windows[item]['images'])
        assert batch['label'][i] == windows.labels[item]
    assert batch['images'].shape == (4, 7, 64, 64, 3)


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
