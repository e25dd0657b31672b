"""Training on a GPU: the same first numbers as on the CPU, the same bits again, and an exact resume."""
import os

import chainer
import numpy as np
import pytest
import yaml

import train
from tests.helpers import FEW
from util import dataset, noise
from util.cli import run_command
from util.config import CONFIGS, resolve
from util.device import get_device
from util.generate_fake_image import generate
from util.npz import read_npz
from util.scorer import load_scorer
from util.trainer import build

TINY = ['--profile', 'quick', '--batchsize', '4', '--iterations', '4', '--evaluation-interval', '2',
        '--snapshot-interval', '2', '--display-interval', '2', '--set', 'model.width=4', '--set', 'setting.n_dis=2',
        *FEW]
with open(os.path.join(CONFIGS, 'methods.yml'), encoding='utf-8') as f:
    METHODS = list(yaml.safe_load(f))
EXACT = ['gen_iter_000004.npz', 'images/iter_000004.png', 'scores.csv']


@pytest.fixture
def device():
    return get_device('0')


def start(device, out, *arguments):
    return run_command(train.main, [*TINY, '--device', device.name, '--out', str(out), *arguments])


def test_batches_are_those_of_the_cpu(device):
    images = np.random.RandomState(0).randint(0, 256, (10, 3, 32, 32)).astype('u1')
    here, there = (dataset.BatchIterator(images, 4, 0, d) for d in (get_device('cpu'), device))
    for _ in range(4):  # over the end of an epoch
        batch = there.next()
        assert isinstance(batch, device.xp.ndarray)
        np.testing.assert_array_equal(get_device('cpu').send(batch), here.next())


def test_normals_are_those_of_the_cpu(device):
    here, there = (noise.normal(xp, (64, 128), 1, 2, 'z') for xp in (np, device.xp))
    np.testing.assert_allclose(get_device('cpu').send(there), here, rtol=1e-6, atol=1e-7)


def first_iteration(device, model, method):
    """What the first iteration reports: name -> float."""
    random = np.random.RandomState(0)
    images, labels = random.randint(0, 256, (10, 3, 32, 32)).astype('u1'), random.randint(0, 10, 10).astype('i')
    config = resolve(profile='quick', model=model, method=method, batchsize=4, overrides=['model.width=4'])
    parts = build(config, device, images, labels)
    reporter = chainer.Reporter()
    reporter.add_observers('', [('gen', parts.generator), ('dis', parts.discriminator)])
    with chainer.using_device(device), reporter, reporter.scope({}):
        parts.updater.update()
        return {key: float(getattr(value, 'array', value)) for key, value in reporter.observation.items()}


@pytest.mark.parametrize('model, method', [('cnn', method) for method in METHODS] + [
    ('resnet', 'sn_hinge'), ('resnet', 'wgan_gp'), ('resnet_projection', 'bssn'), ('resnet_projection', 'batch_norm')])
def test_first_iteration_is_that_of_the_cpu(device, model, method):
    here, there = (first_iteration(d, model, method) for d in (get_device('cpu'), device))
    assert here.keys() == there.keys() and 'dis/loss' in here
    for key, value in here.items():
        assert there[key] == pytest.approx(value, rel=1e-2, abs=1e-3), key  # TF32 may be on


@pytest.mark.parametrize('rows', [[], ['--model', 'resnet_projection', '--method', 'sn_hinge'],
                                  ['--method', 'sn_gp'], ['--method', 'bssn', '--setting', 'resnet']])
def test_a_run_and_its_exact_resume(device, tmp_path, monkeypatch, rows):
    assert start(device, tmp_path / 'a', *rows) == 0
    from util.updater import GANUpdater
    original = GANUpdater.update_discriminator

    def broken(self, step):
        if self.iteration == 3:
            raise KeyboardInterrupt
        original(self, step)
    with monkeypatch.context() as context:
        context.setattr(GANUpdater, 'update_discriminator', broken)
        assert start(device, tmp_path / 'b', *rows) == 130
    assert start(device, tmp_path / 'b', *rows) == 0
    for name in EXACT:
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes(), name
    full, resumed = (read_npz(os.path.join(tmp_path, run, 'snapshot_iter_000004.npz')) for run in 'ab')
    for key in full:
        if 'elapsed_time' not in key and '_log' not in key:
            np.testing.assert_array_equal(full[key], resumed[key], err_msg=key)


def test_a_run_of_the_gpu_is_not_gone_on_with_on_the_cpu(device, tmp_path, capsys):
    assert start(device, tmp_path / 'run') == 0
    assert start(get_device('cpu'), tmp_path / 'run') == 2
    assert 'device: cuda there, cpu here' in capsys.readouterr().err


def test_divergence_is_noticed(device, tmp_path, capsys):
    assert start(device, tmp_path / 'run', '--set', 'setting.alpha=1e38') == 3
    assert 'Training has diverged: a NaN or an infinity at iteration 1' in capsys.readouterr().out


def test_pictures_and_scores(device):
    config = resolve(profile='quick', overrides=['model.width=4'])
    generator = build(config, device, np.zeros((4, 3, 32, 32), 'u1')).generator
    images = generate(generator, 10, 0)
    assert isinstance(images, np.ndarray) and images.shape == (10, 3, 32, 32) and images.dtype == np.uint8
    features, probabilities = load_scorer('digits', device)(images)
    expected = load_scorer('digits', get_device('cpu'))(images)
    np.testing.assert_allclose(features, expected[0], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(probabilities, expected[1], atol=1e-3)
