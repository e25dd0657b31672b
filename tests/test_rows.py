"""Every row of configs/ trains: 20 iterations of tiny networks, for each method, setting, model and data set.

The rows are read from the files, so that a new one is tested without a word.
"""
import functools
import json
import os
import shutil

import chainer
import chainer.functions as F
import numpy as np
import pytest
import yaml

import train
from tests.helpers import refused
from util import config, dataset, generate_fake_image
from util.cli import run_command
from util.config import resolve
from util.device import get_device
from util.generate_fake_image import save_png
from util.loss import gradient_penalty
from util.npz import read_npz
from util.trainer import build

ITERATIONS = 20


def rows(section):
    with open(os.path.join(config.CONFIGS, config.SECTIONS[section] + '.yml')) as f:
        return yaml.safe_load(f)


METHODS, SETTINGS, MODELS, DATASETS = map(rows, ('method', 'setting', 'model', 'dataset'))


def is_meant_for(model, data):
    """Whether such networks are for such data: G starts from 4x4 or 6x6, D ends in 3x3 to 8x8, classes are there."""
    model, data, doublings, halvings = MODELS[model], DATASETS[data], 3, 3
    if model['architecture'] == 'resnet':
        doublings, halvings = len(model['generator']) - 1, model['downsamplings']
    fits = data['size'] / 2 ** doublings in (4, 6) and 3 <= data['size'] / 2 ** halvings <= 8
    return fits and (data['n_classes'] > 0 or not model.get('conditional'))


def cases():
    """Data set, model, method and setting of every run: what differs in no more than the data's name is run once."""
    pairs = [(data, model) for data in sorted(DATASETS, key='digits'.__ne__) for model in MODELS
             if is_meant_for(model, data)]
    sizes, names = ({key(*pair): pair for pair in reversed(pairs)} for key in (
        lambda data, model: (DATASETS[data]['size'], model), lambda data, model: data))
    return list(dict.fromkeys([
        *[('digits', model, method, 'B') for method in METHODS for model in ('cnn', 'resnet')],
        *[('digits', 'cnn', 'sn', setting) for setting in SETTINGS],
        *[(*pair, 'sn_hinge', 'B') for pair in [*sizes.values(), *names.values()]],
        *[(data, model, 'wgan_gp', 'B') for model, data in {model: data for data, model in reversed(pairs)}.items()]]))


@functools.cache
def pictures(data):
    """Six digits as they are, and for other data noise of the same size, with classes down from the last."""
    row = resolve(dataset=data).dataset
    if row.source == 'digits':
        loaded = dataset.load(row, row.split)
        return loaded.images[:6], loaded.labels[:6]
    images = np.random.RandomState(0).randint(0, 256, (6, 3, row.size, row.size)).astype('u1')
    return images, row.n_classes - 1 - np.arange(6, dtype='i') if row.n_classes else None


def state(network):
    return {path: p.array.copy() for path, p in network.namedparams()}


def tiny(data, model, method, setting):
    width, batchsize = (1, 1) if DATASETS[data]['size'] > 48 else (2, 2)
    overrides = ['model.dim_z=4', 'model.width=%d' % width]
    overrides += ['model.dim_embed=3'] if 'dim_embed' in MODELS[model] else []
    return resolve(dataset=data, model=model, method=method, setting=setting, batchsize=batchsize, overrides=overrides)


def update(parts):
    """One iteration; returns what was observed."""
    observation, reporter = {}, chainer.Reporter()
    reporter.add_observer('gen', parts.generator)
    reporter.add_observer('dis', parts.discriminator)
    with reporter.scope(observation), chainer.using_config('type_check', False):  # a tenth faster
        parts.updater.update()
    return observation


def trained(c):
    """Build and train, looking for NaN at every iteration; returns parts and the last observation."""
    parts = build(c, get_device('cpu'), *pictures(c.dataset.name))
    networks = {'gen': parts.generator, 'dis': parts.discriminator}
    parts.discriminator.dense.W.array[...] *= 0.01  # ResNets start with logits of tens, where the log loss is flat
    before = {name: state(network) for name, network in networks.items()}
    for i in range(ITERATIONS):
        observation = update(parts)
        assert all(np.isfinite(float(x)) for x in observation.values()), (i, observation)
    for name, network in networks.items():
        for path, array in state(network).items():
            assert np.isfinite(array).all(), (name, path)
            assert array.dtype == np.float32, (name, path)
        moved = [path for path, array in state(network).items() if (array != before[name][path]).any()]
        assert len(moved) > len(before[name]) / 2, (name, moved)
    return parts, observation


def expected_reports(c, discriminator):
    expected = {'gen/loss', 'dis/loss'}
    expected |= {'dis/gradient_penalty'} if c.method.gradient_penalty else set()
    expected |= {'dis/penalty'} if 'coefficient' in c.method else set()
    if c.method.normalization in ('spectral', 'scaled', 'bidirectional'):
        expected |= {'sigma' + path[:-2] for path, _ in discriminator.namedparams() if path.endswith('/W')}
    return expected


@pytest.mark.parametrize('data, model, method, setting', cases())
def test_it_trains(data, model, method, setting):
    c = tiny(data, model, method, setting)
    parts, observation = trained(c)
    assert set(observation) == expected_reports(c, parts.discriminator)
    updater, steps = parts.updater, ITERATIONS * SETTINGS[setting]['n_dis']
    assert (updater.iteration, updater.get_optimizer('gen').t, updater.get_optimizer('dis').t) == (
        ITERATIONS, ITERATIONS, steps)
    assert updater.get_iterator('main').epoch_detail == pytest.approx(steps * c.profile.batchsize / 6)
    for name in ('gen', 'dis'):
        optimizer = updater.get_optimizer(name)
        assert [getattr(optimizer, key) for key in ('alpha', 'beta1', 'beta2')] == [
            SETTINGS[setting][key] for key in ('alpha', 'beta1', 'beta2')]


def test_no_row_is_forgotten():
    for rows_of_section, named in zip((DATASETS, MODELS, METHODS, SETTINGS), zip(*cases(), strict=True), strict=True):
        assert set(rows_of_section) == set(named)
    assert {('stl10', 'resnet48', 'sn_hinge', 'B'), ('imagenet', 'resnet128_concat', 'wgan_gp', 'B'),
            ('digits', 'resnet_projection', 'wgan_gp', 'B'), ('stl10', 'cnn', 'sn_hinge', 'B')} <= set(cases())


def test_networks_are_called_with_the_batches_and_classes_of_their_steps(monkeypatch):
    c = resolve(dataset='digits', model='resnet_projection', method='sn_hinge', setting='resnet', batchsize=2,
                overrides=['model.dim_z=4', 'model.width=1', 'setting.n_dis=2'])
    parts, calls = build(c, get_device('cpu'), *pictures('digits')), []
    for name, network in (('G', parts.generator), ('D', parts.discriminator)):
        def forward(x, y, name=name, f=network.forward):
            calls.append((name, len(x), y.tolist()))
            return f(x, y)
        monkeypatch.setattr(network, 'forward', forward)
    update(parts)
    assert [(name, n) for name, n, _ in calls] == [('G', 4), ('D', 4)] + 2 * [('G', 2), ('D', 2), ('D', 2)]
    assert calls[0][2] == calls[1][2]
    batches = dataset.BatchIterator(pictures('digits')[0], 2, c.seed, labels=pictures('digits')[1])
    for fake, real, also_fake in (calls[2:5], calls[5:8]):
        assert real[2] == next(batches)[1].tolist() and fake[2] == also_fake[2] != real[2]
    assert calls[2][2] != calls[5][2]


def test_clipping_holds_after_the_last_update():
    parts, _ = trained(tiny('digits', 'cnn', 'weight_clipping', 'quick'))
    for path, p in parts.discriminator.namedparams():
        if path.startswith('/conv') and path.endswith('/W'):
            assert abs(p.array).max() <= np.float32(0.01) and (abs(p.array) < 0.0099).any(), path


def test_singular_value_clipping_holds_after_the_last_update():
    parts, _ = trained(tiny('digits', 'resnet_projection', 'singular_value_clipping', 'quick'))
    for path, p in parts.discriminator.namedparams():
        if path.endswith('/W'):
            assert np.linalg.svd(p.array.reshape(len(p.array), -1), compute_uv=False)[0] <= 1 + 1e-5, path


@pytest.mark.parametrize('method, key, network', [('orthonormal', 'coefficient', 'cnn'),
                                                  ('wgan_gp', 'gradient_penalty', 'resnet_projection')])
def test_penalties_move_the_weights(method, key, network):
    states = []
    for value in (0.5, 5):
        overrides = ['model.dim_z=4', 'model.width=1', 'setting.n_dis=1', 'method.{}={}'.format(key, value)]
        c = resolve(dataset='digits', model=network, method=method, batchsize=2, overrides=overrides)
        parts = build(c, get_device('cpu'), *pictures('digits'))
        update(parts)
        states.append(state(parts.discriminator))
    assert sum((states[0][path] != states[1][path]).any() for path in states[0]) > len(states[0]) / 4


@pytest.mark.filterwarnings('ignore:.*encountered:RuntimeWarning')
def test_gradient_penalty_where_the_discriminator_is_flat():
    """All ReLUs may be off for a picture; the penalty is (0 - 1)^2 then, and moves nothing."""
    W = chainer.Parameter(np.array([[-1]], 'f'))
    x, epsilon = np.ones((2, 1, 1, 1), 'f'), np.zeros((2, 1, 1, 1), 'f')
    penalty = gradient_penalty(lambda x: F.relu(F.linear(x, W)), x, x, epsilon)
    penalty.backward()
    assert penalty.array == pytest.approx(1, rel=1e-4) and (W.grad == 0).all()


# Through train.py

CONDITIONAL = ['--profile', 'quick', '--device', 'cpu', '--model', 'resnet_projection', '--method', 'sn_hinge',
               '--setting', 'resnet', '--iterations', '4', '--batchsize', '2', '--evaluation-interval', '2',
               '--snapshot-interval', '2', '--display-interval', '1', '--scorer', 'none',
               '--set', 'model.width=1', '--set', 'model.dim_z=4', '--set', 'setting.n_dis=1']


@pytest.fixture(scope='module')
def conditional(tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'conditional'
    assert run_command(train.main, [*CONDITIONAL, '--out', str(out)]) == 0
    return out


def test_alpha_falls_linearly(conditional):
    log = json.loads((conditional / 'log').read_text())
    assert [entry['alpha'] for entry in log] == pytest.approx([2e-4, 1.5e-4, 1e-4, 0.5e-4])  # 0 once all is done


def test_a_conditional_run_that_was_killed_ends_with_the_same_bits(conditional, tmp_path, capsys):
    out = shutil.copytree(conditional, tmp_path / 'run', ignore=shutil.ignore_patterns('done', '*_iter_000004.*'))
    assert run_command(train.main, [*CONDITIONAL, '--out', str(out)]) == 0
    assert 'Going on from iteration 2.' in capsys.readouterr().out
    for name in ('gen_iter_000004.npz', 'images/iter_000004.png'):
        assert (out / name).read_bytes() == (conditional / name).read_bytes(), name
    first, last = (read_npz(conditional / 'gen_iter_00000{}.npz'.format(i)) for i in (0, 4))
    assert (first['block1/norm1/gamma/W'] != last['block1/norm1/gamma/W']).any()


def test_the_command_draws_the_grid_of_a_conditional_run(conditional, tmp_path):
    arguments = [str(conditional), '--device', 'cpu', '--out', str(tmp_path / 'a.png')]
    assert run_command(generate_fake_image.main, arguments) == 0
    assert (tmp_path / 'a.png').read_bytes() == (conditional / 'images' / 'iter_000004.png').read_bytes()


def test_a_conditional_model_needs_a_data_set_with_classes(tmp_path, capsys):
    (tmp_path / 'pictures').mkdir()
    save_png(tmp_path / 'pictures' / 'a.png', np.zeros((32, 32, 3), 'u1'))
    status = run_command(train.main, [*CONDITIONAL, '--dataset', 'folder', '--data-dir', str(tmp_path / 'pictures'),
                                      '--out', str(tmp_path / 'run')])
    refused(capsys, status, 'model.conditional: projection needs classes', 'dataset.n_classes is 0')
    assert not (tmp_path / 'run' / 'config.yml').exists()
