import os
import subprocess
import sys
import zipfile

import chainer.links as L
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from util import snapshot
from util.files import UserError
from util.npz import DamagedFile, read_npz

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def filled(link, value):
    for p in link.params():
        p.array[...] = value
    return link


def test_round_trip_and_equal_bytes(tmp_path):
    link = filled(L.BatchNormalization(3), 2)
    for name in 'ab':
        snapshot.save(tmp_path / name, link)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
    again = L.BatchNormalization(3)
    snapshot.load(tmp_path / 'a', again)
    np.testing.assert_array_equal(again.gamma.array, link.gamma.array)


@given(st.data())
def test_every_truncation_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('s') / 'x.npz'
    snapshot.save(path, L.Linear(3, 4))
    content = path.read_bytes()
    path.write_bytes(content[:data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DamagedFile, match='x.npz'):
        read_npz(path)


@given(st.data())
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('s') / 'x.npz'
    snapshot.save(path, filled(L.Linear(3, 4), 1.5))
    good, content = read_npz(path), bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        arrays = read_npz(path)
    except DamagedFile as error:
        assert 'x.npz' in str(error)
    else:  # in a date or a comment of the zip file, or in a name
        for key in good.keys() & arrays.keys():
            np.testing.assert_array_equal(good[key], arrays[key])


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    code = ('import sys; sys.path.insert(0, {!r})\n'
            'from util import snapshot; from util.config import resolve; import model\n'
            'snapshot.save(sys.argv[1], model.build_generator(resolve(profile="quick").model, 32, 0))').format(ROOT)
    for seed in '12':
        environment = {**os.environ, 'PYTHONHASHSEED': seed}
        subprocess.run([sys.executable, '-c', code, str(tmp_path / seed)], env=environment, check=True)
    assert (tmp_path / '1').read_bytes() == (tmp_path / '2').read_bytes()


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / 'x.npz'
    np.savez(path, **{'W': np.zeros((2, 2), 'f')})  # no b
    link = filled(L.Linear(2, 2), 7)
    with pytest.raises(UserError, match='x.npz does not fit: it has no b'):
        snapshot.load(path, link)
    np.savez(path, **{'W': np.zeros((2, 3), 'f'), 'b': np.zeros(2, 'f')})
    with pytest.raises(UserError, match=r'W has shape \(2, 3\), expected \(2, 2\)'):
        snapshot.load(path, link)
    assert (link.W.array == 7).all()


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / 'x.npz'
    np.savez(path, W=np.array([Hostile(str(tmp_path / 'made'))], object))
    with pytest.raises(DamagedFile):
        read_npz(path)
    np.save(tmp_path / 'y.npz.npy', np.array([Hostile(str(tmp_path / 'made'))], object), allow_pickle=True)
    with pytest.raises(DamagedFile):
        read_npz(tmp_path / 'y.npz.npy')
    assert not (tmp_path / 'made').exists()


def test_not_a_zip_and_missing(tmp_path):
    (tmp_path / 'x.npz').write_text('hello')
    with pytest.raises(DamagedFile, match='x.npz'):
        read_npz(tmp_path / 'x.npz')
    with pytest.raises(UserError, match='cannot read .*missing.npz'):
        read_npz(tmp_path / 'missing.npz')
    with zipfile.ZipFile(tmp_path / 'y.npz', 'w') as f:
        f.writestr('W.txt', 'hello')
    with pytest.raises(UserError, match='does not fit'):
        snapshot.load(tmp_path / 'y.npz', L.Linear(2, 2))
    with pytest.raises(UserError, match='damaged file .*x.npz'):
        snapshot.load_generator(tmp_path / 'x.npz', L.Linear(2, 2))


def test_uninitialised_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match='not initialized.*W'):
        snapshot.save(tmp_path / 'x.npz', L.Linear(None, 2))
    assert not os.listdir(tmp_path)
