"""The formula of the Inception Score, for the output of any classifier.

Salimans et al., *Improved Techniques for Training GANs*, 2016, section 4.
"""
import numpy as np


def inception_score(probabilities, n_splits=10, shuffle_seed=None):
    """exp(mean KL(p(y|x) || p(y))) over contiguous splits, as in OpenAI's ``inception_score``.

    The marginal p(y) is the mean within a split. Split ``i`` of ``n`` is the pictures
    ``[i * N // n, (i + 1) * N // n)``: every one counts, though n may not divide N. The rows are used as they are, not
    normalised again. All arithmetic is float64. OpenAI's code shuffles nothing. torch-fidelity shuffles, with seed 2020
    unless told otherwise, which matters where the order means something, as in a data set sorted by class.

    Args:
        probabilities (numpy.ndarray): (N, n_classes), any float type: one row p(y|x) a picture. Exact zeros are fine:
            0 log 0 = 0.
        n_splits (int): Number of splits, 1 to N.
        shuffle_seed (int): Permute the rows by a ``RandomState`` of this seed first; None leaves them in their order.

    Returns:
        tuple of float: Mean and population standard deviation over the splits. Each split's score lies between 1 and
        n_classes.

    Raises:
        ValueError: The array is not (N, n_classes) or empty, has numbers that are not finite or below 0 or a row whose
            sum is not 1 within 1e-3, or ``n_splits`` is below 1 or above N.

    """
    p = _checked(probabilities, n_splits)
    if shuffle_seed is not None:
        p = p[np.random.RandomState(shuffle_seed).permutation(len(p))]
    bounds = [i * len(p) // n_splits for i in range(n_splits + 1)]
    scores = [_score(p[low:high]) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(p):
    marginal = np.broadcast_to(p.mean(axis=0), p.shape)
    ratio = np.ones_like(p)
    # the marginal of a positive probability is 0 only by underflow, where the term is below 1e-300
    np.divide(p, marginal, out=ratio, where=(p > 0) & (marginal > 0))
    return np.exp((p * np.log(ratio)).sum(axis=1).mean())


def _checked(probabilities, n_splits):
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.size == 0:
        raise ValueError(f'probabilities must be (N, n_classes) and not empty, not of shape {p.shape}')
    if not np.isfinite(p).all() or p.min() < 0:
        raise ValueError('probabilities must be finite and at least 0')
    worst = abs(p.sum(axis=1) - 1).max()
    if worst > 1e-3:
        raise ValueError(f'every row of probabilities must sum to 1: one is off by {worst:.3g}')
    if not 1 <= n_splits <= len(p):
        raise ValueError(f'n_splits must be between 1 and the number of pictures, {len(p)}, not {n_splits}')
    return p
