"""Speed of one segment of 151 frames through the official Talking-to-me network and through ours, with the same weights.

Usage: python benchmarks/talking.py CHECKOUT [--rounds 3] [--save]
CHECKOUT is a checkout of EGO4D/social-interactions, branch ttm, which needs torchaudio. Runs on the CPU, on made-up faces and sound.
The official network gets floats; ours gets bytes and turns them into floats itself. Decoding of frames and sound is in neither.
"""
import argparse
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'tests/reference')]
from made_up import sound, windows  # noqa: E402
from make_talking_reference import official_model, pixels  # noqa: E402
from measure import in_turns, save  # noqa: E402

from lam_nb.inference import fast_copy  # noqa: E402
from lam_nb.talking_models import TalkingLSTM, segment_logits  # noqa: E402

FRAMES, SIZE, SAMPLES = 151, 224, 80_000


def ways(checkout: Path) -> tuple[dict, float]:
    "Name -> a way to compute the logits of the segment; the largest difference between ours in fp32 and the official ones."
    official, ours = official_model(checkout), TalkingLSTM().eval()
    ours.load_state_dict(official.state_dict())
    faces, heard = windows(1, SIZE, FRAMES), sound(1, SAMPLES)
    floats, half = pixels(faces), faces.clone()
    half[:, ::2] = 0

    def officially():
        with torch.no_grad(): return official(floats, heard).double().numpy()

    def by(model, faces, precision='fp32'): return lambda: segment_logits(model, dict(faces=faces, sound=heard), precision)
    found = {'official': officially, 'ours, fp32': by(ours, faces), 'ours, fp32, fast copy': by(fast_copy(ours, 'fp32'), faces),
             'ours, bf16, fast copy': by(fast_copy(ours, 'bf16'), faces, 'bf16'),
             'ours, fp32, half of the faces black': by(fast_copy(ours, 'fp32'), half)}
    return found, float(abs(found['ours, fp32']() - officially()).max())


def seconds(way) -> float:
    "What one call takes."
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkout', type=Path)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--save', action='store_true', help='write results/talking.json')
    given = parser.parse_args()
    compared, difference = ways(given.checkout.resolve())
    for way in compared.values(): way()                                  # the first call of each is slower
    taken = in_turns({name: lambda way=way: seconds(way) for name, way in compared.items()}, given.rounds)
    faster = {name: round(taken['official'] / value, 2) for name, value in taken.items()}
    figures = dict(seconds=taken, times_as_fast=faster, largest_difference=difference, threads=torch.get_num_threads(), frames=FRAMES)
    if given.save: save('talking', 'python benchmarks/talking.py CHECKOUT --save', rounds=given.rounds, **figures)
    else: print(figures)


if __name__ == '__main__': main()
