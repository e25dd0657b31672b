"""Writers, without TensorFlow and PyTorch, of the files in which the Inception weights were released.

They use nothing of util's readers, so that a mistake in those is not made here, too. Below them stands what tests of
converting and fetching have in common.
"""
import gzip
import hashlib
import io
import os
import struct
import tarfile
import zipfile

import numpy as np

from util.inception import convert, layers, weights

GRAPH = 'classify_image_graph_def.pb'
KINDS = ('inception.tgz', 'graph.pb', 'zip.pth', 'legacy.pth')
TORCH_KEYS = {'conv.weight': 'W', 'bn.weight': 'gamma', 'bn.bias': 'beta', 'bn.running_mean': 'mean',
              'bn.running_var': 'var'}


def small_network(monkeypatch):
    """Replace the table by one of three small layers, and the weights that :func:`small_weights` makes by theirs."""
    convs = [('conv', 'Conv2d_1a_3x3', 3, layers.Conv('conv', 'Conv2d_1a_3x3', 4, (3, 3), 2, same=False)),
             ('conv_3', 'Conv2d_3b_1x1', 4, layers.Conv('conv_3', 'Conv2d_3b_1x1', 5)),
             ('mixed/tower/conv_1', 'Mixed_5b.branch7x7_2', 5, layers.Conv('tower/conv_1', 'branch7x7_2', 6, (1, 7)))]
    monkeypatch.setattr(layers, 'LAYERS', [layers.Layer(*conv) for conv in convs])
    monkeypatch.setattr(layers, 'N_FEATURES', 6)
    monkeypatch.setattr(layers, 'N_CLASSES', 7)


def small_weights(seed=0):
    """Random weights for :func:`small_network`."""
    rng, weights = np.random.RandomState(seed), {}
    for layer in layers.LAYERS:
        weights[layer.name + '/W'] = rng.normal(size=layer.shape)
        for key in 'gamma', 'beta', 'mean', 'var':
            weights[f'{layer.name}/{key}'] = rng.uniform(0.5, 2, layer.shape[0])
    weights['softmax/W'] = rng.normal(size=(layers.N_CLASSES, layers.N_FEATURES))
    weights['softmax/b'] = rng.normal(size=layers.N_CLASSES)
    return {name: array.astype(np.float32) for name, array in weights.items()}


# ---------------------------------------------------------------------------------------------------------- TensorFlow


def varint(n):
    """A number of protocol buffers."""
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7f:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def field(number, value):
    """A field with its tag: bytes and text as such, int and bool as varint, float as float32."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack('<f', value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(name, op, inputs=(), **attributes):
    """A NodeDef; the attributes are AttrValues (bytes)."""
    entries = (field(5, field(1, key) + field(2, value)) for key, value in attributes.items())
    return field(1, name) + field(2, op) + b''.join(field(3, x) for x in inputs) + b''.join(entries)


def tensor(array, content=None, dtype=1):
    """An AttrValue with a tensor; ``content`` replaces the field of its numbers."""
    shape = b''.join(field(2, field(1, n)) for n in array.shape)
    content = field(4, array.astype('<f4').tobytes()) if content is None else content
    return field(8, field(1, dtype) + field(2, shape) + content)


def const(name, array, **changes):
    """A node that holds an array."""
    return node(name, 'Const', dtype=field(6, 1), value=tensor(array, **changes))


def conv_node(layer, strides=None, padding=None, op='Conv2D'):
    """The convolution of a layer."""
    stride = layer.conv.stride
    packed = b''.join(varint(n) for n in strides or (1, stride, stride, 1))
    return node(layer.name + '/Conv2D', op, ['x', layer.name + '/conv2d_params'], T=field(6, 1),
                padding=field(2, padding or ('SAME' if layer.conv.same else 'VALID')),
                strides=field(1, field(3, packed)), use_cudnn_on_gpu=field(5, True))


def norm_node(layer, epsilon=0.001, scaled=True, op='BatchNormWithGlobalNormalization'):
    """The batch normalization of a layer."""
    name = layer.name + '/batchnorm'
    inputs = [layer.name + '/Conv2D'] + [f'{name}/{key}' for key in ('moving_mean', 'moving_variance', 'beta', 'gamma')]
    return node(name, op, inputs, T=field(6, 1), scale_after_normalization=field(5, scaled),
                variance_epsilon=field(4, epsilon))


def graph_nodes(weights):
    """The nodes of the graph by name, each as bytes, with some that are no weights."""
    nodes = {'DecodeJpeg/contents': node('DecodeJpeg/contents', 'Const', dtype=field(6, 7), value=field(
        8, field(1, 7) + field(2, b'') + field(8, b'\xff\xd8 no text')))}
    for layer in layers.LAYERS:
        names = {'conv2d_params': 'W', 'batchnorm/beta': 'beta', 'batchnorm/gamma': 'gamma',
                 'batchnorm/moving_mean': 'mean', 'batchnorm/moving_variance': 'var'}
        for name, key in names.items():
            array = weights[f'{layer.name}/{key}']
            name = f'{layer.name}/{name}'
            nodes[name] = const(name, array.transpose(2, 3, 1, 0) if key == 'W' else array)
        nodes[layer.name + '/Conv2D'] = conv_node(layer)
        nodes[layer.name + '/batchnorm'] = norm_node(layer)
        nodes[layer.name] = node(layer.name, 'Relu', [layer.name + '/batchnorm'], T=field(6, 1))
    nodes['softmax/weights'] = const('softmax/weights', weights['softmax/W'].T)
    nodes['softmax/biases'] = const('softmax/biases', weights['softmax/b'])
    nodes['softmax'] = node('softmax', 'Softmax', ['softmax/logits'], T=field(6, 1))
    return nodes


def graph(nodes):
    """The bytes of a GraphDef, with its version behind the nodes."""
    return b''.join(field(1, node) for node in nodes.values()) + field(4, field(1, 8))


def write_tgz(path, content, name=GRAPH, extra=()):
    """Write the archive: ``extra`` members (TarInfo, bytes) come first. Not really packed, which takes long."""
    with gzip.GzipFile(path, 'wb', compresslevel=0, mtime=0) as packed, tarfile.open(fileobj=packed, mode='w') as tar:
        members = [(tarfile.TarInfo('LICENSE'), b'Apache'), *extra]
        if content is not None:
            members.append((tarfile.TarInfo(name), content))
        for info, blob in members:
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))


# ------------------------------------------------------------------------------------------------------------- PyTorch


def text(s):
    """The instruction that pushes a text."""
    return b'X' + struct.pack('<I', len(s.encode())) + s.encode()


def integer(n):
    """The instruction that pushes a number."""
    if 0 <= n < 256:
        return b'K' + bytes([n])
    if -(1 << 31) <= n < 1 << 31:
        return b'J' + struct.pack('<i', n)
    content = n.to_bytes(n.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(content)]) + content


def several(numbers):
    """The instructions that push a tuple of numbers."""
    return b'(' + b''.join(map(integer, numbers)) + b't'


ORDERED_DICT = b'ccollections\nOrderedDict\n)R'


def storage(key, kind, numel, view=b'', device='cpu'):
    """The instructions that refer to a storage; ``view`` is b'N' in the old format."""
    return (b'(' + text('storage') + b'ctorch\n' + kind.encode() + b'\n' + text(key) + text(device) + integer(numel)
            + view + b'tQ')


def rebuilt(storage, size, stride, offset=0):
    """The instructions that make a tensor."""
    return (b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + integer(offset) + several(size) + several(stride)
            + b'\x89' + ORDERED_DICT + b'tR')


def parameter(tensor):
    """The instructions that make a parameter of a tensor."""
    return b'ctorch._utils\n_rebuild_parameter\n(' + tensor + b'\x88' + ORDERED_DICT + b'tR'


def strides(shape):
    """Of an array in C order, in elements."""
    return [int(np.prod(shape[i + 1:], dtype=np.int64)) for i in range(len(shape))]


def pickled(tensors, legacy, ordered=True, wrap=lambda tensor: tensor):
    """The pickle of a state_dict: an OrderedDict with ``_metadata``, or a plain dict, of arrays by name."""
    out = [b'\x80\x02', (ORDERED_DICT if ordered else b'}') + b'q\x00(']
    for number, (name, array) in enumerate(tensors.items()):
        kind = {'f': 'FloatStorage', 'i': 'LongStorage'}[array.dtype.kind]
        refer = storage(str(94000 + number), kind, array.size, b'N' if legacy else b'')
        out.append(text(name) + wrap(rebuilt(refer, array.shape, strides(array.shape))) + b'r'
                   + struct.pack('<I', number + 1))
    out.append(b'u')
    if ordered:
        out.append(b'}' + text('_metadata') + ORDERED_DICT + b'(' + text('') + b'}' + text('version') + b'K\x01su'
                   + b'sb')
    return b''.join(out) + b'.'


def blobs(tensors):
    """The bytes of the storages of :func:`pickled` by key."""
    return {str(94000 + number): array.tobytes() for number, array in enumerate(tensors.values())}


LEGACY_HEAD = (b'\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.' + b'\x80\x02M\xe9\x03.'
               + b'\x80\x02}(' + text('protocol_version') + b'M\xe9\x03' + text('little_endian') + b'\x88'
               + text('type_sizes') + b'}(' + text('short') + b'K\x02' + text('int') + b'K\x04' + text('long')
               + b'K\x04uu.')


def legacy_bytes(pickle, blobs, head=LEGACY_HEAD, itemsize=4, keys=None):
    """A file as before PyTorch 1.6; ``itemsize`` is an int or a dict by key."""
    keys = list(blobs) if keys is None else keys
    out = [head, pickle, b'\x80\x02](' + b''.join(map(text, keys)) + b'e.']
    for key, blob in blobs.items():
        size = itemsize[key] if isinstance(itemsize, dict) else itemsize
        out += [struct.pack('<q', len(blob) // size), blob]
    return b''.join(out)


def zip_bytes(pickle, blobs, root='archive', packing=zipfile.ZIP_STORED, byteorder=b'little'):
    """A file as since PyTorch 1.6."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w', packing) as archive:
        members = {'data.pkl': pickle, 'byteorder': byteorder, **{'data/' + key: blob for key, blob in blobs.items()},
                   'version': b'3\n'}
        for name, blob in members.items():
            if blob is not None:
                archive.writestr(zipfile.ZipInfo(f'{root}/{name}'), blob, packing)
    return content.getvalue()


def torch_bytes(tensors, legacy, **how):
    """A file with arrays by name; ``how`` goes to :func:`pickled`."""
    pickle = pickled(tensors, legacy, **how)
    if not legacy:
        return zip_bytes(pickle, blobs(tensors))
    sizes = dict(zip(blobs(tensors), (array.itemsize for array in tensors.values()), strict=True))
    return legacy_bytes(pickle, blobs(tensors), itemsize=sizes)


def torch_tensors(weights, counters=True):
    """The arrays by their names in PyTorch, perhaps with the counters of batches."""
    tensors = {}
    for layer in layers.LAYERS:
        for torch_key, key in TORCH_KEYS.items():
            tensors[f'{layer.torch_name}.{torch_key}'] = weights[f'{layer.name}/{key}']
        if counters:
            tensors[layer.torch_name + '.bn.num_batches_tracked'] = np.array(0, np.int64)
    return {**tensors, 'fc.weight': weights['softmax/W'], 'fc.bias': weights['softmax/b']}


# ------------------------------------------------------------------------------------------------------------ all kinds


def content_of(kind, arrays):
    """The bytes of a file of a kind, except for archives."""
    if kind == 'graph.pb':
        return graph(graph_nodes(arrays))
    return torch_bytes(torch_tensors(arrays), legacy=kind == 'legacy.pth')


def make(folder, kind, arrays):
    """Write such a file under a name that does not tell what it is."""
    path = str(folder / kind.replace('.', '_'))
    if kind == 'inception.tgz':
        write_tgz(path, content_of('graph.pb', arrays))
    else:
        with open(path, 'wb') as f:
            f.write(content_of(kind, arrays))
    return path


def sha256(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def release(monkeypatch, tgz=None, pb=None, pth=None):
    """Let files at hand be the released ones."""
    if tgz:
        source = convert.SOURCES['tensorflow']
        monkeypatch.setitem(convert.SOURCES, 'tensorflow', convert.Source(source.url, os.path.getsize(tgz), None))
    if pb:
        monkeypatch.setattr(convert, 'GRAPH_SIZE', os.path.getsize(pb))
        monkeypatch.setattr(convert, 'GRAPH_SHA256', sha256(pb))
    if pth:
        source = convert.Source(convert.SOURCES['pytorch'].url, os.path.getsize(pth), sha256(pth))
        monkeypatch.setitem(convert.SOURCES, 'pytorch', source)


def equal(path, expected):
    """An npz holds these weights to the bit."""
    found, _ = weights.read(str(path))
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)
