"""Adam in buffers: on the CPU its bits are those of Chainer's, and to Chainer all is as ever."""
import copy
import pickle

import chainer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.tiny import state
from util import snapshot, trainer
from util.engine import flat_adam
from util.engine.flat_adam import FlatAdam, segments_of
from util.engine.switch import using_engine

SHAPES = {'W': (3, 2, 4), 'b': (70,), 'gamma': (), 'empty': (0, 3)}


class Weights(chainer.Link):
    def __init__(self, dtype='f'):
        super().__init__()
        with self.init_scope():
            for i, (name, shape) in enumerate(SHAPES.items()):
                setattr(self, name, chainer.Parameter(np.random.RandomState(i).standard_normal(shape).astype(dtype)))


def give_gradients(link, step, names=tuple(SHAPES)):
    """Gradients of these parameters; the others' are cleared, as a backward pass that does not reach them leaves them.
    """
    link.cleargrads()
    for name in names:
        p = link[name] if isinstance(link, chainer.Chain) else getattr(link, name)
        p.grad = np.random.RandomState(100 + step).standard_normal(p.shape).astype(p.dtype)


def pair(dtype='f', **options):
    """Networks with the same numbers, each with an optimizer: Chainer's and this one."""
    return [kind(3e-3, 0.5, 0.9, **options).setup(Weights(dtype)) for kind in (chainer.optimizers.Adam, FlatAdam)]


def everything(optimizer):
    grads = {'grad/' + path: p.grad for path, p in optimizer.target.namedparams() if p.grad is not None}
    return {key: np.array(x) for key, x in {**state(optimizer), **state(optimizer.target), **grads}.items()}


def assert_same(one, other):
    one, other = everything(one), everything(other)
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def assert_both(use, steps=3, **options):
    """``use(optimizer, step)`` before each update gives the same."""
    optimizers = pair(**options)
    for optimizer in optimizers:
        for step in range(steps):
            give_gradients(optimizer.target, step)
            use(optimizer, step)
            optimizer.update()
    assert_same(*optimizers)
    return optimizers[1]


def buffers(optimizer):
    """The buffers of parameters, one a launch."""
    return [flat._buffers[0] for flat in optimizer._flats.values()]


def are_parts(optimizer, names=('W', 'b', 'gamma')):
    """Parameters and moments are parts of one buffer each."""
    flat, = optimizer._flats.values()
    for name in names:
        p = getattr(optimizer.target, name)
        for array, buffer in zip((p.array, p.update_rule.state['m'], p.update_rule.state['v']), flat._buffers,
                                 strict=True):
            assert np.shares_memory(array, buffer)


@pytest.mark.parametrize('engine', ['stock', 'numpy'])
@pytest.mark.parametrize('options', [
    {}, {'eta': 0.5}, {'eps': 1e-3}, {'weight_decay_rate': 0.1}, {'amsgrad': True}, {'adabound': True}])
def test_bits_are_those_of_chainer(engine, options):
    with using_engine(engine):
        optimizer = assert_both(lambda optimizer, step: None, **options)
    assert len(buffers(optimizer)) == (not {'amsgrad', 'adabound'} & set(options))


@pytest.mark.parametrize('dtype', 'de')
def test_other_types_are_updated_one_by_one(dtype):
    assert not buffers(assert_both(lambda optimizer, step: None, dtype=dtype))


def test_float32_update_of_float16():
    optimizers = pair('e')
    for optimizer in optimizers:
        optimizer.use_fp32_update()
        for step in range(3):
            give_gradients(optimizer.target, step)
            optimizer.update()
    assert_same(*optimizers)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sets(st.sampled_from(sorted(SHAPES))), min_size=1, max_size=4))
def test_parameters_without_gradient(names):
    def use(optimizer, step):
        give_gradients(optimizer.target, step, sorted(names[step]))
    assert_both(use, len(names))


def test_everything_is_a_part_of_a_buffer():
    are_parts(assert_both(lambda optimizer, step: None))


def test_hooks_and_what_users_change():
    def use(optimizer, step):
        link = optimizer.target
        if step == 0:
            optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
            optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(0.5))
            optimizer.add_hook(lambda optimizer: optimizer.target.b.array.clip(-1, 1, optimizer.target.b.array),
                               'clip', timing='post')
            link.W.update_rule.add_hook(lambda rule, p: p.grad.__imul__(2), 'double')
        elif step == 1:
            optimizer.alpha, optimizer.beta1 = 0.02, 0.3
            link.b.update_rule.hyperparam.alpha = 0.5
        elif step == 2:
            link.W.update_rule.enabled = False
            link.gamma.update_rule.add_hook(lambda rule, p: np.negative(p.array, p.array), 'negate', timing='post')
        elif step == 3:
            link.W.update_rule.enabled = True
            link.b.array = 2 * link.b.array
            link.gamma.update_rule.state['m'] = 3 * link.gamma.update_rule.state['m']
    optimizer = assert_both(use, 6)
    assert optimizer.target.W.update_rule.t == 5
    are_parts(optimizer, ['W'])


def test_a_loss_scale_and_a_loss_function():
    optimizers = pair()
    for optimizer in optimizers:
        optimizer.loss_scaling(scale=8.0)
        for _ in range(3):
            optimizer.update(lambda: chainer.functions.sum(optimizer.target.W ** 2))  # noqa: B023
    assert_same(*optimizers)


def test_a_loss_that_raises_and_a_rule_called_by_itself():
    optimizers = pair()
    for optimizer in optimizers:
        link = optimizer.target
        give_gradients(link, 0)
        with pytest.raises(ZeroDivisionError):
            optimizer.update(lambda: 1 / 0)
        optimizer.update()
        optimizer.add_hook(lambda optimizer: 1 / 0, 'broken')
        with pytest.raises(ZeroDivisionError):
            optimizer.update()
        link.W.update()
        optimizer.remove_hook('broken')
        link.b.update_rule.add_hook(lambda rule, p: 1 / 0, 'broken')
        with pytest.raises(ZeroDivisionError):
            optimizer.update()
        link.b.update_rule.remove_hook('broken')
        before = link.W.array.copy()
        link.W.update()
        assert (link.W.array != before).any()
    assert optimizers[0].t == optimizers[1].t


def test_layout_of_snapshots_and_exact_resume(tmp_path):
    optimizers = pair()
    names = [sorted(state(optimizer)) for optimizer in optimizers]
    assert names[0] == names[1]  # before the first update there are no moments
    for i, optimizer in enumerate(optimizers):
        for step in range(2):
            give_gradients(optimizer.target, step)
            optimizer.update()
        chainer.serializers.save_npz(tmp_path / '{}.npz'.format(i), optimizer)
        chainer.serializers.save_npz(tmp_path / 'link{}.npz'.format(i), optimizer.target)
    with np.load(tmp_path / '0.npz') as one, np.load(tmp_path / '1.npz') as other:
        assert sorted(one.files) == sorted(other.files)
        for key in one.files:
            np.testing.assert_array_equal(one[key], other[key])
            assert one[key].dtype == other[key].dtype and one[key].shape == other[key].shape
    for used in (False, True):  # a new optimizer, and one that has buffers already
        for i, loaded in zip((1, 0), pair(), strict=True):  # each from the other's
            if used:
                give_gradients(loaded.target, 7)
                loaded.update()
            chainer.serializers.load_npz(tmp_path / '{}.npz'.format(i), loaded)
            chainer.serializers.load_npz(tmp_path / 'link{}.npz'.format(i), loaded.target)
            reference = copy.deepcopy(optimizers[0])
            for optimizer in (loaded, reference):
                give_gradients(optimizer.target, 5)
                optimizer.update()
            assert_same(loaded, reference)
            if isinstance(loaded, FlatAdam):
                are_parts(loaded)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_the_optimizer_have_buffers_of_their_own(duplicate):
    optimizer = assert_both(lambda optimizer, step: None)
    other = duplicate(optimizer)
    before = everything(optimizer)
    for step in range(2):
        give_gradients(other.target, step)
        other.update()
    np.testing.assert_equal(everything(optimizer), before)
    for step in range(2):
        give_gradients(optimizer.target, step)
        optimizer.update()
    assert_same(optimizer, other)
    are_parts(other)


def test_copies_of_the_network_are_no_parts():
    optimizer = assert_both(lambda optimizer, step: None)
    link = optimizer.target.copy('copy')
    before = state(link)
    give_gradients(optimizer.target, 9)
    optimizer.update()
    np.testing.assert_equal(state(link), before)
    assert not np.shares_memory(link.W.array, optimizer.target.W.array)
    give_gradients(link, 3)
    for p in link.params():
        p.update()  # by the copy of its rule
    assert (link.W.array != before['W']).any()


def test_a_network_that_gets_its_weights_from_the_first_input():
    results = []
    for kind in (chainer.optimizers.Adam, FlatAdam):
        np.random.seed(0)
        link = chainer.links.Linear(None, 3)
        optimizer = kind().setup(link)
        link.cleargrads()
        optimizer.update()  # b has a value, W has none
        for _ in range(2):
            optimizer.update(lambda: chainer.functions.sum(link(np.ones((2, 4), 'f')) ** 2))  # noqa: B023
        results.append(optimizer)
    assert_same(*results)
    are_parts(results[1], 'Wb')


@pytest.mark.parametrize('when', [0, 2])
def test_links_that_share_their_arrays(when):
    results = []
    for kind in (chainer.optimizers.Adam, FlatAdam):
        chain = chainer.Chain(first=Weights(), other=Weights())
        optimizer = kind(3e-3, 0.5, 0.9).setup(chain)
        for step in range(4):
            if step == when:
                with chain.init_scope():
                    chain.second = chain.first.copy('share')
                optimizer.setup(chain)
            for i, link in enumerate(chain.children()):
                give_gradients(link, 10 * step + i)
            optimizer.update()
        assert chain.first.W.array is chain.second.W.array
        results.append(optimizer)
    assert_same(*results)


def test_more_parameters_than_one_launch_takes(monkeypatch):
    monkeypatch.setattr(flat_adam, 'MOST', 2)
    optimizer = assert_both(lambda optimizer, step: None)
    assert len(buffers(optimizer)) == 2


def test_before_replay_counts():
    optimizer = assert_both(lambda optimizer, step: None)
    optimizer.before_replay()
    assert optimizer.t == 4 and all(p.update_rule.t == 4 for p in optimizer.target.params() if p.size)


@pytest.mark.parametrize('method, rows', [('sn', {}), ('weight_clipping', {}), ('sn_gp', {'model': 'resnet'})])
def test_runs_have_the_bits_and_the_snapshots_of_chainers(monkeypatch, tmp_path, method, rows):
    results = []
    for kind in (chainer.optimizers.Adam, FlatAdam):
        monkeypatch.setattr(trainer, 'optimizer_for', lambda device: kind)  # noqa: B023
        parts = tiny.make(method, setting='default', **rows)
        tiny.iterate(parts, 2)
        snapshot.save(tmp_path / kind.__name__, parts.updater)
        going_on = tiny.make(method, setting='default', **rows)
        snapshot.load(tmp_path / kind.__name__, going_on.updater)
        observations = [tiny.iterate(p, 2) for p in (parts, going_on)]
        assert observations[0] == observations[1]
        np.testing.assert_equal(state(parts.updater), state(going_on.updater))
        results.append({**observations[0], **state(parts.updater)})
    assert (tmp_path / 'Adam').read_bytes() == (tmp_path / 'FlatAdam').read_bytes()
    np.testing.assert_equal(*results)


@given(st.lists(st.integers(1, 20000), min_size=1, max_size=6))
def test_segments_do_not_overlap_and_begin_where_a_new_array_might(sizes):
    table = segments_of(sizes)
    assert table['size'][:-1].tolist() == sizes
    assert (table['at'] % 64 == 0).all()
    for row, following in zip(table[:-1], table[1:], strict=True):
        assert row['size'] <= following['at'] - row['at'] < row['size'] + 64
        assert following['first'] - row['first'] == -(-row['size'] // 4096)
