"What the speed measurements share: ways that take turns, medians, and results labelled with machine and date."
import json
import os
import platform
import re
import statistics
import time
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent / 'results'


def machine() -> dict:
    "What a figure depends on: processor, its cores, GPU, versions, date."
    text = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    model = next((line.split(':', 1)[1].strip() for line in text.splitlines() if line.startswith('model name')), platform.processor())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return dict(date=date.today().isoformat(), cpu=model, cores=len(os.sched_getaffinity(0)), gpu=gpu, python=platform.python_version(),
                torch=torch.__version__)


def timed(way, *args) -> float:
    "Windows a second of a way that returns how many windows it did."
    begin = time.perf_counter()
    windows = way(*args)
    return windows / (time.perf_counter() - begin)


def in_turns(ways: dict, rounds: int) -> dict:
    "Name -> median of what each way returns; the ways take turns, so that a machine that drifts is the same for all."
    got = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items(): got[name].append(way())
    return {name: round(statistics.median(values), 2) for name, values in got.items()}


def save(name: str, command: str, **figures):
    "Writes benchmarks/results/<name>.json and prints it."
    result = dict(command=command, machine=machine(), **figures)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2)
    text = re.sub(r'\{[^{}\[\]]*\}', lambda row: re.sub(r'\s+', ' ', row[0]), text)            # the innermost: a line each
    (RESULTS / f'{name}.json').write_text(text + '\n')
    print(text)
