"""What the extension that looks at the discriminator measures, and that nobody notices it."""
import json

import chainer
import numpy as np
import pytest

import train
from tests import tiny
from tests.helpers import refused
from util import probe
from util.cli import run_command
from util.npz import read_npz

ARGUMENTS = ['--profile', 'quick', '--device', 'cpu', '--iterations', '4', '--batchsize', '3', '--evaluation-interval',
             '4', '--snapshot-interval', '2', '--display-interval', '1', '--scorer', 'none', '--set', 'model.width=2',
             '--set', 'model.initial_scale=0.3']


def start(out, *arguments):
    return run_command(train.main, [*ARGUMENTS, '--out', str(out), *map(str, arguments)])


def trained_state(out):
    return {key: value for key, value in read_npz(out / 'snapshot_iter_000004.npz').items()
            if key.startswith('updater/')}


@pytest.mark.parametrize('method', ['sn', 'bssn', 'batch_norm', 'sn_gp'])
def test_a_run_is_the_same_with_it_and_without(tmp_path, method):
    for every in (0, 1):
        assert start(tmp_path / str(every), '--method', method, '--probe', every) == 0
    without, with_it = (trained_state(tmp_path / str(every)) for every in (0, 1))
    assert without.keys() == with_it.keys()
    assert all(np.array_equal(without[key], with_it[key]) for key in without)
    logs = [[{key: value for key, value in entry.items() if key != 'elapsed_time'} for entry in json.loads(
        (tmp_path / str(every) / 'log').read_text())] for every in (0, 1)]
    assert logs[0] == logs[1]
    assert not (tmp_path / '0' / probe.FILE).exists()
    rows = probe.read_rows(tmp_path / '1' / probe.FILE)
    assert {row['iteration'] for row in rows} == {1, 2, 3, 4}
    assert all(np.isfinite(row['value']) for row in rows)


def test_looking_moves_nothing_and_gives_the_same_again():
    parts = tiny.make('bssn', classes=0)
    tiny.iterate(parts)
    before, random = tiny.state(parts.updater), np.random.get_state()[1].copy()
    first, second = probe.look(parts.updater), probe.look(parts.updater)
    after = tiny.state(parts.updater)
    assert first == second and np.array_equal(random, np.random.get_state()[1])
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_networks_with_classes():
    parts = tiny.make('sn_hinge', classes=3, model='resnet_projection')
    tiny.iterate(parts)
    assert {'real', 'generated', 'embed'} <= {layer for _, layer in probe.look(parts.updater)}


def test_by_default_as_often_as_snapshots_and_a_resumed_run_has_each_row_once(tmp_path):
    run = tmp_path / 'run'
    assert start(run) == 0
    whole = (run / probe.FILE).read_text()
    assert {row['iteration'] for row in probe.read_rows(run / probe.FILE)} == {2, 4}
    (run / 'done').unlink()
    (run / 'snapshot_iter_000004.npz').unlink()
    assert start(run) == 0
    assert (run / probe.FILE).read_text() == whole


def test_a_damaged_file_keeps_its_whole_rows_when_a_run_goes_on(tmp_path):
    path = tmp_path / probe.FILE
    rows = [{'iteration': i, 'quantity': probe.SIGMA, 'layer': 'conv1', 'value': 0.5} for i in (1, 2)]
    probe.write_rows(str(path), rows)
    path.write_text(path.read_text() + '3,sigma')
    assert probe.read_rows(path, whole=False) == rows
    with pytest.raises(ValueError, match='line 4 is cut off'):
        probe.read_rows(path)


def test_a_negative_interval_is_refused(tmp_path, capsys):
    refused(capsys, start(tmp_path / 'run', '--probe', '-1'), '--probe must be at least 0, not -1')


def test_numbers_by_hand():
    parts = tiny.make('none')
    tiny.iterate(parts)
    discriminator, found = parts.discriminator, probe.look(parts.updater)
    for name in ('conv1', 'conv4', 'dense'):
        W, gradient = discriminator[name].W.array.astype('d'), discriminator[name].W.grad.astype('d')
        assert found[probe.GRADIENT, name] == pytest.approx(np.sqrt((gradient ** 2).sum()), rel=1e-5)
        assert found[probe.VARIANCE, name] == pytest.approx(((W - W.mean()) ** 2).mean(), rel=1e-6)
        assert found[probe.SIGMA, name] == pytest.approx(tiny.singular_values(W)[0], rel=1e-6)
        assert found[probe.SIGMA_USED, name] == found[probe.SIGMA, name]


def test_weight_gradients_are_those_of_the_loss():
    """By differences in float64, where steps can be so short that no leaky ReLU bends."""
    parts, batch = (tiny.make('none', 'model.initial_scale=0.3') for _ in range(2))
    parts.updater.get_optimizer('dis').alpha = 0  # so that the discriminator stays the one whose gradient was taken
    tiny.iterate(parts)
    measured, updater, discriminator = probe.look(parts.updater), parts.updater, parts.discriminator
    x_real = next(batch.updater.get_iterator('main')).astype('d')
    updater.iteration = 0
    z, _ = updater.latent('discriminator step', 3)
    with chainer.no_backprop_mode():
        x_fake = parts.generator(z).array.astype('d')
    for parameter in discriminator.params():
        parameter.array = parameter.array.astype('d')
    W = discriminator.conv3.W.array

    def loss():
        return float(updater.loss.discriminator(discriminator(x_real), discriminator(x_fake)).array)
    gradient = np.zeros_like(W)
    for index in np.ndindex(W.shape):
        before, values = W[index], []
        for step in (1e-6, -1e-6):
            W[index] = before + step
            values.append(loss())
        W[index] = before
        gradient[index] = (values[0] - values[1]) / 2e-6
    assert measured[probe.GRADIENT, 'conv3'] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)


def test_sigma_of_bidirectional_normalization_is_the_mean_of_two():
    parts = tiny.make('bssn')
    tiny.iterate(parts)
    W = parts.discriminator.conv2.W.array
    both = [tiny.singular_values(W, axis)[0] for axis in (0, 1)]
    assert probe.look(parts.updater)[probe.SIGMA, 'conv2'] == pytest.approx(np.mean(both), rel=1e-6)


def test_the_input_gradient_of_a_linear_function():
    w = np.arange(12, dtype='f').reshape(1, 12)
    parts = tiny.make('none')

    class Linear:
        xp = np

        def __call__(self, x, y):
            return x.reshape(len(x), -1) @ w.T
    x = tiny.PICTURES[:5, :, :2, :2].astype('f')
    assert probe.input_gradient(Linear(), x) == pytest.approx(np.linalg.norm(w))
    assert parts.updater.iteration == 0


def test_a_discriminator_that_explodes_shows_it():
    parts = tiny.make('none')
    tiny.iterate(parts)
    before = probe.look(parts.updater)
    for name in ('conv%d' % i for i in range(1, 8)):
        parts.discriminator[name].W.array *= 10
    after = probe.look(parts.updater)
    for name in ('real', 'generated'):  # leaky ReLUs: seven times the weights, but for biases, ten to the seven
        assert after[probe.INPUT_GRADIENT, name] > 1e5 * before[probe.INPUT_GRADIENT, name]
    tiny.iterate(parts)
    exploded = probe.look(parts.updater)
    assert max(exploded[probe.GRADIENT, 'conv%d' % i] / before[probe.GRADIENT, 'conv%d' % i] for i in range(1, 8)) > 1e4


def test_a_spectrally_normalized_one_does_not():
    parts = tiny.make('sn')
    tiny.iterate(parts)
    before = probe.look(parts.updater)[probe.INPUT_GRADIENT, 'real']
    for name in ('conv%d' % i for i in range(1, 8)):
        parts.discriminator[name].W.array *= 10
    assert probe.look(parts.updater)[probe.INPUT_GRADIENT, 'real'] < 2 * before
