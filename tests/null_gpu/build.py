"""Builds the pretended GPUs for the torch of this interpreter, in about a second: needs gcc and nm.

torch calls CUDA's runtime and libraries through shared symbols. Those that its files import and null_gpu.c does not have become functions
that return 0. The driver (libcuda.so.1), which a machine without a GPU lacks, becomes a library of such functions.
"""
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
DRIVER = '''
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
'''


def missing() -> str:
    "What this machine lacks for pretended GPUs; '' for nothing."
    tools = [tool for tool in ('gcc', 'nm') if shutil.which(tool) is None]
    if tools: return f'no {" and no ".join(tools)} on this machine'
    if not list(_torch().glob('lib/libtorch_cuda.so')): return 'this torch is built without CUDA'
    return '' if _headers().is_dir() else "triton's CUDA headers are not installed"


def _torch() -> Path: return Path(importlib.util.find_spec('torch').origin).parent
def _headers() -> Path: return _torch().parent / 'triton/backends/nvidia/include'


def _compile(sources: list[Path], to: Path, *flags: str):
    subprocess.run(['gcc', '-shared', '-fPIC', '-O1', '-w', f'-I{_headers()}', *flags, '-o', to, *sources], check=True)


def _imported() -> set[str]:
    "CUDA's symbols that torch's libraries import."
    names = set()
    for library in ('libc10_cuda', 'libtorch_cuda', 'libtorch_python', 'libtorch_cuda_linalg'):
        file = _torch() / f'lib/{library}.so'
        if not file.exists(): continue
        text = subprocess.run(['nm', '-D', '--undefined-only', file], capture_output=True, text=True, check=True).stdout
        names |= set(re.findall(r'\b((?:cuda[A-Z]|__cuda|cublas|cusparse|cusolver|cufft|curand)\w+)', text))
    return names


def _driver_names() -> set[str]:
    "Names of the driver's functions in torch's libraries, which look them up while they run."
    names = set()
    for library in ('libc10_cuda', 'libtorch_cuda', 'libcaffe2_nvrtc', 'libtorch_python'):
        content = (_torch() / f'lib/{library}.so').read_bytes()
        names |= set(re.findall(rb'(?<![A-Za-z0-9_])cu[A-Z][A-Za-z0-9]*(?:_v[23])?(?![A-Za-z0-9_])', content))
    return {name.decode() for name in names}


def build(folder: Path) -> dict:
    "Builds into `folder`; returns the environment in which Python finds pretended GPUs."
    source = (HERE / 'null_gpu.c').read_text()
    own = set(re.findall(r'\b((?:cuda|__cuda|cublas)\w+)\(', source))
    zero = lambda names: '\n'.join(f'long {name}(void) {{ return 0; }}' for name in sorted(names))
    (rest := folder / 'rest.c').write_text(zero(_imported() - own))
    (driver := folder / 'driver.c').write_text(DRIVER + zero(name for name in _driver_names() if name not in DRIVER))
    _compile([HERE / 'null_gpu.c', rest], folder / 'null_gpu.so')
    _compile([driver], folder / 'libcuda.so.1', '-Wl,-soname,libcuda.so.1')
    return dict(LD_PRELOAD=str(folder / 'null_gpu.so'), LD_LIBRARY_PATH=f'{folder}:{os.environ.get("LD_LIBRARY_PATH", "")}'.rstrip(':'),
                PYTHONPATH=str(HERE), NULL_GPU='1', PYTORCH_NO_CUDA_MEMORY_CACHING='1', TORCH_FR_BUFFER_SIZE='0')
