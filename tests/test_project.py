"""The project as a whole: house rules of the notebooks, recipes, generated modules, leftovers.

Each rule is also shown to fail on a made-up offender.
"""
import ast
import base64
import importlib
import re
import runpy
import statistics
from pathlib import Path

import gates
import house_rules as rules
import nbformat
import papermill
import pytest
from gates import ROOT
from house_rules import Cell, Notebook
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = {p.name: rules.read_notebook(p) for p in sorted((ROOT / 'nbs').glob('*.ipynb'))}
LIBRARY = [n for n, nb in NOTEBOOKS.items() if nb.number is not None]
RUNS = [n for n, nb in NOTEBOOKS.items() if nb.number is None and n not in ('index.ipynb', 'api.ipynb')]
NUMBERS = {NOTEBOOKS[n].module: NOTEBOOKS[n].number for n in LIBRARY}
RECIPES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / 'nbs/recipes').rglob('*.y*ml'))
MODULES = sorted(p.name for p in (ROOT / 'lam_nb').glob('*.py'))

# What every version of the run notebooks takes: names stay, more may be added.
CONTRACT = {
    'prepare.ipynb': 'data_dir faces_dir out_dir splits source image_format image_size frame_offset workers clips',
    'train.ipynb': 'data_dir faces_dir out_dir model checkpoint epochs batch_size lr weights train_stride val_stride num_workers '
                   'num_processes precision seed resume',
    'evaluate.ipynb': 'data_dir faces_dir out_dir checkpoint split stride batch_size num_workers num_processes precision smoothing flip'}


def ok(complaints: list[str]) -> None:
    "Fail with one complaint a line."
    if complaints:
        pytest.fail('\n'.join(complaints), pytrace=False)


# The notebooks

EVERYWHERE = [rules.opening, rules.cell_ids, rules.kernel, rules.language, rules.imports_alone, rules.function_size, rules.output_size,
              rules.line_width, rules.words, rules.links]
LIBRARY_ONLY = [rules.prose, rules.cell_size, rules.chapter_size, rules.examples, rules.failing_use, rules.docments]


@pytest.mark.parametrize('rule', EVERYWHERE, ids=lambda r: r.__name__)
@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook(name, rule):
    ok(rule(NOTEBOOKS[name]))


@pytest.mark.parametrize('rule', LIBRARY_ONLY, ids=lambda r: r.__name__)
@pytest.mark.parametrize('name', LIBRARY)
def test_library_notebook(name, rule):
    ok(rule(NOTEBOOKS[name]))


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_import_order(name):
    ok(rules.import_order(NOTEBOOKS[name], NUMBERS))


def test_numbers_are_unique():
    numbers = [NOTEBOOKS[n].number for n in LIBRARY]
    assert sorted(set(numbers)) == sorted(numbers), 'two library notebooks share a number'


@pytest.mark.parametrize('name', RUNS)
def test_run_notebook(name):
    nb = NOTEBOOKS[name]
    ok(rules.run_notebook(nb) + rules.thin(nb) + rules.parameter_cell(nb, papermill.inspect_notebook(str(nb.path))))


def double_names(exported: dict[str, list[str]]) -> list[str]:
    "A complaint for each public name that several modules export: one imports the wrong one and does not see it."
    owners = {}
    for module, names in exported.items():
        for name in names:
            owners.setdefault(name, []).append(module)
    return [f'{name} is public in {" and ".join(modules)}: rename one' for name, modules in owners.items() if len(modules) > 1]


def test_a_public_name_belongs_to_one_module():
    modules = {NOTEBOOKS[n].module: importlib.import_module(f'lam_nb.{NOTEBOOKS[n].module}').__all__ for n in LIBRARY}
    assert len(modules) > 20
    ok(double_names(modules))


def test_double_names_are_found():
    assert double_names(dict(a=['one', 'two'], b=['two'], c=['three'])) == ['two is public in a and b: rename one']


def test_library_as_a_whole():
    library = [NOTEBOOKS[n] for n in LIBRARY]
    lengths = rules.function_lengths(library)
    assert rules.asserting(library) >= 0.85, f'{rules.asserting(library):.2f} asserting cells per exported cell, at least 0.85'
    assert statistics.median(lengths) <= 8, f'half of the functions have more than {statistics.median(lengths)} lines, at most 8'


def test_index_is_prose_and_names_every_notebook():
    index = NOTEBOOKS['index.ipynb']
    assert {c.kind for c in index.cells} == {'markdown'}, 'the index holds no code to run'
    text = '\n'.join(c.source for c in index.cells)
    ok([f'the index has no link to {n}' for n in [*LIBRARY, *RUNS, 'api.ipynb'] if f']({n})' not in text])


def test_lists_of_chapters_are_in_step():
    wanted = runpy.run_path(str(ROOT / 'scripts/chapters.py'))['wanted']()
    ok([f'{p.relative_to(ROOT)}: run python scripts/chapters.py' for p, text in wanted.items() if p.read_text(encoding='utf-8') != text])


def test_each_chapter_ends_with_a_link_to_the_next():
    for name, following in zip(LIBRARY, [*LIBRARY[1:], 'index.ipynb']):
        last = NOTEBOOKS[name].cells[-1]
        assert last.kind == 'markdown' and f']({following})' in last.source, f'{name} does not end with a link to {following}'


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'benchmarks/README.md'])
def test_links_and_words_of_a_page(name):
    text = (ROOT / name).read_text()
    prose = rules.texts(Cell('page', 'markdown', text))
    ok(rules.broken_links(text, (ROOT / name).parent) + [hit for part in prose for hit in rules.house_words(part)])


@pytest.mark.parametrize('name', CONTRACT)
def test_contract_parameters(name):
    assert name in NOTEBOOKS, f'nbs/{name} is missing'
    missing = [p for p in CONTRACT[name].split() if p not in papermill.inspect_notebook(str(ROOT / 'nbs' / name))]
    assert not missing, f'parameters of the contract are missing: {missing}'


@pytest.mark.parametrize('path', RECIPES)
def test_recipe(path):
    text = (ROOT / path).read_text()
    notebook = rules.recipe_notebook(text, path)
    assert notebook, f"the header must show the command: # papermill nbs/<notebook>.ipynb <output> -f {path}"
    assert f'{notebook}.ipynb' in RUNS, f'nbs/{notebook}.ipynb is no run notebook'
    ok(rules.recipe(text, rules.parameter_values(NOTEBOOKS[f'{notebook}.ipynb'])))


# The modules and everything else

@pytest.mark.parametrize('gate', gates.GATES)
def test_gate(gate):
    ok(gates.GATES[gate]())


@pytest.mark.parametrize('name', MODULES)
def test_no_risky_code(name):
    ok(rules.risky_code(ast.parse((ROOT / 'lam_nb' / name).read_text())))


def test_no_paths_of_a_machine():
    here = tuple(str(p) for p in (ROOT, Path.home()) if len(p.parts) > 2)
    texts = {p.relative_to(ROOT): gates.text_of(p) for p in gates.project_files() if p != Path(__file__)}
    ok([f'{name} {hit}' for name, text in texts.items() if text for hit in rules.machine_paths(text, here)])


def test_notebook_files_are_small():
    ok([f'{n}: {size // 1000} KB, at most 400' for n, nb in NOTEBOOKS.items() if (size := nb.path.stat().st_size) > 400_000])


# The rules can fail: each offender is caught by its rule, and its mended form is not

def md(text, id='text'):
    return Cell(id, 'markdown', text)


def code(source, id='code', shown=False, **kw):
    return Cell(id, 'code', source, [{'output_type': 'stream', 'text': 'shown'}] if shown else [], **kw)


def book(*cells, name='03_faces.ipynb', **metadata):
    return Notebook(Path(name), list(cells), metadata)


def outputs(*outs):
    return book(Cell('a', outputs=list(outs)))


AREA = '''#| export
def area(
    box: tuple, # x1, y1, x2, y2 in pixels
):
    "Area of a box."
    return 1'''
SHOWN, CHECKED = code('area(1)', 'shown', shown=True), code('assert area(1) == 1', 'checked')
PICTURE = base64.b64encode(bytes(100_001)).decode()
TAGGED = code('', tags=['parameters'])
PYTHON = {'name': 'python', 'mimetype': 'text/x-python'}
HEAD = [md('# faces\n\n> Faces.', 'head'), code('#| default_exp faces', 'exp')]

OFFENDERS = [
    (rules.opening, 'purpose', book(md('# faces'), HEAD[1]), book(*HEAD)),
    (rules.opening, 'expected `# faces`', book(md('# Heads\n\n> Faces.'), HEAD[1]), book(*HEAD)),
    (rules.opening, 'first cell', book(Cell('front', 'raw', '---'), HEAD[0], name='train.ipynb'), book(HEAD[0], name='train.ipynb')),
    (rules.opening, 'second cell', book(HEAD[0], md('text')), book(*HEAD)),
    (rules.cell_ids, '2 times', book(md('', 'a'), md('', 'a')), book(md('', 'a'), md('', 'b'))),
    (rules.cell_ids, 'kebab', book(md('', '3F_a')), book(md('', 'f-3'))),
    (rules.kernel, 'expected python3', book(kernelspec={'name': 'lam'}), book(kernelspec={'name': 'python3'})),
    (rules.language, 'language_info is {}', book(), book(language_info=PYTHON)),
    (rules.language, 'has a version', book(language_info=PYTHON | {'version': '3.11.7'}), book(language_info=PYTHON)),
    (rules.prose, 'follow each other', book(*[code(AREA, i) for i in 'abc']), book(code(AREA), code(AREA), md('and'), code(AREA))),
    (rules.imports_alone, 'alone', book(code('import os\nos.sep')), book(code('%matplotlib inline\nimport os'))),
    (rules.cell_size, '51 lines', book(code('#| export\n' + 'x = 1\n' * 51)), book(code('#| export\n' + 'x = 1\n' * 50))),
    (rules.cell_size, 'one public', book(code('#| export\ndef a(): 1\ndef b(): 1')), book(code('#| export\ndef a(): 1\ndef _b(): 1'))),
    (rules.function_size, '41 lines', book(code('class A:\n  def f():\n' + '    x\n' * 40)), book(code('def f():\n' + '  x\n' * 39))),
    (rules.output_size, 'KB, at most 300', outputs({'text': 'x' * 300_001}), outputs({'text': 'x' * 299_000})),
    (rules.output_size, 'picture', outputs({'data': {'image/png': PICTURE}}), outputs({'data': {'image/png': PICTURE[:130_000]}})),
    (rules.output_size, 'stored error', outputs({'output_type': 'error', 'ename': 'KeyError'}), book(SHOWN)),
    (rules.output_size, 'progress bar', outputs({'text': ' 10%|#   |'}), book(SHOWN)),
    (rules.examples, 'stored output', book(code(AREA), md('so'), code('area(1)'), CHECKED), book(code(AREA), md('so'), SHOWN, CHECKED)),
    (rules.examples, 'stored output', book(code(AREA), md('so'), md('and'), SHOWN, CHECKED), book(code(AREA), SHOWN, md('so'), CHECKED)),
    (rules.examples, 'assertion', book(code(AREA), md('so'), SHOWN, md('and'), CHECKED), book(code(AREA), SHOWN, CHECKED)),
    (rules.examples, 'assertion', book(code(AREA), SHOWN, code('#| hide\nassert area(1)')),
     book(code(AREA), SHOWN, code('test_eq(area(1), 1)'))),
    (rules.examples, 'not used', book(code(AREA), code('f(1)', shown=True), code('assert f(1)')), book(code(AREA), SHOWN, CHECKED)),
    (rules.failing_use, 'read_box', book(code('#| export\ndef read_box(): 1'), code('read_box()')),
     book(code('#| export\ndef read_box(): 1'), code('try: read_box()\nexcept ValueError as e: assert "box" in str(e)'))),
    (rules.docments, 'beside b', book(code('#| export\ndef f(a, # first\n  b): "F."')), book(code(AREA))),
    (rules.docments, 'docstring', book(code('#| export\ndef f(): 1')), book(code('#| export\ndef f(): "F."'))),
    (rules.docments, 'A.f', book(code('#| export\nclass A:\n  "A."\n  def f(self, a, # one\n    b): 1')),
     book(code('#| export\nclass A:\n  "A."\n  def f(self, a, b): 1'))),
    (rules.run_notebook, '0 cells are tagged', book(code('a = 1')), book(code('a = 1', tags=['parameters']))),
    (rules.run_notebook, 'under 25', book(*[code('')] * 24, TAGGED), book(*[code('')] * 23, TAGGED)),
    (rules.run_notebook, 'exports nothing', book(code(AREA), TAGGED), book(TAGGED)),
    (rules.line_width, '113 characters', book(code('x' * 113)), book(code('x' * 112), md('x' * 200))),
    (rules.chapter_size, '81 cells', book(*[md('a')] * 81), book(*[md('a')] * 80)),
    (rules.chapter_size, '451 exported lines', book(code('#| export\n' + 'x = 1\n' * 451)), book(code('#| export\n' + 'x = 1\n' * 450))),
    (rules.chapter_size, 'exported lines', book(code('#| export\n' + 'x = 1\n' * 451)),
     book(code('#| export\n' + 'x = 1\n' * 451), name='30_figures.ipynb')),
    (rules.thin, '91 lines of code', book(*[code('x = 1\n' * 7)] * 13), book(*[code('x = 1\n' * 10)] * 9)),
    (rules.thin, '13 lines', book(code('x = 1\n' * 13)), book(code('x = 1\n' * 12), code('x = 1\n' * 40, tags=['parameters']))),
    (rules.thin, 'lambda', book(code('f = lambda x: 1')), book(code('f = lambda row: 1'))),
    (rules.thin, 'HTML', book(code("a = 'so <b>bold</b>'")), book(code("a = 'a < b and <data_dir>/faces'"))),
    (rules.words, 'say backbone', book(md('The trunk.')), book(md('The backbone, `trunk`, [link](trunk.md).'))),
    (rules.words, 'say hash', book(code('a = 1  # its fingerprint')), book(code("a = about['fingerprint']  # its hash"))),
    (rules.words, 'say fixed', book(code('def f():\n  "What was mended."')), book(code('def f():\n  "What was fixed."'))),
    (rules.links, 'nowhere', book(md('[a](nowhere.ipynb)')), book(md('[a](https://a.org) [b](#here) `[c](x.md)`'))),
]


@pytest.mark.parametrize('rule, words, bad, good', OFFENDERS, ids=lambda v: getattr(v, '__name__', v if isinstance(v, str) else ''))
def test_rule_can_fail(rule, words, bad, good):
    assert any(words in complaint for complaint in rule(bad)), rule(bad)
    assert rule(good) == []


@pytest.mark.parametrize('source, words', [
    ('from lam_nb.windows import a', 'lower numbers only'), ('from lam_nb import windows', 'lower numbers only'),
    ('def f():\n  import lam_nb.faces', 'lower numbers only'), ('from .runs import *', '`import *`'),
    ('from lam_nb.nowhere import a', 'no notebook')])
def test_import_order_can_fail(source, words):
    numbers = {'runs': 0, 'faces': 3, 'windows': 4}
    assert any(words in c for c in rules.import_order(book(code('#| export\n' + source)), numbers))
    assert rules.import_order(book(code('#| export\nfrom lam_nb.runs import a'), code('from lam_nb.faces import b')), numbers) == []


def test_a_command_may_import_what_comes_later():
    numbers, late = {'faces': 3, 'windows': 4}, 'from lam_nb.windows import main'
    assert rules.import_order(book(code(f"#| export\nif __name__ == '__main__' and __spec__:\n  {late}\n  main()")), numbers) == []
    assert rules.import_order(book(code(f"#| export\nif __name__ == '__other__':\n  {late}")), numbers)


def test_shares_and_medians_can_fail():
    shown = book(code(AREA), SHOWN, CHECKED)
    assert rules.asserting([shown]) == 1 and rules.asserting([shown, book(code(AREA))]) == .5
    assert rules.function_lengths([shown]) == [5] and rules.function_lengths([book(SHOWN)]) == []


def inferred(**defaults):
    return {name: {'default': value} for name, value in defaults.items()}


@pytest.mark.parametrize('seen, words', [(inferred(lr='1.0'), 'does not see'), (inferred(lr='1.0', b="'c'", d='1'), 'Python does not'),
                                         (inferred(lr='1.0', b="'c"), 'papermill reads')])
def test_parameter_cell_can_fail(seen, words):
    nb = book(code('lr = 1.0  # rate\nb = "c"', tags=['parameters']))
    assert any(words in c for c in rules.parameter_cell(nb, seen))
    assert rules.parameter_cell(nb, inferred(lr='1.0', b='"c"')) == []


@pytest.mark.parametrize('text, words', [
    ('lr: 1e-3', 'read as a string'), ('lr: 2.e5', 'read as a string'), ('epoch: 3', 'not a parameter'), ('lr: 1\nlr: 2', '2 times'),
    ('model: on', 'bool'), ('epochs: 1.5', 'float'), ('flip: 1', 'int'), ('- a', 'list'), ('a: [', 'YAML')])
def test_recipe_can_fail(text, words):
    defaults = {'lr': 0.1, 'epochs': 3, 'model': 'BaselineLSTM', 'flip': False, 'clips': None}
    assert any(words in c for c in rules.recipe(text, defaults)), rules.recipe(text, defaults)
    assert rules.recipe('lr: 1.0e-3\nepochs: 4\nmodel: GazeLSTM\nclips: [a]\nflip: true', defaults) == []


def test_recipe_header_names_its_notebook():
    header = '''
# papermill nbs/prepare.ipynb out.ipynb -f other.yaml
# papermill nbs/train.ipynb out.ipynb \\
#   -f nbs/recipes/x.yaml -p a b
lr: 1'''
    assert rules.recipe_notebook(header, 'nbs/recipes/x.yaml') == 'train'
    assert rules.recipe_notebook(header, 'nbs/recipes/y.yaml') is None


@pytest.mark.parametrize('source', [
    'try: a\nexcept: b', 'run(a, shell=True)', 'torch.load(a, weights_only=False)', 'np.load(a, allow_pickle=True)', 'pickle.load(f)',
    'from pickle import loads', 'import fastcore.all', 'from nbdev.export import nb_export', 'os.system(a)'])
def test_risky_code_can_fail(source):
    assert rules.risky_code(ast.parse(source))
    assert rules.risky_code(ast.parse('try: run(a, shell=False)\nexcept ValueError: torch.load(a, weights_only=True)')) == []


@pytest.mark.parametrize('path', ['/home/ada/x', '/Users/ada/x', 'C:\\Users\\ada', '/tmp/tmpab12cd_3/a', '/srv/clone/x'])
def test_machine_paths_can_fail(path):
    assert rules.machine_paths(f'read {path}', ('/srv/clone',))
    assert rules.machine_paths('read data/home/x, $HOME/x, /data/ego4d, ~/x') == []


@pytest.fixture
def small_project(tmp_path):
    "A project with one notebook, in step with its module."
    for folder in ('nbs', 'lam_nb'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'settings.ini').write_text((ROOT / 'settings.ini').read_text())
    (tmp_path / 'lam_nb/__init__.py').write_text((ROOT / 'lam_nb/__init__.py').read_text())
    cells = [new_code_cell('#| default_exp a', id='exp'), new_code_cell('#| export\nx = 1', id='x')]
    notebook = new_notebook(cells=cells, metadata={'kernelspec': {'name': 'python3', 'display_name': 'python3'}})
    nbformat.write(notebook, tmp_path / 'nbs/00_a.ipynb')
    for step in ('export', 'clean'):
        (tmp_path / step).mkdir()
        made = gates.regenerated(tmp_path, step, tmp_path / step)
        for path in [*made.glob('lam_nb/*.py'), *made.glob('nbs/*.ipynb')]:
            (tmp_path / path.relative_to(made)).write_bytes(path.read_bytes())
    return tmp_path


def test_gates_pass_and_fail(small_project):
    module, notebook = small_project / 'lam_nb/a.py', small_project / 'nbs/00_a.ipynb'
    assert [gate(small_project) for gate in gates.GATES.values()] == [[], [], []]
    module.write_text(module.read_text() + 'y = 2\n')
    (small_project / 'lam_nb/old.py').write_text('')
    assert [re.split(' is| comes', p)[0] for p in gates.export_problems(small_project)] == ['lam_nb/old.py', 'lam_nb/a.py']
    notebook.write_text(notebook.read_text().replace('"metadata": {}', '"metadata": {"scrolled": true}', 1))
    assert ['is not clean' in p for p in gates.clean_problems(small_project)] == [True]
    notebook.write_text(notebook.read_text()[:-20])
    assert 'not valid JSON' in gates.clean_problems(small_project)[0]


@pytest.mark.parametrize('line', ['{} HEAD', '`{} HEAD`', '    "{} HEAD\\n",', '    "`{} ours`"'])
def test_markers_are_found(tmp_path, line):
    for i, sign in enumerate('<>'):
        (tmp_path / f'{i}.ipynb').write_text('text\n' + line.format(sign * 7) + '\n')
    (tmp_path / 'fine.md').write_text('a << b, ' + '<' * 7 + '\nTitle\n=======\n')
    assert [p.split(':')[:2] for p in gates.marker_problems(tmp_path)] == [['0.ipynb', '2'], ['1.ipynb', '2']]
