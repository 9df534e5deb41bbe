"A model in one folder: hostile folders, round trips of several kinds, ONNX, the example without PyTorch, the card."
import json, os, shutil, struct, subprocess, sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file, save_file

from lam_nb import sharing
from lam_nb.checkpoints import _file_hash
from lam_nb.command import command
from lam_nb.encoders import EncoderHead
from lam_nb.faces import ClipFaces
from lam_nb.inference import predict
from lam_nb.models import BaselineLSTM, GazeLSTM, load_weights, make_model, read_checkpoint, save_checkpoint
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.runs import write_json
from lam_nb.scoring import load_model, weights_hash
from lam_nb.settings import ExportSettings
from lam_nb.onnx_export import WindowGraph, comparison_windows
from lam_nb.sharing import check_target, export_model, read_evaluation

MODELS = '''
import torch.nn.functional as F
from torch import nn
from lam_nb.models import FaceModel

class InOrder(FaceModel):
    "Sees the order of the faces in its window."
    window, step, mean, std = 5, 2, (.4, .5, .6), (.2, .3, .4)
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3 * 8 * 8, 32), nn.Linear(5 * 32, 2)
    def features(self, faces): return self.embed(F.adaptive_avg_pool2d(faces, 8).flatten(1)).relu()
    def classify(self, features): return self.head(features.flatten(1))
'''


def exported(checkpoint, out, **options):
    "The folder of an export without ONNX, unless it is wanted."
    return export_model(ExportSettings(checkpoint=str(checkpoint), out_dir=str(out), **dict(onnx=False) | options))


@pytest.fixture(scope='session')
def plain(tmp_path_factory):
    "A shared model without ONNX; it is copied, not changed."
    folder = tmp_path_factory.mktemp('plain')
    torch.manual_seed(0)
    checkpoint = save_checkpoint(folder / 'best.pt', BaselineLSTM(), epoch=3, mAP=.5, image_size=64, made_up=True,
                                 settings=dict(data_dir='/srv/ada/secret/sample', out_dir='/srv/ada/outputs/first', lr=.1))
    return exported(checkpoint, folder / 'shared')


@pytest.fixture
def shared(plain, tmp_path): return shutil.copytree(plain, tmp_path / 'shared')


def rewrite(folder, weights=None, raw=None, **config):
    "Changes a shared model as a hostile hand would: the hash fits."
    file, about = folder / 'model.safetensors', json.loads((folder / 'config.json').read_text())
    if weights is not None: save_file(weights, file)
    if raw is not None: file.write_bytes(raw)
    (folder / 'config.json').write_text(json.dumps(about | config | dict(weights_sha256=_file_hash(file))))


# ---- what a stranger may have put there

TEXTS = [('no JSON', 'is not of a model'), ('[]', 'is not of a model'), ('{}', '"format"'), ('[' * 100_000, 'is not of a model'),
         ('{"format": "other"}', 'is not of a model'), ('\ufeff{}', 'is not of a model')]


@pytest.mark.parametrize('text, said', TEXTS, ids=range(len(TEXTS)))
def test_a_config_of_something_else_is_refused(shared, text, said):
    (shared / 'config.json').write_text(text)
    with pytest.raises(ValueError, match=said): load_model(shared)


@pytest.mark.parametrize('config, said', [
    (dict(epoch='best'), 'its epoch is'), (dict(image_size=-5), 'image_size is not from'), (dict(image_size=[64]), 'its image_size is'),
    (dict(image_size=10**9), 'image_size is not from'), (dict(model_name=7), 'its model_name is'),
    (dict(model_name='os:system'), 'not known here'), (dict(model_name='../../etc/passwd'), 'not known here'),
    (dict(model_name='EncoderHead', model_options=[]), 'other options'), (dict(model_name='EncoderHead'), 'other options'),
    (dict(model_name='EncoderHead', model_options=dict(encoder='os:system')), 'other options'),
    (dict(blur='much'), 'its blur is'), (dict(blur=[.1, -1.]), 'its blur is'), (dict(blur=[float('nan'), 1.]), 'its blur is')])
def test_odd_values_in_a_config_are_refused(shared, config, said):
    rewrite(shared, **config)
    with pytest.raises(ValueError, match=said): load_model(shared)


def test_an_encoder_of_a_strangers_code_is_not_imported(shared):
    head = EncoderHead('baseline', 32, window=3)
    options = head.options | dict(encoder='this:Zen')
    rewrite(shared, head.state_dict(), model_name='EncoderHead', model_options=options)
    with pytest.raises(ValueError, match='never imported on the word'): load_model(shared)
    assert 'this' not in sys.modules


def changed(state, **changes): return {k: v for k, v in (state | changes).items() if v is not None}


@pytest.mark.parametrize('change, said', [
    ({'last_layer2.bias': None}, '1 missing'), ({'extra.weight': torch.ones(2)}, '1 unknown'),
    ({'last_layer2.bias': torch.ones(3)}, 'of another shape'), ({'last_layer2.bias': torch.tensor([1., float('nan')])}, 'NaN'),
    ({'last_layer2.bias': torch.ones(2, dtype=torch.int64)}, 'whole numbers'),
    ({'last_layer2.bias': torch.ones(2).to(torch.float8_e4m3fn)}, 'hold float8'),
    ({'base_model.bn1.running_var': -torch.ones(64)}, 'variances below 0')], ids=lambda v: v if isinstance(v, str) else '')
def test_tensors_that_do_not_fit_are_refused(shared, change, said):
    rewrite(shared, changed(load_file(shared / 'model.safetensors'), **change))
    with pytest.raises(ValueError, match=said): load_model(shared)


def header(**tensors):
    "A file of safetensors that claims what it likes."
    text = json.dumps(tensors).encode()
    return struct.pack('<Q', len(text)) + text + bytes(8)


@pytest.mark.parametrize('raw', [
    b'', b'rubbish', struct.pack('<Q', 2**60) + b'{}', header(w=dict(dtype='F32', shape=[2**40], data_offsets=[0, 2**42])),
    header(w=dict(dtype='F32', shape=[2**40, 2**40], data_offsets=[0, 8])), header(w=dict(dtype='F32', shape=[-1], data_offsets=[0, 8])),
    header(w=dict(dtype='F32', shape=[2], data_offsets=[8, 0])), header(w=dict(dtype='F32', shape=[2], data_offsets=[4, 12])),
    header(w=dict(dtype='Q7', shape=[2], data_offsets=[0, 8])), header(w='none')], ids=range(10))
def test_files_that_claim_what_they_do_not_hold_are_refused(shared, raw):
    rewrite(shared, raw=raw)
    with pytest.raises(ValueError, match='damaged or no safetensors'): load_model(shared)


def test_a_damaged_or_replaced_file_is_noticed(shared):
    data = bytearray((shared / 'model.safetensors').read_bytes())
    data[-100] ^= 1
    (shared / 'model.safetensors').write_bytes(data)
    with pytest.raises(ValueError, match='damaged or replaced'): load_model(shared)


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
def test_links_and_odd_files(shared, tmp_path, name):
    "The hub's cache holds links to files; a link that leads nowhere, a folder or a pipe is no file."
    kept = (shared / name).rename(tmp_path / 'kept')
    (shared / name).symlink_to(kept)
    assert load_model(shared)[2] == 3
    for place in ('nowhere', tmp_path):
        (shared / name).unlink()
        (shared / name).symlink_to(place)
        with pytest.raises(FileNotFoundError, match='No checkpoint at'): load_model(shared)
    (shared / name).unlink()
    os.mkfifo(shared / name)
    with pytest.raises(FileNotFoundError, match='No checkpoint at'): load_model(shared)


def test_a_part_of_a_folder_says_what_lacks(shared):
    (shared / 'config.json').unlink()
    with pytest.raises(FileNotFoundError, match='without its config.json'): load_model(shared)
    with pytest.raises(ValueError, match='give its folder'): load_model(shared / 'model.safetensors')


# ---- round trips

@pytest.mark.parametrize('make', [
    BaselineLSTM, GazeLSTM, lambda: EncoderHead('timm:test_resnet', 64, 5, 2, 'transformer', ['sharpness', 'yaw']),
    lambda: EncoderHead('files', dim=8)], ids=['baseline', 'gaze', 'timm', 'files'])
def test_what_is_loaded_is_what_was_exported(make, tmp_path):
    model = make()
    model.blur = (.5, .25)
    checkpoint = save_checkpoint(tmp_path / 'best.pt', model, epoch=7, image_size=48, box_fit=dict(width=1, height=1, right=0, down=.1))
    out = exported(checkpoint, tmp_path / 'shared')
    loaded, size, epoch = load_model(out)
    assert (size, epoch, type(loaded), loaded.blur) == (48, 7, type(model), (.5, .25)) and weights_hash(loaded) == weights_hash(model)
    for name in ('window', 'step', 'numbers', 'mean', 'std', 'options'): assert getattr(loaded, name) == getattr(model, name)
    assert json.loads((out / 'box_fit.json').read_text())['down'] == .1
    assert (out / 'official.pth').exists() == isinstance(model, BaselineLSTM) and not (out / 'model.onnx').exists()
    again = exported(out, tmp_path / 'again')                                      # from a shared model
    assert (again / 'model.safetensors').read_bytes() == (out / 'model.safetensors').read_bytes()
    fine = make()                                                                  # its weights start another training
    assert not load_weights(fine, out).initialised and weights_hash(fine) == weights_hash(model)


def test_a_model_of_ones_own_is_named_by_who_loads_it(own, tmp_path):
    with pytest.raises(ValueError, match='give its name as the parameter model'): exported(own, tmp_path / 'shared')
    assert not (tmp_path / 'shared').exists()
    out = exported(own, tmp_path / 'shared', model='shared_lab.models:InOrder')
    with pytest.raises(ValueError, match='Code is never imported'): load_model(out)
    assert load_model(out, 'shared_lab.models:InOrder')[0].window == 5
    card = (out / 'README.md').read_text()
    assert "model='shared_lab.models:InOrder'" in card and 'code that is not in this folder' in card


@pytest.fixture
def own(tmp_path, monkeypatch):
    "A checkpoint of a model of one's own."
    (tmp_path / 'shared_lab').mkdir()
    (tmp_path / 'shared_lab/models.py').write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    yield save_checkpoint(tmp_path / 'own.pt', make_model('shared_lab.models:InOrder'), image_size=64)
    for name in [n for n in sys.modules if n.split('.')[0] == 'shared_lab']: del sys.modules[name]


def test_odd_records_of_a_checkpoint_do_not_reach_the_folder(tmp_path):
    odd = dict(mAP=float('nan'), settings=dict(lr=torch.ones(3)), versions=['1'], training='x', data=7)
    out = exported(save_checkpoint(tmp_path / 'a.pt', BaselineLSTM(), **odd), tmp_path / 'shared')
    about = json.loads((out / 'config.json').read_text())
    assert not {'mAP', 'settings', 'versions', 'training'} & {*about} and about['image_size'] == 224


def test_others_may_read_what_others_may_read(plain):
    assert len({file.stat().st_mode for file in plain.iterdir()}) == 1


def test_no_folder_of_the_machine_is_given_away(plain):
    texts = [f.read_text() for f in plain.iterdir() if f.suffix in ('.json', '.md', '.py')]
    assert len(texts) == 3 and not any('/srv/ada' in text or str(plain.parent) in text for text in texts)
    assert 'sample' in json.loads((plain / 'config.json').read_text())['settings']['data_dir']


@pytest.mark.parametrize('options', [dict(limit=float('inf')), dict(scale=torch.ones(2))], ids=['inf', 'tensor'])
def test_options_that_json_cannot_hold_are_refused(tmp_path, options):
    checkpoint = save_checkpoint(tmp_path / 'a.pt', BaselineLSTM(), model_options=options)
    with pytest.raises(ValueError, match='model_options of the checkpoint cannot be written'): exported(checkpoint, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_the_card_of_a_model_that_reads_features_does_not_speak_of_crops(tmp_path):
    card = (exported(save_checkpoint(tmp_path / 'a.pt', EncoderHead('files', dim=8)), tmp_path / 'out') / 'README.md').read_text()
    assert 'From the features of' in card and 'features_dir' in card and 'RGB' not in card and 'library of the encoder' not in card


def test_a_header_that_takes_minutes_is_refused(shared):
    tensors = {f'w{i}': dict(dtype='F32', shape=[0], data_offsets=[0, 0]) for i in range(30_000)}
    rewrite(shared, raw=header(**tensors))
    with pytest.raises(ValueError, match='a header of'): load_model(shared)


# ---- where it is written

def test_an_export_that_is_interrupted_at_its_end_leaves_what_was_there(shared, tmp_path, monkeypatch):
    before, real = {f.name: f.read_bytes() for f in shared.iterdir()}, os.rename

    def interrupted(old, new, **more):
        if Path(new).resolve() == shared.resolve() and '.old' not in str(old): raise KeyboardInterrupt
        return real(old, new, **more)
    for name in ('rename', 'replace'): monkeypatch.setattr(os, name, interrupted)
    with pytest.raises(KeyboardInterrupt): exported(shared, shared, name='second')
    assert {f.name: f.read_bytes() for f in shared.iterdir()} == before and not [*tmp_path.glob('.*')]


def test_only_an_export_that_nobody_has_changed_is_replaced(shared, plain, tmp_path):
    check_target(shared)
    (shared / 'notes.txt').touch()
    with pytest.raises(ValueError, match='notes.txt, which no export'): exported(plain, shared)
    (shared / 'notes.txt').unlink()
    exported(shared, shared, name='second')                                       # of itself
    assert '# second' in (shared / 'README.md').read_text()
    (shared / 'README.md').write_text('Ours.')
    with pytest.raises(ValueError, match='README.md was changed'): exported(plain, shared)
    assert (shared / 'README.md').read_text() == 'Ours.' and not [*tmp_path.glob('.*')]


@pytest.mark.parametrize('about', ['{"format": "lam_nb export", "files": ["README.md"]}', '{"format": "other"}', '[]', 'no JSON',
                                   '{"format": "lam_nb export", "files": {"../victim": "0"}}'])
def test_a_hostile_list_of_files_removes_nothing(plain, tmp_path, about):
    (tmp_path / 'victim').touch()
    (tmp_path / 'out').mkdir()
    for name in ('export.json', 'mine.txt'): (tmp_path / 'out' / name).write_text(about)
    with pytest.raises(ValueError): exported(plain, tmp_path / 'out')
    assert (tmp_path / 'victim').exists() and (tmp_path / 'out/mine.txt').exists()


def test_links_and_files_in_its_place_are_refused(plain, tmp_path):
    (tmp_path / 'there').mkdir()
    for name, target in (('link', 'there'), ('broken', 'nowhere')): (tmp_path / name).symlink_to(target)
    (tmp_path / 'file').touch()
    for name in ('link', 'broken', 'file'):
        with pytest.raises(ValueError, match='is no folder'): exported(plain, tmp_path / name)
    assert exported(plain, tmp_path / 'there') == tmp_path / 'there'              # an empty folder


def test_an_export_that_fails_leaves_what_was_there(shared, tmp_path, monkeypatch):
    before = {f.name: f.read_bytes() for f in shared.iterdir()}
    monkeypatch.setattr(sharing, 'model_card', lambda about: 1 / 0)
    with pytest.raises(ZeroDivisionError): exported(shared, shared)
    with pytest.raises(ZeroDivisionError): exported(shared, tmp_path / 'new')
    assert {f.name: f.read_bytes() for f in shared.iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ['shared']


def test_the_official_code_would_misread_some_paths(plain, tmp_path):
    with pytest.raises(ValueError, match='gaze360'): exported(plain, tmp_path / 'gaze360')
    assert not (exported(plain, tmp_path / 'gaze360', official=False) / 'official.pth').exists()


# ---- evaluations and the card

def evaluation(folder, hashes, **metrics):
    "An evaluation's files, as far as a card reads them."
    folder.mkdir()
    write_json(folder / 'settings.json', dict(parameters=dict(data_dir='data/ours')))
    write_json(folder / 'metrics.json', dict(mAP=.75, AP_looking=.5, AP_not_looking=1.0, accuracy=.9, n_rows=1200, n_positive=300,
                                             split='val', threshold=.5, flip=True, smoothing=7, weights_hash=hashes) | metrics)
    numbers = {f'{n}{end}': [v] for n in ('mAP', 'looking', 'not', 'accuracy') for end, v in (('', .75), ('_low', .6), ('_high', .8))}
    pd.DataFrame(dict(run=['a']) | numbers).to_csv(folder / 'results.csv', index=False)
    rows = [('face_size', 'below | <b>24</b>', 300, 30, .2), ('face_size', '24 to 31', 900, 270, .6), ('person', 'Ada', 1200, 300, .1),
            ('box', 'tiny', 3, 1, .0), ('box', 'annotated', 1197, 299, None)]
    pd.DataFrame(rows, columns=['fact', 'group', 'n_rows', 'n_positive', 'AP_looking']).to_csv(folder / 'slices.csv', index=False)
    return str(folder)


def hash_of(folder): return json.loads((folder / 'config.json').read_text())['weights_hash']


@pytest.mark.parametrize('change, said', [
    (dict(weights_hash=['0' * 16]), 'are exported. Evaluate this'), (dict(weights_hash=None), 'an ensemble'),
    (dict(mAP=None), 'has no mAP'), (dict(mAP='good'), 'has no mAP'), (dict(mAP=7.5), 'has no mAP')])
def test_evaluations_that_are_not_of_these_weights_are_refused(plain, tmp_path, change, said):
    folder = evaluation(tmp_path / 'val', [hash_of(plain)], **change)
    with pytest.raises(ValueError, match=said): exported(plain, tmp_path / 'out', evaluations=[folder])
    assert not (tmp_path / 'out').exists()


def test_an_ensemble_that_holds_these_weights_is_refused(plain, tmp_path):
    folder = evaluation(tmp_path / 'val', [hash_of(plain), '0' * 16])
    with pytest.raises(ValueError, match='Evaluate this checkpoint, alone'): exported(plain, tmp_path / 'out', evaluations=[folder])


def test_an_evaluation_says_itself_whether_its_data_are_drawn(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/ours').mkdir(parents=True)
    (tmp_path / 'data/ours/sample.json').write_text('{}')                   # by this, older evaluations are recognised
    said = lambda name, **m: read_evaluation(evaluation(tmp_path / name, [hash_of(plain)], **m), hash_of(plain))['drawn']
    assert [said('a', made_up=True), said('b', made_up=False), said('c', made_up='yes'), said('d')] == [True, False, False, True]


@pytest.mark.parametrize('name', ['metrics.json', 'settings.json', 'slices.csv', 'results.csv'])
def test_what_is_no_finished_evaluation_is_refused(plain, tmp_path, name):
    folder = evaluation(tmp_path / 'val', [hash_of(plain)])
    (tmp_path / 'val' / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'has no {name}'): exported(plain, tmp_path / 'out', evaluations=[folder])


@pytest.fixture
def card(plain, tmp_path):
    folder = evaluation(tmp_path / 'val', [hash_of(plain)])
    out = exported(plain, tmp_path / 'out', evaluations=[folder], name='Ours', licence='cc-by-nc-4.0')
    return out / 'README.md'


def test_every_number_of_the_card_is_of_a_file(card):
    body = card.read_text().split('---\n', 2)[2]
    assert body.startswith('# Ours\n\n> **Trained on drawn heads: it says nothing about people.**')
    assert '| val | ours | val | 1,200 | 300 | 0.750 [0.600, 0.800] | 0.500 [0.600, 0.800] |' in body
    assert 'flip True, smoothing 7' in body
    assert r'| face size, pixels | below \| \<b\>24\</b\> | 300 | 30 | 0.200 | 0.100 |' in body
    assert 'Ada' not in body and 'tiny' not in body                               # a person; three of 1,200 rows
    assert 'weights: cc-by-nc-4.0' in body and 'commit not known' in body


def test_the_hub_reads_the_card(card):
    hub = pytest.importorskip('huggingface_hub')
    data = hub.ModelCard.load(card).data
    assert (data.license, data.library_name, data.model_name) == ('cc-by-nc-4.0', 'lam_nb', 'Ours') and 'drawn-heads' in data.tags
    found = {result.metric_type: result for result in data.eval_results}
    assert found['mAP'].metric_value == .75 and found['mAP'].dataset_split == 'val' and found['mAP'].dataset_name == 'ours'


@pytest.mark.parametrize('licence, fields', [
    (None, {}), ('MIT', dict(license='mit')), ('apache-2.0', dict(license='apache-2.0')),
    ('cc-by-nc-nd-4.0', dict(license='cc-by-nc-nd-4.0')),
    ('agpl-3.0', dict(license='agpl-3.0')), ('Research only!', dict(license='other', license_name='research-only')),
    ('???', dict(license='other', license_name='own'))])
def test_licences_as_the_hub_names_them(plain, tmp_path, licence, fields):
    text = (exported(plain, tmp_path / 'out', licence=licence) / 'README.md').read_text()
    assert {k: v for k, v in yaml.safe_load(text.split('---\n')[1]).items() if k.startswith('license')} == fields
    assert ('not chosen' in text) == (licence is None)


def test_the_provenance_is_that_of_the_training(tmp_path):
    settings = dict(model='BaselineLSTM', batch_size=8, lr=.1, seed=3)
    checkpoint = save_checkpoint(tmp_path / 'run/checkpoints/best.pt', BaselineLSTM(), settings=settings, mAP=.5)
    made = dict(commit='c0ffee', dirty=True, started='2026-11-30', cpu='x', gpus=[])
    write_json(tmp_path / 'run/settings.json', dict(parameters=settings, provenance=made))
    assert 'commit c0ffee with uncommitted changes, begun 2026-11-30' in (exported(checkpoint, tmp_path / 'a') / 'README.md').read_text()
    assert 'c0ffee' in (exported(tmp_path / 'a', tmp_path / 'b') / 'README.md').read_text()      # it is kept in config.json
    write_json(tmp_path / 'run/settings.json', dict(parameters=settings | dict(seed=4), provenance=made))
    assert 'commit not known' in (exported(checkpoint, tmp_path / 'c') / 'README.md').read_text()     # of another training


# ---- ONNX

@pytest.fixture
def onnx():
    for name in ('onnx', 'onnxscript', 'onnxruntime'): pytest.importorskip(name, reason='the extra onnx is not installed')


def spread(model, given, factor=20):
    "Makes a newly initialised model's scores differ, around 0.5: those that are all alike show nothing."
    last = [*model.modules()][-1]
    with torch.no_grad():
        middle = torch.logit(WindowGraph(model.eval())(*map(torch.from_numpy, given.values()))).mean()
        for part in (last.weight, last.bias): part.mul_(factor)
        last.bias[1] -= factor * middle
    return model


@pytest.mark.slow
@pytest.mark.parametrize('make', [BaselineLSTM, lambda: EncoderHead('timm:test_resnet', 96, 5, 2, 'transformer', ['sharpness', 'yaw'])],
                         ids=['baseline', 'timm'])
def test_any_number_of_windows_scores_as_by_pytorch(onnx, make, sample, tmp_path):
    import onnxruntime
    torch.manual_seed(0)
    model = make()
    given = comparison_windows(model, 64, sample / 'faces', n=11)
    spread(model, given)
    checkpoint = save_checkpoint(tmp_path / 'best.pt', model, image_size=64, settings=dict(data_dir=str(sample)))
    out = exported(checkpoint, tmp_path / 'shared', onnx=True)
    about = json.loads((out / 'export.json').read_text())['onnx']
    assert about['largest_difference'] < 1e-5 and about['of'] == 'the face store of sample' and about['batches'][:3] == [1, 2, 5]
    assert not any(place.encode() in (out / 'model.onnx').read_bytes() for place in (str(ROOT), sys.prefix, 'sharing.py'))
    session = onnxruntime.InferenceSession(str(out / 'model.onnx'))
    if model.numbers: given['numbers'][:3] = np.nan                                # not known
    with torch.inference_mode(): ours = WindowGraph(model)(*map(torch.from_numpy, given.values())).numpy()
    for n in (1, 4, 11):
        theirs, = session.run(['score'], {name: value[:n] for name, value in given.items()})
        assert theirs.shape == (n,) and np.abs(theirs - ours[:n]).max() < 1e-5
    assert np.ptp(ours) > .01 and about['highest'] - about['lowest'] > .01


@pytest.mark.slow
def test_scores_that_differ_fail_the_export(onnx, own, tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, 'PARITY', 0)
    with pytest.raises(ValueError, match='expected less than 0: set onnx=false'):
        exported(own, tmp_path / 'shared', onnx=True, model='shared_lab.models:InOrder')
    assert not (tmp_path / 'shared').exists() and not [*tmp_path.glob('.shared*')]


def test_a_model_that_takes_no_faces_has_no_graph(onnx, tmp_path):
    checkpoint = save_checkpoint(tmp_path / 'a.pt', EncoderHead('files', dim=8))
    with pytest.raises(ValueError, match='reads features from files'): exported(checkpoint, tmp_path / 'shared', onnx=True)


def test_without_the_extra_the_message_names_it(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(SystemExit, match=r'pip install "lam_nb\[onnx\]", or set onnx=false'):
        command(['export', str(plain), str(tmp_path / 'a')])
    assert not [*tmp_path.iterdir()]
    command(['export', str(plain), str(tmp_path / 'a'), 'onnx=false'])
    assert (tmp_path / 'a/README.md').exists()


@pytest.fixture(scope='session')
def bare(tmp_path_factory):
    "Runs Python with ONNX Runtime, NumPy and OpenCV, and nothing else."
    site = tmp_path_factory.mktemp('bare')
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--target', str(site), 'onnxruntime', 'opencv-python-headless']
    try: subprocess.run(pip, check=True, capture_output=True, text=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as e:
        pytest.skip(f'ONNX Runtime cannot be installed beside: {str(getattr(e, "stderr", None) or e)[-300:]}')

    def run(*arguments):
        return subprocess.run([sys.executable, '-S', *arguments], env=dict(PYTHONPATH=str(site)), cwd=site, capture_output=True, text=True)
    assert run('-c', 'import numpy, cv2, onnxruntime').returncode == 0
    for name in ('torch', 'lam_nb', 'pandas'): assert f"No module named '{name}'" in run('-c', f'import {name}').stderr
    return run


@pytest.mark.slow
def test_the_example_resizes_and_orders_as_the_kit(onnx, bare, sample, tmp_path):
    "The challenge's crops have another size than the model's; without loss in the store, the scores are equal."
    torch.manual_seed(0)
    model = spread(BaselineLSTM(), comparison_windows(BaselineLSTM(), 64, sample / 'faces', n=11))
    checkpoint = save_checkpoint(tmp_path / 'a.pt', model, image_size=64, settings=dict(data_dir=str(sample)))
    out, settings = exported(checkpoint, tmp_path / 'shared', onnx=True), PrepareSettings(image_size=64, workers=1, image_format='png')
    faces = split_faces(sample, 'test', settings)[0]
    prepare_faces(dict(test=faces), sample, tmp_path / 'faces', settings)
    scored = predict(load_model(checkpoint)[0], tmp_path / 'faces', [faces.clip_uid[0]], size=64)
    runs = faces.groupby(['clip_uid', 'track_id', faces.frame - faces.groupby(['clip_uid', 'track_id']).cumcount()])
    run = max((t for _, t in runs), key=len)                                      # successive frames, as the example wants them
    (tmp_path / 'crops').mkdir()
    for i, file in enumerate(run.file, 5): shutil.copy(file, tmp_path / f'crops/{i}.jpg')
    assert cv2.imread(str(tmp_path / 'crops/5.jpg')).shape[:2] != (64, 64)
    done = bare(str(out / 'example.py'), str(tmp_path / 'crops'))
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == [f'{i}.jpg' for i in range(5, 5 + len(run))] and len(run) > 7
    kit, ours = run[['clip_uid', 'track_id', 'frame']].merge(scored).score[3:-3], [float(score) for _, score in lines[3:-3]]
    assert len(kit) == len(ours) and np.abs(kit - ours).max() < 1e-5                # at its ends, the kit may know more of the track


@pytest.mark.slow
def test_the_example_needs_no_pytorch(onnx, bare, own, sample, tmp_path):
    "A model that sees the order of its window, every second frame: the ends of the track show whether it is padded as the kit does."
    out = exported(own, tmp_path / 'shared', onnx=True, model='shared_lab.models:InOrder', faces_dir=str(sample / 'faces'))
    model, size, _ = load_model(out, 'shared_lab.models:InOrder')
    store = next(ClipFaces(path) for path in sorted((sample / 'faces').glob('*.arrow')) if ClipFaces(path).about.get('split') != 'test')
    scored = predict(model, sample / 'faces', [store.path.stem], size=size)
    track = next(t for _, t in scored.groupby('track_id') if len(t) > 9 and np.ptp(t.frame) == len(t) - 1)
    assert not store.missing[track.index].any()
    (tmp_path / 'crops').mkdir()
    for row in track.index: cv2.imwrite(str(tmp_path / f'crops/{track.frame[row]:06}.png'), store.crop(row)[..., ::-1])
    (tmp_path / 'crops/notes.txt').touch()
    done = bare(str(out / 'example.py'), str(tmp_path / 'crops'))
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == [f'{frame:06}.png' for frame in track.frame]
    assert np.abs(track.score - [float(score) for _, score in lines]).max() < 1e-5 and np.ptp(track.score) > 1e-3
    assert len([line for line in (out / 'example.py').read_text().splitlines() if line and not line.startswith('#')]) <= 13


def test_the_command_says_what_it_needs():
    for given, said in ((['best.pt'], 'got 1 places'), (['a', 'b', 'license=mit'], "did you mean 'licence'"),
                        (['nowhere.pt', 'b'], 'No checkpoint at'), (['a', 'b', 'c'], 'got 3 places')):
        with pytest.raises(SystemExit, match=said): command(['export', *given])
    assert not (ROOT / 'b').exists() and Path('b').resolve().exists() is False


def test_a_checkpoint_keeps_its_record_in_the_folder(plain):
    saved = read_checkpoint(plain)
    assert saved['made_up'] and saved['epoch'] == 3 and saved['settings']['lr'] == .1
