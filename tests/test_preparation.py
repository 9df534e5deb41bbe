"Preparation: sources, odd videos, kills, several runs at once, archives, full-scale videos, files for other tools."
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import tarfile
import time
import wave
import zipfile
from fractions import Fraction

import cv2
import numpy as np
import pandas as pd
import pytest

from lam_nb.annotations import load_faces
from lam_nb.faces import ClipFaces, challenge_faces, challenge_root, note_unavailable, store_path, unpack_crops
from lam_nb.preparation import (
    PrepareSettings, clip_origins, find_source, prepare_clip, prepare_faces, share_clips, split_faces, write_for_others)
from lam_nb.data_checks import _test_clips, alignment, write_official_files
from lam_nb.videos import cut_clip, extract_frames, extract_wave, video_frames


def level(image): return round((float(image.mean()) - 20) / 10)


def write_video(path, times, codec='libx264', pixels='yuv420p', size=(64, 64), sound_at=None, options=None, levels=None):
    "Grey frames, the k-th of brightness 20 + 10 k, at the given times in seconds; with `sound_at`, sound that begins then."
    import av
    tick = Fraction(1, 3000)
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=30, width=size[0], height=size[1], pix_fmt=pixels, options=options or {})
        stream.time_base = stream.codec_context.time_base = tick
        if sound_at is not None:
            track = out.add_stream('aac', rate=16_000, layout='mono')
            for k in range(40):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
                frame.sample_rate, frame.pts, frame.time_base = 16_000, int(sound_at * 16_000) + 1024 * k, Fraction(1, 16_000)
                out.mux(track.encode(frame))
            out.mux(track.encode())
        for k, t in enumerate(times):
            grey = np.full((size[1], size[0], 3), 20 + 10 * (levels[k] if levels else k), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format='rgb24')
            frame.pts, frame.time_base = round(t / tick), tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


THIRTIETHS = [k / 30 for k in range(12)]


@pytest.mark.parametrize('codec, pixels, suffix', [
    ('libx264', 'yuv420p', 'mp4'), ('libx264', 'yuv420p10le', 'mp4'), ('libx264', 'yuv444p', 'mp4'), ('libx265', 'yuv420p', 'mp4'),
    ('libx265', 'yuv420p10le', 'mp4'), ('libvpx-vp9', 'yuv420p', 'mp4'), ('libvpx-vp9', 'yuv420p', 'webm'), ('mpeg4', 'yuv420p', 'mp4'),
    ('mjpeg', 'yuvj422p', 'mkv')])
def test_codecs_and_pixel_formats(tmp_path, codec, pixels, suffix):
    import av
    if codec not in av.codecs_available: pytest.skip(f'this PyAV has no {codec}')
    quiet = dict(options={'x265-params': 'log-level=none'}) if codec == 'libx265' else {}
    try: video = write_video(tmp_path / f'v.{suffix}', THIRTIETHS, codec, pixels, **quiet)
    except av.FFmpegError as e: pytest.skip(f'this PyAV cannot write {codec} {pixels}: {e}')
    assert {p: level(image) for p, image in video_frames(video, range(20))} == {k: k for k in range(12)}


@pytest.mark.parametrize('times, seen', [
    ([k / 15 for k in range(4)], [0, 0, 1, 1, 2, 2, 3]),                              # 15 a second
    ([k / 60 for k in range(8)], [0, 2, 4, 6, 7]),                                    # 60 a second: of two the later one
    ([0, 1 / 30, 4 / 30, 5 / 30], [0, 1, 1, 1, 2, 3]),                                # lost frames
    ([0, 1 / 30, 1 / 30 + .002, 2 / 30], [0, 2, 3]),                                  # a doubled frame
    ([t + .5 for t in THIRTIETHS[:4]], [0, 1, 2, 3])])                                # a late start counts from the first frame
def test_time_decides(tmp_path, times, seen):
    video = write_video(tmp_path / 'v.mp4', times, options=dict(bf='0'))
    assert [level(image) for _, image in video_frames(video, range(30))] == seen


def test_a_file_whose_sound_begins_first(tmp_path):
    "As ffmpeg's extraction has it: the time before the first frame shows the first frame (checked with ffmpeg 5.1)."
    video = write_video(tmp_path / 'v.mp4', [t + .032 for t in THIRTIETHS], sound_at=0, options=dict(bf='0'))
    shown = {zero: [level(image) for _, image in video_frames(video, range(5), zero)] for zero in ('file', 'video')}
    assert shown == dict(file=[0, 0, 1, 2, 3], video=[0, 1, 2, 3, 4])


@pytest.mark.parametrize('turn', [90, 180, 270])
def test_turned_frames_are_upright(tmp_path, turn):
    "The display matrix of an MP4, written by hand into its track header."
    video = write_video(tmp_path / 'v.mp4', THIRTIETHS[:2], size=(64, 32))
    data = bytearray(video.read_bytes())
    matrix = data.index(b'tkhd') + 4 + 40
    one = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[turn]
    for place, value in zip((0, 4, 12, 16), one): data[matrix + place:matrix + place + 4] = (value * 65536 & 0xffffffff).to_bytes(4, 'big')
    video.write_bytes(data)
    shape = next(video_frames(video, [0]))[1].shape
    assert shape == ((64, 32, 3) if turn != 180 else (32, 64, 3))


@pytest.mark.parametrize('size', [(66, 50), (65, 49)])
def test_odd_sizes(tmp_path, size):
    video = write_video(tmp_path / 'v.mp4', THIRTIETHS[:3], pixels='yuv444p', size=size)
    assert [image.shape[:2] for _, image in video_frames(video, range(3))] == [size[::-1]] * 3


@pytest.fixture(scope='module')
def long_video(tmp_path_factory):
    "Forty seconds with a key frame every two, whose frames change every third of a second."
    import av
    path = tmp_path_factory.mktemp('long') / 'long.mp4'
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('libx264', rate=30, width=64, height=64, pix_fmt='yuv420p', options=dict(g='60', preset='ultrafast'))
        for k in range(1200):
            grey = np.full((64, 64, 3), k // 10 * 2, np.uint8)
            grey[:, :k % 10 * 6] = 0                             # a bar tells the frames of a third apart
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format='rgb24')))
        out.mux(stream.encode())
    return path


def test_seeking_gives_the_same_frames(long_video):
    whole = dict(video_frames(long_video, range(1200)))
    for first in (149, 151, 600, 619, 1190):
        assert np.array_equal(next(video_frames(long_video, [first]))[1], whole[first]), first
    assert len(whole) == 1200 and not list(video_frames(long_video, [5000]))


def full_scale_data(root, long_video, uid='clip', start=301, count=90):
    "A data folder with one full-scale video, and annotations of one clip in it."
    (root / 'json').mkdir(parents=True)
    (root / 'full_scale').mkdir()
    shutil.copy(long_video, root / 'full_scale' / 'video.mp4')
    boxes = [dict(x=10, y=8, width=40, height=44, frame=f, video_frame=start + f, clip_frame=None) for f in range(count)]
    person = dict(person_id='1', camera_wearer=False, voice_segments=[], tracking_paths=[dict(track_id='t', track=boxes)])
    wearer = dict(person_id='0', camera_wearer=True, tracking_paths=[], voice_segments=[])
    clip = dict(clip_uid=uid, video_uid='video', video_start_frame=start, video_end_frame=start + count, persons=[wearer, person],
                social_segments_looking=[dict(person='1', start_frame=3, end_frame=20, is_at_me=True)], social_segments_talking=None)
    (root / 'json/av_train.json').write_text(json.dumps(dict(videos=[dict(video_uid='video', clips=[clip])])))
    return load_faces(root, 'train')[0]


def test_full_scale_shows_what_the_official_cut_shows(tmp_path, long_video):
    "The official cut begins at second (video_start_frame - 1) / 30, and is read at position f - 1: as a file in videos/, or directly."
    faces = full_scale_data(tmp_path, long_video)
    origin = clip_origins(tmp_path, 'train')['clip']
    direct = find_source(tmp_path, 'clip', 'auto', origin)
    assert direct.kind == 'full_scale' and origin == ('video', 301, 90)
    cut_clip(direct.path, tmp_path / 'videos/clip.mp4', 300, 91)
    cut = find_source(tmp_path, 'clip')
    a, b = (dict(source.frames(faces.frame)) for source in (direct, cut))
    assert cut.kind == 'videos' and list(a) == list(b) == list(range(1, 90))
    assert max(np.abs(a[f].astype(int) - b[f]).mean() for f in a) < 2
    assert min(np.abs(a[f].astype(int) - a[f + 1]).mean() for f in range(1, 89)) > 2


@pytest.mark.parametrize('end', ['Infinity', '1e999', 'NaN', '1' + '0' * 400, '"600"', 'null'])
def test_a_clip_without_a_whole_end_has_no_origin_and_stops_nothing(tmp_path, long_video, end):
    full_scale_data(tmp_path, long_video)
    file = tmp_path / 'json/av_train.json'
    file.write_text(file.read_text().replace('"video_end_frame": 391', f'"video_end_frame": {end}'))
    assert clip_origins(tmp_path, 'train') == {} and len(load_faces(tmp_path, 'train')[0])


def test_full_scale_to_store_and_files_for_other_tools(tmp_path, long_video):
    faces = full_scale_data(tmp_path, long_video)
    settings = PrepareSettings(image_size=32, workers=1, also_write=['clips', 'frames', 'wave'], source='full_scale', delete_videos=True)
    done = prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', settings)
    assert done.status.tolist() == ['made'] and done.missing[0] == 0 and 'no sound' in done.notes[0]
    assert len(list((tmp_path / 'video_imgs/clip').glob('img_*.jpg'))) == 91 and (tmp_path / 'videos/clip.mp4').exists()
    assert not (tmp_path / 'full_scale/video.mp4').exists()
    again = prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', settings)          # the video is gone, the store is good
    assert again.status.tolist() == ['kept']


def test_sound(tmp_path):
    video = write_video(tmp_path / 'v.mp4', THIRTIETHS, sound_at=0)
    assert extract_wave(video, tmp_path / 'wave/v.wav') == pytest.approx(40 * 1024 / 16_000, abs=.07)
    with wave.open(str(tmp_path / 'wave/v.wav')) as w: assert (w.getnchannels(), w.getframerate(), w.getsampwidth()) == (1, 16_000, 2)


def test_frames_are_whole_or_absent(tmp_path):
    video = write_video(tmp_path / 'v.mp4', THIRTIETHS)
    (tmp_path / '.v.part').mkdir()
    (tmp_path / '.v.part/img_00099.jpg').write_bytes(b'left by a killed run')
    assert extract_frames(video, tmp_path / 'v') == 12
    assert sorted(f.name for f in (tmp_path / 'v').iterdir()) == [f'img_{k:05d}.jpg' for k in range(1, 13)]
    (tmp_path / 'bad.mp4').write_bytes(b'')
    with pytest.raises(ValueError, match='bad.mp4'): extract_frames(tmp_path / 'bad.mp4', tmp_path / 'bad')
    assert not (tmp_path / 'bad').exists()


def test_official_files(sample, tmp_path):
    "By the official rule, said anew: all persons but the first, a file a track; looking segments that name a person."
    shutil.copytree(sample / 'json', tmp_path / 'json')
    for _ in range(2):                                           # a second run changes nothing
        assert [write_official_files(tmp_path, split) for split in ('train', 'val')] == [[], []]
    read, tracks = lambda *parts: json.loads(tmp_path.joinpath(*parts).read_text()), 0
    for split in ('train', 'val'):
        for clip in (c for v in json.loads((sample / f'json/av_{split}.json').read_text())['videos'] for c in v['clips']):
            uid = clip['clip_uid']
            for person in clip['persons'][1:]:
                for path in person['tracking_paths']:
                    rows, tracks = read('json_original', uid, f'{path["track_id"]}.json'), tracks + 1
                    assert rows == [{'clip_uid': uid, 'frameNumber': i['frame'], 'Person ID': person['person_id'], 'x': i['x'], 'y': i['y'],
                                     'height': i['height'], 'width': i['width']} for i in path['track']]
            segments = [s for s in clip['social_segments_looking'] or [] if s['person'] is not None]
            expected = [dict(label=s['person'], start_frame=s['start_frame'], end_frame=s['end_frame']) for s in segments]
            assert read('result_LAM', f'{uid}.json') == expected
            assert (tmp_path / 'result_TTM' / f'{uid}.json').exists()
    assert tracks >= 10


# ---- broken files, hostile names --------------------------------------------------------------------------------------

def one_clip(sample):
    table = load_faces(sample, 'train')[0]
    return table[table.clip_uid == table.clip_uid[0]].reset_index(drop=True)


def broken(kind, good, path):
    "A broken video of some kind at `path`."
    import av
    if kind == 'truncated': path.write_bytes(good.read_bytes()[:good.stat().st_size // 2])
    elif kind == 'empty': path.write_bytes(b'')
    elif kind == 'text': path.write_text('no video')
    elif kind == 'folder': path.mkdir()
    else:
        with av.open(str(path), 'w') as out:
            if kind == 'no frames': out.add_stream('libx264', rate=30, width=64, height=64, pix_fmt='yuv420p')
            track = out.add_stream('aac', rate=16_000, layout='mono')
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
            frame.sample_rate = 16_000
            out.mux(track.encode(frame))
            out.mux(track.encode())


@pytest.mark.parametrize('kind', ['truncated', 'empty', 'text', 'folder', 'no frames', 'sound only', 'annotated beyond the end'])
def test_a_broken_clip_is_named_and_leaves_nothing(sample, tmp_path, kind):
    faces = one_clip(sample)
    good = sample / 'videos' / f'{faces.clip_uid[0]}.mp4'
    (tmp_path / 'videos').mkdir()
    if kind == 'annotated beyond the end': shutil.copy(good, tmp_path / 'videos/bad.mp4')
    else: broken(kind, good, tmp_path / 'videos/bad.mp4')
    shutil.copy(good, tmp_path / 'videos')
    late = 10_000 if kind == 'annotated beyond the end' else 0
    table = pd.concat([faces.assign(clip_uid='bad', frame=faces.frame + late), faces], ignore_index=True)
    done = prepare_faces({'train': table}, tmp_path, tmp_path / 'faces', PrepareSettings(image_size=32, workers=1))
    assert done.status.tolist() == ['failed', 'made'] and 'bad.mp4' in done.reason[0], done.reason[0]
    assert sorted(p.name for p in (tmp_path / 'faces').iterdir()) == sorted([f'{faces.clip_uid[0]}.arrow', 'unavailable'])
    assert list(note_unavailable(tmp_path / 'faces', {})) == ['bad']


@pytest.mark.parametrize('uid', ['../evil', '/tmp/evil', 'a/b', 'a\\b', 'a\0b', 'x' * 300, '', '..', 'line\nbreak'])
def test_hostile_ids_touch_nothing(sample, tmp_path, uid):
    work = tmp_path / 'work'
    table, settings = one_clip(sample).assign(clip_uid=uid), PrepareSettings(image_size=32, workers=1)
    done = prepare_faces({'train': table}, sample, work / 'faces', settings)
    assert done.status.tolist() == ['failed'] and 'cannot be used' in done.reason[0]
    assert [p for p in tmp_path.rglob('*') if p.is_file()] == []


def test_unicode_ids_work(sample, tmp_path):
    faces = one_clip(sample)
    (tmp_path / 'videos').mkdir()
    shutil.copy(sample / 'videos' / f'{faces.clip_uid[0]}.mp4', tmp_path / 'videos/ütø-日本.mp4')
    table, settings = faces.assign(clip_uid='ütø-日本'), PrepareSettings(image_size=32, workers=1)
    done = prepare_faces({'train': table}, tmp_path, tmp_path / 'faces', settings)
    assert done.status.tolist() == ['made'] and ClipFaces(store_path(tmp_path / 'faces', 'ütø-日本')).table.clip_uid[0] == 'ütø-日本'


def test_a_full_disk_names_the_clip_and_leaves_no_half_store(sample, tmp_path, monkeypatch):
    import lam_nb.faces
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(lam_nb.faces.pa.ipc, 'new_file', full)
    done = prepare_clip(sample, tmp_path, 'train', one_clip(sample), PrepareSettings(image_size=32))
    assert done['status'] == 'failed' and 'No space left' in done['reason'] and list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused_before_anything_is_read(sample, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='cannot be written.*choose another faces_dir'):
        prepare_faces({'train': one_clip(sample)}, sample, tmp_path / 'file' / 'faces', PrepareSettings(workers=1))


def test_a_changed_video_is_noticed(sample, tmp_path):
    faces = one_clip(sample)
    video = tmp_path / 'videos' / f'{faces.clip_uid[0]}.mp4'
    video.parent.mkdir()
    shutil.copy(sample / 'videos' / video.name, video)
    make = lambda **s: prepare_clip(tmp_path, tmp_path / 'faces', 'train', faces, PrepareSettings(image_size=32, **s))['status']
    assert [make(), make(), make(frame_offset=0), make(frame_offset=0)] == ['made', 'kept', 'made', 'kept']
    data = bytearray(video.read_bytes())
    data[-10] ^= 1                                               # the same size
    video.write_bytes(data)
    assert [make(frame_offset=0), make(frame_offset=0)] == ['made', 'kept']


# ---- archives ---------------------------------------------------------------------------------------------------------

def jpeg(): return cv2.imencode('.jpg', np.full((224, 224, 3), 90, np.uint8))[1].tobytes()


def add_all(archive, kind):
    "Good crops, and everything that a bad archive may hold."
    names = ['videos_challenge/v1/7/00012_a1.jpg', 'videos_challenge/v1/7/00013_a2.jpg', '../../out/7/00001_x.jpg', '/abs/7/00001_y.jpg',
             'v1/../00001_z.jpg', 'notes.txt', 'videos_challenge/v1/7/a\\b.jpg']
    if kind == 'zip':
        with zipfile.ZipFile(archive, 'w') as z:
            for name in names: z.writestr(name, jpeg())
        return 3
    with tarfile.open(archive, 'w:gz' if kind == 'tar.gz' else 'w') as t:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(jpeg())
            t.addfile(member, io.BytesIO(jpeg()))
        for name, what in (('videos_challenge/v1/7/00014_l.jpg', tarfile.SYMTYPE), ('videos_challenge/v1/7/00015_h.jpg', tarfile.LNKTYPE),
                           ('videos_challenge/v1/7/00016_f.jpg', tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = what, '/etc/passwd'
            t.addfile(member)
    return 6


@pytest.mark.parametrize('kind', ['zip', 'tar', 'tar.gz'])
def test_archives_cannot_write_elsewhere(tmp_path, kind):
    data = tmp_path / 'deep' / 'data'
    (data / 'v2/social_test').mkdir(parents=True)
    bad = add_all(data / f'v2/social_test/crops.{kind}', kind)
    before = {p for p in tmp_path.rglob('*')}
    root, left_out = unpack_crops(data)
    new = {p for p in tmp_path.rglob('*')} - before
    assert root == data / 'videos_challenge' == challenge_root(data) and all(root in [p, *p.parents] for p in new)
    assert sorted(p.name for p in root.rglob('*.jpg')) == ['00001_x.jpg', '00001_y.jpg', '00012_a1.jpg', '00013_a2.jpg']
    assert not any(p.is_symlink() for p in root.rglob('*')) and left_out['count'].sum() == bad
    assert unpack_crops(data)[0] == root                         # there already


def test_a_broken_archive_is_named(tmp_path):
    (tmp_path / 'v2/social_test').mkdir(parents=True)
    archive = tmp_path / 'v2/social_test/crops.tar'
    add_all(archive, 'tar')
    archive.write_bytes(archive.read_bytes()[:1500])
    with pytest.raises(ValueError, match='crops.tar cannot be unpacked'): unpack_crops(tmp_path)
    assert not (tmp_path / 'videos_challenge').exists()


# ---- kills, several at once -------------------------------------------------------------------------------------------

def run_all(data, faces_dir, table, **settings):
    os.setpgrp()
    prepare_faces({'train': table}, data, faces_dir, PrepareSettings(**{**dict(image_size=32, workers=1), **settings}))


@pytest.fixture(scope='module')
def spawn():
    "Starts functions of this file in processes that have imported everything already."
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['lam_nb.preparation', 'tests.test_preparation'])
    def start(*args, **kwargs):
        process = context.Process(target=run_all, args=args, kwargs=kwargs)
        process.start()
        return process
    return start


def several(sample, data, copies=4):
    "The sample's train clips several times, under other ids."
    table, parts = load_faces(sample, 'train')[0], []
    (data / 'videos').mkdir(parents=True)
    for uid, faces in table.groupby('clip_uid'):
        for i in range(copies):
            shutil.copy(sample / 'videos' / f'{uid}.mp4', data / 'videos' / f'{uid}-{i}.mp4')
            parts.append(faces.assign(clip_uid=f'{uid}-{i}'))
    return pd.concat(parts, ignore_index=True)


def stores(folder): return {p.name: p.read_bytes() for p in folder.glob('[!.]*.arrow')}


@pytest.mark.slow
def test_kill_9_at_random_points(sample, tmp_path, spawn):
    "Twenty kills, each followed by a run to the end: the same bytes, and nothing is done twice but the clip under work."
    table, seed = several(sample, tmp_path / 'data', copies=3), random.randrange(2**32)
    spawn(tmp_path / 'data', tmp_path / 'first', table[:1]).join()         # the first process waits for the imports
    begin = time.monotonic()
    process = spawn(tmp_path / 'data', tmp_path / 'whole', table)
    process.join()
    took, whole, rng = time.monotonic() - begin, stores(tmp_path / 'whole'), random.Random(seed)
    assert process.exitcode == 0 and len(whole) == 6
    kills, landed = 0, set()
    while kills < 20:
        folder = tmp_path / f'faces-{kills}'
        process = spawn(tmp_path / 'data', folder, table)
        process.join(rng.uniform(0, took))
        if process.exitcode is not None: shutil.rmtree(folder)
        if process.exitcode is not None: continue                # it was faster; another try
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        there = {p.name: p.stat().st_mtime_ns for p in folder.glob('[!.]*.arrow')}
        landed.add(len(there))
        assert all(data == whole[name] for name, data in stores(folder).items()), f'seed {seed}: a half store after kill {kills}'
        run_in_this_process = prepare_faces({'train': table}, tmp_path / 'data', folder, PrepareSettings(image_size=32, workers=1))
        assert run_in_this_process.status.value_counts().get('kept', 0) == len(there), f'seed {seed}'
        assert stores(folder) == whole and all((folder / n).stat().st_mtime_ns == t for n, t in there.items()), f'seed {seed}'
    assert len(landed) > 2, f'seed {seed}: all kills fell at the same point: {landed}'


def test_four_shards_at_once_on_one_folder(sample, tmp_path, spawn):
    table = several(sample, tmp_path / 'data', copies=3)
    run = [spawn(tmp_path / 'data', tmp_path / 'faces', table, shard=i, num_shards=4) for i in range(4)]
    for process in run: process.join()
    assert [process.exitcode for process in run] == [0] * 4
    done = prepare_faces({'train': table}, tmp_path / 'data', tmp_path / 'faces', PrepareSettings(image_size=32, workers=1))
    alone = prepare_faces({'train': table}, tmp_path / 'data', tmp_path / 'alone', PrepareSettings(image_size=32, workers=1))
    assert set(done.status) == {'kept'} and set(alone.status) == {'made'} and stores(tmp_path / 'faces') == stores(tmp_path / 'alone')


def test_two_runs_at_once_on_the_same_clips(sample, tmp_path, spawn):
    table = several(sample, tmp_path / 'data', copies=2)
    run = [spawn(tmp_path / 'data', tmp_path / 'faces', table) for _ in range(2)]
    for process in run: process.join()
    assert [process.exitcode for process in run] == [0, 0] and len(stores(tmp_path / 'faces')) == 4
    assert [p.name for p in (tmp_path / 'faces').iterdir() if p.suffix != '.arrow'] == []
    for name in stores(tmp_path / 'faces'): assert len(ClipFaces(tmp_path / 'faces' / name).table)


@pytest.mark.slow
def test_on_a_dask_cluster(sample, tmp_path):
    distributed = pytest.importorskip('distributed')
    from joblib import parallel_config
    table = load_faces(sample, 'train')[0]
    local = dict(n_workers=1, threads_per_worker=1, dashboard_address=None, host='127.0.0.1')
    with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster):
        with parallel_config(backend='dask'):
            done = prepare_faces({'train': table}, sample, tmp_path / 'faces', PrepareSettings(image_size=32))
    alone = prepare_faces({'train': table}, sample, tmp_path / 'alone', PrepareSettings(image_size=32, workers=1))
    assert set(done.status) == set(alone.status) == {'made'} and stores(tmp_path / 'faces') == stores(tmp_path / 'alone')


# ---- alignment, memory ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('shift', [-2, 0, 1])
def test_the_alignment_check_finds_a_shift(sample, shift):
    "The sample's clips are cut the official way, so -1 is right; annotations that come `shift` frames late need another offset."
    faces = one_clip(sample)
    source = find_source(sample, faces.clip_uid[0])
    table, _ = alignment(source, faces.assign(frame=faces.frame + shift), count=30)
    assert table.pairs[0] >= 5 and int(table.offset[table.difference.idxmin()]) == -1 - shift


# ---- following a download ----------------------------------------------------------------------------------------------

@pytest.fixture
def bucket(monkeypatch, tmp_path):
    "An S3 server of moto in this process, where boto3 finds it by the environment."
    server = pytest.importorskip('moto.server').ThreadedMotoServer(ip_address='127.0.0.1', port=0)
    server.start()
    for name in [n for n in os.environ if n.startswith('AWS_')]: monkeypatch.delenv(name)
    address = 'http://{}:{}'.format(*server.get_host_and_port())
    for name, value in dict(AWS_ACCESS_KEY_ID='made', AWS_SECRET_ACCESS_KEY='up', AWS_ENDPOINT_URL=address, NO_PROXY='127.0.0.1',
                            AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / 'none')).items(): monkeypatch.setenv(name, value)
    from lam_nb.download import s3_client
    client = s3_client()
    client.create_bucket(Bucket='ego')
    yield client
    server.stop()


@pytest.mark.slow
def test_preparation_follows_the_download(sample, tmp_path, bucket):
    "Each clip as soon as it is there; what is missing is named; a second run downloads nothing; the video goes when it is not needed."
    table = load_faces(sample, 'train')[0]
    have, gone = table.clip_uid.unique()
    shutil.copytree(sample / 'json', tmp_path / 'json')
    (tmp_path / 'csv').mkdir()
    bucket.put_object(Bucket='ego', Key='c.mp4', Body=(sample / 'videos' / f'{have}.mp4').read_bytes())
    (tmp_path / 'clips').mkdir()
    lines = [f'{uid},s3://ego/{key}' for uid, key in ((have, 'c.mp4'), (gone, 'not-there.mp4'))]
    (tmp_path / 'clips/manifest.csv').write_text('\n'.join(['exported_clip_uid,s3_path', *lines]) + '\n')
    settings = PrepareSettings(image_size=32, workers=1, download='clips')
    done = prepare_faces({'train': table}, tmp_path, tmp_path / 'faces', settings).set_index('clip_uid')
    assert done.status.to_dict() == {have: 'made', gone: 'failed'} and '404' in done.reason[gone]
    (tmp_path / 'clips' / f'{have}.mp4').unlink()
    again = prepare_faces({'train': table}, tmp_path, tmp_path / 'faces', settings).set_index('clip_uid')
    assert again.status[have] == 'kept' and not (tmp_path / 'clips' / f'{have}.mp4').exists()


@pytest.mark.slow
def test_full_scale_videos_come_and_go(long_video, tmp_path, bucket):
    faces = full_scale_data(tmp_path, long_video)
    bucket.upload_file(str(long_video), 'ego', 'v')
    (tmp_path / 'full_scale/video.mp4').unlink()
    (tmp_path / 'full_scale/manifest.csv').write_text('video_uid,canonical_s3_location\nvideo,s3://ego/v\n')
    settings = PrepareSettings(image_size=32, workers=1, download='full_scale', delete_videos=True)
    assert prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', settings).status.tolist() == ['made']
    assert sorted(p.name for p in (tmp_path / 'full_scale').iterdir() if p.suffix == '.mp4') == []
    assert prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', settings).status.tolist() == ['kept']
    other = settings.model_copy(update=dict(frame_offset=0))
    assert prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', other).status.tolist() == ['made']      # it was downloaded again


def test_a_video_that_others_need_stays(long_video, tmp_path):
    "Two clips of one video, only one of them prepared: the video is not deleted."
    faces = full_scale_data(tmp_path, long_video)
    data = json.loads((tmp_path / 'json/av_train.json').read_text())
    data['videos'][0]['clips'].append({**data['videos'][0]['clips'][0], 'clip_uid': 'second'})
    (tmp_path / 'json/av_train.json').write_text(json.dumps(data))
    settings = PrepareSettings(image_size=32, workers=1, delete_videos=True)
    assert prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', settings).status.tolist() == ['made']
    assert (tmp_path / 'full_scale/video.mp4').exists()
    both = load_faces(tmp_path, 'train')[0]
    assert prepare_faces({'train': both}, tmp_path, tmp_path / 'faces', settings).status.tolist() == ['kept', 'made']
    assert not (tmp_path / 'full_scale/video.mp4').exists()


# ---- what a review found -----------------------------------------------------------------------------------------------

def test_streams_without_time_stamps_are_counted(tmp_path):
    "A raw H.264 stream: a request that does not begin at 0 gets the frames it asks for."
    import av
    video = write_video(tmp_path / 'v.mp4', THIRTIETHS, options=dict(bf='0'))
    with av.open(str(video)) as source, av.open(str(tmp_path / 'v.h264'), 'w', format='h264') as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    raw = tmp_path / 'v.h264'
    assert [level(p) for _, p in video_frames(raw, [5, 6])] == [level(p) for _, p in video_frames(raw, range(12))][5:7]


@pytest.mark.parametrize('cut', ['at a header', 'in a header', 'damaged header'])
def test_a_tar_that_ends_early_is_not_taken_for_whole(tmp_path, cut):
    (tmp_path / 'v2/social_test').mkdir(parents=True)
    archive = tmp_path / 'v2/social_test/crops.tar'
    with tarfile.open(archive, 'w') as t:
        for k in range(4):
            member = tarfile.TarInfo(f'videos_challenge/v1/7/{k:05d}_a{k}.jpg')
            member.size = len(jpeg())
            t.addfile(member, io.BytesIO(jpeg()))
    with tarfile.open(archive) as t: third = t.getmembers()[2].offset
    data = bytearray(archive.read_bytes())
    if cut == 'damaged header': data[third + 150] ^= 0xff
    else: del data[third + (0 if cut == 'at a header' else 100):]
    archive.write_bytes(data)
    with pytest.raises(ValueError, match='cannot be unpacked'): unpack_crops(tmp_path)


def test_odd_stores_are_made_anew(sample, tmp_path):
    import pyarrow as pa
    faces = one_clip(sample)
    path = store_path(tmp_path, faces.clip_uid[0])
    with pa.OSFile(str(path), 'wb') as sink, pa.ipc.new_file(sink, pa.schema([('a', pa.int64())])): pass
    assert prepare_clip(sample, tmp_path, 'train', faces, PrepareSettings(image_size=32))['status'] == 'made'


def test_more_shards_than_clips(sample, tmp_path):
    with pytest.raises(ValueError, match='no clips for shard 7 of 8: there are 2'):
        prepare_faces({'train': load_faces(sample, 'train')[0]}, sample, tmp_path, PrepareSettings(shard=7, num_shards=8))


# ---- what a second review found ----------------------------------------------------------------------------------------

def shown(faces_dir, uid='clip'):
    "How bright each row's face of `long_video` is, and how much of it the bar covers: (n, 2)."
    store = ClipFaces(store_path(faces_dir, uid))
    faces = [store.crop(row).astype(float).mean(2) for row in range(len(store.table))]
    return np.stack([(face.max(), (face < 8).mean()) for face in faces])


def test_an_offset_means_the_same_for_a_recording_and_the_clip_cut_from_it(tmp_path, long_video):
    found = []
    for name, runs in (('plain', [[]]), ('cut', [['clips'], ['clips']])):            # the last run finds the clip of the one before
        faces = full_scale_data(tmp_path / name, long_video)
        for n, also in enumerate(runs):
            settings = PrepareSettings(image_size=32, workers=1, frame_offset=3, quality=95 - n, also_write=also)
            done = prepare_faces({'train': faces}, tmp_path / name, tmp_path / name / 'faces', settings)
            assert done.status.tolist() == ['made']
            found.append(shown(tmp_path / name / 'faces')[:-5, 1])                   # the last ones lie beyond the clip
    assert len(found) == 3 and all(np.abs(found[0] - other).max() < .05 for other in found)
    assert all(np.abs(found[0][1:] - other[:-1]).mean() > .1 for other in found)        # one frame later would be noticed


def test_a_store_of_another_offset_is_not_kept_when_the_video_is_gone(tmp_path, long_video):
    faces = full_scale_data(tmp_path, long_video)
    prepare = lambda **s: prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', PrepareSettings(image_size=32, workers=1, **s))
    assert prepare().status[0] == 'made' and prepare(frame_offset=1, delete_videos=True).status[0] == 'made'
    again = prepare()
    assert again.status[0] == 'failed' and 'no frames of clip' in again.reason[0] and prepare(frame_offset=1).status[0] == 'kept'


def test_clips_that_another_run_has_just_made_are_no_error(tmp_path):
    note_unavailable(tmp_path, dict(a='broken', b='broken'))
    (tmp_path / 'unavailable/a.txt').unlink()
    (tmp_path / 'unavailable/a.txt').symlink_to('gone')                                   # listed, but gone when it is read
    assert note_unavailable(tmp_path, {}) == dict(b='broken')


def test_a_full_disk_still_ends_with_a_table(sample, tmp_path, monkeypatch, capsys):
    import errno

    from lam_nb import preparation

    def full(faces_dir, reasons):
        if reasons: raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(preparation, 'note_unavailable', full)
    faces = one_clip(sample)
    done = prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', PrepareSettings(image_size=32, workers=1))
    assert done.status.tolist() == ['failed'] and 'no frames' in done.reason[0] and 'No space left' in capsys.readouterr().out


def test_what_killed_runs_left_is_removed(sample, tmp_path):
    old, new = [], []
    for folder in ('faces', 'faces/unavailable', 'data/videos', 'data/video_imgs', 'data/wave', 'data'):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, into in (('.clip.mp4.abcd1234.part.mp4', old), ('.clip.mp4.wxyz6789.part.mp4', new), ('.profile', new)):
            into.append(tmp_path / folder / name)
            into[-1].write_text('')
        for name, into in (('.clip.abcd1234.part', old), ('.clip.wxyz6789.part', new)):
            into.append(tmp_path / folder / name)
            into[-1].mkdir()
            (into[-1] / 'img_00001.jpg').write_text('')
    for path in [*old, *(p / 'img_00001.jpg' for p in old if p.is_dir()), *(p for p in new if p.is_dir())]: os.utime(path, (0, 0))
    with pytest.raises(ValueError, match='has a face'): prepare_faces({}, tmp_path / 'data', tmp_path / 'faces', PrepareSettings())
    prepare_faces({'train': one_clip(sample)}, tmp_path / 'data', tmp_path / 'faces', PrepareSettings(workers=1))
    assert not [p for p in old if p.exists()] and all(p.exists() for p in new)


@pytest.mark.parametrize('change', [dict(source='videos', download='full_scale'), dict(source='frames', download='clips'),
                                    dict(source='crops', download='clips'), dict(source='full_scale', download='clips')])
def test_downloads_that_nobody_reads_are_refused(change):
    with pytest.raises(ValueError, match=f'download = {change["download"]} brings nothing that source = {change["source"]} reads'):
        PrepareSettings(**change)


def test_clips_are_downloaded_by_their_own_ids():
    clips = [('train', pd.DataFrame(dict(clip_uid=[uid])), ('video', 0, 90)) for uid in 'ab']
    assert list(share_clips(clips, PrepareSettings(delete_videos=True))) == ['video']
    assert list(share_clips(clips, PrepareSettings(delete_videos=True, download='clips'))) == ['a', 'b']


def test_a_video_stays_until_its_other_clips_have_these_settings(long_video, tmp_path):
    full_scale_data(tmp_path, long_video)
    data = json.loads((tmp_path / 'json/av_train.json').read_text())
    first = data['videos'][0]['clips'][0]
    data['videos'][0]['clips'] += [{**first, 'clip_uid': 'second'}, {**first, 'clip_uid': 'empty', 'persons': first['persons'][:1]}]
    (tmp_path / 'json/av_train.json').write_text(json.dumps(data))
    faces, video = load_faces(tmp_path, 'train')[0], tmp_path / 'full_scale/video.mp4'
    of = lambda uid: faces[faces.clip_uid == uid].reset_index(drop=True)
    prepare = lambda table, *more, **s: prepare_faces({'train': table}, tmp_path, tmp_path / 'faces',
                                                      PrepareSettings(workers=1, delete_videos=True, **s), *more).status.tolist()
    note_unavailable(tmp_path / 'faces', dict(second='403 ExpiredToken', empty=''))
    assert prepare(of('clip'), ['empty'], image_size=32) == ['made'] and video.exists()       # a passing reason
    assert prepare(of('second'), ['empty'], image_size=64) == ['made'] and video.exists()     # the other's faces are too small
    assert prepare(of('clip'), ['empty'], image_size=64) == ['made'] and not video.exists()


def test_frames_of_a_ready_made_clip_are_those_of_the_official_extraction(tmp_path):
    (tmp_path / 'v2/clips').mkdir(parents=True)
    video = write_video(tmp_path / 'v2/clips/clip.mp4', [t + .032 for t in THIRTIETHS], sound_at=0, options=dict(bf='0'))
    extract_frames(video, tmp_path / 'official')
    (tmp_path / 'video_imgs/clip').mkdir(parents=True)                                      # an empty folder is not done
    assert write_for_others(tmp_path, 'clip', find_source(tmp_path, 'clip'), None, ['frames']) == []
    ours, theirs = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ('video_imgs/clip', 'official'))
    assert ours == theirs and [level(cv2.imread(str(tmp_path / f'official/img_0000{k}.jpg'))) for k in (1, 2, 3)] == [0, 0, 1]


def test_quoted_persons_have_one_name_in_the_official_files(tmp_path, long_video):
    full_scale_data(tmp_path, long_video)
    file = tmp_path / 'json/av_train.json'
    file.write_text(file.read_text().replace('"person_id": "1"', '"person_id": "\'1\'"').replace('"person": "1"', '"person": "\'1\'"'))
    assert write_official_files(tmp_path, 'train') == []
    track, = (tmp_path / 'json_original/clip').iterdir()
    segments = json.loads((tmp_path / 'result_LAM/clip.json').read_text())
    assert {row['Person ID'] for row in json.loads(track.read_text())} == {row['label'] for row in segments} == {'1'}
    assert load_faces(tmp_path, 'train')[0].label.sum() == 18


def zipped(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as z:
        for name in names: z.writestr(name, jpeg())


def crops_in(root): return sorted(str(p.relative_to(root)) for p in root.rglob('*.jpg'))


def test_archives_that_come_later_are_unpacked_too(tmp_path):
    zipped(tmp_path / 'v2/social_test/part1.zip', 'videos_challenge/v1/7/00001_a.jpg')
    (tmp_path / 'videos_challenge').mkdir()                                                 # an empty folder hides no archive
    root, out = unpack_crops(tmp_path)
    assert crops_in(root) == ['v1/7/00001_a.jpg'] and not len(out)
    zipped(tmp_path / 'v2/social_test/part2.zip', 'videos_challenge/v1/7/00002_b.jpg', 'videos_challenge/v2/7/00001_c.jpg')
    for _ in range(2): assert crops_in(unpack_crops(tmp_path)[0]) == ['v1/7/00001_a.jpg', 'v1/7/00002_b.jpg', 'v2/7/00001_c.jpg']
    assert not [p for p in tmp_path.iterdir() if p.name.endswith('.part')]
    shutil.rmtree(root)
    (root / 'v3/7').mkdir(parents=True)
    (root / 'v3/7/00001_d.jpg').write_bytes(jpeg())                                         # somebody's own folder stays as it is
    assert crops_in(unpack_crops(tmp_path)[0]) == ['v3/7/00001_d.jpg'] and 'part1.zip: not unpacked' in unpack_crops(tmp_path)[1].reason[0]


@pytest.mark.parametrize('place', ['v1/social_test/videos_challenge', 'v2/social_test', 'v1/social_test'])
def test_crops_are_found_where_the_command_may_leave_them(tmp_path, place):
    (tmp_path / place / 'v1/7').mkdir(parents=True)
    (tmp_path / place / 'v1/7/00001_a.jpg').write_bytes(jpeg())
    assert challenge_root(tmp_path) == tmp_path / place == unpack_crops(tmp_path)[0]


def test_odd_archives(tmp_path):
    zipped(tmp_path / 'v1/social_test/v9.zip', '7/00001_a.jpg')                             # one of a single video
    zipped(tmp_path / 'inner.zip', 'note.txt')
    with tarfile.open(tmp_path / 'v1/social_test/more.tar', 'w') as t:
        for name, data in (('videos_challenge/v1/7/00001_a.jpg', jpeg()), ('masks/v1/7/00001_a.jpg', b'mask'),
                           ('inner.zip', (tmp_path / 'inner.zip').read_bytes())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    root, out = unpack_crops(tmp_path)
    assert crops_in(root) == ['v1/7/00001_a.jpg', 'v9/7/00001_a.jpg'] and (root / 'v1/7/00001_a.jpg').read_bytes() == jpeg()
    assert out['count'].tolist() == [2] and 'a second one of that name, in more.tar' in out.reason[0]


def test_names_that_are_no_text_are_left_out(tmp_path):
    (tmp_path / 'v/7').mkdir(parents=True)
    (tmp_path / 'v/7/00001_a.jpg').write_bytes(jpeg())
    with open(os.fsencode(str(tmp_path / 'v/7/')) + b'/\xff.jpg', 'wb'): pass
    faces, skipped = challenge_faces(tmp_path / 'v')
    assert len(faces) == 1 and len(skipped) == 1
    json.dumps(skipped, ensure_ascii=False).encode()


def test_an_archive_that_is_replaced_by_one_of_equal_size_is_unpacked(tmp_path, monkeypatch):
    archive = tmp_path / 'v2/social_test/a.zip'
    for name in ('00001_a', '00002_b', '00002_b'):
        zipped(archive, f'videos_challenge/v1/7/{name}.jpg')
        os.utime(archive, (1e9, 1e9))
        root, _ = unpack_crops(tmp_path)
    assert crops_in(root) == ['v1/7/00001_a.jpg', 'v1/7/00002_b.jpg']
    known = json.loads((root / '.archives.json').read_text())
    (root / '.archives.json').write_text(json.dumps({'a.zip': archive.stat().st_size}))              # of an earlier version
    assert not len(unpack_crops(tmp_path)[1]) and json.loads((root / '.archives.json').read_text()).keys() == known.keys()
    os.utime(archive)
    monkeypatch.setattr('lam_nb.faces.write_json', lambda *_: (_ for _ in ()).throw(PermissionError('read only')))
    assert not len(unpack_crops(tmp_path)[1])                    # shared data that nobody may write to
    monkeypatch.undo()
    assert not len(unpack_crops(tmp_path)[1]) and isinstance(json.loads((root / '.archives.json').read_text())['a.zip'], list)


@pytest.mark.parametrize('text', ['', '{', '[]', 'null', '{"a.zip": [1]}', '{"a.zip": null}'])
def test_a_damaged_list_of_archives_loses_no_crops(tmp_path, text):
    zipped(tmp_path / 'v2/social_test/a.zip', 'videos_challenge/v1/7/00001_a.jpg')
    root, _ = unpack_crops(tmp_path)
    (root / '.archives.json').write_text(text)
    assert crops_in(unpack_crops(tmp_path)[0]) == ['v1/7/00001_a.jpg']


def test_a_folder_whose_name_is_no_id_costs_itself_only(tmp_path):
    (tmp_path / 'videos_challenge/v1/7').mkdir(parents=True)
    (tmp_path / 'videos_challenge/v1/7/00001_a.jpg').write_bytes(jpeg())
    shutil.copytree(os.fsencode(tmp_path / 'videos_challenge/v1'), os.fsencode(tmp_path / 'videos_challenge') + b'/\xff')
    faces, out = split_faces(tmp_path, 'test', PrepareSettings())
    assert faces.clip_uid.tolist() == ['v1'] and 'is no id' in out.reason[0]
    out.to_csv(tmp_path / 'out.csv')
    assert _test_clips(tmp_path, tmp_path / 'faces') == ['v1']
