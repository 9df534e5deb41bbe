"Facts about rows: measured on the right pictures, counted in the right groups."
import numpy as np
import pandas as pd
import pytest

from lam_nb.annotations import load_faces
from lam_nb.evaluation import lam_metrics
from lam_nb.slices import EDGES, fact_groups, head_angles, picture_facts, row_facts, slice_tables, slices_csv, weakest
from lam_nb.windows import window_strips


@pytest.fixture(scope='module')
def predictions(sample):
    rows, _ = load_faces(sample, 'val')
    return rows.assign(score=np.clip(0.5 * rows.label + 0.6 * np.random.default_rng(0).random(len(rows)) - 0.05, 0, 1))


def test_pictures_are_those_of_the_rows(sample, predictions):
    rows = predictions.sample(20, random_state=0)
    facts = picture_facts(sample / 'faces', rows)
    for strip, brightness in zip(window_strips(sample / 'faces', rows, 64), facts.brightness):
        assert abs(strip[3] @ [.299, .587, .114] - brightness).mean() < 60 and abs((strip[3] @ [.299, .587, .114]).mean() - brightness) < 1
    some = picture_facts(sample / 'faces', predictions, limit=10)
    assert 5 <= some.sharpness.notna().sum() <= 10 and some.index.equals(predictions.index)


def test_every_row_is_in_one_group_of_each_fact(sample, predictions):
    facts = row_facts(predictions, sample / 'faces', sample / 'sample_truth.csv')
    tables = slice_tables(predictions, facts, n=0)
    assert set(tables) == set(facts.columns)
    for fact, table in tables.items():
        assert table.n_rows.sum() == facts[fact].notna().sum() and table.n_positive.sum() == predictions.label[facts[fact].notna()].sum()
    whole = lam_metrics(predictions[predictions.clip_uid == predictions.clip_uid.iloc[0]])
    assert tables['clip'].loc[predictions.clip_uid.iloc[0], 'AP_looking'] == whole['AP_looking']
    assert len(slices_csv(tables)) == sum(map(len, tables.values()))


@pytest.mark.parametrize('fact', EDGES)
def test_classes_hold_their_lower_edge(fact):
    edges = EDGES[fact][1]
    facts = pd.DataFrame({fact: [float(e) for e in edges if np.isfinite(e)][:len(edges) - 1]})
    assert fact_groups(facts)[fact].cat.codes.tolist() == list(range(len(edges) - 1))


def test_what_is_not_known_is_left_out(predictions):
    facts = row_facts(predictions.assign(x1=np.nan, person_id=''))
    assert set(slice_tables(predictions, facts, n=0)) == {'track_length', 'border', 'clip'}
    one = slice_tables(predictions.assign(label=0), row_facts(predictions.assign(label=0)), n=20)
    assert 'border' not in one and one['clip'].AP_looking.isna().all() and (one['clip'].n_rows > 0).all()


def test_persons_of_clips_that_begin_alike_are_told_apart(predictions):
    rows = predictions.assign(clip_uid='0d42b229-' + predictions.clip_uid, person_id='1')
    assert row_facts(rows).person.nunique() == rows.clip_uid.nunique()


def test_head_angles(predictions):
    pose = predictions[['clip_uid', 'track_id', 'frame']].assign(yaw=30., pitch=0.)[:-3]
    angles = head_angles(pose.sample(frac=1, random_state=0), predictions)
    assert np.allclose(angles[:-3], 30) and angles[-3:].isna().all()
    both = head_angles(pose.assign(yaw=-60., pitch=60.), predictions)
    assert np.allclose(both[:-3], np.degrees(np.arccos(.25)))
    with pytest.raises(ValueError, match="lacks the columns \\['yaw'\\]"): head_angles(pose.drop(columns='yaw'), predictions)


def test_weakest_groups():
    table = pd.DataFrame(dict(AP_looking=[.9, np.nan, .2, .5]), index=list('abcd'))
    assert weakest(table, 3).index.tolist() == ['c', 'd', 'a'] and weakest(table, 4) is table
