"""What the pages tell a reader to type exists: targets, files, parameters; the contents list leads somewhere; CITATION.cff is in step."""
import ast
import configparser
import re
import shlex

import pytest
import yaml
from gates import ROOT

from lam_nb.command import checked_export, checked_run
from lam_nb.settings import COMMANDS, RUNS

PAGES = {name: (ROOT / name).read_text(encoding='utf-8') for name in ('README.md', 'CONTRIBUTING.md')}
README = PAGES['README.md']
WIDE = 100                                       # characters of a code line that GitHub shows without scrolling
KEPT_FOLDERS = ('nbs', 'benchmarks', 'scripts', 'tests', 'lam_nb')


def code_blocks(text: str) -> list[tuple[str, str]]:
    "Language and text of each fenced block."
    return re.findall(r'(?ms)^```(\w*)\n(.*?)^```$', text)


def commands(text: str) -> list[list[str]]:
    "Words of each command in the blocks of shell; lines that end with a backslash are joined, comments are left out."
    lines = '\n'.join(block for language, block in code_blocks(text) if language == 'sh').replace('\\\n', ' ').splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_lines(text: str) -> list[list[str]]:
    "What is given to `lam_nb` in each command, with the data's folder filled in; questions for help are left out."
    given = [words[1:] for words in commands(text) if words[0] == 'lam_nb' and '--help' not in words]
    return [[word.replace('$DATA', '/data/ego4d') for word in words] for words in given]


def anchor(heading: str) -> str:
    "The name that GitHub gives to a heading."
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def dead_anchors(text: str) -> list[str]:
    "Links within a page that no heading has."
    outside = re.sub(r'(?ms)^```.*?^```$', '', text)
    known = {anchor(h) for h in re.findall(r'(?m)^#+ (.+)$', outside)}
    return [a for a in re.findall(r'\]\(#([^)]+)\)', outside) if a not in known]


def dead_targets(text: str, makefile: str) -> list[str]:
    "Targets of make that a page names, as `make x` or in a block, and that the Makefile lacks."
    known = set(re.search(r'(?m)^\.PHONY: (.+)$', makefile)[1].split())
    shown = {words[1] for words in commands(text) if words[0] == 'make'} | set(re.findall(r'`make ([a-z-]+)[^`]*`', text))
    return sorted(shown - known)


def dead_files(text: str) -> list[str]:
    "Files of the project that commands or `code` in a page name, and that do not exist."
    spans = [span for span in re.findall(r'`([^`\n]+)`', text) if '<' not in span and '...' not in span and '*' not in span]
    words = [w for found in [*commands(text), *map(str.split, spans)] for w in found]
    files = {w for w in words if re.fullmatch(rf'(?:{"|".join(KEPT_FOLDERS)})/[\w./-]+\.(?:py|ipynb|yaml|sh|md)', w)}
    return sorted(f for f in files - {'tests/test_name.py'} if not (ROOT / f).exists())


@pytest.mark.parametrize('name', PAGES)
def test_links_within_a_page(name):
    assert dead_anchors(PAGES[name]) == []


@pytest.mark.parametrize('name', PAGES)
def test_targets_exist(name):
    assert dead_targets(PAGES[name], (ROOT / 'Makefile').read_text()) == []


@pytest.mark.parametrize('name', PAGES)
def test_files_exist(name):
    assert dead_files(PAGES[name]) == []


@pytest.mark.parametrize('given', run_lines(README), ids=' '.join)
def test_commands_of_the_readme_are_accepted(given, monkeypatch):
    monkeypatch.chdir(ROOT)
    if given[0] in COMMANDS: assert checked_export(given[1:])
    else: assert checked_run(given[0], given[1:])[0] == ROOT / f'nbs/{given[0]}.ipynb'


def test_the_whole_way_is_shown():
    runs = 'check prepare train evaluate compare ensemble video export study'
    assert {words[0] for words in run_lines(README)} == {*runs.split()}
    assert any('nbs/recipes/official.yaml' in words for words in run_lines(README))


@pytest.mark.parametrize('pair', sorted(set(re.findall(r'`((?:\w+=[^\s`]+ ?)+)`', README))))
def test_values_in_the_text_are_accepted(pair):
    values = [value.replace('$SLURM_ARRAY_TASK_ID', '3') for value in pair.split()]

    def fits(name):
        try: return bool(checked_run(name, values) if name in RUNS else checked_export(values))
        except ValueError: return False
    refused = pair == 'learning_rate=0.1'
    assert any(map(fits, RUNS | COMMANDS)) != refused, f'no run takes {pair}'


def test_code_of_the_readme_is_narrow_and_readable():
    shown = [(language, block) for language, block in code_blocks(README) if 'outputs/demo/prepare:' not in block]
    assert [line for _, block in shown for line in block.splitlines() if len(line) > WIDE] == []
    assert all(ast.parse(block) for language, block in shown if language == 'python')


def test_citation_is_in_step():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / 'settings.ini')
    settings, cited = parser['DEFAULT'], yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert cited['cff-version'] == '1.2.0' and {'message', 'title', 'authors'} <= set(cited)
    assert str(cited['version']) == settings['version'] and cited['license'] == settings['license'].upper()
    assert [a['name'] for a in cited['authors']] == [settings['author']] and cited['title'].startswith(settings['lib_name'])
    titles = [r['title'] for r in cited['references']]
    assert all(f'{{{title}}}' in README for title in titles) and any(title.startswith('Ego4D') for title in titles)


def test_checks_of_pages_can_fail():
    page = '# A b, c\n[x](#a-b-c) [y](#gone) `benchmarks/gone.py` `make demo`\n'
    page += '```sh\nmake nothing   # so\nlam_nb train \\\n  epoch=5\n```\n'
    assert dead_anchors(page) == ['gone'] and dead_files(page) == ['benchmarks/gone.py']
    assert dead_targets(page, '.PHONY: demo\n') == ['nothing'] and run_lines(page) == [['train', 'epoch=5']]
    with pytest.raises(ValueError, match='epochs'): checked_run('train', ['epoch=5'])
