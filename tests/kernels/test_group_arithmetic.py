"""Kernels for many layers at once, on the CPU: the bits are those of a launch for each layer."""
import shutil
import types

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from tests.kernels.emulation import Kernel, Memory, address
from tests.kernels.test_arithmetic import SHAPES
from util.engine.graph import keeping
from util.normalization import group_kernels, kernels
from util.normalization.spectral import SpectralNormalization
from util.normalization.together import normalized_together

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++ to compile the kernels as C++'),
]
DTYPES = ('float32', 'float64')


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    made = {}
    for dtype in DTYPES:
        for module in (kernels, group_kernels):
            folder = tmp_path_factory.mktemp(dtype)
            for name in module.KERNEL_NAMES:
                made[name, dtype] = Kernel(folder, module.KERNEL_SOURCES['spectral_' + dtype], name)
    return made


@pytest.fixture
def memory(compiled, monkeypatch):
    """The launch code on NumPy arrays, in an order of threads that ``memory.order`` says."""
    memory = Memory()
    memory.calls = []

    def get_kernel(name, dtype):
        memory.calls.append(name)
        kernel = compiled[name, dtype.name]
        kernel.order = memory.order
        return kernel

    memory.order = 0
    for module in (kernels, group_kernels):
        monkeypatch.setattr(module, 'backend', types.SimpleNamespace(get_array_module=lambda *_: memory))
        monkeypatch.setattr(module, 'get_kernel', get_kernel)
    monkeypatch.setattr(group_kernels, '_address', address)
    monkeypatch.setattr(group_kernels, '_send', np.copy)
    monkeypatch.setattr(kernels, 'cuda', types.SimpleNamespace(ndarray=np.ndarray))  # for kernels.usable
    return memory


def draw(memory, layers, dtype, seed=0):
    """Weights, vectors and gradients."""
    rng = np.random.RandomState(seed)
    Ws, gs = ([memory.copy(rng.standard_normal(shape).astype(dtype)) for shape, _ in layers] for _ in range(2))
    return Ws, [memory.copy(rng.standard_normal(shape[axis]).astype(dtype)) for shape, axis in layers], gs


LAYERS = [SHAPES, SHAPES[:1], SHAPES[::-1][:4], [SHAPES[4]] * 3]


@pytest.mark.parametrize('layers', LAYERS, ids=['all', 'one', 'some', 'equal'])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('n, move, factor', [(1, True, 1.0), (3, False, 1.7)])
def test_bits_are_those_of_each_layer(memory, layers, dtype, n, move, factor):
    axes = [axis for _, axis in layers]
    for memory.order in range(3) if n == 1 else (2,):
        Ws, us, gs = draw(memory, layers, dtype)
        expected = [kernels.normalize(W, u, n, 1e-3, factor, axis, None) for W, u, axis in zip(Ws, us, axes,
                                                                                               strict=True)]
        expected_gradients = [kernels.gradient(W, g, *rest[1:], factor, axis)
                              for W, g, rest, axis in zip(Ws, gs, expected, axes, strict=True)]
        olds = [u.copy() for u in us]
        memory.calls.clear()
        several = group_kernels.Several(Ws, us, axes, n, 1e-3, factor, move)
        assert len(memory.calls) == 1 + 2 * n
        for result, right, u, old, before in zip(several.results, expected, us, olds, several.before, strict=True):
            for name, got, wanted in zip(('W_bar', 'u', 'v', 'sigma'), result, right, strict=True):
                assert got.shape == wanted.shape and got.dtype == wanted.dtype
                np.testing.assert_array_equal(got, wanted, err_msg=name)
            np.testing.assert_array_equal(u, result[1] if move else old)
            if move:
                np.testing.assert_array_equal(before, old)
                assert not np.shares_memory(u, result[1])
            else:
                assert before is None
        memory.calls.clear()
        gradients = several.gradients(Ws, gs)
        assert memory.calls == ['sn_dot_of_all', 'sn_gradient_of_all']
        for got, wanted in zip(gradients, expected_gradients, strict=True):
            np.testing.assert_array_equal(got, wanted)
        memory.check()


def test_gradients_of_some(memory):
    Ws, us, gs = draw(memory, SHAPES, 'float32')
    axes = [axis for _, axis in SHAPES]
    several = group_kernels.Several(Ws, us, axes, 1, 1e-12, 1.0, True)
    whole = several.gradients(Ws, gs)
    some = [None if i % 3 == 1 else g for i, g in enumerate(gs)]
    some[4] = np.asfortranarray(gs[4])
    replaced = [W.copy() if i == 5 else W for i, W in enumerate(Ws)]
    for i, (got, all_of_them) in enumerate(zip(several.gradients(replaced, some), whole, strict=True)):
        if i % 3 == 1 or i in (4, 5):
            assert got is None
        else:
            np.testing.assert_array_equal(got, all_of_them)
    memory.calls.clear()
    assert several.gradients(Ws, [None] * len(gs)) == [None] * len(gs)
    assert not memory.calls


def test_two_normalizations_before_their_gradients(memory):
    Ws, us, gs = draw(memory, SHAPES[3:6], 'float32')
    axes = [axis for _, axis in SHAPES[3:6]]
    first = group_kernels.Several(Ws, us, axes, 1, 1e-12, 1.0, True)
    results = first.results
    second = group_kernels.Several(Ws, us, axes, 1, 1e-12, 1.0, True)
    for before, result, later in zip(second.before, results, second.results, strict=True):
        np.testing.assert_array_equal(before, result[1])
        assert np.abs(later[1] - result[1]).max() > 0
    for several, its in ((first, results), (second, second.results)):
        for got, W, g, result, axis in zip(several.gradients(Ws, gs), Ws, gs, its, axes, strict=True):
            np.testing.assert_array_equal(got, kernels.gradient(W, g, *result[1:], 1.0, axis))


def test_the_table_is_made_once_for_arrays_that_stay(memory, monkeypatch):
    sent = []
    monkeypatch.setattr(group_kernels, '_send', lambda table: (sent.append(1), table)[1])
    group_kernels._table.cache_clear()
    Ws, us, _ = draw(memory, SHAPES[3:6], 'float32')
    for _ in range(3):
        group_kernels.Several(Ws, us, [0, 0, 0], 1, 1e-12, 1.0, True)
    assert len(sent) == 1
    us[1] = memory.copy(us[1])
    group_kernels.Several(Ws, us, [0, 0, 0], 1, 1e-12, 1.0, True)
    assert len(sent) == 2


class Network(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Convolution2D(3, 5, 3).add_hook(SpectralNormalization())
            self.b = L.Deconvolution2D(5, 4, 3).add_hook(SpectralNormalization())
            self.c = L.Linear(4 * 36, 2).add_hook(SpectralNormalization())
            self.never = L.Linear(3, 2).add_hook(SpectralNormalization())

    def forward(self, x):
        return F.sum(self.c(F.tanh(self.b(F.tanh(self.a(x))))) ** 2)


class Together(Network):
    forward = normalized_together(Network.forward)


def test_a_network(memory):
    """With all that is between a network and the kernels on a GPU: two forwards, and one backward."""
    rng = np.random.RandomState(5)
    x, y = (rng.standard_normal((2, 3, 6, 6)).astype('f') for _ in range(2))
    results = []
    for kind in (Network, Together):
        np.random.seed(0)
        network, results_of_this = kind(), []
        for step in range(3):
            with chainer.using_config('train', step != 1):
                memory.calls.clear()
                losses = network(x), network(y)
                assert len(memory.calls) == 2 * 3 * (3 if kind is Network else 1)
                memory.calls.clear()
                network.cleargrads()
                sum(losses).backward()
                assert len(memory.calls) == 2 * 2 * (3 if kind is Network else 1)
            for name in 'abc':
                link = network[name]
                results_of_this += [link.W.grad.copy(), link.W_u.copy(), link.W_sigma]
                link.W.array -= 0.01 * link.W.grad
            results_of_this += [network.never.W_u.copy(), *(loss.array for loss in losses)]
            assert network.never.W.grad is None and network.never._W_ready is None
        results.append(results_of_this)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_networks_gradient_that_is_differentiated_again(memory):
    x, results = np.random.RandomState(5).standard_normal((2, 3, 6, 6)).astype('f'), []
    for kind in (Network, Together):
        np.random.seed(0)
        network = kind()
        gW, = chainer.grad([network(x)], [network.a.W], enable_double_backprop=True)
        F.sum(gW ** 2).backward()
        results.append([gW.array, network.a.W.grad, network.b.W.grad])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())


def test_tables_are_kept_by_a_recording(memory):
    layers = [((3, 5), 0), ((2, 3, 3, 3), 0)]
    Ws, us, _ = draw(memory, layers, 'float32')
    with keeping([]) as kept:
        group_kernels.Several(Ws, us, (0, 0), 1, 1e-12, 1.0, True)
    group_kernels._table.cache_clear()
    assert len(kept) == 1 and kept[0].dtype == np.uint8 and kept[0].size == 3 * group_kernels._LAYER.itemsize
