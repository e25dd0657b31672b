"""Finding, fetching and reading CIFAR-10's archive, without running anything that its pickles may carry.

Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009: 60,000 pictures of 32x32 in ten classes.
"""
import hashlib
import io
import os
import pickle

import numpy as np

from util.archive import read_files
from util.files import UserError
from util.original import Original

_FOLDER = 'cifar-10-batches-py'
ORIGINAL = Original(
    label='CIFAR-10', url='https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz', size=170498071,
    md5='c58f30108f718f92721af3b95e74349a', name='cifar-10-python.tar.gz', folder=_FOLDER,
    notice='170 MB: the host is slow, expect about an hour')
_TRAIN = tuple(f'data_batch_{i}' for i in range(1, 6))
_TEST = ('test_batch',)
_SPLITS = {'train': _TRAIN, 'test': _TEST, 'all': _TRAIN + _TEST}
_MAX_BATCH = 1 << 27  # bytes of a pickle: the originals have 31 MB; Python 3 may write them with 46 MB
_MAX_TOTAL = 1 << 29  # bytes of all that is packed: 178 MB in the original
_MAX_MEMBERS = 100  # of the archive: 9 in the original


def read(split, data_dir=None):
    """Read the pictures of a split.

    Args:
        split (str): ``'train'``, ``'test'`` or ``'all'``, which is train, then test.
        data_dir (str or None): As for :func:`util.dataset.load`.

    Returns:
        tuple: Pictures (uint8, (N, 3, 32, 32)), labels (int32, (N,)), the MD5 of the archive (of the six batch files,
        when they were found extracted), and whether it is the original, in words.

    Raises:
        UserError: Something is missing, damaged, or not what it should be.

    """
    path = ORIGINAL.find(data_dir, _TEST[0])
    wanted = _SPLITS[split]
    try:
        if os.path.isdir(path):
            md5, batches = _read_extracted(path, wanted)
            origin = f'found extracted and not compared with the original, md5 of the batch files {md5}'
        else:
            md5, origin = ORIGINAL.identify(path, data_dir)
            batches = _read_archive(path, wanted)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror or error}') from error
    images, labels = (np.concatenate([batches[name][i] for name in wanted]) for i in range(2))
    return images, labels, md5, origin


def _read_archive(path, wanted):
    """Read batches of a tar.gz without writing anything to the disk.

    Only regular files with the six expected names count; links and other names are passed over.

    Returns:
        dict: name -> (images, labels), for the names in ``wanted``.

    """
    found, seen = {}, set()
    names = {f'{_FOLDER}/{name}': name for name in _SPLITS['all']}
    for member, content in read_files(
            path, 'a CIFAR-10 archive', names.__contains__, _MAX_BATCH, _MAX_TOTAL, _MAX_MEMBERS):
        name = names[member]
        seen.add(name)
        if name in wanted:
            found[name] = _read_batch(content, f'{path}: {member}')
    for name in _SPLITS['all']:
        if name not in seen:
            raise UserError(f'{path}: there is no {_FOLDER}/{name} in the archive')
    return found


def _read_extracted(folder, wanted):
    """The MD5 of the six batch files of an extracted archive, and what :func:`_read_archive` returns."""
    digest, found = hashlib.md5(usedforsecurity=False), {}
    for name in _SPLITS['all']:
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) > _MAX_BATCH:
            raise UserError(f'{path}: expected a batch of CIFAR-10 there')
        with open(path, 'rb') as f:
            blob = f.read()
        digest.update(blob)
        if name in wanted:
            found[name] = _read_batch(blob, path)
    return digest.hexdigest(), found


class _Uint8:
    """Stands in for ``numpy.dtype('uint8')``, the only one in a batch."""

    __slots__ = ()

    def __init__(self, name, align=False, copy=False):
        if name not in ('u1', b'u1'):
            raise pickle.UnpicklingError(f'an array of dtype {name!r}, not uint8')

    def __setstate__(self, state):
        pass  # byte order and the like, which bytes do not have


class _Array:
    """Stands in for an array while a pickle is read, so that nothing in the pickle reaches NumPy unchecked."""

    __slots__ = ('array',)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _Uint8 or type(data) is not bytes:
            raise pickle.UnpicklingError('an array that does not hold bytes')
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order='F' if fortran else 'C')


class _BatchUnpickler(pickle.Unpickler):
    """Reads a batch without looking up, importing or calling anything but what stands here.

    A batch needs four names, which Python 2 and 3, NumPy 1 and 2 write differently. Each is given a stand-in, made anew
    each time so that a pickle cannot change it for the next.
    """

    def find_class(self, module, name):
        if name == '_reconstruct' and module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
            return lambda subtype, shape, typecode: _Array()
        if (module, name) == ('numpy', 'ndarray'):
            return None
        if (module, name) == ('numpy', 'dtype'):
            return lambda *args: _Uint8(*args)
        if (module, name) == ('_codecs', 'encode'):  # how Python 3 writes bytes for Python 2
            return lambda text, encoding: str.encode(text, 'latin1')
        raise pickle.UnpicklingError(f'it refers to {module + "." + name!r}, which no batch needs')


def _read_batch(blob, where):
    """Check and return the pictures, uint8 (n, 3, 32, 32), and the labels, int32 (n,), of a pickled batch."""
    try:
        batch = _BatchUnpickler(io.BytesIO(blob), encoding='bytes').load()  # bytes: what Python 2 called str
        if type(batch) is not dict:
            raise pickle.UnpicklingError('it is not a dictionary')
        images, labels = (batch[key if key in batch else key.encode()] for key in ('data', 'labels'))
        images = images.array
    except Exception as error:  # bad pickles raise nearly everything
        reason = f'no entry {error}' if isinstance(error, KeyError) else ' '.join(str(error).split())
        raise UserError(f'{where} is not a batch of CIFAR-10: {reason or type(error).__name__}') from error
    if images.ndim != 2 or images.shape[1] != 3072 or not len(images):
        raise UserError(f'{where}: expected pictures of shape (n, 3072), found {images.shape}')
    if type(labels) is not list or len(labels) != len(images) or {type(x) for x in labels} != {int}:
        raise UserError(f'{where}: expected a list of {len(images)} labels')
    if min(labels) < 0 or max(labels) > 9:
        raise UserError(f'{where}: expected labels from 0 to 9, found {min(labels)} to {max(labels)}')
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.int32)
