"""What ``benchmarks.cpu_step`` times: which networks, and which code they run by. Imports no framework."""
import typing

import numpy as np

from util import config


class Case(typing.NamedTuple):
    """A network and how it is trained: rows of ``configs/``, and the steps that are timed."""

    model: str
    method: str
    setting: str
    steps: tuple  # of 'D' and 'G'
    beside: 'str | None' = None  # a method whose steps are timed, too, to see what ``method`` costs


CASES = {
    'cnn': Case('cnn', 'sn', 'default', ('D', 'G'), 'none'),
    'resnet': Case('resnet', 'sn_hinge', 'resnet', ('D', 'G')),
    'wgan_gp': Case('cnn', 'wgan_gp', 'default', ('D',)),  # its G step is that of cnn
}

# Engine -> module whose ``make_steps`` makes its steps. The first three are those of util.engine.switch.
STOCK, PYTORCH = 'stock', 'pytorch'
CHAINER = (STOCK, 'numpy', 'onednn')
DEFAULT = (*CHAINER, PYTORCH)
# PyTorch otherwise: with its default memory format, with its default Adam, with the engines' way to allocate memory
VARIANTS = ('pytorch-nchw', 'pytorch-unfused', 'pytorch-kept')
ENGINES = {**dict.fromkeys(CHAINER, 'benchmarks.chainer_steps'),
           **dict.fromkeys((PYTORCH, *VARIANTS), 'benchmarks.torch_steps')}


def resolve(case, method, width, batchsize, size):
    """The Config of a case.

    Args:
        case (Case): Which.
        method (str): Its method, or the one beside.
        width (int): Of the networks, before their multiples.
        batchsize (int): Pictures a step.
        size (int): Height and width of a picture.

    Returns:
        util.config.Config

    Raises:
        UserError: A number cannot be.

    """
    overrides = ['model.width={}'.format(width), 'dataset.size={}'.format(size)]
    return config.resolve('cifar10', case.model, method, case.setting, overrides=overrides, batchsize=batchsize)


def random_images(resolved):
    """Pictures for four batches of a Config, uint8 (N, 3, size, size)."""
    shape = (4 * resolved.profile.batchsize, 3, resolved.dataset.size, resolved.dataset.size)
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
