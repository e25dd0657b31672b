import os
import zipfile

import chainer.links as L
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from util import snapshot
from util.files import UserError
from util.rundir import RunDirectory


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
    with pytest.raises(snapshot.DamagedFile, match='x.npz'):
        snapshot.read(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / 'x.npz'
    snapshot.save(path, filled(L.Linear(30, 40), 1.5))
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(1.5).tobytes()) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(snapshot.DamagedFile):
        snapshot.read(path)


def test_damaged_file_changes_nothing(tmp_path):
    path = tmp_path / 'x.npz'
    np.savez(path, **{'W': np.zeros((2, 2), 'f')})  # no b
    link = filled(L.Linear(2, 2), 7)
    with pytest.raises(snapshot.DamagedFile, match='it has no b'):
        snapshot.load(path, link)
    np.savez(path, **{'W': np.zeros((2, 3), 'f'), 'b': np.zeros(2, 'f')})
    with pytest.raises(snapshot.DamagedFile, match=r'W has shape \(2, 3\), expected \(2, 2\)'):
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
    with pytest.raises(snapshot.DamagedFile):
        snapshot.read(path)
    assert not (tmp_path / 'made').exists()


def test_not_a_zip_and_missing(tmp_path):
    (tmp_path / 'x.npz').write_text('hello')
    for name in ('x.npz', 'missing.npz'):
        with pytest.raises(snapshot.DamagedFile, match=name):
            snapshot.read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / 'y.npz', 'w') as f:
        f.writestr('W.txt', 'hello')
    with pytest.raises(snapshot.DamagedFile):
        snapshot.load(tmp_path / 'y.npz', L.Linear(2, 2))
    with pytest.raises(UserError, match='cannot use .*x.npz'):
        snapshot.load_generator(tmp_path / 'x.npz', L.Linear(2, 2))


def test_uninitialised_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match='not initialized.*W'):
        snapshot.save(tmp_path / 'x.npz', L.Linear(None, 2))
    assert not os.listdir(tmp_path)


def test_newest_usable(tmp_path):
    directory, lines = RunDirectory(tmp_path), []
    for iteration in (5, 10, 15):
        snapshot.save(directory.snapshot(iteration), filled(L.Linear(2, 2), iteration))
    with open(directory.snapshot(15), 'r+b') as f:
        f.truncate(100)
    link = L.Linear(2, 2)
    assert snapshot.load_newest(directory, link, lines.append) == 10
    assert (link.W.array == 10).all()
    assert len(lines) == 1 and 'damaged snapshot' in lines[0] and 'snapshot_iter_000015.npz' in lines[0]


def test_prune(tmp_path):
    directory = RunDirectory(tmp_path)
    for iteration in (5, 10, 15):
        snapshot.save(directory.snapshot(iteration), L.Linear(2, 2))
    snapshot.prune(directory)
    assert directory.iterations('snapshot') == [10, 15]
