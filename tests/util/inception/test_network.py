"""The network against what torch-fidelity's reference answered (see tests/parity), and the old ports' five mistakes."""
import pathlib
import types

import chainer
import chainer.functions as F
import numpy as np
import pytest

from tests.inception_weights import random_weights
from util import metrics
from util.inception import layers, network

TOLERANCE = 1e-5  # relative, of every picture's features and logits
SCORE_TOLERANCE = 1e-6  # relative, of the score of four pictures
# A mistake is seen when it moves the score by well more than parity leaves open. With random weights all pictures look
# alike, so scores are near 1 and move less than with the real ones (where the five together make 11.24 into 12.0).
MOVED = 50 * SCORE_TOLERANCE


@pytest.fixture(scope='module')
def arrays():
    return random_weights()


@pytest.fixture(scope='module')
def inception(arrays):
    return network.Inception.from_weights(arrays)


@pytest.fixture(scope='module')
def reference():
    with np.load(pathlib.Path(__file__).parent / 'reference.npz') as file:
        return {name: types.SimpleNamespace(**{key.partition('/')[2]: file[key] for key in file.files
                                               if key.startswith(name + '/')}) for name in ('cifar10', 'noise')}


def distance(a, b):
    a, b = a.astype('d'), b.astype('d')
    return (np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max()


def moved(p, q):
    """Relative difference of two Inception Scores."""
    return abs(metrics.inception_score(p, 1)[0] / metrics.inception_score(q, 1)[0] - 1)


@pytest.mark.parametrize('name', ['cifar10', 'noise'])
def test_parity_with_the_reference(name, inception, reference):
    expected = reference[name]
    features, probabilities = inception(expected.images)
    assert features.dtype == probabilities.dtype == np.float32
    assert distance(features, expected.features) < TOLERANCE
    assert distance(inception.logits(features), expected.logits) < TOLERANCE
    assert distance(probabilities, network.softmax(np, expected.logits)) < 10 * TOLERANCE
    assert moved(probabilities, network.softmax(np, expected.logits)) < SCORE_TOLERANCE
    resized = network.preprocess(np, expected.images).transpose(0, 3, 1, 2)[:, :, ::13, ::11]
    assert (resized == expected.resized).all()  # to the bit


# What earlier ports did

def wrong_epsilon(monkeypatch, arrays):
    monkeypatch.setattr(layers, 'BN_EPS', 2e-5)  # Chainer's default, which loading a network brought back


def wrong_resize(monkeypatch, arrays):
    monkeypatch.setattr(network, 'resize_bilinear', lambda xp, x, h, w: F.resize_images(x, (h, w)).array)


def wrong_average(monkeypatch, arrays):
    def average(xp, x):
        return F.average_pooling_2d(x.transpose(0, 3, 1, 2), 3, 1, 1).array.transpose(0, 2, 3, 1)  # counts the zeros
    monkeypatch.setitem(network.POOLS, layers.AVERAGE_SAME, average)


@pytest.mark.parametrize('mistake', [wrong_epsilon, wrong_resize, wrong_average])
def test_old_mistakes_of_the_network_move_features_and_score(mistake, arrays, inception, reference, monkeypatch):
    expected = reference['cifar10']
    right = inception(expected.images)
    mistake(monkeypatch, arrays)
    wrong = network.Inception.from_weights(arrays)(expected.images)
    assert distance(right[0], expected.features) < TOLERANCE
    assert distance(wrong[0], expected.features) > 100 * TOLERANCE
    assert moved(wrong[1], right[1]) > MOVED


def test_a_bias_on_the_logits_moves_the_score(arrays, inception, reference):
    expected = reference['cifar10']
    _, right = inception(expected.images)
    wrong = network.softmax(np, expected.logits + arrays['softmax/b'])
    np.testing.assert_allclose(wrong, network.softmax(np, expected.biased), rtol=1e-4)
    assert distance(wrong, right) > 0.01
    assert moved(wrong, right) > MOVED


def test_dropping_classes_moves_the_score(inception, reference):
    _, p = inception(reference['cifar10'].images)
    kept = p[:, 1:1001].astype('d')  # the authors' code, which does not normalise them again
    wrong = np.exp((kept * (np.log(kept) - np.log(kept.mean(axis=0)))).sum(axis=1).mean())
    assert abs(wrong / metrics.inception_score(p, 1)[0] - 1) > MOVED


# The network itself

def test_pictures_may_be_float_and_of_any_number(inception, reference):
    images = reference['noise'].images
    features, probabilities = inception(images)
    for dtype in 'fd':
        for a, b in zip(inception(images.astype(dtype)), (features, probabilities), strict=True):
            assert (a == b).all()
    nothing = inception(images[:0])
    assert [x.shape for x in nothing] == [(0, 2048), (0, 1008)]


def test_the_same_bits_whatever_the_number_of_threads(inception, reference):
    threadpoolctl = pytest.importorskip('threadpoolctl')
    images = np.concatenate([reference['cifar10'].images] * 2)
    results = []
    for n in (1, 2):
        with threadpoolctl.threadpool_limits(n, 'blas'):
            results.append(inception(images))
    assert all((a == b).all() for a, b in zip(*results, strict=True))


def test_probabilities(inception, reference):
    _, p = inception(reference['noise'].images)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert p.min() >= 0


@pytest.mark.parametrize('images', [
    np.zeros((2, 3, 8), 'u1'), np.zeros((2, 1, 8, 8), 'u1'), np.zeros((2, 3, 8, 8), 'i'), np.zeros((2, 8, 8, 3), 'u1')])
def test_wrong_pictures(images, inception):
    with pytest.raises(ValueError, match='pictures must be uint8 or float'):
        inception(images)


def test_softmax_of_large_logits():
    p = network.softmax(np, np.array([[1000, 0, -1000], [0, 0, 0]], 'f'))
    np.testing.assert_allclose(p, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)


def test_it_is_a_chain_that_moves_between_devices(inception):
    assert isinstance(inception, chainer.Chain)
    convolutions = sum(np.prod(layer.shape) + layer.conv.n_out for layer in layers.LAYERS)
    assert inception.count_params() == convolutions + 1008 * 2048
    inception.to_device('@numpy')
