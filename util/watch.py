"""Trainer extensions and triggers that keep an eye on a run: numbers that are none, signals, and the time left."""
import math
import signal
import sys

import chainer
import numpy as np


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


class StopTrigger:
    """The Trainer's stop trigger: the last iteration, or SIGTERM or Ctrl-C, after which the iteration at hand is
    finished.

    As a context manager it catches these signals. A second one ends the process at once.
    """

    def __init__(self, last):
        self.last, self.signal = last, None

    def __enter__(self):
        self._old = {s: signal.signal(s, self._catch) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _catch(self, number, frame):
        self.signal = number
        signal.signal(number, self._old[number])

    def __call__(self, trainer):
        return self.signal is not None or trainer.updater.iteration >= self.last

    def get_training_length(self):
        """What Chainer's progress bar asks for."""
        return self.last, 'iteration'


class NonNumberError(Exception):
    """A NaN or an infinity came up in training; the message names iteration and layer."""


class StopOnNonNumber(chainer.training.Extension):
    """Trainer extension: ends the run at the first NaN or infinity in what was observed or in a parameter.

    On a GPU it only notes, on the device, the first iteration with one, and asks every ``interval`` iterations: asking
    waits for the device. It comes before all extensions that write, and asks before each iteration in which they do, so
    that no snapshot is poisoned.

    Args:
        models (dict): Name to network; layers are looked for in this order.
        interval (int): Iterations between two looks on a GPU.
        writes (sequence of callable): Triggers of the extensions that write.

    """

    priority = chainer.training.extension.PRIORITY_EDITOR + 1000
    trigger = 1, 'iteration'

    def __init__(self, models, interval, writes=()):
        self._models, self._interval, self._writes = models, interval, writes
        self._first = None

    def __call__(self, trainer):
        iteration = trainer.updater.iteration
        xp = next(iter(self._models.values())).xp
        self._note(xp, trainer.observation.values(), iteration)
        if xp is not np and iteration % self._interval and not any(t(trainer) for t in self._writes):
            return
        if math.isfinite(float(self._first)):
            raise NonNumberError(self._describe(int(self._first), trainer.observation))

    def _note(self, xp, observed, iteration):
        # One number a network is enough: a sum is finite unless a term is not, or it overflows, which is as bad.
        arrays = [xp.asarray(x, 'd').sum() for x in map(_array, observed) if x is not None]
        arrays += [p.array.sum(dtype='d') for m in self._models.values() for p in m.params(include_uninit=False)]
        bad = ~xp.isfinite(xp.stack(arrays)).all()
        now = xp.where(bad, float(iteration), math.inf)
        self._first = now if self._first is None else xp.minimum(self._first, now)

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
