"""The house rules of the notebooks as plain functions.

Each takes a notebook, or a part of one, and returns its complaints: an empty list for none.
"""
import ast
import base64
import re
import warnings
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from tokenize import COMMENT, generate_tokens

import nbformat
import yaml

CELL_LINES, FUNCTION_LINES, LINE_WIDTH = 50, 40, 112             # JupyterLab shows 112 characters beside its file list
CHAPTER_CELLS, CHAPTER_LINES = 80, 450                           # lines: exported ones; `figures` is a collection and may have more
RUN_CELLS, RUN_LINES, RUN_CELL_LINES = 25, 90, 12
NOTEBOOK_BYTES, PICTURE_BYTES = 300_000, 100_000
PACKAGE = 'lam_nb'
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORT = (ast.Import, ast.ImportFrom)


@dataclass
class Cell:
    "One notebook cell: what the rules need of it."
    id: str
    kind: str = 'code'
    source: str = ''
    outputs: list = field(default_factory=list)
    tags: list = field(default_factory=list)

    @property
    def directives(self) -> set[str]:
        "Names of the cell's `#|` lines: export, hide, default_exp ..."
        return {w[0].rstrip(':') for line in self.source.splitlines() if line.startswith('#|') and (w := line[2:].split())}

    @property
    def exported(self) -> bool:
        return self.kind == 'code' and bool(self.directives & {'export', 'exports', 'exporti'})

    @property
    def hidden(self) -> bool:
        return 'hide' in self.directives

    @property
    def tree(self) -> ast.Module:
        "The cell's Python, with the lines of IPython's magics blanked."
        if self.kind != 'code' or self.source.lstrip().startswith('%%'):
            return ast.Module([], [])
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', SyntaxWarning)
            return ast.parse(re.sub(r'(?m)^(\s*)[%!].*$', r'\1pass', self.source))

    @property
    def definitions(self) -> list:
        "Public functions and classes of an exported cell."
        defs = self.tree.body if self.exported else []
        return [n for n in defs if isinstance(n, (*FUNCTION, ast.ClassDef)) and not n.name.startswith('_')]

    def uses(self, name: str) -> bool:
        "Does the code mention `name`, alone or as an attribute?"
        return any(name in (getattr(n, 'id', None), getattr(n, 'attr', None)) for n in ast.walk(self.tree))

    @property
    def asserts(self) -> bool:
        "An `assert`, or a call such as `np.testing.assert_allclose`, `test_eq` or `pytest.raises`."
        names = [getattr(n.func, 'attr', getattr(n.func, 'id', '')) for n in ast.walk(self.tree) if isinstance(n, ast.Call)]
        return any(isinstance(n, ast.Assert) for n in ast.walk(self.tree)) or any(re.match(r'assert_|test_|raises$', n) for n in names)


@dataclass
class Notebook:
    "A notebook read for the rules."
    path: Path
    cells: list[Cell]
    metadata: dict = field(default_factory=dict)

    @property
    def number(self) -> int | None:
        "The number that orders the library notebooks; None for a run notebook."
        found = re.match(r'(\d+)_', self.path.name)
        return int(found[1]) if found else None

    @property
    def module(self) -> str:
        return re.sub(r'^\d+_', '', self.path.stem)


def read_notebook(path: Path) -> Notebook:
    "The notebook at `path`."
    nb = nbformat.read(path, as_version=4)
    cells = [Cell(c.get('id', ''), c.cell_type, c.source, c.get('outputs', []), c.metadata.get('tags', [])) for c in nb.cells]
    return Notebook(path, cells, nb.metadata)


# Layout

def opening(nb: Notebook) -> list[str]:
    "First `# name` and `> purpose`; in a library notebook `# name` is the module's, and `#| default_exp name` follows."
    lines = [line for line in nb.cells[0].source.splitlines() if line.strip()] if nb.cells and nb.cells[0].kind == 'markdown' else []
    found = []
    if len(lines) < 2 or not lines[0].startswith('# ') or not lines[1].startswith('> ') or (nb.number is not None and len(lines) > 2):
        found.append('the first cell must be markdown: `# name`, then `> one-line purpose`; in a library notebook nothing else')
    if nb.number is not None:
        if lines and lines[0] != f'# {nb.module}':
            found.append(f'the first line is {lines[0]!r}, expected `# {nb.module}`')
        if len(nb.cells) < 2 or nb.cells[1].source.strip() != f'#| default_exp {nb.module}':
            found.append(f'the second cell must be `#| default_exp {nb.module}`')
    return found


def cell_ids(nb: Notebook) -> list[str]:
    "Ids are unique and readable: kebab-case words."
    ids = [c.id for c in nb.cells]
    return [f'id {i!r} is used {ids.count(i)} times' for i in sorted({i for i in ids if ids.count(i) > 1})] + [
        f'id {i!r} is not in kebab-case' for i in ids if not re.fullmatch(r'[a-z][a-z0-9]*(-[a-z0-9]+)*', i)]


def kernel(nb: Notebook) -> list[str]:
    "papermill starts the kernel that a notebook names: always python3."
    name = nb.metadata.get('kernelspec', {}).get('name')
    return [] if name == 'python3' else [f'the kernel is {name!r}, expected python3']


def language(nb: Notebook) -> list[str]:
    "The language is named, so that code has its colours before a kernel is up; the version is not, it differs between machines."
    info = nb.metadata.get('language_info', {})
    found = [] if info.get('name') == 'python' and info.get('mimetype') == 'text/x-python' else [
        f'language_info is {dict(info)}, expected the one of another notebook']
    return found + (['language_info has a version: run python scripts/chapters.py'] if 'version' in info else [])


def chapter_size(nb: Notebook) -> list[str]:
    "A chapter has at most 80 cells, and exports at most 450 lines (`figures` more: it is a collection)."
    lines = sum(len(code_lines(c)) for c in nb.cells if c.exported)
    found = [f'{len(nb.cells)} cells, at most {CHAPTER_CELLS}: split it where it holds two themes'] if len(nb.cells) > CHAPTER_CELLS else []
    too_many = lines > CHAPTER_LINES and nb.module != 'figures'
    return found + ([f'{lines} exported lines, at most {CHAPTER_LINES}: split it where it holds two themes'] if too_many else [])


def code_lines(cell: Cell) -> list[str]:
    "The lines of a code cell but for its directives."
    return [line for line in cell.source.strip().splitlines() if not line.startswith('#|')]


def line_width(nb: Notebook) -> list[str]:
    "Code lines have at most 112 characters."
    return [f'cell {c.id}: a line of {len(line)} characters, at most {LINE_WIDTH}' for c in nb.cells if c.kind == 'code'
            for line in c.source.splitlines() if len(line) > LINE_WIDTH]


def prose(nb: Notebook) -> list[str]:
    "No more than two exported cells in a row without prose; cells of imports do not count."
    found, row = [], []
    for cell in nb.cells:
        if cell.exported and imports_only(cell):
            continue
        row = [*row, cell.id] if cell.exported else []
        if len(row) == 3:
            found.append(f'exported cells {", ".join(row)} follow each other: put prose or an example between them')
    return found


# Imports

def imports_only(cell: Cell) -> bool:
    body = cell.tree.body
    return bool(body) and all(isinstance(n, (*IMPORT, ast.Pass)) for n in body) and any(isinstance(n, IMPORT) for n in body)


def imports_alone(nb: Notebook) -> list[str]:
    "A cell that imports at its top level does nothing else (magics may stand there too)."
    return [f'cell {c.id}: imports stand alone in their cells' for c in nb.cells
            if any(isinstance(n, IMPORT) for n in c.tree.body) and not imports_only(c)]


def package_imports(tree: ast.AST) -> list[tuple[str, bool]]:
    "Modules of this package that `tree` imports, at any depth, and whether by a star."
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name.split('.')[1], False) for a in node.names if a.name.startswith(PACKAGE + '.')]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or '') if not node.level else f'{PACKAGE}.{node.module}' if node.module else PACKAGE
            star = any(a.name == '*' for a in node.names)
            if module == PACKAGE:
                found += [(a.name, star) for a in node.names]
            elif module.startswith(PACKAGE + '.'):
                found.append((module.split('.')[1], star))
    return found


def is_command(node: ast.AST) -> bool:
    "Is it the block `if __name__ == '__main__'`, which runs a module as a command?"
    return isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__ == '__main__'")


def import_order(nb: Notebook, numbers: dict[str, int]) -> list[str]:
    """Exported cells import modules of lower numbers only (examples their own module too, run notebooks all), none by a star.
    What runs a module as a command may be made of what comes later."""
    found = []
    for cell in nb.cells:
        tree = ast.Module([n for n in cell.tree.body if not is_command(n)], [])
        for name, star in package_imports(tree):
            if star:
                found.append(f'cell {cell.id}: `import *` of {name}: name what is needed')
            if nb.number is None or (name == nb.module and not cell.exported) or name.startswith('__'):
                continue
            if name not in numbers:
                found.append(f'cell {cell.id}: {PACKAGE}.{name} comes from no notebook')
            elif numbers[name] >= nb.number:
                found.append(f'cell {cell.id}: number {nb.number:02} imports {name}, number {numbers[name]:02}: lower numbers only')
    return found


# Size

def cell_size(nb: Notebook) -> list[str]:
    "An exported cell has at most 50 lines and one public definition."
    found = []
    for cell in (c for c in nb.cells if c.exported):
        lines = len(code_lines(cell))
        if lines > CELL_LINES:
            found.append(f'cell {cell.id}: {lines} lines, at most {CELL_LINES}')
        if len(cell.definitions) > 1:
            found.append(f'cell {cell.id}: {", ".join(n.name for n in cell.definitions)}: one public definition a cell')
    return found


def function_size(nb: Notebook) -> list[str]:
    "No function, method or inner function has more than 40 lines, signature and docstring included."
    return [f'cell {c.id}: {n.name} has {size} lines, at most {FUNCTION_LINES}' for c in nb.cells for n in ast.walk(c.tree)
            if isinstance(n, FUNCTION) and (size := n.end_lineno - n.lineno + 1) > FUNCTION_LINES]


def output_size(nb: Notebook) -> list[str]:
    "Stored outputs: at most 300 KB a notebook and 100 KB a picture, no errors, no progress bars."
    found, total = [], 0
    for cell in nb.cells:
        for out in cell.outputs:
            total += len(str(out).encode())
            for kind, data in out.get('data', {}).items():
                text = data if isinstance(data, str) else str(data)
                size = len(text.encode()) if kind == 'image/svg+xml' else len(base64.b64decode(text)) if kind.startswith('image/') else 0
                if size > PICTURE_BYTES:
                    found.append(f'cell {cell.id}: a picture of {size // 1000} KB, at most {PICTURE_BYTES // 1000}')
            if out.get('output_type') == 'error':
                found.append(f'cell {cell.id}: a stored error ({out.get("ename")}): mend the cell and run it again')
            if re.search(r'\d+%\|', out.get('text', '')):
                found.append(f'cell {cell.id}: a stored progress bar')
    return found + ([f'outputs of {total // 1000} KB, at most {NOTEBOOK_BYTES // 1000}'] if total > NOTEBOOK_BYTES else [])


# Every definition is shown, asserted and described

def needs_example(node: ast.AST) -> bool:
    "A class without behaviour of its own (an exception, a marker: docstring or pass only) needs none."
    trivial = all(isinstance(n, ast.Pass) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in node.body)
    return not (isinstance(node, ast.ClassDef) and trivial)


def examples(nb: Notebook) -> list[str]:
    """Each public definition is followed within two cells by a visible one with a stored output, within three by a visible assertion;
    the code of those three cells names it. Every cell counts, prose too: function, sentence, example, assertion."""
    found = []
    for i, cell in enumerate(nb.cells):
        near, after = ([c for c in nb.cells[i + 1:i + 1 + n] if c.kind == 'code' and not c.exported and not c.hidden] for n in (2, 3))
        for node in filter(needs_example, cell.definitions):
            if not any(c.outputs for c in near):
                found.append(f'cell {cell.id}: {node.name}: no example with a stored output within two cells')
            if not any(c.asserts for c in after):
                found.append(f'cell {cell.id}: {node.name}: no visible assertion within three cells')
            if after and not any(c.uses(node.name) for c in after):
                found.append(f'cell {cell.id}: {node.name} is not used in the three cells that follow it')
    return found


def shows_failure(cell: Cell) -> bool:
    "Does the cell catch an error and look into it: an except clause, or a call of a helper such as `raises` or `refused`?"
    names = [getattr(n.func, 'attr', getattr(n.func, 'id', '')) for n in ast.walk(cell.tree) if isinstance(n, ast.Call)]
    caught = any(isinstance(n, ast.ExceptHandler) for n in ast.walk(cell.tree)) and cell.asserts
    return caught or any(re.search(r'raises|fail|refus|error|message', n) for n in names)


def failing_use(nb: Notebook) -> list[str]:
    "Each reader and parser (read_*, load_*, parse_*) shows at least one failing use."
    readers = [n.name for c in nb.cells for n in c.definitions if re.match(r'(read|load|parse)_', n.name)]
    shown = [c for c in nb.cells if c.kind == 'code' and not c.exported and shows_failure(c)]
    return [f'{name} shows no failing use (an error caught, an assertion on a piece of its message)'
            for name in readers if not any(c.uses(name) for c in shown)]


def comment_lines(source: str) -> set[int]:
    "Numbers of the lines that hold a comment of at least two letters."
    return {t.start[0] for t in generate_tokens(StringIO(source).readline) if t.type == COMMENT and re.search(r'\w\w', t.string)}


def parameters(node: ast.FunctionDef) -> list[ast.arg]:
    "All parameters but self and cls."
    a = node.args
    named = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    return [p for p in named if p.arg not in ('self', 'cls')]


def described(node: ast.FunctionDef, comments: set[int]) -> list[str]:
    "Names of the parameters without a comment beside them or on a line of its own just above."
    taken = {p.lineno for p in parameters(node)} | {node.lineno}
    return [p.arg for p in parameters(node) if p.lineno not in comments and (p.lineno - 1 not in comments or p.lineno - 1 in taken)]


def docments(nb: Notebook) -> list[str]:
    "Public functions and classes have a docstring; every parameter of a public function a comment; methods comment all or none."
    found = []
    for cell in (c for c in nb.cells if c.definitions):
        lines = comment_lines(re.sub(r'(?m)^[%!].*$', 'pass', cell.source))
        for node in cell.definitions:
            if not ast.get_docstring(node):
                found.append(f'cell {cell.id}: {node.name} has no docstring')
            if isinstance(node, FUNCTION) and (bare := described(node, lines)):
                found.append(f'cell {cell.id}: {node.name}: no comment beside {", ".join(bare)}')
            for method in (n for n in node.body if isinstance(n, FUNCTION) and isinstance(node, ast.ClassDef)):
                bare = described(method, lines)
                if 0 < len(bare) < len(parameters(method)):
                    found.append(f'cell {cell.id}: {node.name}.{method.name}: comments for some parameters, none beside {", ".join(bare)}')
    return found


def asserting(notebooks: list[Notebook]) -> float:
    "Visible asserting cells per exported cell (imports not counted), over all library notebooks."
    cells = [c for nb in notebooks for c in nb.cells]
    exported = sum(c.exported and not imports_only(c) for c in cells)
    return sum(c.asserts and not c.exported and not c.hidden for c in cells) / max(exported, 1)


def function_lengths(notebooks: list[Notebook]) -> list[int]:
    "Lines of every exported function and method, signature and docstring included."
    cells = [c for nb in notebooks for c in nb.cells if c.exported]
    return [n.end_lineno - n.lineno + 1 for c in cells for n in ast.walk(c.tree) if isinstance(n, FUNCTION)]


# Words and links

WORDS = {                                # what this house once said -> what the field says
    r'trunks?': 'backbone', r'pictures?': 'frame, crop or image', r'false alarms?': 'false positives, false positive rate',
    r'mean error': 'ECE', r'fingerprints?': 'hash', r'mended?|mends': 'fixed', r'h(?:eld|olds?) against': 'compared with',
    r'told by': 'recognised by', r'farewell': 'message', r'under the hood': '(leave it out)', r'fresh(?:ly)?': 'newly initialised',
    r'by chance alone|chance level': 'random baseline'}


def texts(cell: Cell) -> list[str]:
    "What a cell says in words: its prose, or its comments, docstrings and sentences of at least three words; `code` is left out."
    if cell.kind == 'markdown':
        return [re.sub(r'```.*?```|`[^`]*`|\]\([^)]*\)', ' ', cell.source, flags=re.DOTALL)]
    if cell.kind != 'code' or cell.source.lstrip().startswith('%%'):
        return []
    source = re.sub(r'(?m)^(\s*)[%!].*$', r'\1pass', cell.source)
    comments = [t.string for t in generate_tokens(StringIO(source).readline) if t.type == COMMENT and not t.string.startswith('#|')]
    strings = [n.value for n in ast.walk(cell.tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [re.sub(r'`[^`]*`', ' ', t) for t in comments + [s for s in strings if len(s.split()) >= 3]]


def house_words(text: str) -> list[str]:
    "House words in a text, each with the field's word."
    return [f'{m[0]!r}: say {better}' for word, better in WORDS.items()
            for m in re.finditer(rf'(?<![\w-])(?:{word})(?![\w-])', text, re.IGNORECASE)]


def words(nb: Notebook) -> list[str]:
    "The field's words instead of house words, in prose, comments, docstrings and messages."
    return [f'cell {c.id}: {hit}' for c in nb.cells for text in texts(c) for hit in house_words(text)]


def broken_links(text: str, folder: Path) -> list[str]:
    "Links of a Markdown text in `folder` to files that do not exist. Links to the web and within the page are not followed."
    text = re.sub(r'```.*?```|`[^`]*`', ' ', text, flags=re.DOTALL)
    targets = re.findall(r'\]\(([^)\s]+)\)', text)
    return [f'a link leads nowhere: {t}' for t in targets
            if not re.match(r'[a-z]+:|#', t) and not (folder / t.partition('#')[0]).exists()]


def links(nb: Notebook) -> list[str]:
    "Every link of a notebook to a file of the project leads somewhere."
    return [f'cell {c.id}: {hit}' for c in nb.cells if c.kind == 'markdown' for hit in broken_links(c.source, nb.path.parent)]


# Run notebooks and recipes

def run_notebook(nb: Notebook) -> list[str]:
    "Exactly one cell tagged parameters, under 25 cells, nothing exported."
    tagged = sum('parameters' in c.tags for c in nb.cells)
    found = [] if tagged == 1 else [f'{tagged} cells are tagged parameters, expected one']
    if len(nb.cells) >= RUN_CELLS:
        found.append(f'{len(nb.cells)} cells, expected under {RUN_CELLS}')
    return found + [f'cell {c.id}: a run notebook exports nothing' for c in nb.cells if c.exported or 'default_exp' in c.directives]


def thin(nb: Notebook) -> list[str]:
    "A run notebook calls the library: 90 lines of code in all, 12 a cell (parameters aside), no lambda of one letter, no HTML."
    cells = [c for c in nb.cells if c.kind == 'code']
    total = sum(len(code_lines(c)) for c in cells)
    found = [f'{total} lines of code, at most {RUN_LINES}: what it shows is made by functions of the library'] if total > RUN_LINES else []
    for c in cells:
        if len(code_lines(c)) > RUN_CELL_LINES and 'parameters' not in c.tags:
            found.append(f'cell {c.id}: {len(code_lines(c))} lines, at most {RUN_CELL_LINES}')
        letters = [a.arg for n in ast.walk(c.tree) if isinstance(n, ast.Lambda) for a in n.args.args if len(a.arg) == 1]
        found += [f'cell {c.id}: a lambda of {a!r}: give what it does a name' for a in letters]
        strings = [n.value for n in ast.walk(c.tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        found += [f'cell {c.id}: HTML in a text: {m[0]}' for s in strings for m in re.finditer(r'</?[a-z][a-z0-9]*(?: [^<>]*)?/?>', s)]
    return found


def parameter_values(nb: Notebook) -> dict:
    "Names and default values in the cell tagged parameters, as Python reads them."
    cells = [c for c in nb.cells if 'parameters' in c.tags]
    nodes = [n for c in cells for n in c.tree.body if isinstance(n, (ast.Assign, ast.AnnAssign)) and n.value is not None]
    return {ast.unparse(n.targets[0] if isinstance(n, ast.Assign) else n.target): ast.literal_eval(n.value) for n in nodes}


def parameter_cell(nb: Notebook, inferred: dict) -> list[str]:
    "papermill's line-based parser (its `inspect_notebook` gave `inferred`) must read the parameters as Python does."
    try:
        real = parameter_values(nb)
    except ValueError as e:
        return [f'the parameters cell holds more than plain values: {e}']
    found = [f'parameter {n}: papermill does not see it: one `name = value  # comment` a line' for n in real if n not in inferred]
    found += [f'parameter {n}: papermill sees it, Python does not: no `=` in comments' for n in inferred if n not in real]
    for name in real.keys() & inferred.keys():
        try:
            same = ast.literal_eval(inferred[name]['default']) == real[name]
        except (ValueError, SyntaxError):
            same = False
        if not same:
            found.append(f'parameter {name}: papermill reads {inferred[name]["default"]!r}, Python {real[name]!r}: no `#` in strings')
    return sorted(found)


def recipe_notebook(text: str, where: str) -> str | None:
    "The run notebook that a recipe's header names in its command: `# papermill nbs/train.ipynb ... -f nbs/recipes/x.yaml`."
    header = '\n'.join(line.lstrip('# ') for line in text.splitlines() if line.startswith('#'))
    for command in re.split(r'(?=papermill\s)', header):
        if found := re.match(rf'papermill\s+nbs/(\w+)\.ipynb\b.*?-f\s+{re.escape(where)}(?:\s|$)', command, re.DOTALL):
            return found[1]
    return None


def recipe(text: str, defaults: dict) -> list[str]:
    "Known names only, each once, values of the default's type, no number that YAML 1.1 reads as a string (1e-3: write 1.0e-3)."
    try:
        root, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as e:
        return [f'not readable as YAML: {e}']
    if not isinstance(values, dict):
        return [f'expected `name: value` lines, got {type(values).__name__}']
    names = [key.value for key, _ in root.value]
    found = [f'{n} is given {names.count(n)} times' for n in sorted(set(names)) if names.count(n) > 1]
    for name, value in values.items():
        if name not in defaults:
            found.append(f'{name} is not a parameter of the notebook')
        elif isinstance(value, str) and re.fullmatch(r'[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?', value, re.IGNORECASE):
            found.append(f'{name}: {value} is read as a string: write a number with point and signed exponent, such as 1.0e-3')
        elif value is not None and not same_kind(value, defaults[name]):
            found.append(f'{name}: {value!r} is {type(value).__name__}, the default {defaults[name]!r} is {type(defaults[name]).__name__}')
    return found


def same_kind(value: object, default: object) -> bool:
    "May `value` stand where `default` does? Anything for None, an int for a float, auto (settings check it), but no bool for a number."
    if default is None or value == 'auto':
        return True
    return type(value) is type(default) or (type(value) is int and type(default) is float)


# Modules and text files

def risky_code(tree: ast.AST) -> list[str]:
    "What the package must not do: hide errors, run a shell, load pickles, need nbdev or fastcore at run time."
    found = []
    for node in ast.walk(tree):
        line = getattr(node, 'lineno', 0)
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f'line {line}: bare except')
        if isinstance(node, ast.Call):
            values = {k.arg: getattr(k.value, 'value', None) for k in node.keywords}
            risky = (('shell', True), ('weights_only', False), ('allow_pickle', True))
            found += [f'line {line}: {k}={v}' for k, v in risky if values.get(k) is v]
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ('pickle.load', 'pickle.loads', 'joblib.load', 'os.system'):
            found.append(f'line {line}: {ast.unparse(node)}')
        if isinstance(node, IMPORT):
            names = [f'{node.module}.{a.name}' if isinstance(node, ast.ImportFrom) else a.name for a in node.names]
            found += [f'line {line}: imports {n}' for n in names if n.split('.')[0] in ('nbdev', 'fastcore', 'execnb', 'ghapi')]
            found += [f'line {line}: imports {n}' for n in names if n in ('pickle.load', 'pickle.loads', 'pickle.Unpickler')]
    return found


def machine_paths(text: str, here: tuple[str, ...] = ()) -> list[str]:
    "Folders of somebody's machine: home and temporary ones, and those in `here`."
    anywhere = [r'/(?:home|Users)/\w[\w.-]*/', r'/root\b/', r'[A-Z]:\\+Users\\+\w+', r'/tmp/tmp\w{6,}']
    known = '|'.join([*anywhere, *(re.escape(h) + '/' for h in here)])
    return [f'line {i}: {m[0]}' for i, line in enumerate(text.splitlines(), 1) for m in re.finditer(rf'(?<![\w.])(?:{known})', line)]
