"""Overlays of odd videos: each frame once at its own time, the sound in step, and nothing left of blurred faces."""
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import odd_videos as odd
import pandas as pd
import pytest

from lam_nb.figures import LOOKING, NOT_LOOKING
from lam_nb.overlay import _Copied, _find_sound, _Output, _place, write_overlay
from lam_nb.runs import Progress
from lam_nb.videos import _frames_of, _open, _position, _rgb, _video_stream


def boxes(count, *faces, **more):
    "The same faces (track_id, x1, y1, x2, y2, looking) at positions 0 to `count` - 1."
    names = ['track_id', 'x1', 'y1', 'x2', 'y2', 'looking']
    return pd.DataFrame([dict(zip(names, face), frame=k, score=.93, **more) for k in range(count) for face in faces],
                        columns=['frame', *names, 'score'])


NONE = boxes(0)
TWO = (1, 60, 100, 120, 180, True), (2, 200, 100, 260, 180, False)


def shown(file):
    "[(seconds since the first frame, RGB)] of a video."
    with _open(file) as container:
        stream = _video_stream(container, file)
        frames = [(f.pts * stream.time_base, _rgb(f)) for f in _frames_of(container, stream)]
    return [(time - frames[0][0], image) for time, image in frames]


def heard(file):
    "(seconds from the first frame to the first sample, (channels, n) samples, rate)."
    with _open(file) as container:
        video, sound = container.streams.best('video'), container.streams.best('audio')
        start = video.start_time * video.time_base
        frames = list(_frames_of(container, sound))
    flat = [f.to_ndarray() if f.format.is_planar else f.to_ndarray().reshape(-1, len(f.layout.channels)).T for f in frames]
    return float(frames[0].pts * frames[0].time_base - start), np.concatenate(flat, 1), frames[0].rate


def colour_at(image, x, y):
    return image[y, x].astype(int)


def near(colour, name, by=40):
    return np.abs(colour - [*bytes.fromhex(name[1:])]).max() < by


def same_frames(source, file):
    "Do both show the same frames at the same times?"
    old, new = shown(source), shown(file)
    assert [time for time, _ in new] == [time for time, _ in old]
    assert [odd.number_of(image) for _, image in new] == [odd.number_of(image) for _, image in old]
    return old, new


# Times

RATES = [24, 25, 30, 50, 60, Fraction(30000, 1001), Fraction(24000, 1001)]


@pytest.mark.parametrize('fps', RATES, ids=lambda r: f'{float(r):.2f}')
def test_constant_rates(tmp_path, fps):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(fps, .5), size=(160, 120))
    assert write_overlay(source, tmp_path / 'b.mp4', NONE) == dict(frames=round(fps / 2), sound='none', notes=[])
    same_frames(source, tmp_path / 'b.mp4')


@pytest.mark.parametrize('ending, clock', [('mp4', 90_000), ('mov', 600_000), ('mkv', 1000), ('avi', 30), ('ts', 90_000)])
def test_uneven_times_in_all_containers(tmp_path, ending, clock):
    times = odd.uneven() if clock > 30 else odd.constant(30)
    codec = 'mpeg4' if ending == 'avi' else 'libx264'
    source = odd.make_video(tmp_path / f'a.{ending}', times, size=(160, 120), codec=codec, clock=clock)
    assert write_overlay(source, tmp_path / 'b.mp4', NONE)['frames'] == len(times)
    same_frames(source, tmp_path / 'b.mp4')


@pytest.mark.parametrize('fps', [24, 60])
def test_boxes_are_those_of_the_position(tmp_path, fps):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(fps), size=(320, 240))
    places = [dict(frame=k, track_id=1, x1=8 * k, y1=100, x2=8 * k + 40, y2=200, looking=k % 2 == 0) for k in range(30)]
    write_overlay(source, tmp_path / 'b.mp4', pd.DataFrame(places), labels=False)
    for time, image in shown(tmp_path / 'b.mp4'):
        k = _position(time, 0)
        if k < 30: assert near(colour_at(image, 8 * k + 1, 150), LOOKING if k % 2 == 0 else NOT_LOOKING), k


@pytest.mark.parametrize('start, end', [(.3, None), (0, .5), (.4, .8), (6.2, 6.5)])
def test_a_part(tmp_path, start, end):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, 7), size=(160, 120), sound='alac')      # AAC's decoder adds noise
    with Progress(210, 'overlay', show=False) as bar:
        done = write_overlay(source, tmp_path / 'b.mp4', NONE, start=start, end=end, progress=bar)
    wanted = range(round(start * 30), round((end or 7) * 30))
    assert done['frames'] == len(wanted) == bar.done
    assert [odd.number_of(image) for _, image in shown(tmp_path / 'b.mp4')] == [k % 70 for k in wanted]
    (_, whole, rate), (offset, part, _) = heard(source), heard(tmp_path / 'b.mp4')
    first = round((start + offset) * rate)                       # sound of the part lies where it did, to the sample
    n = min(part.shape[1], whole.shape[1] - first, round(((end or 7) - start) * rate))
    assert abs(offset) < .03 and n > (len(wanted) / 30 - .1) * rate
    assert np.array_equal(part[:, :n], whole[:, first:first + n])


# What a frame looks like

@pytest.mark.parametrize('turns', [1, 2, 3])
def test_rotated(tmp_path, turns):
    source = odd.make_video(tmp_path / 'a.mp4', size=(320, 240), turns=turns)
    write_overlay(source, tmp_path / 'b.mp4', boxes(30, *TWO), labels=False)
    _, new = same_frames(source, tmp_path / 'b.mp4')
    assert new[5][1].shape == (240, 320, 3) and near(colour_at(new[5][1], 61, 150), LOOKING)
    with _open(tmp_path / 'b.mp4') as container: assert {f.rotation for f in container.decode(video=0)} == {0}


@pytest.mark.parametrize('codec, pixels, turns', [
    ('ffv1', 'yuv444p', 0), ('ffv1', 'bgr0', 0), ('mpeg4', 'yuv420p', 0), ('libx264', 'yuv444p', 1),
                                                  ('ffv1', 'yuv422p10le', 0), ('ffv1', 'gray', 0)])
def test_odd_sizes_and_pixels(tmp_path, codec, pixels, turns):
    source = odd.make_video(tmp_path / ('a.mp4' if turns else 'a.mkv'), odd.constant(30, .4), size=(321, 241), codec=codec, pixels=pixels,
                            turns=turns, clock=90_000 if turns else 1000)
    write_overlay(source, tmp_path / 'b.mp4', NONE)
    old, new = same_frames(source, tmp_path / 'b.mp4')
    if pixels == 'yuv422p10le' or pixels == 'bgr0': return          # other matrices: `_rgb` is for BT.601
    assert new[0][1].shape == (242, 322, 3)
    assert np.abs(new[6][1][:241, :321].mean((0, 1)) - old[6][1].mean((0, 1))).max() < 3


def test_colours_are_those_of_the_source(tmp_path):
    colours = np.repeat(np.repeat(np.array([[(200, 30, 30), (30, 200, 30)], [(30, 30, 200), (200, 200, 30)]], np.uint8), 60, 0), 80, 1)
    for tags in ({}, dict(colorspace=1, color_primaries=1, color_trc=1, color_range=1), dict(colorspace=5, color_range=2)):
        source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .2), [colours] * 6, tags=tags)
        write_overlay(source, tmp_path / 'b.mp4', NONE)
        with _open(source) as one, _open(tmp_path / 'b.mp4') as two:
            old, new = next(one.decode(video=0)), next(two.decode(video=0))
            names = 'colorspace', 'color_primaries', 'color_trc', 'color_range'
            assert [getattr(new, n) for n in names] == [getattr(old, n) for n in names]
            assert np.abs(new.to_ndarray(format='rgb24').astype(int) - old.to_ndarray(format='rgb24')).mean() < 2


@pytest.mark.skipif(not odd.has_encoder('libx265'), reason='no encoder of HEVC')
def test_ten_bits(tmp_path):
    source = odd.hdr_video(tmp_path / 'a.mp4', times=odd.constant(30, .4))
    done = write_overlay(source, tmp_path / 'b.mp4', boxes(12, *TWO))
    assert 'HDR is written' in done['notes'][0]
    same_frames(source, tmp_path / 'b.mp4')
    with _open(tmp_path / 'b.mp4') as container: frame = next(container.decode(video=0))
    assert (frame.format.name, frame.colorspace, frame.color_trc, frame.color_primaries) == ('yuv420p', 9, 18, 9)


def test_a_size_that_changes(tmp_path):
    source = odd.resized(tmp_path / 'a.ts')
    table = pd.concat([boxes(15, (1, 60, 100, 120, 180, True)), boxes(30, (1, 30, 50, 60, 90, True)).assign(frame=lambda t: t.frame + 15)])
    done = write_overlay(source, tmp_path / 'b.mp4', table, labels=False)
    images = [image for _, image in shown(tmp_path / 'b.mp4')]
    assert len(images) == 30 and {i.shape for i in images} == {(240, 320, 3)} and 'another size' in done['notes'][0]
    assert all(near(colour_at(i, 61, 150), LOOKING) for i in (images[3], images[25]))


def test_title_and_labels(tmp_path):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .3), [np.full((240, 320, 3), 200, np.uint8)] * 9)
    faces = [(name, 60, 100, 120, 180, True) for name in ('1', 'Zoë\n名前' * 100)]
    write_overlay(source, tmp_path / 'b.mp4', boxes(9, *faces), title='A title that is much too long. ' * 9)
    write_overlay(source, tmp_path / 'c.mp4', boxes(9, *faces), labels=False)
    with_text, without = shown(tmp_path / 'b.mp4')[4][1], shown(tmp_path / 'c.mp4')[4][1]
    assert with_text[1].mean() < 120 < 190 < without[1].mean()   # the band
    assert with_text[4:12, 10:300].max() > 200                   # letters
    assert near(np.median(with_text[90:96, 60:100], (0, 1)), LOOKING) and without[85:95, 60:100].mean() > 190
    assert near(np.median(with_text[184:192, 62:110], (0, 1)), LOOKING)              # the second label is below


def test_places_of_labels_do_not_overlap():
    taken = []
    for _ in range(6): taken.append(_place(40, 10, (100, 100, 140, 140), taken, (320, 240)))
    assert len(set(taken)) == 6
    for n in range(2000):
        x, y = np.random.default_rng(n).integers(-50, 370, 2)
        spot = _place(40, 10, (x, y, x + 30, y + 30), taken, (320, 240))
        assert 0 <= spot[0] <= spot[2] <= 320 and 0 <= spot[1] <= spot[3] <= 240 and not any(v % 2 for v in spot[:2])


def test_faces_that_cannot_be_drawn_are_left_out(tmp_path):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .2))
    faces = [(1, np.nan, 1, 2, 3, True), (2, -np.inf, 0, 5, 5, True), (3, 1e9, 1e9, 2e9, 2e9, True),
             (4, 50, 50, 40, 40, True), (5, 9, 9, 9, 9, False),
             (6, -1e12, -1e12, 1e12, 1e12, False), (7., -60, -60, 20, 20, True)]
    assert write_overlay(source, tmp_path / 'b.mp4', boxes(6, *faces).drop(columns='score'))['frames'] == 6


# Blurred faces

def detail(image):
    "What is finer than 8 pixels."
    grey = image.astype(float).mean(2)
    blocks = grey[:grey.shape[0] // 8 * 8, :grey.shape[1] // 8 * 8].reshape(grey.shape[0] // 8, 8, -1, 8)
    coarse = np.kron(blocks.mean((1, 3)), np.ones((8, 8)))
    return grey[:coarse.shape[0], :coarse.shape[1]] - coarse


def test_nothing_is_left_of_a_blurred_face(tmp_path):
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (30, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1) // 2 + rng.integers(0, 128, (240, 320, 3), np.uint8)
              for _ in range(6)]
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .2), images, options=dict(crf='10'))
    hidden = boxes(6, (1, 80, 60, 160, 140, False))[['frame', 'x1', 'y1', 'x2', 'y2']]
    write_overlay(source, tmp_path / 'b.mp4', NONE, hidden=hidden)
    for (_, old), (_, new) in zip(shown(source), shown(tmp_path / 'b.mp4')):
        inside, outside = np.s_[52:148, 72:168], np.s_[160:232, 176:312]
        kept, left = (np.corrcoef(detail(old[part]).ravel(), detail(new[part]).ravel())[0, 1] for part in (outside, inside))
        assert kept > .8 and abs(left) < .08
        assert detail(new[inside]).std() < .15 * detail(old[inside]).std()
        means = [image[inside].astype(float).reshape(12, 8, 12, 8, 3).mean((1, 3)) for image in (old, new)]      # 12 by 12
        assert np.linalg.matrix_rank(np.round(means[1].mean(2) / 4), tol=20) <= 5 < np.linalg.matrix_rank(means[0].mean(2))


def test_small_and_outlying_faces_are_blurred(tmp_path):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .2))
    faces = [(1, -20, -20, 30, 30, True), (2, 100, 100, 108, 110, True), (3, 290, 200, 500, 300, True), (4, 260, 60, 200, 20, True),
             (5, 400, 400, 500, 500, True), (6, 50.3, 50.7, 50.9, 51.2, True)]
    write_overlay(source, tmp_path / 'b.mp4', NONE, hidden=boxes(6, *faces))
    image = shown(tmp_path / 'b.mp4')[3][1]
    for part in (np.s_[:28, :28], np.s_[100:110, 100:108], np.s_[200:, 290:], np.s_[24:56, 204:256]):
        assert np.abs(np.diff(image[part].astype(int), axis=1)).mean() < 6
    assert np.abs(np.diff(image[120:180, 20:80].astype(int), axis=1)).mean() > 20        # the rest is as it was


@pytest.mark.parametrize('ending', ['mp4', 'mkv'])
def test_no_metadata_and_no_other_streams(tmp_path, ending):
    said = dict(title='SECRETTITLE', location='+52.5200+013.4050/', comment='SECRETCOMMENT')
    source = odd.make_video(tmp_path / f'a.{ending}', odd.constant(30, .3), sound='aac', metadata=said, cover=ending == 'mp4',
                            clock=1000 if ending == 'mkv' else 90_000)
    assert b'SECRET' in source.read_bytes()
    write_overlay(source, tmp_path / 'b.mp4', NONE)
    data = (tmp_path / 'b.mp4').read_bytes()
    assert not any(word in data for word in (b'SECRET', b'52.52', b'udta\x00location'))
    with _open(tmp_path / 'b.mp4') as container:
        assert [s.type for s in container.streams] == ['video', 'audio']
        assert not {'title', 'location', 'comment', 'creation_time'} & {*container.metadata, *container.streams[0].metadata}


# Sound

COPIED = [('aac', 'mp4', 44_100), ('aac', 'mkv', 48_000), ('aac', 'ts', 48_000), ('libmp3lame', 'mp4', 44_100),
          ('libmp3lame', 'avi', 44_100),
          ('alac', 'mov', 44_100), ('ac3', 'mkv', 48_000), ('flac', 'mkv', 44_100)]


@pytest.mark.parametrize('codec, ending, rate', COPIED)
def test_sound_is_copied_to_the_sample(tmp_path, codec, ending, rate):
    clock = {'mkv': 1000, 'avi': 30}.get(ending, 90_000)
    video = 'mpeg4' if ending == 'avi' else 'libx264'
    source = odd.make_video(tmp_path / f'a.{ending}', size=(160, 120), sound=codec, rate=rate, codec=video, clock=clock)
    assert write_overlay(source, tmp_path / 'b.mp4', NONE) == dict(frames=30, sound='copied', notes=[])
    (old_start, old, _), (new_start, new, _) = heard(source), heard(tmp_path / 'b.mp4')
    assert old.shape == new.shape and len(old) == 2 and np.array_equal(old, new)
    assert abs(old_start - new_start) < 3e-5
    same_frames(source, tmp_path / 'b.mp4')


def test_opus_is_copied_but_for_the_padding_at_its_end(tmp_path):
    source = odd.make_video(tmp_path / 'a.mkv', size=(160, 120), sound='libopus', rate=48_000, clock=1000)
    assert write_overlay(source, tmp_path / 'b.mp4', NONE)['sound'] == 'copied'
    old, new = heard(source), heard(tmp_path / 'b.mp4')
    assert 0 <= new[1].shape[1] - old[1].shape[1] < 960 and np.array_equal(old[1], new[1][:, :old[1].shape[1]])


@pytest.mark.parametrize('when', [dict(sound_start=.5), dict(start=.5), dict(start=Fraction(1, 7)), dict(sound_start=1 / 3)])
def test_sound_that_begins_at_another_time(tmp_path, when):
    source = odd.make_video(tmp_path / 'a.mp4', size=(160, 120), sound='aac', **when)
    write_overlay(source, tmp_path / 'b.mp4', NONE)
    (old_start, old, rate), (new_start, new, _) = heard(source), heard(tmp_path / 'b.mp4')
    assert abs(old_start) > .1 and abs(old_start - new_start) < 2 / rate and np.array_equal(old, new)
    same_frames(source, tmp_path / 'b.mp4')


def lag(one, two, most):
    "By how many samples the second comes later (the first channels are compared)."
    n = min(one.shape[1], two.shape[1]) - 2 * most
    a = one[0, most:most + n].astype(float)
    return max(range(-most, most + 1), key=lambda k: np.dot(a, two[0, most + k:most + k + n]))


ENCODED = [('pcm_s16le', 'mov', 44_100, 'stereo'), ('vorbis', 'mkv', 48_000, 'stereo'), ('pcm_s16le', 'avi', 8000, 'mono'),
           ('mp2', 'ts', 48_000, 'stereo')]


@pytest.mark.parametrize('codec, ending, rate, layout', ENCODED)
@pytest.mark.parametrize('later', [0, .25])
def test_other_sound_is_encoded(tmp_path, codec, ending, rate, layout, later):
    clock, video = {'mkv': 1000, 'avi': 30}.get(ending, 90_000), 'mpeg4' if ending == 'avi' else 'libx264'
    if later and ending == 'avi': pytest.skip('an AVI has no time of beginning')
    source = odd.make_video(tmp_path / f'a.{ending}', size=(160, 120), sound=codec, rate=rate, layout=layout, sound_start=later,
                            codec=video,
                            clock=clock)
    assert write_overlay(source, tmp_path / 'b.mp4', NONE) == dict(frames=30, sound='encoded as AAC', notes=[])
    (old_start, old, _), (new_start, new, new_rate) = heard(source), heard(tmp_path / 'b.mp4')
    assert new_rate == rate and len(new) == len(old)
    shift = round((new_start - old_start) * rate)                # both are brought to the same time
    old, new = (a / np.abs(a).max() for a in (old[:, max(shift, 0):], new[:, max(-shift, 0):]))
    assert abs(lag(old, new, 60)) <= (2 if clock > 1000 else 50)
    same_frames(source, tmp_path / 'b.mp4')


def test_a_gap_in_encoded_sound_is_silent(tmp_path):
    source = odd.make_video(tmp_path / 'a.mkv', odd.constant(30, 2), size=(160, 120), sound='pcm_s16le', clock=1000, gap=(.5, 1))
    write_overlay(source, tmp_path / 'b.mp4', NONE)
    start, sound, rate = heard(tmp_path / 'b.mp4')
    loud = [np.abs(sound[:, round((t - start) * rate):round((t - start + .1) * rate)]).mean() for t in (.3, .7, 1.2, 1.7)]
    assert loud[1] < .01 * loud[0] and min(loud[2:]) > .5 * loud[0]


def test_sound_that_cannot_be_decoded(tmp_path):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .5), sound='aac')
    done = write_overlay(odd.unknown_sound(source, tmp_path / 'u.mp4'), tmp_path / 'b.mp4', NONE)
    assert done['sound'] == 'none' and 'cannot be decoded' in done['notes'][0] and done['frames'] == 15
    vorbis = odd.make_video(tmp_path / 'a.mkv', odd.constant(30, .5), sound='vorbis', clock=1000)
    done = write_overlay(odd.damaged(vorbis, tmp_path / 'd.mkv', 'audio', np.arange(0, 1, .01)), tmp_path / 'c.mp4', NONE)
    assert done['sound'] in ('none', 'encoded as AAC') and done['frames'] > 0


def test_an_mp4_that_refuses_the_sound(tmp_path, monkeypatch):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .5), sound='aac')
    monkeypatch.setattr(_Copied, '__init__', lambda *_: (_ for _ in ()).throw(ValueError('no')))
    assert write_overlay(source, tmp_path / 'b.mp4', NONE)['sound'] == 'encoded as AAC'
    begin = _Output.__init__
    def refuse(self, out, stream, first, size, sound, zero):
        begin(self, out, stream, first, size, [lambda *_: (_ for _ in ()).throw(ValueError('no'))] if sound else sound, zero)
    monkeypatch.setattr(_Output, '__init__', refuse)
    done = write_overlay(source, tmp_path / 'b.mp4', NONE)
    assert (done['frames'], done['sound']) == (15, 'none') and 'does not take the sound' in done['notes'][0]


@pytest.mark.parametrize('places', [(.3, .5, .6), (.2,)])
def test_damaged_sound_does_not_end_it(tmp_path, places):
    for ending, codec, clock in (('mp4', 'aac', 90_000), ('mkv', 'vorbis', 1000), ('ts', 'aac', 90_000)):
        source = odd.make_video(tmp_path / f'a.{ending}', size=(160, 120), sound=codec, clock=clock)
        done = write_overlay(odd.damaged(source, tmp_path / f'd.{ending}', 'audio', places), tmp_path / 'b.mp4', NONE)
        assert done['frames'] > 15 and done['sound'] != 'none'


# Streams

def test_the_main_video_stream(tmp_path):
    source = odd.make_video(tmp_path / 'a.mp4', small=True)
    write_overlay(source, tmp_path / 'b.mp4', NONE)
    assert shown(tmp_path / 'b.mp4')[0][1].shape == (240, 320, 3)
    covered = odd.make_video(tmp_path / 'c.mp4', cover=True)
    assert write_overlay(covered, tmp_path / 'd.mp4', NONE)['frames'] == 30
    same_frames(covered, tmp_path / 'd.mp4')


def test_find_sound(tmp_path):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .5), sound='aac')
    assert _find_sound(source)[0] == 1 and _find_sound(odd.make_video(tmp_path / 'b.mp4', odd.constant(30, .2))) == (None, None, '')


# Damage

def test_a_file_that_is_cut_off(tmp_path):
    whole = odd.make_video(tmp_path / 'a.mp4', sound='aac', movflags='faststart')
    matroska, transport = odd.make_video(tmp_path / 'a.mkv', sound='aac', clock=1000), odd.make_video(tmp_path / 'a.ts')
    for ending, source in (('mp4', whole), ('mkv', matroska), ('ts', transport)):
        file = odd.cut_off(source, tmp_path / f'cut.{ending}')
        done = write_overlay(file, tmp_path / 'b.mp4', boxes(30, *TWO))
        assert 8 < done['frames'] < 30
        assert [time for time, _ in shown(file)] == [time for time, _ in shown(tmp_path / 'b.mp4')]
    with pytest.raises(ValueError, match='table of frames is missing'):
        write_overlay(odd.cut_off(odd.make_video(tmp_path / 'c.mp4'), tmp_path / 'no.mp4'), tmp_path / 'b.mp4', NONE)


@pytest.mark.parametrize('ending, codec', [('mp4', 'libx264'), ('mkv', 'mpeg4'), ('ts', 'libx264')])
def test_damaged_frames_are_left_out(tmp_path, ending, codec):
    source = odd.make_video(tmp_path / f'a.{ending}', codec=codec, clock=1000 if ending == 'mkv' else 90_000)
    file = odd.damaged(source, tmp_path / f'd.{ending}')
    done = write_overlay(file, tmp_path / 'b.mp4', NONE)
    times = sorted({time for time, _ in shown(file)})
    assert done['frames'] >= 15 and [time for time, _ in shown(tmp_path / 'b.mp4')] == times


def test_frames_without_times(tmp_path):
    with av.open(str(tmp_path / 'a.m4v'), 'w', format='m4v') as out:        # a bare stream: no clock at all
        stream = out.add_stream('mpeg4', rate=25, width=160, height=120, pix_fmt='yuv420p')
        for image in odd.squares(12, (160, 120)): out.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
        out.mux(stream.encode())
    assert write_overlay(tmp_path / 'a.m4v', tmp_path / 'b.mp4', NONE)['frames'] == 12
    assert [odd.number_of(image) for _, image in shown(tmp_path / 'b.mp4')] == list(range(12))


# Errors

def test_errors(tmp_path):
    source = odd.make_video(tmp_path / 'a.mp4', odd.constant(30, .2))
    (tmp_path / 'text.mp4').write_text('no video')
    for file, message in ((odd.sound_only(tmp_path / 's.mp4'), 'has no video stream'), (tmp_path / 'text.mp4', 'cannot be decoded'),
                          (tmp_path / 'nowhere.mp4', 'it is no file')):
        with pytest.raises(ValueError, match=message): write_overlay(file, tmp_path / 'b.mp4', NONE)
    with pytest.raises(ValueError, match='boxes has no column x1, looking; it has .*track_id.*: expected frame, x1'):
        write_overlay(source, tmp_path / 'b.mp4', NONE.drop(columns=['x1', 'looking']))
    with pytest.raises(ValueError, match='hidden has no column frame'):
        write_overlay(source, tmp_path / 'b.mp4', NONE, hidden=NONE.drop(columns='frame'))
    with pytest.raises(ValueError, match='is the video'): write_overlay(source, tmp_path / 'x' / '..' / 'a.mp4', NONE)
    with pytest.raises(ValueError, match='no frame from 9'): write_overlay(source, tmp_path / 'b.mp4', NONE, start=9)
    assert {p.name for p in Path(tmp_path).iterdir()} == {'a.mp4', 's.mp4', 'text.mp4'}


def test_an_avi_with_frames_between_others_keeps_their_order(tmp_path):
    source = odd.make_video(tmp_path / 'a.avi', codec='libx264', clock=30, options={'bf': '3'})
    write_overlay(source, tmp_path / 'o.mp4', NONE)
    with av.open(str(tmp_path / 'o.mp4')) as container:
        numbers = [odd.number_of(frame.to_ndarray(format='rgb24')) for frame in container.decode(video=0)]
    assert numbers == sorted(numbers) and len(numbers) >= 28


@pytest.mark.parametrize('size', [(360, 640), (480, 360), (1080, 1920), (1920, 1080)])
def test_the_first_line_says_all_of_what_matters(size):
    from lam_nb.overlay import _Pen, _shortened
    from lam_nb.own_video import MADE_UP
    pen = _Pen(*size, 1, False)
    title = f'{MADE_UP[0].upper()}{MADE_UP[1:]} (best.pt of run a-study-with-a-long-name/seed-0 (epoch 12))'
    assert MADE_UP[1:] in _shortened(title, 300, size[0] - pen.heading, pen.heading)
