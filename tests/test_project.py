"""The project as a whole: house rules of the notebooks, recipes, generated modules, leftovers.

Each rule is also shown to fail on a made-up offender.
"""
import ast
import base64
import re
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
RUNS = [n for n, nb in NOTEBOOKS.items() if nb.number is None]
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

EVERYWHERE = [rules.opening, rules.cell_ids, rules.kernel, rules.imports_alone, rules.function_size, rules.output_size]
LIBRARY_ONLY = [rules.prose, rules.cell_size, rules.examples, rules.failing_use, rules.docments]


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
    ok(rules.run_notebook(nb) + rules.parameter_cell(nb, papermill.inspect_notebook(str(nb.path))))


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
HEAD = [md('# faces\n\n> Faces.', 'head'), code('#| default_exp faces', 'exp')]

OFFENDERS = [
    (rules.opening, 'purpose', book(md('# faces'), HEAD[1]), book(*HEAD)),
    (rules.opening, 'expected `# faces`', book(md('# Heads\n\n> Faces.'), HEAD[1]), book(*HEAD)),
    (rules.opening, 'first cell', book(Cell('front', 'raw', '---'), *HEAD), book(Cell('front', 'raw', '---'), HEAD[0], name='train.ipynb')),
    (rules.opening, 'second cell', book(HEAD[0], md('text')), book(*HEAD)),
    (rules.cell_ids, '2 times', book(md('', 'a'), md('', 'a')), book(md('', 'a'), md('', 'b'))),
    (rules.cell_ids, 'kebab', book(md('', '3F_a')), book(md('', 'f-3'))),
    (rules.kernel, 'expected python3', book(kernelspec={'name': 'lam'}), book(kernelspec={'name': 'python3'})),
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
