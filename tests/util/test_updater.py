import chainer
import chainer.functions as F
import numpy as np
import pytest

from util import dataset, loss
from util.config import resolve
from util.device import get_device
from util.trainer import build

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
    with chainer.reporter.Reporter().scope({}):
        chainer.reporter.get_current_reporter().add_observer('gen', parts.generator)
        chainer.reporter.get_current_reporter().add_observer('dis', parts.discriminator)
        parts.updater.update_generator()
        assert changed(parts.generator, generator) and not changed(parts.discriminator, discriminator)
        generator = state(parts.generator)
        parts.updater.update_discriminator(0)
        assert changed(parts.discriminator, discriminator) and not changed(parts.generator, generator)


def test_generator_gradient_is_that_of_plain_backward():
    parts = make(method='none')
    parts.updater.get_optimizer('gen').update = lambda: None
    with chainer.reporter.Reporter().scope({}):
        chainer.reporter.get_current_reporter().add_observer('gen', parts.generator)
        parts.updater.update_generator()
    grads = {path: p.grad.copy() for path, p in parts.generator.namedparams()}
    plain = loss.log_generator(parts.discriminator(parts.generator(parts.updater.latent('z of generator step'))))
    parts.generator.cleargrads()
    plain.backward()
    for path, p in parts.generator.namedparams():
        np.testing.assert_allclose(grads[path], p.grad, rtol=1e-5, atol=1e-8, err_msg=path)
    assert any(np.abs(g).max() > 0 for g in grads.values())


def test_discriminator_loss_against_the_definition():
    real, fake = np.array([[0.3], [-2]]), np.array([[1.5], [0.1]])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    expected = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
    np.testing.assert_allclose(loss.log_discriminator(real, fake).array, expected, rtol=1e-12)
    np.testing.assert_allclose(loss.log_generator(fake).array, -np.log(sigmoid(fake)).mean(), rtol=1e-12)


def test_losses_are_stable_for_large_logits():
    big = np.array([[1e4], [-1e4]], 'f')
    assert np.isfinite(loss.log_discriminator(big, big).array) and np.isfinite(loss.log_generator(big).array)
    x = chainer.Variable(big)
    F.sum(loss.log_generator(x)).backward()
    assert np.isfinite(x.grad).all()


def test_same_seed_same_bits_other_seed_others():
    states = []
    for seed in (0, 0, 1):
        np.random.seed(seed + 7 * len(states))
        parts = make(seed=seed)
        for _ in range(2):
            parts.updater.update()
        states.append(np.concatenate([p.array.ravel() for _, p in sorted(parts.generator.namedparams())]))
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[0] != states[2]).any()


def test_sigma_of_every_layer_is_reported():
    parts = make()
    observation = {}
    reporter = chainer.reporter.Reporter()
    reporter.add_observer('gen', parts.generator)
    reporter.add_observer('dis', parts.discriminator)
    with reporter.scope(observation):
        parts.updater.update()
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
                        lambda z: (recorded.append(chainer.config.enable_backprop), original(z))[1])
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
