"""Which code Chainer's functions run on a CPU: Chainer's own (``stock``), or an engine's.

    with using_engine('numpy'):
        loss.backward()

An engine replaces the CPU code of some of Chainer's functions, for the whole process and all its threads. Nothing else
changes: a network, a snapshot or a half-built graph knows of no engine, and what an engine does not cover (other types
than float32, groups, arrays on a GPU) runs as before. Work is split among as many threads as BLAS has when the engine
is installed; until it is uninstalled, BLAS itself has one.
"""
import contextlib
import functools
import threading

from util.device import kind
from util.engine import convolution, nodes
from util.engine.memory import keep_memory
from util.engine.threads import hold_blas, let_go_of_blas
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


def install(name, first=None):
    """Run Chainer's functions by this engine, in the place of the one that was installed.

    Args:
        name (str): One of ``ENGINES``, or ``'auto'``; ``'stock'`` uninstalls.
        first (str or None): An engine that ``'auto'`` tries before the others.

    Raises:
        UserError: There is no such engine, or it cannot be loaded; then the one that was installed still is.

    """
    _check(name)
    with _lock:
        if name == current():
            return
        name, core = _load_first((first, *AUTO) if name == 'auto' else (name,))
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
        hold_blas()
        keep_memory()
        _state.update(name=name, replaced=replaced)


def _check(name):
    if name != 'auto' and name not in ENGINES:
        raise UserError('--engine must be auto or one of {}, not {!r}'.format(', '.join(ENGINES), name))


def _load_first(names):
    """Name and what computes convolutions, of the first of these engines that can be loaded."""
    for name in names:
        try:
            if name in ENGINES:
                return name, ENGINES[name] and ENGINES[name]()
        except UserError:
            if name == names[-1]:
                raise


def uninstall():
    """Put everything back as it was found."""
    with _lock:
        for cls, method, stock in _state['replaced']:
            setattr(cls, method, stock)
        let_go_of_blas()
        _state.update(name='stock', replaced=())


@contextlib.contextmanager
def using_engine(name, first=None, device=None):
    """:func:`install` an engine in a ``with`` statement, then the one that was there before. May be nested.

    Args:
        name (str), first (str or None): As of :func:`install`.
        device (chainer.backend.Device or None): Of the work; where that is no CPU it is ``'stock'``, and BLAS has its
            threads.

    """
    before = current()
    _check(name)
    install(name if device is None or kind(device) == 'cpu' else 'stock', first)
    try:
        yield
    finally:
        install(before)


def _method(replacement, stock):
    @functools.wraps(stock)
    def method(self, *args, **kwargs):
        return replacement(stock, self, *args, **kwargs)
    return method
