import math
import os
import signal
import types

import chainer
import chainer.links as L
import numpy as np
import pytest

from util.engine.flat_adam import FlatAdam
from util.watch import EveryOrLast, NonNumberError, StopOnNonNumber, StopTrigger


def trainer_at(iteration, **observation):
    return types.SimpleNamespace(updater=types.SimpleNamespace(iteration=iteration), observation=observation)


def test_every_or_last():
    trigger = EveryOrLast(3, 7)
    assert [i for i in range(8) if trigger(trainer_at(i))] == [3, 6, 7]


def test_stop_trigger_counts():
    stop = StopTrigger(5)
    assert [stop(trainer_at(i)) for i in (0, 4, 5)] == [False, False, True]
    assert stop.get_training_length() == (5, 'iteration')


@pytest.fixture
def received():
    """Signals that get past a StopTrigger, instead of ending pytest."""
    numbers, before = [], {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, frame: numbers.append(number))
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number, kills', [(signal.SIGTERM, []), (signal.SIGINT, [signal.SIGINT])])
def test_a_signal_stops_after_the_iteration_and_only_a_second_ctrl_c_kills(received, number, kills):
    handler = signal.getsignal(number)
    with StopTrigger(5) as stop:
        os.kill(os.getpid(), number)
        assert not stop(trainer_at(1))  # not yet: nothing is saved
        assert stop.latch(trainer_at(1)) and stop(trainer_at(1)) and stop.signal == number and not received
        os.kill(os.getpid(), number)
        assert received == kills
    assert signal.getsignal(number) is handler


@pytest.fixture
def models():
    return {'gen': L.Linear(2, 3), 'dis': chainer.Sequential(L.Linear(2, 3), L.Linear(3, 1))}


def test_finite_numbers_pass(models):
    check = StopOnNonNumber(models, 1)
    check(trainer_at(1, **{'gen/loss': np.float32(3), 'text': 'x', 'count': 3}))


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_parameter_is_named(models, value):
    models['dis'][1].W.array[0, 1] = value
    with pytest.raises(NonNumberError, match='at iteration 12: in dis/1/W') as caught:
        StopOnNonNumber(models, 100)(trainer_at(12))
    assert caught.value.iteration == 12 and type(caught.value.iteration) is int


def test_observation_is_named(models):
    with pytest.raises(NonNumberError, match='at iteration 3: in sigma/conv1'):
        StopOnNonNumber(models, 1)(trainer_at(3, **{'sigma/conv1': np.array(math.nan, 'f'), 'gen/loss': np.float32(1)}))


@pytest.mark.parametrize('value', [0.5, np.float32(0.5), np.array(0.5), chainer.Variable(np.array(0.5, 'f'))])
def test_every_kind_of_observed_number_is_looked_at(models, value):
    check = StopOnNonNumber(models, 1)
    check(trainer_at(1, alpha=value))
    with pytest.raises(NonNumberError, match='at iteration 2: in alpha') as caught:
        check(trainer_at(2, alpha=value * math.nan))
    assert caught.value.iteration == 2


def test_comes_before_all_that_write(models):
    from util.generate_fake_image import GenerateFakeImage, SaveGenerator
    from util.generate_inception_score import GenerateInceptionScore
    from util.trainer import SaveSnapshot
    writers = (GenerateFakeImage, SaveGenerator, GenerateInceptionScore, SaveSnapshot)
    assert all(StopOnNonNumber.priority > w.priority for w in writers)


@pytest.fixture
def flat(models):
    """Networks whose parameters are parts of buffers, and their optimizers."""
    optimizers = []
    for model in models.values():
        optimizers.append(FlatAdam().setup(model))
        for p in model.params():
            p.grad = np.ones_like(p.array)
        optimizers[-1].update()
    return models, optimizers


def test_buffers_are_looked_at_as_a_whole(flat):
    models, optimizers = flat
    check = StopOnNonNumber(models, 1, (), optimizers)
    check(trainer_at(1))
    assert [x.ndim for x in check._parameters()] == [1, 1]
    optimizers[1].target[0].b.array[2] = math.nan
    with pytest.raises(NonNumberError, match='at iteration 2: in dis/0/b'):
        check(trainer_at(2))


@pytest.mark.parametrize('value', [math.nan, -math.inf])
def test_parameters_beside_the_buffers(flat, value):
    """Of a network without such an optimizer, and where somebody has given a parameter another array."""
    models, optimizers = flat
    for some in ([], optimizers[:1]):
        check = StopOnNonNumber(models, 1, (), [*some, chainer.optimizers.Adam()])
        check(trainer_at(1))
    check = StopOnNonNumber(models, 1, (), optimizers)
    models['gen'].W.array = models['gen'].W.array.copy()
    check(trainer_at(1))
    models['gen'].W.array[0, 0] = value
    with pytest.raises(NonNumberError, match='at iteration 2: in genW|at iteration 2: in gen/W'):
        check(trainer_at(2))


def test_infinities_that_cancel(models):
    models['gen'].W.array[0] = math.inf, -math.inf
    with pytest.raises(NonNumberError, match='iteration 4'):
        StopOnNonNumber(models, 1)(trainer_at(4, loss=math.inf, other=-math.inf))
