"""Frames that are decoded alone are those that decoding everything gives, to the last bit: for all that can be odd about a file."""
import struct
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
import pytest

from lam_nb.videos import _Odd, _planned, _shown, _visible, _wanted_frames, video_frames

RATE, N = 30, 150


@lru_cache
def pictures(height=96, width=128):
    "Noise that moves, with a cut of the scene: every frame differs from every other."
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (2, height // 8, width // 8 + N, 3), np.uint8)
    frames = [np.kron(wide[k // 70 % 2, :, k:k + width // 8], np.ones((8, 8, 1), np.uint8)) for k in range(N)]
    return [frame // 2 + rng.integers(0, 100, frame.shape, np.uint8) for frame in frames]


def encoded(path, codec='libx264', times=None, pixels='yuv420p', container=None, **options):
    "A video of the pictures, shown at `times` (seconds)."
    with av.open(str(path), 'w', options=container or {}) as out:
        stream = out.add_stream(codec, rate=RATE, width=128, height=96, pix_fmt=pixels, options={k: str(v) for k, v in options.items()})
        stream.time_base = stream.codec_context.time_base = Fraction(1, 3000)
        for k, image in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format=pixels)
            frame.pts, frame.time_base = round((k / RATE if times is None else times[k]) * 3000), Fraction(1, 3000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def uneven():
    "Times of frames as a telephone writes them: no two distances alike, and some of them long."
    rng = np.random.default_rng(1)
    return np.cumsum(rng.choice([1 / 60, 1 / 30, 1 / 24, 1 / 3], N, p=[.3, .4, .25, .05]))


X264 = dict(g=30, sc_threshold=0)
FILES = {                                                        # ending, how it is encoded, whether something can be left out
    'all key frames': ('mp4', dict(g=1), True),
    'default': ('mp4', dict(g=250), True),
    'b-frames': ('mp4', dict(**X264, bf=3), True),
    'b-frames in Matroska': ('mkv', dict(**X264, bf=3), True),
    'b-pyramid': ('mp4', {**X264, 'bf': 5, 'x264-params': 'b-pyramid=normal:b-adapt=0'}, True),
    'no b-frames': ('mp4', dict(**X264, bf=0), True),
    'slices': ('mp4', {**X264, 'x264-params': 'slices=4'}, True),
    'open groups': ('mp4', {**X264, 'bf': 3, 'x264-params': 'open-gop=1'}, True),
    'intra refresh': ('mp4', {**X264, 'x264-params': 'intra-refresh=1'}, None),
    'interlaced': ('mp4', {**X264, 'x264-params': 'interlaced=1'}, True),
    'uneven times': ('mp4', dict(**X264, bf=3, times=uneven()), True),
    'fragments': ('mp4', dict(**X264, bf=3, container=dict(movflags='frag_keyframe+empty_moov')), True),
    'MPEG-TS': ('ts', dict(**X264, bf=3), False),
    'AVI': ('avi', dict(**X264, bf=0), False),
    'HEVC': ('mp4', {'codec': 'libx265', 'x265-params': 'keyint=30:min-keyint=30:scenecut=0:open-gop=0:log-level=none'}, True),
    'HEVC, leading frames': ('mp4', {'codec': 'libx265', 'x265-params': 'keyint=30:min-keyint=30:scenecut=0:open-gop=0:radl=3:bframes=4:'
                                     'b-adapt=0:log-level=none'}, None),
    'HEVC, open groups': ('mp4', {'codec': 'libx265', 'x265-params': 'keyint=30:scenecut=0:open-gop=1:log-level=none'}, None),
    'VP8': ('webm', {'codec': 'libvpx', 'g': 30, 'auto-alt-ref': 0, 'deadline': 'realtime', 'cpu-used': 8}, False),
    'VP9': ('webm', {'codec': 'libvpx-vp9', 'g': 30, 'deadline': 'realtime', 'cpu-used': 8}, True),
    'VP9, hidden frames': ('webm', {'codec': 'libvpx-vp9', 'g': 30, 'lag-in-frames': 25, 'auto-alt-ref': 1, 'cpu-used': 5}, True),
    'Motion JPEG': ('mov', dict(codec='mjpeg', pixels='yuvj420p'), False),
    'MPEG-4': ('mp4', dict(codec='mpeg4', g=30), False),
}
WANTED = {
    'stretches': [*range(31, 44), *range(95, 101)],
    'one': [77],
    'ends': [0, 1, 149, 150, 400],
    'every tenth': range(0, 150, 10),
    'late': range(140, 149),
    'around a group': [5, 27, 28, 29, 58],
    'early': [3, 9],
}


@pytest.fixture(scope='session')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('odd')


@lru_cache
def made(folder, name):
    ending, how, _ = FILES[name]
    return encoded(folder / f'{name.replace(" ", "-").replace(",", "")}.{ending}', **how)


def plainly(path, wanted, zero='video'):
    "As `video_frames`, decoding everything."
    from lam_nb.videos import _rgb
    wanted = np.unique(np.asarray(wanted, np.int64))
    return {int(p): _rgb(frame) for frame, here in _visible(_shown(path, int(wanted[0]), zero), wanted) for p in here}


def assert_equal(path, wanted, zero='video'):
    ours, all_of_it = dict(video_frames(path, wanted, zero)), plainly(path, wanted, zero)
    assert [*ours] == [*all_of_it]
    for p in ours: assert np.array_equal(ours[p], all_of_it[p]), p


@pytest.mark.parametrize('zero', ['video', 'file'])
@pytest.mark.parametrize('wanted', WANTED)
@pytest.mark.parametrize('name', FILES)
def test_the_same_pictures(folder, name, wanted, zero):
    assert_equal(made(folder, name), WANTED[wanted], zero)


@pytest.mark.parametrize('name', [name for name, (*_, less) in FILES.items() if less is not None])
def test_something_is_left_out(folder, name):
    "Where a file is known well: this is what makes preparation quick. Elsewhere everything is decoded."
    wanted = np.array([*range(40, 44), *range(95, 101)])
    if FILES[name][2]:
        n = len([*_wanted_frames(made(folder, name), wanted, 'video')])
        keep = _planned(made(folder, name), wanted, 'video')[1][0]
        assert 0 < n <= keep.sum() < .8 * len(keep), (n, keep.sum(), len(keep))
    else:
        with pytest.raises(_Odd): [*_wanted_frames(made(folder, name), wanted, 'video')]


def packets_of(path):
    with av.open(str(path)) as container: return [(p.pos, p.size) for p in container.demux(video=0) if p.size]


def damaged(path, into, rng, how):
    "A copy in which some packets are damaged."
    data, packets = bytearray(path.read_bytes()), packets_of(path)
    for k in rng.choice(len(packets), 3, replace=False):
        pos, size = packets[k]
        if how == 'zeros': data[pos:pos + size] = bytes(size)
        if how == 'end of zeros': data[pos + size // 2:pos + size] = bytes(size - size // 2)
        if how == 'noise': data[pos + size // 3:pos + size] = rng.bytes(size - size // 3)
        if how == 'a bit':
            at = pos + int(rng.integers(min(16, size - 1), size))
            data[at] ^= 1 << int(rng.integers(8))
        if how == 'first bytes': data[pos:pos + 8] = rng.bytes(8)
    into.write_bytes(data if how != 'cut off' else data[:int(rng.uniform(.3, .9) * len(data))])
    return into


@pytest.mark.parametrize('how', ['zeros', 'end of zeros', 'noise', 'a bit', 'first bytes', 'cut off'])
@pytest.mark.parametrize('name', ['b-frames', 'default', 'all key frames', 'no b-frames', 'fragments', 'b-frames in Matroska',
                                  'HEVC', 'VP9'])
def test_the_same_pictures_of_a_damaged_file(folder, tmp_path, name, how):
    rng, path = np.random.default_rng(0), made(folder, name)
    for n in range(4):
        copy = damaged(path, tmp_path / f'{n}{path.suffix}', rng, how)
        for wanted in (WANTED['stretches'], WANTED['every tenth'], WANTED['late']):
            try: plainly(copy, wanted)
            except ValueError:
                with pytest.raises(ValueError): dict(video_frames(copy, wanted))
            else: assert_equal(copy, wanted)


@pytest.mark.parametrize('name', ['b-frames', 'default', 'no b-frames', 'HEVC'])
@pytest.mark.parametrize('frames', [1, 10, 33, 60])
def test_the_same_pictures_after_an_edit_list(folder, tmp_path, name, frames):
    "The file says that its video begins in the middle of a group: what comes before is decoded, and not shown."
    data = bytearray(made(folder, name).read_bytes())
    at = data.index(b'elst') + 4
    version, count = data[at], struct.unpack('>I', data[at + 4:at + 8])[0]
    assert (version, count) == (0, 1)
    duration, media_time = struct.unpack('>Ii', data[at + 8:at + 16])
    scale = int.from_bytes(data[(mdhd := data.index(b'mdhd')) + 16:mdhd + 20])
    data[at + 12:at + 16] = struct.pack('>i', media_time + frames * scale // RATE)
    (tmp_path / 'edited.mp4').write_bytes(data)
    for wanted in WANTED.values(): assert_equal(tmp_path / 'edited.mp4', wanted)
    assert len(plainly(tmp_path / 'edited.mp4', range(400))) in (N - frames, N - frames - 1)


def test_far_in_a_long_video(folder, tmp_path):
    "As a full-scale video, whose clips are read from a key frame near them."
    path = tmp_path / 'long.mp4'
    times = [k / 3 for k in range(N)]                            # 50 seconds
    encoded(path, times=times, **X264, bf=3)
    for wanted in ([400, 410, 700], range(900, 1100, 7), [1499, 1600], [151], [1490, 5000]): assert_equal(path, wanted)


def test_a_surprise_changes_nothing(folder, monkeypatch):
    "What is odd in the middle: everything is decoded after all, and nothing comes twice."
    import lam_nb.videos as videos
    path, wanted = made(folder, 'b-frames'), WANTED['stretches']
    right, whole = plainly(path, wanted), videos._wanted_frames

    def odd(*args):
        for n, one in enumerate(whole(*args)):
            if n == 9: raise _Odd
            yield one
    monkeypatch.setattr(videos, '_wanted_frames', odd)
    again = [*video_frames(path, wanted)]
    assert [p for p, _ in again] == [*right] and all(np.array_equal(image, right[p]) for p, image in again)


def test_little_is_read_where_no_group_begins_again(folder):
    "The packets of a long video are looked at up to the last wanted frame, not to its end."
    for name in ('b-frames', 'open groups', 'default'):
        far, (keep, *_) = _planned(made(folder, name), np.array([3, 9]), 'video')
        assert 9 < len(keep) < 30, name


def test_an_error_of_the_demuxer_is_told_as_before(folder, monkeypatch):
    import lam_nb.videos as videos
    def fails(*args): raise av.error.ExternalError(1, 'broken')
    monkeypatch.setattr(videos, '_packets', fails)
    for wanted in ([3, 4, 5], [3, 9]):
        with pytest.raises(ValueError, match='cannot be decoded'): dict(video_frames(made(folder, 'default'), wanted))
