"""What looks at each iteration's numbers on a GPU: a few launches, no waiting, and what the CPU would say."""
import math
import types

import chainer
import chainer.links as L
import numpy as np
import pytest

from util.engine import scalars
from util.engine.flat_adam import FlatAdam
from util.summaries import Summaries
from util.watch import NonNumberError, StopOnNonNumber


@pytest.fixture
def models(device):
    """Networks whose parameters are parts of buffers, and their optimizers."""
    models = {'gen': L.Linear(2, 3), 'dis': chainer.Sequential(L.Linear(2, 3), L.Linear(3, 1))}
    optimizers = []
    for model in models.values():
        model.to_device(device)
        optimizers.append(FlatAdam().setup(model))
        for p in model.params():
            p.grad = p.xp.ones_like(p.array)
        optimizers[-1].update()
    return models, optimizers


def trainer_at(iteration, **observation):
    return types.SimpleNamespace(updater=types.SimpleNamespace(iteration=iteration), observation=observation)


def observed(xp, value=1.0):
    return {'float': 0.5, 'single': np.float32(1), 'losses': xp.full((), value, 'f'), 'double': xp.ones((), 'd'),
            'variable': chainer.Variable(xp.ones((), 'f')), 'several': xp.ones(3, 'f'), 'count': 3}


@pytest.mark.parametrize('flat', [False, True])
def test_the_first_iteration_is_noted_and_said_later(models, flat):
    networks, optimizers = models
    xp = networks['gen'].xp
    check = StopOnNonNumber(networks, 5, (), optimizers if flat else ())
    for iteration in range(1, 3):
        check(trainer_at(iteration, **observed(xp)))
    networks['dis'][0].b.array[1] = math.nan
    check(trainer_at(3, **observed(xp)))
    check(trainer_at(4, **observed(xp)))
    with pytest.raises(NonNumberError, match='at iteration 3: in dis/0/b') as caught:
        check(trainer_at(5, **observed(xp)))
    assert caught.value.iteration == 3


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('key', ['float', 'single', 'losses', 'double', 'variable', 'several'])
def test_every_kind_of_observed_number_is_looked_at(models, key, value):
    networks, optimizers = models
    check = StopOnNonNumber(networks, 2, (), optimizers)
    bad = observed(networks['gen'].xp)
    bad[key] = bad[key] * value
    check(trainer_at(1, **bad))
    with pytest.raises(NonNumberError) as caught:
        check(trainer_at(2, **observed(networks['gen'].xp)))
    assert caught.value.iteration == 1


def test_buffers_are_looked_at_as_a_whole(models):
    networks, optimizers = models
    assert len(StopOnNonNumber(networks, 1)._parameters()) == 6
    assert len(StopOnNonNumber(networks, 1, (), optimizers)._parameters()) == 2


@pytest.mark.parametrize('n', [1, 10, 300])
def test_sums_are_chainers(device, monkeypatch, n):
    launches, get = [], scalars.get_kernel
    monkeypatch.setattr(scalars, 'get_kernel', lambda name: (launches.append(name), get(name))[1])
    ours, chainers, array = Summaries(), chainer.reporter.DictSummary(), device.xp.zeros((), 'f')
    for i in range(7):
        array[...] = i / 3  # as the arrays of a CUDA graph change
        numbers = {str(j): array * j if j else array for j in range(n)}
        for each in (ours, chainers):
            each.add({**numbers, 'host': 0.5})
    assert launches == 7 * -(-n // 256) * ['accumulate_scalars']
    for statistics in (lambda x: x.compute_mean(), lambda x: x.make_statistics()):
        one, other = (statistics(x) for x in (ours, chainers))
        assert list(one) == list(other)
        for key, value in other.items():
            assert float(one[key]) == pytest.approx(float(value), nan_ok=True, rel=1e-6, abs=1e-7)
    target = chainer.serializers.DictionarySerializer()
    ours.serialize(target)
    again = chainer.reporter.DictSummary()
    again.serialize(chainer.serializers.NpzDeserializer(target.target))
    assert {k: float(v) for k, v in again.compute_mean().items()} == pytest.approx(
        {k: float(v) for k, v in ours.compute_mean().items()})


def test_gathered(device):
    arrays = [device.xp.full((), i, 'f') for i in range(300)]
    assert scalars.gather(arrays).get().tolist() == list(range(300))
