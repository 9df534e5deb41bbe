"""What a wrong parameter and `--help` cost: python benchmarks/command.py

CPU seconds (user and system) and wall seconds of whole processes, medians of nine, beside a process that imports what a run imports before
its first cell.
"""
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    'python alone': ['-c', 'pass'],
    'refusal: lam_nb train learning_rate=0.1': ['-m', 'lam_nb', 'train', 'learning_rate=0.1'],
    'lam_nb train --help': ['-m', 'lam_nb', 'train', '--help'],
    'imports of train.ipynb': ['-c', 'import papermill, lam_nb.training_report'],
}


def cost(arguments: list[str]) -> tuple[float, float]:
    "CPU and wall seconds of one process."
    before, begin = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system, time.perf_counter() - begin


for name, arguments in COMMANDS.items():
    cost(arguments)                                            # files come from the disk once
    cpu, wall = map(statistics.median, zip(*(cost(arguments) for _ in range(9))))
    print(f'{name:<42} {cpu:6.2f} s of CPU, {wall:6.2f} s')
