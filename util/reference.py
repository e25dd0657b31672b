"""What a scorer sees in the real pictures that generated ones are compared with, kept on the disk once computed.

The cache is a folder beside Chainer's downloads (``CHAINER_DATASET_ROOT``, by default ``~/.chainer/dataset``). A file
is named after all that it depends on: the network and its weights, the device, the data set, its split, the number of
pictures and their pixels. Deleting it costs nothing but the time to make it again.
"""
import contextlib
import dataclasses
import hashlib
import os

import chainer
import filelock
import numpy as np

from util import metrics
from util.files import UserError, atomic_write
from util.npz import DamagedFile, read_npz, write_npz
from util.prepared import gather, release
from util.scorer import CHUNK, look

FOLDER = os.path.join('chainer-spectral-normalization', 'references')  # below Chainer's data sets
_FORMAT = 'reference 1'
_SEED = 2020  # of the choice where not all pictures are taken; torch-fidelity's


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Features of real pictures, and their statistics.

    Attributes:
        name (str): What this is, for tables.
        features (numpy.ndarray): (N, D), float32.
        mean, cov (numpy.ndarray): (D,) and (D, D), float64.

    """

    name: str
    features: np.ndarray
    mean: np.ndarray
    cov: np.ndarray


def load_reference(scorer, pictures, split, n_samples=None, say=print):
    """Get the reference from the cache, or compute it and put it there.

    Args:
        scorer: What looks at the pictures, see :mod:`util.scorer`.
        pictures (util.dataset.Pictures): The real pictures.
        split (str): The split that they are, for the names.
        n_samples (int or None): How many of them at most, drawn with a fixed seed; ``None`` is all.
        say (callable): Gets a line when computing takes long, or the cache cannot be used.

    Returns:
        Reference

    Raises:
        UserError: There are fewer than 2 pictures.

    """
    indices = _choose(pictures, n_samples)
    n = len(indices)
    name = '{} {} {} ({:.8})'.format(n, pictures.name, split, pictures.fingerprint)
    path = _path(scorer, pictures, split, indices)
    with _one_at_a_time(path):
        return Reference(name, **_read_or_make(path, scorer, pictures, indices, say))


def _read_or_make(path, scorer, pictures, indices, say):
    n = len(indices)
    arrays = _read(path, n, say)
    if arrays is None:
        if n > 2000:
            say('Looking at the {} real pictures that scores compare with; this is done once and kept in {}'.format(
                n, os.path.dirname(path)))
        features, _ = look(scorer, _chunks(pictures.images, indices), n, 'real pictures')
        mean, cov = metrics.statistics(features)
        arrays = {'features': features, 'mean': mean, 'cov': cov}
        _write(path, arrays, say)
    else:
        metrics.warn_of_few_samples(*arrays['features'].shape)  # as its statistics did when they were made
    return arrays


@contextlib.contextmanager
def _one_at_a_time(path):
    """Let runs that start together wait for the first of them; where nothing can be written each makes its own."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        lock = filelock.FileLock(path + '.lock')
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _choose(pictures, n_samples):
    available = len(pictures.images)
    if available < 2:
        raise UserError('at least 2 real pictures are needed to compare with; {} has {}'.format(
            pictures.source, available))
    if n_samples is None or n_samples >= available:
        return np.arange(available)
    return np.sort(np.random.RandomState(_SEED).choice(available, n_samples, replace=False))


def _chunks(images, indices):
    """The chosen pictures, a few at a time: they may lie in a file that is larger than the memory."""
    for i in range(0, len(indices), CHUNK):
        yield gather(images, indices[i:i + CHUNK])
        release(images)


def _path(scorer, pictures, split, indices):
    parts = [scorer.name, '{:.16}'.format(scorer.fingerprint), scorer.device_kind,
             pictures.name, split, str(len(indices)), '{:.16}'.format(_hash(pictures, indices))]
    return os.path.join(chainer.dataset.get_dataset_root(), FOLDER, '-'.join(parts) + '.npz')


def _hash(pictures, indices):
    images = pictures.images
    digest = hashlib.sha256(str((len(indices), *images.shape[1:])).encode())
    if isinstance(images, np.memmap):  # too many to read at each start; whoever prepared them has seen them all
        digest.update(pictures.fingerprint.encode() + indices.tobytes())
    else:
        for chunk in _chunks(images, indices):
            digest.update(chunk.data)
    return digest.hexdigest()


def _read(path, n, say):
    """The cached arrays; ``None`` when there are none that can be used."""
    if not os.path.exists(path):
        return None
    try:
        arrays = read_npz(path)
        if str(arrays.pop('format', '')) != _FORMAT:
            raise DamagedFile('{}: it is of another version'.format(path))
        d = arrays['features'].shape[1]
        expected = {'features': ((n, d), 'f'), 'mean': ((d,), 'd'), 'cov': ((d, d), 'd')}
        if {key: (array.shape, array.dtype.char) for key, array in arrays.items()} != expected:
            raise DamagedFile('{}: it does not hold what its name says'.format(path))
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise DamagedFile('{}: it holds numbers that are not finite'.format(path))
        return arrays
    except (DamagedFile, UserError, KeyError, IndexError) as error:
        say('computing anew what this file cannot give: {}'.format(error))
        return None


def _write(path, arrays, say):
    try:
        with atomic_write(path) as temporary, open(temporary, 'wb') as f:
            write_npz(f, {**arrays, 'format': np.array(_FORMAT)})
    except UserError as error:  # a home that cannot be written is no reason to stop: it only costs time
        say('not kept for the next time: {}'.format(error))
