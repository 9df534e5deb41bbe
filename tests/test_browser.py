"""The first hour in a real browser: what `make lab` opens, a training that is changed, stopped and continued, and the reports.

`make test-browser` runs it, on a copy of the project with tiny data. The pictures stay in outputs/browser, for a look.
"""
import json, os, re, shutil, socket, subprocess, sys, time
from pathlib import Path

import gates
import pytest
from conftest import ROOT, until
from test_packaging import MAKEFILE

from lam_nb.preparation import PrepareSettings, prepare_faces, split_faces
from lam_nb.sample import make_sample

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = pytest.mark.browser
if not CHROMIUM: pytest.skip('no chromium here (Debian, Ubuntu: apt install chromium)', allow_module_level=True)
sync_api = pytest.importorskip('playwright.sync_api', reason='no playwright here: pip install -e ".[browser]"')
expect = sync_api.expect
expect.set_options(timeout=30_000)

PICTURES = ROOT / 'outputs/browser'
WIDE = dict(viewport=dict(width=1280, height=800))
TAB = '.lm-TabBar-tab.lm-mod-current.jp-mod-current, .lm-DockPanel-tabBar .lm-TabBar-tab.lm-mod-current'
# What the console may say, and why.
ALLOWED = {}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A copy of the project, with a tiny sample where the run notebooks look for one."
    root = tmp_path_factory.mktemp('browser') / 'project'
    for path in gates.project_files():
        (copy := root / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    data = make_sample(root / 'data/sample', train_clips=2, val_clips=2, test_clips=1, seconds=2, progress=False)
    settings = PrepareSettings(image_size=64, workers=1)
    prepare_faces({s: split_faces(data, s, settings)[0] for s in ('train', 'val')}, data, data / 'faces', settings)
    return root


@pytest.fixture(scope='module')
def lab(project, tmp_path_factory):
    "The address of a JupyterLab started by the command of `make lab`, with settings of its own."
    own = tmp_path_factory.mktemp('jupyter')
    theme = own / 'config/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings'
    theme.parent.mkdir(parents=True)
    theme.write_text('{"adaptive-theme": true}')                       # dark when the browser is
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    command = re.search(r'(?m)^\t\$\(BIN\)/(jupyter-lab.*)', MAKEFILE)[1].split()
    options = ['--no-browser', '--allow-root', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=secret']
    folders = {f'JUPYTER_{name.upper()}_DIR': str(own / name) for name in ('config', 'data', 'runtime')}
    env = {**os.environ, **folders, 'PYTHONPATH': str(project), 'PYTHONNOUSERSITE': '1', 'JUPYTER_PREFER_ENV_PATH': '1', 'OMP_NUM_THREADS': '1'}
    log = own / 'lab.log'
    with log.open('w') as file:
        server = subprocess.Popen([Path(sys.executable).parent / command[0], *command[1:], *options], cwd=project, env=env, stdout=file, stderr=file)
    try:
        assert until(lambda: 'is running at' in log.read_text() or server.poll() is not None, 60) and server.poll() is None, log.read_text()
        yield f'http://127.0.0.1:{port}'
    finally:
        server.terminate()
        server.wait(20)
    assert 'encryption' not in log.read_text(), 'kernels say that they talk in plain text'


@pytest.fixture(scope='module')
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    "A function that opens a new browser window; at the end, no console of one may have shown an error."
    said, contexts = [], []
    def window(**options):
        contexts.append(chromium.new_context(**WIDE | options))
        contexts[-1].on('console', lambda m: m.type == 'error' and said.append(f'{m.text} ({m.location.get("url")})'))
        contexts[-1].on('weberror', lambda e: said.append(str(e.error)))
        contexts[-1].set_default_timeout(60_000)
        return contexts[-1].new_page()
    yield window
    for context in contexts: context.close()
    assert not [text for text in said if not any(re.search(known, text) for known in ALLOWED)], said


def picture(page, name, **options):
    "Keeps a picture of the page; it must not be wider than the window."
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f'{name}.png', **options)
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth'), f'{name} is wider than the window'


def open_notebook(page, lab, name):
    "Opens a notebook of nbs/ in JupyterLab, its kernel ready; it counts as not changed."
    page.goto(f'{lab}/lab/tree/nbs/{name}.ipynb?reset&token=secret')
    tab = page.locator('.lm-DockPanel-tabBar .lm-TabBar-tab.lm-mod-current')
    expect(tab).to_contain_text(f'{name}.ipynb')
    expect(page.get_by_text('Python 3 (ipykernel) | Idle')).to_be_visible()
    page.wait_for_timeout(1000)                                        # what the kernel says of itself has come by then
    expect(tab).not_to_have_class(re.compile('jp-mod-dirty'))


def set_parameter(page, name, value):
    "Types a new value into the cell of parameters."
    line = page.locator('.jp-CodeCell .cm-line').filter(has_text=re.compile(rf'^{name} = '))
    line.click()
    page.keyboard.press('Home')
    page.keyboard.press('Shift+End')
    page.keyboard.insert_text(f'{name} = {value}')


def menu(page, *names):
    "Chooses an entry of a menu."
    page.locator('.lm-MenuBar-item', has_text=names[0]).click()
    for name in names[1:]: page.locator('.lm-Menu-item', has=page.get_by_text(name, exact=True)).last.click()


def outputs(page):
    "The text of all outputs that are there."
    return '\n'.join(page.locator('.jp-OutputArea-output').all_inner_texts())


def test_lab_opens_the_index_beside_the_projects_files(lab, opened):
    page = opened()
    page.goto(f'{lab}/?token=secret')
    expect(page.locator('.lm-DockPanel-tabBar .lm-TabBar-tab.lm-mod-current')).to_contain_text('index.ipynb')
    for name in ('README.md', 'outputs', 'nbs'): expect(page.locator('.jp-DirListing-itemText', has_text=name).first).to_be_visible()
    expect(page.get_by_role('heading', name='Begin here')).to_be_visible()
    page.wait_for_timeout(2000)
    assert not page.locator('.lm-DockPanel-tabBar .jp-mod-dirty').count()
    picture(page, 'index')


@pytest.mark.parametrize('name', ['prepare', 'train', 'evaluate', 'compare'])
def test_a_run_notebook_opens_with_its_title_and_unchanged(lab, opened, name):
    page = opened(color_scheme='dark' if name == 'train' else 'light')
    open_notebook(page, lab, name)
    expect(page.locator('.jp-Notebook .jp-Cell').first).to_contain_text(name.capitalize())
    picture(page, f'{name}-opened')


def test_a_training_is_changed_stopped_and_continued(lab, opened, project):
    page = opened(device_scale_factor=2)
    open_notebook(page, lab, 'train')
    for name, value in dict(image_size=32, train_stride=2, epochs=3, batch_size=8, num_workers=0).items(): set_parameter(page, name, value)
    menu(page, 'Run', 'Run All Cells')
    bar = page.locator('.jp-OutputArea-output b').filter(has_text=re.compile(r'^\d+%$'))
    expect(bar).to_have_text(re.compile('^[1-9]'))
    first = bar.inner_text()
    expect(bar).not_to_have_text(first)
    bar.scroll_into_view_if_needed()
    picture(page, 'training')
    page.locator('[data-command="notebook:interrupt-kernel"]').first.click()
    stopped = page.locator('.jp-OutputArea-output', has_text=re.compile(r'^stopped in epoch \d after batch \d+ of \d+, saved: run this cell again to go on$'))
    expect(stopped).to_be_visible()
    assert 'Traceback' not in outputs(page)
    stopped.scroll_into_view_if_needed()
    picture(page, 'stopped')
    page.locator('.jp-CodeCell', has_text='train_seeds(settings)').last.locator('.jp-InputPrompt').click()
    menu(page, 'Run', 'Run Selected Cell and All Below')
    link = page.get_by_role('link', name='open the report')
    expect(link).to_be_visible(timeout=120_000)
    for word in ('stopped in', 'Error'): assert word not in outputs(page)
    bar.scroll_into_view_if_needed()
    picture(page, 'trained')
    link.scroll_into_view_if_needed()
    picture(page, 'last-cell')
    link.click()
    page.wait_for_timeout(3000)
    picture(page, 'report-in-lab')
    print(page.context.pages, page.url)
