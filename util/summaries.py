"""Chainer's LogReport with a GPU in mind: what is observed there is added up by one launch an iteration.

Chainer's own takes five for each number. Results, snapshots and the log are the same.
"""
import chainer
from chainer import reporter
from chainer.training import extensions

from util.engine import scalars


class LogReport(extensions.LogReport):
    """Trainer extension: Chainer's, with its arguments."""

    def _init_summary(self):
        self._summary = Summaries()


class Summaries(reporter.DictSummary):
    """Chainer's DictSummary. The sums of the numbers that are on a GPU are parts of two arrays, see ``scalars.py``."""

    def __init__(self):
        super().__init__()
        self._keys, self._sums = None, None  # of the numbers that have sums there

    def add(self, d):
        """Add some numbers: name -> number, or an array or Variable of one."""
        arrays = {key: array for key, array in ((k, chainer.as_array(v)) for k, v in d.items()
                                                if not isinstance(v, tuple)) if scalars.on_gpu(array)}
        if self._keys is None and arrays and not any(key in self._summaries for key in arrays):
            for key in d:  # in this order, as Chainer's
                if key in arrays:
                    self._summaries[key]  # noqa: B018
                else:
                    super().add({key: d[key]})
            self._begin(arrays)
        elif self._keys == tuple(arrays) and arrays:
            super().add({key: value for key, value in d.items() if key not in arrays})
        else:  # other numbers than before, or sums that were loaded
            super().add(d)
            return
        scalars.accumulate(list(arrays.values()), *self._sums)
        for key in arrays:
            self._summaries[key]._n += 1

    def _begin(self, arrays):
        xp = chainer.backend.get_array_module(next(iter(arrays.values())))
        self._keys, self._sums = tuple(arrays), [xp.zeros(len(arrays), 'f') for _ in range(2)]
        for i, key in enumerate(arrays):
            summary = self._summaries[key]
            summary._x, summary._x2 = (sums[i:i + 1].reshape(()) for sums in self._sums)

    def serialize(self, serializer):
        """Save or restore the sums, as Chainer's does."""
        if isinstance(serializer, chainer.Deserializer):
            self._keys = ()
        super().serialize(serializer)
