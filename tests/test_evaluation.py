"Evaluation: the official metric against an independent implementation and against stored official results; files, submission, intervals."
import json
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lam_nb.evaluation import (
    _metrics_without_each, average_precision, binary_metrics, bootstrap_by_clip, compare_by_clip, intervals_by_clip,
    jackknife_interval, lam_metrics, metrics_by, tie_range)
from lam_nb.predictions import (
    check_submission, make_submission, read_official, read_submission, add_labels, write_official,
    write_submission)
from lam_nb.decisions import (
    best_threshold, border_distance, border_profile, error_runs, fitted_notes, operating_points,
    segment_metrics, threshold_at)

HERE = Path(__file__).parent
MINI = HERE.parents[1] / 'shared' / 'ego4d_mini'
needs_mini = pytest.mark.skipif(not MINI.exists(), reason=f'the reference data set {MINI} is not on this machine')
score = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1, width=32), st.floats(1e-20, 1e-15))
rows = st.lists(st.tuples(st.integers(0, 1), score), min_size=1, max_size=60)


def table(labels, scores, clips=3, **columns):
    "A predictions table of rows spread over clips."
    i = np.arange(len(labels))
    values = dict(clip_uid=[f'clip{k % clips}' for k in i], track_id='track', person_id='1', frame=i, x1=1.1, y1=2.2, x2=30.3, y2=40.4,
                  label=np.asarray(labels, 'int8'), interpolated=False, score=np.asarray(scores, float))
    return pd.DataFrame(values | columns)


def random_table(n=300, seed=0, clips=3, **columns):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.2).astype(int)
    return table(labels, np.clip(0.4 * labels + 0.6 * rng.random(n), 0, 1), clips, **columns)


def challenge_table(n=40):
    t = random_table(n, x1=np.nan, y1=np.nan, x2=np.nan, y2=np.nan)
    return t.assign(unique_id=[f'{i:08x}' for i in range(n)], label=np.int8(-1))


def slow_ap(labels, scores):
    "The definition, in exact fractions: every row of the class adds 1/P times the best precision at its recall or beyond."
    ranked = [y for _, y in sorted(zip(scores, labels), key=lambda row: -row[0])]      # sorted() is stable
    total = sum(ranked)
    if not total: return None
    precision = [Fraction(sum(ranked[:k]), k) for k in range(1, len(ranked) + 1)]
    return float(sum(Fraction(1, total) * max(precision[k:]) for k, y in enumerate(ranked) if y))


@given(rows)
@settings(max_examples=400, deadline=None)
def test_average_precision_equals_the_definition(rows):
    labels, scores = zip(*rows)
    ours, slow = average_precision(labels, scores), slow_ap(labels, scores)
    assert np.isnan(ours) if slow is None else abs(ours - slow) < 1e-12


@given(rows)
@settings(max_examples=200, deadline=None)
def test_metrics_equal_the_definition(rows):
    labels, scores = zip(*rows)
    m = lam_metrics(table(labels, scores))
    aps = [slow_ap(labels, scores), slow_ap([1 - y for y in labels], [1 - s for s in scores])]
    assert (m['mAP'] is None) == (None in aps)
    if m['mAP'] is not None: assert abs(m['mAP'] - sum(aps) / 2) < 1e-12
    (tn, fp), (fn, tp) = m['confusion']
    assert (tp + fn, tn + fp) == (sum(labels), len(labels) - sum(labels))
    assert tp == sum(y for y, s in rows if s >= 0.5) and abs(m['accuracy'] - (tp + tn) / len(rows)) < 1e-15
    json.dumps(m, allow_nan=False)


@given(rows, st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_another_task_has_the_same_metrics_under_its_own_names(rows, threshold):
    labels, scores = zip(*rows)
    own, official = binary_metrics(labels, scores, ('no', 'yes'), threshold), lam_metrics(table(labels, scores), threshold)
    rename = dict(AP_yes='AP_looking', AP_no='AP_not_looking', sklearn_AP_yes='sklearn_AP_looking')
    renamed = {rename.get(k, k): v for k, v in own.items()}
    assert renamed | dict(notes=0) == {k: v for k, v in official.items() if k != 'n_clips'} | dict(notes=0)
    assert len(own['notes']) == len(official['notes']) and not [n for n in own['notes'] if 'looking' in n]
    assert list(official) == ['mAP', 'AP_looking', 'AP_not_looking', 'accuracy', 'confusion', 'threshold', 'n_rows', 'n_positive',
                              'n_clips', 'sklearn_AP_looking', 'notes']


@given(rows, st.randoms())
@settings(max_examples=200, deadline=None)
def test_every_order_of_ties_lies_in_the_range(rows, random):
    low, high = tie_range(*zip(*rows))
    random.shuffle(rows)
    value = average_precision(*zip(*rows))
    assert np.isnan(value) and np.isnan(low) if not any(y for y, _ in rows) else low - 1e-12 <= value <= high + 1e-12


@given(rows)
@settings(max_examples=150, deadline=None)
def test_the_metrics_without_a_clip_are_those_of_the_other_clips(rows):
    t = table(*zip(*rows))
    names, without = sorted(t.clip_uid.unique()), _metrics_without_each(t, 0.5)
    for i, name in enumerate(names if len(names) > 1 else []):
        expected = lam_metrics(t[t.clip_uid != name])
        for metric, values in without.items():
            assert np.isclose(values[i], np.nan if expected[metric] is None else expected[metric], atol=1e-12, equal_nan=True)


@given(rows)
@settings(max_examples=300, deadline=None)
def test_the_ap_of_scikit_learn_is_never_higher(rows):
    m = lam_metrics(table(*zip(*rows)))
    assert m['AP_looking'] is None or m['sklearn_AP_looking'] <= m['AP_looking'] + 1e-12


@pytest.mark.parametrize('case', json.loads((HERE / 'reference' / 'metric_cases.json').read_text()))
def test_official_results(case):
    m = lam_metrics(table(case['labels'], case['scores']))
    for name in ('AP_looking', 'AP_not_looking'):
        assert m[name] is None if case[name] is None else abs(m[name] - case[name]) < 1e-12
    assert abs(100 * m['accuracy'] - case['accuracy_percent']) <= 5.001e-4


@needs_mini
def test_official_files_give_the_official_figures(tmp_path):
    t = read_official(MINI / 'official' / 'val.stride1.gt.csv', MINI / 'official' / 'val.stride1.pred.csv')
    m = lam_metrics(t)
    assert abs(m['mAP'] - 0.6122728409423952) < 1e-9
    assert abs(m['AP_not_looking'] - 0.906406493145214) < 1e-9 and abs(m['AP_looking'] - 0.31813918873957636) < 1e-9
    gt, pred = write_official(t, tmp_path)
    for ours, theirs in ((gt, 'val.stride1.gt.csv'), (pred, 'val.stride1.pred.csv')):
        assert sorted(ours.read_text().split()) == sorted((MINI / 'official' / theirs).read_text().split())
    assert lam_metrics(read_official(gt, pred)) == m


@needs_mini
def test_official_challenge_file_can_be_submitted_and_scored(tmp_path):
    predictions = read_submission(MINI / 'official' / 'test.pred.csv')
    labelled = add_labels(predictions, MINI / 'test_truth.csv')
    file = write_submission(predictions, tmp_path / 'submission.json', labelled)
    assert lam_metrics(add_labels(read_submission(file), MINI / 'test_truth.csv')) == lam_metrics(labelled)
    assert set(labelled.label) == {0, 1} and (labelled.frame > 0).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-1e6, 1e6)), min_size=1, max_size=20),
       st.sampled_from(['1', 'a,b', 'NA', 'é"x"', '007']))
@settings(max_examples=60, deadline=None)
def test_files_return_the_same_bits_and_ids(tmp_path_factory, rows, track):
    scores, x = zip(*rows)
    t = table([0] * len(rows), scores, track_id=track, x1=np.asarray(x))
    again = read_official(*write_official(t, tmp_path_factory.mktemp('csv')))
    assert (again.score == t.score).all() and (again.x1 == t.x1).all() and (again.track_id == track).all()


def test_repeated_rows_are_dropped_and_counted(tmp_path):
    t = random_table(20)
    gt, pred = write_official(t, tmp_path)
    pred.write_text(pred.read_text() + pred.read_text().splitlines()[4].rsplit(',', 1)[0] + ',0.123\n')
    with pytest.warns(UserWarning, match='1 of 21 rows repeat'): again = read_official(gt, pred)
    assert (again.score == t.score).all()                                               # the first is kept


def edit(line, field, value):
    cells = line.split(',')
    cells[field] = value
    return ','.join(cells)


@pytest.mark.parametrize('change, message', [
    (lambda s: s[:-1], r'1 of 20 rows are in gt.csv but not in pred.csv'),
    (lambda s: [*s, edit(s[0], 1, '99')], r'1 of 21 rows are in pred.csv but not in gt.csv'),
    (lambda s: [edit(s[0], 3, '2.200001'), *s[1:]], r'1 of 20 rows have different boxes'),
    (lambda s: [edit(s[0], 3, ''), *s[1:]], r'1 of 20 rows have different boxes'),
    (lambda s: [edit(s[0], 8, 'nan'), *s[1:]], r'1 of 20 rows have a score that is no finite number'),
    (lambda s: [edit(s[0], 8, 'high'), *s[1:]], r"column score: could not convert string to float: 'high'"),
    (lambda s: [edit(s[0], 7, '0'), *s[1:]], r'have no 1 before the score'),
    (lambda s: [edit(s[0], 1, '1.5'), *s[1:]], r'column frame'),
    (lambda s: ['clip,frame,x1,y1,x2,y2,track,label,score', *s], r'column frame.*without header'),
    (lambda s: [r.rsplit(',', 1)[0] for r in s], r'has 8 columns, expected 9'),
    (lambda s: [s[0], s[1] + ',7'], r'cannot be read'),
    (lambda s: [], r'cannot be read'),
])
def test_files_that_do_not_fit_are_refused(tmp_path, change, message):
    gt, pred = write_official(random_table(20), tmp_path)
    pred.write_text(''.join(line + '\n' for line in change(pred.read_text().splitlines())))
    with pytest.raises(ValueError, match=message): read_official(gt, pred)


@pytest.mark.parametrize('change, message', [
    (lambda t: t.assign(score=t.score.where(t.index != 3)), '1 of 40 rows have a score that is no finite number. First: clip_uid=clip0'),
    (lambda t: t.assign(score=t.score * 3 - 1), 'score outside 0..1'),
    (lambda t: t.assign(label=t.label.where(t.index != 3, 2)), '1 of 40 rows have a label other than 0 and 1'),
    (lambda t: pd.concat([t, t[:2]]), '2 of 42 rows repeat an earlier row'),
    (lambda t: t.drop(columns='label'), r"lacks the columns \['label'\]"),
    (lambda t: t[:0], 'nothing to evaluate'),
])
def test_tables_that_cannot_be_evaluated_are_refused(change, message):
    t = change(random_table(40))
    for function in (lam_metrics, intervals_by_clip, best_threshold):
        with pytest.raises(ValueError, match=message): function(t)


def test_one_class_is_stated_not_computed():
    t = random_table(40).assign(label=0)
    m = lam_metrics(t)
    assert m['mAP'] is None and m['AP_looking'] is None and m['AP_not_looking'] == 1.0 and len(m['notes']) == 1
    intervals = intervals_by_clip(t)
    assert intervals.loc['mAP', ['value', 'low', 'high']].isna().all()


def test_intervals_are_paired_when_models_are_compared():
    a = random_table(600, clips=12)
    b = a.assign(score=0.9 * a.score + 0.1 * a.label)
    apart = intervals_by_clip(a), intervals_by_clip(b)
    gain = compare_by_clip(a, b.sample(frac=1, random_state=0))
    assert (gain.low[['mAP', 'AP_looking']] > 0).all() and gain.loc['mAP', 'note'] == ''
    assert gain.loc['mAP', 'high'] - gain.loc['mAP', 'low'] < apart[0].loc['mAP', 'high'] - apart[0].loc['mAP', 'low']
    with pytest.raises(ValueError, match='different labels'): compare_by_clip(a, b.assign(label=1 - b.label))


@pytest.mark.parametrize('balanced', [False, True])
def test_best_threshold_is_the_best_of_all(balanced):
    t = random_table(60, seed=3)
    t['score'] = t.score.round(1)
    weight = np.where(t.label == 1, (t.label == 0).sum(), (t.label == 1).sum()) if balanced else np.ones(len(t))
    all_cuts = [np.average((t.score >= c) == t.label, weights=weight) for c in [*t.score, 1.1]]
    cut, accuracy = best_threshold(t, balanced)
    assert np.isclose(accuracy, max(all_cuts)) and np.isclose(np.average((t.score >= cut) == t.label, weights=weight), accuracy)


def slow_segments(t, flag):
    "Runs of neighbouring frames with a flag, as sets of (clip, track, frame)."
    found = []
    for key, track in t[flag].groupby(['clip_uid', 'track_id']):
        for f in sorted(track.frame):
            if not (found and (*key, f - 1) in found[-1]): found.append(set())
            found[-1].add((*key, f))
    return found


@pytest.mark.parametrize('seed', range(5))
def test_segments_equal_a_slow_count(seed):
    rng = np.random.default_rng(seed)
    t = random_table(200, seed, track_id=[f't{k % 2}' for k in range(200)]).assign(frame=np.arange(200) // 6)
    t = t[rng.random(200) < 0.85].sample(frac=1, random_state=seed)                     # gaps, any order of rows
    true, guess = slow_segments(t, t.label == 1), slow_segments(t, t.score >= 0.5)
    m = segment_metrics(t)
    assert (m['n_labelled'], m['n_predicted']) == (len(true), len(guess))
    assert m['n_found'] == sum(any(a & b for b in guess) for a in true) and m['n_right'] == sum(any(a & b for b in true) for a in guess)


def in_time(seed, fraction=0.85):
    "A table of two tracks with gaps, in any order of rows."
    rng = np.random.default_rng(seed)
    t = random_table(200, seed, track_id=[f't{k % 2}' for k in range(200)]).assign(frame=np.arange(200) // 6)
    return t[rng.random(200) < fraction].sample(frac=1, random_state=seed)


@pytest.mark.parametrize('seed', range(3))
def test_border_distances_equal_a_slow_search(seed):
    t = in_time(seed)
    ours = border_distance(t)
    for i, row in t.iterrows():
        track = t[(t.clip_uid == row.clip_uid) & (t.track_id == row.track_id)].sort_values('frame')
        pairs = zip(track.itertuples(), track[1:].itertuples())
        borders = [(a.frame + b.frame) / 2 for a, b in pairs if a.label != b.label]
        near = min((abs(row.frame - b) for b in borders), default=np.nan)
        assert np.isclose(ours[i], np.ceil(near) * (1 if row.label else -1), equal_nan=True)
    profile = border_profile(t, reach=5)
    assert profile.n_rows.sum() == (ours.abs() <= 5).sum() and profile.index.min() >= -5 and 0 not in profile.index


@pytest.mark.parametrize('seed', range(3))
def test_error_runs_equal_a_slow_count(seed):
    t = in_time(seed)
    runs = error_runs(t)
    for kind, flag in (('missed', (t.label == 1) & (t.score < .5)), ('false alarm', (t.label == 0) & (t.score >= .5))):
        slow = sorted((*sorted(s)[0][:2], min(s)[2], max(s)[2], len(s)) for s in slow_segments(t, flag))
        ours = runs[runs.kind == kind]
        assert sorted(zip(ours.clip_uid, ours.track_id, ours['first'], ours['last'], ours.n_rows)) == slow
    label = {key: y for key, y in zip(zip(t.clip_uid, t.track_id, t.frame), t.label)}
    for r in runs.itertuples():
        own = label[r.clip_uid, r.track_id, r.first]
        beside = [label.get((r.clip_uid, r.track_id, f)) for f in (r.first - 1, r.last + 1)]
        assert r.at_border == (1 - own in beside)
    assert runs.n_rows.is_monotonic_decreasing and len(error_runs(t.assign(score=t.label * 1.0))) == 0


def test_operating_points_agree_with_the_metrics():
    t = random_table(300)
    points = operating_points(t, {'a': 0.5, 'nothing': 1.0})
    m, looks = lam_metrics(t), segment_metrics(t)
    (tn, fp), (fn, tp) = m['confusion']
    assert points.loc['a'].tolist() == [0.5, m['accuracy'], tp / (tp + fp), tp / (tp + fn), fp / (tn + fp), looks['precision'],
                                        looks['recall']]
    assert np.isnan(operating_points(t.assign(score=0.1), {'x': .5}).loc['x', ['precision', 'looks_precision']].astype(float)).all()


def test_intervals_of_groups_need_clips():
    t = random_table(600, clips=12)
    by = metrics_by(t, np.where(t.clip_uid.isin(['clip0', 'clip1']), 'two clips', 'ten clips'), intervals=True)
    assert by.loc['two clips', ['AP_looking_low', 'AP_looking_high']].isna().all()
    assert by.loc['ten clips', 'AP_looking_low'] < by.loc['ten clips', 'AP_looking'] < by.loc['ten clips', 'AP_looking_high']
    one = metrics_by(t.assign(label=0), 'clip_uid', intervals=True)
    assert one['AP_looking'].isna().all() and one['AP_looking_low'].isna().all() and (one['AP_not_looking'] == 1).all()


def test_a_user_s_own_labels_of_the_crops(tmp_path):
    t = challenge_table()
    truth = tmp_path / 'test_truth.csv'
    lines = [f'{r.clip_uid},{r.unique_id},{r.track_id},{r.frame},{i % 3 == 0:d}' for i, r in enumerate(t.itertuples())]

    def scored(rows):
        truth.write_text('\n'.join(rows) + '\n')
        return lam_metrics(add_labels(t, truth))

    assert scored(lines)['n_positive'] == 14 and scored(lines[::-1])['mAP'] == pytest.approx(scored(lines)['mAP'])
    for rows, message in ((lines[2:], '2 of 40 rows are in the predictions but not in the truth'),
                          ([*lines, 'clip0,ffff,track,1,0'], '1 of 41 rows are in the truth but not in the predictions'),
                          ([f'{line[:-1]}-1' for line in lines], 'have a label other than 0 and 1'),
                          ([f'{line[:-1]}yes' for line in lines], 'column label'),
                          (['video,unique_id,track,frame,label', *lines], 'without header'),
                          ([line.rsplit(',', 1)[0] for line in lines], 'has 4 columns, expected 5')):
        with pytest.raises(ValueError, match=message): scored(rows)
    with pytest.raises(ValueError, match='1 of 40 rows have another frame in the truth'):
        scored([lines[0].replace(f',{t.frame[0]},', ',77,'), *lines[1:]])
    with pytest.warns(UserWarning, match='1 of 41 rows repeat'): assert scored([*lines, lines[3]])['n_rows'] == 40


def test_a_submission_is_compared_with_the_crops():
    t = challenge_table()
    whole = make_submission(t)
    other = {**whole['results'][0], 'unique_id': 'ffffffff'}
    for results, words in ((whole['results'][3:], '3 of 40 crops have no entry'), ([*whole['results'], other],
        '1 entries for which there is no crop'),
                           ([*whole['results'], whole['results'][0]], '1 entries that repeat an earlier one'),
                           ([], '40 of 40 crops have no entry'), ([None, *whole['results']], '1 entries without exactly the fields'),
                           ([{**r, 'score': round(r['score'], 3)} for r in whole['results']], 'rounded to 3 digits'),
                           ([{**r, 'score': round(r['score'], 6)} for r in whole['results']], 'rounded to 6 digits'),
                           ([{**r, 'score': float(np.float16(r['score']))} for r in whole['results']], 'numbers of 16 bits')):
        assert words in ' | '.join(check_submission({**whole, 'results': results}, t))
    assert check_submission(whole, t.sample(frac=1, random_state=0)) == []
    assert 'there are no crops' in check_submission({**whole, 'results': []}, t[:0])[0]
    wrong_track = {**whole, 'results': [{**whole['results'][0], 'track_id': 'x'}, *whole['results'][1:]]}
    assert len(check_submission(wrong_track, t)) == 2                                   # one missing, one too many


def test_a_wrong_submission_is_not_written(tmp_path):
    t = challenge_table()
    path = tmp_path / 'submission.json'
    for wrong in (t[1:], pd.concat([t, t[:1]]), t.assign(score=0.5), t.assign(score=t.score.round(2)),
                  t.assign(score=t.score.where(t.index > 0))):
        with pytest.raises(ValueError, match='was not written'): write_submission(wrong, path, t)
    assert list(tmp_path.iterdir()) == []
    assert json.loads(write_submission(t, path, t).read_text()) == make_submission(t)
    assert (read_submission(path).score.to_numpy() == t.score.to_numpy()).all()


@pytest.mark.parametrize('entry', [dict(score='0.1'), dict(score=1), dict(score=True), dict(label=True), dict(label=0), dict(unique_id=7),
                                   dict(score=float('inf')), dict(score=-0.1), dict(extra=1)])
def test_wrong_entries_are_found(entry):
    t = challenge_table()
    submission = make_submission(t)
    submission['results'][5] |= entry
    problems = check_submission(submission, t)
    assert problems and problems[0].startswith('1 ')


def test_stable_order_of_ties():
    assert average_precision([1, 0], [0.5, 0.5]) == 1.0 and average_precision([0, 1], [0.5, 0.5]) == 0.5
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert lam_metrics(table([1, 0, 1], [0.0, 0.0, 1.0]))['AP_looking'] == 1.0


@given(st.floats(-25, 25), st.floats(0.8, 5), st.floats(0.8, 5))
def test_a_threshold_parts_the_same_rows_at_another_temperature(logit, found_at, temperature):
    logits = logit + np.array([-1, -0.1, 0, 0.1, 1])
    score = lambda t: 1 / (1 + np.exp(-logits / t))
    cut = threshold_at(score(found_at)[2], found_at, temperature)
    if abs(logit) < 8: assert abs(cut - score(temperature)[2]) < 1e-8            # nearer to 1 a score itself is known less well
    assert ((score(temperature) >= cut) == (logits >= logit)).all()


def test_an_interval_by_hand():
    # influences -.2, .1, .1, -.1, .1, 0 have the sum of squares .08 and of cubes -.006; Student's t of 4 degrees of freedom is 2.776
    error, skewness = np.sqrt(5 / 6 * .08), -.006 / .08**1.5
    ends = -(2.776445 + 1.45 * -skewness) * error, 2.776445 * error
    influence = np.array([-.2, .1, .1, -.1, .1, 0])
    assert np.allclose(jackknife_interval(.3, .3 - influence, 6, log_odds=False), .3 + np.array(ends))
    odds = lambda x: 1 / (1 + np.exp(-x))
    assert np.allclose(jackknife_interval(odds(2.), odds(2. - influence), 6), odds(2. + np.array(ends)))
    low, high = jackknife_interval(.9, np.r_[1., [.885] * 7], 8)                    # all errors in one clip: its influence is bounded
    assert 0.1 < low < .9 < high < 1


def simulated_clips(rng, n, rows=40):
    "Predictions of two models on `n` clips; share of positive rows, offset, separation and gain differ by clip."
    one = lambda value: np.repeat(value, rows)
    label = (rng.random(n * rows) < one(rng.beta(1, 6, n))).astype('int8')
    logit = one(rng.normal(-1, 1, n)) + one(rng.normal(1.5, .8, n)) * label + rng.normal(0, 1, n * rows)
    odds = lambda x: 1 / (1 + np.exp(-x))
    return pd.DataFrame(dict(clip_uid=one(np.arange(n).astype(str)), track_id='t', frame=np.tile(np.arange(rows), n), label=label,
                             score=odds(logit), other=odds(logit + one(rng.normal(.3, .8, n)) * label)))


def test_intervals_hold_the_true_value_nearly_as_often_as_they_say():
    "100 simulated evaluations of eight clips: percentiles of a bootstrap hold the AP of not looking in about 0.7 of such cases."
    rng = np.random.default_rng(0)
    change = lambda t: t.assign(score=t.other)
    whole, few = simulated_clips(rng, 4000), simulated_clips(rng, 800)
    truth, gain = lam_metrics(whole), lam_metrics(change(whole))
    held, gain_held = [], []
    for _, t in few.groupby(few.index // 320):
        found, apart = intervals_by_clip(t), compare_by_clip(t, change(t))
        held.append([found.low[m] <= truth[m] <= found.high[m] for m in found.index])
        gain_held.append([apart.low[m] <= gain[m] - truth[m] <= apart.high[m] for m in found.index])
    assert np.mean(held, 0).min() >= .9 and np.mean(gain_held, 0).min() >= .9, (np.mean(held, 0), np.mean(gain_held, 0))


def test_where_there_is_no_interval_the_note_says_why():
    rng = np.random.default_rng(0)
    few = table(rng.integers(0, 2, 80), rng.random(80), clips=4)
    for found in (intervals_by_clip(few), compare_by_clip(few, few)):
        assert found[['low', 'high']].isna().all(axis=None) and (found.note == 'only 4 clips: too few for an interval').all()
    t = random_table(400, clips=10)
    rare = t.assign(label=t.label.where(t.clip_uid.isin(['clip1', 'clip2']), 0))
    for other, what in ((rare, 'a looking row'), (rare.assign(label=1 - rare.label), 'a not looking row')):
        found = intervals_by_clip(other)
        assert found.note['mAP'] == found.note['AP_looking'] == f'only 2 of 10 clips hold {what}: too few for an interval'
        assert found[['low', 'high']].isna().all(axis=1).tolist() == [True] * 3 + [False] and found.note['accuracy'] == ''
    nothing = 'no single clip changes the value: no interval'
    perfect = intervals_by_clip(t.assign(score=t.label * .8 + .1))
    assert (perfect.value == 1).all() and (perfect.note == nothing).all() and perfect.low.isna().all()
    assert (compare_by_clip(t, t.assign(score=t.score**2), threshold=.25).note[['mAP', 'AP_looking']] == nothing).all()
    one = intervals_by_clip(t.assign(clip_uid='a'))
    assert (one.note == 'only 1 clip: too few for an interval').all() and one.low.isna().all()
    with pytest.raises(TypeError): bootstrap_by_clip(t, 1000)         # the number of draws of earlier versions is no threshold


def test_border_profile_by_hand():
    profile = border_profile(table([0, 0, 1, 1, 0, 0], [.1, .2, .7, .4, .3, .1], clips=1))
    assert profile.index.tolist() == [-2, -1, 1] and profile.n_rows.tolist() == [2, 2, 2]
    assert np.allclose(profile.score, [.1, .25, .55]) and profile.called.tolist() == [0, 0, .5]


def test_ties_of_either_class_are_noted():
    one = np.r_[np.zeros(50), np.ones(50)].astype(int)
    assert [n for n in lam_metrics(table(one, np.full(100, .5)))['notes'] if 'AP_looking' in n]
    scores = 1e-20 * np.arange(1, 101)                                                   # 1 - score is 1 for all: only that class has ties
    notes = lam_metrics(table(one, scores))['notes']
    assert [n for n in notes if 'AP_not_looking' in n] and not [n for n in notes if 'AP_looking' in n]
    assert not lam_metrics(table(one, np.linspace(.1, .9, 100)))['notes']


def test_what_a_fitted_number_was_not_fitted_for_is_said(tmp_path):
    file = tmp_path / 'metrics.json'
    file.write_text(json.dumps(dict(split='val', smoothing=9, flip=True, checkpoint=None, checkpoints=['a.pt', 'b.pt'], ensemble='logits')))
    same = dict(threshold=str(file), temperature=str(file), data_dir='d', split='test', smoothing=9, flip=True, checkpoint='c.pt',
                checkpoints=['a.pt', 'b.pt'], ensemble='logits')
    assert fitted_notes(same) == []
    for change, words, count in ((dict(split='val'), 'very rows', 2), (dict(smoothing=0), 'smoothing = 9', 1),
                                 (dict(flip=False), 'flip', 2), (dict(checkpoints=['a.pt']), 'other weights', 2),
                                 (dict(checkpoints=[]), 'other weights', 2),
                                 (dict(ensemble='probabilities'), 'ensemble = logits', 2)):
        notes = fitted_notes(same | change)
        assert len(notes) == count and all(words in n for n in notes), (change, notes)


@pytest.mark.parametrize('label', [2, 257, -2])
def test_labels_that_are_none_are_refused(label, tmp_path):
    t = table([0, 1, 0], [.1, .2, .3])
    write_official(t, tmp_path)
    text = (tmp_path / 'gt.csv').read_text()
    (tmp_path / 'gt.csv').write_text(text.replace('track,1', f'track,{label}'))
    with pytest.raises(ValueError, match='1 of 3 rows of gt.csv have a label other than 0 and 1'):
        read_official(tmp_path / 'gt.csv', tmp_path / 'pred.csv')
    crops = t.assign(unique_id=list('abc'))
    with pytest.raises(ValueError, match='1 of 3 rows of the truth'): add_labels(crops, crops.assign(label=[0, label, 1]))
