"""Convolution and deconvolution of each engine against Chainer's own, in all that Chainer's own tests vary and more."""
import itertools
import threading

import chainer
import chainer.functions as F
import numpy as np
import pytest
import threadpoolctl

from tests.helpers import in_a_forked_child
from util.engine import convolution, layout, threads
from util.engine.switch import using_engine


def draw(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype('f')


def derivatives(function, x, W, b, gy):
    """Output, gradients of x, W, b, and what the gradients' sum, weighted, has for gradients of x, W and gy."""
    inputs = [chainer.Variable(a) for a in (x, W, b) if a is not None]
    gy = chainer.Variable(gy)
    y = function(*inputs)
    first = chainer.grad([y], inputs, [gy], enable_double_backprop=True)
    weighted = [g * draw(*g.shape, seed=i).astype(g.dtype) for i, g in enumerate(first)]
    total = sum(F.cast(F.sum(g), 'd') for g in weighted)
    second = chainer.grad([total], [*inputs[:2], gy])
    return [v.array for v in (y, *first, *second)]


def compare(engine, function, x, W, b, order=np.ascontiguousarray):
    """Everything agrees with Chainer's own to 1e-5 of the largest number, and lies as it should."""
    x, W = order(x), order(W)
    gy = order(draw(*function(*(a for a in (x, W, b) if a is not None)).shape, seed=7))
    expected = derivatives(function, x, W, b, gy)
    with using_engine(engine):
        results = derivatives(function, x, W, b, gy)
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape and result.dtype == np.float32
        np.testing.assert_allclose(result, value, rtol=0, atol=1e-5 * abs(value).max())
    assert layout.channels_last(results[0]) and layout.channels_last(results[1])


# Chainer's own cases (tests/chainer_tests/functions_tests/connection_tests): 3 -> 2 channels a group, pictures of 4x3,
# a 3x3 kernel, and a bias with gaps. Of groups and other types than float32 it has these in Fortran's order only.

TYPES = [pair for pair in itertools.product('efd', repeat=2) if pair != ('f', 'f')]
BIAS = np.repeat(draw(4, seed=2), 2)[::2]


@pytest.mark.parametrize('cover_all, dilate, nobias', list(itertools.product([False, True], [1, 2], [False, True])))
def test_chainers_cases_of_convolution(engine, order, cover_all, dilate, nobias):
    compare(engine, lambda *a: F.convolution_2d(*a, stride=2, pad=dilate, cover_all=cover_all, dilate=dilate),
            draw(2, 3, 4, 3), draw(2, 3, 3, 3, seed=1), None if nobias else BIAS[:2], order)


@pytest.mark.parametrize('nobias, outsize', list(itertools.product([False, True], [False, True])))
@pytest.mark.parametrize('stride, dilate', list(itertools.product([1, 2], [1, 2])))
def test_chainers_cases_of_deconvolution(engine, order, stride, dilate, nobias, outsize):
    size = tuple(stride * (n - 1) + 2 * dilate + 1 - 2 for n in (4, 3)) if outsize else None
    compare(engine, lambda *a: F.deconvolution_2d(*a, stride=stride, pad=1, outsize=size, dilate=dilate),
            draw(2, 3, 4, 3), draw(3, 2, 3, 3, seed=1), None if nobias else BIAS[:2], order)


def compare_uncovered(engine, function, x, W, b, types):
    """Chainer computes it, but for sums of float32 numbers beside a convolution."""
    x, W, b = x.astype(types[0], 'F'), W.astype(types[1], 'F'), b if b is None else b.astype(types[0])
    gy = draw(*function(*(a for a in (x, W, b) if a is not None)).shape, seed=7).astype(types[0], 'F')
    expected = derivatives(function, x, W, b, gy)
    with using_engine(engine):
        results = derivatives(function, x, W, b, gy)
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == value.dtype
        np.testing.assert_allclose(result, value, rtol=0, atol=1e-5 * abs(value).max())


@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('types, groups', [*itertools.product(TYPES, [1, 2]), (('f', 'f'), 2)])
def test_chainers_cases_of_convolution_that_are_not_covered(engine, types, groups, nobias):
    compare_uncovered(engine, lambda *a: F.convolution_2d(*a, stride=2, pad=1, groups=groups),
                      draw(2, 3 * groups, 4, 3), draw(2 * groups, 3, 3, 3, seed=1),
                      None if nobias else BIAS[:2 * groups], types)


@pytest.mark.parametrize('stride, dilate', list(itertools.product([1, 2], [1, 2])))
@pytest.mark.parametrize('types, groups', [*itertools.product(TYPES, [1, 2]), (('f', 'f'), 2)])
def test_chainers_cases_of_deconvolution_that_are_not_covered(engine, types, groups, stride, dilate):
    size = tuple(stride * (n - 1) + 2 * dilate + 1 - 2 for n in (4, 3))
    compare_uncovered(engine, lambda *a: F.deconvolution_2d(
        *a, stride=stride, pad=1, outsize=size, dilate=dilate, groups=groups),
                      draw(2, 3 * groups, 4, 3), draw(3 * groups, 2, 3, 3, seed=1), BIAS[:2 * groups], types)


def test_one_output_and_a_gradient_without_memory_of_its_own(engine):
    """Chainer's issue 2744: the gradient of a sum is one number, repeated."""
    x, W = np.ones((2, 2, 10, 10), 'f'), chainer.Variable(np.ones((1, 2, 3, 3), 'f'))
    with using_engine(engine):
        F.sum(F.convolution_2d(x, W)).backward()
    assert (W.grad == 2 * 8 * 8).all()


KERNELS = [(1, 1), (2, 3), (4, 4)]
STRIDES = [(1, 1), (2, 2), (3, 1), (2, 5)]  # with the kernels: smaller, equal and larger
PADS = [(0, 0), (1, 2), (4, 4)]  # also larger than the kernel
DILATES = [(1, 1), (2, 1), (2, 3)]
GRID = list(itertools.product(KERNELS, STRIDES, PADS, DILATES, [False, True]))


def fits(size, kernel, pad, dilate):
    return all(n + 2 * p >= (k - 1) * d + 1 for n, k, p, d in zip(size, kernel, pad, dilate, strict=True))


@pytest.mark.parametrize('n, size', [(2, (7, 6)), (1, (1, 1)), (3, (5, 1))])
def test_convolution_of_every_window(engine, n, size):
    for i, (kernel, stride, pad, dilate, cover_all) in enumerate(GRID):
        if fits(size, kernel, pad, dilate):
            compare(engine, lambda *a: F.convolution_2d(  # noqa: B023
                *a, stride=stride, pad=pad, cover_all=cover_all, dilate=dilate),  # noqa: B023
                    draw(n, 3, *size), draw(2, 3, *kernel, seed=1), None if i % 2 else draw(2, seed=2))


@pytest.mark.parametrize('n, size', [(2, (3, 4)), (1, (1, 1))])
def test_deconvolution_of_every_window(engine, n, size):
    for i, (kernel, stride, pad, dilate, largest) in enumerate(GRID):
        # Of the sizes whose convolution has this one, the smallest or the largest
        outsize = tuple(s * (m - 1) + (k - 1) * d + 1 - 2 * p + (s - 1) * largest for s, m, k, d, p in zip(
            stride, size, kernel, dilate, pad, strict=True))
        if min(outsize) > 0:
            compare(engine, lambda *a: F.deconvolution_2d(  # noqa: B023
                *a, stride=stride, pad=pad, outsize=outsize, dilate=dilate),  # noqa: B023
                    draw(n, 3, *size), draw(3, 2, *kernel, seed=1), None if i % 2 else draw(2, seed=2))


@pytest.mark.parametrize('n_threads', [1, 2])
@pytest.mark.parametrize('tile', [1, 2000])
@pytest.mark.parametrize('channels, outputs', [(16, 2), (2, 16), (20, 24)])
@pytest.mark.parametrize('kernel, stride, pad', [(3, 1, 1), (4, 2, 1), (1, 1, 0), (3, 1, 3)])
def test_tiles_and_threads(engine, last, monkeypatch, kernel, stride, pad, channels, outputs, tile, n_threads):
    monkeypatch.setattr(convolution, '_TILE_BYTES', tile)
    x, W, b = draw(3, channels, 6, 8), draw(outputs, channels, kernel, kernel, seed=1), draw(outputs, seed=2)
    with threadpoolctl.threadpool_limits(n_threads, 'blas'):
        assert threads.n_threads() == n_threads
        for order in (np.ascontiguousarray, last):
            compare(engine, lambda *a: F.convolution_2d(*a, stride, pad), x, W, b, order)
            compare(engine, lambda *a: F.deconvolution_2d(*a, stride, pad), draw(3, outputs, 6, 8), W,
                    draw(channels, seed=2), order)


@pytest.mark.parametrize('shape', [(64, 8, 3), (1, 32, 1000), (5, 7, 300_000), (5, 100, 40_000_000), (1, 1, 1)])
def test_tiles_cover_every_row_once(shape):
    n, rows, size = shape
    for n_threads, places in itertools.product((1, 2, 7), (1, 50)):
        seen = np.zeros((n, rows), int)
        for tile in convolution._tiles(n, rows, size, n_threads, places):
            seen[tile.first:tile.last, tile.top:tile.bottom] += 1
        assert (seen == 1).all()


def large(order):
    """x, W, b and gy of a convolution of which every thread gets something."""
    return order(draw(16, 24, 16, 16)), draw(24, 24, 4, 4, seed=1), draw(24, seed=2), order(draw(16, 24, 8, 8, seed=3))


def convolve(*arrays):
    return F.convolution_2d(*arrays, 2, 1)


def test_bias_gradients_are_sums_in_float64(engine, last):
    gy = last(1 + draw(64, 4, 64, 64))
    expected = gy.sum((0, 2, 3), 'd')
    assert abs(gy.sum((0, 2, 3)) / expected - 1).max() > 1e-6  # what there is to lose
    W, b = draw(4, 1, 1, 1), chainer.Variable(np.zeros(4, 'f'))
    with using_engine(engine):
        gb, = chainer.grad([F.convolution_2d(draw(64, 1, 64, 64), W, b)], [b], [chainer.Variable(gy)])
    np.testing.assert_allclose(gb.array, expected, rtol=1e-7)


@pytest.mark.parametrize('n_threads', [1, 2])
def test_the_same_bits_twice(engine, last, monkeypatch, n_threads):
    monkeypatch.setattr(convolution, '_TILE_BYTES', 1 << 16)
    with threadpoolctl.threadpool_limits(n_threads, 'blas'), using_engine(engine):
        first, second = (derivatives(convolve, *large(last)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_two_python_threads_at_once(engine, last):
    arrays = {'C': large(np.ascontiguousarray), 'last': large(last)}
    results, start = {}, threading.Barrier(2)

    def work(name):
        start.wait(timeout=20)
        results[name] = [derivatives(convolve, *arrays[name]) for _ in range(8)]
    with threadpoolctl.threadpool_limits(2, 'blas'), using_engine(engine):
        expected = {name: derivatives(convolve, *arrays[name]) for name in arrays}
        workers = [threading.Thread(target=work, args=(name,)) for name in arrays]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert threads.n_threads() == 2
    assert len(results) == 2
    for name, runs in results.items():
        for run in runs:
            assert all((a == b).all() for a, b in zip(run, expected[name], strict=True))


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_a_forked_child(engine, last):
    """It works, and has the bits of the NumPy engine, which stands in where another's threads cannot be had."""
    with threadpoolctl.threadpool_limits(2, 'blas'), using_engine('numpy'):
        expected = derivatives(convolve, *large(last))
    with threadpoolctl.threadpool_limits(2, 'blas'), using_engine(engine):
        derivatives(convolve, *large(last))  # its threads start
        assert in_a_forked_child(lambda: all(
            (a == b).all() for a, b in zip(derivatives(convolve, *large(last)), expected, strict=True)))
