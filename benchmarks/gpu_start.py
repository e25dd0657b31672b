"""The numbers from which all variants of ``benchmarks.gpu_step`` are compared: weights, vectors, noise and pictures.

The weights are larger than a run's first ones, with which a generator's gradients are so small that Adam's eps counts:
there Chainer and PyTorch differ, since one adds it before, the other after the bias correction.
"""
from util import trainer  # isort: skip  (before Chainer, which needs util.compat)

import chainer
import numpy as np

from util.normalization.spectral import SpectralNormalization


def make_start(config, images, iterations):
    """Weights, and what a run with this Config draws first, on the CPU. u and v are singular vectors.

    PyTorch's power method goes from v to u and back, this project's from u to v and back: they agree where both have
    arrived, and nearly so a few updates later.

    Args:
        config (Config): What is trained.
        images (numpy.ndarray): The pictures, uint8 (N, 3, H, W).
        iterations (int): How many have their inputs here.

    Returns:
        dict: ``'alpha'``: that of both Adams, a tenth of a run's: rounding grows less on the way. ``'weights'``:
        ``'gen'`` and ``'dis'`` -> path of a parameter -> array. ``'vectors'``: path of a layer of the discriminator ->
        (u, v). ``'inputs'``: for each iteration a dict of ``'z'``, of the generator's step, ``'zs'`` and ``'xs'``,
        lists of z and of real pictures of each of the discriminator's.

    """
    parts = trainer.build(config, chainer.get_device('@numpy'), images)
    updater, n = parts.updater, config.profile.batchsize
    inputs = []
    for updater.iteration in range(iterations):
        inputs.append({
            'z': updater.latent('generator step', config.setting.n_gen_ratio * n)[0],
            'zs': [updater.latent('discriminator step', n, step)[0] for step in range(updater.n_dis)],
            'xs': [updater.get_iterator('main').next() for _ in range(updater.n_dis)]})
    random = np.random.RandomState(1)
    weights = {name: {path[1:]: draw(random, path, p.array) for path, p in sorted(network.namedparams())}
               for name, network in (('gen', parts.generator), ('dis', parts.discriminator))}
    vectors = {path: singular_vectors(weights['dis'][path + '/W'])
               for path, _, _ in normalized_links(parts.discriminator)}
    return {'alpha': 0.1 * config.setting.alpha, 'weights': weights, 'vectors': vectors, 'inputs': inputs}


def draw(random, path, like):
    """A parameter's first numbers: features stay about as large from layer to layer."""
    noise = random.standard_normal(like.shape).astype(like.dtype)
    if like.ndim > 1:
        return noise * np.float32((2 / np.prod(like.shape[1:])) ** 0.5)
    return np.float32(path.endswith('/gamma')) + np.float32(0.1) * noise


def normalized_links(network):
    """The layers of a network that are spectrally normalized: their paths, themselves and their hooks."""
    return [(path[1:], link, hook) for path, link in network.namedlinks()
            for hook in link.local_link_hooks.values() if isinstance(hook, SpectralNormalization)]


def singular_vectors(W):
    """The first singular vectors u and v of a weight (outputs, ...)."""
    matrix = W.reshape(len(W), -1).astype(np.float64)
    u = np.linalg.eigh(matrix @ matrix.T)[1][:, -1]  # of the largest eigenvalue
    v = matrix.T @ u
    return u.astype(W.dtype), (v / np.linalg.norm(v)).astype(W.dtype)
