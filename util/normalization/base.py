"""What a method may do to a discriminator: the interface between networks, training and methods."""
from typing import NamedTuple

import chainer
import chainer.links as L

from util.normalization.weight_hook import WeightHook, output_axis


class Normalization:
    """What is done to a discriminator; this one does nothing. Methods override what they need.

    The networks of ``model.py`` call :meth:`weight` and :meth:`features` when they are made, the updater calls
    :meth:`penalty` and :meth:`constrain` in each discriminator step.
    """

    def weight(self, link):
        """Take a link that carries a weight, as yet without a name; return it, hooked or with another first value."""
        return link

    def features(self, channels):
        """A link that normalizes features (N, channels, H, W) before an activation, or ``None``."""

    def penalty(self, discriminator):
        """What is added to the discriminator's loss, a 0-d Variable; or ``None``."""

    def constrain(self, discriminator):
        """Bring the weights back to where they may be, in place: after each of the discriminator's updates."""


class HookedWeights(Normalization):
    """Gives each link that carries a weight a link hook of its own.

    Args:
        make_hook (callable): Returns a new hook.

    """

    def __init__(self, make_hook):
        self._make_hook = make_hook

    def weight(self, link):
        return link.add_hook(self._make_hook())


WEIGHTED = (L.Linear, L.Convolution2D, L.EmbedID)  # the kinds of a discriminator's links that carry a weight


def weights(network, kinds=WEIGHTED):
    """The weights of a network's layers.

    Args:
        network (chainer.Link): Its links of the ``kinds`` are looked at.
        kinds (tuple of type): Kinds of links.

    Yields:
        tuple: A weight (chainer.Parameter), and its axis that counts outputs (int).

    """
    for link in network.links():
        if isinstance(link, kinds):
            yield link.W, output_axis(link)


class UsedWeight(NamedTuple):
    """A layer's weight.

    Attributes:
        name (str): The layer's path, such as ``'conv1'``.
        weight (chainer.Parameter): The parameter.
        used (numpy.ndarray or cupy.ndarray): What the layer computes with in test mode.
        axis (int): The axis that counts outputs.
        sigma_axes (tuple of int): The method divides by the mean of the largest singular values of the parameter as
            matrices whose rows these axes count; where it does not, ``(axis,)``.

    """

    name: str
    weight: chainer.Parameter
    used: object
    axis: int
    sigma_axes: tuple


def used_weights(network, kinds=WEIGHTED):
    """The weights of a network's layers as parameters, and as the layers compute with them.

    What hooks note of their latest call changes: where that matters, give a copy.

    Args:
        network (chainer.Link): Its links of the ``kinds`` are looked at; all are initialised.
        kinds (tuple of type): Kinds of links.

    Yields:
        UsedWeight

    """
    for path, link in network.namedlinks(skipself=True):
        if isinstance(link, kinds):
            hook = next((hook for hook in link.local_link_hooks.values() if isinstance(hook, WeightHook)), None)
            with chainer.using_config('train', False), chainer.no_backprop_mode():
                used = hook.normalize_weight(link).array if hook else link.W.array
            axis = output_axis(link)
            axes = hook.sigma_axes(link) if hasattr(hook, 'sigma_axes') else (axis,)
            yield UsedWeight(path[1:], link.W, used, axis, axes)
