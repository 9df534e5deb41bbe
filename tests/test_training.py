"Training goes on where it stopped, bit for bit, in one process and in two, and several processes evaluate alike."
import math

import numpy as np
import pandas as pd
import pytest
import torch

from lam_nb import training
from lam_nb.evaluation import lam_metrics
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.inference import EvaluateSettings, predict_split
from lam_nb.models import read_checkpoint
from lam_nb.training import TrainSettings, train, train_process


def settings(sample, out, **changes):
    small = dict(data_dir=str(sample), out_dir=str(out), epochs=2, batch_size=16, train_stride=4, val_stride=5, image_size=32,
                 num_workers=0, num_processes=1, precision='fp32', save_every=2)
    return TrainSettings(**{**small, **changes})


class Killed(BaseException): pass


def train_and_die(parameters, at_save):
    "Trains until the checkpoint of that number is written, then dies at once."
    saved, real = [0], training.save_run
    def save_then_die(*args):
        real(*args)
        saved[0] += 1
        if saved[0] == at_save: raise Killed
    training.save_run = save_then_die
    try: train_process(parameters)
    except Killed: pass
    finally: training.save_run = real


def same(a, b):
    "Whether two checkpoints hold the same weights, optimizer state and figures (but the clocks)."
    tensors = all(torch.equal(a['state_dict'][k], b['state_dict'][k]) for k in a['state_dict'])
    adam, other = a['optimizer']['state'], b['optimizer']['state']
    moments = all(torch.equal(x, y) for i in adam for x, y in zip(adam[i].values(), other[i].values()))
    clocks = ('seconds', 'windows_per_s', 'data_wait', 'memory_gb')
    drop = lambda rows: [{k: v for k, v in r.items() if k not in clocks} for r in rows]
    return tensors and moments and drop(a['history']) == drop(b['history']) and a['epoch'] == b['epoch']


@pytest.mark.parametrize('at_save', [1, 2, 4])
def test_resume_is_exact(sample, tmp_path, at_save):
    whole = settings(sample, tmp_path / 'whole')
    train(whole)
    cut = settings(sample, tmp_path / 'cut')
    train_and_die(cut.model_dump(), at_save)
    half = read_checkpoint(tmp_path / 'cut/checkpoints/last.pt')
    assert half['epoch'] < 2
    train(cut)
    assert same(read_checkpoint(tmp_path / 'whole/checkpoints/last.pt'), read_checkpoint(tmp_path / 'cut/checkpoints/last.pt'))


def test_finished_run_stays_as_it_is(sample, tmp_path):
    s = settings(sample, tmp_path, epochs=1)
    first = train(s)
    assert train(s)['mAP'] == first['mAP'] and len(pd.read_csv(tmp_path / 'history.csv')) == 1


def test_changed_setting_is_refused_by_name(sample, tmp_path):
    train(settings(sample, tmp_path, epochs=1))
    with pytest.raises(ValueError, match='batch_size = 8, there 16'): train(settings(sample, tmp_path, epochs=1, batch_size=8))


def test_two_processes_train_and_give_the_rows_of_one(sample, tmp_path):
    metrics = train(settings(sample, tmp_path, epochs=1, num_processes=2))
    assert metrics['processes'] == 2 and math.isfinite(metrics['val_loss'])
    checkpoint = str(tmp_path / 'checkpoints/best.pt')
    one = EvaluateSettings(data_dir=str(sample), checkpoint=checkpoint, num_processes=1, resume=False)
    tables = [predict_split(one.model_copy(update={'num_processes': n})) for n in (1, 2, 3)]
    for other in tables[1:]:                 # two clips: the third process has nothing to do
        pd.testing.assert_frame_equal(tables[0].drop(columns='score'), other.drop(columns='score'))
        assert np.abs(tables[0].score - other.score).max() < 1e-6


def test_non_finite_loss_stops(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(training, 'window_loss', lambda model, *_: sum(p.sum() for p in model.parameters()) * float('nan'))
    with pytest.raises(FloatingPointError, match=r'epoch 1, batch 1 .looked at: 1 to 2.*\n.*track_\d+ frame \d+'): train(settings(sample, tmp_path))


def test_resume_with_two_processes_is_exact(sample, tmp_path):
    "Killed after an epoch's checkpoint by its save of the next; both processes go on."
    whole, cut = (settings(sample, tmp_path / name, num_processes=2, epochs=2, schedule='constant', warmup=0) for name in ('whole', 'cut'))
    train(whole)
    train(cut.model_copy(update={'epochs': 1}))
    train(cut)
    assert same(*(read_checkpoint(tmp_path / name / 'checkpoints/last.pt') for name in ('whole', 'cut')))


def test_metrics_are_those_of_the_saved_weights(sample, tmp_path):
    "Also with several processes, whose batch-norm statistics differ: the best checkpoint gives the figures of metrics.json."
    metrics = train(settings(sample, tmp_path, epochs=1, num_processes=2, val_stride=1))
    options = dict(data_dir=str(sample), num_processes=1, stride=1, resume=False)
    again = predict_split(EvaluateSettings(checkpoint=str(tmp_path / 'checkpoints/best.pt'), **options))
    assert abs(lam_metrics(again)['mAP'] - metrics['mAP']) < 1e-9
    assert abs(training.score_loss(again, [.136, .864]) - metrics['val_loss']) < 1e-6


def test_best_is_written_before_last(sample, tmp_path):
    "A run killed between the two checkpoints of a validation validates again, and its best.pt is the best."
    s = settings(sample, tmp_path / 'cut', epochs=1, save_every=1000)
    train_and_die(s.model_dump(), 2)                       # the first save is before the validation
    assert (tmp_path / 'cut/checkpoints/best.pt').exists() and read_checkpoint(tmp_path / 'cut/checkpoints/last.pt')['epoch'] == 0
    metrics = train(s)
    assert read_checkpoint(metrics['best_checkpoint'])['mAP'] == metrics['mAP']


def test_other_data_is_not_resumed(sample, tmp_path):
    s = settings(sample, tmp_path / 'run', epochs=1)
    train(s)
    options = PrepareSettings(image_size=64, quality=70, workers=1)
    prepare_faces({name: split_faces(sample, name, options)[0] for name in ('train', 'val')}, sample, tmp_path / 'faces', options)
    with pytest.raises(ValueError, match='made of other faces'): train(s.model_copy(update={'faces_dir': str(tmp_path / 'faces')}))


def test_resume_with_other_processes_keeps_the_loss(sample, tmp_path, capsys):
    s = settings(sample, tmp_path, epochs=1)
    train_and_die(s.model_dump(), 1)
    train(s.model_copy(update={'num_processes': 2}))
    loss = pd.read_csv(tmp_path / 'history.csv').train_loss[0]
    assert 0.3 < loss < 1.5                  # a mean of batch losses, whatever the number of processes was
