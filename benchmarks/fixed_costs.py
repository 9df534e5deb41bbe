"""What a run costs beside its computing: imports, a kernel, a preparation with nothing to do, an evaluation around its predictions.

    python benchmarks/fixed_costs.py [--rounds 3] [--folder FOLDER]

Makes the default sample data, prepares them, trains one short epoch and scores val (3,567 rows) once. Then in turns, `rounds` times: CPU
seconds (user and system) of whole processes with all their children; medians, and how many times `import torch` of the same run that is.
For the two runs also the seconds by the clock of each cell that takes more than a tenth of a second. Writes
benchmarks/results/fixed_costs.json.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import nbformat

from measure import in_turns, save

RECIPE = Path(__file__).resolve().parents[1] / 'nbs/recipes/sample.yaml'
RUN = 'from pathlib import Path; from lam_nb.command import _execute; _execute(Path("empty.ipynb"), Path("empty-done.ipynb"), {})'
EVALUATE = ['evaluate', 'checkpoint=outputs/train/checkpoints/best.pt']
WAYS = {
    'import torch': ['-c', 'import torch'],
    'import lam_nb.training': ['-c', 'import lam_nb.training'],
    'an empty notebook, executed as a run': ['-c', RUN],
    'lam_nb prepare, nothing to do': ['-m', 'lam_nb', 'prepare'],
    'lam_nb evaluate, predictions kept': ['-m', 'lam_nb', *EVALUATE],
}


def cost(folder: Path, arguments: list[str]) -> float:
    "CPU seconds of a process in this folder and of all its children; it must succeed."
    before = os.times()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode: raise SystemExit(f'{arguments} ended with {done.returncode}: {done.stderr[-2000:]}')
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def make_ready(folder: Path):
    "Sample data, their faces, a checkpoint, and the predictions of val."
    nbformat.write(nbformat.v4.new_notebook(metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
                                            cells=[nbformat.v4.new_code_cell('pass')]), folder / 'empty.ipynb')
    small = ['epochs=1', 'train_stride=6', 'val_stride=6', 'num_processes=1']
    for run in (['prepare'], ['train', str(RECIPE), *small], EVALUATE):
        print(f'{run[0]}: {cost(folder, ["-m", "lam_nb", *run]):.1f} s of CPU, the first time', flush=True)


def cells(folder: Path, run: str) -> dict:
    "Cell -> seconds of the last run of this notebook, without the cell of given parameters, whose name is drawn."
    notebook = nbformat.read(folder / f'outputs/{run}/{run}.ipynb', 4)
    ours = [cell for cell in notebook.cells if cell.cell_type == 'code' and 'injected-parameters' not in cell.metadata.tags]
    return {cell.id: cell.metadata.papermill.duration for cell in ours}


def rows(folder: Path) -> dict:
    "How much there was: faces of the preparation, rows of the evaluation."
    read = lambda file: json.loads((folder / 'outputs' / file).read_text())
    return dict(faces=read('prepare/summary.json')['faces'], rows=read('evaluate/metrics.json')['n_rows'])


def measure(folder: Path, rounds: int):
    "All ways in turns; saves medians."
    make_ready(folder)
    seen = {'prepare': [], 'evaluate': []}

    def way(arguments):
        seconds = cost(folder, arguments)
        if arguments[:2] == ['-m', 'lam_nb']: seen[arguments[2]].append(cells(folder, arguments[2]))
        return seconds

    cpu = in_turns({name: partial(way, arguments) for name, arguments in WAYS.items()}, rounds)
    medians = {run: {cell: round(statistics.median(one[cell] for one in found), 2) for cell in found[0]} for run, found in seen.items()}
    save('fixed_costs', f'python benchmarks/fixed_costs.py --rounds {rounds}', **rows(folder), cpu_seconds=cpu,
         times_import_torch={name: round(value / cpu['import torch'], 2) for name, value in cpu.items()},
         cells_seconds={run: {cell: s for cell, s in found.items() if s > .1} for run, found in medians.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--folder', type=Path, help='keep data and runs here')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, args.rounds)


if __name__ == '__main__': main()
