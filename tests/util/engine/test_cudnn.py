"""The cuDNN engine on NumPy arrays: a stand-in computes what cuDNN is asked for, and Chainer's CPU code is replaced."""
import contextlib
import itertools
import sys
import types

import chainer
import chainer.functions as F
import numpy as np
import pytest

import model
from tests.util.engine.conftest import ORDERS
from tests.util.engine.fake_cudnn import Fake, put_numpy_in_cupys_place, replace_cpu_code
from tests.util.engine.test_convolution import derivatives, draw
from util.config import resolve
from util.engine import cudnn, gpu_nodes, layout, switch
from util.engine.cudnn import PRECISIONS, Cudnn
from util.files import UserError
from util.loss import gradient_penalty

METHODS = [(cls, method) for cls, method, _ in (*gpu_nodes.COMPUTED, *gpu_nodes.OTHERS)]


def launch(name):
    """The conversions of bfloat16, whose CUDA code tests/kernels runs."""
    def kernel(grid, block, arguments):
        x, y, n = arguments
        assert n == x.size == y.size and grid[0] * block[0] >= min(n, 4096 * 256)
        if name == 'to_bfloat16':
            bits = x.view('u4')
            y[...] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16
        else:
            y.view('u4')[...] = x.astype('u4') << 16
    return kernel


@pytest.fixture
def fake(monkeypatch):
    """The stand-in for the package; arrays are NumPy's."""
    put_numpy_in_cupys_place(monkeypatch)
    monkeypatch.setattr(cudnn, 'get_kernel', launch)
    return Fake()


@pytest.fixture
def using(fake):
    """A context manager: the engine in the place of Chainer's CPU code."""
    @contextlib.contextmanager
    def using(precision='tf32'):
        core = Cudnn(fake, np, PRECISIONS[precision])
        with pytest.MonkeyPatch.context() as patch:
            replace_cpu_code(patch, core, gpu_nodes.OTHERS)
            yield
    return using


def close(results, expected, tolerance=1e-5):
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape and result.dtype == value.dtype
        np.testing.assert_allclose(result, value, rtol=0, atol=tolerance * abs(value).max())


WINDOWS = list(itertools.product([1, 2], [0, 1], [1, 2], [(3, 3), (4, 4), (1, 2)]))


@pytest.mark.parametrize('stride, pad, dilate, kernel', WINDOWS)
@pytest.mark.parametrize('refused', [None, 'bias', 'everything'])
def test_convolutions(fake, using, order, stride, pad, dilate, kernel, refused):
    fake.refuses = lambda operations: refused == 'everything' or refused in operations

    def function(x, W, b):
        return F.convolution_2d(x, W, b, stride, pad, dilate=dilate)
    x, W, b = order(draw(2, 5, 9, 8)), order(draw(4, 5, *kernel, seed=1)), draw(8, seed=2)[::2]
    gy = order(draw(*function(x, W, b).shape, seed=3))
    expected = derivatives(function, x, W, b, gy)
    with using():
        results = derivatives(function, x, W, b, gy)
    close(results, expected)
    ran = {operation for graph in fake.graphs if graph.ran for operation in graph.operations}
    covered = function(x, W, b).shape[2:] == tuple(  # else Chainer computes
        (n + 2 * pad - dilate * (k - 1) - 1) // stride + 1 for n, k in zip((9, 8), kernel, strict=True))
    assert covered and ran == {None: {'conv_fprop', 'conv_dgrad', 'conv_wgrad', 'bias'},
                               'bias': {'conv_fprop', 'conv_dgrad', 'conv_wgrad'}, 'everything': set()}[refused]
    if refused != 'everything':
        assert layout.channels_last(results[0]) and layout.channels_last(results[1])
        assert results[2].flags.c_contiguous


@pytest.mark.parametrize('function, is_covered', [
    (lambda x, W, b: F.deconvolution_2d(x, W, b, 2, 1), True),
    (lambda x, W, b: F.deconvolution_2d(x, W, b, 2, 1, outsize=(11, 9)), True),  # which leaves a row over
    (lambda x, W, b: F.deconvolution_2d(x, W, b, 2, 1, outsize=(9, 8)), False),  # too small: the last output sees less
    (lambda x, W, b: F.convolution_2d(x, W.transpose(1, 0, 2, 3), b, 2, 0, cover_all=True), False),  # more than fits
])
def test_other_windows(fake, using, function, is_covered):
    arrays = draw(2, 5, 5, 4), draw(5, 4, 4, 4, seed=1), draw(4, seed=2)
    gy = draw(*function(*map(chainer.Variable, arrays)).shape, seed=3)
    expected = derivatives(function, *arrays, gy)
    with using():
        close(derivatives(function, *arrays, gy), expected)
    assert bool(fake.graphs) == is_covered


@pytest.mark.parametrize('refused', [None, 'bias', 'conv_fprop', 'conv_dgrad', 'conv_wgrad'])
def test_dense_layers(fake, using, refused):
    fake.refuses = lambda operations: refused in operations
    arrays, gy = (draw(6, 5), draw(4, 5, seed=1), draw(4, seed=2)), draw(6, 4, seed=3)
    expected = derivatives(F.linear, *arrays, gy)
    with using():
        close(derivatives(F.linear, *arrays, gy), expected)
        close(derivatives(F.linear, arrays[0].astype('d'), arrays[1].astype('d'), arrays[2].astype('d'),
                          gy.astype('d')), [x.astype('d') for x in expected], 1e-6)
    ran = {operation for graph in fake.graphs if graph.ran for operation in graph.operations}
    assert ran == {'conv_fprop', 'conv_dgrad', 'conv_wgrad', 'bias'} - {refused} - (
        {'bias'} if refused == 'conv_fprop' else set())


def test_a_plan_is_built_once_for_each_shape(fake, using):
    with using():
        for n in (2, 3, 2, 3):
            F.convolution_2d(draw(n, 5, 9, 8), draw(4, 5, 3, 3))
    assert [graph.ran for graph in fake.graphs] == [2, 2]
    assert set(fake.streams) == {5}


def test_what_is_refused_is_asked_for_once(fake):
    asked = []
    fake.refuses = lambda operations: asked.append(operations) or True
    core = Cudnn(fake, np, PRECISIONS['tf32'])
    arguments = draw(1, 2, 3, 3), draw(2, 2, 3, 3), draw(2), (1, 1), (1, 1), (1, 1), (3, 3)
    assert core.convolve(*arguments) is None and core.convolve(*arguments) is None
    assert asked == [['conv_fprop', 'bias'], ['conv_fprop']]


def test_memory_that_cudnn_would_not_take(fake):
    """Addresses that are no multiple of 16, of operands and of the bias."""
    def shifted(x):
        return np.concatenate([np.zeros(1, 'f'), x.ravel()])[1:].reshape(x.shape)
    core, window = Cudnn(fake, np, PRECISIONS['tf32']), ((1, 1), (0, 0), (1, 1))
    x, W, b = draw(2, 3, 1, 1), draw(4, 3, 1, 1, seed=1), draw(4, seed=2)
    y = core.convolve(shifted(x), shifted(W), shifted(b), *window, (1, 1))
    np.testing.assert_allclose(y[:, :, 0, 0], x[:, :, 0, 0] @ W[:, :, 0, 0].T + b, rtol=1e-5)


@pytest.mark.parametrize('precision, tolerance', [('tf32', 1e-5), ('fp32', 1e-5), ('bf16', 2e-2)])
def test_precisions(fake, using, precision, tolerance):
    def function(x, W, b):
        return F.convolution_2d(x, W, b, 1, 1)
    arguments = draw(2, 5, 6, 6), draw(4, 5, 3, 3, seed=1), draw(4, seed=2), draw(2, 4, 6, 6, seed=3)
    expected = derivatives(function, *arguments)
    with using(precision):
        results = derivatives(function, *arguments)
    close(results, expected, tolerance)
    assert (abs(results[0] - expected[0]).max() > 1e-3) == (precision == 'bf16')
    without = {'tf32': ['NONDETERMINISTIC'], 'bf16': ['NONDETERMINISTIC'],
               'fp32': ['NONDETERMINISTIC', 'TENSOR_CORE', 'DOWN_CONVERT_INPUTS']}
    assert all(graph.without == without[precision] for graph in fake.graphs)


def test_check(fake):
    core = Cudnn(fake, np, PRECISIONS['bf16'])
    core.check()
    fake.refuses = lambda operations: True
    with pytest.raises(RuntimeError, match='no plan'):
        Cudnn(fake, np, PRECISIONS['bf16']).check()


def test_a_wrong_result_is_found(fake, monkeypatch):
    core = Cudnn(fake, np, PRECISIONS['tf32'])
    monkeypatch.setattr(core, 'convolve', lambda *args: np.zeros((1, 8, 1, 1), 'f'))
    with pytest.raises(RuntimeError, match='72'):
        core.check()


def pooled(x):
    x = F.leaky_relu(F.convolution_2d(x, draw(4, 3, 3, 3, seed=1), None, 1, 1), 0.1)
    up = F.unpooling_2d(x, 2, 2, 0, cover_all=False)
    return F.average_pooling_2d(F.relu(up) + up, 2) + F.relu(x) * 2


def test_functions_of_each_number_and_of_windows(fake, using, order):
    def run(x, gy):
        x = chainer.Variable(x)
        y = pooled(x)
        return y.array, chainer.grad([y], [x], [chainer.Variable(gy)])[0].array
    x, gy = order(draw(2, 3, 6, 4)), order(draw(2, 4, 6, 4, seed=3))
    expected = run(x, gy)
    with using():
        results = run(x, gy)
    close(results, expected)
    assert all(map(layout.channels_last, results))


@pytest.mark.parametrize('in_order', [ORDERS['C'], ORDERS['channels last']])
def test_batch_normalization(using, in_order):
    def run(train):
        rng = np.random.RandomState(4)
        bn = chainer.links.BatchNormalization(5)
        bn.gamma.array[...], bn.beta.array[...] = rng.rand(5), rng.rand(5)
        x = chainer.Variable(in_order(draw(3, 5, 4, 6)))
        with chainer.using_config('train', train):
            y = bn(x)
        y.grad = draw(3, 5, 4, 6, seed=1)
        y.backward()
        return y.array, x.grad, bn.gamma.grad, bn.beta.grad, bn.avg_mean, bn.avg_var
    for train in (True, False):
        expected = run(train)
        with using():
            results = run(train)
        close(results, expected)
        assert not train or layout.channels_last(results[0]) == layout.channels_last(in_order(results[0]))


@pytest.mark.parametrize('name', ['cnn', 'resnet'])
def test_a_game_of_networks(using, name, monkeypatch):
    """Losses and gradients, gradients of gradients too; and what flows between layers is not put in order again."""
    row = resolve('cifar10', name, 'none', overrides=['model.width=4', 'model.dim_z=8']).model
    generator, discriminator = model.build_generator(row, 32, 0), model.build_discriminator(row, 32, 0)
    z, x = draw(4, 8), np.tanh(draw(4, 3, 32, 32, seed=1))
    epsilon = np.random.RandomState(2).rand(4, 1, 1, 1).astype('f')

    def run():
        generator.cleargrads()
        discriminator.cleargrads()
        fake = generator(z)
        loss = F.mean(F.softplus(-discriminator(fake))) + F.mean(F.softplus(discriminator(x)))
        (loss + gradient_penalty(discriminator, x, fake.array, epsilon)).backward()
        return {network + name: p.grad.astype('d') for network, link in (('G', generator), ('D', discriminator))
                for name, p in link.namedparams()}
    expected, copies, copy = run(), [], layout.channels_last_copy
    for module in (cudnn, layout):
        monkeypatch.setattr(module, 'channels_last_copy', lambda x: copies.append(x.shape) or copy(x))
    with using():
        results = run()
    for key, value in expected.items():
        largest = max(abs(g).max() for k, g in expected.items() if k[0] == key[0])
        np.testing.assert_allclose(results[key], value, rtol=0, atol=2e-4 * largest)
    # But pictures, what comes from and goes to a dense layer, and what the ResNet's sum over places gets back
    smallest = {'cnn': 4, 'resnet': 8}[name]
    assert not [shape for shape in copies if shape[0] == 4 and min(shape[2:]) > smallest and shape[1] > 3]


class TestSwitch:
    """Which engine is installed, on a machine with neither a GPU nor cuDNN."""

    GPU = types.SimpleNamespace(name='@cupy:0')

    @pytest.fixture(autouse=True)
    def clean(self):
        yield
        switch.uninstall()

    def methods(self):
        return [vars(cls)[method] for cls, method in METHODS]

    def test_cudnn_is_missing(self):
        lines, before = [], self.methods()
        with switch.using_engine('auto', None, self.GPU, lines.append):
            assert switch.current() == 'stock' and self.methods() == before
        line, = lines
        assert 'cuDNN is not installed' in line and 'slower' in line and '\n' not in line
        with pytest.raises(UserError, match='cuDNN is not installed'), switch.using_engine('cudnn', None, self.GPU):
            pass  # pragma: no cover

    def test_the_stock_engine_is_asked_for(self):
        lines = []
        for arguments in (('stock', None), ('auto', 'stock')):
            with switch.using_engine(*arguments, self.GPU, lines.append):
                assert switch.current() == 'stock'
        assert not lines

    @pytest.mark.parametrize('name', ['numpy', 'onednn', 'cuda'])
    def test_an_engine_of_a_cpu(self, name):
        with pytest.raises(UserError, match='one of stock, cudnn, cudnn-bf16, cudnn-fp32 on a GPU, not'):
            switch.install(name, of='cuda')

    def test_installed_and_back(self, fake, monkeypatch):
        monkeypatch.setattr(cudnn, 'load', lambda precision: Cudnn(fake, np, PRECISIONS[precision]))
        before = self.methods()
        with switch.using_engine('numpy'):
            with switch.using_engine('auto', None, self.GPU):
                assert switch.current() == 'cudnn'
                assert all(a is not b for a, b in zip(self.methods(), before, strict=True))
                with switch.full_precision():
                    assert switch.current() == 'cudnn-fp32'
                    with switch.full_precision():
                        assert switch.current() == 'cudnn-fp32'
                assert switch.current() == 'cudnn'
            assert switch.current() == 'numpy'
        assert switch.current() == 'stock' and self.methods() == before
        with switch.full_precision():
            assert switch.current() == 'stock'

    def test_a_run_goes_on_with_its_engine(self, fake, monkeypatch):
        monkeypatch.setattr(cudnn, 'load', lambda precision: Cudnn(fake, np, PRECISIONS[precision]))
        with switch.using_engine('auto', 'cudnn-bf16', self.GPU):
            assert switch.current() == 'cudnn-bf16'


def test_an_engine_that_does_not_work_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cudnn', types.SimpleNamespace())
    cudnn.load.cache_clear()
    with pytest.raises(UserError, match='cuDNN does not work here: .') as error:
        cudnn.load('tf32')
    assert '\n' not in str(error.value)
