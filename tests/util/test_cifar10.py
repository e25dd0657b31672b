"""util.cifar10: archives as Python 2 and 3 write them, damaged ones, and hostile ones."""
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile

from util import compat  # noqa: F401

# isort: split
import chainer
import numpy as np
import pytest

from util import cifar10, original
from util.dataset import load
from util.files import UserError

ROW = {'source': 'cifar10', 'size': 32}
NAMES = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']


def content(seed, n=4):
    """What a batch with n pictures holds."""
    rng = np.random.RandomState(seed)
    return {'batch_label': 'training batch', 'labels': rng.randint(0, 10, n).tolist(),
            'data': rng.randint(0, 256, (n, 3072)).astype(np.uint8), 'filenames': [f'{i}.png' for i in range(n)]}


def python2_pickle(batch):
    """The same batch as Python 2 and NumPy 1 wrote it: protocol 2, byte strings, numpy.core."""
    def text(s):
        return b'U' + bytes([len(s)]) + s.encode()

    data = batch['data']
    array = (b'cnumpy.core.multiarray\n_reconstruct\n' + b'cnumpy\nndarray\n' + b'K\x00\x85' + text('b') + b'\x87R'
             + b'(K\x01' + b'M' + struct.pack('<H', data.shape[0]) + b'M' + struct.pack('<H', data.shape[1]) + b'\x86'
             + b'cnumpy\ndtype\n' + text('u1') + b'K\x00K\x01\x87R'
             + b'(K\x03' + text('|') + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
             + b'\x89T' + struct.pack('<i', data.size) + data.tobytes() + b'tb')
    labels = b'](' + b''.join(b'K' + bytes([label]) for label in batch['labels']) + b'e'
    return (b'\x80\x02}(' + text('batch_label') + text(batch['batch_label']) + text('labels') + labels
            + text('data') + array + b'u.')


def members(**changed):
    """Member name -> bytes, in the true layout; a keyword replaces a batch, None leaves it out."""
    blobs = {'batches.meta': pickle.dumps({'label_names': list('abcdefghij')}, 2)}
    for seed, name in enumerate(NAMES):
        blobs[name] = changed[name] if name in changed else pickle.dumps(content(seed), 2)
    return {'cifar-10-batches-py/' + name: blob for name, blob in blobs.items() if blob is not None}


def write(path, blobs, extra=()):
    """Write a tar.gz; ``extra`` members (TarInfo, bytes) come first."""
    with tarfile.open(path, 'w:gz', compresslevel=1) as archive:
        for info, blob in extra:
            archive.addfile(info, io.BytesIO(blob))
        for name, blob in blobs.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            archive.addfile(info, io.BytesIO(blob))
    return str(path)


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / 'cifar-10-python.tar.gz', members())


def refused(path, match, split='train'):
    """Loading fails with one line that names the file."""
    with pytest.raises(UserError, match=match) as caught:
        load(ROW, split, path)
    assert '\n' not in str(caught.value)
    assert os.path.basename(path) in str(caught.value)


def expected(*seeds):
    batches = [content(seed) for seed in seeds]
    return np.concatenate([b['data'] for b in batches]).reshape(-1, 3, 32, 32), sum((b['labels'] for b in batches), [])


@pytest.mark.parametrize('split, seeds', [('train', range(5)), ('test', [5]), ('all', range(6))])
def test_reads_each_split(archive, split, seeds):
    images, labels = expected(*seeds)
    pictures = load(ROW, split, archive)
    assert pictures.images.dtype == np.uint8 and pictures.labels.dtype == np.int32
    np.testing.assert_array_equal(pictures.images, images)
    np.testing.assert_array_equal(pictures.labels, labels)


def test_says_what_it_is(archive, monkeypatch):
    with open(archive, 'rb') as f:
        md5 = hashlib.md5(f.read()).hexdigest()
    pictures = load(ROW, 'train', archive)
    assert (pictures.name, pictures.fingerprint) == ('cifar10', md5)
    assert 'NOT the original' in pictures.source and md5 in pictures.source and '20 pictures (train)' in pictures.source
    monkeypatch.setattr(cifar10, 'ORIGINAL', cifar10.ORIGINAL._replace(md5=md5))
    source = load(ROW, 'train', archive).source
    assert 'NOT' not in source and 'the original archive' in source


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4])
def test_reads_what_python_3_writes(tmp_path, protocol):
    blobs = members(test_batch=pickle.dumps(content(9), protocol))
    np.testing.assert_array_equal(load(ROW, 'test', write(tmp_path / 'a.tar.gz', blobs)).images, expected(9)[0])


def test_reads_what_python_2_wrote(tmp_path):
    blob = python2_pickle(content(9))
    assert pickle.loads(blob, encoding='latin1')['labels'] == content(9)['labels']  # the test's own writer is right
    pictures = load(ROW, 'test', write(tmp_path / 'a.tar.gz', members(test_batch=blob)))
    np.testing.assert_array_equal(pictures.images, expected(9)[0])
    np.testing.assert_array_equal(pictures.labels, expected(9)[1])


def test_reads_arrays_in_fortran_order(tmp_path):
    batch = content(9)
    batch['data'] = np.asfortranarray(batch['data'])
    pictures = load(ROW, 'test', write(tmp_path / 'a.tar.gz', members(test_batch=pickle.dumps(batch, 2))))
    np.testing.assert_array_equal(pictures.images, expected(9)[0])


@pytest.mark.parametrize('where', ['folder', 'extracted', 'extracted itself'])
def test_finds_it_in_a_folder(archive, tmp_path, where):
    folder = tmp_path
    if where != 'folder':
        for name, blob in members().items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(blob)
        os.unlink(archive)
        folder = tmp_path / 'cifar-10-batches-py' if where == 'extracted itself' else tmp_path
    pictures = load(ROW, 'all', str(folder))
    np.testing.assert_array_equal(pictures.images, expected(*range(6))[0])
    if where != 'folder':
        assert 'not compared with the original' in pictures.source
        (tmp_path / 'cifar-10-batches-py' / 'data_batch_3').unlink()
        with pytest.raises(UserError, match='data_batch_3'):
            load(ROW, 'test', str(folder))


def test_nothing_there(tmp_path):
    for path in tmp_path, tmp_path / 'missing':
        with pytest.raises(UserError, match='--data-dir'):
            load(ROW, 'train', str(path))


def test_resizes(tmp_path):
    batch = content(0, 1)
    planes = np.tile(np.arange(0, 64, 2), (3, 32, 1)) + np.array([0, 50, 100])[:, None, None]  # ramps
    batch['data'] = planes.astype(np.uint8).reshape(1, 3072)
    path = write(tmp_path / 'a.tar.gz', members(test_batch=pickle.dumps(batch, 2)))
    pictures = load({'source': 'cifar10', 'size': 48}, 'test', path)
    assert pictures.images.shape == (1, 3, 48, 48)
    ramp = np.clip((np.arange(48) + 0.5) * 32 / 48 - 0.5, 0, 31) * 2  # bilinear keeps a ramp, pixel centres at one half
    np.testing.assert_allclose(pictures.images[0, :, 20], ramp + np.array([[0], [50], [100]]), atol=0.51)
    assert '48x48' in pictures.source


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('part', [0.0, 0.0001, 0.1, 0.3, 0.5, 0.8, 0.99, -1, -8, -9])
def test_an_archive_cut_short(archive, part, split):
    size = os.path.getsize(archive)
    with open(archive, 'r+b') as f:
        f.truncate(size + part if part < 0 else int(size * part))
    refused(archive, 'cut short', split)


@pytest.mark.parametrize('part', [0.1, 0.5, 0.9])
def test_an_archive_with_a_wrong_byte(archive, part):
    with open(archive, 'r+b') as f:
        f.seek(int(os.path.getsize(archive) * part))
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 1]))
    with pytest.raises(UserError):
        load(ROW, 'train', archive)


def test_not_an_archive(tmp_path):
    path = str(tmp_path / 'picture.tar.gz')
    for blob in b'\x89PNG and so on' * 100, gzip.compress(b'not a tar' * 1000):
        with open(path, 'wb') as f:
            f.write(blob)
        refused(path, 'not a tar.gz archive')


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('name', ['data_batch_4', 'test_batch'])
def test_a_batch_is_missing(tmp_path, name, split):
    refused(write(tmp_path / 'a.tar.gz', members(**{name: None})), f'no cifar-10-batches-py/{name}', split)


@pytest.mark.parametrize('change, match', [
    ({'data': np.zeros((4, 3072), np.float32)}, "dtype 'f4'"),
    ({'data': np.zeros((4, 3072), object)}, 'dtype'),
    ({'data': np.zeros((4, 1024), np.uint8)}, r'found \(4, 1024\)'),
    ({'data': np.zeros(3072, np.uint8)}, r'found \(3072,\)'),
    ({'data': np.zeros((3, 3072), np.uint8)}, '3 labels'),
    ({'data': [1, 2]}, 'test_batch'),
    ({'data': None}, 'test_batch'),
    ({'labels': [0, 1, 2, 10]}, '0 to 10'),
    ({'labels': [0, 1, 2, -1]}, '-1 to 2'),
    ({'labels': [0, 1, 2, 2.0]}, 'labels'),
    ({'labels': [0, 1, 2, True]}, 'labels'),
    ({'labels': [0, 1, 2]}, '4 labels'),
    ({'labels': (0, 1, 2, 3)}, 'labels'),
    ({'labels': 'abcd'}, 'labels'),
])
def test_a_batch_with_wrong_content(tmp_path, change, match):
    blob = pickle.dumps({**content(5), **change}, 2)
    refused(write(tmp_path / 'a.tar.gz', members(test_batch=blob)), match, 'test')


@pytest.mark.parametrize('blob', [
    b'', b'garbage', b'\x80\x02}.', b'\x80\x02((((.', pickle.dumps([1, 2]), pickle.dumps({'labels': [1]}),
    pickle.dumps(content(5), 2)[:-2000]])
def test_a_batch_that_is_no_batch(tmp_path, blob):
    refused(write(tmp_path / 'a.tar.gz', members(test_batch=blob)), 'not a batch', 'test')


class Hostile:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def hostile_blobs(mark):
    """Pickles that would create the file ``mark`` if anything in them ran."""
    touch = f'touch {mark}'
    yield pickle.dumps(Hostile(os.system, touch), 2)
    yield pickle.dumps({**content(5), 'extra': Hostile(os.system, touch)}, 2)
    yield pickle.dumps({**content(5), 'extra': Hostile(eval, f'open({str(mark)!r}, "w")')}, 4)
    yield b'\x80\x04\x8c\x05numpy\x8c\x0ecore.os.system\x93.'  # a dotted name
    yield b'\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93\x8c\x05numpy\x8c\x05dtype\x93\x85R.'
    yield f"cposix\nsystem\n(S'{touch}'\ntR.".encode()
    yield f"(S'{touch}'\nios\nsystem\n.".encode()  # INST
    yield f"(cos\nsystem\nS'{touch}'\no.".encode()  # OBJ
    yield b'cnumpy\nload\n.'
    yield b'cbuiltins\nexec\n.'
    yield b'\x80\x02c_codecs\nencode\n(U\x04abcdU\x03rottR.'  # encode of what is not text
    yield b'\x80\x02cnumpy\ndtype\nU\x02u1\x85\x81.'  # NEWOBJ on a stand-in
    yield b'\x80\x02\x8a\x01\x01Q.'  # a persistent id
    yield b'\x80\x02\x82\x01.'  # an extension code


@pytest.mark.parametrize('number', range(14))
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, number):
    blobs = list(hostile_blobs(tmp_path / 'mark'))
    assert len(blobs) == 14
    refused(write(tmp_path / 'a.tar.gz', members(test_batch=blobs[number])), 'not a batch', 'test')
    assert not (tmp_path / 'mark').exists()


def test_the_hostile_pickles_of_this_test_would_run(tmp_path):
    pickle.loads(next(hostile_blobs(tmp_path / 'mark')))
    assert (tmp_path / 'mark').exists()


def test_array_states_are_checked():
    good = python2_pickle(content(1, 1))
    cifar10._read_batch(good, 'here')
    dtype = good[good.index(b'cnumpy\ndtype'):good.index(b'\x89T')]
    start = good.index(b'\x89T')
    for bad in good.replace(dtype, b'N'), good[:start] + b'\x89Ntbu.', good.replace(b'M\x00\x0c', b'M\x01\x0c'):
        assert bad != good
        with pytest.raises(UserError, match='not a batch'):
            cifar10._read_batch(bad, 'here')


def test_a_pickle_cannot_change_the_reader_for_the_next(tmp_path):
    change = b"(dS'__doc__'\nS'x'\ns}S'__defaults__'\nS'x'\ns\x86b"
    for name in b'_codecs\nencode', b'numpy\ndtype', b'numpy.core.multiarray\n_reconstruct':
        with pytest.raises(UserError):
            cifar10._read_batch(b'\x80\x02c' + name + b'\n' + change + b'.', 'here')
    images, labels = cifar10._read_batch(pickle.dumps(content(3), 2), 'here')
    np.testing.assert_array_equal(images, expected(3)[0])


def test_links_and_odd_names_are_passed_over(tmp_path):
    secret = tmp_path / 'secret'
    secret.write_bytes(pickle.dumps(content(8), 2))
    extra = []
    for kind in tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE:
        info = tarfile.TarInfo('cifar-10-batches-py/test_batch')
        info.type, info.linkname = kind, str(secret)
        extra.append((info, b''))
    for pattern in '../{}/test_batch', '/{}/test_batch', '/test_batch', '{}/../test_batch', '{}/x/test_batch', '{}/odd':
        info = tarfile.TarInfo(pattern.format('cifar-10-batches-py'))
        info.size = 7
        extra.append((info, b'odd one'))
    path = write(tmp_path / 'a.tar.gz', members(), extra)
    before = sorted(os.listdir(tmp_path))
    np.testing.assert_array_equal(load(ROW, 'test', path).images, expected(5)[0])
    assert sorted(os.listdir(tmp_path)) == before
    blobs = members(test_batch=None)
    refused(write(tmp_path / 'a.tar.gz', blobs, extra), 'no cifar-10-batches-py/test_batch', 'test')


def test_sizes_are_bounded(tmp_path, monkeypatch):
    info = tarfile.TarInfo('cifar-10-batches-py/data_batch_1')
    info.size = 1 << 40
    path = str(tmp_path / 'a.tar.gz')
    with gzip.open(path, 'wb') as f:
        f.write(info.tobuf() + bytes(10240))
    refused(path, 'too large')
    write(path, {f'{i}': b'' for i in range(101)})
    refused(path, 'too large')
    write(path, members())
    with gzip.open(path) as f:
        size = len(f.read())
    with gzip.open(path, 'ab') as f:  # behind the end of the tar
        f.write(bytes(10 << 20))
    monkeypatch.setattr(cifar10, '_MAX_TOTAL', size + (10 << 20))
    load(ROW, 'test', path)
    monkeypatch.setattr(cifar10, '_MAX_TOTAL', size + (10 << 20) - 1)
    refused(path, 'unpacks to more')


@pytest.fixture
def cache(tmp_path):
    """Chainer's download cache, moved to an empty folder; the value is the path of CIFAR-10 in it."""
    before = chainer.dataset.get_dataset_root()
    chainer.dataset.set_dataset_root(str(tmp_path / 'root'))
    yield str(tmp_path / 'root' / '_dl_cache' / hashlib.md5(cifar10.ORIGINAL.url.encode()).hexdigest())
    chainer.dataset.set_dataset_root(before)


def test_uses_what_chainer_has_cached(archive, cache, monkeypatch):
    os.makedirs(os.path.dirname(cache))
    os.rename(archive, cache)
    assert chainer.dataset.cached_download(cifar10.ORIGINAL.url) == cache  # Chainer finds it there, without downloading
    with open(cache, 'rb') as f:
        monkeypatch.setattr(cifar10, 'ORIGINAL', cifar10.ORIGINAL._replace(md5=hashlib.md5(f.read()).hexdigest()))
    assert 'the original archive' in load(ROW, 'train').source


def test_refuses_another_archive_in_the_cache(archive, cache):
    os.makedirs(os.path.dirname(cache))
    os.rename(archive, cache)
    with pytest.raises(UserError, match='delete it') as caught:
        load(ROW)
    assert cache in str(caught.value)
    assert 'NOT' in load(ROW, data_dir=cache).source  # as the message says


def test_a_cache_that_cannot_be_made(cache, tmp_path):
    (tmp_path / 'root').write_text('not a folder')
    with pytest.raises(UserError, match='CHAINER_DATASET_ROOT'):
        load(ROW)


def test_an_archive_that_cannot_be_read(archive, monkeypatch):
    def refuse(path, kind):
        raise PermissionError(13, 'Permission denied', path)
    monkeypatch.setattr(original, 'file_digest', refuse)  # file modes do not stop root
    refused(archive, 'Permission denied')


def test_fetches_into_the_cache(archive, cache, monkeypatch, capsys):
    asked = []

    def fetch(url, path, size, md5, label):
        asked.append((url, path, size, md5))
        os.rename(archive, path)

    with open(archive, 'rb') as f:
        md5 = hashlib.md5(f.read()).hexdigest()
    monkeypatch.setattr(cifar10, 'ORIGINAL', cifar10.ORIGINAL._replace(md5=md5))
    monkeypatch.setattr(original, 'fetch', fetch)
    load(ROW, 'test')
    load(ROW, 'train')
    assert asked == [('https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz', cache, 170498071, md5)]
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'hour' in said and '--data-dir' in said


def test_the_original_is_the_one_that_everybody_knows():
    assert (cifar10.ORIGINAL.md5, cifar10.ORIGINAL.size) == ('c58f30108f718f92721af3b95e74349a', 170_498_071)


@pytest.mark.skipif('CIFAR10_ARCHIVE' not in os.environ, reason='CIFAR10_ARCHIVE names no archive')
def test_a_real_archive():
    pictures = load(ROW, 'all', os.environ['CIFAR10_ARCHIVE'])
    assert pictures.images.shape == (60000, 3, 32, 32)
    np.testing.assert_array_equal(np.bincount(pictures.labels[:50000]), 5000)
    np.testing.assert_array_equal(np.bincount(pictures.labels[50000:]), 1000)
    mean = pictures.images[:50000].mean((0, 2, 3))
    np.testing.assert_allclose(mean, [125.3, 123.0, 113.9], atol=1)  # the well-known channel means
