"""Validation at stride 1, windows a second: the official loop end to end, ours end to end, and the trunk alone; in turns, on the same data.

Usage: python benchmarks/evaluation_speed.py CHECKOUT [CHECKPOINT] [--data DATA_DIR] [--rounds 3] [--official 128] [--compile]
CHECKOUT is a checkout of EGO4D/social-interactions, branch lam; its data set, model and post-processor are used as they are, on frames that
ffmpeg extracted the official way, with its defaults (batch 64, 2 workers) and in-process (batch 16, no workers). Ours reads a face store
made of the same frames. The data is made here: noisy 1440x1080 H.264 with six tracks of about 100 frames.
"Trunk alone" is ResNet-18 with fc1 and fc2 on as many faces, normalised in memory: as torch runs it (batch 64, layers spread over
the cores), and as `predict` does (norms folded, 8 faces a thread). --compile adds torch.compile's frozen trunk.
With CHECKPOINT, mAP of its val split in DATA_DIR (default data/sample; prepared) in fp32 and bf16. Needs ffmpeg; writes
benchmarks/results/evaluation_speed.json.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import torch
from measure import in_turns, save, timed
from torch.utils.data import DataLoader, Subset

from lam_nb.annotations import split_clips
from lam_nb.evaluation import lam_metrics
from lam_nb.faces import ClipFaces, store_path
from lam_nb.devices import autocast
from lam_nb.inference import CPU_BATCH, _threads, fast_copy, predict
from lam_nb.scoring import load_model
from lam_nb.models import BaselineLSTM, normalise
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces

UID, TRACKS, FRAMES = 'benchmark-clip', 6, 105


def make_data(root: Path):
    "One clip of noisy video, its frames, its annotations in Ego4D's and the official layout, and our face store."
    frames = root / 'video_imgs' / UID
    for folder in (root / 'json', root / 'split', root / 'videos', frames): folder.mkdir(parents=True)
    video, ffmpeg = root / f'videos/{UID}.mp4', ['ffmpeg', '-v', 'error', '-nostdin']
    picture = ['-f', 'lavfi', '-i', 'mandelbrot=size=1440x1080:rate=30,noise=alls=40:allf=t:all_seed=1', '-frames:v', str(FRAMES)]
    subprocess.run([*ffmpeg, *picture, '-c:v', 'libx264', '-preset', 'veryfast', '-b:v', '13M', '-pix_fmt', 'yuv420p', video], check=True)
    subprocess.run([*ffmpeg, '-i', video, '-f', 'image2', '-vf', 'fps=30', '-qscale:v', '2', frames / 'img_%05d.jpg'], check=True)
    box = lambda t, f: dict(x=100. + 190 * t + f % 40, y=80. + 120 * t + f % 60, width=110. + 12 * t, height=140. + 12 * t, frame=f)
    tracks = [dict(track_id=f'track_{t}', track=[box(t, f) for f in range(1, FRAMES - 1)]) for t in range(TRACKS)]
    persons = [dict(person_id='0', camera_wearer=True, tracking_paths=[]), dict(person_id='1', camera_wearer=False, tracking_paths=tracks)]
    looks = [dict(start_frame=10, end_frame=30, person='1', target=None, is_at_me=False)]
    clip = dict(clip_uid=UID, video_uid='benchmark-video', valid=True, persons=persons, social_segments_looking=looks)
    (root / 'json/av_val.json').write_text(json.dumps(dict(videos=[dict(video_uid='benchmark-video', split='val', clips=[clip])])))
    (root / 'split/val.list').write_text(UID + '\n')
    settings = PrepareSettings(source='frames', workers=1)
    prepare_faces({'val': split_faces(root, 'val', settings)[0]}, root, root / 'faces', settings)


def official(checkout: Path, root: Path, weights: dict):
    "The official validation loop as a function of batch size, workers and number of windows."
    np.float, np.NAN = float, np.nan                                   # removed from NumPy since
    torch.nn.init.normal, torch.nn.init.constant = torch.nn.init.normal_, torch.nn.init.constant_
    sys.path[:0] = [str(checkout), str(checkout / 'scripts')]
    from common.utils import PostProcessor, get_transform
    from dataset.data_loader import ImagerLoader
    from get_json import get_json
    from get_lam_result import get_lam_result
    from model import resnet
    from model.model import BaselineLSTM as OfficialLSTM
    resnet.model_zoo.load_url = lambda *args, **kwargs: {}             # its weights are replaced below
    get_json(root / 'json/av_val.json', root / 'json_original')
    get_lam_result(root / 'json/av_val.json', root / 'result_LAM')
    places = (str(root / p) for p in ('video_imgs', 'split/val.list', 'json_original', 'result_LAM'))
    data = ImagerLoader(*places, stride=1, mode='val', transform=get_transform(False))
    model = OfficialLSTM(types.SimpleNamespace(checkpoint=None, rank=0, eval=False)).eval()
    model.load_state_dict(weights)

    def run(batch: int, workers: int, limit: int) -> int:
        results = PostProcessor(types.SimpleNamespace(exp_path=str(root), rank=0))
        chosen = Subset(data, range(min(limit, len(data))))
        with torch.no_grad():
            for x, y in DataLoader(chosen, batch_size=batch, num_workers=workers): results.update(model(x), y)
        return len(chosen)
    return run


@torch.inference_mode()
def trunk_as_usual(model, faces, precision: str) -> int:
    "Features of faces in memory, 64 at a time, each layer spread over the cores."
    with autocast(precision, faces.device):
        for part in faces.split(64): model.features(part)
    return len(faces)


def trunk_in_threads(features, faces, precision: str) -> int:
    "Features of faces in memory, some at a time in each of as many threads as cores."
    @torch.inference_mode()
    def some(part):
        with autocast(precision, faces.device): features(part)
    with _threads(torch.get_num_threads()) as pool: list(pool.map(some, faces.split(CPU_BATCH)))
    return len(faces)


@torch.inference_mode()
def compiled(fast, face, precision: str):
    "The trunk of a fast copy, compiled with its weights frozen, and the seconds that this took."
    begin = time.perf_counter()
    torch._inductor.config.freezing = True
    trunk = torch.compile(fast.features, dynamic=False)
    with autocast(precision, face.device): trunk(face.expand(CPU_BATCH, -1, -1, -1).contiguous(memory_format=torch.channels_last))
    return trunk, round(time.perf_counter() - begin, 1)


def ways(args, root: Path, model) -> tuple[dict, dict]:
    "Name -> measured way; seconds of compilation."
    store = ClipFaces(store_path(root / 'faces', UID))
    images = torch.from_numpy(np.stack([store.crop(i) for i in range(len(store.table))]))
    faces, usual, loop = normalise(images), model.to(memory_format=torch.channels_last), official(args.checkout, root, model.state_dict())
    found, seconds = {}, {}
    found['official, batch 64, 2 workers'] = lambda: timed(loop, 64, 2, args.official)
    found['official, batch 16, in-process'] = lambda: timed(loop, 16, 0, args.official)
    for p in ('fp32', 'bf16'):
        fast = fast_copy(model, p)
        found[f'ours, {p}'] = lambda p=p: timed(lambda: len(predict(model, root / 'faces', [UID], precision=p)))
        found[f'trunk alone as usual, {p}'] = lambda p=p: timed(trunk_as_usual, usual, faces, p)
        found[f'trunk alone as in predict, {p}'] = lambda p=p, fast=fast: timed(trunk_in_threads, fast.features, faces, p)
        if not args.compile: continue
        trunk, seconds[p] = compiled(fast, faces[:1], p)
        whole = faces[:len(faces) // CPU_BATCH * CPU_BATCH]
        found[f'trunk alone, compiled, {p}'] = lambda p=p, trunk=trunk, whole=whole: timed(trunk_in_threads, trunk, whole, p)
    return found, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=lambda p: Path(p).resolve())
    parser.add_argument('checkpoint', type=Path, nargs='?')
    parser.add_argument('--data', type=Path, default=Path('data/sample'))
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--official', type=int, default=128, help='windows that the official loop does each time')
    parser.add_argument('--compile', action='store_true')
    args = parser.parse_args()
    torch.manual_seed(0)
    model, figures = BaselineLSTM().eval(), {}
    if args.checkpoint:
        trained, size, _ = load_model(args.checkpoint)
        clips = split_clips(args.data, 'val')
        tables = {p: predict(trained, args.data / 'faces', clips, size=size, precision=p) for p in ('fp32', 'bf16')}
        figures['mAP'] = {p: round(lam_metrics(t)['mAP'], 5) for p, t in tables.items()}
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        found, seconds = ways(args, Path(folder), model)
        rate = in_turns(found, args.rounds)
    best = lambda start, end='': max(v for k, v in rate.items() if k.startswith(start) and k.endswith(end))
    figures |= dict(rows=(FRAMES - 2) * TRACKS, threads=torch.get_num_threads(), cores=len(os.sched_getaffinity(0)), windows_per_s=rate)
    if seconds: figures['seconds_to_compile'] = seconds
    for p in ('fp32', 'bf16'):
        figures[f'times official, {p}'] = round(rate[f'ours, {p}'] / best('official'), 2)
        figures[f'of the best trunk alone, {p}'] = round(rate[f'ours, {p}'] / best('trunk', p), 3)
    save('evaluation_speed', 'python benchmarks/evaluation_speed.py CHECKOUT CHECKPOINT' + ' --compile' * args.compile, **figures)


if __name__ == '__main__':
    main()
