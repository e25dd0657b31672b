import threading

import numpy as np
import pytest
import threadpoolctl

from util.engine.threads import parallel_map


def blas_threads():
    return [library['num_threads'] for library in threadpoolctl.threadpool_info() if library['user_api'] == 'blas']


def test_results_in_order():
    assert parallel_map(lambda x: x * x, range(50)) == [x * x for x in range(50)]
    assert parallel_map(len, []) == []


@pytest.mark.parametrize('blas, most, expected', [(1, None, 1), (2, None, 2), (2, 1, 1)])
def test_number_of_threads(blas, most, expected):
    barrier = threading.Barrier(expected)  # lets nobody pass until so many have come

    def work(_):
        barrier.wait(timeout=20)
        return threading.get_ident(), blas_threads()
    with threadpoolctl.threadpool_limits(blas, 'blas'):
        results = parallel_map(work, range(2 * expected), most)
        assert set(blas_threads()) == {blas}  # as before
    assert len({ident for ident, _ in results}) <= expected
    assert all(set(numbers) == {1} for _, numbers in results)


def test_an_error_comes_through_and_blas_has_its_threads_back():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda x: 1 / x, [1, 0])
    assert blas_threads() == before


def test_the_same_bits_with_any_number_of_threads():
    arrays = [np.random.RandomState(i).normal(size=(200, 200)).astype('f') for i in range(4)]
    results = []
    for n in (1, 2):
        with threadpoolctl.threadpool_limits(n, 'blas'):
            results.append(parallel_map(lambda a: a @ a, arrays))
    assert all((a == b).all() for a, b in zip(*results, strict=True))
