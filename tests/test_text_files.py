"""Lists as people have them: encodings, writing, other things under the name of a list."""

import json
import re

import pytest

from lam_nb.annotations import load_annotations, load_faces, split_clips
from lam_nb.text_files import id_in_line, list_lines, nearest_name, shown_text

TEXT = 'clip-a\r\nclip-b\r\n'


def with_clips(folder, *uids, split='val'):
    "A data folder whose annotations have these clips, each of one video and with one face."
    box = dict(frame=3, x=1.0, y=2.0, width=30.0, height=40.0)
    persons = [dict(person_id='0', camera_wearer=True), dict(person_id='1', tracking_paths=[dict(track_id='t', track=[box])])]
    clips = [dict(clip_uid=uid, video_uid=f'video-{n}', persons=persons, social_segments_looking=[]) for n, uid in enumerate(uids)]
    for name in ('json', 'split'):
        (folder / name).mkdir()
    (folder / f'json/av_{split}.json').write_text(json.dumps(dict(videos=[dict(video_uid='v', clips=clips)])))
    return folder


def write_list(folder, content, split='val'):
    (folder / f'split/{split}.list').write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'utf-32-be', 'cp1252'])
def test_a_list_is_read_in_any_encoding_without_the_annotations(tmp_path, encoding):
    (tmp_path / 'split').mkdir()
    write_list(tmp_path, ('# Zoës “list”\r\n' + TEXT).encode(encoding))
    assert split_clips(tmp_path, 'val') == ['clip-a', 'clip-b']


@pytest.mark.parametrize(
    'content',
    [
        b'\xef\xbb\xbfclip-a\n\xef\xbb\xbfclip-b\n',  # two files put together
        b'clip-a\n' + 'clip-b\n'.encode('utf-16-le'),  # >> of PowerShell
        b'clip-a\nclip-b\n\0\0\0\0\0',  # blocks that were never written
        b'clip-a\rclip-b\r',
        b'clip_uid\nclip-a\nclip-b\n',
        b'clip_uid;camera\nclip-a;3\nclip-b;4\n',
        b'n,clip_uid\n0,clip-a\n1,clip-b\n',
        b'"clip-a"\n\'clip-b\'\n',
        '“clip-a”\n‘clip-b’\n'.encode('cp1252'),
        b'clip-a,\nclip-b;\n',
        b'["clip-a",\n "clip-b"\n]\n',
        b'- clip-a\n- clip-b\n',
        b'clip-a # the kitchen\n\n# not this one: clip-c\nclip-b\n',
        b'clip-a.mp4\nclip-b.MOV\n',
        b'videos/clip-a.mp4\nC:\\data\\clip-b.mp4\n',
        b's3://bucket/v2/clips/clip-a.mp4\nvideo_imgs/clip-b/\n',
        b'2021-03-04 12:00:00   123456 clip-a.mp4\n2021-03-04 12:00:01 7 clip-b.mp4\n',
    ],
)
@pytest.mark.filterwarnings('ignore:.*were read as ids')
def test_ids_are_found_in_lines_however_they_are_written(tmp_path, content):
    write_list(with_clips(tmp_path, 'clip-a', 'clip-b', 'clip-c'), content)
    assert split_clips(tmp_path, 'val') == ['clip-a', 'clip-b']
    faces, skipped = load_faces(tmp_path, 'val')
    assert faces.clip_uid.tolist() == ['clip-a', 'clip-b'] and not len(skipped)


def test_reading_odd_lines_is_said(tmp_path):
    write_list(with_clips(tmp_path, 'clip-a', 'clip-b'), 'clip-a\nclip-b.mp4\n')
    with pytest.warns(UserWarning, match=r"val.list: 1 of 2 lines were read as ids, first: line 2, 'clip-b.mp4', as 'clip-b'"):
        assert split_clips(tmp_path, 'val') == ['clip-a', 'clip-b']


@pytest.mark.parametrize('uid', ['clip-a.mp4', '"clip-a"', 'clip-a,', 'my clip', '[a]'])
def test_an_id_that_is_in_the_annotations_as_it_is_stays(tmp_path, uid):
    write_list(with_clips(tmp_path, uid, 'clip-a', 'clip', 'a'), f'{uid}\n')
    assert split_clips(tmp_path, 'val') == [uid]


def test_a_list_of_plain_ids_does_not_read_the_annotations(tmp_path):
    (with_clips(tmp_path, 'clip-a') / 'json/av_val.json').write_text('broken')
    write_list(tmp_path, '# all\nclip_uid\nclip-a\nclip-b\n')
    assert split_clips(tmp_path, 'val') == ['clip-a', 'clip-b']
    write_list(tmp_path, 'clip-a.mp4\n')
    with pytest.raises(ValueError, match='av_val.json: no complete JSON'):
        split_clips(tmp_path, 'val')


@pytest.mark.filterwarnings('ignore:.*were read as ids')
def test_ids_are_read_without_annotations_too(tmp_path):
    (tmp_path / 'split').mkdir()
    write_list(tmp_path, 'clip-a.mp4\n"clip-b"\nclip-c,val\n')
    assert split_clips(tmp_path, 'val') == ['clip-a', 'clip-b', 'clip-c']


@pytest.mark.filterwarnings('ignore:.*more than once')
def test_new_annotations_are_noticed_by_an_odd_list(tmp_path):
    "The ids of an annotation file are kept while the file stays as it is."
    write_list(with_clips(tmp_path, 'clip-a', 'clip-b'), 'x,clip-a\nx,clip-b\n')
    with pytest.warns(UserWarning, match='were read as ids'):
        assert split_clips(tmp_path, 'val') == ['clip-a', 'clip-b']
    (tmp_path / 'json/av_val.json').write_text('{"videos": [{"clips": [{"clip_uid": "x"}]}]}')
    with pytest.warns(UserWarning, match='were read as ids'):
        assert split_clips(tmp_path, 'val') == ['x']


@pytest.mark.parametrize(
    'line, words',
    [
        ('CLIP-A', "'clip-a'. Write the ids in the list as they stand there"),
        ('CLIP-A.mp4', "'clip-a'. Write"),
        ('clip-aa', "'clip-a'. Write"),
        ('video-1', "the video of 'clip-b'. Write"),
        ('something', 'has clip-a, clip-b: list and annotations do not belong together'),
    ],
)
@pytest.mark.filterwarnings('ignore:.*were read as ids')
def test_a_list_of_other_ids_is_shown_beside_what_the_annotations_have(tmp_path, line, words):
    write_list(with_clips(tmp_path, 'clip-a', 'clip-b'), f'{line}\n')
    with pytest.raises(ValueError, match='listed for .val.') as e:
        load_faces(tmp_path, 'val')
    assert words in re.sub(r'It (?=has)', '', str(e.value)) and line.removesuffix('.mp4') in str(e.value)
    assert ('do not belong together' in str(e.value)) == (line == 'something')


def test_one_odd_line_costs_itself_and_is_told(tmp_path):
    write_list(with_clips(tmp_path, 'kitchen', 'garden'), 'kitchen\nKitchen\n../x\nkitchen garden\nstreet\n' + 'y' * 300 + '\n')
    with pytest.warns(UserWarning, match='3 of 6 lines left out, first: val.list, line 3'):
        faces, skipped = load_faces(tmp_path, 'val')
    assert faces.clip_uid.tolist() == ['kitchen']
    told = dict(zip(skipped.clip_uid, skipped.reason))
    assert told['Kitchen'] == "listed for val but not in the annotations, which has 'kitchen'"
    assert told['street'] == 'listed for val but not in the annotations'
    assert 'val.list, line 3' in told['../x'] and 'holds 2 ids' in told['kitchen garden'] and 'line 6' in told['y' * 200]
    assert len(skipped) == 5


@pytest.mark.parametrize('line', ['bad \ud800 id'.encode('utf-8', 'surrogatepass'), b'bad\0\x01id', b'\xff\xfe\xfd', b'\x1b[31mred'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
@pytest.mark.filterwarnings('ignore:.*(were read as ids|left out, first)')
def test_half_characters_and_control_codes_cost_their_line(tmp_path, line, encoding):
    good, bad = 'clip-a\n', line.decode('latin-1')
    if encoding == 'utf-16':
        content = ('\ufeff' + good + bad + '\ud800\n').encode('utf-16-le', 'surrogatepass')
    else:
        content = good.encode() + line + b'\n'
    write_list(with_clips(tmp_path, 'clip-a', 'clip-b'), content)
    faces, skipped = load_faces(tmp_path, 'val')
    assert faces.clip_uid.tolist() == ['clip-a'] and len(skipped) == 1
    skipped.to_csv(tmp_path / 'skipped.csv')
    skipped.to_parquet(tmp_path / 'skipped.parquet')


@pytest.mark.parametrize(
    'content, words',
    [
        (b'\x1f\x8b\x08....', 'compressed by gzip: unpack it'),
        (b'PK\x03\x04....', 'a zip archive: unpack it'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:1', 'git lfs pull'),
        (b'# only a comment\n', 'is empty'),
        (b'clip_uid\n', 'is empty'),
        (b'../x\n', 'line 1'),
    ],
)
def test_what_is_no_list_is_named_with_a_cure(tmp_path, content, words):
    write_list(with_clips(tmp_path, 'clip-a'), content)
    with pytest.raises(ValueError, match=r'val\.list') as e:
        split_clips(tmp_path, 'val')
    assert words in str(e.value)


@pytest.mark.parametrize('what', ['split/val.list', 'json/av_val.json'])
def test_a_dangling_link_is_not_taken_for_nothing(tmp_path, what):
    with_clips(tmp_path, 'clip-a')
    (tmp_path / what).unlink(missing_ok=True)
    (tmp_path / what).symlink_to('/unmounted/file')
    with pytest.raises(FileNotFoundError, match='a link to /unmounted/file, which is not there'):
        split_clips(tmp_path, 'val')


@pytest.mark.parametrize('name', ['val.list.txt', 'Val.list', 'val.txt', 'val'])
def test_a_list_of_another_name_is_not_passed_over_in_silence(tmp_path, name):
    (with_clips(tmp_path, 'clip-a', 'clip-b') / 'split' / name).write_text('clip-a\n')
    with pytest.warns(UserWarning, match=f'{name} beside it is not read'):
        assert split_clips(tmp_path, 'val') == ['clip-a', 'clip-b']


# ---- annotation files


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'utf-32-le'])
def test_annotations_are_read_in_every_encoding_of_unicode(tmp_path, encoding):
    file = with_clips(tmp_path, 'clip-é') / 'json/av_val.json'
    file.write_bytes(json.dumps(json.loads(file.read_text()), ensure_ascii=False).encode(encoding))
    assert load_faces(tmp_path, 'val')[0].clip_uid.tolist() == ['clip-é']


@pytest.mark.parametrize(
    'content, words',
    [
        ('{"videos": [], "by": "Zoë"}'.encode('latin-1'), ['no utf-8 text', 'Save it as UTF-8']),
        ('{"videos": []}'.encode('utf-16')[:-1], ['no utf-16 text']),
        (b'\x1f\x8b\x08....', ['compressed by gzip: unpack it']),
        (b'PK\x03\x04....', ['a zip archive: unpack it']),
        (b'version https://git-lfs.github.com/spec/v1\n', ['git lfs pull']),
        (b'<html>', ['no complete JSON', 'Download it again']),
    ],
)
def test_the_true_cause_of_an_unreadable_annotation_file_is_named(tmp_path, content, words):
    (tmp_path / 'av_val.json').write_bytes(content)
    with pytest.raises(ValueError) as e:
        load_annotations(tmp_path / 'av_val.json')
    assert all(word in str(e.value) for word in ['av_val.json', *words])


# ---- the pieces


def test_line_numbers_count_all_lines(tmp_path):
    (tmp_path / 'a.list').write_text('# one\n\nclip_uid\nclip-a\n')
    assert list_lines(tmp_path / 'a.list') == [(4, 'clip-a')]


def test_an_id_is_never_guessed():
    assert id_in_line('CLIP-A', {'clip-a'}) == 'CLIP-A' and id_in_line('clip-aa.mp4', {'clip-a'}) == 'clip-aa'
    with pytest.raises(ValueError, match='2 ids'):
        id_in_line('clip-a,clip-b', {'clip-a', 'clip-b'})


def test_a_name_cut_short_is_near():
    assert nearest_name('5BD21B6A', ['5bd21b6a-0f13', 'ad07fec1-9a90']) == '5bd21b6a-0f13'
    assert nearest_name('5b', ['5bd21b6a-0f13']) == nearest_name('x', []) == ''


def test_shown_text_can_be_stored():
    for text in ('\ud800' * 300, '\0', '\x1b[2J', 'ä', 7, None, ['\udfff']):
        shown = shown_text(text)
        shown.encode()
        assert shown.isprintable() and len(shown) <= 1200
