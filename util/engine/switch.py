"""Which code Chainer's functions run on a CPU: Chainer's own (``stock``), or an engine's.

    with using_engine('numpy'):
        loss.backward()

An engine replaces the CPU code of some of Chainer's functions, for the whole process and all its threads. Nothing else
changes: a network, a snapshot or a half-built graph knows of no engine, and what an engine does not cover (other types
than float32, groups, arrays on a GPU) runs as before.
"""
import contextlib
import functools
import threading

from util.engine import convolution, nodes
from util.files import UserError

# Name -> what computes its convolutions. A new engine is a row here.
ENGINES = {'stock': None, 'numpy': convolution}
AUTO = 'numpy'  # what "auto" is
HELP = 'what computes on a CPU: {}, or auto, which is {} (default: auto)'.format(', '.join(ENGINES), AUTO)

_lock = threading.RLock()
_state = {'name': 'stock', 'replaced': ()}  # of (class, method, Chainer's or whoever's own)


def current():
    """The name of the engine that is installed."""
    return _state['name']


def install(name):
    """Run Chainer's functions by this engine, in the place of the one that was installed.

    Args:
        name (str): One of ``ENGINES``, or ``'auto'``; ``'stock'`` uninstalls.

    Raises:
        UserError: There is no such engine.

    """
    name = AUTO if name == 'auto' else name
    if name not in ENGINES:
        raise UserError('--engine must be auto or one of {}, not {!r}'.format(', '.join(ENGINES), name))
    with _lock:
        if name == current():
            return
        uninstall()
        core = ENGINES[name]
        if core is None:
            return
        table = [(cls, method, functools.partial(replacement, core)) for cls, method, replacement in nodes.CONVOLUTIONS]
        replaced = []
        for cls, method, replacement in (*table, *nodes.OTHERS):
            stock = vars(cls)[method]
            replaced.append((cls, method, stock))
            setattr(cls, method, _method(replacement, stock))
        _state.update(name=name, replaced=replaced)


def uninstall():
    """Put everything back as it was found."""
    with _lock:
        for cls, method, stock in _state['replaced']:
            setattr(cls, method, stock)
        _state.update(name='stock', replaced=())


@contextlib.contextmanager
def using_engine(name):
    """Install an engine in a ``with`` statement, then the one that was there before. May be nested."""
    before = current()
    install(name)
    try:
        yield
    finally:
        install(before)


def _method(replacement, stock):
    @functools.wraps(stock)
    def method(self, *args, **kwargs):
        return replacement(stock, self, *args, **kwargs)
    return method
