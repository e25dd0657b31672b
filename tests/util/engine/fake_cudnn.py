"""A stand-in for ``cudnn``, NVIDIA's Python package: the calls that are made of it, on NumPy arrays.

Names of arguments are the package's own. Operands are read, and results written, by address, dimensions and strides, as
cuDNN does it: what is told wrongly about them comes out wrong.
"""
import ctypes
import functools
import types

import numpy as np

from util.engine import convolution, cudnn, gpu_nodes, switch

_TYPES = {'FLOAT': 'f4', 'BFLOAT16': 'u2'}
data_type = types.SimpleNamespace(FLOAT='FLOAT', BFLOAT16='BFLOAT16')
heur_mode = types.SimpleNamespace(A='A', FALLBACK='FALLBACK')
numerical_note = types.SimpleNamespace(NONDETERMINISTIC='NONDETERMINISTIC', TENSOR_CORE='TENSOR_CORE',
                                       DOWN_CONVERT_INPUTS='DOWN_CONVERT_INPUTS')
build_plan_policy = types.SimpleNamespace(HEURISTICS_CHOICE='HEURISTICS_CHOICE')


def put_numpy_in_cupys_place(patch):
    """Let ``util.engine.cudnn`` and ``gpu_nodes`` take NumPy's arrays for those of a GPU, by a ``MonkeyPatch``."""
    patch.setattr(cudnn, '_address', lambda x: x.ctypes.data)
    patch.setattr(cudnn, '_device', lambda xp: 0)
    patch.setattr(cudnn, '_stream', lambda xp: 5)
    patch.setattr(gpu_nodes, 'cuda', types.SimpleNamespace(ndarray=np.ndarray, cupy=np))


def replace_cpu_code(patch, core, others=()):
    """Put the GPU's replacements in the place of Chainer's CPU code, by a ``MonkeyPatch``; ``core`` computes."""
    rows = [(cls, method, functools.partial(replacement, core)) for cls, method, replacement in gpu_nodes.COMPUTED]
    for cls, method, replacement in (*rows, *others):
        method = method.replace('gpu', 'cpu')
        patch.setattr(cls, method, switch._method(replacement, vars(cls)[method]))


class cudnnGraphNotSupportedError(Exception):
    """Raised for what :attr:`Fake.refuses`."""


class Fake(types.SimpleNamespace):
    """The module: ``Fake()`` for each test.

    Attributes:
        refuses (callable): Takes the list of operations of a graph; what it is true for is not supported.
        graphs (list): All that were built.
        streams (list): All that were set.

    """

    def __init__(self):
        super().__init__(data_type=data_type, heur_mode=heur_mode, numerical_note=numerical_note,
                         build_plan_policy=build_plan_policy, cudnnGraphNotSupportedError=cudnnGraphNotSupportedError,
                         refuses=lambda operations: False, graphs=[], streams=[])

    def create_handle(self):
        return 77

    def set_stream(self, handle, stream):
        assert handle == 77
        self.streams.append(stream)

    def pygraph(self, handle, name, io_data_type, intermediate_data_type, compute_data_type):
        assert handle == 77 and intermediate_data_type == compute_data_type == 'FLOAT'
        return _Graph(self)


class _Tensor:
    def __init__(self, dim=None, stride=None, data_type=None):
        self.dim, self.stride, self.data_type, self.is_output = dim, stride, data_type, False

    def _set(self, **values):
        vars(self).update(values)
        return self

    def set_output(self, is_output):
        return self._set(is_output=is_output)

    def set_dim(self, dim):
        return self._set(dim=dim)

    def set_stride(self, stride):
        return self._set(stride=stride)

    def set_data_type(self, data_type):
        return self._set(data_type=data_type)

    def view(self, address):
        """The array at an address."""
        dtype = np.dtype(_TYPES[self.data_type])
        n = sum((d - 1) * s for d, s in zip(self.dim, self.stride, strict=True)) + 1
        assert address % 16 == 0
        memory = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte)), (n * dtype.itemsize,))
        return np.lib.stride_tricks.as_strided(memory.view(dtype), self.dim, [s * dtype.itemsize for s in self.stride])


class _Graph:
    def __init__(self, module):
        self._module, self._steps, self.operations, self.without = module, [], [], None
        self.ran = 0

    def tensor(self, name, dim, stride, data_type):
        assert type(dim) is type(stride) is list and len(dim) == len(stride) == 4
        return _Tensor(dim, stride, data_type)

    def _operation(self, name, compute, *operands):
        result = _Tensor()
        self.operations.append(name)
        self._steps.append((compute, operands, result))
        return result

    def conv_fprop(self, image, weight, padding, stride, dilation, compute_data_type):
        def compute(x, W, shape):
            return convolution.convolve(x, W, None, tuple(stride), tuple(padding), tuple(dilation), tuple(shape[2:]))
        return self._operation('conv_fprop', compute, image, weight)

    def conv_dgrad(self, loss, filter, padding, stride, dilation, compute_data_type):
        def compute(gy, W, shape):
            return convolution.gradient_of_input(gy, W, None, tuple(stride), tuple(padding), tuple(dilation),
                                                 tuple(shape[2:]))
        return self._operation('conv_dgrad', compute, loss, filter)

    def conv_wgrad(self, image, loss, padding, stride, dilation, compute_data_type):
        def compute(x, gy, shape):
            return convolution.gradient_of_weight(x, gy, tuple(shape[2:]), tuple(stride), tuple(padding),
                                                  tuple(dilation))
        return self._operation('conv_wgrad', compute, image, loss)

    def bias(self, name, input, bias):
        return self._operation('bias', lambda y, b, shape: y + b, input, bias)

    def validate(self):
        assert self._steps[-1][2].is_output and not any(step[2].is_output for step in self._steps[:-1])
        for _, _, result in self._steps:
            assert result.dim and result.stride and result.data_type

    def build_operation_graph(self):
        pass

    def create_execution_plans(self, modes):
        assert modes == ['A', 'FALLBACK']

    def deselect_numeric_notes(self, notes):
        self.without = notes

    def check_support(self):
        if self._module.refuses(self.operations):
            raise cudnnGraphNotSupportedError('not supported')

    def build_plans(self, policy):
        assert policy == 'HEURISTICS_CHOICE' and self.without
        self._module.graphs.append(self)

    def get_workspace_size(self):
        return 1000

    def execute(self, pack, workspace, handle):
        assert handle == 77
        np.ctypeslib.as_array(ctypes.cast(workspace, ctypes.POINTER(ctypes.c_ubyte)), (1000,))[...] = 255
        self.ran += 1
        values = {tensor: _numbers(tensor.view(address)) for tensor, address in pack.items() if not tensor.is_output}
        for compute, operands, result in self._steps:
            value = compute(*(values[x].astype('f') for x in operands), result.dim)
            assert list(value.shape) == result.dim
            values[result] = value
        result = self._steps[-1][2]
        result.view(pack[result])[...] = _stored(values[result], result.data_type)


def _numbers(x):
    return x if x.dtype == 'f' else (x.astype('u4') << 16).view('f').reshape(x.shape)


def _stored(x, data_type):
    if data_type == 'FLOAT':
        return x
    bits = np.ascontiguousarray(x, 'f').view('u4')
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype('u2')
