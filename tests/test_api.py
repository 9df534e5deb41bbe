"""`from lam_nb import ...`: the names and their table, what importing them loads, their page, the types, the rendered pages."""
import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from house_rules import read_notebook
from test_imports import heavy, loaded

import lam_nb

SOURCE = ast.parse((ROOT / 'lam_nb/__init__.py').read_text())
PAGE = read_notebook(ROOT / 'nbs/api.ipynb')


def for_checkers(tree: ast.Module) -> dict[str, str]:
    "Name -> module of what a type checker sees: the imports under TYPE_CHECKING, each `as` itself."
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == 'TYPE_CHECKING')
    return {a.name: n.module for n in block.body for a in n.names if a.asname == a.name}


def test_checkers_see_what_there_is():
    assert for_checkers(SOURCE) == lam_nb._MODULES and list(lam_nb._MODULES) == lam_nb.__all__
    other = ast.parse('if TYPE_CHECKING:\n    from .a import b as b, c\nelse: pass')
    assert for_checkers(other) == {'b': 'a'}


@pytest.mark.parametrize('name', lam_nb.__all__)
def test_a_name_is_that_of_its_module(name):
    module = __import__(f'lam_nb.{lam_nb._MODULES[name]}', fromlist=[name])
    assert getattr(lam_nb, name) is getattr(module, name) and name in dir(lam_nb) and name in module.__all__


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="'load_face'.*load_faces"): lam_nb.load_face
    with pytest.raises(ImportError, match='load_face'): exec('from lam_nb import load_face')
    assert not hasattr(lam_nb, '__path_of_nothing__')


def test_a_module_can_still_be_imported():
    code = 'from lam_nb import text_files; import lam_nb.runs; from lam_nb import *; print(text_files.__name__, predict.__name__)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['lam_nb.text_files', 'predict']


LIGHT = [n for n in lam_nb.__all__ if n not in ('train', 'load_model', 'predict')]


def test_ten_names_need_no_torch():
    loads = '; '.join(f'from lam_nb import {name}' for name in LIGHT)
    assert heavy(loaded(f'lam_nb; {loads}'), {'torch', 'torchvision', 'matplotlib', 'sklearn'}) == set()


def test_torch_comes_with_a_name_that_needs_it():
    assert 'torch' in heavy(loaded('lam_nb; from lam_nb import predict'))


# The page

def on_the_page(page, name: str) -> list[str]:
    "What its part of the page lacks: a heading, an example with a stored output, an assertion."
    heads = [i for i, c in enumerate(page.cells) if c.kind == 'markdown' and re.search(rf'(?m)^### .*\b{name}\b', c.source)]
    if not heads: return [f'{name} has no heading']
    after = page.cells[heads[0] + 1:heads[0] + 3]
    shown = any(c.outputs and c.uses(name) for c in after)
    return [] if shown and after[-1].asserts else [f'{name} has no example with its output and an assertion']


@pytest.mark.parametrize('name', lam_nb.__all__)
def test_each_name_is_on_the_page(name):
    assert on_the_page(PAGE, name) == []


def test_a_name_that_is_not_on_the_page_is_noticed():
    assert on_the_page(PAGE, 'compare_by_clip') and on_the_page(PAGE, 'write_official')


# Types

USES = [                                            # a line of a program that uses the package, what mypy says of it
    ("load_faces('data', 'val')[0].label", ''),
    ("load_faces('data', 3)", 'incompatible type "int"; expected "str"'),
    ("lam_nb.load_face", 'Module has no attribute "load_face"'),
    ("load_model('a')[0].window + 1", ''),
    ("load_model(3)", 'incompatible type "int"; expected "str | Path"'),
    ("PrepareSettings(image_size=64, workers=1)", ''),
    ("PrepareSettings(image_sise=64)", 'Unexpected keyword argument "image_sise"')]


def mypy(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-m', 'mypy', *arguments], cwd=ROOT, capture_output=True, text=True)


def test_types_are_seen_and_checked(tmp_path):
    program = tmp_path / 'program.py'
    program.write_text('\n'.join(['import lam_nb; from lam_nb import *', *(use for use, _ in USES)]))
    said = [line for line in mypy(str(program)).stdout.splitlines() if 'program.py:' in line and ': note:' not in line]
    for number, (use, words) in enumerate(USES, 2):
        of_it = [line for line in said if f'program.py:{number}:' in line]
        assert bool(of_it) == bool(words) and all(words in line for line in of_it), (use, said)


def test_a_fault_in_a_module_is_found(tmp_path):
    "The package with one wrong line."
    name, wrong = 'lam_nb/text_files.py', tmp_path / 'text_files.py'
    wrong.write_text((ROOT / name).read_text() + '\ndef _fault(n: int) -> str: return n + 1\n')
    done = mypy('--shadow-file', name, str(wrong), name)
    assert done.returncode == 1 and 'Incompatible return value type (got "int", expected "str")' in done.stdout


# The rendered pages

def test_pages_show_what_stands_beside_parameters(tmp_path):
    done = subprocess.run([sys.executable, 'scripts/api_pages.py', str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode and 'Warn' not in done.stderr, done.stderr
    modules = {p.stem for p in (ROOT / 'lam_nb').glob('*.py')} - {'__init__', '__main__', '_modidx'}
    assert {p.stem for p in (tmp_path / 'lam_nb').glob('*.html')} == modules
    page = (tmp_path / 'lam_nb.html').read_text()
    assert [name for name in lam_nb.__all__ if f'<section id="{name}">' not in page] == []
    assert [m for m in modules if f'href="lam_nb/{m}.html"' not in page] == []
    texts = {'load_faces': 'longest gap to fill, in missing frames', 'PrepareSettings': 'side of the stored faces, pixels',
             'ClipFaces': '(size, size, 3) uint8, RGB', 'train': 'the best epoch'}
    assert [name for name, text in texts.items() if text not in page] == []
    assert '&lt;data_dir' in page and '<data_dir' not in page
