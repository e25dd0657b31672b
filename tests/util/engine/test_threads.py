import threading
import types

import numpy as np
import pytest
import threadpoolctl

from tests.helpers import held_by_another_thread, in_a_forked_child
from util.engine import threads
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


def test_limits_of_a_thread_that_is_not_the_first():
    """threadpoolctl's own would do nothing there, as long as the first one has a limit."""
    with threadpoolctl.threadpool_limits(2, 'blas'):
        results = []
        thread = threading.Thread(target=lambda: results.extend(parallel_map(lambda _: blas_threads(), range(4))))
        thread.start()
        thread.join()
        assert len(results) == 4 and all(set(numbers) == {1} for numbers in results)
        assert set(blas_threads()) == {2}


def test_limits_that_overlap():
    """Neither takes the other's single thread for what was there, and the last one gives back."""
    first, second, seen = threading.Event(), threading.Event(), []

    def early():
        with threads._blas.one_thread():
            first.set()
            second.wait(timeout=20)
        seen.append(set(blas_threads()))
    with threadpoolctl.threadpool_limits(2, 'blas'):
        thread = threading.Thread(target=early)
        thread.start()
        first.wait(timeout=20)
        with threads._blas.one_thread():
            assert threads.n_threads() == 2  # what is there when nobody holds it
            second.set()
            thread.join()
        assert seen == [{1}] and set(blas_threads()) == {2}


def test_blas_is_held():
    with threadpoolctl.threadpool_limits(2, 'blas'):
        threads.hold_blas()
        try:
            threads.hold_blas()  # once is enough
            assert set(blas_threads()) == {1} and threads.n_threads() == 2
            assert all(set(numbers) == {1} for numbers in parallel_map(lambda _: blas_threads(), range(4)))
            assert set(blas_threads()) == {1}  # still
        finally:
            threads.let_go_of_blas()
        assert set(blas_threads()) == {2}
        threads.let_go_of_blas()
        assert set(blas_threads()) == {2}


def test_a_library_that_is_loaded_while_blas_is_held(monkeypatch):
    """It is held, too, and gets back what it had."""
    class Library(threads.threadpoolctl.OpenBLASController):
        def __init__(self):
            self.filepath, self.threading_layer, self.number, self.dynlib = 'new', 'pthreads', 3, None

        get_num_threads = lambda self: self.number  # noqa: E731

        def set_num_threads(self, number):
            self.number = number
    library = Library()
    monkeypatch.setattr(threads, '_blas', threads._Blas())
    with threadpoolctl.threadpool_limits(2, 'blas'):
        threads.hold_blas()
        monkeypatch.setattr(threads.threadpoolctl.ThreadpoolController, 'select',
                            lambda self, user_api: types.SimpleNamespace(lib_controllers=[library]))
        assert parallel_map(lambda _: library.number, range(2)) == [1, 1]
        assert library.number == 1 and threads.n_threads() == 3
        threads.let_go_of_blas()
        assert library.number == 3 and set(blas_threads()) == {2}


def test_threads_that_are_worth_it(monkeypatch):
    monkeypatch.setattr(threads, '_WORTH', 100)
    for blas, expected in (2, [1, 1, 1, 2, 2]), (1, [1] * 5):
        with threadpoolctl.threadpool_limits(blas, 'blas'):
            assert [threads.worth(n) for n in (0, 99, 199, 200, 1e9)] == expected
            assert threads.split_map(lambda _: threads.worth(1e9), [0, 0]) == [1, 1]  # inside of a piece


def test_libraries_with_a_number_for_each_thread(monkeypatch):
    """OpenBLAS on OpenMP: whoever works sets its own, and gives it back."""
    class Library(threading.local):
        number = 2

        def get_num_threads(self):
            return self.number

        def set_num_threads(self, number):
            self.number = number
    library = Library()
    threads.n_threads()  # finds the libraries that are there
    monkeypatch.setattr(threads._blas, '_per_thread', [library])
    assert threads.n_threads() == 2
    barrier = threading.Barrier(2)
    assert threads.split_map(lambda _: (barrier.wait(timeout=20), library.number)[1], range(4)) == [1] * 4
    assert library.number == 2


def test_split_inside_a_piece():
    """No piece waits for a thread, whatever the others do."""
    def outer(i):
        return threads.n_threads(), parallel_map(lambda j: (i, j, threading.get_ident()), range(3))
    with threadpoolctl.threadpool_limits(2, 'blas'):
        results = parallel_map(outer, range(8))
    for i, (n_threads, inner) in enumerate(results):
        assert n_threads == 1 and [pair[:2] for pair in inner] == [(i, j) for j in range(3)]
        assert len({ident for *_, ident in inner}) == 1


def test_an_error_stops_the_others():
    done = []

    def work(i):
        if i == 3:
            raise ZeroDivisionError
        done.append(i)
    with threadpoolctl.threadpool_limits(2, 'blas'), pytest.raises(ZeroDivisionError):
        parallel_map(work, range(100_000))
    assert len(done) < 100_000


def test_nobody_waits_for_threads_that_are_busy():
    stop = threading.Event()
    with threadpoolctl.threadpool_limits(2, 'blas'):
        busy = [threads._executor().submit(stop.wait, 20) for _ in range(threads._executor()._max_workers)]
        try:
            assert parallel_map(lambda i: i, range(5)) == list(range(5))
            assert not any(future.done() for future in busy)
        finally:
            stop.set()


def test_scratch():
    a = threads.scratch('test', (3, 4))
    assert a.shape == (3, 4) and a.dtype == np.float32 and a.flags.c_contiguous
    assert np.shares_memory(a, threads.scratch('test', (2, 2)))
    assert not np.shares_memory(a, threads.scratch('other', (2, 2)))
    assert not np.shares_memory(a, threads.scratch('test', (2, 2), 'd'))
    assert threads.scratch('test', (30, 40)).shape == (30, 40)
    others = []
    thread = threading.Thread(target=lambda: others.append(threads.scratch('test', (3, 4))))
    thread.start()
    thread.join()
    assert not np.shares_memory(threads.scratch('test', (3, 4)), others[0])


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('kept', [False, True])
@pytest.mark.parametrize('held', [False, True])
def test_a_forked_child_works(held, kept):
    """Also when another thread of the parent has BLAS's threads at that moment, or the whole process for good."""
    with threadpoolctl.threadpool_limits(2, 'blas'):
        square = np.random.RandomState(0).standard_normal((300, 300)).astype('f')
        expected = parallel_map(lambda i: i * square @ square, range(4))

        def works():
            results = parallel_map(lambda i: i * square @ square, range(4))
            as_before = set(blas_threads()) == {1 if kept else 2} and threads.n_threads() == 2
            return as_before and all((a == b).all() for a, b in zip(results, expected, strict=True))
        if kept:
            threads.hold_blas()
        with held_by_another_thread(threads._blas.one_thread(), held):
            assert in_a_forked_child(works)
        threads.let_go_of_blas()
        assert set(blas_threads()) == {2}
