"A model of ten lines outside the kit: trains, resumes, is evaluated, compared and refused where it must be."
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from lam_nb.annotations import split_clips
from lam_nb.comparison import read_runs, run_settings
from lam_nb.evaluation import lam_metrics
from lam_nb.inference import _logits_hash, predict
from lam_nb.launching import start_training, train
from lam_nb.models import check_model, export_official, load_imagenet, load_weights, make_model, model_name, normalise, read_checkpoint
from lam_nb.folders import start_run
from lam_nb.runs import write_json
from lam_nb.scoring import EvaluateSettings, load_model, predict_split
from lam_nb.training import TrainSettings
from lam_nb.windows import FaceWindows

MODELS = '''
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18
from lam_nb.models import BaselineLSTM, FaceModel

class MeanFace(FaceModel):
    window = 5
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3 * 8 * 8, 32), nn.Linear(32, 2)
    def features(self, faces): return self.embed(F.adaptive_avg_pool2d(faces, 8).flatten(1)).relu()
    def classify(self, features): return self.head(features.mean(1))

class OneFace(MeanFace): window = 1
class SmallFace(MeanFace): size, mean, std = 32, (.5, .5, .5), (.25, .25, .25)
class OtherHead(MeanFace):
    def __init__(self):
        super().__init__()
        self.head, self.gate = nn.Linear(64, 2), nn.Linear(32, 32)
    def classify(self, features): return self.head(torch.cat([features.mean(1), self.gate(features[:, 2])], 1))
class LastLayer(MeanFace):
    "Its names are those by which Gaze360's and ImageNet's files are recognised."
    def __init__(self):
        super().__init__()
        self.last_layer, self.conv1, self.fc = nn.Linear(32, 2), nn.Conv2d(3, 3, 1), nn.Linear(3, 3)
        del self.head
    def classify(self, features): return self.last_layer(features.mean(1))
class Borrowed(FaceModel):
    def __init__(self):
        super().__init__()
        self.net, self.head = resnet18(weights=None), nn.Linear(512, 2)
        self.net.fc = nn.Identity()
    def features(self, faces): return self.net(faces)
    def classify(self, features): return self.head(features.mean(1))
class FiveFrames(BaselineLSTM): window = 5

class NoClassify(FaceModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def features(self, faces): return faces.mean((2, 3))
class NoWeights(NoClassify):
    def __init__(self): FaceModel.__init__(self)
    def classify(self, features): return features.mean(1)[:, :2]
class ThreeLogits(NoClassify):
    def classify(self, features): return features.mean(1)
class Images(ThreeLogits):
    def features(self, faces): return faces
class Raises(ThreeLogits):
    def features(self, faces): return self.layer(faces)
class Even(ThreeLogits): window = 4
class Tiny(ThreeLogits): size = 16
class Grey(ThreeLogits): std = (1.,)
class Arguments(ThreeLogits):
    def __init__(self, width): super().__init__()
class Plain(nn.Linear):
    def __init__(self): super().__init__(3, 2)
class NoModule: pass
'''
PATH = 'my_lab.models:MeanFace'


@pytest.fixture(scope='module', autouse=True)
def lab(tmp_path_factory):
    "The file, in a folder on PYTHONPATH."
    folder = tmp_path_factory.mktemp('lab')
    (folder / 'my_lab').mkdir()
    (folder / 'my_lab/models.py').write_text(MODELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(folder))
        patch.syspath_prepend(str(folder))
        yield folder


def settings(sample, out, **changes):
    small = dict(data_dir=str(sample), out_dir=str(out), model=PATH, epochs=2, batch_size=16, train_stride=4, val_stride=5, image_size=32,
                 num_workers=0, num_processes=1, precision='fp32', schedule='constant', warmup=0., lr=.01)
    return TrainSettings(**{**small, **changes})


def evaluation(sample, out, checkpoint, **changes):
    return EvaluateSettings(**dict(data_dir=str(sample), out_dir=str(out), checkpoint=str(checkpoint), model=PATH, stride=5, num_workers=0,
                                   num_processes=1) | changes)


@pytest.fixture(scope='module')
def trained(sample, tmp_path_factory):
    "Two epochs in one go: folder and metrics."
    s = settings(sample, tmp_path_factory.mktemp('runs') / 'whole')
    start_training(s)
    return s, train(s)


@torch.inference_mode()
def window_by_window(model, sample, size, stride):
    windows = FaceWindows(sample / 'faces', split_clips(sample, 'val'), stride, size, length=model.window)
    images = torch.from_numpy(windows.__getitems__(list(range(len(windows))))['images'])
    x = normalise(images, model.mean, model.std)                           # (M, T, 3, size, size)
    return model(x).softmax(-1)[:, 1].numpy()


# ---- trains, resumes, is evaluated, compared

def test_it_resumes_like_ours(sample, trained, tmp_path):
    for epochs in (1, 2): metrics = train(settings(sample, tmp_path, epochs=epochs))
    one, two = (read_checkpoint(folder / 'checkpoints/last.pt') for folder in (tmp_path, Path(trained[0].out_dir)))
    assert one['model_name'] == PATH and one['epoch'] == 2 and metrics['mAP'] == trained[1]['mAP']
    assert all(torch.equal(v, two['state_dict'][k]) for k, v in one['state_dict'].items())
    other = settings(sample, tmp_path, model='my_lab.models:OneFace')
    with pytest.raises(ValueError, match=f"model = 'my_lab.models:OneFace', there '{PATH}'"): train(other)


def test_it_learns_and_evaluates_to_the_metrics_of_its_training(sample, trained, tmp_path):
    table = predict_split(evaluation(sample, tmp_path, trained[1]['best_checkpoint']))
    assert lam_metrics(table)['mAP'] == pytest.approx(trained[1]['mAP'], abs=1e-9)
    model, size, _ = load_model(trained[1]['best_checkpoint'], PATH)
    assert (size, model.window) == (32, 5) and np.abs(window_by_window(model, sample, 32, 5) - table.score).max() < 1e-6
    losses = [float(line.split(',')[1]) for line in (Path(trained[0].out_dir) / 'history.csv').read_text().splitlines()[1:]]
    assert losses[1] < losses[0]


def test_comparison_reads_its_runs(sample, trained, tmp_path):
    s = evaluation(sample, tmp_path / 'val', trained[1]['best_checkpoint'])
    start_run(s.out_dir, s, 'evaluate', ['settings.json'])
    table = predict_split(s)
    table.to_parquet(tmp_path / 'val/predictions.parquet')
    write_json(tmp_path / 'val/metrics.json', lam_metrics(table))
    training, scored = read_runs([Path(trained[0].out_dir), tmp_path / 'val'])
    assert training['parameters']['model'] == PATH and len(training['history']) == 2
    assert run_settings(scored)['training: model'] == PATH == run_settings(scored)['model']


def test_several_processes_import_it(sample, tmp_path):
    "The processes are spawned: each imports the file again; together they validate as one process evaluates."
    metrics = train(settings(sample, tmp_path / 'two', epochs=1, num_processes=2, batch_size=8))
    table = predict_split(evaluation(sample, tmp_path / 'val', metrics['best_checkpoint']))
    assert metrics['processes'] == 2 and lam_metrics(table)['mAP'] == pytest.approx(metrics['mAP'], abs=1e-9)


@pytest.mark.parametrize('name, size', [('OneFace', 32), ('MeanFace', 64), ('SmallFace', 32), ('FiveFrames', 32)])
def test_windows_of_any_length_and_size(sample, name, size):
    torch.manual_seed(0)
    model = make_model(f'my_lab.models:{name}').eval()
    table = predict(model, sample / 'faces', split_clips(sample, 'val'), stride=5, size=size)
    assert np.abs(window_by_window(model, sample, size, 5) - table.score).max() < 1e-5 and np.ptp(table.score) > 0


def test_one_face_trains(sample, tmp_path):
    metrics = train(settings(sample, tmp_path, model='my_lab.models:OneFace', epochs=1, jitter=.1, colour=.2, blur=1.))
    assert 0 <= metrics['mAP'] <= 1 and read_checkpoint(metrics['best_checkpoint'])['model_name'] == 'my_lab.models:OneFace'


def test_a_fixed_size_is_the_models_own(sample, tmp_path):
    small = 'my_lab.models:SmallFace'
    metrics = train(settings(sample, tmp_path, model=small, epochs=1, image_size=None))
    assert read_checkpoint(metrics['best_checkpoint'])['image_size'] == 32
    with pytest.raises(ValueError, match='takes crops of 32 pixels, image_size is 48'):
        train(settings(sample, tmp_path / 'b', model=small, image_size=48))
    with pytest.raises(ValueError, match='takes faces of 32 pixels, not 64'):
        predict(make_model(small), sample / 'faces', split_clips(sample, 'val'), size=64)


# ---- its checkpoints

def test_a_checkpoint_alone_imports_nothing(sample, trained, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, 'my_lab.models')
    with pytest.raises(ValueError, match='never imported on the word of a file'): load_model(trained[1]['best_checkpoint'])
    best = str(trained[1]['best_checkpoint'])
    s = evaluation(sample, tmp_path, 'unused.pt', model=None, checkpoints=[best, best])
    with pytest.raises(ValueError, match='never imported on the word of a file'): predict_split(s)
    assert 'my_lab.models' not in sys.modules
    with pytest.raises(ValueError, match="but model='my_lab.models:OneFace' was given"): load_model(best, 'my_lab.models:OneFace')


def test_the_official_code_does_not_know_it(trained, tmp_path):
    with pytest.raises(ValueError, match='the official code does not know this model'):
        export_official(trained[1]['best_checkpoint'], tmp_path / 'x.pth')
    state = read_checkpoint(trained[1]['best_checkpoint'])['state_dict']
    torch.save(state, tmp_path / 'bare.pt')
    torch.save(dict(model_name='my_lab.models:FiveFrames', state_dict=make_model('BaselineLSTM').state_dict()), tmp_path / 'named.pt')
    for name, words in (('bare', r'4 tensors are unknown there \(first: embed.weight\)'), ('named', 'it is my_lab.models:FiveFrames')):
        with pytest.raises(ValueError, match=f'the official code does not know this model: {words}'):
            export_official(tmp_path / f'{name}.pt', tmp_path / 'x.pth')
    assert not (tmp_path / 'x.pth').exists()


def test_weights_of_the_same_shape_start_another_architecture(sample, trained, tmp_path, capfd):
    s = settings(sample, tmp_path / 'next', model='my_lab.models:OtherHead', epochs=1, checkpoint=str(trained[1]['best_checkpoint']))
    with pytest.raises(ValueError, match="match='shapes' takes what fits"): train(s)
    train(s.model_copy(update={'checkpoint_match': 'shapes'}))
    said = capfd.readouterr().out
    assert '3 of 6 tensors loaded' in said and 'of another shape: head (1)' in said and 'newly initialised: head (1), gate (2)' in said
    with pytest.raises(ValueError, match='not one of the 1 backbone weights fits'):
        load_weights(make_model('my_lab.models:MeanFace'), official(tmp_path), match='shapes')
    with pytest.raises(ValueError, match="match = 'any': expected 'strict' or 'shapes'"):
        load_weights(make_model(PATH), trained[1]['best_checkpoint'], match='any')


def official(folder):
    torch.save(make_model('BaselineLSTM').state_dict(), folder / 'official.pt')
    return folder / 'official.pt'


def test_weights_that_are_not_finite_are_refused_by_shapes_too(trained, tmp_path):
    state = read_checkpoint(trained[1]['best_checkpoint'])['state_dict']
    state['head.bias'][0] = float('nan')
    torch.save(state, tmp_path / 'nan.pt')
    for match in ('strict', 'shapes'):
        with pytest.raises(ValueError, match='NaN or infinite'): load_weights(make_model(PATH), tmp_path / 'nan.pt', match)


def test_its_names_are_not_taken_for_a_foreign_file(tmp_path):
    model = make_model('my_lab.models:LastLayer')
    torch.save(model.state_dict(), tmp_path / 'a.pt')
    report = load_weights(make_model('my_lab.models:LastLayer'), tmp_path / 'a.pt')
    assert report.origin == 'Looking-at-me' and not report.dropped and not report.initialised


def test_imagenet_fills_a_resnet_of_any_name(tmp_path):
    net, model = resnet18(weights=None), make_model('my_lab.models:Borrowed')
    torch.save(net.state_dict(), tmp_path / 'resnet.pt')
    report = load_imagenet(model, tmp_path / 'resnet.pt')
    assert len(report.loaded) == 120 and report.initialised == ['head.weight', 'head.bias']
    assert torch.equal(model.net.layer4[1].conv2.weight, net.layer4[1].conv2.weight)
    with pytest.raises(ValueError, match='does not fit MeanFace'): load_imagenet(make_model(PATH), tmp_path / 'resnet.pt')


def test_kept_scores_depend_on_its_source_file(lab):
    torch.manual_seed(0)
    model, file = make_model(PATH), lab / 'my_lab/models.py'
    before = _logits_hash(model, 1, 32, 'fp32', False)
    try:
        file.write_text(MODELS + '# changed\n')
        assert _logits_hash(model, 1, 32, 'fp32', False) != before
    finally: file.write_text(MODELS)
    assert _logits_hash(model, 1, 32, 'fp32', False) == before


# ---- found and refused

def test_it_may_lie_where_the_run_is_started(tmp_path, monkeypatch):
    "In the folder itself, or above a notebook in nbs/ of a project."
    monkeypatch.setattr(sys, 'path', list(sys.path))
    for name, start in (('lab_one', '.'), ('lab_two', 'nbs')):
        project = tmp_path / name
        (project / 'nbs').mkdir(parents=True)
        (project / 'settings.ini').write_text('')
        (project / f'{name}.py').write_text(MODELS)
        monkeypatch.chdir(project / start)
        assert model_name(make_model(f'{name}:MeanFace')) == f'{name}:MeanFace'


@pytest.mark.parametrize('name, words', [
    ('BaselineLSTN', "No model is called 'BaselineLSTN': did you mean 'BaselineLSTM'?"),
    ('my_lab.models.MeanFace', "did you mean 'my_lab.models:MeanFace'?"),
    ('resnet', 'known: BaselineLSTM, GazeLSTM'),
    ('my_lab.modles:MeanFace', "could not be imported (ModuleNotFoundError: No module named 'my_lab.modles')"),
    ('my_lab.models:MeenFace', "my_lab.models has no class MeenFace: did you mean 'MeanFace'?"),
    ('my_lab.models:torch', 'has no class torch'),
    ('../my_lab:MeanFace', "No model is called '../my_lab:MeanFace'"),
    ('my_lab.models:Arguments', 'cannot be constructed without arguments (TypeError'),
    ('my_lab.models:NoModule', 'it is no nn.Module'),
    ('my_lab.models:Plain', 'it has no features, no classify, no window, no size, no mean, no std'),
    ('my_lab.models:NoClassify', 'it has no classify'),
    ('my_lab.models:NoWeights', 'it has no weights to train'),
    ('my_lab.models:ThreeLogits', 'classify got a tensor of shape (2, 7, 3) and returned (2, 3); expected (2, 2)'),
    ('my_lab.models:Images', 'features got a tensor of shape (14, 3, 32, 32) and returned (14, 3, 32, 32); expected (14, D)'),
    ('my_lab.models:Raises', 'features got a tensor of shape (14, 3, 32, 32) and raised RuntimeError'),
    ('my_lab.models:Even', 'window = 4: expected an odd number'),
    ('my_lab.models:Tiny', 'size = 16: expected pixels from 32'),
    ('my_lab.models:Grey', 'expected three numbers each')])
def test_what_is_no_model_is_refused_in_plain_words(name, words):
    with pytest.raises(ValueError) as caught: make_model(name)
    assert words in str(caught.value)


def test_a_file_that_fails_says_so(lab):
    (lab / 'broken_lab.py').write_text('1 / 0')
    with pytest.raises(ValueError, match=r'could not be imported \(ZeroDivisionError: division by zero\)'): make_model('broken_lab:A')


def test_the_check_changes_nothing():
    torch.manual_seed(3)
    model = make_model('BaselineLSTM')
    after = torch.get_rng_state()
    torch.manual_seed(3)
    plain = type(model)()
    assert torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items()) and model.training
    model.base_model.bn1.eval()
    check_model(model)
    assert not model.base_model.bn1.training and model.base_model.layer1.training


def test_settings_name_it_before_anything_runs(sample, tmp_path):
    with pytest.raises(ValueError, match='did you mean'): EvaluateSettings(model='GazeLSTN')
    with pytest.raises(ValueError, match='did you mean'): settings(sample, tmp_path, model='GazeLSTN')
    with pytest.raises(ValueError, match='classify got'): train(settings(sample, tmp_path, model='my_lab.models:ThreeLogits'))
    assert not (tmp_path / 'checkpoints').exists()
    assert json.loads(EvaluateSettings(model=PATH).model_dump_json())['model'] == PATH
