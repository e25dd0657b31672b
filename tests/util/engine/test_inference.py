"""Channels-last inference against Chainer's own functions."""
import chainer.functions as F
import numpy as np
import pytest

from util.engine import inference


def data(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype('f')


def last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize('limit', [1, 5000, 1 << 20])
@pytest.mark.parametrize('kernel, stride, pad', [
    ((1, 1), 1, (0, 0)), ((3, 3), 1, (1, 1)), ((3, 3), 2, (0, 0)), ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0)),
    ((5, 5), 1, (2, 2)), ((1, 1), 2, (0, 0))])
def test_convolve(kernel, stride, pad, limit, monkeypatch):
    monkeypatch.setattr(inference, '_CPU_BYTES', limit)
    x, W, b = data(3, 4, 11, 9), data(5, 4, *kernel, seed=1), data(5, seed=2)
    expected = F.relu(F.convolution_2d(x, W, b, stride, pad)).array
    weight = W.transpose(2, 3, 1, 0).reshape(-1, 5)
    out = inference.convolve(np, last(x), weight, b, kernel, stride, pad)
    assert out.dtype == np.float32 and out.flags.c_contiguous
    np.testing.assert_allclose(out.transpose(0, 3, 1, 2), expected, atol=1e-5)


def test_chunks_cover_everything_once():
    for shape in ((3, 5, 4, 2), (1, 1, 1, 1), (7, 2, 3, 1)):
        for limit in (1, 30, 100, 1000, 10 ** 6):
            seen = np.zeros(shape, int)
            for part in inference._chunks(shape, 10, limit):
                seen[part] += 1
            assert (seen == 1).all()


@pytest.mark.parametrize('h, w', [(8, 8), (17, 10), (3, 3), (35, 4)])
def test_max_pool(h, w):
    x = data(2, 3, h, w)
    expected = F.max_pooling_2d(x, 3, 2, cover_all=False).array
    assert (inference.max_pool(np, last(x), 2, 0).transpose(0, 3, 1, 2) == expected).all()
    expected = F.max_pooling_2d(x, 3, 1, 1, cover_all=False).array  # pads with minus infinity
    assert (inference.max_pool(np, last(x), 1, 1).transpose(0, 3, 1, 2) == expected).all()


@pytest.mark.parametrize('h, w', [(8, 8), (5, 9), (3, 3), (1, 4), (1, 1)])
def test_average_pool_leaves_out_what_is_not_there(h, w):
    x = data(2, 3, h, w)
    expected = np.empty_like(x)
    for i in range(h):
        for j in range(w):
            expected[:, :, i, j] = x[:, :, max(i - 1, 0):i + 2, max(j - 1, 0):j + 2].mean(axis=(2, 3))
    np.testing.assert_allclose(inference.average_pool(np, last(x)).transpose(0, 3, 1, 2), expected, atol=1e-6)
