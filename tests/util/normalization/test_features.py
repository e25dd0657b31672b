"""Batch and layer normalization in the discriminator, against NumPy in float64."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import iterate, make
from util.normalization.features import BatchNormalization, FeatureLayerNormalization, LayerNormalization

KINDS = {'batch_norm': BatchNormalization, 'layer_norm': LayerNormalization}
all_methods = pytest.mark.parametrize('method', sorted(KINDS))
X = np.random.RandomState(0).standard_normal((4, 3, 5, 5)) * [[[[1]], [[5]], [[0.2]]]] + [[[[3]], [[-2]], [[0]]]]


def normalized(x, axes, eps):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def made(method, use_gamma=False, channels=3):
    """The link in float64, its beta (and gamma) not what they start as."""
    with chainer.using_config('dtype', np.dtype('d')):
        link = KINDS[method](use_gamma).features(channels)
    link.beta.array[...] = np.linspace(-1, 2, channels)
    if use_gamma:
        link.gamma.array[...] = np.linspace(0.5, 3, channels)
    return link


def by_hand(method, x, use_gamma):
    y = normalized(x, (0, 2, 3), 2e-5) if method == 'batch_norm' else normalized(x, (1, 2, 3), 1e-5)
    gamma, beta = (np.linspace(*ends, x.shape[1])[:, None, None] for ends in ((0.5, 3), (-1, 2)))
    return (y * gamma if use_gamma else y) + beta


# The links

@all_methods
@pytest.mark.parametrize('use_gamma', [False, True])
def test_output(method, use_gamma):
    y = made(method, use_gamma)(X)
    np.testing.assert_allclose(y.array, by_hand(method, X, use_gamma), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(1, 4)] * 4).filter(lambda s: s[1] * s[2] * s[3] > 1), st.integers(0, 1000))
def test_layer_normalization_of_any_shape(shape, seed):
    x = 3 * np.random.RandomState(seed).standard_normal(shape) + 1
    link = made('layer_norm', channels=shape[1])
    y = link(x).array
    np.testing.assert_allclose(y, by_hand('layer_norm', x, False), rtol=1e-8, atol=1e-8)
    without = y - link.beta.array[:, None, None]
    np.testing.assert_allclose(without.mean((1, 2, 3)), 0, atol=1e-9)
    variance = x.var((1, 2, 3))
    np.testing.assert_allclose(without.var((1, 2, 3)), variance / (variance + 1e-5), rtol=1e-8)


def test_layer_normalization_looks_at_one_example():
    link = made('layer_norm')
    y = link(X).array
    for i in range(len(X)):
        np.testing.assert_allclose(link(X[i:i + 1]).array, y[i:i + 1], rtol=1e-12)
    changed = X.copy()
    changed[0] *= 7
    np.testing.assert_array_equal(link(changed).array[1:], y[1:])


def test_batch_normalization_takes_each_batch_by_itself():
    link = made('batch_norm')
    first = link(X).array
    np.testing.assert_allclose(link(X + 100).array, first, rtol=1e-9, atol=1e-9)  # no running average in training
    np.testing.assert_allclose(link(X).array, first, rtol=1e-12)


@pytest.mark.parametrize('method, links', [('batch_norm', L.BatchNormalization),
                                           ('layer_norm', FeatureLayerNormalization)])
def test_parameters(method, links):
    link = KINDS[method]().features(3)
    assert type(link) is links
    assert {name: p.array.tolist() for name, p in link.namedparams()} == {'/beta': [0, 0, 0]}
    link = KINDS[method](use_gamma=True).features(3)
    assert {name: p.array.tolist() for name, p in link.namedparams()} == {'/beta': [0, 0, 0], '/gamma': [1, 1, 1]}
    assert all(p.dtype == np.float32 for p in link.params())


@all_methods
@pytest.mark.parametrize('use_gamma', [False, True])
def test_gradients_once_and_twice(method, use_gamma):
    link = made(method, use_gamma)
    rng = np.random.RandomState(1)
    x, g, gg = (rng.standard_normal((3, 3, 2, 2)) for _ in range(3))
    parameters = list(link.params())
    gradient_check.check_backward(link, x, g, params=parameters, dtype='d', eps=1e-5, rtol=1e-5, atol=1e-6)
    directions = [rng.standard_normal(p.shape) for p in parameters]
    gradient_check.check_double_backward(link, x, g, gg, params=parameters, params_grad_grad=directions, dtype='d',
                                         eps=1e-5, rtol=1e-4, atol=1e-5)


def test_layer_normalization_in_float16_and_float32():
    for dtype, tolerance in (('e', 1e-2), ('f', 1e-5)):
        with chainer.using_config('dtype', np.dtype(dtype)):
            link = LayerNormalization().features(3)
        y = link(X.astype(dtype))
        assert y.dtype == dtype
        np.testing.assert_allclose(y.array, normalized(X, (1, 2, 3), 1e-5), rtol=tolerance, atol=tolerance)


def test_a_copy_of_layer_normalization():
    link = made('layer_norm', True)
    copied = link.copy('copy')
    copied.to_device('@numpy')
    link.beta.array[...] = 0
    np.testing.assert_allclose(copied(X).array, by_hand('layer_norm', X, True), rtol=1e-9, atol=1e-9)


# In the discriminator

class Calls(chainer.LinkHook):
    name = 'Calls'

    def __init__(self):
        self.calls = []

    def forward_postprocess(self, args):
        self.calls.append((args.link.name, args.args[0], args.out.array))


@all_methods
def test_they_stand_after_each_convolution_but_the_first(method):
    discriminator = make(method).discriminator
    x = np.random.RandomState(0).standard_normal((2, 3, 16, 16)).astype('f')
    with Calls() as hook:
        discriminator(x)
    calls = {name: (chainer.as_array(x), y) for name, x, y in hook.calls}
    assert [name for name, *_ in hook.calls if name] == ['conv1'] + [
        name % i for i in range(2, 8) for name in ('conv%d', 'norm%d')] + ['dense']
    for i in range(2, 8):
        np.testing.assert_array_equal(calls['norm%d' % i][0], calls['conv%d' % i][1])
        h = calls['norm%d' % i][1]  # and the leaky ReLU behind it
        after = calls['dense' if i == 7 else 'conv%d' % (i + 1)][0]
        np.testing.assert_allclose(after, np.where(h > 0, h, 0.1 * h), rtol=1e-6)
    first = calls['conv1'][1]
    np.testing.assert_allclose(calls['conv2'][0], np.where(first > 0, first, 0.1 * first), rtol=1e-6)


@all_methods
@pytest.mark.parametrize('use_gamma', [False, True])
def test_the_discriminators_parameters(method, use_gamma):
    discriminator = make(method, 'method.use_gamma={}'.format(str(use_gamma).lower())).discriminator
    plain = {path for path, _ in make('none').discriminator.namedparams()}
    extra = {path for path, _ in discriminator.namedparams()} - plain
    names = ('beta', 'gamma') if use_gamma else ('beta',)
    assert extra == {'/norm%d/%s' % (i, name) for i in range(2, 8) for name in names}
    assert plain <= {path for path, _ in discriminator.namedparams()}


@all_methods
def test_beta_is_trained(method):
    parts = make(method)
    iterate(parts, 2)
    assert all(np.abs(parts.discriminator['norm%d' % i].beta.array).max() > 1e-5 for i in range(2, 8))


@all_methods
@pytest.mark.parametrize('use_gamma', ['false', 'true'])
def test_beside_a_gradient_penalty(method, use_gamma):
    parts = make(method, 'method.gradient_penalty=10', 'method.use_gamma=' + use_gamma, 'model.initial_scale=0.3')
    report = iterate(parts, 2)
    assert report['dis/gradient_penalty'] > 0
    assert all(np.isfinite(p.array).all() for p in parts.discriminator.params())


def test_nothing_else_is_done():
    for normalization in (BatchNormalization(), LayerNormalization()):
        link = L.Convolution2D(3, 2, 1)
        assert normalization.weight(link) is link and not link.local_link_hooks
        assert normalization.penalty(link) is None and normalization.constrain(link) is None
        assert F.mean(normalization.features(3)(X.astype('f'))).array == pytest.approx(0, abs=1e-5)
