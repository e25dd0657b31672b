"""Spectral normalization of many weights at once: the kernels of ``kernels.py``, each launched once for all of them.

A normalization of any number of layers takes three launches (two more for each further iteration), its gradient two. A
block looks up in a table of the layers, which is on the device, which layer's and which of its blocks it is, and does
what that block does in a launch for its layer alone, in the same order: the bits are the same.

The table says where the weights and the stored vectors are. It is made once and kept for as long as they stay where
they are; results are new arrays each time, parts of two buffers: one of weights, which lives as long as a graph needs
it, and a small one of vectors. Gradients lie anywhere, so that their addresses go with the launch, by value.
"""
import functools
import itertools
import typing

import numpy as np
from chainer import backend
from chainer.backends import cuda

from util.engine.graph import keep
from util.normalization import kernels

MOST = 128  # layers; their addresses take 1,024 of the 4,096 bytes that a launch may carry

_BODY = r'''
// A layer. Its vectors lie one after the other: raw and v (d_in), t, u and the u from before (d_out), sigma.
struct Layer {
    const real* W;
    real* stored;               // where the u lies that the next normalization starts from
    long long weight, vectors;  // where the layer's part begins in the buffers of weights and of vectors
    int d_out, d_in, inner, partial;
    int first[6];               // its first block in each kernel; the row behind the last layer has the number of all
};
enum { COLUMNS, ROWS, SCALE, DOT, GRADIENT };

struct Gradients { const real* of[MOST]; };  // null where there is none

// The number of the layer that this block works for.
__device__ int find(const Layer* layers, int n, int kernel) {
    int low = 0, high = n;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (layers[middle].first[kernel] <= (int)blockIdx.x) low = middle; else high = middle;
    }
    return low;
}

extern "C" __global__
void sn_columns_of_all(const Layer* layers, int n, int again, real eps, real* vectors) {
    const Layer layer = layers[find(layers, n, COLUMNS)];
    real* raw = vectors + layer.vectors;
    const real* x = again ? raw + 2 * (size_t)layer.d_in : layer.stored;
    columns(blockIdx.x - layer.first[COLUMNS], layer.W, x, again, eps, raw, layer.d_out, layer.d_in, layer.inner);
}
extern "C" __global__
void sn_rows_of_all(const Layer* layers, int n, real eps, real* vectors) {
    const Layer layer = layers[find(layers, n, ROWS)];
    real *raw = vectors + layer.vectors, *v = raw + layer.d_in, *t = v + layer.d_in;
    rows(blockIdx.x - layer.first[ROWS], layer.W, raw, eps, t, v, layer.d_out, layer.d_in, layer.inner);
}
// Keeps the stored u in the place of the one from before, and puts the new one there, if it is to move.
extern "C" __global__
void sn_scale_of_all(const Layer* layers, int n, real eps, real factor, int move, real* W_bar, real* vectors) {
    const int i = find(layers, n, SCALE), block = blockIdx.x - layers[i].first[SCALE];
    const Layer layer = layers[i];
    const int blocks = layers[i + 1].first[SCALE] - layer.first[SCALE];
    real *t = vectors + layer.vectors + 2 * (size_t)layer.d_in, *u = t + layer.d_out, *before = u + layer.d_out;
    const size_t step = (size_t)blocks * blockDim.x;
    for (size_t o = (size_t)block * blockDim.x + threadIdx.x; o < layer.d_out; o += step) before[o] = layer.stored[o];
    // The thread that keeps an element here is the one that replaces it there
    scale(block, blocks, layer.W, t, eps, factor, W_bar + layer.weight, u, move ? layer.stored : u,
          before + layer.d_out, layer.d_out, layer.d_out * layer.d_in);
}
extern "C" __global__
void sn_dot_of_all(const Layer* layers, int n, Gradients g, real* partial) {
    const int i = find(layers, n, DOT);
    const Layer layer = layers[i];
    if (!g.of[i]) return;
    dot(blockIdx.x - layer.first[DOT], layers[i + 1].first[DOT] - layer.first[DOT], layer.W, g.of[i],
        partial + layer.partial, layer.d_out * layer.d_in);
}
extern "C" __global__
void sn_gradient_of_all(const Layer* layers, int n, Gradients g, const real* vectors, const real* partial, real factor,
                        real* gW) {
    const int i = find(layers, n, GRADIENT);
    const Layer layer = layers[i];
    if (!g.of[i]) return;
    const real *v = vectors + layer.vectors + layer.d_in, *u = v + layer.d_in + layer.d_out;
    gradient(blockIdx.x - layer.first[GRADIENT], layers[i + 1].first[GRADIENT] - layer.first[GRADIENT], g.of[i], u, v,
             u + 2 * (size_t)layer.d_out, partial + layer.partial, layers[i + 1].first[DOT] - layer.first[DOT], factor,
             gW + layer.weight, layer.d_out, layer.inner, layer.d_out * layer.d_in);
}
'''.replace('MOST', str(MOST))

# Name, and the kernel of kernels.py whose blocks these are; in the order of Layer.first
KERNEL_NAMES = {'sn_columns_of_all': 'sn_columns', 'sn_rows_of_all': 'sn_rows', 'sn_scale_of_all': 'sn_scale',
                'sn_dot_of_all': 'sn_dot', 'sn_gradient_of_all': 'sn_gradient'}
KERNEL_SOURCES = {name: source + _BODY for name, source in kernels.KERNEL_SOURCES.items()}

# The most that the same kernel has for one layer: threads without work add zeros
_THREADS = {'sn_columns_of_all': 1024}
_LAYER = np.dtype([('W', 'u8'), ('stored', 'u8'), ('weight', 'i8'), ('vectors', 'i8'), ('d_out', 'i4'), ('d_in', 'i4'),
                   ('inner', 'i4'), ('partial', 'i4'), ('first', 'i4', 6)], align=True)
_ADDRESSES = np.dtype([('of', 'u8', MOST)])
_ALIGNED = 64  # numbers: weights begin where a new array might
_compiled = {}


def get_kernel(name, dtype):  # pragma: no cover - gpu
    """One of :data:`KERNEL_NAMES` for float32 or float64, a ``cupy.RawKernel`` (compiled at its first launch)."""
    key = name, dtype.name
    if key not in _compiled:
        _compiled[key] = cuda.cupy.RawKernel(KERNEL_SOURCES['spectral_' + dtype.name], name)
    return _compiled[key]


class Plan(typing.NamedTuple):
    """Where the parts of all layers lie, and how many blocks each kernel has."""

    table: np.ndarray   # (layers + 1,), _LAYER, without addresses; the last row is behind them
    weights: list       # a slice of a buffer of weights for each layer
    vectors: list       # and of the buffer of vectors: for v, u, the u from before, and sigma
    n_weights: int      # the lengths of these buffers, and of that of partial sums
    n_vectors: int
    n_partial: int
    blocks: dict        # by the names of the kernels


@functools.lru_cache(maxsize=64)
def plan(layers):
    """Lay out the parts of some layers.

    Args:
        layers (tuple of tuple): Shape of a weight, and its axis that counts outputs, of each layer.

    Returns:
        Plan

    """
    table, weights, vectors = np.zeros(len(layers) + 1, _LAYER), [], []
    for row, following, (shape, axis) in zip(table[:-1], table[1:], layers, strict=True):
        d_out, d_in, inner = kernels.layout(shape, axis)
        grids = kernels.grids(d_out, d_in)
        row['d_out'], row['d_in'], row['inner'] = d_out, d_in, inner
        following['weight'] = row['weight'] + -(-d_out * d_in // _ALIGNED) * _ALIGNED
        following['vectors'] = row['vectors'] + 2 * d_in + 3 * d_out + 1
        following['partial'] = row['partial'] + grids['sn_dot'][0]
        following['first'] = row['first']
        following['first'][:len(KERNEL_NAMES)] += [grids[kind][0] for kind in KERNEL_NAMES.values()]
        weights.append(slice(int(row['weight']), int(row['weight']) + d_out * d_in))
        bounds = itertools.accumulate((int(row['vectors']) + d_in, d_in, d_out, d_out, d_out, 1))
        v, _, *others = itertools.starmap(slice, itertools.pairwise(bounds))
        vectors.append((v, *others))
    lengths = (int(table[-1][name]) for name in ('weight', 'vectors', 'partial'))
    return Plan(table, weights, vectors, *lengths,
                dict(zip(KERNEL_NAMES, table[-1]['first'].tolist(), strict=False)))


def _address(array):  # pragma: no cover - gpu
    return array.data.ptr


def _send(array):  # pragma: no cover - gpu
    return cuda.cupy.asarray(array)


@functools.lru_cache(maxsize=64)
def _table(layers, addresses):  # pragma: no cover - gpu
    """:func:`plan`'s table with the addresses of weights and stored vectors, uint8, on the current device."""
    table = plan(layers).table.copy()
    for row, (W, stored) in zip(table[:-1], addresses, strict=True):
        row['W'], row['stored'] = W, stored
    return _send(table.view('u1'))


class Several:  # pragma: no cover - gpu
    """Several weights that were normalized together: :class:`util.normalization.power_iteration.Several` on a GPU.

    Args:
        Ws (sequence of cupy.ndarray): At most ``MOST`` weights, all float32 or all float64, C-contiguous.
        us (sequence of cupy.ndarray): (d_out,) of each, of the same dtype, C-contiguous.
        axes, n_power_iteration, eps, factor, move: As there.

    Attributes:
        results, before: As there.

    """

    def __init__(self, Ws, us, axes, n_power_iteration, eps, factor, move):
        self._xp, self._dtype, self._factor = backend.get_array_module(*Ws), Ws[0].dtype, factor
        layers = tuple((W.shape, axis) for W, axis in zip(Ws, axes, strict=True))
        self._plan, self._Ws = plan(layers), tuple(Ws)  # they stay where the table says until there are gradients
        self._table = keep(_table(layers, tuple((_address(W), _address(u)) for W, u in zip(Ws, us, strict=True))))
        # Two buffers: whoever keeps a sigma does not keep the weights
        W_bars, self._vectors = self._empty(self._plan.n_weights), self._empty(self._plan.n_vectors)
        for i in range(n_power_iteration):
            self._launch('sn_columns_of_all', int(i > 0), eps, self._vectors)
            self._launch('sn_rows_of_all', eps, self._vectors)
        self._launch('sn_scale_of_all', eps, factor, int(move), W_bars, self._vectors)
        self.results, self.before = [], []
        for W_bar, parts in zip(self._parts(W_bars), self._plan.vectors, strict=True):
            v, u, before, sigma = (self._vectors[part] for part in parts)
            self.results.append((W_bar, u, v, sigma.reshape(())))
            self.before.append(before if move else None)

    def _empty(self, length):
        return self._xp.empty(length, self._dtype)

    def _parts(self, buffer):
        """Of a buffer of weights, each layer's: a list of arrays of the weights' shapes."""
        return [buffer[part].reshape(W.shape) for part, W in zip(self._plan.weights, self._Ws, strict=True)]

    def _launch(self, name, *args):
        """Launch a kernel on the current stream; Python's ints become int32 and floats the weights' dtype."""
        scalars = {int: np.int32, float: self._dtype.type}
        args = [scalars[type(a)](a) if type(a) in scalars else a for a in (self._table, len(self._Ws), *args)]
        get_kernel(name, self._dtype)((self._plan.blocks[name],), (_THREADS.get(name, 256),), tuple(args))

    def gradients(self, Ws, gs):
        """The gradients with respect to the weights, in two launches.

        Args:
            Ws (sequence of cupy.ndarray): The weights.
            gs (sequence of cupy.ndarray or None): The gradients with respect to the normalized weights.

        Returns:
            list of cupy.ndarray or None: The gradients with respect to the weights. ``None`` where there is nothing to
            compute one from, and where a weight is another array than it was, or its gradient not C-contiguous.

        """
        own = [W is mine and g is not None and kernels.usable(W, g)
               for W, mine, g in zip(Ws, self._Ws, gs, strict=True)]
        if not any(own):
            return [None] * len(own)
        addresses = np.zeros((), _ADDRESSES)
        addresses['of'][:len(own)] = [_address(g) if mine else 0 for g, mine in zip(gs, own, strict=True)]
        partial, gW = self._empty(self._plan.n_partial), self._empty(self._plan.n_weights)
        self._launch('sn_dot_of_all', addresses, partial)
        self._launch('sn_gradient_of_all', addresses, self._vectors, partial, self._factor, gW)
        return [part if mine else None for part, mine in zip(self._parts(gW), own, strict=True)]
