"""util.dataset: the digits, folders, to and from floats, and the batches."""
import dataclasses
import io
import os
import types

from util import compat  # noqa: F401

# isort: split
import chainer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from util import noise
from util.dataset import BatchIterator, Pictures, load, to_float, to_uint8
from util.files import UserError

DIGITS = {'source': 'digits', 'size': 32}
FOLDER = {'source': 'folder', 'size': 16}


@pytest.mark.parametrize('row, match', [
    ({'source': 'mnist', 'size': 32}, 'cifar10, digits, folder'), ({'source': 'digits', 'size': 0}, 'size'),
    ({'source': 'digits', 'size': 'x'}, 'size')])
def test_wrong_rows(row, match):
    with pytest.raises(UserError, match=match):
        load(row)


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


# Folders


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


def colour(*rgb, shape=(20, 20)):
    return np.broadcast_to(np.uint8(rgb), (*shape, len(rgb))).copy()


def test_folder_reads_all_depths_in_order(tmp_path):
    save(tmp_path / 'b.PNG', colour(2, 0, 0))
    save(tmp_path / 'a' / 'z.webp', colour(1, 0, 0), lossless=True)
    save(tmp_path / 'c' / 'd' / 'e.bmp', colour(3, 0, 0))
    save(tmp_path / 'd.JPEG', colour(100, 100, 100), quality=95)
    save(tmp_path / 'e.jpg', colour(200, 200, 200), quality=95)
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / '._b.png').write_bytes(b'what macOS leaves behind')
    (tmp_path / '.cache').mkdir()
    (tmp_path / '.cache' / 'f.png').write_bytes(b'hidden')
    for split in 'train', 'test':
        pictures = load(FOLDER, split, str(tmp_path))
        assert pictures.images.shape == (5, 3, 16, 16) and pictures.images.dtype == np.uint8 and pictures.labels is None
        np.testing.assert_array_equal(pictures.images[:3, 0, 0, 0], [1, 2, 3])
        np.testing.assert_allclose(pictures.images[3:, :, 5, 5].astype(int), [[100] * 3, [200] * 3], atol=3)
    assert pictures.name == 'folder' and tmp_path.name in pictures.source and '5 pictures' in pictures.source


def test_folder_fingerprint_knows_names_and_pixels(tmp_path):
    def fingerprint():
        return load(FOLDER, 'train', str(tmp_path)).fingerprint
    save(tmp_path / 'a.png', colour(1, 2, 3))
    first = fingerprint()
    assert fingerprint() == first
    os.rename(tmp_path / 'a.png', tmp_path / 'b.png')
    assert fingerprint() != first
    save(tmp_path / 'a.png', colour(1, 2, 3))
    os.unlink(tmp_path / 'b.png')
    assert fingerprint() == first
    save(tmp_path / 'a.png', colour(1, 2, 4))
    assert fingerprint() != first


def only(tmp_path, size=16):
    return load({'source': 'folder', 'size': size}, 'train', str(tmp_path)).images[0].astype(int)


@pytest.mark.parametrize('shape, middle', [
    ((16, 40), np.s_[:, 12:28]), ((40, 16), np.s_[12:28]), ((17, 16), np.s_[:16])])
def test_folder_crops_the_middle(tmp_path, shape, middle):
    array = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
    save(tmp_path / 'a.png', array)
    np.testing.assert_array_equal(only(tmp_path), array[middle].transpose(2, 0, 1))


def test_folder_shrinks_by_averaging(tmp_path):
    checkers = np.uint8(255) * (np.indices((64, 64)).sum(0) % 2).astype(np.uint8)
    save(tmp_path / 'a.png', np.repeat(checkers[..., None], 3, 2))
    assert abs(only(tmp_path) - 127.5).max() < 12  # picking pixels would give 0 or 255


@pytest.mark.parametrize('array, mode, expected', [
    (colour(51, 204, 102), 'P', (51, 204, 102)),  # a colour of the palette
    (colour(77, 77, 77), 'L', (77, 77, 77)),
    (colour(255, 255, 255), '1', (255, 255, 255)),
    (colour(10, 200, 90, 0), None, (255, 255, 255)),  # transparent: white shows
    (colour(10, 200, 90, 255), None, (10, 200, 90)),
    (colour(0, 0, 0, 128), None, (127, 127, 127)),
    (colour(0, 0, 0, 0), 'LA', (255, 255, 255)),
    (np.full((20, 20), 0x4D12, np.uint16), None, (0x4D,) * 3),
    (np.full((20, 20), 0xFFFF, np.uint16), None, (255,) * 3),
])
def test_folder_takes_every_mode(tmp_path, array, mode, expected):
    save(tmp_path / 'a.png', array, mode)
    np.testing.assert_array_equal(only(tmp_path)[:, 8, 8], expected)


def test_folder_takes_cmyk(tmp_path):
    save(tmp_path / 'a.jpg', colour(200, 100, 50), 'CMYK', quality=100)
    np.testing.assert_allclose(only(tmp_path)[:, 8, 8], (200, 100, 50), atol=6)


def test_folder_turns_pictures_upright(tmp_path):
    array = colour(0, 0, 0, shape=(16, 16))
    array[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter to the right
    save(tmp_path / 'a.png', array, exif=exif)
    picture = only(tmp_path)[0]
    np.testing.assert_array_equal(picture[:, -4:], 255)
    np.testing.assert_array_equal(picture[:, :-4], 0)


def picture_bytes(format='PNG'):
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize('blob', [
    b'', b'no picture', picture_bytes()[:2000], picture_bytes()[:50], picture_bytes('JPEG')[:1500],
    picture_bytes('GIF'), picture_bytes().replace(b'IDAT', b'XDAT')])
def test_folder_with_a_broken_picture(tmp_path, blob):
    save(tmp_path / 'good.png', colour(1, 2, 3))
    (tmp_path / 'broken.png').write_bytes(blob)
    with pytest.raises(UserError, match='broken.png') as caught:
        load(FOLDER, 'train', str(tmp_path))
    assert '\n' not in str(caught.value)


def test_folder_refuses_decompression_bombs(tmp_path):
    Image.new('1', (10000, 9000)).save(tmp_path / 'bomb.png')
    assert os.path.getsize(tmp_path / 'bomb.png') < 100_000
    with pytest.raises(UserError, match='bomb.png.*decompression bomb'):
        load(FOLDER, 'train', str(tmp_path))


def test_folder_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(UserError, match='--data-dir is required'):
        load(FOLDER)
    with pytest.raises(UserError, match='no such directory'):
        load(FOLDER, 'train', str(tmp_path / 'missing'))
    (tmp_path / 'notes.txt').write_text('no picture')
    with pytest.raises(UserError, match='no pictures'):
        load(FOLDER, 'train', str(tmp_path))


@pytest.mark.parametrize('n, shown', [(1000, False), (1001, True)])
def test_folder_shows_progress_when_it_takes_long(tmp_path, capsys, n, shown):
    for i in range(n):
        (tmp_path / f'{i}.bmp').symlink_to(tmp_path / 'one')
    Image.new('RGB', (2, 2)).save(tmp_path / 'one', 'BMP')
    load({'source': 'folder', 'size': 2}, 'train', str(tmp_path))
    assert ('pictures: 100%' in capsys.readouterr().err) == shown


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
