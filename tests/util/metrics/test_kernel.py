import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

from util.metrics import kernel as kernel_module
from util.metrics import kernel_distance

seeds = st.integers(0, 2 ** 32 - 1)


def normal(seed, n, d, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, d))


def by_loops(x, y, degree, gamma, coef0):
    """The unbiased estimate, Eq. (4) of Binkowski et al., pair by pair."""
    def kernel(a, b):
        return (gamma * sum(i * j for i, j in zip(a, b, strict=True)) + coef0) ** degree

    m = len(x)
    within = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j)
    across = sum(kernel(a, b) for a in x for b in y)
    return within / (m * (m - 1)) - 2 * across / m ** 2


def subset_by_subset(x, y, n_subsets, size, seed=2020, **kernel):
    rng = np.random.RandomState(seed)
    distances = []
    for _ in range(n_subsets):
        rows_x, rows_y = rng.choice(len(x), size, replace=False), rng.choice(len(y), size, replace=False)
        distances.append(by_loops(x[rows_x].tolist(), y[rows_y].tolist(), **kernel))
    return np.mean(distances), np.std(distances)


def test_a_case_by_hand():
    # one feature: the products are 2 within x, 0 within y, 0 and 3, 0 and 6 across; gamma and coef0 are 1
    x, y = np.array([[1], [2]]), np.array([[0], [3]])
    expected = 3 ** 3 + 1 - 2 * (1 + 4 ** 3 + 1 + 7 ** 3) / 4
    mean, std = kernel_distance(x, y, n_subsets=3, subset_size=2)
    assert mean == pytest.approx(expected, rel=1e-14) and std == pytest.approx(0, abs=1e-12)


# the first two are cheaper with every pair at once, the others subset by subset
@pytest.mark.parametrize('n1, n2, n_subsets, size', [(9, 7, 10, 6), (5, 5, 2, 5), (40, 30, 3, 4), (5, 60, 1, 2)])
@pytest.mark.parametrize('kernel', [
    dict(degree=3, gamma=0.25, coef0=1.0), dict(degree=1, gamma=1.5, coef0=0.0), dict(degree=2, gamma=0.1, coef0=-0.5),
    dict(degree=5, gamma=0.3, coef0=2),
])
@pytest.mark.parametrize('rows_at_once', [3, 128])
def test_against_loops(n1, n2, n_subsets, size, kernel, rows_at_once, monkeypatch):
    monkeypatch.setattr(kernel_module, '_ROWS_AT_ONCE', rows_at_once)  # 3: several blocks, the last one smaller
    x, y = normal(0, n1, 4), normal(1, n2, 4, 0.5)
    mean, std = kernel_distance(x, y, n_subsets, size, **kernel)
    expected = subset_by_subset(x, y, n_subsets, size, **kernel)
    assert (mean, std) == (pytest.approx(expected[0], rel=1e-9), pytest.approx(expected[1], rel=1e-9, abs=1e-12))


def test_gamma_is_one_over_the_dimensions_unless_given():
    x, y = normal(0, 20, 8), normal(1, 20, 8)
    assert kernel_distance(x, y, 5, 10) == kernel_distance(x, y, 5, 10, gamma=1 / 8) != kernel_distance(x, y, 5, 10,
                                                                                                      gamma=1)


def test_both_ways_agree():
    x, y = normal(0, 300, 16), normal(1, 250, 16, 0.1)
    # many subsets of these sizes: every pair at once; the same subsets in parts: one by one
    assert (300 + 250) ** 2 < 40 * 200 ** 2 and (300 + 250) ** 2 >= 7 * 200 ** 2
    rng = np.random.RandomState(2020)
    subsets = [[rng.choice(len(z), 100, replace=False) for z in (x, y)] for _ in range(40)]
    parts = [kernel_distance(x[i], y[j], 1, 100)[0] for i, j in subsets]
    assert kernel_distance(x, y, 40, 100)[0] == pytest.approx(np.mean(parts), rel=1e-10)
    assert kernel_distance(x, y, 7, 100)[0] == pytest.approx(np.mean(parts[:7]), rel=1e-10)


def test_the_seed_decides():
    x, y = normal(0, 50, 4), normal(1, 50, 4)
    assert kernel_distance(x, y, 5, 10) == kernel_distance(x, y, 5, 10, seed=2020) != kernel_distance(x, y, 5, 10, 0)
    state = np.random.get_state()[1].copy()
    kernel_distance(x, y, 5, 10)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # draws from a generator of its own


@pytest.mark.parametrize('n', [1000, 60])  # 60: every pair at once
def test_bits_do_not_depend_on_the_number_of_threads(n):
    x, y = normal(0, n, 64), normal(1, n, 64)
    several = kernel_distance(x, y, 20, 50)
    with threadpoolctl.threadpool_limits(1, 'blas'):
        assert kernel_distance(x, y, 20, 50) == several


def test_threads_of_blas_are_as_before():
    threads = [library['num_threads'] for library in threadpoolctl.threadpool_info()]
    kernel_distance(normal(0, 5, 2), normal(1, 5, 2), 1, 5)
    assert [library['num_threads'] for library in threadpoolctl.threadpool_info()] == threads


def test_float32_features_are_multiplied_in_float64():
    x, y = normal(0, 60, 32).astype(np.float32), normal(1, 60, 32).astype(np.float32)
    assert kernel_distance(x, y, 10, 30) == kernel_distance(x.astype(np.float64), y.astype(np.float64), 10, 30)


def test_integers_do_not_overflow():
    x = np.array([[255, 200], [250, 0], [100, 255]], np.uint8)
    assert kernel_distance(x, x[::-1], 4, 3) == kernel_distance(x.astype(np.float64), x[::-1].astype(np.float64), 4, 3)


def test_unbiased():
    # 400 pairs of independent draws from one distribution: the mean is 0 within its standard error, where the biased
    # estimate would be 0.5 above, and the estimate is below 0 more often than not
    distances = np.array([kernel_distance(normal(2 * i, 20, 3), normal(2 * i + 1, 20, 3), 1, 20)[0]
                          for i in range(400)])
    error = distances.std() / np.sqrt(len(distances))
    assert abs(distances.mean()) < 3 * error < 0.1
    assert 0.4 < (distances < 0).mean() < 0.8


def test_identical_sets_come_out_below_zero():
    # the pairs of a picture with itself count across the sets and not within them
    x = normal(0, 30, 5)
    diagonal = ((x ** 2).sum(axis=1) / 5 + 1) ** 3
    gram = (x @ x.T / 5 + 1) ** 3
    expected = 2 * (gram.sum() - diagonal.sum()) / (30 * 29) - 2 * gram.mean()
    assert expected < 0
    assert kernel_distance(x, x, 2, 30) == (pytest.approx(expected, rel=1e-11), pytest.approx(0, abs=1e-11))


def test_a_larger_shift_is_further_away():
    x = normal(0, 500, 8)
    distances = [kernel_distance(x, normal(1, 500, 8, shift), 20, 200)[0] for shift in (0, 0.25, 0.5, 1, 2)]
    assert distances == sorted(distances)
    assert abs(distances[0]) < 0.02 < 0.03 < distances[1]


def test_the_kernel_of_degree_one_measures_the_means():
    # E|mean_x - mean_y|^2 without the pictures' own squares; with coef0 cancelling
    x, y = normal(0, 400, 6), normal(1, 400, 6, 0.7)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    expected = ((mean_x - mean_y) ** 2).sum() - sum(z.var(axis=0, ddof=1).sum() / 400 for z in (x, y))
    assert kernel_distance(x, y, 1, 400, degree=1, gamma=1, coef0=3)[0] == pytest.approx(expected, rel=1e-10)


@given(seeds, st.integers(2, 20), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_order_does_not_matter_for_subsets_of_everything(seed, n, d):
    x, y = normal(seed, n, d), normal(seed + 1, n, d, 0.5)
    rng = np.random.default_rng(seed)
    mean, std = kernel_distance(x, y, 3, n)
    assert kernel_distance(rng.permutation(x), rng.permutation(y), 1, n)[0] == pytest.approx(mean, rel=1e-9, abs=1e-9)
    assert std == pytest.approx(0, abs=1e-9 * (1 + abs(mean)))


@given(seeds, st.integers(2, 20), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_symmetric_for_subsets_of_everything(seed, n, d):
    x, y = normal(seed, n, d), normal(seed + 1, n, d, 0.5)
    assert kernel_distance(x, y, 1, n)[0] == pytest.approx(kernel_distance(y, x, 1, n)[0], rel=1e-9, abs=1e-9)


@given(seeds, st.integers(2, 20), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_rotating_both_changes_nothing(seed, n, d):
    x, y = normal(seed, n + 3, d), normal(seed + 1, n, d, 0.5)
    q = np.linalg.qr(normal(seed, d, d))[0]
    rotated = kernel_distance(x @ q, y @ q, 3, n)
    assert rotated == pytest.approx(kernel_distance(x, y, 3, n), rel=1e-7, abs=1e-7)


GOOD = np.zeros((6, 3))


@pytest.mark.parametrize('x, y, options, message', [
    (np.zeros(6), GOOD, {}, 'first features .* shape'),
    (GOOD, np.zeros((6, 3, 1)), {}, 'second features .* shape'),
    (np.zeros((0, 3)), GOOD, {}, 'first features .* empty'),
    (GOOD, np.zeros((6, 0)), {}, 'second features .* empty'),
    (GOOD, np.zeros((6, 4)), {}, '3 and 4 dimensions'),
    (np.full((6, 3), np.nan), GOOD, {}, 'first features must be finite'),
    (GOOD, np.full((6, 3), np.inf), {}, 'second features must be finite'),
    (GOOD, GOOD, dict(subset_size=1), 'subset_size .* 2 and .* 6, not 1'),
    (GOOD, GOOD, dict(subset_size=7), 'subset_size .* 2 and .* 6, not 7'),
    (GOOD, GOOD[:4], dict(subset_size=5), 'subset_size .* 2 and .* 4, not 5'),
    (GOOD[:1], GOOD, dict(subset_size=2), 'subset_size'),
    (GOOD, GOOD, dict(n_subsets=0), 'n_subsets'),
    (GOOD, GOOD, dict(degree=0), 'degree'),
])
def test_bad_input_is_refused(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        kernel_distance(x, y, **{'subset_size': 2, **options})
