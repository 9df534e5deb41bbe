"""How much quicker a clip is prepared when what no face depends on is not decoded.

    python benchmarks/skipping.py [--seconds 60] [--rounds 3]

Clips of 1440x1080 H.264 at about 13 Mbit/s, all key frames or x264's default groups (250 frames, B-frames), with faces in half of the
frames, in stretches of 5 or 30 seconds (1.48 faces in such a frame: 0.74 a frame, as Ego4D has), or in every frame. In turn, `rounds`
times, one process a core: the whole of preparation (hash, decode, crop, encode, store) as it is, with everything decoded, and so
without `keep_memory`, as it was before. Medians, and whether the stored faces are equal. Needs ffmpeg.
"""
import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import lam_nb.videos as videos
from lam_nb.annotations import load_faces
from lam_nb.faces import ClipFaces, store_path
from lam_nb.preparation import PrepareSettings, prepare_clip
from lam_nb.processes import keep_memory
from measure import in_turns, save
from preparation import RATE, SIZE

CLIPS = {'all key frames': ['-g', '1'], 'default groups': []}
WAYS = 'memory given back', 'everything decoded', 'ours'
STRETCHES = 5, 30, None                                          # seconds with faces, then as many without; None: faces in every frame


def make_clip(file, seconds, options):
    source = f'testsrc2=size={SIZE}:rate=30:duration={seconds},noise=alls=12:allf=t'
    rate = ['-b:v', str(RATE), '-maxrate', str(RATE), '-bufsize', str(RATE)]
    subprocess.run(['ffmpeg', '-v', 'error', '-y', '-f', 'lavfi', '-i', source, '-c:v', 'libx264', '-pix_fmt', 'yuv420p', *rate, *options,
                    str(file)], check=True)


def annotate(root, seconds, stretch):
    """Annotations of `clip` in which faces come for `stretch` seconds and go for as long: one face, and for half of the time two.
    A clip begins and ends with half a stretch, so that its first and its last frame hold a face."""
    n, length = seconds * 30, stretch * 30 if stretch else seconds * 30

    def track(name, start, stop, size):
        boxes = [dict(x=200 + f % 700, y=150 + f % 300, width=size, height=size * 1.3, frame=f, video_frame=f, clip_frame=None)
                 for f in range(max(start, 0), min(stop, n))]
        return boxes and dict(track_id=name, track=boxes, suspect=False, unmapped_frames_count=0, unmapped_frames=[])

    tracks = [track(f'{who}-{begin}', begin, begin + (length if who == 'a' else length // 2), size)
              for begin in range(-length // 2 if stretch else 0, n, 2 * length) for who, size in (('a', 160), ('b', 90))]
    persons = [dict(person_id='0', camera_wearer=True, tracking_paths=[], voice_segments=[]),
               dict(person_id='1', camera_wearer=False, voice_segments=[], tracking_paths=[t for t in tracks if t])]
    clip = dict(clip_uid='clip', video_uid='video', persons=persons, social_segments_looking=[])
    text = json.dumps(dict(videos=[dict(video_uid='video', split='train', clips=[clip])]))
    (root / 'json').mkdir(exist_ok=True)
    (root / 'json/av_train.json').write_text(text)
    return load_faces(root, 'train')[0]


def decode_everything(path, wanted, zero):
    yield from videos._visible(videos._shown(path, int(wanted[0]), zero), wanted)


def prepare(root, out, faces, way):
    "One clip, in a process of its own."
    if way != 'ours': videos._frames_at = decode_everything
    if way != 'memory given back': keep_memory()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    done = prepare_clip(root, out, 'train', faces, PrepareSettings(data_dir=str(root), source='videos'))
    if done['status'] != 'made' or done['missing']: raise RuntimeError(f'{done}')


def rate(root, faces, way, frames):
    "Frames of video a second, of as many processes as there are cores, each with the whole clip."
    fork, n = multiprocessing.get_context('fork'), len(os.sched_getaffinity(0))
    work = [fork.Process(target=prepare, args=(root, root / f'faces-{way}-{i}', faces, way)) for i in range(n)]
    begin = time.perf_counter()
    for process in work: process.start()
    for process in work: process.join()
    if any(process.exitcode for process in work): raise RuntimeError('a preparation failed')
    return n * frames / (time.perf_counter() - begin)


def content(root, way):
    "A hash of all images of a store."
    return ClipFaces(store_path(root / f'faces-{way}-0', 'clip')).about['content']


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clips', nargs='+', choices=CLIPS, default=list(CLIPS))
    for name, value in (('seconds', 60), ('rounds', 3)): parser.add_argument(f'--{name}', type=int, default=value)
    args = parser.parse_args()
    frames, rows = args.seconds * 30, []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / 'videos').mkdir()
        for kind in args.clips:
            make_clip(root / 'videos/clip.mp4', args.seconds, CLIPS[kind])
            for stretch in STRETCHES:
                faces = annotate(root, args.seconds, stretch)
                fps = in_turns({way: partial(rate, root, faces, way, frames) for way in WAYS}, args.rounds)
                rows.append(dict(clip=kind, stretch_s=stretch, faces_a_frame=round(len(faces) / frames, 2), frames_per_s=fps,
                                 times={way: round(fps['ours'] / fps[way], 2) for way in WAYS[:-1]},
                                 equal=len({content(root, way) for way in WAYS}) == 1))
                print(rows[-1], flush=True)
                save('skipping', f'python benchmarks/skipping.py --seconds {args.seconds} --rounds {args.rounds}', video=SIZE, rows=rows)


if __name__ == '__main__': main()
