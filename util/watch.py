"""Trainer extensions and triggers that keep an eye on a run: numbers that are none, signals, and the time left."""
import json
import math
import signal
import sys

import chainer
import numpy as np
from chainer.backends import cuda

from util.engine import scalars
from util.engine.flat_adam import FlatAdam
from util.files import atomic_write


class EveryOrLast:
    """Trigger: every ``period`` iterations, and at the last one. It has no state, so a resumed run needs none."""

    def __init__(self, period, last):
        self.period, self.last = period, last

    def __call__(self, trainer):
        iteration = trainer.updater.iteration
        return iteration > 0 and (iteration % self.period == 0 or iteration == self.last)


class Terminal:
    """Standard output for Chainer's PrintReport, without its escape sequences when nobody's terminal reads them."""

    def write(self, text):
        sys.stdout.write(text if sys.stdout.isatty() else text.replace('\033[J', ''))

    def flush(self):
        sys.stdout.flush()


class WriteLog(chainer.training.Extension):
    """Trainer extension: writes what LogReport has collected to ``log``, Chainer's JSON list, whole or not at all."""

    priority = chainer.training.extension.PRIORITY_READER - 1

    def __init__(self, directory):
        self._path = directory.file('log')

    def __call__(self, trainer):
        with atomic_write(self._path) as temporary, open(temporary, 'w', encoding='utf-8') as f:
            json.dump(trainer.get_extension('LogReport').log, f, indent=4)


class StopTrigger:
    """The Trainer's stop trigger: the last iteration, or SIGTERM or Ctrl-C, after the iteration at hand.

    As a context manager it catches these signals. A second Ctrl-C ends the process at once; SIGTERM does not, because
    make passes it on to a process that may have had it already.

    Attributes:
        last (int): The last iteration.
        signal (int or None): The signal that came.
        latched (bool): Whether this iteration is the last for a signal's sake; decided once an iteration, by
            :meth:`latch`, so that all extensions see the same.

    """

    def __init__(self, last):
        self.last, self.signal, self.latched = last, None, False

    def __enter__(self):
        self._old = {s: signal.signal(s, self._catch) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _catch(self, number, frame):
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(number, self._old[number])

    def latch(self, trainer):
        """Decide whether a signal ends the run after this iteration; a trigger."""
        self.latched = self.signal is not None
        return self.latched

    def __call__(self, trainer):
        return self.latched or trainer.updater.iteration >= self.last

    def get_training_length(self):
        """What Chainer's progress bar asks for."""
        return self.last, 'iteration'


class NonNumberError(Exception):
    """A NaN or an infinity came up in training; the message names iteration and layer.

    Attributes:
        iteration (int): The first with one.

    """

    def __init__(self, iteration, message):
        super().__init__(message)
        self.iteration = iteration


class StopOnNonNumber(chainer.training.Extension):
    """Trainer extension: ends the run at the first NaN or infinity in what was observed or in a parameter.

    On a GPU it only notes, on the device, the first iteration with one, and asks every ``interval`` iterations: asking
    waits for the device. It comes before all extensions that write, and asks before each iteration in which they do, so
    that no parameter is saved that is none.

    Args:
        models (dict): Name to network; layers are looked for in this order.
        interval (int): Iterations between two looks on a GPU.
        writes (sequence of callable): Triggers of the extensions that write.
        optimizers (iterable of chainer.Optimizer): The networks'; a FlatAdam's buffer is looked at as a whole.

    """

    priority = chainer.training.extension.PRIORITY_EDITOR + 1000
    trigger = 1, 'iteration'

    def __init__(self, models, interval, writes=(), optimizers=()):
        self._models, self._interval, self._writes = models, interval, writes
        self._optimizers = [optimizer for optimizer in optimizers if isinstance(optimizer, FlatAdam)]
        self._first = math.inf  # on a GPU an array from the first look on

    def __call__(self, trainer):
        iteration = trainer.updater.iteration
        xp = next(iter(self._models.values())).xp
        self._note(xp, trainer.observation.values(), iteration)
        writes = [trigger(trainer) for trigger in self._writes]
        if xp is not np and iteration % self._interval and not any(writes):  # pragma: no cover - gpu
            return
        if math.isfinite(float(self._first)):
            raise NonNumberError(int(self._first), self._describe(int(self._first), trainer.observation))

    def _note(self, xp, observed, iteration):
        # One number is enough: a sum is finite unless a term is not, or it overflows, which is as bad.
        observed = [x for x in map(_array, observed) if x is not None]
        on_device = [x for x in observed if isinstance(x, cuda.ndarray)]
        with np.errstate(all='ignore'):
            total = sum(float(np.sum(x, dtype='d')) for x in observed if not isinstance(x, cuda.ndarray))
            total = sum((x.sum(dtype='d') for x in self._parameters()), total)
        if xp is not np:  # pragma: no cover - gpu
            self._note_on_gpu(xp, on_device, total, iteration)
        elif not math.isfinite(total):
            self._first = min(self._first, iteration)

    def _note_on_gpu(self, xp, observed, total, iteration):  # pragma: no cover - gpu
        small = [x for x in observed if scalars.on_gpu(x)]
        total = sum((x.sum(dtype='d') for x in observed if not scalars.on_gpu(x)), total)
        total = sum((scalars.gather(small).sum(dtype='d'),) if small else (), total)
        if not isinstance(self._first, xp.ndarray):
            self._first = xp.full((), self._first)
        cuda.elementwise('float64 total, float64 iteration', 'float64 first',
                         'if (!isfinite(total) && iteration < first) first = iteration', 'note_non_number')(
                             total, iteration, self._first)

    def _parameters(self):
        """Arrays that together have all parameters: few, where these are in buffers."""
        buffers = [each for optimizer in self._optimizers for each in optimizer.together()]
        inside = {id(param) for _, params in buffers for param in params}
        rest = [p.array for m in self._models.values() for p in m.params(include_uninit=False) if id(p) not in inside]
        return [buffer for buffer, _ in buffers] + rest

    def _describe(self, iteration, observation):
        layers = [name + path for name, m in self._models.items() for path, p in m.namedparams(include_uninit=False)
                  if not m.xp.isfinite(p.array).all()]
        values = {key: _array(x) for key, x in observation.items()}
        values = [key for key, x in values.items() if x is not None and not math.isfinite(float(x))]
        return 'a NaN or an infinity at iteration {}: in {}'.format(
            iteration, ', '.join(layers[:3] + values[:3]) or 'an earlier iteration')


def _array(x):
    x = getattr(x, 'array', x)
    return x if isinstance(x, float) or getattr(getattr(x, 'dtype', None), 'kind', '') == 'f' else None
