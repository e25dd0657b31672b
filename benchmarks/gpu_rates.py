"""What a device can do: the rate of large matrix products, and what it is called."""
import importlib.metadata
import subprocess
import time

import numpy as np

from benchmarks import gpu_timing
from util import compat
from util.files import UserError

SIZES = (2048, 4096, 8192)  # rows and columns; the fastest counts
CPU_SIZE = 512
SECONDS = 0.3  # of each size and type
_CUDNN = ('nvidia-cudnn-cu13', 'nvidia-cudnn-cu12')


def make_steps(name, device):
    """Tasks of a process that measures: ``'rates'`` -> TFLOP/s by type, ``'describe'`` -> words; both guarded.

    Args:
        name (str): Not used.
        device (str): ``'-1'`` for the CPU, or the number of a GPU.

    """
    if device == '-1':
        return {'rates': gpu_timing.guarded(_on_cpu), 'describe': gpu_timing.guarded(lambda: ('CPU', None))}
    try:
        import cupy
    except ImportError as error:
        raise UserError('products of matrices are measured through CuPy: {}'.format(error)) from error
    cupy.cuda.Device(int(device)).use()
    return {'rates': gpu_timing.guarded(lambda: _on_gpu(cupy)),
            'describe': gpu_timing.guarded(lambda: _describe(cupy, int(device)))}


def _on_cpu():
    a = np.random.RandomState(0).rand(CPU_SIZE, CPU_SIZE).astype('f')
    turn = gpu_timing.take_turn(lambda: a @ a, gpu_timing.HostClock(), 0.05, 50)
    rate = 2e-9 * CPU_SIZE ** 3 / min(turn['ms'])
    return {'fp32': rate, 'tf32': rate, 'bf16': rate}


def _on_gpu(cupy):
    from cupy_backends.cuda.libs import cublas
    runtime, clock, rates = cupy.cuda.runtime, gpu_timing.CupyClock(cupy), {}
    kinds = {'fp32': (runtime.CUDA_R_32F, 'f4', cublas.CUBLAS_COMPUTE_32F),
             'tf32': (runtime.CUDA_R_32F, 'f4', cublas.CUBLAS_COMPUTE_32F_FAST_TF32),
             'bf16': (runtime.CUDA_R_16BF, 'u2', cublas.CUBLAS_COMPUTE_32F)}
    one, zero = np.ones((), 'f4'), np.zeros((), 'f4')  # whose addresses cuBLAS is told
    for size in SIZES:
        # Random: a GPU is faster, and less hot, with zeros
        floats = cupy.random.RandomState(0).standard_normal((size, size)).astype('f4')
        for kind, (cuda_type, dtype, compute) in kinds.items():
            a = floats if dtype == 'f4' else (floats.view('u4') >> np.uint32(16)).astype('u2')  # bfloat16, cut off
            out = cupy.empty_like(a)

            def product(a=a, out=out, cuda_type=cuda_type, compute=compute, size=size):
                handle = cupy.cuda.device.get_cublas_handle()  # in the current stream
                cublas.gemmEx(handle, 0, 0, size, size, size, one.ctypes.data, a.data.ptr, cuda_type, size, a.data.ptr,
                              cuda_type, size, zero.ctypes.data, out.data.ptr, cuda_type, size, compute,
                              cublas.CUBLAS_GEMM_DEFAULT)
            seconds = SECONDS if kind != 'fp32' else SECONDS / 3
            turn = gpu_timing.take_turn(product, clock, seconds, 100)
            rates[kind] = max(rates.get(kind, 0), 2e-9 * size ** 3 / sorted(turn['ms'])[len(turn['ms']) // 2])
    return rates


def _describe(cupy, number):
    """The device's name, and the CUDA version of CuPy's runtime library."""
    version = cupy.cuda.runtime.runtimeGetVersion()
    name = cupy.cuda.runtime.getDeviceProperties(number)['name'].decode()
    return name, '{}.{}'.format(version // 1000, version % 1000 // 10)


def describe_versions(cuda):
    """Words of the versions that matter, as they are installed; asks no device.

    Args:
        cuda (str or None): What :func:`_describe` said.

    """
    found = compat.versions()
    versions = {key: found[key] for key in ('python', 'numpy', 'chainer', 'cupy')}
    versions['pytorch'] = _version('torch')
    versions['cudnn'] = next(filter(None, map(_version, _CUDNN)), None)
    versions['cuda'], versions['driver'] = cuda, _driver()
    return ', '.join('{} {}'.format(key, value or 'not found') for key, value in versions.items())


def _version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver():
    try:
        words = subprocess.run(['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'], timeout=20,
                               capture_output=True, text=True, check=True).stdout.split()
        return words[0] if words else None
    except (OSError, subprocess.SubprocessError):
        return None


def today():
    return time.strftime('%Y-%m-%d %H:%M %Z')
