"Reports: figures of one's own, their names, and texts that come from strangers."
import re

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lam_nb.reports import save_figure, write_report

HEADER = ('A run', 'A sentence.', {'mAP': '0.5'})


@pytest.fixture(autouse=True)
def defaults():
    "matplotlib's own style: another test may have set ours, whose constrained layout moves a little between two drawings."
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@pytest.fixture
def fig():
    with matplotlib.rc_context({'figure.dpi': 50}):
        made = Figure(figsize=(1, 1))
        made.subplots().plot([1, 2])
    return made


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_figure_is_saved_and_embedded_like_its_png(tmp_path, fig):
    png = save_figure(fig, tmp_path / 'apart' / 'my_figure.png')
    given = write_report(tmp_path / 'a.html', *HEADER, [('My figure', 'Text.', (fig, 'Caption.'))]).read_text()
    as_png = write_report(tmp_path / 'b.html', *HEADER, [('My figure', 'Text.', (png, 'Caption.'))]).read_text()
    body = lambda html: html[html.index('<section>'):html.index('<footer>')]
    assert body(given) == body(as_png) and '<figcaption>Caption.</figcaption>' in given
    assert files(tmp_path / 'figures') == ['my_figure.png', 'my_figure.svg']


@pytest.mark.parametrize('heading, name', [
    ('My figure', 'my_figure'), ('How sure?', 'how_sure'), ('../../etc/passwd', 'etc_passwd'), ('a/b\\c\0d', 'a_b_c_d'),
    ('', 'figure'), ('?!', 'figure'), ('Blickkontakt größer', 'blickkontakt_größer'), ('x' * 300, 'x' * 60)])
def test_names_stay_in_the_folder(tmp_path, fig, heading, name):
    write_report(tmp_path / 'r.html', *HEADER, [(heading, '', fig)])
    assert files(tmp_path / 'figures') == [f'{name}.png', f'{name}.svg']


def test_no_figure_takes_the_name_of_another(tmp_path, fig):
    "Neither of a figure of the report nor of a PNG that it embeds."
    png = save_figure(fig, tmp_path / 'figures' / 'curve.png')
    before = png.read_bytes()
    sections = [('Curve', '', png, fig, (fig, 'again')), ('Curve', '', fig)]
    html = write_report(tmp_path / 'r.html', *HEADER, sections).read_text()
    assert [f'curve{n}.png' for n in ('', '_2', '_3', '_4')] == [n for n in files(tmp_path / 'figures') if n.endswith('png')]
    assert re.findall(r'alt="([^"]*)"', html) == ['curve', 'curve 2', 'curve 3', 'curve 4'] and png.read_bytes() == before
    assert sections[0][2] is png and sections[0][3] is fig                      # the caller's list is as it was


def test_a_second_report_replaces_the_figures_of_the_first(tmp_path, fig):
    for _ in range(2): write_report(tmp_path / 'r.html', *HEADER, [('Curve', '', fig)])
    assert files(tmp_path / 'figures') == ['curve.png', 'curve.svg']


def test_without_a_figure_no_folder_is_made(tmp_path):
    write_report(tmp_path / 'r.html', *HEADER, [('Numbers', '', pd.DataFrame({'a': [1]}))])
    assert files(tmp_path) == ['r.html']


def test_all_texts_are_escaped(tmp_path):
    bad = '<script>'
    table, values = pd.DataFrame({bad: [bad, None]}), {bad: bad, 'list': [bad]}
    html = write_report(tmp_path / 'r.html', bad, bad, {bad: bad}, [(bad, bad, bad, table, (table, bad), values)]).read_text()
    assert bad not in html and html.count('&lt;script&gt;') == 16


def test_the_page_says_who_wrote_it(tmp_path):
    html = write_report(tmp_path / 'r.html', *HEADER, []).read_text()
    assert re.search(r'<meta name="generator" content="lam_nb [\d.]+', html) and re.search(r'<footer>lam_nb [\d.]+, commit', html)


@pytest.mark.parametrize('item', [[1, 2], 3, None, ('text', 'caption', 'more'), ([1], 'caption')])
def test_other_items_are_refused_before_anything_is_written(tmp_path, item):
    with pytest.raises(TypeError): write_report(tmp_path / 'r.html', *HEADER, [('Heading', '', item)])
    assert files(tmp_path) == []
