"""Reading archives of unknown origin. What CIFAR-10's and Inception's readers make of it is tested with them."""
import gzip
import io
import tarfile

import pytest

from util.archive import read_files, stream_files
from util.files import UserError


@pytest.fixture
def path(tmp_path):
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as archive:
        for name, content in (('x/a', b'aa'), ('../b', b'bbb'), ('/c', b''), ('x/a', b'again')):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo('x/link')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
    return str(tmp_path / 'a.tar.gz')


def read(path, wanted=lambda name: True, max_size=100, max_total=1 << 20, max_members=10):
    return list(read_files(path, 'a test', wanted, max_size, max_total, max_members))


def test_regular_files_in_their_order_and_nothing_on_the_disk(path, tmp_path):
    assert read(path) == [('x/a', b'aa'), ('../b', b'bbb'), ('/c', b''), ('x/a', b'again')]
    assert read(path, lambda name: name == '../b') == [('../b', b'bbb')]
    assert [p.name for p in tmp_path.iterdir()] == ['a.tar.gz']


@pytest.mark.parametrize('limits, message', [
    ({'max_size': 4}, "too large to be a test \\(at 'x/a'\\)"), ({'max_members': 4}, 'too large to be a test'),
    ({'max_total': 2000}, r'unpacks to more than a test \(2000 bytes\)')])
def test_limits(path, limits, message):
    with pytest.raises(UserError, match=message):
        read(path, **limits)


def test_streams(path):
    read, sizes = {}, []
    for name, file, size in stream_files(path, 'a test', lambda name: name != '/c', 100, 1 << 20, 10):
        read.setdefault(name, []).append(file.read(2) + b'|' + file.read(9))
        sizes.append(size)
    assert (read, sizes) == ({'x/a': [b'aa|', b'ag|ain'], '../b': [b'bb|b']}, [2, 3, 5])
    unread = [name for name, _, _ in stream_files(path, 'a test', lambda name: True, 100, 1 << 20, 10)]
    assert unread == ['x/a', '../b', '/c', 'x/a']  # what nobody reads is passed over


@pytest.mark.parametrize('damage', ['cut short', 'wrong byte'])
def test_damage_that_shows_while_a_file_is_read(tmp_path, damage):
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz', compresslevel=0) as archive:
        info = tarfile.TarInfo('a')
        info.size = 100_000
        archive.addfile(info, io.BytesIO(bytes(100_000)))
    blob = bytearray((tmp_path / 'a.tar.gz').read_bytes())
    if damage == 'cut short':
        del blob[80_000:]
    else:  # the length of the second block, which is stored as it is, does not fit its complement any more
        start = blob.index(b'a.tar\0') + 6
        start += 5 + int.from_bytes(blob[start + 1:start + 3], 'little')
        assert blob[start + 1] ^ blob[start + 3] == 255
        blob[start + 1] ^= 1
    (tmp_path / 'a.tar.gz').write_bytes(blob)
    files = stream_files(str(tmp_path / 'a.tar.gz'), 'a test', lambda name: True, 1 << 20, 1 << 20, 10)
    with pytest.raises(UserError, match='is damaged or cut short') as error:
        for _, file, size in files:
            assert file.read(size) is None  # does not come so far
    assert '\n' not in str(error.value)


def test_a_chain_of_headers(tmp_path):
    header = tarfile.TarInfo('././@LongLink')
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    with gzip.open(tmp_path / 'a.tar.gz', 'wb') as f:
        for _ in range(2000):  # each makes tarfile call itself
            f.write(header.tobuf(tarfile.GNU_FORMAT) + b'x\0'.ljust(512, b'\0'))
    with pytest.raises(UserError, match='is not a tar.gz archive, or is damaged'):
        read(str(tmp_path / 'a.tar.gz'), max_total=1 << 30)


def test_limits_that_just_suffice(path):
    assert len(read(path, max_size=5, max_members=5)) == 4


@pytest.mark.parametrize('share', [0, 0.3, 0.7, 0.99])
def test_damage(path, share):
    with open(path, 'rb') as f:
        content = f.read()
    with open(path, 'wb') as f:
        f.write(content[:int(share * len(content))])
    with pytest.raises(UserError, match='is not a tar.gz archive, or is damaged or cut short') as error:
        read(path)
    assert '\n' not in str(error.value)
    with pytest.raises(OSError):
        read(path + '.missing')


def test_headers_of_names_are_not_held_in_memory_when_they_are_long(tmp_path):
    path = tmp_path / 'x.tar.gz'
    with gzip.open(path, 'wb') as f:
        header = tarfile.TarInfo('././@LongLink')
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, (1 << 20) + 1
        f.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(header.size))
    with pytest.raises(UserError, match='a header of 1048577 bytes'):
        list(read(path, max_total=1 << 30))
