"""The full state of a run, written so that a broken file is noticed, and read so that it can do no harm.

Chainer's own ``load_npz`` unpickles object arrays. Nothing here does: a snapshot holds numbers and text only.
"""
import os
import zipfile
import zlib

import chainer
import numpy as np
from chainer import serializers
from chainer.serializers import npz

from util.files import UserError, atomic_write

# What NumPy and zipfile raise for files that are no npz, or broken ones
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, AttributeError, NotImplementedError,
               zipfile.BadZipFile, zlib.error)


class DamagedFile(Exception):
    """An npz file that cannot be used; the message says which and why, in one line."""


def save(path, target):
    """Write the state of ``target`` (a link, an optimizer, a Trainer) as npz; equal states give equal bytes.

    Raises:
        UserError: The file cannot be written.

    """
    arrays = npz.serialize(target)
    objects = [key for key, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError('not initialized, so it cannot be saved: ' + ', '.join(objects))
    with atomic_write(path) as temporary, open(temporary, 'wb') as f:
        np.savez(f, **arrays)


def read(path):
    """Read all arrays of an npz file, checking its checksums.

    Returns:
        dict: Arrays by key.

    Raises:
        DamagedFile: It is not there, not an npz file, damaged, or holds Python objects.

    """
    try:
        with np.load(path, allow_pickle=False) as f:
            return {key: f[key] for key in f.files}
    except _UNREADABLE as error:
        raise DamagedFile('{}: {}'.format(path, ' '.join(str(error).split()) or type(error).__name__)) from error


def load(path, target):
    """Restore ``target`` from the file; nothing in ``target`` changes unless the file has all that its networks need.

    Raises:
        DamagedFile: See :func:`read`; or a key of ``target`` is missing or has another shape.
        UserError: The networks fit, but the rest was written by another version of this program.

    """
    arrays = read(path)
    for key, value in _expected(target).items():
        if key not in arrays:
            raise DamagedFile('{}: it has no {}'.format(path, key))
        if value.dtype != object and arrays[key].shape != value.shape:
            raise DamagedFile('{}: {} has shape {}, expected {}'.format(path, key, arrays[key].shape, value.shape))
    try:
        serializers.NpzDeserializer(arrays).load(target)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError('{} was written by another version of this program: {}'.format(path, error)) from error


def _expected(target):
    """The keys that a file must have to restore ``target``, with arrays of the right shapes."""
    serializer = npz.DictionarySerializer()
    if isinstance(target, chainer.training.Trainer):  # one that has not run cannot be serialized whole
        target.updater.serialize(serializer['updater'])
    else:
        target.serialize(serializer)
    return {key: np.asarray(value) for key, value in serializer.target.items()}


def load_generator(path, generator):
    """Restore a generator from a ``gen_iter_*.npz``. Raises UserError naming the file when it cannot be used."""
    try:
        load(path, generator)
    except DamagedFile as error:
        raise UserError('cannot use {}'.format(error)) from error


def load_newest(directory, target, say):
    """Restore ``target`` from the newest usable snapshot of a run.

    Args:
        directory (RunDirectory): The run.
        target: What to restore.
        say (callable): Gets a line for each damaged snapshot that is passed over.

    Returns:
        int or None: The iteration of the snapshot; ``None`` when there is none to use.

    """
    for iteration in reversed(directory.iterations('snapshot')):
        try:
            load(directory.snapshot(iteration), target)
            return iteration
        except DamagedFile as error:
            say('damaged snapshot, going back to the one before it: {}'.format(error))
    return None


def prune(directory, keep=2):
    """Delete all but the newest snapshots."""
    for iteration in directory.iterations('snapshot')[:-keep]:
        os.unlink(directory.snapshot(iteration))
