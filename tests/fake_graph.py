"""A CUDA graph on the CPU: it treats the host and the device as a real one does, see util/engine/graph.py.

While it records, the host works and the device does not: parameters, moments, vectors and statistics are put back.
When it is launched, the device works and the host does not: its counts of updates must be what the device then has.
"""
import contextlib

import numpy as np


class FakeGraph:
    """The work of an updater's iteration.

    Args:
        updater (CapturedGANUpdater): Whose.
        work (callable): The iteration.

    """

    def __init__(self, updater, work):
        self._updater, self._work, self.launches = updater, work, 0
        self._counted = counts(updater)  # on the device
        before = [array.copy() for array in arrays(updater)]
        places = arrays(updater)
        try:
            with chosen(updater, recording=True) as self._reported:
                work()
        finally:
            for array, saved in zip(places, before, strict=True):
                array[...] = saved

    def bring_counts(self):
        """What FlatAdam does by itself on a GPU, after somebody has changed them."""
        self._counted = counts(self._updater)

    def launch(self):
        self.launches += 1
        expected = counts(self._updater)
        set_counts(self._updater, self._counted)
        places = [id(array) for array in arrays(self._updater)]
        with chosen(self._updater) as reported:
            self._work()
        assert places == [id(array) for array in arrays(self._updater)]
        self._counted = counts(self._updater)
        assert self._counted == expected  # the host has foreseen what the device counts
        for old, new in zip(self._reported, reported, strict=True):
            old[...] = new


def arrays(updater):
    """All that the device keeps: parameters, moments, persistent values, in place."""
    found = []
    for optimizer in updater.get_all_optimizers().values():
        for param in optimizer.target.params():
            found += [param.array, *(param.update_rule.state or {}).values()]
        for link in optimizer.target.links():
            found += [getattr(link, name) for name in sorted(link._persistent)]
    return [array for array in found if isinstance(array, np.ndarray)]


def counts(updater):
    return [optimizer.counts() for optimizer in updater.get_all_optimizers().values()]


def set_counts(updater, counts):
    for optimizer, (t, of_rules) in zip(updater.get_all_optimizers().values(), counts, strict=True):
        optimizer.t = t
        for rule, count in of_rules:
            rule.t = count


@contextlib.contextmanager
def chosen(updater, recording=False):
    """Collects the arrays that are reported, and lets the updater see them only while it records."""
    reported, report = [], type(updater).report
    updater.report = lambda values, observer=None: (
        reported.extend(values.values()), recording and report(updater, values, observer))
    try:
        yield reported
    finally:
        del updater.report
