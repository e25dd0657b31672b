"""Activations, upsampling and pooling that keep the order of memory, piece by piece in the processor's cache.

All arrays are float32. Results are those of Chainer's functions to the bit, NaN and infinity included; sums of windows
may differ in the last bits.
"""
import numpy as np

from util.engine import layout
from util.engine.threads import scratch, split_map, worth

_PIECE = 1 << 17  # numbers; in less, threads wait for Python more than they compute
_NUMBERS = 600  # of them, about, a thread gets done in a microsecond


def relu(x):
    """max(x, 0), in the order of ``x``."""
    y = np.empty_like(x)
    _each_piece(lambda x, y: np.maximum(x, 0, out=y), x, y)
    return y


def relu_gradient(y, gy):
    """``gy`` where the ReLU's output ``y`` is above 0, else 0; in the order of ``y``."""
    def compute(y, gy, gx):
        _is_positive(y, gx)
        np.multiply(gy, gx, out=gx)
    gx = np.empty_like(y)
    _each_piece(compute, y, layout.in_order_of(gy, y), gx)
    return gx


def leaky_relu(x, slope):
    """``x`` where it is above 0, else ``slope`` times ``x``, for 0 < slope <= 1; in the order of ``x``."""
    def compute(x, y):
        np.multiply(x, slope, out=y)
        np.maximum(x, y, out=y)
    slope, y = np.float32(slope), np.empty_like(x)
    _each_piece(compute, x, y)
    return y


def leaky_relu_gradient(y, gy, slope):
    """``slope`` times ``gy`` where the leaky ReLU's output ``y`` is at most 0, else ``gy``; in the order of ``y``."""
    def compute(y, gy, gx):
        _is_positive(y, gx, or_nan=True)
        np.maximum(gx, slope, out=gx)
        np.multiply(gy, gx, out=gx)
    slope, gx = np.float32(slope), np.empty_like(y)
    _each_piece(compute, y, layout.in_order_of(gy, y), gx)
    return gx


def _is_positive(y, out, or_nan=False):
    """1 or 0. A comparison that gives booleans, and their conversion, are faster than one step for both."""
    mask = scratch('mask', y.shape, '?')
    if or_nan:
        np.less_equal(y, 0, out=mask)
        np.logical_not(mask, out=mask)
    else:
        np.greater(y, 0, out=mask)
    np.copyto(out, mask)


def _each_piece(compute, *arrays):
    """Call ``compute`` with the same pieces of arrays of one shape and one order; whole where that is no simple one."""
    size, views = arrays[0].size, [layout.flat(x) for x in arrays]
    if any(view is None for view in views):
        compute(*arrays)
        return
    pieces = [slice(i, i + _PIECE) for i in range(0, size, _PIECE)]
    split_map(lambda piece: compute(*(view[piece] for view in views)), pieces, worth(size / _NUMBERS))


def upsample(x, scale):
    """Repeat each number of ``x`` (N, C, H, W), channels last, ``scale`` = (of rows, of columns) times.

    Returns:
        numpy.ndarray: (N, C, scale[0] * H, scale[1] * W), channels last.

    """
    n, c, h, w = x.shape
    y = layout.empty(n, c, h * scale[0], w * scale[1])
    _each_picture(lambda x, y: np.copyto(_windows(y, (h, w), scale), x[:, :, None, :, None]), x, y)
    return y


def sum_windows(x, size, scale, factor=1.0):
    """Sum windows of ``x`` (N, C, H, W), channels last, that do not overlap, times a factor.

    Args:
        x (numpy.ndarray): (N, C, H, W).
        size (tuple of int): (h, w), windows from top to bottom and from left to right; what remains is left out.
        scale (tuple of int): Of one window.
        factor (float): The sums are multiplied by it.

    Returns:
        numpy.ndarray: (N, C, h, w), channels last.

    """
    def compute(x, y):
        windows = _windows(x[:, :size[0] * scale[0], :size[1] * scale[1]], size, scale)
        for i, j in np.ndindex(*scale):
            if i or j:
                y += windows[:, :, i, :, j]
            else:
                np.copyto(y, windows[:, :, 0, :, 0])
        if factor != 1:
            y *= np.float32(factor)
    y = layout.empty(*x.shape[:2], *size)
    _each_picture(compute, x, y)
    return y


def spread_windows(gy, size, scale, factor):
    """Gradient of :func:`sum_windows` for its input of ``size`` = (H, W): ``gy`` in each window, times the factor."""
    def compute(gy, gx):
        h, w = gy.shape[1:3]
        gx[:, h * scale[0]:] = 0
        gx[:, :, w * scale[1]:] = 0
        inside = gx[:, :h * scale[0], :w * scale[1]]
        np.multiply(gy[:, :, None, :, None], np.float32(factor), out=_windows(inside, (h, w), scale))
    gx = layout.empty(*gy.shape[:2], *size)
    _each_picture(compute, gy, gx)
    return gx


def _windows(x, size, scale):
    """A view (N, h, scale[0], w, scale[1], C) of x (N, h * scale[0], w * scale[1], C), which may have gaps."""
    (h, w), (of_picture, of_row, of_column, of_channel) = size, x.strides
    strides = (of_picture, of_row * scale[0], of_row, of_column * scale[1], of_column, of_channel)
    return np.lib.stride_tricks.as_strided(x, (len(x), h, scale[0], w, scale[1], x.shape[3]), strides)


def _each_picture(compute, x, y):
    """Call ``compute`` with pictures of x and of y, (n, H, W, C) each."""
    x, y = x.transpose(0, 2, 3, 1), y.transpose(0, 2, 3, 1)
    step = max(1, _PIECE // max(x[0].size, y[0].size))
    starts = range(0, len(x), step)
    split_map(lambda i: compute(x[i:i + step], y[i:i + step]), starts, worth(max(x.size, y.size) / _NUMBERS))
