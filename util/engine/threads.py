"""Threads that each do a piece of work by themselves, in the place of BLAS's own, which share every product.

BLAS's threads wait for each other at each of its calls, and everything between the calls has one thread only. Where
pieces are independent, one piece a thread keeps all of them busy.

The threads are kept from call to call. A forked child makes its own. Any number of Python threads may call at once.
"""
import concurrent.futures
import contextlib
import itertools
import math
import os
import threading

import numpy as np
import threadpoolctl

_WORTH = 500  # microseconds of work for a thread that is to be woken


def _setter(library):
    """The function that sets BLAS's number of threads.

    OpenBLAS's own, found through threadpoolctl, whose ``set_num_threads`` (3.8) does nothing, and says nothing, in all
    Python threads but the first that has called it.
    """
    names = (prefix + 'openblas_set_num_threads' + suffix for prefix in ('', 'scipy_') for suffix in ('', '64_', '_64'))
    found = (getattr(library.dynlib, name, None) for name in names)
    return next((function for function in found if function is not None), library.set_num_threads)


class _Blas:
    """How many threads BLAS has: one in the whole process while anybody holds it, then as many as before.

    Holders are counted, so that of two that overlap the second does not take the first one's single thread for what
    was there before. OpenBLAS on OpenMP has a number for each thread instead: see :meth:`one_of_own`.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.kept = False  # held by hold_blas
        self._holders, self._before = 0, []
        self._setters = {}  # file -> (read, write) of each library
        self._per_thread = ()

    def find(self):
        """Look for libraries that have been loaded since the last time; 0.1 ms."""
        with self.lock:
            known = len(self._setters)
            self._find()
            if self._holders:
                new = list(self._setters.values())[known:]
                self._before += [read() for read, _ in new]
                for _, write in new:
                    write(1)

    def _find(self):
        libraries = threadpoolctl.ThreadpoolController().select(user_api='blas').lib_controllers
        self._per_thread = [x for x in libraries if x.internal_api == 'openblas' and x.threading_layer == 'openmp']
        for library in libraries:
            if library not in self._per_thread and library.filepath not in self._setters:
                self._setters[library.filepath] = library.get_num_threads, _setter(library)

    def _look(self):
        if not self._holders:
            if not self._setters:
                self._find()
            self._before = [read() for read, _ in self._setters.values()]

    def _set(self, numbers):
        for (_, write), number in zip(self._setters.values(), numbers, strict=True):
            write(number)

    def hold(self):
        with self.lock:
            self._look()
            self._holders += 1
            if self._holders == 1:
                self._set([1] * len(self._setters))

    def let_go(self):
        with self.lock:
            self._holders -= 1
            if not self._holders:
                self._set(self._before)

    def n_threads(self):
        """How many threads BLAS has when nobody holds it."""
        with self.lock:
            self._look()
            return max([*self._before, *(x.get_num_threads() for x in self._per_thread)], default=1)

    @contextlib.contextmanager
    def one_thread(self):
        """Hold it, in a ``with`` statement."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    @contextlib.contextmanager
    def one_of_own(self):
        """One thread for what this thread calls, in a ``with`` statement."""
        before = [(x, x.get_num_threads()) for x in self._per_thread]
        for library, _ in before:
            library.set_num_threads(1)
        try:
            yield
        finally:
            for library, number in before:
                library.set_num_threads(number)

    def after_fork(self):
        """In the child: the holders among the parent's threads are not here to let go."""
        if self._holders > self.kept:
            self._holders = int(self.kept)
            if not self.kept:
                self._set(self._before)
        self.lock.release()  # fork copied it locked


class _Local(threading.local):
    """What each thread has for itself."""

    def __init__(self):
        self.in_piece = False
        self.memory = {}


_blas, _local = _Blas(), _Local()
_pool, _pool_lock = None, threading.Lock()


def _executor():
    """The pool; its threads start when there is work for them."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, 'engine')
        return _pool


def _after_fork():
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()
    _blas.after_fork()


# A fork waits for whoever is about to change the number of threads, so that the child finds it as it is said to be
os.register_at_fork(before=_blas.lock.acquire, after_in_parent=_blas.lock.release, after_in_child=_after_fork)


def hold_blas():
    """Leave BLAS one thread, outside of split work too, until :func:`let_go_of_blas`.

    After each product that OpenBLAS's threads share they go on asking for work for 20 ms or so, on the cores that the
    threads here would take.
    """
    if not _blas.kept:
        _blas.hold()
        _blas.kept = True


def let_go_of_blas():
    """Give BLAS back the threads that it had at :func:`hold_blas`."""
    if _blas.kept:
        _blas.kept = False
        _blas.let_go()


def n_threads():
    """Among how many threads work is split here: as many as BLAS has, or 1 inside a piece of split work."""
    return 1 if _local.in_piece else _blas.n_threads()


def worth(microseconds):
    """How many threads are worth it for work that takes one thread about so long: 1 to :func:`n_threads`.

    To wake a thread takes up to 0.1 ms, where the processor is a virtual one.
    """
    return max(1, min(n_threads(), int(microseconds / _WORTH)))


def scratch(name, shape, dtype='f'):
    """Memory of this thread that is used again and again: whoever asks for the same name gets the same memory.

    Args:
        name (str): What it is for.
        shape (tuple of int): Of the array; the memory grows when it must.
        dtype (str): Its type.

    Returns:
        numpy.ndarray: C-contiguous, with whatever was in it before.

    """
    size = math.prod(shape)
    memory = _local.memory.get((name, dtype))
    if memory is None or memory.size < size:
        memory = _local.memory[name, dtype] = np.empty(size, dtype)
    return memory[:size].reshape(shape)


def split_map(function, items, most=None):
    """``list(map(function, items))``, by all threads that there are; each has one thread of BLAS.

    Whichever thread is free takes the next item. Calls of it inside ``function`` do their work in one thread.

    Args:
        function (callable): Of one item.
        items (sequence): Its arguments.
        most (int or None): At most so many threads, but one; ``None``: as many as :func:`n_threads` says.

    Returns:
        list: In the order of ``items``.

    """
    there = n_threads()
    threads = max(1, min(there, len(items), there if most is None else most))
    if threads == 1:
        return _map_alone(function, items, there)
    results, waiting = [None] * len(items), itertools.count()

    def work():
        before, _local.in_piece = _local.in_piece, True
        try:
            with _blas.one_of_own():
                for i in waiting:  # one after the other, whoever asks: count() is atomic
                    if i >= len(items) or failed:
                        break
                    results[i] = function(items[i])
        except BaseException:
            failed.append(True)  # the others stop, too
            raise
        finally:
            _local.in_piece = before

    failed = []
    with _blas.one_thread():
        others = [_executor().submit(work) for _ in range(threads - 1)]
        try:
            work()
        finally:
            others = [other for other in others if not other.cancel()]  # those still waiting for a thread
            concurrent.futures.wait(others)  # they write into arrays of the caller
    for other in others:
        other.result()
    return results


def _map_alone(function, items, there):
    before, _local.in_piece = _local.in_piece, True
    try:
        with _blas.one_thread() if there > 1 else contextlib.nullcontext():
            return [function(item) for item in items]
    finally:
        _local.in_piece = before


def parallel_map(function, items, most=None):
    """``list(map(function, items))`` by as many threads as BLAS would take, each with one thread of BLAS.

    What a piece computes does not depend on the number of threads, so neither do the bits of the result. While it runs,
    BLAS has one thread in the whole process.

    Args:
        function (callable): Of one item.
        items (iterable): Its arguments.
        most (int or None): At most so many threads, where each needs much memory.

    Returns:
        list: In the order of ``items``.

    """
    _blas.find()
    return split_map(function, list(items), most)
