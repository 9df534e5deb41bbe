"Reports: figures of one's own, their names, and texts that come from strangers."
import json
import re
from base64 import b64decode
from io import BytesIO

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lam_nb import figures
from lam_nb.reports import made_up_note, save_figure, save_listed, write_report
from lam_nb.runs import write_json

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


def of(*names):
    "The files of these figures."
    return sorted(f'{name}.{ending}' for name in names for ending in ('pdf', 'png', 'svg'))


def report(tmp_path, *sections, **given):
    "The page of a report, as text."
    return write_report(tmp_path / 'r.html', *HEADER, list(sections), **given).read_text()


def shown(html):
    "What a reader sees: the page without its head, titles and the bytes of images."
    return re.sub(r'<[^>]*>', ' ', html[html.index('</head>'):])


def test_a_figure_is_saved_and_embedded_like_its_png(tmp_path, fig):
    png = save_figure(fig, tmp_path / 'apart' / 'my_figure.png')
    given = write_report(tmp_path / 'a.html', *HEADER, [('My figure', 'Text.', (fig, 'Caption.'))]).read_text()
    as_png = write_report(tmp_path / 'b.html', *HEADER, [('My figure', 'Text.', (png, 'Caption.'))]).read_text()
    body = lambda html: html[html.index('<section>'):html.index('<footer>')]
    assert body(given) == body(as_png) and '<figcaption><b>Figure 1.</b> Caption.</figcaption>' in given
    assert files(tmp_path / 'figures') == of('my_figure')


@pytest.mark.parametrize('heading, name', [
    ('My figure', 'my_figure'), ('How sure?', 'how_sure'), ('../../etc/passwd', 'etc_passwd'), ('a/b\\c\0d', 'a_b_c_d'),
    ('', 'figure'), ('?!', 'figure'), ('Blickkontakt größer', 'blickkontakt_größer'), ('x' * 300, 'x' * 60)])
def test_names_stay_in_the_folder(tmp_path, fig, heading, name):
    write_report(tmp_path / 'r.html', *HEADER, [(heading, '', fig)])
    assert files(tmp_path / 'figures') == of(name)


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
    assert files(tmp_path / 'figures') == of('curve')


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


# Figures

def test_a_figure_is_kept_for_screens_and_for_papers(tmp_path, fig):
    "The PNG at 300 dots an inch; text is text in the SVG, and in the PDF glyphs of embedded TrueType fonts."
    png = save_figure(fig, tmp_path / 'curve.png')
    assert files(tmp_path) == of('curve') and round(Image.open(png).info['dpi'][0]) == 300
    pdf = png.with_suffix('.pdf').read_bytes()
    assert '<text' in png.with_suffix('.svg').read_text() and b'/FontFile2' in pdf and b'/Type3' not in pdf


def test_all_three_files_are_listed_as_the_runs_own(tmp_path, fig):
    write_json(tmp_path / '.files.json', dict(kind='train', files=[]))
    save_listed(fig, tmp_path, 'curve')
    assert json.loads((tmp_path / '.files.json').read_text())['files'] == [f'figures/curve.{e}' for e in ('png', 'svg', 'pdf')]
    (tmp_path / 'figures/mine.pdf').write_text('drawn by hand')
    with pytest.raises(FileExistsError): save_listed(fig, tmp_path, 'mine')


def test_figures_are_counted_through_the_report(tmp_path, fig):
    png = save_figure(fig, tmp_path / 'figures' / 'curve.png')
    html = report(tmp_path, ('One', '', png, pd.DataFrame({'a': [1]}), (fig, 'Of my own.')), ('Two', '', (png, '')))
    assert re.findall(r'<b>(Figure \d+\.)</b> ([^<]*)<', html) == [('Figure 1.', 'One'), ('Figure 2.', 'Of my own.'), ('Figure 3.', 'Two')]


def test_an_image_has_two_dots_for_each_of_the_page(tmp_path):
    "Three inches wide: sharp on any screen, and no larger than that."
    figure = Figure(figsize=(3, 2))
    figure.subplots().imshow(np.random.default_rng(0).random((60, 90)))
    html = report(tmp_path, ('Noise', '', figure))
    width = int(re.search(r'--w: (\d+)px', html)[1])
    image = Image.open(BytesIO(b64decode(re.search(r'base64,([^"]+)"', html)[1])))
    assert image.width == 2 * width and 250 < width < 330 and Image.open(tmp_path / 'figures/noise.png').width > 1.4 * image.width


def test_a_figure_opens_without_a_script(tmp_path, fig):
    "A checkbox that the keyboard reaches, and its label around the image."
    html = report(tmp_path, ('Curve', '', fig, fig))
    assert '<script' not in html and re.findall(r'<label for="(figure-\d)"[^>]*><img alt="([^"]+)"', html) == [
        ('figure-1', 'curve'), ('figure-2', 'curve 2')]
    assert re.findall(r'<input type="checkbox" class="zoom" id="(figure-\d)" aria-label="Figure \d', html) == ['figure-1', 'figure-2']
    assert '.zoom:checked + label' in html and 'display: none' not in html[html.index('.zoom {'):html.index('.zoom:focus')]


# Tables

UID = '2516ac85-e2eb-45e3-8cdb-31fe6899a08e'


@pytest.mark.parametrize('values, texts', [
    ([3567, 123456789012], ['3,567', '123,456,789,012']), ([1e-4, 1e-6], ['0.0001', '1e-6']),
    ([3e-4, -.5], ['0.000300', '-0.500000']), ([0., 0.], ['0', '0']),
    ([.25, 1.], ['0.2500', '1.0000']), ([1., 1.], ['1.0000', '1.0000']), ([2., None], ['2', '–']), ([44., 1500.], ['44', '1,500']),
    ([12345.678, .5], ['12,346', '0.5']), ([True, None], ['yes', '–']), ([None, .1 + .2], ['–', '0.3000']), (['x', .1 + .2], ['x', '0.3']),
    ([float('inf'), 1.5], ['inf', '1.5']), ([2 ** 60, -1], ['1,152,921,504,606,846,976', '-1'])])
def test_a_column_has_one_format(tmp_path, values, texts):
    for dtype in (object, None):
        html = report(tmp_path, ('Table', '', pd.DataFrame(dict(column=pd.Series(values, dtype=dtype)))))
        assert re.findall(r'<td[^>]*>([^<]*)</td>', html) == texts


def test_a_seed_is_a_name(tmp_path):
    assert '20260101' in shown(report(tmp_path, ('Seeds', '', pd.DataFrame({'seed': [20260101]}), {'seeds': [20260102]})))


def test_long_ids_are_short_and_whole_where_the_mouse_rests(tmp_path):
    commit, path = '91ed38a0c647' + 'a' * 28, f'/data/ego4d/v2/clips/{"long_" * 12}name.mp4'
    html = report(tmp_path, ('Table', '', pd.DataFrame({'id': [UID, f'{UID}, person 1', commit, path, f'{path} cannot be read', 'short']})))
    seen = re.findall(r'<td[^>]*>(?:<span title="[^"]*">)?([^<]*)<', html)
    assert seen[:3] == ['2516ac85…', '2516ac85…, person 1', '91ed38a0…'] and max(map(len, seen)) < 60 and seen[3].endswith('name.mp4')
    assert all(f'title="{whole}"' in html for whole in (UID, commit, path)) and seen[5] == 'short' and 'title="short"' not in html


@pytest.mark.parametrize('rows', [0, 1, 30, 31, 572])
def test_long_tables_are_folded(tmp_path, rows):
    html = report(tmp_path, ('Clips', '', pd.DataFrame({'clip_uid': [UID] * rows, 'faces': range(rows)})))
    assert ('<details>' in html) == (rows > 30) and html.count('<tr>') == rows + 1
    assert rows <= 30 or f'<summary>{rows} rows</summary>' in html
    print_style = html[html.index('@media print'):html.index('</style>')]
    assert 'details:has(.scroll)::details-content { content-visibility: visible }' in print_style and html.count('<thead>') == 1


def test_values_within_values_are_rows(tmp_path):
    about = dict(commit='0123abc', versions=dict(torch='2.15.0', numpy='2.4.6'), gpus=[], notes=['One sentence.', 'And two.'], flip=True,
                 lr=1e-4, decay=1e-6, mAP=.9888730405119, rows=3567, faces_dir=None, weights=[.136, .864])
    html = report(tmp_path, ('About', '', about))
    rows = dict(re.findall(r'<tr><td style="[^"]*">([^<]*)</td><td>(?:<span[^>]*>)?([^<]*)<', html))
    assert rows == dict(commit='0123abc', versions='', torch='2.15.0', numpy='2.4.6', gpus='–', notes='One sentence.\nAnd two.',
                        flip='true', lr='0.0001', decay='1e-6', mAP='0.988873', rows='3,567', faces_dir='–', weights='0.136, 0.864')
    assert 'title="0.9888730405119"' in html and '{' not in shown(html)


def test_a_long_list_is_folded(tmp_path):
    html = report(tmp_path, ('Settings', '', dict(clips=[f'clip_{i}' for i in range(572)])))
    assert '<summary>572 values</summary>' in html


def test_no_number_has_sixteen_digits(tmp_path):
    third = 1 / 3
    table = pd.DataFrame(dict(a=[third, 2.], b=['x', third], c=[third, None]))
    nested = dict(a=third, b=[third], c=dict(d=third, e=[[third]]), f=np.float64(third), g=(third,))
    assert not re.search(r'\d\.\d{7}', shown(report(tmp_path, ('Numbers', '', table, nested))))


# What stands at the top

def test_a_fact_can_be_explained_and_a_note_is_seen(tmp_path):
    facts = {'mAP': '0.5', 'other': ('0.6', '<why>')}
    html = write_report(tmp_path / 'r.html', 'A run', 'Lead.', facts, [], note='Not <real>.').read_text()
    assert '<small>&lt;why&gt;</small>' in html and html.count('<small>') == 1 and '<p class="note"><b>Not &lt;real&gt;.</b></p>' in html
    assert 'class="note"' not in report(tmp_path)


def test_the_samples_numbers_are_said_to_be_made_up(tmp_path):
    real, sample = tmp_path / 'real', tmp_path / 'sample'
    for folder in (real, sample): folder.mkdir()
    (sample / 'sample.json').write_text('{}')
    assert made_up_note(real) == made_up_note() == made_up_note(tmp_path / 'gone') == ''
    assert made_up_note(sample) == made_up_note(real, sample) == 'Made-up data (drawn heads): these numbers say nothing about Ego4D.'


def test_nothing_of_a_saved_figure_is_cut_off(tmp_path):
    "Letters have other widths with few dots an inch, for which a figure was once laid out."
    table = pd.DataFrame(dict(value=[.989, .98], low=[.742, .592], high=[.999, .998], note=''), index=['mAP', 'AP_looking'])
    with Image.open(save_figure(figures.intervals(table), tmp_path / 'intervals.png')) as image: pixels = np.asarray(image.convert('L'))
    edges = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
    assert all((edge == 255).all() for edge in edges) and pixels.min() < 100


def test_every_kind_of_image_can_be_saved(tmp_path):
    fig = Figure()
    fig.subplots().pcolorfast([0, 1, 3], [0, 1, 3], np.eye(2))                  # an image of its own kind
    fig.axes[0].imshow(np.eye(3), interpolation='bilinear')
    save_figure(fig, tmp_path / 'figure.png')
    assert fig.axes[0].images[-1].get_interpolation() == 'bilinear'
