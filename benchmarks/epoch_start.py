"""How long an epoch takes to begin, and what workers need of memory, with an index as large as Ego4D's train split.

Usage: python benchmarks/epoch_start.py [--clips 385] [--rows 9360] [--batch 64] [--workers 2] [--batches 4000] [--ranks 1,8]
Makes a face store of 385 clips with 3.6 million rows, that is 1.2 million windows at stride 3. Every eighth row has a picture (16x16), the
others are black: the index is as large as the real one, the pictures are not. For the last process of each number of ranks: seconds from
nothing to the order of the windows, and to the first batch in the training process. Then memory of the workers after more and more batches.
Linux; writes benchmarks/results/epoch_start.json.
"""
import argparse
import multiprocessing as mp
import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from measure import save

from lam_nb.faces import encode_face, store_path, write_store
from lam_nb.batches import epoch_batches, epoch_order
from lam_nb.windows import FaceWindows, window_batches

TRACKS, SIZE = 10, 16


def make_store(root: Path, clips: int, rows: int) -> list[str]:
    "Face stores of `clips` clips with `rows` rows each, in ten tracks."
    track, frame = np.divmod(np.arange(rows), rows // TRACKS)
    columns = dict(track_id=pd.Series(track).map('track_{:02d}'.format), person_id=(track % 4 + 1).astype(str), frame=frame + 1)
    box = dict(x1=100.25, y1=80.5, x2=190.25, y2=200.5, interpolated=False, label=np.int8(0))
    picture = encode_face(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8), 'jpeg')
    images = [([row], b'' if row % 8 else picture) for row in range(rows)]
    uids = [f'00000000-0000-4000-8000-{i:012d}' for i in range(clips)]
    for uid in uids: write_store(store_path(root, uid), pd.DataFrame(dict(clip_uid=uid, **columns, **box)), images, dict(image_size=SIZE))
    return uids


def memory(pid: int) -> dict:
    "MB of a process: proportional share of all memory; of its own (nobody else's) without files."
    lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()[1:]
    kilobytes = {line.split(':')[0]: int(line.split()[1]) for line in lines}
    return dict(proportional=kilobytes['Pss'] // 1000, of_its_own=kilobytes['Private_Dirty'] // 1000, resident=kilobytes['Rss'] // 1000)


def start(windows: FaceWindows, args, epoch: int, ranks: int) -> tuple[float, float]:
    "Seconds until the order is there, and until the first batch is."
    begin = time.perf_counter()
    batches = epoch_batches(epoch_order(windows.labels, epoch, 0), args.batch, ranks - 1, ranks)
    ordered = time.perf_counter() - begin
    ready = window_batches(windows, batches, args.workers)
    next(ready)
    return ordered, time.perf_counter() - begin


def worker_memory(windows: FaceWindows, args) -> dict:
    "Batches read -> memory of the two workers, and of this process."
    batches, table = epoch_batches(epoch_order(windows.labels, 0, 0), args.batch)[:args.batches], {}
    for i, _ in enumerate(window_batches(windows, batches, args.workers)):
        if i + 1 in (args.batches // 20, args.batches // 4, args.batches // 2, args.batches - 2 * args.workers):
            table[i + 1] = dict(this=memory(os.getpid()), workers=[memory(p.pid) for p in mp.active_children()])
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = dict(clips=385, rows=9360, batch=64, workers=2, batches=4000)
    for name, default in numbers.items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--ranks', default='1,8')
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        uids = make_store(Path(folder), args.clips, args.rows)
        descriptors, before, begin = len(os.listdir('/proc/self/fd')), memory(os.getpid()), time.perf_counter()
        windows = FaceWindows(folder, uids, stride=3)
        index = time.perf_counter() - begin
        one = windows.__getitems__(range(0, len(windows), 3119))            # opens every store
        starts = {}
        for ranks in map(int, args.ranks.split(',')):
            times = [start(windows, args, epoch, ranks) for epoch in range(5)]
            medians = (round(statistics.median(t), 3) for t in zip(*times))
            starts[f'{ranks} processes'] = dict(zip(('order_s', 'first_batch_s'), medians))
        save('epoch_start', 'python benchmarks/epoch_start.py', windows=len(windows), rows=args.clips * args.rows,
             index_s=round(index, 2), epoch_start=starts,
             index_MB=round(sum(a.nbytes for a in (windows.clip, windows.rows, windows.labels)) / 1e6, 1),
             descriptors_of_all_stores=len(os.listdir('/proc/self/fd')) - descriptors, MB_before=before, MB_with_index=memory(os.getpid()),
             clips_read=len(np.unique(windows.clip[one['item']])), MB_after_batches=worker_memory(windows, args),
             settings={name: getattr(args, name) for name in numbers})


if __name__ == '__main__':
    main()
