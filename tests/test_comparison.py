"Comparing runs: what is refused, what is counted, tables for papers, and both notebooks on awkward data."
import json
import shutil

import numpy as np
import pandas as pd
import papermill as pm
import pytest
from conftest import ROOT

from lam_nb.comparison import (different_settings, differences_of, disagreements, latex_text, not_ego4d, published_numbers,
                               read_runs, results_table, run_settings, shared_rows, write_results)
from lam_nb.annotations import split_clips
from lam_nb.evaluation import intervals_by_clip, lam_metrics
from lam_nb.evaluation_report import (
    evaluation_metrics, evaluation_sections, predict_rows, save_metrics, save_predictions, save_tables, start_evaluation, write_evaluation)
from lam_nb.predictions import write_official
from lam_nb.faces import note_unavailable
from lam_nb.scoring import predict_split
from lam_nb.settings import CompareSettings, EvaluateSettings
from lam_nb.models import BaselineLSTM, save_checkpoint
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.runs import write_json


def table(better=0.0, seed=0, clips=6, rows=40):
    "A predictions table whose scores know something about the labels."
    rng, n = np.random.default_rng(seed), clips * rows
    label = (np.arange(n) % 20 < 3).astype('int8')
    score = (1 - better) * np.clip(0.4 * label + 0.6 * rng.random(n), 0, 1) + better * label
    clip, frame = np.divmod(np.arange(n), rows)
    return pd.DataFrame(dict(clip_uid=[f'clip{c}' for c in clip], track_id='t', person_id='1', frame=frame, x1=0., y1=0., x2=9., y2=9.,
                             label=label, interpolated=False, score=score))


def make_run(folder, predictions, **parameters):
    folder.mkdir(parents=True)
    predictions.to_parquet(folder / 'predictions.parquet')
    write_json(folder / 'metrics.json', lam_metrics(predictions) if (predictions.label >= 0).all() else {})
    write_json(folder / 'settings.json', dict(parameters=dict(split='val', stride=1, **parameters), provenance=dict(commit='a1')))
    return folder


def make_training(folder, **parameters):
    folder.mkdir(parents=True)
    pd.DataFrame(dict(epoch=[1, 2], train_loss=[.5, .4], val_loss=[.6, .5], mAP=[.5, .6])).to_csv(folder / 'history.csv', index=False)
    write_json(folder / 'metrics.json', dict(mAP=.6))
    write_json(folder / 'settings.json', dict(parameters=parameters))
    return folder


@pytest.fixture
def two(tmp_path):
    return [make_run(tmp_path / 'a', table()), make_run(tmp_path / 'b', table(0.2).sample(frac=1, random_state=1), flip=True)]


@pytest.mark.parametrize('spoil, message', [
    (lambda f: shutil.rmtree(f), 'no folder'),
    (lambda f: (f / 'metrics.json').unlink(), 'has no metrics.json: .* did not end'),
    (lambda f: (f / 'predictions.parquet').unlink(), 'neither predictions.parquet nor history.csv'),
    (lambda f: (f / 'metrics.json').write_text('{"mAP": 0.'), 'is not JSON'),
    (lambda f: (f / 'settings.json').write_text('[]'), 'holds a list, expected an object')])
def test_folders_that_are_no_runs_are_refused(two, spoil, message):
    spoil(two[1])
    with pytest.raises((FileNotFoundError, ValueError), match=message): read_runs(two)


def test_names_tell_runs_apart(tmp_path):
    folders = [make_run(tmp_path / n / 'val', table()) for n in ('first', 'second')]
    assert [r['name'] for r in read_runs(folders)] == ['first/val', 'second/val']
    with pytest.raises(ValueError, match='several runs are called x'): read_runs(folders, ['x', 'x'])


@pytest.mark.parametrize('change, message', [
    (lambda t: t[:-7], r'a: 240 rows \(val, stride 1\); c: 233 rows .* All have 233 rows in common; set shared_only'),
    (lambda t: t.assign(clip_uid='other' + t.clip_uid), 'All have 0 rows in common; evaluate them on the same split'),
    (lambda t: t.assign(label=1 - t.label), '240 of 240 rows have another label in c than in a'),
    (lambda t: t.assign(label=-1), 'c has no labels'),
    (lambda t: t[:0], 'c has no rows'),
    (lambda t: t.assign(score=t.score.where(t.index != 3)), 'no finite number'),
    (lambda t: t.assign(unique_id=[f'{i:x}' for i in range(len(t))]), 'some runs scored challenge crops'),
    (lambda t: pd.concat([t, t[:1]]), 'repeat an earlier row')])
def test_runs_of_other_rows_are_refused(tmp_path, change, message):
    runs = [read_runs([make_run(tmp_path / 'a', table())])[0], None]
    runs[1] = runs[0] | dict(name='c', predictions=change(table()))
    with pytest.raises(ValueError, match=message): shared_rows(runs)


def test_shared_rows_are_the_same_rows_in_one_order(two):
    runs = read_runs(two)
    tables = shared_rows(runs)
    keys = ['clip_uid', 'track_id', 'frame', 'label']
    assert tables['a'][keys].equals(tables['b'][keys]) and len(tables['a']) == 240
    assert lam_metrics(tables['b']) == lam_metrics(table(0.2)) and tables['b'].score.tolist() == table(0.2).score.tolist()
    fewer = runs[1] | dict(predictions=runs[1]['predictions'].query('frame % 3 == 0'))
    assert len(shared_rows([runs[0], fewer], shared_only=True)['a']) == (table().frame % 3 == 0).sum()


def test_only_settings_that_differ_are_shown(two, tmp_path):
    runs = read_runs(two)
    assert different_settings(runs).to_dict('index') == {'flip': {'a': '–', 'b': 'true'}}
    training = make_training(tmp_path / 'train', lr=1e-3, out_dir='x')
    for r, lr in zip(runs, (1e-3, 2e-3)):
        folder = make_training(tmp_path / f'train{lr}', lr=lr)
        r['parameters']['checkpoint'] = str(folder / 'checkpoints' / 'best.pt')
    assert {'checkpoint', 'training: lr'} <= set(different_settings(runs).index) and training.exists()


def test_an_ensemble_is_known_by_its_members(two, tmp_path):
    for name, seed in (('s1', 1), ('s2', 2)): make_training(tmp_path / name, seed=seed, lr=.1)
    members = [str(tmp_path / name / 'checkpoints/best.pt') for name in ('s1', 's2')]
    known = run_settings(read_runs([make_run(tmp_path / 'both', table(), checkpoint='other/best.pt', checkpoints=members)])[0])
    assert known['training: seed'] == [1, 2] and known['training: lr'] == .1 and 'checkpoint' not in known


def test_differences_and_disagreements(two):
    tables = shared_rows(read_runs(two))
    apart = differences_of(tables)['b']
    gain = lam_metrics(table(0.2))['mAP'] - lam_metrics(table())['mAP']
    assert apart.loc['mAP', 'low'] > 0 and np.isclose(apart.loc['mAP', 'value'], gain)
    a, b = tables.values()
    rows = disagreements(a, b)
    called = (a.score >= .5) != (b.score >= .5)
    assert len(rows) == called.sum() > 0 and (rows.score_a - rows.score_b).abs().is_monotonic_decreasing
    for r in rows.itertuples(): assert ((r.score_a >= .5) == (r.label == 1)) == (r.right == 'a')


def test_results_tables_state_their_units(tmp_path):
    one = intervals_by_clip(table().assign(label=0))
    results = results_table({r'a_b & 50 % \x': intervals_by_clip(table()), '[1] | *': dict(mAP=.5, accuracy=None), 'one class': one})
    own = intervals_by_clip(table())
    assert (results.iloc[0][['mAP', 'mAP_low', 'mAP_high']].to_numpy() == own.loc['mAP', ['value', 'low', 'high']].to_numpy()).all()
    csv, md, tex = write_results(results, tmp_path / 'results', digits=2)
    assert csv.read_text().startswith('run,mAP (fraction),mAP 95 % low (fraction),mAP 95 % high (fraction),AP_looking (fraction)')
    assert (pd.read_csv(csv, index_col=0).to_numpy(na_value=-1) == results.to_numpy(na_value=-1)).all()               # to the last bit
    lines = md.read_text().splitlines()
    assert 'mAP (%) [95 % interval]' in lines[0] and len(lines) == 2 + 3 and '| 50.00 | – |' in lines[3] and r'\[1\] \| \*' in lines[3]
    text = tex.read_text()
    assert r'a\_b \& 50 \% \textbackslash{}x & ' in text and r'mAP (\%)' in text
    assert r'{[}1{]} \textbar{} {*} & 50.00 & -- & -- & --' in text
    body = [line for line in text.splitlines() if line.endswith('\\\\')]
    assert len(body) == 4 and all(line.replace(r'\&', '').count('&') == 4 for line in body)
    assert text.count(r'\toprule') == text.count(r'\midrule') == text.count(r'\bottomrule') == 1 and text.count('{') == text.count('}')
    for file in write_results(results, tmp_path / 'cut', threshold=0.37): assert 'accuracy at 0.37' in file.read_text()
    value = 100 * lam_metrics(table())['mAP']
    assert f'{value:.2f} {{\\scriptsize [' in text and f'| {value:.2f} [' in lines[2]


@pytest.mark.parametrize('text, latex', [('a_b', r'a\_b'), ('50%', r'50\%'), ('a\nb', 'a b'), ('{}', r'\{\}'), ('"a"', "''a''"),
                                         ('x^2~y', r'x\textasciicircum{}2\textasciitilde{}y')])
def test_latex_is_escaped(text, latex):
    assert latex_text(text) == latex


def test_ours_stands_beside_published_numbers_only_on_ego4d(tmp_path):
    uids = [f'0d42b229-1360-420d-b048-{i:012x}' for i in range(50)]
    val = pd.DataFrame(dict(clip_uid=np.repeat(uids, 1200)))
    assert not_ego4d(val, tmp_path, 'val') == [] == not_ego4d(val, tmp_path, 'val', 1, 'official', None)
    for made in (('is_at_me', None), ('official', 15)): assert 'labels' in not_ego4d(val, tmp_path, 'val', 1, *made)[0]
    assert 'far too few' in not_ego4d(val[::2], tmp_path, 'val')[0] and '49 clips' in not_ego4d(val[1200:], tmp_path, 'val')[0]
    assert 'every 13th row' in not_ego4d(val, tmp_path, 'val', 13)[0]
    assert 'no published numbers for train' in not_ego4d(val, tmp_path, 'train')[0]
    (tmp_path / 'sample.json').write_text('{}')
    assert 'made-up' in not_ego4d(val, tmp_path, 'val')[0]
    numbers = published_numbers('test')
    assert numbers.mAP.between(.5, 1).all() and numbers.accuracy.isna().any() and len(published_numbers('val')) == 3


# The notebooks

def run(name, out, **parameters):
    out.mkdir(parents=True, exist_ok=True)
    given = dict(parameters, out_dir=str(out))
    pm.execute_notebook(ROOT / 'nbs' / f'{name}.ipynb', out / f'{name}.ipynb', given, cwd=ROOT, progress_bar=False)
    return out


def test_compare_notebook(two, tmp_path):
    training = make_training(tmp_path / 'train', lr=1e-3)
    (tmp_path / 'out' / 'figures').mkdir(parents=True)
    (tmp_path / 'out' / 'figures' / 'disagree_9.png').write_text('old')
    write_json(tmp_path / 'out' / '.files.json', dict(kind='compare', files=['figures/disagree_9.png']))     # of an earlier comparison
    out = run('compare', tmp_path / 'out', runs=[*map(str, two), str(training)], draws=100)
    assert not (out / 'figures' / 'disagree_9.png').exists()
    made = json.loads((out / 'comparison.json').read_text())
    assert made['rows'] == 240 and made['differences']['b']['mAP']['low'] > 0
    assert len(pd.read_csv(out / 'disagreements.csv')) == len(disagreements(table(), table(0.2)))
    for file in 'results.csv results.md results.tex settings.json figures/differences.svg figures/training.png'.split():
        assert (out / file).exists()
    html = (out / 'report.html').read_text()
    assert 'Who is right where they disagree?' in html and len(html) < 300_000
    with pytest.raises(pm.PapermillExecutionError, match='1 evaluations and 1 trainings'):
        run('compare', tmp_path / 'few', runs=[str(two[0]), str(training)])
    with pytest.raises(pm.PapermillExecutionError, match='at most 6 of a kind'):
        run('compare', tmp_path / 'many', runs=[str(make_run(tmp_path / f'r{i}', table())) for i in range(7)])
    assert not (tmp_path / 'few' / 'settings.json').exists() and not (tmp_path / 'many' / 'settings.json').exists()


@pytest.fixture(scope='module')
def one_class(sample, tmp_path_factory):
    "The sample's val split without any looking segment, its faces, and a checkpoint that nobody trained."
    root = tmp_path_factory.mktemp('one_class')
    for name in ('split', 'csv', 'json'): shutil.copytree(sample / name, root / name)
    (root / 'videos').symlink_to(sample / 'videos')
    file = root / 'json' / 'av_val.json'
    content = json.loads(file.read_text())
    for clip in (c for v in content['videos'] for c in v['clips']): clip['social_segments_looking'] = []
    file.write_text(json.dumps(content))
    settings = PrepareSettings(image_size=32, workers=1)
    prepare_faces({'val': split_faces(root, 'val', settings)[0]}, root, root / 'faces', settings)
    save_checkpoint(root / 'fresh.pt', BaselineLSTM(), image_size=32)
    return root


def evaluate_here(out, **parameters):
    "What evaluate.ipynb does, in this process: a kernel takes long to start."
    run = start_evaluation(EvaluateSettings(out_dir=str(out), **parameters))
    run.show = False
    predict_rows(run), save_predictions(run), save_metrics(run), save_tables(run)
    write_evaluation(run, evaluation_sections(run))
    return run.out


def test_evaluate_notebook_on_one_class(one_class, tmp_path):
    out = run('evaluate', tmp_path / 'val', data_dir=str(one_class), checkpoint=str(one_class / 'fresh.pt'))
    metrics = json.loads((out / 'metrics.json').read_text())
    assert metrics['mAP'] is None and metrics['AP_not_looking'] == 1.0 and 'is labelled looking' in metrics['notes'][0]
    html = (out / 'report.html').read_text()
    assert 'not defined' in html and 'Not known of these rows' in html and 'none of the' in html
    assert 'no row is labelled looking' in (out / 'figures' / 'precision_recall.svg').read_text()            # drawn, and in words


def test_an_earlier_run_stays_until_the_next_one_has_scores_and_nothing_of_it_is_left_then(one_class, tmp_path):
    out = tmp_path / 'val'
    out.mkdir()
    left = 'predictions.parquet gt.csv pred.csv submission.json slices.csv error_runs.csv results.csv results.md results.tex report.html'
    figures = ['figures/timeline_3.png', 'figures/timeline_3.svg']
    (out / 'figures').mkdir()
    for name in [*left.split(), *figures]: (out / name).write_text('old')
    write_json(out / 'metrics.json', dict(best_threshold=.4, fitted_temperature=2., temperature=1., split='val'))
    older = dict(parameters=dict(data_dir=str(one_class), split='val'), provenance=dict(versions=dict(lam_nb='0.2.0')))
    write_json(out / 'settings.json', older)
    own = dict(threshold=str(out / 'metrics.json'), temperature=str(out / 'metrics.json'))
    with pytest.raises(FileNotFoundError): evaluate_here(out, data_dir=str(one_class), checkpoint='no.pt', **own)
    assert all((out / name).read_text() == 'old' for name in [*left.split(), *figures])
    assert json.loads((out / 'settings.json').read_text()) == older
    evaluate_here(out, data_dir=str(one_class), checkpoint=str(one_class / 'fresh.pt'), **own)
    metrics = json.loads((out / 'metrics.json').read_text())
    assert metrics['temperature'] == 2 and abs(metrics['threshold'] - 1 / (1 + (.6 / .4) ** .5)) < 1e-6
    assert sum('these very rows' in note for note in metrics['notes']) == 2
    assert not any((out / name).exists() and (out / name).read_bytes() == b'old' for name in [*left.split(), *figures])


def test_evaluate_notebook_without_the_folder_of_crops(sample, tmp_path):
    "A cut-down machine: stores only. One frame has two crops."
    root = tmp_path / 'data'
    shutil.copytree(sample / 'videos_challenge', root / 'videos_challenge')
    crop = next((root / 'videos_challenge').glob('*/*/*.jpg'))
    shutil.copy(crop, crop.with_name(f'{crop.name.split("_")[0]}_{"f" * 32}.jpg'))
    settings = PrepareSettings(image_size=32, workers=1)
    crops = split_faces(root, 'test', settings)[0]
    prepare_faces({'test': crops}, root, root / 'faces', settings)
    save_checkpoint(root / 'fresh.pt', BaselineLSTM(), image_size=32)
    shutil.rmtree(root / 'videos_challenge')
    given = dict(data_dir=str(root), checkpoint=str(root / 'fresh.pt'), split='test')
    out = evaluate_here(tmp_path / 'test', **given)
    assert len(json.loads((out / 'submission.json').read_text())['results']) == len(crops)
    assert 'compared with the face stores only' in (out / 'report.html').read_text()
    with pytest.raises(ValueError, match='expected 1 for split = test'): evaluate_here(tmp_path / 'few', **given, stride=2)
    assert not (tmp_path / 'few' / 'settings.json').exists()


def test_what_is_left_out_is_reported(one_class, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(one_class, root, symlinks=True)
    lost, kept = split_clips(root, 'val')
    (root / 'faces' / f'{lost}.arrow').unlink()
    note_unavailable(root / 'faces', {lost: 'the video is broken'})
    out = evaluate_here(tmp_path / 'val', data_dir=str(root), checkpoint=str(root / 'fresh.pt'))
    metrics = json.loads((out / 'metrics.json').read_text())
    note = f'1 of 2 listed clips are left out: prepare.ipynb found them unavailable, first: {lost} (the video is broken)'
    assert metrics['n_clips_left_out'] == 1 and note in metrics['notes']
    assert note in (out / 'report.html').read_text()
    assert (metrics['labels'], metrics['max_gap']) == ('official', None)
    assert [r.split(',')[0] for r in (out / 'results.csv').read_text().splitlines()] == ['run', 'fresh']


def test_an_empty_split_is_an_error(one_class, tmp_path):
    root = tmp_path / 'empty'
    shutil.copytree(one_class, root, symlinks=True)
    (root / 'split' / 'val.list').write_text('')
    settings = EvaluateSettings(data_dir=str(root), checkpoint=str(root / 'fresh.pt'), out_dir=str(tmp_path / 'val'))
    with pytest.raises((ValueError, FileNotFoundError)) as error: write_official(predict_split(settings), tmp_path / 'val')
    assert 'empty' in str(error.value) or 'no clip' in str(error.value)


def test_settings_of_compare():
    with pytest.raises(ValueError, match='threshold'): CompareSettings(threshold=1.5)
    assert CompareSettings(runs='a,b', names='x,y').names == ['x', 'y']


@pytest.mark.parametrize('text', ['{}', '{"parameters": [], "provenance": 3}', '{"parameters": {"checkpoints": 5, "checkpoint": []}}',
                                  '{"provenance": {"versions": [1]}}'])
def test_odd_settings_of_runs_are_passed_over(two, text):
    (two[1] / 'settings.json').write_text(text)
    assert len(different_settings(read_runs(two)))


@pytest.mark.parametrize('text', ['', 'a,b\n1,2\n', 'epoch,train_loss,mAP\n"'])
def test_an_odd_history_is_refused(tmp_path, text):
    (make_training(tmp_path / 'a') / 'history.csv').write_text(text)
    with pytest.raises(ValueError, match='is no history of a training'): read_runs([tmp_path / 'a'])


@pytest.mark.parametrize('change, message', [
    (lambda crops: shutil.copy(crops[0], crops[0].with_name(f'00001_{"e" * 32}.jpg')), 'crops have no entry'),
    (lambda crops: crops[0].unlink(), 'entries for which there is no crop'),
    (lambda crops: (crops[0].parents[3] / 'test_truth.csv').write_text('v,u,t,1,1\n'), 'but not in'),
    (lambda crops: (crops[0].parents[3] / 'test_truth.csv').write_text('a,b\n'), 'has 2 columns'),
    (lambda crops: (crops[0].parents[3] / 'test_truth.csv').symlink_to('/unmounted/a.csv'), 'which is not there')])
def test_crops_or_labels_that_changed_are_refused_before_anything_is_replaced(sample, tmp_path, change, message):
    root = tmp_path / 'data'
    for name in ('videos_challenge', 'faces'): shutil.copytree(sample / name, root / name)
    save_checkpoint(root / 'fresh.pt', BaselineLSTM(), image_size=32)
    given = EvaluateSettings(data_dir=str(root), checkpoint=str(root / 'fresh.pt'), split='test', out_dir=str(tmp_path / 'test'))
    out = evaluate_here(tmp_path / 'test', **given.model_dump(include={'data_dir', 'checkpoint', 'split'}))
    before, run = {f: f.read_bytes() for f in out.rglob('*') if f.is_file()}, start_evaluation(given)
    change(sorted((root / 'videos_challenge').glob('*/*/*.jpg')))
    with pytest.raises((ValueError, FileNotFoundError), match=message): start_evaluation(given)
    with pytest.raises((ValueError, FileNotFoundError), match=message): predict_rows(run)       # it changed meanwhile
    assert {f: f.read_bytes() for f in out.rglob('*') if f.is_file() and not f.name.startswith('.in-use')} == before


def test_an_older_store_of_a_clip_that_failed_is_said(one_class, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(one_class, root, symlinks=True)
    uid = split_clips(root, 'val')[0]
    note_unavailable(root / 'faces', {uid: 'its video is damaged'})
    run = start_evaluation(EvaluateSettings(data_dir=str(root), checkpoint=str(root / 'fresh.pt'), out_dir=str(tmp_path / 'val')))
    predict_rows(run)
    assert f'1 clip with the faces of an earlier preparation, as the last one failed, first: {uid} (its video is damaged)' in run.notes
    assert evaluation_metrics(run)['n_clips_outdated'] == 1
