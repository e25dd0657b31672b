"""Trainer extension that looks at the discriminator: norms of gradients, and what its weights are like.

It writes what the papers' figures are drawn from, and leaves training as it is, to the bit: it computes on a copy.
"""
import copy
import csv
import os

import chainer
import chainer.functions as F
import numpy as np

from util import validation
from util.files import atomic_write
from util.normalization.base import used_weights

FILE = 'discriminator.csv'
COLUMNS = ('iteration', 'quantity', 'layer', 'value')
# The quantities: the Frobenius norm of the loss's gradient with respect to a layer's weight, as the optimizer got it in
# the iteration's last discriminator step; the mean length of the logits' gradient with respect to a picture (layer:
# 'real' or 'generated'); the exact largest singular value of the parameter (the mean of two, where the
# method divides by that) and that of the weight that the layer computes with;
# the variance of that weight's elements; the discriminator's loss (layer: 'training' or 'validation', the pictures).
GRADIENT, INPUT_GRADIENT, SIGMA, SIGMA_USED, VARIANCE, LOSS = QUANTITIES = (
    'weight gradient', 'input gradient', 'sigma', 'sigma used', 'variance used', 'loss')


class Probe(chainer.training.Extension):
    """Trainer extension: adds to ``discriminator.csv`` of the run, one row a quantity and layer.

    Args:
        updater (GANUpdater): Its discriminator is looked at, with its next batch and a z of its own.
        directory (RunDirectory): Where to.
        samples (dict): Pictures whose losses are taken, of :func:`util.validation.load_samples`.

    """

    priority = chainer.training.extension.PRIORITY_WRITER

    def __init__(self, updater, directory, samples=None):
        self._updater, self._path, self._rows = updater, directory.file(FILE), []
        self._samples = samples or {}

    def initialize(self, trainer):
        """Keep the rows up to the iteration that a resumed run goes on from."""
        if os.path.exists(self._path):
            self._rows = [row for row in read_rows(self._path, whole=False)
                          if row['iteration'] <= trainer.updater.iteration]

    def __call__(self, trainer):
        iteration = self._updater.iteration
        self._rows += [{'iteration': iteration, 'quantity': quantity, 'layer': layer, 'value': value}
                       for (quantity, layer), value in look(self._updater, self._samples).items()]
        write_rows(self._path, self._rows)


def look(updater, samples=None):
    """Measure the discriminator of an updater, which has made a step, and change nothing.

    Args:
        updater (GANUpdater): Between two iterations.
        samples (dict or None): Pictures whose losses are taken, of :func:`util.validation.load_samples`.

    Returns:
        dict: (quantity, layer) -> float.

    """
    found = {}
    # A copy: forwards in training mode move u and the statistics of batch normalization
    twin = copy.deepcopy(updater.discriminator)
    with chainer.using_device(twin.device):
        for layer in used_weights(twin):
            if layer.weight.grad is not None:
                found[GRADIENT, layer.name] = float(twin.xp.linalg.norm(layer.weight.grad.ravel()))
            found[VARIANCE, layer.name] = float(layer.used.var(dtype='d'))
            found[SIGMA, layer.name], found[SIGMA_USED, layer.name] = exact_sigmas(layer)
        for name, (x, y) in _batches(updater).items():
            found[INPUT_GRADIENT, name] = input_gradient(twin, x, y)
        for name, loss in validation.losses(updater, twin, samples or {}).items():
            found[LOSS, name] = loss
    return found


def _batches(updater):
    batch = next(copy.copy(updater.get_iterator('main')))  # its counter is the copy's
    x_real, y_real = batch if isinstance(batch, tuple) else (batch, None)
    z, y_fake = updater.latent('probe', updater.batchsize)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        x_fake = updater.generator(z, y_fake).array
    return {'real': (x_real, y_real), 'generated': (x_fake, y_fake)}


def input_gradient(discriminator, x, y=None):
    """The mean over pictures of the length of the gradient of D(x), a logit, with respect to x (float)."""
    x = chainer.Variable(x)
    gradient, = chainer.grad([F.sum(discriminator(x, y))], [x])
    lengths = discriminator.xp.linalg.norm(gradient.array.reshape(len(x), -1).astype('d'), axis=1)
    return float(lengths.mean())


def exact_sigmas(layer):
    """What a UsedWeight's method estimates, exactly, and the largest singular value of what it makes of the weight."""
    sigmas = [largest_singular_value(layer.weight.array, axis) for axis in layer.sigma_axes]
    return sum(sigmas) / len(sigmas), largest_singular_value(layer.used, layer.axis)


def largest_singular_value(W, axis=0):
    """The largest singular value of a weight as a matrix of its outputs (``axis``) by everything else (float)."""
    W = chainer.get_device('@numpy').send(W).astype('d')
    matrix = np.moveaxis(W, axis, 0).reshape(W.shape[axis], -1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0)))


def write_rows(path, rows):
    """Write rows (dicts by ``COLUMNS``), whole or not at all. Raises UserError when that is impossible."""
    with atomic_write(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path, whole=True):
    """Read the rows (dicts by ``COLUMNS``).

    Args:
        path (str): The file.
        whole (bool): Raise ValueError at a damaged row; otherwise return those before it.

    Raises:
        ValueError, KeyError, TypeError, csv.Error, OSError: The file is damaged or cannot be read.

    """
    rows = []
    with open(path, newline='', encoding='utf-8') as f:
        lines = f.read().splitlines(keepends=True)
    reader = csv.DictReader(lines)
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError('expected the columns ' + ','.join(COLUMNS))
        for row in reader:
            if None in row or None in row.values() or not lines[reader.line_num - 1].endswith('\n'):
                raise ValueError('line {} is cut off'.format(reader.line_num))
            rows.append({**row, 'iteration': int(row['iteration']), 'value': float(row['value'])})
    except (ValueError, csv.Error):
        if whole:
            raise
    return rows
