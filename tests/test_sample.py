"The made-up data set as files: layout, determinism, truth, sound, frame alignment, refusals."
import hashlib, json, subprocess, sys, wave

import av, cv2, numpy as np, pandas as pd, pytest

import lam_nb.sample as kit
from lam_nb.scenes import make_scene, render_frame
from lam_nb.sample import RATE, make_sample, make_sound, speech_turns

SMALL = dict(train_clips=2, val_clips=2, test_clips=1, seconds=1.5, width=320, height=240, progress=False)


@pytest.fixture(scope='module')
def sample(tmp_path_factory): return make_sample(tmp_path_factory.mktemp('sample') / 'data', workers=1, **SMALL)


@pytest.fixture(scope='module')
def clips(sample):
    return {s: [c for v in json.loads((sample / f'json/av_{s}.json').read_text())['videos'] for c in v['clips']] for s in ('train', 'val')}


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob('*')) if p.is_file()}


def decoded_frames(path):
    with av.open(str(path)) as f: return [p.to_ndarray(format='rgb24') for p in f.decode(video=0)]


def test_same_bytes_for_any_number_of_workers(sample, tmp_path):
    other = make_sample(tmp_path / 'other', workers=2, **SMALL)
    assert digests(sample) == digests(other)


def test_a_clip_does_not_depend_on_the_number_of_clips(sample, tmp_path):
    fewer = make_sample(tmp_path / 'fewer', **{**SMALL, 'train_clips': 0, 'val_clips': 1, 'test_clips': 0})
    name = (fewer / 'split/val.list').read_text().strip()
    assert (fewer / f'videos/{name}.mp4').read_bytes() == (sample / f'videos/{name}.mp4').read_bytes()


def test_other_seed_other_people(sample, tmp_path):
    other = make_sample(tmp_path / 'other', seed=1, **{**SMALL, 'val_clips': 0, 'test_clips': 0})
    assert not set(pd.read_csv(other / 'sample_truth.csv').identity) & set(pd.read_csv(sample / 'sample_truth.csv').identity)


def test_layout(sample, clips):
    for split, n in (('train', 2), ('val', 2), ('test', 1)):
        uids = (sample / f'split/{split}.list').read_text().split()
        assert len(uids) == n and all((sample / f'videos/{u}.mp4').stat().st_size > 1000 for u in uids)
        if split in clips: assert uids == [c['clip_uid'] for c in clips[split]]
    assert not list(sample.rglob('*.part*'))
    manifest = pd.read_csv(sample / 'csv/manifest.csv')
    assert list(manifest.columns[:2]) == ['video_uid', 'canonical_s3_location'] and manifest.video_uid.is_unique and len(manifest) == 5


def test_annotations_have_the_official_keys(clips):
    clip = clips['train'][0]
    keys = '''clip_uid source_clip_uid video_uid video_start_sec video_end_sec video_start_frame video_end_frame clip_start_sec
    clip_end_sec clip_start_frame clip_end_frame valid camera_wearer persons missing_voice_segments transcriptions
    social_segments_talking social_segments_looking'''
    assert set(clip) == set(keys.split())
    assert clip['persons'][0]['person_id'] == '0' and clip['persons'][0]['camera_wearer'] and not clip['persons'][0]['tracking_paths']
    path = clip['persons'][1]['tracking_paths'][0]
    assert set(path) == {'track_id', 'track', 'suspect', 'unmapped_frames_count', 'unmapped_frames'}
    assert set(path['track'][0]) == {'x', 'y', 'width', 'height', 'frame', 'video_frame', 'clip_frame'}
    assert all(i['video_frame'] - i['frame'] == clip['video_start_frame'] for i in path['track'])


def test_test_split_is_blind(sample):
    clip = json.loads((sample / 'json/av_test_unannotated.json').read_text())['videos'][0]['clips'][0]
    assert clip['persons'] == [] and clip['camera_wearer'] is None and clip['social_segments_looking'] is None
    labels = pd.read_csv(sample / 'test_truth.csv', header=None, names=['video', 'unique_id', 'track', 'frame', 'label'])
    crops = sorted((sample / 'videos_challenge').glob('*/*/*.jpg'))
    wanted = {f'{r.video}/{r.track}/{r.frame:05d}_{r.unique_id}.jpg' for r in labels.itertuples()}
    assert {str(p.relative_to(sample / 'videos_challenge')) for p in crops} == wanted
    assert cv2.imread(str(crops[0])).shape == (224, 224, 3) and set(labels.label) == {0, 1}


def test_labels_follow_the_gaze(sample, clips):
    truth = pd.read_csv(sample / 'sample_truth.csv')
    assert not truth.duplicated(['clip_uid', 'track_id', 'frame']).any()
    assert truth[truth.label == 1].gaze_angle.max() <= 8 and (truth[truth.label == 0].gaze_angle < 8).mean() < .02
    angle = np.degrees(np.arccos(np.cos(np.radians(truth.gaze_yaw)) * np.cos(np.radians(truth.gaze_pitch))))
    assert np.abs(angle - truth.gaze_angle).max() < .05
    for clip in clips['train'] + clips['val']:
        rows = truth[truth.clip_uid == clip['clip_uid']]
        segments = [(s['person'], s['start_frame'], s['end_frame']) for s in clip['social_segments_looking']]
        labels = [any(p == str(r.person_id) and a <= r.frame <= b for p, a, b in segments) for r in rows.itertuples()]
        assert labels == rows.label.astype(bool).tolist()


def test_fraction_of_looking_and_both_classes_everywhere(sample):
    truth = pd.read_csv(sample / 'sample_truth.csv')
    assert .08 < truth.label.mean() < .22
    assert (truth.groupby('split').label.nunique() == 2).all()


@pytest.mark.parametrize('seed', range(3))
def test_tiny_samples_have_both_classes_too(tmp_path, seed):
    one = dict(train_clips=1, val_clips=1, test_clips=1, seconds=1., width=160, height=120)
    tiny = make_sample(tmp_path / 'tiny', seed=seed, workers=1, progress=False, **one)
    assert (pd.read_csv(tiny / 'sample_truth.csv').groupby('split').label.nunique() == 2).all()


def test_people_are_disjoint(sample):
    truth = pd.read_csv(sample / 'sample_truth.csv')
    assert truth.groupby('identity').clip_uid.nunique().max() == 1


def test_video_has_frames_and_sound(sample):
    uid = (sample / 'split/train.list').read_text().split()[0]
    with av.open(str(sample / f'videos/{uid}.mp4')) as f:
        video, audio = f.streams.video[0], f.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name, video.average_rate) == ('h264', 'aac', 30)
        assert (video.width, video.height) == (320, 240)
        frames = list(f.decode(video))
        assert len(frames) == 45 and [round(p.time * 30) for p in frames] == list(range(45))
    with av.open(str(sample / f'videos/{uid}.mp4')) as f:
        sound = np.concatenate([a.to_ndarray()[0] for a in f.decode(audio=0)])
        assert abs(len(sound) / 16000 - 1.5) < .2 and np.abs(sound).max() > 1e-3


def test_frame_f_lies_at_position_f_minus_1(tmp_path, monkeypatch):
    "Rendered frame f, the decoded frame at position f - 1 and the crops named f are the same image."
    scenes, crops = [], []
    monkeypatch.setattr(kit, 'make_scene', lambda *a, **k: scenes.append(make_scene(*a, **k)) or scenes[0])
    write_crop = kit._write_crop
    monkeypatch.setattr(kit, '_write_crop', lambda img, crop, path: crops.append((img, crop, path)) or write_crop(img, crop, path))
    settings = dict(seed=3, seconds=1., width=320, height=240, fps=30, people=(2, 2), looking=.15)
    clip = kit.write_clip(tmp_path, 'test', 0, settings)['clip']
    decoded = decoded_frames(tmp_path / f'videos/{clip["clip_uid"]}.mp4')
    assert len(decoded) == 30
    for position in (0, 1, 14, 29):
        error = [np.abs(decoded[position].astype(int) - render_frame(scenes[0], f)).mean() for f in range(0, 31)]
        assert np.argmin(error) == position + 1
    for img, crop, path in crops[::9]:
        assert np.array_equal(img, render_frame(scenes[0], int(path.name[:5])))
        x1, y1, x2, y2 = np.maximum(crop['box'], 0).astype(int)
        assert np.abs(cv2.imread(str(path))[..., ::-1].astype(int) - cv2.resize(img[y1:y2, x1:x2], (224, 224))).mean() < 4


def test_boxes_are_plausible(sample, clips):
    "Boxes lie in the clip and touch the frame; only the planned quirks (an anchor at frame 0, a box without width) do not."
    truth = pd.read_csv(sample / 'sample_truth.csv')
    for clip in clips['train']:
        n = clip['clip_end_frame']
        for person in clip['persons'][1:]:
            for path in person['tracking_paths']:
                for i in (i for i in path['track'] if i['width'] > 0 and i['frame'] > 0):
                    assert 0 < i['frame'] < n and i['width'] < 320 and i['height'] < 240
                    assert i['x'] + i['width'] > 0 and i['y'] + i['height'] > 0
        assert len(truth[truth.clip_uid == clip['clip_uid']])


@pytest.mark.parametrize('wrong, message', [
    (dict(seed=-1), 'seed is -1'), (dict(seed=1.5), 'seed is 1.5: give an integer'), (dict(seconds=0), 'seconds is 0'),
    (dict(seconds=float('nan')), 'seconds is nan'), (dict(width=321), 'even number'), (dict(height=10**6), 'height is 1000000'),
    (dict(fps=True), 'fps is True'), (dict(people=(0, 2)), 'people is'), (dict(people=(3, 2)), 'people is'),
    (dict(people=3), 'people is 3'),
    (dict(looking=2.), 'looking is 2.0'), (dict(train_clips=0, val_clips=0, test_clips=0), 'no clips wanted'),
    (dict(workers=-1), 'workers is -1'),
    (dict(level='easy'), "level is 'easy': give 'normal' or 'hard'"), (dict(level=None), 'level is None'),
    (dict(level=['hard']), 'level is')])
def test_refusals(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message): make_sample(tmp_path / 'x', **{**SMALL, **wrong})
    assert not (tmp_path / 'x').exists()


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'json').mkdir()
    (tmp_path / 'json/av_train.json').write_text('{"real": 1}')
    with pytest.raises(FileExistsError, match='did not write'): make_sample(tmp_path, **SMALL)
    assert (tmp_path / 'json/av_train.json').read_text() == '{"real": 1}'


def test_other_parameters_are_refused_and_an_unfinished_sample_is_finished(tmp_path):
    tiny = dict(train_clips=1, val_clips=0, test_clips=0, seconds=.5, width=160, height=120, workers=1, progress=False)
    folder = make_sample(tmp_path / 'x', **tiny)
    with pytest.raises(FileExistsError, match='seed=0, not 1'): make_sample(folder, **{**tiny, 'seed': 1})
    note = json.loads((folder / 'sample.json').read_text())
    (folder / 'sample.json').write_text(json.dumps({**note, 'complete': False}))
    (folder / 'csv/manifest.csv').unlink()
    make_sample(folder, **tiny)
    assert (folder / 'csv/manifest.csv').exists() and json.loads((folder / 'sample.json').read_text())['complete']


def test_importing_the_sample_brings_no_training_library():
    code = "import sys, lam_nb.sample; print([m for m in ('sklearn', 'torch', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'


# Levels

TINY = dict(train_clips=1, val_clips=0, test_clips=0, seconds=1., width=160, height=120, workers=1, progress=False)


@pytest.fixture(scope='module')
def hard(tmp_path_factory): return make_sample(tmp_path_factory.mktemp('hard') / 'data', workers=1, level='hard', **SMALL)


def faces_of(sample):
    "Heights in pixels and grey crops of the faces in the train clips, every tenth frame."
    heights, crops = [], []
    for video in json.loads((sample / 'json/av_train.json').read_text())['videos']:
        clip = video['clips'][0]
        frames = decoded_frames(sample / f'videos/{clip["clip_uid"]}.mp4')
        for box in (b for person in clip['persons'] for path in person['tracking_paths'] for b in path['track']):
            if box['width'] < 5 or box['frame'] % 10 or not box['frame']: continue
            x, y = max(int(box['x']), 0), max(int(box['y']), 0)
            heights.append(box['height'])
            crops.append(frames[box['frame'] - 1][y:y + int(box['height']), x:x + int(box['width'])].mean(-1))
    return np.array(heights), crops


def without_speech(path):
    "An annotation file but for who speaks when, which 0.3 added to: boxes, looking segments, ids and quirks are all still there."
    data = json.loads(path.read_text())
    for clip in (c for v in data['videos'] for c in v['clips']):
        del clip['social_segments_talking']
        for person in [clip['camera_wearer'], *clip['persons']]: person.pop('voice_segments')
    return json.dumps(data)


def test_the_normal_level_is_what_it_was_before_there_were_levels(tmp_path):
    "Bytes that 0.2 wrote; of a frame the grey values, because the last bit of its colours may differ between processors."
    tiny = make_sample(tmp_path / 'tiny', **TINY)
    names = ('sample.json', 'csv/manifest.csv', 'sample_truth.csv')
    before = ['cfb6cbfd0784b902', '373dd518879c2332', 'b3c58464ea565b1b']
    assert [digests(tiny)[name][:16] for name in names] == before
    assert hashlib.sha256(without_speech(tiny / 'json/av_train.json').encode()).hexdigest()[:16] == '18a5850af5d66e59'
    grey = cv2.resize(render_frame(make_scene(np.random.default_rng(22), 1.), 15).mean(-1), (4, 3), interpolation=cv2.INTER_AREA)
    assert np.abs(grey - [[111.2, 122.6, 121.1, 128.0], [86.2, 99.9, 110.6, 115.4], [47.1, 89.4, 107.0, 84.1]]).max() < .5
    assert digests(make_sample(tmp_path / 'named', level='normal', people=(2, 4), **TINY)) == digests(tiny)


def test_hard_faces_are_small_blurred_and_dark(sample, hard):
    (normal_heights, normal_crops), (heights, crops) = faces_of(sample), faces_of(hard)
    assert np.median(heights) < .7 * np.median(normal_heights) and len(heights) > 20
    distance = pd.read_csv(hard / 'sample_truth.csv').distance
    assert np.percentile(.041 * .85 * 480 / distance, 95) < 12      # pixels: the width of an eye in the default video
    assert np.median([c.mean() for c in crops]) < .8 * np.median([c.mean() for c in normal_crops])

    def sharpness(crop):                                            # of the face at one size, whatever its light
        crop = cv2.GaussianBlur(cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA), (0, 0), 1)
        return cv2.Laplacian(crop, cv2.CV_64F).std() / crop.std()
    assert np.median([sharpness(c) for c in crops]) < np.median([sharpness(c) for c in normal_crops])


def test_hard_scenes_have_more_people_glasses_and_things_before_faces():
    scenes = {level: [make_scene(np.random.default_rng(i), .5, (160, 120), level=level) for i in range(60)] for level in ('normal', 'hard')}
    count = {level: np.mean([len(s.people) for s in scenes[level]]) for level in scenes}
    assert 2.6 < count['normal'] < 3.4 and 3.6 < count['hard'] < 4.4
    people = {level: [p for s in scenes[level] for p in s.people] for level in scenes}
    glasses = {level: np.mean([p.glasses > 0 for p in people[level]]) for level in scenes}
    assert glasses['normal'] < .4 and .5 < glasses['hard'] < .8
    assert 0 < np.mean([p.lens > 0 for p in people['hard']]) < .15 and not any(p.lens or p.glare for p in people['normal'])
    raised = {level: [(a['hand'] != 0).any() for s in scenes[level] for a in s.acts] for level in scenes}
    assert not any(raised['normal']) and .1 < np.mean(raised['hard']) < .5
    assert any(s.passers for s in scenes['hard']) and not any(s.passers or any(s.defocus) for s in scenes['normal'])


def test_labels_follow_the_same_rule_at_the_hard_level(hard):
    truth = pd.read_csv(hard / 'sample_truth.csv')
    assert truth[truth.label == 1].gaze_angle.max() <= 8 and (truth[truth.label == 0].gaze_angle < 8).mean() < .02
    assert .08 < truth.label.mean() < .22 and (truth.groupby('split').label.nunique() == 2).all()
    for split in ('train', 'val'):
        for clip in (c for v in json.loads((hard / f'json/av_{split}.json').read_text())['videos'] for c in v['clips']):
            looking = [(s['person'], f) for s in clip['social_segments_looking'] for f in range(s['start_frame'], s['end_frame'] + 1)]
            rows = truth[truth.clip_uid == clip['clip_uid']]
            assert [(str(r.person_id), r.frame) in looking for r in rows.itertuples()] == rows.label.astype(bool).tolist()


def test_one_seed_gives_the_same_people_and_looks_at_both_levels():
    normal, hard = (make_scene(np.random.default_rng(3), 2., (160, 120), people=(3, 3), level=level) for level in ('normal', 'hard'))
    assert [p.identity for p in normal.people] == [p.identity for p in hard.people]
    assert np.corrcoef(normal.acts[0]['gaze_yaw'], hard.acts[0]['gaze_yaw'])[0, 1] > .9


def test_a_folder_of_another_level_is_refused_and_one_of_an_old_version_is_the_normal_level(tmp_path):
    normal, hard = make_sample(tmp_path / 'normal', **TINY), make_sample(tmp_path / 'hard', level='hard', **TINY)
    assert 'level' not in json.loads((normal / 'sample.json').read_text())       # as earlier versions wrote it
    assert json.loads((hard / 'sample.json').read_text())['level'] == 'hard'
    for folder, level, message in ((normal, 'hard', "level='normal', not 'hard'"), (hard, 'normal', "level='hard', not 'normal'")):
        before = digests(folder)
        with pytest.raises(FileExistsError, match=message): make_sample(folder, level=level, **TINY)
        assert digests(folder) == before
    times = {p: p.stat().st_mtime_ns for f in (normal, hard) for p in f.rglob('*')}
    make_sample(normal, **TINY), make_sample(hard, level='hard', **TINY)
    assert times == {p: p.stat().st_mtime_ns for f in (normal, hard) for p in f.rglob('*')}


# Speech

def speech(seeds=range(30), **how):
    "Scenes without their frames, each with its turns and sound."
    for seed in seeds:
        rng = np.random.default_rng(seed)
        scene = make_scene(rng, 6., (160, 120), **how)
        yield scene, speech_turns(scene), make_sound(scene, rng)


def test_talking_segments_follow_gaze_and_voice():
    "In the records of clips, without their frames; of people who are seen all the time while they speak."
    seen, quirks = 0, set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        clip, truth, _ = kit._describe(make_scene(rng, 6., (160, 120)), dict(clip='c', source='s', video='v'), rng)
        segments = [s for s in clip['social_segments_talking'] if s['person']]
        quirks |= {'nobody'} if len(segments) < len(clip['social_segments_talking']) else set()
        quirks |= {'another' for s in segments if s['target'] not in (None, '0')}
        assert all(s['is_at_me'] == (s['target'] == '0') and s['target'] != s['person'] for s in segments)
        assert all(0 <= s['start_frame'] < s['end_frame'] < clip['clip_end_frame'] for s in segments)
        for s in segments:
            own = truth[(truth.person_id == s['person']) & truth.frame.between(s['start_frame'], s['end_frame'])]
            if s['start_frame'] == 0 or len(own) <= s['end_frame'] - s['start_frame']: continue
            seen += 1
            assert (own.label.mean() > .5) == s['is_at_me']
        voices = [(v['person'], v['start_frame'], v['end_frame']) for p in clip['persons'] for v in p['voice_segments']]
        assert sorted(voices) == sorted((s['person'], s['start_frame'], s['end_frame']) for s in segments)
    assert seen > 60 and quirks == {'nobody', 'another'}


def test_speech_has_both_classes_overlaps_and_no_silence():
    at_camera, together = [], 0
    for scene, turns, _ in speech():
        at_camera += [to for *_, to in turns]
        speaking = np.zeros((len(scene.acts), scene.n), int)
        for who, a, b, _ in turns: speaking[who, a:b + 1] += 1
        assert speaking.max() <= 1                                                   # of one person no two at once
        together += (speaking.sum(0) > 1).any()
        for act, own in zip(scene.acts, speaking):
            voiced = (act['mouth'] + act['hum'])[:scene.n] > 0
            assert not (own & ~np.convolve(voiced, np.ones(3), 'same').astype(bool)).any()
    assert .12 < np.mean(at_camera) < .4 and together > 15


@pytest.mark.parametrize('fps, seconds', [(5, .5), (12, 1.), (30, .5), (60, 1.)])
def test_turns_of_tiny_clips_and_other_rates(fps, seconds):
    for seed in range(10):
        scene = make_scene(np.random.default_rng(seed), seconds, (160, 120), fps=fps, people=(1, 2))
        assert all(0 <= a < b < scene.n for _, a, b, _ in speech_turns(scene))
        assert len(make_sound(scene, np.random.default_rng(0))) == int(scene.n / fps * RATE)


def brightness(sound):
    "Centre of a spectrum, Hz."
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    return (power * frequency)[frequency < 2000].sum() / power[frequency < 2000].sum()


def test_the_sound_alone_tells_something_about_whom_the_speech_is_for():
    scores, labels = [], []
    for scene, turns, sound in speech(range(50)):
        for who, a, b, to in turns:
            piece = sound[int(a / 30 * RATE):int(b / 30 * RATE)]
            scores.append(brightness(piece) / scene.people[who].voice)
            labels.append(to)
    scores, labels = np.array(scores), np.array(labels)
    above = (scores[labels][:, None] > scores[~labels][None]).mean()                  # area under the ROC curve
    assert .6 < above < .97, above


@pytest.mark.parametrize('level', ['normal', 'hard'])
def test_hums_change_no_pixel_and_no_draw(level):
    with_hums = make_scene(np.random.default_rng(5), 1., (160, 120), level=level)
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    make_scene(rng, 1., (160, 120), level=level), make_scene(other, 1., (160, 120), level=level)
    assert rng.random() == other.random()
    frames = [render_frame(with_hums, k) for k in (1, 15)]
    for act in with_hums.acts: act['hum'] = act['hum'] + 1.
    assert all(np.array_equal(frame, render_frame(with_hums, k)) for frame, k in zip(frames, (1, 15)))


def test_test_segments_are_sound_faces_and_truth(sample):
    folders, truth = sorted((sample / 'final_test_data').iterdir()), pd.read_csv(sample / 'talking_truth.csv')
    assert folders and [len(f.name) for f in folders] == [32] * len(folders)
    assert [f.name for f in folders] == sorted(truth.segment_id.unique()) and set(truth.label) <= {0, 1}
    for folder in folders:
        faces = {int(f.stem) for f in (folder / 'face').iterdir()}
        assert faces == set(truth[truth.segment_id == folder.name].frame)
        assert cv2.imread(str(folder / f'face/{min(faces)}.jpg')).shape == (224, 224, 3)
        with wave.open(str(folder / 'audio/aud.wav')) as f:
            assert (f.getnchannels(), f.getframerate(), f.getsampwidth()) == (1, RATE, 2)
            assert max(faces) <= f.getnframes() / RATE * 30 + 1
            assert np.abs(np.frombuffer(f.readframes(f.getnframes()), '<i2')).max() > 30      # no silence
