import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

from util.metrics import FewSamplesWarning, frechet_distance, statistics
from util.metrics import frechet as frechet_module

# most distributions here are made of few samples on purpose
pytestmark = pytest.mark.filterwarnings('ignore::util.metrics.FewSamplesWarning')


def normal(seed, d, n):
    """Mean and covariance of n random features; singular where n <= d."""
    rng = np.random.default_rng(seed)
    return statistics(rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d) + rng.normal(size=d))


def rotation(seed, d):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


seeds = st.integers(0, 2 ** 32 - 1)
shapes = st.tuples(st.integers(1, 12), st.integers(2, 30))


def test_statistics_agree_with_numpy(monkeypatch):
    monkeypatch.setattr(frechet_module, '_ROWS_AT_ONCE', 7)  # several blocks, the last one smaller
    features = np.random.default_rng(0).normal(5, 2, (100, 6)).astype(np.float32)
    mean, cov = statistics(features)
    assert mean.dtype == cov.dtype == np.float64
    np.testing.assert_allclose(mean, features.astype(np.float64).mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(cov, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-12, atol=1e-14)


def test_statistics_by_hand():
    mean, cov = statistics(np.array([[0, 0], [2, 4]], np.uint8))
    np.testing.assert_array_equal(mean, [1, 2])
    np.testing.assert_array_equal(cov, [[2, 4], [4, 8]])


def test_statistics_of_a_single_feature_keep_their_shapes():
    mean, cov = statistics(np.array([[1.0], [3.0]]))
    assert mean.shape == (1,) and cov.shape == (1, 1) and cov[0, 0] == 2


def test_small_spread_on_a_large_offset_is_not_lost():
    features = 1e6 + np.array([[-1e-2], [1e-2]])
    assert statistics(features)[1][0, 0] == pytest.approx(2e-4, rel=1e-7)


@pytest.mark.parametrize('features', [
    np.zeros(3), np.zeros((1, 3)), np.zeros((3, 0)), np.zeros((2, 2, 2)), np.array([[1, 2], [np.nan, 3]]),
    np.array([[np.inf], [1]]),
])
def test_statistics_refuse_bad_features(features):
    with pytest.raises(ValueError, match='features must be'):
        statistics(features)


@pytest.mark.parametrize('n', [2, 7, 8])
def test_few_samples_are_told(n):
    with pytest.warns(FewSamplesWarning) as record:
        statistics(np.random.default_rng(0).normal(size=(n, 8)))
    assert [str(warning.message) for warning in record] == [
        f'{n} pictures, 8 dimensions: the covariance is singular, the distance is strongly biased upwards and only '
        'comparable at equal N']
    assert record[0].filename == __file__  # the caller's line, not that in the module


@pytest.mark.filterwarnings('error')
def test_enough_samples_are_not_mentioned():
    statistics(np.random.default_rng(0).normal(size=(9, 8)))


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    mean, cov = normal(0, 64, 200)
    shift = np.random.default_rng(1).normal(size=64)
    assert frechet_distance(mean, cov, mean + shift, cov) == pytest.approx(shift @ shift, rel=1e-11)


def test_diagonal_covariances():
    # sum of (sqrt(a) - sqrt(b))^2: 1 + 4 + 9 beside a shift of (3, 4, 0)
    a, b = np.diag([1.0, 4, 25]), np.diag([4.0, 16, 4])
    assert frechet_distance(np.zeros(3), a, [3, 4, 0], b) == pytest.approx(25 + 14, rel=1e-14)


def test_a_case_by_hand_that_does_not_commute():
    # C1 = diag(4, 1), C2 = [[2, 1], [1, 2]]. In 2x2 tr((C1 C2)^(1/2))^2 = tr(C1 C2) + 2 sqrt(|C1 C2|) = 10 + 4 sqrt(3)
    expected = 5 + 4 - 2 * np.sqrt(10 + 4 * np.sqrt(3))
    assert frechet_distance([0, 0], np.diag([4, 1]), [0, 0], [[2, 1], [1, 2]]) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize('n', [10, 65, 500])  # singular, almost singular, regular
def test_identical_distributions_have_distance_zero(n):
    mean, cov = normal(2, 64, n)
    assert frechet_distance(mean, cov, mean, cov) < 1e-12 * np.trace(cov)


def test_badly_scaled_covariances_keep_their_digits():
    # roots of the eigenvalues of C1 C2 would lose everything below 1e-8 here
    q = rotation(3, 40)
    cov = (q * np.logspace(-12, 0, 40)) @ q.T
    assert frechet_distance(np.zeros(40), cov, np.zeros(40), cov) < 1e-13


def test_orthogonal_singular_covariances():
    q = rotation(4, 6)
    a, b = (q * [1, 4, 9, 0, 0, 0]) @ q.T, (q * [0, 0, 0, 1, 1, 2]) @ q.T
    assert frechet_distance(np.zeros(6), a, np.zeros(6), b) == pytest.approx(18, rel=1e-12)


def overlap_of_samples(x, y):
    """tr((C1 C2)^(1/2)) of the samples' covariances, without either: the nuclear norm of X Y^T, both centred."""
    x, y = ((a - a.mean(axis=0)) / np.sqrt(len(a) - 1) for a in (x, y))
    return np.linalg.svd(x @ y.T, compute_uv=False).sum()


@pytest.mark.parametrize('n1, n2, d', [(20, 30, 100), (100, 101, 100), (20, 300, 100), (2, 2, 50), (400, 300, 100)])
def test_against_the_formula_of_the_samples(n1, n2, d):
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(d, d)) * np.logspace(0, -3, d)
    x, y = (np.maximum(rng.normal(size=(n, d)) @ mix.T + 0.3, 0) for n in (n1, n2))  # like the pool features
    (mean1, cov1), (mean2, cov2) = statistics(x), statistics(y)
    expected = ((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap_of_samples(x, y)
    assert frechet_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, rel=1e-11)


def test_few_samples_bias_the_distance_upwards():
    x, y = np.random.default_rng(6).normal(size=(2, 4000, 40))
    distances = [frechet_distance(*statistics(x[:n]), *statistics(y[:n])) for n in (20, 200, 4000)]
    assert distances[0] > 5 * distances[1] > 25 * distances[2] > 0


def test_the_covariances_of_one_covariance_scaled():
    # a and s^2 a with the same eigenvectors: (1 - s)^2 tr(a), though almost all of a is close to 0
    q = rotation(7, 60)
    a = (q * np.logspace(-12, 0, 60)) @ q.T
    expected = (1 - 1.001) ** 2 * np.logspace(-12, 0, 60).sum()
    assert frechet_distance(np.zeros(60), a, np.zeros(60), 1.001 ** 2 * a) == pytest.approx(expected, rel=1e-8)


def test_threads_of_blas_are_as_before():
    threads = [library['num_threads'] for library in threadpoolctl.threadpool_info()]
    frechet_distance([0, 0], np.eye(2), [0, 0], np.eye(2))
    assert [library['num_threads'] for library in threadpoolctl.threadpool_info()] == threads


def test_zero_covariances_leave_the_means():
    assert frechet_distance([1, 2], np.zeros((2, 2)), [4, 6], np.zeros((2, 2))) == 25


@given(seeds, shapes, st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_symmetric_and_not_negative(seed, shape, n2):
    d, n1 = shape
    first, second = normal(seed, d, n1), normal(seed + 1, d, n2)
    forward, backward = frechet_distance(*first, *second), frechet_distance(*second, *first)
    scale = np.trace(first[1]) + np.trace(second[1])
    assert forward >= 0
    assert forward == pytest.approx(backward, rel=1e-9, abs=1e-9 * scale)
    assert forward >= ((first[0] - second[0]) ** 2).sum() * (1 - 1e-9) - 1e-9 * scale


@given(seeds, shapes, st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_rotating_both_changes_nothing(seed, shape, n2):
    d, n1 = shape
    (m1, c1), (m2, c2) = normal(seed, d, n1), normal(seed + 1, d, n2)
    q = rotation(seed, d)
    rotated = frechet_distance(q @ m1, q @ c1 @ q.T, q @ m2, q @ c2 @ q.T)
    assert rotated == pytest.approx(frechet_distance(m1, c1, m2, c2), rel=1e-6, abs=1e-6)


@given(seeds, shapes, st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_scaling_features_scales_the_distance_by_the_square(seed, shape, factor):
    d, n = shape
    (m1, c1), (m2, c2) = normal(seed, d, n), normal(seed + 1, d, n)
    scaled = frechet_distance(factor * m1, factor ** 2 * c1, factor * m2, factor ** 2 * c2)
    assert scaled == pytest.approx(factor ** 2 * frechet_distance(m1, c1, m2, c2), rel=1e-6, abs=1e-6 * factor ** 2)


@pytest.mark.parametrize('arguments, message', [
    ((np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)), 'first .* shapes'),
    ((np.zeros(2), np.eye(2), np.zeros((2, 1)), np.eye(2)), 'second .* shapes'),
    ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), '2 and 3 dimensions'),
    ((np.zeros(0), np.zeros((0, 0)), np.zeros(0), np.zeros((0, 0))), 'shapes'),
    (([np.nan, 0], np.eye(2), np.zeros(2), np.eye(2)), 'finite'),
    ((np.zeros(2), np.eye(2), np.zeros(2), [[1, 0], [0, np.inf]]), 'finite'),
    ((np.zeros(2), [[1, 0.5], [0, 1]], np.zeros(2), np.eye(2)), 'not symmetric'),
    ((np.zeros(2), np.diag([1, -1]), np.zeros(2), np.eye(2)), 'negative eigenvalue'),
])
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(*arguments)
