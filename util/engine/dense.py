"""Products of two float32 matrices, the dense layers' work, split among threads."""
import numpy as np

from util.engine.threads import split_map, worth

_PRODUCTS = 50_000  # multiply-adds of a thread in a microsecond, about


def multiply(a, b):
    """``a @ b`` for a (M, K) and b (K, N), float32: (M, N), C-contiguous.

    The longer side of the result is cut into a part for each thread, so that the bits depend on their number.
    """
    m, n = len(a), b.shape[1]
    product = np.empty((m, n), 'f')
    parts = worth(m * n * a.shape[1] / _PRODUCTS)
    if m < n:
        bounds = [n * i // parts for i in range(parts + 1)]
        pieces = [(a, b[:, i:j], product[:, i:j]) for i, j in zip(bounds, bounds[1:], strict=False) if i < j]
    else:
        bounds = [m * i // parts for i in range(parts + 1)]
        pieces = [(a[i:j], b, product[i:j]) for i, j in zip(bounds, bounds[1:], strict=False) if i < j]
    split_map(_multiply, pieces)
    return product


def _multiply(piece):
    a, b, out = piece
    if out.flags.c_contiguous:
        np.dot(a, b, out=out)
    else:
        out[...] = np.dot(a, b)
