"""The conversions between float32 and bfloat16, on the CPU."""
import math
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.emulation import Kernel
from util.engine import cudnn

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++ to compile the kernels as C++'),
]


@pytest.fixture(scope='module')
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bfloat16')
    return [Kernel(folder, cudnn.KERNEL_SOURCES['bfloat16'], name) for name in ('to_bfloat16', 'from_bfloat16')]


def there_and_back(kernels, x):
    half, y = np.zeros(x.size, 'u2'), np.zeros(x.size, 'f')
    kernels[0]((3,), (32,), (x, half, np.int64(x.size)))
    kernels[1]((3,), (32,), (half, y, np.int64(x.size)))
    return half, y


def nearest(x):
    """The bfloat16 nearest to a float, an even one of two; by their distances, as floats of Python."""
    def value(bits):
        return struct.unpack('<f', struct.pack('<I', bits << 16))[0]
    low = struct.unpack('<I', struct.pack('<f', x))[0] >> 16
    high = low + 1
    # Infinity stands for the number that would follow the largest
    values = [math.copysign(2.0 ** 128, x) if math.isinf(v) else v for v in (value(low), value(high))]
    distances = [abs(v - x) for v in values]
    if distances[0] == distances[1]:
        return value(low if low % 2 == 0 else high)
    return value(low if distances[0] < distances[1] else high)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_rounds_to_the_nearest(kernels, numbers):
    x = np.array(numbers, 'f')
    _, y = there_and_back(kernels, x)
    np.testing.assert_array_equal(y, np.array([nearest(float(v)) for v in x], 'f'))


def test_numbers_that_lie_half_way_and_none(kernels):
    halfway = (np.arange(0x3f80, 0x3fa0, dtype='u4') << 16) + 0x8000
    x = np.concatenate([halfway.view('f'), np.array([np.inf, -np.inf, np.nan, -np.nan, 0., -0.], 'f'),
                        np.array([0x7f800001, 0xff800001, 0x7fffffff], 'u4').view('f')])
    half, y = there_and_back(kernels, x)
    assert not (half[:len(halfway)] & 1).any()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    np.testing.assert_array_equal(y[len(halfway):len(halfway) + 2], [np.inf, -np.inf])
    assert np.signbit(y[-4]) and not y[-4]
