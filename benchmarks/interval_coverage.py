"""How often do 95 % intervals by clip hold the true value? Simulated evaluations whose true metrics are known, and four kinds of intervals.

Usage: python benchmarks/interval_coverage.py [--repeats 400] [--draws 400] [--clips 5,8,20,50] [--quick]
Two ways in which clips differ: `alike` (60 rows each; share of looking rows, offset and separation of the scores are drawn per clip) and
`uneven` (12 to 600 rows, many clips without a looking row, heavy tails); `strong` is a model that is nearly perfect. The truth is the
metric of 4,000 clips. For each number of clips: how often the interval held it, and its mean width, for the bootstrap over clips with
percentiles, the bootstrap BCa, the plain jackknife (Student's t, no logits), and `intervals_by_clip`, which the reports show; then the same
for the paired difference of two models. Writes benchmarks/results/interval_coverage.json; --quick does 40 repeats and writes nothing.
"""
import argparse

import numpy as np
import pandas as pd
from measure import save
from scipy.special import expit, ndtr, ndtri, stdtrit

from lam_nb.evaluation import _METRICS as METRICS, _metrics_without_each, compare_by_clip, intervals_by_clip, lam_metrics

# what is drawn for each clip: rows, share of looking rows, offset and separation of the scores; and the noise of each row
SIMULATIONS = dict(
    alike=lambda rng: (60, rng.beta(1.2, 8), rng.normal(0, .8), rng.normal(1.5, .6), rng.standard_normal),
    uneven=lambda rng: (int(np.clip(rng.lognormal(4, .8), 12, 600)), rng.beta(.5, 4), rng.normal(0, 1), rng.gamma(4, .6),
                        lambda n: rng.standard_t(4, n)),
    strong=lambda rng: (60, rng.beta(1.2, 3), rng.normal(0, .8), rng.normal(4, 1), rng.standard_normal))


def clips(kind: str, n: int, rng) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Predictions of two models on `n` simulated clips; the second separates the classes better, in some clips more than in others."
    parts = []
    for clip in range(n):
        rows, share, offset, separation, noise = SIMULATIONS[kind](rng)
        label = (rng.random(rows) < share).astype(int)
        first = offset - 1 + separation * label + noise(rows)
        second = first + rng.normal(.3, .6) * label + rng.normal(0, .4, rows)
        parts.append(pd.DataFrame(dict(clip_uid=f'{clip:05d}', track_id='t', frame=np.arange(rows), label=label,
                                       first=expit(first), second=expit(second))))
    table = pd.concat(parts, ignore_index=True)
    rest = table.drop(columns=['first', 'second'])
    return rest.assign(score=table['first']), rest.assign(score=table['second'])


def metrics_of(table) -> np.ndarray:
    "The four metrics; NaN where not defined."
    found = lam_metrics(table)
    return np.array([found[name] for name in METRICS], dtype=float)


def drawn(table, weights) -> np.ndarray:
    "Every metric for each row of `weights` (draws, clips): clip c counts `weights[i, c]` times."
    clip, label, score = pd.factorize(table.clip_uid, sort=True)[0], table.label.to_numpy(), table.score.to_numpy()
    aps = []
    for y, s in ((label, score), (1 - label, 1 - score)):
        order = np.argsort(-s, kind='stable')
        ranked, hits = clip[order], np.flatnonzero(y[order])
        ap = np.full(len(weights), np.nan)
        for i, w in enumerate(weights):
            rows = w[ranked]
            found = np.cumsum(rows[hits])
            if found[-1]:
                precision = found / np.maximum(np.cumsum(rows)[hits], 1)
                ap[i] = rows[hits] @ np.maximum.accumulate(precision[::-1])[::-1] / found[-1]
        aps.append(ap)
    right, rows = np.bincount(clip, (score >= .5) == label), np.bincount(clip)
    return np.stack([(aps[0] + aps[1]) / 2, *aps, weights @ right / (weights @ rows)])


def bootstrap_ends(value, draws, without) -> dict:
    "Ends (2, 4) of the percentile and of the BCa interval."
    influence = np.nanmean(without, 1, keepdims=True) - without
    bend = (influence**3).sum(1) / (6 * np.maximum((influence**2).sum(1), 1e-12)**1.5)
    shift = ndtri(np.clip(np.nanmean(draws < value[:, None], 1), .002, .998))
    z = shift + ndtri([[.025], [.975]])
    levels = np.clip(np.nan_to_num(ndtr(shift + z / (1 - bend * z)), nan=.5), 0, 1)
    bca = np.stack([[np.nanquantile(d, p) for d, p in zip(draws, level)] for level in levels])
    return dict(percentile=np.nanpercentile(draws, [2.5, 97.5], axis=1), BCa=bca)


def ends(tables, rng, draws: int) -> dict:
    "Way -> ends (2, 4) of its intervals: of one table's metrics, or of the difference of two."
    n = tables[0].clip_uid.nunique()
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    last, *first = tables[::-1]                                     # a difference is: the second minus the first
    each = lambda of: of(last) - of(first[0]) if first else of(last)
    value, sample = each(metrics_of), each(lambda t: drawn(t, weights))
    without = each(lambda t: np.stack([*_metrics_without_each(t, .5).values()]))
    error = np.sqrt((n - 1) / n * ((without - without.mean(1, keepdims=True))**2).sum(1))
    plain = value + np.array([[-1], [1]]) * stdtrit(n - 1, .975) * error
    ours = compare_by_clip(*tables) if first else intervals_by_clip(last)
    return bootstrap_ends(value, sample, without) | dict(jackknife=plain, ours=ours[['low', 'high']].to_numpy(float).T)


def coverage(kind: str, n: int, repeats: int, draws: int, paired: bool, truth, seed: int = 1) -> pd.DataFrame:
    "A row per way and metric: how often the interval held the truth, its mean width, how often there was none."
    rng, found = np.random.default_rng([seed, n, paired]), {}
    for _ in range(repeats):
        tables = clips(kind, n, rng)
        if tables[0].label.nunique() < 2: continue
        for way, (low, high) in ends(tables if paired else tables[:1], rng, draws).items():
            found.setdefault(way, []).append(np.stack([(low <= truth) & (truth <= high), high - low, np.isnan(low)]))
    rows = []
    for way, got in found.items():
        held, width, none = np.moveaxis(np.array(got, float), 1, 0)
        for i, name in enumerate(METRICS):
            given = none[:, i] == 0
            rows.append(dict(kind=kind, clips=n, of='difference' if paired else 'metric', way=way, metric=name,
                             held=round(held[given, i].mean(), 3), width=round(width[given, i].mean(), 3), none=round(1 - given.mean(), 3)))
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (('repeats', 400), ('draws', 400)): parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--clips', default='5,8,20,50')
    parser.add_argument('--quick', action='store_true')
    args = parser.parse_args()
    repeats, draws = (40, 100) if args.quick else (args.repeats, args.draws)
    parts = []
    for kind in SIMULATIONS:
        one, two = (metrics_of(t) for t in clips(kind, 4000, np.random.default_rng(0)))
        for paired, truth in ((False, one), (True, two - one)):
            parts += [coverage(kind, int(n), repeats, draws, paired, truth) for n in args.clips.split(',')]
            print(pd.concat(parts[-len(args.clips.split(',')):]).pivot_table(
                index=['kind', 'of', 'clips', 'way'], columns='metric', values=['held', 'width'], sort=False).to_string(), flush=True)
    if args.quick: return
    command = f'python benchmarks/interval_coverage.py --repeats {repeats} --draws {draws} --clips {args.clips}'
    save('interval_coverage', command, rows=pd.concat(parts).to_dict('records'))


if __name__ == '__main__':
    main()
