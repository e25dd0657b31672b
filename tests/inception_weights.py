"""Random weights for the Inception network, in the layout of its npz: what stands in for the real ones in tests."""
import numpy as np

from util.inception.layers import LAYERS, N_CLASSES, N_FEATURES


def random_weights(seed=0):
    """Weights under which activations neither vanish nor grow, and in which no array is like another.

    Returns:
        dict: ``<layer>/W`` (n_out, n_in, h, w), ``<layer>/gamma``, ``beta``, ``mean``, ``var`` (n_out,), ``softmax/W``
        (1008, 2048), ``softmax/b`` (1008,); float32. A function of the seed on every machine and NumPy.

    """
    rng = np.random.RandomState(seed)  # its stream is frozen for good
    weights = {}
    for layer in LAYERS:
        fan_in, n = np.prod(layer.shape[1:]), layer.shape[0]
        arrays = {'W': rng.standard_normal(layer.shape) * np.sqrt(2 / fan_in), 'gamma': rng.uniform(0.7, 1.3, n),
                  'beta': rng.normal(0, 0.1, n), 'mean': rng.normal(0, 0.1, n), 'var': rng.uniform(0.3, 2, n)}
        weights.update(('{}/{}'.format(layer.name, key), array) for key, array in arrays.items())
    weights['softmax/W'] = rng.standard_normal((N_CLASSES, N_FEATURES)) * np.sqrt(1 / N_FEATURES)
    weights['softmax/b'] = rng.normal(0, 0.5, N_CLASSES)
    return {key: array.astype(np.float32) for key, array in weights.items()}
