"Talking-to-me: scores of segments, the official metric to the last digit, files of strangers, and the run from end to end."
import importlib.util
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import MINI, ROOT
from talking_official import make_data

from lam_nb.command import command
from lam_nb.evaluation import lam_metrics
from lam_nb.faces import note_unavailable
from lam_nb.models import BaselineLSTM, save_checkpoint
from lam_nb.preparation import NO_FACES, PrepareSettings, prepare_faces, split_faces
from lam_nb.processes import Stopped
from lam_nb.sample import make_sample
from lam_nb.segments import SpeechSegments, challenge_segments, load_talking, segment_parts, sound_files
from lam_nb.settings import TalkingSettings
from lam_nb.talking_models import TalkingLSTM, load_talking_model, segment_logits
from lam_nb.talking_report import sound_envelope, talking_sections, talking_timeline, write_talking
from lam_nb.talking_runs import (
    TALKING, TALKING_GT, add_talking_truth, check_talking_submission, kept_frames, looking_scores, make_talking_submission, part_scores,
    read_talking_official, read_talking_submission, save_segments, score_segments, start_talking, talking_rows, write_talking_official)

GOLDEN = ROOT / 'tests/reference/talking'


def golden(name): return json.loads((GOLDEN / name).read_text())


# What the official code computed

@pytest.mark.parametrize('by', ['segment', 'frame'])
@pytest.mark.parametrize('threshold', [.5, .18])
def test_the_official_metric_to_the_last_digit(by, threshold):
    table = read_talking_official(GOLDEN / 'val.gt.csv', GOLDEN / 'val.pred.csv')
    found = lam_metrics(talking_rows(table, by), threshold, TALKING)
    wanted = golden('val.metrics.json')[f'by {by}, threshold {threshold}']
    for name in ('mAP', 'AP_talking', 'AP_not_talking', 'accuracy'): assert found[name] == wanted[name]
    assert (found['n_rows'], found['n_positive']) == (wanted['n'], wanted['n_positive'])
    percent = [[100 * n / sum(row) for n in row] for row in found['confusion']][::-1]                 # officially class 1 stands first
    assert np.allclose([row[::-1] for row in percent], wanted['confusion_percent'], atol=6e-4)


def test_the_official_metric_of_the_challenge():
    rows = read_talking_submission(GOLDEN / 'test.pred.csv')
    found = lam_metrics(rows.assign(label=rows.clip_uid.str[-1].astype(int) % 2), names=TALKING)      # as the small data set was made
    wanted = golden('test.metrics.json')
    for name in ('mAP', 'AP_talking', 'AP_not_talking', 'accuracy'): assert found[name] == wanted[name]
    assert (found['n_rows'], found['n_positive']) == (wanted['n'], wanted['n_positive'])


def test_scores_of_parts_become_the_official_files(tmp_path):
    "Logits of parts in; gt.csv and pred.csv byte for byte."
    parts = pd.read_csv(GOLDEN / 'val.parts.csv', dtype=dict(logit_0=str, logit_1=str))
    names = dict(person='person_id', start_frame='first_frame', end_frame='last_frame', segment='index')
    table = part_scores(parts.rename(columns=names), parts[['logit_0', 'logit_1']].to_numpy().astype(float))
    for file in write_talking_official(table, tmp_path): assert file.read_text() == (GOLDEN / f'val.{file.name}').read_text()


def test_scores_of_the_challenge_s_parts_are_the_official_ones():
    parts = pd.read_csv(GOLDEN / 'test.parts.csv', dtype=dict(segment_id=str, logit_0=str, logit_1=str))
    parts = parts.rename(columns=dict(segment_id='clip_uid', start_frame='first_frame', end_frame='last_frame'))
    logits = parts[['logit_0', 'logit_1']].to_numpy().astype(float)
    table = part_scores(parts.assign(index=0, person_id='', label=-1), logits)
    official = read_talking_submission(GOLDEN / 'test.pred.csv').groupby('clip_uid').score.first()
    assert table.score.tolist() == official[table.clip_uid].tolist()


# Scores

def faces(people=('1',), frames=range(100)):
    return pd.concat([pd.DataFrame(dict(clip_uid='clip', track_id=f't{p}', person_id=p, frame=frames, no_image=False,
                                        score=np.linspace(0, 1, len(frames)))) for p in people], ignore_index=True)


def segment(**given):
    one = dict(clip_uid='clip', index=0, person_id='1', label=1, start_frame=10, end_frame=20)
    return pd.DataFrame([one | given])


@pytest.mark.parametrize('given, score, n', [
    ({}, 20 / 99, 11), (dict(start_frame=99, end_frame=120), 1., 1), (dict(start_frame=100, end_frame=120), .25, 0),
    (dict(person_id='-1'), .25, 0), (dict(clip_uid='other'), .25, 0), (dict(start_frame=0, end_frame=0), 0., 1)])
def test_a_segment_takes_the_highest_score_of_its_speaker_within_it(given, score, n):
    found = looking_scores(segment(**given), faces('12'), no_face=.25).iloc[0]
    assert np.isclose(found.score, score) and found.n_faces == n


def test_two_tracks_of_a_person_are_one_face_a_frame():
    two = pd.concat([faces(), faces().assign(track_id='other', score=.9)], ignore_index=True)
    found = looking_scores(segment(), two, 'mean').iloc[0]
    assert found.n_faces == 11 and np.isclose(found.score, (np.mean(np.arange(10, 21) / 99) + .9) / 2)
    with pytest.raises(ValueError, match="pool='median'"): looking_scores(segment(), two, 'median')


def test_no_face_at_all():
    assert looking_scores(segment(), faces()[:0]).score.tolist() == [0]
    assert looking_scores(segment()[:0], faces()).empty


@pytest.mark.parametrize('length, kept', [(2, 2), (150, 150), (151, 151), (152, 151), (299, 151), (301, 301), (421, 301)])
def test_frames_that_are_kept_of_a_long_segment(length, kept):
    found = kept_frames(segment(start_frame=7, end_frame=6 + length)).iloc[0]
    assert (found.first_frame, found.last_frame - found.first_frame + 1) == (7, kept)


# Files of strangers

@pytest.mark.parametrize('file, old, new, why', [
    ('pred.csv', ',1,0.16', ',0,0.16', 'no 1 before the score'), ('pred.csv', ',30,45,', ',30,46,', 'end at another frame'),
    ('pred.csv', ',30,45,', ',31,45,', 'in gt.csv but not in pred.csv'), ('pred.csv', '0.1696', '1.1696', 'outside 0..1'),
    ('pred.csv', '0.1696481704711914', 'nan', 'no finite number'), ('gt.csv', ',30,45,0', ',30,45,2', 'label other than 0 and 1'),
    ('gt.csv', ',30,45,0', ',30,45,x', 'column label'), ('gt.csv', '0da23d95', '"0da23d95', 'in gt.csv but not in pred.csv'),
    ('pred.csv', ',1,', ',', 'columns')])
def test_official_files_that_do_not_fit_are_refused(tmp_path, file, old, new, why):
    for name in ('gt.csv', 'pred.csv'):
        text = (GOLDEN / f'val.{name}').read_text()
        (tmp_path / name).write_text(text.replace(old, new) if name == file else text)
    with pytest.raises(ValueError, match=why): read_talking_official(tmp_path / 'gt.csv', tmp_path / 'pred.csv')


def test_of_a_repeated_row_the_first_counts(tmp_path):
    for name in ('gt.csv', 'pred.csv'):
        text = (GOLDEN / f'val.{name}').read_text()
        (tmp_path / name).write_text(text + text.splitlines()[0].replace(',60,', ',99,') + '\n')
    with pytest.warns(UserWarning, match='1 of 15 rows repeat'): table = read_talking_official(tmp_path / 'gt.csv', tmp_path / 'pred.csv')
    assert table.equals(read_talking_official(GOLDEN / 'val.gt.csv', GOLDEN / 'val.pred.csv'))


@pytest.fixture
def rows(): return read_talking_submission(GOLDEN / 'test.pred.csv')


def test_frames_as_texts_are_read_too(rows, tmp_path):
    submission = make_talking_submission(rows)
    for entry in submission['results']: entry['frame_id'] = str(entry['frame_id'])
    assert check_talking_submission(submission, rows) == []
    file = tmp_path / 'theirs.json'
    file.write_text(json.dumps(submission | dict(results=submission['results'][::-1])))
    assert read_talking_submission(file)[::-1].reset_index(drop=True).equals(rows)


@pytest.mark.parametrize('change, problem', [
    (dict(frame_id='7.0'), 'wrong type'), (dict(frame_id=True), 'wrong type'), (dict(frame_id=None), 'wrong type'),
    (dict(frame_id='1' * 30), 'wrong type'), (dict(label=0), 'label is not 1'), (dict(score=float('nan')), 'NaN'),
    (dict(score=-.1), 'outside 0..1'), (dict(video_id=7), 'wrong type'), (dict(track_id='x'), 'without exactly the fields'),
    (dict(frame_id=10**6), 'for which there is no crop')])
def test_problems_of_a_submission_are_sentences(rows, change, problem):
    submission = make_talking_submission(rows)
    submission['results'][3] |= change
    assert any(problem in sentence for sentence in check_talking_submission(submission, rows))


@pytest.mark.parametrize('odd', [None, [], {}, dict(results=None), dict(results={'a': 1}), dict(results=[None, 3, 'x', []])])
def test_what_is_no_submission_is_said(rows, odd, tmp_path):
    assert check_talking_submission(odd, rows)
    (tmp_path / 'odd.json').write_text(json.dumps(odd))
    with pytest.raises(ValueError, match='not a submission|wrong entries'): read_talking_submission(tmp_path / 'odd.json')


@pytest.mark.parametrize('text', ['', '{', '[' * 100_000, '\xff'])
def test_broken_json_is_said(tmp_path, text):
    (tmp_path / 'odd.json').write_text(text, encoding='latin-1')
    with pytest.raises(ValueError, match='is not a submission'): read_talking_submission(tmp_path / 'odd.json')


def test_one_score_for_all_segments_is_noticed():
    many = pd.DataFrame(dict(clip_uid=[f'{i:032x}' for i in range(30)], frame=0, score=.5))
    assert 'all 30 scores are 0.5' in check_talking_submission(make_talking_submission(many), many)[0]


@pytest.mark.parametrize('text, why', [
    ('a,0,1\na,1,0\n', 'one label'), ('a,0,1\n', 'but not in'), ('a,0,1\na,1,1\nb,0,0\n', 'but not in'),
    ('a,0,1\na,1,3\n', 'other than 0 and 1'), ('a,0\n', 'columns'), ('', 'cannot be read')])
def test_a_truth_that_does_not_fit_is_refused(tmp_path, text, why):
    (tmp_path / 'truth.csv').write_text(text)
    table = pd.DataFrame(dict(clip_uid='a', track_id='face', frame=[0, 1]))
    with pytest.raises(ValueError, match=why): add_talking_truth(table, tmp_path / 'truth.csv')


# The run

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "A tiny sample with its face store, and a model with random weights."
    folder = tmp_path_factory.mktemp('talking')
    root = make_sample(folder / 'data', train_clips=1, val_clips=2, test_clips=1, seconds=3, progress=False)
    settings = PrepareSettings(image_size=64, workers=1)
    prepare_faces({split: split_faces(root, split, settings)[0] for split in ('train', 'val')}, root, root / 'faces', settings)
    return root, save_checkpoint(folder / 'random.pt', BaselineLSTM(), image_size=32, made_up=True)


def given(data, out, **more):
    return dict(data_dir=str(data[0]), checkpoint=str(data[1]), out_dir=str(out), device='cpu', precision='fp32') | more


def finished(data, out, **more):
    run = start_talking(TalkingSettings(**given(data, out, **more)))
    run.show = False
    score_segments(run)
    save_segments(run)
    return run


LEFT = {'settings.json', 'metrics.json', 'segments.csv', 'left_out.csv', 'results.csv', 'pred.csv', 'report.html', 'talking.ipynb',
        '.files.json'}


@pytest.mark.parametrize('split, more', [('val', {'gt.csv'}), ('test', {'submission.json'})])
def test_the_command_leaves_report_and_files(data, tmp_path, split, more):
    out = tmp_path / split
    command(['talking', *(f'{name}={value}' for name, value in given(data, out, split=split).items())])
    assert {file.name for file in out.iterdir() if file.is_file()} == LEFT | more
    figures = {file.name for file in (out / 'figures').glob('*.png')}
    assert {'intervals.png', 'precision_recall.png', 'calibration.png', 'timeline_1.png', 'confusion_matrix.png'} <= figures
    listed = json.loads((out / '.files.json').read_text())['files']
    assert {f'figures/{name}' for name in figures} | more < {*listed}
    page = (out / 'report.html').read_text()
    assert 'Made-up data' in page and page.count('<figure') == len(figures)
    metrics = json.loads((out / 'metrics.json').read_text())
    assert metrics['n_rows'] == metrics['n_segments'] and metrics['by_frame']['n_rows'] == metrics['n_frames']


def test_val_holds_every_segment_once(data, tmp_path):
    run = finished(data, tmp_path / 'out')
    segments, _ = load_talking(data[0], 'val')
    both = ['clip_uid', 'index', 'start_frame', 'end_frame', 'label']
    assert run.segments[both].equals(segments[both]) and 0 < run.segments.label.sum() < len(segments)
    table = read_talking_official(run.out / 'gt.csv', run.out / 'pred.csv')
    assert table.score.tolist() == run.segments.score.tolist()
    assert run.metrics['mAP'] == lam_metrics(talking_rows(table), names=TALKING)['mAP']
    assert run.metrics['by_frame']['mAP'] == lam_metrics(talking_rows(table, 'frame'), names=TALKING)['mAP']


def test_test_holds_every_face_frame_once(data, tmp_path):
    run = finished(data, tmp_path / 'out', split='test', pool='mean')
    crops, _ = challenge_segments(data[0] / 'final_test_data')
    submission = json.loads((run.out / 'submission.json').read_text())
    assert check_talking_submission(submission, crops) == [] and len(submission['results']) == len(crops)
    of_segment = pd.DataFrame(submission['results']).groupby('video_id').score.nunique()
    assert (of_segment == 1).all() and run.metrics['by_frame']['n_rows'] == len(crops)
    means = run.faces.groupby('clip_uid').score.mean()
    assert np.allclose(run.segments.score, means[run.segments.clip_uid])


def test_without_labels_there_is_a_submission_and_a_report(data, tmp_path):
    unwanted = shutil.ignore_patterns('talking_truth.csv', 'sample.json', 'videos', 'faces')
    root = shutil.copytree(data[0], tmp_path / 'data', ignore=unwanted)
    first, empty, *_ = sorted((root / 'final_test_data').iterdir())
    broken = shutil.copytree(first, root / 'final_test_data/broken')
    shutil.rmtree(empty / 'face')
    for file in (broken / 'face').iterdir(): file.write_bytes(b'no image')
    run = finished((root, data[1]), tmp_path / 'out', split='test', no_face=.125)
    assert run.metrics['mAP'] is None and not (run.out / 'results.csv').exists()
    assert empty.name in run.left_out.clip_uid.tolist() and run.metrics['n_left_out'] == 1
    unread = run.segments[run.segments.n_faces == 0]
    assert unread.clip_uid.tolist() == ['broken'] and unread.score.tolist() == [.125] and '1 of ' in run.notes[-1]
    assert len(read_talking_submission(run.out / 'submission.json')) == len(run.crops) > sum(run.crops.clip_uid == 'broken') > 0
    page = write_talking(run, talking_sections(run)).read_text()
    assert 'Made-up' not in page and 'without a face' in page


def test_what_is_scored_is_not_scored_again(data, tmp_path):
    "Clips that are scored are kept; a second run gives the same scores."
    first = finished(data, tmp_path / 'out')
    kept = sorted((tmp_path / 'out/parts').rglob('*.parquet'))
    times = [file.stat().st_mtime_ns for file in kept]
    again = finished(data, tmp_path / 'out')
    assert again.segments.score.equals(first.segments.score)
    assert [file.stat().st_mtime_ns for file in kept] == times and len(kept) == 2


@pytest.mark.parametrize('talking', [False, True])
def test_a_clip_without_tracks_counts_all_the_same(data, tmp_path, talking):
    "Nobody has a track there, so it has no face store: its segments are sound only."
    root = shutil.copytree(data[0], tmp_path / 'data', ignore=shutil.ignore_patterns('final_test_data', 'videos_challenge'))
    lost = (root / 'split/val.list').read_text().split()[1]
    (root / f'faces/{lost}.arrow').unlink()
    note_unavailable(root / 'faces', {lost: NO_FACES})
    checkpoint = save_checkpoint(tmp_path / 'talking.pt', TalkingLSTM(), image_size=32) if talking else data[1]
    run = finished((root, checkpoint), tmp_path / 'out')
    assert len(run.segments) == len(load_talking(root, 'val')[0])
    of_clip = run.segments[run.segments.clip_uid == lost]
    assert len(of_clip) and (of_clip.n_faces == 0).all() and (of_clip.score == 0).all() != talking
    assert f'{len(of_clip)} of ' in run.notes[-1] and write_talking(run, talking_sections(run)).exists()


def test_a_run_that_is_stopped_leaves_the_earlier_results(data, tmp_path, monkeypatch):
    first = finished(data, tmp_path / 'out')
    before = {file: file.read_bytes() for file in first.out.glob('*.*') if not file.name.startswith('.')}

    def stopped(*_, **__): raise KeyboardInterrupt
    monkeypatch.setattr('lam_nb.talking_runs.predict', stopped)
    with pytest.raises(Stopped, match='the clips that are scored are kept'): finished(data, tmp_path / 'out', pool='mean')
    assert before == {file: file.read_bytes() for file in before} and len(before) >= 6


@pytest.mark.parametrize('more, why', [
    (dict(checkpoint='gone.pt'), 'gone.pt'), (dict(data_dir='gone'), 'gone'), (dict(threshold='gone.json'), 'gone.json'),
    (dict(faces_dir='gone'), 'run prepare.ipynb')])
def test_what_cannot_be_done_is_refused_and_nothing_written(data, tmp_path, more, why):
    out = tmp_path / 'out'
    with pytest.raises((ValueError, OSError), match=why): start_talking(TalkingSettings(**given(data, out) | more))
    assert not out.exists()


def test_the_folder_of_another_run_is_refused(data, tmp_path):
    (tmp_path / 'segments.csv').write_text('mine')
    with pytest.raises(ValueError, match='segments.csv, which no run of talking.ipynb has left'):
        start_talking(TalkingSettings(**given(data, tmp_path)))
    assert (tmp_path / 'segments.csv').read_text() == 'mine'


def test_annotations_without_talking_segments_are_refused(data, tmp_path):
    root = shutil.copytree(data[0], tmp_path / 'data', ignore=shutil.ignore_patterns('final_test_data', 'video*'))
    file = root / 'json/av_val.json'
    annotations = json.loads(file.read_text())
    for video in annotations['videos']:
        for clip in video['clips']: clip['social_segments_talking'] = None
    file.write_text(json.dumps(annotations))
    for split, why in (('val', 'has a talking segment'), ('test', 'nothing to score')):
        settings = TalkingSettings(**given((root, data[1]), tmp_path / 'out', split=split))
        with pytest.raises(ValueError, match=why): start_talking(settings)


def test_a_threshold_of_val_is_taken_and_named(data, tmp_path):
    val = finished(data, tmp_path / 'val')
    again = start_talking(TalkingSettings(**given(data, tmp_path / 'again', threshold=str(val.out / 'metrics.json'))))
    assert again.threshold == val.metrics['best_threshold'] and 'chosen on these very rows' in again.notes[0]


def test_clips_without_sound_are_drawn_without_it(data, tmp_path):
    fig = talking_timeline(segment().assign(score=.5), faces(), None)
    assert 'no sound was found' in fig.axes[0].texts[0].get_text()
    assert len(sound_envelope(np.zeros(0))) == 0 and talking_timeline(segment().assign(score=.5), faces()[:0])


# A talking checkpoint

@pytest.mark.parametrize('parts', ['both', 'sound', 'faces'])
def test_a_talking_checkpoint_listens(data, tmp_path, parts):
    "val: the softmax of each part's logits; a second run takes them from the folder; the report says what scored."
    checkpoint = save_checkpoint(tmp_path / 'talking.pt', TalkingLSTM(parts), image_size=32)
    run = finished((data[0], checkpoint), tmp_path / 'out')
    segments, _ = load_talking(data[0], 'val')
    clips, cuts = segments.clip_uid.unique(), segment_parts(segments, training=False)
    items = SpeechSegments(data[0] / 'faces', clips, cuts, sound_files(data[0], clips), 32 if parts != 'sound' else 0)
    model = load_talking_model(checkpoint)[0]
    logits = np.stack([segment_logits(model, items[i]) for i in range(len(items))])
    assert np.allclose(run.segments.score, 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), atol=1e-5)
    kept = {file: file.stat().st_mtime_ns for file in (run.out / 'parts').rglob('*.parquet')}
    again = finished((data[0], checkpoint), tmp_path / 'out')
    assert again.segments.score.equals(run.segments.score) and {f: f.stat().st_mtime_ns for f in kept} == kept and len(kept) == 2
    page = write_talking(again, talking_sections(again)).read_text()
    assert 'a model of Talking-to-me' in page and 'highest score of the faces' not in page


def test_a_talking_checkpoint_answers_the_challenge(data, tmp_path):
    checkpoint = save_checkpoint(tmp_path / 'talking.pt', TalkingLSTM(), image_size=32)
    run = finished((data[0], checkpoint), tmp_path / 'out', split='test')
    assert check_talking_submission(json.loads((run.out / 'submission.json').read_text()), run.crops) == []
    assert run.segments.n_faces.tolist() == run.crops.groupby('clip_uid').size()[run.segments.clip_uid].tolist()


@pytest.mark.parametrize('more', [dict(pool='mean'), dict(smoothing=3), dict(flip=True), dict(no_face=.5), dict(model='GazeLSTM')])
def test_what_is_for_looking_scores_is_refused_beside_a_talking_checkpoint(data, tmp_path, more):
    checkpoint = save_checkpoint(tmp_path / 'talking.pt', TalkingLSTM('sound'))
    with pytest.raises(ValueError, match=f'{[*more][0]} is for a checkpoint of Looking-at-me'):
        start_talking(TalkingSettings(**given((data[0], checkpoint), tmp_path / 'out', **more)))
    assert not (tmp_path / 'out').exists()


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    "The small data set of the official results, and a checkpoint with their weights."
    private = MINI.parent / 'talking'
    if not MINI.exists() or not private.exists(): pytest.skip('no official Talking-to-me results beside the repository')
    if not shutil.which('ffmpeg'): pytest.skip('no ffmpeg here to extract frames and sound as the official code does')
    spec = importlib.util.spec_from_file_location('golden_weights_talking', private / 'golden_weights_talking.py')
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    model, folder = TalkingLSTM(), tmp_path_factory.mktemp('official')
    model.load_state_dict(weights.golden_state_dict(model.state_dict()))
    root = make_data(private / 'make_mini_talking.py', MINI, folder / 'data')
    shutil.copy(root / 'ttm_test_truth.csv', root / 'talking_truth.csv')
    settings = PrepareSettings(source='frames', image_format='png', workers=1)
    prepare_faces({'val': split_faces(root, 'val', settings)[0]}, root, root / 'faces', settings)
    return root, save_checkpoint(folder / 'talking.pt', model, image_size=224)


def test_val_of_the_official_weights(official, tmp_path):
    "Row for row the official result files; scores within 1e-5, but where a track is not sorted, which only we sort."
    run, wanted = finished(official, tmp_path / 'val'), read_talking_official(GOLDEN / 'val.gt.csv', GOLDEN / 'val.pred.csv')
    found = read_talking_official(run.out / 'gt.csv', run.out / 'pred.csv')
    apart = (found.score - wanted.score).abs().to_numpy()
    assert found[TALKING_GT].equals(wanted[TALKING_GT]) and (apart < 1e-5).sum() == 12 and apart.max() < .01
    of_official = golden('val.metrics.json')['by segment, threshold 0.5']
    names = ['mAP', 'AP_talking', 'AP_not_talking', 'accuracy']
    assert [run.metrics[name] for name in names] == [of_official[name] for name in names], apart


def test_the_challenge_of_the_official_weights(official, tmp_path):
    run, wanted = finished(official, tmp_path / 'test', split='test'), read_talking_submission(GOLDEN / 'test.pred.csv')
    found = read_talking_submission(run.out / 'submission.json')
    assert found.clip_uid.equals(wanted.clip_uid) and found.frame.equals(wanted.frame)
    assert (found.score - wanted.score).abs().max() < 1e-5
    names = ['mAP', 'AP_talking', 'AP_not_talking', 'accuracy']
    assert [run.metrics['by_frame'][name] for name in names] == [golden('test.metrics.json')[name] for name in names]
