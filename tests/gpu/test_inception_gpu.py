"""The Inception network on a GPU: what it answers on the CPU, whatever the batch, and the same bits again."""
import numpy as np
import pytest

from tests.inception_weights import random_weights
from util.device import get_device
from util.engine import inference
from util.inception import network


@pytest.fixture(scope='module')
def arrays():
    return random_weights()


@pytest.fixture(scope='module')
def here(arrays):
    return network.Inception.from_weights(arrays)


@pytest.fixture(scope='module')
def there(arrays):
    inception = network.Inception.from_weights(arrays)
    inception.to_device(get_device('0'))
    return inception


def pictures(n, height=32, width=32):
    return np.random.RandomState(0).randint(0, 256, (n, 3, height, width)).astype('u1')


@pytest.mark.parametrize('height, width', [(32, 32), (48, 37), (299, 299), (1, 1)])
def test_answers_are_those_of_the_cpu(here, there, height, width):
    images = pictures(5, height, width)
    for expected, found in zip(here(images), there(images), strict=True):
        assert isinstance(found, there.xp.ndarray) and found.dtype == np.float32
        found = get_device('cpu').send(found)
        distance = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
        assert distance.max() < 1e-4  # products of matrices may be of reduced precision there: measured, not known


def test_resized_pictures_are_those_of_the_cpu(there):
    images = pictures(3, 48, 37)
    found = get_device('cpu').send(network.preprocess(there.xp, there.xp.asarray(images)))
    np.testing.assert_allclose(found, network.preprocess(np, images), atol=1e-6)


def test_the_same_bits_again_and_in_other_chunks(there, monkeypatch):
    images = pictures(3)
    first, again = there(images), there(images)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    monkeypatch.setattr(inference, '_GPU_BYTES', 1 << 20)
    for a, b in zip(first, there(images), strict=True):
        np.testing.assert_allclose(get_device('cpu').send(a), get_device('cpu').send(b), rtol=1e-3, atol=1e-5)
