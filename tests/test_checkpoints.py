"""Checkpoints of every kind that people have: each loads, or the message names the cause; damage and harm are refused."""

import io, json, random, struct, subprocess, sys, tarfile, zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from lam_nb.checkpoints import read_checkpoint
from lam_nb.models import BaselineLSTM, FaceModel, GazeLSTM, export_official, load_weights, save_checkpoint
from lam_nb.scoring import load_model


class Toy(FaceModel):
    "A model whose file is small."
    size = 32

    def __init__(self):
        super().__init__()
        self.norm, self.embed, self.head = nn.BatchNorm1d(12), nn.Linear(12, 3), nn.Linear(3, 2)

    def features(self, faces): return self.embed(self.norm(nn.functional.adaptive_avg_pool2d(faces, 2).flatten(1)))  # (N, 3)
    def classify(self, features): return self.head(features.mean(1))                                                # (B, 2)


@pytest.fixture(scope='module')
def state():
    torch.manual_seed(0)
    return Toy().state_dict()


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refusal(path, function=read_checkpoint):
    with pytest.raises((ValueError, FileNotFoundError)) as error: function(path)
    assert str(path) in str(error.value)
    return str(error.value)


def same(a, b): return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


# ---- contents of others


def contents(state):
    "name -> (content of a file, what else read_checkpoint finds)"
    model = Toy()
    model.load_state_dict(state)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    mixed = {f'module._orig_mod.{k}' if i % 2 else f'_orig_mod.module.{k}': v for i, (k, v) in enumerate(state.items())}
    return {
        'averaged': ({'state_dict': averaged.state_dict()}, {}),
        'averaged, bare': (averaged.state_dict(), {}),
        'bare with an epoch': ({**state, 'epoch': 3}, {'epoch': 3}),
        'bare with an optimizer': ({**state, 'optimizer': {'lr': .1}}, {'optimizer': {'lr': .1}}),
        'an epoch in the state dict': ({'state_dict': {**state, 'step': 7}}, {}),
        'ddp and compile': ({'state_dict': mixed}, {}),
        'fsdp': ({f'_fsdp_wrapped_module.{k}': v for k, v in state.items()}, {}),
        'lightning': ({'state_dict': {f'model.{k}': v for k, v in state.items()}, 'pytorch-lightning_version': '2'}, None),
        'a prefix of two words': ({f'my.net.{k}': v for k, v in state.items()}, None),
        'ddp inside': ({k.replace('embed.', 'embed.module.'): v for k, v in state.items()}, None),
        'parameters': ({'state_dict': OrderedDict((k, nn.Parameter(v, v.is_floating_point())) for k, v in state.items()
                                                  if v.is_floating_point())}, None),
        'epoch as a tensor': ({'epoch': torch.tensor(3), 'state_dict': state}, {'epoch': 3}),
        'image_size as a text': ({'image_size': '224', 'state_dict': state}, {'image_size': 224}),
        **{name: ({name: state, 'epoch': 2.0}, {'epoch': 2})
           for name in ('model', 'model_state_dict', 'net', 'weights', 'ema', 'state_dict_ema', 'params', 'module')},
    }


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', [*contents(Toy().state_dict())])
def test_weights_are_found_wherever_they_lie(name, legacy, state, tmp_path):
    content, extra = contents(state)[name]
    path = saved(tmp_path / 'a.pth', content, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    if extra is not None: assert {k: v for k, v in found.items() if k != 'state_dict'} == extra and same(found['state_dict'], state)
    model = Toy()
    report = load_weights(model, path)
    floats = {k: v for k, v in state.items() if v.is_floating_point()}
    assert all(torch.equal(model.state_dict()[k], v) for k, v in floats.items()) and not report.dropped


def test_a_prefix_before_official_and_gaze_weights(tmp_path):
    torch.manual_seed(1)
    weights = {f'model.{k}': v for k, v in BaselineLSTM().state_dict().items()}
    path, model = saved(tmp_path / 'lit.ckpt', {'state_dict': weights}), GazeLSTM()
    official = torch.load(export_official(path, tmp_path / 'b.pth'), weights_only=True)
    assert list(official['state_dict']) == list(model.state_dict())
    assert torch.equal(load_model(path)[0].lstm.weight_hh_l0, weights['model.lstm.weight_hh_l0'])
    gaze = {k: v for k, v in weights.items() if 'last_layer' not in k} | {'model.last_layer.weight': torch.zeros(3, 512)}
    report = load_weights(model, saved(tmp_path / 'gaze.ckpt', gaze))
    assert report.origin == 'Gaze360' and 'last_layer1.weight' in report.initialised


@pytest.mark.parametrize('content, words', [
    (lambda s: {'model': s, 'ema': s}, 'several models: model, ema'),
    (lambda s: {'state_dict': s, 'state_dict_ema': s}, 'several models'),
    (lambda s: {**{f'student.{k}': v for k, v in s.items()}, **{f'teacher.{k}': v for k, v in s.items()}}, 'under student., teacher.'),
    (lambda s: {'optimizer': {'state': {}}, 'epoch': 3}, 'no weights'),
    (lambda s: {f'model.{k}': v for k, v in s.items()} | {'loss.weight': torch.ones(2)}, '1 unknown (first: loss.weight)'),
])
def test_a_choice_is_left_to_the_user(content, words, state, tmp_path):
    assert words in refusal(saved(tmp_path / 'a.pth', content(state)), lambda path: load_weights(Toy(), path))


# ---- files of other kinds


def around(path, kind):
    "A file of another kind, with the checkpoint `path` in it where there can be one."
    out = path.with_name(f'other.{kind}')
    if kind == 'zip':
        with zipfile.ZipFile(out, 'w') as z: z.write(path, 'weights/best.pth')
    elif kind in ('tar', 'tar.gz'):
        with tarfile.open(out, f'w:{kind[4:]}') as t: t.add(path, 'best.pth')
    elif kind == 'torchscript': torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), out)
    elif kind == 'packed':
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist(): new.writestr(name, old.read(name))
    elif kind == 'npz':
        with zipfile.ZipFile(out, 'w') as z: z.writestr('a.npy', b'\x93NUMPY')
    else:
        header = json.dumps({'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}).encode()
        out.write_bytes({'safetensors': struct.pack('<Q', len(header)) + header + bytes(8), 'h5': b'\x89HDF\r\n\x1a\n' + bytes(500),
                         'onnx': b'\x08\x07\x12\x07pytorch' + bytes(100),
                         'lfs': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
                         'html': b'\n<!DOCTYPE html><html>sign in</html>', 'xml': b'<?xml version="1.0"?><Error><Code>AccessDenied',
                         'joblib': b'\x80\x04\x95' + bytes(40), 'utf8 page': b'\xef\xbb\xbf<html>'}[kind])
    return out


@pytest.mark.filterwarnings('ignore')                                      # PyTorch's, of TorchScript
@pytest.mark.parametrize('kind, words', [
    ('zip', "'weights/best.pth'"), ('tar', 'tar -xf'), ('tar.gz', 'tar -xzf'), ('torchscript', 'torch.jit.load'),
    ('npz', 'another library'), ('safetensors', 'load_file'), ('h5', 'HDF5'), ('onnx', 'ONNX'),
    ('lfs', 'git lfs pull'), ('html', 'web page'), ('xml', 'web page'),
    ('joblib', 'did not write'), ('utf8 page', 'web page'), ('packed', 'compressed')])
def test_a_file_of_another_kind_is_named(kind, words, state, tmp_path):
    message = refusal(around(saved(tmp_path / 'a.pth', state), kind))
    assert words in message and 'cut off' not in message


@pytest.mark.parametrize('name, words', [
    ('.metadata', 'dcp_to_torch'), ('zero_to_fp32.py', 'DeepSpeed'), ('data.pkl', 'zip -0'), ('saved_model.pb', 'TensorFlow'),
    ('checkpoints/best.pt', 'checkpoints/best.pt'), ('else', 'give the path of a file')])
def test_a_folder_is_named(name, words, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert words in refusal(tmp_path)


# ---- memory and kinds of numbers


class Call:
    def __init__(self, function, *args): self.call = function, args
    def __reduce__(self): return self.call


def large():
    "Contents of a few KB that ask for gigabytes, or that are no plain tensors; name -> a function that makes it."
    beyond = lambda: Call(torch._utils._rebuild_tensor_v2, torch.zeros(1).storage(), 0, (2, 2), (2, 1), False, OrderedDict())
    sparse = lambda: torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (80_000, 80_000), check_invariants=True)
    return {
        'one number, expanded': lambda: {'w': torch.zeros(1).expand(80_000, 80_000)},
        'expanded in the optimizer': lambda: {'state_dict': {'w': torch.zeros(2)}, 'optimizer': [torch.zeros(1).expand(6_000_000_000)]},
        'windows that overlap': lambda: {'w': torch.arange(200.).as_strided((100, 100), (1, 1))},
        'sparse': lambda: {'w': sparse()},
        'meta': lambda: {'w': torch.empty(80_000, 80_000, device='meta')},
        'quantised': lambda: {'w': torch.quantize_per_tensor(torch.ones(2), .1, 0, torch.qint8)},
        'a bytearray of a length': lambda: {'w': torch.ones(2), 'x': Call(bytearray, 24_000_000_000)},
        'a tensor of a size': lambda: {'w': Call(torch.Tensor, 6_000_000_000)},
        'a typed tensor of a size': lambda: {'w': Call(torch.FloatTensor, 6_000_000_000)},
        'beyond its end': lambda: {'w': beyond()},
    }


@pytest.mark.filterwarnings('ignore')                                      # PyTorch's, of old kinds of tensors
@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', [*large()])
def test_what_asks_for_memory_is_refused_before(name, legacy, tmp_path, monkeypatch):
    path = saved(tmp_path / 'a.pth', large()[name](), _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('it was loaded'))
    assert path.stat().st_size < 40_000 and refusal(path)


def claimed(path, old, new, legacy):
    "A checkpoint whose pickle claims another number of values for its storage."
    torch.save({'w': torch.zeros(300, 7)}, path, _use_new_zipfile_serialization=not legacy)
    number = lambda n: b'M' + struct.pack('<H', n) if n < 2**16 else b'J' + struct.pack('<i', n)
    if legacy: return path.write_bytes(path.read_bytes().replace(number(old), number(new), 1))
    with zipfile.ZipFile(path) as z: parts = {name: z.read(name) for name in z.namelist()}
    with zipfile.ZipFile(path, 'w') as z:
        for name, data in parts.items(): z.writestr(name, data.replace(number(old), number(new), 1) if name.endswith('data.pkl') else data)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_a_storage_that_is_claimed_larger_is_refused(legacy, tmp_path, monkeypatch):
    claimed(tmp_path / 'a.pth', 2100, 2100, legacy)
    assert read_checkpoint(tmp_path / 'a.pth')['state_dict']['w'].shape == (300, 7)
    claimed(tmp_path / 'a.pth', 2100, 2_000_000_000, legacy)
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('it was loaded'))
    assert 'claim' in refusal(tmp_path / 'a.pth')


def test_an_archive_that_would_grow_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('a/data.pkl', b'\x80\x02}.')
        z.writestr('a/data/0', bytes(50_000_000))
    assert (tmp_path / 'a.pth').stat().st_size < 60_000 and 'compressed' in refusal(tmp_path / 'a.pth')


def test_the_memory_that_a_hostile_file_takes(tmp_path):
    path = saved(tmp_path / 'a.pth', {'w': torch.zeros(1).expand(80_000, 80_000)})
    limit = 'import resource as r; r.setrlimit(r.RLIMIT_AS, (8 << 30, 8 << 30))'
    code = (f'import sys, torch; from lam_nb.checkpoints import read_checkpoint; from lam_nb.processes import peak_mb; {limit}\n'
            f'try: read_checkpoint(sys.argv[1])\nexcept ValueError as e: print(e)\nprint(peak_mb())')
    done = subprocess.run([sys.executable, '-c', code, str(path)], capture_output=True, text=True, timeout=120)
    assert 'claims a tensor of shape (80000, 80000)' in done.stdout, done.stderr
    assert float(done.stdout.split()[-1]) < 4000                                                                # MB


@pytest.mark.parametrize('change, words', [
    (lambda w: w.to(torch.int64), 'whole numbers instead of floats'), (lambda w: w.to(torch.bool), 'whole numbers instead of floats'),
    (lambda w: w.to(torch.complex64), 'complex64'), (lambda w: w.to(torch.float8_e4m3fn), 'float8_e4m3fn'),
    (lambda w: w.double() * 1e300, 'NaN or infinite'), (lambda w: w * float('nan'), 'NaN or infinite'),
    (lambda w: -w - 1, 'variances below 0')])
@pytest.mark.parametrize('match', ['strict', 'shapes'])
def test_numbers_that_are_no_weights_are_refused(change, words, match, state, tmp_path):
    path = saved(tmp_path / 'a.pth', state | {'norm.running_var': change(state['norm.running_var'])})
    assert words in refusal(path, lambda path: load_weights(Toy(), path, match=match))


@pytest.mark.parametrize('convert', [torch.Tensor.half, torch.Tensor.bfloat16, torch.Tensor.double])
def test_other_precisions_load(convert, state, tmp_path):
    path, model = saved(tmp_path / 'a.pth', {k: convert(v) for k, v in state.items()}), Toy()      # the counter too
    load_weights(model, path)
    assert torch.allclose(model.embed.weight, state['embed.weight'], atol=1e-2)


ODD = ['best', '', -1, 1e12, float('nan'), float('inf'), 1.5, 10**400, [3], {'a': 1}, (1, 2), True, torch.ones(2), b'3']


@pytest.mark.parametrize('value', ODD, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize('name', ['epoch', 'image_size', 'model_name'])
def test_odd_extras_give_plain_errors(name, value, state, tmp_path):
    if name == 'model_name' and value == 'best': pytest.skip('a name like any other')
    path = saved(tmp_path / 'a.pth', {'state_dict': state, name: value})
    for function in (read_checkpoint, lambda path: load_model(path, MINE), lambda path: export_official(path, tmp_path / 'b.pth')):
        assert name in refusal(path, function)


@pytest.mark.parametrize('value', ODD, ids=lambda v: type(v).__name__)
def test_extras_that_scoring_does_not_use_do_not_disturb(value, state, tmp_path):
    names = 'mAP', 'settings', 'history', 'versions', 'optimizer'
    path = saved(tmp_path / 'a.pth', {'state_dict': state, **dict.fromkeys(names, value)})
    assert load_model(path, MINE)[1:] == (32, None)


MINE = f'{__name__}:Toy'


@pytest.mark.parametrize('value', ['best', float('inf'), [3], 10**400], ids=lambda v: type(v).__name__)
def test_an_odd_score_is_exported_as_0(value, tmp_path):
    path = saved(tmp_path / 'a.pth', {'state_dict': BaselineLSTM().state_dict(), 'mAP': value})
    assert torch.load(export_official(path, tmp_path / 'b.pth'), weights_only=True)['mAP'] == 0


# ---- damage


@pytest.fixture(scope='module')
def ours(tmp_path_factory, state):
    model = Toy()
    model.load_state_dict(state)
    return save_checkpoint(tmp_path_factory.mktemp('ours') / 'a.pt', model, epoch=3, mAP=.5, settings={'lr': 1e-3})


@pytest.mark.parametrize('seed', range(4))
def test_a_flipped_bit_is_found_or_does_no_harm(seed, ours, tmp_path):
    whole, whole_content, rng = ours.read_bytes(), read_checkpoint(ours), random.Random(seed)
    found = 0
    for _ in range(60):
        data, bit = bytearray(whole), rng.randrange(8 * len(whole))
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / 'b.pt').write_bytes(data)
        try: content = read_checkpoint(tmp_path / 'b.pt')
        except ValueError as e: found += str(tmp_path / 'b.pt') in str(e)
        else:
            assert same(content.pop('state_dict'), whole_content['state_dict']), bit
            assert content == {k: v for k, v in whole_content.items() if k != 'state_dict'}, bit
    assert found > 20


def test_flipped_bits_of_the_directory_are_found_or_do_no_harm(ours, state, tmp_path):
    whole = ours.read_bytes()
    for bit in range(8 * whole.index(b'PK\1\2'), 8 * len(whole), 11):     # PyTorch leaves memory unset where the directory is wrong
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / 'b.pt').write_bytes(data)
        try: content = read_checkpoint(tmp_path / 'b.pt')
        except ValueError: continue
        assert same(content['state_dict'], state), bit


def test_each_flipped_bit_of_a_weight_is_found(ours, state, tmp_path):
    whole, weight = ours.read_bytes(), state['embed.weight'].numpy().tobytes()
    start = whole.index(weight)
    for bit in range(0, 8 * len(weight), 7):
        data = bytearray(whole)
        data[start + bit // 8] ^= 1 << bit % 8
        (tmp_path / 'b.pt').write_bytes(data)
        assert 'checksum' in refusal(tmp_path / 'b.pt')


@pytest.mark.parametrize('hole', [b'\0', b'\xff'])
def test_a_torn_file_is_refused(hole, ours, tmp_path):
    whole = ours.read_bytes()
    for start in range(0, len(whole) - 200, len(whole) // 12):
        (tmp_path / 'b.pt').write_bytes(whole[:start] + hole * 200 + whole[start + 200:])
        try: content = read_checkpoint(tmp_path / 'b.pt')
        except ValueError as e: assert str(tmp_path / 'b.pt') in str(e)
        else: assert same(content['state_dict'], read_checkpoint(ours)['state_dict'])


def test_bytes_in_memory_are_no_path():
    with pytest.raises(TypeError): read_checkpoint(io.BytesIO())
