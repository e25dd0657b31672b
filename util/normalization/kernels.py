"""CUDA kernels of spectral normalization, and the code that launches them.

One power iteration with the scaled weight takes three launches (two more for each further iteration), the gradient
two. Nothing waits for the device, nothing is atomic: every sum has a fixed order, and the same input gives the same
bits.

The kernels read the weight in its own layout. Element (o, c) of the d_out x d_in matrix lies at ``o * inner +
(c / inner) * d_out * inner + c % inner``: with ``inner = d_in`` that is a plain row-major matrix (Linear, Convolution,
EmbedID), with ``inner = h * w`` a deconvolution's (d_in, d_out, h, w).

Every launch is described by numbers that depend on the layer's shape alone (:func:`grids`), and each kernel's work is a
device function of a block number: ``group_kernels.py`` gives the same blocks of many layers to one launch.
"""
import math

import numpy as np
from chainer import backend
from chainer.backends import cuda

_BODY = r'''
// The sum of one value per thread, the same in all threads. blockDim.x is a power of two, and cache as long.
__device__ real block_sum(real value, real* cache) {
    const int thread = threadIdx.x;
    cache[thread] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half) cache[thread] += cache[thread + half];
        __syncthreads();
    }
    const real sum = cache[0];
    __syncthreads();  // the cache may be used again
    return sum;
}

// ||x||^2 of n values, the same in all threads and in all blocks.
__device__ real block_square(const real* x, int n, real* cache) {
    real sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i] * x[i];
    return block_sum(sum, cache);
}

// raw = W^T x, or W^T x / (||x|| + eps). A block takes 32 columns, 32 neighbouring threads one row of them at a time.
__device__ void columns(int block, const real* W, const real* x, int normalize, real eps, real* raw,
                        int d_out, int d_in, int inner) {
    __shared__ real cache[1024];
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32, rows = blockDim.x / 32;
    const real scale = normalize ? 1 / (sqrt(block_square(x, d_out, cache)) + eps) : (real)1;
    const int c = block * 32 + lane;
    real sum = 0;
    if (c < d_in) {
        const real* column = W + (size_t)(c / inner) * d_out * inner + c % inner;
        for (int o = row; o < d_out; o += rows) sum += column[(size_t)o * inner] * x[o];
    }
    cache[threadIdx.x] = sum;
    __syncthreads();
    for (int half = rows / 2; half > 0; half /= 2) {
        if (row < half) cache[threadIdx.x] += cache[threadIdx.x + 32 * half];
        __syncthreads();
    }
    if (row == 0 && c < d_in) raw[c] = scale * cache[lane];
}

// v = raw / (||raw|| + eps) and t = W v. A block takes one row, and its share of v.
__device__ void rows(int block, const real* W, const real* raw, real eps, real* t, real* v,
                     int d_out, int d_in, int inner) {
    __shared__ real cache[256];
    const real* row = W + (size_t)block * inner;
    real dot = 0, square = 0;
    for (int c = threadIdx.x; c < d_in; c += blockDim.x) {
        const real x = raw[c];
        dot += row[(size_t)(c / inner) * d_out * inner + c % inner] * x;
        square += x * x;
    }
    const real scale = 1 / (sqrt(block_sum(square, cache)) + eps);
    dot = block_sum(dot, cache);
    if (threadIdx.x == 0) t[block] = dot * scale;
    const size_t step = (size_t)d_out * blockDim.x;
    for (size_t c = (size_t)block * blockDim.x + threadIdx.x; c < d_in; c += step) v[c] = raw[c] * scale;
}

// u = t / (||t|| + eps), written twice; sigma = u^T t; W_bar = (factor / sigma) W.
__device__ void scale(int block, int blocks, const real* W, const real* t, real eps, real factor, real* W_bar, real* u,
                      real* stored, real* sigma, int d_out, int size) {
    __shared__ real cache[256];
    const real square = block_square(t, d_out, cache);
    const real inverse = 1 / (sqrt(square) + eps), top = square * inverse, multiplier = factor / top;
    const size_t first = (size_t)block * blockDim.x + threadIdx.x, step = (size_t)blocks * blockDim.x;
    for (size_t i = first; i < size; i += step) W_bar[i] = multiplier * W[i];
    for (size_t o = first; o < d_out; o += step) { const real x = t[o] * inverse; u[o] = x; stored[o] = x; }
    if (first == 0) *sigma = top;
}

// partial[block]: a block's share of <g, W>.
__device__ void dot(int block, int blocks, const real* W, const real* g, real* partial, int size) {
    __shared__ real cache[256];
    const size_t step = (size_t)blocks * blockDim.x;
    real sum = 0;
    for (size_t i = (size_t)block * blockDim.x + threadIdx.x; i < size; i += step) sum += g[i] * W[i];
    sum = block_sum(sum, cache);
    if (threadIdx.x == 0) partial[block] = sum;
}

// gW = factor / sigma (g - (<g, W> / sigma) u v^T).
__device__ void gradient(int block, int blocks, const real* g, const real* u, const real* v, const real* sigma,
                         const real* partial, int n_partial, real factor, real* gW, int d_out, int inner, int size) {
    __shared__ real cache[256];
    real sum = 0;
    for (int i = threadIdx.x; i < n_partial; i += blockDim.x) sum += partial[i];
    const real top = *sigma, projection = block_sum(sum, cache) / top, multiplier = factor / top;
    for (size_t i = (size_t)block * blockDim.x + threadIdx.x; i < size; i += (size_t)blocks * blockDim.x) {
        const int index = (int)i, line = index / inner, o = line % d_out, c = line / d_out * inner + index % inner;
        gW[i] = multiplier * (g[i] - projection * u[o] * v[c]);
    }
}

extern "C" __global__
void sn_columns(const real* W, const real* x, int normalize, real eps, real* raw, int d_out, int d_in, int inner) {
    columns(blockIdx.x, W, x, normalize, eps, raw, d_out, d_in, inner);
}
extern "C" __global__
void sn_rows(const real* W, const real* raw, real eps, real* t, real* v, int d_out, int d_in, int inner) {
    rows(blockIdx.x, W, raw, eps, t, v, d_out, d_in, inner);
}
extern "C" __global__
void sn_scale(const real* W, const real* t, real eps, real factor, real* W_bar, real* u, real* stored, real* sigma,
              int d_out, int size) {
    scale(blockIdx.x, gridDim.x, W, t, eps, factor, W_bar, u, stored, sigma, d_out, size);
}
extern "C" __global__
void sn_dot(const real* W, const real* g, real* partial, int size) {
    dot(blockIdx.x, gridDim.x, W, g, partial, size);
}
extern "C" __global__
void sn_gradient(const real* g, const real* u, const real* v, const real* sigma, const real* partial, int n_partial,
                 real factor, real* gW, int d_out, int inner, int size) {
    gradient(blockIdx.x, gridDim.x, g, u, v, sigma, partial, n_partial, factor, gW, d_out, inner, size);
}
'''

KERNEL_NAMES = ('sn_columns', 'sn_rows', 'sn_scale', 'sn_dot', 'sn_gradient')
# CUDA source by name, for the compile check; the name after the underscore is a NumPy dtype's.
KERNEL_SOURCES = {
    'spectral_float32': 'typedef float real;' + _BODY,
    'spectral_float64': 'typedef double real;' + _BODY,
}

_THREADS = 256
_compiled = {}


def get_kernel(name, dtype):  # pragma: no cover - gpu
    """One of :data:`KERNEL_NAMES` for float32 or float64, a ``cupy.RawKernel`` (compiled at its first launch)."""
    key = name, dtype.name
    if key not in _compiled:
        _compiled[key] = cuda.cupy.RawKernel(KERNEL_SOURCES['spectral_' + dtype.name], name)
    return _compiled[key]


def usable(*arrays):
    """Whether the kernels take these arrays: CuPy, C-contiguous, all float32 or all float64, below 2^31 elements."""
    dtype = arrays[0].dtype
    return dtype in (np.float32, np.float64) and all(
        isinstance(a, cuda.ndarray) and a.dtype == dtype and a.flags.c_contiguous and a.size < 2 ** 31 for a in arrays)


def layout(shape, axis):
    """(d_out, d_in, inner) of a weight whose outputs are its axis ``axis``; see the top of this module."""
    d_out = shape[axis]
    return d_out, math.prod(shape) // d_out, math.prod(shape[axis + 1:])


def _power_of_two(n, low, high):
    """The smallest power of two that is at least ``n``, within [low, high]."""
    return min(max(1 << (max(n, 1) - 1).bit_length(), low), high)


def grids(d_out, d_in):
    """(blocks, threads) of each kernel for a d_out x d_in weight: a dict by the names in :data:`KERNEL_NAMES`."""
    size = d_out * d_in
    return {
        'sn_columns': (-(-d_in // 32), 32 * _power_of_two(d_out, 1, 32)),
        'sn_rows': (d_out, _power_of_two(d_in, 32, _THREADS)),
        'sn_scale': (min(-(-size // (4 * _THREADS)), 2048), _THREADS),
        'sn_dot': (min(-(-size // (4 * _THREADS)), _THREADS), _THREADS),
        'sn_gradient': (min(-(-size // (4 * _THREADS)), 2048), _THREADS),
    }


def _launch(name, grid, dtype, *args):  # pragma: no cover - gpu
    """Launch a kernel on the current stream; Python's ints become int32 and floats ``dtype``."""
    blocks, threads = grid[name]
    scalars = {int: np.int32, float: dtype.type}
    get_kernel(name, dtype)((blocks,), (threads,), tuple(scalars.get(type(a), lambda x: x)(a) for a in args))


def normalize(W, u, n_power_iteration, eps, factor, axis, stored):  # pragma: no cover - gpu
    """:func:`util.normalization.power_iteration.normalize` in ``1 + 2 n_power_iteration`` launches."""
    xp = backend.get_array_module(W)
    d_out, d_in, inner = layout(W.shape, axis)
    grid, dtype = grids(d_out, d_in), W.dtype
    raw, v = xp.empty(d_in, dtype), xp.empty(d_in, dtype)
    t, new_u = xp.empty(d_out, dtype), xp.empty(d_out, dtype)
    sigma, W_bar = xp.empty((), dtype), xp.empty(W.shape, dtype)
    for i in range(n_power_iteration):
        _launch('sn_columns', grid, dtype, W, t if i else u, int(i > 0), eps, raw, d_out, d_in, inner)
        _launch('sn_rows', grid, dtype, W, raw, eps, t, v, d_out, d_in, inner)
    stored = new_u if stored is None else stored
    _launch('sn_scale', grid, dtype, W, t, eps, factor, W_bar, new_u, stored, sigma, d_out, W.size)
    return W_bar, new_u, v, sigma


def gradient(W, g, u, v, sigma, factor, axis):  # pragma: no cover - gpu
    """:func:`util.normalization.power_iteration.gradient` in two launches."""
    xp = backend.get_array_module(W)
    d_out, d_in, inner = layout(W.shape, axis)
    grid, dtype = grids(d_out, d_in), W.dtype
    n_partial = grid['sn_dot'][0]
    partial, gW = xp.empty(n_partial, dtype), xp.empty(W.shape, dtype)
    _launch('sn_dot', grid, dtype, W, g, partial, W.size)
    _launch('sn_gradient', grid, dtype, g, u, v, sigma, partial, n_partial, factor, gW, d_out, inner, W.size)
    return gW
