"""util.inception.convert: all kinds of files give the same weights, and wrong ones give none."""
import os

import numpy as np
import pytest

from tests import inception_files as files
from tests.helpers import tree
from tests.inception_weights import random_weights
from util.files import UserError
from util.inception import convert, weights


def source_of(path):
    with np.load(path) as content:
        return content['meta/source'].item()


def refused(match, path, out, **how):
    """Conversion fails with one line that names the file, and leaves nothing."""
    before = tree(out.parent)
    with pytest.raises(UserError, match=match) as caught:
        convert.convert(str(path), str(out), **how)
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)
    assert tree(out.parent) == before
    out.write_bytes(b'old')
    with pytest.raises(UserError):
        convert.convert(str(path), str(out), **how)
    assert tree(out.parent) == {**before, out.name: b'old'}
    out.unlink()


# --------------------------------------------------------------------------------------------------- the whole network


@pytest.fixture(scope='module')
def whole():
    return random_weights()


@pytest.mark.parametrize('kind', files.KINDS)
def test_each_kind_gives_the_same_weights(tmp_path, whole, kind):
    source, out = files.make(tmp_path, kind, whole), tmp_path / 'a.npz'
    text = convert.convert(source, str(out), verify=False)
    os.unlink(source)
    files.equal(out, whole)
    assert source_of(out) == text
    out.unlink()  # 96 MB
    assert text.startswith('NOT the released ' + ('PyTorch' if 'pth' in kind else 'TensorFlow'))


# ------------------------------------------------------------------------------------------------------ a small network


def test_the_released_files_are_those_that_everybody_knows():
    assert [source.size for source in convert.SOURCES.values()] == [88931400, 95628359]
    assert convert.SOURCES['pytorch'].sha256.startswith('6726825d')
    assert '6726825d.pth' in convert.SOURCES['pytorch'].url
    assert convert.GRAPH_SIZE == 95673916
    assert all(len(digest) == 64 for digest in (convert.GRAPH_SHA256, convert.SOURCES['pytorch'].sha256))
    assert list(convert.SOURCES) == ['tensorflow', 'pytorch']


@pytest.mark.parametrize('kind', ['inception.tgz', 'graph.pb', 'legacy.pth'])
def test_released_files_are_verified(released, arrays, out, kind):
    text = convert.convert(released[kind], str(out))
    files.equal(out, arrays)
    graph = files.sha256(released['graph.pb'])
    assert text == ('PyTorch file, sha256 ' + files.sha256(released[kind]) if 'pth' in kind else
                    'TensorFlow graph, sha256 ' + graph)


def test_equal_bytes_twice(released, tmp_path):
    for name, kind in ('a', 'inception.tgz'), ('b', 'inception.tgz'), ('c', 'graph.pb'):
        convert.convert(released[kind], str(tmp_path / name))
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes() == (tmp_path / 'c').read_bytes()


def test_counters_and_the_training_branch_are_passed_over(arrays, out, tmp_path):
    tensors = files.torch_tensors(arrays, counters=False)
    tensors['AuxLogits.conv0.conv.weight'] = np.zeros((1, 2, 1, 1), np.float32)
    (tmp_path / 'a').write_bytes(files.torch_bytes(tensors, False))
    convert.convert(str(tmp_path / 'a'), str(out), verify=False)
    files.equal(out, arrays)


@pytest.mark.parametrize('kind', files.KINDS)
def test_a_wrong_size(released, out, kind):
    with open(released[kind], 'ab') as f:
        f.write(b'\0')
    refused('bytes where .* were expected .*--no-verify', released[kind], out)


@pytest.mark.parametrize('kind', ['inception.tgz', 'graph.pb', 'legacy.pth'])
def test_a_wrong_hash(released, arrays, out, tmp_path, kind):
    arrays['conv/W'][0, 0, 0, 0] += 1
    path = files.make(tmp_path, kind, arrays)
    refused('sha256 [0-9a-f]{64} where [0-9a-f]{64} was expected .*--no-verify', path, out)
    assert 'NOT the released' in convert.convert(path, str(out), verify=False)
    files.equal(out, arrays)
    assert not weights.read(str(out))[1].released


@pytest.mark.parametrize('verify', [True, False])
@pytest.mark.parametrize('kind', ['inception.tgz', 'graph.pb', 'legacy.pth'])
def test_released_files_make_released_weights(released, out, kind, verify):
    convert.convert(released[kind], str(out), verify=verify)
    assert weights.read(str(out))[1].released


@pytest.mark.parametrize('kind', files.KINDS)
@pytest.mark.parametrize('part', [0, 1, 10, 0.2, 0.5, 0.8, 0.99])
def test_cut_short(released, out, kind, part):
    content = open(released[kind], 'rb').read()
    with open(released[kind], 'wb') as f:
        f.write(content[:part if isinstance(part, int) else int(part * len(content))])
    refused('bytes where', released[kind], out)
    refused('damaged|missing|a node of that name', released[kind], out, verify=False)


@pytest.mark.parametrize('kind', files.KINDS)
@pytest.mark.parametrize('name, change, match', [
    ('conv_3/beta', None, 'conv_3/batchnorm/beta|Conv2d_3b_1x1.bn.bias'),
    ('softmax/b', None, 'softmax/biases|fc.bias'),
    ('conv/W', lambda array: array[:, :, :2], r'conv/conv2d_params|conv/W is float32 of shape \(4, 3, 2, 3\)'),
    ('softmax/W', lambda array: array.T, r'softmax/weights|softmax/W is float32 of shape \(6, 7\)'),
    ('conv/mean', lambda array: array * np.float32('nan'), 'conv/mean holds numbers that are not finite'),
    ('conv/var', lambda array: -array, 'conv/var holds negative'),
])
def test_wrong_weights_are_refused_in_any_case(arrays, out, tmp_path, monkeypatch, kind, name, change, match):
    if change is None:
        nodes, tensors = files.graph_nodes(arrays), files.torch_tensors(arrays)
        gone = [key for key in (*nodes, *tensors) if key in match.split('|')]
        assert len(gone) == 2
        monkeypatch.setattr(files, 'graph_nodes', lambda _: {k: v for k, v in nodes.items() if k not in gone})
        monkeypatch.setattr(files, 'torch_tensors', lambda _: {k: v for k, v in tensors.items() if k not in gone})
    else:
        arrays[name] = np.ascontiguousarray(change(arrays[name]))
    path = files.make(tmp_path, kind, arrays)
    refused(match, path, out, verify=False)
    if kind != 'zip.pth':
        files.release(monkeypatch, *(path if kind == k else None for k in ('inception.tgz', 'graph.pb', 'legacy.pth')))
        if kind != 'inception.tgz':
            refused(match, path, out)


def test_an_unknown_tensor(arrays, out, tmp_path):
    tensors = {**files.torch_tensors(arrays), 'odd\nname': np.zeros(1, np.float32)}
    (tmp_path / 'a').write_bytes(files.torch_bytes(tensors, True))
    refused(r"'odd\\nname' is no array", tmp_path / 'a', out, verify=False)


def test_files_that_cannot_be_read(arrays, out, tmp_path):
    refused('cannot read', tmp_path / 'none', out)
    refused('cannot read', tmp_path / 'out', out.parent.parent / 'b.npz')
