"""Captured iterations on a GPU: the numbers of iterations that are not, with hardly any launches and no waiting."""
import collections

import chainer
import numpy as np
import pytest

from tests import tiny
from tests.tiny import state
from util import config as configs
from util import trainer
from util.engine import graph
from util.engine.switch import using_engine

RUNS = {'sn': ('cnn', 'sn', 'default'), 'none': ('cnn', 'none', 'B'), 'wgan_gp': ('cnn', 'wgan_gp', 'B'),
        'resnet': ('resnet', 'sn_hinge', 'resnet')}


@pytest.fixture
def engine(device):
    with using_engine('auto', device=device):
        if not trainer.can_capture(device):
            pytest.skip('no engine here can be captured')
        yield


class Run:
    """A run of small networks, and what it says."""

    def __init__(self, device, capture, name='sn', seed=0, decay=False):
        model, method, setting = RUNS[name]
        self.lines, self._decay = [], decay
        config = configs.resolve(profile='quick', model=model, method=method, setting=setting, seed=seed, batchsize=8,
                                 overrides=['model.width=8', 'model.dim_z=16'])
        images = np.random.RandomState(0).randint(0, 256, (2000, 3, 32, 32)).astype('u1')
        self.parts = trainer.build(config, device, images, capture=capture, say=self.lines.append)
        self.updater = self.parts.updater
        self.alpha = self.updater.get_optimizer('dis').alpha

    def iterate(self, times):
        """What the iterations report, in arrays of the host."""
        reports, reporter = collections.defaultdict(list), chainer.Reporter()
        reporter.add_observers('', [('gen', self.parts.generator), ('dis', self.parts.discriminator)])
        for _ in range(times):
            if self._decay:
                for optimizer in self.updater.get_all_optimizers().values():
                    optimizer.alpha = self.alpha * (1 - self.updater.iteration / 200)
            with reporter, reporter.scope({}):
                self.updater.update()
                for key, value in reporter.observation.items():
                    reports[key].append(value.copy())  # a captured one changes
        return {key: np.array([float(value) for value in values]) for key, values in reports.items()}

    def state(self):
        return state(self.updater)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.mark.parametrize('decay', [False, True])
@pytest.mark.parametrize('name', RUNS)
def test_bits_are_those_of_the_uncaptured(device, engine, name, decay):
    """As an exact resume needs: its first iterations are not captured."""
    captured, eager = (Run(device, capture, name, decay=decay) for capture in (True, False))
    assert_same(*(run.iterate(30) for run in (captured, eager)))
    assert_same(captured.state(), eager.state())
    assert captured.updater.is_recorded


@pytest.mark.parametrize('decay', [False, True])
@pytest.mark.parametrize('name', RUNS)
def test_numbers_are_those_of_the_uncaptured(device, engine, name, decay):
    captured, again, eager = (Run(device, capture, name, decay=decay) for capture in (True, True, False))
    reports = [run.iterate(100) for run in (captured, again, eager)]
    assert captured.updater.is_recorded and captured.lines == []
    assert_same(reports[0], reports[1])
    assert_same(captured.state(), again.state())
    assert reports[0].keys() == reports[2].keys()
    for key, expected in reports[2].items():
        np.testing.assert_allclose(reports[0][key][:10], expected[:10], rtol=1e-3, atol=1e-4, err_msg=key)
        assert np.isfinite(reports[0][key]).all()
    for key, count in eager.state().items():
        if count.dtype.kind == 'i':
            np.testing.assert_array_equal(captured.state()[key], count, err_msg=key)


def test_the_uncaptured_have_the_same_bits_twice(device, engine):
    assert_same(*(Run(device, False).iterate(20) for _ in range(2)))


def test_counts_on_the_device_are_those_of_the_host(device, engine):
    run = Run(device, True)
    run.iterate(7)
    for optimizer in run.updater.get_all_optimizers().values():
        for flat in optimizer._flats.values():
            assert flat._updates.get().tolist() == [rule.t for rule, _ in flat._members]


def test_an_iteration_is_one_launch_beside_its_draws(device, engine, monkeypatch):
    """Python computes nothing: neither a network nor an optimizer is called."""
    run = Run(device, True)
    run.iterate(4)
    assert run.updater.is_recorded
    for target, name in ((run.parts.generator, 'forward'), (run.parts.discriminator, 'forward'),
                         (run.updater.get_optimizer('gen'), 'update'), (run.updater.get_optimizer('dis'), 'update')):
        monkeypatch.setattr(target, name, lambda *args, **kwargs: pytest.fail('called'))
    launches, launch = [], graph.Graph.launch
    monkeypatch.setattr(graph.Graph, 'launch', lambda self: (launches.append(1), launch(self)))
    run.iterate(3)
    assert len(launches) == 3


def test_an_iteration_does_not_wait_for_the_device(device, engine):
    """It returns while the device is still held up by work that was queued before it."""
    run = Run(device, True)
    run.iterate(5)
    cupy = device.xp
    hold = cupy.RawKernel(r"""
        extern "C" __global__ void hold(long long cycles) {
            const long long start = clock64();
            while (clock64() - start < cycles) {}
        }""", 'hold')
    hold((1,), (1,), (np.int64(1),))  # compiles it
    cupy.cuda.Device().synchronize()
    done = cupy.cuda.Event(disable_timing=True)
    hold((1,), (1,), (np.int64(4 * 10 ** 9),))  # two seconds
    done.record()
    run.updater.update()
    assert not done.done
    cupy.cuda.Device().synchronize()


@pytest.mark.parametrize('kinds', [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize('stop', [1, 6])
def test_snapshots(device, engine, tmp_path, kinds, stop):
    whole = Run(device, kinds[1], decay=True)
    whole.iterate(12)
    first, second = (Run(device, capture, decay=True) for capture in kinds)
    first.iterate(stop)
    chainer.serializers.save_npz(tmp_path / 'state.npz', first.updater)
    chainer.serializers.load_npz(tmp_path / 'state.npz', second.updater)
    second.iterate(12 - stop)
    assert_same(whole.state(), second.state())


def test_a_snapshot_is_loaded_into_a_captured_run(device, engine, tmp_path):
    run = Run(device, True)
    run.iterate(4)
    chainer.serializers.save_npz(tmp_path / 'state.npz', run.updater)
    expected = run.iterate(4), run.state()
    chainer.serializers.load_npz(tmp_path / 'state.npz', run.updater)
    got = run.iterate(4), run.state()
    for one, other in zip(expected, got, strict=True):
        assert_same(one, other)


def test_moving_to_the_cpu_and_back_is_recorded_anew(device, engine):
    moved, stayed = Run(device, True), Run(device, True)
    for run in (moved, stayed):
        run.iterate(5)
    for network in (moved.parts.generator, moved.parts.discriminator):
        network.to_device('@numpy')
        network.to_device(device)
    device.xp.empty((1 << 24,), 'f').fill(np.nan)  # whoever still has the old memory gets this
    for run in (moved, stayed):
        run.iterate(6)
        assert run.updater.is_recorded and run.lines == []
    assert_same(moved.state(), stayed.state())


def test_other_work_between_iterations_changes_nothing(device, engine):
    alone, beside = Run(device, True), Run(device, True)
    cupy, results = device.xp, []
    for _ in range(8):
        alone.iterate(1)
        beside.iterate(1)
        results += [cupy.full(1 << 20, np.nan, 'f') for _ in range(3)]
        results = results[-5:]
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            beside.parts.generator(cupy.zeros((3, 16), 'f'))
        cupy.get_default_memory_pool().free_all_blocks()
    assert_same(alone.state(), beside.state())


def test_stock_chainer_is_not_captured_and_says_so(device):
    """Its convolutions are matrix products of cuBLAS, which CuPy does not record."""
    with using_engine('stock'):
        captured, eager = (Run(device, capture) for capture in (True, False))
        reports = [run.iterate(6) for run in (captured, eager)]
    line, = captured.lines
    assert line.startswith('Iterations are not captured in a CUDA graph (') and not captured.updater.is_recorded
    assert_same(*reports)
    assert_same(captured.state(), eager.state())


# util/engine/graph.py by itself

def test_a_graph_repeats_its_work_on_the_arrays_that_it_was_given(device):
    cupy = device.xp
    x, y, made = cupy.arange(8, dtype='f'), cupy.zeros(8, 'f'), []

    def work():
        made.append(x * 2)
        y[...] += made[-1] + cupy.ones(8, 'f')
    work()
    recorded = graph.Graph(work)
    assert y.get().tolist() == [2 * i + 1 for i in range(8)]  # nothing has run
    recorded.launch()
    x += 1
    recorded.launch()
    assert y.get().tolist() == [3 * (2 * i + 1) + 2 for i in range(8)]
    assert made[1].get().tolist() == [2 * (i + 1) for i in range(8)]
    del recorded
    assert made[1].get().tolist() == [2 * (i + 1) for i in range(8)]  # an array outlives the graph


@pytest.mark.parametrize('work', [
    lambda cupy, x: x.get(), lambda cupy, x: float(x.sum()), lambda cupy, x: cupy.asarray(np.ones(3, 'f')),
    lambda cupy, x: cupy.dot(x, x), lambda cupy, x: cupy.cuda.Device().synchronize(), lambda cupy, x: 1 / 0])
def test_what_cannot_be_recorded_is_an_error_and_leaves_the_device_usable(device, work):
    cupy = device.xp
    x = cupy.ones((64, 64), 'f')
    work_now = [x.get(), float(x.sum()), cupy.dot(x, x)]  # compiled
    before, after = cupy.zeros(4, 'f'), cupy.zeros(4, 'f')

    def all_of_it():
        before.fill(1)
        work(cupy, x)
        after.fill(1)
    with pytest.raises((NotImplementedError, RuntimeError, ZeroDivisionError)):
        graph.Graph(all_of_it)
    assert not before.get().any() and not after.get().any() and len(work_now) == 3
    assert cupy.asarray(np.ones(3, 'f')).sum() == 3  # copies from the host work again
    recorded = graph.Graph(lambda: before.fill(2))
    recorded.launch()
    assert before.get().tolist() == [2] * 4


def test_more_memory_than_there_is(device):
    with pytest.raises(MemoryError):
        graph.Graph(lambda: device.xp.empty(1 << 46, 'u1'))
    recorded = graph.Graph(lambda: None)
    recorded.launch()


def test_tiny_networks_are_recorded_with_their_state(device, engine):
    """Those of the tests on the CPU: batches that straddle epochs."""
    config = configs.resolve(profile='quick', batchsize=3, overrides=[
        'model.width=2', 'model.dim_z=4', 'dataset.size=16'])
    runs = [trainer.build(config, device, tiny.PICTURES, capture=capture).updater for capture in (True, False)]
    for updater in runs:
        for _ in range(12):
            updater.update()
    captured, eager = map(state, runs)
    for key, value in eager.items():
        np.testing.assert_allclose(captured[key], value, rtol=1e-2, atol=1e-3, err_msg=key)
