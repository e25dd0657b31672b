"""The kernels that take many single numbers, on the CPU."""
import shutil

import numpy as np
import pytest

from tests.kernels.emulation import Kernel, Memory, address
from util.engine import scalars

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++ to compile the kernels as C++'),
]


@pytest.fixture(scope='module')
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scalars')
    return {name: Kernel(folder, scalars.KERNEL_SOURCES['scalars'], name)
            for name in ('gather_scalars', 'accumulate_scalars')}


@pytest.mark.parametrize('order', range(3))
@pytest.mark.parametrize('n', [1, 10, 65, 256, 257, 600])
def test_numbers_are_those_of_numpy(kernels, monkeypatch, n, order):
    monkeypatch.setattr(scalars, '_address', address)
    monkeypatch.setattr(scalars, 'get_kernel', kernels.__getitem__)
    memory, numbers = Memory(), np.random.RandomState(n).standard_normal((n,)).astype('f')
    arrays = [memory.copy(x) for x in numbers]
    out, sums, squares = np.full(n, np.nan, 'f'), np.arange(n, dtype='f'), np.ones(n, 'f')
    expected = numbers, sums + numbers, squares + numbers * numbers
    for kernel in kernels.values():
        kernel.order, kernel.calls = order, 0
    scalars._launch('gather_scalars', arrays, out)
    scalars._launch('accumulate_scalars', arrays, sums, squares)
    for got, right in zip((out, sums, squares), expected, strict=True):
        np.testing.assert_array_equal(got, right)
    assert [kernel.calls for kernel in kernels.values()] == 2 * [-(-n // 256)]
