"""npz files: written so that equal content gives equal bytes, read so that they can do no harm.

Chainer's own ``load_npz`` unpickles object arrays. Nothing here does: a file holds numbers and text only.
"""
import hashlib
import io
import zipfile
import zlib

import numpy as np

from util.files import UserError

# What zip files and npz headers raise when their bytes are wrong; NotImplementedError is a RuntimeError
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, MemoryError, RuntimeError,
           zipfile.BadZipFile, zlib.error)


class DamagedFile(Exception):
    """The content of a file is broken; the message says which and why, in one line."""


def write_npz(file, arrays, compress=False):
    """Write arrays, in the order of their names: Chainer's own order follows Python's hash seed.

    Args:
        file (file): Open for writing bytes.
        arrays (dict): Arrays by name.
        compress (bool): Whether to compress them.

    Raises:
        ValueError: One holds Python objects, as a parameter does that is not initialized.

    """
    arrays = {key: np.asarray(arrays[key]) for key in sorted(arrays)}
    objects = [key for key, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise ValueError('not initialized, so it cannot be saved: ' + ', '.join(objects))
    # By way of memory: a ZipFile that meets a full disk complains once more when it is collected, past all handlers
    content = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(content, **arrays)
    file.write(content.getbuffer())


def read_npz(path):
    """Read all arrays of an npz file after checking its checksums. Nothing in it is executed.

    Returns:
        dict: Arrays by name.

    Raises:
        UserError: The file is not there, or the operating system does not let it be read.
        DamagedFile: It is no npz file, is broken, or holds Python objects.

    """
    try:
        with open(path, 'rb') as f:
            content = io.BytesIO(f.read())
    except OSError as error:
        raise UserError('cannot read {}: {}'.format(path, error.strerror)) from error
    try:
        with zipfile.ZipFile(content) as archive:
            broken = archive.testzip()  # before any number in it, such as the size of an array, is believed
        if broken is not None:
            raise ValueError('bad checksum of ' + broken)
        content.seek(0)
        with np.load(content, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except _DAMAGE as error:
        raise DamagedFile('{}: {}'.format(path, ' '.join(str(error).split()) or type(error).__name__)) from error


def fingerprint(arrays):
    """The SHA-256, in hexadecimal digits, of arrays by name: of names and numbers, whichever file they came by."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b'\0')
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
