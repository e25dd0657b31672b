"""One iteration: its steps and their order, what is drawn, what is minimised, what is reported."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from tests.tiny import observed
from util import dataset, loss, noise
from util.config import resolve
from util.device import get_device
from util.trainer import build
from util.updater import GANUpdater

TINY = ['model.width=2', 'model.dim_z=4']


def make(n_dis=2, seed=0, method='sn', batchsize=3):
    config = resolve(profile='quick', method=method, seed=seed, batchsize=batchsize,
                     overrides=TINY + ['setting.n_dis=%d' % n_dis])
    images = np.random.RandomState(0).randint(0, 256, (10, 3, 32, 32)).astype('u1')
    return build(config, get_device('cpu'), images)


def state(network):
    return {path: p.array.copy() for path, p in network.namedparams()}


def changed(network, before):
    return any((p.array != before[path]).any() for path, p in network.namedparams())


def test_an_iteration_is_n_dis_discriminator_steps_and_one_of_the_generator(monkeypatch):
    updater = make(n_dis=3).updater
    calls = []
    for name in ('generator', 'discriminator'):
        original = getattr(updater, 'update_' + name)
        monkeypatch.setattr(updater, 'update_' + name, lambda *a, n=name, f=original: (calls.append(n), f(*a)))
    updater.update()
    assert calls == ['generator'] + 3 * ['discriminator']
    assert updater.iteration == 1
    assert updater.get_optimizer('gen').t == 1 and updater.get_optimizer('dis').t == 3
    assert updater.get_iterator('main').epoch_detail == pytest.approx(3 * 3 / 10)


def test_each_step_moves_one_network_only():
    parts = make()
    generator, discriminator = state(parts.generator), state(parts.discriminator)
    observed(parts, parts.updater.update_generator)
    assert changed(parts.generator, generator) and not changed(parts.discriminator, discriminator)
    generator = state(parts.generator)
    observed(parts, lambda: parts.updater.update_discriminator(0))
    assert changed(parts.discriminator, discriminator) and not changed(parts.generator, generator)


def test_generator_gradient_is_that_of_plain_backward():
    parts = make(method='none')
    parts.updater.get_optimizer('gen').update = lambda: None
    observed(parts, parts.updater.update_generator)
    grads = {path: p.grad.copy() for path, p in parts.generator.namedparams()}
    z, y = parts.updater.latent('generator step', 3)
    assert y is None
    plain = loss.log_generator(parts.discriminator(parts.generator(z)))
    parts.generator.cleargrads()
    plain.backward()
    for path, p in parts.generator.namedparams():
        np.testing.assert_allclose(grads[path], p.grad, rtol=1e-5, atol=1e-8, err_msg=path)
    assert any(np.abs(g).max() > 0 for g in grads.values())


@pytest.mark.parametrize('method', ['sn', 'none'])
def test_same_seed_same_bits_other_seed_others(method):
    states = []
    for seed in (0, 0, 1):
        np.random.seed(seed + 7 * len(states))
        parts = make(seed=seed, method=method)
        for _ in range(2):
            parts.updater.update()
        states.append(np.concatenate([p.array.ravel() for network in (parts.generator, parts.discriminator)
                                      for _, p in sorted(network.namedparams())]))
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[0] != states[2]).any()


def test_sigma_of_every_layer_is_reported():
    parts = make()
    observation = observed(parts, parts.updater.update)
    layers = ['conv%d' % i for i in range(1, 8)] + ['dense']
    assert sorted(observation) == sorted(['gen/loss', 'dis/loss'] + ['sigma/' + layer for layer in layers])
    for layer in layers:
        W = parts.discriminator[layer].W.array
        largest = np.linalg.svd(W.reshape(len(W), -1), compute_uv=False)[0]
        assert 0 < observation['sigma/' + layer] <= largest * 1.2


def test_discriminator_makes_its_fakes_without_a_graph(monkeypatch):
    parts = make(n_dis=1)
    recorded = []
    original = parts.generator.forward
    monkeypatch.setattr(parts.generator, 'forward',
                        lambda *args: (recorded.append(chainer.config.enable_backprop), original(*args))[1])
    parts.updater.update()
    assert recorded == [True, False]


def test_unknown_loss_is_refused():
    from util.files import UserError
    config = resolve(profile='quick', overrides=TINY + ['method.loss=hing'])
    with pytest.raises(UserError, match=r'method\.loss must be one of log'):
        build(config, get_device('cpu'), np.zeros((1, 3, 32, 32), 'u1'))


def test_unknown_normalization_is_refused():
    from util.files import UserError
    config = resolve(profile='quick', overrides=TINY + ['method.normalization=spectrum'])
    with pytest.raises(UserError, match=r'method\.normalization must be null or one of spectral'):
        build(config, get_device('cpu'), np.zeros((1, 3, 32, 32), 'u1'))


def test_batches_are_dequantised():
    iterator = make().updater.get_iterator('main')
    batch = iterator.next()
    assert batch.shape == (3, 3, 32, 32) and batch.dtype == np.float32 and -1 <= batch.min() and batch.max() < 1
    assert (dataset.to_uint8(batch) != batch).any() and len(np.unique(batch)) > 256


# The same with networks whose every number can be worked out

class LinearGenerator(chainer.Chain):
    """Pictures of one pixel, all that it was called with noted."""

    dim_z = 2

    def __init__(self, n_classes):
        super().__init__()
        self.n_classes, self.calls = n_classes, []
        with self.init_scope():
            self.l = L.Linear(2, 3, initialW=np.arange(6).reshape(3, 2) / 5 - 0.4)

    def forward(self, z, y=None):
        self.calls.append((z, y))
        return self.l(z)[:, :, None, None]


class LinearCritic(chainer.Chain):
    """The inner product with w, and if there are classes a bias for each."""

    def __init__(self, n_classes):
        super().__init__()
        self.n_classes, self.calls = n_classes, []
        with self.init_scope():
            self.w = chainer.Parameter(np.array([[1.5], [-2], [0.5]], 'f'))

    def forward(self, x, y=None):
        self.calls.append((chainer.as_array(x).copy(), y))
        return F.matmul(x.reshape(len(x), 3), self.w)


class Shrinking:
    """A normalization that notes when it is asked, and halves the weight."""

    def __init__(self):
        self.w = []

    def penalty(self, discriminator):
        return 0.25 * F.sum(discriminator.w ** 2)

    def constrain(self, discriminator):
        self.w.append(discriminator.w.array.copy())
        discriminator.w.array *= 0.5


PIXELS = np.random.RandomState(1).randint(0, 256, (6, 3, 1, 1)).astype('u1')
LABELS = np.array([3, 1, 4, 1, 2, 0], 'i')
RATE = 0.125


def linear(n_classes=0, name='wasserstein', seed=4, **options):
    generator, critic = LinearGenerator(n_classes), LinearCritic(n_classes)
    networks = {'gen': generator, 'dis': critic}
    optimizers = {key: chainer.optimizers.SGD(RATE).setup(network) for key, network in networks.items()}
    iterator = dataset.BatchIterator(PIXELS, 2, seed, '@numpy', LABELS if n_classes else None)
    return GANUpdater(iterator, optimizers, loss.LOSSES[name], options.pop('n_dis', 1), 2, seed, **options)


def test_generator_steps_come_first_with_a_new_z_each():
    updater = linear(n_dis=2)
    updater.update()
    updater.update()
    draws = [('generator step', 0), ('discriminator step', 0), ('discriminator step', 1)]
    expected = [noise.normal(np, (2, 2), 4, iteration, 'z of ' + purpose, step)
                for iteration in (0, 1) for purpose, step in draws]
    assert len(updater.generator.calls) == 6
    for (z, y), right in zip(updater.generator.calls, expected, strict=True):
        np.testing.assert_array_equal(z, right)
        assert y is None
    assert len({z.tobytes() for z, _ in updater.generator.calls}) == 6


@pytest.mark.parametrize('ratio', [1, 2, 3])
def test_a_generator_step_takes_that_many_batches(ratio):
    updater = linear(n_gen_ratio=ratio, n_dis=2)
    updater.update()
    assert [len(z) for z, _ in updater.generator.calls] == [2 * ratio, 2, 2]
    assert [len(x) for x, _ in updater.discriminator.calls] == [2 * ratio, 2, 2, 2, 2]


def test_classes():
    updater = linear(n_classes=5, n_dis=2, n_gen_ratio=2, gradient_penalty=1, seed=6)
    updater.update()
    ys = [y for _, y in updater.generator.calls]
    for y, (purpose, step), n in zip(
            ys, [('generator step', 0), ('discriminator step', 0), ('discriminator step', 1)], [4, 2, 2], strict=True):
        np.testing.assert_array_equal(y, noise.integers(np, 5, (n,), 6, 0, 'classes of ' + purpose, step))
        assert y.dtype == np.int32
    assert ys[1].tolist() != ys[2].tolist()
    # The generator's step, then real, fake and x_hat of each of the discriminator's
    seen = [y for _, y in updater.discriminator.calls]
    assert len(seen) == 7 and seen[0] is ys[0] and seen[2] is ys[1] and seen[5] is ys[2]
    order = noise.permutation(6, 6, 0)
    for step, real in enumerate((1, 4)):
        right = LABELS[order[2 * step:2 * step + 2]]
        np.testing.assert_array_equal(seen[real], right)
        np.testing.assert_array_equal(seen[real + 2], right)  # the penalty takes the classes of the real pictures
        pixels = updater.discriminator.calls[real][0]
        assert np.abs(pixels[:, 0, 0, 0] * 128 + 128 - PIXELS[order[2 * step:2 * step + 2], 0, 0, 0]).max() <= 1


def test_real_pictures_have_no_classes_without_any():
    updater = linear()
    updater.update()
    assert all(y is None for _, y in updater.discriminator.calls)


def test_one_discriminator_step_in_numbers():
    """The loss, lambda times the gradient penalty and the normalization's penalty, minimised together."""
    normalization, w = Shrinking(), np.array([1.5, -2, 0.5])
    updater = linear(gradient_penalty=3, normalization=normalization)
    report = observed(updater, lambda: updater.update_discriminator(0))
    (real, _), (fake, _), (x_hat, _) = updater.discriminator.calls
    epsilon = noise.uniform(np, (2, 1, 1, 1), 4, 0, 'gradient penalty', 0)
    np.testing.assert_allclose(x_hat, epsilon * real + (1 - epsilon) * fake, rtol=1e-6)
    mean_real, mean_fake = real.mean((0, 2, 3)), fake.mean((0, 2, 3))
    length = np.sqrt(1.5 ** 2 + 2 ** 2 + 0.5 ** 2)
    np.testing.assert_allclose(report['dis/loss'], (mean_fake - mean_real) @ w, rtol=1e-5)
    np.testing.assert_allclose(report['dis/gradient_penalty'], 3 * (length - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(report['dis/penalty'], 0.25 * length ** 2, rtol=1e-6)
    assert set(report) == {'dis/loss', 'dis/gradient_penalty', 'dis/penalty'}
    gradient = mean_fake - mean_real + 3 * 2 * (length - 1) * w / length + 0.25 * 2 * w
    np.testing.assert_allclose(normalization.w[0][:, 0], w - RATE * gradient, rtol=1e-5)  # constrained after the update
    np.testing.assert_array_equal(updater.discriminator.w.array, normalization.w[0] / 2)


@pytest.mark.parametrize('coefficient', [0, 10])
def test_lambda(coefficient):
    updater = linear(gradient_penalty=coefficient)
    report = observed(updater, updater.update)
    length = np.sqrt(1.5 ** 2 + 2 ** 2 + 0.5 ** 2)
    assert set(report) - {'dis/gradient_penalty'} == {'gen/loss', 'dis/loss'}
    assert report.get('dis/gradient_penalty') == (pytest.approx(10 * (length - 1) ** 2) if coefficient else None)
    assert len(updater.discriminator.calls) == (4 if coefficient else 3)


def test_epsilons_are_new_in_each_step():
    updater, epsilons = linear(gradient_penalty=1, n_dis=2), []
    for iteration in range(2):
        updater.discriminator.calls.clear()
        updater.update()
        calls = [x[..., 0, 0] for x, _ in updater.discriminator.calls]
        for step, (real, fake, x_hat) in enumerate((calls[1:4], calls[4:7])):
            epsilons.append(noise.uniform(np, (2, 1), 4, iteration, 'gradient penalty', step))
            np.testing.assert_allclose(x_hat, epsilons[-1] * real + (1 - epsilons[-1]) * fake, rtol=1e-5, atol=1e-6)
    assert len(np.unique(epsilons)) == 8


def test_the_report_is_of_the_last_step():
    updater = linear(n_dis=3)
    reports = []
    original = updater.update_discriminator
    updater.update_discriminator = lambda step: reports.append(observed(updater, lambda: original(step)))
    observed(updater, updater.update)
    assert len({report['dis/loss'] for report in reports}) == 3
    updater = linear(n_dis=3)
    assert observed(updater, updater.update)['dis/loss'] == reports[-1]['dis/loss']


def test_one_generator_step_in_numbers():
    updater, w = linear(), np.array([1.5, -2, 0.5])
    W = updater.generator.l.W.array.astype('d')
    report = observed(updater, updater.update_generator)
    z = updater.generator.calls[0][0].astype('d')
    np.testing.assert_allclose(report['gen/loss'], -(z @ W.T @ w).mean(), rtol=1e-5)
    np.testing.assert_allclose(updater.generator.l.W.array, W + RATE * np.outer(w, z.mean(0)), rtol=1e-5)
    np.testing.assert_array_equal(updater.discriminator.w.array[:, 0], w)
    assert updater.discriminator.w.grad is None
