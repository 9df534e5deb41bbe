"The face store: what happens to clips that cannot be read, and to a run that is repeated."
import cv2
import numpy as np
import pandas as pd
import pytest

from lam_nb.annotations import load_faces
from lam_nb.faces import ClipFaces, challenge_faces, note_unavailable, store_path
from lam_nb.preparation import PrepareSettings, prepare_clip, prepare_faces
from lam_nb.videos import video_frames


@pytest.fixture
def faces(sample):
    table = load_faces(sample, 'train')[0]
    return table[table.clip_uid == table.clip_uid[0]].reset_index(drop=True)


def test_frames_beyond_the_end_are_missing_rows(sample, faces, tmp_path):
    late = faces.assign(frame=faces.frame + 20)
    done = prepare_clip(sample, tmp_path, 'train', late, PrepareSettings(image_size=32))
    store = ClipFaces(store_path(tmp_path, faces.clip_uid[0]))
    assert done['status'] == 'made' and done['missing'] == store.missing.sum() == (late.frame > 30).sum() > 0
    assert len(store.table) == len(late) and store.crop(int(store.missing.argmax())).max() == 0


def test_boxes_outside_the_frame_are_black(sample, faces, tmp_path):
    done = prepare_clip(sample, tmp_path, 'train', faces.assign(x1=9000., x2=9100.), PrepareSettings(image_size=32))
    assert done['black'] == len(faces) and not done['missing']


def test_a_damaged_packet_loses_its_frames_only(sample, faces, tmp_path):
    "Zeros in the middle of the video data: FFmpeg goes on after them, and so do we."
    import av
    video = sample / 'videos' / f'{faces.clip_uid[0]}.mp4'
    with av.open(str(video)) as container: packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(video.read_bytes())
    start, size = packets[-4]
    data[start:start + size] = bytes(size)
    (tmp_path / 'bad.mp4').write_bytes(data)
    assert len(list(video_frames(tmp_path / 'bad.mp4', range(30)))) >= 26


@pytest.mark.parametrize('content', [b'', b'not a video', None])
def test_unreadable_videos_are_reported_and_the_others_done(sample, faces, tmp_path, content):
    video = (sample / 'videos' / f'{faces.clip_uid[0]}.mp4').read_bytes()
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos' / 'bad.mp4').write_bytes(video[:len(video) // 2] if content is None else content)
    (tmp_path / 'videos' / f'{faces.clip_uid[0]}.mp4').write_bytes(video)
    table = pd.concat([faces.assign(clip_uid='bad'), faces], ignore_index=True)
    done = prepare_faces({'train': table}, tmp_path, tmp_path / 'faces', PrepareSettings(image_size=32, workers=1))
    assert done.status.tolist() == ['failed', 'made'] and 'bad.mp4' in done.reason[0]
    assert sorted(p.name for p in (tmp_path / 'faces').iterdir()) == sorted([f'{faces.clip_uid[0]}.arrow', 'unavailable'])
    assert 'bad.mp4' in note_unavailable(tmp_path / 'faces', {})['bad']


def test_only_what_changed_is_made_again(sample, faces, tmp_path):
    make = lambda table, **s: prepare_clip(sample, tmp_path, 'train', table, PrepareSettings(image_size=32, **s))['status']
    assert [make(faces), make(faces)] == ['made', 'kept']
    assert make(faces.assign(label=0)) == 'made'
    assert [make(faces, quality=80), make(faces, quality=80)] == ['made', 'kept']


def test_hostile_ids_write_no_file(sample, faces, tmp_path):
    done = prepare_clip(sample, tmp_path / 'faces', 'train', faces.assign(clip_uid='../../evil'), PrepareSettings())
    assert done['status'] == 'failed' and not list(tmp_path.rglob('*.arrow'))


def test_parallel_and_serial_stores_are_the_same_bytes(sample, tmp_path):
    table = load_faces(sample, 'train')[0]
    for n in (1, 2): prepare_faces({'train': table}, sample, tmp_path / str(n), PrepareSettings(image_size=32, workers=n))
    for one in (tmp_path / '1').iterdir(): assert one.read_bytes() == (tmp_path / '2' / one.name).read_bytes()


def test_unreadable_crops_are_missing(tmp_path):
    folder = tmp_path / 'videos_challenge' / 'v1' / 't1'
    folder.mkdir(parents=True)
    for frame in (5, 6): cv2.imwrite(str(folder / f'{frame:05d}_u{frame}.jpg'), np.full((224, 224, 3), 90, np.uint8))
    (folder / '00007_u7.jpg').write_bytes(b'broken')
    (folder / 'notes.txt').write_text('x')
    faces, skipped = challenge_faces(folder.parent)
    done = prepare_clip(tmp_path, tmp_path / 'faces', 'test', faces, PrepareSettings())
    store = ClipFaces(store_path(tmp_path / 'faces', 'v1'))
    assert done['missing'] == 1 and store.missing.tolist() == [False, False, True] and 'notes.txt' in skipped[0]['reason']
    assert bytes(store.image(0)) == (folder / '00005_u5.jpg').read_bytes()          # kept byte for byte


def test_positions_are_times(tmp_path):
    "25 frames per second: position p shows what is seen p/30 seconds after the start."
    import av
    with av.open(str(tmp_path / 'slow.mp4'), 'w') as out:
        stream = out.add_stream('libx264', rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = 'yuv420p'
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * i, np.uint8), format='rgb24')
            for packet in stream.encode(frame): out.mux(packet)
        for packet in stream.encode(None): out.mux(packet)
    seen = {p: round(image.mean() / 10) for p, image in video_frames(tmp_path / 'slow.mp4', range(40))}
    assert seen[0] == 0 and seen[6] == 5 and seen[12] == 10 and max(seen) in (29, 28)
    assert list(seen.values()) == sorted(seen.values())
