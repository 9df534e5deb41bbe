"""The first hour in a real browser: what `make lab` opens, runs that are changed, stopped and continued there, and their reports.

`make test-browser` runs it on a copy of the project, with a sample of a few seconds. Its pictures stay in outputs/browser, for a look.
The tests follow each other as the hour does: each needs what the ones before it left.
"""
import os, re, secrets, shutil, socket, subprocess, sys
from pathlib import Path

import gates
import pytest
from conftest import ROOT, until

from lam_nb.sample import make_sample

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
if not CHROMIUM: pytest.skip('no chromium here (Debian: apt install chromium)', allow_module_level=True)
sync_api = pytest.importorskip('playwright.sync_api', reason='no playwright here: pip install -e ".[browser]"')
pytestmark = pytest.mark.browser
expect = sync_api.expect
expect.set_options(timeout=60_000)

PICTURES = ROOT / 'outputs/browser'
TINY = '"data/tiny"'
TOKEN = secrets.token_urlsafe()                      # nobody else may use this JupyterLab
ALLOWED = ()                                         # patterns of what a console may say, each with its reason


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A copy of the project, with a tiny sample in data/tiny."
    root = tmp_path_factory.mktemp('browser') / 'project'
    for path in gates.project_files():
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    make_sample(root / 'data/tiny', train_clips=2, val_clips=2, test_clips=1, seconds=1, progress=False)
    return root


@pytest.fixture(scope='module')
def lab(project, tmp_path_factory):
    "The address of a JupyterLab that was started as `make lab` does; it is dark when the browser is."
    own = tmp_path_factory.mktemp('jupyter')
    theme = own / 'config/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings'
    theme.parent.mkdir(parents=True)
    theme.write_text('{"adaptive-theme": true}')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    program, *given = re.search(r'(?m)^\t\$\(BIN\)/(jupyter-lab.*)', (ROOT / 'Makefile').read_text())[1].split()
    options = ['--no-browser', '--allow-root', f'--port={port}', '--ServerApp.port_retries=0', f'--IdentityProvider.token={TOKEN}']
    folders = {f'JUPYTER_{name.upper()}_DIR': str(own / name) for name in ('config', 'data', 'runtime')}
    env = {**os.environ, **folders, 'PYTHONPATH': str(project), 'JUPYTER_PREFER_ENV_PATH': '1', 'OMP_NUM_THREADS': '1'}
    log = own / 'log'
    with log.open('w') as file:
        command = [Path(sys.executable).parent / program, *given, *options]
        server = subprocess.Popen(command, cwd=project, env=env, stdout=file, stderr=file)
    try:
        until(lambda: 'is running at' in log.read_text() or server.poll() is not None, 60)
        assert server.poll() is None, log.read_text()
        yield f'http://127.0.0.1:{port}'
    finally:
        server.terminate()
        server.wait(30)
    assert 'without encryption' not in log.read_text()


@pytest.fixture(scope='module')
def chromium():
    "The system's browser, without a window."
    with sync_api.sync_playwright() as playwright:
        args = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield browser
        browser.close()


@pytest.fixture
def window(chromium):
    "A function that opens a window of 1280 x 800. In the end, no console may have shown an error."
    contexts, errors = [], []
    def opened(**options):
        context = chromium.new_context(viewport=dict(width=1280, height=800), **options)
        context.set_default_timeout(60_000)
        context.on('console', lambda m: m.type == 'error' and errors.append(f'{m.text} {m.location.get("url")}'))
        context.on('weberror', lambda e: errors.append(str(e.error)))
        contexts.append(context)
        return context.new_page()
    yield opened
    for context in contexts: context.close()
    assert not [text for text in errors if not any(re.search(known, text) for known in ALLOWED)]


def picture(page, name, **options):
    "Keeps a picture; the page must not be wider than its window."
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f'{name}.png', **options)
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth'), f'{name} is wider than its window'


def current_tab(page): return page.locator('.lm-DockPanel-tabBar .lm-TabBar-tab.lm-mod-current')


def open_notebook(page, lab, name):
    "Opens a run notebook and waits for its kernel, after which it still counts as unchanged."
    page.goto(f'{lab}/lab/tree/nbs/{name}.ipynb?reset&token={TOKEN}')
    expect(current_tab(page)).to_contain_text(f'{name}.ipynb')
    expect(page.get_by_text('Python 3 (ipykernel) | Idle')).to_be_visible()
    page.wait_for_timeout(1000)                      # what the kernel says of itself has come by then
    expect(current_tab(page)).not_to_have_class(re.compile('jp-mod-dirty'))
    expect(page.locator('.jp-Notebook .jp-Cell').first).to_contain_text(name.capitalize())


def set_parameters(page, **values):
    "Types new values into the cell of parameters."
    page.mouse.move(640, 450)
    for name, value in values.items():
        line = page.locator('.jp-CodeCell .cm-line').filter(has_text=re.compile(f'^{name} = '))
        for _ in range(20):                              # the editor holds only the lines that are near the window
            if line.count(): break
            page.mouse.wheel(0, 150)
            page.wait_for_timeout(100)
        line.click()
        page.keyboard.press('Home')
        page.keyboard.press('Shift+End')
        page.keyboard.insert_text(f'{name} = {value}')


def choose(page, menu, entry):
    "Chooses an entry of a menu."
    page.locator('.lm-MenuBar-item', has_text=menu).click()
    page.locator('.lm-Menu-item', has=page.get_by_text(entry, exact=True)).click()


def said(page):
    "The text of all outputs."
    return '\n'.join(page.locator('.jp-OutputArea-output').all_inner_texts())


def open_report(page, name):
    "Waits for the last cell, then opens the report by its link: in JupyterLab, beside the notebook."
    link = page.get_by_role('link', name='open the report')
    error = page.locator('[data-mime-type="application/vnd.jupyter.stderr"], [data-mime-type="application/vnd.jupyter.error"]')
    expect(link.or_(error).first).to_be_visible(timeout=180_000)
    assert not error.count(), said(page)
    link.scroll_into_view_if_needed()
    picture(page, f'{name}-last-cell')
    link.click()
    expect(current_tab(page)).to_contain_text('report.html')
    report = page.frame_locator('.jp-HTMLViewer iframe')
    expect(report.locator('h1')).to_be_visible()
    page.wait_for_timeout(500)
    assert report.locator('html').evaluate('page => page.scrollWidth <= page.clientWidth'), 'the report is wider than its tab'
    picture(page, f'{name}-report-in-lab')


def test_lab_shows_the_project_and_the_index(lab, window):
    page = window()
    page.goto(f'{lab}/?token={TOKEN}')
    expect(current_tab(page)).to_contain_text('index.ipynb')
    listed = page.locator('.jp-DirListing-itemText')
    for name in ('README.md', 'outputs', 'nbs'): expect(listed.get_by_text(name, exact=True)).to_be_visible()
    expect(page.get_by_text('Python 3 (ipykernel) | Idle')).to_be_visible()
    page.wait_for_timeout(1000)
    expect(current_tab(page)).not_to_have_class(re.compile('jp-mod-dirty'))
    picture(page, 'index')
    page.locator('.jp-Notebook').get_by_role('link', name='prepare', exact=False).first.click()
    expect(current_tab(page)).to_contain_text('prepare.ipynb')


def test_a_preparation_in_the_dark(lab, window):
    page = window(color_scheme='dark')
    open_notebook(page, lab, 'prepare')
    picture(page, 'prepare')
    set_parameters(page, data_dir=TINY, image_size=64, workers=1)
    choose(page, 'Run', 'Run All Cells')
    open_report(page, 'prepare')


def test_a_training_is_changed_stopped_and_continued(lab, window):
    page = window(device_scale_factor=2)
    open_notebook(page, lab, 'train')
    picture(page, 'train')
    set_parameters(page, data_dir=TINY, image_size=32, train_stride=1, epochs=4, batch_size=8, num_workers=0)
    choose(page, 'Run', 'Run All Cells')
    percent = page.locator('.jp-OutputArea-output b').filter(has_text=re.compile(r'^\d+%$'))
    expect(percent).to_have_text(re.compile('^[1-9]'))
    first = percent.inner_text()
    expect(percent).not_to_have_text(first)
    percent.scroll_into_view_if_needed()
    picture(page, 'train-runs')
    page.locator('[data-command="notebook:interrupt-kernel"]').first.click()
    where = r'( in epoch \d after batch \d+ of \d+, saved|; epoch \d(, trained and not validated,)? is kept)'   # or at an epoch's end
    line = re.compile(f'^stopped{where}: run this cell again to go on$')
    stopped = page.locator('.jp-OutputArea-output', has_text=line)
    expect(stopped).to_be_visible()
    assert 'Traceback' not in said(page)
    stopped.scroll_into_view_if_needed()
    picture(page, 'train-stopped')
    page.locator('.jp-CodeCell', has_text='train_seeds(settings)').locator('.jp-InputPrompt').click()
    choose(page, 'Run', 'Run Selected Cell and All Below')
    expect(page.get_by_text(re.compile(r'resumed in epoch \d after \d+ batches'))).to_be_visible()
    expect(percent).to_have_text('100%')
    percent.scroll_into_view_if_needed()
    picture(page, 'train-done')
    open_report(page, 'train')


def test_an_evaluation(lab, window):
    page = window()
    open_notebook(page, lab, 'evaluate')
    picture(page, 'evaluate')
    set_parameters(page, data_dir=TINY)
    choose(page, 'Run', 'Run All Cells')
    open_report(page, 'evaluate')


def test_a_comparison_in_the_dark(lab, project, window):
    shutil.copytree(project / 'outputs/evaluate', project / 'outputs/evaluate-flip')       # another one would take a minute
    page = window(color_scheme='dark')
    open_notebook(page, lab, 'compare')
    choose(page, 'Run', 'Run All Cells')
    open_report(page, 'compare')


@pytest.mark.parametrize('name', ['prepare', 'train', 'evaluate', 'compare'])
def test_a_report_fits_its_window(project, window, name):
    page = window()
    page.goto((project / f'outputs/{name}/report.html').as_uri())
    picture(page, f'{name}-report', full_page=True)
