"""What stands in for the CPU code of Chainer's functions: the engine's where it covers the case, Chainer's else.

Each takes the method that it replaces, the method's object and its arguments. Those of the convolutions take first what
computes them: anything that has ``convolve``, ``gradient_of_input`` and ``gradient_of_weight`` of
``util.engine.convolution``. The tables at the end say which replaces what.
"""
import numpy as np
from chainer.functions.activation import leaky_relu, relu
from chainer.functions.connection import convolution_2d, deconvolution_2d, linear
from chainer.functions.math import sum as sum_
from chainer.functions.normalization import batch_normalization
from chainer.functions.pooling import average_pooling_2d, unpooling_2d
from chainer.optimizers.adam import AdamRule
from chainer.utils import conv

from util.engine import adam, dense, elementwise, normalization
from util.engine.layout import channels_last, covered, in_order_of


def _window(node):
    """(stride, pad, dilate) of a convolution; ``None`` where Chainer shall say what is wrong with them."""
    window = (node.sy, node.sx), (node.ph, node.pw), (node.dy, node.dx)
    return window if min(window[0]) > 0 and min(window[1]) >= 0 else None


def _convolution(core, stock, node, x, W, b):
    window = _window(node)
    if window and covered(x, W) and (b is None or covered(b)):
        size = tuple(conv.get_conv_outsize(n, k, s, p, node.cover_all, d) for n, k, s, p, d in zip(
            x.shape[2:], W.shape[2:], *window, strict=True))
        if min(size) > 0:
            return core.convolve(x, W, b, *window, size),
    return stock(node, x, W, b)


def _deconvolution(core, stock, node, x, W, b):
    window = _window(node)
    if window and covered(x, W) and (b is None or covered(b)):
        return core.gradient_of_input(x, W, b, *window, (node.outh, node.outw)),
    return stock(node, x, W, b)


def _gradient_of_weight(core, stock, node, x, gy):
    window = _window(node)
    if window and covered(x, gy) and node.W_dtype == np.float32:
        return core.gradient_of_weight(x, gy, (node.kh, node.kw), *window),
    return stock(node, x, gy)


def _linear(stock, node, inputs):
    if not covered(*inputs):
        return stock(node, inputs)
    node.retain_inputs((0, 1))
    y = dense.multiply(inputs[0], inputs[1].T)
    if len(inputs) == 3:
        y += inputs[2]
    return y,


def _linear_gradient(stock, node, inputs):
    if not covered(*inputs):
        return stock(node, inputs)
    node.retain_inputs((0, 1))
    W, gy = inputs
    return dense.multiply(gy, W),


def _linear_gradient_of_weight(stock, node, inputs):
    if not covered(*inputs) or node._w_dtype != np.float32:
        return stock(node, inputs)
    node.retain_inputs((0, 1))
    x, gy = inputs
    return dense.multiply(gy.T, x),


def _relu(stock, node, inputs):
    if not covered(*inputs):
        return stock(node, inputs)
    node.retain_outputs((0,))
    return elementwise.relu(*inputs),


def _relu_gradient(stock, node, inputs):
    if not covered(node.b, *inputs):
        return stock(node, inputs)
    return elementwise.relu_gradient(node.b, *inputs),


def _leaky_relu(stock, node, inputs):
    if not covered(*inputs) or not 0 < node.slope <= 1:
        return stock(node, inputs)
    node.retain_outputs((0,))
    return elementwise.leaky_relu(*inputs, node.slope),


def _leaky_relu_gradient(stock, node, inputs):
    if not covered(node.cond, *inputs) or not 0 < node.slope <= 1:
        return stock(node, inputs)
    return elementwise.leaky_relu_gradient(node.cond, *inputs, node.slope),


def _unpooling(stock, node, x):
    # Called only where the size is multiplied by whole numbers
    if not covered(x) or not channels_last(x) or node.ph or node.pw:
        return stock(node, x)
    return elementwise.upsample(x, (node.kh, node.kw)),


def _unpooling_gradient(stock, node, gy):
    if not covered(gy) or not channels_last(gy) or node.ph or node.pw:
        return stock(node, gy)
    size = gy.shape[2] // node.kh, gy.shape[3] // node.kw
    return elementwise.sum_windows(gy, size, (node.kh, node.kw)),


def _tiles_windows(node):
    """Whether pooling windows lie side by side."""
    return (node.kh, node.kw) == (node.sy, node.sx) and not node.ph and not node.pw


def _average_pooling(stock, node, inputs):
    x, = inputs
    size = x.shape[2] // node.kh, x.shape[3] // node.kw
    if not covered(x) or not channels_last(x) or not _tiles_windows(node) or not min(size):
        return stock(node, inputs)
    node._in_shape, node._in_dtype = x.shape, x.dtype
    return elementwise.sum_windows(x, size, (node.kh, node.kw), 1 / (node.kh * node.kw)),


def _average_pooling_gradient(stock, node, inputs):
    gy, = inputs
    if not covered(gy) or not channels_last(gy) or not _tiles_windows(node):
        return stock(node, inputs)
    return elementwise.spread_windows(gy, node._in_shape[2:], (node.kh, node.kw), 1 / (node.kh * node.kw)),


def _sum(stock, node, inputs):
    x, = inputs
    if not covered(x) or not channels_last(x) or x.flags.c_contiguous or node.axis is None:
        return stock(node, inputs)
    axis = tuple(sorted(i % 4 for i in node.axis))
    if axis == (0, 2, 3):
        sums = normalization.channel_sums(x).astype('f')
        return sums.reshape(1, -1, 1, 1) if node.keepdims else sums,
    if 1 in axis:  # then NumPy adds neighbours, in pairs of sums
        return stock(node, inputs)
    return x.sum(axis, 'd', keepdims=node.keepdims).astype('f'),


def _sum_to(stock, node, inputs):
    x, = inputs
    if not covered(x) or not channels_last(x) or x.flags.c_contiguous or len(node._shape) < 3:
        return stock(node, inputs)
    shape = (1,) * (4 - len(node._shape)) + node._shape
    axis = tuple(i for i in range(4) if shape[i] != x.shape[i])
    if 1 in axis:
        return stock(node, inputs)
    sums = normalization.channel_sums(x) if axis == (0, 2, 3) else x.sum(axis, 'd')
    return sums.astype('f').reshape(node._shape),


def _covers_normalization(impl, axis, x, *vectors):
    """Whether it is batch normalization of channels as the engine knows it, and not a subclass (ChainerMN has one)."""
    return (type(impl) is batch_normalization.GeneralBatchNormalizationImpl and covered(x, *vectors)
            and tuple(axis) == (0, 2, 3) and channels_last(x) and all(v.ndim == 1 for v in vectors))


def _normalization(stock, impl, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var):
    if x_layout is not None or not _covers_normalization(impl, axis, x, gamma, beta):
        return stock(impl, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var)
    y, mean, var, inv_std = normalization.normalize(x, gamma, beta, eps)
    if running_mean is not None:
        count = x.size // gamma.size
        running_mean *= decay
        running_mean += (1 - decay) * mean
        running_var *= decay
        running_var += (1 - decay) * (count / max(count - 1., 1.)) * var  # unbiased
    return y, x_layout, running_mean, running_var, mean, var, inv_std, None


def _normalization_gradient(stock, impl, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var,
                            forward_data):
    if x_layout is not None or not _covers_normalization(impl, axis, x, gamma, mean, inv_std) or not covered(gy):
        return stock(impl, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data)
    gx, ggamma, gbeta = normalization.normalize_gradient(x, gamma, in_order_of(gy, x), mean, inv_std)
    return gx, None, ggamma, gbeta


def _adam(stock, rule, param):
    hp, arrays = rule.hyperparam, (param.data, param.grad, rule.state['m'], rule.state['v'])
    plain = not (hp.amsgrad or hp.adabound or hp.weight_decay_rate)
    if not plain or not covered(*arrays) or not all(x.flags.c_contiguous for x in arrays):
        stock(rule, param)
    else:
        adam.update(*arrays, rule.alpha_t, hp.beta1, hp.beta2, hp.eps, hp.eta)


# Class, method, what replaces it
CONVOLUTIONS = (
    (convolution_2d.Convolution2DFunction, '_forward_cpu_core', _convolution),
    (convolution_2d.Convolution2DGradW, '_forward_cpu_core', _gradient_of_weight),
    (deconvolution_2d.Deconvolution2DFunction, '_forward_cpu_core', _deconvolution),
)
OTHERS = (
    (linear.LinearFunction, 'forward', _linear),
    (linear.LinearGradData, 'forward', _linear_gradient),
    (linear.LinearGradWeight, 'forward', _linear_gradient_of_weight),
    (relu.ReLU, 'forward_cpu', _relu),
    (relu.ReLUGrad2, 'forward_cpu', _relu_gradient),
    (leaky_relu.LeakyReLU, 'forward_cpu', _leaky_relu),
    (leaky_relu._LeakyReLUGrad, 'forward_cpu', _leaky_relu_gradient),
    (unpooling_2d.Unpooling2D, '_integer_scale_forward', _unpooling),
    (unpooling_2d.Unpooling2DGrad, '_integer_scale_forward', _unpooling_gradient),
    (average_pooling_2d.AveragePooling2D, 'forward_cpu', _average_pooling),
    (average_pooling_2d.AveragePooling2DGrad, 'forward_cpu', _average_pooling_gradient),
    (sum_.Sum, 'forward', _sum),
    (sum_.SumTo, 'forward', _sum_to),
    (batch_normalization.GeneralBatchNormalizationImpl, 'forward', _normalization),
    (batch_normalization.GeneralBatchNormalizationImpl, 'backward', _normalization_gradient),
    (AdamRule, 'update_core_cpu', _adam),
)
