"""Iterations as CUDA graphs: after a few that run as ever, each is one launch, and the host has hardly any work."""
import math
import typing

import numpy as np

from util.engine.flat_adam import FlatAdam
from util.engine.graph import Graph, NotRecordable
from util.updater import Draws, GANUpdater

WARM_UP = 2  # iterations: the first makes the optimizers' buffers, the second tables with addresses in them


class CapturedGANUpdater(GANUpdater):
    """A GANUpdater that records, on a GPU, the generator's step and all of the discriminator's in one CUDA graph.

    What is random is drawn before, and copied to where the graph reads it. Adam's alpha, which may fall, and the number
    of updates are brought up to date before each launch; anything else that the host decides (``loss``, ``n_dis``,
    coefficients, beta1) is what it was when the graph was recorded. Snapshots have all that those of a GANUpdater have,
    and nothing else. They may be loaded at any time; where parameters, moments or persistent values are other arrays
    than the graph's (after ``to_device``), the next two iterations run as ever, and then it is recorded anew.

    Where an iteration cannot be recorded (see ``util/engine/graph.py``), a line says so, and the run goes on without.
    The reported numbers are the graph's arrays: whoever wants to keep one over iterations must copy it.

    Args:
        *args, **kwargs: As of GANUpdater. The optimizers must be FlatAdams for anything to be recorded.
        say (callable): Gets the line.
        record (callable or None): Takes the work, returns an object with ``launch()``: :class:`util.engine.graph.Graph`
            or what stands in for it in a test. ``None``: the former on a GPU, and nothing is recorded elsewhere.

    """

    def __init__(self, *args, say=print, record=None, **kwargs):
        super().__init__(*args, **kwargs)
        self._say, self._record_work = say, record
        self._to_warm_up, self._arrays, self._recorded, self._reports = WARM_UP, None, None, None

    @property
    def is_recorded(self):
        """bool: Whether the next iteration is a launch, unless arrays change before it."""
        return self._recorded is not None

    def update_core(self):
        draws = self.draw()
        if self._arrays and not self._arrays.in_place():
            self._to_warm_up, self._arrays, self._recorded = WARM_UP, None, None
        if self._recorded:
            self._launch(draws)
        elif self._arrays:
            self._record(draws)
        else:
            self.compute(draws)
            self._to_warm_up -= 1
            if self._to_warm_up <= 0 and self._recorder():
                self._arrays = _Arrays(self.generator, self.discriminator)

    def report(self, values, observer=None):
        super().report(values, observer)
        if self._reports is not None:
            self._reports.append((values, observer))

    def _recorder(self):
        return Graph if self._record_work is None and self.generator.xp is not np else self._record_work

    def _record(self, draws):
        """Record an iteration, and run it; or, where that is refused, have it and all others run as ever."""
        inputs, before, self._reports, why = draws.copy(), self._counts(), [], None
        try:
            for optimizer in self._recordable():
                optimizer.before_recording()
            graph = self._recorder()(lambda: self.compute(inputs))
            if not self._arrays.in_place():
                raise NotRecordable('an iteration replaces an array')
        except Exception as error:
            why = '{}: {}'.format(type(error).__name__, error)  # and no more of it, which holds the device's memory
        reports, self._reports = self._reports, None
        if why is None:
            self._recorded = _Recorded(graph, inputs, reports)
            graph.launch()
        else:
            self._give_up(why, before)
            self.compute(draws)

    def _give_up(self, why, before):
        self._arrays.put_back()  # nothing has been computed into new ones
        for optimizer, counts in before:
            optimizer.take_back(counts)
        self._to_warm_up, self._arrays = math.inf, None
        self._say('Iterations are not captured in a CUDA graph ({}). The run goes on without.'.format(
            ' '.join(why.split())))

    def _counts(self):
        return [(optimizer, optimizer.counts()) for optimizer in self.get_all_optimizers().values()
                if isinstance(optimizer, FlatAdam)]

    def _recordable(self):
        """The optimizers. Raises NotRecordable unless they can be recorded."""
        optimizers = self.get_all_optimizers().values()
        if not all(isinstance(optimizer, FlatAdam) and optimizer.is_recordable() for optimizer in optimizers):
            raise NotRecordable('the host counts the updates of some parameters')
        return optimizers

    def _launch(self, draws):
        self._recorded.inputs.fill(draws)
        for name, updates in (('gen', 1), ('dis', self.n_dis)):
            self.get_optimizer(name).before_replay(updates)
        self._recorded.graph.launch()
        for values, observer in self._recorded.reports:
            self.report(values, observer)


class _Recorded(typing.NamedTuple):
    """An iteration that is recorded."""

    graph: typing.Any  # with launch()
    inputs: Draws      # what it reads
    reports: list      # values and observers, as chainer.report takes them: arrays that it writes


class _Arrays:
    """The arrays of networks that a recording reads and writes: parameters, their moments, persistent values. They are
    kept, so that their addresses stay theirs.
    """

    def __init__(self, *networks):
        self._params = [(param, param.array) for network in networks for param in network.params()]
        states = [param.update_rule.state or {} for param, _ in self._params]
        links = [link for network in networks for link in network.links()]
        self._values = [(state, key, value) for state in states for key, value in state.items()]
        self._values += [(vars(link), key, getattr(link, key)) for link in links for key in link._persistent]

    def in_place(self):
        """Whether all of them still are the networks'."""
        return (all(param.array is array for param, array in self._params)
                and all(owner.get(key) is value for owner, key, value in self._values))

    def put_back(self):
        """Give them back to the networks."""
        for param, array in self._params:
            param.array = array
        for owner, key, value in self._values:
            owner[key] = value
