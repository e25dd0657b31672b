"""Multiply-adds of the layers of a network, and of the steps."""
from util import trainer  # isort: skip  (before Chainer, which needs util.compat)

import typing

import chainer
import chainer.links as L
import numpy as np


class Counts(typing.NamedTuple):
    """Multiply-adds of one forward pass of a network."""

    layers: dict  # path of a layer -> number, in the order of the calls
    outermost: int  # of the layers that look at the network's input, which needs no gradient


class CountMultiplyAdds(chainer.LinkHook):
    """Link hook: multiply-adds of the convolutions and dense layers of a network that are called under it.

    ``counts`` maps a layer's path to a number. Each output of a convolution or of a dense layer is a sum of as many
    products as one of its filters has weights; a deconvolution multiplies each input by as many. Biases, activations,
    batch normalization and the power iteration are not counted: beside these products they are small.

    Args:
        network (chainer.Link): Its layers are counted.

    """

    name = 'CountMultiplyAdds'

    def __init__(self, network):
        self._paths = {id(link): path[1:] for path, link in network.namedlinks()}
        self.counts, self.outermost = {}, 0

    def forward_postprocess(self, args):
        link, x = args.link, args.args[0]
        if isinstance(link, (L.Convolution2D, L.Linear)):
            size = args.out.size
        elif isinstance(link, L.Deconvolution2D):
            size = x.size
        else:
            return
        count = self.counts[self._paths[id(link)]] = size * int(np.prod(link.W.shape[1:]))
        if not getattr(x, 'requires_grad', False):  # no layer with a weight comes before
            self.outermost += count


def count_layers(network, shape):
    """Count the multiply-adds of one forward pass.

    Args:
        network (chainer.Chain): A generator or a discriminator.
        shape (tuple of int): Of its input: (N, dim_z) or (N, 3, H, W).

    Returns:
        Counts

    """
    counter = CountMultiplyAdds(network)
    # One example is enough, and in test mode neither u nor the batch statistics move
    with chainer.using_config('train', False), counter:
        network(np.zeros((1, *shape[1:]), 'f'))
    return Counts({path: shape[0] * count for path, count in counter.counts.items()}, shape[0] * counter.outermost)


def count_steps(generator, discriminator, n_gen_ratio=1, penalty=False):
    """Count the multiply-adds of both kinds of step from those of each layer's forward pass.

    The gradient of a layer's weight costs as much as its forward pass, and so does that of its input. No step needs all
    of them (see ``util/updater.py``).

    Args:
        generator, discriminator (Counts): Of as many pictures as a discriminator step has.
        n_gen_ratio (int): A generator step has so many times as many.
        penalty (bool): Whether a discriminator step has a gradient penalty.

    Returns:
        dict: ``'D'`` and ``'G'`` -> multiply-adds.

    """
    g, d = sum(generator.layers.values()), sum(discriminator.layers.values())
    last = list(discriminator.layers.values())[-1]
    return {
        # Fakes; then real and fake: forward and both gradients, but none of the pictures. The penalty: forward,
        # gradients of inputs, and the gradients of these for weights and for what came in, which is 1 at the last layer
        'D': g + 2 * (3 * d - discriminator.outermost) + penalty * (4 * d - last),
        # G forward and both gradients, but none of z; D forward and the gradients of its inputs
        'G': n_gen_ratio * (3 * g - generator.outermost + 2 * d),
    }


def count(config):
    """Multiply-adds of the steps of a Config: what :func:`count_steps` returns."""
    generator, discriminator, _ = trainer.build_networks(config)
    n, size = config.profile.batchsize, config.dataset.size
    return count_steps(count_layers(generator, (n, generator.dim_z)), count_layers(discriminator, (n, 3, size, size)),
                       config.setting.n_gen_ratio, bool(config.method.gradient_penalty))
