"""The decay of Adam's alpha, by way of the command line."""
import json

import numpy as np
import pytest

import train
from tests.helpers import signal_in
from util.cli import run_command
from util.config import resolve
from util.updater import GANUpdater

TINY = ['--profile', 'quick', '--device', 'cpu', '--iterations', '6', '--batchsize', '4', '--evaluation-interval', '6',
        '--snapshot-interval', '2', '--display-interval', '1', '--scorer', 'none', '--set', 'model.width=2',
        '--set', 'model.initial_scale=0.3', '--setting', 'resnet', '--set', 'setting.n_dis=1']


def alphas(out, monkeypatch, *arguments):
    """A run's alphas: those of both optimizers in each update, and those in its log (absent: None)."""
    used, original = [], GANUpdater.update_core

    def noting(self):
        used.append([self.get_optimizer(name).alpha for name in ('gen', 'dis')])
        original(self)
    with monkeypatch.context() as context:
        context.setattr(GANUpdater, 'update_core', noting)
        run_command(train.main, [*TINY, '--out', str(out), *arguments])
    return np.array(used), [entry.get('alpha') for entry in json.loads((out / 'log').read_text())]


def falling(start):
    return 2e-4 * np.array([1 - max(i - start, 0) / (6 - start) for i in range(6)])


@pytest.mark.parametrize('start', [0, 3, 5])
def test_alpha_falls_linearly_to_0_at_the_last_iteration(tmp_path, monkeypatch, start):
    used, logged = alphas(tmp_path / 'run', monkeypatch, '--set', 'setting.decay_start={}'.format(start))
    np.testing.assert_allclose(used, np.stack([falling(start)] * 2, 1), rtol=1e-12)
    np.testing.assert_allclose(logged, falling(start), rtol=1e-12)


def test_the_resnets_alpha_falls_from_the_first_iteration_on():
    assert resolve(setting='resnet').setting.decay_start == 0


@pytest.mark.parametrize('start', ['6', '7', 'null'])
def test_alpha_that_stays(tmp_path, monkeypatch, capsys, start):
    used, logged = alphas(tmp_path / 'run', monkeypatch, '--set', 'setting.decay_start=' + start)
    assert (used == 2e-4).all() and used.shape == (6, 2) and logged == [None] * 6
    assert ('alpha does not fall in this run' in capsys.readouterr().out) == (start != 'null')


def test_the_log_has_the_mean_over_what_a_line_shows(tmp_path, monkeypatch):
    _, logged = alphas(tmp_path / 'run', monkeypatch, '--display-interval', '3')
    np.testing.assert_allclose(logged, falling(0).reshape(2, 3).mean(1), rtol=1e-12)


@pytest.mark.parametrize('iteration', [2, 3])
def test_the_decay_goes_on_where_it_stopped(tmp_path, monkeypatch, iteration):
    used, logged = alphas(tmp_path / 'undisturbed', monkeypatch)
    with monkeypatch.context() as context:
        signal_in(context, iteration)
        before, _ = alphas(tmp_path / 'run', monkeypatch)
    after, now_logged = alphas(tmp_path / 'run', monkeypatch)
    assert (len(before), len(after)) == (iteration, 6 - iteration)
    np.testing.assert_array_equal(np.concatenate((before, after)), used)
    assert now_logged == logged and None not in logged
    for name in ('gen_iter_000006.npz', 'images/iter_000006.png'):
        assert (tmp_path / 'run' / name).read_bytes() == (tmp_path / 'undisturbed' / name).read_bytes()
