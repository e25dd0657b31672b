"""Adam of one launch on a GPU: the numbers of Chainer's, the same bits after a resume and in a CUDA graph."""
import chainer
import numpy as np
import pytest

from util.engine import flat_adam
from util.engine.flat_adam import FlatAdam
from util.trainer import optimizer_for

SHAPES = {'W': (512, 256, 3, 3), 'b': (70,), 'gamma': (), 'dense': (3, 5001)}


@pytest.fixture
def launches(monkeypatch):
    names, get = [], flat_adam.get_kernel
    monkeypatch.setattr(flat_adam, 'get_kernel', lambda: (names.append('flat_adam'), get())[1])
    return names


def make(device, kind, **options):
    link = chainer.Link()
    with link.init_scope():
        for i, (name, shape) in enumerate(SHAPES.items()):
            setattr(link, name, chainer.Parameter(np.random.RandomState(i).standard_normal(shape).astype('f')))
    link.to_device(device)
    return kind(3e-3, 0.5, 0.9, **options).setup(link)


def step(optimizer, number):
    give_gradients(optimizer.target, number)
    optimizer.update()


def give_gradients(link, number):
    for p in link.params():
        grad = p.device.send(np.random.RandomState(100 + number).standard_normal(p.shape).astype('f'))
        if p.grad is None:
            p.grad = grad
        else:
            p.grad[...] = grad


def everything(optimizer):
    arrays = {}
    for path, p in optimizer.target.namedparams():
        arrays.update({path: p.array, path + '/m': p.update_rule.state['m'], path + '/v': p.update_rule.state['v']})
    return {key: x.get() for key, x in arrays.items()}


def assert_equal(one, other):
    for key, value in everything(one).items():
        np.testing.assert_array_equal(value, everything(other)[key], err_msg=key)


def test_it_is_the_gpus_optimizer(device):
    assert optimizer_for(device) is FlatAdam


@pytest.mark.parametrize('options', [{}, {'eta': 0.5, 'eps': 1e-3}, {'weight_decay_rate': 0.1}])
def test_numbers_are_chainers(device, launches, options):
    ours, stock = (make(device, kind, **options) for kind in (FlatAdam, chainer.optimizers.Adam))
    for number in range(5):
        ours.alpha = stock.alpha = 3e-3 / (1 + number // 2)
        for optimizer in (ours, stock):
            step(optimizer, number)
    assert launches == 5 * ['flat_adam']
    for key, value in everything(stock).items():  # the step size may differ in its last bit: pow is the device's
        np.testing.assert_allclose(everything(ours)[key], value, rtol=2e-6, atol=1e-8, err_msg=key)
    flat, = ours._flats.values()
    assert flat._updates.get().tolist() == len(SHAPES) * [5]


@pytest.mark.parametrize('used', [False, True])
def test_exact_resume(device, tmp_path, used):
    whole, second = make(device, FlatAdam), make(device, FlatAdam)
    for number in range(3):
        step(whole, number)
    chainer.serializers.save_npz(tmp_path / 'a.npz', whole)
    chainer.serializers.save_npz(tmp_path / 'b.npz', whole.target)
    if used:
        step(second, 9)
    chainer.serializers.load_npz(tmp_path / 'a.npz', second)
    chainer.serializers.load_npz(tmp_path / 'b.npz', second.target)
    for number in range(3, 6):
        step(whole, number)
        step(second, number)
    assert_equal(whole, second)


def test_moving_to_the_cpu_and_back(device):
    moved, stayed = make(device, FlatAdam), make(device, FlatAdam)
    for optimizer in (moved, stayed):
        step(optimizer, 0)
    moved.target.to_device('@numpy')
    moved.target.to_device(device)
    for optimizer in (moved, stayed):
        step(optimizer, 1)
    assert_equal(moved, stayed)


def test_a_cuda_graph_goes_on_as_updates_do(device):
    graphed, eager = make(device, FlatAdam), make(device, FlatAdam)
    cupy, graph = device.xp, None
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for number in range(5):
            give_gradients(graphed.target, number)
            graphed.alpha = eager.alpha = 1e-3 if number > 3 else 3e-3
            if number == 0:
                graphed.update()
            elif number == 1:
                stream.synchronize()
                stream.begin_capture()  # while it records, a call that waits is an error
                graphed.update()
                graph = stream.end_capture()
                graph.launch()
            else:
                graphed.before_replay()
                graph.launch()
            step(eager, number)
        stream.synchronize()
        assert_equal(graphed, eager)
        assert graphed.t == eager.t == 5
        step(graphed, 5)
        step(eager, 5)
        stream.synchronize()
    assert_equal(graphed, eager)
