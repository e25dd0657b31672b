"""Batch normalization and sums of each channel, on float32 arrays whose memory has the channels last.

In this order of memory NumPy adds the numbers of a channel one after the other, and float32 loses 20 to 50 times as
much as with the channels first, where it adds pairs of sums. So sums are float64 here. They are made piece by piece and
the pieces added in order, so that the bits do not depend on the number of threads.
"""
import numpy as np

from util.engine.threads import scratch, split_map, worth

_PIECE = 1 << 17  # numbers, as float64 a megabyte
_NUMBERS = 500  # of them, about, a thread gets done in a microsecond
_WIDTH = 512  # numbers: as long should rows be, because NumPy begins each anew


def channel_sums(x):
    """Sums of each channel of ``x`` (N, C, H, W), channels last: (C,) float64."""
    def compute(piece):
        return _sum_rows(rows[piece])
    rows, pieces = _pieces(x)
    return _add(split_map(compute, pieces, worth(x.size / _NUMBERS)), x.shape[1])


def normalize(x, gamma, beta, eps):
    """Normalize each channel by its mean and variance, then multiply and shift.

    Args:
        x (numpy.ndarray): (N, C, H, W), channels last.
        gamma, beta (numpy.ndarray): (C,), float32.
        eps (float): Added to the variance.

    Returns:
        tuple: y, (N, C, H, W), channels last; mean, biased variance and 1 / sqrt(variance + eps), (C,) float32.

    """
    count = x.size // len(gamma)
    mean = channel_sums(x) / count
    rows, pieces = _pieces(x)
    wide_mean = _wide(mean, rows)

    def square(piece):
        centred = scratch('float64', rows[piece].shape, 'd')
        np.subtract(rows[piece], wide_mean, out=centred)
        np.multiply(centred, centred, out=centred)
        return np.ones(len(centred)) @ centred
    variance = _add(split_map(square, pieces, worth(x.size / _NUMBERS)), len(gamma)) / count
    inv_std = 1 / np.sqrt(variance + eps)
    y = np.empty_like(x)
    out, vectors = _rows(y), [_wide(v.astype('f'), rows) for v in (mean, gamma * inv_std, beta)]

    def apply(piece):
        np.subtract(rows[piece], vectors[0], out=out[piece])
        np.multiply(out[piece], vectors[1], out=out[piece])
        np.add(out[piece], vectors[2], out=out[piece])
    split_map(apply, pieces, worth(x.size / _NUMBERS))
    return (y, *(v.astype('f') for v in (mean, variance, inv_std)))


def normalize_gradient(x, gamma, gy, mean, inv_std):
    """Gradients of :func:`normalize`.

    Args:
        x, gy (numpy.ndarray): Input, and gradient of the output, (N, C, H, W), channels last.
        gamma, mean, inv_std (numpy.ndarray): (C,), float32.

    Returns:
        tuple: Of x, (N, C, H, W), channels last; of gamma and of beta, (C,) float32.

    """
    (rows, pieces), gradients, c = _pieces(x), _rows(gy), len(gamma)
    wide_mean, wide_inv_std = _wide(mean, rows), _wide(inv_std, rows)

    def standardized(piece):
        x_hat = scratch('float32', rows[piece].shape)
        np.subtract(rows[piece], wide_mean, out=x_hat)
        return np.multiply(x_hat, wide_inv_std, out=x_hat)

    def sums(piece):
        g, x_hat = gradients[piece], standardized(piece)
        return _sum_rows(g), _sum_rows(np.multiply(x_hat, g, out=x_hat))
    gbeta, ggamma = (_add(values, c) for values in zip(*split_map(sums, pieces, worth(x.size / _NUMBERS)), strict=True))
    gx = np.empty_like(x)
    out, count = _rows(gx), x.size // c
    vectors = [_wide(v.astype('f'), rows) for v in (ggamma / count, gbeta / count, gamma * inv_std)]

    def apply(piece):
        x_hat = standardized(piece)
        np.multiply(x_hat, vectors[0], out=x_hat)
        np.add(x_hat, vectors[1], out=x_hat)
        np.subtract(gradients[piece], x_hat, out=out[piece])
        np.multiply(out[piece], vectors[2], out=out[piece])
    split_map(apply, pieces, worth(x.size / _NUMBERS))
    return gx, ggamma.astype('f'), gbeta.astype('f')


def _rows(x):
    """A view of x (N, C, H, W), channels last: (N * H * W / k, k * C), k places a row where that makes it long enough.
    """
    c = x.shape[1]
    places, k = x.size // c, 1
    while 2 * k * c <= _WIDTH and places % (2 * k) == 0:
        k *= 2
    return x.transpose(0, 2, 3, 1).reshape(-1, k * c)


def _pieces(x):
    """Rows of ``x``, see :func:`_rows`, and slices that cut them."""
    rows = _rows(x)
    step = max(1, _PIECE // rows.shape[1])
    return rows, [slice(i, i + step) for i in range(0, len(rows), step)]


def _wide(vector, rows):
    """Numbers of the channels, as often as a row has places."""
    return np.tile(vector, rows.shape[1] // len(vector))


def _sum_rows(rows):
    """Sums of the columns of rows, float64."""
    numbers = scratch('float64', rows.shape, 'd')
    np.copyto(numbers, rows)
    return np.ones(len(rows)) @ numbers


def _add(sums, channels):
    """The sum of sums of pieces: (channels,) float64."""
    return np.sum(sums, axis=0).reshape(-1, channels).sum(axis=0)
