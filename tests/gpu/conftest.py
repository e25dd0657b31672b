"""The GPU that all of these tests run on."""
import chainer
import pytest

from util.device import get_device


@pytest.fixture
def device():
    device = get_device('0')
    with chainer.using_device(device):
        yield device
