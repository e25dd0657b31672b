"""The power method for a weight's largest singular value: a NumPy reference, and where the GPU's kernels take over.

*Spectral Normalization for Generative Adversarial Networks* (Miyato et al., ICLR 2018), Algorithm 1 and Equations 11,
12, 20 to 23.
"""
import numpy as np
from chainer import backend

from util.normalization import group_kernels, kernels

MOST = group_kernels.MOST  # weights that :func:`normalize_several` takes


def working_dtype(dtype):
    """The dtype of u, v, sigma and of all sums for a weight of ``dtype``: its own, but float32 for float16."""
    return np.dtype(np.float32) if dtype == np.float16 else np.dtype(dtype)


def as_matrix(W, axis=0):
    """A weight as a d_out x (everything else) matrix; ``axis`` is that of the outputs. A view where possible."""
    xp = backend.get_array_module(W)
    return xp.moveaxis(W, axis, 0).reshape(W.shape[axis], -1)


def from_matrix(matrix, shape, axis=0):
    """The inverse of :func:`as_matrix`: an array of ``shape``, C-contiguous."""
    xp = backend.get_array_module(matrix)
    moved = (shape[axis],) + shape[:axis] + shape[axis + 1:]
    return xp.ascontiguousarray(xp.moveaxis(matrix.reshape(moved), 0, axis))


def _unit(xp, x, eps):
    return x / (xp.linalg.norm(x) + x.dtype.type(eps))


def power_iteration(W, u, n_power_iteration=1, eps=1e-12):
    """Bring u and v nearer to the first singular vectors: v <- W^T u, u <- W v, each divided by (its length + eps).

    Args:
        W (numpy.ndarray or cupy.ndarray): (d_out, d_in), float32 or float64.
        u (numpy.ndarray or cupy.ndarray): (d_out,), of W's dtype, of any length but 0. It is not changed.
        n_power_iteration (int): How often, at least 1.
        eps (float): Added to the length of a vector.

    Returns:
        tuple: u (d_out,), v (d_in,) and sigma = u^T W v (), of W's dtype.

    """
    xp = backend.get_array_module(W)
    for _ in range(n_power_iteration):
        v = _unit(xp, xp.dot(u, W), eps)
        t = xp.dot(W, v)
        u = _unit(xp, t, eps)
    return u, v, xp.asarray(xp.dot(u, t))


def normalize(W, u, n_power_iteration=1, eps=1e-12, factor=1.0, axis=0, stored=None):
    """Divide a weight by its largest singular value, estimated by the power method: W_bar = factor W / sigma.

    On the GPU a C-contiguous float32 or float64 weight takes three launches; anything else takes the operations of
    the reference.

    Args:
        W (numpy.ndarray or cupy.ndarray): The weight: any shape that has ``axis``; float16, float32 or float64.
        u (numpy.ndarray or cupy.ndarray): (d_out,), of :func:`working_dtype`. It is not changed, unless it is also
            ``stored``.
        n_power_iteration (int): As of :func:`power_iteration`, and so is ``eps``.
        factor (float): The largest singular value that W_bar has when sigma is exact.
        axis (int): The axis of W that counts outputs.
        stored (numpy.ndarray or cupy.ndarray): (d_out,). If given, the new u is written here as well.

    Returns:
        tuple: W_bar (like W), and u (d_out,), v (d_in,), sigma () of u's dtype, all of them new arrays.

    """
    if kernels.usable(W, u) and (stored is None or kernels.usable(W, stored)):  # pragma: no cover - gpu
        return kernels.normalize(W, u, n_power_iteration, eps, factor, axis, stored)
    u, v, sigma = _estimate(W, u, n_power_iteration, eps, axis, stored)
    return scale(W, sigma, factor), u, v, sigma


def estimate(W, u, n_power_iteration=1, eps=1e-12, axis=0, stored=None):
    """What :func:`normalize` returns, with the same arguments, but for W_bar: u, v and sigma."""
    if kernels.usable(W, u) and (stored is None or kernels.usable(W, stored)):  # pragma: no cover - gpu
        return kernels.normalize(W, u, n_power_iteration, eps, 1.0, axis, stored)[1:]
    return _estimate(W, u, n_power_iteration, eps, axis, stored)


def _estimate(W, u, n_power_iteration, eps, axis, stored):
    u, v, sigma = power_iteration(as_matrix(W, axis).astype(u.dtype, copy=False), u, n_power_iteration, eps)
    if stored is not None:
        stored[...] = u
    return u, v, sigma


def scale(W, sigma, factor=1.0):
    """``factor`` W / ``sigma``, like W, for sigma a 0-d array."""
    return (W.astype(sigma.dtype, copy=False) * (sigma.dtype.type(factor) / sigma)).astype(W.dtype, copy=False)


def gradient(W, g, u, v, sigma, factor=1.0, axis=0):
    """The gradient with respect to W of a function of W_bar = factor W / (u^T W v) (Equations 11 and 12).

    Args:
        W (numpy.ndarray or cupy.ndarray): The weight.
        g (numpy.ndarray or cupy.ndarray): The gradient with respect to W_bar, like W.
        u, v, sigma (numpy.ndarray or cupy.ndarray): What W_bar was made with: (d_out,), (d_in,), (). u and v are
            constants.
        factor (float), axis (int): As of :func:`normalize`.

    Returns:
        numpy.ndarray or cupy.ndarray: factor / sigma (g - (<g, W> / sigma) u v^T), like W.

    """
    if kernels.usable(W, g, u, v, sigma):  # pragma: no cover - gpu
        return kernels.gradient(W, g, u, v, sigma, factor, axis)
    xp = backend.get_array_module(W)
    g_matrix = as_matrix(g, axis).astype(u.dtype, copy=False)
    projection = xp.vdot(g_matrix, as_matrix(W, axis).astype(u.dtype, copy=False)) / sigma
    gW = (g_matrix - xp.outer(u * projection, v)) * (u.dtype.type(factor) / sigma)
    return from_matrix(gW, W.shape, axis).astype(W.dtype, copy=False)


class Several:
    """Several weights that were normalized together: the reference, which does one after the other.

    Args: As of :func:`normalize_several`.

    Attributes:
        results (list of tuple): W_bar, u, v and sigma of each weight, as :func:`normalize` returns them.
        before (list): The u of each that was stored before, (d_out,), a new array; ``None`` if u did not move.
        gradients (callable or None): Computes gradients together, see :meth:`group_kernels.Several.gradients`. ``None``
            where that is no better than :func:`gradient` for each.

    """

    gradients = None

    def __init__(self, Ws, us, axes, n_power_iteration, eps, factor, move):
        self.before = [u.copy() if move else None for u in us]
        self.results = [normalize(W, u, n_power_iteration, eps, factor, axis, u if move else None)
                        for W, u, axis in zip(Ws, us, axes, strict=True)]


def normalize_several(Ws, us, axes, n_power_iteration=1, eps=1e-12, factor=1.0, move=False):
    """:func:`normalize` for several weights, with the same bits.

    On the GPU, if all are C-contiguous and float32 or float64, it takes the three launches of one.

    Args:
        Ws (sequence of numpy.ndarray or cupy.ndarray): The weights, on one device, of one dtype; at most ``MOST``.
        us (sequence of numpy.ndarray or cupy.ndarray): The stored u of each.
        axes (sequence of int): The axis of each that counts outputs.
        n_power_iteration (int), eps (float), factor (float): As of :func:`normalize`.
        move (bool): Whether each new u takes the place of the stored one.

    Returns:
        Several: Or on the GPU what has the same attributes.

    """
    kind = group_kernels.Several if kernels.usable(*Ws, *us) else Several
    return kind(Ws, us, axes, n_power_iteration, eps, factor, move)
