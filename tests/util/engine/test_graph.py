"""Recording a CUDA graph, with a stand-in for CuPy that notes what is asked of it, in order."""
import contextlib
import types

import pytest

from util.engine import graph


class Error(RuntimeError):
    """CUDA's."""


class Stream:
    def __init__(self, notes, **options):
        self._notes, self.broken = notes, False
        notes.append(('stream', options))

    def __enter__(self):
        self._notes.append('current')
        return self

    def __exit__(self, *_):
        self._notes.append('not current')

    def begin_capture(self):
        self._notes.append('begin')

    def end_capture(self):
        self._notes.append('end')
        if self.broken:
            raise Error('the capture is broken')
        return types.SimpleNamespace(launch=lambda: self._notes.append('launch'))


class CuPy:
    """As much of the module as is used: what a block of memory may have, and what was asked."""

    def __init__(self, most=1000):
        self.notes = notes = []
        self.most, self.pools, self.allocate = most, [], None
        self.cuda = types.SimpleNamespace(
            Stream=self._stream, MemoryPool=self._pool, Memory=self._memory, using_allocator=self._using,
            MemoryPointer=lambda memory, offset: types.SimpleNamespace(mem=memory, ptr=memory.ptr + offset),
            UnownedMemory=lambda ptr, size, owner, device: types.SimpleNamespace(ptr=ptr, owner=owner, device=device),
            set_pinned_memory_allocator=lambda f: setattr(self, 'pinned', f),
            runtime=types.SimpleNamespace(CUDARuntimeError=Error),
            Device=lambda: types.SimpleNamespace(id=3, synchronize=lambda: notes.append('wait')))
        self.pinned = self._pinned = object()

    def _stream(self, **options):
        self.stream = Stream(self.notes, **options)
        return self.stream

    def _pool(self, base):
        self.pools.append(types.SimpleNamespace(malloc=base))
        return self.pools[-1]

    def _memory(self, size):
        if size > self.most:
            raise Error('out of memory')
        return types.SimpleNamespace(ptr=16, size=size)

    @contextlib.contextmanager
    def _using(self, allocate):
        self.allocate = allocate
        try:
            yield
        finally:
            self.allocate = None

    def get_default_memory_pool(self):
        return types.SimpleNamespace(free_all_blocks=lambda: self.notes.append('free'))

    def get_default_pinned_memory_pool(self):
        return types.SimpleNamespace(malloc=self._pinned)


@pytest.fixture
def cupy(monkeypatch):
    cupy = CuPy()
    monkeypatch.setattr(graph, 'cuda', types.SimpleNamespace(cupy=cupy))
    return cupy


def assert_nothing_is_left(cupy):
    assert cupy.pinned is cupy._pinned and cupy.allocate is None and graph._kept is None
    assert cupy.notes[-1] == 'not current'


def test_recording_and_launching(cupy):
    recorded = graph.Graph(lambda: cupy.notes.append('work'))
    assert cupy.notes == [('stream', {'non_blocking': True}), 'wait', 'free', 'current', 'begin', 'work', 'end',
                          'not current']
    assert_nothing_is_left(cupy)
    for _ in range(2):
        recorded.launch()
    assert cupy.notes[-2:] == ['launch', 'launch']


def test_memory_is_of_a_pool_that_each_array_holds(cupy):
    memory = []
    recorded = [graph.Graph(lambda: memory.append(cupy.allocate(100))) for _ in range(2)]
    assert len(cupy.pools) == len(recorded) == 2
    for pointer, pool in zip(memory, cupy.pools, strict=True):
        assert pointer.mem.owner[0] is pool and pointer.ptr == pointer.mem.owner[1].ptr and pointer.mem.device == 3


def test_out_of_memory_is_no_error_that_makes_a_pool_free_its_blocks(cupy):
    with pytest.raises(MemoryError, match='2000 bytes for a CUDA graph: out of memory'):
        graph.Graph(lambda: cupy.allocate(2000))
    assert_nothing_is_left(cupy)


def test_copies_from_the_host_are_refused(cupy):
    with pytest.raises(graph.NotRecordable, match='it copies 64 bytes from the host'):
        graph.Graph(lambda: cupy.pinned(64))
    assert_nothing_is_left(cupy)


@pytest.mark.parametrize('broken', [False, True])
@pytest.mark.parametrize('error', [NotImplementedError('cuBLAS'), KeyboardInterrupt()])
def test_an_error_ends_the_capture(cupy, broken, error):
    def work():
        cupy.stream.broken = broken
        raise error
    with pytest.raises(type(error)) as caught:
        graph.Graph(work)
    assert caught.value is error
    assert cupy.notes[-2:] == ['end', 'not current']
    assert_nothing_is_left(cupy)


def test_a_capture_that_is_broken_unnoticed(cupy):
    with pytest.raises(Error, match='broken'):
        graph.Graph(lambda: setattr(cupy.stream, 'broken', True))
    assert_nothing_is_left(cupy)


def test_what_is_kept(cupy):
    table = object()
    assert graph.keep(table) is table  # nothing is recorded
    recorded = graph.Graph(lambda: graph.keep(table))
    assert recorded._kept == [table]
    graph.keep(object())
    assert recorded._kept == [table]
    outer, inner = [], []
    with graph.keeping(outer):
        graph.keep(1)
        with graph.keeping(inner):
            graph.keep(2)
        graph.keep(3)
    assert (outer, inner) == ([1, 3], [2])
