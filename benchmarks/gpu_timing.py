"""Clocks and counters of a device, for a process that repeats one iteration."""
import time
import traceback

IN_FLIGHT = 8  # iterations that the host may be ahead of the device
LEAST = 3  # iterations of a turn


class HostClock:
    """A clock for the CPU; with a device, subclasses mark the time there."""

    def mark(self):
        """A point in time, after all work that was queued before."""
        return time.perf_counter()

    def between(self, start, stop):
        """Milliseconds from one mark to another."""
        return 1e3 * (stop - start)

    def wait(self, mark):
        """Wait until the device has come to a mark."""

    def synchronize(self):
        """Wait until the device has done everything."""

    def free_memory(self):
        """Bytes of the device that nobody has taken; ``None`` on a CPU."""


class CupyClock(HostClock):
    """Marks are CuPy's events in its current stream."""

    def __init__(self, cupy):
        self._cuda = cupy.cuda

    def mark(self):
        event = self._cuda.Event()
        event.record()
        return event

    def between(self, start, stop):
        return self._cuda.get_elapsed_time(start, stop)

    def wait(self, mark):
        mark.synchronize()

    def synchronize(self):
        self._cuda.Device().synchronize()

    def free_memory(self):
        return self._cuda.runtime.memGetInfo()[0]


class TorchClock(HostClock):
    """Marks are PyTorch's events in its current stream."""

    def __init__(self, torch):
        self._cuda = torch.cuda

    def mark(self):
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start, stop):
        return start.elapsed_time(stop)

    def wait(self, mark):
        mark.synchronize()

    def synchronize(self):
        self._cuda.synchronize()

    def free_memory(self):
        return self._cuda.mem_get_info()[0]


def take_turn(iterate, clock, seconds, most):
    """Repeat an iteration for a while, after one that does not count.

    Args:
        iterate (callable): One iteration.
        clock (HostClock): What measures.
        seconds (float): How long, about; but not fewer than ``LEAST`` iterations.
        most (int): No more iterations than this.

    Returns:
        dict: ``'ms'``: milliseconds of each iteration, from mark to mark. ``'wall'``: milliseconds of one by this
        machine's own clock. Both are much the same, or the marks are not where the work is.

    """
    iterate()
    clock.synchronize()
    start, marks = time.perf_counter(), [clock.mark()]
    while len(marks) <= most and (len(marks) <= LEAST or time.perf_counter() - start < seconds):
        iterate()
        marks.append(clock.mark())
        if len(marks) > IN_FLIGHT:
            clock.wait(marks[-IN_FLIGHT])
    clock.synchronize()
    wall = 1e3 * (time.perf_counter() - start) / (len(marks) - 1)
    return {'ms': [clock.between(*pair) for pair in zip(marks, marks[1:])], 'wall': wall}  # noqa: B905


def can_trace():
    """Whether PyTorch is installed and sees a GPU. It is not imported before, as it takes seconds and loads libraries.
    """
    try:
        import torch
        return torch.cuda.is_available()
    except (ImportError, OSError):  # not there; or libraries that do not fit those of this process
        return False


def count_kernels(iterate, clock):
    """Kernels of one iteration, as PyTorch's profiler (CUPTI) traces them for the whole process, whoever launched them.

    Args:
        iterate (callable): One iteration.
        clock (HostClock): Its device's.

    Returns:
        tuple or None: How many, and the sum of their times in milliseconds. Kernels that a CUDA graph launches are
        among them, copies and fills are not. ``None`` where nothing is traced.

    """
    if not can_trace():
        return None
    import torch
    from torch.autograd import DeviceType
    iterate()
    clock.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        iterate()
        clock.synchronize()
    times = [event.time_range.elapsed_us() for event in profile.events()
             if event.device_type == DeviceType.CUDA and not getattr(event, 'is_user_annotation', False)
             and not event.name.startswith(('Memcpy', 'Memset'))]
    return (len(times), sum(times) / 1e3) if times else None


def guarded(task):
    """The task, which returns (``None``, result), or what went wrong in one line and ``None``. It never raises."""
    def wrapper(*arguments):
        try:
            return None, task(*arguments)
        except Exception as error:  # a variant that fails must not take the others with it
            traceback.print_exc()
            return ' '.join('{}: {}'.format(type(error).__name__, error).split())[:300], None
    return wrapper
