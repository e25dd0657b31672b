"""Orthonormal regularization, against NumPy in float64."""
import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import as_matrix, iterate, make, observed, singular_values
from util.normalization.base import weights
from util.normalization.orthonormal import OrthonormalRegularization, distance_from_orthonormal, random_orthonormal

LINKS = {
    'tall': (lambda: L.Linear(4, 7), 0),
    'wide': (lambda: L.Linear(7, 4), 0),
    'square': (lambda: L.Linear(5, 5), 0),
    'embed': (lambda: L.EmbedID(9, 4), 0),
    'wide convolution': (lambda: L.Convolution2D(3, 6, 3), 0),
    'tall convolution': (lambda: L.Convolution2D(2, 9, 2), 0),
    'deconvolution': (lambda: L.Deconvolution2D(6, 3, 2), 1),
}


def draw(shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


def by_hand(W, axis=0):
    """The squares of W^T W - I summed, or of W W^T - I where that is smaller."""
    M = as_matrix(W, axis)
    gram = M @ M.T if M.shape[0] <= M.shape[1] else M.T @ M
    return ((gram - np.eye(len(gram))) ** 2).sum()


def distance_of(discriminator):
    """The sum over all layers of a CNN."""
    return sum(by_hand(child.W.array) for child in discriminator.children() if hasattr(child, 'W'))


# First weights

@pytest.mark.parametrize('name', sorted(LINKS))
def test_first_weights_are_orthonormal(name):
    link, axis = LINKS[name]
    link = link()
    shape, dtype, parameter = link.W.shape, link.W.dtype, link.W
    assert OrthonormalRegularization(1, np.random.RandomState(0)).weight(link) is link
    assert link.W is parameter and link.W.shape == shape and link.W.dtype == dtype == np.float32
    np.testing.assert_allclose(singular_values(link.W.array, axis), 1, rtol=1e-6)  # rounded to float32
    assert not link.local_link_hooks


def test_random_orthonormal_matrices_are_alike_likely():
    # Of a uniform one, every element has mean 0 and mean square 1/n; QR's own choice of signs fixes the diagonal's
    rng = np.random.RandomState(0)
    draws = np.array([random_orthonormal(3, 3, rng) for _ in range(3000)])
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.05)  # standard error: 1 / sqrt(3 * 3000) = 0.011
    np.testing.assert_allclose((draws ** 2).mean(0), 1 / 3, atol=0.03)
    assert 0.45 < np.mean(np.linalg.det(draws) > 0) < 0.55


def test_first_weights_are_functions_of_the_seed():
    first = []
    for seed in (0, 0, 1):
        np.random.seed(len(first))
        discriminator = make('orthonormal', seed=seed).discriminator
        first.append([discriminator[name].W.array for name in ('conv1', 'conv3', 'conv5', 'dense')])
    for same, other in zip(first[0], first[1], strict=True):
        np.testing.assert_array_equal(same, other)
    assert all((a != b).any() for a, b in zip(first[0], first[2], strict=True))
    assert (first[0][0].ravel()[:36] != first[0][1].ravel()[:36]).any()  # one layer's are not another's


def test_every_layer_starts_orthonormal_and_so_without_a_penalty():
    parts = make('orthonormal')
    for W, axis in weights(parts.discriminator):
        np.testing.assert_allclose(singular_values(W.array, axis), 1, rtol=1e-6)
    assert len(list(weights(parts.discriminator))) == 8
    assert distance_of(parts.discriminator) < 1e-10


# The penalty

@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 1), st.integers(0, 1000))
def test_penalty_of_any_shape(shape, axis, seed):
    W = draw(shape, seed)
    d_out, d_in = as_matrix(W, axis).shape
    value = distance_from_orthonormal(chainer.Variable(W), axis).array
    np.testing.assert_allclose(value, by_hand(W, axis), rtol=1e-10)
    M = as_matrix(W, axis)
    papers = ((M.T @ M - np.eye(d_in)) ** 2).sum()  # ||W^T W - I||^2 as it is printed
    np.testing.assert_allclose(value, papers - max(d_in - d_out, 0), rtol=1e-9, atol=1e-9)
    # A function of the singular values
    np.testing.assert_allclose(value, ((singular_values(W, axis) ** 2 - 1) ** 2).sum(), rtol=1e-9, atol=1e-9)


def test_penalty_of_a_known_matrix():
    W = chainer.Variable(np.array([[2., 0, 0], [0, 3, 0]]))
    assert distance_from_orthonormal(W).array == 3 ** 2 + 8 ** 2
    assert distance_from_orthonormal(W.transpose()).array == 3 ** 2 + 8 ** 2
    assert distance_from_orthonormal(W, 1).array == 3 ** 2 + 8 ** 2


@pytest.mark.parametrize('shape, axis', [((4, 3), 0), ((3, 4), 0), ((2, 3, 2, 2), 0), ((5, 2, 1, 2), 0),
                                         ((6, 3, 2), 1), ((2, 5, 2), 1)])
def test_gradient_is_that_of_numerical_differentiation_of_either_form(shape, axis):
    W = chainer.Variable(draw(shape))
    distance_from_orthonormal(W, axis).backward()
    moving = W.array.copy()

    def papers():
        M = as_matrix(moving, axis)
        return np.array(((M.T @ M - np.eye(M.shape[1])) ** 2).sum()),
    expected, = gradient_check.numerical_grad(papers, (moving,), (np.array(1.),), eps=1e-5)
    # The function is of fourth order: central differences err by eps^2 times its third derivative, about 1e-8
    np.testing.assert_allclose(W.grad, expected, rtol=1e-6, atol=1e-6)


def test_float16_and_float32_keep_their_dtype():
    for dtype in 'ef':
        W = chainer.Variable(draw((3, 4)).astype(dtype))
        value = distance_from_orthonormal(W)
        assert value.dtype == W.dtype
        np.testing.assert_allclose(value.array, by_hand(W.array), rtol=2e-2 if dtype == 'e' else 1e-5)


# In training

@pytest.mark.parametrize('coefficient', [0.01, 3.0])
def test_penalty_is_reported_times_its_coefficient_beside_the_loss(coefficient):
    parts = make('orthonormal', 'method.coefficient={}'.format(coefficient))
    plain = make('orthonormal', 'method.coefficient=0')
    for each in (parts, plain):
        for W, _ in weights(each.discriminator):
            W.array *= 1.5
    expected = coefficient * distance_of(parts.discriminator)
    report, without = (observed(each, lambda u=each.updater: u.update_discriminator(0)) for each in (parts, plain))
    np.testing.assert_allclose(report['dis/penalty'], expected, rtol=1e-5)
    assert without['dis/penalty'] == 0 and report['dis/loss'] == without['dis/loss']
    assert set(report) == {'dis/loss', 'dis/penalty'}


def test_other_methods_have_no_penalty():
    for method in ('none', 'sn', 'weight_norm', 'layer_norm', 'bssn'):
        assert not {'dis/penalty', 'dis/gradient_penalty'} & set(iterate(make(method)))


@pytest.mark.parametrize('scale', [0.5, 1.5])
def test_training_moves_weights_towards_orthonormal_ones(scale):
    distances = {}
    for coefficient in (0, 10):
        parts = make('orthonormal', 'method.coefficient={}'.format(coefficient), 'setting.alpha=0.01')
        for W, _ in weights(parts.discriminator):
            W.array *= scale
        distances[coefficient] = [distance_of(parts.discriminator)]
        for _ in range(12):
            iterate(parts)
            distances[coefficient].append(distance_of(parts.discriminator))
    assert (np.diff(distances[10]) < 0).all()
    assert distances[10][-1] < 0.1 * distances[10][0] and distances[10][-1] < 0.1 * distances[0][-1]
