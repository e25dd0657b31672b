"""Batch and layer normalization of the discriminator's features, without the multiplier gamma (paper section 4.1)."""
import chainer
import chainer.functions as F
import chainer.links as L

from util.normalization.base import Normalization


class BatchNormalization(Normalization):
    """Batch normalization (Ioffe and Szegedy, 2015) of features, over a batch and all positions.

    The multiplier is left out, as it would undo the bound on the Lipschitz constant (paper section 4.1); the shift
    stays, as in the authors' code. Batches of real and of generated pictures have their own statistics.

    Args:
        use_gamma (bool): Have the multiplier after all.

    """

    def __init__(self, use_gamma=False):
        self._use_gamma = use_gamma

    def features(self, channels):
        return L.BatchNormalization(channels, use_gamma=self._use_gamma)


class LayerNormalization(Normalization):
    """Layer normalization (Ba et al., 2016) of features: of each picture by itself, over channels and positions.

    Args:
        use_gamma (bool): Have the multiplier, which is left out for the reason that :class:`BatchNormalization` gives.

    """

    def __init__(self, use_gamma=False):
        self._use_gamma = use_gamma

    def features(self, channels):
        return FeatureLayerNormalization(channels, self._use_gamma)


class FeatureLayerNormalization(chainer.Link):
    """Brings each example of (N, channels, H, W) to mean 0 and variance 1, then adds a shift ``beta`` to each channel.

    Args:
        channels (int): Number of channels.
        use_gamma (bool): Multiply each channel by a learned ``gamma`` before.
        eps (float): Added to the variance.

    """

    def __init__(self, channels, use_gamma=False, eps=1e-5):
        super().__init__()
        self._eps = eps
        with self.init_scope():
            self.beta = chainer.Parameter(0, channels)
            self.gamma = chainer.Parameter(1, channels) if use_gamma else None

    def forward(self, x):
        """Normalize x (N, channels, H, W)."""
        # F.layer_normalization and F.group_normalization cannot be differentiated twice without a gamma
        axes = 1, 2, 3
        centred = x - F.broadcast_to(F.mean(x, axis=axes, keepdims=True), x.shape)
        scale = (F.mean(centred * centred, axis=axes, keepdims=True) + self._eps) ** -0.5
        h = centred * F.broadcast_to(scale, x.shape)
        return F.bias(h if self.gamma is None else F.scale(h, self.gamma), self.beta)
