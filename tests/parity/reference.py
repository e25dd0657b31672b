"""torch-fidelity's Inception network with given weights, and the fixture that is made with it.

    .venv-parity/bin/python -m tests.parity.reference CIFAR-10-ARCHIVE

writes ``tests/util/inception/reference.npz``: a few pictures and what the reference says of them, so that the ordinary
tests hold the line without PyTorch.
"""
import os
import sys
import tempfile

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from tests.inception_weights import random_weights
from util import cifar10
from util.inception.layers import LAYERS

FIXTURE = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'util', 'inception', 'reference.npz')
_TORCH_NAMES = {'W': 'conv.weight', 'gamma': 'bn.weight', 'beta': 'bn.bias', 'mean': 'bn.running_mean',
                'var': 'bn.running_var'}


def state_dict(arrays):
    """Weights by the names of the PyTorch file, of weights by the names of our npz."""
    state = {'{}.{}'.format(layer.torch_name, theirs): arrays['{}/{}'.format(layer.name, ours)]
             for layer in LAYERS for ours, theirs in _TORCH_NAMES.items()}
    state.update({'fc.weight': arrays['softmax/W'], 'fc.bias': arrays['softmax/b']})
    return {key: torch.from_numpy(array) for key, array in state.items()}


def load(arrays, folder):
    """The reference network with these weights, by way of a file in ``folder``."""
    path = os.path.join(folder, 'weights.pth')
    torch.save(state_dict(arrays), path)
    return FeatureExtractorInceptionV3('reference', ['2048', 'logits_unbiased', 'logits'],
                                       feature_extractor_weights_path=path)


def look(network, images):
    """Features (N, 2048), logits without bias (N, 1008) and with it, of pictures, uint8 (N, 3, H, W)."""
    with torch.no_grad():
        return [x.numpy() for x in network(torch.from_numpy(images))]


def resize(images):
    """Pictures as the network sees them, (N, 3, 299, 299) float32."""
    x = interpolate_bilinear_2d_like_tensorflow1x(
        torch.from_numpy(images).float(), size=(299, 299), align_corners=False)
    return ((x - 128) / 128).numpy()


def main(archive):
    sets = {'cifar10': cifar10.read('test', archive)[0][:4],
            'noise': np.random.RandomState(0).randint(0, 256, (2, 3, 48, 37)).astype('u1')}
    with tempfile.TemporaryDirectory() as folder:
        network = load(random_weights(), folder)
    arrays = {}
    for name, images in sets.items():
        features, logits, biased = look(network, images)
        arrays.update({name + '/images': images, name + '/features': features, name + '/logits': logits,
                       name + '/biased': biased, name + '/resized': resize(images)[:, :, ::13, ::11]})
    np.savez_compressed(FIXTURE, **arrays)
    print(FIXTURE, os.path.getsize(FIXTURE), 'bytes')


if __name__ == '__main__':
    main(*sys.argv[1:])
