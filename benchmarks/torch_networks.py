"""The standard CNN and the CIFAR-10 ResNet in PyTorch, as one would write them there: what Chainer is timed beside.

They are those of ``model.py`` without classes: the same layers with the same biases, the same first weights, batch
normalization with Chainer's eps. ``tests/parity/test_steps_parity.py`` says that both compute the same.

Spectral normalization is PyTorch's own, ``torch.nn.utils.parametrizations.spectral_norm``: one power iteration at each
use of a weight in training mode, u and v constants of the gradient, eps 1e-12. A convolution uses its weight once a
forward, so each forward has its own iteration as here. What differs costs nothing: it goes from v to u and back to v
where this project goes from u to v and back to u, and takes the larger of a length and eps where this adds them.
"""
import functools
import itertools

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

BATCH_NORM_EPS = 2e-5  # Chainer's


def batch_norm(channels):
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


def _initialize(network, weight_):
    """Fill weights by a function of ``torch.nn.init``, biases with 0."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            weight_(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _normal_(scale, module):
    nn.init.normal_(module.weight, std=scale)


def _glorot_(module):
    """With a gain of sqrt(2) for the convolutions of 3x3 in blocks."""
    inside = isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.out_channels != 3
    nn.init.xavier_uniform_(module.weight, gain=2 ** 0.5 if inside else 1)


def _normalize(network):
    """Give each layer with a weight spectral normalization, once it has its first weights."""
    for module in list(network.modules()):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            spectral_norm(module, n_power_iterations=1, eps=1e-12)


class CNNGenerator(nn.Module):
    """As ``model.CNNGenerator`` without ``dense_bn``; its last layer is a convolution."""

    def __init__(self, size, width, dim_z, initial_scale):
        super().__init__()
        self.dim_z, self.bottom = dim_z, size // 8
        self.dense = nn.Linear(dim_z, self.bottom ** 2 * 8 * width)
        channels, layers = [8 * width, 4 * width, 2 * width, width], []
        for before, after in itertools.pairwise(channels):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), batch_norm(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, 1, 1), nn.Tanh())
        _initialize(self, functools.partial(_normal_, initial_scale))

    def forward(self, z):
        return self.layers(self.dense(z).view(len(z), -1, self.bottom, self.bottom))


class CNNDiscriminator(nn.Module):
    """As ``model.CNNDiscriminator``, with spectral normalization or without."""

    def __init__(self, size, width, multiples, slope, initial_scale, spectral):
        super().__init__()
        channels, layers = [3, *(m * width for m in multiples)], []
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            kernel, stride = (4, 2) if i % 2 else (3, 1)
            layers += [nn.Conv2d(before, after, kernel, stride, 1), nn.LeakyReLU(slope, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear((size // 8) ** 2 * channels[-1], 1))
        _initialize(self, functools.partial(_normal_, initial_scale))
        if spectral:
            _normalize(self)

    def forward(self, x):
        return self.layers(x)


class ResBlock(nn.Module):
    """As ``util.blocks.ResBlock``: the shortcut's convolution has the smaller picture there, too."""

    def __init__(self, in_channels, out_channels, hidden, resample, leading, normalized):
        super().__init__()
        self.resample, self.leading = resample, leading
        self.norm1, self.norm2 = (batch_norm(in_channels), batch_norm(hidden)) if normalized else (None, None)
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, 1, 1)
        self.conv2 = nn.Conv2d(hidden, out_channels, 3, 1, 1)
        learned = resample is not None or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if learned else None

    def forward(self, x):
        h = x
        if self.norm1 is not None:
            h = functional.relu(self.norm1(h), inplace=True)
        elif self.leading:
            h = functional.relu(h)  # not in place: the shortcut needs it
        h = self.conv1(_up(h) if self.resample == 'up' else h)
        h = h if self.norm2 is None else self.norm2(h)
        h = self.conv2(functional.relu(h, inplace=True))
        shortcut = functional.avg_pool2d(x, 2) if self.resample == 'down' else x
        shortcut = shortcut if self.shortcut is None else self.shortcut(shortcut)
        if self.resample == 'down':
            h = functional.avg_pool2d(h, 2)
        return h + (_up(shortcut) if self.resample == 'up' else shortcut)


def _up(x):
    return functional.interpolate(x, scale_factor=2, mode='nearest')


class ResNetGenerator(nn.Module):
    """As ``model.ResNetGenerator`` without classes."""

    def __init__(self, size, width, dim_z, multiples):
        super().__init__()
        channels = [m * width for m in multiples]
        self.dim_z, self.bottom = dim_z, size // 2 ** (len(multiples) - 1)
        self.dense = nn.Linear(dim_z, self.bottom ** 2 * channels[0])
        self.blocks = nn.Sequential(*(ResBlock(before, after, after, 'up', True, True)
                                      for before, after in itertools.pairwise(channels)))
        self.bn, self.last = batch_norm(channels[-1]), nn.Conv2d(channels[-1], 3, 3, 1, 1)
        _initialize(self, _glorot_)

    def forward(self, z):
        h = self.blocks(self.dense(z).view(len(z), -1, self.bottom, self.bottom))
        return torch.tanh(self.last(functional.relu(self.bn(h), inplace=True)))


class ResNetDiscriminator(nn.Module):
    """As ``model.ResNetDiscriminator`` without classes, with spectral normalization or without."""

    def __init__(self, width, multiples, downsamplings, dense_bias, spectral):
        super().__init__()
        channels = [3, *(m * width for m in multiples)]
        self.blocks = nn.Sequential(*(
            ResBlock(before, after, before if i else after, 'down' if i < downsamplings else None, i > 0, False)
            for i, (before, after) in enumerate(itertools.pairwise(channels))))
        self.dense = nn.Linear(channels[-1], 1, bias=dense_bias)
        _initialize(self, _glorot_)
        if spectral:
            _normalize(self)

    def forward(self, x):
        return self.dense(functional.relu(self.blocks(x)).sum(dim=(2, 3)))


def build(config):
    """Build the networks of a Config as PyTorch has them; the first numbers come from PyTorch's own generator.

    Args:
        config (Config): Of the model ``cnn`` or ``resnet``, with spectral normalization or none.

    Returns:
        tuple of torch.nn.Module: The generator and the discriminator.

    Raises:
        ValueError: It asks for something else.

    """
    row, size, spectral = config.model, config.dataset.size, config.method.normalization == 'spectral'
    if not spectral and config.method.normalization is not None:
        raise ValueError('method {}: only spectral normalization and none are here'.format(config.method.name))
    if row.architecture == 'cnn' and not row.dense_bn and row.last == 'convolution':
        return (CNNGenerator(size, row.width, row.dim_z, row.initial_scale),
                CNNDiscriminator(size, row.width, row.multiples, row.slope, row.initial_scale, spectral))
    if row.architecture == 'resnet' and not row.conditional:
        return (ResNetGenerator(size, row.width, row.dim_z, row.generator),
                ResNetDiscriminator(row.width, row.discriminator, row.downsamplings, row.dense_bias, spectral))
    raise ValueError('model {}: only cnn and resnet are here'.format(row.name))


def module_of(network, path):
    """The module that stands for a link of Chainer's network.

    Args:
        network (torch.nn.Module): Made by :func:`build`.
        path (str): The link's, without the slash in front: ``'conv1'``, ``'block1/conv1'``.

    """
    if hasattr(network, 'layers'):  # CNNs
        kinds = {'conv': nn.Conv2d, 'deconv': nn.ConvTranspose2d, 'bn': nn.BatchNorm2d}
        name = path.rstrip('0123456789')
        if name in kinds:
            return [m for m in network.layers if isinstance(m, kinds[name])][int(path[len(name):]) - 1]
        if path == 'last':
            return [m for m in network.layers if isinstance(m, nn.Conv2d)][-1]
        return network.dense if hasattr(network, 'dense') else network.layers[-1]
    head, _, rest = path.partition('/')
    return getattr(network.blocks[int(head[len('block'):]) - 1], rest) if rest else getattr(network, head)


_NAMES = {'W': 'weight', 'b': 'bias', 'gamma': 'weight', 'beta': 'bias'}


def parameter_of(network, path):
    """The parameter that stands for one of Chainer's network, by its path: ``'conv1/W'``."""
    link, _, name = path.rpartition('/')
    module = module_of(network, link)
    if name == 'W' and hasattr(module, 'parametrizations'):
        return module.parametrizations.weight.original
    return getattr(module, _NAMES[name])
