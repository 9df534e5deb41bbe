"""Whether everything that reads a whole data set grows with it, at most in proportion: time and memory at the real size, with tiny faces.

    python benchmarks/real_size.py [--clips 389] [--folder FOLDER]

Makes face stores of 389 clips with 9,255 rows each, 3.6 million rows as Ego4D has, in eleven tracks a clip; faces of 16x16 pixels, and
a look as long as people's. Then for a quarter, a half and all of the clips, each in a process of its own: the start of a training at stride
3 (index, order, first batch); an evaluation at stride 3, which is 0.3, 0.6 and 1.2 million rows, with a network that sees the mean colour
only; and the comparison of two such evaluations. For each step: seconds, the peak of memory, and the exponent p of seconds = c rows^p
(least squares on logarithms, through the three sizes). 1 is proportional. Linux; writes benchmarks/results/real_size.json.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn

from lam_nb.faces import encode_face, store_path, write_store
from lam_nb.models import FaceModel, make_model, save_checkpoint
from lam_nb.predictions import read_table, write_table
from measure import save

ROWS, TRACKS, SIZE = 9255, 11, 16                    # of a clip


class MeanColour(FaceModel):
    "Looking where the face is bright: enough to give scores that err now and then."
    window = 7

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.))

    def features(self, faces): return faces.mean((1, 2, 3))[:, None]                              # (N, 1)
    def classify(self, features): return torch.cat([-features[:, 3], features[:, 3]], 1) * self.scale           # (B, 2)


def clip_table(uid, rng):
    "A faces table: tracks that look now and then, for two seconds on average, a seventh of the time."
    track, frame = np.divmod(np.arange(ROWS), -(-ROWS // TRACKS))
    changes = rng.random(ROWS) < np.where(np.arange(ROWS) % 2, 1 / 60, 1 / 360)
    label = (np.cumsum(changes) % 2).astype(np.int8) * (rng.random(ROWS // 500 + 1) < .5).repeat(500)[:ROWS].astype(np.int8)
    side = rng.uniform(20, 200, TRACKS)[track]
    return pd.DataFrame(dict(
        clip_uid=uid, track_id=pd.Series(track).map('track_{:02d}'.format), person_id=(track % 5 + 1).astype(str), frame=frame + 1,
        x1=100.25, y1=80.5, x2=100.25 + side, y2=80.5 + side, interpolated=frame % 7 == 0, label=label))


def make_data(root: Path, clips: int):
    "Face stores; the ids of their clips."
    rng, about = np.random.default_rng(0), dict(image_size=SIZE, image_format='jpeg', labels='official', max_gap=None, split='val')
    spots = lambda mean: cv2.resize(np.clip(rng.normal(mean, 40, (4, 4, 3)), 0, 255).astype(np.uint8), (SIZE, SIZE))       # smooth
    faces = [[encode_face(spots(mean), 'jpeg') for mean in rng.normal(centre, 25, 200)] for centre in (110, 150)]
    uids = [f'00000000-0000-4000-8000-{i:012d}' for i in range(clips)]
    for uid in uids:
        table = clip_table(uid, rng)
        shown = rng.integers(0, 200, ROWS)
        write_store(store_path(root / 'faces', uid), table, [([i], faces[y][k]) for i, (y, k) in enumerate(zip(table.label, shown))], about)
    return uids


class Steps:
    "Seconds and the peak of memory of the steps of a process."
    def __init__(self): self.found = {}

    def __call__(self, name, step):
        Path('/proc/self/clear_refs').write_text('5')                                                # the peak begins anew
        begin = time.perf_counter()
        result = step()
        peak = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))
        self.found[name] = dict(seconds=round(time.perf_counter() - begin, 3), MB=int(peak.split()[1]) // 1000)
        return result


def training(root, step):
    "The start of a training."
    from lam_nb.batches import epoch_batches, epoch_order
    from lam_nb.windows import FaceWindows, window_batches
    uids = (root / 'split/val.list').read_text().split()
    windows = step('training: index', lambda: FaceWindows(root / 'faces', uids, stride=3))
    order = step('training: order', lambda: epoch_order(windows.labels, 0, 0))
    step('training: first batch', lambda: next(window_batches(windows, epoch_batches(order, 64)[:50], 2)))


def evaluation(root, step):
    "An evaluation from the stores to its report; the size of the report in bytes."
    from lam_nb import evaluation_report as report
    from lam_nb.settings import EvaluateSettings
    model = make_model('real_size:MeanColour')                  # not of __main__: its name is kept in the checkpoint
    file = save_checkpoint(root / 'mean.pt', model, image_size=SIZE)
    settings = EvaluateSettings(data_dir=str(root), out_dir=str(root / 'one'), checkpoint=str(file), stride=3, precision='fp32',
                                model='real_size:MeanColour', num_processes=1, resume=False)
    run = step('evaluation: start', lambda: report.start_evaluation(settings))
    run.show = False
    step('evaluation: predictions', lambda: report.predict_rows(run))
    step('evaluation: predictions written', lambda: report.save_predictions(run))
    step('evaluation: metrics', lambda: report.save_metrics(run))
    step('evaluation: intervals by clip', lambda: run.intervals)
    step('evaluation: properties of the rows', lambda: run.properties)
    step('evaluation: groups of rows', lambda: run.slices)
    step('evaluation: tables', lambda: report.save_tables(run))
    sections = step('evaluation: sections and figures', lambda: report.evaluation_sections(run))
    step('evaluation: report', lambda: report.write_evaluation(run, sections))
    return (run.out / 'report.html').stat().st_size


def another(root):
    "The folder of a second evaluation: other scores for the same rows."
    shutil.copytree(root / 'one', root / 'two')
    table = read_table(root / 'two/predictions.parquet')
    logit = table.logit + np.random.default_rng(0).normal(0, .5, len(table))
    write_table(table.assign(logit=logit, score=1 / (1 + np.exp(-logit))), root / 'two/predictions.parquet')


def comparison(root, step):
    "Two evaluations compared."
    from lam_nb import comparison_report as report
    from lam_nb.settings import CompareSettings
    settings = CompareSettings(runs=[str(root / 'one'), str(root / 'two')], out_dir=str(root / 'compare'))
    run = step('comparison: start', lambda: report.start_comparison(settings))
    run.show = False
    step('comparison: intervals of the differences', lambda: report.save_results(run))
    step('comparison: sections and figures', lambda: report.comparison_sections(run))
    step('comparison: saved', lambda: report.save_comparison(run))


def measure(root):
    "All steps in this process; prints them as JSON."
    import matplotlib
    matplotlib.use('agg')
    cv2.setNumThreads(1)
    step = Steps()
    training(root, step)
    size = evaluation(root, step)
    another(root)
    comparison(root, step)
    print(json.dumps(dict(report_bytes=size, steps=step.found)))


def exponent(rows, seconds):
    "p of seconds = c rows^p."
    return float(np.polyfit(np.log(rows), np.log(np.maximum(seconds, 1e-3)), 1)[0])


def at_size(root, uids):
    "The steps with these clips, in a process of its own."
    for name in ('one', 'two', 'compare'): shutil.rmtree(root / name, ignore_errors=True)
    (root / 'split').mkdir(exist_ok=True)
    (root / 'split/val.list').write_text('\n'.join(uids) + '\n')
    done = subprocess.run([sys.executable, __file__, '--measure', str(root)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clips', type=int, default=389)
    parser.add_argument('--folder', type=Path, help='keep the stores here')
    parser.add_argument('--measure', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure: return measure(args.measure)
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or Path(temporary)
        (root / 'faces').mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        uids = make_data(root, args.clips)
        print(f'{args.clips} face stores in {time.perf_counter() - begin:.0f} s', flush=True)
        found = {}
        for n in (args.clips // 4, args.clips // 2, args.clips):
            found[n] = at_size(root, uids[:n])
            print(f'{n} clips:', json.dumps(found[n]), flush=True)
    rows, last = [n * ROWS // 3 for n in found], found[args.clips]
    names = [f'{n / 1e6:.1f}M' for n in rows]
    of = lambda step, what: [f['steps'][step][what] for f in found.values()]
    steps = {step: {f's {n}': v for n, v in zip(names, of(step, 'seconds'))} | {f'MB {n}': v for n, v in zip(names, of(step, 'MB'))} |
             dict(p=round(exponent(rows, of(step, 'seconds')), 2)) for step in last['steps']}
    whole = sum(s['seconds'] for name, s in last['steps'].items() if name.startswith('evaluation') and name != 'evaluation: predictions')
    save('real_size', f'python benchmarks/real_size.py --clips {args.clips}', stored_rows=args.clips * ROWS, rows=rows,
         report_KB=[f['report_bytes'] // 1000 for f in found.values()], evaluation_without_predictions_s=round(whole, 1), steps=steps)


if __name__ == '__main__': main()
