"""Many single numbers that lie here and there on a GPU, taken together by one launch.

What a training step observes is such: losses, a sigma of each layer. Their addresses go with the launch, by value, so
nothing is copied from the host.
"""
import functools

import numpy as np
from chainer import backend
from chainer.backends import cuda

MOST = 256  # numbers of a launch: their addresses take 2,048 of the 4,096 bytes that it may carry

_BODY = r'''
struct Scalars { const float* of[MOST]; };

extern "C" __global__
void gather_scalars(Scalars scalars, int n, float* out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = *scalars.of[i];
}

// As Chainer's Summary does it: the square is rounded before it is added
extern "C" __global__
void accumulate_scalars(Scalars scalars, int n, float* sums, float* sums_of_squares) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        const float x = *scalars.of[i];
        sums[i] += x;
        sums_of_squares[i] += __fmul_rn(x, x);
    }
}
'''
KERNEL_SOURCES = {'scalars': _BODY.replace('MOST', str(MOST))}
_THREADS = 64
_ADDRESSES = np.dtype([('of', 'u8', MOST)])


@functools.cache
def get_kernel(name):  # pragma: no cover - gpu
    """One of the kernels, a ``cupy.RawKernel`` (compiled at its first launch)."""
    return cuda.cupy.RawKernel(KERNEL_SOURCES['scalars'], name)


def on_gpu(x):
    """Whether these functions take x: a CuPy array of one float32 without axes."""
    return isinstance(x, cuda.ndarray) and x.ndim == 0 and x.dtype == np.float32


def gather(arrays):
    """Put 0-d float32 arrays, of one device, into a new one: (n,)."""
    if not arrays:
        raise ValueError('expected at least one array')
    out = backend.get_array_module(*arrays).empty(len(arrays), np.float32)
    if isinstance(out, np.ndarray):
        out[...] = arrays
    else:  # pragma: no cover - gpu
        _launch('gather_scalars', arrays, out)
    return out


def accumulate(arrays, sums, sums_of_squares):
    """Add 0-d float32 arrays to ``sums``, and their squares to ``sums_of_squares``: float32, (n,), C-contiguous."""
    if isinstance(sums, np.ndarray):
        numbers = gather(arrays)
        sums += numbers
        sums_of_squares += numbers * numbers
    else:  # pragma: no cover - gpu
        _launch('accumulate_scalars', arrays, sums, sums_of_squares)


def _address(array):  # pragma: no cover - gpu
    return array.data.ptr


def _launch(name, arrays, *outs):  # pragma: no cover - gpu
    for i in range(0, len(arrays), MOST):
        some = arrays[i:i + MOST]
        addresses = np.zeros((), _ADDRESSES)
        addresses['of'][:len(some)] = [_address(array) for array in some]
        get_kernel(name)((-(-len(some) // _THREADS),), (_THREADS,), (
            addresses, np.int32(len(some)), *(out[i:i + MOST] for out in outs)))
