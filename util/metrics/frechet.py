"""The Frechet distance between two normal distributions, and the statistics of features that it compares.

Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, 2017, Eq. (6). On
the pool features of the Inception network this is the FID.
"""
import warnings

import numpy as np
import threadpoolctl

_ROWS_AT_ONCE = 4096  # bounds the float64 copy: 64 MiB at 2,048 features


class FewSamplesWarning(UserWarning):
    """A covariance of no more samples than dimensions, which is singular: a distance from it is strongly biased."""


def warn_of_few_samples(n, d, stacklevel=2):
    """Warn (FewSamplesWarning) where N pictures are no more than their D features."""
    if n <= d:
        warnings.warn('{} pictures, {} dimensions: the covariance is singular, the distance is strongly biased upwards '
                      'and only comparable at equal N'.format(n, d), FewSamplesWarning, stacklevel=stacklevel)


def statistics(features):
    """Mean and covariance of features. Warns (FewSamplesWarning) where N is at most D.

    Args:
        features (numpy.ndarray): (N, D), any real type, N at least 2.

    Returns:
        tuple of numpy.ndarray: Mean (D,) and covariance (D, D) with divisor N - 1, float64.

    Raises:
        ValueError: The array is not (N, D), N is below 2, or a number is not finite.

    """
    features = np.asarray(features)
    if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
        raise ValueError(f'features must be (N, D) with N at least 2, not of shape {features.shape}')
    warn_of_few_samples(*features.shape, stacklevel=3)
    mean = features.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError('features must be finite')
    cov = np.zeros((len(mean), len(mean)))
    for start in range(0, len(features), _ROWS_AT_ONCE):
        centred = features[start:start + _ROWS_AT_ONCE] - mean
        cov += centred.T @ centred
    return mean, cov / (len(features) - 1)


def frechet_distance(mean1, cov1, mean2, cov2):
    """|mean1 - mean2|^2 + tr(cov1) + tr(cov2) - 2 tr((cov1 cov2)^(1/2)), in float64.

    The last trace is the sum of the singular values of cov1^(1/2) cov2^(1/2), whose roots come from the covariances'
    eigenvalues. That holds for singular covariances (fewer pictures than features), needs no root of a matrix that is
    not symmetric, and is accurate to rounding, where the roots of the eigenvalues of cov1 cov2 keep half of the digits.

    Args:
        mean1, mean2 (numpy.ndarray): (D,).
        cov1, cov2 (numpy.ndarray): (D, D), symmetric, positive semidefinite.

    Returns:
        float: The squared distance, at least 0 (rounding below 0 is cut off).

    Raises:
        ValueError: Shapes do not fit, a number is not finite, or a covariance is not symmetric or has an
            eigenvalue clearly below 0.

    """
    mean1, cov1 = _checked(mean1, cov1, 'first')
    mean2, cov2 = _checked(mean2, cov2, 'second')
    if mean1.shape != mean2.shape:
        raise ValueError(f'the distributions have {len(mean1)} and {len(mean2)} dimensions')
    # BLAS's threads wait for each other at every column of these decompositions: at D = 2048 on two cores, one of them
    # busy with another process, two threads took 50 s and one takes 5 s
    with threadpoolctl.threadpool_limits(1, 'blas'):
        # The roots of eigvalsh(H1 cov2 H1^T) take 2 s instead of 5 but lose digits: with eigenvalues over 8 decades
        # and a trace of 112 the distance was off by 2e-7, and by 7e-13 so
        product = _half(cov1, 'first') @ _half(cov2, 'second').T
        overlap = np.linalg.svd(product, compute_uv=False).sum()
    difference = mean1 - mean2
    return max(float(difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * overlap), 0.0)


def _half(cov, which):
    """H (rank, D) with H^T H = cov, which does for the root: a rotation of its rows changes no singular value."""
    w, v = np.linalg.eigh(cov)
    largest = abs(w).max()
    if w[0] < -1e-3 * largest:  # a covariance kept in float32 is off by far less
        raise ValueError(f'the {which} covariance has a negative eigenvalue, {w[0]:.3g}')
    kept = w > len(w) * np.finfo(np.float64).eps * largest  # the others are rounding, whose root would not be small
    return np.sqrt(w[kept])[:, None] * v.T[kept]


def _checked(mean, cov, which):
    mean, cov = np.asarray(mean, dtype=np.float64), np.asarray(cov, dtype=np.float64)
    if mean.ndim != 1 or mean.size == 0 or cov.shape != mean.shape * 2:
        message = 'the {} mean and covariance must be (D,) and (D, D), not of shapes {} and {}'
        raise ValueError(message.format(which, mean.shape, cov.shape))
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError(f'the {which} mean and covariance must be finite')
    if abs(cov - cov.T).max() > 1e-5 * abs(cov).max():
        raise ValueError(f'the {which} covariance is not symmetric')
    return mean, (cov + cov.T) / 2
