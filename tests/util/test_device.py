import types

import chainer
import pytest

from util import compat
from util.device import get_device, kind
from util.files import UserError


@pytest.fixture
def gpus(monkeypatch):
    """Makes a number of GPUs answer; the devices are then stand-ins with a name."""
    real = chainer.get_device

    def answer(count):
        monkeypatch.setattr(compat, 'gpu_count', lambda: count)
        monkeypatch.setattr(compat, 'gpu_problem', lambda: None if count else 'no driver')
        monkeypatch.setattr(chainer, 'get_device', lambda name: (
            types.SimpleNamespace(name=name) if name.startswith('@cupy') else real(name)))
    return answer


@pytest.mark.parametrize('count', [0, 2])
@pytest.mark.parametrize('name', ['cpu', 'CPU', '-1', -1, '@numpy', 'native'])
def test_the_cpu(gpus, name, count):
    gpus(count)
    device = get_device(name)
    assert isinstance(device, chainer.backend.CpuDevice) and kind(device) == 'cpu'


def test_the_cpu_is_not_asked_for_gpus(monkeypatch):
    def fail():
        raise AssertionError
    monkeypatch.setattr(compat, 'gpu_count', fail)
    assert kind(get_device('cpu')) == 'cpu'


@pytest.mark.parametrize('name', ['auto', 'AUTO'])
def test_auto(gpus, name):
    gpus(0)
    assert get_device(name).name == get_device().name == '@numpy'
    gpus(1)
    assert get_device(name).name == get_device().name == '@cupy:0'


@pytest.mark.parametrize('name, number', [
    ('0', 0), (0, 0), ('1', 1), ('@cupy:1', 1), ('cuda:1', 1), ('cuda', 0), ('gpu', 0), ('@cupy', 0), ('CUDA:0', 0)])
def test_a_gpu(gpus, name, number):
    gpus(2)
    device = get_device(name)
    assert device.name == '@cupy:{}'.format(number) and kind(device) == 'cuda'


@pytest.mark.parametrize('name', ['0', '1', '99', 'cuda', 'gpu', '@cupy', '@cupy:0', 'cuda:0'])
def test_no_gpu_says_why(gpus, name):
    gpus(0)
    with pytest.raises(UserError) as info:
        get_device(name)
    assert str(info.value) == '--device {}: there is no such GPU, none answers (no driver)'.format(name)


@pytest.mark.parametrize('count, name, answer', [
    (1, '1', '1 answers'), (2, '2', '2 answer'), (2, '@cupy:7', '2 answer'), (2, '99999999999999999999', '2 answer')])
def test_a_number_that_is_too_high(gpus, count, name, answer):
    gpus(count)
    with pytest.raises(UserError) as info:
        get_device(name)
    assert str(info.value) == '--device {}: there is no such GPU, {}'.format(name, answer)


@pytest.mark.parametrize('count', [0, 2])
@pytest.mark.parametrize('name', [
    '', ' ', 'tpu', 'cpu0', 'cpu:0', '-2', '+1', '1.0', '1e0', '0x1', ' 1', '1,0', '1 0', '@cupy:', '@cupy:-1', 'cuda:',
    'cuda:x', '@chainerx', '@intel64', '@numpy:0', 'none', None, '0@cupy:', 'cuda:cuda:0', '@cupy:cuda:0', '\u00b2',
    '\u0661'])
def test_garbage(gpus, name, count):
    gpus(count)
    with pytest.raises(UserError, match='expected auto, cpu') as info:
        get_device(name)
    assert str(info.value).startswith('--device {}: '.format(name).lower())


def test_the_cpu_that_is_really_there():
    device = get_device('cpu')
    assert device.xp.zeros(1).sum() == 0 and device == chainer.get_device('@numpy')
