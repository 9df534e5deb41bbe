"Each face once against window by window; runs that are killed; memory and open files; options; input that does not fit."
import signal
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hard_cases import make_hard_cases
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lam_nb import scoring
from lam_nb.faces import ClipFaces, encode_face, store_path, write_store
from lam_nb.data_checks import stored_clips
from lam_nb.decisions import fitted_notes
from lam_nb.inference import fast_copy, mean_logit, predict, sigmoid
from lam_nb.scoring import (
    EvaluateSettings, ensemble_scores, fit_temperature, fitted_value, load_model, predict_split, smooth_scores, weights_hash)
from lam_nb.models import BaselineLSTM, GazeLSTM, normalise, save_checkpoint
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.windows import FaceWindows


def lively_model(seed=0):
    "A model whose scores differ from face to face, with batch norms that are not the identity."
    torch.manual_seed(seed)
    model = BaselineLSTM()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for value in (part.weight, part.running_var): value.data.uniform_(.5, 1.5)
            for value in (part.bias, part.running_mean): value.data.uniform_(-.3, .3)
    for part in (model.base_model.fc1, model.base_model.fc2, model.last_layer1, model.last_layer2): part.weight.data *= 4
    return model.eval()


@torch.inference_mode()
def window_by_window(model, faces_dir, clips, size):
    "Scores as the official code computes them: seven faces for each row."
    windows, scores = FaceWindows(faces_dir, clips, size=size), []
    for i in range(0, len(windows), 8):
        images = torch.from_numpy(windows.__getitems__(list(range(i, min(i + 8, len(windows)))))['images'])
        scores += model(normalise(images.flatten(0, 1)).contiguous().unflatten(0, images.shape[:2])).softmax(-1)[:, 1].tolist()
    return np.array(scores)


def faces_of(root, split, faces_dir, **options):
    "Prepares a split; its clips."
    options = PrepareSettings(workers=1, **options)
    faces, _ = split_faces(root, split, options)
    return prepare_faces({split: faces}, root, faces_dir, options).clip_uid.tolist()


def toy_stores(faces_dir, sizes, image_size=32, tracks=2, about=None, seed=0):
    "Stores of random faces: clip-0, clip-1, ... with these numbers of rows."
    rng = np.random.default_rng(seed)
    for number, n in enumerate(sizes):
        uid, part = f'clip-{number}', -(-n // tracks)
        track = np.repeat(np.arange(tracks), part)[:n]
        faces = pd.DataFrame(dict(clip_uid=uid, track_id=[f't{t}' for t in track], person_id='1', frame=np.arange(n) % part + 1, x1=0.,
                                  y1=0.,
                                  x2=9., y2=9., label=(np.arange(n) // 5 % 2).astype('int8'), interpolated=False))
        images = [([i], encode_face(rng.integers(0, 256, (image_size, image_size, 3), np.uint8), 'jpeg')) for i in range(n)]
        write_store(store_path(faces_dir, uid), faces, images, dict(image_size=image_size, split='val', **(about or {})))
    return [f'clip-{i}' for i in range(len(sizes))]


def toy_split(root, sizes, **options):
    "A val split of such stores, and settings to evaluate it with a checkpoint of faces of 32 pixels."
    clips = toy_stores(root / 'faces', sizes, **options)
    (root / 'split').mkdir(exist_ok=True)
    (root / 'split/val.list').write_text(''.join(f'{c}\n' for c in clips))
    save_checkpoint(root / 'a.pt', lively_model(), image_size=32)
    return EvaluateSettings(data_dir=str(root), out_dir=str(root / 'run'), checkpoint=str(root / 'a.pt'), num_processes=1)


# Each face once

def test_every_hard_case_equals_window_by_window(tmp_path):
    root, model = make_hard_cases(tmp_path), lively_model()
    clips = faces_of(root, 'val', root / 'faces', source='frames', image_format='png', image_size=48)
    table, plain = predict(model, root / 'faces', clips), window_by_window(model, root / 'faces', clips, 48)
    assert len(table) == len(plain) > 300 and np.ptp(plain) > .2 and np.abs(table.score - plain).max() < 1e-5
    assert table.track_id.nunique() >= 13                              # gaps, single rows, tails, black and empty boxes: all are there


def test_challenge_crops_equal_window_by_window(sample, tmp_path):
    model = lively_model(1)
    clips = faces_of(sample, 'test', tmp_path, source='crops', image_size=64)
    table, plain = predict(model, tmp_path, clips), window_by_window(model, tmp_path, clips, 64)
    assert len(table) == len(plain) and np.ptp(plain) > .05 and np.abs(table.score - plain).max() < 1e-5 and table.unique_id.is_unique


def test_stride_takes_rows_of_the_whole(sample):
    clips = [p.stem for p in sorted((sample / 'faces').glob('*.arrow')) if ClipFaces(p).about['split'] == 'val']
    model, keys = lively_model(), ['clip_uid', 'track_id', 'frame']
    every, fifth = (predict(model, sample / 'faces', clips, stride=stride, size=32) for stride in (1, 5))
    both = fifth.merge(every, on=keys, validate='1:1')
    assert len(both) == len(fifth) < len(every) and np.abs(both.score_x - both.score_y).max() < 1e-6


def test_batches_and_threads_do_not_matter(tmp_path):
    clips, model, before = toy_stores(tmp_path, [90, 1, 0, 17]), lively_model(), torch.get_num_threads()
    first = predict(model, tmp_path, clips)
    try:
        torch.set_num_threads(3)
        other = predict(model, tmp_path, clips, batch_size=5, num_workers=3)
        assert torch.get_num_threads() == 3                            # left as it was
    finally: torch.set_num_threads(before)
    assert len(first) == 108 and np.abs(first.logit - other.logit).max() < 1e-4


def test_bf16_is_near_and_the_model_stays(tmp_path):
    clips, model = toy_stores(tmp_path, [60]), lively_model()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    exact, rounded = (predict(model, tmp_path, clips, precision=p) for p in ('fp32', 'bf16'))
    assert 1e-5 < np.abs(exact.score - rounded.score).max() < .1
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_a_backbone_of_another_kind_is_left_as_it_is(tmp_path):
    class Other(BaselineLSTM):
        def __init__(self):
            super().__init__()
            self.base_model = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.LazyLinear(256))
    torch.manual_seed(0)
    model = Other().eval()
    model.base_model(torch.zeros(1, 3, 32, 32))
    clips = toy_stores(tmp_path, [20])
    table = predict(model, tmp_path, clips)
    assert np.abs(table.score - window_by_window(model, tmp_path, clips, 32)).max() < 1e-5
    assert predict(model, tmp_path, clips, precision='bf16').score.notna().all()
    assert isinstance(fast_copy(model, 'bf16').base_model[2].weight.data, torch.Tensor)


def test_processes_give_the_rows_of_one(tmp_path):
    one = toy_split(tmp_path, [40, 25]).model_copy(update={'resume': False})
    tables = [predict_split(one.model_copy(update={'num_processes': n})) for n in (1, 2)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert len(tables[0]) == 65 and not (tmp_path / 'run').exists()


# Stopped and resumed

KILLED = '''
import sys, time
from lam_nb import inference, scoring
real = inference.write_table
def slowly(*args):
    real(*args)
    print('kept', flush=True)
    time.sleep(.2)
inference.write_table = slowly
scoring.predict_split(scoring.EvaluateSettings.model_validate_json(sys.argv[1]))
'''


def test_killed_run_goes_on_with_the_clips_that_are_not_done(tmp_path):
    settings = toy_split(tmp_path, [30, 20, 25, 10, 15])
    whole = predict_split(settings.model_copy(update={'resume': False}))
    script = tmp_path / 'killed.py'
    script.write_text(KILLED)
    run = subprocess.Popen([sys.executable, script, settings.model_dump_json()], stdout=subprocess.PIPE, text=True)
    for _ in range(2): assert any(line.startswith('kept') for line in iter(run.stdout.readline, ''))
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (tmp_path / 'run/parts').glob('*/clip-*.parquet')}
    assert 2 <= len(done) < 5
    again = predict_split(settings)
    assert all((p.stat().st_mtime_ns, p.stat().st_ino) == stamp for p, stamp in done.items()), 'a finished clip was computed again'
    assert again.attrs == dict(clips=5, kept_clips=len(done), weights_hash=[weights_hash(load_model(settings.checkpoint)[0])])
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


def test_kept_clips_are_used_only_where_they_fit(tmp_path):
    settings = toy_split(tmp_path, [12, 9])
    kept = lambda **changes: predict_split(settings.model_copy(update=changes)).attrs['kept_clips']
    assert [kept(), kept(), kept(smoothing=3, temperature=2.)] == [0, 2, 2]
    assert [kept(flip=True), kept(stride=2), kept(precision='bf16')] == [0, 0, 0]
    save_checkpoint(tmp_path / 'b.pt', lively_model(7), image_size=32)
    assert kept(checkpoint=str(tmp_path / 'b.pt')) == 0 and kept(checkpoints=[str(tmp_path / n) for n in ('a.pt', 'b.pt')]) == 4
    toy_stores(tmp_path / 'faces', [11])                               # clip-0 is prepared again, with other rows
    assert kept() == 1 and kept() == 2
    for part in (tmp_path / 'run/parts').glob('*/clip-1.parquet'): part.write_bytes(b'damaged')
    assert kept() == 1 and kept() == 2                                 # a damaged part is computed again


def test_stores_that_are_replaced_between_the_members_of_an_ensemble_are_noticed(tmp_path, monkeypatch):
    settings = toy_split(tmp_path, [12, 9]).model_copy(update=dict(resume=False))
    save_checkpoint(tmp_path / 'b.pt', lively_model(7), image_size=32)
    real = scoring._predict_member
    def replaced(*args):
        table = real(*args)
        toy_stores(tmp_path / 'faces', [12, 9], seed=5)
        return table
    both = settings.model_copy(update=dict(checkpoints=[str(tmp_path / n) for n in ('a.pt', 'b.pt')]))
    predict_split(both)
    monkeypatch.setattr(scoring, '_predict_member', replaced)
    with pytest.raises(ValueError, match='were replaced between members'): predict_split(both)


# Memory and files

MEASURE = '''
import resource, sys
from pathlib import Path
import torch
from lam_nb.inference import ClipPlan, predict_clips, survey_stores
from lam_nb.faces import ClipFaces, store_path
from lam_nb.models import BaselineLSTM
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))                   # far fewer than there are stores
paths = [store_path(sys.argv[1], f'clip-{i}') for i in range(100)]
torch.manual_seed(0)
survey_stores(paths, 1, 0)
plans = (ClipPlan(ClipFaces(p), 1) for p in paths)
tables = []
for done, table in enumerate(predict_clips(BaselineLSTM(), plans, size=32), 1):
    tables.append(table)
    if done == 100: assert 'clip-0' not in Path('/proc/self/maps').read_text(), 'a table keeps its store mapped'
    if done in (10, 100): print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
'''


def test_memory_and_open_files_do_not_grow_with_the_clips(tmp_path):
    toy_stores(tmp_path, [20] * 100)
    (tmp_path / 'measure.py').write_text(MEASURE)
    run = subprocess.run([sys.executable, tmp_path / 'measure.py', tmp_path], capture_output=True, text=True, check=True)
    small, large = map(int, run.stdout.split())
    assert large < small + 20, f'{small} MB after 10 clips, {large} MB after 100'


# Options

def test_flip_is_the_mean_of_both_views(tmp_path):
    clips, model = toy_stores(tmp_path, [10]), lively_model()
    class Mirrored(BaselineLSTM):
        def features(self, faces): return super().features(faces.flip(-1))
    other = Mirrored()
    other.load_state_dict(model.state_dict())
    plain, mirrored, both = predict(model, tmp_path, clips), predict(other, tmp_path, clips), predict(model, tmp_path, clips, flip=True)
    assert np.abs(both.score - (plain.score + mirrored.score) / 2).max() < 1e-5 and np.abs(plain.score - mirrored.score).max() > .01


def slow_median(table, window):
    "Smoothing row by row."
    near = lambda r: table[(table.track_id == r.track_id) & (table.clip_uid == r.clip_uid) & ((table.frame - r.frame).abs() <= window // 2)]
    return [near(r).score.median() for r in table.itertuples()]


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=12), min_size=1, max_size=3), st.sampled_from([3, 5, 7, 15]))
def test_smoothing_counts_frames_not_rows(tracks, window):
    rows = [(f'c{i % 2}', f't{i}', frame) for i, frames in enumerate(tracks) for frame in sorted(frames)]
    table = pd.DataFrame(rows, columns=['clip_uid', 'track_id', 'frame'])
    table['score'] = np.random.default_rng(len(rows)).random(len(rows))
    assert np.allclose(smooth_scores(table, window).score, slow_median(table, window))


def test_ensemble_in_any_order_of_rows_and_members(tmp_path):
    settings = toy_split(tmp_path, [20, 13])
    save_checkpoint(tmp_path / 'b.pt', lively_model(3), image_size=32)
    paths = [str(tmp_path / n) for n in ('a.pt', 'b.pt')]
    a, b = (predict_split(settings.model_copy(update={'checkpoint': p})) for p in paths)
    for how, mean in (('probabilities', (a.score + b.score) / 2), ('logits', sigmoid((a.logit + b.logit) / 2))):
        together = predict_split(settings.model_copy(update={'checkpoints': paths, 'ensemble': how}))
        assert np.abs(together.score - mean).max() < 1e-12 and together.attrs['kept_clips'] == 4
        assert np.allclose(together.logit, predict_split(settings.model_copy(update={'checkpoints': paths[::-1], 'ensemble': how})).logit)


def test_mean_of_probabilities_keeps_the_order_at_the_ends():
    logits = np.array([[-900., -40, 0, 40, 900], [-905., -41, 1, 41, 905]])
    mean = mean_logit(logits)
    assert np.isfinite(mean).all() and (np.diff(mean) > 0).all() and np.isclose(sigmoid(mean[2]), sigmoid(logits[:, 2]).mean())


def test_temperature_lowers_the_loss_and_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 500)
    toy = pd.DataFrame(dict(logit=honest * 1.7, label=rng.random(500) < sigmoid(honest)))
    loss = lambda t: -np.log(np.where(toy.label, sigmoid(toy.logit / t), sigmoid(-toy.logit / t))).mean()
    fitted = fit_temperature(toy)
    assert fit_temperature(toy.assign(label=toy.logit > 0)) is None and fit_temperature(toy.assign(label=toy.logit < 0)) is None
    assert loss(fitted) < min(loss(fitted * f) for f in (.5, .9, .99, 1.01, 1.1, 2)) and 1.3 < fitted < 2.2
    settings = toy_split(tmp_path, [20])
    (tmp_path / 'metrics.json').write_text(f'{{"fitted_temperature": {fitted}}}')
    table, cooled = (predict_split(settings.model_copy(update={'temperature': t})) for t in (1., str(tmp_path / 'metrics.json')))
    assert np.allclose(cooled.score, sigmoid(table.logit / fitted)) and np.array_equal(cooled.logit, table.logit)
    assert np.array_equal(cooled.score >= .5, table.score >= .5) and np.array_equal(cooled.score.rank(), table.score.rank())


# Input that does not fit

def refused(settings, error=ValueError, **changes):
    with pytest.raises(error) as caught: predict_split(settings.model_copy(update=changes))
    return str(caught.value)


def test_input_that_does_not_fit_is_refused(tmp_path):
    settings = toy_split(tmp_path, [6, 5])
    save_checkpoint(tmp_path / 'large.pt', lively_model(), image_size=64)
    assert 'faces of 64 pixels are needed, but they are stored with 32' in refused(settings, checkpoint=str(tmp_path / 'large.pt'))
    spoilt = lively_model()
    spoilt.lstm.weight_hh_l0.data[0, 0] = float('nan')
    save_checkpoint(tmp_path / 'nan.pt', spoilt, image_size=32)
    assert 'NaN' in refused(settings, checkpoint=str(tmp_path / 'nan.pt'))
    assert 'No checkpoint at' in refused(settings, FileNotFoundError, checkpoint=str(tmp_path / 'none.pt'))
    assert 'holds no usable number fitted_temperature' in refused(settings, temperature=str(tmp_path / 'split/val.list'))
    assert 'metrics.json of an evaluate run' in refused(settings, FileNotFoundError, temperature='nowhere.json')


def test_stores_that_do_not_fit_are_refused(tmp_path):
    settings = toy_split(tmp_path, [6, 5])
    (tmp_path / 'split/val.list').write_text('clip-0\nclip-1\nclip-2\n')
    assert '1 of 3 val clips have no face store' in refused(settings, FileNotFoundError)
    (tmp_path / 'split/val.list').write_text('')
    assert 'val.list is empty' in refused(settings)
    (tmp_path / 'videos_challenge').mkdir()
    assert 'there is no test clip' in refused(settings, split='test')
    toy_stores(tmp_path / 'other', [0])
    (tmp_path / 'split/val.list').write_text('clip-0\n')
    assert 'hold no face' in refused(settings, faces_dir=str(tmp_path / 'other'))
    (tmp_path / 'split/val.list').write_text('clip-0\nclip-1\n')
    for name, value in dict(image_format='png', quality=50, frame_offset=3, image_size=48).items():
        toy_stores(tmp_path / name, [6, 5])
        store = ClipFaces(store_path(tmp_path / name, 'clip-1'))
        write_store(tmp_path / name / 'new', store.table, [], dict(store.about, **{name: value}))
        (tmp_path / name / 'new').replace(store.path)
        message = refused(settings, faces_dir=str(tmp_path / name))
        assert f'different settings, {name}: ' in message and f'{value} (as clip-1)' in message


def test_rows_that_do_not_match_are_no_ensemble(tmp_path):
    table = predict(lively_model(), tmp_path, toy_stores(tmp_path, [6]))
    with pytest.raises(ValueError, match='member 3 has 5 or others'): ensemble_scores([table, table, table.iloc[:5]])


@pytest.mark.parametrize('origin', ['Gaze360', 'ImageNet'])
def test_weights_that_were_not_trained_for_this_are_refused(tmp_path, origin):
    "Their last layers are missing: scores would come from newly initialised weights."
    state = GazeLSTM().state_dict()
    if origin == 'Gaze360':
        state = {f'module.{k}': v for k, v in state.items() if not k.startswith('last_layer')}
        state |= {'module.last_layer.weight': torch.zeros(3, 512), 'module.last_layer.bias': torch.zeros(3)}
        torch.save(dict(state_dict=state), tmp_path / 'w.pt')
    else:
        import torchvision
        torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'w.pt')
    with pytest.raises(ValueError, match=f'holds {origin} weights, without .* tensors'): load_model(tmp_path / 'w.pt')


def test_smoothing_counts_a_frame_once():
    "Two crops of one challenge frame: their median stands for the frame."
    table = pd.DataFrame(dict(clip_uid='c', track_id='t', frame=[1, 2, 2, 3], score=[.1, .9, .5, .3]))
    assert smooth_scores(table, 3).score.round(6).tolist() == [.4, .3, .3, .5]


@pytest.mark.parametrize('value', ['null', '0', '-1', 'true', 'Infinity', 'NaN', '"2"'])
def test_a_number_from_a_file_must_be_one(tmp_path, value):
    (tmp_path / 'metrics.json').write_text(f'{{"fitted_temperature": {value}}}')
    with pytest.raises(ValueError, match='no usable number fitted_temperature'):
        fitted_value(str(tmp_path / 'metrics.json'), 'fitted_temperature')


def test_a_checkpoint_of_an_unknown_model_is_refused(tmp_path):
    class Other(BaselineLSTM): pass
    save_checkpoint(tmp_path / 'other.pt', Other(), image_size=32)
    with pytest.raises(ValueError, match="of a model '.*Other', which is not known here; known are BaselineLSTM"):
        load_model(tmp_path / 'other.pt')


def test_names_of_checkpoint_and_model_must_agree(tmp_path):
    "Also where the layers would fit; a checkpoint without a name is what the caller says."
    path = save_checkpoint(tmp_path / 'a.pt', BaselineLSTM(), image_size=32)
    with pytest.raises(ValueError, match="is of the model 'BaselineLSTM', but model='GazeLSTM' was given"): load_model(path, 'GazeLSTM')
    torch.save(BaselineLSTM().state_dict(), tmp_path / 'bare.pt')
    model, size, _ = load_model(tmp_path / 'bare.pt', 'GazeLSTM')
    assert isinstance(model, GazeLSTM) and size == 224 and isinstance(load_model(path, 'BaselineLSTM')[0], BaselineLSTM)


@pytest.mark.parametrize('change', [dict(labels='is_at_me'), dict(max_gap=15), dict(quality=50), dict(image_size=48), dict(frame_offset=1)])
def test_stores_made_with_other_settings_are_not_mixed(tmp_path, change):
    about = dict(source='videos', frame_offset=-1, image_size=32, image_format='png', quality=90, labels='official', max_gap=None)
    toy_stores(tmp_path, [20, 20])
    for uid, made in (('clip-0', about), ('clip-1', about | change)):
        store = ClipFaces(store_path(tmp_path, uid))
        images = [([i], bytes(store.image(i))) for i in range(len(store.table)) if store.image(i) is not None]
        write_store(tmp_path / f'{uid}.arrow', store.table, images, made)
    for use in (lambda: predict(lively_model(), tmp_path, ['clip-0', 'clip-1']), lambda: FaceWindows(tmp_path, ['clip-0', 'clip-1'])):
        with pytest.raises(ValueError, match=f'made with different settings, {next(iter(change))}: '): use()


def test_a_stray_folder_among_the_crops_is_no_video(tmp_path):
    for name in ('v/1/00001_a.jpg', '__MACOSX/v/._00001_a.jpg', '__MACOSX/1/._00001_a.jpg'):
        (tmp_path / 'videos_challenge' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'videos_challenge' / name).write_bytes(cv2.imencode('.jpg', np.full((32, 32, 3), 90, np.uint8))[1].tobytes())
    settings = PrepareSettings(image_size=32, workers=1)
    prepare_faces({'test': split_faces(tmp_path, 'test', settings)[0]}, tmp_path, tmp_path / 'faces', settings)
    assert stored_clips(tmp_path, tmp_path / 'faces', 'test') == ['v']


@pytest.mark.parametrize('window', [3, 31, 10**9 + 1, 10**12 + 1])
def test_smoothing_over_far_frames_takes_no_memory(window):
    import tracemalloc
    frames = np.array([0, 2, 1, 1, 10**9, 10**9 + 1, 4 * 10**9])
    table = pd.DataFrame(dict(clip_uid='a', track_id='t', frame=frames, score=[.1, .9, .3, .5, .8, .2, .7]))
    tracemalloc.start()
    smooth = smooth_scores(table, window).score.to_numpy()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    each = table.groupby('frame').score.median()
    assert peak < 2**22 and np.allclose(smooth, [each[abs(each.index - f) <= window // 2].median() for f in frames])


def test_smoothing_is_the_median_of_the_frames_in_the_window():
    rng = np.random.default_rng(0)
    frames = np.sort(rng.choice(3000, 1200, replace=False))
    table = pd.DataFrame(dict(clip_uid='a', track_id='t', frame=frames, score=rng.random(1200))).sample(frac=1, random_state=0)
    for window in (3, 15, 301):
        expected = [table.score[(table.frame - f).abs() <= window // 2].median() for f in table.frame]
        assert np.allclose(smooth_scores(table, window).score, expected)


@pytest.mark.parametrize('name, values', [
    ('best_threshold', ['-0.1', '1.5', '1e308', 'true', '"0.5"', 'null']), ('fitted_temperature', ['0.001', '101', '1e300']),
    ('temperature', ['0', '-1', 'true', '"1"', '1e-300'])])
def test_a_number_from_a_file_has_a_range(tmp_path, name, values):
    for value in values:
        (tmp_path / 'metrics.json').write_text(f'{{"{name}": {value}}}')
        with pytest.raises(ValueError, match=f'no usable number {name}'): fitted_value(str(tmp_path / 'metrics.json'), name)


@pytest.mark.parametrize('text', ['[]', '{"parameters": 3}', '{"parameters": {"data_dir": 7}}', '{'])
def test_odd_settings_beside_a_threshold_stop_nothing(tmp_path, text):
    (tmp_path / 'metrics.json').write_text('{"best_threshold": 0.4, "checkpoint": 3, "checkpoints": [[], null]}')
    (tmp_path / 'settings.json').write_text(text)
    given = EvaluateSettings(threshold=str(tmp_path / 'metrics.json')).model_dump()
    assert all(isinstance(note, str) for note in fitted_notes(given))
