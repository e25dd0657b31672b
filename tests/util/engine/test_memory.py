"""Memory that is kept: how many pages the system has to give anew, and where there is no glibc."""
import platform
import subprocess
import sys
import types

import pytest

from util.engine import memory

# Ten arrays of 3 MB at a time, fifty times: by default they go back to the system each time
CODE = '''
import resource
import numpy as np
from util.engine.memory import keep_memory
{}
def use():
    arrays = [np.zeros(3 << 18, 'f') + 1 for _ in range(10)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


def faults(first):
    return int(subprocess.run([sys.executable, '-c', CODE.format(first)], capture_output=True, text=True, check=True,
                              timeout=60).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')
def test_pages_are_asked_for_once():
    given_back, kept = faults(''), faults('keep_memory()')
    assert kept < 10 * 3 * 256 < given_back  # 256 pages a megabyte


@pytest.mark.parametrize('takes', [{memory._MOST, memory._MOST_OF_OLD}, {memory._MOST_OF_OLD}])
def test_what_is_asked_of_it(monkeypatch, takes):
    asked = []

    def mallopt(option, value):
        asked.append((option, value))
        return value in takes
    monkeypatch.setattr(memory.ctypes, 'CDLL', lambda name: types.SimpleNamespace(mallopt=mallopt))
    memory.keep_memory()
    assert asked[0] == (-1, memory._MOST) and asked[-1] == (-3, max(takes))


def test_without_it(monkeypatch):
    monkeypatch.setattr(memory.ctypes, 'CDLL', lambda name: types.SimpleNamespace())
    memory.keep_memory()
