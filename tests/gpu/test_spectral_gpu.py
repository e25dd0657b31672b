"""Spectral normalization and the noise on a GPU against NumPy."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from util import noise
from util.normalization import kernels, power_iteration
from util.normalization.spectral import SpectralNormalization, normalize


def why_not():
    """Why no GPU can be used here; an empty string if one can."""
    try:
        import cupy
        return '' if cupy.cuda.runtime.getDeviceCount() else 'no GPU answers'
    except Exception as e:  # CuPy says this in many ways: not installed, no driver, a driver that is too old
        return 'no GPU answers: {}'.format(e)


REASON = why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(REASON), reason=REASON)]
if not REASON:
    import cupy

SHAPES = [((1, 1), 0), ((1, 8192), 0), ((3000, 5), 0), ((33, 65), 0), ((512, 256, 4, 4), 0), ((1024, 1024, 3, 3), 0),
          ((64, 3, 3, 3), 0), ((6, 7, 4, 4), 1), ((512, 256, 4, 4), 1)]
dtypes = pytest.mark.parametrize('dtype,tolerance', [('f', 3e-5), ('d', 1e-12), ('e', 5e-3)])
shapes = pytest.mark.parametrize('shape,axis', SHAPES)


def draw(shape, seed=0, dtype='f'):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def assert_close(got, right, tolerance):
    right = np.asarray(right, 'd')
    np.testing.assert_allclose(cupy.asnumpy(got), right, rtol=tolerance, atol=tolerance * np.abs(right).max())


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that are launched."""
    names, get = [], kernels.get_kernel

    def get_kernel(name, dtype):
        names.append(name)
        return get(name, dtype)

    monkeypatch.setattr(kernels, 'get_kernel', get_kernel)
    return names


@dtypes
@shapes
@pytest.mark.parametrize('n', [1, 3])
def test_normalize(launches, shape, axis, n, dtype, tolerance):
    W = (0.02 * draw(shape)).astype(dtype)
    working = power_iteration.working_dtype(W.dtype)
    u = draw(shape[axis], 1, working)
    right = power_iteration.normalize(W.astype('d'), u.astype('d'), n, 1e-12, 1.5, axis)
    stored, u_gpu = cupy.asarray(u), cupy.asarray(u)
    results = power_iteration.normalize(cupy.asarray(W), u_gpu, n, 1e-12, 1.5, axis, stored)
    assert len(launches) == (0 if dtype == 'e' else 1 + 2 * n)
    assert [x.dtype for x in results] == [W.dtype] + 3 * [working]
    for got, expected in zip(results, right, strict=True):
        assert_close(got, expected, tolerance)
    assert bool((stored == results[1]).all()) and bool((u_gpu == cupy.asarray(u)).all())
    again = power_iteration.normalize(cupy.asarray(W), u_gpu, n, 1e-12, 1.5, axis)
    assert all(bool((a == b).all()) for a, b in zip(results, again, strict=True)) or dtype == 'e'


@dtypes
@shapes
def test_gradient(launches, shape, axis, dtype, tolerance):
    W, g = draw(shape, 0, dtype), draw(shape, 2, dtype)
    working = power_iteration.working_dtype(W.dtype)
    _, u, v, sigma = power_iteration.normalize(W.astype(working), draw(shape[axis], 1, working), axis=axis)
    right = power_iteration.gradient(*(x.astype('d') for x in (W, g, u, v, sigma)), 1.5, axis)
    got = power_iteration.gradient(*map(cupy.asarray, (W, g, u, v, sigma)), 1.5, axis)
    assert len(launches) == (0 if dtype == 'e' else 2)
    assert got.dtype == W.dtype
    assert_close(got, right, tolerance)


def test_arrays_that_are_not_contiguous_take_the_composed_operations(launches):
    W, u = draw((9, 7)), draw(7, 1)
    W_bar, u_gpu, v, sigma = power_iteration.normalize(cupy.asarray(W).T, cupy.asarray(u))
    right = power_iteration.normalize(W.T, u)
    for got, expected in zip((W_bar, u_gpu, v, sigma), right, strict=True):
        assert_close(got, expected, 1e-5)
    g = draw((7, 9), 2)
    assert_close(power_iteration.gradient(cupy.asarray(W).T, cupy.asarray(g), u_gpu, v, sigma),
                 power_iteration.gradient(W.T, g, *right[1:]), 1e-5)
    assert not launches


def test_nothing_waits_for_the_device():
    W, u = cupy.asarray(draw((64, 32, 3, 3))), cupy.asarray(draw(64, 1))
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc), cupy.cuda.Stream(non_blocking=True) as stream:
        results = power_iteration.normalize(W, u)  # compiles
        power_iteration.gradient(W, W, *results[1:])
        stream.synchronize()
        stream.begin_capture()  # while it records, a call that waits is an error
        captured = power_iteration.normalize(W, u, stored=u)
        gW = power_iteration.gradient(W, W, *captured[1:])
        graph = stream.end_capture()
        graph.launch()
        stream.synchronize()
        for got, right in zip(captured, results, strict=True):
            np.testing.assert_array_equal(got.get(), right.get())
        assert np.isfinite(gW.get()).all()
        graph.launch()
        stream.synchronize()
        assert np.abs(captured[1].get() - results[1].get()).max() > 0  # u went on from where it was


LINKS = [
    (lambda: L.Convolution2D(3, 8, 3), draw((2, 3, 6, 6))), (lambda: L.Linear(6, 4), draw((2, 6))),
    (lambda: L.Deconvolution2D(3, 8, 4, 2, 1), draw((2, 3, 6, 6))), (lambda: L.EmbedID(7, 3), np.array([0, 6, 2], 'i')),
]


@pytest.mark.parametrize('make,x', LINKS)
@pytest.mark.parametrize('use_gamma', [False, True])
def test_hook(make, x, use_gamma):
    link = make().add_hook(SpectralNormalization(use_gamma=use_gamma, factor=0.8))
    gpu = link.copy('copy')
    gpu.to_device('@cupy:0')
    for i in range(3):
        outputs = []
        for model, data in ((link, x), (gpu, cupy.asarray(x))):
            model.cleargrads()
            data = chainer.Variable(data) if x.dtype.kind == 'f' else data
            with chainer.using_config('train', i != 1):
                outputs.append(model(data))
            F.sum(outputs[-1] ** 2).backward()
        assert_close(outputs[1].array, outputs[0].array, 1e-4)
        assert_close(gpu.W_u, link.W_u, 1e-4)
        assert isinstance(gpu.W_sigma, cupy.ndarray)
        assert_close(gpu.W_sigma, link.W_sigma, 1e-5)
        for a, b in zip(gpu.params(), link.params(), strict=True):
            assert_close(a.grad, b.grad, 1e-3)
    before = gpu.W_u.copy()
    with chainer.using_config('train', False):
        gpu(cupy.asarray(x))
    assert bool((before == gpu.W_u).all())
    gpu.to_device('@numpy')
    assert isinstance(gpu.W_u, np.ndarray)
    gpu(x)


@pytest.mark.parametrize('use_gamma', [False, True])
def test_lazy_initialisation_and_serialization(use_gamma, tmp_path):
    def make():
        return L.Convolution2D(None, 8, 3).add_hook(
            SpectralNormalization(use_gamma=use_gamma, rng=np.random.RandomState(3)))

    x = draw((2, 3, 6, 6))
    gpu, other = make(), make()
    gpu.to_device('@cupy:0')
    gpu(cupy.asarray(x))
    assert isinstance(gpu.W_u, cupy.ndarray)
    chainer.serializers.save_npz(tmp_path / 'link.npz', gpu)
    other.to_device('@cupy:0')
    chainer.serializers.load_npz(tmp_path / 'link.npz', other)
    np.testing.assert_array_equal(other(cupy.asarray(x)).array.get(), gpu(cupy.asarray(x)).array.get())
    np.testing.assert_array_equal(other.W_u.get(), gpu.W_u.get())


@pytest.mark.parametrize('shape,axis', [((4, 3), 0), ((4, 3, 2, 2), 0), ((3, 4, 2), 1)])
def test_double_gradient(shape, axis):
    W, u, v = draw(shape, 0, 'd'), draw(shape[axis], 1, 'd'), draw(np.prod(shape) // shape[axis], 2, 'd')
    results = []
    for xp in (np, cupy):
        W_var = chainer.Variable(xp.asarray(W))
        W_bar = normalize(W_var, xp.asarray(u), xp.asarray(v), 1.3, axis)
        gW, = chainer.grad([F.sum(W_bar ** 3)], [W_var], enable_double_backprop=True)
        ggW, = chainer.grad([F.sum(F.tanh(gW))], [W_var], enable_double_backprop=True)
        gggW, = chainer.grad([F.sum(F.tanh(ggW))], [W_var])
        results.append([chainer.backends.cuda.to_cpu(x.array) for x in (W_bar, gW, ggW, gggW)])
    for right, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-8, atol=1e-8 * np.abs(right).max())


@pytest.mark.parametrize('stream', [(0, 0, 'z', 0), (2 ** 63 + 5, 10 ** 12, 'data', 2 ** 40)])
@pytest.mark.parametrize('n', [1, 3, 4, 100003])
def test_noise_is_the_cpus(n, stream):
    np.testing.assert_array_equal(noise.bits(cupy, n, *stream).get(), noise.bits(np, n, *stream))
    np.testing.assert_array_equal(noise.uniform(cupy, (n,), *stream).get(), noise.uniform(np, (n,), *stream))
    np.testing.assert_allclose(noise.normal(cupy, (n,), *stream).get(), noise.normal(np, (n,), *stream),
                               rtol=3e-7, atol=1e-12)
