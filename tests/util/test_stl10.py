"""util.stl10: archives in the true layout, small, damaged, and hostile."""
import hashlib
import io
import os
import tarfile

from util import compat  # noqa: F401

# isort: split
import chainer
import numpy as np
import pytest
from PIL import Image

from util import original, prepared, stl10
from util.dataset import check_classes, load
from util.files import UserError

UNLABELED = {'source': 'stl10', 'part': 'unlabeled', 'size': 48, 'n_classes': 0}
LABELLED = {'source': 'stl10', 'part': 'labelled', 'size': 48, 'n_classes': 10}
COUNTS = {'unlabeled': 7, 'train': 3, 'test': 4}
LABELS = {'train': [1, 10, 2], 'test': [5, 5, 1, 9]}  # as the files count


def pictures(name):
    """uint8, (n, 3, 96, 96), as one sees them."""
    return np.random.RandomState(len(name)).randint(0, 256, (COUNTS[name], 3, 96, 96)).astype(np.uint8)


def halved(images):
    """The mean of 2x2 pixels, rounded half up."""
    blocks = images.reshape(-1, 3, 48, 2, 48, 2).astype(float)
    return np.floor(blocks.mean((3, 5)) + 0.5)


def columns(images):
    """The bytes of a file of pictures: channel after channel, each column after column."""
    return b''.join(bytes(channel[:, column]) for image in images for channel in image for column in range(96))


def members(**changed):
    """Member name -> bytes, in the original's order; None leaves one out."""
    blobs = {'test_X.bin': columns(pictures('test')), 'test_y.bin': bytes(LABELS['test']),
             'train_X.bin': columns(pictures('train')), 'train_y.bin': bytes(LABELS['train']),
             'unlabeled_X.bin': columns(pictures('unlabeled')), 'class_names.txt': b'airplane\nbird\n'}
    blobs.update({name.replace('_bin', '.bin'): blob for name, blob in changed.items()})
    return {'stl10_binary/' + name: blob for name, blob in blobs.items() if blob is not None}


def write(path, blobs):
    with tarfile.open(path, 'w:gz', compresslevel=1) as archive:
        for name, blob in blobs.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            archive.addfile(info, io.BytesIO(blob))
    return str(path)


@pytest.fixture(autouse=True)
def root(tmp_path):
    """Chainer's data sets, moved to an empty folder."""
    before = chainer.dataset.get_dataset_root()
    chainer.dataset.set_dataset_root(str(tmp_path / 'root'))
    yield tmp_path / 'root'
    chainer.dataset.set_dataset_root(before)


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / 'stl10_binary.tar.gz', members())


def extract(folder, blobs):
    for name, blob in blobs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(blob)


CASES = [(UNLABELED, 'train', ['unlabeled'], None), (UNLABELED, 'test', ['test'], [4, 4, 0, 8]),
         (UNLABELED, 'all', ['unlabeled', 'test'], None), (LABELLED, 'train', ['train'], [0, 9, 1]),
         (LABELLED, 'test', ['test'], [4, 4, 0, 8]), (LABELLED, 'all', ['train', 'test'], [0, 9, 1, 4, 4, 0, 8])]


@pytest.mark.parametrize('row, split, sets, labels', CASES)
@pytest.mark.parametrize('kind', ['archive', 'extracted'])
def test_reads_each_split(archive, tmp_path, kind, row, split, sets, labels):
    if kind == 'extracted':
        os.unlink(archive)
        extract(tmp_path, members())
    result = load(row, split, str(tmp_path))
    expected = np.concatenate([halved(pictures(name)) for name in sets])
    assert type(result.images) is np.ndarray and result.images.dtype == np.uint8 and result.name == 'stl10'
    np.testing.assert_array_equal(result.images, expected)
    if labels is None:
        assert result.labels is None
    else:
        assert result.labels.dtype == np.int32
        np.testing.assert_array_equal(result.labels, labels)
    assert f'STL-10, {len(expected)} pictures ({" and ".join(sets)})' in result.source and '48x48' in result.source


def test_pictures_stand_upright_and_have_their_colours(archive):
    """Red in the upper half, green in the left half: written byte by byte as the format's description says."""
    blob = bytearray(3 * 96 * 96)
    for column in range(96):
        for row in range(96):
            blob[0 * 9216 + column * 96 + row] = 200 if row < 48 else 0
            blob[1 * 9216 + column * 96 + row] = 100 if column < 48 else 0
    write(archive, members(test_X_bin=bytes(blob), test_y_bin=b'\x01'))
    red, green, blue = load(UNLABELED, 'test', archive).images[0]
    assert (red[:24] == 200).all() and (red[24:] == 0).all()
    assert (green[:, :24] == 100).all() and (green[:, 24:] == 0).all()
    assert (blue == 0).all()


def test_halves_are_rounded_up(archive):
    image = np.zeros((1, 3, 96, 96), np.uint8)
    for i, corner in enumerate([(0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 1, 1), (255, 255, 255, 255), (254, 255, 255, 254)]):
        image[0, :, :2, 2 * i:2 * i + 2] = np.reshape(corner, (2, 2))
    write(archive, members(test_X_bin=columns(image), test_y_bin=b'\x01'))
    np.testing.assert_array_equal(load(UNLABELED, 'test', archive).images[0, 0, 0, :5], [0, 1, 1, 255, 255])


@pytest.mark.parametrize('size', [96, 32])
def test_other_sizes(archive, size):
    result = load({**UNLABELED, 'size': size}, 'test', archive)
    for image, full in zip(result.images, pictures('test'), strict=True):
        expected = Image.fromarray(full.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image.transpose(1, 2, 0), expected)
    assert ('resized' in result.source) == (size != 96)


def test_chunks_are_put_together(archive, monkeypatch):
    monkeypatch.setattr(stl10, '_CHUNK', 3)
    np.testing.assert_array_equal(load(UNLABELED, 'train', archive).images, halved(pictures('unlabeled')))


def test_labels_may_come_before_pictures(archive):
    write(archive, dict(reversed(members().items())))
    np.testing.assert_array_equal(load(LABELLED, 'all', archive).labels, [0, 9, 1, 4, 4, 0, 8])


def test_says_what_it_is(archive, tmp_path, monkeypatch):
    with open(archive, 'rb') as f:
        md5 = hashlib.md5(f.read()).hexdigest()
    result = load(UNLABELED, 'train', archive)
    assert result.fingerprint == md5 == load(LABELLED, 'train', archive).fingerprint
    assert f'NOT the original but another archive, md5 {md5}' in result.source
    monkeypatch.setattr(stl10, 'ORIGINAL', stl10.ORIGINAL._replace(md5=md5))
    assert f', the original archive, md5 {md5}' in load(UNLABELED, 'train', archive).source
    extract(tmp_path / 'root', members())
    extracted = load(UNLABELED, 'train', str(tmp_path / 'root'))
    assert 'not compared with the original' in extracted.source and extracted.fingerprint in extracted.source
    extract(tmp_path / 'root', members(unlabeled_X_bin=bytes(27648)))
    assert load(UNLABELED, 'train', str(tmp_path / 'root' / 'stl10_binary')).fingerprint != extracted.fingerprint


def test_unpacks_an_archive_once_a_set(archive, root, monkeypatch, capsys):
    unpacked, stream = [], stl10.stream_files
    monkeypatch.setattr(stl10, 'stream_files', lambda *args: unpacked.append(args[0]) or stream(*args))
    first = load(UNLABELED, 'train', archive)
    assert 'unpacked and resized to 48x48 once' in capsys.readouterr().err
    again = load(UNLABELED, 'train', archive)
    assert len(unpacked) == 1 and capsys.readouterr().err == ''
    np.testing.assert_array_equal(again.images, first.images)
    assert (again.source, again.fingerprint) == (first.source, first.fingerprint)
    load(UNLABELED, 'all', archive)
    load(LABELLED, 'test', archive)
    assert len(unpacked) == 2
    load({**UNLABELED, 'size': 40}, 'test', archive)
    write(archive, members(unlabeled_X_bin=columns(pictures('test'))))  # another archive under the same name
    np.testing.assert_array_equal(load(UNLABELED, 'train', archive).images, halved(pictures('test')))
    assert len(unpacked) == 4
    assert str(root) == os.path.commonpath([root, prepared.path_of('x')])
    kept = sorted(p.name.rsplit('-', 2)[0] for p in (root / prepared.FOLDER).glob('*.npy'))
    assert kept == ['stl10-test-40', 'stl10-test-48', 'stl10-unlabeled-48', 'stl10-unlabeled-48']


def refused(path, match, row=UNLABELED, split='test'):
    with pytest.raises(UserError, match=match) as caught:
        load(row, split, str(path))
    assert '\n' not in str(caught.value) and os.path.basename(path) in str(caught.value)


@pytest.mark.parametrize('changes, match', [
    ({'test_X_bin': columns(pictures('test'))[:-1]}, 'test_X.bin: expected at most .* pictures of 27648 bytes'),
    ({'test_X_bin': b''}, 'test_X.bin: expected'), ({'test_X_bin': None}, 'there is no stl10_binary/test_X.bin'),
    ({'test_y_bin': None}, 'test_y.bin'), ({'test_y_bin': b''}, 'test_y.bin: expected a byte'),
    ({'test_y_bin': bytes([1, 2, 3])}, 'has 3 labels for 4 pictures'),
    ({'test_y_bin': bytes([0, 1, 2, 3])}, 'from 1 to 10, found 0 to 3'),
    ({'test_y_bin': bytes([1, 2, 3, 11])}, 'from 1 to 10, found 1 to 11')])
@pytest.mark.parametrize('kind', ['archive', 'extracted'])
def test_wrong_files_are_refused(tmp_path, changes, match, kind):
    blobs = members(**changes)
    if kind == 'extracted':
        extract(tmp_path, blobs)
        match = match.replace('there is no stl10_binary/', '')
    else:
        write(tmp_path / 'stl10_binary.tar.gz', blobs)
    for row, split in (UNLABELED, 'test'), (LABELLED, 'all'):
        with pytest.raises(UserError, match=match) as caught:
            load(row, split, str(tmp_path))
        assert '\n' not in str(caught.value)
    if kind == 'archive':
        assert not list((tmp_path / 'root').rglob('*.npy*'))  # nothing of it was kept
    load(UNLABELED, 'train', str(tmp_path))  # which needs none of these


@pytest.mark.parametrize('part', [0.0, 0.1, 0.5, 0.9, -1, -8])
def test_an_archive_cut_short(archive, root, part):
    size = os.path.getsize(archive)
    os.truncate(archive, size + part if part < 0 else int(size * part))
    refused(archive, 'cut short')
    assert not list(root.rglob('*.npy*'))  # also where the pictures come before the damage


def test_too_much(archive, monkeypatch):
    monkeypatch.setattr(stl10, '_MAX_PICTURES', 6)
    refused(archive, 'too large to be an STL-10 archive')
    monkeypatch.setattr(stl10, '_MAX_PICTURES', 7)
    monkeypatch.setattr(stl10, '_MAX_TOTAL', 1 << 18)
    refused(archive, 'unpacks to more')
    monkeypatch.setattr(stl10, '_MAX_TOTAL', 1 << 20)
    monkeypatch.setattr(stl10, '_MAX_MEMBERS', 5)
    refused(archive, 'too large')
    monkeypatch.setattr(stl10, '_MAX_MEMBERS', 6)
    load(UNLABELED, 'all', archive)


def test_the_bounds_leave_room_for_the_original():
    assert stl10._MAX_PICTURES > 100_000 and stl10._MAX_TOTAL > 113_000 * 27_648 + (1 << 20)


def test_wrong_parts_and_places(archive, tmp_path):
    with pytest.raises(UserError, match="unlabeled or labelled with source stl10, not 'x'"):
        load({**UNLABELED, 'part': 'x'}, 'test', archive)
    with pytest.raises(UserError, match='have no classes: STL-10'):
        check_classes(load(UNLABELED, 'train', archive), 10)
    for path in tmp_path / 'root', tmp_path / 'missing':
        refused(path, '--data-dir .* neither stl10_binary.tar.gz nor stl10_binary/unlabeled_X.bin', split='train')


def test_a_damaged_prepared_file_is_named(archive, root):
    load(UNLABELED, 'test', archive)
    path, = (root / prepared.FOLDER).glob('*.npy')
    os.truncate(path, 1000)
    with pytest.raises(UserError, match='another length'):
        load(UNLABELED, 'test', archive)
    path.unlink()
    np.testing.assert_array_equal(load(UNLABELED, 'test', archive).images, halved(pictures('test')))


def test_fetches_into_the_cache(archive, root, monkeypatch, capsys):
    asked = []

    def fetch(url, path, size, digest, label):
        asked.append((url, os.path.basename(path), size, digest))
        os.rename(archive, path)

    with open(archive, 'rb') as f:
        md5 = hashlib.md5(f.read()).hexdigest()
    everybodys = stl10.ORIGINAL
    monkeypatch.setattr(stl10, 'ORIGINAL', stl10.ORIGINAL._replace(md5=md5))
    monkeypatch.setattr(original, 'fetch', fetch)
    for _ in range(2):
        np.testing.assert_array_equal(load(UNLABELED, 'test').images, halved(pictures('test')))
    url = 'https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz'
    assert asked == [(url, hashlib.md5(url.encode()).hexdigest(), 2_640_397_119, md5)]
    assert '2.6 GB' in capsys.readouterr().err
    monkeypatch.setattr(stl10, 'ORIGINAL', everybodys)
    with pytest.raises(UserError, match='is not the original STL-10 archive: delete it'):
        load(UNLABELED, 'test')


def test_the_original_is_the_one_that_everybody_knows():
    assert (stl10.ORIGINAL.md5, stl10.ORIGINAL.size) == ('91f7769df0f17e558f3565bffb0c7dfb', 2_640_397_119)
