"""Which code Chainer's functions run: Chainer's own (``stock``), or an engine's, of a CPU or of a GPU.

    with using_engine('numpy'):
        loss.backward()

An engine replaces the CPU code, or the GPU code, of some of Chainer's functions, for the whole process and all its
threads. Nothing else changes: a network, a snapshot or a half-built graph knows of no engine, and what an engine does
not cover (other types than float32, groups, arrays on the other kind of device) runs as before. Work on a CPU is split
among as many threads as BLAS has when the engine is installed; until it is uninstalled, BLAS itself has one.
"""
import contextlib
import functools
import threading

from util.device import kind
from util.engine import convolution, gpu_nodes, nodes
from util.engine.memory import keep_memory
from util.engine.threads import hold_blas, let_go_of_blas
from util.files import UserError


def _load_onednn():
    from util.engine import onednn  # now, not above: whoever does not ask for it shall not wait for it
    onednn.load()
    return onednn


def _load_cudnn(precision):
    from util.engine import cudnn
    return cudnn.load(precision)


# For each kind of device: name -> a function that returns what computes the engine's convolutions. A new engine is a
# row here.
ENGINES = {
    'cpu': {'stock': None, 'numpy': lambda: convolution, 'onednn': _load_onednn},
    'cuda': {'stock': None, 'cudnn': functools.partial(_load_cudnn, 'tf32'),
             'cudnn-bf16': functools.partial(_load_cudnn, 'bf16'),
             'cudnn-fp32': functools.partial(_load_cudnn, 'fp32')},
}
AUTO = {'cpu': ('onednn', 'numpy'), 'cuda': ('cudnn', 'stock')}  # "auto" is the first of them that can be loaded
HELP = 'what computes: on a CPU {}; on a GPU {}; or auto (default), which is {}'.format(
    *(', '.join(ENGINES[k]) for k in ('cpu', 'cuda')),
    ', and '.join(' where it can be loaded, else '.join(names) for names in AUTO.values()))

_lock = threading.RLock()
_state = {'name': 'stock', 'of': 'cpu', 'replaced': ()}  # of (class, method, Chainer's or whoever's own)


def current():
    """The name of the engine that is installed."""
    return _state['name']


def install(name, first=None, of='cpu', say=None):
    """Run Chainer's functions by this engine, in the place of the one that was installed.

    Args:
        name (str): One of ``ENGINES[of]``, or ``'auto'``; ``'stock'`` uninstalls.
        first (str or None): An engine that ``'auto'`` tries before the others.
        of (str): The kind of device that computes, ``'cpu'`` or ``'cuda'``.
        say (callable or None): Gets a line where ``'auto'`` falls back to ``'stock'``.

    Raises:
        UserError: There is no such engine, or it cannot be loaded; then the one that was installed still is.

    """
    _check(name, of)
    with _lock:
        if name == current():
            return
        name, core = _load_first((first, *AUTO[of]) if name == 'auto' else (name,), ENGINES[of], say)
        if name == current():
            return
        uninstall()
        if core is None:
            return
        _replace(core, *((nodes.CONVOLUTIONS, nodes.OTHERS) if of == 'cpu' else (gpu_nodes.COMPUTED, gpu_nodes.OTHERS)))
        if of == 'cpu':
            hold_blas()
            keep_memory()
        _state.update(name=name, of=of)


def _check(name, of):
    if name == 'auto' or name in ENGINES[of]:
        return
    where = {'cpu': 'on a CPU', 'cuda': 'on a GPU'}[of]
    raise UserError('--engine must be auto or one of {} {}, not {!r}'.format(', '.join(ENGINES[of]), where, name))


def _load_first(names, engines, say):
    """Name and what computes convolutions, of the first of these engines that can be loaded."""
    problem = None
    for name in names:
        try:
            if name not in engines:
                continue
            core = engines[name] and engines[name]()
        except UserError as error:
            if name == names[-1]:
                raise
            problem = error
            continue
        if problem and name == 'stock' and say:
            say("*** {}. Convolutions are CuPy's matrix products instead, which is slower ***".format(problem))
        return name, core


def _replace(core, computed, others):
    """Put replacements in the place of methods; those of the first table get ``core`` as their first argument."""
    table = [(cls, method, functools.partial(replacement, core)) for cls, method, replacement in computed]
    _state['replaced'] = replaced = []
    for cls, method, replacement in (*table, *others):
        stock = vars(cls)[method]
        replaced.append((cls, method, stock))
        setattr(cls, method, _method(replacement, stock))


def uninstall():
    """Put everything back as it was found."""
    with _lock:
        for cls, method, stock in _state['replaced']:
            setattr(cls, method, stock)
        let_go_of_blas()
        _state.update(name='stock', of='cpu', replaced=())


@contextlib.contextmanager
def using_engine(name, first=None, device=None, say=None):
    """:func:`install` an engine in a ``with`` statement, then the one that was there before. May be nested.

    Args:
        name (str), first (str or None), say (callable or None): As of :func:`install`.
        device (chainer.backend.Device or None): What computes; ``None``: a CPU.

    """
    of = 'cpu' if device is None else kind(device)
    before = current(), _state['of']
    install(name, first, of, say)
    try:
        yield
    finally:
        install(before[0], of=before[1])


@contextlib.contextmanager
def full_precision():
    """Let a GPU multiply float32 numbers as such, whatever the engine does else: for networks that measure."""
    if current() not in ('cudnn', 'cudnn-bf16'):
        yield
        return
    before = current()
    install('cudnn-fp32', of='cuda')
    try:
        yield
    finally:
        install(before, of='cuda')


def _method(replacement, stock):
    @functools.wraps(stock)
    def method(self, *args, **kwargs):
        return replacement(stock, self, *args, **kwargs)
    return method
