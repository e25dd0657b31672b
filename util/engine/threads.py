"""Threads that each do a piece of work by themselves, in the place of BLAS's own, which share every product.

BLAS's threads wait for each other at each of its calls, and everything between the calls has one thread only. Where
pieces are independent, one piece a thread keeps all of them busy.
"""
import concurrent.futures

import threadpoolctl


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
    controller = threadpoolctl.ThreadpoolController()
    numbers = [library['num_threads'] for library in controller.select(user_api='blas').info()]
    n_threads = max(numbers, default=1)
    if most is not None:
        n_threads = min(n_threads, most)
    with controller.limit(limits=1, user_api='blas'), concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, items))
