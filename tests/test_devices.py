"Which device and which precision: every cause why there is no GPU, by name; what each precision does to a training on the CPU."
import os
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from test_training import finished, same, settings

sys.path.insert(0, str(ROOT / 'tests/null_gpu'))
from small import Small

from lam_nb import devices, launching, training
from lam_nb.batches import WindowData, more_workers, window_loss
from lam_nb.devices import chosen_precision, run_line, usable_gpus, worker_count
from lam_nb.launching import train, train_windows
from lam_nb.models import MODELS
from lam_nb.runs import Progress
from lam_nb.training import TrainSettings, make_optimizer, new_run, train_epoch


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(MODELS, 'Small', Small)
    return dict(model='Small', image_size=32, batch_size=8)


@pytest.fixture
def machine(monkeypatch):
    "A machine without a GPU, whose driver, PyTorch and environment a test decides."
    def be(driver='', built='13.2', **environment):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        monkeypatch.setattr(torch.version, 'cuda', built)
        monkeypatch.setattr(devices, '_driver', lambda: driver)
        monkeypatch.setattr(devices, '_signs_of_gpu', lambda: ['/dev/nvidia0'] if driver else [])
        for name in ('CUDA_VISIBLE_DEVICES', 'SLURM_JOB_ID', *devices._JOB_GPUS): monkeypatch.delenv(name, raising=False)
        for name, value in environment.items(): monkeypatch.setenv(name, value)
    return be


CAUSES = [
    (dict(built=None), 'built for the CPU only'),
    (dict(CUDA_VISIBLE_DEVICES=''), "CUDA_VISIBLE_DEVICES = '' hides the GPUs: unset it"),
    (dict(CUDA_VISIBLE_DEVICES='-1', driver='580.65.06'), "CUDA_VISIBLE_DEVICES = '-1' hides the GPUs"),
    (dict(CUDA_VISIBLE_DEVICES='NoDevFiles', SLURM_JOB_ID='7'), 'as for a Slurm job that asked for none: --gpus-per-node=1'),
    (dict(SLURM_JOB_ID='7', driver='580.65.06'), 'this Slurm job asked for no GPU'),
    (dict(driver='535.104.05'), 'the driver 535.104.05 is older than this PyTorch, whose CUDA 13.2 needs 580'),
    (dict(driver='470.82', built='12.6'), 'needs 525'),
    (dict(driver='580.65.06', SLURM_JOB_ID='7', SLURM_JOB_GPUS='0'), 'is there, but CUDA does not start'),
    (dict(), 'no NVIDIA driver was found; a container needs --gpus all')]


@pytest.mark.parametrize('how, cause', CAUSES)
def test_a_gpu_that_is_wanted_and_not_there_is_refused_with_its_cause(machine, how, cause):
    machine(**how)
    with pytest.raises(ValueError) as e: usable_gpus('cuda')
    assert str(e.value).startswith('device = cuda, but there is no GPU to compute on: ') and cause in str(e.value)


@pytest.mark.parametrize('how, warns', [
    (dict(driver='535.104.05'), True), (dict(), False), (dict(CUDA_VISIBLE_DEVICES='', driver='580.65'), False)])
def test_auto_warns_where_a_gpu_should_be(machine, how, warns):
    machine(**how)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert usable_gpus('auto') == 0 and usable_gpus('cpu') == 0
    assert [('signs of a GPU' in str(w.message), '535' in str(w.message)) for w in said] == [(True, True)] * warns


def test_a_training_that_wants_a_gpu_touches_nothing_without(sample, tmp_path):
    with pytest.raises(ValueError, match='device = cuda'): train(settings(sample, tmp_path / 'run', device='cuda'))
    assert not (tmp_path / 'run').exists()


def test_the_first_line_says_on_what_a_run_runs(sample, tmp_path, capsys, small):
    train(settings(sample, tmp_path, epochs=1, precision='tf32', **small))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == run_line(1, 0, 'tf32') + ', steps of 8 windows' and first.startswith('1 process on the CPU (')
    assert f'float32, torch {torch.__version__}' in first


def test_adam_is_the_official_one_in_fp32_and_fused_otherwise():
    model, fused = torch.nn.Linear(2, 2), {}
    for precision in ('fp32', 'tf32', 'bf16', 'fp16', 'auto'):
        fused[precision] = make_optimizer(model, TrainSettings(precision=precision)).defaults['fused']
    assert fused == dict(fp32=None, tf32=True, bf16=True, fp16=True, auto=True)       # None: foreach on a GPU, as Adam(params, lr)


@pytest.mark.parametrize('precision, kind', [('bf16', torch.bfloat16), ('fp16', torch.float16), ('tf32', torch.float32)])
def test_the_recurrent_part_is_float32(precision, kind):
    model, kinds = Small(), []
    for part in (model.conv, model.lstm, model.last):
        part.register_forward_hook(lambda part, given, made: kinds.append((made[0] if isinstance(made, tuple) else made).dtype))
    window_loss(model, torch.zeros(2, 7, 32, 32, 3, dtype=torch.uint8), torch.tensor([0, 1]), torch.ones(2), precision)
    assert kinds == [kind, torch.float32, torch.float32] and chosen_precision(precision, torch.device('cpu')) == precision


def test_fp16_scales_its_loss_and_leaves_out_a_step_that_overflows(sample, tmp_path, small):
    s = settings(sample, tmp_path, precision='fp16', clip_norm=1., **small)
    run, data = new_run(s, torch.device('cpu')), WindowData(train_windows(s), s, [.136, .864], torch.device('cpu'))
    before, scale = run.model.last.weight.clone(), run.scaler.get_scale()
    batch, real = next(iter(data.load(data.batches(0)[:1]))), data.loss
    data.loss = lambda *a: real(*a) * float('inf')
    training.train_step(run, run.model, data, batch)
    assert torch.equal(before, run.model.last.weight) and run.scaler.get_scale() == scale / 2
    data.loss = real
    loss = training.train_step(run, run.model, data, batch)
    assert 0 < loss < 5 and not torch.equal(before, run.model.last.weight)


def test_fp16_is_resumed_with_its_scaler(sample, tmp_path, small):
    options = dict(precision='fp16', schedule='constant', warmup=0, **small)
    train(settings(sample, tmp_path / 'whole', **options))
    train(settings(sample, tmp_path / 'parts', **options | dict(epochs=1)))
    assert finished(tmp_path / 'parts')['scaler']['scale'] == 2 ** 16
    train(settings(sample, tmp_path / 'parts', **options))
    assert same(finished(tmp_path / 'whole'), finished(tmp_path / 'parts'))


def test_a_smaller_last_batch_is_not_compiled(sample, tmp_path, small, monkeypatch):
    "Counted by a backend that compiles nothing: graphs of an epoch of whole batches and a rest."
    s = settings(sample, tmp_path, compile=True, **small | dict(batch_size=7))
    run, data, graphs = new_run(s, torch.device('cpu')), WindowData(train_windows(s), s, [.136, .864], torch.device('cpu')), []
    monkeypatch.setattr(training, 'save_run', lambda *a, **k: None)
    sizes = [len(items) for items in data.batches(0)]
    assert sizes[-1] < sizes[0] == sizes[1]
    torch.compiler.reset()
    def backend(graph, inputs):
        graphs.append(run.step)
        return graph.forward
    run.model.compile(backend=backend)
    train_epoch(run, run.model, data, Progress(len(data), 'training', show=False))
    assert graphs and set(graphs) == {0}
    torch.compiler.reset()


def test_checkpoints_come_by_minutes_and_beside_the_training(sample, tmp_path, small, monkeypatch):
    saves, real = [], training.save_run
    monkeypatch.setattr(training, 'save_run', lambda run, name='last.pt', beside=False: (saves.append((run.step, name, beside)),
                                                                                        real(run, name, beside)))
    train(settings(sample, tmp_path / 'often', epochs=1, save_every=0, save_minutes=1e-9, **small))
    n = len(train_windows(settings(sample, tmp_path, **small)))
    steps = -(-n // 8)
    end = [(steps, 'last.pt', False), (0, 'best.pt', False), (0, 'last.pt', False)]       # written before what follows begins
    assert saves == [(i, 'last.pt', True) for i in range(1, steps)] + end
    saves.clear()
    train(settings(sample, tmp_path / 'rarely', epochs=1, save_every=0, **small))
    assert saves == end


def test_a_full_disk_beside_the_training_ends_it_with_words(sample, tmp_path, small, monkeypatch):
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(training, 'save_checkpoint', full)
    with pytest.raises(OSError, match='could not be written.*make room and start the same command again'):
        train(settings(sample, tmp_path, epochs=1, save_every=1, **small))


def test_workers_follow_the_cores(monkeypatch):
    cuda, cpu = torch.device('cuda'), torch.device('cpu')
    for cores, expected in ((1, 1), (2, 1), (4, 3), (64, 8)):
        monkeypatch.setattr(devices, 'core_count', lambda cores=cores: cores)
        assert worker_count('auto', cuda) == expected and worker_count('auto', cpu) == 1 and worker_count(5, cpu) == 5
    assert more_workers(0, .5, 8).endswith('give num_workers = 2')


def test_more_loader_processes_than_cores_are_said(sample, tmp_path, small):
    with pytest.warns(UserWarning, match='num_workers = auto takes what there is'):
        train(settings(sample, tmp_path, epochs=1, **small | dict(num_workers=2 * os.cpu_count())))


def test_a_batch_that_does_not_fit_on_several_gpus_ends_with_the_one_that_would(sample, tmp_path, small):
    "The error comes in the middle of the backward pass, whose hooks (of DDP) then wait for the other processes."
    s = settings(sample, tmp_path, accumulate=2, **small)
    run, data = new_run(s, torch.device('cpu')), WindowData(train_windows(s), s, [.136, .864], torch.device('cpu'))
    batches, sizes = data.batches(0), []
    def full(part, given, made):
        sizes.append(len(made) // 7)
        if sizes[-1] > 2: made.register_hook(lambda gradient: (_ for _ in ()).throw(torch.OutOfMemoryError('CUDA out of memory.')))
    run.model.conv.register_forward_hook(full)
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = torch.nn.parallel.DistributedDataParallel(run.model)
        with pytest.raises(MemoryError, match='batch of 8 does not fit.*batch_size = 2 with accumulate = 8 would fit'):
            training._checked_step(run, model, data, batches, next(iter(data.load(batches[:1]))))
    finally: dist.destroy_process_group()
    assert sizes == [8, 4, 2]


@pytest.mark.parametrize('how, words', [
    (dict(gpus=2, num_processes=3), 'num_processes = 3, but this machine has 2 GPUs: give at most 2'),
    (dict(num_nodes=2), 'num_nodes = 2 needs rdzv_endpoint'),
    (dict(SLURM_STEP_NUM_TASKS='4', SLURM_STEP_NUM_NODES='1'), 'give it one task a machine: srun --ntasks-per-node=1'),
    (dict(SLURM_STEP_NUM_TASKS='2', SLURM_STEP_NUM_NODES='2'), 'give num_nodes=2 and rdzv_endpoint='),
    (dict(OMPI_COMM_WORLD_SIZE='4'), 'mpirun starts this command 4 times')])
def test_what_cannot_be_started_is_refused_before_anything_is_changed(sample, tmp_path, small, monkeypatch, how, words):
    "Earlier results stay, for instance when a queue starts four trainings in one folder."
    train(settings(sample, tmp_path, epochs=1, **small))
    before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    monkeypatch.setattr(launching, 'usable_gpus', lambda device: how.get('gpus', 0))
    for name in how:
        if name.isupper(): monkeypatch.setenv(name, how[name])
    changes = {name: value for name, value in how.items() if name.startswith('num_')}
    with pytest.raises(ValueError, match=words): launching.start_training(settings(sample, tmp_path, resume=False, **small | changes))
    assert {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()} == before


def test_a_stop_after_the_last_batch_says_saved_only_when_it_is(sample, tmp_path, small, monkeypatch):
    "The error of a checkpoint that is written beside the training is not lost."
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    s = settings(sample, tmp_path, **small)
    run = new_run(s, torch.device('cpu'))
    log = training._EpochLog(run, WindowData(train_windows(s), s, [.136, .864], torch.device('cpu')), [], None)
    monkeypatch.setattr(training, 'save_checkpoint', full)
    training.save_run(run, beside=True)
    with pytest.raises(OSError, match='could not be written'): log.end_epoch(['SIGTERM'])
