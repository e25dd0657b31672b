"""Grids of samples: of arrays, and by way of the command, from a tiny run whose pictures are not all grey."""
import errno
import functools
import os
import shutil
import types

import chainer
import numpy as np
import pytest
from chainer.serializers import npz
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import model
import train
from tests import helpers
from tests.helpers import tree
from util import generate_fake_image, noise
from util.cli import run_command
from util.config import resolve
from util.device import get_device
from util.engine.switch import using_engine
from util.files import UserError
from util.generate_fake_image import (
    GAP,
    GenerateFakeImage,
    generate,
    generate_chunks,
    grid,
    grid_classes,
    load_generator,
    save_png,
)
from util.npz import read_npz
from util.rundir import RunDirectory

TINY = ['--profile', 'quick', '--device', 'cpu', '--iterations', '4', '--batchsize', '4', '--evaluation-interval', '2',
        '--snapshot-interval', '4', '--display-interval', '4', '--scorer', 'none', '--seed', '3', '--set',
        'model.width=2', '--set', 'model.initial_scale=0.3', '--set', 'setting.alpha=0.01']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'finished'
    assert run_command(train.main, [*TINY, '--out', str(out)]) == 0
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / 'run')


refused = functools.partial(helpers.refused, silent=True)


def draw(run, *arguments):
    return run_command(generate_fake_image.main, [str(run), '--device', 'cpu', *map(str, arguments)])


# Of arrays

@given(st.tuples(*4 * [st.integers(1, 4)]))
def test_every_picture_of_a_grid_is_in_its_place(shape):
    rows, columns, height, width = shape
    images = np.arange(rows * columns * 3 * height * width, dtype='i') % 251  # never white
    images = images.astype('u1').reshape(rows * columns, 3, height, width)
    canvas = grid(images, rows, columns)
    assert canvas.dtype == np.uint8
    assert canvas.shape == (rows * height + (rows + 1) * GAP, columns * width + (columns + 1) * GAP, 3)
    for row in range(rows):
        for column in range(columns):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            cell = canvas[top:top + height, left:left + width]
            np.testing.assert_array_equal(cell, images[row * columns + column].transpose(1, 2, 0))
            cell[...] = 255
    assert (canvas == 255).all()  # and white around them


@pytest.mark.parametrize('n', [0, 5, 7])
def test_grid_refuses_what_does_not_fill_it(n):
    with pytest.raises(ValueError, match='{} pictures do not fill 2 x 3'.format(n)):
        grid(np.zeros((n, 3, 8, 8), 'u1'), 2, 3)


def test_png_keeps_every_pixel(tmp_path):
    array = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype('u1')
    save_png(tmp_path / 'new' / 'a.png', array)
    with Image.open(tmp_path / 'new' / 'a.png') as image:
        assert image.format == 'PNG' and image.mode == 'RGB'
        np.testing.assert_array_equal(np.asarray(image), array)


def test_png_on_a_full_disk(tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_text('old')

    def full(self, path, **kwargs):
        with open(path, 'wb') as f:
            f.write(b'half')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(UserError, match=r'cannot write .*a\.png: No space left'):
        save_png(tmp_path / 'a.png', np.zeros((5, 7, 3), 'u1'))
    assert tree(tmp_path) == {'a.png': b'old'}


@pytest.fixture(scope='module')
def generator():
    row = resolve(profile='quick', overrides=['model.width=2', 'model.dim_z=8', 'model.initial_scale=0.3']).model
    network = model.build_generator(row, 32, 0)
    for i in range(3):  # in training mode: so batch normalization's running averages are not the initial ones
        network(np.random.RandomState(i).randn(16, 8).astype('f'))
    return network


def test_generate_gives_pictures_that_differ(generator):
    images = generate(generator, 7, seed=1)
    assert images.shape == (7, 3, 32, 32) and images.dtype == np.uint8 and isinstance(images, np.ndarray)
    assert len({image.tobytes() for image in images}) == 7
    assert images.std() > 10


@pytest.mark.parametrize('batchsize', [1, 2, 6, 7, 8])
def test_generate_does_not_depend_on_the_batchsize(generator, batchsize):
    images = generate(generator, 7, seed=1, batchsize=batchsize).astype(int)
    np.testing.assert_allclose(images, generate(generator, 7, seed=1), atol=1)


def test_generate_is_a_function_of_its_arguments(generator):
    np.random.seed(1)
    first, before = generate(generator, 4, seed=1, iteration=2, purpose='a'), np.random.get_state()[1].copy()
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    np.testing.assert_array_equal(generate(generator, 4, seed=1, iteration=2, purpose='a'), first)
    for changed in ({'seed': 2}, {'iteration': 3}, {'purpose': 'b'}):
        other = generate(generator, 4, **{'seed': 1, 'iteration': 2, 'purpose': 'a', **changed})
        assert (other != first).mean() > 0.5, changed


def test_generate_leaves_the_generator_as_it_is(generator):
    state = {path: value.copy() for path, value in npz.serialize(generator).items()}
    assert 'bn1/avg_mean' in state
    with chainer.using_config('train', True):
        generate(generator, 4, seed=1)
        assert chainer.config.train and chainer.config.enable_backprop
    for path, value in npz.serialize(generator).items():
        np.testing.assert_array_equal(value, state[path], err_msg=path)


def test_load_generator(finished):
    directory, cpu = RunDirectory(finished), get_device('cpu')
    last, iteration = load_generator(directory, None, cpu)
    again, also = load_generator(directory, 4, cpu)
    first, zero = load_generator(directory, 0, cpu)
    assert (iteration, also, zero) == (4, 4, 0)
    np.testing.assert_array_equal(last.dense.W.array, again.dense.W.array)
    assert (first.dense.W.array != last.dense.W.array).any()
    np.testing.assert_array_equal(read_npz(directory.generator(4))['dense/W'], last.dense.W.array)


# With classes

@pytest.fixture(scope='module')
def conditional():
    """A generator of three classes, each with a brightness of its own: tanh(+-1) behind batch normalization's shift."""
    overrides = ['model.width=1', 'model.dim_z=8']
    network = model.build_generator(resolve(model='resnet_projection', overrides=overrides).model, 32, 0, 3)
    block = network.block3
    for link in (block.conv2, block.shortcut, network.bn, network.last):
        for p in link.params():
            p.array[...] = 0
    block.norm2.beta.W.array[...] = [[1], [0.5], [0]]
    block.conv2.W.array[:, :, 1, 1] = 1
    network.last.W.array[:, :, 1, 1] = 0.125
    network.bn.gamma.array[...] = 1
    block.norm2.gamma.W.array[...] = 0.1  # what is left of z
    return network


def brightness(images):
    return images.mean((1, 2, 3))


@pytest.mark.parametrize('rows, columns, expected', [
    (3, 2, [0, 0, 1, 1, 2, 2]), (5, 1, [0, 1, 2, 0, 1]), (1, 4, [0, 0, 0, 0]), (2, 3, [0, 0, 0, 1, 1, 1])])
def test_each_row_of_a_grid_has_its_class_in_turn(conditional, rows, columns, expected):
    classes = grid_classes(conditional, rows, columns)
    assert classes.dtype == np.int32 and classes.tolist() == expected


def test_a_grid_without_classes(generator):
    assert grid_classes(generator, 3, 2) is None


def test_generate_draws_the_classes_that_it_is_given(conditional):
    light = brightness(generate(conditional, 6, seed=1, classes=np.array([0, 2, 1, 0, 1, 2], 'i')))
    assert min(light[[0, 3]]) > max(light[[2, 4]]) + 5 and min(light[[2, 4]]) > max(light[[1, 5]]) + 5


@pytest.mark.parametrize('classes', [None, np.array([0, 2, 1, 0, 1, 2, 2], 'i')])
@pytest.mark.parametrize('batchsize', [1, 3, 7, 8])
def test_classes_do_not_depend_on_the_batchsize(conditional, classes, batchsize):
    images = generate(conditional, 7, seed=1, batchsize=batchsize, classes=classes).astype(int)
    np.testing.assert_allclose(images, generate(conditional, 7, seed=1, classes=classes), atol=1)


def classes_drawn(network, n, *arguments):
    light = brightness(np.concatenate(list(generate_chunks(network, n, *arguments, batchsize=50))))
    levels = brightness(generate(network, 3, 0, classes=np.arange(3, dtype='i')))
    return abs(light[:, None] - levels).argmin(axis=1)


def test_scoring_draws_classes_from_the_seed(conditional):
    first = classes_drawn(conditional, 150, 1, 2, 'a')
    assert min(np.bincount(first, minlength=3)) > 30  # of each 50, give or take 5.8
    np.random.seed(1)
    np.testing.assert_array_equal(classes_drawn(conditional, 150, 1, 2, 'a'), first)
    for arguments in ((2, 2, 'a'), (1, 3, 'a'), (1, 2, 'b')):
        assert (classes_drawn(conditional, 150, *arguments) != first).mean() > 0.4, arguments


def test_z_is_the_same_with_and_without_classes(conditional, generator, monkeypatch):
    inputs = []
    for network in (conditional, generator):
        monkeypatch.setattr(network, 'forward', lambda z, y, f=network.forward: inputs.append(z) or f(z, y))
        generate(network, 5, seed=1)
    np.testing.assert_array_equal(*inputs)
    np.testing.assert_array_equal(inputs[0], noise.normal(np, (5, 8), 1, 0, 'z of grid'))


def test_the_extension_draws_a_class_a_row(conditional, tmp_path):
    trainer = types.SimpleNamespace(updater=types.SimpleNamespace(iteration=7))
    GenerateFakeImage(conditional, RunDirectory(tmp_path), 1, rows=3, columns=2)(trainer)
    expected = generate(conditional, 6, 1, classes=np.array([0, 0, 1, 1, 2, 2], 'i'))
    with Image.open(tmp_path / 'images' / 'iter_000007.png') as image:
        np.testing.assert_array_equal(np.asarray(image), grid(expected, 3, 2))


# By way of the command

@pytest.mark.parametrize('iteration', [0, 2, 4])
def test_the_runs_seed_gives_the_pictures_of_training(finished, tmp_path, capsys, iteration):
    out = tmp_path / 'a.png'
    for seed in ([], ['--seed', 3]):
        assert draw(finished, '--iteration', iteration, '--out', out, *seed) == 0
        assert out.read_bytes() == (finished / 'images' / 'iter_{:06d}.png'.format(iteration)).read_bytes()
    assert capsys.readouterr().out.splitlines() == 2 * [str(out)]


def test_the_fixed_z_shows_different_pictures_at_each_iteration(finished):
    pictures = [np.asarray(Image.open(finished / 'images' / 'iter_{:06d}.png'.format(i))) for i in (0, 2, 4)]
    for picture in pictures:
        cells = [picture[GAP + 34 * i:34 + 34 * i, GAP + 34 * j:34 + 34 * j] for i in range(10) for j in range(10)]
        assert len({cell.tobytes() for cell in cells}) == 100
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_defaults_are_the_last_iteration_and_a_name_beside_the_others(finished, copy, capsys):
    before = tree(copy)
    assert draw(copy) == 0
    path = copy / 'images' / 'samples_iter_000004.png'
    assert capsys.readouterr().out == '{}\n'.format(path)
    assert tree(copy) == {**before, 'images/samples_iter_000004.png': before['images/iter_000004.png']}


def test_another_seed_gives_other_pictures(finished, tmp_path):
    pictures = []
    for i, seed in enumerate((0, 4, 2 ** 32 - 1, 4)):
        assert draw(finished, '--seed', seed, '--out', tmp_path / '{}.png'.format(i)) == 0
        pictures.append((tmp_path / '{}.png'.format(i)).read_bytes())
    assert pictures[1] == pictures[3]
    assert len({*pictures, (finished / 'images' / 'iter_000004.png').read_bytes()}) == 4


@pytest.mark.parametrize('rows, columns', [(1, 1), (2, 3), (11, 12)])
def test_rows_and_columns(finished, tmp_path, rows, columns):
    assert draw(finished, '--rows', rows, '--columns', columns, '--out', tmp_path / 'a.png') == 0
    network, _ = load_generator(RunDirectory(finished), None, get_device('cpu'))
    with using_engine('auto'):
        expected = grid(generate(network, rows * columns, 3), rows, columns)
    assert expected.shape == (rows * 34 + GAP, columns * 34 + GAP, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), expected)


def test_out_without_a_folder_and_over_an_old_file(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.png').write_text('old')
    assert draw(finished, '-o', 'a.png') == 0
    assert tree(tmp_path) == {'a.png': (finished / 'images' / 'iter_000004.png').read_bytes()}


@pytest.mark.parametrize('arguments, message', [
    (['--iteration', '3'], '--iteration 3: '),
    (['--iteration', '3'], 'has generators of 0, 2, 4 only'),
    (['--iteration', '-2'], '--iteration -2: '),
    (['--iteration', 'last'], '--iteration'),
    (['--rows', '0'], '--rows'),
    (['--columns', '0'], '--columns'),
    (['--rows', '-1', '--columns', '-1'], '--rows'),
    (['--rows', '1.5'], '--rows'),
    (['--rows', '1000000', '--columns', '1000000'], 'memory'),  # 931 TiB
    (['--seed', '-1'], '--seed'),
    (['--seed', str(2 ** 64)], '--seed'),
    (['--seed', 'x'], '--seed'),
    (['--device', 'tpu'], '--device tpu: expected'),
    (['--device', '99'], '--device 99: there is no such GPU'),
    (['--unknown'], '--unknown'),
    (['another'], 'another'),
])
def test_bad_flags_write_nothing(finished, capsys, arguments, message):
    before = tree(finished)
    refused(capsys, draw(finished, *arguments), message)
    assert tree(finished) == before


def test_no_run(tmp_path, capsys):
    refused(capsys, draw(tmp_path / 'missing'), 'missing is not a directory')
    refused(capsys, draw(tmp_path), 'config.yml')
    (tmp_path / 'file').write_text('')
    refused(capsys, draw(tmp_path / 'file'), 'file is not a directory')
    refused(capsys, run_command(generate_fake_image.main, []), 'run')
    assert tree(tmp_path) == {'file': b''}


def test_no_generators_yet(copy, capsys):
    for path in copy.glob('gen_iter_*.npz'):
        path.unlink()
    before = tree(copy)
    for arguments in ([], ['--iteration', '4']):
        refused(capsys, draw(copy, *arguments), 'run holds no gen_iter_*.npz yet')
    assert tree(copy) == before


def resized(content, path):
    arrays = read_npz(path)
    np.savez(path, **{**arrays, 'dense/W': arrays['dense/W'][:-1]})
    return path.read_bytes()


@pytest.mark.parametrize('damage, message', [
    (lambda content, path: b'', 'not a zip file'),
    (lambda content, path: b'hello', 'not a zip file'),
    (lambda content, path: content[:-1], 'not a zip file'),
    (lambda content, path: content[:1000], 'not a zip file'),
    (lambda content, path: content[:5000] + bytes(5000) + content[10000:], 'bad checksum of '),
    (resized, 'dense/W has shape'),
])
def test_damaged_generator(copy, capsys, damage, message):
    path = copy / 'gen_iter_000004.npz'
    path.write_bytes(damage(path.read_bytes(), path))
    before = tree(copy)
    refused(capsys, draw(copy), str(path), message)
    assert tree(copy) == before
    assert draw(copy, '--iteration', 2) == 0


@pytest.mark.parametrize('old, new, message', [
    ('architecture: cnn', 'architecture: vgg', 'model.architecture must be'),
    ('architecture: cnn', 'architecture: resnet', 'model.generator is missing'),
    ('  n_classes: 10\n', '', "'dataset.n_classes' is missing"),
    ('  dim_z: 128\n', '', 'dim_z'),
    ('  width: 2\n', '', 'width'),
    ('  size: 32\n', '', 'size'),
    ('  last: convolution\n', '', 'last'),
    ('width: 2', 'width: two', 'model.width must be'),
    ('seed: 3', 'seed: -3', 'seed'),
    ('seed: 3', 'seed: three', 'seed'),
    ('seed: 3', 'seed: 99999999999999999999', 'seed'),
    ('seed: 3\n', '', 'seed'),
])
def test_damaged_config(copy, capsys, old, new, message):
    content = (copy / 'config.yml').read_text()
    assert content.count(old) == 1
    (copy / 'config.yml').write_text(content.replace(old, new))
    before = tree(copy)
    refused(capsys, draw(copy), message)
    assert tree(copy) == before


@pytest.mark.parametrize('place', ['{}', '{}/file/a.png', '/proc/a.png'])
def test_out_that_cannot_be_written(finished, tmp_path, capsys, place):
    (tmp_path / 'file').write_text('')
    out, before = place.format(tmp_path), tree(finished)
    refused(capsys, draw(finished, '--rows', 1, '--out', out), 'cannot write ' + out)
    assert tree(tmp_path) == {'file': b''} and tree(finished) == before
