"The sections of the reports: their order, what they hold, and what they say where something is lacking."
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lam_nb import comparison_report, evaluation_report, preparation_report, training_report
from lam_nb.annotations import load_faces, split_clips
from lam_nb.evaluation_report import Evaluation, evaluation_facts, evaluation_lead, evaluation_metrics, evaluation_sections
from lam_nb.models import BaselineLSTM, save_checkpoint
from lam_nb.settings import CompareSettings, PrepareSettings
from lam_nb.preparation_report import Preparation
from lam_nb.runs import write_json
from lam_nb.scoring import EvaluateSettings
from lam_nb.training import TrainSettings
from lam_nb.training_report import Training

HEADINGS = ['At a glance', 'How sure are these numbers?', 'Decisions', 'Where does it work?', 'Errors in time', 'True positives',
            'False positives', 'False negatives', 'True negatives', 'Along further tracks', 'Published numbers', 'All metrics', 'Settings']


def headings(sections):
    return [heading for heading, *_ in sections]


def check_items(sections):
    "Each section is text, text and items that `write_report` takes; each figure is there as PNG, SVG and PDF, with a caption."
    for heading, text, *items in sections:
        assert heading and isinstance(text, str)
        for item in items:
            item, caption = item if isinstance(item, tuple) else (item, '')
            assert isinstance(item, (Path, pd.DataFrame, dict, str)) and isinstance(caption, str)
            if not isinstance(item, Path): continue
            assert item.exists() and item.with_suffix('.svg').exists() and item.with_suffix('.pdf').exists()
            assert caption.endswith('.') and len(caption.split()) > 5, f'{item.name}: {caption!r}'


def rows_of(sample, knowledge=3.):
    "The rows of val with scores that depend on their labels, more or less."
    rows, _ = load_faces(sample, 'val')
    logit = knowledge * rows.label - 2 + np.random.default_rng(0).normal(0, 1.5, len(rows))
    return rows.assign(logit=logit, score=1 / (1 + np.exp(-logit)))


def evaluation(sample, out, rows, **fields):
    "An evaluation of these rows, with its metrics."
    run = Evaluation(EvaluateSettings(data_dir=str(sample), checkpoint='a/checkpoints/best.pt'), out, rows, show=False, **fields)
    run.metrics = evaluation_metrics(run)
    return run


# Evaluation

def test_all_sections_in_their_order(sample, tmp_path):
    run = evaluation(sample, tmp_path, rows_of(sample), seconds=31.23456789012345)
    sections = evaluation_sections(run)
    assert headings(sections) == HEADINGS
    check_items(sections)
    names = {png.stem for png in (tmp_path / 'figures').glob('*.png')}
    assert names >= {'intervals', 'precision_recall', 'calibration', 'score_histogram', 'roc', 'confusion_matrix', 'confusion_best',
                     'around_borders', 'timeline_1', 'timeline_2', 'timeline_3', 'gallery_TP', 'gallery_FP', 'gallery_FN', 'gallery_TN'}
    assert sum(name.startswith('slice_') for name in names) >= 5
    check_page(evaluation_report.write_evaluation(run, sections).read_text())


def check_page(html):
    "Nothing of 16 digits, no dict or list as JSON, each figure numbered, whole ids only in titles, a small file."
    seen = re.sub(r'<[^>]*>', ' ', html[html.index('</head>'):])
    assert not re.search(r'\d\.\d{7}|[{}]|\[\[', seen) and not re.search(r'\b[0-9a-f]{8}-[0-9a-f]{4}', seen)
    numbers = [int(n) for n in re.findall(r'Figure (\d+)\.', seen)]
    assert numbers == [*range(1, html.count('<img') + 1)] and len(numbers) > 15
    assert 'false_negatives' in seen and len(html) < 1.5e6


def test_without_labels_only_what_needs_none(sample, tmp_path):
    sections = evaluation_sections(run := evaluation(sample, tmp_path, rows_of(sample).assign(label=-1)))
    assert headings(sections) == ['At a glance', 'Along further tracks', 'Published numbers', 'All metrics', 'Settings']
    assert evaluation_facts(run)['mAP'] == 'not defined' and 'labels of this split are not known' in sections[0][1]
    assert evaluation_report.save_tables(run) == [] and not (tmp_path / 'slices.csv').exists()


@pytest.mark.parametrize('label', [0, 1])
def test_one_class_is_said_and_drawn(sample, tmp_path, label):
    run = evaluation(sample, tmp_path, rows_of(sample).assign(label=label))
    sections = evaluation_sections(run)
    check_items(sections)
    assert headings(sections) == HEADINGS and run.metrics['mAP'] is None and run.metrics['fitted_temperature'] is None
    assert evaluation_facts(run)['mAP'] == 'not defined' and 'none of the' in sections[0][1]


def test_fewer_than_five_clips_have_no_interval_in_the_facts(sample, tmp_path):
    assert list(evaluation_facts(evaluation(sample, tmp_path, rows_of(sample))))[0] == 'mAP'


def test_a_threshold_of_ones_own_is_named(sample, tmp_path):
    run = evaluation(sample, tmp_path, rows_of(sample), threshold=0.3, temperature=2.)
    assert run.points.index[0] == 'as given' and 'accuracy at 0.3' in evaluation_facts(run)
    assert 'at stride 1, temperature 2.' in evaluation_lead(run)


def test_the_lead_names_the_checkpoint_and_its_run(sample, tmp_path):
    file = tmp_path / 'outputs/first/checkpoints/best.pt'
    file.parent.mkdir(parents=True)
    save_checkpoint(file, BaselineLSTM(), image_size=64, epoch=7)
    words = lambda **given: evaluation_lead(Evaluation(EvaluateSettings(data_dir=str(sample), **given), tmp_path, show=False))
    assert words(checkpoint=str(file)).startswith('best.pt of run first (epoch 7), on the val split of ')
    assert words(checkpoint='gone/best.pt').startswith('best.pt in gone, on the val split of ')
    assert 'an ensemble of 2 checkpoints (best.pt of run first (epoch 7); b.pt in gone), on' in words(checkpoints=[str(file), 'gone/b.pt'])


def test_the_report_says_what_is_made_up_and_what_head_pose_alone_is(sample, tmp_path):
    run = evaluation(sample, tmp_path, rows_of(sample))
    html = evaluation_report.write_evaluation(run, evaluation_report.overview_sections(run)).read_text()
    assert '<p class="note"><b>Made-up data (drawn heads): these numbers say nothing about Ego4D.</b></p>' in html
    value = f'{run.metrics["pose_only"]["mAP"]:.3f}'
    assert f'<b>{value}</b><span>mAP by head pose alone</span><small>of a classifier that sees only the true pose' in html
    assert f'By head pose alone: mAP {value} of a classifier that sees only' in html
    unlabelled = evaluation(sample, tmp_path, rows_of(sample).assign(label=-1))
    assert 'head pose alone' not in evaluation_report.overview_sections(unlabelled)[0][1]


def test_a_threshold_from_a_file_is_converted_before_the_file_is_removed(sample, tmp_path):
    save_checkpoint(tmp_path / 'untrained.pt', BaselineLSTM(), image_size=64)
    older = dict(parameters=dict(split='val'), provenance=dict(versions=dict(lam_nb='0.2.0')))
    write_json(tmp_path / 'settings.json', older)
    write_json(tmp_path / 'metrics.json', dict(best_threshold=.4, fitted_temperature=2., temperature=1., split='val'))
    (tmp_path / 'parts').mkdir()
    (tmp_path / 'parts' / 'clip').write_text('finished')
    (tmp_path / 'mine.txt').write_text('not of a run')
    own = str(tmp_path / 'metrics.json')
    run = evaluation_report.start_evaluation(EvaluateSettings(
        data_dir=str(sample), checkpoint=str(tmp_path / 'untrained.pt'), out_dir=str(tmp_path), threshold=own, temperature=own))
    assert run.temperature == 2 and abs(run.threshold - 1 / (1 + (.6 / .4) ** .5)) < 1e-6 and (tmp_path / 'metrics.json').exists()
    evaluation_report.predict_rows(run)
    assert not (tmp_path / 'metrics.json').exists() and (tmp_path / 'parts/clip').exists() and (tmp_path / 'mine.txt').exists()
    assert any('chosen on these very rows' in note for note in run.notes)


def test_a_figure_of_ones_own_is_one_line(sample, tmp_path):
    run = evaluation(sample, tmp_path, rows_of(sample))
    sections = evaluation_report.all_metrics_sections(run)
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1])
    sections.append(('My figure', 'What it shows.', figure))
    page = evaluation_report.write_evaluation(run, sections).read_text()
    assert 'My figure' in page and page.count('<img') == 1


# Preparation

def prepared(sample, tmp_path, **given):
    "A run of prepare on the sample, without its report."
    settings = PrepareSettings(**dict(data_dir=str(sample), faces_dir=str(tmp_path / 'faces'), out_dir=str(tmp_path / 'out'),
                                      image_size=32, workers=1, splits=['val']) | given)
    run = preparation_report.start_preparation(settings)
    run.show = False
    preparation_report.read_faces(run)
    preparation_report.make_faces(run)
    preparation_report.save_preparation(run)
    return run


def test_skipped_csv_has_no_empty_rows(sample, tmp_path):
    run = prepared(sample, tmp_path)
    skipped = pd.read_csv(run.out / 'skipped.csv', dtype=dict(track_id=str))
    assert len(skipped) == len(run.skipped) and skipped[['split', 'clip_uid', 'reason', 'count']].notna().all(axis=None)


def test_notes_of_clips_are_in_skipped_csv(sample, tmp_path):
    run = prepared(sample, tmp_path)
    run.made.loc[0, 'notes'] = 'no sound'
    lost = preparation_report._lost_in_clips(run)
    assert lost.reason.tolist() == ['no sound'] and lost['count'].tolist() == [1]


def test_kept_clips_have_no_rate_and_no_estimate(sample, tmp_path):
    assert 'rate' in preparation_report.preparation_facts(prepared(sample, tmp_path))
    again = prepared(sample, tmp_path)
    assert set(again.made.status) == {'kept'} and 'faces_per_s' not in json.loads((again.out / 'summary.json').read_text())
    facts = preparation_report.preparation_facts(again)
    assert 'rate' not in facts and 'Ego4D (train, val) at this rate' not in facts


def test_challenge_crops_alone(sample, tmp_path):
    run = prepared(sample, tmp_path, splits=['test'])
    sections = preparation_report.preparation_sections(run)
    check_items(sections)
    assert headings(sections) == ['Splits', 'Faces', 'Left out', 'Label audit', 'Clips', 'Settings'] and len(sections[0]) == 3


def test_the_report_of_a_preparation_says_what_it_is_of(sample, tmp_path):
    run = prepared(sample, tmp_path)
    html = preparation_report.write_preparation(run, preparation_report.preparation_sections(run)).read_text()
    assert 'Run out: faces of val in ' in html and 'Made-up data (drawn heads)' in html


def test_many_clips_are_folded(sample, tmp_path):
    run = prepared(sample, tmp_path)
    run.made = pd.concat([run.made] * 400, ignore_index=True).head(572)
    html = preparation_report.write_preparation(run, preparation_report.clip_sections(run)).read_text()
    assert '<summary>572 rows</summary>' in html


def test_a_frame_offset_of_ones_own_is_compared_as_such(sample, tmp_path, capsys):
    run = prepared(sample, tmp_path, frame_offset=2, check_alignment=True)
    sections = preparation_report.alignment_sections(run)
    if not sections: assert 'long enough' in capsys.readouterr().out
    else: assert 'in use is 2' in sections[0][1] and 'your own' in sections[0][1]


def test_the_default_sample_is_known_by_its_settings():
    assert not Preparation(PrepareSettings(data_dir='elsewhere'), Path('out')).is_sample


# Training

def trained(sample, out, seeds=None):
    "What a training of two epochs would leave."
    history = pd.DataFrame(dict(
        epoch=[1, 2], train_loss=[.5, .4], val_loss=[.6, .5], mAP=[.5, .7], AP_looking=[.4, .6], AP_not_looking=[.6, .8], accuracy=[.7, .8],
        windows_per_s=[100., 120.], seconds=[30., 31.], data_wait=[.5, .1], memory_gb=[1., 1.2]))
    rows = []
    for seed in seeds or [0]:
        folder = out / f'seed-{seed}' if seeds else out
        folder.mkdir(parents=True, exist_ok=True)
        history.assign(mAP=history.mAP + seed / 10).to_csv(folder / 'history.csv', index=False)
        rows.append(dict(seed=seed, **history.iloc[-1].to_dict(), epochs=2, processes=1, device='cpu', best_checkpoint='best.pt'))
        rows[-1] |= dict(mAP=.7 + seed / 10, epoch=2)
    write_json(out / 'settings.json', dict(parameters={}, provenance=dict(commit='0123abc')))
    return Training(TrainSettings(data_dir=str(sample), out_dir=str(out), seeds=seeds), out, pd.DataFrame(rows), show=False)


@pytest.mark.parametrize('seeds, first, value', [(None, 'Training curves', '0.700'), ([1, 2], 'Seeds', '0.850 ± 0.071')])
def test_training_report_of_one_run_and_of_seeds(sample, tmp_path, seeds, first, value):
    run = trained(sample, tmp_path, seeds)
    sections = training_report.training_sections(run)
    check_items(sections)
    assert headings(sections)[0] == first and headings(sections)[-2:] == ['How to repeat it', 'Settings']
    facts = training_report.training_facts(run)
    assert facts['best val mAP'] == value and facts['best epoch'] == '2 of 2' and facts['waiting for data'] == '30%'
    html = training_report.write_training(run, sections).read_text()
    assert 'over seeds' in html or not seeds
    assert f'best.pt{" of seed 2" if seeds else ""} is of epoch 2.' in html and 'Made-up data (drawn heads)' in html


def test_a_small_learning_rate_is_seen(sample, tmp_path):
    run = trained(sample, tmp_path)
    run.history.assign(lr=[1e-4, 1e-6], seconds=[30.123456789, 31.]).to_csv(tmp_path / 'history.csv', index=False)
    del run.histories
    html = training_report.write_training(run, training_report.epoch_sections(run)).read_text()
    assert '>0.0001<' in html and '>1e-6<' in html and '>1<' in html and '0.0000' not in html


def test_provenance_is_rows(sample, tmp_path):
    run = trained(sample, tmp_path)
    about = dict(commit='0123abc', versions=dict(torch='2.15.0', numpy='2.4.6'))
    write_json(tmp_path / 'settings.json', dict(parameters={}, provenance=about))
    html = training_report.write_training(run, training_report.repeat_sections(run)).read_text()
    assert '>torch</td><td>2.15.0</td>' in html and '>numpy</td><td>2.4.6</td>' in html


# Comparison

def compared(sample, tmp_path, tables, **settings):
    "A comparison of made-up evaluations."
    for name, rows in tables.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rows.to_parquet(folder / 'predictions.parquet')
        write_json(folder / 'metrics.json', dict(mAP=.5))
        write_json(folder / 'settings.json', dict(parameters=dict(data_dir=str(sample), split='val', stride=1), provenance={}))
    run = comparison_report.start_comparison(CompareSettings(
        runs=[str(tmp_path / name) for name in tables], out_dir=str(tmp_path / 'out'), draws=100, strips=2, **settings))
    run.show = False
    return run


def test_the_lead_of_a_comparison_names_checkpoints(sample, tmp_path):
    run = compared(sample, tmp_path, dict(a=rows_of(sample), b=rows_of(sample)))
    run.runs[0]['parameters'] |= dict(checkpoint='outputs/first/checkpoints/best.pt')
    run.runs[1]['parameters'] |= dict(checkpoints=['x/a.pt', 'x/b.pt'], temperature=1.2345678901234567)
    html = comparison_report.write_comparison(run, comparison_report.difference_sections(run)).read_text()
    assert 'a (best.pt of run first, val at stride 1); b (a.pt in x, b.pt in x, val at stride 1). Differences are to a.' in html
    assert 'Made-up data (drawn heads)' in html and '>1.23457<' in html and '1.2345678' not in html


def test_equal_runs_agree_on_all_rows(sample, tmp_path):
    run = compared(sample, tmp_path, dict(a=rows_of(sample), b=rows_of(sample)))
    sections = comparison_report.comparison_sections(run)
    check_items(sections)
    assert headings(sections) == ['At a glance', 'Which settings differ?', 'Metrics', 'Who is right where they disagree?', 'Settings']
    assert sections[3][1] == 'They agree on all rows.' and run.differences['b'].value['mAP'] == 0
    assert json.loads(comparison_report.save_comparison(run).read_text())['rows'] == len(rows_of(sample))


def test_a_difference_is_never_shown_without_its_interval(sample, tmp_path, capsys):
    rows = pd.concat([rows_of(sample).assign(clip_uid=f'clip {i}') for i in range(6)], ignore_index=True)
    better = rows.assign(score=.7 * rows.score + .3 * rows.label * (rows.clip_uid != 'clip 1'))
    run = compared(sample, tmp_path, dict(a=rows, b=better))
    gain = run.differences['b'].loc['mAP']
    text = f'{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})'
    report = comparison_report.write_comparison(run, []).read_text()
    assert 'mAP, b minus a (95 % interval)' in report and text in report and gain.low < gain.value < gain.high
    said = capsys.readouterr().out
    assert f'mAP, b minus a (95 % interval): {text}' in said and 'draws = 100 was not used' in said
    few = comparison_report._facts(compared(sample, tmp_path / 'few', dict(a=rows_of(sample), b=rows_of(sample, 5.))))
    assert '(' not in few['mAP, b minus a (no interval)']


def test_without_strips_no_galleries(sample, tmp_path):
    run = compared(sample, tmp_path, dict(a=rows_of(sample), b=rows_of(sample, 5.)))
    run.settings = run.settings.model_copy(update=dict(strips=0))
    assert len(comparison_report.disagreement_sections(run)) == 1


def test_trainings_alone(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        pd.DataFrame(dict(epoch=[1, 2], train_loss=[.5, .4], val_loss=[.6, .5], mAP=[.5, .7])).to_csv(tmp_path / name / 'history.csv')
        for file in ('metrics.json', 'settings.json'): write_json(tmp_path / name / file, {})
    run = comparison_report.start_comparison(CompareSettings(runs=[str(tmp_path / n) for n in 'ab'], out_dir=str(tmp_path / 'out')))
    run.show = False
    sections = comparison_report.comparison_sections(run)
    assert headings(sections) == ['At a glance', 'Which settings differ?', 'Metrics', 'Settings'] and run.first is None
    assert comparison_report.save_results(run).empty and not (tmp_path / 'out/results.csv').exists()
    made = json.loads(comparison_report.save_comparison(run).read_text())
    assert made == dict(first=None, rows=0, metrics={}, differences={})


def test_sample_lists_are_the_clips_of_a_preparation(sample):
    run = Preparation(PrepareSettings(data_dir=str(sample), splits=['val', 'test']), Path('out'))
    assert run.listed == dict(val=split_clips(sample, 'val'))
