"""What is logged of a GPU's numbers: Chainer's sums, in parts of two arrays; NumPy stands in for the GPU."""
import json
import warnings

import chainer
import numpy as np
import pytest
from chainer.reporter import DictSummary

from util.engine import scalars
from util.summaries import LogReport, Summaries


@pytest.fixture
def calls(monkeypatch):
    """NumPy's arrays without axes count as a GPU's; how many of them were added together, each time."""
    calls, accumulate = [], scalars.accumulate
    monkeypatch.setattr(scalars, 'on_gpu', lambda x: isinstance(x, np.ndarray) and x.shape == () and x.dtype == 'f')
    monkeypatch.setattr(scalars, 'accumulate', lambda arrays, *sums: (calls.append(len(arrays)),
                                                                      accumulate(arrays, *sums)))
    return calls


def numbers(i, names='ab', **more):
    random = np.random.RandomState(i)
    arrays = {name: np.array(random.standard_normal(), 'f') for name in names}
    return {'host': 0.1 * i, **arrays, 'vector': np.ones(2, 'f'), **more}


def pair():
    return Summaries(), DictSummary()


def assert_same(ours, chainers):
    for statistics in (lambda x: x.compute_mean(), lambda x: x.make_statistics()):
        one, other = (statistics(x) for x in (ours, chainers))
        assert list(one) == list(other)
        for key, value in other.items():
            np.testing.assert_array_equal(one[key], value, err_msg=key)
            assert getattr(one[key], 'dtype', None) == getattr(value, 'dtype', None)


def test_bits_are_those_of_chainer(calls):
    ours, chainers = pair()
    for i in range(20):
        for each in (ours, chainers):
            each.add(numbers(i))
        assert_same(ours, chainers)
    assert calls == 20 * [2]


def test_what_is_added_may_change_afterwards(calls):
    """As the arrays of a CUDA graph do."""
    ours, array = Summaries(), np.zeros((), 'f')
    for i in range(4):
        array[...] = i
        ours.add({'a': array, 'b': chainer.Variable(array)})
    assert ours.compute_mean() == {'a': 1.5, 'b': 1.5} and calls == 4 * [2]


def test_numbers_that_come_and_go(calls):
    ours, chainers = pair()
    for i, names in enumerate(['ab', 'ab', 'abc', 'a', '', 'ba', 'cab', 'ab']):
        for each in (ours, chainers):
            each.add(numbers(i, names, score=np.float32(i), weighted=(2.0, 3)))
        assert_same(ours, chainers)
    assert calls == 3 * [2]  # "ab"


def test_nothing_of_a_gpu_is_chainers_own():
    ours, chainers = pair()
    for i in range(3):
        for each in (ours, chainers):
            each.add(numbers(i))
    assert_same(ours, chainers)
    assert ours._sums is None


@pytest.mark.parametrize('kinds', [(Summaries, Summaries), (Summaries, DictSummary), (DictSummary, Summaries)])
@pytest.mark.parametrize('used', [False, True])
def test_snapshots_are_chainers(calls, kinds, used):
    whole, (first, second) = DictSummary(), (kind() for kind in kinds)
    for i in range(3):
        for each in (whole, first):
            each.add(numbers(i))
    if used:
        second.add(numbers(8))
    serializer = chainer.serializers.DictionarySerializer()
    first.serialize(serializer)
    second.serialize(chainer.serializers.NpzDeserializer(serializer.target))
    for i in range(3, 6):
        for each in (whole, second):
            each.add(numbers(i))
    assert_same(second, whole)


def test_saving_changes_nothing(calls):
    ours, chainers = pair()
    for i in range(4):
        for each in (ours, chainers):
            each.add(numbers(i))
            each.serialize(chainer.serializers.DictionarySerializer())
    assert_same(ours, chainers)
    assert calls == 4 * [2]


def test_the_report_is_chainers(calls, tmp_path):
    assert LogReport.__name__ == chainer.training.extensions.LogReport.__name__  # its key in snapshots

    class Trainer:
        is_before_training, elapsed_time, out = False, 1.0, tmp_path

        class updater:
            epoch, iteration = 0, 0
    logs = []
    for kind in (LogReport, chainer.training.extensions.LogReport):
        report = kind(trigger=lambda trainer: trainer.updater.iteration % 3 == 0, filename=None)
        for i in range(1, 10):
            Trainer.updater.iteration, Trainer.observation = i, numbers(i)
            report(Trainer)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            report.serialize(chainer.serializers.DictionarySerializer())
        logs.append(report.log)
    assert json.dumps(logs[0]) == json.dumps(logs[1]) and len(logs[0]) == 3
    assert calls == 9 * [2]
