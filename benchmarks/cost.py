"""What Ego4D's Looking-at-me costs, as an ESTIMATE: python benchmarks/cost.py [--hours 24] [--growth]

--growth prints the table of benchmarks/README.md instead: hours on more cores and on GPUs.

Counts of Ego4D and of the official recipe, times the rates in results/*.json, which were measured on 2 CPU cores and made-up video.
Nobody has run it on Ego4D yet. What a GPU really does, first_gpu.py measures.
"""
import argparse
import json
from pathlib import Path

# Ego4D's audio-visual clips that have boxes; the faces of the other 133, the test set, come as crops
TRAIN_CLIPS, VAL_CLIPS, CLIPS = 389, 50, 572
BITS = 13e6                                                 # of a second of video: assumed
FRAMES_A_CLIP = 9000                                        # five minutes, 30 a second
TRAIN_WINDOWS = 1.2e6                                       # at stride 3
TRAIN_FACES = 3 * TRAIN_WINDOWS
# nbs/recipes/official.yaml
EPOCHS = 40
# The model: ResNet-18 on a face of 224 pixels takes 1.8e9 products and as many sums
OPERATIONS_A_FACE = 2 * 1.8e9
FACES_A_WINDOW = 7
TRAINING = 3                                                # forward, and backward twice as much
# Assumed for more cores and for GPUs, which nobody has measured
CORES, GPUS = (2, 16, 64), (1, 8)
GPU_WINDOWS = 2000                                          # a second in bf16: a forecast by memory traffic (H100: at most 3,200)
CORES_A_GPU = 8                                             # for its loader


def measured(name: str) -> dict:
    "Figures of a benchmark that was run."
    return json.loads((Path(__file__).parent / f'results/{name}.json').read_text())


def estimate(hours: float) -> dict[str, str]:
    "What is estimated -> its value, with the arithmetic; a training is to take `hours`."
    prepared, loaded, step = measured('preparation'), measured('loader'), measured('training_step-cpu')
    frames, faces = (TRAIN_CLIPS + VAL_CLIPS) * FRAMES_A_CLIP, TRAIN_FACES * (1 + VAL_CLIPS / TRAIN_CLIPS)
    rate, small, large = prepared['frames_per_s']['ours'], prepared['bytes_a_frame']['ours'], loaded['mean_bytes_of_a_face']
    a_window = OPERATIONS_A_FACE * FACES_A_WINDOW * TRAINING
    windows = TRAIN_WINDOWS * EPOCHS
    needed, cpu, loader = windows / (hours * 3600), step['windows_per_s'], loaded['windows_per_s']['ours']
    return {
        'preparation': f'{frames:,} frames / {rate:.0f} frames/s = {frames / rate / 3600:.1f} hours on 2 cores',
        'clips': f'{CLIPS} x 5 minutes of {BITS / 1e6:.0f} Mbit/s = {CLIPS * FRAMES_A_CLIP / 30 * BITS / 8 / 1e9:.0f} GB',
        'face store': f'{frames * small / 1e9:.0f} GB ({small / 1e3:.1f} KB a frame) to {faces * large / 1e9:.0f} GB '
                      f'({faces / 1e6:.1f} million faces of {large / 1e3:.0f} KB)',
        'official frames': f'{frames * prepared["bytes_a_frame"]["official"] / 1e12:.1f} TB',
        'windows': f'{TRAIN_WINDOWS:,.0f} an epoch, {windows / 1e6:.0f} million in {EPOCHS} epochs',
        'operations': f'{FACES_A_WINDOW} faces x {OPERATIONS_A_FACE / 1e9:.1f} GFLOP x {TRAINING} = {a_window / 1e9:.0f} GFLOP a window, '
                      f'{a_window * windows / 1e18:.1f} x 10^18 in all',
        f'in {hours:g} hours': f'{needed:.0f} windows/s, {needed * a_window / 1e12:.0f} TFLOP/s sustained',
        'loading for that': f'2 loader processes on 2 cores give {loader:.0f} windows/s, {loader / needed:.1f} times as many',
        'on 2 CPU cores': f'{windows / cpu["ours, fp32"] / 86400:.0f} days in float32, {windows / cpu["ours, auto"] / 86400:.0f} in bf16'}


def on_cores(cores: int) -> list[float]:
    "Hours of a preparation and of an evaluation of val at stride 1, days of a training; the networks in bf16."
    prepared, step, scored = measured('preparation'), measured('training_step-cpu'), measured('evaluation_speed')
    times = cores / 2                                       # all rates were measured on two cores
    frames, val_faces = (TRAIN_CLIPS + VAL_CLIPS) * FRAMES_A_CLIP, TRAIN_FACES * VAL_CLIPS / TRAIN_CLIPS
    hours = lambda count, rate: count / (rate * times) / 3600
    return [hours(frames, prepared['frames_per_s']['ours']), hours(val_faces, scored['windows_per_s']['ours, bf16']),
            hours(TRAIN_WINDOWS * EPOCHS, step['windows_per_s']['ours, auto']) / 24]


def on_gpus(gpus: int) -> tuple[float, float, float]:
    "Hours of a training by its steps; hours by its loader; GB/s that the loaders read from the store meanwhile."
    loaded, windows = measured('loader'), TRAIN_WINDOWS * EPOCHS
    step, loader = GPU_WINDOWS * gpus, loaded['windows_per_s']['ours'] / 2 * CORES_A_GPU * gpus             # windows/s
    read = min(step, loader) * FACES_A_WINDOW * loaded['mean_bytes_of_a_face'] / 1e9
    return windows / step / 3600, windows / loader / 3600, read


def growth() -> list[str]:
    "The lines of the table in benchmarks/README.md."
    number = lambda value: f'{value:.0f}' if value >= 10 else f'{value:.1f}' if value >= 1 else f'{value:.2f}'
    lines = ['| on | preparation, hours | evaluation of val, stride 1, hours | training of the official recipe |', '|---|---|---|---|']
    for cores in CORES:
        prepared, scored, trained = map(number, on_cores(cores))
        lines.append(f'| {cores} cores | {prepared} | {scored} | {trained} days in bf16 |')
    for gpus in GPUS:
        step, loader, read = map(number, on_gpus(gpus))
        lines.append(f'| {gpus} GPU{"s" * (gpus > 1)}, {CORES_A_GPU * gpus} cores | as the cores | - | {step} hours by the steps, '
                     f'{loader} by the loaders: the larger; {read} GB/s read |')
    return lines


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--hours', type=float, default=24, help='how long the training may take')
    parser.add_argument('--growth', action='store_true', help='the table for more cores and for GPUs')
    args = parser.parse_args()
    if args.growth: print('\n'.join(growth()))
    else:
        for name, text in estimate(args.hours).items(): print(f'{name:18} {text}')
