"""Weight normalization and the Frobenius norm, against NumPy in float64."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import as_matrix, singular_values, state, used_weights
from util.normalization.weight import FrobeniusNormalization, WeightNormalization

HOOKS = [WeightNormalization, FrobeniusNormalization]
both_hooks = pytest.mark.parametrize('kind', HOOKS)
# a link, an input, the outputs' axis of the weight
LINKS = {
    'linear': (lambda: L.Linear(6, 4), (2, 6), 0),
    'conv': (lambda: L.Convolution2D(3, 4, 3), (2, 3, 5, 5), 0),
    'deconv': (lambda: L.Deconvolution2D(3, 4, 3), (2, 3, 4, 4), 1),
}
all_links = pytest.mark.parametrize('name', sorted(LINKS))


def draw(shape, seed=0, dtype='d'):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def by_hand(kind, W, axis):
    """What the weight should become, in float64."""
    squares = W.astype('d') ** 2
    if kind is FrobeniusNormalization:
        return W / np.sqrt(squares.sum())
    return W / np.sqrt(squares.sum(axis=tuple(i for i in range(W.ndim) if i != axis), keepdims=True))


def make(kind, name, dtype='d'):
    make_link, shape, axis = LINKS[name]
    with chainer.using_config('dtype', np.dtype(dtype)):
        link = make_link().add_hook(kind())
    link.W.array[...] = draw(link.W.shape, 1)
    return link, draw(shape, 2, dtype), axis


@both_hooks
@all_links
def test_the_weight_that_a_link_uses(kind, name):
    link, x, axis = make(kind, name)
    used, = used_weights(link, x)
    np.testing.assert_allclose(used, by_hand(kind, link.W.array, axis), rtol=1e-11)  # eps is 1e-12 of a length of 1


@both_hooks
def test_embeddings(kind):
    link = L.EmbedID(5, 3, initialW=draw((5, 3), dtype='f')).add_hook(kind())
    y = link(np.array([4, 0, 4], 'i'))
    np.testing.assert_allclose(y.array, by_hand(kind, link.W.array, 0)[[4, 0, 4]], rtol=1e-6)


@all_links
def test_each_output_of_weight_normalization_has_length_one(name):
    link, x, axis = make(WeightNormalization, name)
    used, = used_weights(link, x)
    np.testing.assert_allclose(np.linalg.norm(as_matrix(used, axis), axis=1), np.ones(4), rtol=1e-11)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(0, 1000), st.floats(1e-2, 1e2))
def test_sums_of_squared_singular_values(shape, seed, scale):
    """d_out for weight normalization (Equation 27), 1 for the Frobenius norm; the weight's own scale does not count."""
    for kind, total in ((WeightNormalization, shape[0]), (FrobeniusNormalization, 1)):
        W = draw(shape, seed)
        link = chainer.Link()
        with link.init_scope():
            link.W = chainer.Parameter(scale * W)
        hook = kind()
        normalized = hook.normalize_weight(link.add_hook(hook)).array
        np.testing.assert_allclose((singular_values(normalized) ** 2).sum(), total, rtol=1e-6)
        np.testing.assert_allclose(normalized, by_hand(kind, W, 0), rtol=1e-6, atol=1e-9)


@both_hooks
@all_links
def test_gradients_are_those_of_numerical_differentiation(kind, name):
    link, _, axis = make(kind, name)
    hook, = link.local_link_hooks.values()
    W, g = link.W.array.copy(), draw(link.W.shape, 3)
    link.cleargrads()
    F.sum(hook.normalize_weight(link) * g).backward()
    moving = W.copy()
    expected, = gradient_check.numerical_grad(lambda: (by_hand(kind, moving, axis),), (moving,), (g,), eps=1e-5)
    # Central differences: an error of eps^2 times the third derivative, and 1e-16 / eps from rounding
    np.testing.assert_allclose(link.W.grad, expected, rtol=1e-6, atol=1e-8)


@both_hooks
@all_links
def test_gradients_can_be_differentiated_again(kind, name):
    link, _, _ = make(kind, name)
    hook, = link.local_link_hooks.values()
    W = link.W.array.copy()

    def normalize(W):
        vars(link)['W'] = W  # as in the midst of a call
        return hook.normalize_weight(link)
    gradient_check.check_double_backward(normalize, W, draw(W.shape, 3), draw(W.shape, 4), dtype='d', eps=1e-5,
                                         rtol=1e-5, atol=1e-7)


@both_hooks
@all_links
def test_float16(kind, name):
    link, x, axis = make(kind, name, 'e')
    link.W.array *= 200  # squares of 600 overflow in float16
    assert link.W.dtype == np.float16
    y = link(chainer.Variable(x))
    used, = used_weights(link, x)
    assert y.dtype == np.float16
    # Half of float16's last place
    np.testing.assert_allclose(used, by_hand(kind, link.W.array, axis), rtol=2 ** -11 + 1e-5, atol=2 ** -25)
    link.cleargrads()
    F.sum(y ** 2).backward()
    assert link.W.grad.dtype == np.float16 and np.isfinite(link.W.grad).all() and np.abs(link.W.grad).max() > 0


def test_a_row_of_zeros_stays():
    link = L.Linear(3, 2, initialW=np.array([[0, 0, 0], [3, 0, 4]], 'f')).add_hook(WeightNormalization())
    np.testing.assert_allclose(used_weights(link, np.ones((1, 3), 'f'))[0], [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)


@pytest.mark.parametrize('kind, W, expected', [
    (WeightNormalization, [[3, 4], [0, 5]], [[3 / 7, 4 / 7], [0, 5 / 7]]),
    (FrobeniusNormalization, [[3, 0], [0, 4]], [[3 / 7, 0], [0, 4 / 7]])])
def test_eps_is_added_to_the_length(kind, W, expected):
    link = L.Linear(2, 2, initialW=np.array(W, 'f')).add_hook(kind(eps=2))
    np.testing.assert_allclose(used_weights(link, np.ones((1, 2), 'f'))[0], expected, rtol=1e-6)


@both_hooks
@all_links
def test_nothing_is_kept_on_the_link(kind, name):
    link, x, _ = make(kind, name)
    before = state(link)
    link(chainer.Variable(x))
    after = state(link)
    assert sorted(after) == ['W', 'b'] and all((after[key] == before[key]).all() for key in after)
    link.delete_hook(kind.name)
    np.testing.assert_array_equal(used_weights(link, x)[0], before['W'])
