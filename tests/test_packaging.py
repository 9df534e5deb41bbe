"""The files that say what to install agree: pyproject.toml, settings.ini, environment.yml, requirements.lock, Makefile, .ci/run."""
import ast
import configparser
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from gates import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
LOCK = (ROOT / 'requirements.lock').read_text()
MAKEFILE = (ROOT / 'Makefile').read_text()
PYTHONS = ('3.11', '3.12')


def settings() -> dict:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / 'settings.ini')
    return dict(parser['DEFAULT'])


def requirements(texts: list[str]) -> dict:
    "Canonical name -> version range."
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, texts)}


def locked(text: str) -> dict:
    "Canonical name -> the versions pinned in a lock, one for each marker."
    found = {}
    for name, version in re.findall(r'(?m)^([\w.-]+)==([\w.!+]+)', text):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def strange_lines(text: str) -> list[str]:
    "Lines of a lock that are neither a pin nor a hash: options, URLs, names of registry hosts."
    pin = re.compile(r'[\w.-]+==[\w.!+]+( ; [^\\:/]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?')
    return [line for line in text.splitlines() if not pin.fullmatch(line)]


def unlocked(needed: dict, pins: dict) -> list[str]:
    "Requirements that a lock does not hold, or holds in a version outside their range."
    return [f'{n}{spec}' for n, spec in needed.items() if not pins.get(n) or not all(spec.contains(v, prereleases=True) for v in pins[n])]


def test_settings_and_pyproject_name_the_same_requirements():
    theirs, ours = settings(), PROJECT['project']
    assert requirements(theirs['requirements'].split()) == requirements(ours['dependencies'])
    assert requirements(theirs['dev_requirements'].split()) == requirements(ours['optional-dependencies']['dev'])


def test_settings_and_pyproject_describe_the_same_project():
    from lam_nb import __version__
    theirs, ours = settings(), PROJECT['project']
    assert theirs['version'] == __version__ and 'version' in ours['dynamic']
    assert theirs['lib_name'] == ours['name'] and theirs['description'] == ours['description']
    assert theirs['license'].upper() == ours['license'] == 'MIT' and [theirs['author']] == [a['name'] for a in ours['authors']]
    assert SpecifierSet(ours['requires-python']) == SpecifierSet(f">={theirs['min_python']}")
    assert f'## {__version__}' in (ROOT / 'CHANGELOG.md').read_text(), f'CHANGELOG.md has no section {__version__}'


def test_settings_keep_the_parameters_tag():
    keys = settings()['allowed_cell_metadata_keys'].split()
    assert 'tags' in keys, 'without it nbdev_clean strips the tag and papermill runs the defaults'


def test_conda_installs_the_same_thing():
    environment = yaml.safe_load((ROOT / 'environment.yml').read_text())
    packages = environment['dependencies']
    names = [p for p in packages if isinstance(p, str)]
    assert [p for p in packages if isinstance(p, dict)] == [{'pip': ['-e .[dev]']}], 'pip installs the package with its dev extra'
    assert sorted(n.split('=')[0] for n in names) == ['pip', 'python'], 'conda brings python and pip, pyproject.toml the rest'
    version = next(n.split('=')[1] for n in names if n.startswith('python'))
    assert version in PYTHONS and SpecifierSet(PROJECT['project']['requires-python']).contains(version)
    provisioners = PROJECT['project']['entry-points']['jupyter_client.kernel_provisioners']
    assert environment['variables']['JUPYTER_DEFAULT_PROVISIONER_NAME'] in provisioners


def test_lock_holds_every_requirement():
    extra, build = PROJECT['project']['optional-dependencies']['dev'], PROJECT['build-system']['requires']
    needed = {**requirements(PROJECT['project']['dependencies']), **requirements(extra), **requirements(build)}
    assert not unlocked(needed, locked(LOCK)), 'run `make lock`; setuptools is needed too, the project is installed without build isolation'


def test_lock_names_no_host():
    assert strange_lines(LOCK) == [], 'run `make lock`'
    assert len(re.findall(r'(?m)^\S', LOCK)) == len(re.findall(r'(?m)^\S.*\n    --hash=', LOCK)), 'a pin has no hash'


def test_lock_checks_can_fail():
    assert unlocked(requirements(['a>=2', 'b']), {'a': ['2.1', '1.9']}) == ['a>=2', 'b']
    bad = ['--index-url https://example.org/simple', 'a @ https://example.org/a.whl \\', '# by hand', 'a==1']
    assert strange_lines('\n'.join([*bad, 'a==1 ; python_version < "3.12" \\', f'    --hash=sha256:{"0" * 64}'])) == bad


def third_party(source: str) -> set[str]:
    "Top-level modules that `source` imports from elsewhere, functions included."
    nodes = list(ast.walk(ast.parse(source)))
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    return {n.split('.')[0] for n in names} - sys.stdlib_module_names - {'lam_nb'}


@pytest.mark.parametrize('path', sorted(p.name for p in (ROOT / 'lam_nb').glob('*.py')))
def test_imports_are_requirements(path):
    groups = [PROJECT['project']['dependencies'], *(v for k, v in PROJECT['project']['optional-dependencies'].items() if k != 'dev')]
    declared = {n for g in groups for n in requirements(g)}
    owners = packages_distributions()
    used = {m: {canonicalize_name(d) for d in owners.get(m, [m])} for m in third_party((ROOT / 'lam_nb' / path).read_text())}
    missing = {m for m, names in used.items() if not declared & names}
    assert not missing, f'lam_nb/{path} imports {sorted(missing)}: name them in pyproject.toml and settings.ini, then `make lock`'


def test_makefile_supports_the_pythons_of_the_project():
    assert re.search(r'version_info\[:2\] not in (\[.+?\])', MAKEFILE)[1] == str([tuple(map(int, v.split('.'))) for v in PYTHONS])
    assert all(SpecifierSet(PROJECT['project']['requires-python']).contains(v) for v in PYTHONS)


def test_make_help_lists_every_target():
    phony = set(re.search(r'(?m)^\.PHONY: (.+)$', MAKEFILE)[1].split())
    shown = subprocess.run(['make', '--no-print-directory'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r'(?m)^  ([a-z-]+) ', shown)) == phony


def test_make_refuses_another_python(tmp_path):
    fake = tmp_path / 'python3.9'
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 || exit 1\n')
    fake.chmod(0o755)
    for name in ('Makefile', 'requirements.lock', 'pyproject.toml'):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(['make', 'env', f'PYTHON={fake}'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and 'needs Python 3.11 or 3.12' in done.stderr and 'Python 3.9.1' in done.stderr
    assert not (tmp_path / '.venv').exists()


def test_ci_script_is_sound():
    script = ROOT / '.ci/run'
    assert os.access(script, os.X_OK)
    subprocess.run(['bash', '-n', script], check=True)
    assert 'make test' in script.read_text()


def test_demo_runs_every_run_notebook():
    assert 'lam_nb study nbs/recipes/demo.yaml out_dir=$(DEMO)' in MAKEFILE
    steps = {name: run['notebook'] for name, run in yaml.safe_load((ROOT / 'nbs/recipes/demo.yaml').read_text())['runs'].items()}
    evaluations = dict.fromkeys(('evaluate-val', 'evaluate-flip', 'evaluate-test'), 'evaluate')
    assert steps == dict(prepare='prepare', train='train', **evaluations, compare='compare')


def test_the_table_of_growth_is_what_the_script_prints():
    said = subprocess.run([sys.executable, 'benchmarks/cost.py', '--growth'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(said.splitlines()) == 7 and said.strip() in (ROOT / 'benchmarks/README.md').read_text()
