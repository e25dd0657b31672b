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


def _load_onednn():
    from util.engine import onednn  # now, not above: whoever does not ask for it shall not wait for it
    onednn.load()
    return onednn


# Name -> a function that returns what computes the engine's convolutions. A new engine is a row here.
ENGINES = {'stock': None, 'numpy': lambda: convolution, 'onednn': _load_onednn}
AUTO = ('onednn', 'numpy')  # "auto" is the first of them that can be loaded
HELP = 'what computes on a CPU: {}, or auto, which is {} (default: auto)'.format(
    ', '.join(ENGINES), ' where it can be loaded, else '.join(AUTO))

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
        UserError: There is no such engine, or it cannot be loaded; then the one that was installed still is.

    """
    if name != 'auto' and name not in ENGINES:
        raise UserError('--engine must be auto or one of {}, not {!r}'.format(', '.join(ENGINES), name))
    with _lock:
        if name == current():
            return
        name, core = _load_first(AUTO if name == 'auto' else (name,))
        if name == current():
            return
        uninstall()
        if core is None:
            return
        table = [(cls, method, functools.partial(replacement, core)) for cls, method, replacement in nodes.CONVOLUTIONS]
        replaced = []
        for cls, method, replacement in (*table, *nodes.OTHERS):
            stock = vars(cls)[method]
            replaced.append((cls, method, stock))
            setattr(cls, method, _method(replacement, stock))
        _state.update(name=name, replaced=replaced)


def _load_first(names):
    """Name and what computes convolutions, of the first of these engines that can be loaded."""
    for name in names:
        try:
            return name, ENGINES[name] and ENGINES[name]()
        except UserError:
            if name == names[-1]:
                raise


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
