"""What the ResNets are built of: the residual block of both networks, and conditional batch normalization."""
import math

import chainer
import chainer.functions as F
import chainer.links as L


def glorot(rng, scale=1.0):
    """The ResNets' initial weights: U(-s, s) with s = scale sqrt(6 / (fan_in + fan_out)), as in the authors' code."""
    return chainer.initializers.GlorotUniform(scale, rng=rng)


def normalize(norm, h, y=None):
    """Normalize features h with a link, with the classes y where it takes them; ``None`` leaves them as they are."""
    if norm is None:
        return h
    return norm(h, y) if isinstance(norm, ConditionalBatchNormalization) else norm(h)


class ClassEmbedding(L.EmbedID):
    """An EmbedID for classes, of which a batch has few: its gradient is a matrix product.

    That of EmbedID itself adds up with atomic operations on a GPU, and no two runs have the same bits.
    """

    def forward(self, y):
        """Look up y (N,) int32: (N, out_size)."""
        one_hot = (y[:, None] == self.xp.arange(self.W.shape[0], dtype=y.dtype)).astype(self.W.dtype)
        return F.matmul(one_hot, self.W)


class ConditionalBatchNormalization(chainer.Chain):
    """Batch normalization whose multiplier and shift are those of each example's class (Dumoulin et al. 2017).

    Args:
        channels (int): Number of channels.
        n_classes (int): Number of classes.

    """

    def __init__(self, channels, n_classes):
        super().__init__()
        with self.init_scope():
            self.bn = L.BatchNormalization(channels, use_gamma=False, use_beta=False)
            self.gamma = ClassEmbedding(n_classes, channels, initialW=1)
            self.beta = ClassEmbedding(n_classes, channels, initialW=0)

    def forward(self, x, y):
        """Normalize x (N, channels, H, W) for the classes y, int32 (N,)."""
        h = self.bn(x)
        gamma, beta = (F.broadcast_to(embed(y)[:, :, None, None], h.shape) for embed in (self.gamma, self.beta))
        return gamma * h + beta


class ResBlock(chainer.Chain):
    """The residual block of both networks (paper Figure 8): (norm, ReLU, 3x3 convolution) twice, beside a shortcut.

    The shortcut is a 1x1 convolution where channels or size change, else the identity. A convolution of 1x1 and nearest
    upsampling or average pooling can be exchanged: here the convolution has the smaller picture.

    Args:
        in_channels, out_channels (int): Channels of input and output.
        hidden (int): Channels between the two convolutions.
        resample (str or None): ``'up'``: nearest-neighbour upsampling by 2 before the first convolution; ``'down'``:
            2x2 average pooling after the second; ``None``: the size stays.
        leading (bool): Whether norm and ReLU come before the first convolution. Not in the discriminator's first block,
            whose input is a picture.
        weight (callable): Takes a link that carries a weight and returns it normalized.
        features (callable): Takes a number of channels, returns a link that normalizes features, or ``None``.
        rng (numpy.random.RandomState): Where the initial weights are drawn from; ``None`` is NumPy's global state.

    """

    def __init__(self, in_channels, out_channels, hidden, resample, leading, weight, features, rng=None):
        super().__init__()
        w, w_shortcut = glorot(rng, math.sqrt(2)), glorot(rng)
        self._leading, self._resample = leading, resample
        with self.init_scope():
            self.norm1 = features(in_channels) if leading else None
            self.conv1 = weight(L.Convolution2D(in_channels, hidden, 3, 1, 1, initialW=w))
            self.norm2 = features(hidden)
            self.conv2 = weight(L.Convolution2D(hidden, out_channels, 3, 1, 1, initialW=w))
            learned = resample is not None or in_channels != out_channels
            convolution = L.Convolution2D(in_channels, out_channels, 1, initialW=w_shortcut) if learned else None
            self.shortcut = weight(convolution) if learned else None

    def forward(self, x, y=None):
        """Turn x (N, in_channels, H, W), with classes y (N,) or ``None``, into (N, out_channels, H', W')."""
        h = F.relu(normalize(self.norm1, x, y)) if self._leading else x
        h = self.conv1(_up(h) if self._resample == 'up' else h)
        h = self.conv2(F.relu(normalize(self.norm2, h, y)))
        shortcut = F.average_pooling_2d(x, 2) if self._resample == 'down' else x
        shortcut = shortcut if self.shortcut is None else self.shortcut(shortcut)
        if self._resample == 'down':
            h = F.average_pooling_2d(h, 2)
        return h + (_up(shortcut) if self._resample == 'up' else shortcut)


def _up(x):
    return F.unpooling_2d(x, 2, 2, 0, cover_all=False)
