"""Making the npz of the Inception weights from the files in which they were released."""
import dataclasses
import hashlib
import os
import sys

from util import download
from util.files import UserError
from util.inception import graphdef, layers, torchfile, weights


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that can be downloaded.

    Attributes:
        url (str): Where.
        size (int): Its bytes.
        sha256 (str or None): In hexadecimal digits, where it is known.

    """

    url: str
    size: int
    sha256: str | None


# In the order in which they are tried
SOURCES = {
    'tensorflow': Source(
        'https://storage.googleapis.com/download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz',
        88931400, None),
    'pytorch': Source(
        'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
        'pt_inception-2015-12-05-6726825d.pth',
        95628359, '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'),
}
# What is in the archive of the first
GRAPH_SIZE = 95673916
GRAPH_SHA256 = '009d6814d1bc560d4e7b236e170e9b2d5ca6f4b57bd8037f6db05776204415c6'

_TORCH_KEYS = {'W': 'conv.weight', 'gamma': 'bn.weight', 'beta': 'bn.bias', 'mean': 'bn.running_mean',
               'var': 'bn.running_var'}


def convert(path, out, verify=True):
    """Make the npz of the weights from a released file.

    Args:
        path (str): TensorFlow's graph, the tar.gz archive with it, or the PyTorch file that was made from it. Which of
            them it is shows in its content, not in its name.
        out (str): The npz file to write.
        verify (bool): Insist on the size and hash of the file that was released. Names and shapes are always checked.

    Returns:
        str: What it was made from, in one line.

    Raises:
        UserError: The file cannot be read, is damaged or another one, or ``out`` cannot be written.

    """
    arrays, origin = _load(path, verify)
    weights.write(out, arrays, origin)
    return origin.text


def fetch(out, source=None):
    """Download a released file into Chainer's download cache and make the npz from it.

    A download that is there already is not repeated; one whose content is wrong is deleted.

    Args:
        out (str): The npz file to write.
        source (str or None): A name of :data:`SOURCES`; ``None`` tries all of them in order.

    Returns:
        str: What it was made from, in one line.

    Raises:
        UserError: None of them could be had, or ``out`` cannot be written.

    """
    names = list(SOURCES) if source is None else [source]
    for name in names:
        try:
            arrays, origin = _fetch_one(SOURCES[name])
        except UserError as error:
            print('no weights from {}: {}'.format(name, error), file=sys.stderr, flush=True)
        else:
            weights.write(out, arrays, origin)
            return origin.text
    raise UserError('the Inception weights could not be fetched from {} (the reasons stand above); "make inception" '
                    'tries again, "python -m util.inception convert FILE" takes a file at hand'.format(
                        ' or '.join(names)))


def _fetch_one(source):
    """The weights and their origin, out of a file that is downloaded unless the cache has it."""
    path = download.cache_path(source.url)
    download.fetch(source.url, path, source.size, source.sha256, 'Inception weights')
    try:
        return _load(path, verify=True)
    except UserError as error:
        try:
            os.unlink(path)
        except OSError as second:
            raise UserError('{}; delete it to download it again'.format(error)) from second
        raise UserError('{}: the download is deleted'.format(error)) from error


# ------------------------------------------------------------------------------------------------------------ one file


def _load(path, verify):
    """Checked arrays by name, and their origin."""
    try:
        with open(path, 'rb') as f:
            load = _load_torch if torchfile.is_torch_file(f.read(16)) else _load_graph
        arrays, origin = load(path, verify)
    except OSError as error:
        raise UserError('cannot read {}: {}'.format(path, error.strerror or error)) from error
    weights.check(arrays, path)
    return arrays, origin


def _load_graph(path, verify):
    if verify and graphdef.is_archive(path):
        _check_size(path, os.path.getsize(path), SOURCES['tensorflow'].size, 'archive')
    content = graphdef.read_bytes(path)
    if verify:
        _check_size(path, len(content), GRAPH_SIZE, 'graph ' + graphdef.NAME)
    found = hashlib.sha256(content).hexdigest()
    origin = _origin(path, 'TensorFlow graph', found, GRAPH_SHA256, verify)
    return graphdef.read_graph(content, path), origin


def _load_torch(path, verify):
    source = SOURCES['pytorch']
    if verify:
        _check_size(path, os.path.getsize(path), source.size, 'PyTorch file')
    origin = _origin(path, 'PyTorch file', download.file_digest(path, 'sha256'), source.sha256, verify)
    return _rename(torchfile.read_torch_file(path), path), origin


def _check_size(path, found, expected, label):
    if found != expected:
        raise UserError('{} is not the released {}: {:,} bytes where {:,} were expected (--no-verify converts '
                        'another)'.format(path, label, found, expected))


def _origin(path, label, found, expected, verify):
    """What weights of this file are to be called; with ``verify``, a refusal of a wrong SHA-256."""
    if verify and found != expected:
        raise UserError('{} is not the released {}: sha256 {} where {} was expected (--no-verify converts '
                        'another)'.format(path, label, found, expected))
    released = found == expected
    return weights.Origin('{}{}, sha256 {}'.format('' if released else 'NOT the released ', label, found), released)


def _rename(tensors, path):
    """Arrays by their names in the npz, from those by PyTorch's names."""
    names = {'fc.weight': 'softmax/W', 'fc.bias': 'softmax/b'}
    for layer in layers.LAYERS:
        for key, torch_key in _TORCH_KEYS.items():
            names['{}.{}'.format(layer.torch_name, torch_key)] = '{}/{}'.format(layer.name, key)
    for torch_name in names:
        if torch_name not in tensors:
            raise UserError('{}: there is no {} in the file'.format(path, torch_name))
    for torch_name in tensors:
        # Counters, and the branch that served training only
        if torch_name not in names and not torch_name.startswith('AuxLogits') and not torch_name.endswith(
                'num_batches_tracked'):
            raise UserError('{}: {!r:.80} is no array of the Inception network'.format(path, torch_name))
    return {name: tensors[torch_name] for torch_name, name in names.items()}
