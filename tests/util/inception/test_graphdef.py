"""util.inception.graphdef: graphs as TensorFlow writes them, and wrong ones."""
import gzip
import os
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory

from tests import inception_files as files
from tests.helpers import tree
from util.files import UserError
from util.inception import graphdef, layers


@pytest.fixture
def weights(monkeypatch):
    files.small_network(monkeypatch)
    return files.small_weights()


@pytest.fixture
def nodes(weights):
    return files.graph_nodes(weights)


def equal(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def refused(nodes, match):
    """Reading fails with one line that names the file."""
    content = nodes if isinstance(nodes, bytes) else files.graph(nodes)
    with pytest.raises(UserError, match=match) as caught:
        graphdef.read_graph(content, 'the file')
    assert '\n' not in str(caught.value) and str(caught.value).startswith('the file')


def layer(name):
    [found] = [layer for layer in layers.LAYERS if layer.name == name]
    return found


def test_reads_a_graph(nodes, weights):
    equal(graphdef.read_graph(files.graph(nodes), 'the file'), weights)


def test_convolutions_need_no_node(nodes, weights):
    equal(graphdef.read_graph(files.graph({k: v for k, v in nodes.items() if 'Conv2D' not in k}), 'the file'), weights)


def test_reads_lists_of_numbers(nodes, weights):
    packed = weights['conv/beta'].astype('<f4').tobytes()
    nodes['conv/batchnorm/beta'] = files.const('conv/batchnorm/beta', weights['conv/beta'],
                                               content=files.field(5, packed))
    unpacked = b''.join(files.field(5, float(x)) for x in weights['conv/gamma'])
    nodes['conv/batchnorm/gamma'] = files.const('conv/batchnorm/gamma', weights['conv/gamma'], content=unpacked)
    one = files.field(5, np.float32(0.3).tobytes())
    nodes['conv/batchnorm/moving_variance'] = files.const('x', weights['conv/var'], content=one).replace(
        files.field(1, 'x'), files.field(1, 'conv/batchnorm/moving_variance'), 1)
    weights['conv/var'] = np.full(4, 0.3, np.float32)
    equal(graphdef.read_graph(files.graph(nodes), 'the file'), weights)


def test_gamma_counts_only_where_the_graph_uses_it(nodes, weights):
    nodes['conv/batchnorm'] = files.norm_node(layer('conv'), scaled=False)
    weights['conv/gamma'] = np.ones(4, np.float32)
    equal(graphdef.read_graph(files.graph(nodes), 'the file'), weights)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_padding_makes_no_difference_to_1x1(nodes, weights, padding):
    nodes['conv_3/Conv2D'] = files.conv_node(layer('conv_3'), padding=padding)
    equal(graphdef.read_graph(files.graph(nodes), 'the file'), weights)


@pytest.mark.parametrize('name', [
    'conv/conv2d_params', 'mixed/tower/conv_1/batchnorm/beta', 'conv_3/batchnorm/gamma', 'conv/batchnorm/moving_mean',
    'conv/batchnorm/moving_variance', 'conv_3/batchnorm', 'softmax/weights', 'softmax/biases'])
def test_a_missing_node(nodes, name):
    del nodes[name]
    refused(nodes, f'the file: node {name}: expected a node of that name')


VECTOR = np.zeros(4, np.float32)


@pytest.mark.parametrize('name, change, match', [
    ('conv/conv2d_params', np.zeros((4, 3, 3, 3), np.float32), r'shape \(3, 3, 3, 4\), found \(4, 3, 3, 3\)'),
    ('softmax/weights', np.zeros((7, 6), np.float32), r'shape \(6, 7\), found \(7, 6\)'),
    ('conv/batchnorm/beta', np.zeros((4, 1), np.float32), r'found \(4, 1\)'),
    ('conv/batchnorm/beta', {'dtype': 2}, 'float numbers .* found type 2'),
    ('conv/batchnorm/beta', {'dtype': 0}, 'found type 0'),
    ('conv/batchnorm/beta', {'content': files.field(4, bytes(15))}, '16 bytes of numbers, found 15'),
    ('conv/batchnorm/beta', {'content': files.field(4, bytes(20))}, 'found 20'),
    ('conv/batchnorm/beta', {'content': b''}, '4 numbers, found 0'),
    ('conv/batchnorm/beta', {'content': files.field(5, bytes(8))}, '4 numbers, found 2'),
    ('conv/batchnorm/beta', files.node('conv/batchnorm/beta', 'Const'), 'a tensor'),
    ('conv/batchnorm/beta', files.node('conv/batchnorm/beta', 'Const', value=files.field(4, 1.5)), 'a tensor'),
    ('conv/batchnorm/beta', files.node('conv/batchnorm/beta', 'Placeholder'), "Const, found 'Placeholder'"),
    ('conv/batchnorm', files.node('conv/batchnorm', 'FusedBatchNorm'), "found 'FusedBatchNorm'"),
    ('conv/batchnorm', files.node('conv/batchnorm', 'BatchNormWithGlobalNormalization'), 'variance_epsilon'),
    ('conv/batchnorm', files.node('conv/batchnorm', 'BatchNormWithGlobalNormalization',
                                  variance_epsilon=files.field(4, 0.001)), 'scale_after_normalization'),
    ('conv/Conv2D', files.node('conv/Conv2D', 'Conv2D', padding=files.field(2, 'SAME')), 'strides'),
    ('conv/Conv2D', files.node('conv/Conv2D', 'DepthwiseConv2dNative'), 'operation Conv2D'),
])
def test_a_wrong_node(nodes, name, change, match):
    if isinstance(change, dict):
        change = files.const(name, VECTOR, **change)
    elif not isinstance(change, bytes):
        change = files.const(name, change)
    nodes[name] = change
    refused(nodes, f'node {name}: .*{match}')


@pytest.mark.parametrize('epsilon', [0.0, 0.00100001, 1e-5, -0.001, float('nan'), float('inf')])
def test_another_epsilon(nodes, epsilon):
    nodes['conv/batchnorm'] = files.norm_node(layer('conv'), epsilon)
    refused(nodes, 'node conv/batchnorm: expected variance_epsilon 0.001, found')


@pytest.mark.parametrize('name, change, match', [
    ('conv', {'strides': (1, 1, 1, 1)}, r'strides \[1, 2, 2, 1\], found \[1, 1, 1, 1\]'),
    ('conv', {'strides': (1, 2, 2)}, 'strides'),
    ('conv_3', {'strides': (1, 2, 2, 1)}, r'strides \[1, 1, 1, 1\]'),
    ('conv', {'padding': 'SAME'}, "padding VALID, found b'SAME'"),
    ('mixed/tower/conv_1', {'padding': 'VALID'}, 'padding SAME'),
    ('conv_3', {'padding': 'EXPLICIT'}, 'padding SAME or VALID'),
])
def test_another_convolution(nodes, name, change, match):
    nodes[name + '/Conv2D'] = files.conv_node(layer(name), **change)
    refused(nodes, f'node {name}/Conv2D: expected {match}')


def test_nodes_of_equal_names(nodes):
    refused({**nodes, 'again': nodes['softmax/biases']}, 'equal names')


@pytest.mark.parametrize('content', [b'', b'no graph at all', b'\x0a\xff\xff\xff\xff\x0f', b'\x89PNG\r\n' * 20])
def test_no_graph(weights, content):
    refused(content, 'graph|node')


def test_cut_short_at_each_byte_of_a_node(nodes):
    content = files.graph(nodes)
    start = content.index(b'softmax/weights')
    for end in [*range(0, start, 97), *range(start, content.index(nodes['softmax']) - 4)]:
        refused(content[:end], 'graph|node')


def test_deep_messages(weights):
    deep = b''
    for _ in range(3000):
        deep = files.field(1, deep)
    refused(deep, 'graph|node')


# ------------------------------------------------------------------------------------------------------------ the file


def unreadable(path, match):
    with pytest.raises(UserError, match=match) as caught:
        graphdef.read_bytes(str(path))
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize('name', [files.GRAPH, './' + files.GRAPH, 'folder/' + files.GRAPH])
def test_finds_the_graph_in_the_archive(tmp_path, name):
    extra = []
    for kind in tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE:
        info = tarfile.TarInfo(files.GRAPH)
        info.type, info.linkname = kind, '/etc/passwd'
        extra.append((info, b''))
    files.write_tgz(tmp_path / 'a.tgz', b'the graph', name, [*extra, (tarfile.TarInfo('x' + files.GRAPH), b'odd')])
    before = tree(tmp_path)
    assert graphdef.read_bytes(str(tmp_path / 'a.tgz')) == b'the graph'
    assert tree(tmp_path) == before
    files.write_tgz(tmp_path / 'a.tgz', None, extra=extra)
    unreadable(tmp_path / 'a.tgz', 'there is no classify_image_graph_def.pb')


def test_a_plain_graph(tmp_path):
    (tmp_path / 'a.pb').write_bytes(b'the graph')
    assert graphdef.read_bytes(str(tmp_path / 'a.pb')) == b'the graph'
    unreadable(tmp_path / 'none.pb', 'cannot read')
    unreadable(tmp_path, 'cannot read')


@pytest.mark.parametrize('part', [3, 20, 0.1, 0.5, 0.9, -9, -8, -1])
def test_an_archive_cut_short(tmp_path, part):
    files.write_tgz(tmp_path / 'a.tgz', os.urandom(20000))
    content = (tmp_path / 'a.tgz').read_bytes()
    (tmp_path / 'a.tgz').write_bytes(content[:part if isinstance(part, int) else int(len(content) * part)])
    unreadable(tmp_path / 'a.tgz', 'cut short')


def test_an_archive_that_is_none(tmp_path):
    for content in b'\x1f\x8b and so on', gzip.compress(b'no tar' * 1000):
        (tmp_path / 'a.tgz').write_bytes(content)
        unreadable(tmp_path / 'a.tgz', 'not a tar.gz archive|there is no')


def test_an_archive_with_a_wrong_byte(tmp_path):
    files.write_tgz(tmp_path / 'a.tgz', bytes(20000))
    content = bytearray((tmp_path / 'a.tgz').read_bytes())
    for position in range(40, len(content), 1009):
        content[position] ^= 0x55
        (tmp_path / 'a.tgz').write_bytes(content)
        with pytest.raises(UserError):
            graphdef.read_bytes(str(tmp_path / 'a.tgz'))
        content[position] ^= 0x55


def test_odd_headers_of_an_archive(tmp_path):
    info = tarfile.TarInfo(files.GRAPH)
    info.pax_headers = {'GNU.sparse.map': 'no,numbers', 'GNU.sparse.size': 'none', 'size': 'no number'}
    files.write_tgz(tmp_path / 'a.tgz', None, extra=[(info, b'')])
    with pytest.raises(UserError):
        graphdef.read_bytes(str(tmp_path / 'a.tgz'))


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / 'a.tgz'
    info = tarfile.TarInfo(files.GRAPH)
    info.size = 1 << 40
    with gzip.open(path, 'wb') as f:
        f.write(info.tobuf() + bytes(10240))
    unreadable(path, 'too large')
    files.write_tgz(path, b'x', extra=[(tarfile.TarInfo(f'{i}'), b'') for i in range(100)])
    unreadable(path, 'too large')
    files.write_tgz(path, b'x')
    with gzip.open(path, 'ab') as f:  # behind the end of the tar
        f.write(bytes(1 << 20))
    assert graphdef.read_bytes(str(path)) == b'x'
    monkeypatch.setattr(graphdef, '_MAX_TOTAL', 1 << 20)
    unreadable(path, 'unpacks to more')
    monkeypatch.setattr(graphdef, '_MAX_SIZE', 3)
    (tmp_path / 'a.pb').write_bytes(b'four')
    unreadable(tmp_path / 'a.pb', 'too large')


# ------------------------------------------------------------------------------------------------- versions of protobuf


def test_the_messages_of_an_old_protobuf(nodes, weights, monkeypatch):
    if not hasattr(message_factory, 'GetMessageClass'):
        pytest.skip('this protobuf is an old one')

    class MessageFactory:
        def __init__(self, pool):
            pass

        def GetPrototype(self, descriptor):
            return message_factory.GetMessageClass(descriptor)

    monkeypatch.setattr(graphdef, 'message_factory', types.SimpleNamespace(MessageFactory=MessageFactory))
    monkeypatch.setattr(graphdef, 'graph_class', graphdef.graph_class.__wrapped__)  # without its cache
    equal(graphdef.read_graph(files.graph(nodes), 'the file'), weights)


def test_protobuf_in_pure_python(tmp_path):
    code = ('import sys\n'
            'from google.protobuf.internal import api_implementation\n'
            'from util.inception import graphdef\n'
            'node = graphdef.graph_class().FromString(sys.stdin.buffer.read()).node[0]\n'
            'shape = node.attr[1].value.tensor.tensor_shape\n'
            'print(api_implementation.Type(), node.name, node.op, len(node.attr), shape.dim[0].size)')
    run = subprocess.run([sys.executable, '-c', code], input=files.graph({'a': files.const('a', VECTOR)}),
                         env={**os.environ, 'PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION': 'python'}, capture_output=True,
                         check=True)
    assert run.stdout.decode().split() == ['python', 'a', 'Const', '2', '4']


def test_the_pool_is_its_own():
    assert graphdef.graph_class().DESCRIPTOR.full_name == 'inception.GraphDef'
    assert graphdef.graph_class() is graphdef.graph_class()
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName('inception.GraphDef')
