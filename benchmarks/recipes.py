"""What each part of the recipes brings on the hard sample: every entry trained with several seeds for the same time.

    python benchmarks/recipes.py [--seconds 500] [--seeds 0 1 2] [--entries baseline drop ...] [--data data/hard] [--out outputs/recipes]

Each training gets one core and `seconds` of training steps: the speed of every entry is measured first, as many at once as there are
cores, then every k-th row is taken, so that its epochs fill the time; the backbone that knows gaze was pretrained for as long before. As
many trainings as cores run side by side: work of others on the machine prolongs them but takes no windows from them. Validation at stride 3
is not counted. 500 seconds of one core with bfloat16 (AVX512-BF16 or AMX) are about the windows that the sample's recipe sees in its six
minutes on two. An entry that has a training in results/recipes.json keeps that one's windows for every seed, on any machine: a core
without bfloat16 takes five times as long for them.

Each training is a line of results/recipes.json, written when it ends: a second start, also on another day, goes on with what is not there
for these seconds. The table: mAP and AP of looking with the mean over seeds and each, the interval by clip of the first seed, windows/s,
parameters, disk. Figures on drawn heads say nothing about Ego4D. The entries with tiny encoders have random weights and one seed: they only
show that the path works.
"""
import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from lam_nb.data_checks import stored_clips
from lam_nb.devices import autocast
from lam_nb.landmarks import LANDMARKS, write_landmarks
from lam_nb.evaluation import intervals_by_clip, lam_metrics
from lam_nb.faces import ClipFaces, store_path
from lam_nb.inference import predict
from lam_nb.launching import train_process, train_windows
from lam_nb.models import FaceBackbone, normalise
from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.runs import read_recipe, write_json
from lam_nb.sample import make_sample
from lam_nb.scoring import load_model
from lam_nb.settings import TrainSettings
from lam_nb.batches import WindowData
from lam_nb.training import new_run, train_step
from lam_nb.windows import read_side_table, wanted_side
from measure import RESULTS, machine

ROOT = Path(__file__).resolve().parent.parent
HEAD = dict(model='EncoderHead')
SMOKE = 'tiny encoder, frozen (random)', 'tiny encoder, tuned (random)'
PRETRAINED = 3                                                   # steps of pretraining for each second of the budget: what a core does
GAZE = ['yaw', 'pitch', 'gaze_yaw', 'gaze_pitch']                 # degrees: what the encoder is pretrained to say


def entries(data: Path, seconds: float = 0) -> dict:
    "Name -> settings that differ from the sample's recipe."
    truth, points = str(data / 'sample_truth.csv'), str(data / 'landmarks.parquet')
    return {
        'baseline': {},
        'strong': dict(ema=.99, jitter=.1, weights='auto'),
        'drop': dict(quality='drop'),
        'head': HEAD,
        'sharpness told': HEAD | dict(quality='input'),
        'true pose told': HEAD | dict(side=['yaw', 'pitch', 'roll'], side_table=truth),
        'landmarks told': HEAD | dict(side=[*LANDMARKS, 'landmark_score'], side_table=points),
        'pretrained on gaze': HEAD | dict(encoder_weights=str(gaze_file(data, seconds))),
        'transformer': HEAD | dict(head='transformer', lr=3e-4),
        'one face': HEAD | dict(window=1, head='centre'),
        SMOKE[0]: HEAD | dict(encoder='timm:test_resnet', tune='none'),
        SMOKE[1]: HEAD | dict(encoder='timm:test_resnet', encoder_lr_ratio=1)}


def gaze_file(data: Path, seconds: float) -> Path: return data / f'gaze-{seconds:g}s.pth'


def folder_of(out: Path, name: str, seed: int) -> Path:
    return out / name.replace(' ', '-').replace(',', '') / f'seed-{seed}'


def ready(data: Path):
    "The hard sample with its faces, landmarks, and a backbone that was pretrained on the training faces' true gaze and pose."
    make_sample(data, level='hard', test_clips=0)
    small = PrepareSettings(data_dir=str(data), image_size=64)
    prepare_faces({split: split_faces(data, split, small)[0] for split in ('train', 'val')}, data, data / 'faces', small)
    clips = [uid for split in ('train', 'val') for uid in stored_clips(data, data / 'faces', split)]
    if not (data / 'landmarks.parquet').exists(): write_landmarks(data / 'faces', clips, data / 'landmarks.parquet')


def pretrain(data: Path, seconds: float, seed: int = 0):
    "Regresses true gaze and pose of the training faces, for about so long; the backbone's weights go to gaze-<seconds>s.pth."
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    side, images, truth = read_side_table(data / 'sample_truth.csv', GAZE), [], []
    for uid in stored_clips(data, data / 'faces', 'train'):
        store = ClipFaces(store_path(data / 'faces', uid))
        known = store.table[['track_id', 'frame']].merge(side[uid], on=['track_id', 'frame'], how='left')[GAZE].to_numpy()
        for row in np.flatnonzero(np.isfinite(known).all(1) & ~store.missing)[::3]:
            images.append(store.crop(row, 64))
            truth.append(known[row])
    images, truth = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(truth)).float() / 20
    backbone, head = FaceBackbone(), torch.nn.Linear(256, len(GAZE))
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], 1e-3)
    losses, rng, steps = [], np.random.default_rng(seed), round(PRETRAINED * seconds)
    for step in range(steps):
        for group in optimizer.param_groups: group['lr'] = 1e-3 * (1 - step / steps)
        some = torch.from_numpy(rng.integers(len(images), size=64))
        with autocast('auto', images.device): said = head(backbone(normalise(images[some])))
        loss = F.smooth_l1_loss(said.float(), truth[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.save(dict(state_dict=backbone.state_dict()), gaze_file(data, seconds))
    print(f'pretrained on {len(images):,} faces: {len(losses)} steps, mean loss of the last 50 {np.mean(losses[-50:]):.3f}', flush=True)


def training(name: str, seed: int, data: Path, out: Path, seconds: float) -> dict:
    "The settings of one training."
    recipe = read_recipe([str(ROOT / 'nbs/recipes/sample.yaml')])
    given = dict(data_dir=str(data), out_dir=str(folder_of(out, name, seed)), num_workers=0, device='cpu', num_processes=1, seed=seed)
    return recipe | given | dict(val_stride=3, val_every=recipe['epochs'], resume=False) | entries(data, seconds)[name]


def speed(name: str, seed: int, data: Path, out: Path, seconds: float):
    "Windows a second of a core's time, of a training in one thread, and its rows at stride 1; to <out>/<name>/speed.json."
    torch.set_num_threads(1)
    settings = TrainSettings(**training(name, seed, data, out, seconds) | dict(train_stride=1))
    run = new_run(settings, torch.device('cpu'), pretrained=False)
    windows = train_windows(settings, run.model)
    data = WindowData(windows, settings, [.136, .864], torch.device('cpu'))
    run.model.train()
    begin, done = None, 0
    for batch in data.load(data.batches(0)[:1000]):
        train_step(run, run.model, data, batch)
        if begin is None: begin = time.process_time()            # work of others on the machine does not count
        elif time.process_time() - begin > 10: break
        else: done += len(batch['label'])
    known = {t['entry']: t['windows_per_s'] for t in known_trainings() if t['budget'] == seconds}        # equal for all seeds
    rate = known.get(name) or done / (time.process_time() - begin)
    write_json(folder_of(out, name, seed).parent / 'speed.json', dict(rate=rate, rows=len(windows)))


def one(name: str, seed: int, data: Path, out: Path, seconds: float):
    "One training, in a process with one thread; its figures go to <out>/<name>/seed-N/figures.json."
    if name == 'pretraining': return pretrain(data, seconds)
    torch.set_num_threads(1)
    while name == 'pretrained on gaze' and not gaze_file(data, seconds).exists(): time.sleep(5)          # it is being made beside this
    folder, recipe = folder_of(out, name, seed), training(name, seed, data, out, seconds)
    known = json.loads((folder.parent / 'speed.json').read_text())
    stride = max(1, round(known['rows'] * recipe['epochs'] / (known['rate'] * seconds)))
    train_process(recipe | dict(train_stride=stride), quiet=True)
    model, size, _ = load_model(folder / 'checkpoints/best.pt')
    clips = stored_clips(data, data / 'faces', 'val')
    side = wanted_side(getattr(model, 'numbers', ()), recipe.get('side_table'))
    table = predict(model, data / 'faces', clips, 3, size=size, side=side)
    metrics, interval = lam_metrics(table), intervals_by_clip(table).loc['mAP', ['low', 'high']]
    history = pd.read_csv(folder / 'history.csv')
    write_json(folder / 'figures.json', dict(
        entry=name, seed=seed, budget=seconds, mAP=metrics['mAP'], AP_looking=metrics['AP_looking'],
        interval=interval.astype(float).tolist(), windows=int((history.windows_per_s * history.seconds).sum()),
        windows_per_s=round(known['rate'], 1), stride=stride, parameters=sum(p.numel() for p in model.parameters()),
        megabytes=round((folder / 'checkpoints/best.pt').stat().st_size / 1e6, 1)))


def known_trainings() -> list[dict]:
    "What earlier starts have left."
    file = RESULTS / 'recipes.json'
    return json.loads(file.read_text())['trainings'] if file.exists() else []


def table(trainings: list[dict], seconds: float) -> pd.DataFrame:
    "A row an entry, over the seeds that are done."
    rows, found = [], pd.DataFrame([t for t in trainings if t['budget'] == seconds])
    for name in [name for name in entries(Path()) if len(found) and name in {*found.entry}]:
        of = found[found.entry == name].sort_values('seed')
        first = of.iloc[0]
        rows.append(dict(entry=name, seeds=len(of), mAP=round(of.mAP.mean(), 3), each=of.mAP.round(3).tolist(),
                         AP_looking=round(of.AP_looking.mean(), 3), interval_of_first=np.round(first.interval, 3).tolist(),
                         windows=round(of.windows.mean()), windows_per_s=round(of.windows_per_s.mean(), 1),
                         million_parameters=round(first.parameters / 1e6, 1), megabytes=first.megabytes))
    return pd.DataFrame(rows)


def write(folder: Path, seconds: float):
    "Adds a training to the results, and shows the table."
    if not (folder / 'figures.json').exists(): return
    done = known_trainings() + [json.loads((folder / 'figures.json').read_text()) | dict(machine=machine())]
    found = table(done, seconds)
    print(found.to_string(index=False), flush=True)
    write_json(RESULTS / 'recipes.json', dict(command='python benchmarks/recipes.py', sample='hard', seconds=seconds,
                                              rows=found.to_dict('records'), trainings=done))


def side_by_side(work, todo: list, after=lambda given: None):
    "Calls `work` with each of `todo` in a process of its own, as many at once as there are cores; `after` is called when one has ended."
    spawn, cores, running, todo = multiprocessing.get_context('spawn'), len(os.sched_getaffinity(0)), [], [*todo]
    while todo or running:
        while todo and len(running) < cores:
            running.append((todo[0], spawn.Process(target=work, args=todo.pop(0))))
            running[-1][1].start()
        for given, process in [each for each in running if not each[1].is_alive()]:
            running = [each for each in running if each[1] is not process]
            if process.exitcode: print(*given[:2], 'failed', flush=True)
            else: after(given)
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=500)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--data', type=Path, default=ROOT / 'data/hard')
    parser.add_argument('--out', type=Path, default=ROOT / 'outputs/recipes')
    parser.add_argument('--entries', nargs='+', choices=entries(Path()), default=[*entries(Path())])
    args = parser.parse_args()
    args.out = args.out / f'{args.seconds:g}s'
    ready(args.data)
    rest = (args.data, args.out, args.seconds)
    done = {(t['entry'], t['seed']) for t in known_trainings() if t['budget'] == args.seconds}
    wanted = [(name, seed) for seed in args.seeds for name in args.entries if seed == args.seeds[0] or name not in SMOKE]
    todo = [(name, seed, *rest) for name, seed in wanted if (name, seed) not in done]
    names = [name for name in args.entries if name in {name for name, *_ in todo}]
    side_by_side(speed, [(name, 0, *rest) for name in names if not (folder_of(args.out, name, 0).parent / 'speed.json').exists()])
    if not gaze_file(args.data, args.seconds).exists(): todo.insert(0, ('pretraining', 0, *rest))     # of a later entry
    side_by_side(one, todo, lambda given: write(folder_of(args.out, *given[:2]), args.seconds))


if __name__ == '__main__': main()
