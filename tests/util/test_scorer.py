import dataclasses

import numpy as np
import pytest

from util import config, dataset, metrics, scorer
from util.files import UserError


@pytest.fixture(scope='module')
def digits():
    return scorer.load_scorer('digits', '@numpy')


@pytest.fixture(scope='module')
def held_out():
    return dataset.load(config.resolve(dataset='digits').dataset, 'test')


@pytest.mark.parametrize('name', [None, 'none'])
def test_no_scorer(name):
    assert scorer.load_scorer(name) is None


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="no scorer 'digts', only: digits, inception, none"):
        scorer.load_scorer('digts')


def test_inception_is_known_but_not_there_yet():
    with pytest.raises(UserError, match='Inception network is not part of the project yet'):
        scorer.load_scorer('inception')


def test_missing_weights_name_file_and_command(monkeypatch, tmp_path):
    monkeypatch.setattr(scorer, 'FOLDER', str(tmp_path))
    command = 'python -m util.classifier digits --out inception_model/digits.npz'
    with pytest.raises(UserError) as error:
        scorer.load_scorer('digits')
    assert str(tmp_path / 'digits.npz') in str(error.value) and command in str(error.value)


def test_the_label_does_not_claim_to_be_inception(digits):
    assert digits.name == 'digits'
    assert digits.label == 'digit-classifier score'
    assert digits.describe().startswith('digit-classifier score: ') and '\n' not in digits.describe()
    assert 'inception' not in digits.describe().lower()


def test_committed_weights_classify_held_out_digits(digits, held_out):
    features, probabilities = digits(held_out.images, batchsize=100)
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


def test_distance_grows_with_noise(digits, held_out):
    reference = scorer.reference_statistics(digits, held_out.images)
    rng = np.random.default_rng(0)
    distances = []
    for level in (0, 40, 120):
        images = np.clip(held_out.images + rng.normal(0, level, held_out.images.shape), 0, 255).astype(np.uint8)
        distances.append(scorer.score(*digits(images), reference, 1).frechet_distance)
    assert distances[0] < 1e-9 < distances[1] < distances[2]


def test_score_puts_the_metrics_together():
    rng = np.random.default_rng(0)
    features, probabilities = rng.normal(size=(20, 3)).astype(np.float32), rng.dirichlet(np.ones(4), 20)
    reference = metrics.statistics(rng.normal(size=(50, 3)))
    result = scorer.score(features, probabilities, reference, 4)
    mean, std = metrics.inception_score(probabilities, 4)
    distance = metrics.frechet_distance(*metrics.statistics(features), *reference)
    assert result == scorer.Score(mean, std, distance, 20, 4)
    assert all(type(value) in (int, float) for value in dataclasses.astuple(result))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.score_mean = 9.9


def test_score_refuses_what_does_not_belong_together():
    reference = metrics.statistics(np.eye(3))
    with pytest.raises(ValueError, match='features of 5 pictures, but probabilities of 4'):
        scorer.score(np.zeros((5, 3)), np.full((4, 2), 0.5), reference, 1)
    with pytest.raises(ValueError, match='n_splits'):
        scorer.score(np.zeros((4, 3)), np.full((4, 2), 0.5), reference, 5)
