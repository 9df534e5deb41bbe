"""Training steps a second: the official code's and ours, in turns, from the same first weights and batches.

Usage: python benchmarks/training_step.py CHECKOUT [--batch 16] [--steps 2] [--rounds 3] [--compile]
On the CPU; for a GPU see first_gpu.py. CHECKOUT is a checkout of EGO4D/social-interactions, branch lam; its model, loss and optimizer are
used as its run.py does, on batches already normalised. Ours begins with bytes: normalising is part of its step. Images are noise of 224
pixels. Writes benchmarks/results/training_step-cpu.json.
"""
import argparse
import multiprocessing as mp
import sys
import types
from pathlib import Path

import torch
from measure import in_turns, save, timed
from torch import nn

from lam_nb.batches import WindowData
from lam_nb.processes import keep_memory
from lam_nb.models import normalise
from lam_nb.training import TrainSettings, new_run, train_step

WEIGHTS = [0.136, 0.864]


def official_model(checkout: Path) -> nn.Module:
    "The official model with random weights."
    for name in ('normal', 'constant'):                              # names that it imports, and that newer versions of PyTorch may lack
        if not hasattr(torch.nn.init, name): setattr(torch.nn.init, name, getattr(torch.nn.init, name + '_'))
    sys.path.insert(0, str(checkout))
    from model.model import BaselineLSTM
    return BaselineLSTM(types.SimpleNamespace(checkpoint=None, rank=0, eval=False))


def set_official_arithmetic():
    "As the official run.py leaves PyTorch."
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False


def settings(precision: str, compiled: bool = False, **others) -> TrainSettings:
    "The recipe of the paper in some arithmetic."
    return TrainSettings(lr=5e-4, schedule='constant', warmup=0, flip=False, precision=precision, compile=compiled, weights=WEIGHTS,
                         out_dir='unused', **others)


class Official:
    "The official step: Adam, weighted cross-entropy, and the loss read after each step, as its engine does."
    def __init__(self, model, device):
        self.model, self.criterion = model.to(device).train(), nn.CrossEntropyLoss(torch.tensor(WEIGHTS, device=device))
        self.optimizer = torch.optim.Adam(model.parameters(), 5e-4)

    def step(self, batch):
        loss = self.criterion(self.model(batch['normalised']), batch['label'])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Ours:
    "Our step, from bytes."
    def __init__(self, state, device, precision, compiled=False, **others):
        self.run = new_run(settings(precision, compiled, **others), device)
        self.data = WindowData(None, self.run.settings, WEIGHTS, device)
        self.run.model.load_state_dict(state)
        self.run.model.train()
        if compiled: self.run.model.compile()

    def step(self, batch): return train_step(self.run, self.run.model, self.data, batch)


def noise_batch(batch: int, size: int, device) -> dict:
    "A batch of noise, and the same normalised."
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 7, size, size, 3), dtype=torch.uint8, generator=draw).to(device)
    label = torch.randint(0, 2, (batch,), generator=draw).to(device)
    return dict(images=images, label=label, normalised=normalise(images).contiguous())


def wait_for(device):
    "Until the GPU has done all that it was given."
    if device.type == 'cuda': torch.cuda.synchronize()


def steps(way, batch, n: int) -> int:
    "`n` steps on one batch; returns the number of windows."
    for _ in range(n): way.step(batch)
    wait_for(batch['label'].device)
    return n * len(batch['label'])


CPU_WAYS = {'official': None, 'ours, fp32': ('fp32', False), 'ours, auto': ('auto', False), 'ours, auto, compiled': ('auto', True)}
way = {}                                                     # of a process of `on_cpu`


def begin(name: str, args):
    "Makes a way and its batch in a process of its own: what `keep_memory` changes shall not help the official code."
    torch.manual_seed(0)
    device, model = torch.device('cpu'), official_model(args.checkout)
    if CPU_WAYS[name]: keep_memory()
    way['it'] = Ours(model.state_dict(), device, *CPU_WAYS[name]) if CPU_WAYS[name] else Official(model, device)
    way['batch'] = noise_batch(args.batch, args.size, device)


def first_loss() -> float: return round(float(way['it'].step(way['batch'])), 4)            # it also warms up, and compiles


def rate(n: int) -> float: return timed(steps, way['it'], way['batch'], n)


def on_cpu(args) -> dict:
    "Windows a second of all ways on the CPU."
    spawn, names = mp.get_context('spawn'), [name for name in CPU_WAYS if args.compile or 'compiled' not in name]
    pools = {name: spawn.Pool(1, begin, (name, args)) for name in names}
    losses = {name: pool.apply(first_loss) for name, pool in pools.items()}
    rates = in_turns({name: lambda pool=pool: pool.apply(rate, (args.steps,)) for name, pool in pools.items()}, args.rounds)
    for pool in pools.values(): pool.terminate()
    return dict(windows_per_s=rates, times_the_official={k: round(v / rates['official'], 2) for k, v in rates.items()}, first_loss=losses)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path)
    numbers = dict(batch=16, size=224, steps=2, rounds=3)
    for name, default in numbers.items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--compile', action='store_true')
    args = parser.parse_args()
    args.checkout = args.checkout.resolve()
    save('training_step-cpu', ' '.join(['python benchmarks/training_step.py CHECKOUT', *sys.argv[2:]]), **on_cpu(args),
         threads=torch.get_num_threads(), settings={name: getattr(args, name) for name in numbers})


if __name__ == '__main__':
    main()
