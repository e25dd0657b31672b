"""The metrics against torch-fidelity's, on the same features and logits.

Needs torch and torch_fidelity, which the project itself does not: the folder runs when it is named, in an environment
of its own, and fails there without them.

torch-fidelity computes in the type of its features. In float32 it keeps 4 digits of the KID and 7 of the FID,
so both sides get float32 numbers, and torch-fidelity gets them as float64. Measured then: FID 1e-14 with regular
covariances, 1e-7 with singular ones (see ``test_frechet_distance_of_few_pictures``), KID 1e-13, IS 1e-10 and its
deviation 2e-8.
"""
import numpy as np
import pytest
import threadpoolctl
import torch
from torch_fidelity import metric_fid, metric_isc, metric_kid

from util.metrics import frechet_distance, inception_score, kernel_distance, statistics

pytestmark = pytest.mark.filterwarnings('ignore::util.metrics.FewSamplesWarning')

SETS = [(200, 300, 64), (40, 50, 64), (3000, 2500, 2048), (500, 800, 2048)]  # N1, N2, D


@pytest.fixture(autouse=True)
def one_thread():
    with threadpoolctl.threadpool_limits(1):  # eigvals and svd are many times slower where threads share a core
        yield


def features(seed, n, d, shift=0.0):
    """Like pool features: correlated, not negative, many of them 0, float32."""
    mix = np.random.default_rng(0).normal(size=(d, d)) * np.logspace(0, -2, d) * 4 / np.sqrt(d)
    return np.maximum(np.random.default_rng(seed).normal(size=(n, d)) @ mix.T + 0.1 + shift, 0).astype(np.float32)


def pair(n1, n2, d):
    return features(1, n1, d), features(2, n2, d, 0.05)


def double(array):
    return torch.from_numpy(array.astype(np.float64))


def their_frechet_distance(x, y):
    both = [metric_fid.fid_features_to_statistics(double(z)) for z in (x, y)]
    return metric_fid.fid_statistics_to_metric(*both, False)[metric_fid.KEY_METRIC_FID]


def their_kernel_distance(x, y, **options):
    options = {'kid_' + key: value for key, value in options.items()}
    metric = metric_kid.kid_features_to_metric(double(x), double(y), verbose=False, **options)
    return metric[metric_kid.KEY_METRIC_KID_MEAN], metric[metric_kid.KEY_METRIC_KID_STD]


def distance_of_samples(x, y):
    """The FID without a root of a covariance: its last trace is the nuclear norm of X Y^T, both centred."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    difference = x.mean(axis=0) - y.mean(axis=0)
    x, y = ((z - z.mean(axis=0)) / np.sqrt(len(z) - 1) for z in (x, y))
    overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return difference @ difference + (x ** 2).sum() + (y ** 2).sum() - 2 * overlap


@pytest.mark.parametrize('n1, n2, d', SETS)
def test_frechet_distance(n1, n2, d):
    x, y = pair(n1, n2, d)
    ours = frechet_distance(*statistics(x), *statistics(y))
    assert ours == pytest.approx(their_frechet_distance(x, y), rel=1e-6)
    assert ours == pytest.approx(distance_of_samples(x, y), rel=1e-11)


def test_frechet_distance_of_few_pictures():
    """Where covariances are singular, theirs is off by 1e-7 of their traces and ours is not.

    Most eigenvalues of cov1 cov2 are 0, and come out as rounding; torch-fidelity adds the rounding's roots. That is
    nothing beside the FID of such few pictures of two models, but here the FID is small: y is 1.01 x.
    """
    x = features(1, 500, 2048)
    mean, cov = statistics(x)
    exact = 0.01 ** 2 * (mean @ mean + np.trace(cov))
    assert frechet_distance(mean, cov, 1.01 * mean, 1.01 ** 2 * cov) == pytest.approx(exact, rel=1e-9)
    stats = [{'mu': factor * mean, 'sigma': factor ** 2 * cov} for factor in (1, 1.01)]
    theirs = metric_fid.fid_statistics_to_metric(*stats, False)[metric_fid.KEY_METRIC_FID]
    assert 1e-6 * exact < abs(theirs - exact) < 1e-6 * np.trace(cov)


def test_statistics():
    x = features(1, 3000, 2048)
    mean, cov = statistics(x)
    theirs = metric_fid.fid_features_to_statistics(double(x))
    np.testing.assert_allclose(mean, theirs['mu'], rtol=1e-13)
    np.testing.assert_allclose(cov, theirs['sigma'], rtol=0, atol=1e-13 * abs(cov).max())


@pytest.mark.parametrize('n1, n2, d', SETS)
@pytest.mark.parametrize('n_subsets, part', [(100, 2), (2, 8)])  # every pair at once and subset by subset
def test_kernel_distance(n1, n2, d, n_subsets, part):
    x, y = pair(n1, n2, d)
    size = min(1000, n1 // part)
    ours = kernel_distance(x, y, n_subsets, size)
    theirs = their_kernel_distance(x, y, subsets=n_subsets, subset_size=size)
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_kernel_distance_as_configured_by_default():
    x, y = pair(3000, 2500, 2048)
    assert kernel_distance(x, y) == pytest.approx(their_kernel_distance(x, y), rel=1e-6)


def test_kernel_distance_with_another_kernel():
    x, y = pair(200, 300, 64)
    ours = kernel_distance(x, y, 10, 50, degree=2, gamma=0.1, coef0=0.5)
    kernel = dict(kernel_poly_degree=2, kernel_poly_gamma=0.1, kernel_poly_coef0=0.5)
    assert ours == pytest.approx(their_kernel_distance(x, y, subsets=10, subset_size=50, **kernel), rel=1e-6)


@pytest.mark.parametrize('n', [5000, 1003])  # 1003: the splits differ in size
@pytest.mark.parametrize('shuffle', [False, True])
def test_inception_score(n, shuffle):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (n, 1008)).astype(np.float32)
    logits[np.arange(n), np.arange(n) * 1008 // n] += 8  # sorted by class: shuffling makes a difference
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)  # float32, as a network's softmax
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), 10, shuffle, 2020)
    ours = inception_score(p, 10, 2020 if shuffle else None)
    assert ours[0] == pytest.approx(theirs[metric_isc.KEY_METRIC_ISC_MEAN], rel=1e-5)
    assert ours[1] == pytest.approx(theirs[metric_isc.KEY_METRIC_ISC_STD], rel=1e-5)
