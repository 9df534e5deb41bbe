"A run owns its folder: what is refused, what stays, two runs at once, runs that were killed."
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_training import settings as train_settings

from lam_nb.comparison_report import start_comparison
from lam_nb.evaluation_report import predict_rows, save_predictions, start_evaluation
from lam_nb.folders import claim_folder, end_run, release_folder, start_run
from lam_nb.launching import start_training, train
from lam_nb.models import BaselineLSTM, save_checkpoint
from lam_nb.settings import CompareSettings, PrepareSettings
from lam_nb.preparation_report import start_preparation
from lam_nb.runs import Settings, write_json
from lam_nb.scoring import EvaluateSettings


def content(folder):
    "Name and bytes of every file in a folder, but for the marks of running runs."
    files = (f for f in sorted(Path(folder).rglob('*')) if f.is_file() and not f.name.startswith('.in-use-'))
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


@pytest.fixture(autouse=True)
def released(tmp_path):
    "What a test claims is free again after it."
    yield
    for file in tmp_path.rglob('.in-use-*.json'): release_folder(file.parent)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp('weights') / 'untrained.pt', BaselineLSTM(), image_size=64)


def evaluate_settings(sample, out, good, **changes):
    return EvaluateSettings(**dict(data_dir=str(sample), out_dir=str(out), checkpoint=str(good), stride=20) | changes)


def evaluated(sample, out, checkpoint):
    "A finished evaluation: what its folder holds."
    run = start_evaluation(evaluate_settings(sample, out, checkpoint))
    predict_rows(run)
    save_predictions(run)
    write_json(out / 'metrics.json', {})
    release_folder(out)
    return content(out)


HOLDER = '''
import sys, time
from lam_nb.folders import claim_folder
claim_folder(sys.argv[1], 'evaluate.ipynb', sys.argv[2])
print('claimed', flush=True)
time.sleep(600)
'''


@pytest.fixture
def holder():
    "Starts processes that use a folder; they end with the test."
    started = []
    def start(folder, group=''):
        process = subprocess.Popen([sys.executable, '-c', HOLDER, str(folder), group], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == 'claimed\n'
        return process
    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


# Refusals: nothing is removed, nothing is written

@pytest.mark.parametrize('changes', [
    dict(checkpoint='typo.pt'), dict(checkpoints=['{good}', 'typo.pt']), dict(split='test', stride=2), dict(faces_dir='{tmp}/nowhere'),
    dict(threshold='{tmp}/typo.json'), dict(model='GazeLSTMM'), dict(data_dir='{tmp}/nowhere')], ids=str)
def test_an_evaluation_that_cannot_run_leaves_the_finished_one(sample, tmp_path, checkpoint, changes):
    out = tmp_path / 'ev'
    before = evaluated(sample, out, checkpoint)
    assert {'pred.csv', 'gt.csv', 'metrics.json', 'settings.json'} <= before.keys()
    fill = lambda v: [fill(x) for x in v] if isinstance(v, list) else v.format(good=checkpoint, tmp=tmp_path) if isinstance(v, str) else v
    given = {name: fill(value) for name, value in changes.items()}
    with pytest.raises((ValueError, FileNotFoundError)): start_evaluation(evaluate_settings(sample, out, checkpoint, **given))
    assert content(out) == before


def test_an_evaluation_that_dies_while_it_scores_leaves_the_finished_one(sample, tmp_path, checkpoint, monkeypatch):
    "The results are replaced when the new scores are there, and not before."
    out = tmp_path / 'ev'
    before = evaluated(sample, out, checkpoint)
    run = start_evaluation(evaluate_settings(sample, out, checkpoint, flip=True))
    def damaged(*_): raise ValueError('clip-0.arrow is damaged')
    monkeypatch.setattr('lam_nb.evaluation_report.predict_split', damaged)
    with pytest.raises(ValueError, match='is damaged'): predict_rows(run)
    assert content(out) == before


def test_a_second_evaluation_replaces_the_first_and_keeps_what_is_not_its_own(sample, tmp_path, checkpoint, capsys):
    out = tmp_path / 'ev'
    evaluated(sample, out, checkpoint)
    (out / 'notes.txt').write_text('mine')
    (out / 'figures').mkdir()
    (out / 'figures/by_hand.png').write_text('mine')
    predict_rows(start_evaluation(evaluate_settings(sample, out, checkpoint, flip=True)))
    assert 'the results of an earlier run in ev are replaced' in capsys.readouterr().out
    assert not (out / 'metrics.json').exists() and json.loads((out / 'settings.json').read_text())['parameters']['flip']
    assert (out / 'notes.txt').read_text() == (out / 'figures/by_hand.png').read_text() == 'mine'


@pytest.mark.parametrize('name', ['report.html', 'metrics.json', 'settings.json', 'figures/roc.png'])
def test_files_of_somebody_else_are_refused_by_name(sample, tmp_path, checkpoint, name):
    (tmp_path / 'paper/figures').mkdir(parents=True)
    (tmp_path / 'paper' / name).write_text('{"mine": true}')
    before = content(tmp_path / 'paper')
    starts = [lambda: start_evaluation(evaluate_settings(sample, tmp_path / 'paper', checkpoint))]
    prepare = PrepareSettings(data_dir=str(sample), out_dir=str(tmp_path / 'paper'))
    if name != 'metrics.json': starts.append(lambda: start_preparation(prepare))
    starts.append(lambda: start_training(train_settings(sample, tmp_path / 'paper')))
    for start in starts:
        with pytest.raises(ValueError, match=f'holds {name}, which no run of'): start()
        assert content(tmp_path / 'paper') == before


def test_another_kind_of_run_is_refused(sample, tmp_path, checkpoint):
    out = tmp_path / 'ev'
    before = evaluated(sample, out, checkpoint)
    other = tmp_path / 'other'
    evaluated(sample, other, checkpoint)
    for start in (lambda: start_training(train_settings(sample, out)),
                  lambda: start_preparation(PrepareSettings(data_dir=str(sample), out_dir=str(out))),
                  lambda: start_comparison(CompareSettings(runs=[str(out), str(other)], out_dir=str(out)))):
        with pytest.raises(ValueError, match='holds a run of evaluate.ipynb'): start()
    assert content(out) == before


@pytest.mark.parametrize('listing', ['{', '[]', '{"kind": "evaluate"}', '{"kind": "evaluate", "files": ["../mine.txt"]}',
                                     '{"kind": "evaluate", "files": ["/etc/hosts"]}', '{"kind": "evaluate", "files": ["a/b/c/d"]}',
                                     '{"kind": "evaluate", "files": [7]}'])
def test_a_list_of_files_that_cannot_be_trusted_removes_nothing(tmp_path, listing):
    out = tmp_path / 'ev'
    out.mkdir()
    (tmp_path / 'mine.txt').write_text('mine')
    (out / '.files.json').write_text(listing)
    with pytest.raises(ValueError, match='is damaged'): start_run(out, Settings(), 'evaluate', ['settings.json'])
    assert (tmp_path / 'mine.txt').exists() and not (out / 'settings.json').exists()


# Two at once

def test_a_folder_in_use_is_refused_until_its_process_is_killed(sample, tmp_path, checkpoint, holder):
    out = tmp_path / 'ev'
    before = evaluated(sample, out, checkpoint)
    process = holder(out)
    with pytest.raises(ValueError, match=f'in use by evaluate.ipynb .process {process.pid} on {platform.node()}, since 20'):
        start_evaluation(evaluate_settings(sample, out, checkpoint))
    assert content(out) == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(out.glob('.in-use-*'))) == 1                                   # left behind
    start_evaluation(evaluate_settings(sample, out, checkpoint))
    assert [f'-{os.getpid()}-' in f.name for f in out.glob('.in-use-*')] == [True]


def test_a_training_is_refused_while_another_writes_its_checkpoints(sample, tmp_path, holder):
    "Also when only the process that trains is left: papermill and its kernel may be gone."
    s = train_settings(sample, tmp_path / 'train', epochs=1)
    train(s)
    before = content(tmp_path / 'train')
    holder(tmp_path / 'train/checkpoints')
    for changes in ({}, dict(resume=False, lr=.5)):
        with pytest.raises(ValueError, match='checkpoints is in use by'): start_training(s.model_copy(update=changes))
    assert content(tmp_path / 'train') == before


def test_machines_that_train_together_share_a_folder(sample, tmp_path, holder):
    holder(tmp_path / 'train', 'first:29500')
    together = dict(num_nodes=2, epochs=1)
    start_training(train_settings(sample, tmp_path / 'train', rdzv_endpoint='first:29500', **together))
    assert not (tmp_path / 'train/settings.json').exists()                     # the machine called first writes it
    for changes in (dict(rdzv_endpoint='first:29501', **together), dict(rdzv_endpoint='localhost:29500', **together), {}):
        with pytest.raises(ValueError, match='is in use by'): start_training(train_settings(sample, tmp_path / 'train', **changes))


def test_one_face_store_is_filled_with_one_kind_of_faces(sample, tmp_path, holder):
    "Preparations with the same settings may share a store, as several machines do; others are refused."
    prepare = lambda name, **changes: start_preparation(PrepareSettings(**dict(
        data_dir=str(sample), faces_dir=str(tmp_path / 'faces'), out_dir=str(tmp_path / name), splits=['val']) | changes))
    prepare('first')
    about = json.loads(next((tmp_path / 'faces').glob('.in-use-*')).read_text())
    release_folder(tmp_path / 'faces')
    holder(tmp_path / 'faces', about['group'])
    prepare('second', shard=1, num_shards=2)
    release_folder(tmp_path / 'faces')
    for changes in (dict(image_size=96), dict(frame_offset=1), dict(labels='is_at_me'), dict(image_format='png'), dict(source='videos')):
        with pytest.raises(ValueError, match='faces is in use by'): prepare('third', **changes)
    assert not (tmp_path / 'third/settings.json').exists()


def test_a_claim_of_another_machine_counts_while_it_is_touched(tmp_path):
    mark = tmp_path / '.in-use-gpu7-1.json'
    mark.write_text(json.dumps(dict(what='train.ipynb', host='gpu7', pid=1, started='2026-11-28')))
    with pytest.raises(ValueError, match='in use by train.ipynb .process 1 on gpu7, since 2026-11-28, last seen 0 s ago'):
        claim_folder(tmp_path, 'a run')
    old = time.time() - 130
    os.utime(mark, (old, old))
    claim_folder(tmp_path, 'a run')
    assert not mark.exists()


@pytest.mark.parametrize('text', ['', '{', '[]', '7', 'null', '{"host": 3, "pid": "x"}'])
def test_a_mark_that_is_not_whole_is_no_crash(tmp_path, text):
    mark = tmp_path / '.in-use-gpu7-1.json'
    mark.write_text(text)
    with pytest.raises(ValueError, match='in use by another run'): claim_folder(tmp_path, 'a run')
    os.utime(mark, (0, 0))
    claim_folder(tmp_path, 'a run')


# The files of a folder belong to one run

def test_a_new_training_begins_without_the_old_ones_files(sample, tmp_path):
    out = tmp_path / 'train'
    s = train_settings(sample, out, epochs=1, keep_best=2)
    train(s)
    old = content(out)
    for name in ('report.html', 'figures/training_curves.png'):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text('of the first run')
    listing = json.loads((out / '.files.json').read_text())
    with pytest.raises(ValueError, match='holds report.html, which no run'): start_training(s.model_copy(update=dict(resume=False)))
    write_json(out / '.files.json', listing | dict(files=[*listing['files'], 'report.html', 'figures/training_curves.png']))
    start_training(s.model_copy(update=dict(lr=.5, resume=False)))
    left = {name for name in content(out) if not name.startswith('.')}
    assert left == {'settings.json', 'params.yaml', 'checkpoints/previous.pt', 'checkpoints/previous-best.pt'}
    assert content(out)['checkpoints/previous-best.pt'] == old['checkpoints/best.pt']


def test_a_resumed_training_keeps_its_history_and_not_its_result(sample, tmp_path):
    s = train_settings(sample, tmp_path / 'train', epochs=1, schedule='constant', warmup=0)
    train(s)
    history = (tmp_path / 'train/history.csv').read_bytes()
    start_training(s.model_copy(update=dict(epochs=2)))
    left = content(tmp_path / 'train')
    assert left['history.csv'] == history and {'checkpoints/last.pt', 'checkpoints/best.pt'} <= left.keys()
    assert 'metrics.json' not in left


def test_a_best_checkpoint_without_the_last_one_is_not_written_over(sample, tmp_path):
    s = train_settings(sample, tmp_path / 'train', epochs=1)
    train(s)
    (tmp_path / 'train/checkpoints/last.pt').unlink()
    before = content(tmp_path / 'train')
    with pytest.raises(ValueError, match='holds best.pt, but no last.pt'): train(s)
    assert content(tmp_path / 'train') == before


def test_a_mistyped_first_checkpoint_changes_nothing(sample, tmp_path):
    s = train_settings(sample, tmp_path / 'train', epochs=1)
    train(s)
    before = content(tmp_path / 'train')
    with pytest.raises(FileNotFoundError, match='typo.pt'): start_training(s.model_copy(update=dict(resume=False, checkpoint='typo.pt')))
    assert content(tmp_path / 'train') == before


def test_the_second_of_two_new_starts_keeps_both_earlier_trainings(sample, tmp_path):
    "Pairs of checkpoints stay together, and a user's own copies stay."
    s = train_settings(sample, tmp_path / 'train', epochs=1, resume=False)
    train(s)
    first = content(tmp_path / 'train/checkpoints')
    (tmp_path / 'train/checkpoints/epoch-001-good.pt').write_text('mine')
    train(s.model_copy(update=dict(lr=.5)))
    second = content(tmp_path / 'train/checkpoints')
    start_training(s)
    left = content(tmp_path / 'train/checkpoints')
    assert (left['previous.pt'], left['previous-best.pt']) == (first['last.pt'], first['best.pt'])
    assert (left['previous-2.pt'], left['previous-2-best.pt']) == (second['last.pt'], second['best.pt'])
    assert left['epoch-001-good.pt'] == b'mine' and 'last.pt' not in left and 'best.pt' not in left


def test_checkpoints_of_other_seeds_do_not_stay_beside_new_settings(sample, tmp_path):
    s = train_settings(sample, tmp_path / 'train', epochs=1)
    train(s)
    start_training(s.model_copy(update=dict(seeds=[0, 1])))
    assert sorted(p.name for p in (tmp_path / 'train/checkpoints').glob('[!.]*')) == ['previous-best.pt', 'previous.pt']


@pytest.mark.parametrize('about', [{'parameters': {'split': 'a'}}, {'parameters': {'epochs': 3}, 'provenance': {}}])
def test_settings_of_another_program_make_no_run(sample, tmp_path, checkpoint, about):
    out = tmp_path / 'theirs'
    write_json(out / 'settings.json', about)
    (out / 'metrics.json').write_text('theirs')
    before = content(out)
    for start in (lambda: start_evaluation(evaluate_settings(sample, out, checkpoint)),
                  lambda: start_training(train_settings(sample, out))):
        with pytest.raises(ValueError, match='holds settings.json'): start()
    assert content(out) == before


def test_the_owner_of_a_folder_keeps_it_while_others_try(tmp_path, holder):
    "A second claim of its own is not refused for the mark of one who is just being refused."
    claim_folder(tmp_path, 'evaluate.ipynb')
    mark = tmp_path / '.in-use-gpu7-1.json'
    mark.write_text(json.dumps(dict(what='another', host='gpu7', pid=1)))
    claim_folder(tmp_path, 'evaluate.ipynb')
    assert [f for f in tmp_path.glob('.in-use-*') if f != mark]


def test_a_folder_that_was_removed_can_be_claimed_again(tmp_path):
    claim_folder(tmp_path / 'out', 'a run')
    for file in (tmp_path / 'out').iterdir(): file.unlink()
    (tmp_path / 'out').rmdir()
    claim_folder(tmp_path / 'out', 'a run')
    assert len(list((tmp_path / 'out').glob('.in-use-*'))) == 1


def test_two_processes_of_one_name_and_number_are_told_apart(tmp_path, monkeypatch):
    "As in two containers that share the name of the machine."
    claim_folder(tmp_path, 'the first')
    first, = tmp_path.glob('.in-use-*')
    code = ('import os; os.getpid = lambda: int(os.environ["PID"])\nfrom lam_nb.folders import claim_folder\n'
            'claim_folder(os.environ["FOLDER"], "the second")')
    told = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PID': str(os.getpid()), 'FOLDER': str(tmp_path)},
                          capture_output=True, text=True)
    assert 'in use by the first' in told.stderr and list(tmp_path.glob('.in-use-*')) == [first]


@pytest.mark.parametrize('place', ['checkpoints', 'seed-1', 'seed-1/checkpoints', 'figures'])
def test_a_link_that_leads_nowhere_is_refused_before_anything_is_removed(sample, tmp_path, place):
    out = tmp_path / 'train'
    s = train_settings(sample, out, epochs=1, seeds=[0, 1] if 'seed' in place else None)
    start_training(s)
    release_folder(out)
    for name in ('metrics.json', 'seed-1/history.csv', 'report.html'):
        if name.startswith('seed-1') and place == 'seed-1': continue
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text('old')
    if (out / place).exists(): shutil.rmtree(out / place)
    (out / place).parent.mkdir(exist_ok=True)
    (out / place).symlink_to('/unmounted/scratch')
    before = content(out)
    with pytest.raises(ValueError, match=f'{place} is a link to /unmounted/scratch, which is not there'): start_training(s)
    assert {k: v for k, v in content(out).items() if not k.startswith('.in-use')} == before


def test_the_end_of_a_run_waits_for_others_in_its_folder(tmp_path):
    write_json(tmp_path / '.files.json', dict(kind='train', files=['a.csv', 'b.csv']))
    (tmp_path / 'a.csv').touch()
    claim_folder(tmp_path, 'a run')
    other = tmp_path / '.in-use-gpu7-1.json'
    other.write_text(json.dumps(dict(host='gpu7', pid=1)))
    end_run(tmp_path)
    assert json.loads((tmp_path / '.files.json').read_text())['files'] == ['a.csv', 'b.csv']
    other.unlink()
    other.mkdir()                                                # of this name, but nobody's mark
    end_run(tmp_path)
    assert json.loads((tmp_path / '.files.json').read_text())['files'] == ['a.csv'] and not list(tmp_path.glob('.in-use-*-*-*'))
