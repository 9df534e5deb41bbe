"""Windows loaded a second: the official loader, ours, and JPEG decoding alone, in turns on the same made-up 1440x1080 data.

Usage: python benchmarks/loader.py CHECKOUT [--seconds 20] [--rounds 3] [--workers 2] [--batch 64] [--ways]
CHECKOUT is a checkout of EGO4D/social-interactions, branch lam; its data set class is used as it is, in a DataLoader as its run.py makes it
(batch 64, 2 workers, shuffled, stride 3). It reads frames that ffmpeg extracted the official way; ours a face store of the same frames.
--ways measures other ways to load from the store too. Needs ffmpeg; writes benchmarks/results/loader.json.
"""
import argparse
import json
import multiprocessing as mp
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import in_turns, save, timed
from torch.utils.data import DataLoader
from torchvision.io import decode_jpeg

from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.windows import FaceWindows, as_tensors, one_thread, window_batches

UID, TRACKS = 'benchmark-clip', 10


def make_data(root: Path, seconds: int) -> Path:
    "One clip of noisy 1440x1080 video at 13 Mbit/s with ten tracks, its frames, and its annotations in Ego4D's and the official layout."
    frames = root / 'video_imgs' / UID
    for folder in (root / 'json', root / 'split', root / 'videos', frames): folder.mkdir(parents=True)
    video, ffmpeg = root / 'videos' / f'{UID}.mp4', ['ffmpeg', '-v', 'error', '-nostdin']
    picture = ['-f', 'lavfi', '-i', f'mandelbrot=size=1440x1080:rate=30,noise=alls=40:allf=t:all_seed=1,trim=duration={seconds}']
    subprocess.run([*ffmpeg, *picture, '-c:v', 'libx264', '-preset', 'veryfast', '-b:v', '13M', '-pix_fmt', 'yuv420p', video], check=True)
    subprocess.run([*ffmpeg, '-i', video, '-f', 'image2', '-vf', 'fps=30', '-qscale:v', '2', frames / 'img_%05d.jpg'], check=True)
    last = len(list(frames.iterdir()))
    box = lambda t, f: dict(x=60. + 120 * t + f % 90, y=40. + 70 * t + f % 150, width=70. + 12 * t, height=90. + 12 * t, frame=f)
    tracks = [dict(track_id=f'track_{t}', track=[box(t, f) for f in range(1, last + 1)]) for t in range(TRACKS)]
    persons = [dict(person_id='0', camera_wearer=True, tracking_paths=[]), dict(person_id='1', camera_wearer=False, tracking_paths=tracks)]
    look = dict(start_frame=10, end_frame=30, person='1', target=None, is_at_me=False)
    clip = dict(clip_uid=UID, video_uid='benchmark-video', valid=True, persons=persons, social_segments_looking=[look])
    (root / 'json/av_train.json').write_text(json.dumps(dict(videos=[dict(video_uid='benchmark-video', split='train', clips=[clip])])))
    (root / 'split/train.list').write_text(UID + '\n')
    return root


def official_windows(checkout: Path, data: Path):
    "The official training data set."
    sys.path[:0] = [str(checkout), str(checkout / 'scripts')]
    from common.utils import get_transform
    from dataset.data_loader import ImagerLoader
    from get_json import get_json
    from get_lam_result import get_lam_result
    get_json(data / 'json/av_train.json', data / 'json_original')
    get_lam_result(data / 'json/av_train.json', data / 'result_LAM')
    places = (str(data / p) for p in ('video_imgs', 'split/train.list', 'json_original', 'result_LAM'))
    return ImagerLoader(*places, stride=3, transform=get_transform(True))


def our_windows(data: Path) -> FaceWindows:
    "Our windows of the same faces, as the default settings store them."
    settings = PrepareSettings(source='frames')
    prepare_faces({'train': split_faces(data, 'train', settings)[0]}, data, data / 'faces', settings)
    return FaceWindows(data / 'faces', [UID], stride=3)


def count(loader) -> int: return sum(len(batch['label'] if isinstance(batch, dict) else batch[0]) for batch in loader)


def official(windows, args, n: int) -> int:
    "Reads `n` windows as the official code does."
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:n].tolist()
    return count(DataLoader(windows, batch_size=args.batch, sampler=order, num_workers=args.workers))


def plain_loader(windows, args, batches) -> int:
    "Ours by a plain DataLoader: new memory for each batch."
    return count(DataLoader(windows, batch_sampler=batches, collate_fn=as_tensors, num_workers=args.workers, worker_init_fn=one_thread))


class Torchvision(FaceWindows):
    "The same windows, decoded by torchvision."
    def read_into(self, images, items):
        faces = images.reshape(-1, self.size, self.size, 3)
        for i, (clip, row) in enumerate(zip(np.repeat(self.clip[items], 7), self.rows[items].ravel())):
            data = torch.frombuffer(bytearray(self.stores[clip].image(row)), dtype=torch.uint8)
            faces[i] = decode_jpeg(data).permute(1, 2, 0).numpy()
        return images[:len(items)]


def threads(windows, args, batches) -> int:
    "Threads of this process instead of worker processes, each with memory of its own that it uses again."
    room = np.empty((args.workers, args.batch, 7, windows.size, windows.size, 3), np.uint8)

    def read(share):
        for items in batches[share::args.workers]: windows.read_into(room[share, :len(items)], items)
    one_thread()
    with ThreadPoolExecutor(args.workers) as pool: list(pool.map(read, range(args.workers)))
    return sum(map(len, batches))


def decode_share(pictures, decode, start):
    "What each process of `decoding_alone` does."
    one_thread()
    torch.set_num_threads(1)
    start.wait()
    for data in pictures: decode(data)


def decoding_alone(windows, args, batches, decode) -> float:
    "Windows a second if nothing were done but decoding their pictures, already in memory, one by one, and throwing them away."
    encoded = {row: np.frombuffer(bytes(windows.stores[0].image(row)), np.uint8).copy() for row in np.unique(windows.rows)}
    pictures = [encoded[row] for row in windows.rows[np.concatenate(batches)].ravel().tolist()]
    fork, n = mp.get_context('fork'), args.workers
    start = fork.Barrier(n + 1)
    processes = [fork.Process(target=decode_share, args=(pictures[i::n], decode, start)) for i in range(n)]
    for p in processes: p.start()
    start.wait()
    begin = time.perf_counter()
    for p in processes: p.join()
    return len(pictures) / 7 / (time.perf_counter() - begin)


def by_opencv(data): return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)


def by_torchvision(data): return decode_jpeg(torch.from_numpy(data))


def measured(theirs, ours, args) -> dict:
    "Windows a second of all ways."
    order = np.concatenate([np.random.default_rng(i).permutation(len(ours)) for i in range(4)])
    batches = [order[i:i + args.batch] for i in range(0, len(order), args.batch)]
    ways = {
        'official loader': lambda: timed(official, theirs, args, 4 * args.batch),
        'ours': lambda: timed(lambda: count(window_batches(ours, batches, args.workers))),
        'decoding alone, OpenCV': lambda: decoding_alone(ours, args, batches, by_opencv),
        'decoding alone, torchvision': lambda: decoding_alone(ours, args, batches, by_torchvision)}
    if args.ways:
        by_tv = Torchvision.__new__(Torchvision)
        by_tv.__dict__ = ours.__dict__
        ways |= {'ours, decoded by torchvision': lambda: timed(lambda: count(window_batches(by_tv, batches, args.workers))),
                 'plain DataLoader': lambda: timed(plain_loader, ours, args, batches),
                 'threads of one process': lambda: timed(threads, ours, args, batches)}
    faces = [np.unique(ours.rows[items]).size / ours.rows[items].size for items in batches]
    sizes = [len(ours.stores[0].image(row)) for row in range(0, ours.rows.max(), 17)]
    return dict(windows_per_s=in_turns(ways, args.rounds), share_of_faces_decoded=round(float(np.mean(faces)), 3),
                mean_bytes_of_a_face=int(np.mean(sizes)), windows_in_the_data=len(ours))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path)
    numbers = dict(seconds=20, rounds=3, workers=2, batch=64)
    for name, default in numbers.items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--ways', action='store_true')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder), args.seconds)
        frame_bytes = np.mean([p.stat().st_size for p in (data / 'video_imgs' / UID).iterdir()])
        theirs, ours = official_windows(args.checkout.resolve(), data), our_windows(data)
        if len(theirs) != len(ours): raise ValueError(f'{len(theirs):,} official windows, {len(ours):,} of ours: they must be the same')
        figures = measured(theirs, ours, args)
    rates = figures['windows_per_s']
    limit = max(rate for name, rate in rates.items() if name.startswith('decoding'))
    save('loader', f'python benchmarks/loader.py CHECKOUT{" --ways" * args.ways}', **figures, bytes_of_a_frame=int(frame_bytes),
         times_the_official=round(rates['ours'] / rates['official loader'], 1), share_of_decoding_alone=round(rates['ours'] / limit, 3),
         settings={name: getattr(args, name) for name in numbers})


if __name__ == '__main__':
    main()
