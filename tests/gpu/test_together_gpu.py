"""Spectral normalization of all layers together on a GPU: the bits of each layer by itself, in a handful of launches.
"""
import chainer
import chainer.functions as F
import numpy as np
import pytest

import model
from util import normalization
from util.config import resolve
from util.normalization import group_kernels, kernels, power_iteration
from util.normalization import together as module

SHAPES = [((1, 1), 0), ((1, 8192), 0), ((3000, 5), 0), ((33, 65), 0), ((512, 256, 4, 4), 0), ((64, 3, 3, 3), 0),
          ((6, 7, 4, 4), 1), ((512, 256, 4, 4), 1)]
AXES = [axis for _, axis in SHAPES]


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that are launched."""
    names = []
    for kernels_of in (kernels, group_kernels):
        def get_kernel(name, dtype, get=kernels_of.get_kernel):
            names.append(name)
            return get(name, dtype)
        monkeypatch.setattr(kernels_of, 'get_kernel', get_kernel)
    return names


def draw(device, dtype):
    random = np.random.RandomState(0)
    Ws, gs = ([device.send(random.standard_normal(shape).astype(dtype)) for shape, _ in SHAPES] for _ in range(2))
    return Ws, [device.send(random.standard_normal(shape[axis]).astype(dtype)) for shape, axis in SHAPES], gs


@pytest.mark.parametrize('dtype', 'fd')
@pytest.mark.parametrize('n, move, factor', [(1, True, 1.0), (3, False, 1.5)])
def test_bits_are_those_of_each_layer(device, launches, dtype, n, move, factor):
    Ws, us, gs = draw(device, dtype)
    expected = [power_iteration.normalize(W, u, n, 1e-12, factor, axis)
                for W, u, axis in zip(Ws, us, AXES, strict=True)]
    gradients = [power_iteration.gradient(W, g, *rest[1:], factor, axis)
                 for W, g, rest, axis in zip(Ws, gs, expected, AXES, strict=True)]
    olds = [u.copy() for u in us]
    launches.clear()
    several = power_iteration.normalize_several(Ws, us, AXES, n, 1e-12, factor, move)
    assert len(launches) == 1 + 2 * n
    got_gradients = several.gradients(Ws, gs)
    assert len(launches) == 3 + 2 * n
    for got, right, u, old, before in zip(several.results, expected, us, olds, several.before, strict=True):
        assert all(bool((a == b).all()) for a, b in zip(got, right, strict=True))
        assert bool((u == (got[1] if move else old)).all())
        assert before is None if not move else bool((before == old).all())
    assert all(bool((a == b).all()) for a, b in zip(got_gradients, gradients, strict=True))


def test_float16_and_what_is_not_contiguous_take_the_composed_operations(device, launches):
    Ws, us, _ = draw(device, 'f')
    halves = power_iteration.normalize_several([W.astype('e') for W in Ws], us, AXES)
    assert halves.gradients is None and not launches
    turned = power_iteration.normalize_several([Ws[4].T.copy().T, Ws[5]], [us[4], us[5]], [0, 0])
    assert turned.gradients is None and launches == ['sn_columns', 'sn_rows', 'sn_scale']


def test_nothing_waits_for_the_device(device):
    cupy = device.xp
    Ws, us, gs = draw(device, 'f')
    start = [u.copy() for u in us]
    pool = cupy.cuda.MemoryPool()
    cupy.cuda.Device().synchronize()
    with cupy.cuda.using_allocator(pool.malloc), cupy.cuda.Stream(non_blocking=True) as stream:
        warm = power_iteration.normalize_several(Ws, us, AXES, move=True)  # compiles, and sends the table
        warm.gradients(Ws, gs)
        for u, first in zip(us, start, strict=True):
            u[...] = first
        stream.synchronize()
        stream.begin_capture()  # while it records, a call that waits is an error
        captured = power_iteration.normalize_several(Ws, us, AXES, move=True)
        gradients = captured.gradients(Ws, gs)
        graph = stream.end_capture()
        graph.launch()
        stream.synchronize()
        for got, right in zip(captured.results, warm.results, strict=True):
            for a, b in zip(got, right, strict=True):
                np.testing.assert_array_equal(a.get(), b.get())
        assert all(np.isfinite(g.get()).all() for g in gradients)
        graph.launch()
        stream.synchronize()
        assert np.abs(captured.results[4][1].get() - warm.results[4][1].get()).max() > 0  # u went on from where it was


def make(device, name, classes):
    config = resolve(profile='quick', model=name, method='sn', overrides=['model.width=8'])
    network = model.build_discriminator(config.model, 32, 0, normalization.make(config.method, 0), classes)
    network.to_device(device)
    return network


@pytest.mark.parametrize('name, classes, layers', [('cnn', 0, 8), ('resnet', 0, 11), ('resnet_projection', 10, 12)])
def test_a_discriminator(device, launches, monkeypatch, name, classes, layers):
    random, results = np.random.RandomState(1), []
    x, y = (device.send(random.standard_normal((4, 3, 32, 32)).astype('f')) for _ in range(2))
    labels = device.send(random.randint(0, 10, 4).astype('i')) if classes else None
    together = module._prepare
    for prepare in (lambda *args: None, together):
        monkeypatch.setattr(module, '_prepare', prepare)
        network, n = make(device, name, classes), 1 if prepare is together else layers
        for train in (True, False, True):
            with chainer.using_config('train', train), chainer.using_config('cudnn_deterministic', True):
                launches.clear()
                losses = network(x, labels), network(y, labels)
                assert len(launches) == 2 * 3 * n
                network.cleargrads()
                F.sum(losses[0] + 2 * losses[1]).backward()
                assert len(launches) == 2 * 5 * n
        results.append({path: (p.array, p.grad) for path, p in network.namedparams()})
        results[-1].update((path, (link.W_u, link.W_sigma)) for path, link in network.namedlinks()
                           if hasattr(link, 'W_u'))
    for key, pair in results[0].items():
        for a, b in zip(pair, results[1][key], strict=True):
            np.testing.assert_array_equal(a.get(), b.get(), err_msg=key)


def test_a_generator_step_launches_no_gradient_of_weights(device, launches):
    network = make(device, 'cnn', 0)
    x = chainer.Variable(device.xp.zeros((2, 3, 32, 32), 'f'))
    chainer.grad([F.sum(network(x))], [x])
    assert len(launches) == 3
