"""The API as static pages: python scripts/api_pages.py [folder]      (make docs: outputs/docs)

pdoc renders all modules. What stands beside each parameter is a comment, which it does not see: so a table of these comments, as
fastcore reads them, is added to each docstring first.
"""
import inspect
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pdoc
from fastcore.docments import docments

import lam_nb
from lam_nb.runs import Settings
from lam_nb.settings import explanations

ROOT = Path(__file__).resolve().parent.parent


def table(rows: dict) -> str:
    "What stands beside some names as a Markdown table; '' where nothing does."
    plain = {name: ' '.join(text.split()).replace('<', '&lt;').replace('|', '\\|') for name, text in rows.items() if text}
    cells = [f'| {"*returns*" if name == "return" else f"`{name}`"} | {text} |' for name, text in plain.items()]
    return '\n'.join(['', '', '| name | what it is |', '|---|---|', *cells]) if cells else ''


def describe(obj: object) -> None:
    "Adds the tables to the docstrings of a function, or of a class and its public methods."
    inside = [v for k, v in vars(obj).items() if not k.startswith('_')] if isinstance(obj, type) else []
    for each in [obj, *(v for v in inside if isinstance(v, FunctionType))]:
        settings = isinstance(each, type) and issubclass(each, Settings)
        each.__doc__ = (inspect.getdoc(each) or '') + table(explanations(each) if settings else docments(each))


def main(folder: Path) -> None:
    "Writes the pages into `folder`."
    modules = [import_module(f'lam_nb.{m.name}') for m in pkgutil.iter_modules(lam_nb.__path__) if not m.name.startswith('_')]
    public = [getattr(m, name) for m in modules for name in m.__all__]
    objects = [o for o in public if isinstance(o, (type, FunctionType)) and o.__module__.startswith('lam_nb.')]
    for obj in dict.fromkeys(objects): describe(obj)
    listed = table({m.__name__: m.__doc__ for m in modules})
    lam_nb.__doc__ += f'\n<details markdown="1"><summary>All modules</summary>{listed}\n\n</details>'
    vars(lam_nb).update({name: getattr(lam_nb, name) for name in lam_nb.__all__})     # pdoc looks no further than there
    pdoc.render.configure(show_source=False, footer_text=f'lam_nb {lam_nb.__version__}')
    pdoc.pdoc('lam_nb', *(m.__name__ for m in modules), output_directory=folder)
    print(f'{folder / "lam_nb.html"}: {len(modules)} modules, {len(objects)} functions and classes')


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / 'outputs/docs')
