"""util.imagenet: folders of classes, the files that ImageNet has, and their preparation."""
import json
import os
import signal
import subprocess
import sys

from util import compat  # noqa: F401

# isort: split
import chainer
import numpy as np
import pytest
from PIL import Image

from util import imagenet, prepared
from util.dataset import BatchIterator, check_classes, load
from util.files import UserError

ROW = {'source': 'imagenet', 'size': 16, 'n_classes': 1000}
RANDOM = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def root(tmp_path_factory):
    """Chainer's data sets, moved to an empty folder."""
    before, folder = chainer.dataset.get_dataset_root(), tmp_path_factory.mktemp('root')
    chainer.dataset.set_dataset_root(str(folder))
    yield folder
    chainer.dataset.set_dataset_root(before)


def save(path, array=RANDOM, mode=None, format='JPEG', **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, format, **options)


def grey(value):
    return np.full((20, 30, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Six pictures of three classes, whose brightness tells the order."""
    for i, name in enumerate(['n01440764/n01440764_10.JPEG', 'n01440764/n01440764_9.JPEG', 'n02105855/deep/er/a.jpg',
                              'n02105855/n02105855_2933.JPEG', 'n02105855/z.PNG', 'n09999999/a.png']):
        save(tmp_path / name, grey(40 * i), format='PNG' if i > 2 else 'JPEG', **({} if i > 2 else {'quality': 95}))
    (tmp_path / 'synset_words.txt').write_text('n01440764 tench\n')
    (tmp_path / 'n01440764' / 'notes.txt').write_text('no picture')
    (tmp_path / 'n01440764' / '._x.JPEG').write_bytes(b'what macOS leaves behind')
    return tmp_path


def test_reads_classes_in_order(folder):
    pictures = load(ROW, 'train', str(folder))
    assert isinstance(pictures.images, np.memmap) and pictures.images.dtype == np.uint8
    assert pictures.images.shape == (6, 3, 16, 16) and pictures.name == 'imagenet'
    np.testing.assert_allclose(pictures.images[:, :, 3, 4].astype(int), np.arange(6)[:, None] * 40 + [[0] * 3], atol=3)
    assert pictures.labels.dtype == np.int32
    np.testing.assert_array_equal(pictures.labels, [0, 0, 1, 1, 1, 2])
    assert '6 pictures of 3 classes' in pictures.source and '16x16' in pictures.source
    for split in 'test', 'all':
        assert load(ROW, split, str(folder)).fingerprint == pictures.fingerprint
    with pytest.raises(UserError, match='n_classes is 1000, but these pictures have 3 classes.*n_classes=3'):
        check_classes(pictures, 1000)  # a generator of 1000 would draw 997 that D only knows as fakes


def only(tmp_path, size=16, name='n01440764/a.JPEG'):
    pictures = load({**ROW, 'size': size}, 'train', str(tmp_path))
    assert len(pictures.images) == 1
    return np.array(pictures.images[0])


@pytest.mark.parametrize('array, middle', [
    (RANDOM, np.s_[:, 10:50]), (RANDOM.transpose(1, 0, 2), np.s_[10:50]), (RANDOM[:, :41], np.s_[:, :40])])
def test_the_middle_square_is_cut_out_and_resized_bilinearly(tmp_path, array, middle):
    save(tmp_path / 'n01440764' / 'a.png', array, format='PNG')
    expected = Image.fromarray(array[middle].copy()).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(only(tmp_path).transpose(1, 2, 0), expected)


def test_cmyk(tmp_path):
    array = np.broadcast_to(np.uint8([200, 100, 50]), (20, 30, 3)).copy()
    save(tmp_path / 'n01440764' / 'a.JPEG', array, 'CMYK', quality=100)
    np.testing.assert_allclose(only(tmp_path)[:, 8, 8].astype(int), [200, 100, 50], atol=6)


@pytest.mark.parametrize('mode, format', [('L', 'JPEG'), ('L', 'PNG'), ('P', 'PNG'), ('RGBA', 'PNG')])
def test_other_modes(tmp_path, mode, format):
    save(tmp_path / 'n01440764' / 'a.JPEG', grey(51), mode, format)  # .JPEG, whatever it is
    np.testing.assert_allclose(only(tmp_path)[:, 8, 8].astype(int), 51, atol=1)


def test_pictures_are_not_turned(tmp_path):
    """The authors' code did not look at EXIF data."""
    exif, array = Image.Exif(), np.zeros((16, 16, 3), np.uint8)
    exif[0x0112] = 6
    array[:4] = 255
    save(tmp_path / 'n01440764' / 'a.JPEG', array, format='PNG', exif=exif)
    np.testing.assert_array_equal(only(tmp_path), array.transpose(2, 0, 1))


def test_is_prepared_once(folder, root, monkeypatch):
    first = load(ROW, 'train', str(folder))
    monkeypatch.setattr(imagenet, 'read_rgb', lambda *args: pytest.fail('read again'))
    again = load(ROW, 'train', str(folder))
    assert (again.source, again.fingerprint) == (first.source, first.fingerprint)
    path, = (root / 'chainer-spectral-normalization' / 'prepared').glob('*.npy')
    direct = load(ROW, 'train', str(path))  # --data-dir may be the file itself
    assert (direct.source, direct.fingerprint) == (first.source, first.fingerprint)
    for pictures in again, direct:
        np.testing.assert_array_equal(pictures.images, first.images)
        np.testing.assert_array_equal(pictures.labels, first.labels)
    with pytest.raises(UserError, match="'imagenet' of 16x16, where 'imagenet' of 32x32"):
        load({**ROW, 'size': 32}, 'train', str(path))


@pytest.mark.parametrize('change', ['size', 'name', 'more', 'fewer', 'content'])
def test_another_listing_is_prepared_anew(folder, change):
    first, row = load(ROW, 'train', str(folder)), ROW
    picture = folder / 'n02105855' / 'z.PNG'
    if change == 'size':
        row = {**ROW, 'size': 24}
    elif change == 'name':
        picture.rename(folder / 'n02105855' / 'y.PNG')
    elif change == 'more':
        save(folder / 'n02105855' / 'zz.png', format='PNG')
    elif change == 'fewer':
        picture.unlink()
    else:
        save(picture, RANDOM, format='PNG')
    second = load(row, 'train', str(folder))
    assert second.fingerprint != first.fingerprint
    assert len(second.images) == {'more': 7, 'fewer': 5}.get(change, 6)
    assert second.images.shape[2] == row['size']


def test_what_is_no_folder_of_classes(tmp_path):
    def refused(path, *matches):
        with pytest.raises(UserError) as caught:
            load(ROW, 'train', str(path))
        assert '\n' not in str(caught.value) and all(match in str(caught.value) for match in matches), caught.value

    with pytest.raises(UserError, match='--data-dir is required with a dataset of source imagenet'):
        load(ROW)
    refused(tmp_path / 'missing', '--data-dir', 'No such file')
    refused(tmp_path, 'n01440764 ...', 'ILSVRC/Data/CLS-LOC/train')
    save(tmp_path / 'train' / 'n01440764' / 'a.JPEG')
    (tmp_path / 'val').mkdir()
    refused(tmp_path, "found 'train', 'val'")  # a level too high
    save(tmp_path / 'train' / 'n01440765x' / 'a.JPEG')
    refused(tmp_path / 'train', "found 'n01440765x'")
    os.rename(tmp_path / 'train' / 'n01440765x', tmp_path / 'train' / 'n01440765')
    load(ROW, 'train', str(tmp_path / 'train'))
    save(tmp_path / 'train' / 'loose.JPEG')
    refused(tmp_path / 'train', "found 'loose.JPEG'")
    os.unlink(tmp_path / 'train' / 'loose.JPEG')
    (tmp_path / 'train' / 'n01440766').mkdir()
    refused(tmp_path / 'train', 'no pictures', 'n01440766')


@pytest.mark.parametrize('blob', [b'', b'no picture', b'GIF89a' + bytes(100), 'cut'])
def test_a_broken_picture_is_named_and_mended(folder, blob):
    path = folder / 'n02105855' / 'z.PNG'
    path.write_bytes(path.read_bytes()[:60] if blob == 'cut' else blob)
    with pytest.raises(UserError, match='cannot read the picture .*z.PNG') as caught:
        load(ROW, 'train', str(folder))
    assert '\n' not in str(caught.value)
    save(path, grey(1), format='PNG')
    assert load(ROW, 'train', str(folder)).images[4, 0, 0, 0] == 1


def test_refuses_decompression_bombs(folder):
    Image.new('1', (10000, 9000)).save(folder / 'n02105855' / 'z.PNG')
    with pytest.raises(UserError, match='z.PNG.*decompression bomb'):
        load(ROW, 'train', str(folder))


def test_a_prepared_file_of_another_kind(folder, root):
    load(ROW, 'train', str(folder))
    path, = (root / prepared.FOLDER).glob('*.npy')
    with open(f'{path}.json') as f:
        sidecar = json.load(f)
    for change, match in (({'labels': None}, 'expected the labels'), ({'name': 'stl10'}, "'stl10'"),
                          ({'labels': [0, 0, 1, 1, 1, -1]}, 'out of range')):
        with open(f'{path}.json', 'w') as f:
            json.dump({**sidecar, **change}, f)
        with pytest.raises(UserError, match=match):
            load(ROW, 'train', str(path))
    (root / 'x.npy').write_bytes(b'no prepared file')
    with pytest.raises(UserError, match='x.npy.json'):
        load(ROW, 'train', str(root / 'x.npy'))


KILLED = '''
import os, signal, sys
from util import prepared
from util.dataset import load
prepared._CHUNK = 2
update, calls = prepared.atomic_write, []
def atomic_write(path):
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(path)
    return update(path)
prepared.atomic_write = atomic_write
load({'source': 'imagenet', 'size': 16}, 'train', sys.argv[1])
'''


def test_a_killed_preparation_goes_on_and_gives_the_same_bytes(folder, root, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(prepared, '_CHUNK', 2)
    undisturbed = load(ROW, 'train', str(folder))
    path, = (root / prepared.FOLDER).glob('*.npy')
    kept = [path.read_bytes(), (path.parent / (path.name + '.json')).read_bytes()]
    os.unlink(path)
    os.unlink(f'{path}.json')
    process = subprocess.run([sys.executable, '-c', KILLED, str(folder)], capture_output=True, text=True,
                             env={**os.environ, 'CHAINER_DATASET_ROOT': str(root), 'OMP_NUM_THREADS': '1'})
    assert process.returncode == -signal.SIGKILL, process.stderr
    with open(f'{path}.progress') as f:
        assert json.load(f)['done'] == 4  # the third chunk was written, but does not count
    assert not os.path.exists(path)
    read, looked_at = imagenet.read_rgb, []
    monkeypatch.setattr(imagenet, 'read_rgb', lambda path, *args, **options: looked_at.append(path) or read(
        path, *args, **options))
    resumed = load(ROW, 'train', str(folder))
    assert sorted(map(os.path.basename, looked_at)) == ['a.png', 'z.PNG']
    assert resumed.fingerprint == undisturbed.fingerprint
    assert [path.read_bytes(), (path.parent / (path.name + '.json')).read_bytes()] == kept
    assert not (path.parent / (path.name + '.partial')).exists()


def test_batches(folder):
    pictures = load(ROW, 'train', str(folder))
    x, y = BatchIterator(pictures.images, 6, 0, labels=pictures.labels).next()
    brightness = np.floor((x[:, 0, 0, 0] + 1) * 128)
    np.testing.assert_allclose(np.sort(brightness), np.arange(6) * 40, atol=3)
    np.testing.assert_array_equal(y, np.array([0, 0, 1, 1, 1, 2])[np.round(brightness / 40).astype(int)])
