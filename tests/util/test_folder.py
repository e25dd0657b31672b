"""util.folder: every kind of picture file, classes by sub-directory, and what a fingerprint knows."""
import hashlib
import io
import os

from util import compat  # noqa: F401

# isort: split
import numpy as np
import pytest
from PIL import Image

from util.dataset import check_classes, load
from util.files import UserError

FOLDER = {'source': 'folder', 'size': 16}


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


def test_folder_fingerprint_is_that_of_earlier_versions(tmp_path):
    """A run that was begun on a folder must go on: neither the pixels nor what is hashed may change."""
    wide = np.random.RandomState(0).randint(0, 256, (30, 50, 3)).astype(np.uint8)
    save(tmp_path / 'x' / 'wide.png', wide)
    picture = Image.fromarray(wide).resize((16, 16), Image.Resampling.LANCZOS, box=(10, 0, 40, 30))
    pictures = load(FOLDER, 'train', str(tmp_path))
    np.testing.assert_array_equal(pictures.images[0].transpose(1, 2, 0), picture)
    assert pictures.fingerprint == hashlib.md5(b'x/wide.png\0' + pictures.images.tobytes()).hexdigest()


def test_folder_with_a_class_for_each_sub_directory(tmp_path):
    for name in 'dog/1', 'dog/sub/0', 'cat/9', 'eel-2/0':
        save(tmp_path / (name + '.png'), colour(1, 2, 3))
    (tmp_path / 'empty').mkdir()
    pictures = load(FOLDER, 'train', str(tmp_path))
    check_classes(pictures, 3)
    assert pictures.labels.dtype == np.int32
    np.testing.assert_array_equal(pictures.labels, [0, 1, 1, 2])  # cat/9, dog/1, dog/sub/0, eel-2/0
    assert '4 pictures of 3 classes in the folder' in pictures.source
    save(tmp_path / 'loose.png', colour(1, 2, 3))
    pictures = load(FOLDER, 'train', str(tmp_path))
    assert pictures.labels is None
    with pytest.raises(UserError, match='n_classes is 3, but these pictures have no classes: 5 pictures in the folder'):
        check_classes(pictures, 3)


def test_linked_folders_are_classes_too_and_circles_end(tmp_path):
    save(tmp_path / 'elsewhere' / 'dog' / '0.png', colour(1, 2, 3))
    save(tmp_path / 'data' / 'cat' / '0.png', colour(1, 2, 3))
    (tmp_path / 'data' / 'dog').symlink_to(tmp_path / 'elsewhere' / 'dog')
    (tmp_path / 'data' / 'cat' / 'round').symlink_to(tmp_path / 'data')
    os.mkfifo(tmp_path / 'data' / 'cat' / 'pipe.png')  # reading one would wait for ever
    pictures = load(FOLDER, 'train', str(tmp_path / 'data'))
    np.testing.assert_array_equal(pictures.labels, [0, 1])


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
