"""Adam whose parameters and moments lie in one buffer each, so that a GPU updates a network with one launch.

The gradients stay where the backward pass leaves them: their addresses go with the launch, by value, and nothing is
copied. To Chainer all is as ever: each parameter has its array, its gradient, and an update rule with its t, m and v,
which are parts of the buffers; hooks of the optimizer, serialization and ``cleargrads`` find what they look for.

How many updates a parameter has had, and alpha, are also on the device, and the kernel reads and counts there: an
update that a CUDA graph has recorded stays right when it is repeated (see :meth:`FlatAdam.before_replay`).
"""
import collections
import functools

import chainer
import numpy as np
from chainer import backend
from chainer.backends import cuda
from chainer.optimizers import adam

from util.engine.graph import keep

MOST = 256  # parameters of a launch: their addresses take 2,048 of the 4,096 bytes that it may carry

_BODY = r'''
struct Segment { long long at, size; int first, unused; };  // a parameter in the buffers; its first block
struct Gradients { const float* of[MOST]; };

// A block takes CHUNK numbers of a parameter. The last block to be done counts the update.
extern "C" __global__
void flat_adam(const Segment* segments, int n, Gradients gradients, float* params, float* ms, float* vs,
               long long* updates, unsigned int* done, const double* alpha, double beta1, double beta2,
               float one_minus_beta1, float one_minus_beta2, float eps, float eta, float weight_decay_rate) {
    __shared__ float shared_alpha_t;
    int i = 0, high = n;
    while (high - i > 1) {
        const int middle = (i + high) / 2;
        if (segments[middle].first <= (int)blockIdx.x) i = middle; else high = middle;
    }
    if (threadIdx.x == 0) {  // as Chainer computes it on the host
        const double t = (double)(updates[i] + 1);
        shared_alpha_t = (float)(*alpha * sqrt(1.0 - pow(beta2, t)) / (1.0 - pow(beta1, t)));
    }
    __syncthreads();
    const float alpha_t = shared_alpha_t;
    const Segment segment = segments[i];
    const float* grads = gradients.of[i];
    const long long start = (long long)(blockIdx.x - segment.first) * CHUNK;
    const long long end = start + CHUNK < segment.size ? start + CHUNK : segment.size;
    for (long long j = start + threadIdx.x; j < end; j += blockDim.x) {
        const float grad = grads[j];
        float m = ms[segment.at + j], v = vs[segment.at + j], param = params[segment.at + j];
        m += one_minus_beta1 * (grad - m);
        v += one_minus_beta2 * (grad * grad - v);
        param -= eta * (alpha_t * m / (sqrt(v) + eps) + weight_decay_rate * param);
        ms[segment.at + j] = m, vs[segment.at + j] = v, params[segment.at + j] = param;
    }
    if (threadIdx.x == 0) {  // the one that read the count
        __threadfence();
        if (atomicAdd(done, 1u) == gridDim.x - 1) {
            for (int k = 0; k < n; ++k) ++updates[k];
            *done = 0;
        }
    }
}
'''
_CHUNK, _THREADS, _ALIGNED = 4096, 256, 64  # the last in numbers: a parameter begins where a new array might
KERNEL_SOURCES = {'flat_adam': _BODY.replace('MOST', str(MOST)).replace('CHUNK', str(_CHUNK))}
_SEGMENT = np.dtype([('at', 'i8'), ('size', 'i8'), ('first', 'i4'), ('unused', 'i4')])
_ADDRESSES = np.dtype([('of', 'u8', MOST)])


@functools.cache
def get_kernel():  # pragma: no cover - gpu
    """``flat_adam``, a ``cupy.RawKernel`` (compiled at its first launch)."""
    return cuda.cupy.RawKernel(KERNEL_SOURCES['flat_adam'], 'flat_adam')


def segments_of(sizes):
    """Where parameters of these sizes lie in a buffer: (``_SEGMENT``), a row each, and one behind them."""
    table = np.zeros(len(sizes) + 1, _SEGMENT)
    for row, following, size in zip(table[:-1], table[1:], sizes, strict=True):
        row['size'] = size
        following['at'] = row['at'] + -(-size // _ALIGNED) * _ALIGNED
        following['first'] = row['first'] + -(-size // _CHUNK)
    return table


def _address(array):  # pragma: no cover - gpu
    return array.data.ptr


class FlatAdam(adam.Adam):
    """``chainer.optimizers.Adam``, with the same arguments, state and numbers, in one launch an update on a GPU.

    Together are float32 parameters on one device that have the optimizer's own hyperparameters. AMSGrad, AdaBound,
    parameters of other types, and those whose rules have hyperparameters of their own, or hooks that come after the
    update, are updated one by one, as Chainer does it. On the CPU all arrays are parts of the buffers, too, and
    Chainer's rule computes (or the engine's, see ``switch.py``). The first update puts parameters and moments into the
    buffers, and a later one does so again where somebody has given a parameter another array. Then it has a new array,
    as after ``to_device``: a link of another network that is to share it must be copied afterwards.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._waiting_room, self._flats, self._updating = _WaitingRoom(self.hyperparam), {}, False

    def __getstate__(self):
        return {**self.__dict__, '_flats': {}}  # in a copy, arrays would no longer be parts of the buffers

    def create_update_rule(self):
        return _Rule(self._waiting_room)

    def update(self, lossfun=None, *args, **kwds):
        self._updating = True
        try:
            super().update(lossfun, *args, **kwds)
        finally:
            self._updating = False
            self._waiting_room.close()

    def call_hooks(self, timing='pre'):
        """Chainer's, which come right before and right after an update calls all rules."""
        if timing == 'post':
            self._update_all(self._waiting_room.close())
        super().call_hooks(timing)
        if timing == 'pre' and self._updating:
            self._waiting_room.open()

    def _update_all(self, members):
        """Update parameters, given with their rules."""
        by_device, flats = {}, {}
        users = collections.Counter(id(param.array) for _, param in members)
        for rule, param in members:
            if users[id(param.array)] > 1:  # links that share an array update it one after the other
                adam.AdamRule.update_core(rule, param)
            else:
                by_device.setdefault(param.device, []).append((rule, param))
        for device, members in by_device.items():
            for i in range(0, len(members), MOST):
                with chainer.using_device(device):
                    flat = self._flats.get((device, i))
                    if flat is None or not flat.holds(members[i:i + MOST]):
                        flat = _Flat(members[i:i + MOST])
                    flats[device, i] = flat
                    flat.update(self.hyperparam)
        self._flats = flats or self._flats

    def together(self):
        """What is updated together.

        Yields:
            tuple: A buffer, and the parameters that it consists of, with zeros between them.

        """
        for flat in self._flats.values():
            params = flat.params()
            if params:
                yield flat.buffer, params

    def is_recordable(self):
        """Whether all that :meth:`update` does, as it did it last, may be recorded: no parameter's rule counts on the
        host only.
        """
        together = {id(param) for _, params in self.together() for param in params}
        return all(id(param) in together for param in self.target.params()
                   if param.array is not None and param.size and param.update_rule and param.update_rule.enabled)

    def before_recording(self):
        """Get ready for a CUDA graph that records :meth:`update`: bring to the device what would be recorded else."""
        self._count(0)

    def before_replay(self, updates=1):
        """Get ready for one more run of a CUDA graph that has recorded :meth:`update`: bring alpha to the device, and
        count, as the graph will there. The first run needs this not: the update that was recorded has counted it.
        Other hyperparameters stay what they were then.

        Args:
            updates (int): How many the graph has recorded.

        """
        self.t += updates
        self._count(updates)

    def _count(self, updates):
        for (device, _), flat in self._flats.items():
            with chainer.using_device(device):
                flat.count(self.hyperparam, updates)

    def counts(self):
        """How many updates there were: of the optimizer, and of each parameter (its rule)."""
        return self.t, [(param.update_rule, param.update_rule.t) for param in self.target.params() if param.update_rule]

    def take_back(self, counts):
        """Forget updates that were recorded and will not run: go back to what :meth:`counts` returned before."""
        self.t, of_rules = counts
        for rule, count in of_rules:
            rule.t = count
        for flat in self._flats.values():
            flat.forget()


class _WaitingRoom:
    """Where rules and their parameters wait while the optimizer calls all of them."""

    def __init__(self, hyperparam):
        self.hyperparam = hyperparam
        self.waiting = None  # closed: whoever calls a rule otherwise, as in ``param.update()``, has it work at once

    def open(self):
        self.waiting = []

    def close(self):
        waiting, self.waiting = self.waiting, None
        return waiting or []


class _Rule(adam.AdamRule):
    """The update rule of a parameter, which waits for the others where it can."""

    def __init__(self, room):
        super().__init__(room.hyperparam)
        self._room = room

    def _can_wait(self, param):
        hp = self.hyperparam
        return (self._room.waiting is not None and hp.parent is self._room.hyperparam and set(vars(hp)) == {'_parent'}
                and not (hp.amsgrad or hp.adabound or self._use_fp32_update or self._hookable._post_update_hooks)
                and param.dtype == np.float32 and param.size and param.layout is None
                and param.device.xp in (np, cuda.cupy))

    def update_core(self, param):
        if param.grad is not None and self._can_wait(param):
            self._check_eps(np.float32)
            self._room.waiting.append((self, param))
        else:
            super().update_core(param)


class _Flat:
    """The buffers of some parameters on one device.

    Args:
        members (list of tuple): Their rules (with states) and themselves.

    """

    def __init__(self, members):
        self._members = list(members)
        self._xp = backend.get_array_module(members[0][1].array)
        self._table = segments_of([param.size for _, param in members])
        self._buffers = [self._xp.zeros(int(self._table[-1]['at']), np.float32) for _ in range(3)]
        self._parts = [[buffer[row['at']:row['at'] + row['size']].reshape(param.shape) for buffer in self._buffers]
                       for row, (_, param) in zip(self._table[:-1], members, strict=True)]
        for (rule, param), parts in zip(members, self._parts, strict=True):
            for part, array in zip(parts, (param.array, rule.state['m'], rule.state['v']), strict=True):
                part[...] = array
            param.array, rule.state['m'], rule.state['v'] = parts
        self._counted = self._alpha = None  # what the device has of them
        if self._xp is not np:  # pragma: no cover - gpu
            self._segments = self._xp.asarray(self._table.view('u1'))
            self._updates = self._xp.zeros(len(members), np.int64)
            self._done, self._alpha_there = self._xp.zeros((), np.uint32), self._xp.zeros((), np.float64)

    def holds(self, members):
        """Whether these are the parameters, and all their arrays still the parts of the buffers."""
        return len(members) == len(self._members) and all(
            rule is own_rule and param is own and param.array is parts[0]
            and rule.state['m'] is parts[1] and rule.state['v'] is parts[2]
            for (rule, param), (own_rule, own), parts in zip(members, self._members, self._parts, strict=True))

    @property
    def buffer(self):
        """The parameters' buffer."""
        return self._buffers[0]

    def params(self):
        """The parameters; none unless all their arrays still are the parts of the buffer."""
        params = [param for _, param in self._members]
        inside = all(param.array is parts[0] for param, parts in zip(params, self._parts, strict=True))
        return params if inside else []

    def forget(self):
        """Take it that the device has other counts and another alpha."""
        self._counted = self._alpha = None

    def update(self, hyperparam):
        """Update all parameters by their gradients. Their rules have counted this update already."""
        if self._xp is np:
            for rule, param in self._members:
                adam.AdamRule.update_core(rule, param)
        else:  # pragma: no cover - gpu
            self._bring([rule.t - 1 for rule, _ in self._members], hyperparam.alpha)
            self._launch(hyperparam)
            self._counted = [rule.t for rule, _ in self._members]

    def count(self, hyperparam, updates):
        """Count so many updates that the device will do by itself."""
        for rule, _ in self._members:
            rule.t += updates
        if self._xp is not np:  # pragma: no cover - gpu
            self._bring([rule.t - updates for rule, _ in self._members], hyperparam.alpha)
            self._counted = [rule.t for rule, _ in self._members]

    def _bring(self, counted, alpha):  # pragma: no cover - gpu
        """See that the device has these counts of updates and this alpha."""
        if counted != self._counted:  # a new buffer, or a snapshot was loaded
            self._updates[...] = self._xp.asarray(np.array(counted, np.int64))
        if alpha != self._alpha:
            self._alpha_there.fill(alpha)
            self._alpha = alpha

    def _launch(self, hp):  # pragma: no cover - gpu
        # The new arrays, where there are any, live until the launch is queued, and no other comes before it
        grads = [self._xp.ascontiguousarray(param.grad, np.float32) for _, param in self._members]
        addresses = np.zeros((), _ADDRESSES)
        addresses['of'][:len(grads)] = [_address(grad) for grad in grads]
        floats = (1 - hp.beta1, 1 - hp.beta2, hp.eps, hp.eta, hp.weight_decay_rate)
        get_kernel()((int(self._table[-1]['first']),), (_THREADS,), (
            keep(self)._segments, np.int32(len(grads)), addresses, *self._buffers, self._updates, self._done,
            self._alpha_there, np.float64(hp.beta1), np.float64(hp.beta2), *map(np.float32, floats)))
