"""Generator and discriminator of each architecture, and nothing else.

The standard CNN of *Spectral Normalization for GANs* (Miyato et al., ICLR 2018), Table 3, and the variant that its
authors published (``sndcgan``, in their chainer-gan-lib) are one pair of classes with different options: rows of
``configs/models.yml``.
"""
from util import noise  # isort: skip  (before Chainer, which needs util.compat)

import chainer
import chainer.functions as F
import chainer.links as L

from util.files import UserError


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

    def forward(self, z):
        """Turn z (N, dim_z) float32 into pictures (N, 3, size, size) float32 in (-1, 1)."""
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
        normalization (callable): Takes each link that carries a weight and returns it normalized (for example with a
            link hook); ``None`` leaves the weights as they are.
        initial_scale (float): All weights start as N(0, initial_scale^2).
        rng (numpy.random.RandomState): Where the initial weights are drawn from; ``None`` is NumPy's global state.

    """

    def __init__(self, size=32, width=64, multiples=(1, 1, 2, 2, 4, 4, 8), slope=0.1, normalization=None,
                 initial_scale=0.02, rng=None):
        super().__init__()
        _check_size(size)
        if len(multiples) != 7:
            raise ValueError('multiples must name seven widths, not {}'.format(len(multiples)))
        self.slope = slope
        normalization = normalization or (lambda link: link)
        w = chainer.initializers.Normal(initial_scale, rng=rng)
        channels = [3] + [m * width for m in multiples]
        with self.init_scope():
            for i in range(7):
                kernel, stride = (4, 2) if i % 2 else (3, 1)
                convolution = L.Convolution2D(channels[i], channels[i + 1], kernel, stride, 1, initialW=w)
                setattr(self, 'conv%d' % (i + 1), normalization(convolution))
            self.dense = normalization(L.Linear((size // 8) ** 2 * channels[-1], 1, initialW=w))

    def forward(self, x):
        """Turn pictures (N, 3, size, size) float32 in [-1, 1] into logits (N, 1); D(x) is their sigmoid."""
        h = x
        for i in range(7):
            h = F.leaky_relu(self['conv%d' % (i + 1)](h), slope=self.slope)
        return self.dense(h)


def _check_size(size):
    if size < 8 or size % 8:
        raise ValueError('the size of a picture must be a multiple of 8, not {}'.format(size))


ARCHITECTURES = {
    'cnn': (CNNGenerator, ('width', 'dim_z', 'dense_bn', 'last', 'initial_scale'),
            CNNDiscriminator, ('width', 'multiples', 'slope', 'initial_scale')),
}


def _architecture(row):
    if row['architecture'] not in ARCHITECTURES:
        raise UserError('model.architecture must be one of {}, not {!r}'.format(
            ', '.join(ARCHITECTURES), row['architecture']))
    return ARCHITECTURES[row['architecture']]


def _pick(row, options):
    missing = [key for key in options if key not in row]
    if missing:
        raise UserError('model.{} is missing'.format(missing[0]))
    return {key: row[key] for key in options}


def build_generator(row, size, seed):
    """Make the generator that a row of ``configs/models.yml`` describes.

    Args:
        row (Mapping): The row: ``architecture`` and its options.
        size (int): Height and width of a picture.
        seed (int): The initial weights are a function of it.

    Raises:
        UserError: There is no such architecture.

    """
    make, options = _architecture(row)[:2]
    return make(size=size, rng=noise.random_state(seed, 'generator'), **_pick(row, options))


def build_discriminator(row, size, seed, normalization=None):
    """Make the discriminator that a row of ``configs/models.yml`` describes; arguments as of :func:`build_generator`.

    ``normalization`` is a callable that takes a link and returns it normalized.
    """
    make, options = _architecture(row)[2:]
    return make(size=size, rng=noise.random_state(seed, 'discriminator'), normalization=normalization,
                **_pick(row, options))
