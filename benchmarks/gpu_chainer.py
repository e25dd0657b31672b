"""An iteration of a run, ``util.updater.GANUpdater``, with what makes it fast switched on one by one.

*As it comes* means Chainer 7.8 and CuPy as they are installed: convolutions are Chainer's own (im2col and a product of
matrices in float32, since CuPy 14 has no cuDNN), each parameter's Adam is a launch of its own, each layer is normalized
when it is called (three launches), z comes from CuPy's own generator, and pictures, which are on the GPU already, are
gathered and dequantised by one operation after the other. The options are:

``grouped``: all layers of the discriminator are normalized at once (``util.normalization.together``). ``flat``: Adam of
a network in one launch (``util.engine.flat_adam``). ``noise``: z and batches by one launch each (``util.noise``).
``engine``: what computes convolutions and more (``util.engine.switch``). ``capture``: iterations are recorded and
repeated (``util.captured``).
"""
from util import trainer  # isort: skip  (before Chainer, which needs util.compat)

import contextlib
import types

import chainer
import numpy as np

from benchmarks import gpu_cases, gpu_timing
from benchmarks.gpu_start import normalized_links
from util.device import get_device, kind
from util.engine.switch import using_engine
from util.files import UserError


class Iteration:
    """Networks, optimizers and pictures of a run; call it for one iteration.

    Args:
        config (Config): What is trained.
        images (numpy.ndarray): The pictures, uint8 (N, 3, H, W).
        device (chainer.backend.Device): Where.
        options (dict): See above.

    """

    def __init__(self, config, images, device, options):
        self.said = []  # why iterations are not captured
        parts = trainer.build(config, device, images, capture=bool(options.get('capture')), say=self.said.append)
        self.networks = {'gen': parts.generator, 'dis': parts.discriminator}
        self.device, self.updater, self.setting = device, parts.updater, config.setting
        if not options.get('flat'):
            for name, network in self.networks.items():
                self.updater._optimizers[name] = chainer.optimizers.Adam(
                    self.setting.alpha, self.setting.beta1, self.setting.beta2).setup(network)
        if not options.get('grouped'):
            discriminator = parts.discriminator  # what normalized_together has wrapped
            discriminator.forward = types.MethodType(type(discriminator).forward.__wrapped__, discriminator)
        self._reporter = chainer.Reporter()
        self._reporter.add_observers('', self.networks.items())

    def __call__(self):
        """One iteration; returns what it reports."""
        observation = {}
        with self._reporter, self._reporter.scope(observation):
            self.updater.update()
        return observation

    def check(self, start):
        """From the numbers of :func:`benchmarks.gpu_start.make_start`, where they end; for :func:`gpu_cases.compare`.

        The noise and the pictures of these iterations are a run's.
        """
        for name, network in self.networks.items():
            for path, parameter in network.namedparams():
                parameter.array[...] = self.device.send(start['weights'][name][path[1:]])
        for path, link, hook in normalized_links(self.networks['dis']):
            getattr(link, hook.vector_name)[...] = self.device.send(start['vectors'][path][0])
        losses, optimizers = [], self.updater.get_all_optimizers().values()
        for optimizer in optimizers:
            optimizer.alpha = start['alpha']
        for _ in start['inputs']:
            reported = self()
            losses.append([float(reported[key]) for key in ('gen/loss', 'dis/loss')])
        for optimizer in optimizers:
            optimizer.alpha = self.setting.alpha
        if not getattr(self.updater, 'is_recorded', True):
            raise UserError(' '.join(self.said) or 'iterations are not captured')
        to_cpu = chainer.get_device('@numpy').send
        return {'losses': losses, 'weights': {
            name: {path[1:]: np.array(to_cpu(parameter.array)) for path, parameter in network.namedparams()}
            for name, network in self.networks.items()}}

    def use_stock_noise(self):
        """From now on, draw noise and pictures by CuPy's (or NumPy's) own operations."""
        xp, updater, iterator = self.device.xp, self.updater, self.updater.get_iterator('main')
        images = iterator._images

        def batch():
            indices = iterator._indices(iterator._drawn)
            iterator._drawn += 1
            x = images[indices] + xp.random.random_sample((len(indices), *images.shape[1:])).astype('f')
            return xp.minimum(x, np.float32(255.99998)) * np.float32(1 / 128) - np.float32(1)

        stock = types.SimpleNamespace(next=batch)
        updater.latent = lambda purpose, n, step=0: (
            xp.random.standard_normal((n, updater.generator.dim_z)).astype('f'), None)
        updater.get_iterator = lambda name: stock


def make_steps(name, config, n_images, device):
    """What a process of a variant can do: task -> callable, each :func:`gpu_timing.guarded`.

    Args:
        name (str): One of ``gpu_cases.VARIANTS``.
        config (Config): What is trained.
        n_images (int): So many pictures are trained on.
        device (str): For :func:`util.device.get_device`.

    Returns:
        dict: ``'check'`` (of a start), ``'turn'`` (see :func:`gpu_timing.take_turn`), ``'can_trace'``, ``'count'``.

    Raises:
        UserError, ImportError: It cannot be made here. One line that says why.

    """
    options = gpu_cases.VARIANTS[name].options
    device = get_device(device)
    if options.get('capture') and kind(device) == 'cpu':
        raise UserError('captured iterations need a GPU')
    device.use()
    stack = contextlib.ExitStack()
    if options.get('engine'):
        stack.enter_context(using_engine(options['engine'], device=device))  # until the process ends
    clock = gpu_timing.CupyClock(device.xp) if kind(device) == 'cuda' else gpu_timing.HostClock()
    clock.synchronize()  # the device has this process's context now
    held = {'stack': stack}

    def check(start):
        free = clock.free_memory()
        iteration = held['iteration'] = Iteration(
            config, gpu_cases.random_images(n_images, config.dataset.size), device, options)
        result = iteration.check(start)
        if not options.get('noise'):
            iteration.use_stock_noise()
        gpu_timing.take_turn(iteration, clock, 0, 1)
        return {**result, 'memory': None if free is None else free - clock.free_memory()}

    tasks = {'check': check,
             'turn': lambda seconds, most: gpu_timing.take_turn(held['iteration'], clock, seconds, most),
             'can_trace': gpu_timing.can_trace,
             'count': lambda: gpu_timing.count_kernels(held['iteration'], clock)}
    return {task: gpu_timing.guarded(function) for task, function in tasks.items()}
