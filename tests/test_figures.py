"Figures: what is drawn, what is said where nothing can be drawn, and which rows are picked."
import io
import re
from inspect import signature

import matplotlib
import numpy as np
import pandas as pd
import papermill as pm
import pytest
from conftest import ROOT

matplotlib.use('Agg')

import matplotlib.pyplot as plt

from lam_nb import figures as F
from lam_nb.decisions import border_profile
from lam_nb.evaluation import average_precision, compare_by_clip, intervals_by_clip, lam_metrics, metrics_by
from lam_nb.predictions import write_table
from lam_nb.reports import save_figure
from lam_nb.runs import write_json
from lam_nb.training_report import throughput_figure


def table(tracks=4, length=80, seed=0):
    rng = np.random.default_rng(seed)
    n = tracks * length
    frame = np.tile(np.arange(length) + np.where(np.arange(length) < 50, 10, 30), tracks)        # a gap of 20 frames
    label = (np.arange(n) % length % 40 < 8).astype('int8')
    track = np.repeat(np.arange(tracks), length)
    score = np.clip(0.5 * label + 0.7 * rng.random(n) - 0.1, 0, 1)
    return pd.DataFrame(dict(clip_uid=[f'clip{t // 2}' for t in track], track_id=[f'track_{t}' for t in track], person_id='1', frame=frame,
                             x1=0., y1=0., x2=30. + track, y2=40., label=label, interpolated=False, score=score))


P = table()
ONE = P[P.track_id == 'track_1']
IMAGE = np.full((16, 16, 3), 120, dtype=np.uint8)
HISTORY = pd.DataFrame(dict(epoch=[1, 2, 3], train_loss=[.5, .3, .2], val_loss=[.5, .4, .5], mAP=[.6, .8, .7], AP_looking=[.3, .7, .5],
                            AP_not_looking=[.9, .9, .9], accuracy=[.8, .9, .85]))
AGAINST_LABELS = [F.precision_recall, F.roc, F.confusion_matrix, F.calibration]


def words(fig):
    "All text of a figure."
    texts = [t for ax in fig.axes for t in [*ax.texts, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]]
    return ' | '.join([t.get_text() for t in texts] + [ax.get_title(loc) for ax in fig.axes for loc in ('left', 'center')])


def as_svg(fig):
    file = io.BytesIO()
    with plt.rc_context(F.STYLE): fig.savefig(file, format='svg')
    return file.getvalue()


@pytest.mark.parametrize('draw', [*AGAINST_LABELS, F.score_histogram])
def test_labels_on_axes_no_titles_and_nothing_left_open(draw):
    open_before = plt.get_fignums()
    fig = draw(P)
    assert fig.axes[-1].get_xlabel() and all(ax.get_ylabel() and not ax.get_title() for ax in fig.axes)
    assert 'not defined' not in words(fig) and plt.get_fignums() == open_before


@pytest.mark.parametrize('draw', AGAINST_LABELS)
@pytest.mark.parametrize('change, why', [(lambda t: t[:0], 'the table has no rows'),
                                         (lambda t: t.assign(label=-1), 'the labels are not known')])
def test_not_defined_is_stated(draw, change, why):
    assert f'not defined:\n{why}' in words(draw(change(P)))


@pytest.mark.parametrize('label, why', [(0, 'no row is labelled looking'), (1, 'no row is labelled not looking')])
def test_one_class_only(label, why):
    t = P.assign(label=label)
    assert why in words(F.precision_recall(t)) and why in words(F.roc(t))
    assert 'no such row' in words(F.confusion_matrix(t))
    assert len(F.score_histogram(t).axes[0].patches) == 1


def test_a_broken_table_is_refused():
    for draw in AGAINST_LABELS:
        with pytest.raises(ValueError, match='1 of 320 rows have a score that is no finite number'):
            draw(P.assign(score=P.score.where(P.index != 5)))
        with pytest.raises(ValueError, match='repeat an earlier row'): draw(pd.concat([P, P]))


def test_training_curves():
    fig = F.training_curves(HISTORY)
    assert len(fig.axes[0].lines) == 2 and len(fig.axes[1].lines) == 5                    # four curves and the best epoch's line
    assert 'best mAP 0.800, epoch 2' in words(fig)
    assert 'best mAP 0.600, epoch 1' in words(F.training_curves(HISTORY[:1]))
    unknown = HISTORY.assign(mAP=None, AP_looking=np.nan, AP_not_looking=np.nan, accuracy=np.nan)
    assert 'no epoch has a metric' in words(F.training_curves(unknown))
    assert 'no epoch has a loss' in words(F.training_curves(HISTORY[:0]))


def test_precision_recall_has_the_official_AP_as_area():
    fig = F.precision_recall(P)
    ap = average_precision(P.label, P.score)
    x, y = fig.axes[0].lines[0].get_data()
    assert f'looking: AP {ap:.3f}' in words(fig) and x[-1] == 1 and (np.diff(y) <= 0).all()
    assert abs(np.sum(np.diff(x) * y[1:]) - ap) < 1e-9
    assert fig.axes[0].lines[0].get_color() == F.LOOKING


def test_curves_of_many_rows_are_thinned():
    rng = np.random.default_rng(0)
    label = (rng.random(60_000) < .1).astype(int)
    score = np.clip(.3 * label + .7 * rng.random(60_000), 0, 1)
    big = pd.DataFrame(dict(clip_uid='c', track_id='t', frame=np.arange(60_000), label=label, score=score))
    for fig in (F.precision_recall(big), F.roc(big)):
        assert max(len(line.get_xdata()) for line in fig.axes[0].lines) <= 1002 and len(as_svg(fig)) < 80_000


def test_confusion_counts():
    fig = F.confusion_matrix(P, 0.4)
    called = P.score >= 0.4
    assert [int(t.get_text().split('\n')[0]) for t in fig.axes[0].texts] == [
        ((P.label == y) & (called == c)).sum() for y in (0, 1) for c in (False, True)]
    assert 'score ≥ 0.4' in words(fig)


def test_histogram_of_unlabelled_scores():
    fig = F.score_histogram(P.assign(label=-1))
    assert 'label not known (320)' in words(fig) and fig.axes[0].get_ylabel() == 'fraction of the rows'
    heights = np.array(fig.axes[0].patches[0].get_xy())[:, 1]
    assert heights.max() <= 1


def test_timeline():
    frames = ONE.frame.iloc[[3, 20, 70]].tolist()
    fig = F.timeline(ONE, {f: IMAGE for f in frames})
    main, small = fig.axes[0], fig.axes[1:]
    assert len(small) == 3 and [a.get_title() for a in small] == [f'{s:.2f}' for s in ONE.score.iloc[[3, 20, 70]]]
    lines = [line for line in main.lines if len(line.get_xdata()) > 2]
    assert [len(line.get_xdata()) for line in lines] == [50, 30]                           # broken at the gap
    assert len(main.patches) == 1 + 2                                                      # the gap and two segments
    assert 'labelled looking' in words(fig) and 'no face' in words(fig)
    assert small[0].spines['left'].get_edgecolor() == matplotlib.colors.to_rgba(F.LOOKING)


def test_timeline_of_odd_tracks():
    assert 'label not known' in words(F.timeline(ONE.assign(label=-1)))
    assert 'the table has no rows' in words(F.timeline(ONE[:0]))
    assert len(F.timeline(ONE[:1]).axes) == 1
    lines = F.timeline(ONE[:49:13]).axes[0].lines
    assert len(lines[0].get_xdata()) == 4                                                  # stride 13 is no gap
    with pytest.raises(ValueError, match='one track, got 4'): F.timeline(P)
    with pytest.raises(ValueError, match=r'frames \[999\]'): F.timeline(ONE, {999: IMAGE})
    with pytest.raises(ValueError, match='are repeated'): F.timeline(ONE.assign(frame=-1))


@pytest.mark.parametrize('kind, cells', [('right', {(0, 0), (1, 1)}), ('wrong', {(0, 1), (1, 0)}), ('TP', {(1, 1)}),
                                         ('TN', {(0, 0)}), ('FP', {(0, 1)}), ('FN', {(1, 0)})])
def test_confident_rows_are_the_right_ones(kind, cells):
    rows = F.confident_rows(P, 5, kind)
    assert {(y, int(s >= .5)) for y, s in zip(rows.label, rows.score)} <= cells and 0 < len(rows) <= 5
    assert rows.equals(P.loc[rows.index])
    sure = (rows.score - .5).abs().to_numpy()
    assert (np.diff(sure) <= 0).all()
    fits = P[[(y, int(s >= .5)) in cells for y, s in zip(P.label, P.score)]]
    assert sure[0] == (fits.score - .5).abs().max()


def test_confident_rows_show_a_moment_once():
    rows = F.confident_rows(P, 100, 'right')
    for _, track in rows.groupby(['clip_uid', 'track_id']): assert np.diff(np.sort(track.frame)).min(initial=99) >= 15
    taken = set(zip(rows.track_id, rows.frame))
    right = P[(P.score >= .5) == (P.label == 1)]
    for r in right.itertuples():                                                           # nothing that would fit was left out
        assert any(t == r.track_id and abs(f - r.frame) < 15 for t, f in taken)
    assert len(F.confident_rows(P, 100, 'right', apart=1)) == 100
    with pytest.raises(ValueError, match="kind is 'best', expected one of right"): F.confident_rows(P, 3, 'best')


def test_gallery_and_contact_sheet():
    rows = list(F.confident_rows(P, 5, 'wrong').itertuples())
    strips = [np.full((7, 20, 18, 3), 40 * i, dtype=np.uint8) for i in range(5)]
    fig = F.gallery(strips, [F.row_caption(r) for r in rows], [F.COLOURS[r.label] for r in rows])
    shown = [ax for ax in fig.axes if ax.images]
    assert len(shown) == 5 and shown[0].images[0].get_array().shape == (20, 7 * 18 + 6 * 2, 3)
    box = shown[0].patches[0]
    assert box.get_x() + 1.5 == 3 * 20 and box.get_edgecolor() == matplotlib.colors.to_rgba(F.COLOURS[rows[0].label])
    assert f'score {rows[0].score:.3f}' in words(fig) and f'frame {rows[0].frame}' in words(fig)
    assert 'no such row' in words(F.gallery([], []))
    with pytest.raises(ValueError, match='2 strips but 1 captions'): F.gallery(strips[:2], ['one'])
    sheet = F.contact_sheet([IMAGE] * 9, list('abcdefghi'), [F.LOOKING] * 9, columns=4)
    assert len(sheet.axes[0].images) == 9 == len(sheet.axes[0].patches) and 'no image' in words(F.contact_sheet([]))


def test_figures_of_a_split():
    faces = dict(train=P, val=P[:100], test=P[:0])
    assert len(F.face_sizes(faces).axes[0].lines) == 2 and 'train: median 35' in words(F.face_sizes(faces))
    assert 'train: median 80' in words(F.track_lengths(faces))
    assert 'no row has a box' in words(F.face_sizes(dict(test=P.assign(x1=np.nan))))
    fig = F.positives(faces)
    assert '256 not looking' in words(fig) and '64' in words(fig) and 'no rows' in words(fig)
    assert 'no split has a row' in words(F.positives({}))


def test_intervals_and_slices():
    fig = F.intervals(intervals_by_clip(P))
    assert 'only 2 clips' in words(fig) and 'AP not looking' in words(fig)
    assert words(F.intervals(intervals_by_clip(P.assign(label=0)))).count('not defined') == 2
    fig = F.slices(metrics_by(P, 'track_id'))
    assert fig.axes[0].get_xlabel() == 'AP looking' and '16 of 80 looking' in words(fig)


def test_text_in_svg_stays_text_and_style_is_not_left_behind():
    size = plt.rcParams['font.size']
    assert b'>predicted (score' in as_svg(F.confusion_matrix(P)) and plt.rcParams['font.size'] == size


def test_several_runs_can_be_told_apart_without_colour():
    runs = {f'run {i}': P.assign(score=(P.score + i * P.label) / (1 + i)) for i in range(6)}
    lines = F.precision_recall_of(runs).axes[0].lines
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines}) == 6 and len({line.get_color()
        for line in lines}) == 6
    with pytest.raises(ValueError, match='7 runs cannot be told apart'): F.precision_recall_of(runs | {'x': P})
    assert 'run 0: no row is labelled looking' in words(F.precision_recall_of({'run 0': P.assign(label=0)}))
    fig = F.training_curves_of({'a': HISTORY, 'b': HISTORY[['epoch', 'train_loss']]})
    assert len(fig.axes[0].lines) == 3 and len(fig.axes[1].lines) == 1
    assert 'no epoch has a mAP' in words(F.training_curves_of({'b': HISTORY[['epoch', 'train_loss']]}))


def test_names_are_drawn_as_they_are():
    runs = {'_first': P, 'lr $x_1$ and $': P}
    legend = F.precision_recall_of(runs).legends[0]
    assert [t.get_text().split(':')[0] for t in legend.get_texts()] == list(runs)
    svg = as_svg(F.precision_recall_of(runs)).decode() + as_svg(F.training_curves_of(dict.fromkeys(runs, HISTORY))).decode()
    assert svg.count('>_first') == 2 and svg.count('>lr $x_1$ and $') == 2
    for fig in (F.calibration(P), F.face_sizes(dict(val=P))): assert 'mathdefault' not in as_svg(fig).decode()


def test_differences_show_what_is_sure():
    many = table(tracks=12)
    better = many.assign(score=0.5 * many.score + 0.5 * many.label)
    fig = F.differences({'b': compare_by_clip(many, better), 'same': compare_by_clip(many, many)}, 'a')
    dots = [line for line in fig.axes[0].lines if len(line.get_xdata()) == 1]
    assert [d.get_marker() for d in dots] == ['o'] * 4 + ['D'] * 4 and 'difference to a' in words(fig)
    assert words(F.differences({'b': compare_by_clip(P.assign(label=0), P.assign(label=0))}, 'a')).count('not defined') == 2
    assert 'nothing to compare' in words(F.differences({}))


def test_around_borders():
    profile = border_profile(P)
    x, y = F.around_borders(profile).axes[0].lines[0].get_data()
    assert y[list(x).index(1)] > y[list(x).index(-1)]
    assert 'no track has a border of a segment' in words(F.around_borders(border_profile(P.assign(label=0))))


def test_slices_show_the_random_baseline_and_intervals():
    fig = F.slices(metrics_by(P, 'track_id'))
    bars = next(line for line in fig.axes[0].lines if line.get_marker() == '|')
    assert bars.get_xdata().tolist() == [0.2] * 4 and fig.axes[0].get_xlim()[0] == 0
    assert 'random' not in words(fig) and not [ax for ax in fig.axes if ax.get_ylabel()]
    long = F.slices(metrics_by(P.assign(uid='0d42b229-1360-420d-b048-' + P.track_id), 'uid'))
    assert '0d42b229-136…' in words(long)


def test_gallery_with_timelines():
    rows = F.confident_rows(P, 3, 'wrong')
    strips = [np.full((7, 20, 18, 3), 90, dtype=np.uint8)] * 3
    fig = F.gallery(strips, ['a', 'b', 'c'], rows=rows, predictions=P, threshold=0.3)
    assert len(fig.axes) == 6 and any(list(line.get_ydata()) == [0.3, 0.3] for line in fig.axes[1].lines)
    dot = [line.get_data() for line in fig.axes[1].lines if len(line.get_xdata()) == 1][-1]
    assert dot[0][0] == rows.frame.iloc[0] and dot[1][0] == rows.score.iloc[0]
    assert 'no such row' in words(F.gallery([], [], rows=rows[:0], predictions=P))


def test_nothing_is_left_open_after_an_error():
    before = plt.get_fignums()
    with pytest.raises(ValueError, match=r'frames \[999\]'): F.timeline(ONE, {999: IMAGE})
    assert plt.get_fignums() == before


def test_figures_have_their_own_ground():
    "In a dark notebook the labels must not be black on black."
    for fig in (F.precision_recall(P), F.slices(metrics_by(P, 'track_id')), F.gallery([], [])): assert fig.get_facecolor() == (1, 1, 1, 1)


# Values, computed by hand

HAND = P[:10].assign(score=[.05] * 4 + [.5] * 2 + [.95] * 4, label=[0, 0, 0, 1, 1, 0, 1, 1, 1, 0])


def interval_table(value, low, high):
    return pd.DataFrame(dict(value=[value], low=[low], high=[high], note=['']), index=pd.Index(['mAP'], name='metric'))


def test_calibration_is_the_fraction_of_looking_at_each_score():
    fig = F.calibration(HAND)
    x, y = next(line.get_data() for line in fig.axes[0].lines if line.get_marker() == 'o')
    assert np.allclose(x, [.05, .5, .95]) and np.allclose(y, [.25, .5, .75])
    assert 'ECE 0.160' in words(fig)                                   # (4 * 0.2 + 2 * 0 + 4 * 0.2) / 10
    assert [bar.get_height() for bar in fig.axes[1].patches] == [4, 0, 0, 0, 0, 2, 0, 0, 0, 4]


def test_auroc_and_point():
    fig = F.roc(HAND, 0.5)
    assert 'AUROC 0.740' in words(fig)                                         # 18.5 of 25 pairs
    dot = next(line for line in fig.axes[0].lines if line.get_marker() == 'o')
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (.4, .8)               # 2 of 5 false positives, 4 of 5 true positives


def test_histogram_shows_the_fraction_of_each_class():
    fig = F.score_histogram(HAND, bins=10)
    for patch, colour, fractions in zip(fig.axes[0].patches, (F.NOT_LOOKING, F.LOOKING), ([.6, .2, .2], [.2, .2, .6]), strict=True):
        assert patch.get_edgecolor() == matplotlib.colors.to_rgba(colour)
        corners = patch.get_xy()
        high = [corners[(corners[:, 0] > a - .01) & (corners[:, 0] < a + .11), 1].max() for a in (0, .5, .9)]
        assert np.allclose(high, fractions)


def test_intervals_and_differences_say_low_then_high():
    for fig, text in ((F.intervals(interval_table(.8, .7, .9)), '0.800 [0.700, 0.900]'),
                      (F.differences({'b': interval_table(.8, .7, .9)}, 'a'), '+0.800 [+0.700, +0.900]'),
                      (F.differences({'b': interval_table(-.8, -.9, -.7)}, 'a'), '-0.800 [-0.900, -0.700]')):
        assert text in words(fig)
        sign = -1 if '-' in text else 1
        assert [sorted(line.get_xdata()) for line in fig.axes[0].lines if len(line.get_xdata()) == 2 and not line.get_xdata()[0] == 0] == [
            sorted([sign * .7, sign * .9])]
        assert [line.get_xdata()[0] for line in fig.axes[0].lines if line.get_marker() == 'o'] == [sign * .8]


def test_of_few_clips_no_interval_is_drawn_as_if_it_were_sure():
    better = P.assign(score=0.5 * P.score + 0.5 * P.label)
    fig = F.differences({'b': compare_by_clip(P, better)}, 'a')
    dots = [line for line in fig.axes[0].lines if len(line.get_xdata()) == 1]
    assert [d.get_marker() for d in dots] == ['D'] * 4 and 'only 2 clips: too few for an interval' in words(fig) and '[' not in words(fig)
    assert '[' not in words(F.intervals(intervals_by_clip(P)))


# Styles, and what a reader sees at the printed size

SERIF = {'font.family': 'serif', 'figure.figsize': (3.3, 2.5)}
PERFECT = P.assign(score=1. * (P.label == 1))
WORST = P.assign(score=1. - PERFECT.score)
LONG = [f'outputs/2026-11-28-baseline-resnet18-lstm-official-stride-3-seed-{i}' for i in range(6)]
ONES = HISTORY.assign(mAP=1., AP_looking=1., AP_not_looking=1., accuracy=1.)
SPEED = HISTORY.assign(windows_per_s=[12345., 23456., 23456.], data_wait=[0., 0., 1.])


def families(fig):
    "Fonts of all texts of a figure, drawn when its style is gone."
    fig.draw_without_rendering()
    return {tuple(t.get_fontfamily()) for t in fig.findobj(matplotlib.text.Text) if t.get_text()}


def test_own_rcParams_count_and_style_counts_more():
    own = {'font.family': 'monospace', 'font.size': 11, 'lines.linewidth': 3, 'figure.figsize': (4, 3)}
    plain = F.precision_recall(P)
    assert families(plain) == {('DejaVu Sans',)} and plain.get_size_inches().tolist() == [F.COLUMN, 2.7]
    with plt.rc_context(own):
        before = dict(plt.rcParams)
        fig, other = F.precision_recall(P), F.precision_recall(P, style={'font.size': 9, 'figure.figsize': (6.4, 4.8)})
        assert dict(plt.rcParams) == before
    assert families(fig) == {('DejaVu Sans Mono', 'DejaVu Sans')} and fig.get_size_inches().tolist() == [4, 3]
    ax = fig.axes[0]
    assert ax.xaxis.label.get_size() == 11 and 9 < ax.get_xticklabels()[0].get_size() < 10 and ax.lines[0].get_linewidth() == 3
    assert not ax.spines['top'].get_visible()                                        # not set by the user: the kit's
    assert other.axes[0].xaxis.label.get_size() == 9 and other.get_size_inches().tolist() == [6.4, 4.8]


def test_style_is_a_dict_a_name_a_file_or_a_list(tmp_path):
    (tmp_path / 'journal.mplstyle').write_text('font.family: serif\nfont.size: 7\n')
    for style in ('ggplot', tmp_path / 'journal.mplstyle', ['ggplot', {'font.size': 7}], SERIF, None): F.roc(P, style=style)
    fig = F.roc(P, style=['ggplot', str(tmp_path / 'journal.mplstyle'), {'axes.spines.top': True}])
    assert families(fig) == {('DejaVu Serif', 'DejaVu Sans')} and fig.axes[0].texts[-1].get_size() == 7
    assert fig.axes[0].spines['top'].get_visible() and fig.axes[0].get_facecolor() == matplotlib.colors.to_rgba('#E5E5E5')
    with pytest.raises(OSError, match='no_such_style'): F.roc(P, style='no_such_style')
    assert not [n for n, draw in vars(F).items() if hasattr(draw, '__wrapped__') and 'style' not in signature(draw).parameters]


def test_a_dark_style_or_TeX_does_not_spoil_figures():
    with plt.style.context(['dark_background', {'text.usetex': True, 'axes.formatter.use_mathtext': True}]):
        fig = F.precision_recall_of({'a_b $x$': P})
    assert fig.get_facecolor() == (1, 1, 1, 1) and fig.axes[0].xaxis.label.get_color() == F.DARK
    svg = as_svg(fig).decode()
    assert 'mathdefault' not in svg and 'a_b $x$' in svg


def test_the_kits_style_for_good_leaves_the_users_own():
    with plt.rc_context({'font.size': 13}):
        F.set_style()
        assert plt.rcParams['font.size'] == 13 and plt.rcParams['pdf.fonttype'] == 42
        assert F.roc(P).get_size_inches().tolist() == [F.COLUMN, 2.7]


def test_size_of_figures_whose_height_follows_their_rows():
    by_track = metrics_by(P, 'track_id')
    for draw in (lambda **k: F.slices(by_track, **k), lambda **k: F.positives(dict(train=P), **k),
                 lambda **k: F.intervals(intervals_by_clip(P), **k)):
        natural, own = draw().get_size_inches(), draw(style=SERIF).get_size_inches()
        assert own[0] == 3.3 and own[1] == natural[1] != 2.5
    natural, own = (F.contact_sheet([IMAGE] * 16, style=s).get_size_inches() for s in ({}, SERIF))
    assert own[0] == 3.3 and np.allclose(own / natural, own[0] / natural[0])                 # images keep their shape
    assert throughput_figure(SPEED, style=SERIF).get_size_inches().tolist() == [3.3, 2.5]


def cut_markers(fig):
    "Markers that the edge of their axes cuts."
    fig.draw_without_rendering()
    found = []
    for ax in fig.axes:
        box = ax.get_window_extent()
        for line in (n for n in ax.lines if n.get_marker() not in ('None', None, '', '|') and n.get_clip_on()):
            r = line.get_markersize() / 2 * fig.dpi / 72
            points = ax.transData.transform(np.column_stack([np.asarray(v, dtype=float) for v in line.get_data()]))
            found += [p for p in points if np.isfinite(p).all() and not (
                box.x0 + r <= p[0] <= box.x1 - r and box.y0 + r <= p[1] <= box.y1 - r)]
    return found


@pytest.mark.parametrize('draw', [
    lambda: F.roc(PERFECT), lambda: F.roc(WORST), lambda: F.roc(P, .99999), lambda: F.roc(P, 0.), lambda: F.calibration(PERFECT),
    lambda: F.calibration(WORST), lambda: F.intervals(intervals_by_clip(WORST)), lambda: F.intervals(intervals_by_clip(PERFECT)),
    lambda: F.slices(metrics_by(PERFECT, 'track_id')), lambda: F.slices(metrics_by(WORST, 'track_id'), 'accuracy'),
    lambda: F.training_curves(ONES), lambda: F.training_curves(ONES[:1] * 0 + [1, 0, 0, 0, 0, 0, 0]), lambda: throughput_figure(SPEED),
    lambda: F.training_curves_of(dict(a=ONES, b=ONES[:1])), lambda: F.timeline(PERFECT[PERFECT.track_id == 'track_1'], {10: IMAGE}),
    lambda: F.gallery([np.stack([IMAGE] * 7)], ['a'], rows=WORST[:1], predictions=WORST)])
def test_no_marker_is_cut(draw):
    assert not cut_markers(draw())


def overlaps(fig):
    "Pairs of texts that lie over each other, and texts outside the figure."
    fig.draw_without_rendering()
    texts = [t for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
    for ax in fig.axes:                                                              # ticks outside the limits are not drawn
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            gone = [t for t in ticks if not low - 1e-9 <= t.get_loc() <= high + 1e-9]
            texts = [t for t in texts if t not in [label for tick in gone for label in (tick.label1, tick.label2)]]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    inside = fig.bbox.padded(1)
    found = [text for text, b in boxes if b.width and not (inside.contains(*b.min) and inside.contains(*b.max))]
    for i, (text, a) in enumerate(boxes):
        found += [(text, other) for other, b in boxes[i + 1:]
                  if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1]
    return found


@pytest.mark.parametrize('style', [{}, SERIF, {'font.size': 9}], ids=['kit', 'serif', 'larger'])
@pytest.mark.parametrize('threshold', [0., .02, .1, .5, .98, .99999])
@pytest.mark.parametrize('rows', [P, PERFECT, WORST], ids=['some', 'perfect', 'worst'])
def test_the_words_of_the_roc_lie_over_no_number(rows, threshold, style):
    with plt.rc_context(style): assert not overlaps(F.roc(rows, threshold))


BIG = pd.concat([P.assign(clip_uid=f'{i}') for i in range(300)], ignore_index=True)
MIXED = pd.concat([BIG, BIG.assign(label=-1, clip_uid='x' + BIG.clip_uid)])
RUNS = {n: P.assign(score=(P.score + i * P.label) / (1 + i)) for i, n in enumerate(LONG)}
NO_LOOKING = table(tracks=12).assign(label=0)


@pytest.mark.parametrize('draw', [
    lambda: F.precision_recall(P), lambda: F.precision_recall(P.assign(label=(P.index % 100 == 0) * 1)),
    lambda: F.precision_recall(P.assign(label=P.index % 2)), lambda: F.precision_recall_of(RUNS), lambda: F.score_histogram(MIXED, .98),
    lambda: F.confusion_matrix(BIG, .98), lambda: F.calibration(BIG), lambda: F.timeline(ONE, threshold=.02),
    lambda: F.timeline(PERFECT[PERFECT.track_id == 'track_1'], threshold=.98), lambda: F.timeline(ONE[:1]),
    lambda: F.timeline(table(1, 9000)), lambda: F.intervals(intervals_by_clip(NO_LOOKING)),
    lambda: F.slices(metrics_by(P.assign(u='0d42b229-1360-420d-b048-1, person 123456'), 'u')),
    lambda: F.slices(metrics_by(BIG, 'track_id')),
    lambda: F.differences({n: compare_by_clip(P, t) for n, t in [*RUNS.items()][1:]}, LONG[0]),
    lambda: F.training_curves(ONES), lambda: F.training_curves(ONES[:1]), lambda: F.training_curves_of(dict.fromkeys(LONG, HISTORY)),
    lambda: F.track_lengths(dict(train=BIG.assign(track_id='1', clip_uid='1'), val=P, test=P[:3])),
    lambda: F.positives(dict(train=BIG, val=BIG.assign(label=(BIG.index % 50 == 0) * 1), test=P[:0])), lambda: throughput_figure(SPEED)])
def test_no_text_lies_over_another_or_outside(draw):
    assert not overlaps(draw())


def test_names_that_are_shortened_still_differ():
    legend = [t.get_text() for t in F.precision_recall_of(RUNS).legends[0].get_texts()]
    assert len({t.split(':')[0] for t in legend}) == 6 and all('…' in t for t in legend)
    assert F._short_names(['a' * 30 + 'x' + 'a' * 30, 'a' * 61], 20) == ['a' * 30 + 'x' + 'a' * 30, 'a' * 61]


def ticks(axis):
    "Labels of the ticks within the axis."
    axis.figure.draw_without_rendering()
    low, high = sorted(axis.get_view_interval())
    return [t.label1.get_text() for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_text()]


def test_numbers_on_axes():
    assert ticks(F.training_curves(HISTORY[:1]).axes[1].xaxis) == ['1'] == ticks(F.training_curves_of(dict(a=HISTORY[:1])).axes[0].xaxis)
    assert all(t.isdigit() for t in ticks(F.training_curves_of(dict(a=HISTORY)).axes[0].xaxis))
    assert '20,000' in ticks(throughput_figure(SPEED).axes[0].yaxis)
    assert ticks(F.around_borders(border_profile(BIG)).axes[1].yaxis)[1] in ('2,000', '2,500')
    assert '10,000' in ticks(F.calibration(BIG).axes[1].yaxis)
    high = F.training_curves_of(dict(a=ONES)).axes[1].get_ylim()[1]
    assert 1 < high < 1.03                                                                   # no mAP above 1


@pytest.mark.parametrize('frames, expected', [
    (range(10, 170), ['30\n1 s', '60\n2 s', '90\n3 s', '120\n4 s', '150\n5 s']), ([100], ['99\n3.30 s', '100\n3.33 s', '101\n3.37 s']),
    (range(0, 9000, 13), ['0\n0 s', '1800\n60 s', '3600\n120 s', '5400\n180 s', '7200\n240 s', '9000\n300 s']),
    (range(60, 100), ['60\n2.0 s', '66\n2.2 s', '72\n2.4 s', '78\n2.6 s', '84\n2.8 s', '90\n3.0 s', '96\n3.2 s'])])
def test_a_timeline_has_seconds_below_its_frames(frames, expected):
    rows = pd.concat([ONE] * 20, ignore_index=True)[:len(frames)].assign(frame=list(frames))
    assert ticks(F.timeline(rows).axes[0].xaxis) == expected


def test_a_figure_in_a_paper_has_its_width_and_its_font(tmp_path):
    file = save_figure(F.precision_recall(P, style=SERIF), tmp_path / 'curve.png').with_suffix('.pdf').read_bytes()
    assert b'DejaVuSerif' in file and b'/FontFile2' in file and b'/Type3' not in file        # TrueType, embedded
    box = [float(v) for v in re.search(rb'/MediaBox \[ ?([^\]]+?) ?\]', file)[1].split()]
    assert abs(box[2] / 72 - 3.3) < 0.02 and abs(box[3] / 72 - 2.5) < 0.06


@pytest.fixture(scope='module')
def evaluations(tmp_path_factory):
    "What two runs of evaluate.ipynb leave, as far as figures need it."
    root = tmp_path_factory.mktemp('runs')
    for name, rows in dict(first=P, second=P.assign(score=.8 * P.score + .2 * P.label)).items():
        (root / name).mkdir()
        write_table(rows, root / name / 'predictions.parquet')
        write_json(root / name / 'metrics.json', lam_metrics(rows, .4))
        write_json(root / name / 'settings.json', dict(parameters={}, provenance={}))
    return root


def paper(**given):
    return pm.execute_notebook(ROOT / 'nbs/paper.ipynb', None, given, cwd=ROOT, progress_bar=False)


def test_figures_for_a_paper(evaluations, tmp_path):
    nb = paper(run=str(evaluations / 'first'), second=str(evaluations / 'second'), out_dir=str(tmp_path), width=3.)
    names = 'precision_recall roc calibration timeline runs by_hand'.split()
    assert {f.name for f in tmp_path.iterdir()} == {f'{name}.{ending}' for name in names for ending in ('pdf', 'svg', 'png')}
    assert sum('image/png' in o.get('data', {}) for c in nb.cells for o in c.get('outputs', [])) == len(names)
    svg = {name: (tmp_path / f'{name}.svg').read_text() for name in names}
    assert 'score ≥ 0.4' in svg['roc'] and 'first: AP' in svg['runs'] and 'second: AP' in svg['runs'] and 'Precision' in svg['by_hand']
    assert all("'DejaVu Serif'" in text for text in svg.values())


def test_a_wrong_folder_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(pm.PapermillExecutionError) as error: paper(run=str(tmp_path / 'nowhere'), out_dir=str(tmp_path / 'out'))
    assert 'nowhere: give the folder of a finished run of evaluate' in error.value.evalue and not (tmp_path / 'out').exists()
