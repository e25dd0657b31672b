"""Weight normalization and normalization by the Frobenius norm, as link hooks (paper, appendix D.1)."""
import chainer.functions as F

from util.normalization.weight_hook import WeightHook, output_axis


def _divide_by_norm(W, axes, eps):
    """W / (||W|| + eps), the norm taken over ``axes``, in float32 at least; differentiable any number of times."""
    x = F.cast(W, 'float32') if W.dtype == 'float16' else W
    norm = F.sqrt(F.sum(x * x, axis=axes, keepdims=True)) + eps
    x = x / F.broadcast_to(norm, x.shape)
    return x if x.dtype == W.dtype else F.cast(x, W.dtype)


class _DividedByNorm(WeightHook):
    """Base of hooks with an ``eps`` that is added to a norm."""

    def __init__(self, eps=1e-12, name=None, weight_name='W'):
        super().__init__(name, weight_name)
        self.eps = float(eps)


class WeightNormalization(_DividedByNorm):
    """Divides each row of a link's weight, an output's, by its length: w_bar_i = w_i / ||w_i||.

    Salimans and Kingma (2016), with the gain fixed to 1 as the paper has it (Equation 25 and its footnote), so that the
    squares of the singular values of a weight of d_out rows sum to d_out (Equation 27). A row of zeros stays zero, and
    its gradient is NaN.

    Args:
        eps (float): Added to a row's length.
        name, weight_name (str): As of :class:`~util.normalization.weight_hook.WeightHook`.

    """

    name = 'WeightNormalization'

    def normalize_weight(self, link):
        W, axis = getattr(link, self.weight_name), output_axis(link)
        return _divide_by_norm(W, tuple(i for i in range(W.ndim) if i != axis), self.eps)


class FrobeniusNormalization(_DividedByNorm):
    """Divides a link's weight by its Frobenius norm: W / ||W||_F, so that the squares of its singular values sum to 1.

    Args: as of :class:`WeightNormalization`.
    """

    name = 'FrobeniusNormalization'

    def normalize_weight(self, link):
        W = getattr(link, self.weight_name)
        return _divide_by_norm(W, tuple(range(W.ndim)), self.eps)
