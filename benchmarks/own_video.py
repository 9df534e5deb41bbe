"""A video of one's own: what the boxes of a detector cost, how fast video.ipynb is, and what memory it takes.

    python benchmarks/own_video.py boxes [--data data/sample] --checkpoints A.pt B.pt ...
    python benchmarks/own_video.py speed [--seconds 10]
    python benchmarks/own_video.py memory [--minutes 2 12]

`boxes`: AP of looking and mAP on the same annotated faces of the sample's validation clips (and AP after a median over 7 positions, as in
video.ipynb, and of the mean with the mirrored faces, as with flip=true), by where their boxes come from: annotation; the detector's at
every 1st, 3rd or 6th position, as they are or fitted by four numbers from training clips, also smoothed. `speed`:
CPU seconds and seconds of each stage for a second of video with two drawn faces, at 720p and 1080p, with models of 64 and 224 pixels
(random weights). `memory`: the largest memory of a run over a short video, and over one that is many times as long: its own, and with
the pages of files that it has mapped (the face store), which the system takes back when it needs them. Linux only.
Each adds its part to results/own_video.json.
"""
import argparse
import json
import multiprocessing
import resource
import tempfile
import threading
import time
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch

from lam_nb.annotations import load_faces, split_clips
from lam_nb.evaluation import lam_metrics
from lam_nb.faces import store_path, write_store
from lam_nb.inference import predict
from lam_nb.landmarks import open_detector
from lam_nb.models import BaselineLSTM, save_checkpoint
from lam_nb.own_video import cut_faces, draw_overlay, find_faces, open_video, score_faces, start_videos
from lam_nb.preparation import PrepareSettings, Source, clip_images
from lam_nb.sample import make_sample
from lam_nb.scoring import load_model, smooth_scores
from lam_nb.settings import VideoSettings
from lam_nb.tracking import LEAST, detect_faces, fit_boxes, fit_to_annotators, overlap, track_faces
from lam_nb.video_report import save_video_tables, video_sections, write_watched
from lam_nb.videos import find_videos
from measure import RESULTS, machine

ROOT = Path(__file__).resolve().parent.parent
BOX = ['x1', 'y1', 'x2', 'y2']
STAGES = open_video, find_faces, cut_faces, score_faces, draw_overlay, save_video_tables
KEYS = ['clip_uid', 'track_id', 'frame']


def keep(part: str, **figures):
    "Adds a part to the results."
    file = RESULTS / 'own_video.json'
    known = json.loads(file.read_text()) if file.exists() else {}
    known[part] = dict(command=f'python benchmarks/own_video.py {part}', machine=machine(), **figures)
    file.write_text(json.dumps(known, indent=1) + '\n')
    print(json.dumps(known[part], indent=1))


def matched(annotated, faces):
    "Annotated rows that a tracked box covers, with the number of its row."
    ours = faces.reset_index(names='row')[['clip_uid', 'frame', 'row', *BOX]]
    pairs = annotated.merge(ours, on=['clip_uid', 'frame'], suffixes=('', '_ours'))
    shared = [overlap(a[None], b[None])[0, 0] for a, b in zip(pairs[BOX].to_numpy(), pairs[[f'{c}_ours' for c in BOX]].to_numpy())]
    best = pairs.assign(shared=shared).sort_values('shared').groupby(KEYS).tail(1)
    return best[best.shared > .3].set_index(KEYS)[['row', 'label']]


def scored(faces, videos, model, size, folder):
    "Scores of all rows of some videos, by the kit's own inference: as they are, and as the mean with the mirrored faces."
    made = PrepareSettings(other_size='keep')
    for uid, rows in faces.groupby('clip_uid'):
        rows = rows.reset_index(drop=True)
        about = dict(split='video', source='videos', frame_offset=0, image_size=224, image_format='jpeg', quality=90)
        write_store(store_path(folder, uid), rows, clip_images(Source('videos', videos[uid], 0), rows, made), about)
    return [predict(model, folder, [*faces.clip_uid.unique()], 1, size=size, flip=flip).score.to_numpy() for flip in (False, True)]


def boxes(args):
    annotated = load_faces(args.data, 'val')[0]
    annotated = annotated[(annotated.label >= 0) & (annotated.frame > 0)].assign(frame=lambda t: t.frame - 1)    # positions
    videos = {uid: find_videos(args.data / 'videos', uid)[0] for uid in split_clips(args.data, 'val')}
    fit, yunet, tables = fit_boxes(args.data, 'train'), open_detector(confidence=LEAST), {}
    print(fit, flush=True)
    for every in args.every:
        found = {uid: detect_faces(video, yunet, every) for uid, video in videos.items()}
        for smooth in args.smooth if every == 3 else (1,):
            table = pd.concat([track_faces(table, uid, smooth=smooth) for uid, table in found.items()], ignore_index=True)
            name = f'every {every}' + (f', smoothed over {smooth}' if smooth > 1 else '')
            tables[f'fitted, {name}'] = fit_to_annotators(table, fit)
            if every == 3 and smooth == 1: tables[f'as they are, {name}'] = table
    rows = {name: matched(annotated, table) for name, table in tables.items()}
    common = sorted(set.intersection(*({*of.index} for of in rows.values())))
    whole, results = annotated.set_index(KEYS), []
    for checkpoint in args.checkpoints:
        model, size, _ = load_model(checkpoint)
        for name, faces in ({'annotation': annotated.sort_values(KEYS, ignore_index=True)} | tables).items():
            with tempfile.TemporaryDirectory() as folder: plain, mirrored = scored(faces, videos, model, size, folder)
            faces, both = faces.assign(score=plain), faces.assign(score=mirrored)
            at = rows[name].loc[common, 'row'].to_numpy() if name in rows else faces.reset_index().set_index(KEYS).loc[common, 'index']
            metrics = [lam_metrics(whole.loc[common].reset_index().assign(score=table.score.to_numpy()[at]))
                       for table in (faces, smooth_scores(faces, 7), smooth_scores(both, 7))]
            results.append(dict(checkpoint=checkpoint.parent.parent.name, boxes=name, AP_looking=round(metrics[0]['AP_looking'], 3),
                                mAP=round(metrics[0]['mAP'], 3), AP_looking_median_7=round(metrics[1]['AP_looking'], 3),
                                AP_looking_median_7_flip=round(metrics[2]['AP_looking'], 3)))
            print(results[-1], flush=True)
    keep('boxes', faces=len(common), fit=fit, rows=results)


def watch(video, weights, out, **given):
    "The stages of video.ipynb, in this process; (seconds of each, CPU seconds of each)."
    run, = start_videos(VideoSettings(video=str(video), checkpoint=str(weights), out_dir=str(out), **given))
    run.show, took, cpu = False, {}, {}
    for stage in (*STAGES, lambda run: write_watched(run, video_sections(run))):
        name = getattr(stage, '__name__', '').replace('<lambda>', 'report')
        began, used = time.perf_counter(), time.process_time()
        stage(run)
        took[name], cpu[name] = time.perf_counter() - began, time.process_time() - used
    return took, cpu


def speed(args):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in ((1280, 720), (1920, 1080)):
            data = make_sample(Path(folder) / f'{height}', train_clips=1, val_clips=1, test_clips=0, seconds=args.seconds, width=width,
                               height=height, people=(2, 2), progress=False)
            video = find_videos(data / 'videos', split_clips(data, 'val')[0])[0]
            for size in (64, 224):
                weights = save_checkpoint(Path(folder) / f'{size}.pt', BaselineLSTM(), image_size=size)
                took, cpu = watch(video, weights, Path(folder) / f'{height}-{size}')
                per = lambda of: {k: round(v / args.seconds, 2) for k, v in (of | dict(all=sum(of.values()))).items()}
                rows.append(dict(video=f'{height}p', model=size, seconds_a_second=per(took), cpu_seconds_a_second=per(cpu)))
                print(rows[-1], flush=True)
    keep('speed', seconds=args.seconds, threads=torch.get_num_threads(), rows=rows)


def long_video(source, file, minutes):
    "A clip, there and back, again and again."
    with av.open(str(source)) as container: frames = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
    frames = [f[::2, ::2] for f in frames]
    with av.open(str(file), 'w') as out:
        size = dict(width=frames[0].shape[1], height=frames[0].shape[0], pix_fmt='yuv420p')
        stream = out.add_stream('libx264', rate=30, options=dict(preset='veryfast'), **size)
        turn = [*frames, *frames[::-1]]
        for k in range(round(minutes * 1800)): out.mux(stream.encode(av.VideoFrame.from_ndarray(turn[k % len(turn)], 'rgb24')))
        out.mux(stream.encode())


def _peak(video, weights, out, queue):
    own, over = [0], threading.Event()

    def look():
        while not over.wait(.05):
            line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('RssAnon'))
            own[0] = max(own[0], int(line.split()[1]) / 1024)

    thread = threading.Thread(target=look)
    thread.start()
    try: took, _ = watch(video, weights, out, min_face=16, detect_size=320)
    finally: over.set()
    queue.put((own[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, sum(took.values())))


def memory(args):
    spawn, rows = multiprocessing.get_context('spawn'), []
    with tempfile.TemporaryDirectory() as folder:
        data = make_sample(Path(folder) / 'data', train_clips=1, val_clips=1, test_clips=0, people=(2, 2), progress=False)
        weights = save_checkpoint(Path(folder) / 'random.pt', BaselineLSTM(), image_size=64)
        for minutes in args.minutes:
            file = Path(folder) / f'{minutes:g}.mp4'
            long_video(find_videos(data / 'videos', split_clips(data, 'val')[0])[0], file, minutes)
            queue = spawn.Queue()
            process = spawn.Process(target=_peak, args=(file, weights, Path(folder) / f'{minutes:g}', queue))
            process.start()
            process.join()
            own, peak, took = queue.get(timeout=10)
            rows.append(dict(minutes=minutes, own_mb=round(own), resident_mb=round(peak), seconds=round(took), rows=len(pd.read_csv(
                Path(folder) / f'{minutes:g}/faces.csv', comment='#'))))
            print(rows[-1], flush=True)
    keep('memory', rows=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=['boxes', 'speed', 'memory'])
    parser.add_argument('--data', type=Path, default=ROOT / 'data/sample')
    parser.add_argument('--checkpoints', type=Path, nargs='+', default=[ROOT / 'outputs/demo/train/checkpoints/best.pt'])
    parser.add_argument('--every', type=int, nargs='+', default=[1, 3, 6])
    parser.add_argument('--smooth', type=int, nargs='+', default=[1, 5, 11])
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument('--minutes', type=float, nargs='+', default=[2, 12])
    args = parser.parse_args()
    np.random.seed(0)
    globals()[args.part](args)


if __name__ == '__main__': main()
