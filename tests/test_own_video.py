"A video of one's own: from odd files to tables, what is kept, what is refused, what is blurred."
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import odd_videos as odd
import pandas as pd
import pytest
from conftest import until

from lam_nb.annotations import load_faces, split_clips
from lam_nb.faces import ClipFaces
from lam_nb.folders import end_run
from lam_nb.landmarks import open_detector
from lam_nb.models import BaselineLSTM, save_checkpoint
from lam_nb.own_video import (
    MADE_UP, cut_faces, draw_overlay, find_faces, list_videos, model_origin, open_video, score_faces,
    start_videos, video_facts)
from lam_nb.runs import check_parameters
from lam_nb.settings import VideoSettings
from lam_nb.tracking import LEAST, detect_faces, fit_boxes, fit_to_annotators, hidden_boxes, link_faces, overlap, read_boxes, track_faces
from lam_nb.video_report import finish_videos, find_looks, going_on, save_video_tables, track_crops, video_sections, write_watched
from lam_nb.videos import find_videos, video_frames

BOX = ['x1', 'y1', 'x2', 'y2']
STAGES = (open_video, find_faces, cut_faces, score_faces, save_video_tables, draw_overlay)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(save_checkpoint(tmp_path_factory.mktemp('model') / 'random.pt', BaselineLSTM(), image_size=64, made_up=True))


@pytest.fixture(scope='module')
def clip(sample): return find_videos(sample / 'videos', split_clips(sample, 'val')[0])[0]


@pytest.fixture(scope='module')
def heads(clip): return [image for _, image in video_frames(clip, range(30))]


def watch(video, weights, out, **given):
    "One run, all stages."
    run, = start_videos(check_parameters(VideoSettings, dict(video=str(video), checkpoint=weights, out_dir=str(out)) | given))
    run.show = False
    for stage in STAGES: stage(run)
    end_run(run.out)
    return run


def test_tracks_are_the_annotated_people(sample, clip, tmp_path):
    annotated = load_faces(sample, 'val')[0]
    annotated = annotated[(annotated.clip_uid == clip.stem) & ~annotated.interpolated]
    found = track_faces(detect_faces(clip, open_detector(confidence=LEAST)))
    assert found.track_id.nunique() == annotated.track_id.nunique()
    fit = fit_boxes(sample, 'train')
    raw, fitted = found, fit_to_annotators(found, fit)
    shared = []
    for table in (raw, fitted):
        pairs = annotated.assign(frame=annotated.frame - 1).merge(table, on='frame', suffixes=('', '_ours'))
        ious = [overlap(a[None], b[None])[0, 0] for a, b in zip(pairs[BOX].to_numpy(), pairs[[f'{c}_ours' for c in BOX]].to_numpy())]
        shared.append(np.median([iou for iou in ious if iou > .3]))
    assert shared[1] > shared[0] + .05 and shared[1] > .8


KINDS = {
    'upright': {}, 'rotated': dict(turns=1), 'upside down': dict(turns=2), 'sixty': dict(fps=60), 'film': dict(fps=Fraction(24000, 1001)),
    'uneven': dict(uneven=True), 'silent': dict(sound=None), 'sound in PCM': dict(sound='pcm_s16le', ending='.mov')}


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_file_gives_the_same_people(kind, heads, weights, tmp_path):
    how = dict(KINDS[kind])
    turns, path = how.pop('turns', 0), tmp_path / f'a {kind} (1){how.pop("ending", ".mp4")}'
    times = odd.uneven(1.) if how.pop('uneven', False) else odd.constant(how.pop('fps', 30), 1.)
    images = [np.rot90(heads[min(round(float(t) * 30), 29)], -turns) for t in times]
    odd.make_video(path, times, images, size=images[0].shape[1::-1], sound=how.get('sound', 'aac'))
    if turns: odd.set_rotation(path, turns)
    run = watch(path, weights, tmp_path / 'out')
    assert run.faces.track_id.nunique() == 2 and (run.facts['width'], run.facts['height']) == (480, 360)
    assert run.faces.frame.between(0, 31).all() and len(run.faces) >= 2 * 25                      # thirty a second, whatever the file has
    assert not ClipFaces(run.store).missing.any()
    assert ('it has no sound' in run.notes) == (kind == 'silent')
    assert pd.read_csv(run.out / 'faces.csv', comment='#').score.between(0, 1).all()
    same = watch(path, weights, tmp_path / 'out')
    assert not same.seconds and same.faces.score.equals(run.faces.score)                          # nothing is done twice


def test_hdr_is_said(heads, tmp_path):
    if not odd.has_encoder('libx265'): pytest.skip('no encoder for HEVC here')
    odd.hdr_video(tmp_path / 'hdr.mp4')
    assert any('HLG' in note for note in video_facts(tmp_path / 'hdr.mp4')['notes'])


def test_no_face_is_a_result(weights, tmp_path):
    odd.make_video(tmp_path / 'empty.mp4', odd.constant(30, 1.))
    run = watch(tmp_path / 'empty.mp4', weights, tmp_path / 'out')
    for name in ('faces', 'looks', 'tracks'):
        lines = (run.out / f'{name}.csv').read_text().splitlines()
        assert lines[0].startswith('# empty.mp4') and lines[1].startswith('track_id') and len(lines) == 2
    report = write_watched(run, video_sections(run))
    assert 'No face was found' in report.read_text() and 'detect_size' in report.read_text()
    short = watch(tmp_path / 'empty.mp4', weights, tmp_path / 'short', start=.5)
    assert short.span == (.5, 1)
    assert json.loads((run.out / 'metrics.json').read_text())['tracks'] == 0


def test_a_face_in_a_part_only(heads, weights, tmp_path):
    blank = np.full_like(heads[0], 90)
    odd.make_video(tmp_path / 'part.mp4', odd.constant(30, 2.), [*[blank] * 15, *heads, *[blank] * 15], size=(480, 360))
    run = watch(tmp_path / 'part.mp4', weights, tmp_path / 'out')
    assert run.detections.attrs['cuts'] == [15, 45]
    assert run.faces.frame.min() == 15 and run.faces.frame.max() == 44                           # tracks end at cuts


def test_a_part_of_a_video(clip, weights, tmp_path):
    run = watch(clip, weights, tmp_path / 'out', start=.4, end=.8)
    assert run.faces.frame.min() == 12 and run.faces.frame.max() == 23
    assert video_facts(run.out / 'overlay.mp4')['seconds'] == pytest.approx(.4, abs=.04)


def test_own_boxes_replace_the_detector(clip, weights, tmp_path):
    (tmp_path / 'boxes.csv').write_text('frame,track_id,x1,y1,x2,y2\n0,Ann (left),60,90,140,200\n12,Ann (left),72,90,152,200\n')
    run = watch(clip, weights, tmp_path / 'out', boxes=str(tmp_path / 'boxes.csv'))
    assert run.faces.track_id.unique().tolist() == ['Ann (left)'] and run.faces.x1.tolist() == [60 + i for i in range(13)]
    assert run.faces.interpolated.sum() == 11 and run.fit['width'] == 1


@pytest.mark.parametrize('text, said', [
    ('frame,track_id,x1,y1,x2\n0,a,1,2,3\n', "no column 'y2'"), ('frame,track_id,X1,y1,x2,y2\n0,a,1,2,3,4\n', "'X1' is near"),
    ('frame,track_id,x1,y1,x2,y2\n0,a,1,2,x,4\n', 'row 1: x2'), ('frame,track_id,x1,y1,x2,y2\n.5,a,1,2,3,4\n', 'no whole number'),
    ('frame,track_id,x1,y1,x2,y2\n0,a,1,2,3,4\n0,a,1,2,3,4\n', 'row 2: the track has two boxes'),
    ('frame,track_id,x1,y1,x2,y2\n-1,a,1,2,3,4\n', 'no whole number from 0'),
    ('frame,track_id,x1,y1,x2,y2\n0,../a,1,2,3,4\n', 'cannot be used'),
    ('frame,track_id,x1,y1,x2,y2\n0,,1,2,3,4\n', 'cannot be used'), ('', 'cannot be read'), ('frame;track_id;x1\n0;a;1\n', 'not by ;'),
    ('frame,track_id,x1,y1,x2,y2\n0,a#1,1,2,3,4\n', 'has no #')])
def test_boxes_that_do_not_fit_are_refused(text, said, tmp_path):
    (tmp_path / 'boxes.csv').write_text(text)
    with pytest.raises(ValueError, match=said): read_boxes(tmp_path / 'boxes.csv')


def test_what_is_refused_before_anything_runs(clip, weights, tmp_path, sample):
    def refused(video=clip, checkpoint=weights, **given):
        with pytest.raises((ValueError, OSError)) as e: watch(video, checkpoint, tmp_path / 'out', **given)
        assert not (tmp_path / 'out').exists()
        return str(e.value)
    assert 'no file and no folder' in refused(video=str(tmp_path / 'none.mp4'))
    (tmp_path / 'text').mkdir()
    assert 'has no video' in refused(video=str(tmp_path / 'text'))
    assert 'no weights of YuNet' in refused(detector=str(tmp_path / 'none.onnx'))
    assert 'none.pt' in refused(checkpoint=str(tmp_path / 'none.pt'))
    (tmp_path / 'fit.json').write_text('{"width": 0}')
    assert 'expected width, height, right and down' in refused(box_fit=str(tmp_path / 'fit.json'))
    assert 'not after start' in refused(start=3, end=2)
    assert 'needs keep_tracks' in refused(blur='others')
    odd.sound_only(tmp_path / 'sound.mp4')
    assert 'no video' in refused(video=str(tmp_path / 'sound.mp4'))
    (tmp_path / 'broken.mp4').write_bytes(clip.read_bytes()[:3000])
    assert 'cannot be decoded' in refused(video=str(tmp_path / 'broken.mp4'))


def test_the_folder_of_another_run_is_refused(clip, weights, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/faces.csv').write_text('mine')
    with pytest.raises(ValueError, match='faces.csv'): watch(clip, weights, tmp_path / 'out')
    assert (tmp_path / 'out/faces.csv').read_text() == 'mine'


def test_a_changed_parameter_begins_at_its_stage(clip, weights, tmp_path):
    first = watch(clip, weights, tmp_path / 'out')
    assert {*first.seconds} == {'detect', 'cut', 'score', 'overlay'}
    second = watch(clip, weights, tmp_path / 'out', threshold=float(first.faces.score.median()), smoothing=0)
    assert {*second.seconds} == {'overlay'} and 0 < second.faces.looking.mean() < 1
    assert {*watch(clip, weights, tmp_path / 'out', box_fit='1,1,0,0').seconds} == {'cut', 'score', 'overlay'}
    assert {*watch(clip, weights, tmp_path / 'out', box_fit='1,1,0,0', flip=True).seconds} == {'score', 'overlay'}
    assert {*watch(clip, weights, tmp_path / 'out', every=5).seconds} == {'detect', 'cut', 'score', 'overlay'}
    assert {*watch(clip, weights, tmp_path / 'out', every=5, resume=False).seconds} == {'detect', 'cut', 'score', 'overlay'}


def test_a_damaged_kept_stage_is_done_again(clip, weights, tmp_path):
    first = watch(clip, weights, tmp_path / 'out')
    for file in (first.out / 'detections.parquet', first.out / 'predictions.parquet', first.store):
        file.write_bytes(file.read_bytes()[:-2000])
    again = watch(clip, weights, tmp_path / 'out')
    assert {'detect', 'cut', 'score'} <= {*again.seconds} and again.faces.score.equals(first.faces.score)


KILLED = '''
import sys
from lam_nb import own_video, video_report
from lam_nb.settings import VideoSettings
own_video.PART_ROWS = 20
run, = own_video.start_videos(VideoSettings(video=sys.argv[1], checkpoint=sys.argv[2], out_dir=sys.argv[3], device='cpu', precision='fp32'))
write = own_video.write_table
def slow(table, path):
    import time
    write(table, path)
    print('wrote', path.name, flush=True)
    time.sleep(float(sys.argv[4]))
own_video.write_table = slow
for stage in ('open_video', 'find_faces', 'cut_faces', 'score_faces'): getattr(own_video, stage)(run)
video_report.save_video_tables(run)
print('done', *run.seconds, flush=True)
'''


def test_killed_and_started_again(clip, weights, tmp_path):
    def start(out, wait): return subprocess.Popen([sys.executable, '-c', KILLED, str(clip), weights, str(out), str(wait)], text=True,
                                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path)
    part = tmp_path / 'out/parts/scores/000000000.parquet'
    process = start(tmp_path / 'out', 5)
    assert until(part.exists, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept, time_of = part.read_bytes(), (tmp_path / 'out/detections.parquet').stat().st_mtime_ns
    said = start(tmp_path / 'out', 0).communicate(timeout=120)[0]
    assert 'wrote 000000000.parquet' not in said and 'wrote 000000020.parquet' in said and 'done score' in said
    assert (tmp_path / 'out/detections.parquet').stat().st_mtime_ns == time_of and kept
    whole = start(tmp_path / 'whole', 0).communicate(timeout=120)[0]
    assert 'done detect cut score' in whole
    for name in ('faces.csv', 'looks.csv', 'tracks.csv'):
        assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


def test_parts_give_the_same_scores_as_the_whole(clip, weights, tmp_path, monkeypatch):
    whole = watch(clip, weights, tmp_path / 'a', overlay='none', precision='fp32')
    monkeypatch.setattr('lam_nb.own_video.PART_ROWS', 13)
    parts = watch(clip, weights, tmp_path / 'b', overlay='none', precision='fp32')
    assert np.allclose(whole.faces.logit, parts.faces.logit, atol=1e-5)


def test_what_the_model_was_trained_on_is_said_everywhere(clip, weights, tmp_path):
    run = watch(clip, weights, tmp_path / 'out')
    assert MADE_UP in (run.out / 'faces.csv').read_text().splitlines()[0]
    assert json.loads((run.out / 'metrics.json').read_text())['origin'] == MADE_UP
    assert 'says nothing about people' in write_watched(run, video_sections(run)).read_text()
    assert 'not known' in model_origin(dict(settings=dict(data_dir=7)))
    assert model_origin(dict(settings=dict(data_dir='~nobody/x'))) == 'trained on x'
    assert 'not known' in model_origin({}) and model_origin(dict(settings=dict(data_dir='/x/ego4d'))) == 'trained on ego4d'


def test_a_checkpoint_brings_its_box_fit(clip, tmp_path):
    fit = dict(width=1.3, height=1.1, right=.02, down=-.1)
    mine = save_checkpoint(tmp_path / 'mine.pt', BaselineLSTM(), image_size=64, made_up=False, box_fit=fit)
    run, = start_videos(VideoSettings(video=str(clip), checkpoint=str(mine), out_dir=str(tmp_path / 'out')))
    assert run.fit == fit and not run.notes
    bad = save_checkpoint(tmp_path / 'bad.pt', BaselineLSTM(), box_fit=dict(width='wide'))
    with pytest.raises(ValueError, match='expected width'):
        start_videos(VideoSettings(video=str(clip), checkpoint=str(bad), out_dir=str(tmp_path / 'out')))


def test_blur(clip, weights, tmp_path):
    everyone = watch(clip, weights, tmp_path / 'out', blur='all')
    other = watch(clip, weights, tmp_path / 'other', blur='others', keep_tracks=['1'])
    source = dict(video_frames(clip, [15]))[15].astype(float)
    detail = lambda image, box: np.abs(np.diff(image[int(box.y1) + 8:int(box.y2) - 8, int(box.x1) + 8:int(box.x2) - 8], axis=1)).mean()
    for run, blurred in ((everyone, {'1', '2'}), (other, {'2'})):
        shown = dict(video_frames(run.out / 'overlay.mp4', [15]))[15].astype(float)
        for box in run.faces[run.faces.frame == 15].itertuples():
            assert (detail(shown, box) < .35 * detail(source, box)) == (box.track_id in blurred)
    with pytest.raises(ValueError, match='there is no track 9'): watch(clip, weights, tmp_path / 'out', blur='others', keep_tracks=['9'])
    assert not (tmp_path / 'out/overlay.mp4').exists()                                            # not the one of other parameters


def test_what_is_hidden_reaches_beyond_the_tracks():
    faces = pd.DataFrame(dict(track_id='1', frame=range(20, 40), x1=10., y1=10., x2=50., y2=60.))
    hidden = hidden_boxes(faces, None)
    assert hidden.frame.min() == 10 and hidden.frame.max() == 49
    unsure = pd.DataFrame(dict(frame=[6, 12, 24], x1=[200., 212, 236], y1=10., x2=[240., 252, 276], y2=60., confidence=.35))
    unsure.attrs = dict(cuts=[], first=0, stop=60, every=3)
    hidden = hidden_boxes(faces, unsure)
    assert {*range(36)} <= {*hidden.query('x1 > 100').frame}                    # also where it was missed for a while
    assert hidden[(hidden.frame == 9) & (hidden.x1 > 100)].x1.between(190, 215).all()            # and where it moved to
    assert hidden_boxes(faces, unsure, ['1']).query('x1 < 100').empty
    gap = faces[(faces.frame < 25) | (faces.frame > 34)]
    assert {*range(10, 50)} <= {*hidden_boxes(gap, None).frame}
    seen = faces.assign(confidence=.9)[faces.frame % 3 == 0]
    seen.attrs = unsure.attrs
    assert hidden_boxes(faces, seen, ['1'], dict(width=1., height=1., right=0., down=0.)).query('20 <= frame < 40').empty


def test_videos_of_a_folder(tmp_path):
    for name in ('b.mp4', 'b.mov', 'b_mp4.avi', 'a.MKV', '.hidden.mp4', 'notes.txt', 'c..d.mp4', 'c_d.mp4'): (tmp_path / name).touch()
    found = list_videos(tmp_path)
    assert len(found) == 6 and {*found} > {'a', 'b_mov', 'b_mp4', 'c_d'}


def test_a_folder_of_videos(clip, weights, tmp_path):
    videos = tmp_path / 'videos'
    videos.mkdir()
    (videos / 'whole.mp4').write_bytes(clip.read_bytes())
    (videos / 'broken.mp4').write_bytes(clip.read_bytes()[:5000])
    odd.make_video(videos / 'sound.mov', odd.constant(30, .4), sound='aac')
    odd.unknown_sound(videos / 'sound.mov', videos / 'unknown.mp4')
    runs = start_videos(VideoSettings(video=str(videos), checkpoint=weights, out_dir=str(tmp_path / 'out'), end=.4))
    for run in runs:
        run.show = False
        with going_on(run, several=True):
            for stage in STAGES: stage(run)
            write_watched(run, video_sections(run))
    table = finish_videos(runs).set_index('video')
    assert (table.failed != '').to_dict() == {'broken.mp4': True, 'sound.mov': False, 'unknown.mp4': False, 'whole.mp4': False}
    assert table.tracks['whole.mp4'] == 2 and (tmp_path / 'out/whole/report.html').exists() and (tmp_path / 'out/videos.csv').exists()
    for given, said in ((dict(boxes='x.csv'), 'x.csv'), (dict(blur='others', keep_tracks=['1']), 'keep_tracks is of one video'),
                        (dict(out_dir=str(videos)), 'holds the videos')):
        with pytest.raises((ValueError, OSError), match=said):
            start_videos(VideoSettings(**dict(video=str(videos), checkpoint=weights, out_dir=str(tmp_path / 'new')) | given))


def test_an_overlay_is_never_another_one(clip, weights, tmp_path):
    first = watch(clip, weights, tmp_path / 'out', end=.4)
    assert (first.out / 'overlay.mp4').exists()
    watch(clip, weights, tmp_path / 'out', end=.4, overlay='none')
    assert not (first.out / 'overlay.mp4').exists() and not (first.out / 'overlay.json').exists()


def test_cuts_before_the_beginning_do_not_count(heads, weights, tmp_path):
    blank = np.full_like(heads[0], 90)
    odd.make_video(tmp_path / 'late.mp4', odd.constant(30, 2.), [*heads[:15], *[blank] * 45], size=(480, 360))
    for start in (1., 3.):
        found = detect_faces(tmp_path / 'late.mp4', open_detector(confidence=LEAST), start=start)
        assert found.empty and not found.attrs['cuts'] and track_faces(found).empty
    part = detect_faces(tmp_path / 'late.mp4', open_detector(confidence=LEAST), every=5, end=.3)
    assert part.frame.max() < 9 and part.attrs['stop'] == 9


def test_few_frames_a_second_and_few_detections(heads, tmp_path):
    odd.make_video(tmp_path / 'slow.mp4', odd.constant(1, 4.), [heads[0]] * 4, size=(480, 360))
    found = detect_faces(tmp_path / 'slow.mp4', open_detector(confidence=LEAST))
    assert track_faces(found).groupby('track_id').size().tolist() == [91, 91]
    odd.make_video(tmp_path / 'plain.mp4', odd.constant(30, 3.), [heads[0]] * 90, size=(480, 360))
    find = lambda every: detect_faces(tmp_path / 'plain.mp4', open_detector(confidence=LEAST), every)
    for every in (20, 30): assert track_faces(find(every)).track_id.nunique() == 2
    assert track_faces(find(3), max_gap=0).track_id.nunique() == 2


def test_own_boxes_with_blur_hide_the_others_too(clip, weights, tmp_path):
    (tmp_path / 'boxes.csv').write_text('frame,track_id,x1,y1,x2,y2\n0,Ann,60,90,140,200\n12,Ann,72,90,152,200\n')
    run = watch(clip, weights, tmp_path / 'out', boxes=str(tmp_path / 'boxes.csv'), blur='all', end=.4)
    assert len(run.detections) and hidden_boxes(run.faces, run.detections, fit=run.fit).x1.max() > 200


def test_boxes_beyond_the_end_are_left_out(clip, weights, tmp_path):
    (tmp_path / 'boxes.csv').write_text('seconds, track_id ,x1,y1,x2,y2\n.8, 1,60,90,140,200\n.81,1,60,90,140,200\n1.2,1,60,90,140,200\n')
    run = watch(clip, weights, tmp_path / 'out', boxes=str(tmp_path / 'boxes.csv'), overlay='none')
    assert run.faces.frame.max() == 29 and '7 boxes lie beyond the end of the video' in run.notes


def test_no_track_is_explained(clip, weights, tmp_path):
    run = watch(clip, weights, tmp_path / 'out', end=.1, overlay='none')
    assert 'no track was made of 2 detections' in run.notes[-1] or 'no track was made of' in ' '.join(run.notes)
    (tmp_path / 'boxes.csv').write_text('frame,track_id,x1,y1,x2,y2\n900,a,1,2,30,40\n')
    run = watch(clip, weights, tmp_path / 'own', boxes=str(tmp_path / 'boxes.csv'), overlay='none')
    assert 'none of your boxes lies in seconds 0 to 1' in ' '.join(run.notes)
    with pytest.raises(ValueError, match='lies beyond the end'): watch(clip, weights, tmp_path / 'late', start=100)
    assert not (tmp_path / 'late').exists()


def test_a_file_that_is_cut_off_is_said(heads, weights, tmp_path):
    odd.make_video(tmp_path / 'whole.mkv', odd.constant(30, 3.), [heads[0]] * 90, size=(480, 360))
    odd.make_video(tmp_path / 'whole.mp4', odd.constant(30, 3.), [heads[0]] * 90, size=(480, 360), movflags='faststart')
    odd.cut_off(tmp_path / 'whole.mp4', tmp_path / 'part.mp4', .6)
    run = watch(tmp_path / 'part.mp4', weights, tmp_path / 'out')
    assert any('is it cut off?' in note for note in run.notes) and run.span[1] < 2.5


def test_what_a_run_reads_is_not_what_it_replaces(clip, weights, tmp_path):
    run = watch(clip, weights, tmp_path / 'out', end=.5)
    edited = run.out / 'faces.csv'
    for given in (dict(boxes=str(edited)), dict(threshold=str(run.out / 'metrics.json'))):
        with pytest.raises(ValueError, match='would be replaced|best_threshold'): watch(clip, weights, run.out, **given)
    with pytest.raises(ValueError, match='would be replaced'): watch(run.out / 'overlay.mp4', weights, run.out)
    assert edited.exists() and (run.out / 'overlay.mp4').exists()
    again = watch(clip, weights, tmp_path / 'again', boxes=str(edited), end=.5)                  # what it wrote can be given
    assert again.faces.track_id.unique().tolist() == run.faces.track_id.unique().tolist()


def test_an_overlay_that_shows_faces_does_not_outlive_a_wish_for_blur(clip, weights, tmp_path):
    run = watch(clip, weights, tmp_path / 'out', end=.4)
    (run.out / '.overlay.mp4.abcdefgh.part.mp4').write_bytes(b'faces')
    again, = start_videos(VideoSettings(video=str(clip), checkpoint=weights, out_dir=str(run.out), end=.4, blur='all'))
    open_video(again)                                                                             # and killed here
    assert not (run.out / 'overlay.mp4').exists() and not [*run.out.glob('.*.part*')]
    assert any('only overlay.mp4 is blurred' in note for note in again.notes)
    end_run(again.out)


def test_looks_break_at_gaps_and_tracks():
    faces = pd.DataFrame(dict(track_id=list('aaabbb'), frame=[0, 1, 5, 6, 7, 8], score=.9, looking=True))
    looks = find_looks(faces)
    assert looks[['track_id', 'start', 'end']].values.tolist() == [['a', 0, 2 / 30], ['a', 5 / 30, 6 / 30], ['b', 6 / 30, 9 / 30]]
    assert find_looks(faces.assign(looking=False)).empty


def crossing(n=60, every=3):
    "Detections of two faces that pass each other, one before the other."
    t = np.arange(0, n, every)
    left, right = [np.stack([x + v * t, 50 + 0 * t, x + v * t + 40, 100 + 0 * t], 1) for x, v in ((0, 6), (360, -6))]
    table = pd.DataFrame(np.vstack([left, right]), columns=BOX).assign(frame=np.tile(t, 2), confidence=.9)
    table = table.sort_values('frame', kind='stable', ignore_index=True)
    table.attrs = dict(cuts=[], first=0, stop=n, every=every)
    return table


def test_links():
    table = crossing()
    assert link_faces(table).tolist() == [0, 1] * 20
    lost = table[~((table.frame > 15) & (table.frame < 24))]                     # both are lost for less than half a second
    assert {*link_faces(lost)} == {0, 1}
    long = table[~((table.frame > 15) & (table.frame < 40))]
    assert {*link_faces(long)} == {0, 1, 2, 3}
    table.attrs['cuts'] = [31]
    faces = track_faces(table)
    assert faces.groupby('track_id').frame.agg(['min', 'max']).values.tolist() == [[0, 30], [0, 30], [33, 59], [33, 59]]
    empty = track_faces(table[:0])
    assert empty.empty and empty.frame.dtype == 'int64' and {'confidence', 'interpolated'} <= {*empty.columns}


def test_sizes_and_numbers_of_faces():
    table = crossing()
    table.loc[table.x1.index % 2 == 1, ['x2', 'y2']] = table.loc[table.x1.index % 2 == 1, ['x1', 'y1']].to_numpy() + 20
    assert track_faces(table, min_face=24).track_id.nunique() == 1
    assert track_faces(table, min_face=10, max_faces=1).track_id.nunique() == 1
    assert track_faces(table, min_face=10).track_id.nunique() == 2
    assert track_faces(table, min_face=10, min_track=3).empty


def test_crops_are_those_of_their_tracks_where_rows_lack_an_image(clip, weights, tmp_path):
    run = watch(clip, weights, tmp_path / 'out', overlay='none')
    run.faces = run.faces[(run.faces.track_id == '2') | (run.faces.frame > 9)].reset_index(drop=True)    # as after damaged frames
    store = ClipFaces(run.store)
    for track, crop in track_crops(run, 64).items():
        own = np.flatnonzero(store.table.track_id == track)
        assert any(np.array_equal(crop, store.crop(row, 64)) for row in own)
