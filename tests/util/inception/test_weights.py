"""util.inception.weights: the npz of the Inception weights."""
import os
import re

import numpy as np
import pytest

from tests.helpers import tree
from tests.inception_files import small_network, small_weights
from util.files import UserError
from util.inception import layers, weights
from util.inception.weights import Origin
from util.npz import fingerprint, write_npz


@pytest.fixture
def arrays(monkeypatch):
    small_network(monkeypatch)
    return small_weights()


def save(path, content):
    with open(path, 'wb') as f:
        write_npz(f, content)
    return str(path)


def with_meta(arrays, **changed):
    meta = {'format': weights.FORMAT, 'source': 'a test', **changed}
    return {**arrays, **{'meta/' + key: np.array(value) for key, value in meta.items()}}


def unreadable(path, match):
    """Reading fails with one line that names the file."""
    with pytest.raises(UserError, match=match) as caught:
        weights.read(str(path))
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)


def test_names_and_shapes_of_the_whole_network():
    shapes = weights.shapes()
    assert len(shapes) == 5 * len(layers.LAYERS) + 2 == 472
    assert shapes['conv/W'] == (32, 3, 3, 3)
    assert shapes['mixed_10/tower_1/mixed/conv_1/var'] == (384,)
    assert (shapes['softmax/W'], shapes['softmax/b']) == ((1008, 2048), (1008,))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) * 4 == 95541568


def test_the_file_lies_where_git_ignores_it():
    root = os.path.dirname(os.path.dirname(weights.PATH))
    assert os.path.exists(os.path.join(root, 'setup.py'))
    with open(os.path.join(root, '.gitignore')) as f:
        assert os.path.relpath(weights.PATH, root) in f.read().split()


@pytest.mark.parametrize('released', [True, False])
def test_reads_what_it_writes(arrays, tmp_path, released):
    path = tmp_path / 'new' / 'a.npz'
    weights.write(str(path), arrays, Origin('some file, sha256 123', released))
    found, origin = weights.read(str(path))
    assert origin == Origin('some file, sha256 123', released)
    assert set(found) == set(arrays) == set(weights.shapes())
    for name, array in arrays.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)
    with np.load(path) as content:
        assert content['meta/format'].item() == 'inception-2015-12-05 1'
        assert content['meta/source'].item() == 'some file, sha256 123'


@pytest.mark.parametrize('flag', ['False', 'True', 1, [True], []])
def test_only_a_flag_makes_released_weights(arrays, tmp_path, flag):
    assert not weights.read(save(tmp_path / 'a.npz', with_meta(arrays, released=flag)))[1].released


def test_a_file_that_does_not_say_so_is_not_a_released_one(arrays, tmp_path):
    assert weights.read(save(tmp_path / 'a.npz', with_meta(arrays)))[1] == Origin('a test', False)


def test_equal_input_gives_equal_bytes(arrays, tmp_path):
    turned = {name: np.asfortranarray(array) for name, array in reversed(arrays.items())}
    weights.write(str(tmp_path / 'a.npz'), arrays, Origin('x', True))
    weights.write(str(tmp_path / 'b.npz'), turned, Origin('x', True))
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()


def test_the_fingerprint_is_of_names_and_numbers(arrays):
    first = fingerprint(arrays)
    assert re.fullmatch('[0-9a-f]{64}', first)
    assert fingerprint({name: np.asfortranarray(a) for name, a in reversed(arrays.items())}) == first
    arrays['conv/gamma'], arrays['conv/beta'] = arrays['conv/beta'], arrays['conv/gamma']
    assert fingerprint(arrays) != first
    arrays['conv/gamma'], arrays['conv/beta'] = arrays['conv/beta'], arrays['conv/gamma']
    arrays['conv/W'].view(np.int32)[1, 2, 0, 1] ^= 1
    assert fingerprint(arrays) != first


FAULTS = [
    ('conv_3/W', None, r'conv_3/W is missing; expected finite float32 of shape \(5, 4, 1, 1\)'),
    ('conv/W', np.zeros((3, 3, 3, 4), np.float32), r'conv/W is float32 of shape \(3, 3, 3, 4\).*\(4, 3, 3, 3\)'),
    ('conv/mean', np.zeros((4, 1), np.float32), 'conv/mean is float32'),
    ('conv/mean', np.zeros(4), 'conv/mean is float64'),
    ('softmax/b', np.full(7, np.nan, np.float32), 'softmax/b holds numbers that are not finite'),
    ('conv/beta', np.array([0, 1, -np.inf, 2], np.float32), 'conv/beta .* not finite'),
    ('conv_3/var', np.array([0, 1, 2, 3, -1e-9], np.float32), 'conv_3/var holds negative'),
    ('odd', np.zeros(4, np.float32), "'odd' is no array"),
]


@pytest.mark.parametrize('name, array, match', FAULTS)
def test_wrong_weights_are_refused(arrays, tmp_path, name, array, match):
    arrays[name] = array
    if array is None:
        del arrays[name]
    with pytest.raises(UserError, match='here: ' + match) as caught:
        weights.check(arrays, 'here')
    assert '\n' not in str(caught.value)
    (tmp_path / 'a.npz').write_text('old')
    with pytest.raises(UserError, match=match):
        weights.write(str(tmp_path / 'a.npz'), arrays, Origin('x', True))
    assert tree(tmp_path) == {'a.npz': b'old'}
    unreadable(save(tmp_path / 'b.npz', with_meta(arrays)), match)


def test_a_variance_may_be_zero(arrays):
    arrays['conv/var'][:] = 0
    weights.check(arrays, 'here')


def test_other_files_are_refused(arrays, tmp_path):
    unreadable(tmp_path / 'none.npz', 'cannot read')
    unreadable(tmp_path, 'cannot read')
    (tmp_path / 'text.npz').write_text('no zip file')
    unreadable(tmp_path / 'text.npz', 'damaged')
    unreadable(save(tmp_path / 'a.npz', arrays), 'format')
    for odd in 'inception 2', 3.5, ['a', 'b']:
        unreadable(save(tmp_path / 'a.npz', with_meta(arrays, format=odd)), 'format')


def test_python_objects_are_not_unpickled(arrays, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'mark'),)

    content = with_meta(arrays)
    content['conv/W'] = np.array(Hostile(), object)
    np.savez(tmp_path / 'a.npz', **content)
    unreadable(tmp_path / 'a.npz', 'damaged')
    assert not (tmp_path / 'mark').exists()


@pytest.mark.parametrize('part', [0, 0.01, 0.3, 0.7, 0.99])
def test_a_file_cut_short_or_changed(arrays, tmp_path, part):
    path = tmp_path / 'a.npz'
    weights.write(str(path), arrays, Origin('x', True))
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * part)])
    unreadable(path, 'damaged')


def test_a_changed_number(arrays, tmp_path):
    path = tmp_path / 'a.npz'
    weights.write(str(path), arrays, Origin('x', True))
    content = bytearray(path.read_bytes())
    content[content.index(arrays['softmax/W'].tobytes()) + 9] ^= 1
    path.write_bytes(content)
    unreadable(path, 'checksum')


def test_an_unwritable_place(arrays, tmp_path):
    (tmp_path / 'file').write_text('no folder')
    with pytest.raises(UserError, match='cannot write'):
        weights.write(str(tmp_path / 'file' / 'a.npz'), arrays, Origin('x', True))
