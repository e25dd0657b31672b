"""util.dataset: rows, the digits, to and from floats, and the batches."""
import dataclasses
import io
import re
import types

from util import compat  # noqa: F401

# isort: split
import chainer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from util import config, noise
from util.dataset import BatchIterator, Pictures, check_classes, load, split_name, to_float, to_uint8
from util.files import UserError

DIGITS = {'source': 'digits', 'size': 32}


@pytest.mark.parametrize('row, match', [
    ({'source': 'mnist', 'size': 32}, 'cifar10, digits, folder, stl10, imagenet'),
    ({'source': 'digits', 'size': 0}, 'size'), ({'source': 'digits', 'size': 'x'}, 'size')])
def test_wrong_rows(row, match):
    with pytest.raises(UserError, match=match):
        load(row)


def test_a_gan_with_classes_has_those_of_its_pictures():
    pictures = load(DIGITS)
    check_classes(pictures, 10)
    for n_classes in 9, 11:
        with pytest.raises(UserError, match=r'n_classes is \d+, .* 10 classes: scikit.*--set dataset.n_classes=10'):
            check_classes(pictures, n_classes)


@pytest.mark.parametrize('source, is_split', [
    ('cifar10', True), ('digits', True), ('stl10', True), ('folder', False), ('imagenet', False)])
def test_split_name(source, is_split):
    assert split_name(types.SimpleNamespace(source=source), 'test') == ('test' if is_split else 'all')


@pytest.mark.parametrize('name', ['cifar10', 'digits', 'folder', 'stl10', 'stl10-labelled', 'imagenet'])
def test_rows_are_read_as_they_stand(name, tmp_path):
    """An empty folder is refused by the loader that a row names, which so has understood the row."""
    row = config.resolve(dataset=name).dataset
    if name == 'digits':
        assert load(row, row.split).images.shape == (1797, 3, 32, 32)
        return
    with pytest.raises(UserError, match=re.escape(f'--data-dir {tmp_path}: ') + '.*' + {
            'cifar10': 'test_batch', 'folder': 'no pictures', 'stl10': 'unlabeled_X.bin', 'imagenet': 'n01440764',
            'stl10-labelled': 'train_X.bin'}[name]):
        load(row, row.split, str(tmp_path))


def test_wrong_split():
    with pytest.raises(UserError, match="'validation'"):
        load(DIGITS, 'validation')


def test_a_row_may_be_an_object_and_pictures_do_not_change():
    pictures = load(types.SimpleNamespace(**DIGITS), 'test')
    assert pictures.fingerprint == load(DIGITS, 'test').fingerprint
    with pytest.raises(dataclasses.FrozenInstanceError):
        pictures.name = 'x'


# Digits


def test_digits_as_they_are():
    from sklearn.datasets import load_digits
    bunch = load_digits()
    pictures = load({'source': 'digits', 'size': 8}, 'all')
    assert isinstance(pictures, Pictures)
    assert pictures.images.dtype == np.uint8 and pictures.labels.dtype == np.int32
    for channel in range(3):
        np.testing.assert_array_equal(pictures.images[:, channel], np.floor(bunch.images * 255 / 16 + 0.5))
    np.testing.assert_array_equal(pictures.labels, bunch.target)
    assert pictures.images.min() == 0 and pictures.images.max() == 255


def test_digits_are_split_evenly_and_always_alike():
    train, test, everything = (load(DIGITS, split) for split in ('train', 'test', 'all'))
    assert train.images.shape[1:] == (3, 32, 32)
    assert (len(train.images) + len(test.images), len(everything.images)) == (1797, 1797)
    share = np.bincount(test.labels) / np.bincount(everything.labels)
    assert share.shape == (10,) and (abs(share - 0.2) < 0.005).all()

    def rows(pictures):
        return {image.tobytes() for image in pictures.images}
    assert not rows(train) & rows(test)  # no scan occurs twice
    assert rows(train) | rows(test) == rows(everything)
    assert load(DIGITS, 'test').fingerprint == test.fingerprint
    larger = load({**DIGITS, 'size': 48}, 'all')
    assert len({pictures.fingerprint for pictures in (train, test, everything, larger)}) == 4
    assert '359 pictures (test)' in test.source and '32x32' in test.source


def test_digits_keep_their_brightness_when_resized():
    small, large = (load({'source': 'digits', 'size': size}, 'test').images.astype(float) for size in (8, 32))
    np.testing.assert_allclose(large.mean((1, 2, 3)), small.mean((1, 2, 3)), atol=4)
    blocks = large.reshape(-1, 3, 8, 4, 8, 4).mean((3, 5))
    assert np.corrcoef(blocks.ravel(), small.ravel())[0, 1] > 0.97  # everything is where it was
    assert np.corrcoef(blocks.ravel(), np.roll(small, 1, 3).ravel())[0, 1] < 0.8


# Floats


ALL = np.arange(256, dtype=np.uint8)


@given(st.floats(0, 1, exclude_max=True, width=32))
def test_to_float_and_back(u):
    x = to_float(ALL, np.full(256, u, np.float32))
    assert x.dtype == np.float32 and x.min() >= -1 and x.max() < 1
    np.testing.assert_allclose(x, ALL / 128 - 1 + u / 128, rtol=0, atol=2 ** -22)
    back = to_uint8(x)
    assert back.dtype == np.uint8
    assert abs(back.astype(int) - ALL).max() <= 1


def test_to_uint8_clips_and_truncates():
    x = np.float32([-7, -1, -1 + 0.9 / 127.5, -1 + 1.1 / 127.5, 0, 0.999, 1, 7])
    np.testing.assert_array_equal(to_uint8(x), [0, 0, 0, 1, 127, 254, 255, 255])


# Batches


def numbered(n):
    """n pictures that can be told apart, n at most 256."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 3, 2, 2)).copy()


def numbers(batch):
    """Which of the numbered pictures a batch holds."""
    return np.floor((batch[:, 0, 0, 0] + 1) * 128).astype(int)


def test_a_batch():
    iterator = BatchIterator(numbered(100), 8, 3, chainer.get_device('@numpy'))
    batch = iterator.next()
    assert batch.shape == (8, 3, 2, 2) and batch.dtype == np.float32
    assert (batch >= -1).all() and (batch < 1).all()
    order = noise.permutation(100, 3, 0)[:8]
    u = noise.uniform(np, (8, 3, 2, 2), 3, 0, 'dequantisation')
    np.testing.assert_array_equal(batch, to_float(numbered(100)[order], u))


sizes = st.integers(1, 40)


@given(sizes, sizes, st.integers(0, 2 ** 40))
@settings(max_examples=50)
def test_every_picture_once_an_epoch(n, batchsize, seed):
    iterator = BatchIterator(numbered(n), batchsize, seed)
    epochs = 3
    drawn = np.concatenate([numbers(next(iterator)) for _ in range(-(-epochs * n // batchsize))])
    for epoch in range(epochs):
        np.testing.assert_array_equal(drawn[epoch * n:(epoch + 1) * n], noise.permutation(n, seed, epoch))
        assert sorted(drawn[epoch * n:(epoch + 1) * n]) == list(range(n))


@given(sizes, sizes, st.integers(0, 2 ** 40))
@settings(max_examples=30)
def test_labels_go_with_their_pictures_and_change_nothing(n, batchsize, seed):
    labels = np.arange(n, dtype=np.int32) * 3
    plain, labelled = BatchIterator(numbered(n), batchsize, seed), BatchIterator(numbered(n), batchsize, seed,
                                                                                 labels=labels)
    for _ in range(3):
        x, y = labelled.next()
        assert y.dtype == np.int32 and y.shape == (batchsize,)
        np.testing.assert_array_equal(y, 3 * numbers(x))
        np.testing.assert_array_equal(x, plain.next())
    saved = [io.BytesIO() for _ in range(2)]
    for buffer, iterator in zip(saved, (plain, labelled), strict=True):
        chainer.serializers.save_npz(buffer, iterator, compression=False)
    assert saved[0].getvalue() == saved[1].getvalue()


def test_epochs_seeds_and_noise_differ():
    first, other = (BatchIterator(numbered(50), 50, seed) for seed in (0, 1))
    a, b, c = first.next(), first.next(), other.next()
    assert list(numbers(a)) != list(numbers(b)) and list(numbers(a)) != list(numbers(c))
    for x, y in (a, b), (a, c):
        fractions = [np.sort(((z + 1) * 128 % 1).ravel()) for z in (x, y)]
        assert abs(fractions[0] - fractions[1]).max() > 1e-3
    assert abs(np.mean((a + 1) * 128 % 1) - 0.5) < 0.05


@given(sizes, sizes, st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=50)
def test_a_resumed_iterator_goes_on_as_if_nothing_had_happened(n, batchsize, before, after):
    images = numbered(n)
    undisturbed, saved, resumed = (BatchIterator(images, batchsize, 5) for _ in range(3))
    for _ in range(before):
        undisturbed.next()
        saved.next()
    for _ in range(after):
        resumed.next()  # whatever it has drawn is forgotten
    buffer = io.BytesIO()
    chainer.serializers.save_npz(buffer, saved)
    buffer.seek(0)
    with np.load(buffer) as file:
        assert list(file) == ['batches']
    buffer.seek(0)
    chainer.serializers.load_npz(buffer, resumed)
    for _ in range(4):
        for name in 'epoch', 'epoch_detail', 'previous_epoch_detail', 'is_new_epoch':
            assert getattr(resumed, name) == getattr(undisturbed, name)
        np.testing.assert_array_equal(resumed.next(), undisturbed.next())


@given(sizes, st.integers(1, 40))
@settings(max_examples=30)
def test_counts_epochs_as_chainers_own_iterator_does(n, batchsize):
    mine = BatchIterator(numbered(n), min(batchsize, n), 0)  # Chainer's counts one epoch a batch at most
    chainers = chainer.iterators.SerialIterator(list(range(n)), min(batchsize, n))
    for _ in range(12):
        for name in 'epoch', 'epoch_detail', 'previous_epoch_detail', 'is_new_epoch', 'batch_size':
            assert getattr(mine, name) == pytest.approx(getattr(chainers, name)), name
        mine.next()
        chainers.next()


def test_more_epochs_than_one_in_a_batch():
    iterator = BatchIterator(numbered(2), 5, 0)
    assert (iterator.epoch, iterator.previous_epoch_detail, iterator.is_new_epoch) == (0, None, False)
    iterator.next()
    assert (iterator.epoch, iterator.epoch_detail) == (2, 2.5)
    assert (iterator.previous_epoch_detail, iterator.is_new_epoch) == (0, True)


def test_pictures_stay_bytes_and_are_not_copied_on_the_cpu():
    images = numbered(10)
    iterator = BatchIterator(images, 4, 0, '@numpy')
    assert np.shares_memory(iterator._images, images)
    before = images.copy()
    iterator.next()
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize('n, batchsize', [(10, 0), (10, -1), (0, 4)])
def test_wrong_sizes(n, batchsize):
    with pytest.raises(ValueError, match='batchsize'):
        BatchIterator(numbered(n), batchsize, 0)


def test_a_label_is_missing():
    with pytest.raises(ValueError, match='each of 10 pictures, not 9'):
        BatchIterator(numbered(10), 4, 0, labels=np.zeros(9, np.int32))
