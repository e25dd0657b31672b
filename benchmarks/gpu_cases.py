"""What ``benchmarks.gpu_step`` times: variants of one and the same iteration. Imports no framework."""
import types
import typing

import numpy as np

from util import config

CHAINER, TORCH = 'benchmarks.gpu_chainer', 'benchmarks.gpu_torch'  # modules whose ``make_steps`` makes them
METHODS = {'cnn': 'sn', 'resnet': 'sn_hinge'}
SETTINGS = {'cnn': 'default', 'resnet': 'resnet'}


class Variant(typing.NamedTuple):
    """One way to compute an iteration."""

    maker: str
    what: str  # for the table
    options: types.MappingProxyType  # of the module
    precision: str = 'tf32'  # of products: 'fp32', 'tf32' or 'bf16'
    normalized: bool = True
    gpu_only: bool = False


def _chainer(what, precision='tf32', normalized=True, **options):
    return Variant(CHAINER, what, options, precision, normalized, bool(options.get('engine')))


def _torch(what, precision='tf32', **options):
    return Variant(TORCH, what, options, precision, True, bool(options))


# What makes Chainer fast here, switched on one after the other; see benchmarks/gpu_chainer.py
_GROUPED = {'grouped': True}
_FLAT = {**_GROUPED, 'flat': True}
_NOISE = {**_FLAT, 'noise': True}
_CUDNN = {**_NOISE, 'engine': 'cudnn'}
_CAPTURED = {**_CUDNN, 'capture': True}

REFERENCE, REFERENCE_NONE = 'chainer', 'cudnn-none'  # what others of the same method are compared with
EAGER, EAGER_NONE, BEST, BEST_NONE = 'cudnn', 'cudnn-none', 'captured', 'captured-none'
TORCH_EAGER, TORCH_GRAPH = 'torch', 'torch-graph'
VARIANTS = {
    'chainer': _chainer('Chainer as it comes', 'fp32'),
    'grouped': _chainer('+ SN of all layers at once', 'fp32', **_GROUPED),
    'flat': _chainer('+ Adam in one launch', 'fp32', **_FLAT),
    'noise': _chainer('+ noise, batches in one launch', 'fp32', **_NOISE),
    'cudnn': _chainer('+ cuDNN', **_CUDNN),
    'captured': _chainer('+ captured iterations', **_CAPTURED),
    'captured-bf16': _chainer('captured, cuDNN bf16', 'bf16', **{**_CAPTURED, 'engine': 'cudnn-bf16'}),
    'captured-fp32': _chainer('captured, cuDNN fp32', 'fp32', **{**_CAPTURED, 'engine': 'cudnn-fp32'}),
    'cudnn-none': _chainer('cuDNN, no normalization', normalized=False, **_CUDNN),
    'captured-none': _chainer('captured, no normalization', normalized=False, **_CAPTURED),
    'torch': _torch('PyTorch eager'),
    'torch-graph': _torch('PyTorch, CUDA graph', graph=True),
    'torch-compile': _torch('PyTorch, torch.compile', compile='reduce-overhead'),
    'torch-bf16': _torch('PyTorch bf16, CUDA graph', 'bf16', graph=True, autocast=True),
    # Not by default: the graph of the whole iteration instead of torch.compile's own graphs of each part
    'torch-compile-graph': _torch('PyTorch, compile, CUDA graph', graph=True, compile='default'),
}
DEFAULT = tuple(name for name in VARIANTS if name != 'torch-compile-graph')


def resolve(model, normalized, width, batchsize, n_dis, size, device):
    """The Config of an iteration.

    Args:
        model (str): ``'cnn'`` or ``'resnet'``.
        normalized (bool): With spectral normalization, or with none and the same loss.
        width, batchsize, n_dis, size (int): Of the networks, pictures a step, discriminator steps, pixels.
        device (str): ``'cpu'`` or ``'cuda'``.

    Returns:
        util.config.Config

    Raises:
        UserError: A number cannot be.

    """
    overrides = ['model.width={}'.format(width), 'dataset.size={}'.format(size), 'setting.n_dis={}'.format(n_dis)]
    method = METHODS[model]
    if not normalized:
        overrides.append('method.loss={}'.format(config.resolve('cifar10', model, method).method.loss))
        method = 'none'
    return config.resolve('cifar10', model, method, SETTINGS[model], overrides=overrides, batchsize=batchsize,
                          device=device)


def random_images(n, size):
    """So many pictures, uint8 (n, 3, size, size)."""
    return np.random.RandomState(0).randint(0, 256, (n, 3, size, size), np.uint8)


# How far a variant may be from the reference after CHECKED iterations from the same numbers, by its precision. First
# the losses of any of them, relative. Then the cosines of the angles between the changes of the generator's parameters,
# and of the discriminator's: Adam's first updates are about as large for every gradient, and those that are mostly
# rounding differ in their sign. On a CPU the standard CNN (batch 16) had 3e-5, 0.999, 0.999 in float32 and 2e-3, 0.968,
# 0.998 in bfloat16; with the same pictures, or the same z, in all steps of an iteration 0.975 and 0.978 for the
# discriminator, with the same draws in all iterations 0.67 for the generator.
CHECKED = 4  # enough that what is recorded in the first iterations is repeated
TOLERANCES = {'fp32': (2e-3, 0.985, 0.99), 'tf32': (5e-3, 0.95, 0.985), 'bf16': (1e-2, 0.9, 0.985)}


def compare(result, reference, start, precision):
    """Compare the end of :data:`CHECKED` iterations with that of the reference.

    Args:
        result, reference (dict): ``'losses'``: a pair an iteration; ``'weights'``: network -> path -> array.
        start (dict): The weights before them.
        precision (str): The least precise of both.

    Returns:
        str: ``'ok'`` or ``'DIFFERS'``, and the three numbers.

    """
    most, *least = TOLERANCES[precision]
    losses, right = np.array(result['losses'], 'd'), np.array(reference['losses'], 'd')
    distance = np.abs(losses - right).max() / np.abs(right).max()
    cosines = [_cosine(result['weights'][name], reference['weights'][name], start[name]) for name in ('gen', 'dis')]
    good = distance <= most and all(c >= c0 for c, c0 in zip(cosines, least, strict=True))  # not with a NaN
    return '{} {:.0e} {:.3f} {:.3f}'.format('ok' if good else 'DIFFERS', distance, *cosines)


def _cosine(one, other, start):
    """Of the angle between two changes of a network's parameters."""
    a, b = (np.concatenate([(arrays[path].astype('d') - start[path]).ravel() for path in sorted(start)])
            for arrays in (one, other))
    return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)
