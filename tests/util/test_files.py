import errno
import os
import stat

import pytest

from util.files import UserError, atomic_write


def write(path, text):
    with atomic_write(path) as temporary, open(temporary, 'w') as f:
        f.write(text)


def test_writes_and_replaces(tmp_path):
    path = tmp_path / 'new' / 'file.txt'
    write(path, 'one')
    write(path, 'two')
    assert path.read_text() == 'two'
    assert os.listdir(path.parent) == ['file.txt']


def test_keeps_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write(tmp_path / 'f', '')
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / 'f').st_mode) == 0o640


@pytest.mark.parametrize('error, raised', [
    (OSError(errno.ENOSPC, 'No space left on device'), UserError),
    (ValueError('x'), ValueError),
])
def test_failure_leaves_the_old_content(tmp_path, error, raised):
    path = tmp_path / 'f'
    write(path, 'old')
    with pytest.raises(raised) as info, atomic_write(path) as temporary:
        with open(temporary, 'w') as f:
            f.write('half')
        raise error
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['f']
    if raised is UserError:
        assert str(path) in str(info.value) and 'No space left' in str(info.value)


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write .*file/x'):
        write(tmp_path / 'file' / 'x', '')
