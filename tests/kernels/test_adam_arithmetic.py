"""The kernel of Adam on the CPU, under the optimizer itself: Chainer's numbers, and counts that the device keeps."""
import shutil
import types

import chainer
import numpy as np
import pytest

from tests.kernels.emulation import Kernel, Memory, address
from util.engine import flat_adam
from util.engine.flat_adam import FlatAdam
from util.engine.graph import keeping

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++ to compile the kernels as C++'),
]
SHAPES = {'one': (1,), 'scalar': (), 'block': (4096,), 'blocks': (3, 4099), 'short': (5, 7)}


class Weights(chainer.Link):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            for i, (name, shape) in enumerate(SHAPES.items()):
                setattr(self, name, chainer.Parameter(np.random.RandomState(i).standard_normal(shape).astype('f')))


@pytest.fixture(scope='module')
def kernel(tmp_path_factory):
    return Kernel(tmp_path_factory.mktemp('adam'), flat_adam.KERNEL_SOURCES['flat_adam'], 'flat_adam')


@pytest.fixture
def memory(kernel, monkeypatch):
    """What a GPU does, on NumPy arrays."""
    memory = Memory()
    memory.kernel = kernel
    memory.zeros, memory.asarray, memory.ascontiguousarray = np.zeros, np.copy, np.ascontiguousarray
    monkeypatch.setattr(flat_adam, 'backend', types.SimpleNamespace(get_array_module=lambda *_: memory))
    monkeypatch.setattr(flat_adam, 'get_kernel', lambda: kernel)
    monkeypatch.setattr(flat_adam, '_address', address)
    kernel.calls = kernel.order = 0
    return memory


def give_gradients(memory, link, step, names=tuple(SHAPES)):
    link.cleargrads()
    for i, name in enumerate(names):
        grad = np.random.RandomState(10 * step + i).standard_normal(SHAPES[name]).astype('f')
        getattr(link, name).grad = memory.copy(grad)


def assert_close(one, other):
    """Parameters and moments of two optimizers."""
    for (path, a), (_, b) in zip(one.target.namedparams(), other.target.namedparams(), strict=True):
        np.testing.assert_allclose(a.array, b.array, rtol=2e-6, atol=2e-6 * 3e-3, err_msg=path)
        for key in 'mv':
            np.testing.assert_allclose(a.update_rule.state[key], b.update_rule.state[key], rtol=1e-5, atol=1e-7)
        assert a.update_rule.t == b.update_rule.t


def by_hand(link, state, t, alpha, beta1, beta2, eps=1e-8, eta=1.0, decay=0.0):
    """One step of the formulas of Chainer's kernel, in its order, in float32."""
    f = np.float32
    alpha_t = f(alpha * np.sqrt(1.0 - beta2 ** t) / (1.0 - beta1 ** t))
    for name, p in link.namedparams():
        m, v = state.setdefault(name, [np.zeros(p.shape, 'f'), np.zeros(p.shape, 'f')])
        m = m + f(1 - beta1) * (p.grad - m)
        v = v + f(1 - beta2) * (p.grad * p.grad - v)
        p.array[...] = p.array - f(eta) * (alpha_t * m / (np.sqrt(v) + f(eps)) + f(decay) * p.array)
        state[name] = [m, v]


@pytest.mark.parametrize('options', [{}, {'eta': 0.5, 'eps': 1e-3}, {'weight_decay_rate': 0.1}])
def test_updates_are_chainers(memory, options):
    results = []
    stock = chainer.optimizers.Adam(3e-3, 0.5, 0.9, **options).setup(Weights())
    for order in range(3):
        memory.kernel.order = order
        optimizer = FlatAdam(3e-3, 0.5, 0.9, **options).setup(Weights())
        for step in range(4):
            for each in (optimizer, stock)[:1 if order else 2]:
                give_gradients(memory, each.target, step)
                each.update()
        results.append([p.array for p in optimizer.target.params()])
        assert_close(optimizer, stock)
        memory.check()
    assert memory.kernel.calls == 12  # one an update
    for one, other in zip(results[0], results[2], strict=True):
        np.testing.assert_array_equal(one, other)
    hand, state = Weights(), {}
    for step in range(4):
        give_gradients(memory, hand, step)
        by_hand(hand, state, step + 1, 3e-3, 0.5, 0.9, **{
            {'weight_decay_rate': 'decay'}.get(key, key): value for key, value in options.items()})
    for p, array in zip(hand.params(), results[0], strict=True):
        np.testing.assert_allclose(array, p.array, rtol=3e-7, atol=1e-9)


def test_parameters_without_gradient_and_arrays_in_another_order(memory):
    optimizers = [kind(3e-3, 0.0, 0.9).setup(Weights()) for kind in (FlatAdam, chainer.optimizers.Adam)]
    for optimizer in optimizers:
        for step in range(3):
            give_gradients(memory, optimizer.target, step, ['blocks', 'short'][:step])
            short = optimizer.target.short
            short.grad = None if short.grad is None else np.asfortranarray(short.grad)
            optimizer.update()
    assert_close(*optimizers)
    assert memory.kernel.calls == 3


def test_alpha_changes_and_counts_that_differ(memory):
    """Both are read where the kernel runs; the host says what they are only where that does not know."""
    optimizers = [kind(3e-3, 0.5, 0.999).setup(Weights()) for kind in (FlatAdam, chainer.optimizers.Adam)]
    for optimizer in optimizers:
        rule = optimizer.target.block.update_rule
        for step in range(6):
            optimizer.alpha = 3e-3 / (1 + step // 2)
            rule.enabled = step != 2
            if step == 4:
                optimizer.target.short.update_rule.t = 100000  # as a snapshot of a long run would
            give_gradients(memory, optimizer.target, step)
            optimizer.update()
    assert_close(*optimizers)
    flat, = optimizers[0]._flats.values()
    counted = {rule.t for rule, _ in flat._members}
    assert counted == {5, 6, 100002} and set(flat._updates.tolist()) == counted and not flat._done


def test_repeating_the_launch_goes_on_as_updates_do(memory):
    """What a CUDA graph repeats: the same launch, with the same arguments."""
    optimizers = [FlatAdam(3e-3, 0.5, 0.9).setup(Weights()) for _ in range(2)]
    recorded, kernel = [], memory.kernel
    for optimizer in optimizers:
        give_gradients(memory, optimizer.target, 0)
        optimizer.update()
    flat, = optimizers[0]._flats.values()
    original = flat_adam.get_kernel
    flat_adam.get_kernel = lambda: lambda *args: (recorded.append(args), kernel(*args))
    try:
        optimizers[0].update()
    finally:
        flat_adam.get_kernel = original
    optimizers[1].update()
    for alpha in (3e-3, 1e-3):
        optimizers[0].alpha = optimizers[1].alpha = alpha
        optimizers[0].before_replay()
        kernel(*recorded[0])
        optimizers[1].update()
    assert optimizers[0].t == optimizers[1].t == 4
    assert_close(*optimizers)
    give_gradients(memory, optimizers[0].target, 3)
    give_gradients(memory, optimizers[1].target, 3)
    for optimizer in optimizers:
        optimizer.update()
    assert_close(*optimizers)
    np.testing.assert_array_equal(flat._updates, 5)


def record(memory, monkeypatch, work):
    """The launches that ``work`` would do, of which a CUDA graph consists: nothing else, and none runs."""
    launches = []

    def refused(*args):
        raise AssertionError('the host sends something while it records')
    with monkeypatch.context() as context:
        context.setattr(flat_adam, 'get_kernel', lambda: lambda *args: launches.append(args))
        context.setattr(memory, 'asarray', refused)
        context.setattr(memory, 'zeros', refused)
        context.setattr(flat_adam._Flat, '_bring', brings_nothing)
        work()
    return launches


def brings_nothing(flat, counted, alpha):
    assert counted == flat._counted and alpha == flat._alpha


@pytest.mark.parametrize('updates', [1, 3])
def test_a_graph_of_several_updates(memory, monkeypatch, updates):
    graphed, eager = (FlatAdam(3e-3, 0.5, 0.9).setup(Weights()) for _ in range(2))
    for optimizer in (graphed, eager):
        give_gradients(memory, optimizer.target, 0)
        optimizer.update()
    assert graphed.is_recordable()
    graphed.alpha = eager.alpha = 2e-3  # it changes before the iteration that is recorded, too
    graphed.before_recording()
    launches = record(memory, monkeypatch, lambda: [graphed.update() for _ in range(updates)])
    for alpha in (2e-3, 1e-3, 1e-3):
        if alpha < 2e-3:
            graphed.alpha = eager.alpha = alpha
            graphed.before_replay(updates)
        for launch in launches:
            memory.kernel(*launch)
        for _ in range(updates):
            eager.update()
        flat, = graphed._flats.values()
        assert flat._updates.tolist() == [rule.t for rule, _ in flat._members] == len(SHAPES) * [eager.t]
        assert graphed.t == eager.t
    assert_close(graphed, eager)
    with keeping([]) as kept:
        for optimizer in (graphed, eager):
            optimizer.update()
    assert_close(graphed, eager)
    assert flat in kept  # with its buffers, whose addresses the kernel has


def test_a_recording_that_is_given_up_leaves_no_trace(memory, monkeypatch):
    tried, eager = (FlatAdam(3e-3, 0.5, 0.9).setup(Weights()) for _ in range(2))
    for optimizer in (tried, eager):
        give_gradients(memory, optimizer.target, 0)
        optimizer.update()
    counts = tried.counts()
    tried.before_recording()
    record(memory, monkeypatch, lambda: [tried.update() for _ in range(2)])
    tried.take_back(counts)
    for optimizer in (tried, eager):
        optimizer.alpha = 1e-3
        optimizer.update()
    assert_close(tried, eager)
    flat, = tried._flats.values()
    assert flat._updates.tolist() == len(SHAPES) * [2] and tried.t == 2


def test_more_parameters_than_one_launch_takes(memory, monkeypatch):
    monkeypatch.setattr(flat_adam, 'MOST', 2)  # the kernel still has room for more
    optimizers = [kind().setup(Weights()) for kind in (FlatAdam, chainer.optimizers.Adam)]
    for optimizer in optimizers:
        for step in range(2):
            give_gradients(memory, optimizer.target, step)
            optimizer.update()
    assert_close(*optimizers)
    assert memory.kernel.calls == 6


def test_what_is_loaded_is_what_the_kernel_goes_on_with(memory, tmp_path):
    first = FlatAdam(3e-3, 0.5, 0.9).setup(Weights())
    for step in range(3):
        give_gradients(memory, first.target, step)
        first.update()
    chainer.serializers.save_npz(tmp_path / 'a.npz', first)
    chainer.serializers.save_npz(tmp_path / 'b.npz', first.target)
    for used in (False, True):
        second = FlatAdam(3e-3, 0.5, 0.9).setup(Weights())
        if used:
            give_gradients(memory, second.target, 8)
            second.update()
        chainer.serializers.load_npz(tmp_path / 'a.npz', second)
        chainer.serializers.load_npz(tmp_path / 'b.npz', second.target)
        third = chainer.optimizers.Adam(3e-3, 0.5, 0.9).setup(Weights())
        chainer.serializers.load_npz(tmp_path / 'a.npz', third)
        chainer.serializers.load_npz(tmp_path / 'b.npz', third.target)
        for optimizer in (second, third):
            give_gradients(memory, optimizer.target, 4)
            optimizer.update()
        assert_close(second, third)
