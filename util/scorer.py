"""The interface behind which scorers stand: a network that looks at pictures, and the numbers made of what it saw.

Only the Inception network's score is called Inception Score; every other scorer's label says what it is.
"""
import dataclasses
import glob
import os

import chainer
import numpy as np
from tqdm import tqdm

from util import metrics
from util.classifier import load_classifier
from util.config import INCEPTION_MODEL
from util.device import kind
from util.engine.switch import full_precision
from util.files import UserError
from util.inception import convert, weights
from util.inception.network import Inception
from util.npz import fingerprint

INCEPTION = 'inception'
CHUNK = 100  # pictures that are made, looked at and forgotten at a time; the official code's
UNVERIFIED = 'inception-unverified'
_LABELS = {INCEPTION: 'Inception Score', UNVERIFIED: 'score of an Inception network with other weights',
           'digits': 'digit-classifier score'}


def label(name):
    """What the score of the scorer of this name is called."""
    return _LABELS.get(name, '{}-classifier score'.format(name))


class InceptionScorer:
    """The scorer with the Inception network of 2015-12-05: the Inception Score, the FID and the KID.

    Its weights are fetched when they are not there yet, 89 MB, once.

    Args:
        device (str or chainer.backend.Device): Where the network runs.

    Attributes:
        name, label (str): Its name in tables; what its score is called. Weights that are not the released ones make
            another name and no Inception Score.
        fingerprint (str): SHA-256 of the weights.
        device_kind (str): ``'cpu'`` or ``'cuda'``.

    Raises:
        UserError: The file of weights is bad, or is missing and cannot be fetched; the message says how to get it, and
            how to do without.

    """

    def __init__(self, device):
        try:
            self._network = _load_inception()
        except UserError as error:
            raise UserError('scorer inception: {}; or go on without it: SCORER=none, or the name of another scorer '
                            '(--scorer of the commands)'.format(error)) from error
        self.name = INCEPTION if self._network.released else UNVERIFIED
        self.label = label(self.name)
        self._network.to_device(device)
        self.fingerprint, self.device_kind = self._network.fingerprint, kind(self._network.device)

    def describe(self):
        """One line for people: what network this is."""
        return '{}: the Inception network of 2015-12-05 (weights {:.8})'.format(self.label, self.fingerprint)

    def __call__(self, images):
        """Look at pictures, uint8 (N, 3, H, W).

        Returns:
            tuple of numpy.ndarray: Features (N, 2048) and class probabilities (N, 1008), float32.

        """
        return tuple(chainer.get_device('@numpy').send(array) for array in self._network(images))


def _load_inception():
    if not os.path.exists(weights.PATH):
        convert.fetch(weights.PATH)
    try:
        return Inception.load(weights.PATH)
    except UserError as error:
        raise UserError('{}; "make inception" makes it anew'.format(error)) from error


class ClassifierScorer:
    """A scorer with the network of :mod:`util.classifier`.

    Args:
        name (str): Its name.
        path (str): The file of weights.
        command (str): The command that makes the file.
        device (str or chainer.backend.Device): Where the network runs.

    Attributes:
        name, label, fingerprint, device_kind: As of :class:`InceptionScorer`.

    Raises:
        UserError: The file is missing or bad.

    """

    def __init__(self, name, path, command, device):
        self.name, self.label, self._path = name, label(name), path
        self._classifier, self._card = load_classifier(path, command)
        serialized = {}
        chainer.serializers.DictionarySerializer(serialized).save(self._classifier)
        self.fingerprint = fingerprint(serialized)
        self._classifier.to_device(device)
        self.device_kind = kind(self._classifier.device)

    def describe(self):
        """One line for people: what network this is and how good."""
        card = self._card
        return (f'{self.label}: a CNN with {card.n_classes} classes, trained on {card.name}, right on '
                f'{100 * card.accuracy:.1f} % of {card.n_held_out} held-out pictures ({os.path.basename(self._path)}, '
                f'weights {self.fingerprint:.8})')

    def __call__(self, images):
        """Look at pictures, uint8 (N, 3, H, W): features (N, D) and class probabilities (N, n_classes), float32."""
        with full_precision():
            return self._classifier.classify(images)


def load_scorer(name, device='@numpy'):
    """Load a scorer, a callable from pictures to (features, probabilities); see :class:`InceptionScorer`.

    Args:
        name (str or None): ``'inception'``, or the name of a classifier ``inception_model/NAME.npz``, which
            ``make scorer DATASET=NAME`` makes; ``'none'`` or ``None`` is no scorer.
        device (str or chainer.backend.Device): Where its network runs.

    Returns:
        The scorer, or ``None``.

    Raises:
        UserError: The name is not known, or the network's file is missing or bad.

    """
    if name is None or name == 'none':
        return None
    if name == INCEPTION:
        return InceptionScorer(device)
    paths = glob.glob(os.path.join(glob.escape(INCEPTION_MODEL), '*.npz'))
    known = sorted(os.path.basename(path)[:-len('.npz')] for path in paths if path != weights.PATH)
    if name not in known:
        raise UserError('there is no scorer {!r}, only: {}, none; "make scorer DATASET=NAME" makes one for a data set '
                        'with labels'.format(name, ', '.join([INCEPTION, *known])))
    path = os.path.join(INCEPTION_MODEL, name + '.npz')
    return ClassifierScorer(name, path, 'make scorer DATASET={}'.format(name), device)


def look(scorer, chunks, n, title):
    """Let a scorer look at pictures that come in chunks, and show on a terminal how far it is.

    Args:
        scorer: See :func:`load_scorer`.
        chunks (iterable of numpy.ndarray): uint8, (any number, 3, H, W) each.
        n (int): Number of pictures in all.
        title (str): For the progress bar.

    Returns:
        tuple of numpy.ndarray: Features (n, D) and class probabilities (n, n_classes), float32.

    """
    results, done = None, 0
    with tqdm(total=n, desc=title, unit='picture', leave=False, disable=None, delay=2) as bar:
        for chunk in chunks:
            seen = scorer(chunk)
            if results is None:
                results = tuple(np.empty((n, array.shape[1]), np.float32) for array in seen)
            for result, array in zip(results, seen, strict=True):
                result[done:done + len(chunk)] = array
            done += len(chunk)
            bar.update(len(chunk))
    if done != n:
        raise ValueError('{} pictures came where {} were announced'.format(done, n))
    return results


@dataclasses.dataclass(frozen=True)
class Score:
    """What a scorer says about a set of pictures.

    Attributes:
        score_mean, score_std (float): exp(mean KL), mean and population standard deviation over splits.
        frechet_distance (float): Between the pictures' features and the reference's: with Inception the FID.
        kernel_distance, kernel_distance_std (float): The same for the kernel distance, mean and population standard
            deviation over subsets: with Inception the KID.
        samples, splits (int): Number of pictures, and of splits, of the score.
        distance_samples (int): Number of pictures of the distances.
        kernel_subsets (str): Number and size of the subsets, such as ``'100 x 1000'``.

    """

    score_mean: float
    score_std: float
    frechet_distance: float
    kernel_distance: float
    kernel_distance_std: float
    samples: int
    splits: int
    distance_samples: int
    kernel_subsets: str


def score(features, probabilities, reference, n_splits, protocol):
    """Turn what a scorer saw into numbers.

    Args:
        features (numpy.ndarray): (N, D), of the pictures to score, N at least 2.
        probabilities (numpy.ndarray): (N, n_classes).
        reference (util.reference.Reference): What to compare with.
        n_splits (int): Splits of the score, 1 to N.
        protocol (util.config.Row): A row of ``configs/protocols.yml``; says what the distances are taken of.

    Returns:
        Score

    Raises:
        ValueError: See :mod:`util.metrics`; or features and probabilities are of different numbers of pictures.

    """
    if len(features) != len(probabilities):
        raise ValueError(f'features of {len(features)} pictures, but probabilities of {len(probabilities)}')
    mean, std = metrics.inception_score(probabilities, n_splits)
    features = features[:protocol.distance_samples]
    frechet = metrics.frechet_distance(*metrics.statistics(features), reference.mean, reference.cov)
    size = min(protocol.kernel_subset_size, len(features), len(reference.features))
    kernel, kernel_std = metrics.kernel_distance(features, reference.features, protocol.kernel_subsets, size)
    return Score(mean, std, frechet, kernel, kernel_std, len(probabilities), n_splits, len(features),
                 '{} x {}'.format(protocol.kernel_subsets, size))
