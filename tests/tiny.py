"""Tiny networks with all that trains them, for tests of methods."""
import chainer
import numpy as np

from util.config import resolve
from util.device import get_device
from util.trainer import build

PICTURES = np.random.RandomState(0).randint(0, 256, (10, 3, 16, 16)).astype('u1')


def make(method='sn', *overrides, setting='quick', seed=0, batchsize=3, classes=0, **rows):
    """The parts of a run of two channels on ten pictures of 16x16, of so many classes."""
    overrides = ['model.width=2', 'model.dim_z=4', 'dataset.size=16', 'dataset.n_classes=%d' % classes, *overrides]
    config = resolve(profile='quick', method=method, setting=setting, seed=seed, batchsize=batchsize,
                     overrides=overrides, **rows)
    return build(config, get_device('cpu'), PICTURES, np.arange(10, dtype='i') % classes if classes else None)


def observed(parts, update):
    """What is reported while ``update()`` runs."""
    observation, reporter = {}, chainer.reporter.Reporter()
    reporter.add_observer('gen', parts.generator)
    reporter.add_observer('dis', parts.discriminator)
    with reporter.scope(observation):
        update()
    return {key: float(chainer.as_array(value)) for key, value in observation.items()}


def iterate(parts, times=1):
    """So many iterations; what the last one reports."""
    for _ in range(times):
        observation = observed(parts, parts.updater.update)
    return observation


def state(target):
    """All that is saved of a link, an optimizer or an updater, copied."""
    serializer = chainer.serializers.DictionarySerializer()
    target.serialize(serializer)
    return {key: np.array(value) for key, value in serializer.target.items()}


class UsedWeights(chainer.FunctionHook):
    """Collects, in a ``with`` statement, the weights that convolutions, deconvolutions and dense layers compute with.
    """

    name = 'UsedWeights'

    def __init__(self):
        self.weights = []

    def forward_preprocess(self, function, in_data):
        if function.label in ('Convolution2DFunction', 'Deconvolution2DFunction', 'ConvolutionND', 'LinearFunction'):
            self.weights.append(in_data[1].astype('d'))


def used_weights(call, *arguments):
    """The weights that a call computes with, in float64, in the order of the layers."""
    with UsedWeights() as hook:
        call(*arguments)
    return hook.weights


def as_matrix(W, axis=0):
    """A weight as a matrix of its outputs (``axis``) by everything else, in float64."""
    return np.moveaxis(np.asarray(W, 'd'), axis, 0).reshape(W.shape[axis], -1)


def singular_values(W, axis=0):
    return np.linalg.svd(as_matrix(W, axis), compute_uv=False)
