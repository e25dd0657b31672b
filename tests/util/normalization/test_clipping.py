"""Clipping of weights and of singular values, against NumPy in float64."""
import chainer
import chainer.links as L
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import as_matrix, iterate, make, singular_values
from util.normalization.clipping import SingularValueClipping, WeightClipping, clip_singular_values

CONVOLUTIONS = ['conv%d' % i for i in range(1, 8)]
LAYERS = CONVOLUTIONS + ['dense']


def network():
    chain = chainer.Chain()
    with chain.init_scope():
        chain.conv = L.Convolution2D(3, 4, 3, initialW=0)
        chain.dense = L.Linear(5, 2, initialW=0)
        chain.embed = L.EmbedID(4, 5, initialW=0)
        chain.bn = L.BatchNormalization(4)
    for link in chain.children():
        for i, param in enumerate(link.params()):
            param.array[...] = 3 * np.random.RandomState(i).standard_normal(param.shape)
    return chain


def largest(discriminator, layers=LAYERS):
    """The largest element, and the largest singular value, of any of a discriminator's layers."""
    Ws = [discriminator[name].W.array for name in layers]
    return max(np.abs(W).max() for W in Ws), max(singular_values(W)[0] for W in Ws)


# Weight clipping

def test_clips_each_element_of_the_convolutions_and_nothing_else():
    chain = network()
    before = {path: param.array.copy() for path, param in chain.namedparams()}
    WeightClipping(0.25).constrain(chain)
    for path, param in chain.namedparams():
        expected = np.clip(before[path], -0.25, 0.25) if path == '/conv/W' else before[path]
        np.testing.assert_array_equal(param.array, expected, err_msg=path)
    assert np.abs(before['/dense/W']).max() > 1 and np.abs(before['/conv/b']).max() > 1


def test_weight_clipping_holds_from_the_build_on():
    parts = make('weight_clipping', 'model.initial_scale=0.5', setting='D')
    limit = np.float32(0.01)  # the paper's
    assert largest(parts.discriminator, CONVOLUTIONS)[0] == limit  # clipped, not small by chance
    dense = np.abs(parts.discriminator.dense.W.array).max()
    assert dense > 0.5
    for step in range(5):
        parts.updater.update_discriminator(step)
        assert largest(parts.discriminator, CONVOLUTIONS)[0] == limit
    assert dense - 0.02 < np.abs(parts.discriminator.dense.W.array).max() < dense + 0.02  # five steps of about 0.001
    generator = {path: p.array.copy() for path, p in parts.generator.namedparams()}
    assert max(np.abs(array).max() for array in generator.values()) > 0.5  # the generator is left alone


def test_weight_clipping_is_what_keeps_them_there():
    parts = make('weight_clipping', 'method.limit=100', setting='D')
    for step in range(5):
        parts.updater.update_discriminator(step)
    assert largest(parts.discriminator, CONVOLUTIONS)[0] > 0.02


# Singular value clipping

def by_hand(W, limit, axis=0):
    """U min(S, limit) V^T, in float64 and the layout of a matrix."""
    U, s, Vt = np.linalg.svd(as_matrix(W, axis), full_matrices=False)
    return (U * np.minimum(s, limit)) @ Vt


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 1), st.integers(0, 1000),
       st.floats(0.3, 3))
def test_singular_values_of_any_shape(shape, axis, seed, limit):
    W = np.random.RandomState(seed).standard_normal(shape)
    before = W.copy()
    clip_singular_values(W, limit, axis)
    np.testing.assert_allclose(as_matrix(W, axis), by_hand(before, limit, axis), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(singular_values(W, axis), np.minimum(singular_values(before, axis), limit), rtol=1e-9,
                               atol=1e-12)


@pytest.mark.parametrize('shape, axis', [((4, 7), 0), ((7, 4), 0), ((5, 3, 3, 3), 0), ((3, 5, 4, 4), 1)])
def test_float32_is_rounded_once(shape, axis):
    W = np.random.RandomState(1).standard_normal(shape).astype('f')
    before = W.copy()
    clip_singular_values(W, 1, axis)
    assert W.dtype == np.float32 and W.shape == shape and singular_values(before, axis)[0] > 1.5
    np.testing.assert_allclose(as_matrix(W, axis), by_hand(before, 1, axis), rtol=2 ** -23, atol=1e-12)


def test_known_singular_values():
    W = np.diag([3., 0.5, 2]).astype('f')
    clip_singular_values(W, 1)
    np.testing.assert_allclose(W, np.diag([1, 0.5, 1]), atol=1e-7)


@pytest.mark.parametrize('shape, axis', [((4, 7), 0), ((5, 3, 3, 3), 0), ((3, 5, 4, 4), 1)])
def test_not_a_bit_changes_where_nothing_exceeds(shape, axis):
    W = np.random.RandomState(1).standard_normal(shape).astype('f')
    before = W.copy()
    clip_singular_values(W, singular_values(W, axis)[0] * 1.0001, axis)
    np.testing.assert_array_equal(W, before)
    clip_singular_values(W, singular_values(W, axis)[0] * 0.9999, axis)
    assert (W != before).any()


def test_all_weights_are_clipped_and_nothing_else():
    chain = network()
    before = {path: param.array.copy() for path, param in chain.namedparams()}
    SingularValueClipping(1.5).constrain(chain)
    for path, param in chain.namedparams():
        if path.endswith('/W'):
            assert singular_values(before[path])[0] > 3
            np.testing.assert_allclose(as_matrix(param.array), by_hand(before[path], 1.5), rtol=1e-6, atol=1e-7)
        else:
            np.testing.assert_array_equal(param.array, before[path], err_msg=path)


def test_singular_value_clipping_holds_from_the_build_on():
    parts = make('singular_value_clipping', 'model.initial_scale=0.5', setting='D')
    for step in range(6):
        sigmas = [singular_values(parts.discriminator[name].W.array)[0] for name in LAYERS]
        assert max(sigmas) < 1 + 1e-6 and np.median(sigmas) > 1 - 1e-6  # 1, rounded to float32: most would exceed it
        parts.updater.update_discriminator(step)
    assert largest(parts.discriminator)[1] < 1 + 1e-6


def test_singular_value_clipping_is_what_keeps_them_there():
    parts = make('singular_value_clipping', 'method.limit=100', 'model.initial_scale=0.3', setting='D')
    for W in (parts.discriminator[name].W for name in LAYERS):
        W.array /= np.float32(singular_values(W.array)[0])  # 1 exactly
    for step in range(10):
        parts.updater.update_discriminator(step)
    assert largest(parts.discriminator)[1] > 1.003


def test_weights_that_are_none_are_left_to_who_looks_for_them():
    """A decomposition of NaN raises; that would hide that training has diverged."""
    for value in (np.nan, np.inf):
        W = np.eye(3, dtype='f')
        W[1, 2] = value
        clip_singular_values(W, 1)
        assert not np.isfinite(W).all()


@pytest.mark.parametrize('method', ['weight_clipping', 'singular_value_clipping'])
def test_no_penalty_and_no_hooks(method):
    parts = make(method)
    assert set(iterate(parts)) == {'gen/loss', 'dis/loss'}
    assert not any(link.local_link_hooks for link in parts.discriminator.links())
