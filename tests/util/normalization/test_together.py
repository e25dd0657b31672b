"""All layers of a network normalized together: bits, vectors and gradients are those of each by itself."""
import contextlib
import copy

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.tiny import state
from util.normalization import power_iteration
from util.normalization import together as module
from util.normalization.bidirectional import BidirectionalSpectralNormalization
from util.normalization.spectral import SpectralNormalization
from util.normalization.together import normalized_together, together


def draw(shape, seed=0, dtype='f'):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


REAL, FAKE = chainer.Variable(draw((2, 3, 5, 5))), chainer.Variable(draw((2, 3, 5, 5), 1))
NAMES = 'abc'


class Network(chainer.Chain):
    """Layers of several kinds that may be called in any order."""

    def __init__(self, hook=SpectralNormalization, **options):
        super().__init__()
        with self.init_scope():
            self.a = L.Convolution2D(3, 3, 3, pad=1).add_hook(hook(**options))
            self.b = L.Deconvolution2D(3, 3, 3, pad=1).add_hook(hook(**options))
            self.c = L.Convolution2D(3, 3, 1).add_hook(hook(**options))
            self.plain = L.Convolution2D(3, 3, 1)

    def forward(self, x, calls=NAMES):
        """``calls`` names layers; P is one without a hook, ! raises, anything else is left to a method ``act``."""
        for name in calls:
            if name == '!':
                raise KeyError('broken')
            if name in NAMES:
                x = F.tanh(self[name](x))
            elif name == 'P':
                x = self.plain(x)
            else:
                x = self.act(name, x)
        return F.sum(x * x)


class Together(Network):
    forward = normalized_together(Network.forward)


def pair(**options):
    """Two networks with the same numbers: one whose layers are by themselves, one with them together."""
    networks = []
    for kind in (Network, Together):
        np.random.seed(0)
        networks.append(kind(**options))
    return networks


def everything(network):
    """State, gradients, and what the hooks remember."""
    grads = {'grad' + path: p.grad for path, p in network.namedparams() if p.grad is not None}
    links = [(name, network[name]) for name in NAMES]
    sigmas = {'sigma/' + name: link.W_sigma for name, link in links if link.W_sigma is not None}
    latest = {'latest/%s%d' % (name, i): np.hstack(x) for name, link in links
              for i, x in enumerate(link._W_latest or ())}
    assert all(link._W_ready is None for _, link in links)
    return {key: np.array(x) for key, x in {**state(network), **grads, **sigmas, **latest}.items()}


def assert_same(one, other, rtol=0):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_allclose(one[key], other[key], rtol=rtol, atol=10 * rtol, err_msg=key)


def assert_both(use, rtol=0, **options):
    """``use(network)``, which returns arrays, does the same to both."""
    by_itself, together = pair(**options)
    results = [use(network) for network in (by_itself, together)]
    assert_same(*({str(i): x for i, x in enumerate(result)} for result in results), rtol)
    assert_same(everything(by_itself), everything(together), rtol)


class Fused(power_iteration.Several):
    """Several whose gradients are computed together, as on a GPU."""

    def __init__(self, Ws, us, axes, n_power_iteration, eps, factor, move):
        super().__init__(Ws, us, axes, n_power_iteration, eps, factor, move)
        self._rest = [(*result[1:], factor, axis) for result, axis in zip(self.results, axes, strict=True)]

    def gradients(self, Ws, gs):
        assert any(g is not None for g in gs)
        return [None if g is None or g.size == 27 else power_iteration.gradient(W, g, *rest)
                for W, g, rest in zip(Ws, gs, self._rest, strict=True)]


@contextlib.contextmanager
def fused_or_not(fused):
    original = power_iteration.Several
    power_iteration.Several = Fused if fused else original
    try:
        yield
    finally:
        power_iteration.Several = original


@pytest.fixture(params=[False, True], ids=['each gradient by itself', 'gradients together'])
def rtol(request):
    """In one node or in many; and the tolerance where a weight has more than two gradients, or second ones."""
    with fused_or_not(request.param):
        yield 1e-4 if request.param else 0


@pytest.fixture
def groups(monkeypatch):
    """How many weights were normalized together, each time."""
    sizes, original = [], power_iteration.normalize_several
    monkeypatch.setattr(power_iteration, 'normalize_several',
                        lambda Ws, *args: (sizes.append(len(Ws)), original(Ws, *args))[1])
    return sizes


# The same whatever forward does

@pytest.mark.parametrize('options', [{}, {'n_power_iteration': 2, 'factor': 0.7}, {'use_gamma': True}])
def test_two_forwards_before_one_backward(groups, rtol, options):
    def use(network):
        for _ in range(2):
            losses = network(REAL), network(FAKE)
            network.cleargrads()
            (losses[0] + 2 * losses[1]).backward()
            for p in network.params():
                if p.grad is not None:
                    p.array -= 0.1 * p.grad
        return [x.array for x in losses]

    assert_both(use, **options)
    assert groups == [3, 3, 3, 3]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(NAMES + 'P!', max_size=6), st.booleans()), min_size=1, max_size=4), st.booleans(),
       st.booleans())
def test_any_calls_in_any_order_in_any_mode(forwards, backward, fused):
    def use(network):
        losses = []
        for calls, train in forwards:
            with chainer.using_config('train', train):
                try:
                    losses.append(network(REAL, calls))
                except KeyError:
                    assert '!' in calls
        network.cleargrads()
        if backward and losses:
            sum(losses).backward()
        return [loss.array for loss in losses]

    with fused_or_not(fused):
        assert_both(use, 1e-4 * fused)


@pytest.mark.parametrize('calls, moved', [('abc', 'abc'), ('ac', 'ac'), ('', ''), ('b!ca', 'b'), ('!', '')])
def test_u_moves_once_for_each_call(calls, moved):
    network = pair()[1]
    before = {name: network[name].W_u.copy() for name in NAMES}
    arrays = {name: network[name].W_u for name in NAMES}
    try:
        network(REAL, calls)
    except KeyError:
        pass
    assert [name for name in NAMES if (network[name].W_u != before[name]).any()] == list(moved)
    assert all(network[name].W_u is arrays[name] for name in NAMES)  # in place
    everything(network)


def test_in_test_mode_nothing_moves():
    network = pair()[1]
    before = state(network)
    with chainer.using_config('train', False):
        network(REAL)
    assert_same(state(network), before)
    assert network.a.W_sigma is not None


@pytest.mark.parametrize('key, value', [('train', False), ('enable_backprop', False)])
def test_a_mode_that_forward_changes(rtol, key, value):
    def use(network):
        def act(name, x):
            setattr(chainer.config, key, value if name == '(' else not value)
            return x
        network.act = act
        loss = network(REAL, 'a(b)c')
        network.cleargrads()
        loss.backward()
        return [loss.array]

    assert_both(use)


def test_arrays_that_forward_replaces(rtol):
    def use(network):
        def act(name, x):
            if name == '1':
                network.a.W.array = 2 * network.a.W.array
            else:
                network.b.W_u = draw(3, 5)
            return x
        network.act = act
        losses = network(REAL, '1a2bc'), network(REAL)
        network.cleargrads()
        sum(losses).backward()
        return [losses[0].array]

    assert_both(use)


def test_a_hook_that_forward_deletes():
    def use(network):
        network.act = lambda name, x: (network.b.delete_hook('SpectralNormalization'), x)[1]
        return network(REAL, 'a1bc').array

    one, other = (use(network) for network in pair())
    np.testing.assert_array_equal(one, other)


def test_gradient_penalty(rtol):
    def use(network):
        x = chainer.Variable(REAL.array)
        loss = network(x) - network(FAKE)
        gx, = chainer.grad([network(x)], [x], enable_double_backprop=True)
        network.cleargrads()
        (loss + F.sum(gx ** 2)).backward()
        return [loss.array]

    assert_both(use, rtol, use_gamma=True)


def test_the_gradient_can_be_differentiated_again(rtol):
    def use(network):
        W = [network.a.W, network.b.W]
        gs = chainer.grad([network(REAL)], W, enable_double_backprop=True)
        ggs = chainer.grad([F.sum(gs[0] ** 2) + F.sum(F.tanh(gs[1]))], W, enable_double_backprop=True)
        return [g.array for g in (*gs, *ggs, *chainer.grad([F.sum(F.tanh(ggs[0]))], W))]

    assert_both(use, rtol)


def test_the_gradient_of_one_weight(rtol):
    assert_both(lambda network: [g.array for g in chainer.grad([network(REAL)], [network.a.W])])


def test_forget(rtol):
    def whole(network):
        loss = F.forget(network, REAL)
        network.cleargrads()
        loss.backward()
        return [loss.array]

    def inside(network):
        network.act = lambda name, x: F.forget(lambda x: F.tanh(network.b(x)), x)
        loss = network(REAL, 'a1c') + network(FAKE)
        network.cleargrads()
        loss.backward()
        return [loss.array]

    assert_both(whole, rtol)
    assert_both(inside, rtol)


def test_a_layer_that_is_repeated_before_its_call(rtol):
    def use(network):
        network(REAL)  # there are vectors to repeat with

        def act(name, x):
            with chainer.using_config('in_recomputing', True):
                return F.tanh(network.b(x))
        network.act = act
        return [network(REAL, 'a1bc').array, network(REAL).array]

    assert_both(use)


# Which layers are together

def test_layers_of_the_same_recipe_are_together(groups):
    network = Network()
    network.c.delete_hook('SpectralNormalization')
    network.c.add_hook(SpectralNormalization(factor=2))
    with network.init_scope():
        network.lazy = L.Linear(None, 2).add_hook(SpectralNormalization())
        network.again = network.a
        with chainer.using_config('dtype', np.float64):
            network.double = L.Linear(3, 2).add_hook(SpectralNormalization())
    with together(network):
        assert sorted(groups) == [1, 1, 2]
        network.lazy(draw((1, 4)))
    with together(network):
        assert sorted(groups[3:]) == [1, 1, 3]  # it is initialised now
        with together(network):
            assert len(groups) == 6  # the outer one's are left to it
            network(REAL)
        with together(network):
            assert sorted(groups[6:]) == [1, 2]
    everything(network)


@pytest.mark.parametrize('calls', ['acb', 'bca', 'b'])
def test_layers_that_share_a_vector_move_it_one_after_the_other(groups, calls):
    networks = pair()
    for network in networks:
        del network.b
        with network.init_scope():
            network.b = network.a.copy('share')
        assert network.b.W_u is network.a.W_u
    losses = [network(REAL, calls).array for network in networks]
    assert losses[0] == losses[1]
    assert_same(*map(everything, networks))
    assert groups == [1]


def test_more_layers_than_one_launch_takes(groups, monkeypatch):
    monkeypatch.setattr(power_iteration, 'MOST', 2)
    assert_both(lambda network: [network(REAL).array])
    assert groups == [2, 1]


def test_hooks_that_do_more_are_left_to_themselves(groups):
    assert_both(lambda network: [network(REAL).array], hook=BidirectionalSpectralNormalization)
    assert not groups
    chain = chainer.ChainList(L.Linear(2, 2).add_hook(BidirectionalSpectralNormalization()))
    with together(chain):
        assert groups == [1]  # a dense layer has one direction


class Twice(SpectralNormalization):
    """A subclass that never takes what is ready."""

    def normalize_weight(self, link):
        return 2 * link.W


def test_a_hook_that_does_not_take_what_is_ready():
    assert_both(lambda network: [network(REAL).array], hook=Twice)


def test_a_vector_that_does_not_fit_is_left_to_the_call():
    network = pair()[1]
    network.b.W_u = draw(5)
    with pytest.raises(ValueError, match='W_u has shape'):
        network(REAL)
    network.b.W_u = None  # drawn in the call
    network(REAL)
    assert network.b.W_u.shape == (3,)
    everything(network)


def test_copies():
    network = pair()[1]
    for other in (network.copy('copy'), copy.deepcopy(network)):
        other(REAL)
        assert (other.a.W_u != network.a.W_u).any()


# The discriminators

@pytest.mark.parametrize('method, layers, rows', [
    ('sn', 8, {}), ('sn_gp', 8, {}), ('ssn', 8, {}), ('bssn', 1, {}), ('none', 0, {}),
    ('sn_hinge', 11, {'model': 'resnet'}), ('sn_hinge', 12, {'model': 'resnet_projection', 'classes': 4})])
def test_iterations_have_the_bits_of_layers_by_themselves(groups, rtol, monkeypatch, method, layers, rows):
    results = []
    for prepare in (lambda *args: None, module._prepare):
        monkeypatch.setattr(module, '_prepare', prepare)
        parts = tiny.make(method, setting='default', **rows)
        results.append({**tiny.iterate(parts, 2), **state(parts.updater)})
    assert_same(*results, 10 * rtol * (method == 'sn_gp'))
    assert set(groups) == ({layers} if layers else set())


def test_snapshots_have_the_layout_of_layers_by_themselves():
    one, other = (state(network) for network in pair())
    assert list(one) == list(other)


def test_all_are_undone_even_if_one_cannot_be(monkeypatch):
    """As on a device that refuses work: a weight that is still ready would be taken by the next call."""
    network = Together()
    monkeypatch.setattr(module.Ready, 'undo', lambda ready: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(REAL, '!')
    assert all(network[name]._W_ready is None for name in NAMES)
