"""The Kernel Inception Distance: the squared maximum mean discrepancy of two sets of features.

Binkowski et al., *Demystifying MMD GANs*, 2018, section 4. On the pool features of the Inception network this is the
KID. The estimate is Eq. (4) of Gretton et al., *A Kernel Two-Sample Test*, 2012: its mean over draws does not depend on
the number of pictures, so it may come out below 0.
"""
import functools

import numpy as np

from util.engine.threads import parallel_map

_ROWS_AT_ONCE = 128  # bounds the kernel's blocks: 40 MB a thread at 20,000 pictures
_MOST_THREADS = 4  # bounds their number


def kernel_distance(features1, features2, n_subsets=100, subset_size=1000, seed=2020, degree=3, gamma=None, coef0=1.0):
    """Unbiased squared MMD with the kernel (gamma x.y + coef0)^degree over random subsets, in float64.

    The subsets are those of torch-fidelity: for each, first the rows of ``features1``, then the rows of ``features2``,
    drawn without replacement by one ``RandomState(seed)``.

    Args:
        features1, features2 (numpy.ndarray): (N1, D) and (N2, D), any real type.
        n_subsets (int): Number of subsets, at least 1.
        subset_size (int): Pictures of each set in a subset, 2 to min(N1, N2).
        seed (int): Seed of the draws.
        degree (int): The kernel's degree, at least 1.
        gamma (float): The kernel's factor; None is 1 / D.
        coef0 (float): The kernel's constant.

    Returns:
        tuple of float: Mean and population standard deviation over the subsets.

    Raises:
        ValueError: The arrays are not (N1, D) and (N2, D), a number is not finite, or ``n_subsets``, ``subset_size``
            or ``degree`` is out of its range.

    """
    x, y = _checked(features1, 'first'), _checked(features2, 'second')
    _check_settings(x, y, n_subsets, subset_size, degree)
    kernel = functools.partial(_kernel, degree=degree, gamma=1 / x.shape[1] if gamma is None else gamma, coef0=coef0)
    rng = np.random.RandomState(seed)
    subsets = [[rng.choice(len(features), subset_size, replace=False) for features in (x, y)]
               for _ in range(n_subsets)]
    threads = functools.partial(parallel_map, most=_MOST_THREADS)
    # A pair of pictures is in many subsets where the sets are small: then the kernel of every pair, once, is cheaper.
    # The bound on N1 + N2 (20,000 by default) bounds the memory, too.
    if (len(x) + len(y)) ** 2 < n_subsets * (2 * subset_size) ** 2:
        distances = _distances(x, y, subsets, kernel, threads)
    else:
        distances = threads(functools.partial(_distance, x, y, kernel), subsets)
    return float(np.mean(distances)), float(np.std(distances))


def _distance(x, y, kernel, subset):
    rows_x, rows_y = subset
    return _distances(x[rows_x], y[rows_y], [[np.arange(len(rows_x))] * 2], kernel, map)[0]


def _distances(x, y, subsets, kernel, map_blocks):
    """The estimate of every subset, from the kernel of every pair of pictures in x and y.

    A subset's sum of kernels is a product with its indicator, so a block of the kernel's matrix serves all subsets.
    """
    size = len(subsets[0][0])
    z = np.concatenate((x, y), dtype=np.float64)
    in_x, in_y = np.zeros((2, len(z), len(subsets)))
    for i, (rows_x, rows_y) in enumerate(subsets):
        in_x[rows_x, i] = in_y[len(x) + rows_y, i] = 1
    block_sums = functools.partial(_block_sums, z, in_x, in_y, kernel)
    within, across = sum(map_blocks(block_sums, range(0, len(z), _ROWS_AT_ONCE)))
    return 2 * within / (size * (size - 1)) - 2 * across / size ** 2


def _block_sums(z, in_x, in_y, kernel, start):
    """Sums of the kernel over the pairs of a block's pictures with the later ones: (2, n_subsets), within and across.

    So a pair counts once and a picture with itself never, and a pair across has the picture of x first.
    """
    rows = slice(start, start + _ROWS_AT_ONCE)
    block = kernel(z[rows], z[start:])
    block[:, :len(block)] = np.triu(block[:, :len(block)], 1)
    to_x, to_y = block @ in_x[start:], block @ in_y[start:]
    within = (in_x[rows] * to_x + in_y[rows] * to_y).sum(axis=0)
    return np.stack((within, (in_x[rows] * to_y).sum(axis=0)))


def _kernel(x, y, degree, gamma, coef0):
    base = x @ y.T
    base *= gamma
    base += coef0
    result = base.copy() if degree > 1 else base
    for _ in range(degree - 1):  # ten times as fast as base ** 3
        result *= base
    return result


def _checked(features, which):
    features = np.asarray(features)
    if features.ndim != 2 or features.size == 0:
        raise ValueError(f'the {which} features must be (N, D) and not empty, not of shape {features.shape}')
    if not np.isfinite(features).all():
        raise ValueError(f'the {which} features must be finite')
    return features


def _check_settings(x, y, n_subsets, subset_size, degree):
    if x.shape[1] != y.shape[1]:
        raise ValueError(f'the features have {x.shape[1]} and {y.shape[1]} dimensions')
    smaller = min(len(x), len(y))
    if not 2 <= subset_size <= smaller:
        raise ValueError(f'subset_size must be between 2 and the size of the smaller set, {smaller}, not {subset_size}')
    if n_subsets < 1 or degree < 1:
        raise ValueError(f'n_subsets and degree must be at least 1, not {n_subsets} and {degree}')
