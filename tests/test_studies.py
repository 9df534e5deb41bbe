"""Studies: kills, several runs at once, changed parameters, hostile files; the paper's study on a tiny sample, to its end."""
import json, os, re, shutil, signal, subprocess, sys, time

import pytest
import yaml
from conftest import ROOT, until

from lam_nb import run_processes, studies
from lam_nb.command import command
from lam_nb.folders import release_folder
from lam_nb.processes import Stopped
from lam_nb.runs import check_parameters, read_recipe
from lam_nb.settings import StudySettings
from lam_nb.studies import plan_study, run_study, start_study
from lam_nb.study_report import result_sections, run_sections, study_results, study_runs, write_study

# What stands in for lam_nb: it notes each start, takes `save_minutes` seconds, and leaves what a run leaves.
STAND_IN = '''
import json, os, sys, time, yaml
from datetime import datetime, timezone
from pathlib import Path
kind, given = sys.argv[1], yaml.safe_load(Path(sys.argv[2]).read_text())
now = lambda: datetime.now(timezone.utc).isoformat()
out = Path(given['out_dir']); out.mkdir(parents=True, exist_ok=True)
with open(out.parent / 'starts', 'a') as f: print(out.name, time.time(), len(os.sched_getaffinity(0)), given.get('resume'), file=f)
if 'broken' in str(given.get('checkpoint')): sys.exit('FileNotFoundError: no checkpoint broken.pt')
(out / 'settings.json').write_text(json.dumps(dict(parameters=given, provenance=dict(started=now()))))
try: time.sleep(float(given.get('save_minutes', .01)))
except KeyboardInterrupt: (out / 'saved').touch(); sys.exit(130)
(out / f'{kind}.ipynb').write_text(json.dumps(dict(metadata=dict(papermill=dict(end_time=now())))))
with open(out.parent / 'ends', 'a') as f: print(out.name, time.time(), file=f)
'''


def stand_in(notebook, recipe):
    "The command of a run, without lam_nb."
    start = run_processes._START.replace('from lam_nb.command import command; command()', 'import sys; exec(sys.argv.pop(1))')
    return [sys.executable, '-c', start, STAND_IN, notebook, str(recipe)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    "Runs a study of stand-ins; returns it."
    monkeypatch.setattr(studies, '_command', stand_in)

    def run(runs, **settings):
        study = start_study(StudySettings(runs=runs, out_dir=str(tmp_path / 'study'), **settings))
        run_study(study)
        release_folder(study.out)
        return study
    return run


def lines(folder, name='starts'):
    file = folder / name
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def started(folder): return [line[0] for line in lines(folder)]


TRAIN = dict(notebook='train')
BEST = '{train}/checkpoints/best.pt'


def test_a_failed_run_stops_only_those_that_need_it(run, tmp_path, capsys):
    compare = lambda what: dict(notebook='compare', parameters=dict(runs=[what]))
    broken = dict(notebook='evaluate', parameters=dict(checkpoint='broken.pt'))
    study = run(dict(a=broken, b=compare('{a}'), c=compare('{b}'), d=TRAIN), jobs=2)
    assert {name: study.state[name]['state'] for name in study.plan} == dict(a='failed', b='not run', c='not run', d='done')
    assert 'no checkpoint broken.pt' in study.state['a']['said'] and study.state['c']['said'] == 'needs b'
    (study.plan['d'].out / 'report.html').touch()
    with pytest.raises(Stopped, match='3 of 4 runs are not done'):
        write_study(study, result_sections(study, study_results(study)) + run_sections(study))
    page = (study.out / 'report.html').read_text()
    assert '<a href="d/report.html">d</a>' in page and 'href="a/' not in page
    assert 'no checkpoint broken.pt' in page and '1 of 4' in page and 'study/c: not run\n  needs b' in capsys.readouterr().out


def test_what_is_done_is_not_run_again_and_what_changed_is(run, tmp_path):
    runs = dict(prepare=dict(notebook='prepare'), train=dict(notebook='train', needs=['prepare'], grid=dict(seed=[0, 1])),
                val=dict(notebook='evaluate', parameters=dict(checkpoint=BEST)), other=dict(notebook='evaluate'))
    run(runs)
    first = started(tmp_path / 'study')
    assert sorted(first) == sorted(['prepare', 'train-seed-0', 'train-seed-1', 'val-seed-0', 'val-seed-1', 'other'])
    run(runs)
    assert started(tmp_path / 'study') == first
    run(runs, override=['val.stride=3'])
    assert sorted(started(tmp_path / 'study')[6:]) == ['val-seed-0', 'val-seed-1']
    study = run(runs, override=['val.stride=3', 'prepare.quality=80'])
    assert sorted(started(tmp_path / 'study')[8:]) == ['prepare', 'train-seed-0', 'train-seed-1', 'val-seed-0', 'val-seed-1']
    anew = {name: resume for name, _, _, resume in lines(tmp_path / 'study')[8:]}
    assert anew['train-seed-0'] == 'False' and anew['val-seed-0'] == 'None'         # other faces: a training begins anew
    runs['train']['grid']['seed'] = [0, 1, 2]
    run(runs, override=['val.stride=3', 'prepare.quality=80', 'num_workers=0'])
    assert started(tmp_path / 'study')[13:] == ['train-seed-2', 'val-seed-2']
    assert study.state['train-seed-0']['seconds'] > 0


def test_a_run_by_hand_counts_and_a_file_in_the_way_is_kept(run, tmp_path):
    subprocess.run(stand_in('train', write(tmp_path / 'a.yaml', dict(out_dir=str(tmp_path / 'study/train')))), check=True)
    study = run(dict(train=TRAIN))
    assert study.state['train']['said'] == 'before' and started(tmp_path / 'study') == ['train']
    (tmp_path / 'study/logs').mkdir(exist_ok=True)
    (tmp_path / 'study/logs/new.log').write_text('mine')
    with pytest.raises(ValueError, match='new.log'): run(dict(new=TRAIN))
    assert (tmp_path / 'study/logs/new.log').read_text() == 'mine'


def write(file, values):
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.mark.parametrize('jobs', [1, 3])
def test_so_many_go_on_at_a_time_and_share_the_cores(run, tmp_path, jobs):
    study = run(dict(a=dict(TRAIN, parameters=dict(save_minutes=.5), grid=dict(seed=[0, 1, 2]))), jobs=jobs)
    begins = {name: float(at) for name, at, *_ in lines(study.out)}
    ends = {name: float(at) for name, at in lines(study.out, 'ends')}
    at_once = max(sum(begins[b] <= begins[a] < ends[b] for b in begins) for a in begins)
    assert len(ends) == 3 and (at_once == 1 if jobs == 1 else at_once > 1)
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    assert {int(cores) for _, _, cores, _ in lines(study.out)} == {share}


def test_gpus_are_given_out(monkeypatch):
    monkeypatch.setattr(run_processes, 'usable_gpus', lambda: 4)
    gpus = lambda jobs: [slot[1] for slot in run_processes._run_slots(StudySettings(jobs=jobs))]
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert gpus(0) == ['0', '1', '2', '3'] and gpus(2) == ['0,2', '1,3'] and gpus(6) == ['0', '1', '2', '3', '0', '1']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '7,5,GPU-a,MIG-b')
    assert gpus(0) == ['7', '5', 'GPU-a', 'MIG-b'] and gpus(1) == ['7,5,GPU-a,MIG-b']
    monkeypatch.setattr(run_processes, 'usable_gpus', lambda: 0)
    assert gpus(0) == [''] and gpus(2) == ['', '']


SCRIPT = '''
import sys
sys.path.insert(0, {tests!r})
import test_studies as t
t.studies._command = t.stand_in
study = t.start_study(t.StudySettings(runs={runs!r}, out_dir={out!r}, jobs=2))
t.run_study(study)
'''


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_is_stopped_ends_its_runs_and_goes_on(tmp_path, run, number):
    runs = dict(a=dict(TRAIN, parameters=dict(save_minutes=60), grid=dict(seed=[0, 1])), b=dict(notebook='prepare'))
    code = SCRIPT.format(tests=str(ROOT / 'tests'), runs=runs, out=str(tmp_path / 'study'))
    with open(tmp_path / 'said', 'w') as said:
        process = subprocess.Popen([sys.executable, '-c', code], stdout=said, stderr=said, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    begun = lambda: all((tmp_path / f'study/a-seed-{i}/settings.json').exists() for i in (0, 1))
    assert until(begun, 120), (tmp_path / 'said').read_text()
    process.send_signal(number)
    assert process.wait(60) != 0
    assert until(lambda: all((tmp_path / f'study/a-seed-{i}/saved').exists() for i in (0, 1)), 30), 'a run was not told to stop'
    if number == signal.SIGINT: assert 'stopped; what is done is kept' in (tmp_path / 'said').read_text()
    study = run(runs, override=['a.save_minutes=0.01'])
    assert sorted(study.of_state('done')) == ['a-seed-0', 'a-seed-1', 'b']
    assert {resume for name, _, _, resume in lines(study.out) if name.startswith('a')} == {'None'}      # they go on


def test_a_folder_that_is_in_use_is_waited_for(run, tmp_path, monkeypatch):
    asked = []

    def check(*_):
        asked.append(1)
        if len(asked) < 2: raise ValueError('in use')
    monkeypatch.setattr(studies, '_check_unused', check)
    assert run(dict(a=TRAIN)).of_state('done') == ['a'] and len(asked) == 2


def test_a_killed_run_is_failed_and_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, '_command', lambda *_: [sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)'])
    assert 'killed by SIGKILL' in run(dict(a=TRAIN)).state['a']['said']


@pytest.mark.slow
@pytest.mark.parametrize('cluster', ['local', 'debug'])
def test_runs_as_jobs(run, tmp_path, cluster):
    runs = dict(a=TRAIN, b=dict(notebook='evaluate', parameters=dict(checkpoint='broken.pt')))
    study = run(runs, cluster=cluster, cluster_options=dict(timeout_min=5, cpus_per_task=1))
    assert study.of_state('done') == ['a'] and 'broken.pt' in study.state['b']['said']


HOSTILE = [
    ('runs: {"../up": {notebook: train}}', 'expected a name'),
    ('runs: {a/b: {notebook: train}}', 'expected a name'),
    ('runs: {logs: {notebook: train}}', 'expected a name'),
    ('runs: {}', 'at least 1'),
    ('runs: {a: 3}', 'dictionary'),
    ('runs: {a: }', 'dictionary'),
    ('runs: {a: {notebook: study}}', 'expected one of'),
    ('runs: {a: {notebook: trian}}', "did you mean 'train'"),
    ('runs: {a: {notebook: train, paramters: {}}}', "did you mean 'parameters'"),
    ('runs: {a: {}}', 'notebook'),
    ('runs: {a: {notebook: train, parameters: {learning_rate: 1}}}', "did you mean 'lr'"),
    ('runs: {a: {notebook: train, parameters: {epochs: many}}}', 'epochs'),
    ('runs: {a: {notebook: train, parameters: {out_dir: x}}}', 'out_dir'),
    ('runs: {a: {notebook: train, grid: {seed: [0, -1]}}}', 'seed'),
    ('runs: {a: {notebook: train, grid: {seed: []}}}', 'no run'),
    ('runs: {a: {notebook: train, grid: {seed: [0, 0]}}}', 'several runs'),
    ('runs: {a: {notebook: train, needs: [a]}}', 'circle'),
    ('runs: {a: {notebook: train, parameters: {checkpoint: "{b}/x"}}}', "it needs 'b'"),
    ('runs: {a: {notebook: train, parameters: {checkpoint: "{}"}}}', 'it needs'),
    ('runs: {a: {notebook: train, recipe: nowhere.yaml}}', 'no such file'),
    ('runs: {a: {notebook: train, published: the best}}', 'published'),
    ('runs: {a: {notebook: train, grid: {seed: %s, lr: %s}}}' % (list(range(100)), [.1] * 100), '10,000 runs'),
    ('runs: {a: %s, b: %s}' % (('{notebook: train, grid: {seed: %s}}' % list(range(600)),) * 2), 'more than 1,000'),
    ('runs: {a: {notebook: train}}\ncommon: {epoch: 3}', 'no run has this parameter'),
    ('runs: {a: {notebook: train}}\ncompare: [b]', 'compare = b'),
    ('runs: {a: {notebook: train}}\noverride: [b.epochs=1]', 'override = b.epochs'),
    ('runs: {a: {notebook: train}}\noverride: [epochs]', 'expected name=value'),
    ('runs: {a: {notebook: train}}\nnonsense: 1', 'no such parameter'),
    ('runs: {a: {notebook: train}, a: {notebook: prepare}}', 'given twice'),
    ('runs: {a: {notebook: compare, parameters: {runs: ["{b}{c}"]}}, b: {notebook: train}, c: {notebook: train}}', 'may name one')]


@pytest.mark.parametrize('text, said', HOSTILE, ids=[said for _, said in HOSTILE])
def test_what_does_not_fit_is_refused_before_anything_is_written(text, said, tmp_path):
    file = tmp_path / 'study.yaml'
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        start_study(check_parameters(StudySettings, read_recipe([str(file), f'out_dir={tmp_path}/study'])))
    assert not (tmp_path / 'study').exists()


def test_names_in_a_study_are_never_code(tmp_path, monkeypatch):
    "papermill writes the parameters into a cell: keys that are programs stay texts there."
    hostile = {'")\nimport os; os.mkdir("mark")#': 1}
    write(tmp_path / 'a.yaml', dict(runs=dict(a=dict(notebook='train', parameters=hostile))))
    monkeypatch.setattr('lam_nb.command._execute', lambda notebook, report, parameters: given.update(parameters))
    given = {}
    command(['study', str(tmp_path / 'a.yaml'), f'out_dir={tmp_path}/out'])
    from papermill.translators import PythonTranslator
    code = PythonTranslator.codify(given)
    scope = {}
    monkeypatch.chdir(tmp_path)
    exec(code, scope)
    assert not (tmp_path / 'mark').exists() and scope['runs'] == given['runs']


def test_runs_that_belong_together():
    "What is made of a grid's runs is joined by their choices, not by all pairs."
    runs = dict(train=dict(TRAIN, grid=dict(seed=[0, 1], lr=[.1, .2])), val=dict(notebook='evaluate', parameters=dict(checkpoint=BEST)),
                test=dict(notebook='evaluate', parameters=dict(checkpoint=BEST, threshold='{val}/metrics.json', split='test')),
                all=dict(notebook='compare', parameters=dict(runs=['{val}', 'outputs/x', '{test}'])))
    plan = plan_study(StudySettings(runs=runs, out_dir='o'))
    assert len(plan) == 4 * 3 + 1 and len(plan['all'].settings.runs) == 9
    one = plan['test-seed-1-lr-0.2'].settings
    assert one.checkpoint == 'o/train-seed-1-lr-0.2/checkpoints/best.pt' and one.threshold == 'o/val-seed-1-lr-0.2/metrics.json'
    assert plan['all'].settings.runs[4] == 'outputs/x' and set(plan['all'].needs) == {n for n in plan if n.startswith(('val', 'test'))}


def test_a_dry_run_runs_nothing(run, tmp_path):
    study = run(dict(a=TRAIN), dry_run=True)
    assert study_runs(study).state.tolist() == ['to do'] and study_runs(study).said.tolist() == ['not begun'] and not lines(study.out)


TINY = ['epochs=1', 'image_size=64', 'batch_size=8', 'train_stride=5', 'val_stride=1', 'device=cpu', 'precision=fp32', 'num_workers=0',
        'prepare.workers=1', 'gaze360.model=BaselineLSTM', 'gaze360.checkpoint=null']


@pytest.mark.long
def test_the_papers_study_on_a_tiny_sample(sample, tmp_path):
    "To its end; then one run fails, and nothing else runs again."
    def study(*more):
        given = ','.join([*TINY, f'faces_dir={tmp_path}/faces', *more])
        return subprocess.run([sys.executable, '-m', 'lam_nb', 'study', 'nbs/recipes/paper.yaml', f'data_dir={sample}', f'override={given}',
                               f'out_dir={tmp_path}/paper'], cwd=ROOT, capture_output=True, text=True)
    done = study()
    assert done.returncode == 0, done.stdout + done.stderr
    page, state = (tmp_path / 'paper/report.html').read_text(), json.loads((tmp_path / 'paper/study.json').read_text())
    assert {about['state'] for about in state.values()} == {'done'} and len(state) == 7
    assert 'the comparison means nothing: the data are the made-up sample data' in page and '0.7807' in page
    assert 'Differences' in page and (tmp_path / 'paper/results.tex').exists() and (tmp_path / 'paper/study.ipynb').exists()
    again = study('test-scratch.checkpoint=nowhere.pt')
    assert again.returncode == 1 and '6 of them done before' in again.stdout and '1 of 7 runs are not done (test-scratch)' in again.stderr
    assert 'nowhere.pt' in (tmp_path / 'paper/report.html').read_text()


# What must not count as done

def test_a_run_that_died_as_it_began_again_is_not_done(run, monkeypatch):
    runs = dict(p=dict(notebook='prepare'), a=dict(TRAIN, needs=['p']), b=dict(notebook='evaluate', parameters=dict(checkpoint='{a}/x.pt')))
    assert sorted(run(runs).of_state('done')) == ['a', 'b', 'p']
    time.sleep(2.1)                                              # times are kept in whole seconds

    def dies(notebook, recipe): return [sys.executable, '-c', 'raise SystemExit(1)'] if notebook == 'train' else stand_in(notebook, recipe)
    monkeypatch.setattr(studies, '_command', dies)
    assert run(runs, override=['p.quality=80']).of_state('failed') == ['a']
    monkeypatch.setattr(studies, '_command', stand_in)
    study = run(runs, override=['p.quality=80'])
    assert study.of_state('done') == ['p', 'a', 'b'] and started(study.out).count('a') == 2 and started(study.out).count('b') == 2


def test_what_needs_a_run_that_was_made_anew_runs_again(run, tmp_path):
    runs = dict(a=TRAIN, b=dict(notebook='evaluate', parameters=dict(checkpoint='{a}/x.pt')))
    run(runs)
    time.sleep(2.1)
    shutil.rmtree(tmp_path / 'study/a')
    assert started(run(runs).out) == ['a', 'b', 'a', 'b']


def test_another_first_checkpoint_begins_a_training_anew(run, tmp_path):
    first = run(dict(a=dict(TRAIN, parameters=dict(checkpoint='x.pt'))))
    run(dict(a=dict(TRAIN, parameters=dict(checkpoint='y.pt'))))
    assert [resume for *_, resume in lines(first.out)] == ['None', 'False']


def test_a_run_that_cannot_begin_stops_no_other(run, tmp_path):
    (tmp_path / 'study').mkdir()
    (tmp_path / 'study/z').write_text('a file where its folder belongs')
    study = run(dict(z=TRAIN, a=TRAIN))
    assert study.of_state('done') == ['a'] and study.of_state('failed') == ['z']


def test_two_preparations_of_the_same_faces_are_refused(tmp_path):
    runs = dict(p=dict(notebook='prepare', grid=dict(quality=[80, 90])))
    with pytest.raises(ValueError, match='write the same faces'): plan_study(StudySettings(runs=runs))
    runs['p']['grid'] = [dict(quality=q, faces_dir=f'faces-{q}') for q in (80, 90)]
    assert len(plan_study(StudySettings(runs=runs))) == 2


def test_aliases_and_grids_that_would_grow_without_end_are_refused():
    text = 'a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n' + ''.join(f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]\n' for i in range(1, 8))
    given = dict(runs=dict(a=TRAIN), common=yaml.safe_load(text))
    with pytest.raises(ValueError, match='more than 10,000 values'): check_parameters(StudySettings, given)
    runs = {name: dict(TRAIN, grid=dict(seed=[*range(33)])) for name in 'ab'}
    runs['d'] = dict(notebook='evaluate', parameters=dict(checkpoint='{a}{b}'))
    with pytest.raises(ValueError, match='more than 1,000 runs'): plan_study(StudySettings(runs=runs))


def test_published_is_for_evaluations_of_that_split():
    with pytest.raises(ValueError, match='published is for runs of evaluate'):
        plan_study(StudySettings(runs=dict(a=dict(TRAIN, published='official code'))))
