"""util.inception.torchfile: files as torch.save writes them, damaged ones, and hostile ones."""
import base64
import os
import pickle
import struct
import zipfile
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests import inception_files as files
from util.files import UserError
from util.inception import torchfile
from util.inception.torchfile import is_torch_file, read_torch_file

TENSORS = {'conv.weight': np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 7, 'bn.bias': np.float32([3, 4]),
           'bn.num_batches_tracked': np.array(5, np.int64), 'empty': np.zeros((3, 0), np.float32)}
BOTH = pytest.mark.parametrize('legacy', [True, False], ids=['legacy', 'zip'])

# What PyTorch 2.14 saved of Conv2d(1, 2, 1, bias=False) and BatchNorm2d(2), whose parameters hold 0, 1; 10, 11; 20, 21
REAL = {
    'legacy': (
        'eNptk1lvlFAUx4FhWkvt4lata90Zl3FkmM01k5i+4Iov98UQhrkZUAo9cBijCUlfmqifwQcf+9X8CCY+eFhqOw2QEO459/z+f+457Eg/FP/v'
        'z80/Gx/33q43d6RXv2v0TEFQ2aogCNtRiKET+taUR7EXBiDSBrZEGd9D9LnFg7FnByB9YwoF8cs2t2LvK4+hloKssjoFYzeMEOqGxGq08gKE'
        'OUNmcsYIgwnMG3KSkKZDMj53kFRi5U005hEfv/AcVEBomCCqbJEqnDCYNj9zb+IiSA6GkeM2rQQ9P1asiI8Szx9byIM4jKyppkBNVdl8ZoF2'
        '2hMOclGibPqhje+LoAJ1tkx7Bro2aPU6HU1v65oOc7lbZzshg9JrhGPvDEE1JEPMboQFtXjL3pXvbmZxEeG4CUtsgepGwb7LZZdMuLI7K9Lu'
        'dbt6C1bcAr5KcEPahROGuAsnC9wphNMmnMn9E27k2TGsVcK0frfd1+FsCTtXwtYz2PkCdgHhogmX2EoBi5Ig8IKJtcWpd5eroT1NI4dXSuhG'
        'Cb2aQa8V0OsIN0y4mZcdgk7tCG5VMwd6S+/D7ZKplsxGxrxTMO8i3DPhPlsrmEGyZY1sdFweWxjZzic+hmbBLlv5kmbofycfHP2EdkeDFsmJ'
        'JPeQ5BqNQkZDaJugJyl08n7RSaA9ttGGbp7vqYyiAvRTGOQd2J//R4YY57ObTSI8TuGJm4ek3C88TeEZBaQ4iUc00x+y/6hiuMSqo5aqzNeq'
        'Oi1XnWrlgM3xZubs4Np5PrsWBPHI+iD/aygIe0PpUO1s/QblW8N/hooIcQ=='),
    'zip': (
        'eNq9Vt9v20Qcvzipm6VlpT8YrNB1Hb9ctqVxYucH26gWTXkxEm0mkMWL5ThHbOba/dqXDiYFRUJ94I03xAvicf8BfwKvgAQCaRIPvICExOte'
        'kLjzpcV2so6mEmdZduz7/Li7733iHS2bQyifR2NtGS2gnu92sWc8cPa3uiYxi/v33FZzDr3/bxsKluW7LraI43th4Z2giwPcveNYpABosw0Z'
        'SZ+jZJbvHRTvY6dnExAs4geWXTT6xHHDghHgTt9xuwbBXugHxkG5AFlJ0mcpLKQ9zR6GHIcUWq5vkrv8YQFm9AztUwJRzzKJ/T7MagKB/K6G'
        'JE3QMuwgcE7id+y+8JnNTM0RmG/DM/o5Cut4R77O21TWztmcVoYFO6J7ltJpwiEsaplDWOIEywRW2vBc5JESdBwzhAsJeBme5/AXRvCLDL7K'
        '4S8SeKkNa/oChwd9z3O8nrGHTQ8uJWgqsM5pLo9oNhjNFU7zMoFX2vCqfj5Jc2AG8FqCRYHXOYs0YtlkLG9wlqsErrXhun6Bs3j9PaNjEsvG'
        'oUEC07qHu1DkbKNFeNv3esdrsBUJqFCiAnSCZSqwucmJywQqbVD6A1CjmabjIyYrI6hG72uSzuoM6gNoRDN5gIOQVhG8qWVCPTeqGrgxgJt2'
        '9EiIHMKtAbxFHwhhP+wUd7TZfB4LzpC+ZOfOE+t5FdXj9Vz8wA/2TGKMRFtNJV7W/7nJzMA3fz36lE0DO59sYA0pCQOj4jZM1+l5e9gjrWbp'
        '1B6qCjOwfR/+YLMjnGhgBd2MG+h8TLDP9murWZ9q7Ky5DiEuZh4Ob/12UaQq4okeFtGNdKpslVrN2rQGOOtwmzlY//Db35lk/ikOGmMO5FZT'
        'RVPqX75NM+g207/75/CX6fTLZ9D/muo/jPS/fPzwk+n0K2fQ543pO79ewdPpK2fQH24frf/nu+KP0+mr/+P4l5I5dMb8qRSY8vdf9d59+v7f'
        'QFuJAIqGHuLAoQn0wGR/4IbTbTWvnsaIXK7W1Wqt0qg2qgo9ylVZliuNslJvyGpJlWW1Ui3JtRpz+dPfA1eiPqTIZYaZPfYZz/DlMecTvkPS'
        'BPEMXk2AvxPQCcGf5olH6VqCZzeLTs7vNFU8EVcSVD8kqY6TOM0QT7TFBMN7OTSeo2l4PJCS8J8nwOU0PJ4nSbg+Mw4vp+Hx7ZBSnwCvpOHx'
        '3ZxSF8fhyinUJ8DVNDy+o5aS6rNowv5N4+O1vpFc+yR+8i7c0UTx2ghwKXv9GDyfuq5n+fWj/FEMiexLCn0xx3/zL5IZkWPmo/687z/V0LQ2'),
}


def read(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    return read_torch_file(str(path))


def refused(tmp_path, content, match='is no file of weights'):
    """Reading fails with one line that names the file."""
    with pytest.raises(UserError, match=match) as caught:
        read(tmp_path, content)
    assert '\n' not in str(caught.value) and str(tmp_path / 'a.pth') in str(caught.value)


def equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found[name], array)


def packed(pickle, blobs, legacy, **how):
    return files.legacy_bytes(pickle, blobs, **how) if legacy else files.zip_bytes(pickle, blobs, **how)


def one(legacy, instructions, blobs=None):
    """A file whose pickle is a dictionary with one value."""
    pickle = b'\x80\x02}' + files.text('a') + instructions + b's.'
    return packed(pickle, {} if blobs is None else blobs, legacy)


def tensor(legacy, numel=6, size=(2, 3), stride=(3, 1), offset=0, key='0', kind='FloatStorage', **how):
    return files.rebuilt(files.storage(key, kind, numel, b'N' if legacy else b'', **how), size, stride, offset)


SIX = {'0': np.arange(6, dtype='<f4').tobytes()}


@pytest.mark.parametrize('kind', REAL)
def test_reads_what_pytorch_wrote(tmp_path, kind):
    found = read(tmp_path, zlib.decompress(base64.b64decode(REAL[kind])))
    equal(found, {'conv.weight': np.float32([0, 1]).reshape(2, 1, 1, 1), 'bn.weight': np.float32([10, 11]),
                  'bn.bias': np.float32([20, 21]), 'bn.running_mean': np.zeros(2, np.float32),
                  'bn.running_var': np.ones(2, np.float32), 'bn.num_batches_tracked': np.array(0, np.int64)})


@BOTH
@pytest.mark.parametrize('how', [{}, {'ordered': False}, {'wrap': files.parameter}])
def test_reads_dictionaries_of_tensors(tmp_path, legacy, how):
    content = files.torch_bytes(TENSORS, legacy, **how)
    assert is_torch_file(content[:16])
    equal(read(tmp_path, content), TENSORS)


@BOTH
def test_reads_views_that_share_their_numbers(tmp_path, legacy):
    first = tensor(legacy, size=(2, 2), stride=(3, 2)) + files.text('b')
    content = packed(b'\x80\x02}(' + files.text('a') + first + tensor(legacy, size=(2,), stride=(4,), offset=1)
                     + files.text('c') + tensor(legacy, size=(3, 2), stride=(1, 3), device='cuda:0')
                     + files.text('d') + tensor(legacy, size=(), stride=(), offset=5) + b'u.', SIX, legacy)
    found = read(tmp_path, content)
    equal(found, {'a': np.float32([[0, 2], [3, 5]]), 'b': np.float32([1, 5]),
                  'c': np.float32([[0, 3], [1, 4], [2, 5]]), 'd': np.float32(5)})
    assert np.shares_memory(found['a'], found['c'])
    assert not found['a'].flags.writeable


def test_reads_what_python_2_wrote(tmp_path):
    def short(s):
        return b'U' + bytes([len(s)]) + s.encode()

    storage = b'(' + short('storage') + b'ctorch\nFloatStorage\n' + short('0') + short('cpu') + b'K\x06NtQ'
    item = b'](' + short('a') + files.rebuilt(storage, (6,), (1,)) + b'e'
    pickle = b'\x80\x02ccollections\nOrderedDict\n](' + item + b'e\x85R.'
    content = files.legacy_bytes(pickle, SIX).replace(b'\x80\x02](' + files.text('0') + b'e.', b'\x80\x02]U\x010a.')
    equal(read(tmp_path, content), {'a': np.arange(6, dtype=np.float32)})


def test_zip_files_with_other_members(tmp_path):
    pickle, blobs = files.pickled(TENSORS, False), files.blobs(TENSORS)
    equal(read(tmp_path, files.zip_bytes(pickle, blobs, root='any name', byteorder=None)), TENSORS)
    equal(read(tmp_path, files.zip_bytes(pickle, {**blobs, 'unused': b'x'})), TENSORS)


def test_no_such_file(tmp_path):
    for path in tmp_path / 'none', tmp_path:
        with pytest.raises(UserError, match='cannot read'):
            read_torch_file(str(path))


@pytest.mark.parametrize('content', [b'', b'\x80\x02.', b'text', b'PK\x03\x04 no zip', pickle.dumps([1], 2)])
def test_other_files(tmp_path, content):
    refused(tmp_path, content)
    assert is_torch_file(content) == content.startswith(b'PK')


# ------------------------------------------------------------------------------------------------------------- damaged


@BOTH
def test_cut_short_anywhere(tmp_path, legacy):
    content = files.torch_bytes(TENSORS, legacy)
    for end in range(0, len(content), 7 if legacy else 13):
        refused(tmp_path, content[:end])
    refused(tmp_path, content[:-1])


@BOTH
@pytest.mark.filterwarnings('ignore:invalid escape sequence')  # in texts of other instructions, by pickletools
@hypothesis.settings(max_examples=300, deadline=None, database=None,
                     suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_wrong_byte_raises_nothing_else(tmp_path, legacy, place, byte):
    content = bytearray(files.torch_bytes(TENSORS, legacy))
    content[int(place * len(content))] = byte
    try:
        found = read(tmp_path, bytes(content))
    except UserError as error:
        assert '\n' not in str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())


def test_the_old_format_is_checked_throughout(tmp_path):
    pickle, blobs = files.pickled(TENSORS, True), files.blobs(TENSORS)
    sizes = {key: 8 if number == 2 else 4 for number, key in enumerate(blobs)}
    good = files.legacy_bytes(pickle, blobs, itemsize=sizes)
    equal(read(tmp_path, good), TENSORS)
    refused(tmp_path, good + b'x', 'behind its end')
    head = files.LEGACY_HEAD
    refused(tmp_path, good.replace(head, head.replace(b'\x88', b'\x89')), 'little-endian')
    refused(tmp_path, good.replace(head, head.replace(b'M\xe9\x03.', b'M\xe8\x03.')), 'begin')
    refused(tmp_path, good.replace(head, head.replace(b'M\xe9\x03.', b'\x88.')), 'begin')
    keys = list(blobs)
    for odd in keys[:-1], keys[:-1] + ['x'], keys + keys[:1], keys + ['x']:
        refused(tmp_path, files.legacy_bytes(pickle, blobs, itemsize=sizes, keys=odd), 'list of storages')
    listed = files.text(keys[0]) + files.text(keys[1])
    refused(tmp_path, good.replace(listed, listed.replace(files.text(keys[0]), b'K\x01')), 'list of storages')
    refused(tmp_path, good.replace(struct.pack('<q', 6), struct.pack('<q', 5)), '6 numbers were expected')
    refused(tmp_path, good.replace(struct.pack('<q', 6), struct.pack('<q', -6)), '6 numbers were expected')


def test_the_zip_file_is_checked_throughout(tmp_path, monkeypatch):
    pickle, blobs = files.pickled(TENSORS, False), files.blobs(TENSORS)
    good = files.zip_bytes(pickle, blobs)
    refused(tmp_path, files.zip_bytes(pickle, blobs, packing=zipfile.ZIP_DEFLATED), 'packed')
    refused(tmp_path, files.zip_bytes(pickle, blobs, byteorder=b'big'), 'little-endian')
    refused(tmp_path, files.zip_bytes(pickle, dict(list(blobs.items())[1:])), '94000')
    refused(tmp_path, files.zip_bytes(pickle, {**blobs, '94000': bytes(20)}), '20 bytes of numbers where 24')
    refused(tmp_path, files.zip_bytes(pickle, {**blobs, '94000': bytes(28)}), '28 bytes of numbers where 24')
    refused(tmp_path, files.zip_bytes(pickle, blobs, root='a/b'), 'one data.pkl, found 0')
    changed = good.replace(blobs['94000'], bytes(24))
    refused(tmp_path, changed, 'CRC')
    path = tmp_path / 'a.pth'
    for name, match in ('b/data.pkl', 'found 2'), ('archive/data.pkl', 'equal names'):
        path.write_bytes(good)
        with zipfile.ZipFile(path, 'a') as archive, pytest.warns() if name in archive.namelist() else open(os.devnull):
            archive.writestr(name, b'x')
        refused(tmp_path, path.read_bytes(), match)


def test_members_that_lie_upon_each_other(tmp_path):
    content = bytearray(files.zip_bytes(b'\x80\x02}.', {'0': bytes(1000), '1': bytes(1000)}))
    directory = content.index(b'PK\x01\x02')
    first = content.index(b'archive/data/0', directory) - 46
    second = content.index(b'archive/data/1', directory) - 46
    content[second + 42:second + 46] = content[first + 42:first + 46]  # where the member is
    content[directory + 24:directory + 28] = struct.pack('<I', 2500)  # a size: in all more than there is
    refused(tmp_path, bytes(content), 'larger than the file')


# ----------------------------------------------------------------------------------------------- tensors that cannot be


@BOTH
@pytest.mark.parametrize('how, match', [
    ({'size': (2, 4)}, 'larger than its storage'),
    ({'size': (7,), 'stride': (1,)}, 'larger than its storage'),
    ({'offset': 1}, 'larger than its storage'),
    ({'offset': 1 << 62}, 'larger than its storage'),
    ({'stride': (4, 1)}, 'larger than its storage'),
    ({'stride': (1 << 61, 1)}, 'larger than its storage'),
    ({'size': (1 << 40,), 'stride': (0,)}, 'larger than its storage'),
    ({'offset': -1}, 'no number'),
    ({'size': (-1,), 'stride': (1,)}, 'no number'),
    ({'size': (2,), 'stride': (-1,)}, 'no number'),
    ({'size': (2, 3), 'stride': (1,)}, 'cannot be'),
    ({'size': (1,) * 9, 'stride': (1,) * 9}, 'cannot be'),
    ({'numel': -6}, 'size that cannot be'),
    ({'numel': 7, 'size': (1, 1)}, '7 numbers were expected|28 were expected'),
    ({'numel': 1 << 39, 'size': (1, 1)}, 'were expected'),
    ({'numel': 1 << 500, 'size': (1, 1)}, 'size that cannot be'),
    ({'kind': 'HalfStorage'}, 'torch.HalfStorage'),
    ({'kind': 'DoubleStorage'}, 'torch.DoubleStorage'),
    ({'kind': 'UntypedStorage'}, 'torch.UntypedStorage'),
    ({'kind': 'LongStorage'}, 'cut short where 6|where 48 were expected'),
])
def test_wrong_tensors(tmp_path, legacy, how, match):
    equal(read(tmp_path, one(legacy, tensor(legacy), SIX)), {'a': np.arange(6, dtype=np.float32).reshape(2, 3)})
    refused(tmp_path, one(legacy, tensor(legacy, **how), SIX), match)


@BOTH
def test_a_storage_of_two_kinds(tmp_path, legacy):
    for how in {'kind': 'LongStorage'}, {'numel': 7}:
        pickle = b'\x80\x02}(' + files.text('a') + tensor(legacy) + files.text('b') + tensor(legacy, **how) + b'u.'
        refused(tmp_path, packed(pickle, SIX, legacy), 'two kinds')


@BOTH
@pytest.mark.parametrize('instructions, match', [
    (b'K\x01', "'a' is no tensor"),
    (b'N', 'is no tensor'),
    (b'}', 'is no tensor'),
    (b'ctorch\nFloatStorage\n', 'is no tensor'),
    (files.ORDERED_DICT, 'is no tensor'),
    (files.storage('0', 'FloatStorage', 6), 'is no tensor'),
    (files.rebuilt(b'K\x01', (1,), (1,)), 'cannot be'),
    (files.parameter(b'N'), 'a parameter that is no tensor'),
])
def test_other_values(tmp_path, legacy, instructions, match):
    refused(tmp_path, one(legacy, instructions, SIX), match)


@BOTH
@pytest.mark.parametrize('pickle, match', [
    (b'\x80\x02].', 'no dictionary'),
    (b'\x80\x02K\x01.', 'no dictionary'),
    (b'\x80\x02.', 'leaves 0 values'),
    (b'\x80\x02}}.', 'leaves 2 values'),
    (b'\x80\x02(.', 'no dictionary'),
    (b'\x80\x02}K\x01Ns.', 'keys are not names'),
    (b'\x80\x02}))s.', 'keys are not names'),
    (b'\x80\x02}(K\x01u.', 'keys are not names'),
    (b'\x80\x02)K\x01Ns.', 'keys are not names'),
    (b'\x80\x02)K\x01a.', 'no list'),
    (b'\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.', 'pairs'),
    (b'\x80\x02}u.', 'pop'),
    (b'\x80\x02s.', 'pop'),
    (b'\x80\x02h\x05.', 'damaged: 5'),
    (b'\x80\x02q\x05.', 'range'),
    (b'\x80\x02\x87.', 'pop'),
    (b'\xff', 'unknown'),
])
def test_pickles_that_are_wrong(tmp_path, legacy, pickle, match):
    refused(tmp_path, packed(pickle, {}, legacy), match)


def test_pickles_are_bounded(tmp_path, monkeypatch):
    content = files.torch_bytes(TENSORS, True), files.torch_bytes(TENSORS, False)
    monkeypatch.setattr(torchfile, '_MAX_PICKLE', 400)
    for blob in content:
        refused(tmp_path, blob, 'damaged: .*(exhausted|expected|not enough)')
    monkeypatch.setattr(torchfile, '_MAX_SIZE', 400)
    refused(tmp_path, content[0], 'too large')


@BOTH
def test_pickles_that_cost_much_elsewhere(tmp_path, legacy):
    memo = b'\x80\x02}r\xff\xff\xff\x7f.'  # Python's own reserves 32 GB for such a number
    assert read(tmp_path, packed(memo, {}, legacy)) == {}
    tuples = b')' + b'q\x00h\x00\x86' * 10000  # whose hash takes 2 ** 10000 steps
    refused(tmp_path, packed(b'\x80\x02}' + tuples + b'Ns.', {}, legacy), 'names')
    refused(tmp_path, packed(b'\x80\x02}' + files.text('a') + tuples + b's.', {}, legacy), 'no tensor')
    for claim in b'X\xff\xff\xff\x7f', b'T\xff\xff\xff\x7f', b'\x8d' + b'\xff' * 5 + bytes(3), b'\x8d' + b'\xff' * 8:
        refused(tmp_path, packed(b'\x80\x02' + claim + b'x.', {}, legacy))  # lengths of texts


# ------------------------------------------------------------------------------------------------------------- hostile


class Hostile:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def hostile(mark):
    """Pickles that would create the file ``mark`` if anything in them ran."""
    touch = f'touch {mark}'
    system, run = b'cposix\nsystem\n', files.text(touch) + b'\x85R'
    yield pickle.dumps(Hostile(os.system, touch), 2)
    yield pickle.dumps({'a': Hostile(os.system, touch)}, 2)
    yield pickle.dumps({'a': Hostile(os.system, touch)}, 4)
    yield pickle.dumps({'a': Hostile(eval, f'open({str(mark)!r}, "w")')}, 2)
    yield f"cposix\nsystem\n(S'{touch}'\ntR.".encode()
    yield f"(S'{touch}'\nios\nsystem\n.".encode()  # INST
    yield f"(cos\nsystem\nS'{touch}'\no.".encode()  # OBJ
    yield b'\x80\x04\x8c\x05torch\x8c\x10_utils.os.system\x93.'  # a dotted name
    yield b'\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.'
    yield b'\x80\x02ctorch._utils\nos\n.'
    yield b'\x80\x02ccollections\nOrderedDict\n' + system + run + b'\x85R.'  # within what is allowed
    yield b'\x80\x02' + files.rebuilt(system + run, (1,), (1,)) + b'.'
    yield b'\x80\x02' + files.parameter(system + run) + b'.'
    yield b'\x80\x02' + files.ORDERED_DICT + b'}' + files.text('_metadata') + system + run + b'sb.'  # BUILD
    yield b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}' + files.text('__code__') + b'K\x01sb.'
    yield b'\x80\x02ctorch\nFloatStorage\n}' + files.text('x') + b'K\x01sb.'
    yield b'\x80\x02' + system + run + b'Q.'  # a persistent id
    yield b'\x80\x02(' + files.text('storage') + system + files.text('0') + files.text('cpu') + b'K\x01tQ.'
    nested = files.storage('0', 'FloatStorage', 1)
    yield b'\x80\x02' + nested + b'Q.'
    yield b'\x80\x02(' + nested + b'ctorch\nFloatStorage\n' + files.text('0') + files.text('cpu') + b'K\x01tQ.'
    yield b'\x80\x02(' + files.text('storage') + b'ctorch\nFloatStorage\n' + nested + files.text('cpu') + b'K\x01tQ.'
    yield b'\x80\x02' + files.text('torch FloatStorage') + b')R.'  # a text is no name
    yield b'\x80\x02ctorch\nFloatStorage\n)R.'
    yield b'\x80\x02ctorch._utils\n_rebuild_parameter\n)\x81.'  # NEWOBJ
    yield b'\x80\x02ctorch._utils\n_rebuild_parameter\n)R.'  # too few arguments
    yield b'\x80\x02ccollections\nOrderedDict\n(' + files.text('a') + b'tR.'
    yield b'\x80\x02\x82\x01.'  # an extension code
    yield b'Pmark\n.'  # a persistent id in text
    yield f"\x80\x02(cos\nsystem\nX{chr(len(touch))}\0\0\0{touch}oQ.".encode('latin1')


NUMBER = 29


@BOTH
@pytest.mark.parametrize('number', range(NUMBER))
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, legacy, number):
    pickles = list(hostile(tmp_path / 'mark'))
    assert len(pickles) == NUMBER
    refused(tmp_path, packed(pickles[number], {'0': bytes(4)}, legacy))
    assert not (tmp_path / 'mark').exists()


@pytest.mark.parametrize('place', range(5))
def test_each_pickle_of_the_old_format_is_read_like_that(tmp_path, place):
    bad = pickle.dumps(Hostile(os.system, f'touch {tmp_path / "mark"}'), 2)
    pickles = [b'\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.', b'\x80\x02M\xe9\x03.',
               b'\x80\x02}' + files.text('little_endian') + b'\x88s.', b'\x80\x02}.', b'\x80\x02].']
    assert read(tmp_path, b''.join(pickles)) == {}
    pickles[place] = bad
    refused(tmp_path, b''.join(pickles), 'refers to')
    pickles[place] = b'\x80\x02' + files.storage('0', 'FloatStorage', 1) + b'.'
    refused(tmp_path, b''.join(pickles))
    assert not (tmp_path / 'mark').exists()


def test_the_hostile_pickles_of_this_test_would_run(tmp_path):
    pickle.loads(next(hostile(tmp_path / 'mark')))
    assert (tmp_path / 'mark').exists()


@BOTH
def test_names_with_line_ends_make_one_line(tmp_path, legacy):
    pickle = b'\x80\x02}' + files.text('a\nb\x1b[31m') + b'Ns.'
    refused(tmp_path, packed(pickle, {}, legacy), r"'a\\nb\\x1b\[31m' is no")
