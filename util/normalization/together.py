"""Spectral normalization of all layers of a network at once, before they are called.

A layer by itself is normalized when it is called. On a GPU that is three launches a layer, too short to keep it busy;
for all layers together it is three in all. A chain says that it wants this by a decorator::

    class Discriminator(chainer.Chain):

        @normalized_together
        def forward(self, x):
            ...

The results are those of the hooks by themselves, whatever ``forward`` does: each call of a layer takes the weight that
is ready for it, and makes its own where there is none any more (the second call of a layer), or where something has
changed in between (another mode, another array in the weight's place). At the end, and when ``forward`` raises, each
vector u that moved for a call that has not come moves back. The one thing that ``forward`` must not do is to change the
numbers in a weight, or in a u, before it calls the layer.
"""
import collections
import contextlib
import functools

import chainer

from util.normalization import power_iteration
from util.normalization.spectral import Normalize, NormalizeGradient, SpectralNormalization
from util.normalization.weight_hook import output_axis


def normalized_together(forward):
    """Decorator for the ``forward`` of a chain: :func:`together` around each call."""
    @functools.wraps(forward)
    def wrapper(self, *args, **kwargs):
        with together(self):
            return forward(self, *args, **kwargs)
    return wrapper


@contextlib.contextmanager
def together(network):
    """Normalize all layers of a network that have the hook, for the calls in this ``with`` statement.

    Args:
        network (chainer.Link): Layers of it that cannot be prepared (not yet initialised, hooks of other kinds) are
            left to their hooks. May be nested: what an outer one has prepared is left to it.

    """
    ready = []
    try:
        if not chainer.config.in_recomputing:  # then a layer uses the vectors that it had
            for (device, *_), members in _groups(network).items():
                with chainer.using_device(device):
                    for i in range(0, len(members), power_iteration.MOST):
                        _prepare(members[i:i + power_iteration.MOST], ready)
        yield
    finally:
        with contextlib.ExitStack() as all_of_them:  # also where one cannot be undone, as a device refuses to
            for hook, link in reversed(ready):
                all_of_them.callback(hook.discard_ready, link)


def _groups(network):
    """Layers that can be normalized with one launch: a list of hooks and links, by what they have in common."""
    links = {id(link): link for link in network.links()}  # one may have several names
    members = [(hook, link) for link in links.values() for hook in link.local_link_hooks.values()
               if isinstance(hook, SpectralNormalization) and hook.can_be_ready(link)]
    # A link and a copy of it that shares its u move that one after the other
    users, groups = collections.Counter(id(getattr(link, hook.vector_name)) for hook, link in members), {}
    for hook, link in members:
        if users[id(getattr(link, hook.vector_name))] == 1:
            dtype = getattr(link, hook.weight_name).dtype
            key = link.device, dtype, hook.n_power_iteration, hook.eps, hook.factor
            groups.setdefault(key, []).append((hook, link))
    return groups


def _prepare(members, ready):
    """Normalize the weights of these hooks and links, which are of one group; add them to the list ``ready``."""
    hook = members[0][0]
    factor, move = 1.0 if hook.factor is None else hook.factor, chainer.config.train
    weights = [getattr(link, hook.weight_name) for hook, link in members]
    vectors = [getattr(link, hook.vector_name) for hook, link in members]
    axes = [output_axis(link) for _, link in members]
    several = power_iteration.normalize_several(
        [weight.array for weight in weights], vectors, axes, hook.n_power_iteration, hook.eps, factor, move)
    of_all = [Ready(*x) for x in zip(weights, vectors, several.before, (r[1:] for r in several.results), strict=True)]
    for (hook, link), one in zip(members, of_all, strict=True):
        hook.set_ready(link, one)
        ready.append((hook, link))
    if several.gradients is None:
        W_bars = [Normalize(*result[1:], factor, axis, result[0]).apply((weight,))[0]
                  for weight, axis, result in zip(weights, axes, several.results, strict=True)]
    else:
        W_bars = _NormalizeTogether(several, axes, factor).apply(weights)
    for one, W_bar in zip(of_all, W_bars, strict=True):
        one.W_bar = W_bar


class Ready:
    """A normalized weight that waits for the call of its layer.

    Args:
        weight (chainer.Parameter): The weight.
        stored (numpy.ndarray or cupy.ndarray): u as the link keeps it, which may have moved.
        before (numpy.ndarray, cupy.ndarray or None): What it was; ``None`` if it has not moved.
        vectors (tuple): u, v and sigma.

    Attributes:
        W_bar (chainer.Variable): The normalized weight.
        vectors (tuple): As given.

    """

    def __init__(self, weight, stored, before, vectors):
        self._made_of = weight.array, stored
        self._mode, self._stored, self._before, self.vectors = _mode(), stored, before, vectors
        self.W_bar = None

    def fits(self, weight, stored):
        """Whether a call that comes now, with this weight and u, would get this."""
        return all(a is b for a, b in zip(self._made_of, (weight.array, stored), strict=True)) and self._mode == _mode()

    def undo(self):
        """Put u back to what it was."""
        if self._before is not None:
            self._stored[...] = self._before


def _mode():
    return chainer.config.train, chainer.config.enable_backprop


class _NormalizeTogether(chainer.FunctionNode):
    """Weights -> normalized weights, which are given: one node, so that their gradients are computed together, too.

    No gradient comes later for it: nodes of weights are the last in a backward pass. But where a weight has more than
    two gradients, from more than two calls, their sum may be taken in another order.
    """

    def __init__(self, several, axes, factor):
        super().__init__()
        self._gradients, self._axes, self._factor = several.gradients, axes, factor
        self._W_bars = tuple(result[0] for result in several.results)
        self._vectors = [result[1:] for result in several.results]
        several.results = None  # the graph need not hold the weights for the node's sake

    def forward(self, inputs):
        self.retain_inputs(tuple(range(len(inputs))))
        W_bars, self._W_bars = self._W_bars, None
        return W_bars

    def backward(self, indexes, grad_outputs):
        weights = self.get_retained_inputs()
        gs = [g if i in indexes else None for i, g in enumerate(grad_outputs)]
        arrays = [None] * len(gs)
        if not chainer.config.enable_backprop:  # the gradient will not be differentiated
            arrays = self._gradients([W.array for W in weights], [None if g is None else g.array for g in gs])
        return tuple(self._gradient(i, weights[i], gs[i], arrays[i]) for i in indexes)

    def _gradient(self, i, weight, g, array):
        if g is None:
            return None
        if array is not None:
            return chainer.Variable(array, requires_grad=False)
        return NormalizeGradient(*self._vectors[i], self._factor, self._axes[i]).apply((weight, g))[0]
