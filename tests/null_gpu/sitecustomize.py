"What a pretended GPU cannot do. Every Python process of a rehearsal reads this (PYTHONPATH)."
import importlib.abc
import importlib.machinery
import os
import sys


def without_numbers(torch):
    "No cuDNN; and kernels that do nothing would find no number finite."
    torch.backends.cudnn.enabled = False
    real = torch.isfinite
    torch.isfinite = lambda tensor: real(tensor.cpu() if tensor.is_cuda else tensor)


def with_null_nccl(torch):
    "Instead of NCCL a group that answers like it where a device is wrong, and lets gloo do the work."
    import torch.distributed as dist
    from torch.distributed import distributed_c10d as c10d

    class NullNccl(c10d.ProcessGroup):
        def __init__(self, store, rank, size, timeout):
            super().__init__(rank, size)
            self.device = torch.device('cuda', torch.cuda.current_device())
            store.set(f'gpu {rank}', str(self.device))
            others = {other: store.get(f'gpu {other}').decode() for other in range(size) if other != rank}
            if same := [other for other, device in others.items() if device == str(self.device)]:
                raise RuntimeError(f'null NCCL: Duplicate GPU detected: rank {same[0]} and rank {rank} both on {self.device}')
            self.gloo = c10d.ProcessGroupGloo(store, rank, size, timeout)

        _device_types = [torch.device('cuda')]

        def getBackendName(self): return 'null_nccl'

        def look(self, tensors):
            "NCCL has one device a process; its others and the CPU are errors."
            for tensor in flat(tensors):
                if tensor.device != self.device: raise RuntimeError(f"null NCCL: a tensor on {tensor.device}, not {self.device}")

        def __getattr__(self, name): raise AttributeError(f'null NCCL has no {name}')

    def flat(tensors): return [tensors] if torch.is_tensor(tensors) else [t for part in tensors for t in flat(part)]

    def forwarded(name):
        def collective(self, *args, **kwargs):
            self.look([a for a in args if torch.is_tensor(a) or isinstance(a, list | tuple)])
            return getattr(self.gloo, name)(*args, **kwargs)
        return collective

    for name in ('allreduce', 'broadcast', 'allgather', 'gather', 'reduce', 'scatter', 'barrier'):
        setattr(NullNccl, name, forwarded(name))

    c10d.Backend.register_backend('null_nccl', NullNccl, devices=['cuda'])
    real = c10d.init_process_group

    def init(backend=None, *args, device_id=None, **kwargs):
        if backend != 'nccl': return real(backend, *args, **kwargs)
        if device_id is None or device_id.index != torch.cuda.current_device():
            raise RuntimeError(f'null NCCL: device_id = {device_id}, but the current device is cuda:{torch.cuda.current_device()}')
        return real('null_nccl', *args, **kwargs)
    dist.init_process_group = c10d.init_process_group = init


class AfterTorch(importlib.abc.MetaPathFinder):
    "Changes torch when it has been imported."
    def find_spec(self, name, path, target=None):
        if name != 'torch': return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda torch: (load(torch), without_numbers(torch), with_null_nccl(torch))
        return spec


if os.environ.get('NULL_GPU'):
    sys.meta_path.insert(0, AfterTorch())
