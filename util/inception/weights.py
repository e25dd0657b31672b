"""The file of the Inception network's weights: one npz, whatever kind of file they were released in."""
import dataclasses
import os

import numpy as np

from util.config import INCEPTION_MODEL
from util.files import UserError, atomic_write
from util.inception import layers
from util.npz import DamagedFile, read_npz, write_npz

FORMAT = 'inception-2015-12-05 1'
PATH = os.path.join(INCEPTION_MODEL, 'inception-2015-12-05.npz')
_META = 'meta/'  # prefix of the names that are no weights


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where weights are from.

    Attributes:
        text (str): One line for people: the kind of file that they were made from, and its SHA-256.
        released (bool): Whether that was a file as it was released. Only such weights make an Inception Score.

    """

    text: str
    released: bool


def shapes():
    """What the file holds.

    Returns:
        dict: The shape of each array by its name, in the order of the network.

    """
    expected = {}
    for layer in layers.LAYERS:
        expected[layer.name + '/W'] = layer.shape
        for key in ('gamma', 'beta', 'mean', 'var'):
            expected['{}/{}'.format(layer.name, key)] = layer.shape[:1]
    expected['softmax/W'] = (layers.N_CLASSES, layers.N_FEATURES)
    expected['softmax/b'] = (layers.N_CLASSES,)
    return expected


def check(arrays, where):
    """Refuse weights that are not those of the network.

    Args:
        arrays (dict): Arrays by name, without ``meta/``.
        where (str): The file that they are from, for the message.

    Raises:
        UserError: A name is missing or unknown, or an array has another shape or type, is not finite, or is a negative
            variance.

    """
    expected = shapes()
    for name, shape in expected.items():
        reason = _fault(name, arrays.get(name), shape)
        if reason is not None:
            raise UserError('{}: {} {}; expected finite float32 of shape {}'.format(where, name, reason, shape))
    unknown = sorted(set(arrays) - set(expected))
    if unknown:
        raise UserError('{}: {!r:.80} is no array of the Inception network; expected {} others only'.format(
            where, unknown[0], len(expected)))


def _fault(name, array, shape):
    """What is wrong with an array; None if nothing is."""
    if array is None:
        return 'is missing'
    if array.shape != tuple(shape) or array.dtype != np.float32:
        return 'is {} of shape {}'.format(array.dtype, array.shape)
    if not np.isfinite(array).all():
        return 'holds numbers that are not finite'
    if name.endswith('/var') and (array < 0).any():
        return 'holds negative variances'
    return None


def write(path, arrays, origin):
    """Check weights and write them. Equal input gives equal bytes.

    Args:
        path (str): The npz file.
        arrays (dict): See :func:`shapes`.
        origin (Origin): Where they are from.

    Raises:
        UserError: They are not those of the network, or the file cannot be written.

    """
    check(arrays, origin.text)
    # C order: the file would tell a transposed view from its copy
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content.update({_META + 'format': np.array(FORMAT), _META + 'source': np.array(origin.text),
                    _META + 'released': np.array(origin.released)})
    with atomic_write(path) as temporary, open(temporary, 'wb') as f:
        write_npz(f, content)


def read(path):
    """Read what :func:`write` wrote; nothing in the file is executed.

    Returns:
        tuple: Arrays by name (dict, without ``meta/``), and their :class:`Origin`.

    Raises:
        UserError: The file is missing, damaged or of another kind.

    """
    try:
        arrays = read_npz(path)
    except DamagedFile as error:
        raise UserError('damaged, or no npz file: {}'.format(error)) from error
    found = arrays.get(_META + 'format')
    if found is None or found.shape != () or found.item() != FORMAT:
        raise UserError('{}: expected weights in the format {!r}'.format(path, FORMAT))
    released = arrays.get(_META + 'released', np.array(False))
    is_flag = released.dtype == bool and released.shape == ()
    origin = Origin(str(arrays.get(_META + 'source')), is_flag and bool(released))
    arrays = {name: array for name, array in arrays.items() if not name.startswith(_META)}
    check(arrays, path)
    return arrays, origin
