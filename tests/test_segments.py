"""Segments of speech: rows, parts, sound, faces and batches as the official code makes them, and what it fails on.

tests/reference/talking holds what the official code (branch ttm) made of a small data set: the rows of its samples, one epoch of batches,
the challenge segments' parts. segments.json are the annotated entries of that data set, with every quirk of the real lists.
"""
import json
import shutil
import subprocess
import sys
import tracemalloc
import wave
import zipfile
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader

from lam_nb.annotations import clip_faces, load_annotations, load_faces, split_clips
from lam_nb.faces import ClipFaces, challenge_root, note_unavailable, unpack_crops
from lam_nb.preparation import NO_FACES, PrepareSettings, find_source, prepare_faces, split_faces
from lam_nb.sample import make_sample
from lam_nb.segments import (
    LEAST_SAMPLES, SpeechSegments, challenge_segments, collate_segments, length_batches, load_talking, read_sound, segment_parts,
    segment_rows, sound_files, talking_root, talking_segments, target_audit)
from lam_nb.videos import extract_wave

HERE = Path(__file__).resolve().parent / 'reference' / 'talking'
PART = ['clip_uid', 'person_id', 'label', 'first_frame', 'last_frame', 'index']
GOLDEN = ['clip_uid', 'person', 'label', 'start_frame', 'end_frame', 'segment']


def golden(name): return pd.read_csv(HERE / name, dtype=dict(person=str))


def entries(split):
    "Clip uid -> annotated entries, in the order of the split's list."
    return {uid: rows for s, uid, rows in json.loads((HERE / 'segments.json').read_text()) if s == split}


def entry(person='1', target=None, is_at_me=False, start=1, end=60):
    return dict(person=person, target=target, is_at_me=is_at_me, start_frame=start, end_frame=end)


def clip(*rows, **more): return dict(clip_uid='c', social_segments_talking=list(rows)) | more


def parts_of(split, training=None):
    tables = [talking_segments(dict(clip_uid=uid, social_segments_talking=rows))[0] for uid, rows in entries(split).items()]
    return segment_parts(pd.concat(tables, ignore_index=True), split == 'train' if training is None else training)


# Rows, as the official code makes them

@pytest.mark.parametrize('split', ['train', 'val'])
def test_rows_are_the_official_ones(split):
    assert parts_of(split)[PART].values.tolist() == golden(f'{split}.rows.csv')[GOLDEN].values.tolist()


def test_one_epoch_of_batches_is_the_official_one():
    parts = parts_of('train')
    batches = length_batches((parts.last_frame - parts.first_frame + 1).to_numpy(), 0, seed=0)
    made = [[number, *parts[PART].iloc[i]] for number, batch in enumerate(batches) for i in batch]
    assert made == golden('train.batches400.csv')[['batch', *GOLDEN]].values.tolist()


def written(path, samples, rate=16_000, channels=1, width=2):
    "A wave file of int16 samples."
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), 'wb') as out:
        out.setparams((channels, width, rate, 0, 'NONE', ''))
        out.writeframes(np.asarray(samples).tobytes())
    return path


def test_challenge_segments_have_the_official_frames_and_parts(tmp_path):
    samples = {'0' * 32: 32_000, f'{1:032x}': 17_600, f'{2:032x}': 48_000, f'{3:032x}': 83_200}
    info = json.loads((HERE / 'seg_info.json').read_text())
    for name, of in info.items():
        written(tmp_path / name / 'audio/aud.wav', np.zeros(samples[name], np.int16))
        (tmp_path / name / 'face').mkdir()
        for frame in of['frame_list']: (tmp_path / name / 'face' / f'{frame}.jpg').write_bytes(b'')
    faces, segments = challenge_segments(tmp_path)
    assert (segments.end_frame + 1).tolist() == [of['frame_num'] for of in info.values()]
    assert {uid: of.frame.tolist() for uid, of in faces.groupby('clip_uid')} == {uid: of['frame_list'] for uid, of in info.items()}
    parts, want = segment_parts(segments, training=False), golden('test.parts.csv')
    assert parts[['first_frame', 'last_frame']].values.tolist() == want[['start_frame', 'end_frame']].values.tolist()
    sound = dict(zip(segments.clip_uid, segments.sound))
    lengths = [len(read_sound(sound[p.clip_uid], p.first_frame, p.last_frame)) for p in parts.itertuples()]
    assert lengths == want['samples'].tolist()
    assert segments.note.eq('').all() and segments.label.eq(-1).all()


# Rows, where the official code fails

@pytest.mark.parametrize('value, reason', [(None, 'is null: labels unknown'), ({}, 'is dict, not a list')])
def test_a_clip_without_a_list_costs_itself(value, reason):
    table, left_out = talking_segments(clip(social_segments_talking=value))
    assert table.empty and reason in left_out.reason[0]
    assert table.dtypes.equals(talking_segments(clip(entry()))[0].dtypes)       # so tables of clips can be joined


def test_an_empty_list_and_a_list_of_nobody():
    assert [len(t) for t in talking_segments(clip())] == [0, 0]
    table, left_out = talking_segments(clip(entry(None), entry(None)))
    assert table.empty and left_out['count'].tolist() == [2] and segment_parts(table, True).empty


def test_quoted_ids_are_the_same_person_in_segments_and_tracks():
    track = dict(track_id='t', track=[dict(frame=f, x=1., y=1., width=9., height=9.) for f in range(1, 61)])
    persons = [dict(person_id='0', camera_wearer=True, tracking_paths=[]), dict(person_id="'1'", tracking_paths=[track])]
    one = clip(entry(), entry("'1'"), entry('"1" '), persons=persons, social_segments_looking=[])
    faces, parts = clip_faces(one)[0], segment_parts(talking_segments(one)[0], True)
    assert parts.person_id.tolist() == ['1'] * 3
    assert all((rows == np.arange(60)).all() for rows in segment_rows(faces, parts))


def test_the_index_counts_entries_that_name_somebody_also_those_left_out():
    odd = [entry('0'), entry(None), entry(start=9, end=3), entry(start=7, end=7), entry('-1'), entry([]), entry('9', target="'0'")]
    table, left_out = talking_segments(clip(*odd, 'no entry'))
    assert table[['index', 'person_id', 'label']].values.tolist() == [[3, '-1', 0], [5, '9', 1]]
    assert left_out['count'].sum() == 6 and left_out.reason.str.contains('wearer').any()


@pytest.mark.parametrize('length, frames', [(2, [2]), (14, [14]), (150, [150]), (151, [151]), (152, [151]), (299, [151]), (300, [151, 150]),
                                            (421, [151, 151])])
def test_lengths_of_parts(length, frames):
    table = talking_segments(clip(entry(start=5, end=4 + length)))[0]
    parts = segment_parts(table, training=False)
    assert (parts.last_frame - parts.first_frame + 1).tolist() == frames and parts.first_frame[0] == 5
    assert len(segment_parts(table, training=True)) == (len(frames) if length >= 15 else 0)


def test_target_audit_counts_every_kind():
    table, text = target_audit(talking_segments(clip(entry(), entry(target='0', is_at_me=True), entry(target='0'), entry(target='2'),
                                                     entry(target='2', is_at_me=True), entry(is_at_me=True)))[0])
    assert table.loc['nobody'].tolist() == [1, 1] and table.loc['the wearer'].tolist() == [1, 1]
    assert 'of 6 talking segments 4 have a target' in text and 'disagree in 3: a target and not at me 2, at me without a target 1' in text


def annotated(root, clips, split='val', listed=None):
    "A data folder with one annotation file and a list."
    for name in ('json', 'split'): (root / name).mkdir(parents=True, exist_ok=True)
    (root / f'json/av_{split}.json').write_text(json.dumps(dict(videos=[dict(clips=clips)])))
    (root / f'split/{split}.list').write_text('\n'.join(listed or [c['clip_uid'] for c in clips]) + '\n')
    return root


def test_the_word_train_in_a_path_changes_nothing(tmp_path):
    short = [dict(clip(entry(start=1, end=10)), clip_uid=uid) for uid in ('b', 'a')]
    for name in ('my_train_data', 'data'):
        segments, left_out = load_talking(annotated(tmp_path / name, short), 'val')
        assert segment_parts(segments, training=False).clip_uid.tolist() == ['b', 'a'] and left_out.empty


def test_a_listed_clip_without_annotations_is_told(tmp_path):
    segments, left_out = load_talking(annotated(tmp_path, [clip(entry())], listed=['lost', 'c']), 'val')
    assert segments.clip_uid.tolist() == ['c'] and left_out.reason.tolist() == ['listed for val but not in the annotations']
    assert left_out.file.tolist() == ['av_val.json'] and load_talking(tmp_path, 'val', clips=['lost'])[0].empty
    given = load_annotations(tmp_path / 'json/av_val.json')
    assert load_talking(tmp_path, 'val', annotations=given)[0].equals(segments)


def test_boxes_at_the_ends_of_an_unsorted_track_are_used():
    frames = [*range(4, 31), 1, 2, 3, 59, 60, *range(31, 59)]
    track = dict(track_id='t', track=[dict(frame=f, x=1., y=1., width=9., height=9.) for f in frames])
    persons = [dict(person_id='0', camera_wearer=True, tracking_paths=[]), dict(person_id='1', tracking_paths=[track])]
    one = clip(entry(), persons=persons, social_segments_looking=None)            # no looking segments: faces all the same
    rows, = segment_rows(clip_faces(one)[0], segment_parts(talking_segments(one)[0], True))
    assert (rows >= 0).all()


def test_of_two_tracks_with_a_box_on_one_frame_the_last_by_name_counts():
    box = lambda x, frames: [dict(frame=f, x=x, y=1., width=9., height=9.) for f in frames]
    paths = [dict(track_id='b', track=box(50., range(5, 9))), dict(track_id='a', track=box(1., range(1, 11)))]
    persons = [dict(person_id='0', camera_wearer=True, tracking_paths=[]), dict(person_id='1', tracking_paths=paths)]
    faces = clip_faces(clip(persons=persons, social_segments_looking=[]))[0]
    rows, = segment_rows(faces, pd.DataFrame(dict(person_id=['1'], first_frame=[0], last_frame=[11])))
    assert faces.x1.iloc[rows[1:11]].tolist() == [1.] * 4 + [50.] * 4 + [1.] * 2 and rows[0] == rows[11] == -1


# Sound

def official(samples, first, last):
    "The official cut and scale of a whole sound (int16), computed plainly."
    part = (samples / 32768)[int(first / 30 * 16_000):int(last / 30 * 16_000)]
    return (part * (.1 / max(1e-4, np.sqrt((part ** 2).mean())))).astype(np.float32)


@pytest.fixture(scope='module')
def noise(): return np.random.default_rng(0).integers(-9000, 9000, 80_000).astype('<i2')


@pytest.mark.parametrize('first, last', [(0, 149), (1, 149), (30, 180), (70, 71), (100, 250), (148, 200)])
def test_sound_is_the_official_cut(tmp_path, noise, first, last):
    file = written(tmp_path / 'a.wav', noise)
    assert np.array_equal(read_sound(file, first, last), official(noise, first, last))


@pytest.mark.parametrize('first, last, length', [
    (150, 180, 16_000), (9_000, 9_001, 533), (149, 149, LEAST_SAMPLES), (-60, -30, LEAST_SAMPLES), (149.8, 200, LEAST_SAMPLES)])
def test_sound_is_never_shorter_than_a_spectrogram_needs(tmp_path, noise, first, last, length):
    for file in (written(tmp_path / 'a.wav', noise), written(tmp_path / 'b.wav', np.repeat(noise, 3), rate=48_000)):
        sound = read_sound(file, first, last)
        assert len(sound) == length and sound.dtype == np.float32 and np.isfinite(sound).all()
        assert not sound[200:].any()


def test_silence_stays_silent(tmp_path):
    assert not read_sound(written(tmp_path / 'a.wav', np.zeros(32_000, np.int16)), 0, 60).any()
    assert len(read_sound('', 10, 40)) == 16_000 and not read_sound('', 10, 40).any()


def tone(rate, channels=1, seconds=3.):
    "A slow chirp, so that every moment sounds different; the second channel is silent."
    t = np.arange(int(rate * seconds)) / rate
    values = np.zeros((len(t), channels))
    values[:, 0] = .5 * np.sin(2 * np.pi * (300 * t + 200 * t ** 2))
    return values


@pytest.mark.parametrize('rate, channels, width', [(48_000, 1, 2), (44_100, 2, 2), (8_000, 1, 2), (16_000, 2, 2), (16_000, 1, 1),
                                                   (16_000, 1, 3), (16_000, 1, 4)])
def test_sound_of_another_form_is_the_same_sound(tmp_path, rate, channels, width):
    values = tone(rate, channels)
    if width == 1: data = np.round(values * 127 + 128).astype(np.uint8)
    else: data = np.round(values * (2 ** 31 - 1)).astype('<i4').view(np.uint8).reshape(-1, 4)[:, 4 - width:]
    want = official(np.round(tone(16_000)[:, 0] * 32767).astype(np.int16), 30, 75)
    got = read_sound(written(tmp_path / 'a.wav', np.ascontiguousarray(data), rate, channels, width), 30, 75)
    assert abs(len(got) - len(want)) <= 2 and np.isclose(np.sqrt((got ** 2).mean()), .1, rtol=1e-4)
    n = min(len(got), len(want))
    assert np.corrcoef(got[:n], want[:n])[0, 1] > .995


def test_sound_of_a_video_is_that_of_its_wave_file(sample, tmp_path):
    uid = split_clips(sample, 'train')[0]
    video, file = sound_files(sample, [uid])[uid], tmp_path / 'a.wav'
    assert video.suffix == '.mp4'
    extract_wave(video, file)
    for first, last in ((0, 20), (5, 25), (20, 28)):
        a, b = read_sound(video, first, last), read_sound(file, first, last)
        assert len(a) == len(b) and np.corrcoef(a, b)[0, 1] > .99


def test_a_slice_is_read_not_the_file(tmp_path, noise):
    long = written(tmp_path / 'long.wav', np.tile(noise, 60))                      # five minutes, 9.6 MB
    tracemalloc.start()
    got = read_sound(long, 8_000, 8_030)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(got, official(np.tile(noise, 60), 8_000, 8_030)) and peak < 1_000_000


def test_bad_sound_files_are_named(tmp_path, noise):
    for name, content in (('empty.wav', b''), ('page.wav', b'<html>no sound</html>'), ('cut.wav', b'RIFF\x24\x00\x00\x00WAVEfmt ')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name): read_sound(tmp_path / name, 0, 30)
    with pytest.raises(FileNotFoundError, match='none.wav'): read_sound(tmp_path / 'none.wav', 0, 30)
    whole = written(tmp_path / 'whole.wav', noise).read_bytes()
    (tmp_path / 'short.wav').write_bytes(whole[:44 + 32_001])                      # a copy that was cut off, in the midst of a sample
    assert np.array_equal(read_sound(tmp_path / 'short.wav', 0, 100), official(noise[:16_000], 0, 100))


def test_a_video_without_sound_is_named(tmp_path):
    with av.open(str(tmp_path / 'mute.mp4'), 'w') as out:
        stream = out.add_stream('libx264', rate=30, width=64, height=64, pix_fmt='yuv420p')
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format='rgb24')), *stream.encode()]:
            out.mux(packet)
    with pytest.raises(ValueError, match=r'mute.mp4 has no sound'): read_sound(tmp_path / 'mute.mp4', 0, 30)


def test_ids_are_no_paths(tmp_path):
    with pytest.raises(ValueError, match='cannot be used'): sound_files(tmp_path, ['../../etc/passwd'])
    with pytest.raises(ValueError, match='cannot be used'): talking_segments(clip(clip_uid='../c'))


# Batches

def test_batches_of_later_epochs_go_on_as_a_seeded_official_training(n=300, seed=5):
    "By the rule, on Python's lists and NumPy's global generator, as the official sampler keeps them from epoch to epoch."
    lengths = np.random.default_rng(0).integers(2, 152, n)
    import torch
    state, items = np.random.get_state(), list(range(n))
    np.random.seed(seed)
    try:
        for epoch in range(3):
            np.random.shuffle(items)
            items.sort(key=lambda i: lengths[i], reverse=True)
            batches, start = [], 0
            while start < n:
                size = max(int(400 / (lengths[items[start]] - 1)), 1)
                batches.append(items[start:start + size])
                start += size
            inside = torch.Generator().manual_seed(epoch)
            batches = [[b[i] for i in torch.randperm(len(b), generator=inside)] for b in batches]
            np.random.shuffle(batches)
            assert [b.tolist() for b in length_batches(lengths, epoch, seed)] == batches
    finally: np.random.set_state(state)


@pytest.mark.parametrize('lengths, sizes', [([], []), ([1], [1]), ([1, 1, 1], [3]), ([151] * 3, [1, 2]), ([1000], [1])])
def test_batches_of_few_or_odd_lengths(lengths, sizes):
    assert sorted(len(b) for b in length_batches(np.array(lengths, int), 0, 0)) == sizes


def test_collate_cuts_to_the_shortest_and_refuses_nothing():
    items = [dict(faces=np.full((t, 8, 8, 3), t, np.uint8), present=np.ones(t, bool), sound=np.full(s, t, np.float32), label=t % 2)
             for t, s in ((5, 900), (3, 1000))]
    batch = collate_segments(items)
    assert batch['faces'].shape == (2, 3, 8, 8, 3) and batch['sound'].shape == (2, 900) and batch['label'].tolist() == [1, 1]
    assert batch['present'].shape == (2, 3) and batch['faces'][0].unique().tolist() == [5]
    with pytest.raises(ValueError, match='an empty batch'): collate_segments([])


# Items

@pytest.fixture(scope='module')
def data(sample):
    tables, clips = zip(*((load_talking(sample, split)[0], split_clips(sample, split)) for split in ('train', 'val')))
    clips = [uid for of_split in clips for uid in of_split]
    return SpeechSegments(sample / 'faces', clips, segment_parts(pd.concat(tables), training=False), sound_files(sample, clips))


def test_items_are_crops_of_the_speaker_or_black(sample, data):
    assert len(data) == len(data.labels) == len(data.lengths) > 2 and data.size == 64
    for i, part in enumerate(data.parts.itertuples()):
        item, store = data[i], ClipFaces(sample / f'faces/{part.clip_uid}.arrow')
        table = store.table[store.table.person_id == part.person_id].drop_duplicates('frame', keep='last')
        rows = dict(zip(table.frame, table.index))
        assert item['faces'].shape == (data.lengths[i], 64, 64, 3) and item['label'] == part.label
        for t, face in enumerate(item['faces']):
            row = rows.get(part.first_frame + t)
            assert np.array_equal(face, np.zeros((64, 64, 3)) if row is None else store.crop(row))
            assert item['present'][t] == (row is not None)


def test_a_loader_with_processes_gives_the_same(data):
    batches = length_batches(data.lengths, 1, 0, batch_frames=60)
    one, two = (list(DataLoader(data, batch_sampler=batches, collate_fn=collate_segments, num_workers=n,
                                multiprocessing_context='spawn' if n else None)) for n in (0, 1))
    assert len(one) == len(batches) and all((a[k] == b[k]).all() for a, b in zip(one, two) for k in a)


def test_faces_without_an_image_are_black(sample, data, tmp_path, monkeypatch):
    lost = np.arange(0, 1000, 3)
    missing = ClipFaces.missing.func
    monkeypatch.setattr(ClipFaces, 'missing', property(lambda self: missing(self) | np.isin(np.arange(len(missing(self))), lost)))
    again = SpeechSegments(sample / 'faces', data.parts.clip_uid.unique(), data.parts, data.sound)
    i = int(np.argmax([len(r) for r in again.rows]))
    assert again[i]['present'].sum() < data[i]['present'].sum()
    assert [bool(face.any()) for face in again[i]['faces']] == again[i]['present'].tolist()


def test_a_clip_without_any_face_has_sound_only(tmp_path, sample, data):
    faces_dir = shutil.copytree(sample / 'faces', tmp_path / 'faces')
    note_unavailable(faces_dir, dict(empty=NO_FACES))
    parts = pd.concat([data.parts[:1], data.parts[:1].assign(clip_uid='empty')], ignore_index=True)
    sound = data.sound | dict(empty=data.sound[parts.clip_uid[0]])
    both = SpeechSegments(faces_dir, [parts.clip_uid[0], 'empty'], parts, sound)
    assert not both[1]['present'].any() and not both[1]['faces'].any() and np.array_equal(both[0]['sound'], both[1]['sound'])
    with pytest.raises(ValueError, match='give the size wanted'): SpeechSegments(faces_dir, ['empty'], parts, sound)
    assert SpeechSegments(faces_dir, ['empty'], parts, sound, size=32)[0]['faces'].shape[1:] == (32, 32, 3)
    with pytest.raises(ValueError, match='no entry for 1 of 2 clips, first empty'):
        SpeechSegments(faces_dir, [parts.clip_uid[0], 'empty'], parts, data.sound)


def test_a_store_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path, data):
    with pytest.raises(FileNotFoundError, match='run prepare.ipynb'): SpeechSegments(tmp_path, data.parts.clip_uid, data.parts, data.sound)
    assert len(SpeechSegments(tmp_path, [], data.parts, {})) == 0


# Challenge segments

def test_challenge_segments_of_the_sample_agree_with_their_truth(sample):
    faces, segments = challenge_segments(talking_root(sample))
    truth = pd.read_csv(sample / 'talking_truth.csv')
    assert truth[['segment_id', 'frame']].values.tolist() == faces[['clip_uid', 'frame']].values.tolist()
    assert len(segments) and truth.groupby('segment_id').label.nunique().eq(1).all()
    assert (segments.end_frame.to_numpy() >= faces.groupby('clip_uid').frame.max().to_numpy()).all()


def test_challenge_segments_become_stores_as_crops_do(sample, tmp_path):
    faces, segments = challenge_segments(talking_root(sample))
    done = prepare_faces(dict(test=faces), sample, tmp_path, PrepareSettings(image_size=32, workers=1))
    assert (done.status == 'made').all() and done.missing.sum() == 0
    data = SpeechSegments(tmp_path, segments.clip_uid, segment_parts(segments, False), dict(zip(segments.clip_uid, segments.sound)))
    item = data[0]
    first = faces[faces.clip_uid == segments.clip_uid[0]]
    assert (np.flatnonzero(item['present']) == first.frame).all() and item['label'] == -1
    file = cv2.resize(cv2.imread(first.file.iloc[0])[..., ::-1], (32, 32))
    assert np.abs(item['faces'][first.frame.iloc[0]].astype(int) - file).mean() < 6
    assert find_source(sample, segments.clip_uid[0]).kind == 'crops'


def test_incomplete_challenge_segments(tmp_path, noise):
    face = cv2.imencode('.jpg', np.full((16, 16, 3), 90, np.uint8))[1].tobytes()
    files = {'a/face/3.jpg': face, 'a/face/03.png': face, 'a/face/x.jpg': face, 'a/face/1_2.jpg': face, 'a/face/.DS_Store': b'',
             'b/readme.txt': b'', 'c/audio/aud.wav': b'no sound', 'c/face/7.JPG': face, 'd..d/face/1.jpg': face}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    written(tmp_path / 'a/audio/aud.wav', noise[:16_000])
    written(tmp_path / 'e/audio/aud.wav', np.repeat(noise[:16_000], 2).astype('<i2'), channels=2)
    with pytest.warns(UserWarning, match=r"1 segments of .* left out, first: 'd..d' is no id"):
        faces, segments = challenge_segments(tmp_path)
    assert segments.clip_uid.tolist() == list('abce') and segments.end_frame.tolist() == [30, -1, 7, 30]
    assert segments.note.tolist() == ['2 files in face/ are no <frame>.jpg', 'no faces; no sound', 'no sound', 'no faces']
    assert faces.clip_uid.tolist() == ['a', 'a', 'c'] and faces.frame.tolist() == [3, 3, 7]
    parts = segment_parts(segments, training=False)
    assert parts.clip_uid.tolist() == ['a', 'c', 'e']
    empty = [len(table) for table in challenge_segments(tmp_path / 'none')]
    assert empty == [0, 0]


def test_the_two_challenges_are_not_taken_for_each_other(sample, tmp_path):
    assert challenge_root(sample) == sample / 'videos_challenge' and talking_root(sample) == sample / 'final_test_data'
    only = tmp_path / 'only'
    shutil.copytree(sample / 'final_test_data', only / 'v2/social_test/final_test_data')
    assert challenge_root(only) == only / 'videos_challenge' and talking_root(only) == only / 'v2/social_test/final_test_data'
    with pytest.raises(FileNotFoundError, match='no folder .*videos_challenge'): split_faces(only, 'test', PrepareSettings())
    crop = sorted((sample / 'videos_challenge').glob('*/*/*.jpg'))[0]
    with zipfile.ZipFile(only / 'v2/social_test/both.zip', 'w') as z:
        z.write(crop, crop.relative_to(sample))
        for file in sorted((sample / 'final_test_data').rglob('*.jpg'))[:3]: z.write(file, file.relative_to(sample))
    root, left_out = unpack_crops(only)
    assert [f.name for f in root.glob('*/*/*')] == [crop.name] and left_out['count'].tolist() == [3]


# The sample

def test_a_sample_of_an_earlier_version_serves_looking_and_is_refused_for_talking(tmp_path):
    tiny = dict(train_clips=1, val_clips=0, test_clips=0, seconds=.5, width=160, height=120, workers=1, progress=False)
    old = make_sample(tmp_path / 'old', **tiny)
    (old / 'talking_truth.csv').unlink()                                           # as earlier versions wrote it
    assert make_sample(tmp_path / 'old', **tiny) == old and len(load_faces(old, 'train')[0])
    with pytest.raises(ValueError, match='talking segments had no target: delete it and make it anew'): load_talking(old, 'train')


# With the small data set that the official code ran on

@pytest.fixture(scope='module')
def small(mini, tmp_path_factory):
    "The mini data set with talking segments; made by a script beside it."
    script, out = mini.parent / 'talking' / 'make_mini_talking.py', tmp_path_factory.mktemp('talking') / 'data'
    if not script.exists() or not shutil.which('ffmpeg'): pytest.skip('no make_mini_talking.py beside the mini data set, or no ffmpeg')
    subprocess.run([sys.executable, script, mini, out], check=True, capture_output=True)
    data = json.loads((out / 'json/av_val.json').read_text())
    for one in (c for v in data['videos'] for c in v['clips']):                    # one was made longer, and does not say so
        one['video_end_frame'] = one['video_start_frame'] + one['clip_end_frame']
    (out / 'json/av_val.json').write_text(json.dumps(data))
    return out


def unsorted_people(root, split):
    "(clip, person) of the tracks whose boxes are not in order: the official code loses those at their ends."
    clips = (c for v in json.loads((root / f'json/av_{split}.json').read_text())['videos'] for c in v['clips'])
    people = ((c['clip_uid'], p) for c in clips for p in c['persons'])
    tracks = ((uid, p['person_id'], [box['frame'] for box in path['track']]) for uid, p in people for path in p['tracking_paths'])
    return {(uid, person) for uid, person, frames in tracks if frames != sorted(frames)}


@pytest.mark.parametrize('split, lost', [('train', 3), ('val', 12)])
def test_boxes_of_the_small_data_set_are_the_official_ones(small, mini, split, lost):
    want = pd.read_csv(mini.parent / f'talking/golden/{split}.boxes.csv', dtype=dict(person=str))
    faces = load_faces(small, split)[0]
    official = want.assign(person_id=want.person.str.strip("'")).drop(columns='person').drop_duplicates(['clip_uid', 'person_id', 'frame'])
    both = faces.merge(official, on=['clip_uid', 'person_id', 'frame'], suffixes=('', '_official'), how='left')
    there = both.x1_official.notna()
    assert there.sum() == len(official) and (~there).sum() == lost
    assert set(zip(both.clip_uid[~there], both.person_id[~there])) <= unsorted_people(small, split)
    ours, theirs = (both.loc[there, [f'{k}{end}' for k in ('x1', 'y1', 'x2', 'y2')]].to_numpy() for end in ('', '_official'))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_faces_and_sound_of_the_small_data_set_are_the_official_ones(small, split):
    segments, _ = load_talking(small, split)
    parts, want = segment_parts(segments, split == 'train'), golden(f'{split}.rows.csv')
    assert parts[PART].values.tolist() == want[GOLDEN].values.tolist()
    faces, found = load_faces(small, split)[0], {}
    for uid, of in parts.groupby('clip_uid', sort=False):
        extract_wave(small / f'videos/{uid}.mp4', small / f'wave/{uid}.wav')
        found |= dict(zip(of.index, segment_rows(faces[faces.clip_uid == uid], of)))
    sound, unsorted = sound_files(small, parts.clip_uid.unique()), unsorted_people(small, split)
    for i, row in enumerate(want.itertuples()):
        n = (found[i] >= 0).sum()
        quoted = split == 'train' and row.person == '3' and row.clip_uid.startswith('5bd21b6a')
        if quoted: assert row.boxes == 0 < n
        else: assert row.boxes <= n <= row.boxes + 5 * ((row.clip_uid, row.person) in unsorted)
        assert len(read_sound(sound[row.clip_uid], row.start_frame, row.end_frame)) == row.samples
