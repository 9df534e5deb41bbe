"Training in one process goes on where it stopped, bit for bit; a full disk, signals and changed settings."
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT

from lam_nb import batches, launching, live, runs, slurm, training
from lam_nb.scoring import EvaluateSettings, predict_split
from lam_nb.models import read_checkpoint
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.processes import Stopped
from lam_nb.training import TrainSettings
from lam_nb.launching import main, train, train_process
from lam_nb.live import live_display


def settings(sample, out, **changes):
    small = dict(data_dir=str(sample), out_dir=str(out), epochs=2, batch_size=16, train_stride=4, val_stride=5, image_size=32,
                 num_workers=0, num_processes=1, precision='fp32', save_every=2)
    return TrainSettings(**{**small, **changes})


class Killed(BaseException): pass


def train_until(parameters, name, count, action):
    "Trains with `action` called after the `count`-th call of a function of lam_nb.training."
    calls, real = [0], getattr(training, name)
    def counted(*args, **kwargs):
        out = real(*args, **kwargs)
        calls[0] += 1
        if calls[0] == count: action()
        return out
    setattr(training, name, counted)
    try: train_process(parameters)
    except Killed: pass
    finally: setattr(training, name, real)


def die():
    raise Killed


def same(a, b):
    "Whether two checkpoints hold the same weights, optimizer state and metrics (but the clocks)."
    tensors = all(torch.equal(a['state_dict'][k], b['state_dict'][k]) for k in a['state_dict'])
    adam, other = a['optimizer']['state'], b['optimizer']['state']
    moments = all(torch.equal(x, y) for i in adam for x, y in zip(adam[i].values(), other[i].values()))
    clocks = ('seconds', 'windows_per_s', 'data_wait', 'memory_gb')
    drop = lambda rows: [{k: v for k, v in r.items() if k not in clocks} for r in rows]
    return tensors and moments and drop(a['history']) == drop(b['history']) and a['epoch'] == b['epoch']


def test_finished_run_stays_as_it_is(sample, tmp_path):
    s = settings(sample, tmp_path, epochs=1)
    first = train(s)
    assert train(s)['mAP'] == first['mAP'] and len(pd.read_csv(tmp_path / 'history.csv')) == 1


def test_changed_setting_is_refused_by_name(sample, tmp_path):
    train(settings(sample, tmp_path, epochs=1))
    with pytest.raises(ValueError, match='batch_size = 8, there 16'): train(settings(sample, tmp_path, epochs=1, batch_size=8))


def test_non_finite_loss_stops(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, 'window_loss', lambda model, *_: sum(p.sum() for p in model.parameters()) * float('nan'))
    words = r'epoch 1, batch 1 .looked at: 1 to 2.*\n.*track_\d+ frame \d+'
    with pytest.raises(FloatingPointError, match=words): train(settings(sample, tmp_path))


def test_best_is_written_before_last(sample, tmp_path):
    "A run killed between the two checkpoints of a validation validates again, and its best.pt is the best."
    s = settings(sample, tmp_path / 'cut', epochs=1, save_every=1000)
    train_until(s.model_dump(), 'save_run', 2, die)                       # the first save is before the validation
    assert (tmp_path / 'cut/checkpoints/best.pt').exists() and read_checkpoint(tmp_path / 'cut/checkpoints/last.pt')['epoch'] == 0
    metrics = train(s)
    assert read_checkpoint(metrics['best_checkpoint'])['mAP'] == metrics['mAP']


def test_other_data_is_not_resumed(sample, tmp_path):
    s = settings(sample, tmp_path / 'run', epochs=1)
    train(s)
    options = PrepareSettings(image_size=64, quality=70, workers=1)
    prepare_faces({name: split_faces(sample, name, options)[0] for name in ('train', 'val')}, sample, tmp_path / 'faces', options)
    with pytest.raises(ValueError, match='made of other faces'): train(s.model_copy(update={'faces_dir': str(tmp_path / 'faces')}))


def val_anew(sample, faces, **options):
    "Makes the stores of val anew."
    options = PrepareSettings(image_size=64, workers=1, **options)
    prepare_faces({'val': split_faces(sample, 'val', options)[0]}, sample, faces, options)


def test_other_validation_faces_are_not_resumed(sample, tmp_path):
    shutil.copytree(sample / 'faces', faces := tmp_path / 'faces')
    s = settings(sample, tmp_path / 'run', epochs=1, faces_dir=str(faces))
    train(s)
    val_anew(sample, faces, frame_offset=0)
    with pytest.raises(ValueError, match='frame_offset'): train(s)              # train and val were cut in two ways
    train_faces = split_faces(sample, 'train', options := PrepareSettings(image_size=64, workers=1, labels='is_at_me'))[0]
    val_anew(sample, faces, labels='is_at_me')
    with pytest.raises(ValueError, match='different settings, labels'): train(s.model_copy(update=dict(out_dir=str(tmp_path / 'new'))))
    assert not (tmp_path / 'new').exists()
    prepare_faces({'train': train_faces}, sample, faces, options)
    with pytest.raises(ValueError, match='training windows.* the validation rows, which were made of other faces'): train(s)


def test_validation_faces_that_are_replaced_during_a_training_are_noticed(sample, tmp_path, monkeypatch):
    shutil.copytree(sample / 'faces', faces := tmp_path / 'faces')
    s, real = settings(sample, tmp_path / 'run', faces_dir=str(faces)), launching.finish_epoch
    def finished_and_replaced(*args):
        real(*args)
        val_anew(sample, faces, frame_offset=0)
    monkeypatch.setattr(launching, 'finish_epoch', finished_and_replaced)
    with pytest.raises(ValueError, match='validation clips .* were replaced during the training'): train(s)
    assert len(pd.read_csv(tmp_path / 'run/history.csv')) == 1


@pytest.fixture(scope='module')
def whole(sample, tmp_path_factory):
    "An undisturbed training of two epochs of three batches, with everything on that has a state."
    s = settings(sample, tmp_path_factory.mktemp('whole'), **STATEFUL)
    train(s)
    return s


STATEFUL = dict(save_every=1, ema=.9, jitter=.1, colour=.2, blur=1., weight_decay=.01, clip_norm=5., accumulate=2, batch_size=6,
                sampling='balanced', val_every=2)


def finished(folder): return read_checkpoint(folder / 'checkpoints/last.pt')


def same_training(s, one, other):
    "Two runs with settings `s` in these folders ended alike, to the last bit: weights, history, and predictions of the best epoch."
    assert same(finished(one), finished(other))
    columns = ['epoch', 'train_loss', 'val_loss', 'mAP', 'AP_looking', 'AP_not_looking', 'accuracy', 'lr']
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / 'history.csv')[columns] for folder in (one, other)), check_exact=True)
    options = dict(data_dir=s.data_dir, stride=s.val_stride, num_workers=0, num_processes=1, precision=s.precision)
    scores = [predict_split(EvaluateSettings(checkpoint=str(f / 'checkpoints/best.pt'), **options)) for f in (one, other)]
    assert len(scores[0]) > 20
    pd.testing.assert_frame_equal(*scores, check_exact=True)


def test_resume_at_random_batches_is_exact(whole, tmp_path):
    "Two random deaths in the middle of batches, then to the end; other ones each time that the tests run."
    seed = random.randrange(10 ** 6)
    rng = random.Random(seed)
    s = whole.model_copy(update={'out_dir': str(tmp_path)})
    for _ in range(2):
        count = rng.randrange(1, 8)
        print(f'seed {seed}: dies after batch {count} of this start')
        train_until(s.model_dump(), 'train_step', count, die)
    train(s)
    same_training(s, runs.project_path(whole.out_dir), tmp_path)


KILLED_AFTER = '''
import os, signal, sys
from lam_nb import launching, training
left, real = [int(sys.argv[1])], training.train_step
def step(*args, **kwargs):
    loss = real(*args, **kwargs)
    left[0] -= 1
    if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
    return loss
training.train_step = step
launching.main(sys.argv[2:])
'''


def test_kill_9_at_a_random_batch(whole, tmp_path):
    "The same command line, killed for good and started again, ends as if nothing had been."
    s = whole.model_copy(update={'out_dir': str(tmp_path / 'run')})
    file, = as_arguments(s, tmp_path)
    count = random.randrange(1, 12)
    print(f'dies after batch {count}')
    done = subprocess.run([sys.executable, '-c', KILLED_AFTER, str(count), file], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, '-m', 'lam_nb.training', file], cwd=ROOT, check=True)
    same_training(s, runs.project_path(whole.out_dir), tmp_path / 'run')


KILLED_WHILE_SAVING = '''
import os, signal, sys, torch
from lam_nb import launching
count, real = [0], torch.save
def half(content, path):
    count[0] += 1
    real(content, path)
    if count[0] == 3:
        with open(path, 'r+b') as f: f.truncate(10_000)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
launching.main(sys.argv[1:])
'''


def test_kill_9_while_saving_keeps_the_last_checkpoint(whole, tmp_path):
    s = whole.model_copy(update={'out_dir': str(tmp_path / 'run')})
    done = subprocess.run([sys.executable, '-c', KILLED_WHILE_SAVING, *as_arguments(s, tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert finished(tmp_path / 'run')['step'] == 4              # the third checkpoint was cut off, the second is there
    assert len([f for f in os.listdir(tmp_path / 'run/checkpoints') if not f.startswith('.in-use-')]) == 2
    train(s)
    assert sorted(os.listdir(tmp_path / 'run/checkpoints')) == ['best.pt', 'last.pt']         # what was cut off is gone
    assert same(finished(runs.project_path(whole.out_dir)), finished(tmp_path / 'run'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])       # SIGINT: through papermill, in test_training_processes
def test_signals_save_first(whole, tmp_path, number):
    s = whole.model_copy(update={'out_dir': str(tmp_path), 'save_every': 1000})
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f'{number.name} in epoch 1 after batch 4 of .*the same command goes on'):
        train_until(s.model_dump(), 'train_step', 3, lambda: os.kill(os.getpid(), number))       # in the middle of a step of two batches
    assert finished(tmp_path)['step'] == 4 and signal.getsignal(number) is before
    train(s)
    assert same(finished(runs.project_path(whole.out_dir)), finished(tmp_path))


def test_an_interruption_while_an_epoch_ends_waits_until_it_is_saved(whole, tmp_path, monkeypatch):
    s, real = whole.model_copy(update={'out_dir': str(tmp_path), 'save_every': 1000}), training.save_run
    def interrupted(run, name='last.pt', **how):
        if name == 'best.pt': os.kill(os.getpid(), signal.SIGINT)
        real(run, name, **how)
    with monkeypatch.context() as patch, pytest.raises(Stopped, match='stopped; epoch 2 is kept: the same command again to go on'):
        patch.setattr(training, 'save_run', interrupted)
        train_process(s.model_dump())
    assert finished(tmp_path)['epoch'] == 2 and finished(tmp_path)['step'] == 0            # the first that is validated
    train(s)
    assert same(finished(runs.project_path(whole.out_dir)), finished(tmp_path))


def test_a_full_disk_keeps_the_last_checkpoint(sample, tmp_path, monkeypatch):
    s, real = settings(sample, tmp_path, epochs=1, save_every=1), torch.save
    def full(content, path):
        if content['step'] == 2:
            path.write_bytes(b'half')
            raise OSError(errno.ENOSPC, 'No space left on device')
        real(content, path)
    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='No space left.*make room and start the same command again'): train(s)
    assert finished(tmp_path)['step'] == 1 and os.listdir(tmp_path / 'checkpoints') == ['last.pt']


def test_epochs_may_grow_when_the_rate_is_constant(sample, tmp_path):
    "And the file of the first weights may be gone, and the checkpoint older than a setting."
    first = training.new_run(settings(sample, tmp_path / 'first'), torch.device('cpu'))
    training.save_run(first)
    file = tmp_path / 'first/checkpoints/last.pt'
    s = settings(sample, tmp_path, epochs=1, schedule='constant', warmup=0, checkpoint=str(file))
    train(s)
    file.unlink()
    saved = finished(tmp_path)
    del saved['settings']['checkpoint_match']
    torch.save(saved, tmp_path / 'checkpoints/last.pt')
    assert train(s.model_copy(update={'epochs': 2}))['epochs'] == 2


def test_a_refused_resume_touches_nothing(sample, tmp_path):
    s = settings(sample, tmp_path / 'run', epochs=1, seeds=[1, 2], train_stride=20)
    main([*as_arguments(s, tmp_path)])
    before = {f: f.read_bytes() for f in (tmp_path / 'run').rglob('*') if f.is_file()}
    with pytest.raises(SystemExit, match='seed-1.*lr = 0.1, there 0.001'): main([*as_arguments(s, tmp_path), 'lr=0.1'])
    assert before == {f: f.read_bytes() for f in (tmp_path / 'run').rglob('*') if f.is_file()}


def as_arguments(s, folder):
    "These settings for `main`."
    file = folder / 'params.yaml'
    file.write_text(yaml.safe_dump(s.model_dump(mode='json')))
    return [str(file)]


def test_other_versions_and_processes_are_named(sample, tmp_path, monkeypatch, capsys):
    s = settings(sample, tmp_path, epochs=1)
    with monkeypatch.context() as m:
        for module in (training, launching): m.setattr(module, '_versions', lambda run: dict(torch='1.0'))
        train_until(s.model_dump(), 'train_step', 3, die)
    train(s)
    assert f'no longer bit-identical to an uninterrupted training: torch is {torch.__version__}, was 1.0' in capsys.readouterr().out


def test_one_seed_has_no_spread(sample, tmp_path):
    launching.train_seeds(settings(sample, tmp_path, epochs=1, seeds=[5], train_stride=20))
    summary = json.loads((tmp_path / 'metrics.json').read_text())
    assert summary['seeds'] == [5] and summary['over_seeds']['std']['mAP'] is None
    assert summary['over_seeds']['mean']['mAP'] == summary['mAP'] > 0


def test_a_new_start_keeps_the_old_checkpoint(sample, tmp_path):
    "So a job that is queued again finds its own checkpoint or none; and it is told to look for one."
    s = settings(sample, tmp_path, epochs=1, train_stride=20)
    train(s)
    old = finished(tmp_path)
    train_until(s.model_copy(update=dict(resume=False, save_every=1000)).model_dump(), 'train_step', 1, die)
    assert not (tmp_path / 'checkpoints/last.pt').exists()
    assert same(read_checkpoint(tmp_path / 'checkpoints/previous.pt'), old)
    again, = slurm._SlurmTraining().checkpoint(s.model_copy(update={'resume': False}).model_dump()).args
    assert again['resume'] is True


def test_a_model_alone_is_not_resumed(sample, tmp_path):
    s = settings(sample, tmp_path)
    training.save_run(training.new_run(s, torch.device('cpu')), 'best.pt')
    (tmp_path / 'checkpoints/best.pt').rename(tmp_path / 'checkpoints/last.pt')
    with pytest.raises(ValueError, match='holds a model only'): launching.start_training(s)


def test_the_live_display_shows_one_run(sample, tmp_path, monkeypatch):
    shown = []
    class Handle:
        def update(self, view): shown.append(view.data)
    for name in ('_in_kernel', '_in_lab'): monkeypatch.setattr(live, name, lambda: True)
    monkeypatch.setattr(live, 'display', lambda view, display_id: Handle())
    with live_display([tmp_path / 'seed-0', tmp_path / 'seed-1'], seconds=.05):
        runs.write_json(tmp_path / 'seed-1/status.json', dict(words=['epoch 3 of 40', '1:00 h left'], losses=[[.1, .7], [.2, .6]]))
        time.sleep(1)
    assert len(shown) == 1 and 'epoch 3 of 40 · 1:00 h left' in shown[0] and len(shown[0]) < 30_000


def test_the_command_line_refuses_what_does_not_fit(tmp_path, capsys):
    file = tmp_path / 'params.yaml'
    file.write_text('epochs: 2\nlearning_rate: 0.1\n')
    nowhere = str(tmp_path / 'x.yaml')
    main(['--help'])
    assert 'weight_decay: 0.0' in capsys.readouterr().out
    refused = [([], 'usage'), (['epoch=2'], 'did you mean .epochs'), (['--epochs', '2'], 'usage'), ([str(file)], 'learning_rate'),
               ([nowhere], 'no such file'), ([str(file), 'a'], 'usage')]
    for arguments, words in refused:
        with pytest.raises(SystemExit, match=words): main(arguments)


def test_the_wait_for_data_is_a_part_of_the_time_from_the_first_batch_on(sample, tmp_path, monkeypatch):
    told, load = [], batches.WindowData.load
    def slow(self, wanted):
        for batch in load(self, wanted): time.sleep(1.2), (yield batch)
    monkeypatch.setattr(batches.WindowData, 'load', slow)
    monkeypatch.setattr(runs.Progress, 'update', lambda self, n=1, note='': told.append(note() if callable(note) else note))
    train(settings(sample, tmp_path, epochs=1, train_stride=10, save_every=0, batch_size=6))
    waits = [int(note.split('waiting for data ')[1].split('%')[0]) for note in told if 'waiting for data' in note]
    assert len(waits) > 1 and all(10 < wait <= 100 for wait in waits), waits
