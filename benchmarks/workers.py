"""Processes that carry out steps, one step at a time, when they are asked to.

Each engine has one of its own: its threads sleep while another engine works, and its memory is its alone.
"""
import importlib
import multiprocessing
import resource
import signal

from benchmarks.cases import ENGINES
from util.files import UserError


class Unavailable(Exception):
    """An engine cannot be used here. One line that says why."""


class Worker:
    """A process that has made its tasks by an engine, and waits; use it in a ``with`` statement.

    Args:
        engine (str): Its name; without ``maker`` one of ``benchmarks.cases.ENGINES``.
        arguments: Of the function ``make_steps``, after the engine: for those of ``ENGINES`` a Config.
        maker (str or None): The module that has ``make_steps``, which returns a dict: name of a task -> callable.

    """

    def __init__(self, engine, *arguments, maker=None):
        # Not forked: threads, and the engine that is installed, must not be this process's
        context = multiprocessing.get_context('spawn')
        self.engine = engine
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, maker or ENGINES[engine], engine, arguments),
                                        daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def wait(self, timeout=None):
        """Wait until it is ready; no longer than so many seconds.

        Raises:
            Unavailable: The engine cannot be used.
            UserError: The process has ended, or is not ready in time.

        """
        problem = self._receive(timeout)
        if problem is not None:
            raise Unavailable(problem)

    def run(self, task, *arguments, timeout=None):
        """Carry out a task, such as the step ``'D'`` or ``'G'``, and return what it returns.

        Args:
            task (str): Its name.
            arguments: What it is called with.
            timeout (float or None): Wait no longer than so many seconds.

        Raises:
            UserError: The process has ended, or has not answered in time.

        """
        self.begin(task, *arguments)
        return self._receive(timeout)

    def begin(self, task, *arguments):
        """Have it carry out a task, and do not wait; the next must be :meth:`end`."""
        try:
            self._connection.send((task, arguments))
        except OSError:
            pass  # it has gone, as will be found out

    def end(self, timeout=None):
        """Wait for what has begun; as :meth:`run`."""
        return self._receive(timeout)

    def peak_memory(self):
        """The most memory that the process has had so far, MiB. Raises UserError when it has ended."""
        return self.run('memory')

    def _receive(self, timeout=None):
        try:
            if timeout is not None and not self._connection.poll(timeout):
                raise UserError('{} has not answered in {:.0f} s'.format(self.engine, timeout))
            return self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise UserError('the process of {} has ended with exit status {}{}'.format(
                self.engine, self._process.exitcode,
                ': was there enough memory?' if self._process.exitcode == -signal.SIGKILL else '')) from error


def _serve(connection, maker, engine, arguments):
    """What the process does: say whether it is ready, then answer what is asked until nobody is there to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    try:
        tasks = importlib.import_module(maker).make_steps(engine, *arguments)
    except (UserError, ImportError) as error:
        connection.send(' '.join(str(error).split()))
        return
    tasks.setdefault('memory', _peak_memory)
    try:
        connection.send(None)
        while True:
            task, arguments = connection.recv()
            connection.send(tasks[task](*arguments))
    except (EOFError, BrokenPipeError):
        pass


def _peak_memory():
    # KiB. It is at least what the process had that started this one
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
