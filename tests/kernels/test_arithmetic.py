"""The CUDA kernels' arithmetic without a GPU, see emulation.py, against the NumPy reference."""
import shutil
import types

import numpy as np
import pytest

from tests.kernels.emulation import Kernel
from util import dataset, noise
from util.normalization import kernels, power_iteration

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++ to compile the kernels as C++'),
]

@pytest.fixture(scope='module')
def spectral(tmp_path_factory):
    made = {}
    for dtype in ('float32', 'float64'):
        folder = tmp_path_factory.mktemp(dtype)
        for name in kernels.KERNEL_NAMES:
            made[name, dtype] = Kernel(folder, kernels.KERNEL_SOURCES['spectral_' + dtype], name)
    return made


@pytest.fixture
def on_cpu(spectral, monkeypatch):
    """The launch code of util.normalization.kernels on NumPy arrays, with new arrays full of NaN."""
    arrays = types.SimpleNamespace(empty=lambda shape, dtype: np.full(shape, np.nan, dtype))
    monkeypatch.setattr(kernels, 'backend', types.SimpleNamespace(get_array_module=lambda *_: arrays))
    monkeypatch.setattr(kernels, 'get_kernel', lambda name, dtype: spectral[name, dtype.name])
    yield spectral
    for kernel in spectral.values():
        kernel.order, kernel.calls = 0, 0


# shape and axis of the outputs: among them one row, one column, and more rows than a block has threads
SHAPES = [((1, 1), 0), ((1, 2100), 0), ((300, 1), 0), ((2500, 3), 0), ((33, 65), 0), ((5, 3, 4, 4), 0),
          ((70, 40, 3, 3), 0), ((6, 7, 4, 4), 1), ((1, 40, 2), 1), ((40, 1, 3), 1)]


def reference(W, u, n, eps, factor, axis):
    W, u = W.astype(np.float64), u.astype(np.float64)
    u, v, sigma = power_iteration.power_iteration(power_iteration.as_matrix(W, axis), u, n, eps)
    return factor * W / sigma, u, v, sigma


@pytest.mark.parametrize('dtype,rtol', [('float32', 2e-5), ('float64', 1e-12)])
@pytest.mark.parametrize('shape,axis', SHAPES)
def test_normalize(on_cpu, shape, axis, dtype, rtol):
    rng = np.random.RandomState(0)
    W = (0.02 * rng.standard_normal(shape)).astype(dtype)
    u = rng.standard_normal(shape[axis]).astype(dtype)
    for n in (1, 3):
        expected = reference(W, u, n, 1e-3, 1.7, axis)
        results = []
        for order in range(3):
            for kernel in on_cpu.values():
                kernel.order, kernel.calls = order, 0
            stored = None if order == 0 else u.copy()
            results.append(kernels.normalize(W, u, n, 1e-3, 1.7, axis, stored))
            assert sum(kernel.calls for kernel in on_cpu.values()) == 1 + 2 * n
            if stored is not None:
                np.testing.assert_array_equal(stored, results[-1][1])
                assert stored is not results[-1][1]
        for name, first, second, third, right in zip(('W_bar', 'u', 'v', 'sigma'), *results, expected, strict=True):
            assert first.dtype == dtype, name
            np.testing.assert_array_equal(first, second, err_msg=name)
            np.testing.assert_array_equal(first, third, err_msg=name)
            np.testing.assert_allclose(first, right, rtol=rtol, atol=rtol * np.abs(right).max(), err_msg=name)


@pytest.mark.parametrize('dtype,rtol', [('float32', 2e-5), ('float64', 1e-12)])
@pytest.mark.parametrize('shape,axis', SHAPES)
def test_gradient(on_cpu, shape, axis, dtype, rtol):
    rng = np.random.RandomState(1)
    W, g = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    _, u, v, sigma = (np.asarray(x, dtype) for x in reference(W, rng.standard_normal(shape[axis]), 1, 1e-12, 1.0, axis))
    S = power_iteration.from_matrix(np.outer(u.astype('d'), v.astype('d')), shape, axis)
    right = 1.7 / sigma * (g.astype('d') - (g.astype('d') * W).sum() / sigma * S)
    results = []
    for order in range(3):
        for kernel in on_cpu.values():
            kernel.order, kernel.calls = order, 0
        results.append(kernels.gradient(W, g, u, v, sigma, 1.7, axis))
        assert sum(kernel.calls for kernel in on_cpu.values()) == 2
        np.testing.assert_array_equal(results[-1], results[0])
    scale = np.abs(g).max() * 1.7 / sigma + np.abs(1.7 / sigma ** 2 * (g * W).sum() * S).max()
    np.testing.assert_allclose(results[0], right, rtol=0, atol=rtol * scale)


STREAMS = (0, 0, 'z', 0), (2 ** 63 + 5, 10 ** 12, 'data', 2 ** 40)


@pytest.fixture
def noise_on_cpu(tmp_path, monkeypatch):
    kernels = {name: Kernel(tmp_path, noise.KERNEL_SOURCES['noise'], name)
               for name in ('philox_bits', 'philox_uniform', 'philox_normal')}
    monkeypatch.setattr(noise, '_kernel', kernels.__getitem__)
    monkeypatch.setattr(noise, 'blocks', lambda n: min(3, -(-n // 128)))  # so that threads have more than one piece
    return kernels


@pytest.mark.parametrize('of_stream', STREAMS)
def test_noise(noise_on_cpu, of_stream):
    arrays = types.SimpleNamespace(empty=np.zeros)
    for n in (0, 1, 3, 4, 7, 8, 9, 1003, 4001):
        for draw in noise.bits, noise.uniform, noise.normal:
            shape = n if draw is noise.bits else (n,)
            here, there = draw(arrays, shape, *of_stream), draw(np, shape, *of_stream)
            assert here.dtype == there.dtype and here.shape == there.shape
            if draw is noise.normal:  # other libraries' logarithm and cosine, in float64
                np.testing.assert_allclose(here, there, rtol=2e-7, atol=1e-12)
            else:
                np.testing.assert_array_equal(here, there)
    assert [kernel.calls for kernel in noise_on_cpu.values()] == [8, 8, 8]  # one launch each, none for nothing


@pytest.mark.parametrize('shape, batch', [((5, 3, 4, 4), [4, 0, 4]), ((7, 3, 5, 3), [6]), ((2, 3, 32, 32), [1, 0, 1])])
def test_a_batch_is_the_cpus(tmp_path, monkeypatch, shape, batch):
    kernel = Kernel(tmp_path, dataset.KERNEL_SOURCES['dequantised_batch'], 'dequantised_batch')
    monkeypatch.setattr(dataset, '_batch_kernel', lambda: kernel)
    monkeypatch.setattr(noise, 'blocks', lambda n: min(2, -(-n // 128)))
    images = np.random.RandomState(0).randint(0, 256, shape).astype('u1')
    images[:, 0] = 255
    indices = np.array(batch, 'i8')
    here = dataset.dequantised_batch(types.SimpleNamespace(empty=np.zeros), images, indices, 3, 10 ** 6)
    uniform = noise.uniform(np, (len(batch), *shape[1:]), 3, 10 ** 6, 'dequantisation')
    np.testing.assert_array_equal(here, dataset.to_float(images[indices], uniform))
    assert kernel.calls == 1


def test_emulation_sees_a_missing_barrier(tmp_path):
    source = r'''
    extern "C" __global__ void turned(float* x) {
        __shared__ float cache[64];
        cache[threadIdx.x] = x[threadIdx.x];
        BARRIER
        x[threadIdx.x] = cache[blockDim.x - 1 - threadIdx.x];
    }
    '''
    right = np.arange(64, dtype=np.float32)[::-1]
    for barrier, n_wrong in (('__syncthreads();', 0), ('', 3)):
        (tmp_path / str(n_wrong)).mkdir()
        kernel, wrong = Kernel(tmp_path / str(n_wrong), source.replace('BARRIER', barrier), 'turned'), 0
        for kernel.order in range(3):
            x = np.arange(64, dtype=np.float32) + 64 * kernel.order
            kernel((1,), (64,), (x,))
            wrong += not np.array_equal(x, right + 64 * kernel.order)
        assert wrong == n_wrong


def test_emulation_sees_a_read_and_a_write_out_of_bounds(tmp_path):
    source = 'extern "C" __global__ void shift(const float* x, float* y) { y[threadIdx.x] = 1; *y = x[4]; }'
    kernel = Kernel(tmp_path, source, 'shift')
    x, y = np.zeros(4, np.float32), np.zeros(4, np.float32)
    kernel((1,), (4,), (x, y))
    np.testing.assert_array_equal(y, [np.nan, 1, 1, 1])
    with pytest.raises(AssertionError):
        kernel((1,), (5,), (x, y))


def test_emulation_sees_a_divergent_barrier(tmp_path):
    source = 'extern "C" __global__ void some(float* x) { if (threadIdx.x % 2) __syncthreads(); x[threadIdx.x] = 1; }'
    with pytest.raises(AssertionError, match='divergent barrier'):
        Kernel(tmp_path, source, 'some')((1,), (4,), (np.zeros(4, np.float32),))
