"""The first minutes on a GPU: what it can do, whether the kit computes correctly there, and how fast. No data and no network are needed.

Usage: python benchmarks/first_gpu.py [--checkout CHECKOUT] [--only steps,loader] [--seconds 480] [--save]
Prints a line of JSON after each part, and what it means at the end. Each part is a process of its own with a time limit, so one that fails
or hangs costs the others nothing; the most valuable come first, and none begins when the time is over. CHECKOUT (EGO4D/social-interactions,
branch lam) gives the official model; without it our BaselineLSTM is trained as the official code does: plain float32 weights, TF32 where
PyTorch's defaults have it, no channels-last, Adam's defaults, the loss read after every step. Faces are noise of 224 pixels, JPEGs of
about 10 KB. --tiny and --device cpu are for trying the script itself. Needs Linux. With --save: benchmarks/results/first_gpu-CARD.json.
"""
import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import RESULTS, machine, timed
from torch import nn
from training_step import Official, Ours, noise_batch, official_model, set_official_arithmetic, settings, steps, wait_for

from lam_nb.batches import WindowData, window_loss
from lam_nb.devices import autocast, run_line, set_arithmetic, usable_gpus
from lam_nb.faces import encode_face, store_path, write_store
from lam_nb.inference import fast_copy, predict
from lam_nb.models import BaselineLSTM, normalise
from lam_nb.training import new_run, save_run
from lam_nb.windows import FaceWindows, window_batches

WINDOWS = 40 * 1_200_000                                                              # of 40 epochs of Ego4D at stride 3
PRECISIONS = ['fp32', 'tf32', 'bf16', 'fp16']


class Part:
    "What the parts share: arguments, device, folder of data, sizes."
    def __init__(self, args):
        self.args, self.device, self.root = args, torch.device(args.device, *([0] if args.device == 'cuda' else [])), args.folder
        self.size, self.batch, self.rounds = (32, 4, 1) if args.tiny else (224, 64, 2)
        self.many = [4, 8] if args.tiny else [128, 256, 512]
        self.repeats = 2 if args.tiny else 15
        self.fast = 'auto'

    def on_gpu(self) -> bool: return self.device.type == 'cuda'

    def state(self):
        "The same random weights in each part."
        torch.manual_seed(0)
        return (official_model(self.args.checkout) if self.args.checkout else BaselineLSTM()).state_dict()

    def ours(self, precision, compiled=False, **others):
        set_arithmetic(precision)
        return Ours(self.state(), self.device, precision, compiled, image_size=self.size, **others)

    def official(self):
        set_official_arithmetic()
        model = official_model(self.args.checkout) if self.args.checkout else BaselineLSTM()
        model.load_state_dict(self.state())
        return Official(model, self.device)

    def rate(self, make, batch: int) -> dict:
        "Windows a second of steps on data already there, first loss, GB; or why there are none."
        try:
            if self.on_gpu(): torch.cuda.reset_peak_memory_stats()
            way, data = make(), noise_batch(batch, self.size, self.device)
            if not isinstance(way, Official): del data['normalised']
            loss = float(way.step(data))
            steps(way, data, min(5, self.repeats))
            rates = [timed(steps, way, data, self.repeats) for _ in range(self.rounds)]
            found = dict(windows_per_s=round(max(rates), 1), first_loss=round(loss, 5))
            return found | (dict(GB=round(torch.cuda.max_memory_allocated() / 1e9, 2)) if self.on_gpu() else {})
        except (RuntimeError, ValueError) as e: return dict(failed=f'{type(e).__name__}: {str(e)[:150]}')
        finally:
            if self.on_gpu(): torch.cuda.empty_cache()

    def folder(self, name) -> str: return str(self.root / name)


def hardware(part) -> dict:
    "Versions, and the ceilings: copying memory, multiplying matrices."
    usable_gpus(part.args.device)                                   # ValueError with the cause if there is none
    n = 256 if part.args.tiny else 8192
    x, y = (torch.randn(n, n, device=part.device) for _ in range(2))
    def per_second(work, amount):
        for _ in range(3): work()
        wait_for(part.device)
        return amount / (1 / timed(lambda: ([work() for _ in range(10)], wait_for(part.device), 10)[2])) / 1e12
    found = dict(line=run_line(1, int(part.on_gpu()), 'auto'), machine=machine(), cudnn=torch.backends.cudnn.version(),
                 copy_TB_per_s=round(per_second(lambda: y.copy_(x), 2 * x.nbytes), 3))
    for name, kind in dict(fp32=torch.float32, tf32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16).items():
        set_arithmetic(name)
        found[f'{name}_TFLOP_per_s'] = round(per_second(partial(torch.matmul, x.to(kind), y.to(kind)), 2 * n ** 3), 2)
    if part.on_gpu(): found |= dict(capability=torch.cuda.get_device_capability(), made_for=torch.cuda.get_arch_list(),
                                    bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    return found


def correctness(part) -> dict:
    "Scores, loss and gradients in each precision, against float32 on the CPU."
    model = BaselineLSTM()
    model.load_state_dict(part.state())
    batch = noise_batch(2 if part.args.tiny else 8, part.size, torch.device('cpu'))
    weights = torch.tensor([.136, .864])

    def values(device, precision):
        set_arithmetic(precision)
        m = BaselineLSTM().to(device)
        m.load_state_dict(model.state_dict())
        kinds = {}
        m.base_model.register_forward_hook(lambda *a: kinds.update(features=str(a[-1].dtype)))
        m.lstm.register_forward_hook(lambda *a: kinds.update(lstm=str(a[-1][0].dtype)))
        images, label = batch['images'].to(device), batch['label'].to(device)
        loss = window_loss(m, images, label, weights.to(device), precision)
        loss.backward()
        gradient = torch.cat([p.grad.flatten().float().cpu() for p in m.parameters()])
        with torch.no_grad(), autocast(precision, device):
            scores = m.eval()(normalise(images.flatten(0, 1)).unflatten(0, images.shape[:2])).float().softmax(-1)[:, 1].cpu()
        return scores, loss.item(), gradient, kinds

    found, (scores, loss, gradient, _) = {}, values(torch.device('cpu'), 'fp32')
    for precision in PRECISIONS:
        try: other, other_loss, other_gradient, kinds = values(part.device, precision)
        except (RuntimeError, ValueError) as e: found[precision] = dict(failed=str(e)[:150])
        else: found[precision] = dict(largest_score_error=float(f'{(other - scores).abs().max():.2e}'),
                                      loss_error=float(f'{abs(other_loss - loss):.2e}'),
                                      gradient_error=float(f'{(other_gradient - gradient).norm() / gradient.norm():.2e}'), **kinds)
    return found


def step_rates(part) -> dict:
    "Steps at the published batch: the official way and ours."
    ways = {'official': part.official, **{f'ours, {p}': lambda p=p: part.ours(p) for p in ('tf32', 'bf16', 'fp32', 'fp16')}}
    found = {name: part.rate(make, part.batch) for name, make in ways.items()}
    official = found['official'].get('windows_per_s')
    for row in found.values():
        if official and 'windows_per_s' in row: row['times_the_official'] = round(row['windows_per_s'] / official, 2)
    return dict(batch=part.batch, **found)


def make_store(root: Path, clips: int, rows: int, size: int):
    "A data set of noise in Ego4D's layout: split lists, face stores of `rows` faces each in four tracks."
    rng, track = np.random.default_rng(0), np.divmod(np.arange(rows), rows // 4)
    columns = dict(track_id=pd.Series(track[0]).map('track_{:02d}'.format), person_id=(track[0] % 4 + 1).astype(str), frame=track[1] + 1)
    box = dict(x1=100.25, y1=80.5, x2=190.25, y2=200.5, interpolated=False)
    smooth = np.kron(rng.integers(0, 255, (8, size // 8, size // 8, 3), np.uint8), np.ones((1, 8, 8, 1), np.uint8))
    pictures = [encode_face(face // 2 + rng.integers(0, 24, face.shape, np.uint8), 'jpeg') for face in smooth]
    uids = [f'00000000-0000-4000-8000-{i:012d}' for i in range(clips)]
    for number, uid in enumerate(uids):
        label = (rng.random(rows) < .12).astype(np.int8)
        table, images = pd.DataFrame(dict(clip_uid=uid, **columns, **box, label=label)), [([row], pictures[row % 8]) for row in range(rows)]
        about = dict(image_size=size, image_format='jpeg', fingerprint=f'noise {number}', content=f'noise {number}', split='train')
        write_store(store_path(root / 'faces', uid), table, images, about)
    (root / 'split').mkdir(exist_ok=True)
    for split, part in dict(train=uids[:-1], val=uids[-1:]).items(): (root / f'split/{split}.list').write_text('\n'.join(part) + '\n')
    return len(pictures[0])


def store(part) -> dict:
    "The noise that the next parts read."
    clips, rows = (3, 200) if part.args.tiny else (6, 6000)
    begin = time.perf_counter()
    size = make_store(part.root / 'data', clips, rows, part.size)
    return dict(clips=clips, faces=clips * rows, bytes_a_face=size, writing_s=round(time.perf_counter() - begin, 1))


def loader(part) -> dict:
    "Training from the store: windows a second, share of the time in which no batch was ready, share of the bare step."
    windows = FaceWindows(part.root / 'data/faces', sorted(p.stem for p in (part.root / 'data/faces').glob('*.arrow')), 3)
    found, few = {}, part.repeats * (2 if part.args.tiny else 4)
    for batch in (part.batch, part.many[-2]):
        bare = part.rate(lambda: part.ours(part.fast), batch).get('windows_per_s')
        for workers in (1, 2) if part.args.tiny else (4, 8, 14):
            way, ahead = part.ours(part.fast), 2 * workers + 1          # batches that the workers fill while the first step is slow
            n, warm = max(few * part.batch // batch, 2 * ahead), 2 * ahead
            order = np.resize(np.random.default_rng(0).permutation(len(windows)), (n + warm) * batch)
            batches, waited, begin = window_batches(windows, np.split(order, n + warm), workers, part.device), 0., 0.
            for i in range(n + warm):
                if i == warm: begin = (wait_for(part.device), time.perf_counter())[1]
                before = time.perf_counter()
                ready = next(batches)
                if i >= warm: waited += time.perf_counter() - before
                way.step(ready)
            wait_for(part.device)
            seconds = time.perf_counter() - begin
            rate = n * batch / seconds
            row = dict(windows_per_s=round(rate, 1), waiting=round(waited / seconds, 3),
                       hours_of_official_recipe=round(WINDOWS / rate / 3600, 1))
            found[f'batch {batch}, {workers} workers'] = row | (dict(of_bare=round(row['windows_per_s'] / bare, 3)) if bare else {})
            batches.close()
    return found


def batches(part) -> dict:
    "Larger batches, and their memory."
    rows = {f'{part.fast}, {n}': part.rate(lambda: part.ours(part.fast), n) for n in part.many}
    return rows | {f'tf32, {part.many[0]}': part.rate(lambda: part.ours('tf32'), part.many[0])}


def evaluation(part) -> dict:
    "Rows a second of an evaluation at stride 1, beside the backbone alone on faces that are there."
    uids, model, found, scores = sorted(p.stem for p in (part.root / 'data/faces').glob('*.arrow'))[:4], BaselineLSTM(), {}, {}
    model.load_state_dict(part.state())
    model.to(part.device).eval()
    faces = normalise(torch.randint(0, 256, (part.many[-2], part.size, part.size, 3), dtype=torch.uint8).to(part.device))

    def backbone(fast, precision, n):
        with torch.inference_mode(), autocast(precision, part.device):
            for _ in range(n): fast.features(faces)
        wait_for(part.device)
        return n * len(faces)

    def whole(precision, size):
        scores[precision] = predict(model, part.root / 'data/faces', uids, precision=precision, batch_size=size).score.to_numpy()
        return len(scores[precision])

    for precision in ('tf32', 'bf16', 'fp32', 'fp16'):
        try:
            set_arithmetic(precision)
            fast = fast_copy(model, precision)
            backbone(fast, precision, 1)
            found[f'backbone alone, {precision}'] = round(timed(backbone, fast, precision, part.repeats), 1)
            for size in (256, 1024) if precision in ('tf32', 'bf16') else (256,):
                if size == 256: whole(precision, size)                                 # warming up
                found[f'{precision}, batch {size}'] = round(timed(whole, precision, size), 1)
        except (RuntimeError, ValueError) as e: found[precision] = f'{type(e).__name__}: {str(e)[:150]}'
    exact = scores.get('fp32')
    errors = {} if exact is None else {p: float(f'{abs(s - exact).max():.2e}') for p, s in scores.items() if p != 'fp32'}
    return found | dict(largest_difference_to_fp32=errors)


def compiled(part) -> dict:
    "torch.compile: seconds until the first step, then windows a second; and a smaller last batch, which must not compile anew."
    found = {}
    for batch in (part.batch, part.many[0]):
        begin = time.perf_counter()
        way, data = part.ours(part.fast, True), noise_batch(batch, part.size, part.device)
        way.step(data), wait_for(part.device)
        first = time.perf_counter() - begin
        steps(way, data, min(5, part.repeats))
        found[f'batch {batch}'] = dict(first_step_s=round(first, 1), windows_per_s=round(timed(steps, way, data, part.repeats), 1))
    begin = time.perf_counter()
    with torch.compiler.set_stance('force_eager'): way.step({k: v[:batch // 2 + 1] for k, v in data.items()})
    wait_for(part.device)
    return found | dict(smaller_batch_s=round(time.perf_counter() - begin, 2))


def small_run(part, name, **changes):
    "A run on the noise, its data, and one batch."
    s = settings(part.fast, data_dir=part.folder('data'), image_size=part.size, batch_size=part.batch, num_workers=0).model_copy(
        update=dict(out_dir=part.folder(name)) | changes)
    set_arithmetic(s.precision)
    run = new_run(s, part.device)
    run.size = part.size
    return run, WindowData(None, s, [.136, .864], part.device), noise_batch(part.batch, part.size, part.device)


def saving(part) -> dict:
    "Seconds of a checkpoint, and how long the training waits when it is written beside it."
    from lam_nb.training import train_step
    run, data, batch = small_run(part, 'saving')
    for _ in range(3): train_step(run, run.model.train(), data, batch)
    wait_for(part.device)
    beside = timed(lambda: (save_run(run, beside=True), 1)[1])
    written = timed(lambda: (run.writer.wait(), 1)[1])
    whole = timed(lambda: (save_run(run), 1)[1])
    return dict(MB=round((run.out / 'checkpoints/last.pt').stat().st_size / 1e6), training_waits_s=round(1 / beside, 3),
                written_beside_s=round(1 / written, 3), at_once_s=round(1 / whole, 3))


def repeatable(part) -> dict:
    "Five steps twice with `deterministic`: the same bits? And stopped after two, with what a checkpoint holds?"
    from lam_nb.launching import _set_algorithms
    from lam_nb.models import read_checkpoint
    from lam_nb.training import train_step
    weights = []
    for stop in (None, None, 2):
        run, data, batch = small_run(part, f'repeat-{len(weights)}', deterministic=True, precision='tf32')
        _set_algorithms(run.settings)
        for i in range(5):
            if i == stop:
                save_run(run)
                saved = read_checkpoint(run.out / 'checkpoints/last.pt')
                run, data, _ = small_run(part, f'repeat-{len(weights)}', deterministic=True, precision='tf32')
                _set_algorithms(run.settings)
                run.model.load_state_dict(saved['state_dict']), run.optimizer.load_state_dict(saved['optimizer'])
            run.step = i
            train_step(run, run.model.train(), data, batch)
        weights.append(torch.cat([p.detach().flatten().cpu() for p in run.model.parameters()]))
    return dict(same_twice=bool(torch.equal(weights[0], weights[1])), same_after_a_resume=bool(torch.equal(weights[0], weights[2])))


def nccl(part) -> dict:
    "One process in a group: NCCL, DDP, the exchange of objects, the group of processors; windows a second with and without."
    import torch.distributed as dist
    os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', LOCAL_WORLD_SIZE='1', MASTER_ADDR='localhost', MASTER_PORT='29511',
                      GLOO_SOCKET_IFNAME='lo', NCCL_SOCKET_IFNAME='lo')
    alone = part.rate(lambda: part.ours(part.fast), part.batch)
    if part.on_gpu(): torch.cuda.set_device(0)
    dist.init_process_group('nccl' if part.on_gpu() else 'gloo', device_id=part.device if part.on_gpu() else None)
    side, gathered, values = dist.new_group(backend='gloo'), [None], [None]
    dist.gather_object(dict(rows=[1.5]), gathered)
    dist.all_gather_object(values, 'side', side)

    def wrapped():
        way = part.ours(part.fast)
        way.ddp = nn.parallel.DistributedDataParallel(way.run.model, device_ids=[0] if part.on_gpu() else None)
        from lam_nb.training import train_step
        way.step = lambda batch: train_step(way.run, way.ddp, way.data, batch)
        return way
    return dict(alone=alone, in_a_group=part.rate(wrapped, part.batch), objects=gathered == [dict(rows=[1.5])] and values == ['side'])


def command(part) -> dict:
    "python -m lam_nb.training from the store: stopped by SIGTERM, resumed, to the end."
    line = [sys.executable, '-m', 'lam_nb.training', f'data_dir={part.folder("data")}', f'out_dir={part.folder("run")}', 'epochs=2',
            f'batch_size={part.batch}', f'image_size={part.size}', f'device={part.args.device}', 'num_processes=1', 'precision=auto',
            f'train_stride={3 if part.on_gpu() and not part.args.tiny else 9}', 'val_stride=9', 'schedule=constant', 'warmup=0',
            *(['num_workers=1', 'save_every=2'] if part.args.tiny else ['save_every=20'])]
    here = dict(cwd=Path(__file__).resolve().parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    begin, first = time.perf_counter(), subprocess.Popen(line, **here)
    while first.poll() is None and not (part.root / 'run/checkpoints/last.pt').exists(): time.sleep(.1)
    started = time.perf_counter() - begin
    first.send_signal(signal.SIGTERM)
    said, begin = first.communicate()[0], time.perf_counter()
    second = subprocess.run(line, **here)
    seconds, last = time.perf_counter() - begin, pd.DataFrame()
    if (part.root / 'run/history.csv').exists(): last = pd.read_csv(part.root / 'run/history.csv')
    shown = ['epoch', 'windows_per_s', 'data_wait', 'memory_gb', 'seconds']
    return dict(first_line=next(iter(said.splitlines()), ''), until_the_first_steps_s=round(started, 1),
                stopped='stopped by SIGTERM' in said, resumed='resumed in epoch' in second.stdout, status=second.returncode,
                whole_s=round(seconds, 1),
                epochs=last[shown].round(3).to_dict('records') if len(last) else [], tail=second.stdout[-300:] if second.returncode else '')


# in the order of their worth; seconds that each may take
PARTS = {hardware: 40, correctness: 60, step_rates: 80, store: 40, loader: 90, evaluation: 70, batches: 60, saving: 30, repeatable: 40,
         nccl: 50, command: 90, compiled: 150}


def run_part(part, work, limit: float) -> dict:
    "Runs a part in a process of its own, for `limit` seconds at most."
    file, begin = part.root / f'{work.__name__}.json', time.monotonic()
    if not (pid := os.fork()):
        os.setsid()
        status = 0
        try: file.write_text(json.dumps(work(part)))
        except BaseException as e:
            file.write_text(json.dumps(dict(failed=f'{type(e).__name__}: {str(e)[:500]}', where=traceback.format_exc()[-600:])))
            status = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    while not (ended := os.waitpid(pid, os.WNOHANG)[0]) and time.monotonic() - begin < limit: time.sleep(.05)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not ended: found = dict(failed=f'stopped after {limit:.0f} s')
    else: found = json.loads(file.read_text()) if file.exists() else dict(failed='it died')
    return dict(part=work.__name__, seconds=round(time.monotonic() - begin, 1), **found)


def verdict(found: dict) -> list[str]:
    "The goals, and what was reached; parts that failed are named."
    rows, lines = {part['part']: part for part in found}, []
    ratio = lambda name: rows.get('step_rates', {}).get(name, {}).get('times_the_official')
    for name, goal in (('ours, tf32', 1.), ('ours, bf16', 2.)):
        if ratio(name): lines.append(f'{name}: {ratio(name)} times the official step (goal {goal})')
    for name, row in rows.get('loader', {}).items():
        if isinstance(row, dict) and 'of_bare' in row:
            lines.append(f'from the store, {name}: {row["of_bare"]:.0%} of the bare step (goal 95 %), '
                         f'waiting {row["waiting"]:.1%} (goal below 5 %)')
    return lines + faults(rows)


NEAR = dict(fp32=1e-4, tf32=1e-2, bf16=5e-2, fp16=1e-2)                              # of a score


def faults(rows: dict) -> list[str]:
    "What failed, and what is not as it should be."
    found = [f'FAILED {name}: {row["failed"]}' for name, row in rows.items() if 'failed' in row]
    found += [f'FAILED {name}, {inner}: {row["failed"]}' for name, part in rows.items() for inner, row in part.items()
              if isinstance(row, dict) and 'failed' in row and 'does not compute with bfloat16' not in row['failed']
              and 'memory' not in row['failed']]
    for precision, row in rows.get('correctness', {}).items():
        if isinstance(row, dict) and row.get('largest_score_error', 0) > NEAR.get(precision, 1):
            found.append(f'WRONG scores in {precision}: {row["largest_score_error"]} from those of the CPU')
        if isinstance(row, dict) and row.get('lstm', 'torch.float32') != 'torch.float32':
            found.append(f'WRONG type of the LSTM: {row["lstm"]}')
    right = dict(repeatable=('same_twice', 'same_after_a_resume'), nccl=('objects',), command=('stopped', 'resumed'))
    found += [f'WRONG {part}: {name} is false' for part, names in right.items() for name in names if rows.get(part, {}).get(name) is False]
    if rows.get('command', {}).get('status'): found.append(f'WRONG command: exit status {rows["command"]["status"]}')
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkout', type=Path)
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--only', default='', help='names of parts')
    parser.add_argument('--seconds', type=float, default=480)
    parser.add_argument('--tiny', action='store_true')
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    names = [work.__name__ for work in PARTS]
    wanted = args.only.split(',') if args.only else names
    if odd := sorted({*wanted} - {*names}): parser.error(f'no part is called {", ".join(odd)}; there are {", ".join(names)}')
    end, found = time.monotonic() + args.seconds, []
    with tempfile.TemporaryDirectory(prefix='first_gpu-') as folder:
        args.folder = Path(folder)
        part = Part(args)
        for work, limit in PARTS.items():
            if work.__name__ not in wanted and not (work is store and {*wanted} & {'loader', 'evaluation', 'command'}): continue
            left = end - time.monotonic()
            row = run_part(part, work, min(limit, left)) if left > 5 else dict(part=work.__name__, failed='no time was left')
            found.append(row)
            print(json.dumps(row), flush=True)
            if 'no GPU to compute on' in row.get('failed', ''): break
    for line in (lines := verdict(found)): print(line, flush=True)
    if args.save:
        card = re.sub(r'\W+', '-', found[0].get('machine', {}).get('gpu') or args.device).strip('-')
        (RESULTS / f'first_gpu-{card}.json').write_text(json.dumps(found, indent=1) + '\n')
    print(f'peak memory of a part {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.1f} GB', flush=True)
    return int(any(line.startswith(('FAILED', 'WRONG')) for line in lines))


if __name__ == '__main__':
    sys.exit(main())
