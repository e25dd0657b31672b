import io
import os
import re
import struct
import zipfile

import chainer
import numpy as np
import pytest

from util import classifier as module
from util import config, dataset, noise
from util.cli import run_command
from util.files import UserError

DIGITS = os.path.join(os.path.dirname(config.CONFIGS), 'inception_model', 'digits.npz')
COMMAND = 'python -m util.classifier digits --out FILE'


def pictures(n=24, size=32, seed=0, n_classes=4):
    """Easy labelled pictures: the class is the direction of the stripes."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % n_classes).astype(np.int32)
    y, x = np.mgrid[:size, :size]
    stripes = np.stack([(t + 400) % 8 < 4 for t in (x, y, x + y, x - y)])[labels]
    images = (rng.integers(0, 60, (n, 3, size, size)) + 180 * stripes[:, None]).astype(np.uint8)
    return dataset.Pictures(images, labels, 'stripes', 'stripes', 'none')


def small(rng=0):
    return module.Classifier(n_classes=4, width=2, rng=np.random.RandomState(rng))


def card(**changes):
    values = dict(name='stripes', n_classes=4, width=2, size=32, accuracy=0.5, n_held_out=10, command=COMMAND, data='é',
                  fingerprint='0', versions='none')
    return module.Card(**{**values, **changes})


def weights(network):
    return {name: parameter.array for name, parameter in network.namedparams()}


class TestNetwork:

    def test_parameters_layer_by_layer(self):
        sizes = {link.name: sum(p.size for p in link.params()) for link in module.Classifier().children()}
        assert sizes == {
            'conv1': 16 * 3 * 25, 'bn1': 32, 'conv2': 32 * 16 * 9, 'bn2': 64, 'conv3': 64 * 32 * 16, 'bn3': 128,
            'conv4': 64 * 64 * 9, 'bn4': 128, 'fc': 10 * 64 + 10}

    def test_outputs(self):
        features, probabilities = small().classify(pictures(5).images)
        assert features.shape == (5, 8) and probabilities.shape == (5, 4)
        assert features.dtype == probabilities.dtype == np.float32
        assert isinstance(features, np.ndarray) and isinstance(probabilities, np.ndarray)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
        assert features.min() >= 0 < features.max()

    def test_batches_do_not_matter_and_nothing_moves(self):
        network, images = small(), pictures(7).images
        before = {k: v.copy() for k, v in weights(network).items()}
        mean = network.bn1.avg_mean.copy()
        whole = network.classify(images)
        for batchsize in (1, 3, 7):
            for a, b in zip(whole, network.classify(images, batchsize), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(network.bn1.avg_mean, mean)
        assert chainer.config.train
        for name, array in weights(network).items():
            np.testing.assert_array_equal(array, before[name])

    def test_no_pictures_give_empty_arrays(self):
        features, probabilities = small().classify(np.zeros((0, 3, 32, 32), np.uint8))
        assert features.shape == (0, 8) and probabilities.shape == (0, 4)

    @pytest.mark.parametrize('size', [16, 64])
    def test_other_sizes_are_resized(self, size):
        flat = np.arange(0, 200, 50, dtype=np.uint8)[:, None, None, None]
        network = small()
        expected = network.classify(np.broadcast_to(flat, (4, 3, 32, 32)))
        got = network.classify(np.broadcast_to(flat, (4, 3, size, size)))
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-5)

    @pytest.mark.parametrize('images', [
        np.zeros((2, 3, 32, 32), np.float32), np.zeros((2, 1, 32, 32), np.uint8), np.zeros((3, 32, 32), np.uint8)])
    def test_other_arrays_are_refused(self, images):
        with pytest.raises(ValueError, match='pictures must be uint8'):
            small().classify(images)


class TestFile:

    def test_round_trip(self, tmp_path):
        path, network = str(tmp_path / 'c.npz'), small()
        network.bn1.avg_mean[...] = 0.25
        module.save_classifier(path, network, card())
        loaded, read = module.load_classifier(path)
        assert read == card()
        images = pictures(6).images
        for a, b in zip(network.classify(images), loaded.classify(images), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_equal_input_gives_equal_bytes_without_objects(self, tmp_path):
        for name in 'ab':
            module.save_classifier(str(tmp_path / name), small(), card())
        assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
        with np.load(tmp_path / 'a', allow_pickle=False) as arrays:
            assert all(array.dtype.kind in 'fiU' for array in arrays.values())

    def test_unwritable_path(self, tmp_path):
        (tmp_path / 'file').write_text('')
        with pytest.raises(UserError, match='cannot write'):
            module.save_classifier(str(tmp_path / 'file' / 'c.npz'), small(), card())

    def refused(self, path, reason):
        with pytest.raises(UserError) as error:
            module.load_classifier(str(path), COMMAND)
        message = str(error.value)
        assert str(path) in message and message.endswith('; make it with: ' + COMMAND) and '\n' not in message
        assert re.search(reason, message), message

    def test_missing_file(self, tmp_path):
        self.refused(tmp_path / 'c.npz', 'No such file')

    def test_a_folder_in_its_place(self, tmp_path):
        self.refused(tmp_path, 'cannot read')

    @pytest.mark.parametrize('content', [b'', b'hello', b'PK\x03\x04', b'PK\x05\x06' + 18 * b'\0'])
    def test_not_an_npz(self, tmp_path, content):
        (tmp_path / 'c.npz').write_bytes(content)
        self.refused(tmp_path / 'c.npz', 'damaged or not a classifier')

    def test_an_npy_or_another_npz(self, tmp_path):
        np.save(tmp_path / 'a.npy', np.zeros(3))
        np.savez(tmp_path / 'b.npz', x=np.zeros(3))
        self.refused(tmp_path / 'a.npy', 'damaged or not a classifier')
        self.refused(tmp_path / 'b.npz', 'has no classifier-1 card')

    def test_pickles_are_not_opened(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / 'boom'),)
        np.savez(tmp_path / 'c.npz', **{'meta/format': np.array(Bomb(), object)})
        self.refused(tmp_path / 'c.npz', 'allow_pickle')
        assert not (tmp_path / 'boom').exists()

    def test_every_cut_and_flipped_bytes(self, tmp_path):
        module.save_classifier(str(tmp_path / 'whole'), small(), card())
        content = (tmp_path / 'whole').read_bytes()
        path = tmp_path / 'c.npz'
        for cut in range(0, len(content), len(content) // 40):
            path.write_bytes(content[:cut])
            self.refused(path, 'damaged or not a classifier')
        loaded = weights(module.load_classifier(str(tmp_path / 'whole'))[0])
        for position in range(0, len(content), len(content) // 150):
            flipped = bytearray(content)
            flipped[position] ^= 0x41
            path.write_bytes(flipped)
            try:  # some bytes, such as dates, carry nothing; none may change a weight or raise anything else
                got = weights(module.load_classifier(str(path), COMMAND)[0])
            except UserError as error:
                assert str(error).endswith(COMMAND)
            else:
                for name, array in got.items():
                    np.testing.assert_array_equal(array, loaded[name])

    def test_an_array_that_claims_to_be_huge(self, tmp_path):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {'descr': '<f4', 'fortran_order': False, 'shape': (1 << 50,)})
        with zipfile.ZipFile(tmp_path / 'c.npz', 'w') as archive:
            archive.writestr('meta/format.npy', header.getvalue() + struct.pack('<f', 0))
        self.refused(tmp_path / 'c.npz', 'damaged or not a classifier')

    @pytest.mark.parametrize('change, reason', [
        ({'weight/fc/W': None}, 'fc/W'),
        ({'weight/fc/W': np.zeros((1, 8), np.float32)}, r'fc/W is not a finite float32 array of shape \(4, 8\)'),
        ({'weight/fc/W': np.zeros((4, 8))}, 'fc/W is not'),
        ({'weight/fc/b': np.full(4, np.nan, np.float32)}, 'fc/b is not a finite'),
        ({'meta/width': np.array(4)}, 'bn1/avg_mean is not'),
        ({'meta/width': np.array(0)}, 'no network'),
        ({'meta/n_classes': np.array(1 << 40)}, 'no network'),
        ({'meta/width': np.array('2')}, 'width of its card'),
        ({'meta/width': np.array([2, 2])}, 'damaged'),
        ({'meta/accuracy': None}, 'meta/accuracy'),
        ({'meta/format': np.array('classifier-9')}, 'has no classifier-1 card'),
    ])
    def test_wrong_content(self, tmp_path, change, reason):
        path = tmp_path / 'c.npz'
        module.save_classifier(str(path), small(), card())
        with np.load(path) as arrays:
            arrays = {k: v for k, v in {**arrays, **change}.items() if v is not None}
        np.savez(path, **arrays)
        self.refused(path, reason)

    def test_the_committed_file(self):
        assert os.path.getsize(DIGITS) < 500000
        network, read = module.load_classifier(DIGITS)
        row = config.resolve(dataset='digits').dataset
        held_out = dataset.load(row, 'test')
        assert (read.name, read.n_classes, read.size, read.n_held_out) == ('digits', 10, 32, len(held_out.images))
        assert read.accuracy >= 0.98
        assert module.accuracy(network, held_out) == pytest.approx(read.accuracy, abs=0.003)  # rounding may turn one
        assert read.command.startswith('python -m util.classifier digits --out inception_model/digits.npz')


class TestAugment:

    def test_shapes_targets_and_determinism(self):
        data = pictures(20)
        x, targets = module.augment(data.images, data.labels, 4, 3, 5)
        assert x.shape == (22, 3, 32, 32) and x.dtype == targets.dtype == np.float32
        np.testing.assert_array_equal(targets[:20], np.eye(4)[data.labels])
        np.testing.assert_array_equal(targets[20:], 0.25)
        again, _ = module.augment(data.images, data.labels, 4, 3, 5)
        np.testing.assert_array_equal(x, again)
        for seed, iteration in ((4, 5), (3, 6)):
            assert abs(module.augment(data.images, data.labels, 4, seed, iteration)[0] - x).max() > 0.1

    def test_small_batches_have_no_garbage(self):
        data = pictures(7)
        assert module.augment(data.images, data.labels, 4, 0, 0)[0].shape == (7, 3, 32, 32)

    def test_shift_moves_whole_pictures_and_repeats_edges(self):
        x = np.random.default_rng(0).normal(size=(3, 3, 6, 6)).astype(np.float32)
        still = module._shift(x, np.full((2, 3), 0.5), 1)
        np.testing.assert_array_equal(still, x)
        moved = module._shift(x, np.array([[0, 0.5, 0.9], [0.5, 0.9, 0.5]]), 1)  # up-read, left-read, down-read
        np.testing.assert_array_equal(moved[0, :, 1:], x[0, :, :-1])
        np.testing.assert_array_equal(moved[0, :, 0], x[0, :, 0])
        np.testing.assert_array_equal(moved[1, :, :, :-1], x[1, :, :, 1:])
        np.testing.assert_array_equal(moved[2, :, :-1], x[2, :, 1:])

    def test_garbage_has_its_kinds(self):
        garbage = module._garbage(8, 32, 32, lambda purpose, *shape: noise.uniform(np, shape, 0, 0, purpose))
        roughness = abs(np.diff(garbage, axis=3)).mean(axis=(1, 2, 3))
        assert (roughness[[0, 4]] > 0.5).all()
        np.testing.assert_array_equal(roughness[[1, 5]], 0)
        assert ((roughness[[2, 3, 6, 7]] > 0.01) & (roughness[[2, 3, 6, 7]] < 0.3)).all()
        assert abs(garbage).max() <= 1


    def test_mirror_turns_about_half_of_the_real_pictures(self, monkeypatch):
        monkeypatch.setattr(module, '_shift', lambda x, unit, limit: x)
        images, labels = np.random.default_rng(0).integers(0, 256, (160, 3, 8, 8)).astype('u1'), np.zeros(160, np.int32)
        plain, _ = module.augment(images, labels, 2, 0, 1)
        mirrored, targets = module.augment(images, labels, 2, 0, 1, mirror=True)
        # Everything but the turning is the same, noise included, so a turned picture differs in what is not noise
        difference = mirrored[:160] - plain[:160]
        turned = abs(difference).max(axis=(1, 2, 3)) > 0
        assert 50 < turned.sum() < 110
        np.testing.assert_array_equal(mirrored[160:], plain[160:])
        x = module._to_float(images)
        scale = difference[turned] / (x[turned][..., ::-1] - x[turned] + 1e-9)
        spread = abs(scale - np.median(scale, axis=(2, 3), keepdims=True))
        assert np.median(spread) < 1e-4  # one factor a channel: contrast and tint


class TestTraining:

    def test_learns_and_is_a_function_of_the_seed(self):
        runs = []
        for seed in (0, 0, 1):
            np.random.seed(len(runs))  # the global state must not matter
            out = io.StringIO()
            network, share = module.train(pictures(64), pictures(16, seed=1), 4, 4, 10, 8, seed, out=out)
            runs.append(weights(network))
        assert share >= 0.9
        assert 'held_out/accuracy' in out.getvalue()
        for name, array in runs[0].items():
            np.testing.assert_array_equal(array, runs[1][name])
        assert any((array != runs[2][name]).any() for name, array in runs[0].items())

    def test_command_line(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(module, 'load', lambda row, split, data_dir: pictures(16 if split == 'train' else 8))
        path = str(tmp_path / 'new' / 'c.npz')
        assert run_command(module.main, ['digits', '--out', path, '--width', '2', '--epochs', '2', '-b', '8']) == 0
        assert '8 held-out pictures right' in capsys.readouterr().out
        network, read = module.load_classifier(path)
        assert (network.width, read.name, read.n_classes, read.n_held_out) == (2, 'digits', 4, 8)
        command = f'python -m util.classifier digits --out {path} --width 2 --epochs 2 --batchsize 8 --seed 0'
        assert read.command == command
        assert read.accuracy == module.accuracy(network, pictures(8))

    @pytest.mark.parametrize('dataset, flags, expected', [
        ('digits', [], (16, 30, False)), ('cifar10', [], (32, 12, True)), ('folder', [], (32, 12, False)),
        ('cifar10', ['--width', '8', '--epochs', '1', '--no-mirror'], (8, 1, False)),
        ('digits', ['--mirror'], (16, 30, True))])
    def test_flags_go_before_the_row_of_the_data_set(self, dataset, flags, expected):
        args = module.parse([dataset, *flags])
        assert (args.width, args.epochs, args.mirror) == expected
        assert os.path.relpath(args.out, config.INCEPTION_MODEL) == dataset + '.npz'
        assert ('--mirror' in module._command(args)) == args.mirror

    @pytest.mark.parametrize('flags, message', [
        (['--epochs', '0'], '--epochs must be an integer of at least 1, not 0'),
        (['--width', '-3'], '--width must be'),
        (['--batchsize', '1'], '--batchsize must be'),
        (['--seed', '-1'], '--seed must be'),
        (['--device', '99'], '--device 99'),
    ])
    def test_bad_flags(self, flags, message, tmp_path, capsys):
        assert run_command(module.main, ['digits', '--out', str(tmp_path / 'c.npz'), *flags]) == 2
        assert capsys.readouterr().err.startswith('error: ' + message)
        assert not list(tmp_path.iterdir())

    def test_unknown_dataset(self, tmp_path, capsys):
        assert run_command(module.main, ['digts', '--out', str(tmp_path / 'c.npz')]) == 2
        assert "no 'digts' in configs/datasets.yml" in capsys.readouterr().err

    def test_pictures_that_are_not_split(self, tmp_path, capsys):
        assert run_command(module.main, ['folder', '--out', str(tmp_path / 'c.npz')]) == 2
        assert 'none could be held out' in capsys.readouterr().err

    def test_pictures_without_labels(self, monkeypatch, tmp_path, capsys):
        unlabelled = dataset.Pictures(pictures().images, None, 'folder', '', '')
        monkeypatch.setattr(module, 'load', lambda row, split, data_dir: unlabelled)
        assert run_command(module.main, ['stl10', '--out', str(tmp_path / 'c.npz')]) == 2
        assert 'no labels' in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_unwritable_out_is_told_before_training(self, monkeypatch, tmp_path, capsys):
        (tmp_path / 'file').write_text('')
        monkeypatch.setattr(module, 'train', lambda *args: pytest.fail('trained'))
        assert run_command(module.main, ['digits', '--out', str(tmp_path / 'file' / 'c.npz')]) == 2
        assert capsys.readouterr().err.startswith('error: cannot write')
