"What a store was made from, and whether it is still what was written: changed sources, flipped bits, stores of earlier versions."
import errno
import json
import os
import random
import shutil

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lam_nb import inference
from lam_nb.annotations import load_faces, split_clips
from lam_nb.faces import SCHEMA, ClipFaces, encode_face, store_path, write_store
from lam_nb.inference import predict
from lam_nb.models import BaselineLSTM
from lam_nb.preparation import PrepareSettings, _old_mark, find_source, inputs_hash, prepare_clip, split_faces


def contents(path):
    "Everything that can be read of a store."
    store = ClipFaces(path)
    images = [store.image(row) for row in range(len(store.table))]
    table = store.table.fillna(-9).to_dict('list')                                    # NaN is unlike itself
    return table, store.about, store.missing.tolist(), store.black.tolist(), [i and bytes(i) for i in images]


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A store of two record batches, with missing and black crops."
    n, rng = 1030, np.random.default_rng(0)
    i = np.arange(n)
    faces = pd.DataFrame(dict(clip_uid='clip', track_id=[f't{k}' for k in i // 100], person_id='1', frame=i, x1=i * 1.5, y1=2., x2=30.,
                              y2=40., label=i // 3 % 2, interpolated=i % 2 == 0))
    one = [encode_face(rng.integers(0, 256, (16, 16, 3), np.uint8), 'jpeg', 30) for _ in range(9)]
    images = [([i], one[i % 9]) for i in range(n) if i % 7 != 3] + [([3], b'')]
    write_store(file := tmp_path_factory.mktemp('small') / 'clip.arrow', faces, images, dict(image_size=16, split='train'))
    return file


@pytest.mark.parametrize('where', ['anywhere', 'the table and the checksums', 'metadata', 'the end'])
def test_every_flipped_bit_is_found_or_harmless(small, tmp_path, where):
    good, expected, rng = small.read_bytes(), contents(small), random.Random(where)
    images = good.index(b'\xff\xd8\xff'), good.rindex(b'\xff\xd9')
    about = good.rindex(b'"image_size"')                         # in the footer; the copy at the beginning is not read
    start, stop = {'anywhere': (0, len(good)), 'the table and the checksums': (0, images[0]),
                   'metadata': (about - 100, about + 200), 'the end': (images[1], len(good))}[where]
    found = 0
    for _ in range(40):
        at, data = rng.randrange(start, stop), bytearray(good)
        data[at] ^= 1 << rng.randrange(8)
        (tmp_path / 'clip.arrow').write_bytes(data)
        try: assert contents(tmp_path / 'clip.arrow') == expected, f'bit {at}'
        except ValueError as e:
            found += 1
            assert 'clip.arrow is not a whole face store' in str(e) and 'run prepare.ipynb again' in str(e)
    assert found >= 10


def test_stores_of_earlier_versions_open(small, tmp_path):
    schema = SCHEMA.with_metadata({'lam_nb': json.dumps(dict(image_size=16))})
    batches = [pa.record_batch(b.columns, schema=schema) for b, _ in ClipFaces(small)._batches]
    with pa.OSFile(str(tmp_path / 'clip.arrow'), 'wb') as sink, pa.ipc.new_file(sink, batches[0].schema) as out:
        for batch in batches: out.write_batch(batch)
    old, new = contents(tmp_path / 'clip.arrow'), contents(small)
    assert old[1] == {'image_size': 16} and (old[0], *old[2:]) == (new[0], *new[2:])


def test_content_is_of_the_images_alone(tmp_path):
    columns = dict(track_id='t', person_id='1', x1=0., y1=0., x2=9., y2=9., label=0, interpolated=False)
    faces = pd.DataFrame(dict(clip_uid='c', frame=[0, 1], **columns))
    def content(images, **changed):
        write_store(tmp_path / 'a.arrow', faces.assign(**changed), images, dict(image_size=16))
        return ClipFaces(tmp_path / 'a.arrow').about['content']
    a, b, ab = (encode_face(np.full((8, 8, 3), level, np.uint8), 'jpeg') for level in (50, 100, 150))
    first = content([([0], a), ([1], b)])
    assert content([([1], b), ([0], a)], label=1) == first
    others = [[([0], b), ([1], a)], [([0], a)], [([0], a), ([1], b'')], [([0], ab), ([1], b'')]]
    others = [content(images) for images in others]
    assert len({first, *others}) == 5


# ---- sources that change ----------------------------------------------------------------------------------------------

def keep_times(path, change):
    "Changes a file in a way that leaves its size and its time stamps as they were, as far as a user can set them."
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def flip_middle(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_middle(path):
    flip_middle(other := shutil.copy(path, path.with_name('.other')))
    os.replace(other, path)


def status(data_dir, faces, split='train', **settings):
    return prepare_clip(data_dir, data_dir / 'faces', split, faces, PrepareSettings(image_size=32, **settings))


@pytest.fixture
def clip(sample, tmp_path):
    faces = load_faces(sample, 'train')[0]
    faces = faces[faces.clip_uid == faces.clip_uid[0]].reset_index(drop=True)
    (tmp_path / 'videos').mkdir()
    return faces, shutil.copy(sample / 'videos' / f'{faces.clip_uid[0]}.mp4', tmp_path / 'videos')


@pytest.mark.parametrize('change', [flip_middle, replace_middle])
def test_another_video_of_equal_size_ends_and_times_is_noticed(clip, tmp_path, change):
    faces, video = clip
    assert [status(tmp_path, faces)['status'] for _ in range(2)] == ['made', 'kept']
    keep_times(tmp_path / 'videos' / f'{faces.clip_uid[0]}.mp4', change)
    assert [status(tmp_path, faces)['status'] for _ in range(2)] == ['made', 'kept']


def test_a_link_to_another_video_is_noticed(clip, tmp_path):
    faces, video = clip
    for name in ('a', 'b'): shutil.copy(video, tmp_path / name)
    flip_middle(tmp_path / 'b')
    link = tmp_path / 'videos' / f'{faces.clip_uid[0]}.mp4'
    for name, expected in {'a': 'made', 'b': 'made'}.items():
        link.unlink()
        link.symlink_to(tmp_path / name)
        assert status(tmp_path, faces)['status'] == expected


def test_only_touched_files_are_read_again(clip, tmp_path, monkeypatch):
    faces, video = clip
    status(tmp_path, faces)
    with monkeypatch.context() as m:
        m.setattr('lam_nb.preparation._files_hash', lambda *_: pytest.fail('read again'))
        assert [status(tmp_path, faces, quality=q)['status'] for q in (90, 50, 50)] == ['kept', 'made', 'kept']
    os.utime(video)
    assert status(tmp_path, faces, quality=50)['status'] == 'kept'
    shutil.move(shutil.copy(video, tmp_path / 'copy'), video)
    assert status(tmp_path, faces, quality=50)['status'] == 'kept'


def test_replaced_crops_of_equal_size_are_noticed(tmp_path):
    track = tmp_path / 'videos_challenge/v1/t1'
    track.mkdir(parents=True)
    for i in (1, 2): cv2.imwrite(str(track / f'{i:05d}_u{i}.jpg'), np.full((32, 32, 3), 90, np.uint8))
    faces, _ = split_faces(tmp_path, 'test', PrepareSettings())
    assert [status(tmp_path, faces, 'test')['status'] for _ in range(2)] == ['made', 'kept']
    keep_times(track / '00001_u1.jpg', flip_middle)
    assert status(tmp_path, faces, 'test')['status'] == 'made'
    (track / '.DS_Store').write_bytes(b'x')
    assert status(tmp_path, faces, 'test')['status'] == 'kept'


def test_replaced_frames_of_equal_size_are_noticed(clip, tmp_path):
    from lam_nb.videos import extract_frames
    faces, video = clip
    folder = tmp_path / 'video_imgs' / faces.clip_uid[0]
    extract_frames(video, folder)
    assert [status(tmp_path, faces, source='frames')['status'] for _ in range(2)] == ['made', 'kept']
    keep_times(folder / 'img_00009.jpg', flip_middle)
    assert status(tmp_path, faces, source='frames')['status'] == 'made'


def test_stores_with_the_mark_of_earlier_versions_are_kept_and_it_is_said(clip, tmp_path):
    faces, video = clip
    status(tmp_path, faces)
    store, settings = ClipFaces(store_path(tmp_path / 'faces', faces.clip_uid[0])), PrepareSettings(image_size=32)
    source = find_source(tmp_path, faces.clip_uid[0])
    about = {k: v for k, v in store.about.items() if not k.startswith('files_')} | dict(source_mark=_old_mark(source))
    assert about['fingerprint'] == inputs_hash(faces, settings)
    write_store(store.path, faces, [], about)
    done = status(tmp_path, faces)
    assert done['status'] == 'kept' and 'size and the ends of its source only' in done['notes']
    with open(video, 'ab') as file: file.write(b'x')
    done = status(tmp_path, faces)
    assert done['status'] == 'made' and not done['notes']


def test_a_store_with_flipped_rows_is_made_anew(clip, tmp_path):
    faces, video = clip
    status(tmp_path, faces)
    store = store_path(tmp_path / 'faces', faces.clip_uid[0])
    data = bytearray(store.read_bytes())
    data[data.index(faces.track_id[0].encode())] ^= 1
    store.write_bytes(data)
    assert [status(tmp_path, faces)['status'] for _ in range(2)] == ['made', 'kept']


def test_a_store_under_another_name_is_refused(small, tmp_path):
    shutil.copy(small, tmp_path / 'other.arrow')
    with pytest.raises(ValueError, match='other.arrow holds faces of clip clip: it was renamed or copied'):
        ClipFaces(tmp_path / 'other.arrow').table


def test_touched_sources_are_read_once_more_and_then_known(clip, tmp_path, monkeypatch):
    faces, video = clip
    status(tmp_path, faces)
    store = store_path(tmp_path / 'faces', faces.clip_uid[0])
    before = store.read_bytes()
    os.chmod(video, 0o600)
    with monkeypatch.context() as m:                             # nothing can be noted
        m.setattr('lam_nb.faces.write_json', raising(OSError(errno.ENOSPC, 'full')))
        assert status(tmp_path, faces)['status'] == 'kept'
    assert status(tmp_path, faces)['status'] == 'kept' and store.read_bytes() == before
    monkeypatch.setattr('lam_nb.preparation._files_hash', lambda *_: pytest.fail('read again'))
    assert status(tmp_path, faces)['status'] == 'kept'
    (tmp_path / 'faces/touched' / f'{store.stem}.json').write_text('[1')
    with pytest.raises(pytest.fail.Exception, match='read again'): status(tmp_path, faces)


def raising(error):
    def function(*_): raise error
    return function


def test_a_store_that_is_replaced_while_it_is_scored_is_noticed(sample, tmp_path, monkeypatch):
    shutil.copytree(sample / 'faces', tmp_path / 'faces')
    clips = split_clips(sample, 'val')
    real = inference.ClipPlan
    def replaced(store, *args):
        table = load_faces(sample, 'val')[0]
        table = table[table.clip_uid == store.path.stem].reset_index(drop=True)
        prepare_clip(sample, tmp_path / 'faces', 'val', table, PrepareSettings(image_size=64, quality=20))
        return real(ClipFaces(store.path), *args)
    predict(BaselineLSTM(), tmp_path / 'faces', clips, 9)
    monkeypatch.setattr(inference, 'ClipPlan', replaced)
    with pytest.raises(ValueError, match='was replaced while it was scored'): predict(BaselineLSTM(), tmp_path / 'faces', clips, 9)
