"""The device that a flag names."""
import re

import chainer

from util import compat
from util.files import UserError

_CPU, _GPU = ('cpu', '-1', '@numpy', 'native'), ('gpu', 'cuda', '@cupy')


def get_device(name='auto'):
    """Look up a device.

    Args:
        name (str): ``auto`` (the first GPU that answers, else the CPU); ``cpu``, ``-1`` or ``@numpy``; ``cuda``, ``N``
            or ``@cupy:N``: GPU number N, counted from 0.

    Returns:
        chainer.backend.Device

    Raises:
        UserError: The name means nothing, or that GPU is not there.

    """
    name = str(name).lower()
    if name in _CPU or name == 'auto' and not compat.gpu_count():
        return chainer.get_device('@numpy')
    match = re.fullmatch('(?:@cupy:|cuda:)?([0-9]+)', '0' if name in _GPU or name == 'auto' else name)
    if not match:
        raise UserError('--device {}: expected auto, cpu (or -1, @numpy), or the number of a GPU (or @cupy:N)'.format(
            name))
    number, count = match.group(1), compat.gpu_count()
    if int(number) >= count:
        raise UserError('--device {}: there is no such GPU, {} answer{}{}'.format(
            name, count or 'none', '' if count > 1 else 's', '' if count else ' ({})'.format(compat.gpu_problem())))
    return chainer.get_device('@cupy:' + number)


def kind(device):
    """``'cpu'`` or ``'cuda'``, as a Config records it."""
    return 'cuda' if device.name.startswith('@cupy') else 'cpu'
