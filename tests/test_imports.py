"What importing the package costs: a module loads only the libraries that it needs to be read. Counted, not timed."
import json
import subprocess
import sys
from functools import cache

import pytest
from conftest import ROOT

HEAVY = {'torch', 'torchvision', 'pandas', 'pyarrow', 'matplotlib', 'sklearn', 'cv2', 'av', 'IPython'}
LIGHT = {'lam_nb': 100, 'lam_nb.runs': 280, 'lam_nb.processes': 280}      # modules at most: 69, 231, 232 when this was written


@cache
def loaded(module: str) -> set[str]:
    "All modules that a new process has after importing one."
    code = f'import json, sys; import {module}; print(json.dumps(sorted(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def heavy(modules: set[str], libraries: set[str] = HEAVY) -> set[str]:
    "Which of some libraries are among the modules."
    return libraries & {name.partition('.')[0] for name in modules}


@pytest.mark.parametrize('module, most', LIGHT.items())
def test_the_workshop_is_light(module, most):
    modules = loaded(module)
    assert module in modules and heavy(modules) == set()
    assert len(modules) <= most


def test_the_faces_table_needs_no_torch():
    assert heavy(loaded('lam_nb.annotations'), HEAVY - {'pandas', 'pyarrow'}) == set()


def test_a_heavy_module_is_noticed():
    "The same checks fail on a chapter that does load such a library."
    assert 'pandas' in heavy(loaded('lam_nb.annotations'))
    assert len(loaded('lam_nb.annotations')) > max(LIGHT.values())
