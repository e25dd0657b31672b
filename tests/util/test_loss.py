"""Losses and the gradient penalty, against numbers worked out by hand or by NumPy in float64."""
import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from util import loss
from util.loss import LOSSES, gradient_penalty

REAL, FAKE = np.array([[0.5], [-2], [3]]), np.array([[-3.], [0.25], [2]])
logits = st_numpy.arrays('d', st.tuples(st.integers(1, 5), st.just(1)), elements=st.floats(-30, 30))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Losses

def test_names():
    assert LOSSES == {'log': (loss.log_generator, loss.log_discriminator),
                      'hinge': (loss.linear_generator, loss.hinge_discriminator),
                      'wasserstein': (loss.linear_generator, loss.wasserstein_discriminator)}
    assert all(pair.generator is pair[0] and pair.discriminator is pair[1] for pair in LOSSES.values())


@given(logits, logits)
def test_log_loss_is_the_cross_entropy_of_sigmoids(real, fake):
    expected = -np.log(sigmoid(real)).mean() - np.log(sigmoid(-fake)).mean()  # 1 - D(x) = sigmoid(-logit)
    # atol: the logarithm of a number that was rounded to a last place of 1e-16
    np.testing.assert_allclose(loss.log_discriminator(real, fake).array, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(loss.log_generator(fake).array, -np.log(sigmoid(fake)).mean(), rtol=1e-12, atol=1e-15)


def test_log_loss_by_hand():
    zero, even = np.zeros((2, 1)), np.array([[np.log(3)]])  # D(x) = 1/2 and 3/4
    np.testing.assert_allclose(loss.log_discriminator(zero, zero).array, 2 * np.log(2), rtol=1e-15)
    np.testing.assert_allclose(loss.log_discriminator(even, even).array, np.log(4 / 3) + np.log(4), rtol=1e-15)
    np.testing.assert_allclose(loss.log_generator(even).array, np.log(4 / 3), rtol=1e-15)


def test_hinge_loss_by_hand():
    # real: max(0, 1 - x) = 0.5, 3, 0; fake: max(0, 1 + x) = 0, 1.25, 3
    np.testing.assert_allclose(loss.hinge_discriminator(REAL, FAKE).array, 3.5 / 3 + 4.25 / 3, rtol=1e-15)
    assert loss.hinge_discriminator(np.array([[1.]]), np.array([[-1.]])).array == 0
    assert loss.hinge_discriminator(np.array([[-1.]]), np.array([[1.]])).array == 4


def test_wasserstein_loss_by_hand():
    np.testing.assert_allclose(loss.wasserstein_discriminator(REAL, FAKE).array, -0.75 / 3 - 1.5 / 3, rtol=1e-15)


def test_linear_generator_by_hand():
    np.testing.assert_allclose(loss.linear_generator(FAKE).array, 0.75 / 3, rtol=1e-15)


@pytest.mark.parametrize('name, at_real, at_fake, of_generator', [
    ('log', [-sigmoid(-0.5), -sigmoid(2), -sigmoid(-3)], [sigmoid(-3), sigmoid(0.25), sigmoid(2)],
     [-sigmoid(3), -sigmoid(-0.25), -sigmoid(-2)]),
    ('hinge', [-1, -1, 0], [0, 1, 1], [-1, -1, -1]),
    ('wasserstein', [-1, -1, -1], [1, 1, 1], [-1, -1, -1])])
def test_gradients(name, at_real, at_fake, of_generator):
    pair, real, fake = LOSSES[name], chainer.Variable(REAL), chainer.Variable(FAKE)
    pair.discriminator(real, fake).backward()
    np.testing.assert_allclose(real.grad[:, 0], np.array(at_real) / 3, rtol=1e-12)
    np.testing.assert_allclose(fake.grad[:, 0], np.array(at_fake) / 3, rtol=1e-12)
    fake.cleargrad()
    pair.generator(fake).backward()
    np.testing.assert_allclose(fake.grad[:, 0], np.array(of_generator) / 3, rtol=1e-12)


@pytest.mark.filterwarnings('ignore:overflow encountered in exp')  # in Chainer's softplus, where the result is right
@pytest.mark.parametrize('name, real_side, fake_side, generator', [
    ('log', 1e4, 1e4, 1e4), ('hinge', 1e4 + 1, 1e4 + 1, 1e4), ('wasserstein', 1e4, 1e4, 1e4)])
def test_extreme_logits(name, real_side, fake_side, generator):
    pair = LOSSES[name]
    high, low = (chainer.Variable(np.array([[x]], 'f')) for x in (1e4, -1e4))
    best = -2e4 if name == 'wasserstein' else 0
    assert pair.discriminator(high, low).array == best
    assert pair.discriminator(low, high).array == real_side + fake_side
    assert pair.generator(low).array == generator
    (pair.discriminator(low, high) + pair.generator(low)).backward()
    np.testing.assert_array_equal([low.grad, high.grad], [[[-2]], [[1]]])


# The gradient penalty

def draw(shape, seed):
    return np.random.RandomState(seed).standard_normal(shape)


SHAPE = (4, 3, 2, 2)
X, FAKES, EPSILON = draw(SHAPE, 0), draw(SHAPE, 1), np.array([0, 0.3, 0.75, 0.99]).reshape(4, 1, 1, 1)


def test_of_a_linear_critic():
    """Its gradient is its weight, whatever x_hat."""
    w = draw(12, 2)

    def critic(x):
        return F.matmul(x.reshape(len(x), -1), chainer.as_variable(w[:, None])) + 7
    for scale in (1, 0.1, 0):
        w = scale * draw(12, 2) + (scale == 0) * np.eye(12)[0]
        expected = (np.linalg.norm(w) - 1) ** 2
        np.testing.assert_allclose(gradient_penalty(critic, X, FAKES, EPSILON).array, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize('epsilon', [EPSILON, EPSILON * 0, EPSILON * 0 + 0.5])
def test_of_a_square_critic_there_is_one_epsilon_an_example(epsilon):
    """D(x) = 1/2 sum a x^2 has the gradient a x_hat."""
    a = draw(12, 3)

    def critic(x):
        return F.sum(x.reshape(len(x), -1) ** 2 * a, axis=1, keepdims=True) / 2
    x_hats = [e * x + (1 - e) * y for e, x, y in zip(epsilon.ravel(), X, FAKES, strict=True)]
    norms = [np.linalg.norm(a * x_hat.ravel()) for x_hat in x_hats]
    expected = np.mean([(n - 1) ** 2 for n in norms])
    np.testing.assert_allclose(gradient_penalty(critic, X, FAKES, epsilon).array, expected, rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_of_a_small_network_with_its_gradient_to_the_weights(n, seed):
    """D(x) = b tanh(A x) has the gradient A^T (b (1 - tanh^2))."""
    A, b, x, y = draw((5, 12), seed), draw(5, seed + 1), draw((n, 3, 2, 2), seed + 2), draw((n, 3, 2, 2), seed + 3)
    epsilon = np.random.RandomState(seed).uniform(size=(n, 1, 1, 1))
    A_variable, b_variable = chainer.Variable(A), chainer.Variable(b)

    def critic(x):
        return F.matmul(F.tanh(F.matmul(x.reshape(len(x), -1), A_variable, transb=True)), b_variable[:, None])
    penalty = gradient_penalty(critic, x, y, epsilon)

    def by_hand():
        x_hat = (epsilon * x + (1 - epsilon) * y).reshape(n, -1)
        gradients = (b * (1 - np.tanh(x_hat @ A.T) ** 2)) @ A
        return np.array(((np.linalg.norm(gradients, axis=1) - 1) ** 2).mean()),
    np.testing.assert_allclose(penalty.array, by_hand()[0], rtol=1e-10)
    penalty.backward()
    expected = gradient_check.numerical_grad(by_hand, (A, b), (np.array(1.),), eps=1e-5)
    for variable, gradient in zip((A_variable, b_variable), expected, strict=True):
        # Central differences: an error of about eps^2, beside what a norm near zero bends
        np.testing.assert_allclose(variable.grad, gradient, rtol=1e-4, atol=1e-5)


def test_it_does_not_move_the_pictures():
    x, y = X.copy(), FAKES.copy()
    gradient_penalty(lambda x: F.sum(x ** 2, axis=(1, 2, 3)), x, y, EPSILON).backward()
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, FAKES)


def test_float32_pictures_give_a_float32_penalty():
    penalty = gradient_penalty(lambda x: F.sum(x ** 2, axis=(1, 2, 3)), *(a.astype('f') for a in (X, FAKES, EPSILON)))
    assert penalty.dtype == np.float32 and penalty.shape == ()
