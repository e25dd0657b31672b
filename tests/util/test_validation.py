"""Losses on training and validation data: by hand, and that training does not notice."""
import json

import chainer
import numpy as np
import pytest

import train
from tests import tiny
from util import dataset, noise, probe, validation
from util.cli import run_command
from util.config import resolve
from util.npz import read_npz

PICTURES = np.random.RandomState(1).randint(0, 256, (2, 5, 3, 16, 16)).astype('u1')
SAMPLES = {name: validation.Sample(images, None) for name, images in zip(
    ('training', 'validation'), PICTURES, strict=True)}


def by_hand(parts, name, images):
    """The loss on five pictures of which three make a batch."""
    updater, total = parts.updater, 0
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for step, part in enumerate((slice(0, 3), slice(3, 5))):
            real = images[part]
            uniform = noise.uniform(np, real.shape, 0, updater.iteration, 'dequantisation of ' + name, step)
            z = noise.normal(np, (len(real), 4), 0, updater.iteration, 'z of validation', step)
            logits = parts.discriminator(dataset.to_float(real, uniform)), parts.discriminator(parts.generator(z))
            real, fake = (logit.array[:, 0].astype('d') for logit in logits)
            total += np.log1p(np.exp(-real)).sum() + np.log1p(np.exp(fake)).sum()
    return total / 5


def test_losses_by_hand():
    parts = tiny.make('none', 'model.initial_scale=0.3')
    tiny.iterate(parts, 2)
    found = probe.look(parts.updater, SAMPLES)
    for name, sample in SAMPLES.items():
        assert found[probe.LOSS, name] == pytest.approx(by_hand(parts, name, sample.images), rel=1e-5)
    assert found[probe.LOSS, 'training'] != found[probe.LOSS, 'validation']


def test_wasserstein_losses_have_no_penalty():
    parts = tiny.make('wgan_gp')
    tiny.iterate(parts)
    z = noise.normal(np, (3, 4), 0, 1, 'z of validation', 0)
    sample = validation.Sample(PICTURES[0, :3], None)
    found = validation.losses(parts.updater, parts.discriminator, {'training': sample})
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        uniform = noise.uniform(np, (3, 3, 16, 16), 0, 1, 'dequantisation of training', 0)
        real = parts.discriminator(dataset.to_float(sample.images, uniform)).array.mean()
        fake = parts.discriminator(parts.generator(z)).array.mean()
    assert found == {'training': pytest.approx(fake - real, rel=1e-4, abs=1e-7)}


@pytest.mark.parametrize('method', ['bssn', 'batch_norm'])
def test_they_move_nothing(method):
    parts = tiny.make(method)
    tiny.iterate(parts)
    before, random = tiny.state(parts.updater), np.random.get_state()[1].copy()
    assert probe.look(parts.updater, SAMPLES) == probe.look(parts.updater, SAMPLES)
    after = tiny.state(parts.updater)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert np.array_equal(random, np.random.get_state()[1]) and chainer.config.train


def test_networks_with_classes():
    parts = tiny.make('sn_hinge', classes=3, model='resnet_projection')
    tiny.iterate(parts)
    samples = {'training': validation.Sample(PICTURES[0], np.array([0, 1, 2, 0, 1], 'i'))}
    assert np.isfinite(probe.look(parts.updater, samples)[probe.LOSS, 'training'])


def load_samples(*overrides, said=None, **rows):
    config = resolve(profile='quick', overrides=['dataset.size=8', *overrides], **rows)
    pictures = dataset.load({'source': 'digits', 'size': 8}, 'train')
    return validation.load_samples(config, pictures, say=(said if said is not None else []).append), pictures


def test_samples_are_pictures_of_training_and_of_the_test_split():
    samples, pictures = load_samples('dataset.split=train')
    test = dataset.load({'source': 'digits', 'size': 8}, 'test')
    assert list(samples) == ['training', 'validation'] and all(len(s.images) == 359 for s in samples.values())
    kinds = {'training': pictures, 'validation': test}
    for name, sample in samples.items():
        there = {image.tobytes() for image in kinds[name].images}
        assert len({image.tobytes() for image in sample.images} & there) == 359 and sample.labels is None


def test_without_a_split_nothing_is_held_back():
    assert load_samples()[0] == {}  # the digits' row: all of them are trained on
    assert load_samples(dataset='folder')[0] == {} and load_samples(dataset='imagenet')[0] == {}


def test_a_test_split_that_cannot_be_loaded_is_said(monkeypatch):
    def load(*_):
        raise dataset.UserError('no test_batch')
    said, pictures = [], dataset.load({'source': 'digits', 'size': 8}, 'train')
    monkeypatch.setattr(validation.dataset, 'load', load)
    config = resolve(profile='quick', overrides=['dataset.split=train'])
    assert validation.load_samples(config, pictures, say=said.append) == {}
    assert said == ['No losses on validation data, the test split cannot be loaded: no test_batch']


def test_a_run_is_the_same_with_them_and_without(tmp_path):
    for every in (0, 2):
        assert run_command(train.main, [
            '--profile', 'quick', '--device', 'cpu', '--iterations', '4', '--batchsize', '3', '--evaluation-interval',
            '4', '--snapshot-interval', '2', '--display-interval', '1', '--scorer', 'none', '--set', 'model.width=2',
            '--set', 'dataset.split=train', '--out', str(tmp_path / str(every)), '--probe', str(every)]) == 0
    states = [read_npz(tmp_path / str(every) / 'snapshot_iter_000004.npz') for every in (0, 2)]
    keys = [key for key in states[0] if key.startswith('updater/')]
    assert keys and all(np.array_equal(states[0][key], states[1][key]) for key in keys)
    logs = [[{k: v for k, v in entry.items() if k != 'elapsed_time'} for entry in json.loads(
        (tmp_path / str(every) / 'log').read_text())] for every in (0, 2)]
    assert logs[0] == logs[1]
    rows = [row for row in probe.read_rows(tmp_path / '2' / probe.FILE) if row['quantity'] == probe.LOSS]
    assert [(row['iteration'], row['layer']) for row in rows] == [
        (2, 'training'), (2, 'validation'), (4, 'training'), (4, 'validation')]
