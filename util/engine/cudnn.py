"""Convolution and its two gradients on a GPU by cuDNN 9, through its graph API (package ``nvidia-cudnn-frontend``).

Chainer's own way to cuDNN is through CuPy, which has none since release 14. Here a *plan*, what cuDNN makes of one kind
of work on arrays of given shapes, is built when it is first needed, and kept. It is cuDNN's own first choice among
those that give the same bits every time; nothing is timed, so a run that is resumed computes as before.

Arrays are float32 and have Chainer's shapes. Results have the channels last in memory; so should what comes in, or it
is copied. Nothing waits for the device, and a CUDA graph can record all of it.
"""
import functools
import threading
import typing

import numpy as np
from chainer.backends import cuda

from util.engine.layout import channels_last, channels_last_copy, empty, of_places, places
from util.files import UserError
from util.noise import blocks

_THREADS = 256  # of a block
_ALIGNED = 16  # bytes, what cuDNN takes for granted of an array's address


class Precision(typing.NamedTuple):
    """How numbers are multiplied; they are added as float32."""

    io: str  # what operands and results are for cuDNN, one of its data types; outside of it all are float32
    without: tuple = ()  # kinds of plans that are left out, of cuDNN's numerical notes


PRECISIONS = {
    'tf32': Precision('FLOAT'),  # 10 bits of mantissa, as PyTorch multiplies in convolutions
    'bf16': Precision('BFLOAT16'),
    'fp32': Precision('FLOAT', ('TENSOR_CORE', 'DOWN_CONVERT_INPUTS')),
}

KERNEL_SOURCES = {'bfloat16': r'''
extern "C" __global__
void to_bfloat16(const unsigned* x, unsigned short* y, long long n) {
    // To the nearest, of two as near the even one, as the hardware rounds. A NaN stays one.
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const unsigned bits = x[i];
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        y[i] = is_nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    }
}
extern "C" __global__
void from_bfloat16(const unsigned short* x, unsigned* y, long long n) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) y[i] = (unsigned)x[i] << 16;
}
'''}


@functools.cache
def get_kernel(name):  # pragma: no cover - gpu
    """``to_bfloat16`` or ``from_bfloat16``, a ``cupy.RawKernel`` (compiled at its first launch)."""
    return cuda.cupy.RawKernel(KERNEL_SOURCES['bfloat16'], name)


@functools.cache
def load(precision):
    """cuDNN, after a first convolution on the current device has shown that it works.

    Args:
        precision (str): A name of ``PRECISIONS``.

    Returns:
        Cudnn

    Raises:
        UserError: The packages are missing, or do not work here; the message says what to do.

    """
    try:
        import cudnn
    except (ImportError, OSError) as error:
        raise UserError('cuDNN is not installed, which `make install` does where a GPU is (extra cuda12 or cuda13: '
                        '{})'.format(_first_line(error))) from error
    try:  # pragma: no cover - gpu
        loaded = Cudnn(cudnn, cuda.cupy, PRECISIONS[precision])
        loaded.check()
    except Exception as error:  # pragma: no cover - gpu  (cuDNN and its loader raise what they like)
        raise UserError('cuDNN does not work here: {}'.format(_first_line(error))) from error
    return loaded  # pragma: no cover - gpu


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Window(typing.NamedTuple):
    """Stride, pad and dilation of a convolution, each a pair: of rows, of columns."""

    stride: tuple
    pad: tuple
    dilate: tuple

    def fits(self, size, kernel, outputs):
        """Whether a picture of this size has so many outputs, (rows, columns), with none left over."""
        return all((n + 2 * p - (k - 1) * d - 1) // s + 1 == m > 0 for n, k, m, s, p, d in zip(
            size, kernel, outputs, *self, strict=True))


class Cudnn:
    """Computes convolutions of one precision.

    Each of the three methods returns ``None`` where cuDNN has nothing for the case.

    Args:
        frontend (module): ``cudnn``.
        xp (module): ``cupy``.
        precision (Precision): How numbers are multiplied.

    """

    def __init__(self, frontend, xp, precision):
        self._frontend, self._xp, self._precision = frontend, xp, precision
        self._plans, self._handles = {}, threading.local()

    def convolve(self, x, W, b, stride, pad, dilate, size):
        """Convolution: ``chainer.functions.convolution_2d``.

        Args:
            x (cupy.ndarray): (N, C, H, W), float32.
            W (cupy.ndarray): (O, C, kh, kw), float32.
            b (cupy.ndarray or None): (O,), float32.
            stride, pad, dilate (tuple of int): Of rows and of columns.
            size (tuple of int): (oh, ow).

        Returns:
            cupy.ndarray or None: (N, O, oh, ow), float32, channels last.

        """
        window = Window(stride, pad, dilate)
        if not window.fits(x.shape[2:], W.shape[2:], size):
            return None
        return self._compute('conv_fprop', {'image': x, 'weight': W}, b, (len(x), len(W), *size), window)

    def gradient_of_input(self, gy, W, b, stride, pad, dilate, size):
        """Gradient of :meth:`convolve` for its input, plus b: ``chainer.functions.deconvolution_2d``.

        Args:
            gy (cupy.ndarray): (N, O, oh, ow), float32.
            W (cupy.ndarray): (O, C, kh, kw), float32.
            b (cupy.ndarray or None): (C,), float32.
            stride, pad, dilate (tuple of int): Those of the convolution.
            size (tuple of int): (H, W), of its input.

        Returns:
            cupy.ndarray or None: (N, C, H, W), float32, channels last.

        """
        window = Window(stride, pad, dilate)
        if not window.fits(size, W.shape[2:], gy.shape[2:]):
            return None
        return self._compute('conv_dgrad', {'loss': gy, 'filter': W}, b, (len(gy), W.shape[1], *size), window)

    def gradient_of_weight(self, x, gy, kernel, stride, pad, dilate):
        """Gradient of :meth:`convolve` for its weight.

        Args:
            x (cupy.ndarray): (N, C, H, W), float32.
            gy (cupy.ndarray): (N, O, oh, ow), float32.
            kernel (tuple of int): (kh, kw).
            stride, pad, dilate (tuple of int): Those of the convolution.

        Returns:
            cupy.ndarray or None: (O, C, kh, kw), float32, C-contiguous.

        """
        window, shape = Window(stride, pad, dilate), (gy.shape[1], x.shape[1], *kernel)
        if not window.fits(x.shape[2:], kernel, gy.shape[2:]):
            return None
        gW = self._compute('conv_wgrad', {'image': x, 'loss': gy}, None, shape, window)
        return None if gW is None else self._xp.ascontiguousarray(gW)

    def check(self):
        """Raise a RuntimeError unless cuDNN computes 8 sums of 8 x 3 x 3 ones."""
        x, W = self._xp.ones((1, 8, 3, 3), 'f'), self._xp.ones((8, 8, 3, 3), 'f')
        y = self.convolve(x, W, None, (1, 1), (0, 0), (1, 1), (1, 1))
        if y is None or not bool((y == 72).all()):
            raise RuntimeError('no plan for a convolution of 3x3' if y is None else 'a sum of 72 ones is not 72')

    def _compute(self, kind, operands, b, shape, window):
        plan = self._plan(kind, tuple(operands), tuple(x.shape for x in operands.values()), shape, window,
                          b is not None)
        if plan is None:
            return None
        arrays = [self._operand(x) for x in operands.values()]
        if plan.adds_bias:
            arrays.append(b if b.flags.c_contiguous and _is_aligned(b) else b.copy())
        y = empty(*shape, dtype='f' if self._is_float else np.uint16, xp=self._xp)
        plan.run(self._xp, self._handle(), (*arrays, y))
        if not self._is_float:
            y = of_places(self._converted('from_bfloat16', places(y), np.float32), shape)
        if b is not None and not plan.adds_bias:
            numbers = places(y)
            numbers += b
        return y

    @property
    def _is_float(self):
        return self._precision.io == 'FLOAT'

    def _operand(self, x):
        """An array as cuDNN gets it: channels last, of the precision's type."""
        if not (channels_last(x) and _is_aligned(x)):
            x = channels_last_copy(x)
        return x if self._is_float else self._converted('to_bfloat16', places(x), np.uint16)

    def _converted(self, kernel, x, dtype):
        y = self._xp.empty(x.shape, dtype)
        get_kernel(kernel)((blocks(x.size, _THREADS),), (_THREADS,), (x, y, np.int64(x.size)))
        return y

    def _plan(self, *case):
        """The plan for a case, on the current device; ``None`` where cuDNN has none."""
        key = (_device(self._xp), *case)
        if key not in self._plans:
            self._plans[key] = self._build(*case)
        return self._plans[key]

    def _build(self, kind, names, shapes, shape, window, bias):
        operands = dict(zip(names, shapes, strict=True))
        for fused in (True, False) if bias and self._is_float else (False,):
            try:
                return Plan(self._frontend, self._handle(), self._precision, kind, operands, shape,
                            window, fused)
            except self._frontend.cudnnGraphNotSupportedError:
                continue
        return None

    def _handle(self):
        """This thread's handle of the current device; its work goes where CuPy's goes."""
        handles, device = vars(self._handles), str(_device(self._xp))
        if device not in handles:
            handles[device] = self._frontend.create_handle()
        self._frontend.set_stream(handle=handles[device], stream=_stream(self._xp))
        return handles[device]


class Plan:
    """What cuDNN makes of one kind of work on arrays of given shapes.

    Args:
        frontend (module): ``cudnn``.
        handle (int): cuDNN's, of the device.
        precision (Precision): How numbers are multiplied.
        kind (str): The work: a method of ``cudnn.pygraph``.
        shapes (dict): Its argument's name -> shape, of the two operands.
        shape (tuple of int): Of the result.
        window (Window): Where the convolution looks.
        adds_bias (bool): Whether a third operand, a number for each channel of the result, is added.

    Raises:
        cudnn.cudnnGraphNotSupportedError: cuDNN has nothing for this.

    Attributes:
        adds_bias (bool): As given.
        workspace (int): Bytes of memory that it needs while it runs.

    """

    def __init__(self, frontend, handle, precision, kind, shapes, shape, window, adds_bias):
        types, self.adds_bias = frontend.data_type, adds_bias
        io = getattr(types, precision.io)
        graph = frontend.pygraph(handle=handle, name=kind, io_data_type=io, intermediate_data_type=types.FLOAT,
                                 compute_data_type=types.FLOAT)
        tensors = {name: graph.tensor(name=name, dim=list(dim), stride=strides(dim), data_type=io)
                   for name, dim in shapes.items()}
        result = getattr(graph, kind)(**tensors, padding=list(window.pad), stride=list(window.stride),
                                      dilation=list(window.dilate), compute_data_type=types.FLOAT)
        self._tensors = list(tensors.values())
        if adds_bias:
            result.set_dim(list(shape)).set_stride(strides(shape)).set_data_type(types.FLOAT)
            dim = (1, shape[1], 1, 1)
            bias = graph.tensor(name='bias', dim=list(dim), stride=strides(dim), data_type=types.FLOAT)
            self._tensors.append(bias)
            result = graph.bias(name='add', input=result, bias=bias)
        result.set_output(True).set_dim(list(shape)).set_stride(strides(shape)).set_data_type(io)
        self._tensors.append(result)
        self._graph = graph
        self._choose(frontend, precision)

    def _choose(self, frontend, precision):
        graph, notes = self._graph, ('NONDETERMINISTIC', *precision.without)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([frontend.heur_mode.A, frontend.heur_mode.FALLBACK])
        graph.deselect_numeric_notes([getattr(frontend.numerical_note, note) for note in notes])
        graph.check_support()
        graph.build_plans(frontend.build_plan_policy.HEURISTICS_CHOICE)
        self.workspace = graph.get_workspace_size()

    def run(self, xp, handle, arrays):
        """Queue the work.

        Args:
            xp (module): ``cupy``.
            handle (int): cuDNN's, with its stream set.
            arrays (tuple of cupy.ndarray): The operands, and where the result goes.

        """
        workspace = xp.empty(max(self.workspace, 1), np.uint8)
        pack = {tensor: _address(array) for tensor, array in zip(self._tensors, arrays, strict=True)}
        self._graph.execute(pack, _address(workspace), handle=handle)


def strides(shape):
    """Of an array of shape (N, C, H, W) with channels last, counted in numbers."""
    n, c, h, w = shape
    return [h * w * c, 1, w * c, c]


def _is_aligned(x):
    return _address(x) % _ALIGNED == 0


def _address(x):
    return x.data.ptr


def _device(xp):  # pragma: no cover - gpu
    return xp.cuda.runtime.getDevice()


def _stream(xp):  # pragma: no cover - gpu
    return xp.cuda.get_current_stream().ptr
