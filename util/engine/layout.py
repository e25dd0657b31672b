"""Arrays of shape (N, C, H, W), as Chainer wants them, whose memory lies as (N, H, W, C).

With the channels last, all numbers that a convolution multiplies at one place lie side by side, and its result comes
out of one matrix product as the next layer takes it.
"""
import numpy as np


def covered(*arrays):
    """Whether the engine's own code takes all of these: float32, NumPy's own class, something in it."""
    return all(type(x) is np.ndarray and x.dtype == np.float32 and x.size for x in arrays)


def channels_last(x):
    """Whether the memory of ``x`` (N, C, H, W) lies as (N, H, W, C), without gaps."""
    return x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous


def empty(n, c, h, w, dtype='f', xp=np):
    """A new array of shape (n, c, h, w) with channels last, of NumPy or of CuPy."""
    return xp.empty((n, h, w, c), dtype).transpose(0, 3, 1, 2)


def places(x):
    """A view (N * H * W, C) of an array (N, C, H, W) with channels last."""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def of_places(rows, shape):
    """The other way: a view (N, C, H, W), of that shape, of contiguous numbers."""
    n, c, h, w = shape
    return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)


def channels_last_copy(x):
    """A copy of an array (N, C, H, W) with channels last."""
    return x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)


def flat(x):
    """A view (x.size,) of an array in the order of its memory: C or channels last; ``None`` where it is neither."""
    if x.flags.c_contiguous:
        return x.reshape(-1)
    return x.transpose(0, 2, 3, 1).reshape(-1) if channels_last(x) else None


def in_order_of(x, like):
    """``x``, or a copy of it whose memory has the order of ``like``, an array of the same shape."""
    if x.strides == like.strides:
        return x
    copy = np.empty_like(like, dtype=x.dtype)
    np.copyto(copy, x)
    return copy
