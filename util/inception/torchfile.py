"""PyTorch's files of weights, of both kinds that ``torch.save`` writes, read without PyTorch and without running them.

A pickle is a program. Even a restricted unpickler of Python's lets it reserve memory at will (by the number of a memo)
and hash what takes forever to hash. So the few instructions that weights need are carried out here, one by one, and any
other is refused: nothing is imported, looked up or called but the three functions below.
"""
import dataclasses
import io
import math
import os
import pickletools
import types
import zipfile

import numpy as np

from util.files import UserError

_ZIP = b'PK\x03\x04'
_MAGIC = 0x1950a86a20f9469cfc6c  # of files before PyTorch 1.6
_LEGACY = b'\x80\x02\x8a\x0a' + _MAGIC.to_bytes(10, 'little') + b'.'  # the same, pickled
_VERSION = 1001
_MAX_SIZE = 100000000  # bytes of a file: 95,628,359 in the released one
_MAX_PICKLE = 1 << 22  # bytes: 87 kB for the Inception network
_MAX_DIMENSIONS = 8
_MAX_NUMEL = 1 << 40  # elements of a storage, which are then compared with the file's


class _Refused(Exception):
    """Something in the file that weights do not need, or that cannot be."""


def is_torch_file(head):
    """Whether a file that begins with the bytes ``head`` (16 or more) is for :func:`read_torch_file`."""
    return head.startswith((_ZIP, _LEGACY))


def read_torch_file(path):
    """Read a dictionary of tensors that ``torch.save`` wrote.

    Args:
        path (str): The file: a zip archive, or of the kind before PyTorch 1.6, which ``torch.save`` still writes with
            ``_use_new_zipfile_serialization=False``.

    Returns:
        dict: Arrays (float32 or int64) by name. Read-only, and views of one another where the tensors were.

    Raises:
        UserError: It cannot be read, is damaged or of another kind, or holds anything but such tensors.

    """
    content = _read_content(path)
    try:
        read = _read_zip if content.startswith(_ZIP) else _read_legacy
        tensors, data = read(io.BytesIO(content), len(content))
        return {name: _view(tensor, data) for name, tensor in tensors.items()}
    except MemoryError:  # nothing in a file makes this one
        raise
    except Exception as error:  # bad pickles and zip files raise nearly everything
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError('{} is no file of weights of PyTorch, or is damaged: {:.200}'.format(path, reason)) from error


def _read_content(path):
    # All of it: reading from memory reserves what is there, reading from a file what a damaged length asks for
    try:
        with open(path, 'rb') as f:
            if os.fstat(f.fileno()).st_size > _MAX_SIZE:
                raise UserError('{}: too large to be a file of the Inception weights'.format(path))
            return f.read()
    except OSError as error:
        raise UserError('cannot read {}: {}'.format(path, error.strerror or error)) from error


# ----------------------------------------------------------------------------------------------------------- two kinds


def _read_zip(f, size):
    """Tensors by name, and their numbers by the key of their storage."""
    storages = {}
    with zipfile.ZipFile(f) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise _Refused('members of equal names')
        # Then members cannot hold more than the file: they are not packed, and do not lie upon each other
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise _Refused('a packed member; torch.save packs none')
        if sum(member.file_size for member in members.values()) > size:
            raise _Refused('members that are larger than the file')
        roots = [name[:-len('data.pkl')] for name in members if name.endswith('/data.pkl') and name.count('/') == 1]
        if len(roots) != 1:
            raise _Refused('expected one data.pkl, found {}'.format(len(roots)))
        if roots[0] + 'byteorder' in members and archive.read(roots[0] + 'byteorder') != b'little':
            raise _Refused('numbers that are not little-endian')
        tensors = _check_tensors(_run(io.BytesIO(archive.read(roots[0] + 'data.pkl')), storages))
        data = {}
        for key, storage in storages.items():
            content = archive.read('{}data/{}'.format(roots[0], key))
            if len(content) != storage.n_bytes:
                raise _Refused('{} bytes of numbers where {} were expected'.format(len(content), storage.n_bytes))
            data[key] = np.frombuffer(content, storage.dtype)
    return tensors, data


def _read_legacy(f, size):
    """The same as :func:`_read_zip`: five pickles, then all numbers."""
    storages = {}
    magic, version = _run(f), _run(f)
    if type(magic) is not int or type(version) is not int or (magic, version) != (_MAGIC, _VERSION):
        raise _Refused('it does not begin as they do')
    info = _run(f)
    if type(info) is not dict or info.get('little_endian') is not True:
        raise _Refused('numbers that are not little-endian')
    tensors = _check_tensors(_run(f, storages))
    keys = _run(f)
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
        raise _Refused('a list of storages that is not that of its tensors')
    data = {}
    for key in keys:
        storage = storages[key]
        if f.read(8) != storage.numel.to_bytes(8, 'little') or storage.n_bytes > size - f.tell():
            raise _Refused('it is cut short where {} numbers were expected, or has others'.format(storage.numel))
        data[key] = np.frombuffer(f.read(storage.n_bytes), storage.dtype)
    if f.read(1):
        raise _Refused('it goes on behind its end')
    return tensors, data


# ------------------------------------------------------------------------------------------------------------- tensors


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers that a pickle names, to be read later."""

    dtype: np.dtype
    numel: int

    @property
    def n_bytes(self):
        return self.numel * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
    """A checked view of a storage, in numbers, not bytes."""

    key: str
    offset: int
    size: tuple
    stride: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class _Reference:
    """What a pickle's persistent id stands for."""

    key: str
    storage: _Storage


def _rebuild_tensor(reference, offset, size, stride, requires_grad, hooks, metadata=None):
    """Stands in for ``torch._utils._rebuild_tensor_v2``."""
    if (type(reference) is not _Reference or type(size) is not tuple or type(stride) is not tuple
            or not len(size) == len(stride) <= _MAX_DIMENSIONS):
        raise _Refused('a tensor that cannot be')
    if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
        raise _Refused('a tensor whose place is no number')
    count, numel = math.prod(size), reference.storage.numel
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # No more numbers than there are, so that a small file cannot fill the memory by repeating them
    if count > numel or (count and last >= numel):
        raise _Refused('a tensor that is larger than its storage')
    return _Tensor(reference.key, offset, size, stride)


def _rebuild_parameter(tensor, requires_grad, hooks):
    """Stands in for ``torch._utils._rebuild_parameter``."""
    if type(tensor) is not _Tensor:
        raise _Refused('a parameter that is no tensor')
    return tensor


def _ordered_dict(items=()):
    """Stands in for ``collections.OrderedDict``; only Python 2 wrote the items here."""
    return _set_items({}, [x for pair in items for x in _check_pair(pair)])


def _check_pair(pair):
    if type(pair) is not list or len(pair) != 2:
        raise _Refused('a dictionary of something else than pairs')
    return pair


def _set_items(target, items):
    """Set ``target[items[0]]`` to ``items[1]`` and so on."""
    names = items[::2]
    # Text only: tuples of tuples of tuples would take forever to hash
    if type(target) is not dict or len(items) % 2 or any(type(name) is not str for name in names):
        raise _Refused('a dictionary whose keys are not names')
    target.update(zip(names, items[1::2], strict=True))
    return target


def _check_tensors(value):
    if type(value) is not dict:
        raise _Refused('it holds no dictionary of tensors')
    for name, tensor in value.items():
        if type(tensor) is not _Tensor:
            raise _Refused('{!r:.80} is no tensor'.format(name))
    return value


def _view(tensor, data):
    """The array of a checked tensor."""
    numbers = data[tensor.key]
    stride = [step * numbers.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset:], tensor.size, stride, writeable=False)


# -------------------------------------------------------------------------------------------------------- instructions


# All that a pickle can refer to
_NAMES = {
    'collections OrderedDict': _ordered_dict,
    'torch._utils _rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils _rebuild_parameter': _rebuild_parameter,
    'torch FloatStorage': np.dtype('<f4'),
    'torch LongStorage': np.dtype('<i8'),
}
_LITERALS = ('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING')
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY = {'EMPTY_TUPLE': tuple, 'EMPTY_LIST': list, 'EMPTY_DICT': dict}
_MARK = object()


def _run(f, storages=None):
    """Carry out one pickle and return what it makes.

    Args:
        f (file): Left at the pickle's end, which may not be the file's.
        storages (dict or None): The :class:`_Storage` objects that it refers to are put there by key; ``None`` for
            pickles that refer to none.

    """
    machine, start = _Machine(storages), f.tell()
    window = io.BytesIO(f.read(_MAX_PICKLE))
    for opcode, argument, _ in pickletools.genops(window):
        machine.step(opcode.name, argument)
    f.seek(start + window.tell())
    if len(machine.stack) != 1:
        raise _Refused('a pickle that leaves {} values'.format(len(machine.stack)))
    return machine.stack[0]


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, storages):
        self.stack, self._memo, self._storages = [], {}, storages

    def step(self, name, argument):
        """Carry out an instruction. Raises nearly everything when there is not on the stack what it needs."""
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ('BINPUT', 'LONG_BINPUT'):
            self._memo[argument] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET'):
            stack.append(self._memo[argument])
        elif name == 'MARK':
            stack.append(_MARK)
        elif name == 'TUPLE':
            stack.append(tuple(self._pop_to_mark()))
        elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            stack.append(tuple(self._pop(int(name[-1]))))
        elif name not in ('PROTO', 'STOP'):
            self._act(name, argument)

    def _act(self, name, argument):
        """An instruction that changes or makes something."""
        stack = self.stack
        if name == 'SETITEMS':
            items = self._pop_to_mark()
            _set_items(stack[-1], items)
        elif name == 'SETITEM':
            items = self._pop(2)
            _set_items(stack[-1], items)
        elif name in ('APPENDS', 'APPEND'):
            items = self._pop_to_mark() if name == 'APPENDS' else self._pop(1)
            if type(stack[-1]) is not list:
                raise _Refused('something appended to what is no list')
            stack[-1].extend(items)
        elif name == 'BUILD':
            if type(stack.pop()) is not dict or type(stack[-1]) is not dict:  # _metadata, which is passed over
                raise _Refused('a state of what is no dictionary')
        elif name == 'GLOBAL':
            stack.append(self._find(argument))
        elif name == 'REDUCE':
            function, arguments = self._pop(2)
            if not isinstance(function, types.FunctionType) or type(arguments) is not tuple:
                raise _Refused('a call of what is no function')
            stack.append(function(*arguments))  # one of _NAMES: there are no others to be had
        elif name == 'BINPERSID':
            stack.append(self._refer(stack.pop()))
        else:
            raise _Refused('the instruction {}, which torch.save does not write for weights'.format(name))

    def _pop(self, n):
        return [self.stack.pop() for _ in range(n)][::-1]

    def _pop_to_mark(self):
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _find(self, name):
        if name not in _NAMES:
            raise _Refused('it refers to {!r:.80}, which no file of float32 weights needs'.format(
                name.replace(' ', '.')))
        return _NAMES[name]

    def _refer(self, identity):
        """The storage of a persistent id: 'storage', its class, key, device, number of elements, perhaps None."""
        if type(identity) is not tuple or len(identity) not in (5, 6) or self._storages is None:
            raise _Refused('a reference to what is no storage')
        kind, dtype, key, _, numel = identity[:5]
        if kind != 'storage' or not isinstance(dtype, np.dtype) or type(key) is not str or identity[5:] not in (
                (), (None,)):
            raise _Refused('a reference to what is no storage')
        if type(numel) is not int or not 0 <= numel < _MAX_NUMEL:
            raise _Refused('a storage of a size that cannot be')
        storage = _Storage(dtype, numel)
        if self._storages.setdefault(key, storage) != storage:
            raise _Refused('a storage of two kinds')
        return _Reference(key, storage)
