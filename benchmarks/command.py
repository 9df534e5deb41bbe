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
    'python alone': (0, ['-c', 'pass']),
    'refusal: lam_nb train learning_rate=0.1': (1, ['-m', 'lam_nb', 'train', 'learning_rate=0.1']),
    'lam_nb train --help': (0, ['-m', 'lam_nb', 'train', '--help']),
    'imports of train.ipynb': (0, ['-c', 'import papermill, lam_nb.training_report']),
}                                                              # with the exit code that each must have


def cost(code: int, arguments: list[str]) -> tuple[float, float]:
    "CPU and wall seconds of one process, which must end with this exit code."
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode != code: raise SystemExit(f'{arguments} ended with {done.returncode}: {done.stderr[-1000:]}')
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system, time.perf_counter() - begin


for name, (code, arguments) in COMMANDS.items():
    cost(code, arguments)                                      # files come from the disk once
    cpu, wall = map(statistics.median, zip(*(cost(code, arguments) for _ in range(9))))
    print(f'{name:<42} {cpu:6.2f} s of CPU, {wall:6.2f} s')
