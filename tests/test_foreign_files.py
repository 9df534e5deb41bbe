"Files as people have them: other names, hidden files, damaged images and videos, archives, and what they may cost."
import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lam_nb.annotations import load_faces
from lam_nb.foreign_files import _frame_sizes, decode_image
from lam_nb.faces import ClipFaces, challenge_root, decode_face, store_path, unpack_crops
from lam_nb.preparation import PrepareSettings, find_source, prepare_clip, prepare_faces, split_faces
from lam_nb.preparation_report import Preparation, make_faces, read_faces
from lam_nb.videos import extract_frames, folder_frames, frame_files, video_frames

rng = np.random.default_rng(0)
PICTURE = cv2.resize(rng.integers(0, 256, (20, 30, 3), np.uint8), (224, 224), interpolation=cv2.INTER_CUBIC)


def encoded(form, image=PICTURE, mode='RGB', **options):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, form, **options)
    return file.getvalue()


def damaged():
    "Name -> bytes of an image file, whole or damaged in some way."
    jpeg, slow, png = encoded('JPEG'), encoded('JPEG', progressive=True), encoded('PNG')
    deep = cv2.imencode('.png', PICTURE.astype(np.uint16) * 257)[1].tobytes()
    files = dict(whole=jpeg, progressive=slow, png=png, deep=deep, grey=encoded('JPEG', mode='L'), cmyk=encoded('JPEG', mode='CMYK'),
                 alpha=encoded('PNG', mode='RGBA'), palette=encoded('PNG', mode='P'), webp=encoded('WEBP'), bmp=encoded('BMP'))
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        files[f'turn {turn}'], files[f'narrow, turn {turn}'] = encoded('JPEG', exif=exif), encoded('JPEG', PICTURE[:, :200], exif=exif)
    whole = {name: data for name, data in files.items() if data[:2] == b'\xff\xd8' or data[:4] == b'\x89PNG'}
    for name, data in whole.items():
        files |= {f'{name}, without {n}': data[:-n] for n in (1, 2, 400, len(data) // 2)}
    middle = len(jpeg) // 2
    for n in (1, 3, 24, 100, 300, 400, 500, 620): files |= {f'{n} bytes of jpeg': jpeg[:n], f'{n} bytes of png': png[:n]}
    return files | {
        'garbage': jpeg[:middle] + rng.bytes(300) + jpeg[middle + 300:], 'zeros': jpeg[:middle] + bytes(len(jpeg) - middle),
        'trailing': jpeg + b'x' * 500, 'late start': b'\n' + jpeg, 'empty': b'', 'page': b'<html></html>',
        'fill': jpeg[:2] + b'\xff\xff' + jpeg[2:]}


def crops_of(files, folder):
    "Challenge crops with these contents, in the order of their names."
    track = folder / 'videos_challenge/v1/t1'
    track.mkdir(parents=True)
    for i, data in enumerate(files): (track / f'{i + 1:05d}_u{i}.jpg').write_bytes(data)
    return folder


def prepared(data_dir, **settings):
    "The test split's row of results, and its store."
    settings = PrepareSettings(**settings)
    faces, _ = split_faces(data_dir, 'test', settings)
    done = prepare_clip(data_dir, data_dir / 'faces', 'test', faces, settings)
    return done, ClipFaces(store_path(data_dir / 'faces', faces.clip_uid[0]))


def test_the_store_shows_what_the_official_reader_shows(tmp_path):
    files = damaged()
    done, store = prepared(crops_of(files.values(), tmp_path))
    for row, (name, file) in enumerate(zip(files, sorted(tmp_path.glob('videos_challenge/v1/t1/*')))):
        image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        assert store.missing[row] == (image is None), name
        if image is None: continue
        assert np.array_equal(decode_image(files[name]), image), name
        if image.shape[:2] == (224, 224): assert np.array_equal(store.crop(row), image), name
    assert done['status'] == 'made' and 0 < done['missing'] < len(files) and 'crops cannot be read, first: ' in done['notes']


def claims(width, height, form):
    "A small image file that claims to be of this size."
    if form == 'jpeg':
        data = encoded('JPEG', progressive=True)
        at = data.index(b'\xff\xc2') + 5
        return data[:at] + struct.pack('>HH', height, width) + data[at + 4:]
    head = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(3 * width + 1) * min(height, 3000))
    chunk = lambda b: struct.pack('>I', len(b) - 4) + b + struct.pack('>I', zlib.crc32(b))
    return b'\x89PNG\r\n\x1a\n' + chunk(head) + chunk(b'IDAT' + body) + chunk(b'IEND')


@pytest.mark.parametrize('form', ['jpeg', 'png'])
def test_an_absurd_size_costs_one_crop_and_no_memory(tmp_path, form):
    crops_of([encoded('JPEG'), claims(40_000, 40_000, form), encoded('JPEG')], tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done, store = prepared(tmp_path)
    assert done['status'] == 'made' and store.missing.tolist() == [False, True, False]
    assert 'claims 40000 x 40000 pixels' in done['notes'] and '00002_u1.jpg' in done['notes']
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000          # kB
    with pytest.raises(ValueError, match='claims 3000 x 3000 pixels'): decode_face(claims(3000, 3000, form), 224)
    decode_image(claims(3000, 3000, form))                       # a frame may be as large


def test_frames_of_absurd_size_are_passed_over(tmp_path):
    (tmp_path / 'img_00001.jpg').write_bytes(encoded('JPEG'))
    (tmp_path / 'img_00002.jpg').write_bytes(claims(60_000, 60_000, 'jpeg'))
    assert [p for p, _ in folder_frames(tmp_path, range(4))] == [0]


def test_videos_of_absurd_size_are_refused(tmp_path, sample):
    "A small file with two black frames of 64 million pixels, and one whose header claims more than its stream has."
    import av
    with av.open(str(tmp_path / 'large.mp4'), 'w') as out:
        stream = out.add_stream('libx264', rate=30, width=8000, height=8000, pix_fmt='yuv420p', options=dict(preset='ultrafast'))
        out.mux(stream.encode(av.VideoFrame(8000, 8000, 'yuv420p')))
        out.mux(stream.encode())
    video = next((sample / 'videos').glob('*.mp4')).read_bytes()
    (tmp_path / 'header.mp4').write_bytes(video.replace(struct.pack('>HH', 480, 360), struct.pack('>HH', 30_000, 30_000)))
    code = ('import sys; from lam_nb.videos import video_frames\n'
            'try: n = len(list(video_frames(sys.argv[1], range(9))))\n'
            'except ValueError as e: n = str(e)\n'
            'print(n, open("/proc/self/status").read().split("VmHWM:")[1].split()[0])')
    for name, what in {'large.mp4': 'large.mp4 has frames of 64,000,000 pixels', 'header.mp4': '9 '}.items():
        said = subprocess.run([sys.executable, '-c', code, tmp_path / name], capture_output=True, text=True, check=True).stdout
        assert what in said and int(said.split()[-1]) < 300_000, said        # kB


def test_pipes_and_links_are_no_crops(tmp_path):
    crops_of([encoded('JPEG')], tmp_path)
    track = tmp_path / 'videos_challenge/v1/t1'
    os.mkfifo(track / '00002_pipe.jpg')
    (track / '00003_link.jpg').symlink_to('/unmounted/a.jpg')
    (track / '00004_folder.jpg').mkdir()
    done, store = prepared(tmp_path)
    assert store.missing.tolist() == [False, True, True, True] and done['status'] == 'made'


# ---- hidden files and places ------------------------------------------------------------------------------------------

HIDDEN = '.gitkeep', '.DS_Store', 'Thumbs.db', 'desktop.ini', '._videos', '__MACOSX/x.jpg'


def hide(folder):
    "Hidden files of all kinds in a folder."
    for name in HIDDEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'\0\5\26\7')


def archive_of(folder, target, kind='zip'):
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.make_archive(str(target), kind, folder, 'videos_challenge'))


@pytest.mark.parametrize('kind', ['zip', 'gztar'])
def test_hidden_files_hide_no_archive(tmp_path, kind):
    source = crops_of([encoded('JPEG')] * 2, tmp_path / 'source')
    for folder in (source / 'videos_challenge', source / 'videos_challenge/v1', source / 'videos_challenge/v1/t1'): hide(folder)
    (source / 'videos_challenge/v1/t1/._00001_u0.jpg').write_bytes(b'\0\5\26\7')
    for folder in ('videos_challenge', 'v2/social_test', 'v2/social_test/videos_challenge'): hide(tmp_path / folder)
    archive = archive_of(source, tmp_path / 'v2/social_test/c', kind)
    shutil.copy(archive, archive.with_name(f'._{archive.name}'))
    root, left_out = unpack_crops(tmp_path)
    faces, skipped = split_faces(tmp_path, 'test', PrepareSettings())
    assert root == tmp_path / 'videos_challenge' and len(faces) == 2 and left_out.empty and skipped.empty
    assert unpack_crops(tmp_path)[0] == root and len(split_faces(tmp_path, 'test', PrepareSettings())[0]) == 2


def test_hidden_files_beside_crops_are_no_rows(tmp_path):
    crops_of([encoded('JPEG')], tmp_path)
    for folder in ('', 'v1', 'v1/t1'): hide(tmp_path / 'videos_challenge' / folder)
    faces, skipped = split_faces(tmp_path, 'test', PrepareSettings())
    assert len(faces) == 1 and skipped.empty


@pytest.mark.parametrize('place', [
    'videos_challenge/videos_challenge', 'videos_challenge/social_test/videos_challenge',
    'v2/social_test/videos_challenge/videos_challenge', 'v2/social_test/crops/videos_challenge', 'v2/social_test'])
def test_crops_unpacked_into_a_folder_of_their_own_name(tmp_path, place):
    source = crops_of([encoded('JPEG')], tmp_path / 'source')
    shutil.copytree(source / 'videos_challenge', tmp_path / 'data' / place)
    hide(tmp_path / 'data/videos_challenge')
    assert challenge_root(tmp_path / 'data') == tmp_path / 'data' / place
    assert len(split_faces(tmp_path / 'data', 'test', PrepareSettings())[0]) == 1


def test_crops_of_no_known_form_are_shown(tmp_path):
    source = crops_of([encoded('JPEG')], tmp_path / 'source') / 'videos_challenge'
    for part in ('a', 'b'): shutil.copytree(source, tmp_path / 'videos_challenge' / part)
    with pytest.raises(ValueError, match="has no <video_id>/<track_id>/.*; it has 'a/v1/t1/00001_u0.jpg', 'b/v1"):
        split_faces(tmp_path, 'test', PrepareSettings())


def test_an_error_that_names_a_table_comes_after_the_table(tmp_path):
    "Annotations without a face: the run fails, and skipped.csv is there."
    (tmp_path / 'json').mkdir()
    clip = dict(clip_uid='c', video_uid='v', valid=True, persons=[], social_segments_looking=[])
    videos = [dict(video_uid='v', split='val', clips=[clip])]
    (tmp_path / 'json/av_val.json').write_text(json.dumps(dict(version='2', videos=videos)))
    settings = PrepareSettings(data_dir=str(tmp_path), splits=['val'], out_dir=str(tmp_path / 'out'))
    run = Preparation(settings, tmp_path / 'out')
    read_faces(run)
    with pytest.raises(ValueError, match='skipped.csv'): make_faces(run)
    assert (tmp_path / 'out/skipped.csv').exists()


def test_archives_that_would_fill_the_disk_are_refused(tmp_path, monkeypatch):
    archive_of(crops_of([encoded('JPEG')] * 5, tmp_path / 'source'), tmp_path / 'v2/social_test/c')
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=20_000))
    with pytest.raises(ValueError, match='c.zip would take .* and only 18,000 of the free disk space'): unpack_crops(tmp_path)
    assert not (tmp_path / 'videos_challenge').exists() and not list(tmp_path.glob('.*'))


def test_a_giant_header_in_an_archive_is_refused(tmp_path):
    "A name of 40 MB, which tarfile would take into memory."
    (tmp_path / 'v2/social_test').mkdir(parents=True)
    with tarfile.open(tmp_path / 'v2/social_test/c.tar.gz', 'w:gz', format=tarfile.GNU_FORMAT) as t:
        t.addfile(tarfile.TarInfo('videos_challenge/v1/t1/' + 'x' * 40_000_000))
    with pytest.raises(ValueError, match='a header of 40,'): unpack_crops(tmp_path)


# ---- names of frames and videos ---------------------------------------------------------------------------------------

def frames_in(folder, form, numbers=range(1, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers: cv2.imwrite(str(folder / form.format(n)), np.full((8, 8, 3), 20 * n, np.uint8))
    return folder


@pytest.mark.parametrize('form', ['img_{:05d}.jpg', 'img_{:05d}.png', 'img_{:05d}.jpeg', 'img_{:05d}.JPG', 'img_{:06d}.jpg',
                                  'img_{}.jpg', 'frame_{:05d}.jpg', 'Frame_{:d}.PNG'])
def test_frames_under_other_names(tmp_path, form):
    folder = frames_in(tmp_path / 'f', form)
    hide(folder)
    (folder / '._img_00001.jpg').write_bytes(b'\0\5\26\7')
    assert {p: round(image.mean() / 20) for p, image in folder_frames(folder, range(9))} == {0: 1, 1: 2, 2: 3}
    assert extract_frames('no video', folder) == 3               # they are there already


def test_frames_that_are_ambiguous_or_unknown_are_shown(tmp_path):
    def refused(folder, why):
        with pytest.raises(ValueError, match=why): frame_files(folder)
    refused(frames_in(tmp_path / 'a', '{}.jpg'), "no img_00001.jpg.*it has '1.jpg', '2.jpg', '3.jpg'$")
    refused(frames_in(tmp_path / 'b', 'x', []), 'it has nothing')
    both = frames_in(tmp_path / 'c', 'frame_{:05d}.jpg')
    frames_in(both, 'img_{:05d}.png')
    refused(both, 'frames under several names; it has .* and 3 more')
    frames_in(both, 'img_{:05d}.jpg')
    assert {f.suffix for f in frame_files(both).values()} == {'.jpg'}        # the official names are meant
    refused(frames_in(frames_in(tmp_path / 'd', 'img_{}.jpg'), 'img_{:03d}.jpg'), 'two files for one frame')
    refused(frames_in(tmp_path / 'e', 'img_{:05d}.jpg', range(3)), 'numbered from 0')


@pytest.fixture
def one(sample, tmp_path):
    "A clip's faces, and its video outside of the data."
    faces = load_faces(sample, 'train')[0]
    faces = faces[faces.clip_uid == faces.clip_uid[0]].assign(clip_uid='clip').reset_index(drop=True)
    return faces, next((sample / 'videos').glob(f'{load_faces(sample, "train")[0].clip_uid[0]}.mp4'))


def place(video, root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / name)


def result(root, faces, **settings):
    return prepare_clip(root, root / 'faces', 'train', faces, PrepareSettings(image_size=32, **settings))


@pytest.mark.parametrize('name', ['videos/clip.MP4', 'videos/clip.mov', 'videos/clip.MOV', 'videos/clip.mkv', 'videos/clip.webm',
                                  'videos/clip.avi', 'v2/clips/clip.MP4', 'full_scale/v.MKV', 'v2/full_scale/v.mov'])
def test_videos_of_other_endings(one, tmp_path, name):
    faces, video = one
    place(video, tmp_path, name)
    done = prepare_clip(tmp_path, tmp_path / 'faces', 'train', faces, PrepareSettings(image_size=32), ('v', 1, 30))
    assert done['status'] == 'made' and not done['missing'], done['reason']


def test_what_is_there_instead_of_a_video_is_shown(one, tmp_path):
    faces, video = one
    place(video, tmp_path, 'videos/clip.mp4.part', 'videos/clip (1).mp4')
    reason = result(tmp_path, faces)['reason']
    assert 'videos/clip.mp4' in reason and '.mkv' in reason and 'there is videos/clip (1).mp4, videos/clip.mp4.part' in reason


@pytest.mark.parametrize('name, source', [('videos/clip.mp4', 'auto'), ('full_scale/v.mp4', 'full_scale')])
def test_a_link_that_leads_nowhere_is_said(one, tmp_path, name, source):
    faces, video = one
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).symlink_to('/unmounted/clip.mp4')
    done = prepare_clip(tmp_path, tmp_path / 'faces', 'train', faces, PrepareSettings(source=source), ('v', 1, 30))
    assert f'{name} is a link to /unmounted/clip.mp4, which is not there' in done['reason']
    place(video, tmp_path, 'v2/full_scale/v.mp4')                # another place
    settings = PrepareSettings(image_size=32, source=source)
    done = prepare_clip(tmp_path, tmp_path / 'faces', 'train', faces, settings, ('v', 1, 30))
    assert done['status'] == 'made' and 'is a link to' in done['notes']


BROKEN = dict(empty=b'', lfs=b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
              page=b'<!DOCTYPE html><title>403</title>', cut=None, text=b'no video')
SAYS = dict(empty='it is empty', lfs='git-LFS', page='web page', cut='was the copy cut off', text='Invalid data')


@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_file_hides_no_good_one(one, tmp_path, kind):
    faces, video = one
    data = video.read_bytes()
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos/clip.mp4').write_bytes(data[:len(data) // 2] if BROKEN[kind] is None else BROKEN[kind])
    assert SAYS[kind] in result(tmp_path, faces)['reason']
    place(tmp_path / 'videos/clip.mp4', tmp_path, 'v2/clips/clip.mp4')
    reason = result(tmp_path, faces)['reason']                   # both are broken: both are named
    assert 'videos/clip.mp4 ' in reason and 'v2/clips/clip.mp4 ' in reason and reason.count(SAYS[kind]) == 2
    (tmp_path / 'video_imgs/clip').mkdir(parents=True)
    hide(tmp_path / 'video_imgs/clip')                           # holds no frame
    place(video, tmp_path, 'clips/clip.mp4')
    done = result(tmp_path, faces)
    assert done['status'] == 'made' and SAYS[kind] in done['notes'] and 'videos in clips used' in done['notes']
    assert find_source(tmp_path, 'clip').path == tmp_path / 'clips/clip.mp4'


@pytest.mark.parametrize('name', ['cam:1.mp4', 'http:x.mp4', 'concat:a.mp4|b.mp4', 'pipe:0.mp4', 'file:a.mp4', 'a%03d.mp4'])
def test_names_are_no_protocols(one, tmp_path, monkeypatch, name):
    shutil.copy(one[1], tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(video_frames(name, [0, 1]))) == 2


@pytest.mark.parametrize('text', ['ffconcat version 1.0\nfile a.mp4\n',
                                  '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\na.ts\n#EXT-X-ENDLIST\n',
                                  'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n'])
@pytest.mark.parametrize('name', ['list.mp4', 'list.mkv', 'list.m3u8'])
def test_playlists_open_no_other_file(one, tmp_path, name, text):
    shutil.copy(one[1], tmp_path / 'a.mp4')
    shutil.copy(one[1], tmp_path / 'a.ts')
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f'{name} cannot be decoded'): list(video_frames(tmp_path / name, [0]))


@pytest.mark.parametrize('place_of', ['videos/clip.mp4', 'v2/clips/clip.mp4', 'video_imgs/clip/img_00002.jpg', 'video_imgs/clip',
                                      'videos_challenge/clip'])
def test_a_pipe_in_the_place_of_data_is_no_data(one, tmp_path, place_of):
    faces, video = one
    (tmp_path / place_of).parent.mkdir(parents=True)
    if place_of.endswith('2.jpg'): (tmp_path / 'video_imgs/clip/img_00001.jpg').write_bytes(encoded('JPEG'))
    os.mkfifo(tmp_path / place_of)
    done = result(tmp_path, faces, other_size='keep')
    if place_of.endswith('2.jpg'): assert done['status'] == 'made' and done['missing'] > 0
    else: assert done['status'] == 'failed' and 'clip' in done['reason']


ODD = ['', '[]', 'null', '{', '{"videos": null}', '{"videos": {"a": 1}}', '{"videos": [null, 3, "x", {"video_metadata": [1]}]}',
       '{"clips": [{"clip_uid": ["a"], "resolution": {"w": 3}}]}', '[' * 100000]


@pytest.mark.parametrize('text', ODD, ids=range(len(ODD)))
@pytest.mark.filterwarnings('ignore:.*frames in it are not known')
def test_odd_files_of_sizes_stop_nothing(one, tmp_path, text):
    faces, video = one
    place(video, tmp_path, 'videos/clip.mp4')
    (tmp_path / 'ego4d.json').write_text(text)
    (tmp_path / 'v2/full_scale').mkdir(parents=True)
    (tmp_path / 'v2/full_scale/manifest.csv').write_bytes(b'\0' * 7 + text.encode('utf-16'))
    for name in ('json', 'split'): (tmp_path / name).symlink_to(video.parents[1] / name)
    made, = prepare_faces({'train': faces}, tmp_path, tmp_path / 'faces', PrepareSettings(image_size=32, workers=1)).to_dict('records')
    assert made['status'] == 'made' and not made['missing'], made['reason']
    assert isinstance(_frame_sizes(tmp_path), dict)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32', 'latin-1'])
def test_sizes_in_any_encoding(tmp_path, encoding):
    (tmp_path / 'v2/full_scale').mkdir(parents=True)
    rows = 'video_uid,display_resolution_width,display_resolution_height,place\nv1,1440,1080,K\xf6ln\n'
    (tmp_path / 'v2/full_scale/manifest.csv').write_bytes(rows.encode(encoding))
    clips = json.dumps(dict(clips=[dict(clip_uid='\xe4', resolution='1920x1080')]), ensure_ascii=False)
    (tmp_path / 'ego4d.json').write_bytes(clips.encode(encoding))
    assert _frame_sizes(tmp_path) == {'v1': (1440, 1080), '\xe4': (1920, 1080)}
