"The run notebooks as their users run them: headless with papermill, on a tiny sample."
import json
import re
import shutil

import nbformat
import pandas as pd
import papermill as pm
import pytest
import yaml
from conftest import ROOT

from lam_nb.faces import ClipFaces
from lam_nb.launching import train
from lam_nb.models import read_checkpoint
from lam_nb.training import TrainSettings

FAST = dict(epochs=1, batch_size=16, train_stride=5, val_stride=2, image_size=32, num_workers=0, num_processes=1)


def run(name, folder, **parameters):
    "Runs a notebook; returns its output folder."
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    given = dict(parameters, out_dir=str(out))
    pm.execute_notebook(ROOT / 'nbs' / f'{name}.ipynb', out / f'{name}.ipynb', given, cwd=ROOT, progress_bar=False)
    return out


@pytest.fixture(scope='module')
def runs(sample, tmp_path_factory):
    "The first three in order, with two evaluations, and a video."
    work = tmp_path_factory.mktemp('runs')
    data = dict(data_dir=str(sample), faces_dir=str(work / 'faces'))
    out = {'prepare': run('prepare', work, **data, splits=['train', 'val', 'test'], workers=2)}
    out['train'] = run('train', work, **data, **FAST)
    checkpoint = str(out['train'] / 'checkpoints' / 'best.pt')
    out['val'] = run('evaluate', work / 'val', **data, checkpoint=checkpoint, num_workers=0)
    out['test'] = run('evaluate', work / 'test', **data, checkpoint=checkpoint, num_workers=0, split='test', smoothing=3, flip=True)
    out['video'] = run('video', work, video=str(sample), checkpoint=checkpoint)
    return out


@pytest.mark.parametrize('name, files', [
    ('prepare', ['summary.json', 'skipped.csv']),
    ('train', ['history.csv', 'metrics.json', 'checkpoints/last.pt', 'checkpoints/best.pt']),
    ('val', ['pred.csv', 'gt.csv', 'predictions.parquet', 'metrics.json']),
    ('test', ['pred.csv', 'submission.json', 'predictions.parquet', 'metrics.json']),
    ('video', ['faces.csv', 'looks.csv', 'tracks.csv', 'overlay.mp4', 'detections.parquet', 'predictions.parquet', 'metrics.json'])])
def test_each_leaves_what_the_contract_names(runs, name, files):
    folder = runs[name]
    assert not [f for f in [*files, 'settings.json', 'report.html'] if not (folder / f).stat().st_size]
    figures = list((folder / 'figures').glob('*.png'))
    assert figures and all(f.with_suffix('.svg').exists() for f in figures)
    assert (folder / 'report.html').read_text().count('src="data:image/webp;base64') >= 2
    assert next(folder.glob('*.ipynb')).stat().st_size < 3e6


@pytest.mark.parametrize('name, least', [('prepare', 4), ('train', 3), ('val', 15), ('test', 15), ('video', 2)])
def test_figures_are_seen_in_the_notebook(runs, name, least):
    cells = nbformat.read(next(runs[name].glob('*.ipynb')), 4).cells
    assert sum('image/png' in o.get('data', {}) for c in cells for o in c.get('outputs', [])) >= least


def test_metrics_hold_what_the_contract_names(runs, sample):
    metrics = json.loads((runs['val'] / 'metrics.json').read_text())
    assert metrics['made_up'] is True
    names = 'mAP AP_looking AP_not_looking accuracy confusion n_rows n_positive split stride checkpoint seconds'
    assert set(names.split()) <= set(metrics)
    assert metrics['n_rows'] == len(pd.read_parquet(runs['val'] / 'predictions.parquet')) == sum(map(sum, metrics['confusion']))
    assert 0 <= metrics['mAP'] <= 1 and metrics['split'] == 'val'


@pytest.mark.parametrize('name, headings', [
    ('prepare', ['Splits', 'Faces', 'Left out', 'Label audit', 'Clips', 'Settings']),
    ('train', ['Training curves', 'The data', 'Throughput', 'All epochs', 'How to repeat it', 'Settings']),
    ('val', ['At a glance', 'How sure are these numbers?', 'Decisions', 'Where does it work?', 'Errors in time',
             'True positives', 'False positives', 'False negatives', 'True negatives', 'Along further tracks', 'Published numbers',
             'All metrics', 'Settings']),
    ('video', ['Who looks, and when', 'How far to trust it', 'Looks', 'Tracks', 'Time', 'Settings'])])
def test_reports_have_their_sections_in_order(runs, name, headings):
    assert re.findall('<h2>(.*?)</h2>', (runs[name] / 'report.html').read_text()) == headings


def test_submission_has_every_crop(runs, sample):
    submission = json.loads((runs['test'] / 'submission.json').read_text())
    crops = {p.stem.split('_', 1)[1] for p in (sample / 'videos_challenge').glob('*/*/*.jpg')}
    assert {r['unique_id'] for r in submission['results']} == crops and len(submission['results']) == len(crops)


def test_no_progress_floods_the_report(runs):
    for folder in runs.values():
        for cell in nbformat.read(next(folder.glob('*.ipynb')), 4).cells:
            assert all(len(o.get('text', '')) < 5000 for o in cell.get('outputs', []))


@pytest.mark.parametrize('name, wrong, words', [
    ('prepare', dict(split=['val']), "did you mean 'splits'?"),
    ('train', dict(epochs='five'), 'epochs'),
    ('evaluate', dict(stride=0), 'stride')])
def test_wrong_parameters_are_refused_before_anything_runs(tmp_path, name, wrong, words):
    with pytest.raises(pm.PapermillExecutionError) as error: run(name, tmp_path, **wrong)
    assert words in error.value.evalue and 'did not start' in error.value.evalue
    assert not (tmp_path / name / 'settings.json').exists()


def test_missing_faces_say_what_to_do(sample, tmp_path):
    with pytest.raises(pm.PapermillExecutionError, match='run prepare.ipynb'):
        run('train', tmp_path, data_dir=str(sample), faces_dir=str(tmp_path / 'none'), **FAST)


def test_ego4d_mini(mini, tmp_path):
    "The notebooks on MP4 files and annotations that this project did not make; that folder is only read."
    out = run('prepare', tmp_path, data_dir=str(mini), faces_dir=str(tmp_path / 'faces'), splits=['train', 'val', 'test'], image_size=64)
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['faces'] == 1341 + 447 + 147 and summary['status'] == {'made': 8}


def test_the_official_recipe_takes_a_step_at_full_size(runs, sample, tmp_path):
    "recipes/official.yaml on 224-pixel faces: the few windows of one clip are one step of its batch of 64. It asks for a GPU."
    recipe, faces = yaml.safe_load((ROOT / 'nbs/recipes/official.yaml').read_text()), runs['prepare'].parent / 'faces'
    data = shutil.copytree(sample, tmp_path / 'data', ignore=shutil.ignore_patterns('faces', 'video*'))
    first = (data / 'split/train.list').read_text().split()[0]
    (data / 'split/train.list').write_text(first + '\n')
    s = TrainSettings(**recipe | dict(data_dir=str(data), faces_dir=str(faces), out_dir=str(tmp_path / 'out'), epochs=1))
    with pytest.raises(ValueError, match='device = cuda, but there is no GPU to compute on'): train(s)
    assert not (tmp_path / 'out').exists()
    train(s.model_copy(update=dict(device='cpu')))
    saved = read_checkpoint(tmp_path / 'out/checkpoints/last.pt')
    steps = {int(s['step']) for s in saved['optimizer']['state'].values()}
    assert steps == {1} and saved['settings']['train_stride'] == 3 and saved['history'][0]['lr'] == 5e-4
    assert ClipFaces(faces / f'{first}.arrow').about['image_size'] == 224
