"""What finished runs say: python scripts/show_runs.py outputs/demo/train outputs/demo/evaluate-val ...

Prints for each run folder how long its notebook took, where its report is and what its metrics.json holds.
A run that did not end well is an error.
"""
import json
import sys
from pathlib import Path

SHOWN = ('mAP', 'AP_looking', 'AP_not_looking', 'accuracy', 'n_rows', 'n_positive')


def wall_time(notebook: Path) -> float:
    "Seconds that papermill ran `notebook`; a report that was stopped half-way looks finished, so its metadata is asked."
    record = json.loads(notebook.read_text(encoding='utf-8'))['metadata'].get('papermill', {})
    if record.get('exception') or not record.get('end_time'):
        raise ValueError(f'{notebook} did not run to its end: open it, mend what it shows, run it again')
    return float(record['duration'])


def metric_text(value: object) -> str:
    "Fractions with three decimals, counts with commas."
    return f'{value:.3f}' if isinstance(value, float) else f'{value:,}' if isinstance(value, int) else 'unknown'


def show_run(folder: Path) -> float:
    "Print one run; returns its seconds."
    notebooks = sorted(folder.glob('*.ipynb'))
    if not notebooks:
        raise ValueError(f'{folder} holds no notebook of a run')
    seconds = sum(wall_time(p) for p in notebooks)
    print(f'\n{folder}: {seconds:.0f} s')
    for report in sorted(folder.glob('*.html')) or notebooks:
        print(f'  report   {report}')
    metrics = folder / 'metrics.json'
    values = json.loads(metrics.read_text(encoding='utf-8')) if metrics.exists() else {}
    if shown := [f'{k} {metric_text(values[k])}' for k in SHOWN if k in values]:
        print(f'  metrics  {", ".join(shown)}')
    return seconds


def main(folders: list[str]) -> int:
    "Print all runs; 1 when one of them did not end well."
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        total = sum(show_run(Path(f)) for f in folders)
    except (OSError, ValueError, KeyError) as e:
        print(f'error: {e}', file=sys.stderr)
        return 1
    print(f'\nall runs: {total:.0f} s')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
