"""Dense layers of the engines against Chainer's own."""
import chainer
import chainer.functions as F
import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.util.engine.test_convolution import derivatives, draw
from util.engine import dense, threads
from util.engine.switch import using_engine

ORDERS = {'C': np.ascontiguousarray, 'Fortran': np.asfortranarray, 'gaps': lambda x: np.repeat(x, 2, axis=1)[:, ::2],
          'backwards': lambda x: np.ascontiguousarray(x[::-1])[::-1]}


@pytest.mark.parametrize('order', ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('shape', [(5, 7, 3), (1, 4, 6), (6, 4, 1), (1, 1, 1), (64, 30, 200)])
def test_linear(engine, shape, nobias, order):
    m, k, n = shape
    x, W, b, gy = order(draw(m, k)), order(draw(n, k, seed=1)), None if nobias else draw(n, seed=2), draw(m, n, seed=3)
    expected = derivatives(F.linear, x, W, b, gy)
    with using_engine(engine):
        results = derivatives(F.linear, x, W, b, gy)
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape and result.dtype == np.float32
        np.testing.assert_allclose(result, value, rtol=0, atol=1e-5 * abs(value).max())


@pytest.mark.parametrize('dtypes', ['dd', 'ee', 'fd'])
def test_other_types_are_as_they_were(engine, dtypes):
    x, W = draw(3, 4).astype(dtypes[0]), draw(2, 4, seed=1).astype(dtypes[1])
    expected = derivatives(F.linear, x, W, None, draw(3, 2).astype(dtypes[0]))
    with using_engine(engine):
        results = derivatives(F.linear, x, W, None, draw(3, 2).astype(dtypes[0]))
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == value.dtype
        np.testing.assert_allclose(result, value, rtol=0, atol=1e-5 * abs(value).max())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 5))
def test_parts_cover_the_product(m, k, n, parts):
    a, b = draw(m, k), draw(k, n, seed=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(dense, 'worth', lambda microseconds: parts)
        np.testing.assert_allclose(dense.multiply(a, b), a.astype('d') @ b, atol=1e-4)


def test_it_is_split_where_that_is_worth_it(engine, monkeypatch):
    monkeypatch.setattr(threads, '_WORTH', 500)
    seen = []
    monkeypatch.setattr(dense, '_multiply', lambda piece: seen.append(piece[2].shape))
    with threadpoolctl.threadpool_limits(2, 'blas'), using_engine(engine), chainer.no_backprop_mode():
        F.linear(draw(64, 128), draw(8192, 128, seed=1))
        F.linear(draw(16, 128), draw(2048, 128, seed=1))
    assert seen == [(64, 4096), (64, 4096), (16, 2048)]
