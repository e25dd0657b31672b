"""What every hook that replaces a weight has from its base, shown on one that doubles it."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from util.normalization.weight import FrobeniusNormalization, WeightNormalization
from util.normalization.weight_hook import WeightHook, output_axis


class Twice(WeightHook):
    """Doubles the weight, or multiplies it by something else."""

    name = 'Twice'

    def __init__(self, factor=2, name=None, weight_name='W'):
        super().__init__(name, weight_name)
        self.factor, self.events = factor, []

    def normalize_weight(self, link):
        self.events.append('normalize')
        return self.factor * getattr(link, self.weight_name)

    def attach(self, link):
        self.events.append('attach')

    def detach(self, link):
        self.events.append('detach')


class Refusing(Twice):
    name = 'Refusing'

    def check(self, link):
        raise ValueError('not this one')


class Raising(chainer.LinkHook):
    """Some other hook."""

    name = 'Raising'

    def forward_preprocess(self, args):
        raise KeyError('no weight today')


X = np.array([[1, -2], [0.5, 3]], 'f')
W = np.array([[1, 2], [3, 4], [5, 6]], 'f')
TWICE = 2 * X @ W.T


def linear(*hooks):
    link = L.Linear(2, 3, initialW=W)
    for hook in hooks:
        link.add_hook(hook)
    return link


def is_as_it_was(link, W=W):
    assert type(link.W) is chainer.Parameter and any(link.W is p for p in link.params())
    assert 'forward' not in vars(link)
    np.testing.assert_array_equal(link.W.array, W)


def test_the_link_uses_the_other_weight_and_keeps_its_own():
    link = linear(Twice())
    for _ in range(2):
        np.testing.assert_array_equal(link(X).array, TWICE)  # exact: small whole numbers and halves
        is_as_it_was(link)
    np.testing.assert_array_equal(link(x=X).array, TWICE)


def test_the_gradient_goes_through():
    link = linear(Twice())
    link.cleargrads()
    F.sum(link(X)).backward()
    np.testing.assert_array_equal(link.W.grad, 2 * np.tile(X.sum(0), (3, 1)))
    chainer.optimizers.SGD(1).setup(link).update()
    np.testing.assert_array_equal(link.W.array, W - 2 * X.sum(0))


def test_without_backprop_there_is_no_graph():
    link = linear(Twice())
    with chainer.no_backprop_mode():
        y = link(X)
    np.testing.assert_array_equal(y.array, TWICE)
    assert y.creator is None


def test_once_a_call_and_in_order():
    hook = Twice()
    link = linear(hook)
    link(X)
    link(X)
    link.delete_hook('Twice')
    assert hook.events == ['attach', 'normalize', 'normalize', 'detach']
    np.testing.assert_array_equal(link(X).array, TWICE / 2)
    assert hook.events[-1] == 'detach'
    is_as_it_was(link)


def test_two_weights_of_one_link():
    link = linear(Twice(), Twice(10, name='bias', weight_name='b'))
    link.b.array[...] = [1, 2, 3]
    np.testing.assert_array_equal(link(X).array, TWICE + [10, 20, 30])
    link.delete_hook('Twice')
    np.testing.assert_array_equal(link(X).array, TWICE / 2 + [10, 20, 30])
    np.testing.assert_array_equal(link.b.array, [1, 2, 3])


def test_one_hook_for_two_links():
    hook = Twice()
    first, second = linear(hook), L.Linear(3, 1, initialW=1).add_hook(hook)
    np.testing.assert_array_equal(second(first(X)).array, 2 * TWICE.sum(1, keepdims=True))
    second.delete_hook('Twice')
    np.testing.assert_array_equal(first(X).array, TWICE)


@pytest.mark.parametrize('link, x, axis', [
    (lambda: L.Linear(None, 3), np.ones((2, 4), 'f'), 0),
    (lambda: L.Convolution2D(None, 3, 2), np.ones((2, 4, 3, 3), 'f'), 0),
    (lambda: L.Deconvolution2D(None, 3, 2), np.ones((2, 4, 3, 3), 'f'), 1),
    (lambda: L.DeconvolutionND(1, None, 3, 2), np.ones((2, 4, 3), 'f'), 1)])
def test_a_link_without_a_weight_as_yet_gets_it_from_the_first_input(link, x, axis):
    link = link().add_hook(Twice())
    assert not link.W.is_initialized
    y = link(x)
    assert link.W.shape[output_axis(link)] == 3 and link.W.shape[1 - axis] == 4 and output_axis(link) == axis
    W = link.W.array.copy()
    link.delete_hook('Twice')
    np.testing.assert_allclose(y.array, 2 * link(x).array, rtol=1e-6)  # without a bias; one rounding apart
    is_as_it_was(link, W)


def test_a_forward_that_raises_leaves_the_parameter():
    link = linear(Twice())
    with pytest.raises(chainer.utils.type_check.InvalidType):
        link(np.ones((1, 5), 'f'))
    is_as_it_was(link)
    np.testing.assert_array_equal(link(X).array, TWICE)


@pytest.mark.parametrize('hooks', [[Raising()], [Twice(), Raising()], [Raising(), Twice()]])
def test_a_hook_that_raises_leaves_the_parameter(hooks):
    link = linear(*hooks)
    with pytest.raises(KeyError, match='no weight today'):
        link(X)
    assert link.W is dict(link.namedparams())['/W'] and type(link.W) is chainer.Parameter
    np.testing.assert_array_equal(link.W.array, W)
    link.delete_hook('Raising')
    np.testing.assert_array_equal(link(X).array, TWICE if len(hooks) > 1 else TWICE / 2)
    is_as_it_was(link)


def test_nothing_is_left_of_a_hook_that_is_deleted_after_another_raised():
    link = linear(Twice(), Raising())
    with pytest.raises(KeyError):
        link(X)
    link.delete_hook('Raising')
    link.delete_hook('Twice')
    np.testing.assert_array_equal(link(X).array, TWICE / 2)
    is_as_it_was(link)


def test_a_refused_hook_is_not_there():
    hook = Refusing()
    link = linear(Twice())
    with pytest.raises(ValueError, match='not this one'):
        link.add_hook(hook)
    assert list(link.local_link_hooks) == ['Twice'] and hook.events == []
    np.testing.assert_array_equal(link(X).array, TWICE)


@pytest.mark.parametrize('link, weight_name, message', [
    (lambda: L.Linear(2, 3), 'V', "Linear has no parameter 'V'"),
    (lambda: L.Linear(2, 3), 'in_size', "Linear has no parameter 'in_size'"),
    (lambda: L.BatchNormalization(3), 'W', "BatchNormalization has no parameter 'W'")])
def test_links_that_have_no_such_weight(link, weight_name, message):
    link, hook = link(), Twice(weight_name=weight_name)
    with pytest.raises(ValueError, match=message):
        link.add_hook(hook)
    assert not link.local_link_hooks and hook.events == []


@pytest.mark.parametrize('name', ['', 'a.b', None, 3, '0'])
def test_what_cannot_name_a_weight(name):
    with pytest.raises(ValueError, match='weight_name must name a parameter'):
        Twice(weight_name=name)


def test_names():
    assert list(linear(Twice()).local_link_hooks) == ['Twice']
    assert list(linear(Twice(name='other')).local_link_hooks) == ['other']


def test_no_context_manager():
    with pytest.raises(NotImplementedError, match=r'link\.add_hook\(Twice\(\)\)'):
        with Twice():
            pass


def test_the_one_method_that_a_subclass_must_have():
    link = linear(WeightHook())
    with pytest.raises(NotImplementedError):
        link(X)
    assert type(link.W) is chainer.Parameter


def test_copies_have_weights_of_their_own():
    link = linear(Twice())
    link(X)
    other = link.copy('copy')
    other.W.array[...] = 10 * W
    np.testing.assert_array_equal(other(X).array, 10 * TWICE)
    np.testing.assert_array_equal(link(X).array, TWICE)
    shared = link.copy('share')
    link.W.array[...] = 10 * W
    np.testing.assert_array_equal(shared(X).array, 10 * TWICE)
    is_as_it_was(other, 10 * W)


def test_a_weight_has_one_hook():
    link = L.Linear(3, 2).add_hook(WeightNormalization())
    with pytest.raises(ValueError, match="'W' has the hook WeightNormalization already"):
        link.add_hook(FrobeniusNormalization())
    assert list(link.local_link_hooks) == ['WeightNormalization']
