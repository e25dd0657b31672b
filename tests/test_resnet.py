"""The ResNets against the paper's Tables 4 to 6 and the authors' code, written out here by hand.

What a block computes is in tests/util/test_blocks.py.
"""
import chainer.links as L
import numpy as np
import pytest

import model
from util import noise
from util.config import resolve
from util.files import UserError
from util.normalization import Normalization

# Row: size of a picture and of what the dense layer makes, channels of the latter and of each block's output. Hidden
# layers are as wide as the output, and all shortcuts are learned, since all blocks double the picture.
GENERATORS = {
    'resnet': (32, 4, [256, 256, 256, 256]),
    'resnet48': (48, 6, [512, 256, 128, 64]),
    'resnet128': (128, 4, [1024, 1024, 512, 256, 128, 64]),
}
# Row: each block's input, hidden layer, output, and whether its shortcut is learned. Only in the first block, which has
# 3 channels, is the hidden layer as wide as the output.
DISCRIMINATORS = {
    'resnet': [(3, 128, 128, True), (128, 128, 128, True), (128, 128, 128, False), (128, 128, 128, False)],
    'resnet48': [(3, 64, 64, True), (64, 64, 128, True), (128, 128, 256, True), (256, 256, 512, True),
                 (512, 512, 1024, True)],
    'resnet128': [(3, 64, 64, True), (64, 64, 128, True), (128, 128, 256, True), (256, 256, 512, True),
                  (512, 512, 1024, True), (1024, 1024, 1024, False)],
    'resnet128_concat': [(3, 64, 64, True), (64, 64, 128, True), (128, 128, 256, True), (384, 384, 512, True),
                         (512, 512, 1024, True), (1024, 1024, 1024, False)],
}
# Row: the rows of its blocks above, number of classes, shape of D's embedding
ROWS = {
    'resnet': ('resnet', 'resnet', 0, None),
    'resnet_projection': ('resnet', 'resnet', 10, (10, 128)),
    'resnet48': ('resnet48', 'resnet48', 0, None),
    'resnet128': ('resnet128', 'resnet128', 0, None),
    'resnet128_concat': ('resnet128', 'resnet128_concat', 1000, (1000, 128)),
    'resnet128_projection': ('resnet128', 'resnet128', 1000, (1000, 1024)),
}


def size_of(row):
    return GENERATORS[ROWS[row][0]][0]


def shapes(network):
    return {path[1:]: p.shape for path, p in network.namedparams()}


def convolution(name, before, after, k=3):
    return {name + '/W': (after, before, k, k), name + '/b': (after,)}


def norm(name, channels, n_classes):
    per_class = {name + '/gamma/W': (n_classes, channels), name + '/beta/W': (n_classes, channels)}
    return per_class if n_classes else {name + '/gamma': (channels,), name + '/beta': (channels,)}


def generator_by_hand(blocks, n_classes):
    _, bottom, channels = GENERATORS[blocks]
    expected = {'dense/W': (bottom ** 2 * channels[0], 128), 'dense/b': (bottom ** 2 * channels[0],)}
    for i in range(1, len(channels)):
        name, before, after = 'block%d/' % i, channels[i - 1], channels[i]
        expected |= norm(name + 'norm1', before, n_classes) | convolution(name + 'conv1', before, after)
        expected |= norm(name + 'norm2', after, n_classes) | convolution(name + 'conv2', after, after)
        expected |= convolution(name + 'shortcut', before, after, 1)
    return expected | norm('bn', channels[-1], 0) | convolution('last', channels[-1], 3)


def discriminator_by_hand(blocks, embedding):
    bias = {} if blocks == 'resnet' else {'dense/b': (1,)}
    expected = {'dense/W': (1, DISCRIMINATORS[blocks][-1][2])} | bias
    for i, (before, hidden, after, learned) in enumerate(DISCRIMINATORS[blocks], 1):
        name = 'block%d/' % i
        expected |= convolution(name + 'conv1', before, hidden) | convolution(name + 'conv2', hidden, after)
        expected |= convolution(name + 'shortcut', before, after, 1) if learned else {}
    return expected | ({'embed/W': embedding} if embedding else {})


@pytest.fixture
def zeros(monkeypatch):
    """All initial weights are 0, which saves the time to draw forty million of them."""
    class Zeros:
        def uniform(self, low, high, size):
            return np.broadcast_to(np.float32(0), size)

    monkeypatch.setattr(noise, 'random_state', lambda *args: Zeros())


@pytest.mark.parametrize('row', ROWS)
def test_generator_parameter_by_parameter(row, zeros):
    blocks, _, n_classes, _ = ROWS[row]
    network = model.build_generator(resolve(model=row).model, size_of(row), 0, n_classes)
    assert shapes(network) == generator_by_hand(blocks, n_classes)


@pytest.mark.parametrize('row', ROWS)
def test_discriminator_parameter_by_parameter(row, zeros):
    _, blocks, n_classes, embedding = ROWS[row]
    network = model.build_discriminator(resolve(model=row).model, size_of(row), 0, n_classes=n_classes)
    assert shapes(network) == discriminator_by_hand(blocks, embedding)


# G: 128 x 4096 + 4096; three blocks of 2 x 512 (norms), 2 x (9 x 256^2 + 256), 256^2 + 256; 512; 9 x 256 x 3 + 3.
# D: 9 x 3 x 128 + 128 + c + 3 x 128 + 128; 2 c + 128^2 + 128; 2 c; 2 c; 128, where c = 9 x 128^2 + 128 = 147584.
# With 10 classes: each of 6 norms has ten times 512 numbers, D has 10 x 128 more.
@pytest.mark.parametrize('row, generator, discriminator', [
    ('resnet', 528384 + 3 * (1024 + 1180160 + 65792) + 512 + 6915, 151680 + 311680 + 4 * 147584 + 128),
    ('resnet_projection', 4276739 + 9 * 6 * 512, 1053824 + 1280),
])
def test_totals_at_32_pixels(row, generator, discriminator, zeros):
    row = resolve(model=row).model
    assert model.build_generator(row, 32, 0, 10).count_params() == generator
    assert model.build_discriminator(row, 32, 0, None, 10).count_params() == discriminator


def test_unconditional_rows_ignore_the_classes_of_the_data():
    row = resolve(model='resnet', overrides=['model.width=1']).model
    for build in (model.build_generator, model.build_discriminator):
        with_classes, without = (build(row, 32, 0, n_classes=n) for n in (10, 0))
        assert with_classes.n_classes == without.n_classes == 0 and shapes(with_classes) == shapes(without)


def test_a_discriminator_that_is_not_conditional_has_no_classes():
    assert model.ResNetDiscriminator(width=1, n_classes=10).n_classes == 0


# Initial weights

def weights(network):
    """Path -> array of all that is drawn: not the conditional norms' embeddings."""
    return {path[1:]: p.array for path, p in network.namedparams() if path.endswith('/W') and '/norm' not in path}


def build_both(row, n_classes=10, seed=1, **changes):
    options = {**resolve(model=row).model, **changes}
    return (model.build_generator(options, size_of(row), seed, n_classes),
            model.build_discriminator(options, size_of(row), seed, None, n_classes))


@pytest.mark.parametrize('row', ['resnet_projection', 'resnet128_concat'])
def test_initial_weights_are_uniform_in_glorots_limits(row):
    for network in build_both(row, width=8):
        assert len(weights(network)) > 10
        for path, W in weights(network).items():
            fans = (W.shape[0] + W.shape[1]) * np.prod(W.shape[2:], dtype=int)
            limit = (2 ** 0.5 if path.endswith(('conv1/W', 'conv2/W')) else 1) * np.sqrt(6 / fans)
            reached = 0.98 if W.size > 1000 else 0.8
            assert reached * limit < abs(W).max() <= limit * (1 + 1e-6), path
            if W.size > 1000:
                assert W.std() == pytest.approx(limit / 3 ** 0.5, rel=0.03), path
                assert abs(W.mean()) < 4 * W.std() / W.size ** 0.5, path


@pytest.mark.parametrize('row', ['resnet', 'resnet_projection'])
def test_biases_and_shifts_start_as_0_and_multipliers_as_1(row):
    for network in build_both(row, width=1):
        for path, p in network.namedparams():
            if path.endswith(('/b', '/beta', '/beta/W')):
                assert (p.array == 0).all(), path
            elif path.endswith(('/gamma', '/gamma/W')):
                assert (p.array == 1).all(), path


def test_initial_weights_are_a_function_of_the_seed():
    networks = []
    for i, seed in enumerate((0, 0, 1)):
        np.random.seed(i)
        networks.append([weights(network) for network in build_both('resnet_projection', seed=seed, width=1)])
    for first, again, other in zip(*networks, strict=True):
        for path, W in first.items():
            np.testing.assert_array_equal(W, again[path], err_msg=path)
            assert (W != other[path]).any(), path
    assert networks[0][0]['block1/conv2/W'].flat[0] != networks[0][1]['block1/conv2/W'].flat[0]


# What the networks compute

def pictures(n, size):
    return noise.uniform(np, (n, 3, size, size), 0, 0, 'x') * 2 - 1


@pytest.mark.parametrize('row', ROWS)
def test_shapes_and_ranges(row):
    generator, discriminator = build_both(row, n_classes=3, width=1, dim_z=4)
    y = np.array([0, 2], 'i') if ROWS[row][2] else None
    assert generator.n_classes == discriminator.n_classes == (3 if ROWS[row][2] else 0)
    x, size = generator(noise.normal(np, (2, 4), 0, 0, 'z'), y), size_of(row)
    assert x.shape == (2, 3, size, size) and x.dtype == np.float32 and 0 < abs(x.array).max() < 1
    logits = discriminator(x, y)
    assert logits.shape == (2, 1) and logits.dtype == np.float32 and np.isfinite(logits.array).all()


@pytest.mark.parametrize('row', ['resnet_projection', 'resnet128_concat', 'resnet128_projection'])
def test_classes_make_a_difference(row):
    generator, discriminator = build_both(row, n_classes=3, width=1, dim_z=4)
    x = np.repeat(pictures(1, size_of(row)), 3, axis=0)
    logits = discriminator(x, np.array([0, 1, 0], 'i')).array[:, 0]
    assert logits[0] == pytest.approx(logits[2], rel=1e-5) and abs(logits[1] - logits[0]) > 1e-4
    for link in generator.links():
        if link.name == 'beta':  # all classes are alike at first
            link.W.array[1] = 1
    z = np.repeat(noise.normal(np, (1, 4), 0, 0, 'z'), 3, axis=0)
    x = generator(z, np.array([0, 1, 0], 'i')).array
    np.testing.assert_allclose(x[0], x[2], atol=1e-5)
    assert abs(x[0] - x[1]).max() > 1e-2


def with_features(row, features, **changes):
    """A discriminator whose last block's output is ``features``."""
    network = build_both(row, n_classes=3, width=1, **changes)[1]
    network.block4.forward = lambda h, y=None: features
    return network


# The last block's (2, 2, 2, 2): sums of what is above 0 are 1 + 2 = 3 and 4 + 5 + 6 = 15, then 7 and 0
FEATURES = np.array([[[[1, 2], [-9, 0]], [[4, 5], [6, -9]]], [[[0, 7], [0, -1]], [[-1, -2], [-3, 0]]]], 'f')


@pytest.mark.parametrize('bias, expected', [(False, [[3 + 150], [7]]), (True, [[3 + 150 + 0.5], [7 + 0.5]])])
def test_pooling_sums_what_is_above_0(bias, expected):
    network = with_features('resnet', FEATURES, dense_bias=bias)
    network.dense.W.array[...] = [[1, 10]]
    if bias:
        network.dense.b.array[...] = 0.5
    np.testing.assert_array_equal(network(pictures(2, 32)).array, expected)


def test_projection_adds_the_inner_product_of_features_and_embedding():
    network = with_features('resnet_projection', FEATURES)
    network.dense.W.array[...] = [[1, 10]]
    network.embed.W.array[...] = [[100, 1000], [-2, 3], [0.5, 0]]
    np.testing.assert_array_equal(network(pictures(2, 32), np.array([1, 2], 'i')).array,
                                  [[3 + 150 - 2 * 3 + 3 * 15], [7 + 0.5 * 7]])


@pytest.mark.parametrize('block', [1, 3])
def test_concatenation_puts_the_embedding_at_every_position(block):
    network = build_both('resnet', n_classes=3, width=1, conditional='concat', concat_block=block, dim_embed=2)[1]
    following, inputs = network['block%d' % (block + 1)], []
    following.forward = lambda h, y=None: inputs.append(h.array) or type(following).forward(following, h)
    network.embed.W.array[...] = [[100, 1000], [-2, 3], [0.5, 0]]
    network(pictures(2, 32), np.array([1, 2], 'i'))
    h, = inputs
    assert h.shape[:2] == (2, 2 + 2) and h[:, :2].std() > 0
    assert (h[0, 2] == -2).all() and (h[0, 3] == 3).all() and (h[1, 2] == 0.5).all() and (h[1, 3] == 0).all()
    assert following.conv1.W.shape == (4, 4, 3, 3)  # the hidden layer is as wide as this input
    assert [network['block%d' % i].conv1.W.shape[1] for i in (1, 2, 3, 4) if i != block + 1] == [3, 2, 2]


class Recording(Normalization):
    """Notes what it is given."""

    def __init__(self):
        self.weights, self.channels = [], []

    def weight(self, link):
        self.weights.append(link)
        return link

    def features(self, channels):
        self.channels.append(channels)
        return L.BatchNormalization(channels)


@pytest.mark.parametrize('row, channels', [
    ('resnet_projection', 7 * [2]),  # two in each block but the first one's first, which has none of both; and the last
    ('resnet48', [1, 1, 2, 2, 4, 4, 8, 8, 16]),
    ('resnet128_concat', [1, 1, 2, 2, 4 + 5, 4 + 5, 8, 8, 16, 16, 16])])
def test_normalization_is_given_every_weight_and_the_features_behind_the_first_block(row, channels):
    recording, options = Recording(), {**resolve(model=row).model, 'width': 1, 'dim_embed': 5}
    network = model.build_discriminator(options, size_of(row), 0, recording, 3)
    assert sorted(map(id, recording.weights)) == sorted(
        id(link) for link in network.links() if isinstance(link, (L.Convolution2D, L.Linear, L.EmbedID)))
    assert recording.channels == channels
    assert network.block1.norm1 is None and network.block1.norm2 is None
    y = np.array([0, 2], 'i') if network.n_classes else None
    x = 3 * pictures(2, size_of(row))
    network(x, y)
    assert all(link.avg_mean.any() for link in network.links() if isinstance(link, L.BatchNormalization))


# What cannot be built

@pytest.mark.parametrize('row, size, message', [
    ('resnet', 36, 'model resnet: the size of a picture must be a multiple of 8, not 36'),
    ('resnet', 4, 'must be a multiple of 8, not 4'),
    ('resnet128', 48, 'must be a multiple of 32, not 48')])
def test_sizes_that_blocks_do_not_double_to(row, size, message):
    with pytest.raises(UserError, match=message):
        model.build_generator({**resolve(model=row).model, 'width': 1}, size, 0)


@pytest.mark.parametrize('row, size, message', [
    ('resnet', 30, 'model resnet: the size of a picture must be a multiple of 4, not 30'),
    ('resnet48', 40, 'must be a multiple of 16, not 40'),
    ('resnet128', 48, 'must be a multiple of 32, not 48')])
def test_sizes_that_blocks_do_not_halve(row, size, message):
    with pytest.raises(UserError, match=message):
        model.build_discriminator({**resolve(model=row).model, 'width': 1}, size, 0)


@pytest.mark.parametrize('n_classes', [0, 1])
@pytest.mark.parametrize('row', ['resnet_projection', 'resnet128_concat'])
def test_conditional_rows_need_classes(row, n_classes):
    options = {**resolve(model=row).model, 'width': 1}
    for build in (model.build_generator, model.build_discriminator):
        with pytest.raises(UserError, match='needs classes, but dataset.n_classes is {}'.format(n_classes)):
            build(options, size_of(row), 0, n_classes=n_classes)


@pytest.mark.parametrize('key', ['discriminator', 'downsamplings', 'dense_bias', 'conditional', 'concat_block'])
def test_a_row_must_have_every_key(key):
    options = {k: v for k, v in resolve(model='resnet').model.items() if k != key}
    with pytest.raises(UserError, match='model.{} is missing'.format(key)):
        model.build_discriminator(options, 32, 0)


@pytest.mark.parametrize('changes, message', [
    ({'conditional': 'concat', 'concat_block': 4}, 'concat_block'),  # behind the last block there is nothing
    ({'conditional': 'concat', 'concat_block': 5}, 'concat_block'),
    ({'downsamplings': 5}, 'downsamplings'),  # of four blocks
])
def test_blocks_that_are_not_there(changes, message):
    options = {**resolve(model='resnet').model, 'width': 1, **changes}
    with pytest.raises(UserError, match=message):
        model.build_discriminator(options, 32, 0, None, 3)


def test_classes_where_there_are_none_and_none_where_there_are():
    z, x, y = np.zeros((2, 128), 'f'), pictures(2, 32), np.zeros(2, 'i')
    for networks, classes, message in ((build_both('resnet', width=1), y, 'no classes, but y is given'),
                                       (build_both('resnet_projection', n_classes=3, width=1), None, '3 classes, but')):
        for network, first in zip(networks, (z, x), strict=True):
            with pytest.raises(ValueError, match=message):
                network(first, classes)
