"""cuDNN's convolutions on a GPU against CuPy's matrix products, whole networks, and the same bits each time."""
import chainer
import chainer.functions as F
import numpy as np
import pytest

import model
from util.config import resolve
from util.engine import cudnn, layout
from util.engine.switch import using_engine
from util.files import UserError

# The largest error, as a part of the largest number: half a unit in the last place of an operand, some times over
TOLERANCE = {'cudnn-fp32': 2e-5, 'cudnn': 2e-3, 'cudnn-bf16': 2e-2}
LAYERS = {  # of the standard CNN at 32x32: channels, outputs, kernel, stride, size
    'picture': (3, 64, 3, 1, 32), 'stride': (64, 64, 4, 2, 32), 'wide': (256, 512, 3, 1, 4), 'odd': (5, 7, 3, 2, 9),
    'last': (64, 3, 3, 1, 32),
}


@pytest.fixture(params=TOLERANCE)
def engine(request, device):
    try:
        with using_engine(request.param, device=device):
            pass
    except UserError as error:
        pytest.skip(str(error))
    return request.param


def draw(device, *shape, seed=0):
    return device.send(np.random.RandomState(seed).standard_normal(shape).astype('f'))


def derivatives(function, arrays, gy):
    """Output, its gradients, and the gradients of a sum of these."""
    inputs = [chainer.Variable(a) for a in arrays]
    y = function(*inputs)
    first = chainer.grad([y], inputs, [chainer.Variable(gy)], enable_double_backprop=True)
    second = chainer.grad([sum(F.sum(g * g) for g in first)], inputs[:2])
    return [v.array.get() for v in (y, *first, *second)]


def assert_close(results, expected, tolerance):
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape
        np.testing.assert_allclose(result, value, rtol=0, atol=tolerance * abs(value).max())


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('function', [F.convolution_2d, F.deconvolution_2d])
def test_layers(engine, device, name, function):
    c, o, k, s, size = LAYERS[name]
    pad = 1
    x = draw(device, 16, c, size, size)
    W = draw(device, *((o, c) if function is F.convolution_2d else (c, o)), k, k, seed=1) / np.float32(c * k * k) ** 0.5
    arrays = x, W, draw(device, o, seed=2)

    def call(*variables):
        return function(*variables, s, pad)
    gy = draw(device, *call(*arrays).shape, seed=3)
    expected = derivatives(call, arrays, gy)
    with using_engine(engine, device=device):
        results, again = (derivatives(call, arrays, gy) for _ in range(2))
        assert layout.channels_last(call(*arrays).array)
    assert_close(results, expected, 4 * TOLERANCE[engine])  # four products, one after the other
    for result, other in zip(results, again, strict=True):
        np.testing.assert_array_equal(result, other)


@pytest.mark.parametrize('shape', [(64, 128, 8192), (64, 8192, 1), (7, 5, 3)])
def test_dense_layers(engine, device, shape):
    n, c, o = shape
    arrays = draw(device, n, c), draw(device, o, c, seed=1) / np.float32(c) ** 0.5, draw(device, o, seed=2)
    gy = draw(device, n, o, seed=3)
    expected = derivatives(F.linear, arrays, gy)
    with using_engine(engine, device=device):
        assert_close(derivatives(F.linear, arrays, gy), expected, 4 * TOLERANCE[engine])


@pytest.mark.parametrize('name', ['cnn', 'resnet'])
def test_networks(engine, device, name):
    """A generator and a discriminator against each other: logits and all gradients."""
    row = resolve('cifar10', name, 'none').model
    networks = model.build_generator(row, 32, 0), model.build_discriminator(row, 32, 0)
    for network in networks:
        network.to_device(device)
    z = draw(device, 16, row['dim_z'])

    def run():
        for network in networks:
            network.cleargrads()
        logits = networks[1](networks[0](z))
        F.sum(F.softplus(-logits)).backward()
        return [logits.array.get(), *(p.grad.get() for network in networks for _, p in sorted(network.namedparams()))]
    expected = run()
    with using_engine(engine, device=device):
        results, again = run(), run()
    # Rounding changes which ReLUs are open: the whole gradient is compared, not its largest number
    for result, value in zip(results, expected, strict=True):
        distance = np.linalg.norm(result - value) / max(np.linalg.norm(value), 1e-6)
        assert distance < {'cudnn-fp32': 1e-2, 'cudnn': 0.1, 'cudnn-bf16': 0.4}[engine], value.shape
    for result, other in zip(results, again, strict=True):
        np.testing.assert_array_equal(result, other)


def test_tf32_is_used(device):
    """Else the engine's first promise, speed, is none: its rounding must show."""
    x, W = draw(device, 64, 64, 16, 16), draw(device, 128, 64, 3, 3, seed=1)
    expected = F.convolution_2d(x, W, None, 1, 1).array
    try:
        with using_engine('cudnn', device=device):
            error = float(abs(F.convolution_2d(x, W, None, 1, 1).array - expected).max())
    except UserError as problem:
        pytest.skip(str(problem))
    assert error > 1e-4 * float(abs(expected).max())


def test_bfloat16_goes_there_and_back(device):
    cupy = device.xp
    x = draw(device, 1000)
    half, y = cupy.empty(1000, 'u2'), cupy.empty(1000, 'f')
    cudnn.get_kernel('to_bfloat16')((2,), (256,), (x, half, np.int64(1000)))
    cudnn.get_kernel('from_bfloat16')((2,), (256,), (half, y, np.int64(1000)))
    assert float(abs(y / x - 1).max()) <= 2 ** -8
