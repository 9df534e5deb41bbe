"Ensembles: fits see other clips only, members are matched by row, and what comes from files is checked."
import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from lam_nb.command import command
from lam_nb.comparison import read_run
from lam_nb.ensembles import (
    apply_fitted, clip_folds, combine, ensemble_results, ensemble_sections, fit_stack, make_ensemble, read_fitted, smoothing_table,
    stack_inputs, start_ensemble)
from lam_nb.evaluation import lam_metrics
from lam_nb.inference import sigmoid
from lam_nb.runs import write_json
from lam_nb.settings import EnsembleSettings


def rows(clips=6, frames=60, seed=0):
    "A faces table: each clip has one track that looks a fifth of the time."
    clip, frame = np.divmod(np.arange(clips * frames), frames)
    return pd.DataFrame(dict(clip_uid=pd.Series(clip).map('clip_{}'.format), track_id='t', person_id='1', frame=frame, x1=1., y1=2., x2=70.,
                             y2=80., interpolated=False, label=(frame // 6 % 5 == 2).astype('int8')))


def member(table, knowledge=2., seed=0):
    logit = knowledge * table.label - 1 + np.random.default_rng(seed).normal(0, 1.5, len(table))
    return table.assign(logit=logit, score=sigmoid(logit))


def evaluation(folder, table, **parameters):
    folder.mkdir(parents=True)
    table.to_parquet(folder / 'predictions.parquet')
    write_json(folder / 'metrics.json', {})
    write_json(folder / 'settings.json', dict(parameters=dict(data_dir=str(folder), split='val', stride=1) | parameters, provenance={}))
    return str(folder)


@pytest.fixture
def two(tmp_path): return [evaluation(tmp_path / name, member(rows(), seed=i)) for i, name in enumerate('ab')]


def test_a_row_s_own_label_does_not_reach_its_score():
    "Turned labels of one clip change the scores of the other folds, not of its own."
    tables = [member(rows(), seed=i) for i in range(3)]
    turned = [t.assign(label=t.label.where(t.clip_uid != 'clip_2', 1 - t.label)) for t in tables]
    plain, other = (combine(given, 'stack', 0, None, 6)[0] for given in (tables, turned))                        # a fold is a clip
    own = plain.clip_uid == 'clip_2'
    assert np.allclose(plain.logit[own], other.logit[own]) and not np.allclose(plain.logit[~own], other.logit[~own])


def test_the_length_of_the_median_is_not_chosen_on_its_own_clip():
    tables = [member(rows(2, 300), seed=i) for i in range(2)]
    whole, fitted = combine(tables, 'logits', 'auto')
    first = tables[0].clip_uid == 'clip_0'
    for inside in (first, ~first):
        other = [t[~inside] for t in tables]
        chosen = combine_choice(other)
        held = [t[inside] for t in tables]
        expected = apply_fitted(held, stack_inputs(np.stack([t.logit for t in held])), dict(how='logits', stack=None, smoothing=chosen))
        assert np.array_equal(whole.score[inside], expected.score)
    assert fitted['smoothing'] > 0


def combine_choice(tables):
    "The length that these tables would choose."
    mean = apply_fitted(tables, stack_inputs(np.stack([t.logit for t in tables])), dict(how='logits', stack=None, smoothing=0))
    return int(smoothing_table(mean).idxmax())


def test_folds_are_whole_clips_with_both_classes():
    folds = clip_folds(rows(11), 5)
    table = rows(11).assign(fold=folds)
    assert (table.groupby('clip_uid').fold.nunique() == 1).all() and table.groupby('fold').label.nunique().eq(2).all()
    shuffled = rows(11).sample(frac=1, random_state=0)
    assert np.array_equal(clip_folds(shuffled, 5), folds[shuffled.index])
    with pytest.raises(ValueError, match='one clip'): combine([member(rows(1))] * 2, 'stack')


def test_unknown_sharpness_is_the_mean():
    inputs = stack_inputs(np.zeros((1, 4)), np.array([1., np.nan, 3., np.nan]))
    stack = fit_stack(inputs, np.array([0, 1, 1, 0]))
    assert np.isclose(stack['mean'][1], np.log1p([1., 3.]).mean()) and np.isfinite([*stack['weights'], stack['bias']]).all()
    nothing = fit_stack(stack_inputs(np.arange(4.)[None], np.full(4, np.nan)), np.array([0, 0, 1, 1]))
    assert np.isclose(nothing['weights'][1], 0)


def test_members_are_matched_by_row_whatever_their_order(tmp_path):
    table = member(rows())
    folders = [evaluation(tmp_path / 'a', table), evaluation(tmp_path / 'b', table.sample(frac=1, random_state=1))]
    run = start_ensemble(EnsembleSettings(runs=folders, out_dir=str(tmp_path / 'out')))
    run.show = False
    whole = make_ensemble(run)
    assert np.allclose(whole.logit, table.logit) and whole.frame.tolist() == table.frame.tolist()


@pytest.mark.parametrize('change, why', [
    (dict(label=lambda t: 1 - t.label), 'another label'), (dict(frame=lambda t: t.frame + 1), 'do not hold the same rows')])
def test_other_rows_or_labels_are_refused(tmp_path, two, change, why):
    other = evaluation(tmp_path / 'other', member(rows()).assign(**change))
    with pytest.raises(ValueError, match=why): start_ensemble(EnsembleSettings(runs=[two[0], other], out_dir=str(tmp_path / 'out')))
    assert not (tmp_path / 'out').exists()


def test_an_evaluation_without_log_odds_is_refused(tmp_path, two):
    old = evaluation(tmp_path / 'old', member(rows()).drop(columns='logit'))
    settings = EnsembleSettings(runs=[two[0], old], out_dir=str(tmp_path / 'o'))
    with pytest.raises(ValueError, match='old is no run of evaluate'): start_ensemble(settings)


MEAN = '{"how": "logits", "inputs": ["a", "b"], "stack": null, "smoothing": %s, "members": [], "clips": []}'
STACK = """{"how": "stack", "smoothing": 0, "inputs": ["a", "b"], "members": [], "clips": [],
            "stack": {"mean": [0, %s], "scale": [1, %s], "weights": [1, 1], "bias": 0}}"""


@pytest.mark.parametrize('text', [
    '', '[]', '{}', 'null', '{"how": "stack"}', MEAN.replace('logits', 'x') % 0, MEAN % 'true', MEAN % -3, MEAN % 4,
    STACK % ('NaN', 1), STACK % ('"1"', 1), STACK % ('1, 2', 1), STACK % (1, 0), STACK % (1, -1), STACK % (1, '1, 1'),
    '[' * 100_000, MEAN % 5 + ' ' * 10**7], ids=range(17))
def test_a_strange_fitted_json_is_refused(tmp_path, text):
    (tmp_path / 'fitted.json').write_text(text)
    with pytest.raises(ValueError, match='is not what ensemble.ipynb writes'): read_fitted(tmp_path, 2)
    for good in (MEAN % 5, STACK % (1, 1)):
        (tmp_path / 'fitted.json').write_text(good)
        assert read_fitted(tmp_path, 2)['inputs'] == ['a', 'b']


def test_what_cannot_be_a_member_or_a_fit_is_refused(tmp_path, two):
    "Before anything is written: an ensemble, a member of the whole's name, a folder that is read, contradictions, too few clips."
    def refused(why, **given):
        with pytest.raises(ValueError, match=why): start_ensemble(EnsembleSettings(**dict(runs=two, out_dir=str(tmp_path / 'no')) | given))
    whole = start_ensemble(EnsembleSettings(runs=two, out_dir=str(tmp_path / 'whole')))
    whole.show = False
    make_ensemble(whole)
    ensemble_results(whole)
    refused('cannot be a member', runs=[two[0], str(whole.out)])
    refused('called ensemble', names=['a', 'ensemble'])
    refused('would be replaced', out_dir=two[1])
    refused('would be replaced', out_dir=str(whole.out), fitted=str(whole.out))
    refused('fitted brings its own how', fitted=str(whole.out), how='stack')
    one = [evaluation(tmp_path / f'one{i}', member(rows()).assign(label=lambda t: t.label * (t.clip_uid == 'clip_1'))) for i in range(2)]
    refused('1 clips hold looking rows', runs=one, how='stack')
    refused('1 clips hold looking rows', runs=one, smoothing='auto')
    broken = evaluation(tmp_path / 'broken', member(rows()).assign(logit=np.nan))
    refused('broken holds log-odds that are no finite number', runs=[two[0], broken])
    secret = evaluation(tmp_path / 'secret', member(rows()).assign(label=-1))
    refused('labels are known in a only', runs=[two[0], secret])
    stride = evaluation(tmp_path / 'stride', member(rows())[::3])
    refused('evaluate them on the same split and stride', runs=[two[0], stride])
    assert not (tmp_path / 'no').exists() and (tmp_path / 'whole/predictions.parquet').exists()


def test_a_mean_of_rows_of_one_class_has_no_map(tmp_path):
    folders = [evaluation(tmp_path / f'{i}', member(rows(), seed=i).assign(label=0)) for i in range(2)]
    command(['ensemble', f'runs={",".join(folders)}', f'out_dir={tmp_path / "whole"}'])
    assert json.loads((tmp_path / 'whole/metrics.json').read_text())['mAP'] is None and (tmp_path / 'whole/report.html').exists()


def test_a_fit_for_others_is_said(tmp_path, two):
    "Other checkpoints, and clips that the fit has seen, are notes of the report."
    first = start_ensemble(EnsembleSettings(runs=two, how='stack', sharpness=False, out_dir=str(tmp_path / 'val')))
    make_ensemble(first)
    again = start_ensemble(EnsembleSettings(runs=two, fitted=str(first.out), out_dir=str(tmp_path / 'again')))
    make_ensemble(again)
    assert [note.split(' of these')[0].split('val ')[-1] for note in again.notes] == ['was fitted on 6']
    others = [evaluation(tmp_path / f'other{i}', member(rows(), seed=i), checkpoint=f'{i}.pt') for i in range(2)]
    third = start_ensemble(EnsembleSettings(runs=others, fitted=str(first.out), out_dir=str(tmp_path / 'third')))
    third.show = False
    make_ensemble(third)
    assert 'other checkpoints' in third.notes[1] and ensemble_results(third) is not None and third.metrics['notes'][-1] == third.notes[1]
    assert 'was fitted for other checkpoints' in ensemble_sections(third)[-1][1]


def test_another_split_takes_what_val_gave(tmp_path, two):
    run = start_ensemble(EnsembleSettings(runs=two, how='stack', smoothing='auto', sharpness=False, out_dir=str(tmp_path / 'val')))
    run.show = False
    make_ensemble(run)
    secret = [evaluation(tmp_path / f'secret{i}', member(rows(), seed=i).assign(label=-1)) for i in range(2)]
    other = start_ensemble(EnsembleSettings(runs=secret, fitted=str(run.out), out_dir=str(tmp_path / 'secret')))
    other.show = False
    table = make_ensemble(other)
    inputs = stack_inputs(np.stack([member(rows(), seed=i).logit for i in range(2)]))
    assert np.allclose(table.score, apply_fitted([member(rows(), seed=i) for i in range(2)], inputs, run.fitted).score)
    assert ensemble_results(other).empty and json.loads((other.out / 'metrics.json').read_text())['mAP'] is None
    assert [heading for heading, *_ in ensemble_sections(other)] == ['How they were combined']


def test_the_command_and_a_comparison_of_its_result(tmp_path, two):
    out = tmp_path / 'whole'
    command(['ensemble', f'runs={",".join(two)}', 'how=stack', 'smoothing=auto', 'sharpness=false', f'out_dir={out}'])
    assert (out / 'report.html').read_text().count('<img') == 3 and (out / 'ensemble.ipynb').exists()
    whole = read_run(out)
    assert np.isclose(lam_metrics(whole['predictions'])['mAP'], whole['metrics']['mAP'])
    assert {f.name for f in out.iterdir()} >= {'pred.csv', 'gt.csv', 'fitted.json', 'results.tex', 'settings.json'}
    command(['compare', f'runs={two[0]},{out}', f'out_dir={tmp_path / "compare"}'])
    assert (ROOT / 'nbs/ensemble.ipynb').exists() and (tmp_path / 'compare/report.html').exists()
