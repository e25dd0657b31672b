"""The switch: what is replaced and put back, what falls back to Chainer's own code, and whole networks."""
import threading

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import model
from tests.util.engine.test_convolution import derivatives, draw
from util.config import resolve
from util.engine import layout, nodes
from util.engine.switch import ENGINES, current, install, uninstall, using_engine
from util.files import UserError

METHODS = [(cls, method) for cls, method, _ in (*nodes.CONVOLUTIONS, *nodes.OTHERS)]


def methods():
    return [vars(cls)[method] for cls, method in METHODS]


@pytest.fixture(autouse=True)
def before():
    assert ENGINES['cpu'][current()] is None  # other tests leave Chainer as it is
    yield methods()
    uninstall()


def test_everything_is_replaced_and_put_back(engine, before):
    install(engine)
    assert all(a is not b for a, b in zip(methods(), before, strict=True))
    installed = methods()
    install(engine)  # once is enough
    assert methods() == installed
    uninstall()
    assert all(a is b for a, b in zip(methods(), before, strict=True))
    uninstall()
    assert methods() == before


def test_what_somebody_else_has_put_there_comes_back(engine, monkeypatch):
    cls, method = METHODS[0]
    other = lambda self, x, W, b: (np.zeros((1, 1, 1, 1), 'f'),)  # noqa: E731
    monkeypatch.setattr(cls, method, other)
    with using_engine(engine):
        assert F.convolution_2d(draw(1, 1, 3, 3), draw(1, 1, 1, 1)).shape == (1, 1, 3, 3)
        # and is what is not covered falls back to
        assert F.convolution_2d(draw(1, 1, 3, 3).astype('d'), draw(1, 1, 1, 1).astype('d')).shape == (1, 1, 1, 1)
    assert vars(cls)[method] is other


def test_nested(engine, before):
    with using_engine(engine):
        with using_engine('stock'):
            assert current() == 'stock' and methods() == before
            with using_engine(engine):
                assert current() == engine
        assert current() == engine and methods() != before
        with pytest.raises(ZeroDivisionError), using_engine('stock'):
            1 / 0  # noqa: B018
        assert current() == engine
    assert current() == 'stock' and methods() == before


def test_unknown(before):
    for function in (install, lambda name: using_engine(name).__enter__()):
        with pytest.raises(UserError, match="--engine must be auto or one of stock, numpy.*, not 'cudnn'"):
            function('cudnn')
    assert methods() == before


@pytest.mark.parametrize('dtypes, groups', [('ddd', 1), ('eee', 1), ('fdf', 1), ('fef', 1), ('fff', 3)])
def test_what_is_not_covered_is_as_it_was(engine, dtypes, groups):
    for function, W in ((F.convolution_2d, draw(6, 6 // groups, 3, 3, seed=1)),
                        (F.deconvolution_2d, draw(6, 6 // groups, 3, 3, seed=1))):
        x, W, b = (a.astype(t) for a, t in zip((draw(2, 6, 5, 4), W, draw(6, seed=2)), dtypes, strict=True))

        def run(function, *arrays):
            y = function(*arrays, 2, 1, groups=groups)
            gx, gW, gb = chainer.grad([y], arrays, [chainer.Variable(np.ones_like(y.array))])
            return [v.array for v in (y, gx, gW, gb)]
        arrays = [chainer.Variable(a) for a in (x, W, b)]
        expected = run(function, *arrays)
        with using_engine(engine):
            results = run(function, *arrays)
        for result, value in zip(results, expected, strict=True):
            assert result.dtype == value.dtype
            np.testing.assert_allclose(result, value, rtol=1e-5)


@pytest.mark.parametrize('call', [
    lambda: F.convolution_2d(draw(1, 2, 3, 3), draw(2, 2, 5, 5)),  # larger than the picture
    lambda: F.convolution_2d(draw(1, 2, 3, 3), draw(2, 2, 1, 1), pad=-1),
    lambda: F.convolution_2d(draw(1, 2, 3, 3), draw(2, 3, 1, 1)),
    lambda: F.deconvolution_2d(draw(1, 2, 3, 3), draw(2, 2, 1, 1), pad=3),
    lambda: F.deconvolution_2d(draw(1, 2, 3, 3), draw(2, 2, 1, 1), outsize=(9, 9)),
])
def test_errors_are_chainers(engine, call):
    with pytest.raises(Exception) as expected:  # noqa: B017 - whatever it is
        call()
    with using_engine(engine), pytest.raises(type(expected.value)) as error:
        call()
    assert str(error.value) == str(expected.value)


def test_a_graph_of_one_engine_goes_back_by_another(engine):
    def function(x, W, b):
        return F.average_pooling_2d(F.leaky_relu(F.convolution_2d(x, W, b, 1, 1)), 2)
    arrays = draw(2, 3, 6, 6), draw(4, 3, 3, 3, seed=1), draw(4, seed=2)
    expected = derivatives(function, *arrays, draw(2, 4, 3, 3, seed=3))
    for forward, backward in ((engine, 'stock'), ('stock', engine)):
        inputs = [chainer.Variable(a) for a in arrays]
        with using_engine(forward):
            y = function(*inputs)
        with using_engine(backward):
            gradients = chainer.grad([y], inputs, [chainer.Variable(draw(2, 4, 3, 3, seed=3))])
        for result, value in zip((y, *gradients), expected, strict=False):
            np.testing.assert_allclose(result.array, value, rtol=0, atol=1e-5 * abs(value).max())


def gradients(networks, z, x):
    """Gradients of a game's parameters, float64 where the arrays are."""
    generator, discriminator = networks
    for network in networks:
        network.cleargrads()
    fake = generator(z)
    (F.mean(F.softplus(-discriminator(fake))) + F.mean(F.softplus(discriminator(x)))).backward()
    return {(network.name, name): p.grad for network in networks for name, p in network.namedparams()}


@pytest.mark.parametrize('name', ['cnn', 'resnet'])
def test_networks_are_as_accurate_as_chainers(engine, name):
    row = resolve('cifar10', name, 'none', overrides=['model.width=4', 'model.dim_z=8']).model
    networks = model.build_generator(row, 32, 0), model.build_discriminator(row, 32, 0)
    networks[0].name, networks[1].name = 'G', 'D'
    z, x = draw(8, 8), np.tanh(draw(8, 3, 32, 32, seed=1))
    stock = gradients(networks, z, x)
    with using_engine(engine):
        results = gradients(networks, z, x)
    for network in networks:
        for p in network.params():
            p.array = p.array.astype('d')
        for link in network.links():
            if isinstance(link, L.BatchNormalization):
                link.avg_mean, link.avg_var = link.avg_mean.astype('d'), link.avg_var.astype('d')
    exact = gradients(networks, z.astype('d'), x.astype('d'))
    for key, value in exact.items():
        largest = max(abs(g).max() for k, g in exact.items() if k[0] == key[0])
        lost = abs(stock[key] - value).max()  # a sign that flips at a ReLU counts for both alike
        assert abs(results[key] - value).max() <= 4 * lost + 1e-6 * largest, key


class Orders(chainer.FunctionHook):
    """Functions that get pictures, of more than one pixel and channel, whose channels are not last."""

    name = 'Orders'

    def __init__(self):
        self.found = []

    def forward_postprocess(self, function, inputs):
        x = inputs[0]
        if x is not None and x.ndim == 4 and 1 not in x.shape[1:] and not layout.channels_last(x):
            self.found.append((function.label, x.shape))


def test_channels_stay_last_through_a_network(engine):
    row = resolve('cifar10', 'cnn', 'none', overrides=['model.width=4', 'model.dim_z=8']).model
    networks = model.build_generator(row, 32, 0), model.build_discriminator(row, 32, 0)
    networks[0].name, networks[1].name = 'G', 'D'
    with using_engine(engine), Orders() as orders:
        gradients(networks, draw(7, 8), np.tanh(draw(7, 3, 32, 32, seed=1)))
    found = {(label, shape) for label, shape in orders.found if shape[0] == 7}  # weights have other numbers
    # The dense layers' arrays, which have no such order, and the pictures, as they come
    assert found == {
        ('Deconvolution2DFunction', (7, 32, 4, 4)), ('Convolution2DFunction', (7, 3, 32, 32)),
        ('Convolution2DGradW', (7, 3, 32, 32)), ('_LeakyReLUGrad', (7, 32, 4, 4))}


def test_it_is_for_all_threads(engine):
    results = []
    with using_engine(engine):
        thread = threading.Thread(target=lambda: results.append(F.convolution_2d(draw(2, 2, 5, 5), draw(2, 2, 3, 3))))
        thread.start()
        thread.join()
    assert layout.channels_last(results[0].array)
