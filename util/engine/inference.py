"""Convolution and pooling for networks that only look: channels-last arrays, no gradient, NumPy or CuPy.

With the channels last a convolution is one matrix product whose result lies as the next layer wants it, a 1x1
convolution copies nothing.
"""
import numpy as np

# Bytes of patches that are copied out for one matrix product: on a CPU they stay in its cache, on a GPU they fill it.
_CPU_BYTES, _GPU_BYTES = 1 << 20, 256 << 20


def convolve(xp, x, weight, bias, kernel, stride, pad):
    """relu(x * weight + bias).

    Args:
        xp: ``numpy`` or ``cupy``.
        x (array): (N, H, W, C), float32, C-contiguous.
        weight (array): (kh * kw * C, n_out), rows in the order (kh, kw, C).
        bias (array): (n_out,).
        kernel (tuple of int): (kh, kw).
        stride (int): Of both directions.
        pad (tuple of int): Rows of zeros above and below, columns of zeros left and right.

    Returns:
        array: (N, oh, ow, n_out), float32.

    """
    oh, ow = ((size + 2 * p - k) // stride + 1 for size, p, k in zip(x.shape[1:3], pad, kernel, strict=True))
    out = xp.empty((len(x), oh, ow, len(bias)), 'f')
    if pad != (0, 0):
        x = xp.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)))
    patches = _patches(xp, x, kernel, stride, out.shape)
    for part in _chunks(out.shape, weight.shape[0] * x.itemsize, _CPU_BYTES if xp is np else _GPU_BYTES):
        target = out[part]
        product = patches[part].reshape(-1, weight.shape[0]) @ weight
        product += bias
        xp.maximum(product.reshape(target.shape), 0, out=target)
    return out


def _patches(xp, x, kernel, stride, out_shape):
    """All windows as a view: (N, oh, ow, kh, kw * C), so that what is copied at a time is long."""
    n, oh, ow, _ = out_shape
    of_picture, of_row, of_column, of_channel = x.strides
    return xp.lib.stride_tricks.as_strided(
        x, (n, oh, ow, kernel[0], kernel[1] * x.shape[3]),
        (of_picture, of_row * stride, of_column * stride, of_row, of_channel))


def _chunks(shape, bytes_of_patch, limit):
    """Indices of pictures, or of rows of one picture, whose patches have ``limit`` bytes or little more."""
    n, oh, ow, _ = shape
    rows = max(1, limit // (bytes_of_patch * ow))
    if rows < oh:
        rows = -(-oh // -(-oh // rows))  # as many chunks, of even size
        return [(i, slice(j, j + rows)) for i in range(n) for j in range(0, oh, rows)]
    pictures = rows // oh
    return [slice(i, i + pictures) for i in range(0, n, pictures)]


def max_pool(xp, x, stride, pad):
    """Largest value of each 3x3 window of ``x`` (N, H, W, C); the padding (0 or 1) never is."""
    if pad:
        x = xp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return _pool(xp.maximum, x, stride)


def average_pool(xp, x):
    """Mean of what lies in the picture of each 3x3 window, stride 1; of the shape of ``x`` (N, H, W, C)."""
    out = _pool(xp.add, xp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 1)
    rows, columns = (xp.asarray(_count(size)) for size in x.shape[1:3])
    out /= (rows[:, None] * columns)[:, :, None]
    return out


def _count(size):
    """How many of three neighbouring places exist, at each place of a row."""
    count = np.full(size, 3, 'f')
    count[0] -= 1
    count[-1] -= 1
    return count


def _pool(operation, x, stride):
    oh, ow = ((size - 3) // stride + 1 for size in x.shape[1:3])
    rows = [x[:, i:i + stride * (oh - 1) + 1:stride] for i in range(3)]
    of_rows = operation(rows[0], rows[1])
    operation(of_rows, rows[2], out=of_rows)
    columns = [of_rows[:, :, i:i + stride * (ow - 1) + 1:stride] for i in range(3)]
    out = operation(columns[0], columns[1])
    return operation(out, columns[2], out=out)
