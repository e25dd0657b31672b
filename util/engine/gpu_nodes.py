"""What stands in for the GPU code of Chainer's functions: cuDNN's convolutions, and channels that stay last in memory.

Each takes the method that it replaces, the method's object and its arguments; the convolutions and dense layers take
first what computes them, a ``util.engine.cudnn.Cudnn``. What cuDNN has nothing for runs as before. The functions of
each number by itself are Chainer's own, on views in the order of memory: else their kernels would compute an index for
each number, and give channels first. The tables at the end say which replaces what.
"""
import numpy as np
from chainer.backends import cuda
from chainer.functions.activation import leaky_relu, relu
from chainer.functions.connection import convolution_2d, deconvolution_2d, linear
from chainer.functions.math import basic_math
from chainer.functions.normalization import batch_normalization
from chainer.functions.pooling import average_pooling_2d, unpooling_2d
from chainer.utils import conv

from util.engine import layout

_ONE = 1, 1
_1X1 = _ONE, (0, 0), _ONE  # stride, pad and dilation


def _covered(*arrays):
    """Whether these are float32 arrays on a GPU, with something in them."""
    return all(type(x) is cuda.ndarray and x.dtype == np.float32 and x.size for x in arrays)


def _is_last(*arrays):
    """Whether these have the channels last in memory, and would else have them first."""
    return _covered(*arrays) and all(layout.channels_last(x) and not x.flags.c_contiguous for x in arrays)


def _window(node):
    return (node.sy, node.sx), (node.ph, node.pw), (node.dy, node.dx)


def _convolution(core, stock, node, x, W, b):
    if _covered(x, W) and (b is None or _covered(b)):
        size = tuple(conv.get_conv_outsize(n, k, s, p, node.cover_all, d) for n, k, s, p, d in zip(
            x.shape[2:], W.shape[2:], *_window(node), strict=True))
        y = core.convolve(x, W, b, *_window(node), size)
        if y is not None:
            return y,
    return stock(node, x, W, b)


def _deconvolution(core, stock, node, x, W, b):
    if _covered(x, W) and (b is None or _covered(b)):
        y = core.gradient_of_input(x, W, b, *_window(node), (node.outh, node.outw))
        if y is not None:
            return y,
    return stock(node, x, W, b)


def _gradient_of_weight(core, stock, node, x, gy):
    if _covered(x, gy) and node.W_dtype == np.float32:
        gW = core.gradient_of_weight(x, gy, (node.kh, node.kw), *_window(node))
        if gW is not None:
            return gW,
    return stock(node, x, gy)


def _picture(x):
    """Rows (N, C) as pictures (N, C, 1, 1)."""
    return x[:, :, None, None]


def _of_rows(compute, stock, node, inputs, is_covered=True):
    """A dense layer's work as a convolution's of 1x1, because a CUDA graph cannot record CuPy's matrix products."""
    y = compute(*map(_picture, inputs[:2])) if is_covered and _covered(*inputs) else None
    if y is None:
        return stock(node, inputs)
    node.retain_inputs((0, 1))
    return y.reshape(y.shape[:2]),


def _linear(core, stock, node, inputs):
    b = inputs[2] if len(inputs) == 3 else None
    return _of_rows(lambda x, W: core.convolve(x, W, b, *_1X1, _ONE), stock, node, inputs)


def _linear_gradient(core, stock, node, inputs):
    return _of_rows(lambda W, gy: core.gradient_of_input(gy, W, None, *_1X1, _ONE), stock, node, inputs)


def _linear_gradient_of_weight(core, stock, node, inputs):
    return _of_rows(lambda x, gy: core.gradient_of_weight(x, gy, _ONE, *_1X1), stock, node, inputs,
                    node._w_dtype == np.float32)


def _activation(stock, node, inputs):
    if not _is_last(*inputs):
        return stock(node, inputs)
    x, = inputs
    y, = stock(node, (layout.flat(x),))
    return layout.of_places(y, x.shape),


def _relu_gradient(stock, node, inputs):
    if not _covered(*inputs) or not _is_last(node.b):
        return stock(node, inputs)
    gx, = stock(relu.ReLUGrad2(layout.flat(node.b)), (_flat_as(node.b, *inputs),))
    return layout.of_places(gx, node.b.shape),


def _leaky_relu_gradient(stock, node, inputs):
    if not _covered(*inputs) or not _is_last(node.cond):
        return stock(node, inputs)
    gx, = stock(leaky_relu._LeakyReLUGrad(layout.flat(node.cond), node.slope), (_flat_as(node.cond, *inputs),))
    return layout.of_places(gx, node.cond.shape),


def _flat_as(like, x):
    """The numbers of ``x`` in the order of ``like``, whose channels are last."""
    return layout.flat(x if layout.channels_last(x) else layout.channels_last_copy(x))


def _add(stock, node, inputs):
    x, y = inputs
    if x.shape != y.shape or not _is_last(x, y):
        return stock(node, inputs)
    return layout.of_places(layout.flat(x) + layout.flat(y), x.shape),


def _unpooling(stock, node, x):
    # Called only where the size is multiplied by whole numbers
    if not _is_last(x) or node.ph or node.pw:
        return stock(node, x)
    n, c, h, w = x.shape
    y = layout.empty(n, c, h * node.kh, w * node.kw, xp=cuda.cupy)
    _windows(y, node)[...] = x.transpose(0, 2, 3, 1)[:, :, None, :, None]
    return y,


def _unpooling_gradient(stock, node, gy):
    if not _is_last(gy) or node.ph or node.pw:
        return stock(node, gy)
    return _windows(gy, node).sum((2, 4)).transpose(0, 3, 1, 2),


def _tiles(node, size):
    """Whether pooling windows lie side by side and leave nothing over."""
    return ((node.kh, node.kw) == (node.sy, node.sx) and not node.ph and not node.pw
            and size[0] % node.kh == size[1] % node.kw == 0)


def _average_pooling(stock, node, inputs):
    x, = inputs
    if not _is_last(x) or not _tiles(node, x.shape[2:]):
        return stock(node, inputs)
    node._in_shape, node._in_dtype = x.shape, x.dtype
    return _windows(x, node).mean((2, 4)).transpose(0, 3, 1, 2),


def _average_pooling_gradient(stock, node, inputs):
    gy, = inputs
    if not _is_last(gy) or not _tiles(node, node._in_shape[2:]):
        return stock(node, inputs)
    gx = layout.empty(*node._in_shape, xp=cuda.cupy)
    _windows(gx, node)[...] = (gy * np.float32(1 / (node.kh * node.kw))).transpose(0, 2, 3, 1)[:, :, None, :, None]
    return gx,


def _windows(x, node):
    """A view (N, h, kh, w, kw, C) of the windows of ``x`` (N, C, h * kh, w * kw), channels last."""
    n, c, h, w = x.shape
    return x.transpose(0, 2, 3, 1).reshape(n, h // node.kh, node.kh, w // node.kw, node.kw, c)


def _covers_normalization(impl, axis, x_layout, x, *vectors):
    """Whether it is batch normalization of channels, and not a subclass (ChainerMN has one)."""
    return (type(impl) is batch_normalization.GeneralBatchNormalizationImpl and x_layout is None and _is_last(x)
            and tuple(axis) == (0, 2, 3) and all(v.ndim == 1 for v in vectors))


_OF_ROWS = (0,), (None, slice(None))  # axis, and what makes (1, C) of (C,)


def _normalization(stock, impl, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var):
    if not _covers_normalization(impl, axis, x_layout, x, gamma, beta):
        return stock(impl, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var)
    rows_axis, rows_expander = _OF_ROWS
    y, *others = stock(impl, rows_axis, gamma, layout.places(x), None, xp, rows_expander, beta, eps, decay,
                       running_mean, running_var)
    return layout.of_places(y, x.shape), *others


def _normalization_gradient(stock, impl, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var,
                            forward_data):
    if not _covers_normalization(impl, axis, x_layout, x, gamma, mean, inv_std) or not _covered(gy):
        return stock(impl, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data)
    rows_axis, rows_expander = _OF_ROWS
    gy = layout.places(gy if layout.channels_last(gy) else layout.channels_last_copy(gy))
    gx, *others = stock(impl, rows_axis, gamma, gy, layout.places(x), None, xp, rows_expander, mean, inv_std, eps, var,
                        forward_data)
    return layout.of_places(gx, x.shape), *others


# Class, method, what replaces it
COMPUTED = (
    (convolution_2d.Convolution2DFunction, '_forward_gpu_core', _convolution),
    (convolution_2d.Convolution2DGradW, '_forward_gpu_core', _gradient_of_weight),
    (deconvolution_2d.Deconvolution2DFunction, '_forward_gpu_core', _deconvolution),
    (linear.LinearFunction, 'forward', _linear),
    (linear.LinearGradData, 'forward', _linear_gradient),
    (linear.LinearGradWeight, 'forward', _linear_gradient_of_weight),
)
OTHERS = (
    (relu.ReLU, 'forward_gpu', _activation),
    (relu.ReLUGrad2, 'forward_gpu', _relu_gradient),
    (leaky_relu.LeakyReLU, 'forward_gpu', _activation),
    (leaky_relu._LeakyReLUGrad, 'forward_gpu', _leaky_relu_gradient),
    (basic_math.Add, 'forward', _add),
    (unpooling_2d.Unpooling2D, '_integer_scale_forward', _unpooling),
    (unpooling_2d.Unpooling2DGrad, '_integer_scale_forward', _unpooling_gradient),
    (average_pooling_2d.AveragePooling2D, 'forward_gpu', _average_pooling),
    (average_pooling_2d.AveragePooling2DGrad, 'forward_gpu', _average_pooling_gradient),
    (batch_normalization.GeneralBatchNormalizationImpl, 'forward', _normalization),
    (batch_normalization.GeneralBatchNormalizationImpl, 'backward', _normalization_gradient),
)
