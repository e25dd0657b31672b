"""CUDA graphs: work on a GPU that is recorded once, and then repeated by one launch.

A recording has the addresses of all that its kernels read and write, and all numbers that the host gave them. So the
work may not depend on anything that only the host knows and that changes, and where its arrays lie must stay theirs:

- What the work allocates comes from a memory pool of its own. What is freed while it is recorded is used again by what
  is recorded after that, which is right, as it also runs after that; nobody else ever gets it.
- What was there before must be kept by whoever has the work recorded. Things that are there for a while only, such as
  tables in a cache, are kept by the recording: see :func:`keep`.
- Copies from the host's memory are refused, as they would be repeated from memory that is long somebody else's. CuPy
  itself refuses cuBLAS, cuRAND, cuSOLVER and cuSPARSE, and CUDA whatever waits for the device.

The work should have run before: a kernel's first launch compiles it, and tables are sent then.
"""
import contextlib
import gc

from chainer.backends import cuda

_kept = None  # a list while something is recorded


class NotRecordable(RuntimeError):
    """Work cannot be recorded; the message says why."""


def keep(x):
    """Keep something whose address goes to a kernel for as long as the recording that is being made, if one is.

    Returns:
        The same.

    """
    if _kept is not None:
        _kept.append(x)
    return x


@contextlib.contextmanager
def keeping(kept):
    """In a ``with`` statement, have :func:`keep` append to the list ``kept``."""
    global _kept
    before, _kept = _kept, kept
    try:
        yield kept
    finally:
        _kept = before


class Graph:
    """The work that a function does on the current device, recorded. While it is recorded, nothing runs.

    Args:
        work (callable): Gets no arguments. It leaves arrays where it likes; they have contents after each launch.

    Raises:
        NotRecordable, NotImplementedError, RuntimeError, MemoryError: It cannot be recorded: something that it does is
            refused. And whatever else it raises. On the device nothing has happened then.

    """

    def __init__(self, work):
        cupy, self._kept = cuda.cupy, []
        self._pool = pool = cupy.cuda.MemoryPool(_allocate)
        stream = cupy.cuda.Stream(non_blocking=True)

        def allocate(size):
            # An array holds the pool, too: a pool that goes takes along the memory of all its arrays
            memory = pool.malloc(size)
            owned = cupy.cuda.UnownedMemory(memory.ptr, size, (pool, memory), cupy.cuda.Device().id)
            return cupy.cuda.MemoryPointer(owned, 0)
        gc.collect()  # now, not while recording: what it frees may be another graph
        cupy.cuda.Device().synchronize()
        cupy.get_default_memory_pool().free_all_blocks()  # the pool needs as much as the work has used there
        with keeping(self._kept), _no_copies_from_host(cupy), cupy.cuda.using_allocator(allocate), stream:
            self._graph = _capture(stream, work)

    def launch(self):
        """Run the work once more, in the order of the current stream; returns before it is done."""
        self._graph.launch()


def _capture(stream, work):
    stream.begin_capture()  # in CuPy's default mode, relaxed: allocating memory is allowed
    try:
        work()
    except BaseException:
        with contextlib.suppress(Exception):  # of a capture that is broken, which it says again
            stream.end_capture()
        raise
    return stream.end_capture()


def _allocate(size):
    """Memory from CUDA, or MemoryError. After CUDA's own error a pool would give free memory back, which is in use."""
    cupy = cuda.cupy
    try:
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise MemoryError('{} bytes for a CUDA graph: {}'.format(size, error)) from error


@contextlib.contextmanager
def _no_copies_from_host(cupy):
    """Refuse them: CuPy makes them through pinned memory. Numbers that go with a launch are no copies."""
    def refuse(size):
        raise NotRecordable('it copies {} bytes from the host'.format(size))
    cupy.cuda.set_pinned_memory_allocator(refuse)
    try:
        yield
    finally:
        cupy.cuda.set_pinned_memory_allocator(cupy.get_default_pinned_memory_pool().malloc)
