"""Pictures prepared once and kept as one file of bytes, which is mapped into memory, not read into it.

A prepared file is a plain npy file, uint8 (N, 3, H, H), with a JSON file beside it for what else there is to know.
It is in a folder beside Chainer's downloads (``CHAINER_DATASET_ROOT``, by default ``~/.chainer/dataset``); deleting it
costs nothing but the time to make it again. While it is made, the pictures so far are in ``.partial`` and their number
in ``.progress``, so a preparation that was broken off goes on where it was.
"""
import contextlib
import dataclasses
import hashlib
import json
import mmap
import os
import re
import shutil
import struct
import sys

import chainer
import filelock
import numpy as np
import tqdm

from util.files import UserError, atomic_write

FOLDER = os.path.join('chainer-spectral-normalization', 'prepared')  # below Chainer's data sets
_FORMAT = 'prepared pictures 1'
_CHUNK = 1024  # pictures that are made, written and counted together
_MAX_JSON = 1 << 26  # bytes: the labels of ImageNet take 6 MB


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """What a prepared file holds.

    Attributes:
        images (numpy.memmap): uint8, (N, 3, H, H), read-only.
        labels (numpy.ndarray or None): int32, (N,).
        fingerprint (str): An MD5, in hexadecimal digits, of the names and pixels that were prepared.

    """

    images: np.memmap
    labels: 'np.ndarray | None'
    fingerprint: str


class _Damaged(Exception):
    """Why a file cannot be taken."""


def path_of(name):
    """The path of a prepared file of that name in the folder for them."""
    return os.path.join(chainer.dataset.get_dataset_root(), FOLDER, name)


def gather(images, indices):
    """Copy pictures that lie here and there in a prepared file, which is asked for all of them at once.

    Without that, the kernel would read them one after another, and up to megabytes around each.

    Args:
        images (numpy.ndarray): Those of a :class:`Prepared`, or a part of them. Any other array is only indexed.
        indices (numpy.ndarray): int64, (B,).

    Returns:
        numpy.ndarray: ``images[indices]``.

    """
    mapping = _mapping(images)
    if mapping is not None and images.flags.c_contiguous:
        first = images.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
        length = images.strides[0]
        for index in indices:
            start = first + int(index) * length
            page = start - start % mmap.PAGESIZE
            mapping.madvise(mmap.MADV_WILLNEED, page, start + length - page)
    return images[indices]


def release(images):
    """Give back the memory of the parts of a prepared file that were looked at; they are read again when needed.

    Pages of a mapped file count as memory of the process until then. Of arrays in memory nothing changes.

    Args:
        images (numpy.ndarray): Those of a :class:`Prepared`, or a part of them.

    """
    mapping = _mapping(images)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(images):
    """What maps the file that an array is a read-only part of; ``None`` where there is none."""
    base = images if isinstance(images, np.memmap) and images.mode == 'r' else None
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def exists(path):
    """Whether there is a prepared file, with what belongs to it."""
    return os.path.exists(path) and os.path.exists(path + '.json')


@contextlib.contextmanager
def alone(path, label):
    """Hold the lock of a prepared file, whose folder is made when it is missing; another process waits for this one.

    Raises:
        UserError: The folder or the lock cannot be made.

    """
    lock = filelock.FileLock(path + '.lock')
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f'waiting for another process that is preparing {label}', file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise UserError(f'cannot write {path} (CHAINER_DATASET_ROOT moves it): {error.strerror or error}') from error
    try:
        yield
    finally:
        lock.release()


def prepare(path, name, n, size, labels, make, label):
    """Make a prepared file, going on where an earlier call was broken off. To be called while :func:`alone`.

    Args:
        path (str): The file. What was begun under this path must have been begun with the same arguments.
        name (str): The data set, which :func:`read` asks for.
        n (int): How many pictures.
        size (int): Their height and width.
        labels (numpy.ndarray or None): int32, (n,), not negative.
        make (callable): Takes two positions, returns the pictures between them (uint8, (stop - start, 3, size, size))
            and their names (bytes).
        label (str): What it is, for the progress bar and for messages.

    Raises:
        UserError: There is too little room on the disk, or it refuses to write.

    """
    header, picture = _header(n, size), 3 * size * size
    try:
        with open(os.open(path + '.partial', os.O_RDWR | os.O_CREAT, 0o666), 'r+b') as file:
            done, digest = _progress(path, file, header, picture, n)
            if not done:
                file.seek(0)
                file.write(header)
            file.truncate(len(header) + done * picture)
            file.seek(0, os.SEEK_END)
            _check_room(path, (n - done) * picture, label)
            digest = _fill(path, file, done, n, digest, make, label)
        content = {'format': _FORMAT, 'name': name, 'pictures': n, 'size': size, 'fingerprint': digest,
                   'labels': None if labels is None else labels.tolist()}
        with atomic_write(path + '.json') as temporary, open(temporary, 'w', encoding='utf-8') as f:
            json.dump(content, f)
        os.replace(path + '.partial', path)  # last: where there is a file of this name, it is complete
        os.unlink(path + '.progress')
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror or error}') from error


def _fill(path, file, done, n, digest, make, label):
    """Append the pictures from number ``done`` on. Each chunk's digest is begun with that of the chunks before."""
    interval = 0.5 if sys.stderr.isatty() else 60.0  # seconds: a log file gets a line a minute
    with tqdm.tqdm(total=n, initial=done, desc=label, mininterval=interval, disable=n <= _CHUNK) as bar:
        while done < n:
            stop = min(done + _CHUNK, n)
            images, names = make(done, stop)
            images = np.ascontiguousarray(images)
            file.write(images.data)
            file.flush()
            os.fsync(file.fileno())  # the count must not reach the disk before the pictures
            chunk = hashlib.md5(digest.encode(), usedforsecurity=False)
            chunk.update(names)
            chunk.update(images.data)
            digest = chunk.hexdigest()
            with atomic_write(path + '.progress') as temporary, open(temporary, 'w', encoding='utf-8') as f:
                json.dump({'format': _FORMAT, 'done': stop, 'digest': digest}, f)
            bar.update(stop - done)
            done = stop
    return digest


def _progress(path, file, header, picture, n):
    """How many pictures of a partial file count, and their digest: 0 and '' where there is nothing to go on with."""
    if not os.path.exists(path + '.progress'):
        return 0, ''
    try:
        content = _read_json(path + '.progress')
        done, digest = content.get('done'), content.get('digest')
        if type(done) is not int or not 0 < done <= n or done % _CHUNK and done != n or not _is_md5(digest):
            raise _Damaged('it does not say how far it is')
        if os.fstat(file.fileno()).st_size < len(header) + done * picture or file.read(len(header)) != header:
            raise _Damaged('there are fewer pictures than it says')
    except _Damaged as error:
        print(f'{path}.progress: {error}; preparing from the beginning', file=sys.stderr, flush=True)
        return 0, ''
    return done, digest


def _check_room(path, needed, label):
    free = shutil.disk_usage(os.path.dirname(path)).free
    if free < needed:
        raise UserError(f'preparing {label} takes {needed:,} more bytes in {os.path.dirname(path)}, where {free:,} are '
                        f'free (CHAINER_DATASET_ROOT moves it)')


def read(path, name, size):
    """Map a prepared file.

    Its length is checked, and what its JSON file says, but not the pixels: they are too many to be read at each start.

    Args:
        path (str): The file.
        name (str): The data set that it must be.
        size (int): The height and width that its pictures must have.

    Returns:
        Prepared

    Raises:
        UserError: It is missing, damaged, of another version, or of another data set or size.

    """
    try:
        content = _read_json(path + '.json')
        n, its_size, fingerprint = (content.get(key) for key in ('pictures', 'size', 'fingerprint'))
        if type(n) is not int or type(its_size) is not int or min(n, its_size) < 1 or not _is_md5(fingerprint):
            raise _Damaged('its .json lacks numbers')
        if (content.get('name'), its_size) != (name, size):
            raise UserError('{}: it holds {!r:.40} of {}x{}, where {!r} of {}x{} is expected (dataset.size)'.format(
                path, content.get('name'), its_size, its_size, name, size, size))
        labels = _check_labels(content.get('labels'), n)
        header = _header(n, size)
        with open(path, 'rb') as file:
            if file.read(len(header)) != header:
                raise _Damaged('it begins otherwise than its .json says')
            if os.fstat(file.fileno()).st_size != len(header) + n * 3 * size * size:
                raise _Damaged('it has another length than its .json says')
            images = np.memmap(file, np.uint8, 'r', len(header), (n, 3, size, size))
    except _Damaged as error:
        raise UserError(f'{path} is no file of pictures prepared by this version, or is damaged: {error}') from error
    except OSError as error:
        raise UserError(f'cannot read {error.filename or path}: {error.strerror or error}') from error
    return Prepared(images, labels, fingerprint)


def _header(n, size):
    """The 128 bytes that an npy file of version 1.0 begins with. One way to write them: none other needs to be read."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({n}, 3, {size}, {size}), }}"
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', 118) + text.ljust(117).encode() + b'\n'


def _read_json(path):
    """The dictionary in a JSON file of this version. Raises _Damaged and OSError."""
    with open(path, 'rb') as f:
        text = f.read(_MAX_JSON + 1)
    if len(text) > _MAX_JSON:
        raise _Damaged('its JSON is too long')
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Damaged('its JSON cannot be read') from error
    if type(content) is not dict or content.get('format') != _FORMAT:
        raise _Damaged(f'its JSON is not of the format {_FORMAT!r}')
    return content


def _is_md5(value):
    return type(value) is str and re.fullmatch('[0-9a-f]{32}', value) is not None


def _check_labels(labels, n):
    if labels is None:
        return None
    if type(labels) is not list or len(labels) != n or {type(x) for x in labels} != {int}:
        raise _Damaged(f'its .json lacks a list of {n} labels')
    if min(labels) < 0 or max(labels) >= 1 << 31:
        raise _Damaged('its labels are out of range')
    return np.array(labels, np.int32)
