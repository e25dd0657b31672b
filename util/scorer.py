"""The interface behind which scorers stand: a network that looks at pictures, and the numbers made of what it saw.

Only the Inception network's score is called Inception Score; every other scorer's label says what it is.
"""
import dataclasses
import os

import numpy as np

from util import metrics
from util.classifier import load_classifier
from util.files import UserError

# What a scorer's score is called, by the scorer's name
LABELS = {'inception': 'Inception Score', 'digits': 'digit-classifier score'}
FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'inception_model')


@dataclasses.dataclass(frozen=True)
class Score:
    """What a scorer says about a set of pictures.

    Attributes:
        score_mean, score_std (float): exp(mean KL), mean and population standard deviation over splits.
        frechet_distance (float): Between the pictures' features and the reference's.
        n_samples (int): Number of pictures.
        n_splits (int): Number of splits.

    """

    score_mean: float
    score_std: float
    frechet_distance: float
    n_samples: int
    n_splits: int


class ClassifierScorer:
    """A scorer with the network of :mod:`util.classifier`.

    Args:
        name (str): Its name on command lines and in tables.
        label (str): What its score is called.
        path (str): The file of weights.
        command (str): The command that makes the file.
        device (str or chainer.backend.Device): Where the network runs.

    Attributes:
        name, label (str): As given.

    Raises:
        UserError: The file is missing or bad.

    """

    def __init__(self, name, label, path, command, device):
        self.name, self.label, self._path = name, label, path
        self._classifier, self._card = load_classifier(path, command)
        self._classifier.to_device(device)

    def describe(self):
        """One line for people: what network this is and how good."""
        card = self._card
        return (f'{self.label}: a CNN with {card.n_classes} classes, trained on {card.name}, right on '
                f'{100 * card.accuracy:.1f} % of {card.n_held_out} held-out pictures ({os.path.basename(self._path)})')

    def __call__(self, images, batchsize=256):
        """Look at pictures, uint8 (N, 3, H, W), ``batchsize`` at a time.

        Returns:
            tuple of numpy.ndarray: Features (N, D) and class probabilities (N, n_classes), float32.

        """
        return self._classifier.classify(images, batchsize)


def _digits(device):
    return ClassifierScorer('digits', LABELS['digits'], os.path.join(FOLDER, 'digits.npz'),
                            'python -m util.classifier digits --out inception_model/digits.npz', device)


def _inception(device):
    raise UserError('scorer inception: the Inception network is not part of the project yet; use digits or none')


SCORERS = {'digits': _digits, 'inception': _inception}


def load_scorer(name, device='@numpy'):
    """Load a scorer, a callable from pictures to (features, probabilities) with ``name``, ``label``, ``describe()``.

    Args:
        name (str or None): ``'digits'`` or ``'inception'``; ``'none'`` or ``None`` is no scorer.
        device (str or chainer.backend.Device): Where its network runs.

    Returns:
        The scorer, such as :class:`ClassifierScorer`, or ``None``.

    Raises:
        UserError: The name is not known, or the network's file is missing or bad.

    """
    if name is None or name == 'none':
        return None
    if name not in SCORERS:
        raise UserError(f'there is no scorer {name!r}, only: {", ".join(SCORERS)}, none')
    return SCORERS[name](device)


def reference_statistics(scorer, images, batchsize=256):
    """Mean (D,) and covariance (D, D) of the scorer's features of real pictures, uint8 (N, 3, H, W); float64."""
    return metrics.statistics(scorer(images, batchsize)[0])


def score(features, probabilities, reference, n_splits):
    """Turn what a scorer saw into numbers.

    Args:
        features (numpy.ndarray): (N, D), of the pictures to score, N at least 2.
        probabilities (numpy.ndarray): (N, n_classes).
        reference (tuple of numpy.ndarray): What :func:`reference_statistics` returned.
        n_splits (int): Splits of the score, 1 to N; the Frechet distance is of all pictures together.

    Returns:
        Score

    Raises:
        ValueError: See :mod:`util.metrics`; or features and probabilities are of different numbers of pictures.

    """
    if len(features) != len(probabilities):
        raise ValueError(f'features of {len(features)} pictures, but probabilities of {len(probabilities)}')
    mean, std = metrics.inception_score(probabilities, n_splits)
    distance = metrics.frechet_distance(*metrics.statistics(np.asarray(features)), *reference)
    return Score(mean, std, distance, len(features), n_splits)
