"""Recipes and parameters from a shell: texts that look like numbers, empty texts, and names that would be code."""

import json, re, subprocess, sys
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT
from papermill.cli import _resolve_type

from lam_nb.annotations import split_clips
from lam_nb.command import _check_report, checked_run, command
from lam_nb.launching import main
from lam_nb.runs import _SYNONYMS, _nearest, check_parameters, read_recipe, write_json
from lam_nb.settings import COMMANDS, RUNS, CompareSettings, EvaluateSettings, PrepareSettings, TrainSettings


def papermills(cls, name, text):
    "What the notebook's settings make of `papermill -p NAME TEXT`: the value, or the refusal."
    try: return getattr(check_parameters(cls, {name: _resolve_type(text)}), name)
    except ValueError as e: return str(e)


@pytest.mark.parametrize('text', ['2024', '00123', '1e5', '3.0', 'true', 'False', 'nan', '-1', 'inf'])
@pytest.mark.parametrize('cls, name', [
    (PrepareSettings, 'out_dir'), (PrepareSettings, 'profile'), (PrepareSettings, 'clips'), (TrainSettings, 'faces_dir'),
    (TrainSettings, 'checkpoint'), (EvaluateSettings, 'checkpoints'), (CompareSettings, 'runs'), (TrainSettings, 'model')])
def test_a_number_where_text_was_meant_tells_the_way_out(cls, name, text):
    if isinstance(_resolve_type(text), str): assert text in papermills(cls, name, text)
    else: assert f'-r {name} TEXT' in papermills(cls, name, text)


@pytest.mark.parametrize('text', ['00123', '2024', '1e5', 'true', 'nan', '2024-01-01'])
def test_the_way_out_works(text):
    "papermill's -r hands over the text itself."
    assert check_parameters(PrepareSettings, dict(clips=text)).clips == [text]
    assert check_parameters(PrepareSettings, dict(out_dir=text)).out_dir == text


@pytest.mark.parametrize('text, seeds', [('3', [3]), ('0', [0]), ('1,2', [1, 2]), ('[4]', [4])])
def test_a_whole_number_is_a_list_of_one(text, seeds): assert papermills(TrainSettings, 'seeds', text) == seeds


@pytest.mark.parametrize('text', ['-3', '1.5', 'true', 'nan', 'x'])
def test_what_is_no_seed_is_refused(text): assert 'seeds' in papermills(TrainSettings, 'seeds', text)


@pytest.mark.parametrize('text, value', [('0.5', .5), ('runs/a/metrics.json', 'runs/a/metrics.json'), ('2', 2.)])
def test_a_number_or_a_path(text, value):
    assert check_parameters(EvaluateSettings, dict(temperature=text)).temperature == value
    assert papermills(EvaluateSettings, 'temperature', text) == value


TEXTS = [(cls, name) for cls in (RUNS | COMMANDS).values() for name, field in cls.model_fields.items()
         if 'str' in str(field.annotation) or 'Literal' in str(field.annotation)]


@pytest.mark.parametrize('empty', ['', ' ', '\t\n'])
@pytest.mark.parametrize('cls, name', TEXTS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_an_empty_text_is_refused_everywhere(cls, name, empty):
    if name == 'rdzv_endpoint' and not empty: pytest.skip('empty is its default')
    with pytest.raises(ValueError, match='an empty text.*knows no NAME'): check_parameters(cls, {name: empty})


@pytest.mark.parametrize('value', ['a,', 'a,,b', ['a', ''], ' , b'])
def test_an_empty_text_in_a_list_is_refused(value):
    with pytest.raises(ValueError, match='an empty text'): check_parameters(CompareSettings, dict(runs=value))


@pytest.mark.parametrize('value', ['(0.2, 0.8,)', '[0.2,0.8]', '0.2,0.8', (.2, .8)])
def test_lists_as_texts_stay(value): assert check_parameters(TrainSettings, dict(weights=value)).weights == (.2, .8)


def test_a_date_in_yaml_tells_the_way_out(tmp_path):
    (tmp_path / 'a.yaml').write_text('out_dir: 2024-01-01')
    with pytest.raises(ValueError, match='between quotes'): checked_run('train', [str(tmp_path / 'a.yaml')])


# ---- recipes

HOSTILE = [
    '\'x = __import__("os").system("touch MARK") #\': 1', '"import os; os.system(\'touch MARK\') #": 1',
    '? [1, 2]\n: 3', '7: 1', 'epochs: !!python/object/apply:os.system ["touch MARK"]',
    '"epochs\\nimport os; os.system(\'touch MARK\')": 1', 'epochs : 1\nepochs: 2',
    '- epochs', 'just a text', 'a: [', '{[]: 1}']


@pytest.mark.parametrize('start', ['command', 'main'])
@pytest.mark.parametrize('text', HOSTILE)
def test_names_that_are_no_parameters_are_refused_before_anything_runs(text, start, tmp_path, monkeypatch):
    (tmp_path / 'a.yaml').write_text(text.replace('MARK', str(tmp_path / 'mark')))
    monkeypatch.setattr('papermill.execute_notebook', lambda *_, **__: pytest.fail('it was started'))
    monkeypatch.setattr('lam_nb.launching.start_training', lambda *_: pytest.fail('it was started'))
    with pytest.raises(SystemExit) as e:
        command(['train', str(tmp_path / 'a.yaml')]) if start == 'command' else main([str(tmp_path / 'a.yaml')])
    assert e.value.code and isinstance(e.value.code, str) and [p.name for p in tmp_path.iterdir()] == ['a.yaml']


def test_values_are_texts_as_they_are_typed(tmp_path):
    (tmp_path / 'a.yaml').write_text('lr: 1.0e-3\nepochs: 2\n')
    assert read_recipe([str(tmp_path / 'a.yaml'), 'epochs=07', 'out_dir=a=b']) == {'lr': .001, 'epochs': '07', 'out_dir': 'a=b'}
    _, report, values = checked_run('train', ['out_dir=2024', 'flip=false', 'faces_dir=null', 'weights=0.2,0.8'])
    assert report.parent.name == '2024' and values == {'out_dir': '2024', 'flip': False, 'faces_dir': None, 'weights': [.2, .8]}
    with pytest.raises(ValueError, match='epochs is given twice'): read_recipe(['epochs=1', 'epochs=2'])


@pytest.mark.parametrize('name', [*RUNS])
def test_every_run_notebook_is_found(name):
    notebook, report, values = checked_run(name, [])
    assert notebook.is_file() and report.name == f'{name}.ipynb' and values == {}


@pytest.mark.parametrize('path', sorted((ROOT / 'nbs' / 'recipes').glob('*.yaml')), ids=lambda p: p.stem)
def test_our_recipes_are_read(path):
    name = re.search(r'nbs/(\w+)\.ipynb', path.read_text())[1]
    assert checked_run(name, [str(path)])[2].keys() == yaml.safe_load(path.read_text()).keys()


@pytest.mark.parametrize('arguments, said', [
    (['nothing'], 'no run notebook.*usage: lam_nb'), (['trian'], "did you mean 'train'"), (['--train'], 'no run notebook'),
    (['train', '--epochs'], '--epochs: parameters are written name=value, without spaces: epochs=VALUE'),
    (['train', '--lr', '0.1'], 'lr=0.1$'), (['train', '--learning-rate=0.1'], 'lr=0.1$'), (['train', '-lr', '0.1'], 'lr=0.1$'),
    (['train', 'lr', '0.1'], 'lr=0.1$'), (['train', 'lr', '=', '0.1'], 'lr=0.1$'),
    (['train', 'nowhere.yaml'], 'nowhere.yaml: no such file'),
    (['train', 'learning_rate=0.1'], "did you mean 'lr'"), (['train', 'bs=4'], "'batch_size'"), (['train', 'workers=4'], "'num_workers'"),
    (['prepare', 'num_workers=4'], "'workers'"), (['evaluate', 'val_stride=3'], "'stride'"), (['train', 'output_dir=x'], "'out_dir'"),
    (['train', 'Epochs=4'], "'epochs'"), (['compare', 'out-dir=x'], "'out_dir'")])
def test_what_is_written_otherwise_is_told_how(arguments, said):
    with pytest.raises(SystemExit) as e: command(arguments)
    assert re.search(said, e.value.code, re.S), e.value.code


def test_every_synonym_leads_to_a_parameter():
    for ours, others in _SYNONYMS.items():
        of = [cls for cls in RUNS.values() if ours in cls.model_fields]
        assert of, f'{ours} is no parameter'
        for other in others.split():
            meant = [_nearest(other, cls.model_fields) for cls in of if other not in cls.model_fields]
            assert ours in meant or not meant, f'{other} leads to {meant}, not to {ours}'


@pytest.mark.parametrize('arguments', [[], ['-h'], ['--help'], *([name, '--help'] for name in RUNS | COMMANDS)])
def test_help_names_every_parameter_with_its_default_and_purpose(arguments, capsys):
    command(arguments)
    said = capsys.readouterr().out
    assert said.startswith('usage: lam_nb') and all(f'  {name}' in said for name in RUNS) or len(arguments) == 2
    for name in (RUNS | COMMANDS)[arguments[0]].model_fields if len(arguments) == 2 else ():
        line, purpose = re.search(rf'(?m)^  {name}=(.*)\n {{8}}(.+)$', said).groups()
        assert re.search('true|text|number|null|\\w [|] ', line) and len(purpose) > 5, line
    assert max(map(len, said.splitlines())) <= 112 and 'None' not in said


@pytest.mark.parametrize('name', RUNS)
def test_defaults_and_values_as_help_writes_them_are_accepted(name, capsys):
    command([name, '--help'])
    given = [word for word in re.findall(r'(?m)^  (\w+=\S+)', capsys.readouterr().out)]
    assert len(given) > 5 and checked_run(name, given)[2].keys() >= {'out_dir'}
    assert check_parameters(RUNS[name], dict(g.split('=', 1) for g in given)) == RUNS[name]()


def test_a_refusal_and_help_import_nothing_heavy():
    "Which modules are loaded decides the time; benchmarks/command.py measures it."
    code = ('import sys; from lam_nb.command import command\n'
            'for given in (["train", "--help"], ["train", "lr=x"]):\n'
            '    try: command(given)\n'
            '    except SystemExit as e: assert "lr = " in e.code, e.code\n'
            'print(*sys.modules)')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    heavy = {'torch', 'pandas', 'numpy', 'papermill', 'IPython', 'matplotlib', 'cv2', 'av', 'sklearn', 'nbformat'}
    assert not {*done.stdout.split()} & heavy


@pytest.mark.slow
def test_a_whole_run(sample, tmp_path):
    run = lambda cwd, *given: subprocess.run([sys.executable, '-m', 'lam_nb', 'prepare', *given], cwd=cwd,
                                             capture_output=True, text=True, timeout=500)
    done = run(ROOT, f'data_dir={sample}', f'faces_dir={tmp_path / "faces"}', f'out_dir={tmp_path / "2024"}', 'splits=val',
               f'clips={split_clips(sample, "val")[0]}', 'image_size=32', 'workers=1')
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / '2024/summary.json').is_file() and Path(done.stdout.split('report: ')[1].strip()).is_file()
    assert (tmp_path / '2024/prepare.ipynb').is_file() and 'Traceback' not in done.stderr
    wrong = run(tmp_path, 'split=val')
    assert wrong.returncode == 1 and "did you mean 'splits'" in wrong.stderr


@pytest.mark.slow
def test_an_error_of_the_run_is_a_paragraph(tmp_path):
    out = tmp_path / 'of {lr}'                                            # papermill would fill in the braces
    run = [sys.executable, '-m', 'lam_nb', 'compare', 'runs=nowhere1,nowhere2', f'out_dir={out}']
    for _ in range(2):                                                    # a run that failed does not stand in the way
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 1 and 'FileNotFoundError: no folder' in done.stderr and 'Traceback' not in done.stderr + done.stdout
        assert f'the notebook so far, with the traceback: {out}/compare.partial.ipynb' in done.stderr
        assert [p.name for p in out.iterdir()] == ['compare.partial.ipynb']


@pytest.mark.slow
def test_a_refused_run_leaves_the_notebook_of_a_finished_one(tmp_path, capfd):
    write_json(tmp_path / '.files.json', dict(kind='compare', files=[]))
    (tmp_path / 'compare.ipynb').write_text('of a finished run')
    with pytest.raises(SystemExit, match='no folder'): command(['compare', f'out_dir={tmp_path}', 'runs=nowhere1,nowhere2'])
    assert (tmp_path / 'compare.ipynb').read_text() == 'of a finished run'


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / 'file').write_text('')
    for place in ('file', 'file/run'):
        with pytest.raises(SystemExit, match=f'{place}: .*another file or out_dir'): command(['train', f'out_dir={tmp_path / place}'])
    with pytest.raises(SystemExit, match='too long'): command(['train', 'x' * 300])


def test_a_path_may_hold_an_equals_sign(tmp_path):
    recipe = tmp_path / 'lr=0.1/params.yaml'
    recipe.parent.mkdir()
    recipe.write_text('epochs: 2')
    assert read_recipe([str(recipe), 'out_dir=a=b']) == {'epochs': 2, 'out_dir': 'a=b'}
    with pytest.raises(SystemExit, match='no such parameter'): command(['train', f'{tmp_path}/lr=0.2/params.yaml'])


def test_a_notebook_of_somebody_else_is_not_written_over(tmp_path):
    (tmp_path / 'compare.ipynb').write_text('mine')
    with pytest.raises(SystemExit, match='is not of a run of compare.ipynb'):
        command(['compare', f'out_dir={tmp_path}', 'runs=nowhere1,nowhere2'])
    assert (tmp_path / 'compare.ipynb').read_text() == 'mine'


def test_aliases_of_a_recipe_take_no_memory_and_merge_keys_work(tmp_path):
    bomb = 'a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n' + ''.join(
        f'a{i}: &a{i} [{",".join([f"*a{i - 1}"] * 10)}]\n' for i in range(1, 9)) + 'seeds: *a8\n'
    (tmp_path / 'bomb.yaml').write_text(bomb)
    with pytest.raises(SystemExit, match='refused'): command(['train', str(tmp_path / 'bomb.yaml')])
    (tmp_path / 'merge.yaml').write_text('epochs: 2\n<<: {lr: 0.1}\n')
    assert read_recipe([str(tmp_path / 'merge.yaml')]) == {'epochs': 2, 'lr': 0.1}


@pytest.mark.parametrize('words, says', [
    (['-p', 'epochs', '2'], 'epochs=2'), (['-r', 'out_dir', '2024'], 'out_dir=2024'), (['-p'], 'NAME=VALUE'),
    (['-p', 'epochs'], 'epochs=VALUE')])
def test_papermills_options_are_answered_in_ours(words, says):
    with pytest.raises(SystemExit, match=f'parameters are written name=value, without spaces: {says}$'): command(['train', *words])


def test_a_recipe_is_given_by_its_path():
    with pytest.raises(SystemExit, match='a recipe is given by its path alone: mine.yaml'): command(['train', '-f', 'mine.yaml'])


def test_an_unfinished_notebook_of_papermills_is_no_obstacle(tmp_path):
    by = lambda path: (tmp_path / 'compare.ipynb').write_text(json.dumps(dict(metadata=dict(papermill=dict(input_path=path)))))
    by('nbs/compare.ipynb')
    assert _check_report(tmp_path / 'compare.ipynb', 'compare') is None
    by('mine.ipynb')
    with pytest.raises(ValueError, match='is not of a run'): _check_report(tmp_path / 'compare.ipynb', 'compare')


def test_papermill_starts_the_kernel_without_a_warning(tmp_path):
    "The kernel's messages pass encrypted: `make env`, or conda's variable, names the provisioner that asks for it."
    given, done = tmp_path / 'given.ipynb', tmp_path / 'done.ipynb'
    asked = 'from ipykernel.kernelapp import IPKernelApp\nprint(IPKernelApp.instance().curve_secretkey is not None)'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(asked)]), given)
    said = subprocess.run([sys.executable, '-m', 'papermill', given, done, '-k', 'python3'], capture_output=True, text=True)
    assert said.returncode == 0 and 'TCP' not in said.stderr, said.stderr
    assert nbformat.read(done, 4).cells[0].outputs[0].text == 'True\n'
