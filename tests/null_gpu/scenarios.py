"""What is rehearsed on pretended GPUs, each in a process of its own: python scenarios.py DATA FOLDER

Prints a JSON line per scenario: its name, whether it ended well, seconds of processor, and what it said. The processes are forks of
this one, which has imported the library: an import takes longer than all that a scenario does.
"""
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import nbformat
import torch
import torch._dynamo                                             # every optimizer imports it at its first step

from lam_nb import batches, launching, processes, training
from lam_nb.devices import usable_gpus
from lam_nb.models import read_checkpoint
from lam_nb.scoring import EvaluateSettings, predict_process
from lam_nb.training import TrainSettings

NBS = Path(__file__).resolve().parents[2] / 'nbs'
DATA, FOLDER = (Path(path).resolve() for path in sys.argv[1:3])
OPTIONS = dict(ema=.9, weight_decay=.1, clip_norm=1., label_smoothing=.1, colour=.2, blur=1., jitter=.1, accumulate=2, sampling='balanced')
NOTEBOOKS = '03_devices 25_batches'.split()
SMALL = dict(model='small:Small')


def settings(name, **changes) -> TrainSettings:
    tiny = dict(epochs=1, train_stride=8, val_stride=8, batch_size=8, num_workers=1, image_size=32, device='cuda')
    return TrainSettings(**dict(tiny, data_dir=str(DATA), out_dir=str(FOLDER / name)) | changes)


# What a scenario does

def trains(name, computes='bf16', **changes):
    "Trains; its checkpoint says on what, and how it computed."
    s = settings(name, **changes)
    launching.train_process(s.model_dump())
    saved = read_checkpoint(FOLDER / name / 'checkpoints/last.pt')
    assert saved['epoch'] == 1 and saved['versions']['computes'] == computes, saved['versions']
    assert saved['versions']['device'].startswith('null GPU') and ('scaler' in saved) == (computes == 'fp16')


def trains_on(name, **changes):
    "Saves after every step, beside the training; then another epoch from there."
    steady = dict(schedule='constant', warmup=0, **changes)
    trains(name, save_every=1, **steady)
    metrics = launching.train_process(settings(name, epochs=2, **steady).model_dump())
    assert metrics['epochs'] == 2


def trains_and_evaluates(name, **changes):
    "Both in the processes of one group."
    s = settings(name, **changes)
    metrics, = launching._train_each([s.model_dump()], False)
    evaluates(name, checkpoint=metrics['best_checkpoint'])


def evaluates(name, checkpoint=str(FOLDER / 'all options/checkpoints/best.pt'), **changes):
    s = EvaluateSettings(data_dir=str(DATA), out_dir=str(FOLDER / f'{name}-val'), checkpoint=checkpoint, device='cuda', stride=8,
                         flip=True, **changes)
    table = predict_process(s.model_dump())
    assert table is None or len(table) > 5


def several_seeds(name):
    s = settings(name, seeds=[0, 1], **SMALL)
    launching.start_training(s)
    assert launching.train_seeds(s).seed.tolist() == [0, 1]


def stops(name):
    "SIGTERM in the middle: it saves, and goes on from there."
    real, calls = training.train_step, []
    def step(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1: os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)
    training.train_step = step
    s = settings(name, **SMALL)
    try: launching.train_process(s.model_dump())
    except processes.Stopped as e: print(e)
    assert read_checkpoint(FOLDER / name / 'checkpoints/last.pt')['step'] == 1
    assert launching.train_process(s.model_dump())['epochs'] == 1


def first_minutes(name):
    "benchmarks/first_gpu.py with tiny sizes. Kernels that do nothing give wrong scores, which it must say."
    sys.path.insert(0, str(NBS.parent / 'benchmarks'))
    sys.argv = ['first_gpu.py', '--tiny', '--only', 'hardware,correctness,nccl']
    import first_gpu
    assert first_gpu.main() == 1


def torchrun(name, **arguments):
    "The command, in a process that torchrun has started."
    os.environ.update(TORCHELASTIC_RUN_ID='x', GROUP_RANK='0', GROUP_WORLD_SIZE='1')
    given = settings(name, **SMALL).model_dump(exclude_defaults=True)
    launching.main([f'{key}={value}' for key, value in given.items()])
    assert json.loads((FOLDER / name / 'metrics.json').read_text())['processes'] == 2


def counts_gpus(name, device='cuda'): print(usable_gpus(device), 'GPUs')


def three_processes(name): processes.launch(divmod, 7, 2, num_processes=3, gpus=usable_gpus())


def notebook(name):
    "Runs its cells. Kernels that do nothing give no right numbers: assertions may fail but those of 03_devices, other errors may not."
    cells = nbformat.read(NBS / f'{name}.ipynb', 4).cells
    space = dict(__name__='__main__', display=lambda *shown, **how: None, __spec__=None)
    os.chdir(NBS)
    for cell in (c for c in cells if c.cell_type == 'code'):
        try: exec(compile(cell.source, f'{name} {cell.id}', 'exec'), space)
        except Exception as e:
            if isinstance(e, AssertionError) and name != '03_devices': continue
            raise RuntimeError(f'cell {cell.id} of {name}') from e


def does_not_fit(name):
    "A GPU of a few MB."
    os.environ['PYTORCH_NO_CUDA_MEMORY_CACHING'] = '0'
    launching.train_process(settings(name, batch_size=32, train_stride=1, image_size=64, precision='fp32', num_workers=0).model_dump())


# Planted mistakes

def planted(name, mistake, **changes):
    if 'RANK' not in os.environ: mistake()                      # else it was made before
    trains(name, **SMALL, **changes)


def weights():
    "The class weights stay on the CPU."
    real = batches.window_loss
    batches.window_loss = lambda model, images, label, weights, *rest: real(model, images, label, weights.cpu(), *rest)


def labels():
    "The labels stay on the CPU."
    real = batches.window_loss
    batches.window_loss = lambda model, images, label, *rest: real(model, images, label.cpu(), *rest)


def numbers():
    "The numbers that the augmentation draws stay on the CPU."
    batches._to_device = lambda values, x: torch.from_numpy(values)


def average():
    "The moving average of the weights stays on the CPU."
    real = launching.new_run
    def new_run(*args, **kwargs):
        run = real(*args, **kwargs)
        run.average.cpu()
        return run
    launching.new_run = new_run


def first_gpu():
    "Every process computes on the first GPU."
    launching.choose_device = lambda *args: torch.device('cuda', 0)


def same_gpu():
    "Every process joins with the first GPU."
    processes._own_device = lambda *args: (torch.cuda.set_device(0), torch.device('cuda', 0))[1]


# name: what it does, its arguments, number of GPUs, environment
ONE = {
    'one': (trains_on, SMALL),
    'all options': (trains, OPTIONS),
    'tf32': (trains, dict(precision='tf32', computes='tf32', **SMALL)),
    'fp16, clipped': (trains, dict(precision='fp16', computes='fp16', clip_norm=1., **SMALL)),
    'fp32, frozen, deterministic': (trains, dict(precision='fp32', computes='fp32', freeze_trunk=True, deterministic=True)),
    'evaluation': (evaluates, dict(precision='auto')),
    'two seeds': (several_seeds, {}),
    'stopped': (stops, {}),
    'first minutes': (first_minutes, {}),
    **{f'notebook {name}': (lambda name: notebook(name.split()[1]), {}) for name in NOTEBOOKS},
    **{f'planted {mistake.__name__}': (planted, dict(mistake=mistake, **OPTIONS)) for mistake in (weights, labels, numbers, average)}}
CARDS = {
    'T4': (trains, dict(computes='fp16', **SMALL, **OPTIONS), '75'),
    'T4, bf16': (trains, dict(precision='bf16'), '75'),
    'V100': (counts_gpus, {}, '70')}
TWO = {
    'two': (trains_and_evaluates, OPTIONS),
    'torchrun': (torchrun, {}),
    'planted first_gpu': (planted, dict(mistake=first_gpu)),
    'planted same_gpu': (planted, dict(mistake=same_gpu))}


def fork(work, name, arguments, environment) -> int:
    "Starts a scenario in a process of its own; what it says goes to a file."
    sys.stdout.flush()
    if pid := os.fork(): return pid
    os.environ.update(environment)
    log = open(FOLDER / f'{name}-{environment.get("RANK", 0)}.log', 'w')
    os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
    status = 0
    try: work(name, **arguments)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


def say(name, pids, logs):
    "Waits for the processes of a scenario and prints its line."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    good = all([os.waitpid(pid, 0)[1] == 0 for pid in pids])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    text = '\n'.join((FOLDER / f'{name}-{rank}.log').read_text()[-4000:] for rank in range(logs))
    print(json.dumps(dict(name=name, good=good, seconds=round(seconds, 1), text=text)), flush=True)


def joins(name, work, arguments):
    "A scenario in one of two processes, as torchrun starts them."
    if 'mistake' in arguments: arguments['mistake']()
    processes._joined(None, 2, processes.PATIENCE, call, work, name, arguments)


def call(work, name, arguments): work(name, **arguments)


def main():
    for name, (work, arguments) in ONE.items(): say(name, [fork(work, name, arguments, {})], 1)
    for name, (work, arguments, card) in CARDS.items(): say(name, [fork(work, name, arguments, dict(NULL_GPU_CAPABILITY=card))], 1)
    say('full', [fork(does_not_fit, 'full', {}, dict(NULL_GPU_MB='500'))], 1)
    say('three processes on two GPUs', [fork(three_processes, 'three processes on two GPUs', {}, dict(NULL_GPU_COUNT='2'))], 1)
    for name, (work, arguments) in TWO.items():
        meeting, pids = tempfile.mkdtemp(dir=FOLDER), []
        for rank in ('0', '1'):
            environment = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', NULL_GPU_COUNT='2',
                               GLOO_SOCKET_IFNAME='lo', LAM_NB_MEETING=f'{meeting}/processes')
            pids.append(fork(work, name, {}, environment) if work is torchrun else
                        fork(joins, name, dict(work=work, arguments=arguments), environment))
        say(name, pids, 2)


if __name__ == '__main__': main()
