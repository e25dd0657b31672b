"""oneDNN: what it is asked for, what it is not, what it keeps, and what happens where it is not there."""
import os
import pathlib
import resource
import subprocess
import sys
import types

import numpy as np
import pytest
import threadpoolctl

from tests.helpers import held_by_another_thread, in_a_forked_child
from util.engine import convolution, dnnl, onednn, threads
from util.engine.switch import current, install, using_engine
from util.files import UserError

ONE = (1, 1)
FUNCTIONS = ['convolve', 'gradient_of_input', 'gradient_of_weight']


@pytest.fixture
def loaded():
    """oneDNN, with nothing compiled; skipped, with the reason, where it cannot be loaded."""
    try:
        onednn.load()
    except UserError as error:
        pytest.skip(str(error))
    for function in onednn._state.compiled.values():
        if function is not None:
            function.close()
    onednn._state.compiled.clear()
    return onednn._state


@pytest.fixture
def not_loaded(monkeypatch):
    """As in a process that has not asked for it yet."""
    monkeypatch.setattr(onednn, '_state', onednn._State())
    yield
    install('stock')


def draw(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype('f')


def arguments(name, n=2, size=7, pad=ONE, full=(7, 7)):
    """Arguments of a function, of a 3x3 convolution of 5 channels to 4."""
    x, W, gy, window = draw(n, 5, size, size), draw(4, 5, 3, 3, seed=1), draw(n, 4, *full, seed=2), (ONE, pad, ONE)
    return {'convolve': (x, W, draw(4, seed=3), *window, full),
            'gradient_of_input': (gy, W, draw(5, seed=3), *window, (size, size)),
            'gradient_of_weight': (x, gy, (3, 3), *window)}[name]


def same(a, b):
    return a.shape == b.shape and (a == b).all()


def close(a, b):
    return a.shape == b.shape and abs(a - b).max() <= 1e-5 * abs(b).max()


@pytest.mark.parametrize('name', FUNCTIONS)
def test_it_computes_itself(loaded, monkeypatch, name):
    expected = getattr(convolution, name)(*arguments(name))
    monkeypatch.delattr(convolution, name)
    for _ in range(2):
        assert close(getattr(onednn, name)(*arguments(name)), expected)
    assert len(loaded.compiled) == 1 and None not in loaded.compiled.values()


@pytest.mark.parametrize('other', [dnnl._OTHER, b'jit:of another machine'])
@pytest.mark.parametrize('name', FUNCTIONS)
def test_large_weights(loaded, monkeypatch, name, other):
    """Another implementation, where there is such a one."""
    monkeypatch.setattr(dnnl, '_LARGE_WEIGHT', 0)
    monkeypatch.setattr(dnnl, '_OTHER', other)
    args = arguments(name, size=6, full=(6, 6))
    assert close(getattr(onednn, name)(*args), getattr(convolution, name)(*args))
    assert None not in loaded.compiled.values()


@pytest.mark.parametrize('name', FUNCTIONS)
def test_what_it_refuses_is_numpys(loaded, name):
    for args in (arguments(name, pad=(-1, 1), full=(3, 7)), arguments(name, full=(3, 3))):
        for _ in range(2):
            assert same(getattr(onednn, name)(*args), getattr(convolution, name)(*args))
    assert list(loaded.compiled.values()) == [None, None]


@pytest.mark.parametrize('name', FUNCTIONS)
def test_what_it_fails_at_is_numpys(loaded, monkeypatch, name):
    def fail(library, *args):
        raise dnnl.Refused('status 1')
    args = arguments(name)
    with monkeypatch.context() as patch:
        patch.setattr(dnnl._Call, '__call__', fail)
        assert same(getattr(onednn, name)(*args), getattr(convolution, name)(*args))
    assert close(getattr(onednn, name)(*args), getattr(convolution, name)(*args))


@pytest.mark.parametrize('status', [1, 2, 3, 5])
def test_statuses(loaded, status):
    with pytest.raises(dnnl.Refused, match='status {}'.format(status)):
        loaded.library.check(status)
    loaded.library.check(0)


def test_any_address(loaded):
    def shifted(x):  # by one number, so that no vector begins at a line of the cache
        memory = np.empty(x.size + 1, 'f')[1:].reshape(x.shape)
        memory[...] = x
        return memory
    for name in FUNCTIONS:
        args = [shifted(a) if isinstance(a, np.ndarray) else a for a in arguments(name)]
        assert same(getattr(onednn, name)(*args), getattr(onednn, name)(*arguments(name)))


def test_as_many_threads_as_blas(loaded, monkeypatch):
    c = loaded.library.c
    before, seen = c.omp_get_max_threads(), []
    stock = dnnl.Convolution.__call__
    monkeypatch.setattr(dnnl.Convolution, '__call__',
                        lambda *args: (seen.append(c.omp_get_max_threads()), stock(*args)))
    for number in 1, 2, 1:
        monkeypatch.setattr(onednn, 'worth', lambda microseconds, number=number: number)
        onednn.convolve(*arguments('convolve'))
        assert c.omp_get_max_threads() == before
    assert seen == [1, 2, 1] and {problem.threads for problem in loaded.compiled} == {1, 2}


def test_inside_a_piece_it_has_one_thread(loaded):
    threads.split_map(lambda _: onednn.convolve(*arguments('convolve')), range(4))
    assert {problem.threads for problem in loaded.compiled} == {1}


def test_what_was_used_last_is_kept(loaded, monkeypatch):
    monkeypatch.setattr(onednn, '_MOST', 2)
    closed, stock = [], dnnl.Convolution.close
    monkeypatch.setattr(dnnl.Convolution, 'close', lambda self: (closed.append(self), stock(self)))

    def convolve(n):
        assert close(onednn.convolve(*arguments('convolve', n)), convolution.convolve(*arguments('convolve', n)))
        return next(reversed(loaded.compiled.values()))
    first, second = convolve(1), convolve(2)
    assert convolve(1) is first and not closed
    convolve(3)
    assert closed == [second] and len(loaded.compiled) == 2
    assert convolve(1) is first
    onednn.convolve(*arguments('convolve', full=(3, 3)))  # a refusal counts, too
    assert len(closed) == 2 and len(loaded.compiled) == 2
    assert convolve(2) is not second


class Counting:
    """oneDNN's functions, and how many of the objects that they have made are alive."""

    def __init__(self, c):
        self._c, self.alive, self.made = c, 0, 0

    def __getattr__(self, name):
        function = getattr(self._c, name)

        def call(*args):
            status = function(*args)
            assert not status or name.endswith(('_create', '_create_with_strides'))
            if '_create' in name and not status:
                self.alive, self.made = self.alive + 1, self.made + 1
            self.alive -= name.endswith('_destroy')
            return status
        return call if '_create' in name or name.endswith('_destroy') else function


def work(sizes):
    """Compile ever new shapes, and as many that are refused."""
    for size in sizes:
        for name in FUNCTIONS:
            getattr(onednn, name)(*arguments(name, 1, size, full=(size, size)))
            getattr(onednn, name)(*arguments(name, 1, size, full=(size - 4, size)))


def test_everything_is_destroyed(loaded, monkeypatch):
    c = Counting(loaded.library.c)
    monkeypatch.setattr(loaded.library, 'c', c)
    monkeypatch.setattr(onednn, '_MOST', 10)
    work(range(10, 20))
    first, made = c.alive, c.made
    work(range(20, 30))
    assert c.made == 2 * made > 900 and c.alive == first < 60  # five functions and their weights' orders
    broken = dnnl.Problem('forward', (1, 5, 7, 7), (4, 6, 3, 3), (1, 4, 7, 7), True, ONE, ONE, ONE, 1)
    with pytest.raises(dnnl.Refused, match='status'):  # by oneDNN itself, half way
        dnnl.Convolution(loaded.library, broken)
    assert c.alive == first
    for function in loaded.compiled.values():
        if function is not None:
            function.close()
    loaded.compiled.clear()
    assert c.alive == 0


def test_memory_does_not_grow(loaded, monkeypatch):
    def resident():
        return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()
    monkeypatch.setattr(onednn, '_MOST', 10)
    work(range(10, 110))
    before = resident()
    for _ in range(3):
        work(range(10, 110))
    assert resident() - before < 4 << 20  # 900 functions, each of 20 kB or more


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('held', [False, True])
def test_a_forked_child_has_numpys(loaded, monkeypatch, held):
    """Also when another thread of the parent is computing at that moment."""
    monkeypatch.setattr(onednn, 'worth', lambda microseconds: 2)
    expected = {name: getattr(convolution, name)(*arguments(name)) for name in FUNCTIONS}
    for name in FUNCTIONS:  # OpenMP's threads start
        getattr(onednn, name)(*arguments(name))

    def has_numpys():
        install('onednn')
        return all(same(getattr(onednn, name)(*arguments(name)), expected[name]) for name in FUNCTIONS)
    with held_by_another_thread(loaded.lock, held):
        assert in_a_forked_child(has_numpys)
    assert close(onednn.convolve(*arguments('convolve')), expected['convolve']) and not loaded.forked


def test_nobody_loads_it_who_does_not_ask_for_it():
    code = ('import sys, train; from util.engine.switch import using_engine\n'
            'with using_engine("numpy"): pass\n'
            'print("util.engine.onednn" in sys.modules, "libdnnl" in open("/proc/self/maps").read())')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ['False', 'False']


@pytest.mark.parametrize('policy, expected', [(None, 'PASSIVE'), ('active', 'ACTIVE')])
def test_threads_that_wait_sleep(loaded, policy, expected):
    """Unless the user says else. OpenMP tells how it was loaded."""
    code = 'import os; from util.engine import onednn; onednn.load(); print(os.environ.get("OMP_WAIT_POLICY"))'
    environment = {key: value for key, value in os.environ.items() if key != 'OMP_WAIT_POLICY'}
    environment.update({'OMP_DISPLAY_ENV': 'true'}, **{'OMP_WAIT_POLICY': policy} if policy else {})
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True,
                          env=environment)
    assert done.stdout.strip() == str(policy)
    assert "OMP_WAIT_POLICY = '{}'".format(expected) in done.stderr


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (5, 40, 30, 31), (1, 1, 1, 1)])
def test_a_bias_is_added_everywhere(shape):
    x, b = draw(*shape), draw(shape[1], seed=1)
    for number in 1, 2, 7:
        y = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        with threadpoolctl.threadpool_limits(number, 'blas'):
            onednn._add(y, b)
        assert same(y, x + b[:, None, None])


def missing(name):
    raise dnnl.importlib.metadata.PackageNotFoundError(name)


def refuse(match):
    """``onednn`` is an error of one line, after which all is as before, and ``auto`` is ``numpy``."""
    for before in 'stock', 'numpy':
        with using_engine(before):
            with pytest.raises(UserError, match=match) as error:
                install('onednn')
            assert '\n' not in str(error.value) and current() == before
    with using_engine('auto'):
        assert current() == 'numpy'


@pytest.mark.skipif(not sys.platform.startswith('linux') or os.uname().machine != 'x86_64', reason='no Linux on x86_64')
@pytest.mark.parametrize('files', [missing, lambda name: None, lambda name: []])
def test_not_installed(not_loaded, monkeypatch, files):
    monkeypatch.setattr(dnnl.importlib.metadata, 'files', files)
    refuse(r'--engine onednn needs the package onednn-cpu-gomp .*pip install -e "\.\[onednn\]"')


@pytest.mark.parametrize('system, machine', [('linux', 'aarch64'), ('darwin', 'x86_64')])
def test_not_for_this_machine(not_loaded, monkeypatch, system, machine):
    monkeypatch.setattr(dnnl.platform, 'machine', lambda: machine)
    monkeypatch.setattr(dnnl.sys, 'platform', system)
    refuse('no onednn-cpu-gomp for this machine .{} {}.'.format(system, machine))


@pytest.mark.skipif(not sys.platform.startswith('linux') or os.uname().machine != 'x86_64', reason='no Linux on x86_64')
def test_it_cannot_be_loaded(not_loaded, monkeypatch, tmp_path):
    path = tmp_path / 'libdnnl.so.3'
    path.write_text('no library')
    file = types.SimpleNamespace(name=path.name, locate=lambda: path)
    monkeypatch.setattr(dnnl.importlib.metadata, 'files', lambda name: [file])
    refuse('--engine onednn: .*libdnnl.so.3 cannot be used: ')


def test_auto_is_it_where_it_is(loaded):
    with using_engine('auto'):
        assert current() == 'onednn'
        with using_engine('auto'):
            assert current() == 'onednn'
