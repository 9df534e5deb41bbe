"""How fast a data set is prepared, beside the official extraction of frames.

    python benchmarks/preparation.py [--seconds 20] [--clips 4] [--rounds 3]

Makes clips of 1440x1080 H.264 at about 13 Mbit/s (a moving, noisy picture: the contents do not matter, the bit rate does), with 0.74
annotated faces a frame on average, as Ego4D has. Then, in turn, `rounds` times: the official extraction (ffmpeg, one JPEG a frame,
quality 2), decoding alone (ffmpeg to null, by frame threads and by one process a core; the faster counts), and ours (all of prepare:
decode, crop, encode, store). Medians; everything runs on this machine's cores. Needs ffmpeg.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

from lam_nb.annotations import load_faces
from lam_nb.preparation import PrepareSettings, prepare_faces
from measure import save

SIZE, RATE = '1440x1080', 13_000_000


def make_data(root, clips, seconds):
    "Clips `c0 ...` and their annotations in the official layout; faces come and go as in Ego4D: 0.74 a frame."
    for folder in ('videos', 'json', 'split'): (root / folder).mkdir(parents=True)
    source = f'testsrc2=size={SIZE}:rate=30:duration={seconds},noise=alls=12:allf=t'
    first = root / 'videos/c0.mp4'
    encode = ['ffmpeg', '-v', 'error', '-f', 'lavfi', '-i', source, '-c:v', 'libx264', '-preset', 'veryfast', '-pix_fmt', 'yuv420p',
              '-b:v', str(RATE), '-maxrate', str(RATE), '-bufsize', str(RATE), str(first)]
    subprocess.run(encode, check=True)
    for i in range(1, clips): shutil.copy(first, root / f'videos/c{i}.mp4')
    n = seconds * 30

    def track(name, start, stop, size):
        boxes = [dict(x=200 + f % 700, y=150 + f % 300, width=size, height=size * 1.3, frame=f, video_frame=f, clip_frame=None)
                 for f in range(int(start * n), int(stop * n))]
        return dict(track_id=name, track=boxes, suspect=False, unmapped_frames_count=0, unmapped_frames=[])

    persons = [dict(person_id='0', camera_wearer=True, tracking_paths=[], voice_segments=[]),
               dict(person_id='1', camera_wearer=False, voice_segments=[], tracking_paths=[track('t1', 0.0, 0.45, 160)]),
               dict(person_id='2', camera_wearer=False, voice_segments=[], tracking_paths=[track('t2', 0.31, 0.6, 90)])]
    rows = [dict(clip_uid=f'c{i}', video_uid=f'v{i}', persons=persons, social_segments_looking=[]) for i in range(clips)]
    text = dict(videos=[dict(video_uid=r['video_uid'], split='train', clips=[r]) for r in rows])
    (root / 'json/av_train.json').write_text(json.dumps(text))


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def official(root):
    "The official extraction: ffmpeg's own threads, one clip after the other."
    for clip in sorted((root / 'videos').glob('*.mp4')):
        out = root / 'video_imgs' / clip.stem
        out.mkdir(parents=True)
        frames = ['-f', 'image2', '-vf', 'fps=30', '-qscale:v', '2', str(out / 'img_%05d.jpg')]
        subprocess.run(['ffmpeg', '-v', 'error', '-i', str(clip), *frames], check=True)


def decode_alone(root, by_process):
    "ffmpeg to null: frame threads, one clip after the other; or one thread, as many clips at once as there are cores."
    clips = sorted((root / 'videos').glob('*.mp4'))
    commands = [['ffmpeg', '-v', 'error', *(['-threads', '1'] if by_process else []), '-i', str(c), '-f', 'null', '-'] for c in clips]
    at_once = os.cpu_count() if by_process else 1
    while commands:
        running = [subprocess.Popen(c) for c in commands[:at_once]]
        del commands[:at_once]
        if any(p.wait() for p in running): raise RuntimeError('ffmpeg failed')


def ours(root, faces):
    shutil.rmtree(root / 'faces', ignore_errors=True)
    done = prepare_faces({'train': faces}, root, root / 'faces', PrepareSettings(data_dir=str(root), source='videos'))
    if set(done.status) != {'made'} or done.missing.sum(): raise RuntimeError(done.to_string())
    get_reusable_executor().shutdown()                           # each round pays for starting its processes
    return done.peak_mb.max()


def bytes_in(folder): return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (('seconds', 20), ('clips', 4), ('rounds', 3)): parser.add_argument(f'--{name}', type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_data(root, args.clips, args.seconds)
        faces, _ = load_faces(root, 'train')
        peak, frames, seconds = [], args.clips * args.seconds * 30, {k: [] for k in ('official', 'threads', 'processes', 'ours')}
        for _ in range(args.rounds):
            shutil.rmtree(root / 'video_imgs', ignore_errors=True)
            seconds['official'].append(timed(lambda: official(root)))
            seconds['threads'].append(timed(lambda: decode_alone(root, False)))
            seconds['processes'].append(timed(lambda: decode_alone(root, True)))
            seconds['ours'].append(timed(lambda: peak.append(ours(root, faces))))
        median = {k: statistics.median(v) for k, v in seconds.items()}
        decoding = min(median['threads'], median['processes'])
        size = {k: bytes_in(root / f) for k, f in (('official', 'video_imgs'), ('ours', 'faces'), ('videos', 'videos'))}
        save(
            'preparation', f'python benchmarks/preparation.py --clips {args.clips} --seconds {args.seconds} --rounds {args.rounds}',
            video=f'{SIZE}, {size["videos"] * 8 / frames * 30 / 1e6:.1f} Mbit/s', frames=frames, faces_a_frame=len(faces) / frames,
            frames_per_s={k: round(frames / v, 1) for k, v in median.items()}, seconds=seconds,
            times_official=median['official'] / median['ours'], share_of_decoding=decoding / median['ours'],
            bytes_a_frame={k: round(v / frames) for k, v in size.items()}, bytes_official_over_ours=size['official'] / size['ours'],
            peak_mb_a_worker=max(peak),
            hours_for_572_clips=572 * 9000 / (frames / median['ours']) / 3600)


if __name__ == '__main__': main()
