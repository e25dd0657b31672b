"""The discriminator's loss on pictures that it learns from and on pictures that it never saw (paper, Figure 15).

Both losses are means over as many pictures, beside the same generated ones, in test mode: they differ by nothing but
whether the discriminator has seen the real pictures.
"""
from typing import NamedTuple

import chainer
import numpy as np

from util import dataset, noise
from util.files import UserError

TRAINING, VALIDATION = 'training', 'validation'
_MOST = 1000  # pictures of each kind: many times a batch, and still a small part of what is trained between two looks


class Sample(NamedTuple):
    """Real pictures whose loss is taken: uint8 (n, 3, H, W), and their labels, int32 (n,), or ``None``."""

    images: np.ndarray
    labels: 'np.ndarray | None'


def load_samples(config, pictures, data_dir=None, say=print):
    """Pictures of training, and as many that a run holds back: those of its data set's test split.

    Nothing is taken away from training. A run on all pictures, or on data that are not split, has nothing to validate
    on.

    Args:
        config (Config): The run's.
        pictures (Pictures): What it is trained on.
        data_dir (str or None): The flag ``--data-dir``.
        say (callable): Gets a line when the test split cannot be loaded.

    Returns:
        dict: ``'training'`` and ``'validation'`` -> Sample, of the same length; empty when nothing is held back.

    """
    if dataset.split_name(config.dataset, config.dataset.split) != 'train':
        return {}
    try:
        held_out = dataset.load(config.dataset, 'test', data_dir)
    except UserError as error:
        say('No losses on validation data, the test split cannot be loaded: {}'.format(error))
        return {}
    n = min(len(pictures.images), len(held_out.images), _MOST)
    return {name: _choose(some, n, bool(config.model.get('conditional')))
            for name, some in ((TRAINING, pictures), (VALIDATION, held_out))}


def _choose(pictures, n, labelled):
    places = np.arange(n) * len(pictures.images) // n  # evenly spread: some data sets are sorted by class
    return Sample(pictures.images[places], pictures.labels[places] if labelled else None)


def losses(updater, discriminator, samples):
    """The discriminator's loss, without penalties, on each sample.

    Args:
        updater (GANUpdater): Its generator and loss are used; it is left as it is.
        discriminator (chainer.Chain): On the updater's device; a copy, where what its hooks note must not change.
        samples (dict): Name -> Sample, all of the same length.

    Returns:
        dict: Name -> float.

    """
    sums, n = dict.fromkeys(samples, 0.), min((len(sample.images) for sample in samples.values()), default=0)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for step, start in enumerate(range(0, n, updater.batchsize)):
            part = slice(start, min(start + updater.batchsize, n))
            z, y = updater.latent('validation', part.stop - part.start, step)
            fake = discriminator(updater.generator(z, y), y)
            for name, sample in samples.items():
                real = discriminator(*_batch(updater, discriminator, name, sample, part, step))
                sums[name] += float(updater.loss.discriminator(real, fake).array) * (part.stop - part.start)
    return {name: total / n for name, total in sums.items()}


def _batch(updater, discriminator, name, sample, part, step):
    """A part of a sample as the discriminator sees pictures in training: dequantised, on its device."""
    device = discriminator.device
    images = device.send(sample.images[part])
    uniform = noise.uniform(device.xp, images.shape, updater.seed, updater.iteration, 'dequantisation of ' + name, step)
    return dataset.to_float(images, uniform), None if sample.labels is None else device.send(sample.labels[part])
