"""Captured iterations, with a stand-in for CUDA graphs: the bits of iterations that are not, whatever comes between."""
import functools

import chainer
import numpy as np
import pytest

from tests import tiny
from tests.fake_graph import FakeGraph
from tests.tiny import observed, state
from util import trainer
from util.captured import WARM_UP, CapturedGANUpdater
from util.engine.flat_adam import FlatAdam

RUNS = {
    'sn': {}, 'none': {'method': 'none'}, 'wgan_gp': {'method': 'wgan_gp'}, 'clipping': {'method': 'weight_clipping'},
    'several_steps': {'method': 'none', 'setting': 'D'},
    'batch_norm': {'method': 'batch_norm'},
    'conditional': {'method': 'sn_hinge', 'model': 'resnet_projection', 'classes': 3, 'setting': 'resnet'},
}


class Fakes:
    """Makes FakeGraphs of an updater, and has all of them."""

    def __init__(self):
        self.made = []

    def __call__(self, work):
        self.made.append(FakeGraph(self.updater, work))
        return self.made[-1]

    @property
    def launches(self):
        return [graph.launches for graph in self.made]


@pytest.fixture(autouse=True)
def flat(monkeypatch):
    monkeypatch.setattr(trainer, 'optimizer_for', lambda device: FlatAdam)


def make(captured, monkeypatch, record=None, **run):
    """Parts of a tiny run; with ``captured`` they have ``graphs`` and ``lines``."""
    graphs, lines = Fakes(), []
    with monkeypatch.context() as context:
        if captured:
            context.setattr(trainer, 'GANUpdater', functools.partial(
                CapturedGANUpdater, record=record or graphs, say=lines.append))
        parts = tiny.make(run.pop('method', 'sn'), **run)
    graphs.updater = parts.updater
    return parts, graphs, lines


def run(parts, iterations, decay=False):
    """What each iteration reports."""
    reports = []
    for _ in range(iterations):
        if decay:  # as the extension does, between iterations
            for optimizer in parts.updater.get_all_optimizers().values():
                optimizer.alpha = 4e-4 * (1 - parts.updater.iteration / 50)
        reports.append(observed(parts, parts.updater.update))
    return reports


def assert_same(one, other):
    one, other = state(one.updater), state(other.updater)
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.mark.parametrize('name, decay', [('sn', False), *((name, True) for name in RUNS)])
def test_bits_are_those_of_the_uncaptured(monkeypatch, name, decay):
    iterations = 22 if name in ('sn', 'none', 'wgan_gp') else 6
    (parts, graphs, lines), (eager, *_) = (make(c, monkeypatch, **dict(RUNS[name])) for c in (True, False))
    assert run(parts, iterations, decay) == run(eager, iterations, decay)
    assert_same(parts, eager)
    assert graphs.launches == [iterations - WARM_UP] and not lines and parts.updater.is_recorded


@pytest.mark.parametrize('kinds', [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize('stop', [1, 5])
def test_snapshots_go_from_one_to_the_other(monkeypatch, tmp_path, kinds, stop):
    whole, *_ = make(False, monkeypatch)
    expected = run(whole, 10, decay=True)
    first, *_ = make(kinds[0], monkeypatch)
    assert run(first, stop, decay=True) == expected[:stop]
    chainer.serializers.save_npz(tmp_path / 'state.npz', first.updater)
    second, graphs, lines = make(kinds[1], monkeypatch)
    chainer.serializers.load_npz(tmp_path / 'state.npz', second.updater)
    assert run(second, 10 - stop, decay=True) == expected[stop:]
    assert_same(second, whole)
    assert len(graphs.made) == kinds[1] and not lines


def test_a_snapshot_is_loaded_into_a_captured_run(monkeypatch, tmp_path):
    """Into the arrays that the graph has: it goes on being launched, with the counts of the snapshot."""
    parts, graphs, _ = make(True, monkeypatch)
    run(parts, 4)
    chainer.serializers.save_npz(tmp_path / 'state.npz', parts.updater)
    expected = run(parts, 4)
    chainer.serializers.load_npz(tmp_path / 'state.npz', parts.updater)
    graphs.made[0].bring_counts()
    assert run(parts, 4) == expected and len(graphs.made) == 1


@pytest.mark.parametrize('what', ['parameter', 'moment', 'vector', 'statistics'])
@pytest.mark.parametrize('when', [WARM_UP, 5])
def test_other_arrays_are_recorded_anew(monkeypatch, what, when):
    def replace(parts):
        layer, bn = parts.discriminator.conv2, parts.generator.bn2
        if what == 'parameter':
            layer.W.array = layer.W.array.copy()
        elif what == 'moment':
            layer.W.update_rule.state['m'] = layer.W.update_rule.state['m'].copy()
        elif what == 'vector':
            layer.W_u = layer.W_u.copy()
        else:
            bn.avg_var = bn.avg_var.copy()
    (parts, graphs, lines), (eager, *_) = (make(captured, monkeypatch) for captured in (True, False))
    reports = []
    for each in (parts, eager):
        reports.append(run(each, when))
        replace(each)
        reports[-1] += run(each, 6)
    assert reports[0] == reports[1]
    assert_same(parts, eager)
    assert graphs.launches == [when - WARM_UP] * (when > WARM_UP) + [6 - WARM_UP] and not lines


def test_networks_may_be_moved(monkeypatch):
    (parts, graphs, _), (eager, *_) = (make(captured, monkeypatch) for captured in (True, False))
    run(eager, 10)
    run(parts, 5)
    for network in (parts.generator, parts.discriminator):
        for p in network.params():
            p.array = p.array.copy()
    run(parts, 5)
    assert_same(parts, eager)
    assert graphs.launches == [3, 3]


class Refusing:
    """Records as a FakeGraph does, up to some call of a function, which is refused there."""

    def __init__(self, monkeypatch, name, call, error):
        self.monkeypatch, self.name, self.call, self.error = monkeypatch, name, call, error

    def __call__(self, work):
        calls, original = [], getattr(chainer.functions, self.name)

        def refused(*args, **kwargs):
            calls.append(1)
            if len(calls) == self.call:
                raise self.error
            return original(*args, **kwargs)
        with self.monkeypatch.context() as context:
            context.setattr(chainer.functions, self.name, refused)
            return FakeGraph(self.updater, work)


@pytest.mark.parametrize('method, name, call, error', [
    ('sn', 'tanh', 1, MemoryError()), ('sn', 'tanh', 2, RuntimeError('cuda')),
    ('sn', 'leaky_relu', 3, NotImplementedError('cuBLAS while\ncapturing')),
    ('sn', 'leaky_relu', 17, RuntimeError('cuda')), ('wgan_gp', 'leaky_relu', 24, RuntimeError('cuda'))])
def test_a_run_that_cannot_be_recorded_goes_on(monkeypatch, method, name, call, error):
    record = Refusing(monkeypatch, name, call, error)
    (parts, _, lines), (eager, *_) = (make(captured, monkeypatch, record, method=method) for captured in (True, False))
    record.updater = parts.updater
    assert run(parts, 6) == run(eager, 6)
    assert_same(parts, eager)
    line, = lines
    assert line.startswith('Iterations are not captured in a CUDA graph (' + type(error).__name__) and '\n' not in line
    assert not parts.updater.is_recorded


def test_counts_that_only_the_host_has_are_not_recorded(monkeypatch):
    monkeypatch.setattr(trainer, 'optimizer_for', lambda device: chainer.optimizers.Adam)
    parts, graphs, lines = make(True, monkeypatch)
    eager, *_ = make(False, monkeypatch)
    assert run(parts, 5) == run(eager, 5) and len(lines) == 1 and 'NotRecordable' in lines[0] and not graphs.made


def test_an_iteration_that_replaces_an_array_is_not_recorded(monkeypatch):
    """As a constraint may, that somebody writes."""
    (parts, graphs, lines), (eager, *_) = (make(captured, monkeypatch, method='none') for captured in (True, False))

    def constrain(discriminator):
        discriminator.dense.W.array = discriminator.dense.W.array * np.float32(0.5)
    for each in (parts, eager):
        run(each, WARM_UP)
        each.updater.normalization.constrain = constrain
    assert run(parts, 4) == run(eager, 4)
    assert_same(parts, eager)
    assert len(lines) == 1


def test_nothing_is_recorded_on_a_cpu():
    parts = tiny.make()
    assert type(parts.updater) is not CapturedGANUpdater
