"Each option of the training does what it says, and the official recipe has none of them on."
import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import ROOT
from test_training import finished, same, settings
from torch import nn

from lam_nb import batches, launching, training
from lam_nb.encoders import EncoderHead
from lam_nb.models import normalise, read_checkpoint
from lam_nb.runs import check_parameters
from lam_nb.batches import WindowData, augment, class_weights, epoch_batches, epoch_order, step_weights, window_loss
from lam_nb.training import TrainSettings, new_run, train_step
from lam_nb.launching import train
from lam_nb.processes import Stopped

WEIGHTS, CPU = torch.tensor([.136, .864]), torch.device('cpu')


@pytest.fixture
def batch():
    "Eight windows of noise with their labels."
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 7, 32, 32, 3), dtype=torch.uint8, generator=rng), torch.tensor([0, 1, 0, 1, 0, 0, 1, 0])


def begin(**options):
    return new_run(TrainSettings(out_dir='x', **{'precision': 'fp32', 'flip': False, **options}), CPU)


def gradients_of(run, steps):
    "Gradients at the moment of the optimizer's step, after steps of (images, label, fraction, last)."
    seen, real, data = [], run.optimizer.step, WindowData(None, run.settings, WEIGHTS.tolist(), CPU)
    def step():
        seen[:] = [p.grad.clone() for p in run.model.parameters() if p.grad is not None]
        real()
    run.optimizer.step = step
    run.model.train()
    if run.settings.freeze_trunk: training.freeze_backbone(run.model)
    for images, label, *part in steps: train_step(run, run.model, data, dict(images=images, label=label), *part)
    return seen


@pytest.mark.parametrize('name', ['official', 'gaze360'])
def test_official_recipes_have_every_option_off(name):
    s = check_parameters(TrainSettings, yaml.safe_load((ROOT / f'nbs/recipes/{name}.yaml').read_text()))
    off = dict(schedule='constant', lr_end=0, warmup=0, weight_decay=0, label_smoothing=0, clip_norm=0, accumulate=1, ema=0, flip=False,
               colour=0, blur=0, jitter=0, weights=(.136, .864), sampling='all', patience=0, keep_best=1, freeze_trunk=False, compile=False,
               precision='tf32', device='cuda', seeds=None, val_every=1, tensorboard=False, quality='none', side=[], features_dir=None)
    assert {k: getattr(s, k) for k in off} == off


def test_the_strong_recipe_is_what_its_header_says():
    s = check_parameters(TrainSettings, yaml.safe_load((ROOT / 'nbs/recipes/strong.yaml').read_text()))
    rates = [training.learning_rate(s, done) for done in (0, .5, 1)]
    assert rates == pytest.approx([1e-4, 5.25e-5, 5e-6]) and s.weights == 'auto' and s.epochs == 10 and s.ema == .999
    assert s.quality == 'drop' and s.jitter == .1 and s.model == 'GazeLSTM'
    with pytest.raises(ValueError, match='expected at most lr, 0.0001'): TrainSettings(lr=1e-4, lr_end=1e-3)


@pytest.mark.parametrize('name, given', [('pose', {}), ('frozen', dict(features_dir='features')), ('tuned', {})])
def test_recipes_beyond_the_baseline_make_the_model_that_they_name(name, given):
    recipe = yaml.safe_load((ROOT / f'nbs/recipes/{name}.yaml').read_text()) | given | dict(encoder_weights=None)
    with torch.device('meta'): model = EncoderHead(**training._model_options(check_parameters(TrainSettings, recipe)))
    assert model.options['encoder'] == recipe['encoder'] and [*model.numbers] == recipe.get('side', []) and model.encoder_size == 224


def test_the_loop_uses_what_the_settings_say(sample, tmp_path, monkeypatch):
    "Learning rate, augmentation, class weights and accumulation, batch by batch."
    seen, shown, real, real_loss = [], [], training.train_step, batches.window_loss
    def step(run, model, data, batch, fraction, last):
        seen.append((run.optimizer.param_groups[0]['lr'], data.weights, fraction, last))
        return real(run, model, data, batch, fraction, last)
    monkeypatch.setattr(training, 'train_step', step)
    monkeypatch.setattr(batches, 'window_loss', lambda model, images, *a: shown.append(images.clone()) or real_loss(model, images, *a))
    s = settings(sample, tmp_path, epochs=1, batch_size=8, accumulate=2, schedule='cosine', warmup=.25, lr=.01, weights='auto', flip=True,
                 jitter=.1, colour=.2, blur=1.)
    train(s)
    windows = launching.train_windows(s)
    labels, weights = windows.labels, class_weights('auto', windows.labels)
    order = epoch_batches(epoch_order(labels, 0, s.seed), 8)
    assert len(seen) == len(shown) == len(order) > 3 and len({lr for lr, *_ in seen}) > 1 and weights[0] != .136
    for i, (images, (lr, used, fraction, last)) in enumerate(zip(shown, seen)):
        first = i // 2 * 2
        fractions = step_weights(order[first:first + 2], labels, weights)
        stored = torch.from_numpy(windows.__getitems__(order[i])['images'])
        assert torch.equal(images, augment(stored, [s.seed, 0, i, 0], True, .1, .2, 1.)) and not torch.equal(images, stored)
        assert lr == training.learning_rate(s, first / len(order)) and used == pytest.approx(weights)
        assert fraction == pytest.approx(fractions[i - first]) and last == (i - first + 1 == len(fractions))


def test_weight_decay_is_decoupled_and_spares_biases(batch):
    plain, decayed = begin(lr=1e-3), begin(lr=1e-3, weight_decay=.1)
    before = {k: v.clone() for k, v in plain.model.named_parameters()}
    for run in (plain, decayed): gradients_of(run, [batch])
    for (name, a), b in zip(plain.model.named_parameters(), decayed.model.parameters()):
        expected = a - 1e-3 * .1 * before[name] if a.ndim > 1 else a            # AdamW subtracts lr * weight_decay * weight
        assert torch.allclose(b, expected, atol=1e-7), name


def test_label_smoothing_mixes_the_labels(batch):
    images, label = batch
    model = begin().model.eval()
    logits = model(normalise(images.flatten(0, 1)).unflatten(0, (8, 7)).contiguous())
    target = F.one_hot(label, 2) * .8 + .1                                      # 0.2 of each label to both classes alike
    expected = -(target * WEIGHTS * logits.log_softmax(1)).sum() / WEIGHTS[label].sum()
    assert torch.allclose(window_loss(model, images, label, WEIGHTS, 'fp32', .2), expected)


def test_clip_norm_shortens_the_gradient(batch):
    norm = lambda run: torch.stack([g.norm() for g in gradients_of(run, [batch])]).norm().item()
    assert norm(begin()) > .02 and norm(begin(clip_norm=.01)) == pytest.approx(.01, rel=1e-3)


def test_accumulated_gradients_are_those_of_the_large_batch(batch):
    "With frozen batch norms; others see the small batches."
    images, label = batch
    halves = [np.arange(4), np.arange(4, 8)]
    fractions = step_weights(halves, label.numpy(), WEIGHTS.tolist())
    large = gradients_of(begin(freeze_trunk=True), [batch])
    parts = [(images[h], label[h], fraction, h[-1] == 7) for h, fraction in zip(halves, fractions)]
    small = gradients_of(begin(freeze_trunk=True), parts)
    assert len(large) == len(small) > 10 and all(torch.allclose(a, b, atol=1e-7, rtol=1e-4) for a, b in zip(large, small))


def test_ema_averages_the_weights_and_is_what_is_saved(sample, tmp_path, batch):
    run = begin(ema=.9)
    name, mean = 'last_layer2.weight', None
    for n in range(3):
        gradients_of(run, [batch])
        now, decay = run.model.state_dict()[name].clone(), min(.9, (1 + n) / (10 + n))
        mean = now if mean is None else mean * decay + now * (1 - decay)
    assert torch.allclose(run.average.state_dict()[name], mean, atol=1e-7) and not torch.equal(mean, now)
    train(settings(sample, tmp_path, epochs=1, ema=.9))
    saved = finished(tmp_path)
    assert not torch.equal(saved['state_dict'][name], saved['raw'][name])
    assert torch.equal(read_checkpoint(tmp_path / 'checkpoints/best.pt')['state_dict'][name], saved['state_dict'][name])


def test_frozen_backbone_stays_and_the_rest_learns(sample, tmp_path):
    s = settings(sample, tmp_path, epochs=1, freeze_trunk=True)
    before = copy.deepcopy(new_run(s, CPU).model.state_dict())
    train(s)
    changed = {k for k, v in finished(tmp_path)['state_dict'].items() if not torch.equal(v, before[k])}
    assert changed and not [k for k in changed if k.startswith('base_model.') and '.fc' not in k]
    assert {'base_model.fc1.weight', 'lstm.weight_ih_l0', 'last_layer2.bias'} <= changed


@pytest.fixture
def scores(monkeypatch):
    "Validation gives these scores, one after the other."
    given = iter([.5, .8, .7, .75, .6, .9])
    monkeypatch.setattr(training, 'validate', lambda *_: dict.fromkeys(training._METRICS, 0.) | dict(mAP=next(given)))


def test_patience_stops_early(sample, tmp_path, scores):
    metrics = train(settings(sample, tmp_path, epochs=6, patience=2, train_stride=20, save_every=1000))
    assert metrics['epochs'] == 4 and metrics['epoch'] == 2 and metrics['mAP'] == .8


def test_the_best_epochs_are_kept(sample, tmp_path, scores):
    train(settings(sample, tmp_path, epochs=5, keep_best=3, train_stride=20, save_every=1000))
    kept = {p.name: read_checkpoint(p)['mAP'] for p in (tmp_path / 'checkpoints').glob('epoch-*.pt')}
    assert kept == {'epoch-002.pt': .8, 'epoch-003.pt': .7, 'epoch-004.pt': .75}
    assert read_checkpoint(tmp_path / 'checkpoints/best.pt')['mAP'] == .8


def test_validation_on_a_schedule(sample, tmp_path):
    train(settings(sample, tmp_path, epochs=3, val_every=2, train_stride=20, save_every=1000))
    assert pd.read_csv(tmp_path / 'history.csv').mAP.notna().tolist() == [False, True, True]      # the last epoch always


def test_balanced_sampling_shows_as_many_of_each(sample, tmp_path, monkeypatch):
    seen, real = [], training.train_step
    monkeypatch.setattr(training, 'train_step', lambda *args, **more: seen.append(args[3]['label']) or real(*args, **more))
    train(settings(sample, tmp_path, epochs=1, sampling='balanced', train_stride=8))
    labels = torch.cat(seen)
    assert abs(2 * labels.sum() - len(labels)) <= 1


def test_deterministic_is_switched_on_and_off_again(sample, tmp_path, monkeypatch):
    seen, real = [], training.train_step
    monkeypatch.setattr(training, 'train_step', lambda *a, **k: seen.append(torch.are_deterministic_algorithms_enabled()) or real(*a, **k))
    for i, wanted in enumerate((True, True, False)):
        train(settings(sample, tmp_path / str(i), epochs=1, deterministic=wanted, train_stride=8, jitter=.1, blur=1., colour=.1))
    assert seen[0] and not seen[-1] and same(finished(tmp_path / '0'), finished(tmp_path / '1'))


def test_compile_gives_the_same_training(sample, tmp_path, monkeypatch):
    "With the tracer of torch.compile; making machine code takes minutes and is left to the benchmarks."
    real, compiled = nn.Module.compile, []
    monkeypatch.setattr(nn.Module, 'compile', lambda self: compiled.append(self) or real(self, backend='eager'))
    losses = [train(settings(sample, tmp_path / str(c), epochs=1, train_stride=8, compile=c))['train_loss'] for c in (False, True)]
    assert len(compiled) == 1 and losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_tensorboard_has_the_metrics(sample, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    train(settings(sample, tmp_path, epochs=2, tensorboard=True, train_stride=8))
    events = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    history = pd.read_csv(tmp_path / 'history.csv')
    assert [e.step for e in events.Scalars('mAP')] == [1, 2]
    assert np.allclose([e.value for e in events.Scalars('train_loss')], history.train_loss)


def test_a_stop_while_validating_is_one_line(sample, tmp_path, monkeypatch):
    def stop(*_): raise KeyboardInterrupt
    s = settings(sample, tmp_path, epochs=1, train_stride=20)
    with monkeypatch.context() as m, pytest.raises(Stopped) as stopped:
        m.setattr(training, 'validate', stop)
        train(s)
    assert str(stopped.value) == 'stopped; epoch 1, trained and not validated, is kept: the same command again to go on'
    monkeypatch.setattr(training, 'train_step', None)                         # nothing is left to train
    assert train(s)['epoch'] == 1
