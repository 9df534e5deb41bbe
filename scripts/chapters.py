"""The lists of chapters, made from the notebooks' own first cells: python scripts/chapters.py

Writes the table of chapters in README.md and nbs/index.ipynb, and the link to the next chapter at the end of each.
Takes out the version of Python that JupyterLab notes in a notebook: it differs from machine to machine.
`make prepare-commit` runs it; tests/test_project.py checks that nothing is left to write.
"""
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SHELVES = {0: 'The workshop', 1: 'Data', 2: 'Learning', 3: 'Understanding', 4: 'Use', 5: 'Talking to me', 6: 'Share and repeat'}
METHOD = ['10_annotations', '20_windows', '21_models', '26_training', '24_evaluation']        # to be read first
BEGIN, END = '<!-- chapters: made by scripts/chapters.py -->', '<!-- end of chapters -->'


def purpose(nb: nbformat.NotebookNode) -> str:
    "The line after `>` in a notebook's first Markdown cell."
    first = next(c.source for c in nb.cells if c.cell_type == 'markdown')
    return re.search(r'(?m)^> (.+)$', first)[1].strip()


def chapters(nbs: Path) -> list[tuple[str, str]]:
    "Name and purpose of each library notebook, in order."
    return [(p.stem, purpose(nbformat.read(p, as_version=4))) for p in sorted(nbs.glob('[0-9]*.ipynb'))]


def table(listed: list[tuple[str, str]], folder: str, modules: bool) -> str:
    "A Markdown table of all chapters by shelf; links begin with `folder`."
    head = '| chapter | module | purpose |\n|---|---|---|' if modules else '| chapter | purpose |\n|---|---|'
    rows, shelf = [head], None
    for name, what in listed:
        if int(name[0]) != shelf:
            shelf = int(name[0])
            rows.append(f'| **{SHELVES[shelf]}** |{" |" * (2 if modules else 1)}')
        module = f' `lam_nb.{name[3:]}` |' if modules else ''
        rows.append(f'| [{name}]({folder}{name}.ipynb) |{module} {what} |')
    return '\n'.join([BEGIN, '', *rows, '', END])


def between(text: str, new: str) -> str:
    "`text` with what stands between the two marks replaced."
    if BEGIN not in text or END not in text:
        raise ValueError(f'the marks {BEGIN} and {END} are missing')
    return text[:text.index(BEGIN)] + new + text[text.index(END) + len(END):]


def link(name: str) -> str:
    "A link from one chapter to another."
    return f'[{name}]({name}.ipynb)'


def with_next(name: str, nb: nbformat.NotebookNode, following: tuple[str, str] | None) -> nbformat.NotebookNode:
    "The notebook with its last cell pointing to the next chapter, or from the last one back to the index."
    text = f'This is the last chapter. Back to the {link("index")}.'
    if following: text = f'Next: {link(following[0])}. {following[1]}'
    if name in METHOD[:-1]: text += f'\n\nTo read the method first, go on with {link(METHOD[METHOD.index(name) + 1])}.'
    nb.cells = [c for c in nb.cells if c.id != 'next'] + [nbformat.v4.new_markdown_cell(text, id='next')]
    return nb


def without_version(path: Path) -> nbformat.NotebookNode:
    "The notebook at `path`, whose language has no version."
    nb = nbformat.read(path, as_version=4)
    nb.metadata.get('language_info', {}).pop('version', None)
    return nb


def wanted(root: Path = ROOT) -> dict[Path, str]:
    "Path -> text of every file that this script makes or completes."
    listed, notebooks = chapters(root / 'nbs'), {p.stem: without_version(p) for p in (root / 'nbs').glob('*.ipynb')}
    for (name, _), following in zip(listed, [*listed[1:], None]):
        notebooks[name] = with_next(name, notebooks[name], following)
    for cell in notebooks['index'].cells:
        if BEGIN in cell.source: cell.source = between(cell.source, table(listed, '', False))
    files = {root / 'nbs' / f'{name}.ipynb': nbformat.writes(nb) + '\n' for name, nb in notebooks.items()}
    readme = root / 'README.md'
    files[readme] = between(readme.read_text(encoding='utf-8'), table(listed, 'nbs/', True))
    return files


def main() -> None:
    "Write what differs."
    for path, text in wanted().items():
        if path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')
            print(f'{path.relative_to(ROOT)}: renewed')


if __name__ == '__main__':
    main()
