"Encoders, side information, blurred neighbours and kept features: trained, stopped, resumed, evaluated, and refused where they must be."
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from lam_nb.annotations import split_clips
from lam_nb.encoders import EncoderHead, KeptFeatures, encoder_key, encoder_parts, load_encoder, make_encoder, write_features
from lam_nb.faces import ClipFaces, complete_store, store_path, write_store
from lam_nb.inference import ClipPlan, keep_features, predict
from lam_nb.launching import train
from lam_nb.models import read_checkpoint, save_checkpoint
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.processes import Stopped
from lam_nb.scoring import EvaluateSettings, check_evaluation, load_model, predict_split
from lam_nb.settings import ModelSettings, TrainSettings
from lam_nb.windows import FaceWindows, drop_blurred, mirrored_numbers, read_side_table, window_rows

timm = pytest.importorskip('timm')
SMALL = dict(image_size=32, train_stride=8, val_stride=4, batch_size=8, epochs=2, num_workers=0, precision='fp32', device='cpu', lr=1e-3)
TINY = dict(model='EncoderHead', encoder='timm:test_resnet')


def weights(folder, name='last.pt'): return read_checkpoint(folder / 'checkpoints' / name)['state_dict']


def trained(sample, out, **given):
    train(TrainSettings(data_dir=str(sample), out_dir=str(out), **SMALL | given))
    return out


def scores(sample, out, **given):
    settings = EvaluateSettings(data_dir=str(sample), out_dir=str(out.parent / f'{out.name}-eval'), device='cpu', precision='fp32',
                                checkpoint=str(out / 'checkpoints/last.pt'), stride=4, **given)
    check_evaluation(settings)
    return predict_split(settings)


# stores of earlier versions

def as_before(path):
    "The store as a version before 0.3 wrote it: without sharpness and brightness."
    import pyarrow as pa
    with pa.OSFile(str(path)) as file: whole = pa.ipc.open_file(file).read_all()
    old = whole.drop_columns(['sharpness', 'brightness']).combine_chunks().replace_schema_metadata(whole.schema.metadata)
    with pa.OSFile(str(path), 'wb') as file, pa.ipc.new_file(file, old.schema) as out: out.write_table(old)


def test_preparation_completes_stores_of_earlier_versions(sample, tmp_path):
    rows, _ = split_faces(sample, 'val', PrepareSettings())
    small = PrepareSettings(image_size=64, workers=1)
    prepare_faces({'val': rows}, sample, tmp_path / 'faces', small)
    files = sorted((tmp_path / 'faces').glob('*.arrow'))
    new = [file.read_bytes() for file in files]
    for file in files: as_before(file)
    assert ClipFaces(files[0]).table.sharpness.isna().all() and not ClipFaces(files[0]).measured
    report = prepare_faces({'val': rows}, sample, tmp_path / 'faces', small)
    assert set(report.status) == {'kept'} and report.notes.str.contains('sharpness and brightness added').all()
    assert [file.read_bytes() for file in files] == new


def test_an_old_store_that_cannot_be_written_is_kept(sample, tmp_path, monkeypatch):
    rows, _ = split_faces(sample, 'val', PrepareSettings())
    small = PrepareSettings(image_size=64, workers=1)
    prepare_faces({'val': rows}, sample, tmp_path / 'faces', small)
    file = sorted((tmp_path / 'faces').glob('*.arrow'))[0]
    as_before(file)
    import lam_nb.preparation as preparation
    monkeypatch.setattr(preparation, 'complete_store', lambda path: (_ for _ in ()).throw(OSError(30, 'Read-only file system')))
    report = preparation.prepare_clip(sample, tmp_path / 'faces', 'val', rows[rows.clip_uid == file.stem], small)
    assert report['status'] == 'kept' and 'cannot be written (Read-only' in report['notes']


def test_a_damaged_image_in_an_old_store_is_made_anew(sample, tmp_path):
    rows, _ = split_faces(sample, 'val', PrepareSettings())
    small = PrepareSettings(image_size=64, workers=1)
    prepare_faces({'val': rows}, sample, tmp_path / 'faces', small)
    file = sorted((tmp_path / 'faces').glob('*.arrow'))[0]
    whole, store = file.read_bytes(), ClipFaces(file)
    images = [(i, b'rubbish' if i == 3 else bytes(store.image(i))) for i in range(len(store.table))]
    import lam_nb.faces as faces
    measure, faces.face_quality = faces.face_quality, lambda data: (np.nan, np.nan)
    try: write_store(file, store.table, (([i], data) for i, data in images), store.about)
    finally: faces.face_quality = measure
    as_before(file)
    with pytest.raises(ValueError, match='cannot be decoded'): complete_store(file)
    report = prepare_faces({'val': rows}, sample, tmp_path / 'faces', small)
    assert report.set_index('clip_uid').status[file.stem] == 'made' and file.read_bytes() == whole


# blurred neighbours

def test_dropped_neighbours_are_padded_like_missing_ones():
    rng = np.random.default_rng(0)
    track, frame, none = np.zeros(40, int), np.arange(40), np.zeros(40, bool)
    rows = window_rows(track, frame, none, none)
    p = np.where(rng.random((40, 1)) < .5, 0., 1.)[rows, 0]                          # each face is blurred or not, in all of its windows
    p[:, 3] = 0                                                                      # centres never count
    for step in range(20):
        at = drop_blurred(rows, p, [0, step])
        assert (at[:, 3] == 3).all() and np.all(np.diff(at, axis=1) >= 0)
        for i in range(40):
            left = [k for k in at[i, :3] if k != 3]
            assert at[i, 2] == 3 or at[i, 2] in left                                 # what is there slides to the centre
            kept = sorted({*at[i, :3].tolist()} - {3})
            expected = ([kept[0]] * (3 - len(kept)) if kept else [3] * 3) + kept
            assert at[i, :3].tolist() == expected


def test_evaluation_drops_what_is_far_below_and_never_the_centre(sample):
    store = ClipFaces(store_path(sample / 'faces', split_clips(sample, 'val')[0]))
    sharp = store.table.sharpness.to_numpy()
    kind = type('Sharp', (EncoderHead,), dict(blur=(float(np.median(sharp)), float(sharp.std()))))
    plan, plain = ClipPlan(store, 1, kind), ClipPlan(store, 1)
    p = pd.Series(sharp).sub(np.median(sharp)).div(sharp.std()).map(lambda z: .5 * (1 + torch.erf(torch.tensor(z / 2 ** .5)).item()))
    neighbours = np.delete(plan.need[plan.windows], 3, axis=1)
    own = plan.need[plan.windows[:, 3]]
    assert np.array_equal(own, np.arange(len(sharp))) and np.array_equal(own, plain.need[plain.windows[:, 3]])
    blurred = set(np.flatnonzero(p < .2))
    assert blurred and all(row in (centre,) or row not in blurred for centre, line in zip(own, neighbours) for row in line)


def test_drop_trains_is_kept_in_the_checkpoint_and_changes_scores(sample, tmp_path):
    out = trained(sample, tmp_path / 'drop', quality='drop', epochs=1)
    model, _, _ = load_model(out / 'checkpoints/last.pt')
    stores = [ClipFaces(store_path(sample / 'faces', uid)) for uid in split_clips(sample, 'train')]
    sharp = np.concatenate([store.table.sharpness for store in stores]).astype(float)
    assert np.allclose(model.blur, (np.nanmean(sharp), np.nanstd(sharp)))
    dropped = scores(sample, out)
    model.blur = None
    plain = predict(model, sample / 'faces', split_clips(sample, 'val'), 4, size=32)
    assert np.abs(dropped.score - plain.score).max() > 1e-6
    for bad in ([1., 0.], [float('nan'), 1.], ['a', 'b'], 3):
        content = read_checkpoint(out / 'checkpoints/last.pt') | dict(blur=bad)
        torch.save(content, tmp_path / 'bad.pt')
        with pytest.raises(ValueError, match='its blur is'): load_model(tmp_path / 'bad.pt')


# side information

def test_mirrored_twice_is_the_same():
    names = ('left_eye_x', 'right_eye_x', 'left_eye_y', 'right_eye_y', 'head_yaw', 'roll', 'pitch', 'max')
    order, sign = mirrored_numbers(names)
    x = np.random.default_rng(0).normal(size=(5, 8))
    once = x[:, order] * sign
    assert np.array_equal(once[:, order] * sign, x) and not np.array_equal(once, x)
    assert np.array_equal(once[:, 0], -x[:, 1]) and np.array_equal(once[:, 2], x[:, 3]) and np.array_equal(once[:, 6:], x[:, 6:])


def test_side_tables_of_crops_are_matched_by_unique_id(sample, tmp_path):
    store = ClipFaces(store_path(sample / 'faces', split_clips(sample, 'test')[0]))
    table = store.table[['clip_uid', 'track_id', 'unique_id']].assign(yaw=np.arange(len(store.table), dtype=float))
    table.sample(frac=1, random_state=0).to_csv(tmp_path / 'yaw.csv', index=False)
    windows = FaceWindows(sample / 'faces', [store.path.stem], names=('yaw',), side=read_side_table(tmp_path / 'yaw.csv', ['yaw']))
    assert np.array_equal(windows.numbers[0][:, 0], np.arange(len(store.table)))


def test_a_told_model_learns_from_what_only_the_table_knows(sample, tmp_path):
    "The label itself as a number: a head that is told it must find it, in training and in evaluation, mirrored or not."
    clips = split_clips(sample, 'train') + split_clips(sample, 'val')
    tables = [ClipFaces(store_path(sample / 'faces', uid)).table for uid in clips]
    table = pd.concat(tables)[['clip_uid', 'track_id', 'frame', 'label']].rename(columns=dict(label='hint')).astype(dict(hint=float))
    table.to_parquet(tmp_path / 'hint.parquet')
    told = TINY | dict(side=['hint'], side_table=str(tmp_path / 'hint.parquet'), tune='none', head='centre')
    told |= dict(train_stride=4, epochs=6, lr=5e-3, batch_size=16)
    out = trained(sample, tmp_path / 'told', **told)
    assert json.loads((out / 'metrics.json').read_text())['mAP'] > .99
    table = scores(sample, out, side_table=told['side_table'], flip=True)
    assert np.corrcoef(table.score, table.label)[0, 1] > .9
    with pytest.raises(ValueError, match='give a side_table'): scores(sample, out)
    with pytest.raises(ValueError, match='give the side_table'): trained(sample, tmp_path / 'untold', **told | dict(side_table=None))


# encoders

@pytest.mark.parametrize('name', ['baseline', 'timm:test_vit', 'timm:test_convnext', 'torchvision:resnet18',
                                  'torchvision:mobilenet_v3_small', 'torchvision:vit_b_16'])
def test_every_encoder_has_parts_and_one_width(name):
    encoder, about = make_encoder(name, 32)
    parts = encoder_parts(encoder)
    assert sum(map(len, parts.values())) == len(list(encoder.parameters())) and len(parts) > 3
    assert encoder.eval()(torch.zeros(2, 3, about.size, about.size)).ndim == 2


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s}, lambda s: {'model': {f'module.{k}': v for k, v in s.items()}},
                                  lambda s: {f'backbone.{k}': v for k, v in s.items()},
                                  lambda s: {'state_dict': {f'module.encoder.{k}': v for k, v in s.items()} | dict(fc=torch.zeros(3))}])
@pytest.mark.parametrize('name', ['timm:test_resnet', 'timm:test_vit'])
def test_weights_of_any_wrapping_fill_every_tensor(name, wrap, tmp_path):
    first, second = (make_encoder(name, 160)[0] for _ in range(2))
    torch.save(wrap(first.state_dict()), tmp_path / 'w.pth')
    load_encoder(second, tmp_path / 'w.pth')
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_weights_that_fill_all_but_one_tensor_are_refused(tmp_path):
    encoder, _ = make_encoder('timm:test_resnet')
    state = encoder.state_dict()
    floats = [k for k in state if state[k].is_floating_point()]
    for key in floats[::7]:
        torch.save({k: v for k, v in state.items() if k != key}, tmp_path / 'w.pth')
        with pytest.raises(ValueError, match=key.replace('.', r'\.')): load_encoder(encoder, tmp_path / 'w.pth')
    torch.save(state | {floats[0]: state[floats[0]] * float('nan')}, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='NaN'): load_encoder(encoder, tmp_path / 'w.pth')
    save_file(state, tmp_path / 'w.safetensors')
    load_encoder(encoder, tmp_path / 'w.safetensors')
    (tmp_path / 'w.safetensors').write_bytes(b'\x08' + bytes(7) + b'rubbish!')
    with pytest.raises(ValueError, match='no safetensors file'): load_encoder(encoder, tmp_path / 'w.safetensors')
    with pytest.raises(FileNotFoundError, match='No weights at'): load_encoder(encoder, tmp_path / 'none.pth')


def test_a_stopped_training_of_an_encoder_goes_on_bit_for_bit(sample, tmp_path, monkeypatch):
    given = TINY | dict(tune='last:2', freeze_epochs=1, layer_decay=.7, ema=.9, side=['height'], quality='drop')
    given |= dict(save_every=3, train_stride=4)
    whole = weights(trained(sample, tmp_path / 'whole', **given))
    import lam_nb.training as training
    step, count = training.train_step, iter(range(10**6))

    def failing(*args, **kw):
        if next(count) == 7: raise KeyboardInterrupt
        return step(*args, **kw)
    monkeypatch.setattr(training, 'train_step', failing)
    with pytest.raises((KeyboardInterrupt, Stopped)): trained(sample, tmp_path / 'cut', **given)
    monkeypatch.setattr(training, 'train_step', step)
    assert (tmp_path / 'cut/checkpoints/last.pt').exists()
    again = weights(trained(sample, tmp_path / 'cut', **given))
    assert whole.keys() == again.keys() and all(torch.equal(whole[k], again[k]) for k in whole)


def test_what_is_frozen_stays_and_the_rest_learns(sample, tmp_path):
    torch.manual_seed(0)
    first = EncoderHead('timm:test_resnet', 32)
    save_checkpoint(tmp_path / 'first.pt', first)
    given = TINY | dict(checkpoint=str(tmp_path / 'first.pt'), epochs=1)
    start = first.state_dict()
    frozen = weights(trained(sample, tmp_path / 'frozen', tune='none', **given))
    last = weights(trained(sample, tmp_path / 'last', tune='last:1', **given))
    waits = weights(trained(sample, tmp_path / 'waits', tune='all', freeze_epochs=1, **given))
    part = [*encoder_parts(first.encoder)][-1]
    same = lambda state: {k for k in start if k.startswith('encoder.') and torch.equal(state[k], start[k])}
    encoder = {k for k in start if k.startswith('encoder.')}
    assert same(frozen) == same(waits) == encoder
    assert {k for k in encoder - same(last)} and all(k.startswith(f'encoder.{part}') for k in encoder - same(last))
    assert not torch.equal(frozen['last.1.weight'], start['last.1.weight'])


def test_two_processes_train_an_encoder(sample, tmp_path):
    out = trained(sample, tmp_path / 'two', num_processes=2, tune='last:2', **TINY)
    assert json.loads((out / 'metrics.json').read_text())['processes'] == 2


# checkpoints of strangers

def test_options_of_a_strangers_checkpoint_are_not_believed(tmp_path):
    model = EncoderHead('timm:test_resnet', 32, numbers=('yaw',))
    save_checkpoint(tmp_path / 'a.pt', model)
    content = read_checkpoint(tmp_path / 'a.pt')
    assert load_model(tmp_path / 'a.pt')[0].options == model.options
    for options, words in [
            (dict(encoder='os:system'), 'Code is never imported'), (dict(encoder='timm:vit_giant_patch14_dinov2'), 'does not hold'),
            (dict(window=10**9), 'window'), (dict(numbers=['yaw'] * 300), 'numbers'), (dict(encoder='timm:no_such_model'), 'no_such_model'),
            (dict(dim=10**9), 'dim'), (dict(step='1'), 'step'), (dict(encoder_size=10**6), 'encoder_size'), (dict(mean=[1]), 'mean')]:
        torch.save(content | dict(model_options=content['model_options'] | options), tmp_path / 'b.pt')
        with pytest.raises(ValueError, match=words): load_model(tmp_path / 'b.pt')
    torch.save(content | dict(model_options=dict(path='x')), tmp_path / 'b.pt')
    with pytest.raises(ValueError, match='other options'): load_model(tmp_path / 'b.pt')


# kept features

def test_kept_features_give_the_same_training_and_scores(sample, tmp_path):
    given = TINY | dict(tune='none', flip=True)
    plain = trained(sample, tmp_path / 'plain', **given)
    kept = trained(sample, tmp_path / 'kept', features_dir=str(tmp_path / 'features'), **given)
    one, two = (pd.read_csv(out / 'history.csv').train_loss.to_numpy() for out in (plain, kept))
    assert np.abs(one - two).max() < 5e-3                                            # rounded to float16
    folder, = (tmp_path / 'features').iterdir()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert {file.stem for file in before} == {*split_clips(sample, 'train'), *split_clips(sample, 'val')}
    trained(sample, tmp_path / 'kept', features_dir=str(tmp_path / 'features'), **given)             # all epochs were done before
    a, b = scores(sample, kept, flip=True), scores(sample, kept, flip=True, features_dir=str(tmp_path / 'features'))
    assert np.abs(a.score - b.score).max() < 1e-3
    assert before == {file: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_features_of_faces_that_were_replaced_are_computed_again(sample, tmp_path):
    rows, _ = split_faces(sample, 'val', PrepareSettings())
    small = PrepareSettings(image_size=64, workers=1)
    make = lambda quality: prepare_faces({'val': rows}, sample, tmp_path / 'faces', small.model_copy(update=dict(quality=quality)))
    clips = make(90).clip_uid.tolist()
    model = EncoderHead('timm:test_resnet', 32)
    folder = keep_features(model, tmp_path / 'faces', clips, tmp_path / 'features')
    first = KeptFeatures(folder / f'{clips[0]}.arrow', ClipFaces(store_path(tmp_path / 'faces', clips[0]))).rows.copy()
    make(30)
    assert keep_features(model, tmp_path / 'faces', clips, tmp_path / 'features') == folder
    assert not np.array_equal(KeptFeatures(folder / f'{clips[0]}.arrow', ClipFaces(store_path(tmp_path / 'faces', clips[0]))).rows, first)
    with torch.no_grad(): next(model.encoder.parameters()).mul_(2)
    assert encoder_key(model, 64) != folder.name


def test_features_of_ones_own(sample, tmp_path):
    clips, rng = split_clips(sample, 'train') + split_clips(sample, 'val'), np.random.default_rng(0)
    (tmp_path / 'own').mkdir()
    for uid in clips:
        table = ClipFaces(store_path(sample / 'faces', uid)).table
        features = rng.normal(size=(len(table), 1, 12)) + 4 * table.label.to_numpy()[:, None, None] * (np.arange(12) < 4)
        order = rng.permutation(len(table))
        write_features(tmp_path / f'own/{uid}.arrow', table.iloc[order].drop(columns='unique_id'), features[order].astype(np.float32))
    given = dict(model='EncoderHead', encoder='files', features_dir=str(tmp_path / 'own'), epochs=6, lr=3e-3)
    with pytest.raises(ValueError, match='set flip to false'): trained(sample, tmp_path / 'flipped', flip=True, **given)
    out = trained(sample, tmp_path / 'files', flip=False, **given)
    assert json.loads((out / 'metrics.json').read_text())['mAP'] > .95
    assert len(scores(sample, out, features_dir=given['features_dir']))
    with pytest.raises(ValueError, match='give their folder as features_dir'): scores(sample, out)


@pytest.mark.parametrize('given, words', [
    (dict(encoder='timm:resnet18'), 'is for model = EncoderHead'), (dict(model='GazeLSTM', side=['yaw']), 'is for model = EncoderHead'),
    (dict(model='EncoderHead', tune='last:0'), 'tune'), (dict(model='EncoderHead', window=6), 'odd'),
    (dict(model='EncoderHead', encoder='files'), 'needs features_dir'), (dict(model='EncoderHead', features_dir='f'), 'tune = none'),
    (dict(freeze_epochs=1), 'is for model = EncoderHead'), (dict(model='EncoderHead', side=['yaw']), 'give the side_table'),
    (dict(model='EncoderHead', encoder='resnet18'), 'torchvision:resnet18'), (dict(model='EncoderHead', tune='last'), 'last:N')])
def test_settings_that_do_not_fit_are_refused(given, words):
    with pytest.raises(ValueError, match=words): ModelSettings(**given)


def test_pixels_are_not_changed_where_features_are_kept():
    with pytest.raises(ValueError, match='jitter changes faces'):
        TrainSettings(model='EncoderHead', tune='none', features_dir='f', jitter=.1)


# found by review

OWN = '''
import torch
from torch import nn
class Rates(nn.Module):
    "As timm and Swin are written: numbers are read off tensors when it is made."
    def __init__(self):
        super().__init__()
        self.rates = [x.item() for x in torch.linspace(0, .1, 4)]
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Dropout(.5)
    def forward(self, faces): return self.drop(self.norm(self.conv(faces)).mean((2, 3)))
'''


@pytest.fixture
def own_encoder(tmp_path, monkeypatch):
    (tmp_path / 'my_encoders.py').write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__('sys').modules, 'my_encoders', raising=False)
    return 'my_encoders:Rates'


def test_an_encoder_of_ones_own_trains_whole_and_is_loaded_when_it_is_named(sample, tmp_path, own_encoder):
    model = EncoderHead(own_encoder, 32)
    assert model.train().encoder.norm.training and model.encoder.drop.training and not model.eval().encoder.drop.training
    out = trained(sample, tmp_path / 'own', model='EncoderHead', encoder=own_encoder, epochs=1)
    with pytest.raises(ValueError, match='Code is never imported'): load_model(out / 'checkpoints/last.pt')
    assert load_model(out / 'checkpoints/last.pt', encoder=own_encoder)[0].options['encoder'] == own_encoder
    assert len(scores(sample, out, encoder=own_encoder))
    key = encoder_key(model, 32)
    (tmp_path / 'my_encoders.py').write_text(OWN.replace('.5)', '.6)'))
    assert encoder_key(model, 32) != key                                             # its source counts, too
    assert encoder_key(model, 32, 'bf16' if torch.backends.mkldnn.is_available() else 'fp32') != key


def test_a_module_called_like_an_encoder_is_not_imported_on_the_word_of_a_file(tmp_path, monkeypatch):
    (tmp_path / 'baseline.py').write_text("raise SystemExit('code of a stranger ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = EncoderHead('timm:test_resnet', 32)
    save_checkpoint(tmp_path / 'a.pt', model)
    content = read_checkpoint(tmp_path / 'a.pt')
    for name in ('baseline:Evil', 'files:Evil', 'timm', 'torchvision:'):
        torch.save(content | dict(model_options=content['model_options'] | dict(encoder=name)), tmp_path / 'b.pt')
        with pytest.raises(ValueError, match='never imported|expected'): load_model(tmp_path / 'b.pt')


def test_features_that_are_null_or_of_other_faces_are_refused(sample, tmp_path):
    import pyarrow as pa
    store = ClipFaces(store_path(sample / 'faces', split_clips(sample, 'val')[0]))
    n = len(store.table)
    lists = pa.array([None if i == 1 else [1.] * 4 for i in range(n)], pa.list_(pa.float32(), 4))
    batch = pa.record_batch([pa.array(store.table.track_id), pa.array(store.table.frame), lists], ['track_id', 'frame', 'features'])
    file = tmp_path / f'{store.path.stem}.arrow'
    with pa.OSFile(str(file), 'wb') as sink, pa.ipc.new_file(sink, batch.schema) as out: out.write_batch(batch)
    with pytest.raises(ValueError, match='are null'): KeptFeatures(file, store).rows
    write_features(file, store.table, np.zeros((n, 1, 4), np.float16), of=['other', 'faces'])
    with pytest.raises(ValueError, match='is of other faces'): KeptFeatures(file, store).rows


def test_one_side_table_for_clips_and_crops(sample, tmp_path):
    val, test = (ClipFaces(store_path(sample / 'faces', split_clips(sample, split)[0])).table for split in ('val', 'test'))
    rows = [val[['clip_uid', 'track_id', 'frame']], test[['clip_uid', 'track_id', 'frame', 'unique_id']]]
    table = pd.concat(rows, ignore_index=True).assign(yaw=lambda t: np.arange(len(t)) * 1.)
    for name, write in (('a.csv', table.to_csv), ('a.parquet', table.to_parquet)):
        write(tmp_path / name, index=False)
        side = read_side_table(tmp_path / name, ['yaw'])
        found = [FaceWindows(sample / 'faces', [t.clip_uid[0]], names=('yaw',), side=side).numbers[0][:, 0] for t in (val, test)]
        assert np.array_equal(np.concatenate(found), table.yaw)


@pytest.mark.parametrize('change, words', [
    (lambda t: t.head(0), None), (lambda t: t.assign(frame='a'), 'frame number'), (lambda t: t.assign(yaw=1e39), 'infinite'),
    (lambda t: t.assign(yaw='left'), 'no number'), (lambda t: t.drop(columns='frame'), r"lacks the columns \['frame'\]")])
def test_odd_side_tables(sample, tmp_path, change, words):
    table = ClipFaces(store_path(sample / 'faces', split_clips(sample, 'val')[0])).table[['clip_uid', 'track_id', 'frame']].assign(yaw=1.)
    for name in ('a.csv', 'a.parquet'):
        changed = change(table)
        changed.to_csv(tmp_path / name, index=False) if name == 'a.csv' else changed.to_parquet(tmp_path / name)
        if words is None: assert read_side_table(tmp_path / name, ['yaw']) == {}
        else:
            with pytest.raises(ValueError, match=words): read_side_table(tmp_path / name, ['yaw'])


def test_weights_that_no_training_leaves_are_refused(tmp_path):
    encoder, _ = make_encoder('timm:test_resnet')
    state = encoder.state_dict()
    key = next(k for k in state if k.endswith('running_var'))
    for value in (state[key].double() * 0 + 1e300, state[key] * 0 - 1):
        torch.save(state | {key: value}, tmp_path / 'w.pth')
        with pytest.raises(ValueError, match='NaN, infinite or impossible'): load_encoder(encoder, tmp_path / 'w.pth')


def test_what_is_refused_leaves_the_earlier_run_where_it_was(sample, tmp_path):
    out = trained(sample, tmp_path / 'run', epochs=1)
    before = sorted(file.name for file in (out / 'checkpoints').iterdir())
    nowhere = TINY | dict(side=['yaw'], side_table=str(tmp_path / 'no.csv'))
    for given in (nowhere, dict(model='EncoderHead', encoder='files', features_dir=str(tmp_path))):
        with pytest.raises((ValueError, FileNotFoundError)): trained(sample, out, resume=False, **given)
        assert sorted(file.name for file in (out / 'checkpoints').iterdir()) == before


def test_a_model_that_needs_sharpness_refuses_stores_without_it(sample, tmp_path):
    out = trained(sample, tmp_path / 'drop', quality='drop', epochs=1)
    rows, _ = split_faces(sample, 'val', PrepareSettings())
    prepare_faces({'val': rows}, sample, tmp_path / 'faces', PrepareSettings(image_size=64, workers=1))
    as_before(sorted((tmp_path / 'faces').glob('*.arrow'))[0])
    with pytest.raises(ValueError, match='have no sharpness: their stores are of a version before 0.3'):
        scores(sample, out, faces_dir=str(tmp_path / 'faces'))
