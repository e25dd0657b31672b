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
    """A process that has made the steps of a Config by an engine, and waits; use it in a ``with`` statement.

    Args:
        engine (str): One of ``benchmarks.cases.ENGINES``.
        config (Config): What is trained.

    """

    def __init__(self, engine, config):
        # Not forked: threads, and the engine that is installed, must not be this process's
        context = multiprocessing.get_context('spawn')
        self.engine = engine
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, engine, config), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def wait(self):
        """Wait until it is ready.

        Raises:
            Unavailable: The engine cannot be used.
            UserError: The process has ended.

        """
        problem = self._receive()
        if problem is not None:
            raise Unavailable(problem)

    def run(self, step):
        """Carry out a step, ``'D'`` or ``'G'``. Raises UserError when the process has ended."""
        self._ask(step)

    def peak_memory(self):
        """The most memory that the process has had so far, MiB. Raises UserError when it has ended."""
        return self._ask('memory')

    def _ask(self, what):
        try:
            self._connection.send(what)
        except OSError:
            pass  # it has gone, as is found out at once
        return self._receive()

    def _receive(self):
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise UserError('the process of {} has ended with exit status {}{}'.format(
                self.engine, self._process.exitcode,
                ': was there enough memory?' if self._process.exitcode == -signal.SIGKILL else '')) from error


def _serve(connection, engine, config):
    """What the process does: say whether it is ready, then answer what is asked until nobody is there to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    try:
        steps = importlib.import_module(ENGINES[engine]).make_steps(engine, config)
    except (UserError, ImportError) as error:
        connection.send(' '.join(str(error).split()))
        return
    try:
        connection.send(None)
        while True:
            what = connection.recv()
            if what == 'memory':  # KiB. It is at least what the process had that started this one
                connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            else:
                steps[what]()
                connection.send(None)
    except (EOFError, BrokenPipeError):
        pass
