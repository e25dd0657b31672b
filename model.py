"""Generator and discriminator of each architecture, and nothing else.

The standard CNN of *Spectral Normalization for GANs* (Miyato et al., ICLR 2018), Table 3, and the variant that its
authors published (``sndcgan``, in their chainer-gan-lib) are one pair of classes with different options, and so are the
ResNets for 32, 48 and 128 pixels, Tables 4 to 6, with and without classes: rows of ``configs/models.yml``.
"""
from util import noise  # isort: skip  (before Chainer, which needs util.compat)

import itertools

import chainer
import chainer.functions as F
import chainer.links as L

from util.blocks import ClassEmbedding, ConditionalBatchNormalization, ResBlock, glorot, normalize
from util.files import UserError
from util.normalization import Normalization
from util.normalization.together import normalized_together


class CNNGenerator(chainer.Chain):
    """Generator of the standard CNN (paper Table 3, left): a dense layer and three 4x4 deconvolutions, each doubling
    the picture.

    Args:
        size (int): Height and width of a picture, a multiple of 8: 32 (CIFAR-10) or 48 (STL-10).
        width (int): Channels of the last hidden layer; the first has eight times as many. 64 in the paper.
        dim_z (int): Dimensions of the latent z.
        dense_bn (bool): Batch normalization (per unit) and ReLU after the dense layer. The paper's table shows none;
            the authors' code has both.
        last (str): The last layer, 3x3 with stride 1: ``'convolution'`` (paper) or ``'deconvolution'`` (authors' code).
        initial_scale (float): All weights start as N(0, initial_scale^2).
        rng (numpy.random.RandomState): Where the initial weights are drawn from; ``None`` is NumPy's global state.

    """

    n_classes = 0

    def __init__(self, size=32, width=64, dim_z=128, dense_bn=False, last='convolution', initial_scale=0.02, rng=None):
        super().__init__()
        _check_size(size)
        if last not in ('convolution', 'deconvolution'):
            raise ValueError("last must be 'convolution' or 'deconvolution', not {!r}".format(last))
        self.dim_z, self.bottom = dim_z, size // 8
        w = chainer.initializers.Normal(initial_scale, rng=rng)
        final = L.Convolution2D if last == 'convolution' else L.Deconvolution2D
        with self.init_scope():
            self.dense = L.Linear(dim_z, self.bottom ** 2 * 8 * width, initialW=w)
            if dense_bn:
                self.bn0 = L.BatchNormalization(self.bottom ** 2 * 8 * width)
            self.deconv1 = L.Deconvolution2D(8 * width, 4 * width, 4, 2, 1, initialW=w)
            self.bn1 = L.BatchNormalization(4 * width)
            self.deconv2 = L.Deconvolution2D(4 * width, 2 * width, 4, 2, 1, initialW=w)
            self.bn2 = L.BatchNormalization(2 * width)
            self.deconv3 = L.Deconvolution2D(2 * width, width, 4, 2, 1, initialW=w)
            self.bn3 = L.BatchNormalization(width)
            self.last = final(width, 3, 3, 1, 1, initialW=w)
        self.dense_bn = dense_bn

    def forward(self, z, y=None):
        """Turn z (N, dim_z) float32 into pictures (N, 3, size, size) float32 in (-1, 1); ``y`` must be ``None``."""
        _check_classes(self.n_classes, y)
        h = self.dense(z)
        if self.dense_bn:
            h = F.relu(self.bn0(h))
        h = h.reshape(len(z), -1, self.bottom, self.bottom)
        h = F.relu(self.bn1(self.deconv1(h)))
        h = F.relu(self.bn2(self.deconv2(h)))
        h = F.relu(self.bn3(self.deconv3(h)))
        return F.tanh(self.last(h))


class CNNDiscriminator(chainer.Chain):
    """Discriminator of the standard CNN (paper Table 3, right): seven convolutions, every second halving the picture,
    and a dense layer.

    Args:
        size (int): Height and width of a picture, a multiple of 8.
        width (int): Channels of the first layer. 64 in the paper.
        multiples (sequence of int): Channels of the seven convolutions in units of ``width``.
        slope (float): Slope of the leaky ReLU after each convolution. 0.1 in the paper.
        normalization (Normalization): What is done to weights and features; ``None`` leaves them as they are. Features
            are normalized after each convolution but the first, as in the authors' code.
        initial_scale (float): All weights start as N(0, initial_scale^2).
        rng (numpy.random.RandomState): Where the initial weights are drawn from; ``None`` is NumPy's global state.

    """

    n_classes = 0

    def __init__(self, size=32, width=64, multiples=(1, 1, 2, 2, 4, 4, 8), slope=0.1, normalization=None,
                 initial_scale=0.02, rng=None):
        super().__init__()
        _check_size(size)
        if len(multiples) != 7:
            raise ValueError('multiples must name seven widths, not {}'.format(len(multiples)))
        self.slope = slope
        normalization = normalization or Normalization()
        w = chainer.initializers.Normal(initial_scale, rng=rng)
        channels = [3] + [m * width for m in multiples]
        with self.init_scope():
            for i in range(7):
                kernel, stride = (4, 2) if i % 2 else (3, 1)
                convolution = L.Convolution2D(channels[i], channels[i + 1], kernel, stride, 1, initialW=w)
                setattr(self, 'conv%d' % (i + 1), normalization.weight(convolution))
                setattr(self, 'norm%d' % (i + 1), normalization.features(channels[i + 1]) if i else None)
            self.dense = normalization.weight(L.Linear((size // 8) ** 2 * channels[-1], 1, initialW=w))

    @normalized_together
    def forward(self, x, y=None):
        """Turn pictures (N, 3, size, size) float32 in [-1, 1] into logits (N, 1); D(x) is their sigmoid. ``y`` must be
        ``None``.
        """
        _check_classes(self.n_classes, y)
        h = x
        for i in range(1, 8):
            h = F.leaky_relu(normalize(self['norm%d' % i], self['conv%d' % i](h)), slope=self.slope)
        return self.dense(h)


def _check_size(size):
    if size < 8 or size % 8:
        raise ValueError('the size of a picture must be a multiple of 8, not {}'.format(size))


def _check_classes(n_classes, y):
    if (y is not None) != bool(n_classes):
        raise ValueError('this network has {} classes, but y is {}'.format(n_classes or 'no', 'missing' if n_classes
                                                                           else 'given'))


class ResNetGenerator(chainer.Chain):
    """Generator of the ResNets (paper Tables 4 to 6, left): a dense layer, and blocks that double the picture.

    Args:
        size (int): Height and width of a picture.
        width (int): The unit of ``multiples``. 64 in the paper.
        dim_z (int): Dimensions of the latent z.
        multiples (sequence of int): Channels of the dense layer's output and of each block's, in units of ``width``.
        n_classes (int): Number of classes: with any, batch normalization in the blocks is conditional. 0: none.
        rng (numpy.random.RandomState): Where the initial weights are drawn from; ``None`` is NumPy's global state.

    """

    def __init__(self, size=32, width=64, dim_z=128, multiples=(4, 4, 4, 4), n_classes=0, rng=None):
        super().__init__()
        channels, self._n_blocks = [m * width for m in multiples], len(multiples) - 1
        self.dim_z, self.n_classes, self.bottom = dim_z, n_classes, _halved(size, self._n_blocks)

        def features(n):
            return ConditionalBatchNormalization(n, n_classes) if n_classes else L.BatchNormalization(n)

        with self.init_scope():
            self.dense = L.Linear(dim_z, self.bottom ** 2 * channels[0], initialW=glorot(rng))
            for i, (before, after) in enumerate(itertools.pairwise(channels), 1):
                block = ResBlock(before, after, after, 'up', True, lambda link: link, features, rng)
                setattr(self, 'block%d' % i, block)
            self.bn = L.BatchNormalization(channels[-1])
            self.last = L.Convolution2D(channels[-1], 3, 3, 1, 1, initialW=glorot(rng))

    def forward(self, z, y=None):
        """Turn z (N, dim_z) float32, for classes y (N,) int32 if there are classes, into pictures (N, 3, size, size)
        float32 in (-1, 1).
        """
        _check_classes(self.n_classes, y)
        h = self.dense(z).reshape(len(z), -1, self.bottom, self.bottom)
        for i in range(1, self._n_blocks + 1):
            h = self['block%d' % i](h, y)
        return F.tanh(self.last(F.relu(self.bn(h))))


class ResNetDiscriminator(chainer.Chain):
    """Discriminator of the ResNets (paper Tables 4 to 6, right): blocks, global sum pooling, a dense layer.

    Args:
        size (int): Height and width of a picture.
        width (int): The unit of ``multiples``. 64 in the paper.
        multiples (sequence of int): Channels of each block's output, in units of ``width``.
        downsamplings (int): How many blocks, the first ones, halve the picture.
        dense_bias (bool): Whether the dense layer has a bias.
        conditional (str or None): How the classes come in: ``'projection'`` adds the inner product of the pooled
            features and an embedding of the class (Miyato and Koyama 2018), ``'concat'`` puts an embedding of it beside
            the features of the block number ``concat_block`` (paper Table 6). ``None``: not at all.
        concat_block (int), dim_embed (int): See there; how many channels the embedding has.
        n_classes (int): Number of classes.
        normalization (Normalization): What is done to weights and features; ``None`` leaves them as they are. Features
            are normalized before each ReLU behind the first block.
        rng (numpy.random.RandomState): Where the initial weights are drawn from; ``None`` is NumPy's global state.

    """

    def __init__(self, size=32, width=64, multiples=(2, 2, 2, 2), downsamplings=2, dense_bias=False, conditional=None,
                 concat_block=3, dim_embed=128, n_classes=0, normalization=None, rng=None):
        super().__init__()
        _halved(size, downsamplings)
        if downsamplings > len(multiples):
            raise ValueError('downsamplings must be at most the number of blocks, {}, not {}'.format(
                len(multiples), downsamplings))
        if conditional == 'concat' and not 1 <= concat_block < len(multiples):
            raise ValueError('concat_block must be a block before the last, 1 to {}, not {}'.format(
                len(multiples) - 1, concat_block))
        norm, channels = normalization or Normalization(), [3] + [m * width for m in multiples]
        self._n_blocks, self._concat_block = len(multiples), concat_block if conditional == 'concat' else None
        self.n_classes = n_classes if conditional else 0
        with self.init_scope():
            for i, (before, after) in enumerate(itertools.pairwise(channels), 1):
                first = i == 1
                before += dim_embed * (i - 1 == self._concat_block)
                block = ResBlock(before, after, after if first else before, 'down' if i <= downsamplings else None,
                                 not first, norm.weight, (lambda n: None) if first else norm.features, rng)
                setattr(self, 'block%d' % i, block)
            self.norm = norm.features(channels[-1])
            self.dense = norm.weight(L.Linear(channels[-1], 1, nobias=not dense_bias, initialW=glorot(rng)))
            if conditional:
                dim = channels[-1] if conditional == 'projection' else dim_embed
                self.embed = norm.weight(ClassEmbedding(n_classes, dim, initialW=glorot(rng)))

    @normalized_together
    def forward(self, x, y=None):
        """Turn pictures (N, 3, size, size) float32 in [-1, 1], with classes y (N,) int32 if there are classes, into
        logits (N, 1).
        """
        _check_classes(self.n_classes, y)
        h = x
        for i in range(1, self._n_blocks + 1):
            h = self['block%d' % i](h)
            if i == self._concat_block:
                e = self.embed(y)[:, :, None, None]
                h = F.concat((h, F.broadcast_to(e, e.shape[:2] + h.shape[2:])))
        h = F.sum(F.relu(normalize(self.norm, h)), axis=(2, 3))
        logits = self.dense(h)
        if self.n_classes and self._concat_block is None:
            logits += F.sum(self.embed(y) * h, axis=1, keepdims=True)
        return logits


def _halved(size, times):
    """``size`` / 2^``times``; raises ValueError unless that is a whole number above 0."""
    if times < 0 or size < 2 ** times or size % 2 ** times:
        raise ValueError('the size of a picture must be a multiple of {}, not {}'.format(2 ** max(times, 0), size))
    return size // 2 ** times


# Name -> generator, the keys of a row that it takes (with the names of its arguments where they differ), and likewise
# discriminator
ARCHITECTURES = {
    'cnn': (CNNGenerator, {key: key for key in ('width', 'dim_z', 'dense_bn', 'last', 'initial_scale')},
            CNNDiscriminator, {key: key for key in ('width', 'multiples', 'slope', 'initial_scale')}),
    'resnet': (ResNetGenerator, {'width': 'width', 'dim_z': 'dim_z', 'generator': 'multiples'},
               ResNetDiscriminator, {'width': 'width', 'discriminator': 'multiples', **{key: key for key in (
                   'downsamplings', 'dense_bias', 'conditional', 'concat_block', 'dim_embed')}}),
}


def _architecture(row):
    if row['architecture'] not in ARCHITECTURES:
        raise UserError('model.architecture must be one of {}, not {!r}'.format(
            ', '.join(ARCHITECTURES), row['architecture']))
    return ARCHITECTURES[row['architecture']]


def _make(kind, options, row, size, n_classes, **arguments):
    missing = [key for key in options if key not in row]
    if missing:
        raise UserError('model.{} is missing'.format(missing[0]))
    if row.get('conditional') and n_classes < 2:
        raise UserError('model.conditional: {} needs classes, but dataset.n_classes is {}'.format(
            row['conditional'], n_classes))
    if row.get('conditional'):
        arguments['n_classes'] = n_classes
    try:
        return kind(size=size, **arguments, **{argument: row[key] for key, argument in options.items()})
    except ValueError as error:
        raise UserError('model {}: {}'.format(row['architecture'], error)) from error


def build_generator(row, size, seed, n_classes=0):
    """Make the generator that a row of ``configs/models.yml`` describes.

    Args:
        row (Mapping): The row: ``architecture`` and its options.
        size (int): Height and width of a picture.
        seed (int): The initial weights are a function of it.
        n_classes (int): Number of the data set's classes, for conditional networks.

    Raises:
        UserError: There is no such architecture, or it cannot be built for these pictures or classes.

    """
    return _make(*_architecture(row)[:2], row, size, n_classes, rng=noise.random_state(seed, 'generator'))


def build_discriminator(row, size, seed, normalization=None, n_classes=0):
    """Make the discriminator that a row of ``configs/models.yml`` describes; arguments as of :func:`build_generator`.

    ``normalization`` is a :class:`util.normalization.Normalization`, what a method does to weights and features.
    """
    return _make(*_architecture(row)[2:], row, size, n_classes, rng=noise.random_state(seed, 'discriminator'),
                 normalization=normalization)
