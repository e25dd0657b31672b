"""The same iteration in PyTorch: as one would write it there, in one CUDA graph, by torch.compile, in bfloat16.

All: TF32 products, ``cudnn.benchmark``, channels last, the fused Adam. The options are ``graph``: the whole iteration
is one CUDA graph, for which Adam is capturable. ``compile``: the mode of ``torch.compile`` for both losses, with the
networks in them. ``autocast``: these are computed in bfloat16 under autocast, but the power method.
"""
import contextlib
import functools
import gc

import torch

from benchmarks import gpu_cases, gpu_timing, torch_networks, torch_steps
from util.files import UserError

WARM_UP = 3  # iterations before a graph is captured


class Iteration(torch_steps.Steps):
    """Networks, optimizers and pictures of a run, and one iteration of it.

    Args:
        config (Config): What is trained.
        images (numpy.ndarray): The pictures, uint8 (N, 3, H, W).
        device (str): Where.
        options (dict): See above.

    """

    def __init__(self, config, images, device, options):
        super().__init__(config, images, torch_steps.Variant(capturable=bool(options.get('graph'))), device)
        self.n_dis, self.alpha, self.options = config.setting.n_dis, config.setting.alpha, options
        self._number_of = torch.zeros(self.n_dis, self.batchsize, dtype=torch.int64, device=self.device)
        self.networks = {'gen': self.generator, 'dis': self.discriminator}
        self._losses = super().loss_of_generator, super().loss_of_discriminator
        if options.get('autocast'):
            _normalize_in_float32(self.discriminator, self.device.type)
        if options.get('compile'):
            self._losses = [torch.compile(loss, mode=options['compile']) for loss in self._losses]
        self._inputs = None

    def loss_of_generator(self, z):
        return self._loss(0, z)

    def loss_of_discriminator(self, x_real, z, epsilon):
        return self._loss(1, x_real, z, epsilon)

    def _loss(self, which, *arguments):
        if self.options.get('compile') == 'reduce-overhead':
            torch.compiler.cudagraph_mark_step_begin()
        # Without its cache: a graph would not see the weights change
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.options.get('autocast')),
                            cache_enabled=False):
            return self._losses[which](*arguments)

    def drawn(self):
        """One iteration on new noise, and on the pictures that :meth:`choose` has chosen; the losses of G and D."""
        losses = [self.generator_step(self._latent(self.n_gen_ratio * self.batchsize)).clone()]
        for indices in self._number_of:
            losses.append(self.discriminator_step(self._pictures(indices), self._latent(self.batchsize), None).clone())
        return losses[0], losses[-1]

    def choose(self):
        """Choose the pictures of the next iteration."""
        self._number_of.copy_(self._indices(self._number_of.numel()).view_as(self._number_of))

    def given(self):
        """One iteration on the inputs that :meth:`give` has given; the losses of G and D."""
        losses = [self.generator_step(self._inputs['z']).clone()]
        for x, z in zip(self._inputs['xs'], self._inputs['zs'], strict=True):
            losses.append(self.discriminator_step(x, z, None).clone())
        return losses[0], losses[-1]

    def give(self, inputs):
        """Give the inputs of an iteration, each into the memory of the one before."""
        tensors = {'z': self._send(inputs['z']), **{key: [self._send(x) for x in inputs[key]] for key in ('zs', 'xs')}}
        if self._inputs is None:
            self._inputs = tensors
        else:
            for key, new in tensors.items():
                for old, one in zip(*((x if isinstance(x, list) else [x]) for x in (self._inputs[key], new)),
                                    strict=True):
                    old.copy_(one)

    def _send(self, array):
        tensor = torch.tensor(array, device=self.device)  # a copy, which will be overwritten
        return tensor.contiguous(memory_format=self.memory_format) if tensor.ndim == 4 else tensor

    def set_alpha(self, alpha):
        for optimizer in (self.gen_optimizer, self.dis_optimizer):
            for group in optimizer.param_groups:
                group['lr'] = alpha

    @torch.no_grad()
    def load(self, start):
        """Begin anew with the numbers of :func:`benchmarks.gpu_start.make_start`, where all tensors are."""
        for name, network in self.networks.items():
            for path, array in start['weights'][name].items():
                torch_networks.parameter_of(network, path).copy_(torch.from_numpy(array))
        for path, (u, v) in start['vectors'].items():
            state = torch_networks.module_of(self.discriminator, path).parametrizations.weight[0]
            state._u.copy_(torch.from_numpy(u))
            state._v.copy_(torch.from_numpy(v))
        for optimizer in (self.gen_optimizer, self.dis_optimizer):
            for moments in optimizer.state.values():
                for tensor in moments.values():
                    tensor.zero_()

    def ready(self, iteration):
        """A callable that does ``iteration``: itself, or a graph of it. Either is warm."""
        if not self.options.get('graph'):
            for _ in range(WARM_UP):
                iteration()
            return iteration
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                iteration()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = iteration()
        return functools.partial(_replay, graph, losses)

    def check(self, start):
        """From the start's numbers, with its inputs, where its iterations end; for :func:`gpu_cases.compare`."""
        self.give(start['inputs'][0])
        self.set_alpha(start['alpha'])  # a graph has it for good
        run, losses = self.ready(self.given), []
        self.load(start)
        for inputs in start['inputs']:
            self.give(inputs)
            losses.append([float(loss) for loss in run()])
        self.set_alpha(self.alpha)
        return {'losses': losses, 'weights': {
            name: {path: torch_networks.parameter_of(self.networks[name], path).detach().cpu().numpy().copy()
                   for path in paths} for name, paths in start['weights'].items()}}


def _replay(graph, losses):
    graph.replay()
    return losses


def _normalize_in_float32(network, device_type):
    """The power method refuses half of its numbers in bfloat16, which autocast would make of them."""
    for module in network.modules():
        if isinstance(module, torch.nn.utils.parametrizations._SpectralNorm):
            module.forward = torch.autocast(device_type, enabled=False)(module.forward)


def make_steps(name, config, n_images, device):
    """What a process of a variant can do; as :func:`benchmarks.gpu_chainer.make_steps`."""
    options, on_gpu = gpu_cases.VARIANTS[name].options, device not in ('cpu', '-1')
    if on_gpu and not torch.cuda.is_available():
        raise UserError('PyTorch {} sees no GPU'.format(torch.__version__))
    if options and not on_gpu:
        raise UserError('needs a GPU')
    clock, device = gpu_timing.HostClock(), 'cuda:' + device if on_gpu else 'cpu'
    if on_gpu:
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision('high')  # TF32; in convolutions it is the default
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        clock = gpu_timing.TorchClock(torch)
        torch.empty(1, device=device)
        clock.synchronize()  # the device has this process's context now
    else:
        torch.set_num_threads(1)  # it is for tests, which are not alone
    torch.manual_seed(0)
    held = {}

    def check(start):
        free = clock.free_memory()
        images = gpu_cases.random_images(n_images, config.dataset.size)
        steps = held['steps'] = Iteration(config, images, device, options)
        result = steps.check(start)
        steps._inputs = None  # and with them, and the graph that had them, memory that no run has
        gc.collect()
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
        run = steps.ready(steps.drawn)
        held['iterate'] = lambda: (steps.choose(), run())
        gpu_timing.take_turn(held['iterate'], clock, 0, 1)
        return {**result, 'memory': None if free is None else free - clock.free_memory()}

    tasks = {'check': check, 'turn': lambda seconds, most: gpu_timing.take_turn(held['iterate'], clock, seconds, most),
             'can_trace': gpu_timing.can_trace,
             'count': lambda: gpu_timing.count_kernels(held['iterate'], clock)}
    return {task: gpu_timing.guarded(function) for task, function in tasks.items()}
