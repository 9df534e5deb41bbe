"Clips that are in train and val are told by preparation, training and evaluation, and at what cost."
import shutil
import warnings

import pandas as pd
import pytest

from lam_nb import preparation_report
from lam_nb.annotations import split_clips
from lam_nb.data_checks import shared_clips, stored_clips, warn_of_shared
from lam_nb.evaluation_report import start_evaluation
from lam_nb.launching import start_training
from lam_nb.models import BaselineLSTM, save_checkpoint
from lam_nb.preparation import PrepareSettings
from lam_nb.scoring import EvaluateSettings
from lam_nb.training import TrainSettings

WORDS = '1 clip in both train and val, first: {}: validation is not held out'


@pytest.fixture
def leaking(sample, tmp_path):
    "The sample with lists in which the first val clip is in train too, and in both annotation files; its id."
    root = tmp_path / 'data'
    shutil.copytree(sample, root)
    shared = split_clips(sample, 'val')[0]
    with open(root / 'split/train.list', 'a') as file: file.write(f'{shared}\n')
    return root, shared


def unlisted(root):
    "Without lists, and with av_val.json as annotations of train: both splits have the same clips."
    shutil.rmtree(root / 'split')
    shutil.copy(root / 'json/av_val.json', root / 'json/av_train.json')


def said(function, *args):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        function(*args)
    return [str(w.message) for w in found if 'held out' in str(w.message)]


def preparation(root, out, **given):
    settings = PrepareSettings(**dict(data_dir=str(root), out_dir=str(out), faces_dir=str(out / 'faces'), image_size=32, workers=1) | given)
    run = preparation_report.start_preparation(settings)
    run.show = False
    return run


def test_disjoint_splits_say_nothing(sample):
    assert shared_clips(sample) == warn_of_shared(sample) == [] and said(stored_clips, sample, sample / 'faces', 'val') == []


def test_training_says_it_before_it_begins(leaking, tmp_path):
    root, shared = leaking
    told = said(start_training, TrainSettings(data_dir=str(root), out_dir=str(tmp_path / 'out')))
    assert told and all(t.startswith(WORDS.format(shared)) for t in told)


def test_training_without_lists_says_it_too(leaking, tmp_path):
    unlisted(leaking[0])
    told = said(start_training, TrainSettings(data_dir=str(leaking[0]), out_dir=str(tmp_path / 'out')))
    assert told and told[0].startswith('2 clips in both')


def test_evaluation_says_it_and_notes_it(leaking, tmp_path):
    root, shared = leaking
    save_checkpoint(tmp_path / 'untrained.pt', BaselineLSTM(), image_size=64)
    runs, start = [], lambda settings: runs.append(start_evaluation(settings))
    given = dict(data_dir=str(root), checkpoint=str(tmp_path / 'untrained.pt'))
    for split in ('val', 'train'):
        told = said(start, EvaluateSettings(**given, out_dir=str(tmp_path / split), split=split))
        assert len(told) == (split == 'val') and all(t.startswith(WORDS.format(shared)) for t in told)
    assert runs[0].notes[0].startswith(WORDS.format(shared)) and not any('held out' in note for note in runs[1].notes)
    assert said(stored_clips, root, root / 'faces', 'val')       # what a user's own evaluation calls


@pytest.mark.parametrize('splits', [['train', 'val'], ['val'], ['train'], ['val', 'test']])
def test_preparation_says_it_and_lists_the_clip(leaking, tmp_path, splits):
    root, shared = leaking
    run = preparation(root, tmp_path / 'out', splits=splits)
    shutil.copy(root / 'json/av_val.json', root / 'json/av_train.json')          # where the clip is, so that it has faces
    (root / 'split/train.list').write_text(f'{shared}\n')
    assert len(said(preparation_report.read_faces, run)) == 1
    rows = run.skipped[run.skipped.reason == 'also in train: validation is not held out']
    assert rows[['split', 'clip_uid', 'count']].values.tolist() == [['val', shared, 1]]


def test_an_evaluation_does_not_read_the_annotations_of_train_for_it(leaking):
    root, shared = leaking
    for file in (root / 'json').glob('*.json'): file.write_text('broken')
    assert shared_clips(root) == [shared]
    (root / 'split/train.list').unlink()
    assert shared_clips(root) == [] and shared_clips(root, dict(train=['x', shared])) == [shared]


def test_lists_count_where_the_annotations_have_a_clip_in_one_split_only(leaking, tmp_path):
    "Training goes by the lists and the stores: the clip's store is there, made for val."
    root, shared = leaking
    run = preparation(root, tmp_path / 'out')
    assert said(preparation_report.read_faces, run) and shared not in set(run.tables['train'].clip_uid)


def test_a_broken_list_of_the_other_split_stops_nothing(leaking):
    root, _ = leaking
    (root / 'split/train.list').write_bytes(b'PK\3\4')
    assert shared_clips(root) == [] and len(stored_clips(root, root / 'faces', 'val')) == 2


def test_lists_written_in_different_ways_are_compared_by_ids(leaking):
    root, shared = leaking
    (root / 'split/val.list').write_text(f'"{shared}.mp4",kitchen\n', encoding='utf-16')
    with pytest.warns(UserWarning, match='were read as ids'):
        assert shared_clips(root) == [shared]


def test_only_the_first_process_says_it(leaking, monkeypatch):
    monkeypatch.setattr('lam_nb.data_checks.rank_and_size', lambda: (1, 2))
    assert said(stored_clips, leaking[0], leaking[0] / 'faces', 'val') == []


# ---- skipped.csv


@pytest.mark.filterwarnings('ignore:.*held out')
def test_frames_in_skipped_csv_are_whole_numbers_or_empty(leaking, tmp_path):
    "Also where a row is of a whole clip: failed, without a picture, with a note, without official files, in both splits."
    root, shared = leaking
    lost, kept = split_clips(root, 'train')[0], split_clips(root, 'val')[1]
    (root / f'videos/{lost}.mp4').write_bytes(b'broken')
    run = preparation(root, tmp_path / 'out', frame_offset=-9)
    preparation_report.read_faces(run)
    preparation_report.make_faces(run)
    run.made.loc[run.made.clip_uid == kept, 'notes'] = 'no sound'
    run.settings = run.settings.model_copy(update=dict(also_write=['official']))
    official = preparation_report.write_official_files
    preparation_report.write_official_files = lambda *args: [(kept, 'odd')]
    try: preparation_report.save_preparation(run)
    finally: preparation_report.write_official_files = official
    table = pd.read_csv(run.out / 'skipped.csv', dtype=str, keep_default_na=False)
    assert table.frame.str.fullmatch(r'\d*').all() and (table.frame == '').sum() >= 4 and (table.frame != '').any()
    assert (table[['split', 'clip_uid', 'reason', 'count']] != '').all(axis=None)
    for words in ('no image at these frames', 'no sound', 'official files: odd', 'also in train', 'frame 0', 'Error'):
        assert table.reason.str.contains(words).any(), words
