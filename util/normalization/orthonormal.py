"""Orthonormal regularization: a penalty that keeps weights near orthonormal ones (Brock et al., 2016)."""
import chainer.functions as F
import numpy as np

from util.normalization.base import Normalization, weights
from util.normalization.power_iteration import from_matrix
from util.normalization.weight_hook import output_axis


class OrthonormalRegularization(Normalization):
    """Adds ``coefficient`` times the sum over all weights of ||W^T W - I||_F^2 to the discriminator's loss.

    Weights start as random orthonormal matrices (paper section 4.1).

    Args:
        coefficient (float): How much. The paper does not say; see ``configs/methods.yml``.
        rng (numpy.random.RandomState): Where the first weights are drawn from; ``None`` is NumPy's global state.

    """

    def __init__(self, coefficient, rng=None):
        self._coefficient, self._rng = coefficient, rng or np.random

    def weight(self, link):
        W, axis = link.W, output_axis(link)
        rows = W.shape[axis]
        W.array[...] = from_matrix(random_orthonormal(rows, W.size // rows, self._rng), W.shape, axis)
        return link

    def penalty(self, discriminator):
        return self._coefficient * sum(distance_from_orthonormal(W, axis) for W, axis in weights(discriminator))


def random_orthonormal(rows, columns, rng):
    """A matrix (rows, columns), float64, with orthonormal rows or columns, whichever are fewer; all alike likely."""
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # without this, QR's choice of signs is not uniform
    return q if rows >= columns else q.T


def distance_from_orthonormal(W, axis=0):
    """||W^T W - I||_F^2 of a weight as a d_out x d_in matrix, or ||W W^T - I||_F^2 where d_in is larger.

    The two differ by d_in - d_out only and have the same gradient; the smaller is 0 where all singular values are 1.

    Args:
        W (chainer.Variable): The weight, of any shape that has ``axis``.
        axis (int): The axis that counts outputs.

    Returns:
        chainer.Variable: ().

    """
    matrix = F.moveaxis(W, axis, 0).reshape(W.shape[axis], -1)
    rows, columns = matrix.shape
    gram = F.matmul(matrix, matrix, transb=True) if rows <= columns else F.matmul(matrix, matrix, transa=True)
    return F.sum((gram - W.xp.eye(len(gram), dtype=W.dtype)) ** 2)
