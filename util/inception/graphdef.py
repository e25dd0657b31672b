"""The Inception weights as Google released them, a TensorFlow GraphDef, read without TensorFlow.

Constants are in the nodes of the graph; all that is checked of its computations is what the table of layers claims.
"""
import functools

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from util.archive import read_files
from util.files import UserError
from util.inception import layers

NAME = 'classify_image_graph_def.pb'  # in the archive
_MAX_SIZE = 100000000  # bytes of a graph: 95,673,916 in the original
_MAX_TOTAL = 1 << 28  # bytes of all that is packed
_MAX_MEMBERS = 100  # of the archive
_FLOAT = 1  # TensorFlow's DT_FLOAT

# The part of TensorFlow's messages that weights are in, as (name, number, type, repeated); all else is passed over.
# Enumerations are read as int32 and the map of attributes as a list of its entries, which are the same bytes.
_MESSAGES = {
    'GraphDef': (('node', 1, 'NodeDef', True),),
    'NodeDef': (('name', 1, 'string', False), ('op', 2, 'string', False), ('attr', 5, 'Entry', True)),
    'Entry': (('key', 1, 'string', False), ('value', 2, 'AttrValue', False)),
    'AttrValue': (('list', 1, 'ListValue', False), ('s', 2, 'bytes', False), ('f', 4, 'float', False),
                  ('b', 5, 'bool', False), ('tensor', 8, 'TensorProto', False)),
    'ListValue': (('i', 3, 'int64', True),),
    'TensorProto': (('dtype', 1, 'int32', False), ('tensor_shape', 2, 'TensorShapeProto', False),
                    ('tensor_content', 4, 'bytes', False), ('float_val', 5, 'float', True)),
    'TensorShapeProto': (('dim', 2, 'Dim', True),),
    'Dim': (('size', 1, 'int64', False),),
}


@functools.cache
def graph_class():
    """The message class of a GraphDef, in a pool of its own: TensorFlow, where it is, registers the same names."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name='graph.proto', package='inception', syntax='proto3')
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            entry = message.field.add(name=key, number=number, label=label)
            if kind in _MESSAGES:
                entry.type, entry.type_name = field.TYPE_MESSAGE, '.inception.' + kind
            else:
                entry.type = getattr(field, 'TYPE_' + kind.upper())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName('inception.GraphDef')
    if hasattr(message_factory, 'GetMessageClass'):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf before 4.22


# ------------------------------------------------------------------------------------------------------------ the file


def is_archive(path):
    """Whether a file is packed with gzip, as the archive is. Raises OSError."""
    with open(path, 'rb') as f:
        return f.read(2) == b'\x1f\x8b'


def read_bytes(path):
    """The content of a file that holds a graph.

    Args:
        path (str): The graph itself, or the tar.gz archive that it was released in, of which nothing is extracted to
            the disk.

    Returns:
        bytes: The graph.

    Raises:
        UserError: The file cannot be read, is too large, damaged, or holds no graph.

    """
    try:
        if is_archive(path):
            return _read_archive(path)
        with open(path, 'rb') as f:
            content = f.read(_MAX_SIZE + 1)
    except OSError as error:
        raise UserError('cannot read {}: {}'.format(path, error.strerror or error)) from error
    if len(content) > _MAX_SIZE:
        raise UserError('{}: too large to be {}'.format(path, NAME))
    return content


def _read_archive(path):
    found = list(read_files(path, 'the Inception archive', lambda name: name.rpartition('/')[2] == NAME, _MAX_SIZE,
                            _MAX_TOTAL, _MAX_MEMBERS))
    if not found:
        raise UserError('{}: there is no {} in the archive'.format(path, NAME))
    return found[-1][1]


# ----------------------------------------------------------------------------------------------------------- the graph


def read_graph(content, where):
    """Read the weights out of a graph.

    Args:
        content (bytes): The GraphDef.
        where (str): What it is from, for messages.

    Returns:
        dict: Arrays by the names of :func:`util.inception.weights.shapes`.

    Raises:
        UserError: It is no graph, or a node is missing or not what it should be.

    """
    message = graph_class()
    try:
        graph = message.FromString(content)
    except Exception as error:  # DecodeError, but the version in pure Python raises others, too
        raise UserError('{} is not a TensorFlow graph, or is damaged: {}'.format(
            where, ' '.join(str(error).split()))) from error
    nodes = {node.name: node for node in graph.node}
    if len(nodes) != len(graph.node):
        raise UserError('{} is not a TensorFlow graph, or is damaged: it has nodes of equal names'.format(where))
    return _Reader(nodes, where).weights()


class _Reader:
    """Finds the weights in the nodes of a graph, and checks what it finds."""

    def __init__(self, nodes, where):
        self._nodes, self._where = nodes, where

    def weights(self):
        arrays = {}
        for layer in layers.LAYERS:
            n_out, n_in, height, width = layer.shape
            name, norm = layer.name, layer.name + '/batchnorm'
            arrays[name + '/W'] = self._array(name + '/conv2d_params', (height, width, n_in, n_out)).transpose(
                3, 2, 0, 1)
            scaled = self._check_norm(norm)
            arrays[name + '/gamma'] = self._array(norm + '/gamma', (n_out,)) if scaled else np.ones(n_out, np.float32)
            arrays[name + '/beta'] = self._array(norm + '/beta', (n_out,))
            arrays[name + '/mean'] = self._array(norm + '/moving_mean', (n_out,))
            arrays[name + '/var'] = self._array(norm + '/moving_variance', (n_out,))
            self._check_conv(layer)
        arrays['softmax/W'] = self._array('softmax/weights', (layers.N_FEATURES, layers.N_CLASSES)).T
        arrays['softmax/b'] = self._array('softmax/biases', (layers.N_CLASSES,))
        return arrays

    def _refuse(self, name, expected):
        raise UserError('{}: node {}: expected {}'.format(self._where, name, expected))

    def _attributes(self, name, op):
        """The attributes of a node of the operation ``op``, by name."""
        node = self._nodes.get(name)
        if node is None:
            self._refuse(name, 'a node of that name, of operation {}'.format(op))
        if node.op != op:
            self._refuse(name, 'operation {}, found {!r:.80}'.format(op, node.op))
        return {entry.key: entry.value for entry in node.attr}

    def _array(self, name, shape):
        attributes = self._attributes(name, 'Const')
        if 'value' not in attributes or not attributes['value'].HasField('tensor'):
            self._refuse(name, 'a tensor as its value')
        tensor = attributes['value'].tensor
        if tensor.dtype != _FLOAT:
            self._refuse(name, 'float numbers (type {}), found type {}'.format(_FLOAT, tensor.dtype))
        found = tuple(dim.size for dim in tensor.tensor_shape.dim[:9])
        if found != shape:
            self._refuse(name, 'shape {}, found {}'.format(shape, found))
        n = int(np.prod(shape))
        if tensor.tensor_content:
            if len(tensor.tensor_content) != 4 * n:
                self._refuse(name, '{} bytes of numbers, found {}'.format(4 * n, len(tensor.tensor_content)))
            return np.frombuffer(tensor.tensor_content, '<f4').reshape(shape)
        if len(tensor.float_val) not in (1, n):  # one may stand for all
            self._refuse(name, '{} numbers, found {}'.format(n, len(tensor.float_val)))
        return np.broadcast_to(np.array(tensor.float_val, np.float32), n).reshape(shape)

    def _check_norm(self, name):
        """Check a batch normalization and return whether it multiplies by gamma."""
        attributes = self._attributes(name, 'BatchNormWithGlobalNormalization')
        for key in ('variance_epsilon', 'scale_after_normalization'):
            if key not in attributes:
                self._refuse(name, 'an attribute ' + key)
        epsilon = attributes['variance_epsilon'].f
        if not abs(epsilon - layers.BN_EPS) < 1e-9:
            self._refuse(name, 'variance_epsilon {}, found {:.9g}'.format(layers.BN_EPS, epsilon))
        return attributes['scale_after_normalization'].b

    def _check_conv(self, layer):
        name, conv = layer.name + '/Conv2D', layer.conv
        if name not in self._nodes:
            return
        attributes = self._attributes(name, 'Conv2D')
        for key in ('strides', 'padding'):
            if key not in attributes:
                self._refuse(name, 'an attribute ' + key)
        strides, padding = list(attributes['strides'].list.i[:9]), attributes['padding'].s
        if strides != [1, conv.stride, conv.stride, 1]:
            self._refuse(name, 'strides {}, found {}'.format([1, conv.stride, conv.stride, 1], strides))
        # Under a kernel of 1x1 there is nothing to pad: both say the same
        allowed = (b'SAME', b'VALID') if conv.kernel == (1, 1) else (b'SAME' if conv.same else b'VALID',)
        if padding not in allowed:
            self._refuse(name, 'padding {}, found {!r:.80}'.format(' or '.join(map(bytes.decode, allowed)), padding))
