"Properties of rows: measured on the right crops, counted in the right groups."
import cv2
import numpy as np
import pandas as pd
import pytest

from lam_nb.annotations import load_faces
from lam_nb.evaluation import lam_metrics
from lam_nb.faces import ClipFaces, encode_face, store_path, write_store
from lam_nb.slices import EDGES, row_groups, head_angles, row_properties, slice_tables, slices_csv, weakest
from lam_nb.windows import window_strips


@pytest.fixture(scope='module')
def predictions(sample):
    rows, _ = load_faces(sample, 'val')
    stored = pd.concat([ClipFaces(store_path(sample / 'faces', uid)).table for uid in rows.clip_uid.unique()], ignore_index=True)
    rows = rows.assign(sharpness=stored.sharpness, brightness=stored.brightness)
    return rows.assign(score=np.clip(0.5 * rows.label + 0.6 * np.random.default_rng(0).random(len(rows)) - 0.05, 0, 1))


def test_sharpness_and_brightness_are_those_of_the_rows(sample, predictions):
    rows = predictions.sample(20, random_state=0)
    for strip, brightness, sharpness in zip(window_strips(sample / 'faces', rows, 64), rows.brightness, rows.sharpness):
        assert abs((strip[3] @ [.299, .587, .114]).mean() - brightness) < 1
        grey = cv2.cvtColor(strip[3], cv2.COLOR_RGB2GRAY).astype(float)
        assert np.isclose(sharpness, cv2.Laplacian(grey, cv2.CV_64F).var(), rtol=.1)
    facts = row_properties(predictions)
    assert facts.sharpness.tolist() == predictions.sharpness.tolist()
    assert row_properties(predictions.drop(columns=['sharpness', 'brightness'])).sharpness.isna().all()


def test_every_row_is_in_one_group_of_each_fact(sample, predictions):
    facts = row_properties(predictions, sample / 'sample_truth.csv')
    tables = slice_tables(predictions, facts)
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
    assert row_groups(facts)[fact].cat.codes.tolist() == list(range(len(edges) - 1))


def test_what_is_not_known_is_left_out(predictions):
    facts = row_properties(predictions.assign(x1=np.nan, person_id=''))
    assert set(slice_tables(predictions, facts)) == {'sharpness', 'brightness', 'track_length', 'border', 'clip'}
    one = slice_tables(predictions.assign(label=0), row_properties(predictions.assign(label=0)))
    assert 'border' not in one and one['clip'].AP_looking.isna().all() and (one['clip'].n_rows > 0).all()


def test_persons_of_clips_that_begin_alike_are_distinguished(predictions):
    rows = predictions.assign(clip_uid='0d42b229-' + predictions.clip_uid, person_id='1')
    assert row_properties(rows).person.nunique() == rows.clip_uid.nunique()


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


def test_facts_computed_by_hand():
    rows = pd.DataFrame(dict(clip_uid='c', track_id=['a', 'a', 'a', 'b'], person_id=['1', '1', '1', ''], frame=[0, 1, 2, 0],
                             x1=0., y1=0., x2=[16., 9, 9, 100], y2=[9., 16, 4, 0], label=[0, 1, 1, 0],
                             interpolated=[False, True, False, False], score=.5))
    facts = row_properties(rows)
    assert facts.face_size.tolist() == [12, 12, 6, 0]                          # sides of squares of the same area
    assert facts.box.tolist() == ['annotated', 'interpolated', 'annotated', 'annotated']
    assert facts.track_length.tolist() == [3, 3, 3, 1] and facts.border.tolist()[:3] == [1, 1, 2] and np.isnan(facts.border[3])
    assert facts.person.tolist()[:3] == ['c, person 1'] * 3 and pd.isna(facts.person[3])
    tables = slice_tables(rows, facts)
    assert tables['track_length'].chance.to_dict() == {'1 to 30': .5}
    assert tables['box'].chance.to_dict() == {'annotated': 1 / 3, 'interpolated': 1}


def test_classes_are_named_by_what_they_hold():
    groups = row_groups(pd.DataFrame(dict(face_size=[0, 23.9, 24, 191, 192, 1e4], border=[1., 2, 3, 4, 30, 31])))
    assert groups['face_size'].tolist() == ['0 to 23', '0 to 23', '24 to 31', '128 to 191', '192 and more', '192 and more']
    assert groups['border'].tolist() == ['1', '2 to 3', '2 to 3', '4 to 7', '16 to 30', '31 and more']
    quarters = row_groups(pd.DataFrame(dict(sharpness=[8., 7, 6, 5, 4, 3, 2, 1])))['sharpness']
    assert quarters.tolist() == ['sharpest quarter'] * 2 + ['third'] * 2 + ['second'] * 2 + ['blurred quarter'] * 2


def test_two_crops_of_one_frame_are_distinguished(tmp_path):
    levels = [10, 80, 200, 30]
    faces = pd.DataFrame(dict(clip_uid='v', track_id='t', person_id='', frame=[1, 2, 2, 3], x1=np.nan, y1=np.nan, x2=np.nan, y2=np.nan,
                              label=np.int8(-1), interpolated=False, unique_id=list('abcd')))
    images = (([i], encode_face(np.full((32, 32, 3), level, np.uint8), 'png')) for i, level in enumerate(levels))
    write_store(tmp_path / 'v.arrow', faces, images, dict(image_size=32))
    rows = faces.sample(frac=1, random_state=3)
    shown = [strip[3].mean() for strip in window_strips(tmp_path, rows, 32)]
    assert shown == [levels[i] for i in rows.index]
    assert ClipFaces(tmp_path / 'v.arrow').table.brightness.tolist() == levels


def test_rows_of_crops_and_of_labelled_clips_in_one_table(sample):
    "As the prepare report has them: where a split has no ids of crops, they are NaN."
    tables = [ClipFaces(path).table for path in sorted((sample / 'faces').glob('*.arrow'))]
    mixed = pd.concat([t if t.unique_id.iloc[0] else t.drop(columns='unique_id') for t in tables], ignore_index=True)
    assert mixed.unique_id.isna().any() and mixed.unique_id.notna().any()
    rows = mixed.sample(30, random_state=0)
    brightness = [strip[3].mean() for strip in window_strips(sample / 'faces', rows, 64)]
    own = {uid: ClipFaces(sample / 'faces' / f'{uid}.arrow') for uid in rows.clip_uid}
    first = mixed.groupby('clip_uid').cumcount()
    assert brightness == [own[r.clip_uid].crop(first[r.Index], 64).mean() for r in rows.itertuples()]
