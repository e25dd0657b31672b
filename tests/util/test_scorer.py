import dataclasses
import os
import shutil

import numpy as np
import pytest

from tests.inception_weights import random_weights
from util import config, dataset, metrics, scorer
from util.files import UserError
from util.inception import convert, weights
from util.inception.network import Inception
from util.npz import fingerprint
from util.reference import Reference


@pytest.fixture(scope='module')
def digits():
    return scorer.load_scorer('digits', '@numpy')


@pytest.fixture(scope='module')
def held_out():
    return dataset.load(config.resolve(dataset='digits').dataset, 'test')


@pytest.mark.parametrize('name', [None, 'none'])
def test_no_scorer(name):
    assert scorer.load_scorer(name) is None


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An empty folder where scorers are looked for."""
    monkeypatch.setattr(scorer, 'INCEPTION_MODEL', str(tmp_path))
    monkeypatch.setattr(weights, 'PATH', str(tmp_path / 'inception-2015-12-05.npz'))
    return tmp_path


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="no scorer 'digts', only: inception, .*digits, none; .make scorer"):
        scorer.load_scorer('digts')


@pytest.mark.parametrize('name', ['../digits', 'inception-2015-12-05', 'a/b', '*'])
def test_a_name_is_no_path(name, folder):
    shutil.copy(os.path.join(os.path.dirname(config.CONFIGS), 'inception_model', 'digits.npz'), folder.parent)
    with pytest.raises(UserError, match='there is no scorer'):
        scorer.load_scorer(name)


def test_another_classifier_is_called_by_its_name(folder):
    shutil.copy(os.path.join(os.path.dirname(config.CONFIGS), 'inception_model', 'digits.npz'), folder / 'mine.npz')
    mine = scorer.load_scorer('mine')
    assert (mine.name, mine.label) == ('mine', 'mine-classifier score')
    assert 'nception' not in mine.describe()


def test_a_damaged_classifier_names_file_and_command(folder):
    (folder / 'digits.npz').write_bytes(b'PK')
    with pytest.raises(UserError) as error:
        scorer.load_scorer('digits')
    assert str(folder / 'digits.npz') in str(error.value) and 'make scorer DATASET=digits' in str(error.value)


# Inception

def test_missing_weights_are_told_with_the_ways_out(no_network, tmp_path):
    with pytest.raises(UserError) as error:
        scorer.load_scorer('inception')
    message = str(error.value)
    assert message.startswith('scorer inception: ') and '\n' not in message
    assert all(way in message for way in ('make inception', 'python -m util.inception convert FILE', 'SCORER=none'))
    assert not list(tmp_path.iterdir())


def test_bad_weights_are_told_and_not_fetched_again(folder, capsys):
    (folder / 'inception-2015-12-05.npz').write_bytes(b'PK')
    with pytest.raises(UserError, match='scorer inception: .*2015-12-05.npz.*"make inception" makes.*SCORER=none'):
        scorer.load_scorer('inception')
    assert 'no weights from' not in capsys.readouterr().err


def test_missing_weights_are_fetched(folder, monkeypatch):
    def fetch(path):
        weights.write(path, random_weights(), weights.Origin('a server', True))
    monkeypatch.setattr(convert, 'fetch', fetch)
    assert scorer.load_scorer('inception').name == 'inception'


@pytest.fixture(scope='module')
def random_inception(tmp_path_factory):
    path = tmp_path_factory.mktemp('inception') / 'inception-2015-12-05.npz'
    weights.write(str(path), random_weights(), weights.Origin('random numbers', False))
    return path


def test_inception(monkeypatch, random_inception):
    monkeypatch.setattr(weights, 'PATH', str(random_inception))
    inception = scorer.load_scorer('inception')
    assert inception.device_kind == 'cpu'
    assert inception.fingerprint == fingerprint(random_weights())
    assert inception.fingerprint[:8] in inception.describe()
    images = np.random.RandomState(0).randint(0, 256, (3, 3, 16, 16)).astype('u1')
    features, probabilities = inception(images)
    assert features.shape == (3, 2048) and probabilities.shape == (3, 1008)
    expected = Inception.from_weights(random_weights())(images)
    assert (features == expected[0]).all() and (probabilities == expected[1]).all()


def test_the_label_does_not_claim_to_be_inception(digits):
    assert digits.name == 'digits'
    assert digits.label == 'digit-classifier score'
    assert digits.describe().startswith('digit-classifier score: ') and '\n' not in digits.describe()
    assert 'inception' not in digits.describe().lower()


def test_committed_weights_classify_held_out_digits(digits, held_out):
    features, probabilities = digits(held_out.images)
    assert features.dtype == probabilities.dtype == np.float32
    assert features.shape == (len(held_out.images), 64) and probabilities.shape == (len(held_out.images), 10)
    assert (probabilities.argmax(axis=1) == held_out.labels).mean() >= 0.98


def test_real_digits_score_high_and_garbage_low(digits, held_out):
    rng = np.random.default_rng(0)
    shape = (200, 3, 32, 32)
    garbage = {
        'noise': rng.integers(0, 256, shape),
        'faint noise': 128 + rng.normal(0, 10, shape),
        'black': np.zeros(shape),
        'flat': np.broadcast_to(rng.integers(0, 256, (200, 3, 1, 1)), shape),
    }
    for name, images in garbage.items():
        assert metrics.inception_score(digits(images.astype(np.uint8))[1], 1)[0] < 1.3, name
    assert metrics.inception_score(digits(held_out.images)[1], 1)[0] > 8
    mixed = held_out.images.astype(np.float32)
    mixed = (mixed + np.roll(mixed, 1, axis=0) + np.roll(mixed, 2, axis=0) + np.roll(mixed, 3, axis=0)) / 4
    assert metrics.inception_score(digits(mixed.astype(np.uint8))[1], 1)[0] < 5


def make_reference(features):
    return Reference('r', features, *metrics.statistics(features))


def protocol(*changes):
    return config.resolve(overrides=['protocol.' + change for change in changes]).protocol


def test_distances_grow_with_noise(digits, held_out):
    reference = make_reference(digits(held_out.images)[0])
    rng = np.random.default_rng(0)
    scores = []
    for level in (0, 40, 120):
        images = np.clip(held_out.images + rng.normal(0, level, held_out.images.shape), 0, 255).astype(np.uint8)
        scores.append(scorer.score(*digits(images), reference, 1, protocol('kernel_subset_size=100')))
    assert scores[0].frechet_distance < 1e-9 < scores[1].frechet_distance < scores[2].frechet_distance
    assert abs(scores[0].kernel_distance) < scores[1].kernel_distance < scores[2].kernel_distance


def test_score_puts_the_metrics_together():
    rng = np.random.default_rng(0)
    features, probabilities = rng.normal(size=(20, 3)).astype(np.float32), rng.dirichlet(np.ones(4), 20)
    reference = make_reference(rng.normal(size=(15, 3)).astype(np.float32))
    row = protocol('samples=20', 'training_samples=20', 'distance_samples=12', 'kernel_subsets=6',
                   'kernel_subset_size=9')
    result = scorer.score(features, probabilities, reference, 4, row)
    mean, std = metrics.inception_score(probabilities, 4)
    distance = metrics.frechet_distance(*metrics.statistics(features[:12]), reference.mean, reference.cov)
    kernel = metrics.kernel_distance(features[:12], reference.features, 6, 9)
    assert result == scorer.Score(mean, std, distance, *kernel, 20, 4, 12, '6 x 9')
    assert all(type(value) in (int, float, str) for value in dataclasses.astuple(result))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.score_mean = 9.9


@pytest.mark.parametrize('n, n_real, size', [(20, 30, 20), (30, 14, 14), (40, 40, 25)])
def test_subsets_are_no_larger_than_the_sets(n, n_real, size):
    rng = np.random.default_rng(0)
    features, probabilities = rng.normal(size=(n, 3)), rng.dirichlet(np.ones(4), n)
    row = protocol('kernel_subset_size=25', 'kernel_subsets=2')
    result = scorer.score(features, probabilities, make_reference(rng.normal(size=(n_real, 3))), 1, row)
    assert result.kernel_subsets == '2 x {}'.format(size)


def test_score_refuses_what_does_not_belong_together():
    reference = make_reference(np.eye(4, 3))
    with pytest.raises(ValueError, match='features of 5 pictures, but probabilities of 4'):
        scorer.score(np.zeros((5, 3)), np.full((4, 2), 0.5), reference, 1, protocol())
    with pytest.raises(ValueError, match='n_splits'):
        scorer.score(np.zeros((4, 3)), np.full((4, 2), 0.5), reference, 5, protocol())


@pytest.mark.parametrize('released, name', [(True, 'inception'), (False, 'inception-unverified')])
def test_only_released_weights_make_an_inception_score(monkeypatch, released, name):
    network = Inception()
    network.released, network.fingerprint = released, 64 * '0'
    monkeypatch.setattr(scorer, '_load_inception', lambda: network)
    inception = scorer.load_scorer('inception')
    assert inception.name == name and inception.label == scorer.label(name)
    assert ('Inception Score' in inception.describe()) == released
    assert (inception.name == scorer.INCEPTION) == released


# Looking at chunks

def test_look_gives_what_the_scorer_gives_in_order():
    def double(images):
        return images.reshape(len(images), -1) * 2., np.ones((len(images), 2))
    images = np.arange(7 * 3).reshape(7, 3, 1, 1).astype('u1')
    features, probabilities = scorer.look(double, (images[i:i + 3] for i in range(0, 7, 3)), 7, 'title')
    assert features.dtype == probabilities.dtype == np.float32
    assert (features == images.reshape(7, 3) * 2).all() and probabilities.shape == (7, 2)
    with pytest.raises(ValueError, match='6 pictures came where 7 were announced'):
        scorer.look(double, [images[:6]], 7, 'title')
