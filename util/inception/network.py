"""The network itself: pictures in, features and class probabilities out, as the TensorFlow graph gives them."""
import chainer
import numpy as np

from util.engine import inference
from util.engine.threads import parallel_map
from util.inception import layers, weights
from util.inception.resize import resize_bilinear
from util.npz import fingerprint

_CPU_BATCH, _GPU_BATCH = 4, 64  # pictures at a time: of a thread; of the GPU


class Convolution(chainer.Link):
    """A convolution with its batch normalization folded in, and ReLU.

    Attributes:
        W (chainer.Parameter): (kh * kw * n_in, n_out), rows in the order (kh, kw, n_in).
        b (chainer.Parameter): (n_out,).

    """

    def __init__(self, layer):
        super().__init__()
        self.conv = layer.conv
        with self.init_scope():
            self.W = chainer.Parameter(shape=(int(np.prod(layer.shape[1:])), layer.conv.n_out), initializer=0)
            self.b = chainer.Parameter(shape=layer.conv.n_out, initializer=0)

    def set(self, W, gamma, beta, mean, var):
        """Fold the batch normalization, gamma (Wx - mean) / sqrt(var + eps) + beta, into the weight; in float64."""
        scale = gamma / np.sqrt(var.astype('d') + layers.BN_EPS)
        self.W.array[...] = (W * scale[:, None, None, None]).transpose(2, 3, 1, 0).reshape(self.W.shape)
        self.b.array[...] = beta - mean * scale

    def forward(self, x):
        """``x`` (N, H, W, n_in) -> (N, H', W', n_out)."""
        return inference.convolve(
            self.xp, x, self.W.array, self.b.array, self.conv.kernel, self.conv.stride, self.conv.pad)


class Inception(chainer.Chain):
    """The Inception network of 2015-12-05, in test mode; it has no gradient.

    Its answers are those of the TensorFlow graph that the Inception Score and the FID are defined by: the pictures are
    resized as TensorFlow 1 did, batch normalization has epsilon 1e-3, average pooling leaves the padding out, and the
    probabilities are of logits without bias over all 1,008 classes. Make one with :meth:`load`.

    Attributes:
        fingerprint (str): SHA-256 of the weights, in hexadecimal digits.
        released (bool): Whether they are the released ones. Others make no Inception Score.

    """

    def __init__(self):
        super().__init__()
        for layer in layers.LAYERS:
            self.add_link(layer.name, Convolution(layer))
        with self.init_scope():
            self.softmax_W = chainer.Parameter(shape=(layers.N_CLASSES, layers.N_FEATURES), initializer=0)
        self.fingerprint, self.released = None, False

    @classmethod
    def load(cls, path=weights.PATH):
        """Make the network from the npz that ``make inception`` writes.

        Raises:
            UserError: The file is missing, damaged or of another kind.

        """
        arrays, origin = weights.read(path)
        network = cls.from_weights(arrays)
        network.released = origin.released
        return network

    @classmethod
    def from_weights(cls, arrays):
        """Make the network from arrays by the names that are in its npz."""
        network = cls()
        for layer in layers.LAYERS:
            network[layer.name].set(*(arrays['{}/{}'.format(layer.name, key)] for key in (
                'W', 'gamma', 'beta', 'mean', 'var')))
        network.softmax_W.array[...] = arrays['softmax/W']
        network.fingerprint = fingerprint(arrays)
        return network

    def forward(self, images):
        """Look at pictures.

        Args:
            images (array): (N, 3, H, W), RGB, uint8 or float in 0 to 255, of any height and width; on the CPU or on
                the network's device.

        Returns:
            tuple of array: Features (N, 2048) and probabilities (N, 1008), float32, on the network's device.

        Raises:
            ValueError: The pictures are of another type or shape.

        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype.kind != 'f' and images.dtype != np.uint8:
            raise ValueError('pictures must be uint8 or float (N, 3, H, W), not {} {}'.format(
                images.dtype, images.shape))
        # On a CPU each thread takes pictures of its own through the whole network
        batch, apply = (_CPU_BATCH, parallel_map) if self.xp is np else (_GPU_BATCH, map)
        parts = [images[i:i + batch] for i in range(0, len(images), batch)]
        with chainer.using_device(self.device):
            nothing = self.xp.empty((0, layers.N_FEATURES), 'f')
            features = self.xp.concatenate([nothing, *apply(self._features, parts)])
            return features, softmax(self.xp, self.logits(features))

    def logits(self, features):
        """Logits (N, 1008) of features (N, 2048): without bias, as the Inception Score takes them."""
        return features @ self.softmax_W.array.T

    def _features(self, images):
        x = preprocess(self.xp, self.device.send(images))
        return self._apply(layers.STEPS, x).mean(axis=(1, 2))

    def _apply(self, steps, x, prefix=''):
        """Apply steps one after another to ``x`` (N, H, W, C)."""
        for step in steps:
            if isinstance(step, layers.Conv):
                x = self[prefix + step.name](x)
            elif isinstance(step, layers.Block):
                branches = [self._apply(branch, x, prefix + step.prefix) for branch in step.branches]
                x = self.xp.concatenate(branches, axis=3)
            else:
                x = POOLS[step](self.xp, x)
        return x


POOLS = {
    layers.MAX: lambda xp, x: inference.max_pool(xp, x, 2, 0),
    layers.MAX_SAME: lambda xp, x: inference.max_pool(xp, x, 1, 1),
    layers.AVERAGE_SAME: inference.average_pool,
}


def preprocess(xp, images):
    """Pictures (N, 3, H, W) in 0 to 255 -> (N, 299, 299, 3), float32 in [-1, 1), as the graph does."""
    x = resize_bilinear(xp, images.astype('f'), layers.SIZE, layers.SIZE)
    x -= 128
    x /= 128
    return xp.ascontiguousarray(x.transpose(0, 2, 3, 1))


def softmax(xp, logits):
    """Probabilities (N, n_classes) of logits (N, n_classes); float32, each row computed in float64."""
    e = xp.exp(logits.astype('d') - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype('f')
