"""What each inference option brings, beside the plain scores: the mean over checkpoints that were trained alike with different seeds.

Usage: python benchmarks/options.py CHECKPOINT CHECKPOINT [...] [--data DATA_DIR] [--parts FOLDER]
DATA_DIR (default data/sample) is prepared, with val and test faces and test_truth.csv. Temperature and threshold are fitted on val, so only
their test figures count. Prints a Markdown table: means, and mean and standard deviation of the differences from the same checkpoint's
plain scores; an ensemble of all checkpoints is compared with their mean. Writes benchmarks/results/options.json.
"""
import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from measure import save

from lam_nb.evaluation import lam_metrics
from lam_nb.predictions import add_labels
from lam_nb.decisions import best_threshold
from lam_nb.data_checks import stored_clips
from lam_nb.inference import predict, sigmoid
from lam_nb.scoring import ensemble_scores, fit_temperature, load_model, smooth_scores

FIGURES = ['mAP', 'AP_looking', 'accuracy', 'NLL', 'ECE']


def calibration_error(label: np.ndarray, score: np.ndarray) -> float:
    "Mean gap between score and share of looking rows, in ten bins of equal width, weighted by their rows."
    which = np.minimum((score * 10).astype(int), 9)
    return float(sum(abs(label[which == b].mean() - score[which == b].mean()) * (which == b).mean() for b in np.unique(which)))


def figures(table: pd.DataFrame, threshold: float = .5) -> dict:
    "The figures of a labelled predictions table."
    label, score = table.label.to_numpy(), table.score.to_numpy()
    nll = -np.log(np.where(label == 1, score, 1 - score).clip(1e-12)).mean()
    metrics = lam_metrics(table, threshold)
    return {k: metrics[k] for k in FIGURES[:3]} | dict(NLL=float(nll), ECE=calibration_error(label, score))


def predicted(paths, data: Path, parts: Path) -> dict:
    "(split, flip) -> the labelled predictions table of each checkpoint."
    found = {}
    for split in ('val', 'test'):
        clips = stored_clips(data, data / 'faces', split)
        for flip in (False, True):
            for path in paths:
                model, size, _ = load_model(path)
                table = predict(model, data / 'faces', clips, size=size, flip=flip, parts=parts)
                found.setdefault((split, flip), []).append(add_labels(table, data / 'test_truth.csv') if split == 'test' else table)
    return found


def options(tables: dict) -> dict:
    "Option -> split -> figures of each checkpoint (of an ensemble: of the one)."
    heated = lambda table, t: table.assign(score=sigmoid(table.logit / t))
    found = {}
    for split in ('val', 'test'):
        val, plain, flipped = tables['val', False], tables[split, False], tables[split, True]
        ways = {'plain': plain, 'flip': flipped}
        ways |= {f'smoothing {n}': [smooth_scores(t, n) for t in plain] for n in (3, 5, 9, 15, 31)}
        ways |= {'flip, smoothing 9': [smooth_scores(t, 9) for t in flipped]}
        ways |= {'temperature': [heated(t, fit_temperature(v)) for t, v in zip(plain, val)]}
        for how in ('probabilities', 'logits'): ways |= {f'ensemble, {how}': [ensemble_scores(plain, how)]}
        ways |= {'ensemble, flip, smoothing 9': [smooth_scores(ensemble_scores(flipped), 9)]}
        for name, got in ways.items(): found.setdefault(name, {})[split] = [figures(t) for t in got]
        found.setdefault('threshold', {})[split] = [figures(t, best_threshold(v)[0]) for t, v in zip(plain, val)]
    return found


def lines(found: dict, split: str) -> list[dict]:
    "A row for each option: mean of each figure, and its difference from plain."
    rows, plain = [], pd.DataFrame(found['plain'][split])
    for name, by_split in found.items():
        got = pd.DataFrame(by_split[split])
        gain = got - plain if len(got) == len(plain) else got - plain.mean()
        spread = {k: None if len(gain) == 1 else round(float(gain[k].std()), 4) for k in FIGURES}
        rows.append(dict(option=name, **{k: round(float(got[k].mean()), 4) for k in FIGURES},
                         gain={k: round(float(gain[k].mean()), 4) for k in FIGURES}, spread=spread))
    return rows


def cell(row: dict, figure: str):
    "One figure of the table: of `plain` itself, of an option what it adds, with the spread over the seeds."
    if row['option'] == 'plain': return f'{row[figure]:.4f}'
    spread = row['spread'][figure]
    return f'{row["gain"][figure]:+.4f}' + ('' if spread is None else f' ± {spread:.4f}')


def show(rows: list[dict]):
    "Prints the rows as a Markdown table."
    print('| option |', ' | '.join(FIGURES), '|\n|---|' + '---|' * len(FIGURES))
    for row in rows:
        print('|', row['option'], '|', ' | '.join(cell(row, k) for k in FIGURES), '|')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoints', nargs='+', type=Path)
    parser.add_argument('--data', type=Path, default=Path('data/sample'))
    parser.add_argument('--parts', type=Path, help='folder in which predictions are kept (default: a temporary one)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = options(predicted(args.checkpoints, args.data, args.parts or Path(folder)))
    results = {split: lines(found, split) for split in ('val', 'test')}
    command = f'python benchmarks/options.py {" ".join(["CHECKPOINT"] * len(args.checkpoints))}'
    save('options', command, checkpoints=len(args.checkpoints), **results)
    for split, rows in results.items():
        print(f'\n{split}, mean of {len(args.checkpoints)} checkpoints; for the options: what they add (± standard deviation)\n')
        show(rows)


if __name__ == '__main__':
    main()
