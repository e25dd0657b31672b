"""Convolution and its two gradients by Intel's oneDNN: as ``util.engine.convolution``, faster.

What oneDNN refuses, and all that a forked child asks for, is computed by ``util.engine.convolution`` instead. What is
computed depends on the number of threads (see ``util.engine.threads``), and on nothing else.

oneDNN compiles a function for each shape, in about a millisecond; the latest are kept.
"""
import collections
import math
import os
import threading

import numpy as np

from util.engine import convolution, dnnl, layout
from util.engine.threads import split_map, worth

# So many compiled functions are kept. A layer has three, and as many more for each size of a batch.
_MOST = 512
# What a thread does in a microsecond, about, to tell whether others are worth it: multiply-adds, additions of a bias
_PRODUCTS, _ADDITIONS = 60_000, 1_000


class _State:
    """oneDNN once it is loaded, what has been compiled, and a lock for both."""

    def __init__(self):
        self.lock = threading.Lock()
        self.library = None
        self.compiled = collections.OrderedDict()  # Problem -> Convolution, or None where it was refused; latest last
        self.forked = False


_state = _State()


def load():
    """Make oneDNN ready; anything else of this module wants that first.

    Raises:
        UserError: It cannot be loaded. One line that says why.

    """
    with _state.lock:
        if _state.library is None:
            _state.library = dnnl.find()
            os.register_at_fork(after_in_child=_after_fork)


def _after_fork():
    """In the child: OpenMP's threads are not here, and it would wait for them for ever."""
    _state.forked = True
    _state.lock = threading.Lock()  # fork may have copied it locked


def convolve(x, W, b, stride, pad, dilate, size):
    """Convolution: as :func:`util.engine.convolution.convolve`."""
    y = layout.empty(len(x), len(W), *size)
    if _run('forward', _last(x), np.ascontiguousarray(W), y, b, stride, pad, dilate):
        return y
    return convolution.convolve(x, W, b, stride, pad, dilate, size)


def gradient_of_input(gy, W, b, stride, pad, dilate, size):
    """Gradient of :func:`convolve` for its input, plus b: as :func:`util.engine.convolution.gradient_of_input`."""
    gx = layout.empty(len(gy), W.shape[1], *size)
    if not _run('input', gx, np.ascontiguousarray(W), _last(gy), None, stride, pad, dilate):
        return convolution.gradient_of_input(gy, W, b, stride, pad, dilate, size)
    if b is not None:
        _add(gx, b)
    return gx


def gradient_of_weight(x, gy, kernel, stride, pad, dilate):
    """Gradient of :func:`convolve` for its weight: as :func:`util.engine.convolution.gradient_of_weight`."""
    gW = np.empty((gy.shape[1], x.shape[1], *kernel), 'f')
    if _run('weight', _last(x), gW, _last(gy), None, stride, pad, dilate):
        return gW
    return convolution.gradient_of_weight(x, gy, kernel, stride, pad, dilate)


def _add(x, b):
    """Add b (C,) to each place of ``x`` (N, C, H, W), channels last, in place."""
    n, c, h, w = x.shape
    rows, row = x.transpose(0, 2, 3, 1).reshape(n, h, w * c), np.tile(b, w)
    parts = np.array_split(rows, min(n, worth(x.size / _ADDITIONS)))
    split_map(lambda part: np.add(part, row, out=part), parts)


def _last(x):
    """``x``, or a copy of it with the channels last."""
    if layout.channels_last(x):
        return x
    copy = layout.empty(*x.shape)
    np.copyto(copy, x)
    return copy


def _run(kind, x, W, y, b, stride, pad, dilate):
    """Compute x, W or y, see :class:`util.engine.dnnl.Problem`, from the others.

    Args:
        kind (str): Which.
        x, y (numpy.ndarray): Channels last.
        W, b (numpy.ndarray): C-contiguous; b may be ``None``.
        stride, pad, dilate (tuple of int): Of rows and of columns.

    Returns:
        bool: Whether oneDNN has done it.

    """
    if _state.forked:
        return False
    b = None if b is None else np.ascontiguousarray(b)
    library = _state.library
    threads = library.most_threads(worth(math.prod(W.shape) * y.size / y.shape[1] / _PRODUCTS))
    problem = dnnl.Problem(kind, x.shape, W.shape, y.shape, b is not None, stride, pad, dilate, threads)
    with _state.lock, library.threads(threads):
        try:
            function = _compile(problem)
            if function is None:
                return False
            function(*(None if a is None else a.ctypes.data for a in (x, W, y, b)))
        except dnnl.Refused:
            return False
    return True


def _compile(problem):
    """The function for a problem, from those that are kept where it is among them; ``None`` where there is none."""
    compiled = _state.compiled
    if problem in compiled:
        compiled.move_to_end(problem)
        return compiled[problem]
    try:
        function = dnnl.Convolution(_state.library, problem)
    except dnnl.Refused:
        function = None  # to be known the next time
    compiled[problem] = function
    while len(compiled) > _MOST:
        _, oldest = compiled.popitem(last=False)
        if oldest is not None:
            oldest.close()
    return function
