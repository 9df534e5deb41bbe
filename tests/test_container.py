"""The Dockerfile, checked without building it: linted, in step with the Makefile.

`make test-container` runs its commands in a clean folder.
"""
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TEXT = (ROOT / 'Dockerfile').read_text()
MAKEFILE = (ROOT / 'Makefile').read_text()
HADOLINT = Path(sys.executable).with_name('hadolint')


def instructions(text: str) -> list[tuple[str, str]]:
    "Name and arguments of each instruction of a Dockerfile; lines that end with a backslash are joined, comments left out."
    lines = re.sub(r'\\\n', ' ', re.sub(r'(?m)^\s*#.*\n', '', text)).splitlines()
    return [tuple(re.sub(r'\s+', ' ', line).strip().split(' ', 1)) for line in lines if line.strip()]


def arguments(name: str, text: str = TEXT) -> list[str]:
    return [rest for found, rest in instructions(text) if found == name]


def copied(text: str) -> list[str]:
    "What of the project a Dockerfile copies."
    return [source for rest in arguments('COPY', text) for source in rest.split()[:-1]]


def lint(text: str) -> list[str]:
    "Codes of what hadolint complains of."
    command = shutil.which('hadolint') or HADOLINT
    done = subprocess.run([command, '--no-color', '-'], input=text, capture_output=True, text=True)
    return re.findall(r'\b((?:DL|SC)\d+)\b', done.stdout + done.stderr)


def test_hadolint_has_no_complaint():
    assert lint(TEXT) == []


@pytest.mark.parametrize('old, new, code', [
    ('python:3.12-slim', 'python', 'DL3006'), ('apt-get update', 'sudo apt-get update', 'DL3004'),
    ('["lam_nb"]', 'lam_nb', 'DL3025'), ('\nUSER 1000:1000', '\nUSER root', 'DL3002'), (' -- ', '', None)])
def test_hadolint_can_complain(old, new, code):
    found = lint(TEXT.replace(old, new))
    assert (code in found) if code else found == []


def installs(text: str) -> list[str]:
    "The installations by uv in their order, without what differs between a container and .venv."
    found = re.findall(r'(?:\bpip install --quiet[\w -]* (uv==\S+)|\buv pip install (.+?))(?= &&|\n|$)', re.sub(r'\s*\\\n\s*', ' ', text))
    own = r'--python \S+ |--no-cache |--quiet |--disable-pip-version-check '
    return [uv or re.sub(own, '', rest) for uv, rest in found]


def test_it_installs_what_make_env_installs():
    version = re.search(r'(?m)^UV_VERSION := (\S+)$', MAKEFILE)[1]
    recipe = MAKEFILE[MAKEFILE.index('\n$(UV):'):MAKEFILE.index('\n# run(')].replace('$(UV_VERSION)', version)
    assert installs(TEXT) == installs(recipe) and len(installs(TEXT)) == 3
    assert all('-m lam_nb.kernel' in text for text in (TEXT, recipe))
    assert installs(TEXT.replace('--require-hashes ', '')) != installs(recipe)


def test_it_has_a_python_of_the_project_and_no_rights():
    python, = arguments('FROM')
    named = re.search(r'(?m)version_info\[:2\] not in (\[.+?\])', MAKEFILE)[1]
    assert str(tuple(map(int, re.fullmatch(r'python:(\d+\.\d+)-slim', python)[1].split('.')))) in named
    order = [name for name, _ in instructions(TEXT)]
    assert arguments('USER') == ['1000:1000'] and order.index('USER') > max(i for i, name in enumerate(order) if name in ('RUN', 'COPY'))
    assert not {'ADD', 'ARG', 'VOLUME'} & set(order) and not re.search(r'(?i)secret|token|password|_key\b', TEXT)


def ignored(name: str, text: str) -> bool:
    "Whether a .dockerignore leaves a file or folder at the top out: the last line that fits decides."
    rules = [line for line in text.splitlines() if line and not line.startswith('#')]
    fitting = [rule for rule in rules if fnmatch.fnmatch(name, rule.removeprefix('!'))]
    return bool(fitting) and not fitting[-1].startswith('!')


def test_only_what_is_copied_is_sent():
    text, sources = (ROOT / '.dockerignore').read_text(), copied(TEXT)
    assert sources and all((ROOT / source).exists() for source in sources)
    assert {path.name for path in ROOT.iterdir() if not ignored(path.name, text)} == set(sources)
    assert not {'.git', '.venv', 'data', 'outputs'} & set(sources)
    assert ignored('data', '*\n!nbs') and not ignored('nbs', '*\n!nbs') and not ignored('data', '# none')


def in_a_folder(text: str, folder: Path) -> tuple[list[str], dict]:
    "The commands of a Dockerfile and its variables, for `folder` instead of the container's own; what needs root is left out."
    def there(words): return words.replace('/opt/venv', f'{folder}/venv').replace('$PATH', os.environ['PATH'])
    runs = [there(rest) for rest in arguments('RUN', text) if not rest.startswith('apt-get')]
    pairs = [pair.split('=', 1) for rest in arguments('ENV', text) for pair in there(rest).split()]
    return runs, {name: value for name, value in pairs if name != 'HOME'}           # one's own: settings and caches of pip and uv


def test_the_commands_that_are_tried():
    runs, variables = in_a_folder(TEXT, Path('/x'))
    assert len(runs) == 2 and runs[0].startswith('python -m venv /x/venv && ') and variables['PATH'].startswith('/x/venv/bin:')
    assert 'apt-get' not in ''.join(runs) and 'HOME' not in variables


@pytest.mark.container
def test_the_commands_in_a_clean_folder(tmp_path):
    "As in the container: only what is copied is there. 6 GB and some minutes; uv takes what it has kept."
    work = tmp_path / 'lam_nb'
    work.mkdir()
    for source in copied(TEXT):
        one = ROOT / source
        if one.is_dir(): shutil.copytree(one, work / source, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
        else: shutil.copy(one, work / source)
    runs, variables = in_a_folder(TEXT, tmp_path)
    kept = {k: v for k, v in os.environ.items() if not re.match(r'PYTHON|VIRTUAL_ENV|JUPYTER|PATH$', k)}

    def said(command):
        done = subprocess.run(['sh', '-ec', command], cwd=work, env=kept | variables, text=True, capture_output=True)
        assert not done.returncode, f'{command}\n{done.stdout}{done.stderr}'
        return done.stdout
    for command in runs: said(command.replace('--no-cache ', ''))
    sample = "make_sample('data/quick', train_clips=1, val_clips=1, test_clips=1, seconds=1, progress=False)"
    said(f'python -c "from lam_nb import make_sample; {sample}"')
    assert 'prepare' in said('lam_nb --help')
    said('lam_nb prepare data_dir=data/quick out_dir=outputs/prepare workers=1')
    assert (work / 'outputs/prepare/report.html').is_file() and (work / 'data/quick/faces').is_dir()
