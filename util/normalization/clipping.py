"""Constraints that are restored after each update: clipping of weights and of singular values."""
import chainer
import chainer.links as L
import numpy as np
from chainer import backend

from util.normalization.base import Normalization, weights
from util.normalization.power_iteration import as_matrix, from_matrix


class WeightClipping(Normalization):
    """Keeps each element of the convolutions' weights in [-limit, limit] (Arjovsky et al. 2017; paper section 4.1).

    Args:
        limit (float): The paper's is 0.01.

    """

    def __init__(self, limit):
        self._limit = limit

    def constrain(self, discriminator):
        with chainer.using_device(discriminator.device):
            for W, _ in weights(discriminator, (L.Convolution2D,)):
                W.xp.clip(W.array, -self._limit, self._limit, out=W.array)


class SingularValueClipping(Normalization):
    """Keeps the singular values of all weights at or below a limit (paper appendix D.3; Saito et al. 2017).

    W = U S V^T becomes U min(S, limit) V^T. The decomposition is exact, and slow.

    Args:
        limit (float): The paper's is 1.

    """

    def __init__(self, limit):
        self._limit = limit

    def constrain(self, discriminator):
        with chainer.using_device(discriminator.device):
            for W, axis in weights(discriminator):
                clip_singular_values(W.array, self._limit, axis)


def clip_singular_values(W, limit, axis=0):
    """Clip the singular values of a weight as a d_out x d_in matrix, in place; without any above, nothing changes.

    A weight that is not finite is left as it is.

    Args:
        W (numpy.ndarray or cupy.ndarray): The weight, of any shape that has ``axis``.
        limit (float): The largest singular value that there may be.
        axis (int): The axis that counts outputs.

    """
    xp = backend.get_array_module(W)
    matrix = as_matrix(W, axis).astype('d')
    try:
        U, s, Vt = xp.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        if np.isfinite(matrix).all():
            raise
        return  # NumPy refuses them; CuPy gives NaN
    excess = xp.maximum(s - limit, 0)
    W[...] = from_matrix((matrix - xp.dot(U * excess, Vt)).astype(W.dtype), W.shape, axis)
