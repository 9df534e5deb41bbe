"The Talking-to-me network against values of the official code and of torchaudio, and checkpoints of either task in the wrong hands."
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import MINI
from talking_official import challenge_faces_of, challenge_length, known_boxes, make_data, part_of_sound, video_faces
from torch import nn
from torchvision.models import resnet18

from lam_nb.encoders import EncoderHead
from lam_nb.inference import fast_copy, predict
from lam_nb.models import (
    BaselineLSTM, GazeLSTM, export_official, load_imagenet, load_weights, normalise, read_checkpoint, save_checkpoint)
from lam_nb.scoring import load_model
from lam_nb.talking_models import (
    SoundEncoder, TalkingLSTM, export_official_talking, from_looking, load_talking_model, log_mel, segment_logits)
from reference.made_up import sound, weights, windows

REFERENCE = json.loads((Path(__file__).resolve().parent / 'reference/talking/models.json').read_text())
PRIVATE = MINI.parent / 'talking'


def made_up_state(model):
    "Made-up weights; the constants of the spectrogram stay."
    state = model.state_dict()
    return weights(state) | {k: v for k, v in state.items() if '.torchfb.' in k}


@pytest.fixture(scope='module')
def model():
    made = TalkingLSTM()
    made.load_state_dict(made_up_state(made))
    return made.eval()


@pytest.fixture(scope='module')
def looking():
    "A Looking-at-me model with made-up weights."
    made = BaselineLSTM()
    made.load_state_dict(weights(made.state_dict()))
    return made.eval()


def batch(size=32, frames=9, samples=4266, n=2):
    faces = windows(n, size, frames)
    faces[0, 2:5] = 0
    return dict(faces=faces, sound=sound(n, samples))


def refusal(function, *args, **options):
    with pytest.raises((ValueError, FileNotFoundError)) as error: function(*args, **options)
    return str(error.value)


def saved(path, content):
    torch.save(content, path)
    return path


# ---- equal to the official network


def test_names_and_shapes_are_the_official_ones(model):
    own = {k: list(v.shape) for k, v in model.state_dict().items()}
    assert own == REFERENCE['keys'] and list(own) == list(REFERENCE['keys'])


@pytest.mark.parametrize('case', REFERENCE['cases'], ids=lambda c: f"{c['batch']}x{c['frames']}x{c['size']}")
def test_logits_are_the_official_ones(case, model):
    faces, heard = windows(case['batch'], case['size'], case['frames']), sound(case['batch'], case['samples'])
    with torch.inference_mode(): logits = model(normalise(faces), heard).double().numpy()
    assert np.abs(logits - case['logits']).max() < 1e-5
    assert np.abs(segment_logits(model, dict(faces=faces, sound=heard)) - case['logits']).max() < 1e-5


def test_log_mel_is_torchaudios():
    mel = log_mel(sound(1, 800))
    assert mel.shape == (1, 64, 6) and np.abs(mel[0].numpy() - np.array(REFERENCE['log_mel'])).max() < 2e-5


def test_first_weights_follow_the_official_rule():
    torch.manual_seed(0)
    for name, part in TalkingLSTM().named_modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.out_channels * part.kernel_size[0] * part.kernel_size[1]
            assert part.weight.std().item() == pytest.approx((2 / fan_out) ** .5, rel=.15), name
        if isinstance(part, nn.BatchNorm2d): assert (part.weight == 1).all() and (part.bias == 0).all(), name


# ---- what the logits depend on


def test_the_last_frame_is_the_one_that_is_read(model):
    given = batch()
    whole = segment_logits(model, given)
    short = segment_logits(model, dict(given, faces=given['faces'][:, :-1]))
    padded = segment_logits(model, dict(given, faces=torch.cat([given['faces'], given['faces'][:, -1:]], 1)))
    assert np.abs(whole - short).max() > 1e-4 and np.abs(whole - padded).max() > 1e-4
    with torch.inference_mode():
        features = model.features(normalise(given['faces']).flatten(0, 1)).view(2, 9, 256)
        hidden = torch.cat([model.lstm(features)[0][:, -1], model.audio_encoder(given['sound'])], 1)
        assert np.allclose(model.last_layer2(model.last_layer1(hidden)).numpy(), whole, atol=1e-5)


def test_faces_and_sound_both_count(model):
    given = batch()
    whole = segment_logits(model, given)
    assert np.abs(segment_logits(model, dict(given, sound=given['sound'].flip(0))) - whole).max() > 1e-2
    assert np.abs(segment_logits(model, dict(given, faces=given['faces'].flip(0))) - whole).max() > 1e-2


@pytest.mark.parametrize('black', ['none', 'some', 'all', 'all but the last'])
def test_black_faces_go_through_the_network_like_others(black, model):
    given = batch()
    if black == 'none': given['faces'] = windows(2, 32, 9)
    if black == 'all': given['faces'][:] = 0
    if black == 'all but the last': given['faces'][:, :-1] = 0
    with torch.inference_mode(): expected = model(normalise(given['faces']), given['sound']).numpy()
    assert np.allclose(segment_logits(model, given), expected, atol=1e-5)


def test_a_batch_is_its_segments(model):
    given = batch()
    one_by_one = [segment_logits(model, {name: value[i].numpy() for name, value in given.items()}) for i in (0, 1)]
    assert np.allclose(np.stack(one_by_one), segment_logits(model, given), atol=1e-5)


@pytest.mark.parametrize('parts', ['sound', 'faces'])
def test_a_half_takes_one_source(parts, model):
    half, given = TalkingLSTM(parts), batch()
    half.load_state_dict(made_up_state(half))
    logits = segment_logits(half.eval(), {parts: given[parts]})
    assert logits.shape == (2, 2) and np.array_equal(segment_logits(half, given), logits)
    assert segment_logits(half, {parts: given[parts][0]}).shape == (2,)
    assert {*half.state_dict()} < {*model.state_dict()}


def test_a_faster_copy_and_short_numbers_say_the_same(model):
    given = batch()
    whole = segment_logits(model, given)
    assert np.allclose(segment_logits(fast_copy(model, 'fp32'), given), whole, atol=1e-4)
    assert np.allclose(segment_logits(fast_copy(model, 'bf16'), given, 'bf16'), whole, atol=.1)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        assert np.allclose(model(normalise(given['faces']), given['sound']).float().numpy(), whole, atol=.1)


def test_scoring_leaves_a_training_model_as_it_was(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    logits = segment_logits(model, batch())
    assert model.training and model.audio_encoder.bn1.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert np.array_equal(segment_logits(model.eval(), batch()), logits)


@pytest.mark.parametrize('samples', [0, 1, 256, 257])
def test_hardly_any_sound_is_filled_up_by_silence(samples, model):
    heard = sound(2, 257)[:, :samples]
    assert np.isfinite(segment_logits(model, dict(batch(), sound=heard))).all()
    assert torch.equal(log_mel(heard), log_mel(F.pad(heard, (0, 257 - samples))))


def test_gradients_reach_all_weights():
    torch.manual_seed(0)
    model, given = TalkingLSTM(), batch()
    F.cross_entropy(model(normalise(given['faces']).contiguous(), given['sound']), torch.tensor([0, 1])).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


# ---- checkpoints

ORIGINS = {
    'bare': lambda s: s,
    'official': lambda s: {'epoch': 3, 'state_dict': s, 'mAP': np.float64(.5)},
    'official with DataParallel': lambda s: {'epoch': 3, 'state_dict': {f'module.{k}': v for k, v in s.items()}, 'mAP': .5},
    'lightning': lambda s: {'state_dict': {f'model.{k}': v for k, v in s.items()}},
    'no counters': lambda s: {'state_dict': {k: v for k, v in s.items() if not k.endswith('num_batches_tracked')}}}


@pytest.mark.parametrize('origin', ORIGINS)
def test_official_checkpoints_load(origin, model, tmp_path):
    loaded, size, epoch = load_talking_model(saved(tmp_path / 'a.pth', ORIGINS[origin](model.state_dict())))
    assert loaded.parts == 'both' and size == 224 and epoch == (3 if 'official' in origin else None) and not loaded.training
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('parts', ['both', 'sound', 'faces'])
def test_what_is_saved_comes_back(parts, tmp_path):
    made = TalkingLSTM(parts)
    path = save_checkpoint(tmp_path / 'a.pt', made, epoch=4, image_size=64)
    loaded, size, epoch = load_talking_model(path)
    assert (loaded.parts, size, epoch) == (parts, 0 if parts == 'sound' else 64, 4)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in made.state_dict().items())
    assert load_weights(TalkingLSTM(parts), path).origin == 'Talking-to-me'


def damaged(state):
    "words of the message -> state dict"
    nan = state['lstm.bias_hh_l0'].clone()
    nan[3] = float('nan')
    return {
        '1 missing (first: audio_encoder.attention.0.bias)': {k: v for k, v in state.items() if k != 'audio_encoder.attention.0.bias'},
        '1 unknown (first: head.weight)': state | {'head.weight': torch.ones(1)},
        'last_layer1.weight (128, 512) instead of (128, 1024)': state | {'last_layer1.weight': torch.ones(128, 512)},
        '1 with NaN or infinite values': state | {'lstm.bias_hh_l0': nan},
        'variances below 0': state | {'audio_encoder.bn1.running_var': -torch.ones(32)},
        'expected audio_encoder.fc.weight or video_encoder.fc2.weight in it': {'conv.weight': torch.ones(1)}}


@pytest.mark.parametrize('case', range(6))
def test_what_does_not_fit_is_refused(case, model, tmp_path):
    words, state = [*damaged(model.state_dict()).items()][case]
    assert words in refusal(load_talking_model, saved(tmp_path / 'a.pth', {'state_dict': state}))


def test_a_file_that_would_run_code_is_refused(model, tmp_path):
    class Payload:
        def __reduce__(self): return Path.touch, (tmp_path / 'ran',)
    path = saved(tmp_path / 'a.pth', {'state_dict': model.state_dict(), 'args': Payload()})
    assert 'can run any program' in refusal(load_talking_model, path) and not (tmp_path / 'ran').exists()
    assert 'No checkpoint at' in refusal(load_talking_model, tmp_path / 'nothing.pth')


@pytest.mark.parametrize('parts', ['both', 'sound', 'faces'])
@pytest.mark.parametrize('ours', [True, False], ids=['ours', 'official'])
def test_looking_at_me_takes_no_talking_checkpoint(ours, parts, looking, sample, tmp_path):
    made = TalkingLSTM(parts)
    path = save_checkpoint(tmp_path / 'a.pt', made) if ours else saved(tmp_path / 'a.pt', {'state_dict': made.state_dict()})
    before = {k: v.clone() for k, v in looking.state_dict().items()}
    for function in (load_model, lambda p: load_weights(looking, p), lambda p: load_weights(looking, p, 'shapes')):
        assert f'{path} is a checkpoint of Talking-to-me: load it by `load_talking_model`' in refusal(function, path)
    assert all(torch.equal(v, before[k]) for k, v in looking.state_dict().items())
    assert 'TalkingLSTM' in refusal(load_model, path, 'lam_nb.talking_models:TalkingLSTM')
    assert 'the official code does not know this model' in refusal(export_official, path, tmp_path / 'x.pth')
    assert not (tmp_path / 'x.pth').exists()
    clips = (sample / 'split/val.list').read_text().split()
    assert 'expected a Looking-at-me model' in refusal(predict, made, sample / 'faces', clips)


@pytest.mark.parametrize('kind', [BaselineLSTM, GazeLSTM])
@pytest.mark.parametrize('ours', [True, False], ids=['ours', 'official'])
def test_talking_takes_no_looking_checkpoint(ours, kind, tmp_path):
    path = save_checkpoint(tmp_path / 'a.pt', kind()) if ours else saved(tmp_path / 'a.pt', {'state_dict': kind().state_dict()})
    for function in (load_talking_model, lambda p: export_official_talking(p, tmp_path / 'x.pth')):
        message = refusal(function, path)
        assert f'{path} is a checkpoint of Looking-at-me' in message and '`from_looking`' in message
    assert 'missing (first: video_encoder.conv1.weight)' in refusal(load_weights, TalkingLSTM(), path)
    assert not (tmp_path / 'x.pth').exists()


# ---- a start from Looking-at-me, and back to the official code


@pytest.mark.parametrize('parts', ['both', 'faces'])
@pytest.mark.parametrize('origin', ['ours', 'official', 'gaze360'])
def test_a_looking_model_is_a_start(origin, parts, looking, tmp_path):
    state = looking.state_dict()
    if origin == 'ours': path = save_checkpoint(tmp_path / 'a.pt', looking)
    if origin == 'official': path = saved(tmp_path / 'a.pt', {'epoch': 1, 'state_dict': {f'module.{k}': v for k, v in state.items()}})
    if origin == 'gaze360':
        kept = {k: v for k, v in state.items() if not k.startswith('last_layer')}
        head = {'last_layer.weight': torch.zeros(3, 512), 'last_layer.bias': torch.zeros(3)}
        path = saved(tmp_path / 'a.pt', {'state_dict': kept | head})
    model = TalkingLSTM(parts)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report, after = from_looking(model, path), model.state_dict()
    assert report.origin == ('Gaze360' if origin == 'gaze360' else 'Looking-at-me') and len(report.loaded) == 140
    assert all(torch.equal(after[k], state[k.replace('video_encoder.', 'base_model.')]) for k in report.loaded)
    assert all(torch.equal(after[k], before[k]) for k in report.initialised)
    assert sorted(report.loaded + report.initialised) == sorted(after) and all(k.startswith('last_layer') for k in report.dropped)


def test_the_start_sees_a_face_as_the_looking_model_does(looking, tmp_path):
    model = TalkingLSTM().eval()
    from_looking(model, save_checkpoint(tmp_path / 'a.pt', looking))
    faces = normalise(windows(1, 32)[0])
    with torch.inference_mode(): assert torch.equal(model.features(faces), looking.features(faces))


def test_no_start_changes_nothing(looking, tmp_path):
    model = TalkingLSTM()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    broken = looking.state_dict() | {'base_model.fc1.bias': torch.full((1000,), float('inf'))}
    head = EncoderHead('baseline', 32, window=3)
    for words, path in {
            'NaN or infinite': saved(tmp_path / 'inf.pth', broken),
            'missing (first: base_model.conv1.weight)': save_checkpoint(tmp_path / 'head.pt', head),
            '104 missing': save_checkpoint(tmp_path / 'talking.pt', model),
            'No checkpoint': tmp_path / 'nothing.pth'}.items():
        assert words in refusal(from_looking, model, path)
    assert "parts = 'sound'" in refusal(from_looking, TalkingLSTM('sound'), save_checkpoint(tmp_path / 'a.pt', looking))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_imagenets_backbone_is_a_start_too(tmp_path):
    torch.manual_seed(0)
    net = resnet18(weights=None).state_dict()
    model = TalkingLSTM()
    report = load_imagenet(model, saved(tmp_path / 'resnet.pth', net))
    assert len(report.loaded) == 120 and torch.equal(model.video_encoder.layer1[0].conv1.weight, net['layer1.0.conv1.weight'])
    assert all(k.startswith('video_encoder.') for k in report.loaded)


def test_export_is_what_the_official_code_reads(model, tmp_path):
    source = save_checkpoint(tmp_path / 'a.pt', model.to(memory_format=torch.channels_last), epoch=7, mAP=.75, settings={'x': 1})
    official = torch.load(export_official_talking(source, tmp_path / 'out/b.pth'), weights_only=True)
    model.to(memory_format=torch.contiguous_format)
    assert list(official) == ['epoch', 'state_dict', 'mAP'] and official['epoch'] == 7 and official['mAP'] == .75
    keys = {k: list(v.shape) for k, v in official['state_dict'].items()}
    assert list(keys.items()) == list(REFERENCE['keys'].items())
    assert all(v.is_contiguous() and torch.equal(v, model.state_dict()[k]) for k, v in official['state_dict'].items())


def test_export_refuses_what_would_fail_there(model, tmp_path):
    for parts in ('sound', 'faces'):
        half = save_checkpoint(tmp_path / 'half.pt', TalkingLSTM(parts))
        assert f"parts = '{parts}': the official network has both" in refusal(export_official_talking, half, tmp_path / 'x.pth')
    short = {k: v for k, v in model.state_dict().items() if k != 'last_layer2.bias'}
    message = refusal(export_official_talking, saved(tmp_path / 'a.pt', {'state_dict': short}), tmp_path / 'x.pth')
    assert 'no complete Talking-to-me checkpoint: 1 missing (first: last_layer2.bias)' in message
    assert not (tmp_path / 'x.pth').exists() and read_checkpoint(half)['model_options'] == {'parts': 'faces'}


def test_the_sound_encoder_uses_the_constants_of_the_checkpoint():
    encoder, heard = SoundEncoder().eval(), sound(1, 4000)
    with torch.inference_mode():
        before = encoder(heard)
        encoder.torchfb[1]['mel_scale'].fb.copy_(encoder.torchfb[1]['mel_scale'].fb.flip(1))
        assert not torch.allclose(encoder(heard), before, atol=1e-3)


# ---- scores of whole splits, where the official code's results lie beside the repository


@pytest.fixture(scope='module')
def official(tmp_path_factory, model):
    "Data with official frames and wave files, and the model with the weights of the official results."
    if not MINI.exists() or not PRIVATE.exists(): pytest.skip('no official Talking-to-me results beside the repository')
    if not shutil.which('ffmpeg'): pytest.skip('no ffmpeg here to extract frames and sound as the official code does')
    spec = importlib.util.spec_from_file_location('golden_weights_talking', PRIVATE / 'golden_weights_talking.py')
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    made = TalkingLSTM()
    made.load_state_dict(golden.golden_state_dict(made.state_dict()))
    return make_data(PRIVATE / 'make_mini_talking.py', MINI, tmp_path_factory.mktemp('talking') / 'data'), made.eval()


def test_val_parts_from_the_official_frames_and_sound(official):
    (root, model), parts = official, pd.read_csv(PRIVATE / 'golden/val.parts.csv')
    boxes, ours = pd.read_csv(PRIVATE / 'golden/val.boxes.csv'), known_boxes(root, 'val')
    theirs = {(r.clip_uid, str(r.person), r.frame): (r.x1, r.y1, r.x2, r.y2) for r in boxes.itertuples()}
    assert theirs.items() <= ours.items() and len(ours) == len(theirs) + 12       # of a track that is not sorted, which only we sort
    worst = 0
    for r in parts.itertuples():
        faces = video_faces(root, theirs, r.clip_uid, r.person, r.start_frame, r.end_frame)
        heard = part_of_sound(root / f'wave/{r.clip_uid}.wav', r.start_frame, r.end_frame)
        worst = max(worst, np.abs(segment_logits(model, dict(faces=faces, sound=heard)) - [r.logit_0, r.logit_1]).max())
    assert len(parts) == 15 and worst < 1e-5


def test_challenge_parts(official):
    (root, model), parts = official, pd.read_csv(PRIVATE / 'golden/test.parts.csv', dtype={'segment_id': str})
    worst = 0
    for r in parts.itertuples():
        folder = root / 'final_test_data' / r.segment_id
        assert r.end_frame < challenge_length(folder)
        given = dict(faces=challenge_faces_of(folder, r.start_frame, r.end_frame),
                     sound=part_of_sound(folder / 'audio/aud.wav', r.start_frame, r.end_frame))
        assert len(given['sound']) == r.samples
        worst = max(worst, np.abs(segment_logits(model, given) - [r.logit_0, r.logit_1]).max())
    assert len(parts) == 4 and worst < 1e-5
