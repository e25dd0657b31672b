import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from util.metrics import inception_score


def rows(max_rows=20, max_classes=8):
    shapes = st.tuples(st.integers(1, max_rows), st.integers(1, max_classes))
    numbers = st.floats(0, 1) | st.just(0.0)
    arrays = shapes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=numbers))
    return arrays.filter(lambda a: (a.sum(axis=1) > 1e-3).all()).map(lambda a: a / a.sum(axis=1, keepdims=True))


@pytest.mark.parametrize('n_classes', [1, 2, 10, 1008])
def test_uniform_rows_score_one(n_classes):
    mean, std = inception_score(np.full((20, n_classes), 1 / n_classes))
    assert mean == pytest.approx(1, abs=1e-12)
    assert std == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('n_classes', [1, 2, 10])
def test_balanced_one_hot_rows_score_the_number_of_classes(n_classes):
    p = np.tile(np.eye(n_classes), (10, 1))
    assert inception_score(p) == (pytest.approx(n_classes, rel=1e-12), pytest.approx(0, abs=1e-12))


def test_one_class_only_scores_one():
    p = np.zeros((30, 10))
    p[:, 3] = 1
    assert inception_score(p) == (1, 0)


def test_a_case_by_hand():
    # marginal (1/2, 1/2); each row's KL is 3/4 log(3/2) + 1/4 log(1/2) = 3/4 log 3 - log 2; its exp is 3^(3/4) / 2
    mean, std = inception_score(np.array([[0.75, 0.25], [0.25, 0.75]]), n_splits=1)
    assert mean == pytest.approx(3 ** 0.75 / 2, rel=1e-14)
    assert std == 0


def test_splits_are_contiguous_and_the_deviation_is_of_the_population():
    p = np.concatenate((np.tile(np.eye(4), (3, 1)), np.full((12, 4), 0.25)))  # scores 4 and 1
    mean, std = inception_score(p, n_splits=2)
    assert mean == pytest.approx(2.5, rel=1e-14)
    assert std == pytest.approx(1.5, rel=1e-14)


def test_uneven_splits_use_every_picture():
    p = np.zeros((5, 2))
    p[[0, 1, 2, 3, 4], [0, 1, 0, 0, 1]] = 1  # splits [0:2] and [2:5]
    entropy = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    scores = [2, math.exp(entropy)]
    assert inception_score(p, n_splits=2) == (pytest.approx(np.mean(scores)), pytest.approx(np.std(scores)))


def test_against_the_plain_formula():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(10, 0.3), 100)
    scores = []
    for part in np.split(p, 10):
        kl = part * (np.log(part) - np.log(part.mean(axis=0)))
        scores.append(np.exp(kl.sum(axis=1).mean()))
    assert inception_score(p) == (pytest.approx(np.mean(scores), rel=1e-12), pytest.approx(np.std(scores), rel=1e-10))


def test_float32_rows_are_summed_in_float64():
    p = np.random.default_rng(0).dirichlet(np.ones(10), 2000).astype(np.float32)
    assert inception_score(p) == inception_score(p.astype(np.float64))


def test_a_seed_shuffles():
    p = np.random.default_rng(1).dirichlet(np.full(10, 0.3), 103)
    shuffled = p[np.random.RandomState(2020).permutation(103)]
    assert inception_score(p, shuffle_seed=2020) == inception_score(shuffled)
    assert inception_score(p, shuffle_seed=0) == inception_score(p[np.random.RandomState(0).permutation(103)])
    assert inception_score(p, shuffle_seed=2020) != inception_score(p, shuffle_seed=0) != inception_score(p)


def test_shuffling_matters_where_pictures_are_sorted_and_leaves_the_input_alone():
    p = np.repeat(np.eye(10), 50, axis=0)
    before = p.copy()
    assert inception_score(p)[0] == pytest.approx(1)  # one class a split
    assert inception_score(p, shuffle_seed=2020)[0] > 8
    np.testing.assert_array_equal(p, before)


@given(rows(), st.integers(0, 2 ** 32 - 1))
@settings(max_examples=30, deadline=None)
def test_shuffling_does_not_matter_for_one_split(p, seed):
    assert inception_score(p, 1, seed)[0] == pytest.approx(inception_score(p, 1)[0], rel=1e-9)


@given(rows(), st.data())
@settings(max_examples=100, deadline=None)
def test_score_lies_between_one_and_the_number_of_classes(p, data):
    n_splits = data.draw(st.integers(1, len(p)))
    mean, std = inception_score(p, n_splits)
    assert 1 - 1e-9 <= mean <= p.shape[1] * (1 + 1e-9)
    assert 0 <= std <= p.shape[1]


@given(rows(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_order_does_not_matter_within_a_split(p, random):
    order, classes = list(range(len(p))), list(range(p.shape[1]))
    random.shuffle(order)
    random.shuffle(classes)
    assert inception_score(p[order][:, classes], 1)[0] == pytest.approx(inception_score(p, 1)[0], rel=1e-9)


@pytest.mark.parametrize('p, n_splits, message', [
    (np.ones(3), 1, 'shape'),
    (np.ones((2, 3, 1)) / 3, 1, 'shape'),
    (np.ones((0, 3)), 1, 'empty'),
    (np.ones((3, 0)), 1, 'empty'),
    (np.full((4, 2), 0.51), 1, 'sum to 1'),
    (np.array([[1.5, -0.5]]), 1, 'at least 0'),
    (np.array([[np.nan, 1.0]]), 1, 'finite'),
    (np.array([[np.inf, 1.0]]), 1, 'finite'),
    (np.full((4, 2), 0.5), 5, 'n_splits'),
    (np.full((4, 2), 0.5), 0, 'n_splits'),
])
def test_bad_input_is_refused(p, n_splits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(p, n_splits)


def test_sums_within_the_tolerance_are_accepted():
    assert inception_score(np.full((4, 2), 0.5004), 1)[0] == pytest.approx(1, abs=1e-9)
