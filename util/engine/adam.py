"""Adam's update on the CPU: all of its steps on one piece of the arrays, while that is in the cache, then the next."""
import numpy as np

from util.engine.threads import scratch, split_map, worth

_PIECE = 1 << 17  # numbers; in less, threads wait for Python more than they compute
_NUMBERS = 300  # of them, about, a thread gets done in a microsecond


def update(param, grad, m, v, alpha_t, beta1, beta2, eps, eta):
    """Change a parameter and its moments as ``chainer.optimizers.adam.AdamRule`` does, to the bit.

    Args:
        param, grad, m, v (numpy.ndarray): The parameter, its gradient and its two moments, float32, C-contiguous, of
            one shape. All but the gradient are changed.
        alpha_t (float): The step size, corrected for the moments' start from 0.
        beta1, beta2, eps, eta (float): Adam's.

    """
    arrays = [array.reshape(-1) for array in (param, grad, m, v)]
    pieces = [slice(i, i + _PIECE) for i in range(0, param.size, _PIECE)]

    def compute(piece):
        param, grad, m, v = (array[piece] for array in arrays)
        t = scratch('adam', param.shape)
        np.subtract(grad, m, out=t)
        t *= 1.0 - beta1
        m += t
        np.multiply(grad, grad, out=t)
        t -= v
        t *= 1.0 - beta2
        v += t
        np.sqrt(v, out=t)
        t += eps
        np.divide(alpha_t, t, out=t)
        t *= m
        t *= -eta
        param += t
    split_map(compute, pieces, worth(param.size / _NUMBERS))
