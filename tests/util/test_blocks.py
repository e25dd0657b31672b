"""The residual block and conditional batch normalization against the authors' code, written out here in its own order:

a generator's block doubles the picture before its first convolution, and its shortcut doubles, then convolves; a
discriminator's pools at its end, and its shortcut convolves, then pools; but the first one's pools, then convolves.
"""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import model
from util.blocks import ClassEmbedding, ConditionalBatchNormalization, ResBlock, normalize
from util.config import resolve


@pytest.fixture(autouse=True)
def float64():
    with chainer.using_config('dtype', np.float64):
        yield


def draw(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


def randomize(network):
    """Give every parameter a value that says something: biases and BN's beta are 0 at first."""
    for i, (_, p) in enumerate(sorted(network.namedparams())):
        p.array[...] += 0.3 * draw(*p.shape, seed=i)


# The authors' order

def up(x):
    return F.repeat(F.repeat(x, 2, axis=2), 2, axis=3)


def pool(x):
    return sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4


def convolve(link, x):
    return F.convolution_2d(x, link.W, link.b, pad=link.W.shape[2] // 2)


def standardized(x):
    """Batch statistics, with the biased variance and Chainer's eps."""
    mean = F.broadcast_to(F.mean(x, axis=(0, 2, 3), keepdims=True), x.shape)
    variance = F.broadcast_to(F.mean((x - mean) ** 2, axis=(0, 2, 3), keepdims=True), x.shape)
    return (x - mean) / F.sqrt(variance + 2e-5)


def normalized(norm, x, y):
    if isinstance(norm, ConditionalBatchNormalization):
        gamma, beta = (F.stack([link.W[k] for k in y]) for link in (norm.gamma, norm.beta))
    else:
        gamma, beta = (F.stack(len(x) * [p]) for p in (norm.gamma, norm.beta))
    gamma, beta = (F.broadcast_to(p.reshape(*p.shape, 1, 1), x.shape) for p in (gamma, beta))
    return gamma * standardized(x) + beta


def official_generator_block(block, x, y=None):
    h = convolve(block.conv1, up(F.relu(normalized(block.norm1, x, y))))
    h = convolve(block.conv2, F.relu(normalized(block.norm2, h, y)))
    return h + convolve(block.shortcut, up(x))


def official_block(block, x, downsample):
    h = convolve(block.conv2, F.relu(convolve(block.conv1, F.relu(x))))
    shortcut = convolve(block.shortcut, x) if block.shortcut else x
    return pool(h) + pool(shortcut) if downsample else h + shortcut


def official_first_block(block, x):
    h = convolve(block.conv2, F.relu(convolve(block.conv1, x)))
    return pool(h) + convolve(block.shortcut, pool(x))


def agree(block, ours, theirs, without_effect=()):
    """The same outputs, and the same gradients of every parameter."""
    np.testing.assert_allclose(ours.array, theirs.array, rtol=1e-12, atol=1e-12)
    weights = draw(*ours.shape, seed=99)
    gradients = []
    for y in (ours, theirs):
        block.cleargrads()
        F.sum(weights * y).backward()
        gradients.append({path: p.grad for path, p in block.namedparams()})
    for path, gradient in gradients[0].items():
        assert (abs(gradient).max() > 1e-3) == (path not in without_effect), path
        np.testing.assert_allclose(gradient, gradients[1][path], rtol=1e-9, atol=1e-11, err_msg=path)


def make(before, after, hidden, resample, leading, features=lambda n: None):
    block = ResBlock(before, after, hidden, resample, leading, lambda link: link, features, np.random.RandomState(0))
    randomize(block)
    return block


@pytest.mark.parametrize('size', [2, 6])
@pytest.mark.parametrize('before, after, hidden, resample', [
    (3, 5, 3, 'down'), (4, 4, 4, 'down'), (4, 4, 7, None), (3, 5, 3, None), (5, 2, 4, 'down')])
def test_discriminators_block(before, after, hidden, resample, size):
    block = make(before, after, hidden, resample, True)
    x = draw(2, before, size, size)
    y = block(x)
    assert y.shape == (2, after, *2 * [size // 2 if resample else size])
    agree(block, y, official_block(block, chainer.Variable(x), resample == 'down'))


def test_discriminators_first_block():
    block = make(3, 5, 5, 'down', False)
    x = draw(2, 3, 6, 6)
    agree(block, block(x), official_first_block(block, chainer.Variable(x)))


@pytest.mark.parametrize('before, after', [(3, 5), (4, 4), (5, 2)])
@pytest.mark.parametrize('features, y', [
    (L.BatchNormalization, None),
    (lambda n: ConditionalBatchNormalization(n, 3), np.array([2, 0, 1, 2], 'i'))])
def test_generators_block(before, after, features, y):
    block, x = make(before, after, after, 'up', True, features), draw(4, before, 4, 4)
    h = block(x, y)
    assert h.shape == (4, after, 8, 8)
    agree(block, h, official_generator_block(block, chainer.Variable(x), y), {'/conv1/b'})  # a norm takes it away


@pytest.mark.parametrize('before, after, resample, learned', [
    (4, 4, None, False), (4, 5, None, True), (4, 4, 'down', True), (4, 4, 'up', True)])
def test_a_shortcut_is_learned_where_channels_or_size_change(before, after, resample, learned):
    block = make(before, after, after, resample, True)
    assert (block.shortcut is not None) == learned
    for link in (block.conv1, block.conv2):
        link.W.array[...], link.b.array[...] = 0, 0
    x = draw(1, before, 4, 4)
    if learned:
        block.shortcut.W.array[...], block.shortcut.b.array[...] = 0, 1
    np.testing.assert_array_equal(block(x).array, np.ones_like(block(x).array) if learned else x)


def test_the_doubled_picture_is_that_of_the_nearest_neighbour():
    block = make(1, 1, 1, 'up', True)
    block.conv2.W.array[...], block.conv2.b.array[...] = 0, 0
    block.shortcut.W.array[...], block.shortcut.b.array[...] = 1, 0
    np.testing.assert_array_equal(block(np.array([[[[1., 2], [3, 4]]]])).array[0, 0], [
        [1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])


@pytest.mark.parametrize('leading, expected', [(True, ['norm', 'conv', 'norm', 'conv', 'conv']),
                                               (False, ['conv', 'norm', 'conv', 'conv'])])
def test_norms_and_weights_come_from_the_callables(leading, expected):
    made = []

    def weight(link):
        made.append('conv')
        return link

    def features(channels):
        made.append('norm')
        return L.BatchNormalization(channels)
    block = ResBlock(2, 3, 4, 'down', leading, weight, features)
    assert sorted(made) == sorted(expected)
    assert (block.norm1 is not None) == leading and block.norm2.gamma.shape == (4,)
    if leading:
        assert block.norm1.gamma.shape == (2,)


# The whole networks

@pytest.mark.parametrize('row, size', [('resnet', 32), ('resnet_projection', 32), ('resnet48', 48), ('resnet128', 128)])
def test_generator_in_the_authors_order(row, size):
    options = resolve(model=row, overrides=['model.width=1', 'model.dim_z=4']).model
    network = model.build_generator(options, size, 0, 3)
    randomize(network)
    z, y = draw(3, 4), np.array([2, 1, 2], 'i') if network.n_classes else None
    bottom = {32: 4, 48: 6, 128: 4}[size]
    h = (z @ network.dense.W.array.T + network.dense.b.array).reshape(3, -1, bottom, bottom)
    for i in range(1, 6 if size == 128 else 4):
        h = official_generator_block(network['block%d' % i], h, y)
    x = np.tanh(convolve(network.last, F.relu(normalized(network.bn, h, None))).array)
    with chainer.no_backprop_mode():
        np.testing.assert_allclose(network(z, y).array, x, rtol=1e-9, atol=1e-12)


# Row: its blocks that halve the picture, and all of them
BLOCKS = {'resnet': (2, 4), 'resnet_projection': (2, 4), 'resnet48': (4, 5), 'resnet128': (5, 6),
          'resnet128_concat': (5, 6), 'resnet128_projection': (5, 6)}


@pytest.mark.parametrize('row', BLOCKS)
def test_discriminator_in_the_authors_order(row):
    options = resolve(model=row, overrides=['model.width=2', 'model.dim_embed=5']).model
    size = {4: 32, 5: 48, 6: 128}[BLOCKS[row][1]]
    network = model.build_discriminator(options, size, 0, n_classes=3)
    randomize(network)
    x, y = 2 * draw(2, 3, size, size), np.array([2, 1], 'i')
    h = official_first_block(network.block1, x)
    for i in range(2, BLOCKS[row][1] + 1):
        if row == 'resnet128_concat' and i == 4:
            assert h.shape == (2, 8, 16, 16)
            h = np.concatenate((h.array, np.full((16, 16, 2, 5), network.embed.W.array[y]).transpose(2, 3, 0, 1)), 1)
        h = official_block(network['block%d' % i], h, i <= BLOCKS[row][0])
    pooled = np.maximum(h.array, 0).sum(axis=(2, 3))  # not the mean
    logits = pooled @ network.dense.W.array[0] + (0 if BLOCKS[row][1] == 4 else network.dense.b.array)
    if row.endswith('_projection'):
        logits += (network.embed.W.array[y] * pooled).sum(axis=1)
    with chainer.no_backprop_mode():
        ours = network(x, y if network.n_classes else None).array
    np.testing.assert_allclose(ours, logits[:, None], rtol=1e-10)


# Conditional batch normalization

def test_conditional_batch_normalization_begins_as_one_without_multiplier_and_shift():
    norm, x = ConditionalBatchNormalization(3, 4), 5 + 2 * draw(6, 3, 2, 2)
    assert norm.gamma.W.shape == norm.beta.W.shape == (4, 3)
    assert (norm.gamma.W.array == 1).all() and (norm.beta.W.array == 0).all()
    assert sorted(path for path, _ in norm.namedparams()) == ['/beta/W', '/gamma/W']
    expected = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 2e-5)
    np.testing.assert_allclose(norm(x, np.array([0, 1, 2, 3, 0, 1], 'i')).array, expected, rtol=1e-10)


def test_each_example_gets_the_multiplier_and_shift_of_its_class():
    norm, x, y = ConditionalBatchNormalization(2, 3), draw(4, 2, 3, 3), np.array([1, 0, 1, 2], 'i')
    norm.gamma.W.array[...] = [[1, 2], [3, 4], [5, 6]]
    norm.beta.W.array[...] = [[10, 20], [30, 40], [50, 60]]
    result = norm(x, y).array
    mean, deviation = x.mean((0, 2, 3)), np.sqrt(x.var((0, 2, 3)) + 2e-5)  # of all classes together
    for example, gamma, beta in ((0, [3, 4], [30, 40]), (1, [1, 2], [10, 20]), (2, [3, 4], [30, 40]),
                                 (3, [5, 6], [50, 60])):
        for c in (0, 1):
            expected = gamma[c] * (x[example, c] - mean[c]) / deviation[c] + beta[c]
            np.testing.assert_allclose(result[example, c], expected, rtol=1e-10)


def test_running_averages_are_used_in_test_mode():
    norm, x, y = ConditionalBatchNormalization(2, 3), 5 + 2 * draw(4, 2, 3, 3), np.array([1, 0, 1, 2], 'i')
    norm(x, y)
    # The first average is (0, 1); decay 0.9; Chainer averages the unbiased variance, of 4 x 9 numbers
    mean, variance = 0.1 * x.mean((0, 2, 3)), 0.9 + 0.1 * x.var((0, 2, 3)) * 36 / 35
    other = draw(1, 2, 3, 3, seed=1)
    with chainer.using_config('train', False):
        result = norm(other, np.array([2], 'i')).array
    np.testing.assert_allclose(
        result[0], ((other[0].T - mean) / np.sqrt(variance + 2e-5)).T, rtol=1e-10)


def test_only_conditional_normalization_is_given_the_classes():
    x, y = draw(2, 3, 2, 2), np.array([0, 1], 'i')
    assert normalize(None, x, y) is x
    np.testing.assert_array_equal(normalize(lambda h: 2 * h, x, y), 2 * x)
    norm = ConditionalBatchNormalization(3, 2)
    norm.beta.W.array[...] = [[0], [7]]
    result = normalize(norm, x, y).array
    assert abs(result[1] - result[0]).mean() > 5


def test_classes_are_looked_up_as_by_chainers_embedding():
    ours, theirs = ClassEmbedding(5, 3), L.EmbedID(5, 3)
    theirs.W.array[...] = ours.W.array
    y, g = np.array([4, 0, 4, 2], 'i'), draw(4, 3)
    gradients = []
    for link in ours, theirs:
        out = link(y)
        out.grad = g
        link.cleargrads()
        out.backward()
        gradients.append(link.W.grad)
    np.testing.assert_allclose(ours(y).array, theirs(y).array)
    np.testing.assert_allclose(*gradients, rtol=1e-12)
    assert (gradients[0][[1, 3]] == 0).all()
