import copy
import pickle

import chainer
import chainer.functions as F
import chainer.link_hooks
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st

from util.normalization import power_iteration
from util.normalization.spectral import SpectralNormalization, normalize


def draw(shape, seed=0, dtype='f'):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def holder(W):
    link = chainer.Link()
    with link.init_scope():
        link.W = chainer.Parameter(W)
    return link


def linear(W, **options):
    """A Linear of W's dtype, (out, in), with the hook."""
    with chainer.using_config('dtype', W.dtype):
        return L.Linear(*W.shape[::-1], initialW=W).add_hook(SpectralNormalization(**options))


def top(W, axis=0):
    return np.linalg.svd(power_iteration.as_matrix(W.astype('d'), axis), compute_uv=False)[0]


# a link, the link not yet initialised (or None), an input, the outputs' axis
LINKS = {
    'linear': (lambda: L.Linear(6, 4), lambda: L.Linear(4), draw((2, 6)), 0),
    'linear 4d': (lambda: L.Linear(12, 4), lambda: L.Linear(None, 4), draw((2, 3, 2, 2)), 0),
    'embed': (lambda: L.EmbedID(7, 3), None, np.array([0, 6, 2]), 0),
    'conv1d': (lambda: L.Convolution1D(3, 4, 3), lambda: L.Convolution1D(None, 4, 3), draw((2, 3, 6)), 0),
    'conv2d': (lambda: L.Convolution2D(3, 4, 3), lambda: L.Convolution2D(4, 3), draw((2, 3, 6, 6)), 0),
    'conv2d groups': (lambda: L.Convolution2D(4, 6, 3, groups=2), lambda: L.Convolution2D(None, 6, 3, groups=2),
                      draw((2, 4, 6, 6)), 0),
    'conv3d': (lambda: L.Convolution3D(3, 4, 2), lambda: L.Convolution3D(None, 4, 2), draw((2, 3, 3, 3, 3)), 0),
    'convnd': (lambda: L.ConvolutionND(2, 3, 4, 2), lambda: L.ConvolutionND(2, None, 4, 2), draw((2, 3, 3, 3)), 0),
    'dilated': (lambda: L.DilatedConvolution2D(3, 4, 2), lambda: L.DilatedConvolution2D(4, 2), draw((2, 3, 5, 5)), 0),
    'deconv1d': (lambda: L.Deconvolution1D(3, 4, 3), lambda: L.Deconvolution1D(None, 4, 3), draw((2, 3, 4)), 1),
    'deconv2d': (lambda: L.Deconvolution2D(3, 4, 3), lambda: L.Deconvolution2D(None, 4, 3), draw((2, 3, 4, 4)), 1),
    'deconv3d': (lambda: L.Deconvolution3D(3, 4, 2), lambda: L.Deconvolution3D(None, 4, 2), draw((2, 3, 2, 2, 2)), 1),
    'deconvnd': (lambda: L.DeconvolutionND(2, 3, 4, 2), lambda: L.DeconvolutionND(2, None, 4, 2),
                 draw((2, 3, 3, 3)), 1),
}
LAZY = sorted(name for name in LINKS if LINKS[name][1])
all_links = pytest.mark.parametrize('name', sorted(LINKS))
lazy_links = pytest.mark.parametrize('name', LAZY)
both_gammas = pytest.mark.parametrize('use_gamma', [False, True])


def make(name='conv2d', lazy=False, **options):
    """A link with the hook, the hook, an input and the outputs' axis."""
    initialised, uninitialised, x, axis = LINKS[name]
    hook = SpectralNormalization(**options)
    return (uninitialised if lazy else initialised)().add_hook(hook), hook, x, axis


def state(link):
    s = chainer.serializers.DictionarySerializer()
    link.serialize(s)
    return {k: np.array(v) for k, v in s.target.items()}


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


# Values

@all_links
def test_normalizes_every_link(name):
    link, hook, x, axis = make(name)
    for _ in range(300):
        y = link(x)
    W = link.W.array
    assert link.W_u.shape == (W.shape[axis],)
    np.testing.assert_allclose(hook.sigma(link), top(W, axis), rtol=1e-4)
    normalized = copy.deepcopy(link)
    normalized.delete_hook(hook.name)
    normalized.W.array[...] = W / top(W, axis)
    np.testing.assert_allclose(y.array, normalized(x).array, rtol=1e-3, atol=1e-4)


def test_top_singular_value_becomes_one_and_a_changed_weight_breaks_that():
    link, hook, _, _ = make()
    normalized = [top(hook.normalize_weight(link).array) for _ in range(400)]
    np.testing.assert_allclose(normalized[-1], 1, rtol=1e-4)
    link.W.array[...] = draw(link.W.shape, 5)
    assert top(hook.normalize_weight(link).array) > 1.01
    for _ in range(400):
        W_bar = hook.normalize_weight(link)
    np.testing.assert_allclose(top(W_bar.array), 1, rtol=1e-4)


def test_more_rounds_a_call():
    one, three = make('linear')[0], make('linear', n_power_iteration=3)[0]
    three.W.array, three.W_u = one.W.array.copy(), one.W_u.copy()
    x = LINKS['linear'][2]
    for _ in range(3):
        y = one(x)
    np.testing.assert_allclose(three(x).array, one.b.array + y.array, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(three.W_u, one.W_u, rtol=1e-4, atol=1e-6)


@all_links
@both_gammas
@pytest.mark.parametrize('factor', [None, 0.7])
def test_agrees_with_chainers_own_hook(name, use_gamma, factor):
    link, _, x, _ = make(name, use_gamma=use_gamma, factor=factor)
    stock = LINKS[name][0]().add_hook(
        chainer.link_hooks.SpectralNormalization(eps=1e-12, use_gamma=use_gamma, factor=factor))
    stock.copyparams(link)
    # Deconvolution2D has no gradient on the CPU for an input that needs none: a fault of Chainer 7.8.1
    x = x if x.dtype.kind == 'i' else chainer.Variable(x)
    np.testing.assert_array_equal(stock.W_u, link.W_u)
    for _ in range(3):
        y, stock_y = link(x), stock(x)
        np.testing.assert_allclose(y.array, stock_y.array, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(link.W_u, stock.W_u, rtol=1e-4, atol=1e-5)
    for model, out in ((link, y), (stock, stock_y)):
        model.cleargrads()
        F.sum(out ** 2).backward()
    for param, stock_param in zip(link.params(), stock.params(), strict=True):
        np.testing.assert_allclose(param.grad, stock_param.grad, rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 1000), st.floats(0.1, 100))
def test_properties_of_any_shape(shape, seed, c):
    W = draw(shape, seed, 'd')
    results = []
    for scale in (1, c):
        link = holder(scale * W)
        hook = SpectralNormalization(rng=np.random.RandomState(seed))
        link.add_hook(hook)
        results.append(hook.normalize_weight(link).array)
        assert hook.sigma(link) <= top(scale * W) * (1 + 1e-9)
    assert top(results[0]) >= 1 - 1e-9
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-9)


def test_factor_and_sigma():
    plain, plain_hook, x, _ = make('linear')
    link, hook, _, _ = make('linear', factor=2.5)
    link.W.array, link.W_u = plain.W.array.copy(), plain.W_u.copy()
    np.testing.assert_allclose(link(x).array, 2.5 * plain(x).array, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(hook.sigma(link), plain_hook.sigma(plain))


def test_a_weight_of_zeros_becomes_nan():
    link, _, x, _ = make('linear')
    link.W.array[...] = 0
    with np.errstate(all='ignore'):
        assert np.isnan(link(x).array).all()


def test_sigma_is_of_the_latest_call():
    link, hook, x, _ = make()
    assert hook.sigma(link) is None
    with chainer.using_config('train', False):
        link(x)
    first = hook.sigma(link)
    assert isinstance(first, np.ndarray) and first.shape == () and first.dtype == np.float32
    link.W.array *= 3
    link(x)
    np.testing.assert_allclose(hook.sigma(link), 3 * first, rtol=1e-5)


# Training and test mode

@both_gammas
def test_u_advances_in_training_mode_only(use_gamma):
    link, _, x, _ = make(use_gamma=use_gamma)
    before, array = state(link), link.W_u
    with chainer.using_config('train', False):
        outputs = [link(x).array for _ in range(3)]
    assert_same_state(state(link), before)
    np.testing.assert_array_equal(outputs[0], outputs[2])
    np.testing.assert_array_equal(link(x).array, outputs[0])  # the same values, but now u is kept
    assert link.W_u is array  # in place
    expected, _, _ = power_iteration.power_iteration(link.W.array.reshape(4, -1), before['W_u'])
    np.testing.assert_array_equal(link.W_u, expected)


def test_forget_repeats_the_same_call_and_moves_nothing():
    plain, _, x, _ = make()
    link = plain.copy('copy')
    y = F.forget(link, chainer.Variable(x))
    u = link.W_u.copy()
    right = plain(chainer.Variable(x))
    np.testing.assert_array_equal(y.array, right.array)
    np.testing.assert_array_equal(u, plain.W_u)
    for model, out in ((link, y), (plain, right)):
        model.cleargrads()
        F.sum(out ** 2).backward()
        np.testing.assert_array_equal(model.W_u, u)
    np.testing.assert_array_equal(link.W.grad, plain.W.grad)


def test_a_link_first_called_in_recomputing_keeps_nothing():
    link, hook, x, _ = make()
    u = link.W_u.copy()
    with chainer.using_config('in_recomputing', True):
        link(x)
    np.testing.assert_array_equal(link.W_u, u)
    assert hook.sigma(link) is None


# Gradients

@pytest.mark.parametrize('shape,axis', [
    ((4, 3), 0), ((3, 4), 1), ((4, 3, 2, 2), 0), ((3, 4, 2), 1), ((1, 1), 0), ((5, 1), 0), ((1, 5), 0)])
def test_gradients_are_exact(shape, axis):
    W, u, v = draw(shape, 0, 'd'), draw(shape[axis], 1, 'd'), draw(np.prod(shape) // shape[axis], 2, 'd')
    g, gg = draw(shape, 3, 'd'), draw(shape, 4, 'd')

    def f(W):
        return normalize(W, u, v, 1.3, axis)

    def gradient(W, g):
        W = chainer.as_variable(W)
        return chainer.grad([f(W)], [W], [g], enable_double_backprop=True)[0]

    np.testing.assert_allclose(f(W).array, 1.3 * W / (u @ power_iteration.as_matrix(W, axis) @ v), rtol=1e-12)
    gradient_check.check_backward(f, W, g, dtype='d', eps=1e-5, rtol=1e-6, atol=1e-7)
    gradient_check.check_double_backward(f, W, g, gg, dtype='d', eps=1e-5, rtol=1e-6, atol=1e-7)
    # and once more: the gradient is itself a function of W and g with a double gradient
    gradient_check.check_double_backward(gradient, (W, g), gg, (draw(shape, 5, 'd'), draw(shape, 6, 'd')),
                                         dtype='d', eps=1e-5, rtol=1e-5, atol=1e-5)


def test_gradient_is_the_papers_equation_12():
    link = linear(draw((4, 6), 0, 'd'))
    h, delta = draw((5, 6), 1, 'd'), draw((5, 4), 2, 'd')
    y = link(h)
    y.grad = delta
    link.cleargrads()
    y.backward()
    u, v = link._W_latest
    sigma = link.W_sigma
    W_bar = link.W.array / sigma
    lam = np.einsum('no,oi,ni->', delta, W_bar, h)
    np.testing.assert_allclose(link.W.grad, (delta.T @ h - lam * np.outer(u, v)) / sigma, rtol=1e-12)


def test_two_calls_before_one_backward():
    link, _, real, _ = make('conv2d')
    link.W.array, link.W_u, link.b.array = link.W.array.astype('d'), link.W_u.astype('d'), link.b.array.astype('d')
    real, fake = real.astype('d'), draw(real.shape, 7, 'd')
    vectors = []

    def call(x):
        y = link(x)
        vectors.append(link._W_latest)
        return F.sum(F.tanh(y) * draw(y.shape, 8, 'd'))

    loss = call(real) + 2 * call(fake)
    assert np.abs(vectors[0][0] - vectors[1][0]).max() > 1e-3  # u moved between
    link.cleargrads()
    loss.backward()

    def fixed(W):
        outs = [F.sum(F.tanh(F.convolution_2d(x, normalize(W, u, v), link.b.array)) * draw((2, 4, 4, 4), 8, 'd'))
                for x, (u, v) in zip((real, fake), vectors, strict=True)]
        return outs[0] + 2 * outs[1]

    W, numeric, eps = link.W.array.copy(), np.empty_like(link.W.array), 1e-5
    for i in np.ndindex(*W.shape):
        moved = W.copy()
        moved[i] += eps
        above = fixed(moved).array
        moved[i] -= 2 * eps
        numeric[i] = (above - fixed(moved).array) / (2 * eps)
    np.testing.assert_allclose(link.W.grad, numeric, rtol=1e-6, atol=1e-8)


@both_gammas
def test_gradient_penalty(use_gamma):
    link = linear(draw((3, 5), 0, 'd'), use_gamma=use_gamma, factor=0.8)
    x = draw((4, 5), 1, 'd')

    def penalty(call):
        x_var = chainer.Variable(x)
        gx, = chainer.grad([F.sum(F.tanh(call(x_var)))], [x_var], enable_double_backprop=True)
        return F.sum((F.sqrt(F.batch_l2_norm_squared(gx)) - 1) ** 2)

    link.cleargrads()
    penalty(link).backward()
    u, v = link._W_latest

    def f(W, gamma):
        gamma = gamma if use_gamma else chainer.Variable(np.ones(()))
        return penalty(lambda x: F.linear(x, F.broadcast_to(gamma, W.shape) * normalize(W, u, v, 0.8), link.b.array))

    W, gamma = chainer.Variable(link.W.array), chainer.Variable(link.gamma.array if use_gamma else np.ones(()))
    f(W, gamma).backward()
    np.testing.assert_allclose(link.W.grad, W.grad, rtol=1e-10)
    if use_gamma:
        np.testing.assert_allclose(link.gamma.grad, gamma.grad, rtol=1e-10)
    eps = 1e-5
    for i in ((0, 0), (2, 3)):
        step = np.zeros_like(W.array)
        step[i] = eps
        values = [f(chainer.Variable(W.array + sign * step), gamma).array for sign in (1, -1)]
        np.testing.assert_allclose(link.W.grad[i], (values[0] - values[1]) / (2 * eps), rtol=1e-5)


def test_no_backprop_mode():
    link, _, x, _ = make()
    with chainer.no_backprop_mode():
        y = link(x)
    assert y.creator is None


def test_float16():
    link = linear(draw((20, 300), 0, 'e'), use_gamma=True)
    assert link.W_u.dtype == np.float32 and link.gamma.dtype == np.float16
    x = chainer.Variable(draw((4, 300), 1, 'e'))
    link.cleargrads()
    y = link(x)
    assert y.dtype == np.float16
    gx, = chainer.grad([F.sum(y)], [x], enable_double_backprop=True)
    F.sum(gx ** 2).backward()
    assert link.W.grad.dtype == np.float16 and np.isfinite(link.W.grad).all() and np.abs(link.W.grad).max() > 0
    wide = linear(link.W.array.astype('f'), use_gamma=True)
    wide.gamma.array[...] = link.gamma.array
    wide.W_u = draw(20, 3)
    link.W_u = draw(20, 3)
    np.testing.assert_allclose(link(x).array, wide(x.array.astype('f')).array, rtol=2e-2, atol=2e-2)


# gamma

@lazy_links
@pytest.mark.parametrize('lazy', [False, True])
def test_gamma_starts_as_the_top_singular_value(name, lazy):
    link, _, x, axis = make(name, lazy, use_gamma=True)
    assert isinstance(link.gamma, chainer.Parameter) and any(link.gamma is p for p in link.params())
    link(x)
    assert link.gamma.shape == () and link.gamma.dtype == np.float32
    np.testing.assert_allclose(link.gamma.array, top(link.W.array, axis), rtol=1e-5)


def test_an_optimizer_trains_gamma_of_a_link_not_yet_initialised():
    link, _, x, _ = make(lazy=True, use_gamma=True)
    optimizer = chainer.optimizers.SGD(0.1).setup(link)
    link.cleargrads()
    F.sum(link(x) ** 2).backward()
    gamma, grad, W = link.gamma.array.copy(), link.gamma.grad, link.W.array.copy()
    assert grad != 0
    optimizer.update()
    np.testing.assert_allclose(link.gamma.array, gamma - 0.1 * grad, rtol=1e-6)
    assert np.abs(link.W.array - W).max() > 0


# Lazy initialisation

@lazy_links
@both_gammas
def test_lazy_initialisation(name, use_gamma):
    link, hook, x, axis = make(name, lazy=True, use_gamma=use_gamma)
    assert link.W_u is None and hook.sigma(link) is None
    y = link(x)
    assert isinstance(link.W, chainer.Parameter) and any(link.W is p for p in link.params())
    assert link.W.shape == LINKS[name][0]().W.shape and link.W_u.shape == (link.W.shape[axis],)
    right = link.copy('copy')
    right.delete_hook(hook.name)
    right.W.array /= hook.sigma(link) / (link.gamma.array if use_gamma else 1)
    np.testing.assert_allclose(y.array, right(x).array, rtol=1e-4, atol=1e-5)


def test_lazy_linear_with_batch_axes():
    for args, kwargs in (((2,), {}), ((), {'n_batch_axes': 2})):
        link = make('linear', lazy=True)[0]
        assert link(draw((2, 3, 5)), *args, **kwargs).shape == (2, 3, 4)
        assert link.W.shape == (4, 5)


def test_input_by_name():
    link, _, x, _ = make(lazy=True)
    assert link(x=x).shape == (2, 4, 4, 4)


def test_lazy_link_without_input():
    with pytest.raises(TypeError, match='without an input'):
        make(lazy=True)[0]()


def test_uninitialised_weight_of_another_kind_of_link():
    class Own(chainer.Link):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.W = chainer.Parameter(0)

    with pytest.raises(ValueError, match='not initialised'):
        Own().add_hook(SpectralNormalization())(np.ones(3))


# Where u comes from

def test_u_is_normal_and_drawn_from_rng():
    links = [L.Linear(2, 5000).add_hook(SpectralNormalization(rng=np.random.RandomState(seed))) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(links[0].W_u, links[1].W_u)
    assert np.abs(links[0].W_u - links[2].W_u).max() > 0.1
    assert links[0].W_u.dtype == np.float32
    assert abs(links[0].W_u.mean()) < 0.06 and abs(links[0].W_u.std() - 1) < 0.05
    np.testing.assert_array_equal(links[0].W_u, np.random.RandomState(1).standard_normal(5000).astype('f'))


def test_numpys_global_state_is_the_default():
    us = []
    for _ in range(2):
        np.random.seed(5)
        us.append(L.EmbedID(4, 3, initialW=draw((4, 3))).add_hook(SpectralNormalization()).W_u)
    np.testing.assert_array_equal(*us)
    generator = SpectralNormalization(rng=np.random.default_rng(0))
    assert L.Linear(2, 3).add_hook(generator).W_u.shape == (3,)


# Copies

@both_gammas
def test_copy(use_gamma):
    link, hook, x, _ = make(use_gamma=use_gamma)
    link(x)
    other = link.copy('copy')
    before = state(link)
    assert_same_state(state(other), before)
    assert other.local_link_hooks[hook.name] is not hook
    other(x)
    assert_same_state(state(link), before)
    np.testing.assert_array_equal(other.copy('copy')(x).array, other(x).array)


@both_gammas
def test_copy_share(use_gamma):
    link, hook, x, _ = make(use_gamma=use_gamma)
    link(x)
    other = link.copy('share')
    assert other.W.array is link.W.array and other.W_u is link.W_u
    u = link.W_u.copy()
    y = other(x)
    assert isinstance(link.W, chainer.Parameter) and isinstance(other.W, chainer.Parameter) and other.W is not link.W
    assert np.abs(link.W_u - u).max() > 0  # u is shared like the parameters
    assert 'forward' not in vars(link) and 'forward' not in vars(other)
    link.cleargrads()
    other.cleargrads()
    F.sum(y ** 2).backward()
    assert link.W.grad is None and np.abs(other.W.grad).max() > 0
    assert hook.sigma(other) is other.W_sigma


def test_copy_share_before_initialisation():
    link, _, x, _ = make(lazy=True, use_gamma=True)
    other = link.copy('share')
    for shared in (other, link):
        assert shared(x).shape == (2, 4, 4, 4)
        np.testing.assert_allclose(shared.gamma.array, top(shared.W.array), rtol=1e-5)
    assert link.W_u.shape == other.W_u.shape == (4,)


def test_copy_init():
    link, _, x, _ = make(use_gamma=True)
    link(x)
    other = link.copy('init')
    assert np.abs(other.W.array - link.W.array).max() > 0
    np.testing.assert_allclose(other.gamma.array, top(other.W.array), rtol=1e-5)
    for _ in range(300):
        other(x)
    np.testing.assert_allclose(other.W_sigma, top(other.W.array), rtol=1e-4)


def test_repeat_and_pickle():
    model = make(lazy=True)[0].repeat(2)
    assert model(LINKS['conv2d'][2]).shape == (2, 4, 2, 2)
    again = pickle.loads(pickle.dumps(model))
    assert_same_state(state(again), state(model))
    with chainer.using_config('train', False):
        np.testing.assert_array_equal(again(LINKS['conv2d'][2]).array, model(LINKS['conv2d'][2]).array)


def test_one_hook_for_many_links():
    hook = SpectralNormalization()
    links = [LINKS[name][lazy]().add_hook(hook) for name in ('conv2d', 'deconv2d') for lazy in (0, 1)]
    for _ in range(300):
        for link in links:
            link(LINKS['conv2d'][2])
    for link, axis in zip(links, (0, 0, 1, 1), strict=True):
        np.testing.assert_allclose(hook.sigma(link), top(link.W.array, axis), rtol=1e-4)


# Serialization and devices

@lazy_links
@both_gammas
@pytest.mark.parametrize('lazy', [False, True])
def test_serialization(name, use_gamma, lazy, tmp_path):
    link, _, x, _ = make(name, use_gamma=use_gamma)
    link(x)
    if use_gamma:
        link.gamma.array[...] = 1.25  # not what it would start as
    chainer.serializers.save_npz(tmp_path / 'link.npz', link)
    other, _, _, _ = make(name, lazy, use_gamma=use_gamma)
    chainer.serializers.load_npz(tmp_path / 'link.npz', other)
    assert_same_state(state(other), state(link))
    for _ in range(2):
        np.testing.assert_array_equal(other(x).array, link(x).array)
    assert_same_state(state(other), state(link))


@both_gammas
def test_serialization_before_initialisation(use_gamma, tmp_path):
    link, _, x, _ = make(lazy=True, use_gamma=use_gamma)
    chainer.serializers.save_npz(tmp_path / 'link.npz', link)
    other, _, _, _ = make(lazy=True, use_gamma=use_gamma)
    chainer.serializers.load_npz(tmp_path / 'link.npz', other)
    assert other.W_u is None
    assert other(x).shape == (2, 4, 4, 4)


def test_snapshots_of_chainers_own_hook_can_be_loaded(tmp_path):
    stock = L.Convolution2D(3, 4, 3).add_hook(chainer.link_hooks.SpectralNormalization())
    chainer.serializers.save_npz(tmp_path / 'link.npz', stock)
    link, _, _, _ = make()
    chainer.serializers.load_npz(tmp_path / 'link.npz', link)
    assert_same_state(state(link), state(stock))


def test_a_loaded_u_that_does_not_fit():
    link, _, x, _ = make()
    link.W_u = draw(5)
    with pytest.raises(ValueError, match=r'W_u has shape \(5,\), but the weight has 4 outputs'):
        link(x)


def test_to_device():
    link, _, x, _ = make(use_gamma=True)
    link.to_device('@numpy')
    assert link(x).shape == (2, 4, 4, 4)


# Adding, deleting, failing

def test_deleting():
    for lazy in (False, True):
        link, hook, x, _ = make(lazy=lazy, use_gamma=True)
        plain = state(LINKS['conv2d'][lazy]())
        link(x)
        link.delete_hook(hook.name)
        assert state(link).keys() == plain.keys()
        assert not [name for name in vars(link) if 'sigma' in name or name.startswith(('W_', '_W', 'gamma', 'forward'))]
        np.testing.assert_allclose(link(x).array, F.convolution_2d(x, link.W, link.b).array)
        link.add_hook(hook)
        link(x)


def test_name():
    link = L.Linear(2, 3).add_hook(SpectralNormalization(name='sn'))
    assert list(link.local_link_hooks) == ['sn']
    link.delete_hook('sn')
    assert SpectralNormalization(name=None).name == 'SpectralNormalization'
    link = L.Linear(2, 3).add_hook(SpectralNormalization(), name='other')
    assert list(link.local_link_hooks) == ['other']
    link.delete_hook('other')
    assert not hasattr(link, 'W_u')


def test_two_weights_of_one_link():
    link = L.Linear(3, 4)
    link.b.array[...] = draw(4)
    link.add_hook(SpectralNormalization()).add_hook(SpectralNormalization(name='bias', weight_name='b'))
    x = np.zeros((1, 3), 'f')
    b = link.b.array[None]
    np.testing.assert_allclose(np.abs(link(x).array), np.abs(b) / np.linalg.norm(b), rtol=1e-5)
    assert isinstance(link.W, chainer.Parameter) and isinstance(link.b, chainer.Parameter)
    link.delete_hook('bias')
    np.testing.assert_array_equal(link(x).array, b)


@pytest.mark.parametrize('link,options,message', [
    (lambda: L.BatchNormalization(3), {}, "BatchNormalization has no parameter 'W'"),
    (lambda: L.Linear(2, 3), {'weight_name': 'nobias'}, "Linear has no parameter 'nobias'"),
    (lambda: L.Linear(2, 3), {'weight_name': 'name'}, "Linear has no parameter 'name'"),
    (lambda: L.Linear(2, 3).add_hook(SpectralNormalization(name='first')), {}, 'already has an attribute W_u'),
    (lambda: L.BatchNormalization(3), {'weight_name': 'beta', 'use_gamma': True}, 'already has an attribute gamma'),
    (lambda: holder(np.ones((), 'f')), {}, 'must be floating-point with an axis 0'),
    (lambda: holder(np.ones((3, 0), 'f')), {}, 'at least one element'),
    (lambda: holder(np.ones((3, 2), 'i')), {}, 'must be floating-point'),
])
def test_unsuitable_links(link, options, message):
    link = link()
    hooks, attributes = list(link.local_link_hooks), set(vars(link))
    with pytest.raises(ValueError, match=message):
        link.add_hook(SpectralNormalization(**options))
    assert list(link.local_link_hooks) == hooks and set(vars(link)) == attributes


def test_link_with_a_call_of_its_own():
    class Mixin:
        def __call__(self, x):
            return x

    class Own(L.Linear, Mixin):
        pass

    with pytest.raises(ValueError, match='not supported'):
        Own(2, 3).add_hook(SpectralNormalization())


@pytest.mark.parametrize('options', [
    {'n_power_iteration': 0}, {'n_power_iteration': -1}, {'n_power_iteration': 1.5}, {'n_power_iteration': True},
    {'n_power_iteration': '1'}, {'eps': -1e-9}, {'eps': float('nan')}, {'eps': None}, {'eps': '1e-12'}, {'factor': 0},
    {'factor': -1}, {'factor': float('inf')}, {'factor': True}, {'weight_name': ''}, {'weight_name': None},
    {'weight_name': 'a.b'}, {'rng': 3},
])
def test_arguments(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SpectralNormalization(**options)


def test_not_a_context_manager():
    with pytest.raises(NotImplementedError):
        with SpectralNormalization():
            pass


@both_gammas
@pytest.mark.parametrize('lazy', [False, True])
def test_the_weight_is_a_parameter_again_after_forward_raised(use_gamma, lazy):
    link, _, x, _ = make(lazy=lazy, use_gamma=use_gamma)
    with pytest.raises(AssertionError, match='Height in the output'):
        link(x[:, :, :1, :1])  # smaller than the kernel
    assert isinstance(link.W, chainer.Parameter) and 'forward' not in vars(link)
    before = link.W.array.copy()
    optimizer = chainer.optimizers.SGD(0.1).setup(link)
    link.cleargrads()
    F.sum(link(x) ** 2).backward()
    optimizer.update()
    assert np.abs(link.W.array - before).max() > 0


def test_another_hook_raises_before_forward():
    class Raises(chainer.LinkHook):
        name = 'raises'

        def forward_preprocess(self, args):
            raise KeyError

    link, hook, x, _ = make()
    link.add_hook(Raises())
    with pytest.raises(KeyError):
        link(x)
    assert isinstance(link.W, chainer.Parameter)
    copied = link.copy('copy')
    for model in (link, copied):
        model.delete_hook('raises')
        u = model.W_u.copy()
        y = model(x)
        assert np.abs(model.W_u - u).max() > 0 and 'forward' not in vars(model)
        np.testing.assert_allclose(
            y.array, F.convolution_2d(x, model.W / model.W_sigma, model.b).array, rtol=1e-4, atol=1e-5)
    link.add_hook(Raises())
    with pytest.raises(KeyError):
        link(x)
    link.delete_hook('raises')
    link.delete_hook(hook.name)
    np.testing.assert_array_equal(link(x).array, F.convolution_2d(x, link.W, link.b).array)


def test_a_forward_set_on_the_link_stays():
    link, _, x, _ = make('linear')
    link.forward = own = lambda x: 2 * F.linear(x, link.W)
    u = link.W_u.copy()
    W_bar = link.W.array / power_iteration.power_iteration(link.W.array, u)[2]
    np.testing.assert_allclose(link(x).array, 2 * x @ W_bar.T, rtol=1e-4, atol=1e-5)
    assert link.forward is own


def test_in_a_chain():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.a = L.Convolution2D(None, 4, 3).add_hook(SpectralNormalization())
                self.b = L.Linear(None, 1).add_hook(SpectralNormalization())

        def forward(self, x):
            return self.b(F.leaky_relu(self.a(x)))

    net = Net()
    optimizer = chainer.optimizers.Adam().setup(net)
    for _ in range(3):
        net.cleargrads()
        F.sum(net(LINKS['conv2d'][2])).backward()
        optimizer.update()
    assert sorted(name for name, _ in net.namedparams()) == ['/a/W', '/a/b', '/b/W', '/b/b']
    assert sorted(state(net)) == ['a/W', 'a/W_u', 'a/b', 'b/W', 'b/W_u', 'b/b']
