"""Batch normalization and sums of the engines against Chainer's own and against float64."""
import chainer
import chainer.functions as F
import numpy as np
import pytest
import threadpoolctl
from chainer.functions.normalization import batch_normalization

from util.engine import layout, normalization
from util.engine.switch import using_engine


def draw(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype('f')


def normalize(x, gamma, beta, gy, **options):
    """Output, gradients, running statistics, and gradients of the gradients' weighted sum."""
    mean, var = np.zeros_like(gamma), np.ones_like(gamma)
    x, gamma, beta, gy = (chainer.Variable(a) for a in (x, gamma, beta, gy))
    y = F.batch_normalization(x, gamma, beta, running_mean=mean, running_var=var, **options)
    first = chainer.grad([y], [x, gamma, beta], [gy], enable_double_backprop=True)
    total = sum(F.sum(F.cast(g, 'd') * draw(*g.shape, seed=i).astype('d')) for i, g in enumerate(first, 10))
    return [*(v.array for v in (y, *first, *chainer.grad([total], [x, gamma, gy]))), mean, var]


def inputs(n, c, h, w, order, dtype='f'):
    x, gy = 3 + 2 * draw(n, c, h, w), draw(n, c, h, w, seed=3)
    return [a.astype(dtype) for a in (order(x), 1 + 0.3 * draw(c, seed=1), draw(c, seed=2), order(gy))]


def close(results, expected, tolerance=1e-5):
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape
        np.testing.assert_allclose(result, value, rtol=0, atol=tolerance * max(abs(value).max(), 1))


@pytest.mark.parametrize('shape', [(4, 3, 5, 6), (16, 32, 8, 8), (2, 5, 1, 1), (5, 1, 3, 3)])
@pytest.mark.parametrize('n_threads', [1, 2])
def test_agrees_with_chainer(engine, order, monkeypatch, shape, n_threads):
    monkeypatch.setattr(normalization, '_PIECE', 1000)
    arrays = inputs(*shape, order)
    expected = normalize(*arrays)
    with threadpoolctl.threadpool_limits(n_threads, 'blas'), using_engine(engine):
        results = normalize(*arrays)
    close(results, expected)


def test_statistics_are_sums_in_float64(engine, last):
    arrays = inputs(64, 4, 32, 32, last)
    arrays[0] += 30
    exact = normalize(*(a.astype('d') for a in arrays))
    with using_engine(engine):
        results = normalize(*arrays)
    for i, name in ((2, 'ggamma'), (3, 'gbeta'), (-2, 'mean'), (-1, 'variance')):
        np.testing.assert_allclose(results[i], exact[i], rtol=1e-5, err_msg=name)
    close(results[:2], exact[:2])


def test_the_order_of_memory_stays_and_bits_do_not_depend_on_threads(engine, last):
    arrays, results = inputs(16, 24, 16, 16, last), []
    for n_threads in (1, 2, 2):
        with threadpoolctl.threadpool_limits(n_threads, 'blas'), using_engine(engine):
            results.append(normalize(*arrays)[:4])
    for same in zip(*results, strict=True):
        assert (same[0] == same[1]).all() and (same[1] == same[2]).all()
    assert layout.channels_last(results[0][0]) and layout.channels_last(results[0][1])
    with using_engine(engine):  # and the gradient takes that of the input
        _, gx, *_ = normalize(*arrays[:3], np.ascontiguousarray(arrays[3]))
    assert layout.channels_last(gx) and (gx == results[0][1]).all()


@pytest.mark.parametrize('change', ['float64', 'mixed', 'axis', 'two dimensions'])
def test_what_is_not_covered_is_as_it_was(engine, last, change):
    arrays, options = inputs(4, 3, 3, 3, last, 'd' if change == 'float64' else 'f'), {}
    if change == 'mixed':
        arrays[0], arrays[3] = (arrays[i].astype('e') for i in (0, 3))
    elif change == 'axis':
        options = {'axis': (0, 1, 3)}
    elif change == 'two dimensions':
        arrays[0], arrays[3] = (arrays[i][:, :, 0, 0] for i in (0, 3))
    expected = normalize(*arrays, **options)
    with using_engine(engine):
        results = normalize(*arrays, **options)
    # Sums of float32 in Chainer's double backward are the engine's
    close(results, expected, 1e-2 if change == 'mixed' else 1e-6)
    assert all((a == b).all() for a, b in zip(results[:4], expected, strict=False))


def test_a_subclass_is_left_alone(engine, last):
    """ChainerMN's batch normalization gathers its statistics from all processes."""
    class Other(batch_normalization.GeneralBatchNormalizationImpl):
        def get_mean_and_var(self, axis, gamma, x, xp, interm_dtype):
            return np.full(x.shape[1], 7, 'f'), np.ones(x.shape[1], 'f')
    x, gamma, beta, _ = inputs(2, 3, 4, 4, last)
    with using_engine(engine):
        y = batch_normalization.BatchNormalization(eps=0, impl_selector=lambda *_: Other()).apply((x, gamma, beta))[0]
    np.testing.assert_allclose(y.array, (x - 7) * gamma[:, None, None] + beta[:, None, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('keepdims', [False, True])
@pytest.mark.parametrize('axis', [None, 0, 1, (0, 2, 3), (-1, 0, -2), (2, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_sums(engine, order, axis, keepdims):
    x = order(draw(6, 5, 7, 8))
    with using_engine(engine):
        result = F.sum(x, axis, keepdims).array
    expected = F.sum(x.astype('d'), axis, keepdims).array
    assert result.dtype == np.float32 and result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('shape', [(5, 1, 1), (1, 5, 1, 1), (6, 5, 1, 1), (1, 1, 1), (8,), (6, 1, 1, 1), (1, 5, 7, 8)])
def test_sums_to_a_shape(engine, order, shape):
    x = order(draw(6, 5, 7, 8))
    with using_engine(engine):
        result = F.sum_to(x, shape).array
    expected = F.sum_to(x.astype('d'), shape).array
    assert result.dtype == np.float32 and result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('function', [lambda x: F.sum(x, (0, 2, 3)), lambda x: F.sum_to(x, (4, 1, 1)),
                                      lambda x: F.sum(x, (2, 3))])
def test_sums_in_float64(engine, last, function):
    x = last(1 + draw(64, 4, 64, 64))
    with using_engine(engine):
        np.testing.assert_allclose(function(x).array, function(x.astype('d')).array, rtol=1e-7)
