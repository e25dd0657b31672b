"""Finding, fetching and reading STL-10's archive of raw bytes, as a stream: its 3 GB are never held in memory.

Coates, Lee, Ng, *An Analysis of Single-Layer Networks in Unsupervised Feature Learning*, AISTATS 2011: pictures of
96x96, 100,000 without labels and 13,000 in ten classes.
"""
import hashlib
import os
import sys

import numpy as np
from PIL import Image

from util import prepared
from util.archive import stream_files
from util.download import file_digest
from util.files import UserError
from util.original import Original
from util.pictures import resize

_FOLDER = 'stl10_binary'
ORIGINAL = Original(
    label='STL-10', url='https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz', size=2640397119,
    md5='91f7769df0f17e558f3565bffb0c7dfb', name='stl10_binary.tar.gz', folder=_FOLDER, notice='2.6 GB')
_SETS = {'unlabeled': {'train': ('unlabeled',), 'test': ('test',), 'all': ('unlabeled', 'test')},
         'labelled': {'train': ('train',), 'test': ('test',), 'all': ('train', 'test')}}
_FILES = {'unlabeled': ('unlabeled_X.bin',), 'train': ('train_X.bin', 'train_y.bin'),
          'test': ('test_X.bin', 'test_y.bin')}
_PICTURE = 3 * 96 * 96  # bytes
_VERSION = 1  # of how pictures are prepared: another one makes other files
_CHUNK = 500  # pictures that are read and resized together
_MAX_PICTURES = 200_000  # in a file: 100,000 in the original
_MAX_TOTAL = 1 << 33  # bytes of all that is packed: 3,124,250,000 and a little in the original
_MAX_MEMBERS = 100  # of the archive: 8 in the original


def read(part, size, split, data_dir=None):
    """Read the pictures of a split.

    What an archive is decoded to is kept, see :mod:`util.prepared`: the next start need not unpack it.

    Args:
        part (str): What to train on: ``'unlabeled'`` or ``'labelled'``.
        size (int): Height and width of the result. 48 is the mean of 2x2 pixels, any other Pillow's bilinear filter.
        split (str): ``'train'``, ``'test'`` or ``'all'``, which is train, then test. Both parts have the same test.
        data_dir (str or None): As for :func:`util.dataset.load`.

    Returns:
        tuple: Pictures (uint8, (N, 3, size, size)), labels (int32, (N,), from 0; ``None`` where not all have one), a
        line that says what they are, and the MD5 of the archive (of the files read, when it was found extracted).

    Raises:
        UserError: Something is missing, damaged, or not what it should be.

    """
    if part not in _SETS:
        raise UserError("dataset.part must be {} with source stl10, not {!r}".format(' or '.join(_SETS), part))
    sets = _SETS[part][split]
    path = ORIGINAL.find(data_dir, _FILES[sets[0]][0])
    try:
        if os.path.isdir(path):
            md5, decoded = _read_extracted(path, sets, size)
            origin = f'found extracted and not compared with the original, md5 of the files read {md5}'
        else:
            md5, origin = ORIGINAL.identify(path, data_dir)
            decoded = _read_archive(path, md5, sets, size)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror or error}') from error
    images, labels = zip(*decoded, strict=True)
    images = np.concatenate(images)  # in memory, also of prepared files: they are small enough for a GPU to hold
    labels = None if any(some is None for some in labels) else np.concatenate(labels)
    resized = f', resized to {size}x{size}' if size != 96 else ''
    return images, labels, f'STL-10, {len(images)} pictures ({" and ".join(sets)}), {origin}{resized}', md5


def _read_archive(path, md5, sets, size):
    """What :func:`_decode` returns, by way of the prepared files of an archive."""
    files = {name: prepared.path_of(f'stl10-{name}-{size}-{md5}-{_VERSION}.npy') for name in sets}
    with prepared.alone(prepared.path_of(f'stl10-{size}-{md5}'), 'STL-10'):
        missing = [name for name in sets if not prepared.exists(files[name])]
        if missing:
            print(f'STL-10 is unpacked and resized to {size}x{size} once, which takes a minute, and kept in '
                  f'{os.path.dirname(files[missing[0]])}', file=sys.stderr, flush=True)
            wanted = {f'{_FOLDER}/{file}' for name in missing for file in _FILES[name]}
            members = stream_files(path, 'an STL-10 archive', wanted.__contains__, _MAX_PICTURES * _PICTURE, _MAX_TOTAL,
                                   _MAX_MEMBERS)
            for name, (images, labels) in zip(missing, _decode(members, path, missing, size), strict=True):
                prepared.prepare(files[name], 'stl10', len(images), size, labels,
                                 lambda start, stop, images=images: (images[start:stop], b''), 'STL-10')
    results = [prepared.read(files[name], 'stl10', size) for name in sets]
    return [(result.images, result.labels) for result in results]


def _read_extracted(folder, sets, size):
    """The MD5 of the files of an extracted archive that hold the sets, and what :func:`_decode` returns."""
    def members():
        for path in paths:
            with open(path, 'rb') as f:
                yield f'{_FOLDER}/{os.path.basename(path)}', f, os.fstat(f.fileno()).st_size

    paths = [os.path.join(folder, file) for name in sets for file in _FILES[name]]
    digest = hashlib.md5(usedforsecurity=False)
    for path in paths:
        if not os.path.isfile(path):
            raise UserError(f'{path}: expected a file of STL-10 there')
        digest.update(file_digest(path, 'md5').encode())
    return digest.hexdigest(), _decode(members(), folder, sets, size)


def _decode(members, where, sets, size):
    """Read the pictures and labels of sets, whose files come in any order.

    Args:
        members (iterable): What :func:`util.archive.stream_files` yields.
        where (str): The archive or folder, for messages.
        sets (sequence of str): Keys of ``_FILES``.
        size (int): Height and width of the result.

    Returns:
        list of tuple: For each set, pictures and labels as of :func:`read`.

    """
    found = {}
    for name, file, length in members:
        read_one = _read_pictures if name.endswith('X.bin') else _read_labels
        found[name] = read_one(file, length, f'{where}: {name}', size)
    results = []
    for name in sets:
        files = [f'{_FOLDER}/{file}' for file in _FILES[name]]
        for file in files:
            if file not in found:
                raise UserError(f'{where}: there is no {file} in it')
        images, labels = found[files[0]], found[files[1]] if len(files) > 1 else None
        if labels is not None and len(labels) != len(images):
            raise UserError(f'{where}: {files[1]} has {len(labels)} labels for {len(images)} pictures')
        results.append((images, labels))
    return results


def _read_pictures(file, length, where, size):
    """Pictures, uint8 (n, 3, size, size), of a file; each is 3 x 96 x 96 bytes: channel, column, row."""
    n, rest = divmod(length, _PICTURE)
    if rest or not 0 < n <= _MAX_PICTURES:
        raise UserError(f'{where}: expected at most {_MAX_PICTURES} pictures of {_PICTURE} bytes; it has {length}')
    images = np.empty((n, 3, size, size), np.uint8)
    for start in range(0, n, _CHUNK):
        chunk = images[start:start + _CHUNK]
        pixels = np.frombuffer(_read_all(file, len(chunk) * _PICTURE, where), np.uint8)
        chunk[...] = _resize(pixels.reshape(-1, 3, 96, 96).swapaxes(2, 3), size)
    return images


def _resize(images, size):
    """Half the size is the mean of 2x2 pixels, rounded half up: bilinear resizing without aligned corners."""
    if size != 48:
        return resize(images, size, Image.Resampling.BILINEAR)
    total = sum(images[:, :, i::2, j::2].astype(np.uint16) for i in range(2) for j in range(2))
    return (total + 2) >> 2


def _read_labels(file, length, where, size):
    """Labels, int32 (n,), from 0, of a file that counts from 1."""
    if not 0 < length <= _MAX_PICTURES:
        raise UserError(f'{where}: expected a byte a picture, at most {_MAX_PICTURES}; it has {length}')
    labels = np.frombuffer(_read_all(file, length, where), np.uint8).astype(np.int32)
    if labels.min() < 1 or labels.max() > 10:
        raise UserError(f'{where}: expected labels from 1 to 10, found {labels.min()} to {labels.max()}')
    return labels - 1


def _read_all(file, n, where):
    block = file.read(n)
    if len(block) != n:
        raise UserError(f'{where}: cut short')
    return block
