"""The standard CNN against the paper's Table 3, written out here by hand, and what all architectures share; the ResNets
have test_resnet.py.
"""
import chainer
import numpy as np
import pytest

import model
from util import noise
from util.config import resolve
from util.files import UserError
from util.normalization import Normalization

# Parameters of each layer at the paper's width, weights + biases: (kernel^2 * in * out) + out. Batch normalization: 2 a
# channel.
TABLE_3_DISCRIMINATOR = {
    'conv1': 3 * 3 * 3 * 64 + 64, 'conv2': 4 * 4 * 64 * 64 + 64, 'conv3': 3 * 3 * 64 * 128 + 128,
    'conv4': 4 * 4 * 128 * 128 + 128, 'conv5': 3 * 3 * 128 * 256 + 256, 'conv6': 4 * 4 * 256 * 256 + 256,
    'conv7': 3 * 3 * 256 * 512 + 512}
SNDCGAN_DISCRIMINATOR = {
    'conv1': 3 * 3 * 3 * 64 + 64, 'conv2': 4 * 4 * 64 * 128 + 128, 'conv3': 3 * 3 * 128 * 128 + 128,
    'conv4': 4 * 4 * 128 * 256 + 256, 'conv5': 3 * 3 * 256 * 256 + 256, 'conv6': 4 * 4 * 256 * 512 + 512,
    'conv7': 3 * 3 * 512 * 512 + 512}
DECONVOLUTIONS = {
    'deconv1': 4 * 4 * 512 * 256 + 256, 'bn1': 2 * 256, 'deconv2': 4 * 4 * 256 * 128 + 128, 'bn2': 2 * 128,
    'deconv3': 4 * 4 * 128 * 64 + 64, 'bn3': 2 * 64, 'last': 3 * 3 * 64 * 3 + 3}
BOTTOM = {32: 4, 48: 6}  # M_g


def counts(network):
    return {child.name: sum(p.size for p in child.params()) for child in network.children()}


@pytest.mark.parametrize('size', [32, 48])
@pytest.mark.parametrize('row, table', [('cnn', TABLE_3_DISCRIMINATOR), ('sndcgan', SNDCGAN_DISCRIMINATOR)])
def test_discriminator_layer_by_layer(row, table, size):
    network = model.build_discriminator(resolve(model=row).model, size, 0)
    assert counts(network) == {**table, 'dense': BOTTOM[size] ** 2 * 512 + 1}


@pytest.mark.parametrize('size', [32, 48])
@pytest.mark.parametrize('row', ['cnn', 'sndcgan'])
def test_generator_layer_by_layer(row, size):
    network = model.build_generator(resolve(model=row).model, size, 0)
    units = BOTTOM[size] ** 2 * 512
    expected = {'dense': 128 * units + units, **({'bn0': 2 * units} if row == 'sndcgan' else {}), **DECONVOLUTIONS}
    assert counts(network) == expected


@pytest.mark.parametrize('row', ['cnn', 'sndcgan'])
@pytest.mark.parametrize('size', [32, 48])
def test_shapes_and_ranges(row, size):
    row = resolve(model=row, overrides=['model.width=4']).model
    generator, discriminator = model.build_generator(row, size, 0), model.build_discriminator(row, size, 0)
    x = generator(noise.normal(np, (3, 128), 0, 0, 'z'))
    assert x.shape == (3, 3, size, size) and x.dtype == np.float32 and abs(x.array).max() < 1
    assert discriminator(x).shape == (3, 1)


def test_strides_halve_and_double():
    network = model.build_discriminator(resolve().model, 32, 0)
    assert [(network['conv%d' % i].ksize, network['conv%d' % i].stride[0]) for i in range(1, 8)] == [
        (3, 1), (4, 2), (3, 1), (4, 2), (3, 1), (4, 2), (3, 1)]


def test_initial_weights():
    row = resolve().model
    for network in (model.build_generator(row, 32, 1), model.build_discriminator(row, 32, 1)):
        for path, p in network.namedparams():
            if path.endswith('/W') and p.size > 1e5:
                assert abs(p.array.std() - 0.02) < 2e-4 and abs(p.array.mean()) < 2e-4, path
            elif path.endswith('/b'):
                assert not p.array.any(), path


def test_initial_weights_are_a_function_of_the_seed():
    row = resolve(overrides=['model.width=4']).model
    first = [model.build_generator(row, 32, seed).dense.W.array for seed in (0, 0, 1)]
    np.random.seed(9)
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[0] != first[2]).any()
    assert (model.build_discriminator(row, 32, 0).dense.W.array.std()) > 0


def test_leaky_relu_slope():
    row = resolve(overrides=['model.width=2']).model
    network = model.build_discriminator(row, 32, 0)
    inputs = []
    network.conv2.forward = lambda h: inputs.append(h.array) or type(network.conv2).forward(network.conv2, h)
    x = np.random.RandomState(0).randn(2, 3, 32, 32).astype('f')
    network(x)
    before = network.conv1(x).array
    np.testing.assert_allclose(inputs[0], np.where(before > 0, before, np.float32(0.1) * before), rtol=1e-6)


class Recording(Normalization):
    """Notes what it is given, and doubles features."""

    def __init__(self):
        self.weights, self.channels = [], []

    def weight(self, link):
        assert link.name is None  # as yet
        self.weights.append(link)
        return link

    def features(self, channels):
        self.channels.append(channels)
        return chainer.Sequential(lambda h: 2 * h)


def test_normalization_is_given_each_weight_and_the_features_but_the_first():
    recording = Recording()
    network = model.build_discriminator(resolve(overrides=['model.width=2']).model, 32, 0, recording)
    layers = ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'conv6', 'conv7', 'dense']
    assert [link.name for link in recording.weights] == layers
    assert all(network[name] is link for name, link in zip(layers, recording.weights, strict=True))
    assert recording.channels == [2, 4, 4, 8, 8, 16]


def test_features_are_normalized_between_convolution_and_activation():
    row = resolve(overrides=['model.width=2']).model
    plain, doubled = model.build_discriminator(row, 32, 0), model.build_discriminator(row, 32, 0, Recording())
    x = noise.normal(np, (2, 3, 32, 32), 0, 0, 'x')
    expected = plain(x).array
    assert abs(expected).min() > 0
    np.testing.assert_allclose(doubled(x).array, 2 ** 6 * expected, rtol=1e-4)  # biases are 0 yet


@pytest.mark.parametrize('make, arguments', [
    (model.CNNGenerator, {'size': 33}), (model.CNNDiscriminator, {'size': 4}), (model.CNNGenerator, {'last': 'dense'}),
    (model.CNNDiscriminator, {'multiples': (1, 2)})])
def test_impossible_arguments(make, arguments):
    with pytest.raises(ValueError):
        make(**arguments)


def test_generator_in_test_mode_does_not_depend_on_the_batch():
    generator = model.build_generator(resolve(overrides=['model.width=4']).model, 32, 0)
    z = noise.normal(np, (4, 128), 0, 0, 'z')
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        np.testing.assert_allclose(generator(z).array[:2], generator(z[:2]).array, atol=1e-6)


@pytest.mark.parametrize('row', ['cnn', 'sndcgan'])
def test_the_cnn_has_no_classes(row):
    row, y = resolve(model=row, overrides=['model.width=1']).model, np.zeros(2, 'i')
    generator, discriminator = model.build_generator(row, 32, 0, 10), model.build_discriminator(row, 32, 0, None, 10)
    assert generator.n_classes == discriminator.n_classes == 0
    for network, x in ((generator, np.zeros((2, 128), 'f')), (discriminator, np.zeros((2, 3, 32, 32), 'f'))):
        with pytest.raises(ValueError, match='no classes'):
            network(x, y)


@pytest.mark.parametrize('change, message', [
    ({'architecture': 'vgg'}, "model.architecture must be one of cnn, resnet, not 'vgg'"),
    ({'architecture': 'resnet'}, 'model.generator is missing'),
    ({'width': None}, 'model.width is missing'),
])
def test_rows_that_describe_no_network(change, message):
    row = {key: value for key, value in {**resolve().model, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        model.build_generator(row, 32, 0)


def test_a_size_that_no_network_has_is_refused_by_name():
    for build in (model.build_generator, model.build_discriminator):
        with pytest.raises(UserError, match='model cnn: the size of a picture must be a multiple of 8, not 30'):
            build(resolve(overrides=['model.width=1']).model, 30, 0)
