"""BSN and BSSN, against NumPy's singular value decomposition and power iterations written out here, in float64."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check

from tests.tiny import as_matrix, singular_values, state, used_weights
from util import snapshot
from util.normalization.bidirectional import BidirectionalSpectralNormalization
from util.normalization.spectral import SpectralNormalization


def draw(shape, seed=0, dtype='d'):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


# a link, the link not yet initialised, an input, the outputs' axis of the weight
LINKS = {
    'conv': (lambda: L.Convolution2D(3, 5, 4), lambda: L.Convolution2D(None, 5, 4), (2, 3, 5, 5), 0),
    'conv1d': (lambda: L.Convolution1D(5, 3, 2), lambda: L.Convolution1D(None, 3, 2), (2, 5, 4), 0),
    'deconv': (lambda: L.Deconvolution2D(3, 5, 4), lambda: L.Deconvolution2D(None, 5, 4), (2, 3, 3, 3), 1),
}
all_links = pytest.mark.parametrize('name', sorted(LINKS))


def make(name='conv', dtype='d', lazy=False, **options):
    """A link with the hook and an input."""
    *kinds, shape, _ = LINKS[name]
    options.setdefault('rng', np.random.RandomState(5))
    with chainer.using_config('dtype', np.dtype(dtype)):
        link = kinds[lazy]()
        if not lazy:
            link.W.array[...] = draw(link.W.shape, 1)
        return link.add_hook(BidirectionalSpectralNormalization(**options)), draw(shape, 2, dtype)


def mean_sigma(W):
    """The mean of the largest singular values of the two matrices: axis 0, and axis 1, by everything else."""
    return (singular_values(W, 0)[0] + singular_values(W, 1)[0]) / 2


def one_round(W, u, axis):
    """One round of the power method from u: u, v and u^T W v."""
    M = as_matrix(W, axis)
    v = M.T @ u
    v /= np.linalg.norm(v)
    u = M @ v
    u /= np.linalg.norm(u)
    return u, v, u @ M @ v


# Values

@all_links
@pytest.mark.parametrize('scale', [1.0, 1.2])
def test_converges_to_the_mean_of_both_singular_values(name, scale):
    link, x = make(name, scale=scale)
    for _ in range(300):
        link(chainer.Variable(x))
    used, = used_weights(link, x)
    sigma = mean_sigma(link.W.array)
    assert abs(singular_values(link.W.array, 0)[0] / singular_values(link.W.array, 1)[0] - 1) > 0.02  # two numbers
    np.testing.assert_allclose(link.W_sigma, sigma, rtol=1e-8)
    np.testing.assert_allclose(used, scale * link.W.array / sigma, rtol=1e-8)


@all_links
def test_a_call_is_one_round_from_each_vector(name):
    link, x = make(name, scale=1.5)
    axis = LINKS[name][3]
    u_out, u_in, W = link.W_u.copy(), link.W_u_in.copy(), link.W.array.copy()
    assert u_out.shape == (W.shape[axis],) and u_in.shape == (W.shape[1 - axis],)
    new_out, _, sigma_out = one_round(W, u_out, axis)
    new_in, _, sigma_in = one_round(W, u_in, 1 - axis)
    y = link(chainer.Variable(x))
    np.testing.assert_allclose(link.W_sigma, (sigma_out + sigma_in) / 2, rtol=1e-10)
    np.testing.assert_allclose(link.W_u, new_out, rtol=1e-9)
    np.testing.assert_allclose(link.W_u_in, new_in, rtol=1e-9)
    link.delete_hook('BidirectionalSpectralNormalization')
    link.W.array[...] = 1.5 * W / ((sigma_out + sigma_in) / 2)
    np.testing.assert_allclose(y.array, link(chainer.Variable(x)).array, rtol=1e-9, atol=1e-12)


def test_more_rounds_a_call():
    link, x = make(n_power_iteration=3)
    us = [link.W_u, link.W_u_in]
    for _ in range(3):
        us = [one_round(link.W.array, u, axis)[0] for axis, u in enumerate(us)]
    link(x)
    np.testing.assert_allclose(link.W_u, us[0], rtol=1e-9)
    np.testing.assert_allclose(link.W_u_in, us[1], rtol=1e-9)


def test_known_singular_values():
    W = np.zeros((2, 2, 1, 2))
    W[0, 0, 0, 0], W[1, 1, 0, 0], W[0, 1, 0, 1] = 3, 4, 12
    # out x (in k): rows (3, 0, 0, 12), (0, 0, 4, 0); in x (out k): rows (3, 0, 0, 0), (0, 12, 4, 0)
    link = L.Convolution2D(2, 2, (1, 2), initialW=W.astype('f')).add_hook(BidirectionalSpectralNormalization())
    for _ in range(100):
        link(np.ones((1, 2, 1, 2), 'f'))
    np.testing.assert_allclose(link.W_sigma, (np.sqrt(9 + 144) + np.sqrt(144 + 16)) / 2, rtol=1e-6)


@pytest.mark.parametrize('link, x', [
    (lambda: L.Linear(6, 4, initialW=draw((4, 6), 1, 'f')), draw((2, 6), 2, 'f')),
    (lambda: L.EmbedID(6, 4, initialW=draw((6, 4), 1, 'f')), np.array([0, 5], 'i'))])
@pytest.mark.parametrize('scale', [1.0, 0.7])
def test_a_matrix_has_plain_spectral_normalization(link, x, scale):
    ours, plain = link(), link()
    ours.add_hook(BidirectionalSpectralNormalization(scale=scale, rng=np.random.RandomState(3)))
    plain.add_hook(SpectralNormalization(factor=scale, rng=np.random.RandomState(3)))
    for _ in range(3):
        np.testing.assert_array_equal(ours(x).array, plain(x).array)
    np.testing.assert_array_equal(ours.W_u, plain.W_u)
    np.testing.assert_array_equal(ours.W_sigma, plain.W_sigma)


# Gradients

@all_links
def test_gradient_has_constant_vectors(name):
    link, _ = make(name, scale=1.3)
    hook, = link.local_link_hooks.values()
    axis, W, g = LINKS[name][3], link.W.array.copy(), draw(link.W.shape, 3)
    (u1, v1, _), (u2, v2, _) = one_round(W, link.W_u, axis), one_round(W, link.W_u_in, 1 - axis)
    link.cleargrads()
    F.sum(hook.normalize_weight(link) * g).backward()
    moving = W.copy()

    def used():
        return 1.3 * moving / ((u1 @ as_matrix(moving, axis) @ v1 + u2 @ as_matrix(moving, 1 - axis) @ v2) / 2),
    expected, = gradient_check.numerical_grad(used, (moving,), (g,), eps=1e-5)
    # Central differences: an error of eps^2 times the third derivative, and 1e-16 / eps from rounding
    np.testing.assert_allclose(link.W.grad, expected, rtol=1e-6, atol=1e-8)


@all_links
def test_gradient_can_be_differentiated_again(name):
    link, _ = make(name, scale=1.3)
    hook, = link.local_link_hooks.values()
    hook.normalize_weight(link)
    W = link.W.array.copy()

    def normalize(W):
        vars(link)['W'] = W  # as in the midst of a call
        with chainer.using_config('in_recomputing', True):  # with the vectors of the call before
            return hook.normalize_weight(link)
    gradient_check.check_double_backward(normalize, W, draw(W.shape, 3), draw(W.shape, 4), dtype='d', eps=1e-5,
                                         rtol=1e-5, atol=1e-7)


def test_two_calls_before_one_backward():
    link, x = make()
    W, g = link.W.array.copy(), draw((2, 5, 2, 2), 4)
    gradients, start = [], state(link)
    for calls in ((1,), (0, 1), (0,)):  # which of two calls in a row are in the loss
        for key in ('W_u', 'W_u_in'):
            getattr(link, key)[...] = start[key]
        ys = [link(x), link(x)]
        link.cleargrads()
        sum(F.sum(ys[i] * g) for i in calls).backward()
        gradients.append(link.W.grad)
        np.testing.assert_array_equal(link.W.array, W)
    np.testing.assert_allclose(gradients[1], gradients[0] + gradients[2], rtol=1e-9, atol=1e-12)
    assert np.abs(gradients[0] - gradients[2]).max() > 1e-3  # each call has its own vectors


def test_float16():
    link, x = make(dtype='e')
    assert link.W.dtype == np.float16 and link.W_u.dtype == link.W_u_in.dtype == np.float32
    sigma = np.mean([one_round(link.W.array, link.W_u, 0)[2], one_round(link.W.array, link.W_u_in, 1)[2]])
    with chainer.using_config('train', False):
        used = used_weights(link, x)
    y = link(chainer.Variable(x))
    np.testing.assert_allclose(used[0], link.W.array.astype('d') / sigma, rtol=2 ** -11 + 1e-5, atol=2 ** -25)
    link.cleargrads()
    F.sum(y ** 2).backward()
    assert y.dtype == link.W.grad.dtype == np.float16
    assert np.isfinite(link.W.grad).all() and np.abs(link.W.grad).max() > 0


# The two vectors

def test_vectors_advance_in_training_mode_only():
    link, x = make()
    before = state(link)
    arrays = link.W_u, link.W_u_in
    with chainer.using_config('train', False):
        outputs = [link(x).array for _ in range(2)]
    np.testing.assert_array_equal(*outputs)
    assert all((state(link)[key] == before[key]).all() for key in before)
    np.testing.assert_array_equal(link(x).array, outputs[0])  # the same, but now they are kept
    for key, array in zip(('W_u', 'W_u_in'), arrays, strict=True):
        assert getattr(link, key) is array and np.abs(array - before[key]).max() > 1e-3


def test_forget_repeats_the_same_call_and_moves_nothing():
    (plain, x), (link, _) = make(), make()
    y, right = F.forget(link, chainer.Variable(x)), plain(chainer.Variable(x))
    np.testing.assert_array_equal(y.array, right.array)
    vectors = link.W_u.copy(), link.W_u_in.copy()
    for model, out in ((link, y), (plain, right)):
        model.cleargrads()
        F.sum(out ** 2).backward()
        np.testing.assert_array_equal(model.W_u, vectors[0])
        np.testing.assert_array_equal(model.W_u_in, vectors[1])
    np.testing.assert_array_equal(link.W.grad, plain.W.grad)


def test_vectors_are_normal_and_from_rng():
    links = [L.Convolution2D(1500, 1000, 1, initialW=0.1).add_hook(
        BidirectionalSpectralNormalization(rng=np.random.RandomState(seed))) for seed in (0, 0, 1)]
    for name in ('W_u', 'W_u_in'):
        vectors = [getattr(link, name) for link in links]
        np.testing.assert_array_equal(vectors[0], vectors[1])
        assert np.abs(vectors[0] - vectors[2]).max() > 0.1 and vectors[0].dtype == np.float32
        assert abs(vectors[0].mean()) < 0.12 and abs(vectors[0].std() - 1) < 0.08  # nearly four standard errors
    assert (links[0].W_u[:100] != links[0].W_u_in[:100]).any()


@all_links
@pytest.mark.parametrize('lazy', [False, True])
def test_serialization(name, lazy, tmp_path):
    link, x = make(name, 'f')
    link(chainer.Variable(x))
    assert sorted(state(link)) == ['W', 'W_u', 'W_u_in', 'b']
    chainer.serializers.save_npz(tmp_path / 'link.npz', link)
    other, _ = make(name, 'f', lazy)
    chainer.serializers.load_npz(tmp_path / 'link.npz', other)
    for _ in range(2):
        np.testing.assert_array_equal(other(chainer.Variable(x)).array, link(chainer.Variable(x)).array)
    assert all((state(other)[key] == value).all() for key, value in state(link).items())


def test_a_snapshot_of_a_matrix_can_be_written(tmp_path):
    """It has no second vector, and a file of ours has no place for what is not there."""
    link = L.Linear(6, 4).add_hook(BidirectionalSpectralNormalization())
    snapshot.save(tmp_path / 'link.npz', link)
    other = L.Linear(6, 4).add_hook(BidirectionalSpectralNormalization())
    snapshot.load(tmp_path / 'link.npz', other)
    x = draw((2, 6), 0, 'f')
    np.testing.assert_array_equal(other(x).array, link(x).array)


@all_links
def test_lazy_initialisation(name):
    link, x = make(name, 'f', lazy=True)
    assert link.W_u is None and link.W_u_in is None and link.local_link_hooks
    link(chainer.Variable(x))
    W, axis = link.W.array, LINKS[name][3]
    assert link.W_u.shape == (W.shape[axis],) and link.W_u_in.shape == (W.shape[1 - axis],)
    for _ in range(300):
        link(chainer.Variable(x))
    np.testing.assert_allclose(link.W_sigma, mean_sigma(W), rtol=1e-5)


def test_copies():
    link, x = make()
    link(x)
    before, other = state(link), link.copy('copy')
    assert all((state(other)[key] == before[key]).all() for key in before)
    y = other(x)
    assert all((state(link)[key] == before[key]).all() for key in before)
    np.testing.assert_array_equal(link(x).array, y.array)
    assert all((state(link)[key] == value).all() for key, value in state(other).items())


def test_to_device():
    link, x = make()
    right = link.copy('copy')
    link.to_device('@numpy')
    np.testing.assert_array_equal(link(x).array, right(x).array)


def test_deleting():
    link, x = make()
    link(x)
    link.delete_hook('BidirectionalSpectralNormalization')
    assert sorted(state(link)) == ['W', 'b']
    assert not [name for name in vars(link) if name.startswith(('W_', '_W', 'forward'))]
    np.testing.assert_array_equal(used_weights(link, x)[0], link.W.array)


def test_a_loaded_vector_that_does_not_fit():
    link, x = make()
    link.W_u_in = draw(5)
    with pytest.raises(ValueError, match=r'W_u_in has shape \(5,\), but the weight has 3 inputs'):
        link(x)


@pytest.mark.parametrize('taken', ['W_u', 'W_u_in', 'W_sigma'])
def test_names_that_are_taken(taken):
    link = L.Convolution2D(3, 4, 3)
    setattr(link, taken, 'mine')
    with pytest.raises(ValueError, match='already has an attribute ' + taken):
        link.add_hook(BidirectionalSpectralNormalization())
    assert not link.local_link_hooks and getattr(link, taken) == 'mine'


def test_another_name_for_the_weight():
    link = chainer.Link()
    with link.init_scope():
        link.V = chainer.Parameter(draw((4, 3, 2, 2)))
    hook = BidirectionalSpectralNormalization(weight_name='V', name='other')
    link.add_hook(hook)
    for _ in range(300):
        V = hook.normalize_weight(link)
    assert list(link.local_link_hooks) == ['other'] and link.V_u_in.shape == (3,)
    np.testing.assert_allclose(V.array, link.V.array / mean_sigma(link.V.array), rtol=1e-8)
