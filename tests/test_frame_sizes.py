"Videos and frames of another size than the annotations'."
import csv
import json

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from lam_nb.annotations import load_faces
from lam_nb.data_checks import alignment
from lam_nb.foreign_files import _frame_sizes
from lam_nb.faces import ClipFaces, fitted_boxes, store_path
from lam_nb.preparation import PrepareSettings, Source, _rows_made_by, _size_notes, inputs_hash, prepare_faces
from lam_nb.preparation_report import Preparation, alignment_sections
from lam_nb.videos import extract_frames, video_frames


def rescaled(video, target, factor):
    "The same video in another size."
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), 'w') as out:
        stream = None
        for position, image in video_frames(video, range(30), 'file'):
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            if stream is None: stream = out.add_stream('libx264', rate=30, width=image.shape[1], height=image.shape[0], pix_fmt='yuv420p')
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        out.mux(stream.encode())
    return target


@pytest.fixture
def halved(sample, tmp_path):
    "Data with one clip at half its size; its faces; the store of the clip in its own size."
    table = load_faces(sample, 'train')[0]
    uid = table.clip_uid[0]
    rescaled(sample / 'videos' / f'{uid}.mp4', tmp_path / f'videos/{uid}.mp4', 0.5)
    for name in ('json', 'split'): (tmp_path / name).symlink_to(sample / name)
    table = table[table.clip_uid == uid].reset_index(drop=True)
    prepare_faces({'train': table}, sample, tmp_path / 'own', PrepareSettings(image_size=64, workers=1))
    return tmp_path, table, ClipFaces(store_path(tmp_path / 'own', uid))


def made(root, table, **settings):
    done, = prepare_faces({'train': table}, root, root / 'faces', PrepareSettings(image_size=64, workers=1, **settings)).to_dict('records')
    return done


def say_size(root, table, kind, width=480, height=360):
    "Writes the size of the annotated frames where Ego4D's files have it."
    if kind == 'ego4d.json, by clip':
        clip = dict(clip_uid=table.clip_uid[0], resolution=f'{width}x{height}')
        (root / 'ego4d.json').write_text(json.dumps(dict(videos=[], clips=[clip])))
        return
    videos = json.loads((root / 'json/av_train.json').read_text())['videos']
    video, = (v['video_uid'] for v in videos for c in v['clips'] if c['clip_uid'] == table.clip_uid[0])
    row = dict(video_uid=video, display_resolution_width=width, display_resolution_height=height)
    if kind == 'ego4d.json':
        data = dict(video_uid=video, video_metadata={k: v for k, v in row.items() if k != 'video_uid'})
        (root / 'ego4d.json').write_text(json.dumps(dict(videos=[data])))
        return
    (root / 'v2/full_scale').mkdir(parents=True)
    with open(root / 'v2/full_scale/manifest.csv', 'w', newline='') as f:
        out = csv.DictWriter(f, row)
        out.writeheader()
        out.writerow(row)


def test_half_the_size_is_refused_with_the_numbers_and_the_cure(halved):
    root, table, _ = halved
    done = made(root, table)
    assert done['status'] == 'failed' and not list((root / 'faces').glob('*.arrow'))
    for part in ('size of 240 x 180', 'boxes that reach to', f'of {len(table)} faces lie outside', 'video_540ss', 'other_size'):
        assert part in done['reason']
    assert made(root, table, other_size='keep')['status'] == 'made'
    extract_frames(root / f'videos/{table.clip_uid[0]}.mp4', root / 'video_imgs' / table.clip_uid[0])
    assert 'size of 240 x 180' in made(root, table, source='frames')['reason']


@pytest.mark.parametrize('kind', ['ego4d.json', 'ego4d.json, by clip', 'manifest'])
def test_a_known_size_finds_boxes_that_fit_by_chance_and_scales(halved, kind):
    root, table, own = halved
    chance = table.assign(x1=20., x2=60., y1=20., y2=60.)        # inside the half frame, too
    assert made(root, chance)['status'] == 'made'
    say_size(root, table, kind)
    assert list(_frame_sizes(root).values()) == [(480, 360)]
    assert 'annotations frames of 480 x 360' in made(root, chance.assign(x1=21.))['reason']
    assert made(root, table, other_size='scale')['status'] == 'made'
    store = ClipFaces(store_path(root / 'faces', table.clip_uid[0]))
    differences = [np.abs(own.crop(i).astype(int) - store.crop(i)).mean() for i in range(len(table))]
    assert np.mean(differences) < 8 and (store.table[['x1', 'y2']] == own.table[['x1', 'y2']]).all(axis=None)
    shuffled = [np.abs(own.crop(i).astype(int) - store.crop((i + len(table) // 2) % len(table))).mean() for i in range(len(table))]
    assert np.mean(differences) < np.mean(shuffled) / 2          # the same faces


def test_scaling_needs_a_known_size(halved):
    root, table, _ = halved
    assert 'must say the size' in made(root, table, other_size='scale')['reason']


@pytest.mark.parametrize('size, fits', [((480, 360), True), ((480, 368), True), ((240, 180), False), ((960, 720), True)])
def test_which_sizes_fit(sample, size, fits):
    table = load_faces(sample, 'train')[0]
    table = table[table.clip_uid == table.clip_uid[0]]
    if fits: assert len(fitted_boxes(table, *size)) == len(table)
    else:
        with pytest.raises(ValueError, match='lie outside'): fitted_boxes(table, *size)
    some = table.copy()
    some.iloc[:2, some.columns.get_indexer(['x1', 'x2'])] += 480      # a few may leave the frame
    assert len(fitted_boxes(some, 480, 360)) == len(table)
    assert len(fitted_boxes(table.assign(x1=9000., x2=9100.), 480, 360)) == len(table)       # no size explains this


def test_the_alignment_check_advises_nothing(halved, capsys):
    root, table, _ = halved
    uid = table.clip_uid[0]
    source = Source('videos', root / f'videos/{uid}.mp4', -1, zero='file')
    with pytest.raises(ValueError, match='size of 240 x 180'): alignment(source, table)
    settings = PrepareSettings(data_dir=str(root), splits=['train'], check_alignment=True, other_size='keep', image_size=64, workers=1)
    run = Preparation(settings, root / 'out', tables={'train': table})
    run.made = prepare_faces(run.tables, root, root / 'faces', settings)
    assert alignment_sections(run) == []
    said = capsys.readouterr().out
    assert 'not compared' in said and 'size of 240 x 180' in said and 'frame_offset' not in said


def test_what_fits_the_boxes_is_part_of_what_made_the_store(sample):
    table = load_faces(sample, 'train')[0]
    made_by = lambda asked: _rows_made_by(table, PrepareSettings(other_size=asked))
    assert set(made_by('refuse')) == {'labels', 'max_gap'}      # the default adds nothing: its hash is that of earlier stores
    assert made_by('keep')['other_size'] == 'keep' and made_by('scale')['other_size'] == 'scale'
    assert len({inputs_hash(table, PrepareSettings(other_size=asked)) for asked in ('refuse', 'keep', 'scale')}) == 3


def test_a_size_that_changes_inside_a_source_is_refused_or_scaled(sample, tmp_path):
    table = load_faces(sample, 'train')[0]
    uid = table.clip_uid[0]
    table = table[table.clip_uid == uid].reset_index(drop=True)
    for name in ('json', 'split'): (tmp_path / name).symlink_to(sample / name)
    extract_frames(sample / 'videos' / f'{uid}.mp4', tmp_path / 'video_imgs' / uid)
    images = sorted((tmp_path / 'video_imgs' / uid).iterdir())
    for file in images[len(images) // 2:]:
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (240, 180), interpolation=cv2.INTER_AREA))
    inside = table.assign(x1=20., x2=60., y1=20., y2=60.)        # in both sizes
    assert 'changes from 480 x 360 pixels to 240 x 180' in made(tmp_path, inside)['reason']
    assert 'changes from' in made(tmp_path, inside, other_size='scale')['reason']
    assert made(tmp_path, inside, other_size='keep')['status'] == 'made'
    say_size(tmp_path, table, 'ego4d.json, by clip')
    prepare_faces({'train': table}, sample, tmp_path / 'own', PrepareSettings(image_size=64, workers=1))
    assert made(tmp_path, table, other_size='scale')['status'] == 'made'
    own, store = (ClipFaces(store_path(tmp_path / name, uid)) for name in ('own', 'faces'))
    assert np.mean([np.abs(own.crop(i).astype(int) - store.crop(i)).mean() for i in range(len(table))]) < 8


def test_sizes_that_may_be_wrong_are_said(halved):
    root, table, _ = halved
    assert made(root, table, other_size='keep')['notes'] == ''
    far = pd.concat([table.assign(x1=20., x2=60., y1=20., y2=60., track_id=f'{n}') for n in range(100 // len(table) + 1)])
    assert 'all boxes lie within 60 x 60 of 240 x 180' in made(root, far)['notes']
    assert made(root, far)['notes'] and 'video_540ss' in _size_notes(table, 720, 540)[0] and not _size_notes(table, 480, 360)
    say_size(root, table, 'ego4d.json, by clip', 240, 180)
    assert made(root, far)['notes'] == ''
