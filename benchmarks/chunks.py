"""What it brings, and costs, to train with chunks of neighbouring windows, each face computed once.

    python benchmarks/chunks.py DATA_DIR [--chunks 1 4 8] [--seeds 3] [--epochs 4] [--set batch_size=32]

DATA_DIR: sample data with its face store (after `lam_nb prepare`). Trains with the sample's settings (64 pixels, stride 3), each seed
with each chunk length in turn; 1 is single windows. Shows the windows a second and the faces a window, and the mAP of the validation
(stride 3) after each epoch: at equal windows, and at equal time (the time that the fastest way took for all of its epochs). Figures on
the sample data say nothing about Ego4D.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from lam_nb.batches import epoch_batches, epoch_order
from lam_nb.launching import train_windows
from lam_nb.settings import TrainSettings
from lam_nb.windows import face_runs
from measure import save


def faces_a_window(settings):
    "Of the first batches of an epoch."
    windows = train_windows(settings)
    track = windows.clip.astype(np.int64) * 2 ** 32 + windows.track
    order = epoch_order(windows.labels, 0, settings.seed, track=track, chunk=settings.chunk)
    batches = epoch_batches(order, settings.batch_size)[:20]
    if settings.chunk == 1: return float(windows.length)
    return sum(len(face_runs(windows, items)['run']) for items in batches) / sum(map(len, batches))


def train(settings):
    "The history of a training, in a process of its own."
    values = json.dumps(settings.model_dump(mode='json'))
    code = 'import json, sys; from lam_nb.launching import train_process; train_process(json.loads(sys.argv[1]))'
    subprocess.run([sys.executable, '-c', code, values], check=True, stdout=subprocess.DEVNULL)
    return pd.read_csv(Path(settings.out_dir) / 'history.csv')


def at_time(history, seconds):
    "The best mAP of the epochs that were done by then (training only); NaN if none was."
    done = history.mAP[history.seconds.cumsum() <= seconds * 1.001]
    return done.max() if len(done) else float('nan')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data')
    parser.add_argument('--chunks', type=int, nargs='+', default=[1, 4, 8])
    for name, value in (('seeds', 3), ('epochs', 4)): parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--set', nargs='*', default=[], help='further settings of train.ipynb, name=value')
    args = parser.parse_args()
    others = {name: json.loads(value) for name, value in (text.split('=', 1) for text in args.set)}
    base = dict(data_dir=args.data, epochs=args.epochs, val_stride=3, num_processes=1) | others
    histories = {chunk: [] for chunk in args.chunks}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for chunk in args.chunks:
                settings = TrainSettings(**base, seed=seed, chunk=chunk, out_dir=f'{folder}/{chunk}-{seed}')
                histories[chunk].append(train(settings))
                row = histories[chunk][-1]
                print(f'chunk {chunk}, seed {seed}: {row.windows_per_s.median():.1f} windows/s,', row.mAP.round(3).tolist(), flush=True)
    seconds = min(history.seconds.sum() for several in histories.values() for history in several)
    rows = []
    for chunk, several in histories.items():
        maps, timed = np.array([h.mAP for h in several]), [at_time(h, seconds) for h in several]
        rows.append(dict(chunk=chunk, faces_a_window=round(faces_a_window(TrainSettings(**base, chunk=chunk)), 2),
                         windows_per_s=round(float(np.median([h.windows_per_s for h in several])), 1),
                         mAP_by_epoch=maps.mean(0).round(3).tolist(), mAP_last=maps[:, -1].round(3).tolist(),
                         mAP_at_equal_time=np.round(timed, 3).tolist()))
    command = f'python benchmarks/chunks.py {" ".join(["DATA_DIR", *sys.argv[2:]])}'
    save('chunks', command, seconds_of_equal_time=round(seconds, 1), rows=rows)


if __name__ == '__main__': main()
