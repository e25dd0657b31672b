"""What all benchmarks do: say which machine this is, and time tasks so that what slows it meets all alike."""
import importlib.metadata
import os
import platform
import time

from util import compat
from util.engine.threads import n_threads


def measure(tasks, rounds, pause=0):
    """Time every task once a round, after a round that does not count.

    Args:
        tasks (dict): Name -> callable.
        rounds (int): How many rounds count.
        pause (float): Seconds before each task, for threads of the task before to go to sleep.

    Returns:
        dict: Name -> list of ``rounds`` times in seconds.

    """
    seconds = {name: [] for name in tasks}
    for i in range(1 + rounds):
        for name, task in tasks.items():
            time.sleep(pause)
            start = time.perf_counter()
            task()
            if i > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def describe_machine():
    """Lines of text: processor, cores, threads and versions."""
    name = platform.processor() or platform.machine()
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo', encoding='utf-8') as f:
            name = next((line.split(':', 1)[1].strip() for line in f if line.startswith('model name')), name)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    versions = {**compat.versions(), 'pytorch': _torch_version()}
    blas = versions.pop('blas')
    return ['machine:  {} ({}), {} of {} cores usable'.format(name, platform.machine(), usable, os.cpu_count()),
            'versions: ' + ', '.join('{} {}'.format(key, value or 'not installed') for key, value in versions.items()),
            'blas:     {}, threads: {}'.format(blas, n_threads())]


def _torch_version():
    try:
        return importlib.metadata.version('torch')
    except importlib.metadata.PackageNotFoundError:
        return None
