"""Trains the official code and ours side by side for some steps, with the same weights and batches, and compares losses and weights.

Usage: python benchmarks/official_training.py CHECKOUT [--steps 20] [--batch 4] [--model BaselineLSTM]
CHECKOUT is a checkout of EGO4D/social-interactions, branch lam. Runs on the CPU in float32, on made-up faces (tests/hard_cases.py).
The official model, loss and optimizer are used as they are; stand-ins are set at run time for what today's libraries have removed.
"""
import argparse
import sys
import tempfile
import types
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
from hard_cases import CLIPS, make_hard_cases  # noqa: E402

from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces  # noqa: E402
from lam_nb.batches import WindowData  # noqa: E402
from lam_nb.models import normalise  # noqa: E402
from lam_nb.training import TrainSettings, new_run, train_step  # noqa: E402
from lam_nb.windows import FaceWindows  # noqa: E402

WEIGHTS = [0.136, 0.864]


def official_model(checkout: Path, name: str) -> nn.Module:
    "The official model with random weights; ImageNet's are not downloaded."
    torch.nn.init.normal, torch.nn.init.constant = torch.nn.init.normal_, torch.nn.init.constant_      # removed from PyTorch since
    sys.path.insert(0, str(checkout))
    from model import model, resnet
    resnet.model_zoo.load_url = lambda *args, **kwargs: {}
    return getattr(model, name)(types.SimpleNamespace(checkpoint=None, rank=0, eval=False))


def official_steps(model: nn.Module, batches: list) -> list[float]:
    "Losses of training steps written as in the official engine: Adam, weighted cross-entropy."
    criterion, optimizer = nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS)), torch.optim.Adam(model.parameters(), 5e-4)
    losses = []
    model.train()
    for batch in batches:
        loss = criterion(model(normalise(batch['images']).contiguous()), batch['label'])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def our_steps(run, batches: list) -> list[float]:
    "Losses of the same steps by lam_nb's own training step."
    data = WindowData(None, run.settings, WEIGHTS, torch.device('cpu'))
    run.model.train()
    return [train_step(run, run.model, data, batch).item() for batch in batches]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--model', default='BaselineLSTM')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, options = make_hard_cases(Path(folder)), PrepareSettings(source='frames', image_format='png', workers=1)
        prepare_faces({'val': split_faces(root, 'val', options)[0]}, root, root / 'faces', options)
        windows = FaceWindows(root / 'faces', list(CLIPS))
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
        items = order[:args.steps * args.batch].view(args.steps, args.batch)
        batches = [{k: torch.from_numpy(v) for k, v in windows.__getitems__(i.tolist()).items()} for i in items]
        theirs = official_model(args.checkout.resolve(), args.model)
        official = dict(lr=5e-4, schedule='constant', warmup=0, flip=False, precision='fp32', image_size=None, weights=WEIGHTS)
        run = new_run(TrainSettings(**official, out_dir=folder), torch.device('cpu'))        # both models have the same layers
        run.model.load_state_dict(theirs.state_dict())
        losses = official_steps(theirs, batches), our_steps(run, batches)
    report(args, *losses, theirs.state_dict(), run.model.state_dict())


def report(args, theirs: list, ours: list, their_state: dict, our_state: dict):
    "Prints the losses and the largest deviations."
    print(f'{args.model}, {args.steps} steps of {args.batch} windows, torch {torch.__version__}\nstep  official loss  our loss')
    for i, (a, b) in enumerate(zip(theirs, ours)): print(f'{i + 1:4d}  {a:13.9f}  {b:.9f}')
    print(f'largest relative difference of a loss: {max(abs(a - b) / abs(a) for a, b in zip(theirs, ours)):.2e}')
    gap = {k: ((our_state[k] - v).norm() / v.norm().clamp_min(1e-12)).item() for k, v in their_state.items() if v.is_floating_point()}
    worst = max(gap, key=gap.get)
    print(f'largest relative difference of a tensor (norm of the difference by norm): {gap[worst]:.2e} ({worst})')


if __name__ == '__main__':
    main()
