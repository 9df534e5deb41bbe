"""Makes metric_cases.json: small inputs and what the official metric makes of them.

Usage: python tests/reference/make_metric_reference.py CHECKOUT      (CHECKOUT: EGO4D/social-interactions, branch lam)

Nothing of the checkout is changed. Two names that NumPy has dropped are stood in for, and, for inputs with equal scores only, the sort is
made stable: the official one leaves the order of equal scores to chance.
"""
import contextlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

np.float, np.NAN = float, np.nan
OUT = Path(__file__).with_name('metric_cases.json')
BOX = [10.0, 20.0, 74.0, 90.25]
AS_IT_IS = pd.DataFrame.sort_values


def stable_sort(table, *args, **kwargs):
    "`sort_values` that keeps the order of equal scores."
    return AS_IT_IS(table, *args, **{**kwargs, 'kind': 'stable'})


def inputs(rng, i):
    "Labels and scores of case `i`: plain, rounded (ties), tiny (ties by inversion), float32, constant."
    n = int(rng.integers(2, 41))
    scores = rng.random(n)
    shapes = [scores, scores.round(1), 10.0 ** -rng.uniform(0, 20, n), scores.astype(np.float32).astype(float), np.full(n, 0.5)]
    labels = (rng.random(n) < rng.choice([0.1, 0.3, 0.8])).astype(int)
    labels[:2] = 1, 0
    if i < 4: labels[:] = i % 2                                           # one class only: the official code fails on the other
    return labels.tolist(), shapes[i % 5].tolist()


def official_ap(metrics, labels, scores):
    "The official average precision of one class, or None where the official code fails."
    keys = [['clip', i, *BOX, 'track'] for i in range(len(labels))]
    names = ['video_id', 'frame_id', 'entity_box_x1', 'entity_box_y1', 'entity_box_x2', 'entity_box_y2', 'track_id', 'label', 'score']
    truth = metrics.load_csv([[*k, y] for k, y in zip(keys, labels)], names[:-1])
    guess = metrics.load_csv([[*k, 1, s] for k, s in zip(keys, scores)], names)
    try:
        merged = metrics.merge_groundtruth_and_predictions(truth, guess)
        value = metrics.compute_average_precision(*metrics.calculate_precision_recall(merged))
    except ValueError:
        return None
    return None if np.isnan(value) else float(value)


def printed_accuracy(metrics, labels, scores):
    "The accuracy that the official code prints, in percent with three decimals."
    table = pd.DataFrame(dict(score=scores, label_groundtruth=labels))
    with contextlib.redirect_stdout(io.StringIO()) as out, np.errstate(invalid='ignore'):
        metrics.compute_confusion_matrix(table, 0.5)
    return float(re.search(r'Acc:([\d.]+)%', out.getvalue())[1])


def main(checkout):
    sys.path.insert(0, str(checkout))
    from common import metrics
    rng, cases = np.random.default_rng(0), []
    for i in range(60):
        labels, scores = inputs(rng, i)
        inverted = [1 - s for s in scores]
        ties = min(len(set(scores)), len(set(inverted))) < len(scores)
        pd.DataFrame.sort_values = stable_sort if ties else AS_IT_IS
        cases.append(dict(labels=labels, scores=scores, ties=ties, AP_looking=official_ap(metrics, labels, scores),
                          AP_not_looking=official_ap(metrics, [1 - y for y in labels], inverted),
                          accuracy_percent=printed_accuracy(metrics, labels, scores)))
    OUT.write_text('[\n' + ',\n'.join(json.dumps(c) for c in cases) + '\n]\n')
    lone = sum(None in (c['AP_looking'], c['AP_not_looking']) for c in cases)
    print(f'{OUT}: {len(cases)} cases, {sum(c["ties"] for c in cases)} with ties, {lone} with one class only')


if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
