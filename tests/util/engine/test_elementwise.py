"""Activations, upsampling and pooling of the engines against Chainer's own, and that they keep the order of memory."""
import warnings

import chainer
import chainer.functions as F
import numpy as np
import pytest
import threadpoolctl

from util.engine import elementwise, layout
from util.engine.switch import using_engine

ACTIVATIONS = {
    'relu': F.relu,
    'leaky_relu 0.1': lambda x: F.leaky_relu(x, 0.1),
    'leaky_relu 1': lambda x: F.leaky_relu(x, 1),
    'leaky_relu 0': lambda x: F.leaky_relu(x, 0),
    'leaky_relu 1.5': lambda x: F.leaky_relu(x, 1.5),
    'leaky_relu -0.1': lambda x: F.leaky_relu(x, -0.1),
    'tanh': F.tanh,
}
RESIZES = {
    'unpooling': lambda x: F.unpooling_2d(x, 2, 2, 0, cover_all=False),
    'unpooling 3': lambda x: F.unpooling_2d(x, 3, cover_all=False),
    'unpooling that overlaps': lambda x: F.unpooling_2d(x, 3, 2, 0, cover_all=False),
    'unpooling with pad': lambda x: F.unpooling_2d(x, 2, 2, 2, cover_all=False),
    'unpooling, cover_all': lambda x: F.unpooling_2d(x, 2),
    'average': lambda x: F.average_pooling_2d(x, 2),
    'average 3x2': lambda x: F.average_pooling_2d(x, (3, 2)),
    'average that overlaps': lambda x: F.average_pooling_2d(x, 3, 2),
    'average with pad': lambda x: F.average_pooling_2d(x, 2, 2, 1),
}


def draw(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype('f')


def derivatives(function, x, gy=None):
    """Output, gradient, and gradients of a weighted sum of that."""
    x = chainer.Variable(x)
    y = function(x)
    gy = chainer.Variable(draw(*y.shape, seed=1).astype(x.dtype) if gy is None else gy)
    gx, = chainer.grad([y], [x], [gy], enable_double_backprop=True)
    ggy, = chainer.grad([F.sum(gx * gx * draw(*x.shape, seed=2).astype(x.dtype))], [gy])
    return [v.array for v in (y, gx, ggy)]


def both(engine, function, *arrays):
    expected = derivatives(function, *arrays)
    with using_engine(engine):
        results = derivatives(function, *arrays)
    assert [(a.shape, a.dtype) for a in results] == [(a.shape, a.dtype) for a in expected]
    return results, expected


@pytest.mark.parametrize('name', ACTIVATIONS)
@pytest.mark.parametrize('n_threads, shape', [(1, (2, 3, 4, 5)), (2, (3, 8, 70, 71)), (1, (1, 1, 1, 1))])
def test_activations_to_the_bit(engine, order, name, n_threads, shape):
    x = draw(*shape)
    x.flat[:6] = [0, -0., 1e-45, -1e-45, 1e38, -1e38][:x.size]
    with threadpoolctl.threadpool_limits(n_threads, 'blas'):
        for gy in (draw(*shape, seed=1), order(draw(*shape, seed=1))):
            results, expected = both(engine, ACTIVATIONS[name], order(x), gy)
            for result, value in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize('name', ACTIVATIONS)
@pytest.mark.parametrize('shape', [(), (7,), (3, 4), (2, 3, 4, 5, 6), (0, 3, 2, 2)])
def test_activations_of_any_shape(engine, name, shape):
    for result, value in zip(*both(engine, ACTIVATIONS[name], draw(*shape).reshape(shape)), strict=True):
        np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_what_is_no_number_stays_none(engine, name):
    x = np.array([np.nan, np.inf, -np.inf, 1, -1, 0] * 4, 'f')
    gy = np.repeat(np.array([1, np.nan, np.inf, -np.inf], 'f'), 6)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)
        for result, value in zip(*both(engine, ACTIVATIONS[name], x, gy), strict=True):
            np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize('name', RESIZES)
@pytest.mark.parametrize('shape', [(2, 3, 6, 7), (1, 1, 4, 4), (40, 20, 8, 8)])
def test_resizing(engine, order, name, shape):
    for result, value in zip(*both(engine, RESIZES[name], order(draw(*shape))), strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('n_threads', [1, 2])
@pytest.mark.parametrize('name', ['relu', 'leaky_relu 0.1', 'tanh', 'unpooling', 'average'])
def test_the_order_of_memory_stays(engine, last, monkeypatch, name, n_threads):
    monkeypatch.setattr(elementwise, '_PIECE', 100)
    function = {**ACTIVATIONS, **RESIZES}[name]
    x = last(draw(3, 5, 4, 6))
    gy = last(draw(*function(x).shape, seed=1))
    with threadpoolctl.threadpool_limits(n_threads, 'blas'):
        results, expected = both(engine, function, x, gy)
    assert layout.channels_last(results[0]) and layout.channels_last(results[1])
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['relu', 'leaky_relu 0.1'])
def test_a_gradient_takes_the_order_of_the_output(engine, last, name):
    x = draw(3, 5, 4, 6)
    for forward, backward in ((last, np.ascontiguousarray), (np.ascontiguousarray, last)):
        (y, gx, _), _ = both(engine, ACTIVATIONS[name], forward(x), backward(draw(*x.shape, seed=1)))
        assert y.strides == gx.strides == forward(x).strides


def test_float64_is_as_it_was(engine, last):
    for function in (*ACTIVATIONS.values(), *RESIZES.values()):
        for result, value in zip(*both(engine, function, last(draw(2, 3, 6, 6).astype('d'))), strict=True):
            assert result.dtype == np.float64 and (result == value).all()
