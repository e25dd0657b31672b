"""The network against torch-fidelity's, which agrees with the TensorFlow graph; one set of random weights in both."""
import os

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from tests.inception_weights import random_weights
from tests.parity import reference
from util import cifar10
from util.inception.convert import convert
from util.inception.network import Inception, preprocess

TOLERANCE = 1e-5  # relative, of every picture's features and logits


@pytest.fixture(scope='module')
def arrays():
    return random_weights()


@pytest.fixture(scope='module')
def ours(arrays):
    return Inception.from_weights(arrays)


@pytest.fixture(scope='module')
def theirs(arrays, tmp_path_factory):
    return reference.load(arrays, str(tmp_path_factory.mktemp('weights')))


def cifar10_test():
    """64 of CIFAR-10's test pictures."""
    if not os.environ.get('DATA_DIR'):
        pytest.skip('DATA_DIR= names no CIFAR-10 archive')
    return cifar10.read('test', os.path.expanduser(os.environ['DATA_DIR']))[0][:64]


def photographs():
    """64 pieces of scikit-learn's two photographs, as large as CIFAR-10's pictures."""
    rng, images = np.random.RandomState(0), load_sample_images().images
    corners = [(images[i % 2], rng.randint(0, 390), rng.randint(0, 600)) for i in range(64)]
    return np.stack([image[y:y + 32, x:x + 32].transpose(2, 0, 1) for image, y, x in corners])


def noise(height, width, n=3):
    return np.random.RandomState(height).randint(0, 256, (n, 3, height, width)).astype('u1')


PICTURES = {
    'CIFAR-10': cifar10_test, 'photographs': photographs, '1x1': lambda: noise(1, 1), '8x8': lambda: noise(8, 8),
    '17x40': lambda: noise(17, 40), '48x48': lambda: noise(48, 48), '128x128': lambda: noise(128, 128),
    '299x299': lambda: noise(299, 299), '320x301': lambda: noise(320, 301), '700x33': lambda: noise(700, 33)}


def distance(a, b):
    """Largest distance of a row of ``a`` from that of ``b``, relative to the row: by its length and by its maximum."""
    a, b = a.astype('d'), b.astype('d')
    by_length = np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)
    return max(by_length.max(), (abs(a - b).max(axis=1) / abs(b).max(axis=1)).max())


@pytest.mark.parametrize('name', PICTURES)
def test_resized_input_features_and_logits_agree(name, ours, theirs, record_property):
    images = PICTURES[name]()
    expected_features, expected_logits, _ = reference.look(theirs, images)
    features, probabilities = ours(images)
    resized = preprocess(np, images).transpose(0, 3, 1, 2)
    assert abs(resized - reference.resize(images)).max() == 0  # to the bit
    found = {'features': distance(features, expected_features),
             'logits': distance(ours.logits(features), expected_logits),
             'probabilities': distance(probabilities, torch.softmax(torch.from_numpy(expected_logits), 1).numpy())}
    print(name, found)
    assert found['features'] < TOLERANCE and found['logits'] < TOLERANCE
    assert found['probabilities'] < 10 * TOLERANCE  # exp() multiplies differences of logits by their size


def test_float_pictures_give_what_bytes_give(ours):
    images = photographs()[:4]
    for a, b in zip(ours(images), ours(images.astype('f')), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize('as_zip', [True, False], ids=['zip', 'legacy'])
def test_a_file_that_pytorch_itself_wrote_converts_to_the_bit(arrays, as_zip, tmp_path):
    path, out = tmp_path / 'weights.pth', tmp_path / 'inception.npz'
    torch.save(reference.state_dict(arrays), path, _use_new_zipfile_serialization=as_zip)
    convert(str(path), str(out), verify=False)
    with np.load(out) as converted:
        assert all((converted[key] == array).all() and converted[key].dtype == array.dtype
                   for key, array in arrays.items())
