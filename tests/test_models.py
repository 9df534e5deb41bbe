"""The models against logits of the official code, and checkpoints of every origin, sound, damaged and hostile."""

import io, json, pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.transforms import Compose, Normalize, ToTensor

import lam_nb.models as models
from lam_nb.models import (
    MODELS,
    BaselineLSTM,
    GazeLSTM,
    export_official,
    load_imagenet,
    load_weights,
    normalise,
    read_checkpoint,
    save_checkpoint,
)
from reference.made_up import weights, windows

HERE = Path(__file__).resolve().parent
REFERENCE = json.loads((HERE / 'reference' / 'model_logits.json').read_text())


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return BaselineLSTM().eval()


@pytest.fixture(scope='module')
def state(model):
    return weights(model.state_dict())


@pytest.fixture(scope='module')
def built():
    torch.manual_seed(1)
    made = GazeLSTM().eval()
    return made, {k: v.clone() for k, v in made.state_dict().items()}


@pytest.fixture()
def gaze(built):
    "A GazeLSTM with its first weights."
    made, first = built
    made.load_state_dict(first)
    made.zero_grad()
    return made.to(memory_format=torch.contiguous_format)


def same(a, b, keys=None):
    return all(torch.equal(a[k], b[k]) for k in keys or a)


# ---- equal to the official models


@pytest.mark.parametrize('name', ['BaselineLSTM', 'GazeLSTM'])
def test_keys_and_shapes_are_the_official_ones(name):
    own = {k: list(v.shape) for k, v in MODELS[name]().state_dict().items()}
    assert own == REFERENCE['keys'] and list(own) == list(REFERENCE['keys'])


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('case', REFERENCE['cases'], ids=lambda c: f"{c['model']}-{c['size']}")
def test_logits_are_the_official_ones(case, layout, state):
    made = MODELS[case['model']]().eval()
    made.load_state_dict(state)
    x = normalise(windows(case['batch'], case['size']))
    if layout == 'contiguous':
        x = x.contiguous()
    else:
        made = made.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        logits = made(x)
    assert torch.allclose(logits.double(), torch.tensor(case['logits'], dtype=torch.float64), rtol=0, atol=1e-5)


def test_first_weights_follow_the_official_rule():
    torch.manual_seed(0)
    modules = dict(BaselineLSTM().named_modules())
    for name, m in modules.items():
        if isinstance(m, nn.Conv2d):
            fan_out = m.out_channels * m.kernel_size[0] * m.kernel_size[1]
            assert m.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05) and m.bias is None, name
        if isinstance(m, nn.BatchNorm2d):
            assert (m.weight == 1).all() and (m.bias == 0).all(), name
        if isinstance(m, nn.Linear):
            assert m.weight.abs().max().item() == pytest.approx(m.in_features**-0.5, rel=0.05), name


# ---- pixels


@pytest.mark.parametrize('shape', [(5, 24, 20, 3), (24, 24, 3), (2, 7, 16, 16, 3), (0, 8, 8, 3)])
def test_normalise_is_torchvisions_to_the_bit(shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    flat = images.reshape(-1, *shape[-3:])
    pixels = Compose([ToTensor(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    expected = torch.stack([pixels(f.numpy()) for f in flat]) if len(flat) else torch.empty(0, 3, *shape[-3:-1])
    out = normalise(images)
    assert out.shape == (*shape[:-3], 3, *shape[-3:-1]) and torch.equal(out.reshape(expected.shape), expected)


def test_every_byte_is_normalised_exactly():
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert torch.equal(normalise(images)[0], (torch.arange(256.0).view(1, 16, 16) / 255 - mean) / std)
    assert (images == torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)).all()  # the bytes are left alone


@pytest.mark.parametrize('bad', [torch.zeros(2, 8, 8, 3), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(8, 3, dtype=torch.uint8)])
def test_normalise_refuses_other_things(bad):
    with pytest.raises(ValueError, match='expected uint8 of shape'):
        normalise(bad)


# ---- two halves


def test_features_and_classify_make_forward(model):
    x = normalise(windows(3, 32))
    with torch.inference_mode():
        features = model.features(x.flatten(0, 1))
        assert features.shape == (21, 256)
        assert torch.equal(model(x), model.classify(features.view(3, 7, 256)))
        one_by_one = torch.cat([model.features(f[None]) for f in x.flatten(0, 1)])
    assert torch.allclose(features, one_by_one, rtol=0, atol=1e-5)  # a face's features do not depend on its neighbours


def test_the_middle_frame_is_the_one_that_counts(model):
    features = torch.randn(1, 7, 256)
    with torch.inference_mode():
        h = model.lstm(features)[0]
        assert torch.allclose(model.classify(features), model.last_layer2(model.last_layer1(h[:, 3])))
        assert not torch.allclose(model.classify(features), model.last_layer2(model.last_layer1(h[:, 2])))


@pytest.mark.parametrize('shape', [(2, 5, 3, 32, 32), (2, 7, 32, 32, 3), (7, 3, 32, 32)])
def test_windows_of_another_shape_are_refused(model, shape):
    with pytest.raises(ValueError, match=r'expected \(B, 7, 3, H, W\)'):
        model(torch.zeros(shape))
    with pytest.raises(ValueError, match=r'expected \(B, 7, 256\)'):
        model.classify(torch.zeros(2, 7, 255))


# ---- checkpoints of every origin


def wrapped(state, prefix='module.'):
    return {prefix + k: v for k, v in state.items()}


ORIGINS = {
    'bare': lambda s: s,
    'bare module': wrapped,
    'official': lambda s: {'epoch': 3, 'state_dict': s, 'mAP': 0.5},
    'official DDP': lambda s: {'epoch': 3, 'state_dict': wrapped(s), 'mAP': np.float64(0.5)},
    'compiled': lambda s: {'state_dict': wrapped(s, '_orig_mod.')},
    'DDP of compiled': lambda s: {'state_dict': wrapped(s, 'module._orig_mod.')},
    'compiled backbone': lambda s: {'state_dict': {k.replace('base_model.', 'base_model._orig_mod.'): v for k, v in s.items()}},
    'half precision': lambda s: {'state_dict': {k: v.half() if v.is_floating_point() else v for k, v in s.items()}},
    'no counters': lambda s: {'state_dict': {k: v for k, v in s.items() if not k.endswith('num_batches_tracked')}},
}


@pytest.mark.parametrize('origin', ORIGINS)
def test_our_own_and_official_checkpoints_load(origin, state, gaze, tmp_path):
    torch.save(ORIGINS[origin](state), tmp_path / 'a.pth')
    report = load_weights(gaze, tmp_path / 'a.pth')
    close = 'half' in origin
    assert all(torch.allclose(v, state[k], atol=0.02) if close else torch.equal(v, state[k]) for k, v in gaze.state_dict().items())
    assert report.origin == 'Looking-at-me' and not report.dropped and all(k.endswith('num_batches_tracked') for k in report.initialised)
    assert 'Looking-at-me weights' in repr(report) and str(tmp_path / 'a.pth') in str(report)


@pytest.mark.parametrize('legacy', [False, True])
def test_gaze360_is_recognised_by_its_keys_not_by_its_name(state, gaze, tmp_path, legacy):
    before = {k: v.clone() for k, v in gaze.state_dict().items()}
    content = {k: v for k, v in state.items() if not k.startswith('last_layer')} | {
        'last_layer.weight': torch.ones(3, 512),
        'last_layer.bias': torch.ones(3),
    }
    torch.save(
        {'epoch': 9, 'arch': 'x', 'best_prec1': np.float32(10.5), 'state_dict': wrapped(content)},
        tmp_path / 'model.bin',
        _use_new_zipfile_serialization=not legacy,
    )
    report = load_weights(gaze, tmp_path / 'model.bin')
    after, head = gaze.state_dict(), ['last_layer1.weight', 'last_layer1.bias', 'last_layer2.weight', 'last_layer2.bias']
    assert report.origin == 'Gaze360' and report.dropped == ['last_layer.weight', 'last_layer.bias'] and report.initialised == head
    assert same(after, state, report.loaded) and same(after, before, head) and len(report.loaded) == 140
    torch.save({'state_dict': state}, tmp_path / 'gaze360_ours.pth')  # the name means nothing here
    assert load_weights(gaze, tmp_path / 'gaze360_ours.pth').origin == 'Looking-at-me'


def test_imagenet_fills_the_backbone_only(gaze, tmp_path):
    torch.manual_seed(2)
    net = resnet18(weights=None)
    before = {k: v.clone() for k, v in gaze.state_dict().items()}
    torch.save(net.state_dict(), tmp_path / 'resnet.pth')
    for load in (load_imagenet, load_weights):
        report = load(gaze, tmp_path / 'resnet.pth')
        after = gaze.state_dict()
        assert all(torch.equal(v, after[f'base_model.{k}']) for k, v in net.state_dict().items() if not k.startswith('fc.'))
        assert same(after, before, report.initialised) and len(report.loaded) == 120 and report.dropped == ['fc.weight', 'fc.bias']


def test_imagenet_without_a_network_says_what_to_do(gaze, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))

    def unreachable(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', unreachable)
    with pytest.raises(RuntimeError, match='no route to host.*give its path: https://'):
        load_imagenet(gaze)
    cached = tmp_path / 'checkpoints' / models._IMAGENET.rpartition('/')[2]
    cached.write_bytes(b'half a file')
    with pytest.raises(ValueError, match='is damaged.*Delete it'):
        load_imagenet(gaze)


def test_imagenet_refuses_other_weights(gaze, state, tmp_path):
    torch.save(state, tmp_path / 'lam.pth')
    with pytest.raises(ValueError, match='holds Looking-at-me weights'):
        load_imagenet(gaze, tmp_path / 'lam.pth')


@pytest.mark.parametrize('value', [np.float64(0.25), np.float32(0.25), np.int64(3), np.bool_(True), np.uint8(7)])
def test_numpys_numbers_are_read(value, tmp_path):
    torch.save({'mAP': value, 'state_dict': {'a': torch.ones(1)}}, tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth')['mAP'] == value.item()
    data = (tmp_path / 'a.pth').read_bytes()
    assert b'numpy' in data  # it was stored as numpy's


def test_numpys_old_module_name_is_read(tmp_path):
    torch.save({'mAP': np.float64(0.25), 'state_dict': {'a': torch.ones(1)}}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    old = (tmp_path / 'a.pth').read_bytes().replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    (tmp_path / 'b.pth').write_bytes(old)
    assert b'numpy.core' in old and read_checkpoint(tmp_path / 'b.pth')['mAP'] == 0.25


# ---- refusals


def refusal(path, target=None):
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        load_weights(target, path) if target is not None else read_checkpoint(path)
    assert str(path) in str(e.value)
    return str(e.value)


class Payload:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('where', ['alone', 'under a key', 'beside weights'])
def test_a_pickle_that_would_run_code_is_refused(where, legacy, tmp_path):
    mark = tmp_path / 'ran'
    payload = Payload(Path.touch, mark)
    content = {
        'alone': payload,
        'under a key': {'state_dict': payload},
        'beside weights': {'state_dict': {'a': torch.ones(1)}, 'epoch': payload},
    }[where]
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not legacy)
    assert 'can run any program' in refusal(tmp_path / 'a.pth') and not mark.exists()


@pytest.mark.parametrize('function, args', [(eval, ('1',)), (print, ('x',)), (np.frombuffer, (b'12345678',)), (np.array, ([1.0, 2.0],))])
def test_other_callables_are_refused(function, args, tmp_path):
    torch.save({'state_dict': {'a': torch.ones(1)}, 'x': Payload(function, *args)}, tmp_path / 'a.pth')
    assert 'can run any program' in refusal(tmp_path / 'a.pth')


def test_a_plain_pickle_that_would_run_code_is_refused(tmp_path):
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps({'state_dict': Payload(Path.touch, tmp_path / 'ran')}, protocol=2))
    assert refusal(tmp_path / 'a.pkl') and not (tmp_path / 'ran').exists()


def test_whole_models_are_refused(model, tmp_path):
    torch.save(model, tmp_path / 'a.pth')
    assert 'lam_nb.models.BaselineLSTM' in refusal(tmp_path / 'a.pth')


@pytest.mark.parametrize('legacy', [False, True])
def test_truncated_files_are_refused_wherever_they_end(legacy, tmp_path):
    whole = io.BytesIO()
    torch.save({'epoch': 1, 'state_dict': {f'a{i}': torch.randn(50) for i in range(5)}}, whole, _use_new_zipfile_serialization=not legacy)
    whole = whole.getvalue()
    for n in sorted({0, 1, 2, 3, 10, *range(20, len(whole), len(whole) // 60), len(whole) - 1}):
        (tmp_path / 'a.pth').write_bytes(whole[:n])
        assert 'is no checkpoint or is damaged' in refusal(tmp_path / 'a.pth') or 'holds' in refusal(tmp_path / 'a.pth'), n


@pytest.mark.parametrize('content', [b'<html>please log in</html>', b'\0' * 1000, b'PK\3\4 not a zip', b'{"state_dict": 1}'])
def test_files_that_are_no_checkpoint_are_refused(content, tmp_path):
    (tmp_path / 'a.pth').write_bytes(content)
    assert (
        'no checkpoint' in (message := refusal(tmp_path / 'a.pth')) and 'likely succeed' not in message
    )  # PyTorch's advice is to switch the protection off


def test_paths_that_are_no_file_are_refused(tmp_path, gaze):
    assert 'No checkpoint at' in refusal(tmp_path / 'nothing.pth', gaze)
    assert 'it is a folder' in refusal(tmp_path, gaze)


@pytest.mark.parametrize(
    'content', [{}, {'state_dict': {}}, {'epoch': 1}, {'state_dict': {'a': 1}}, {'state_dict': [1]}, {'state_dict': {1: torch.ones(1)}}]
)
def test_files_without_weights_are_refused(content, tmp_path):
    torch.save(content, tmp_path / 'a.pth')
    assert 'holds no weights' in refusal(tmp_path / 'a.pth')
    torch.save([1, 2], tmp_path / 'a.pth')
    assert 'holds list' in refusal(tmp_path / 'a.pth')


def misfits(state):
    nan = state['lstm.bias_hh_l0'].clone()
    nan[3] = float('nan')
    return {
        'missing (first: last_layer2.bias)': {k: v for k, v in state.items() if k != 'last_layer2.bias'},
        '1 unknown (first: head.weight)': state | {'head.weight': torch.ones(1)},
        'last_layer1.weight (64, 512) instead of (128, 512)': state | {'last_layer1.weight': torch.ones(64, 512)},
        '1 with NaN or infinite values': state | {'lstm.bias_hh_l0': nan},
        'of another shape (first: base_model.layer1.0.conv1.weight': resnet50(weights=None).state_dict(),
        '143 unknown': {'x.' + k: v for k, v in state.items() if k != 'lstm.bias_hh_l0'},
    }


@pytest.mark.parametrize('case', range(6))
def test_what_does_not_fit_is_refused_and_changes_nothing(case, state, gaze, tmp_path):
    words, content = list(misfits(state).items())[case]
    before = {k: v.clone() for k, v in gaze.state_dict().items()}
    torch.save({'state_dict': content}, tmp_path / 'a.pth')
    message = refusal(tmp_path / 'a.pth', gaze)
    assert words in message and 'does not fit GazeLSTM' in message and same(before, gaze.state_dict())


def test_an_incomplete_gaze360_file_is_refused(state, gaze, tmp_path):
    torch.save({'last_layer.weight': torch.ones(3, 512), 'lstm.bias_hh_l0': state['lstm.bias_hh_l0']}, tmp_path / 'a.pth')
    assert 'missing (first: base_model.conv1.weight)' in refusal(tmp_path / 'a.pth', gaze)


# ---- writing


class Wrapper(nn.Module):
    "As DDP and torch.compile wrap a model."

    def __init__(self, inner, name):
        super().__init__()
        self.add_module(name, inner)


def test_what_is_saved_comes_back(gaze, tmp_path):
    optimizer = torch.optim.Adam(gaze.parameters())
    sum(p.sum() for p in gaze.parameters()).backward()
    optimizer.step()
    for number, wrapped_model in enumerate(
        [gaze, Wrapper(gaze, 'module'), Wrapper(gaze, '_orig_mod'), Wrapper(Wrapper(gaze, '_orig_mod'), 'module')]
    ):
        path = save_checkpoint(
            tmp_path / f'deep/er/{number}.pt',
            wrapped_model,
            epoch=number,
            mAP=np.float64(0.5),
            optimizer=optimizer.state_dict(),
            history=[{'lr': np.float32(0.1), 'note': None}],
            settings={'out_dir': tmp_path, 'sizes': (1, 2)},
        )
        saved = read_checkpoint(path)
        assert saved['model_name'] == 'GazeLSTM' and saved['epoch'] == number and type(saved['mAP']) is float
        assert saved['settings'] == {'out_dir': str(tmp_path), 'sizes': (1, 2)} and type(saved['history'][0]['lr']) is float
        assert same(gaze.state_dict(), saved['state_dict'])
        optimizer.load_state_dict(saved['optimizer'])
        path.unlink()


def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / 'a.pt', model, epoch=1)
    with pytest.raises(TypeError, match=r"settings\['x'\]\[1\] is object"):
        save_checkpoint(path, model, epoch=2, settings={'x': [1, object()]})

    def full(*args, **kwargs):
        Path(args[1]).write_bytes(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='no space'):
        save_checkpoint(path, model, epoch=3)
    assert read_checkpoint(path)['epoch'] == 1 and [p.name for p in tmp_path.iterdir()] == ['a.pt']


def test_channels_last_models_are_saved_and_loaded_alike(state, gaze, tmp_path):
    gaze.load_state_dict(state)
    path = save_checkpoint(tmp_path / 'a.pt', gaze.to(memory_format=torch.channels_last))
    other = BaselineLSTM()
    load_weights(other, path)
    assert same(other.state_dict(), state)


def test_export_is_what_the_official_code_reads(state, gaze, tmp_path):
    gaze.load_state_dict(state)
    source = save_checkpoint(tmp_path / 'a.pt', gaze.to(memory_format=torch.channels_last), epoch=7, mAP=0.75, settings={'x': 1})
    official = torch.load(export_official(source, tmp_path / 'out/b.pth'), weights_only=True)
    assert list(official) == ['epoch', 'state_dict', 'mAP'] and official['epoch'] == 7 and official['mAP'] == 0.75
    keys = {k: list(v.shape) for k, v in official['state_dict'].items()}
    assert keys == REFERENCE['keys'] and list(keys) == list(REFERENCE['keys']) and not any('module' in k for k in keys)
    assert same(official['state_dict'], state) and all(
        v.is_contiguous() and v.dtype in (torch.float32, torch.int64) for v in official['state_dict'].values()
    )


def test_export_refuses_what_would_fail_there(state, tmp_path):
    torch.save({'state_dict': {k: v for k, v in state.items() if k != 'last_layer2.bias'}}, tmp_path / 'a.pt')
    with pytest.raises(ValueError, match='no complete Looking-at-me checkpoint'):
        export_official(tmp_path / 'a.pt', tmp_path / 'b.pth')
    with pytest.raises(ValueError, match='Choose another'):
        export_official(tmp_path / 'a.pt', tmp_path / 'gaze360' / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()
