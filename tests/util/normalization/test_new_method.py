"""A new method, added as the README shows it: its very lines are run."""
import os
import re
import shutil

import numpy as np
import pytest
import yaml
from chainer.serializers import NpzDeserializer

import train
from tests.tiny import used_weights
from util import config
from util.cli import run_command
from util.device import get_device
from util.normalization import NORMALIZATIONS
from util.normalization.weight_hook import WeightHook
from util.npz import read_npz
from util.rundir import RunDirectory
from util.trainer import build

README = os.path.join(os.path.dirname(config.CONFIGS), 'README.md')
IMAGES = np.zeros((4, 3, 32, 32), 'u1')


@pytest.fixture(scope='module')
def blocks():
    """The README's Python and its row, as text."""
    with open(README, encoding='utf-8') as f:
        section = re.split(r'^#+ ', f.read().split('\n### A new method\n')[1], flags=re.M)[0]
    (python,), (row,) = (re.findall(r'^```%s\n(.*?)^```$' % kind, section, re.M | re.S) for kind in ('python', 'yaml'))
    return python, row


@pytest.fixture
def added(blocks, monkeypatch, tmp_path):
    """The method is there while the test runs; returns the class."""
    python, row = blocks
    monkeypatch.setitem(NORMALIZATIONS, 'maximum', None)  # so that it is gone afterwards
    module = {'__name__': 'maximum_norm'}
    exec(compile(python, README, 'exec'), module)
    configs = tmp_path / 'configs'
    shutil.copytree(config.CONFIGS, configs)
    with open(configs / 'methods.yml', 'a', encoding='utf-8') as f:
        f.write(row)
    monkeypatch.setattr(config, 'CONFIGS', str(configs))
    return module['MaximumNorm']


def test_it_is_short(blocks):
    lines = [line for block in blocks for line in block.splitlines()]
    assert 0 < len(lines) < 15
    assert max(map(len, lines)) <= 120


def test_it_is_a_hook_and_a_row(blocks, added):
    assert issubclass(added, WeightHook) and NORMALIZATIONS['maximum'] is added
    row = yaml.safe_load(blocks[1])
    assert list(row) == ['maximum_norm'] and row['maximum_norm']['normalization'] == 'maximum'


def test_it_trains_with_the_normalized_weight(added, tmp_path):
    out = tmp_path / 'run'
    flags = {'profile': 'quick', 'device': 'cpu', 'method': 'maximum_norm', 'iterations': 3, 'batchsize': 3,
             'scorer': 'none', 'out': out}
    arguments = [word for key, value in flags.items() for word in ('--' + key, str(value))]
    assert run_command(train.main, [*arguments, '--set', 'model.width=2', '--set', 'model.initial_scale=0.3']) == 0
    resolved = config.load_config(out / 'config.yml')
    assert resolved.method.name == 'maximum_norm' and (out / 'done').exists()
    discriminator, first = (build(resolved, get_device('cpu'), IMAGES).discriminator for _ in range(2))
    saved = read_npz(RunDirectory(out).snapshot(3))
    NpzDeserializer(saved, path='updater/model:dis/').load(discriminator)
    layers = [child for child in discriminator.children() if hasattr(child, 'W')]
    used = used_weights(discriminator, np.random.RandomState(0).standard_normal((2, 3, 32, 32)).astype('f'))
    assert len(layers) == len(used) == 8
    for layer, W in zip(layers, used, strict=True):
        assert (layer.W.array != first[layer.name].W.array).any()  # trained
        np.testing.assert_allclose(W, layer.W.array / np.abs(layer.W.array).max(), rtol=1e-6)
        assert abs(np.abs(layer.W.array).max() - 1) > 1e-3  # so it is not the weight itself


def test_it_was_added_to_copies():
    assert 'maximum' not in NORMALIZATIONS
    with open(os.path.join(config.CONFIGS, 'methods.yml'), encoding='utf-8') as f:
        assert 'maximum_norm' not in yaml.safe_load(f)
