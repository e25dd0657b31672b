"""The door to Intel's oneDNN: convolutions that it compiles, each for one shape, by its C API (version 3) and ctypes.

oneDNN's objects are made by functions of it and destroyed by others. Here every object stands on an ``ExitStack`` as
soon as it is there: what is needed to compile goes when that is done, or has failed; what is needed to compute goes
with :meth:`Convolution.close`. Nothing here may be called by two threads at once.
"""
import contextlib
import ctypes
import importlib.metadata
import math
import os
import platform
import sys
import typing

from util.engine.threads import scratch
from util.files import UserError

DISTRIBUTION, EXTRA = 'onednn-cpu-gomp', 'onednn'
_FILE = 'libdnnl.so.3'

# Numbers of dnnl_types.h. Engine, stream and scratch memory; kind of pass and algorithm; memory; query:
_CPU, _IN_ORDER, _USER_SCRATCHPAD = 1, 1, 1
_TRAINING, _DIRECT = 64, 1
_FLOAT32, _ANY_LAYOUT = 3, 1
_QUERY_NAME, _QUERY_ARGUMENT = 8, 255
# Roles of arguments:
_SRC, _DST, _WEIGHTS, _BIAS, _SCRATCHPAD, _DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = 1, 17, 33, 41, 80, 129, 145, 161
_FROM, _TO = _SRC, _DST

# oneDNN's first choice goes through the whole weight for each picture. Where that is more than a cache holds (bytes),
# for few places of a picture, this other implementation takes down to half the time; where it is none, the first stays.
_LARGE_WEIGHT, _FEW_PLACES, _OTHER = 2 << 20, 36, b'jit:avx512_core'

_ALIGNMENT = 64  # bytes: a line of the cache, and the widest vector


class Refused(Exception):
    """oneDNN has answered with an error status."""


class Problem(typing.NamedTuple):
    """What a convolution is compiled for."""

    kind: str  # what it computes: 'forward' y, 'input' x or 'weight' W
    x: tuple  # (N, C, H, W), shape of the input
    W: tuple  # (O, C, kh, kw)
    y: tuple  # (N, O, oh, ow)
    bias: bool  # of 'forward'
    stride: tuple  # of rows and of columns, as the others
    pad: tuple
    dilate: tuple
    threads: int


class Library:
    """oneDNN, loaded, with its engine for this processor and a stream that computes at once.

    Args:
        path (str): Of the shared library.

    Raises:
        OSError: It cannot be loaded.
        Refused: It cannot be used here.

    """

    def __init__(self, path):
        with _passive_waiting():
            self.c = ctypes.CDLL(path)
        self.c.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        self.c.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
        self.c.dnnl_memory_set_data_handle.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.engine = self._new('dnnl_engine_create', _CPU, ctypes.c_size_t(0))
        self.stream = self._new('dnnl_stream_create', self.engine, _IN_ORDER)
        # oneDNN would keep what has been destroyed, up to 1024 of them; what is worth keeping, the caller knows
        self.check(self.c.dnnl_set_primitive_cache_capacity(0))
        # GNU OpenMP's own functions, found through the library that needs it
        self._limit = self.c.omp_get_thread_limit()

    @staticmethod
    def check(status):
        if status:
            raise Refused('status {}'.format(status))

    def _new(self, function, *args):
        handle = ctypes.c_void_p()
        self.check(getattr(self.c, function)(ctypes.byref(handle), *args))
        return handle

    def make(self, stack, what, function, *args):
        """An object of the kind ``what``, made by ``function``, which is destroyed when ``stack`` is left."""
        handle = self._new(function, *args)
        stack.callback(getattr(self.c, 'dnnl_{}_destroy'.format(what)), handle)
        return handle

    def describe(self, stack, shape, strides=None):
        """Describe memory of float32 numbers: with these strides, or in whatever order oneDNN likes best."""
        if strides is None:
            return self.make(stack, 'memory_desc', 'dnnl_memory_desc_create_with_tag', len(shape), _array(shape),
                             _FLOAT32, _ANY_LAYOUT)
        return self.make(stack, 'memory_desc', 'dnnl_memory_desc_create_with_strides', len(shape), _array(shape),
                         _FLOAT32, _array(strides))

    def name(self, descriptor):
        """Of the implementation that a primitive's descriptor has chosen: bytes."""
        name = ctypes.c_char_p()
        self.check(self.c.dnnl_primitive_desc_query(descriptor, _QUERY_NAME, 0, ctypes.byref(name)))
        return name.value

    @contextlib.contextmanager
    def threads(self, number):
        """As many threads for what this thread calls, in a ``with`` statement."""
        before, dynamic = self.c.omp_get_max_threads(), self.c.omp_get_dynamic()
        self.c.omp_set_num_threads(number)
        self.c.omp_set_dynamic(0)  # with fewer than it was compiled for it would wait for the others
        try:
            yield
        finally:
            self.c.omp_set_num_threads(before)
            self.c.omp_set_dynamic(dynamic)

    def most_threads(self, wanted):
        """So many of the wanted threads OpenMP gives (``OMP_THREAD_LIMIT``)."""
        return min(wanted, self._limit)


@contextlib.contextmanager
def _passive_waiting():
    """OpenMP that is loaded in this ``with`` statement lets its threads sleep between calls, unless the user says else.

    By default they go on asking for work for a while, on cores that the threads of BLAS and of the engine want.
    """
    name = 'OMP_WAIT_POLICY'
    if name in os.environ:
        yield
        return
    os.environ[name] = 'passive'
    try:
        yield
    finally:
        del os.environ[name]


def find():
    """Load oneDNN.

    Returns:
        Library

    Raises:
        UserError: It is not installed, there is none for this machine, or it cannot be loaded.

    """
    if not (sys.platform.startswith('linux') and platform.machine() == 'x86_64'):
        raise UserError('--engine onednn: there is no {} for this machine ({} {}), only for Linux on x86_64'.format(
            DISTRIBUTION, sys.platform, platform.machine()))
    try:
        files = importlib.metadata.files(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    path = next((str(file.locate()) for file in files if file.name == _FILE), None)
    if path is None:
        raise UserError('--engine onednn needs the package {} with {}: pip install -e ".[{}]"'.format(
            DISTRIBUTION, _FILE, EXTRA))
    try:
        return Library(path)
    except (OSError, AttributeError, Refused) as error:  # AttributeError: a function is missing
        raise UserError('--engine onednn: {} cannot be used: {}'.format(path, error)) from error


class Convolution:
    """A convolution, or one of its gradients, compiled.

    Args:
        library (Library): oneDNN.
        problem (Problem): What for. It is compiled for as many threads as OpenMP has.

    Raises:
        Refused: oneDNN does not know how, or this is no convolution.

    """

    def __init__(self, library, problem):
        self._before = self._after = None  # what puts the weight into oneDNN's order, and back
        with contextlib.ExitStack() as kept:
            with contextlib.ExitStack() as dropped:
                descriptor, roles = _DESCRIBE[problem.kind](library, dropped, problem)
                self._convolve = _Call(library, kept, descriptor, roles)
                theirs = _description(library, descriptor, roles[1])
                ours = library.describe(dropped, problem.W, _contiguous(problem.W))
                if not library.c.dnnl_memory_desc_equal(theirs, ours):
                    self._bytes = library.c.dnnl_memory_desc_get_size(theirs)
                    if problem.kind == 'weight':
                        self._after = _reorder(library, kept, dropped, theirs, ours)
                    else:
                        self._before = _reorder(library, kept, dropped, ours, theirs)
            self._kept = kept.pop_all()

    def __call__(self, x, W, y, b=None):
        """Compute one from the others, in the memory of each.

        Args:
            x, y (int): Addresses of float32 numbers, channels last.
            W (int): Address of the weight, C-contiguous.
            b (int or None): Address of the bias, where the problem has one.

        Raises:
            Refused: oneDNN has failed. What it was to compute is undefined.

        """
        more = () if b is None else (b,)
        if self._before:
            ours, W = W, _memory('oneDNN weight', self._bytes)
            self._before(ours, W)
        if self._after:
            ours, W = W, _memory('oneDNN weight', self._bytes)
        self._convolve(x, W, y, *more)
        if self._after:
            self._after(W, ours)

    def close(self):
        """Free what oneDNN holds for it. It cannot be called any more."""
        self._kept.close()


class _Argument(ctypes.Structure):
    """``dnnl_exec_arg_t``."""

    _fields_ = [('role', ctypes.c_int), ('memory', ctypes.c_void_p)]


class _Call:
    """A compiled function, and memory objects for its arguments, which get their addresses when it is called."""

    def __init__(self, library, stack, descriptor, roles):
        self._library, roles = library, (*roles, _SCRATCHPAD)
        descriptions = [_description(library, descriptor, role) for role in roles]
        self._bytes = library.c.dnnl_memory_desc_get_size(descriptions[-1])
        self._memories = [library.make(stack, 'memory', 'dnnl_memory_create', description, library.engine, None)
                          for description in descriptions]
        self._arguments = (_Argument * len(roles))(*map(_Argument, roles, self._memories))
        self._function = library.make(stack, 'primitive', 'dnnl_primitive_create', descriptor)

    def __call__(self, *addresses):
        c, check = self._library.c, self._library.check
        for memory, address in zip(self._memories, (*addresses, _memory('oneDNN', self._bytes)), strict=True):
            check(c.dnnl_memory_set_data_handle(memory, address))
        check(c.dnnl_primitive_execute(self._function, self._library.stream, len(self._arguments), self._arguments))
        check(c.dnnl_stream_wait(self._library.stream))


def _description(library, descriptor, role):
    """Of the memory of an argument, as the descriptor has it; while that lives."""
    return ctypes.c_void_p(library.c.dnnl_primitive_desc_query_md(descriptor, _QUERY_ARGUMENT, role))


def _memory(name, size):
    """Address of so many bytes of this thread's scratch memory."""
    numbers = scratch(name, ((size + _ALIGNMENT) // 4,))
    return -(-numbers.ctypes.data // _ALIGNMENT) * _ALIGNMENT


def _array(numbers):
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _contiguous(shape):
    """Strides, in numbers, of a C-contiguous array of four axes."""
    _, c, h, w = shape
    return c * h * w, h * w, w, 1


def _channels_last(shape):
    """Strides, in numbers, of an array (N, C, H, W) with the channels last."""
    _, c, h, w = shape
    return c * h * w, 1, w * c, c


def _attributes(library, stack):
    """Scratch memory is the caller's: oneDNN's own belongs to the thread that has compiled, and to no other."""
    attributes = library.make(stack, 'primitive_attr', 'dnnl_primitive_attr_create')
    library.check(library.c.dnnl_primitive_attr_set_scratchpad_mode(attributes, _USER_SCRATCHPAD))
    return attributes


def _reorder(library, kept, dropped, source, target):
    descriptor = library.make(dropped, 'primitive_desc', 'dnnl_reorder_primitive_desc_create', source, library.engine,
                              target, library.engine, _attributes(library, dropped))
    return _Call(library, kept, descriptor, (_FROM, _TO))


def _arrays(library, stack, problem):
    """Descriptions of x, W, b and y."""
    bias = library.describe(stack, problem.W[:1], (1,)) if problem.bias else None
    return (library.describe(stack, problem.x, _channels_last(problem.x)), library.describe(stack, problem.W), bias,
            library.describe(stack, problem.y, _channels_last(problem.y)))


def _geometry(problem):
    """Strides, dilations (oneDNN counts from 0), pads before and after, which are what the sizes make them.

    Raises:
        Refused: One is below 0, so a stride or more of the input is not seen. oneDNN would take some of them, and then
            get gradients of weights wrong.

    """
    after = []
    for x, k, y, s, p, d in zip(problem.x[2:], problem.W[2:], problem.y[2:], problem.stride, problem.pad,
                                problem.dilate, strict=True):
        least = (y - 1) * s + (k - 1) * d + 1 - x - p
        after.append(least if least >= 0 else min(0, least + s - 1))
    if min(*problem.pad, *after) < 0:
        raise Refused('a pad below 0')
    return _array(problem.stride), _array([d - 1 for d in problem.dilate]), _array(problem.pad), _array(after)


def _choose(library, stack, problem, function, *args):
    """The descriptor of a convolution, with the implementation that suits it."""
    def describe():
        return library.make(stack, 'primitive_desc', function, library.engine, *args, _attributes(library, stack))
    descriptor = describe()
    if 4 * math.prod(problem.W) <= _LARGE_WEIGHT or math.prod(problem.y[2:]) > _FEW_PLACES:
        return descriptor
    while library.name(descriptor) != _OTHER:
        if library.c.dnnl_primitive_desc_next_impl(descriptor):  # there are no more, and no way back
            return describe()
    return descriptor


def _describe_forward(library, stack, problem):
    x, W, b, y = _arrays(library, stack, problem)
    descriptor = _choose(library, stack, problem, 'dnnl_convolution_forward_primitive_desc_create',
                         _TRAINING, _DIRECT, x, W, b, y, *_geometry(problem))
    return descriptor, (_SRC, _WEIGHTS, _DST, _BIAS)[:4 if problem.bias else 3]


def _describe_input(library, stack, problem):
    forward, _ = _describe_forward(library, stack, problem)
    x, W, _, y = _arrays(library, stack, problem)
    descriptor = _choose(library, stack, problem, 'dnnl_convolution_backward_data_primitive_desc_create',
                         _DIRECT, x, W, y, *_geometry(problem), forward)
    return descriptor, (_DIFF_SRC, _WEIGHTS, _DIFF_DST)


def _describe_weight(library, stack, problem):
    forward, _ = _describe_forward(library, stack, problem)
    x, W, _, y = _arrays(library, stack, problem)
    descriptor = _choose(library, stack, problem, 'dnnl_convolution_backward_weights_primitive_desc_create',
                         _DIRECT, x, W, None, y, *_geometry(problem), forward)
    return descriptor, (_SRC, _DIFF_WEIGHTS, _DIFF_DST)


# Each returns a descriptor and the roles of x, W, y (and b), in this order
_DESCRIBE = {'forward': _describe_forward, 'input': _describe_input, 'weight': _describe_weight}
