"""The 2015-12-05 Inception graph as data: one table from which the network, the conversion and the tests are made.

Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2015 (Inception v3), in the version that
Google released on 2015-12-05 with 1,008 outputs. Names are those of the graph and, beside them, those of the PyTorch
weights that the FID community converted from it.
"""
import dataclasses

SIZE = 299  # height and width that pictures are resized to
N_FEATURES = 2048  # of the last pooling layer, pool_3 in the graph
N_CLASSES = 1008
BN_EPS = 1e-3  # of all batch normalizations: attribute variance_epsilon in the graph

MAX = 'maximum of 3x3, stride 2, without padding'
MAX_SAME = 'maximum of 3x3, stride 1, of what lies in the picture'
AVERAGE_SAME = 'average of 3x3, stride 1, of what lies in the picture'


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution without bias, batch normalization and ReLU.

    Attributes:
        name (str): In the graph, below its block.
        torch_name (str): In the PyTorch weights, below its block.
        n_out (int): Output channels.
        kernel (tuple of int): Height and width.
        stride (int): Of both directions.
        same (bool): Whether zeros around the picture keep its size (``SAME``); else there are none (``VALID``).

    """

    name: str
    torch_name: str
    n_out: int
    kernel: tuple = (1, 1)
    stride: int = 1
    same: bool = True

    @property
    def pad(self):
        """Zeros on each side, in both directions. ``SAME`` is used with odd kernels and stride 1 only."""
        return tuple(k // 2 for k in self.kernel) if self.same else (0, 0)


@dataclasses.dataclass(frozen=True)
class Block:
    """A stage of the network: branches that see the same input and whose outputs are concatenated.

    A branch is a tuple of steps, one after another: a :class:`Conv`, ``MAX``, ``MAX_SAME``, ``AVERAGE_SAME`` or a
    :class:`Block`.
    """

    name: str
    torch_name: str
    branches: tuple

    @property
    def prefix(self):
        """What comes before the names of its convolutions in the graph; nothing for a block without a name."""
        return self.name + '/' if self.name else ''

    @property
    def torch_prefix(self):
        """The same in the PyTorch weights."""
        return self.torch_name + '.' if self.torch_name else ''


def _block_35(name, torch_name, n_pool):
    return Block(name, torch_name, (
        (Conv('conv', 'branch1x1', 64),),
        (Conv('tower/conv', 'branch5x5_1', 48), Conv('tower/conv_1', 'branch5x5_2', 64, (5, 5))),
        (Conv('tower_1/conv', 'branch3x3dbl_1', 64), Conv('tower_1/conv_1', 'branch3x3dbl_2', 96, (3, 3)),
         Conv('tower_1/conv_2', 'branch3x3dbl_3', 96, (3, 3))),
        (AVERAGE_SAME, Conv('tower_2/conv', 'branch_pool', n_pool))))


def _block_35_to_17(name, torch_name):
    return Block(name, torch_name, (
        (Conv('conv', 'branch3x3', 384, (3, 3), 2, same=False),),
        (Conv('tower/conv', 'branch3x3dbl_1', 64), Conv('tower/conv_1', 'branch3x3dbl_2', 96, (3, 3)),
         Conv('tower/conv_2', 'branch3x3dbl_3', 96, (3, 3), 2, same=False)),
        (MAX,)))


def _block_17(name, torch_name, n):
    return Block(name, torch_name, (
        (Conv('conv', 'branch1x1', 192),),
        (Conv('tower/conv', 'branch7x7_1', n), Conv('tower/conv_1', 'branch7x7_2', n, (1, 7)),
         Conv('tower/conv_2', 'branch7x7_3', 192, (7, 1))),
        (Conv('tower_1/conv', 'branch7x7dbl_1', n), Conv('tower_1/conv_1', 'branch7x7dbl_2', n, (7, 1)),
         Conv('tower_1/conv_2', 'branch7x7dbl_3', n, (1, 7)), Conv('tower_1/conv_3', 'branch7x7dbl_4', n, (7, 1)),
         Conv('tower_1/conv_4', 'branch7x7dbl_5', 192, (1, 7))),
        (AVERAGE_SAME, Conv('tower_2/conv', 'branch_pool', 192))))


def _block_17_to_8(name, torch_name):
    return Block(name, torch_name, (
        (Conv('tower/conv', 'branch3x3_1', 192), Conv('tower/conv_1', 'branch3x3_2', 320, (3, 3), 2, same=False)),
        (Conv('tower_1/conv', 'branch7x7x3_1', 192), Conv('tower_1/conv_1', 'branch7x7x3_2', 192, (1, 7)),
         Conv('tower_1/conv_2', 'branch7x7x3_3', 192, (7, 1)),
         Conv('tower_1/conv_3', 'branch7x7x3_4', 192, (3, 3), 2, same=False)),
        (MAX,)))


def _block_8(name, torch_name, pool):
    def split(tower, torch_branch, number):
        return Block('', '', (
            (Conv(tower + '/mixed/conv', '{}_{}a'.format(torch_branch, number), 384, (1, 3)),),
            (Conv(tower + '/mixed/conv_1', '{}_{}b'.format(torch_branch, number), 384, (3, 1)),)))
    return Block(name, torch_name, (
        (Conv('conv', 'branch1x1', 320),),
        (Conv('tower/conv', 'branch3x3_1', 384), split('tower', 'branch3x3', 2)),
        (Conv('tower_1/conv', 'branch3x3dbl_1', 448), Conv('tower_1/conv_1', 'branch3x3dbl_2', 384, (3, 3)),
         split('tower_1', 'branch3x3dbl', 3)),
        (pool, Conv('tower_2/conv', 'branch_pool', 192))))


STEPS = (
    Conv('conv', 'Conv2d_1a_3x3', 32, (3, 3), 2, same=False),  # 149x149
    Conv('conv_1', 'Conv2d_2a_3x3', 32, (3, 3), same=False),   # 147x147
    Conv('conv_2', 'Conv2d_2b_3x3', 64, (3, 3)),
    MAX,                                                       # 73x73
    Conv('conv_3', 'Conv2d_3b_1x1', 80),
    Conv('conv_4', 'Conv2d_4a_3x3', 192, (3, 3), same=False),  # 71x71
    MAX,                                                       # 35x35
    _block_35('mixed', 'Mixed_5b', 32),                        # 256 channels
    _block_35('mixed_1', 'Mixed_5c', 64),                      # 288
    _block_35('mixed_2', 'Mixed_5d', 64),                      # 288
    _block_35_to_17('mixed_3', 'Mixed_6a'),                    # 768, 17x17
    _block_17('mixed_4', 'Mixed_6b', 128),                     # 768
    _block_17('mixed_5', 'Mixed_6c', 160),
    _block_17('mixed_6', 'Mixed_6d', 160),
    _block_17('mixed_7', 'Mixed_6e', 192),
    _block_17_to_8('mixed_8', 'Mixed_7a'),                     # 1280, 8x8
    _block_8('mixed_9', 'Mixed_7b', AVERAGE_SAME),             # 2048
    _block_8('mixed_10', 'Mixed_7c', MAX_SAME),                # the graph's only pooling of this kind
)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution at its place in the network.

    Attributes:
        name (str): Its whole name in the graph, such as ``'mixed_9/tower/mixed/conv'``.
        torch_name (str): In the PyTorch weights, such as ``'Mixed_7b.branch3x3_2a'``.
        n_in (int): Input channels.
        conv (Conv): All else.

    """

    name: str
    torch_name: str
    n_in: int
    conv: Conv

    @property
    def shape(self):
        """Of the weight in Chainer's layout: (n_out, n_in, height, width)."""
        return (self.conv.n_out, self.n_in, *self.conv.kernel)


def walk(steps=STEPS, n_in=3, prefix='', torch_prefix=''):
    """All convolutions of ``steps`` in order.

    Returns:
        tuple: A list of :class:`Layer`, and the number of output channels.

    """
    found = []
    for step in steps:
        if isinstance(step, Conv):
            found.append(Layer(prefix + step.name, torch_prefix + step.torch_name, n_in, step))
            n_in = step.n_out
        elif isinstance(step, Block):
            below = prefix + step.prefix, torch_prefix + step.torch_prefix
            branches = [walk(branch, n_in, *below) for branch in step.branches]
            found += [layer for layers, _ in branches for layer in layers]
            n_in = sum(n_out for _, n_out in branches)
    return found, n_in


LAYERS, _ = walk()
