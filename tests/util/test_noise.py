import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from util import noise

counters = st.integers(0, 2 ** 32 - 1)


@given(counters, counters, st.integers(0, 100), st.integers(0, 50))
def test_bits_are_a_pure_function(seed, iteration, step, n):
    first = noise.bits(np, n, seed, iteration, 'z', step)
    np.random.seed(0)
    np.testing.assert_array_equal(first, noise.bits(np, n, seed, iteration, 'z', step))
    assert first.dtype == np.uint64 and first.shape == (n,)


def test_bits_known_answer():
    # Philox 4x64-10 with key (seed, crc32(purpose)), written out with Python's integers
    def philox(key, counter):
        mask = 2 ** 64 - 1
        for _ in range(10):
            p0, p1 = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
            counter = [p1 >> 64 ^ counter[1] ^ key[0], p1 & mask, p0 >> 64 ^ counter[3] ^ key[1], p0 & mask]
            key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
        return counter
    expected = philox([7, 562391268], [1, 0, 3, 11]) + philox([7, 562391268], [2, 0, 3, 11])
    assert noise._counter(7, 11, 'normal', 3)[0][1] == 562391268
    assert noise.bits(np, 8, 7, 11, 'normal', 3).tolist() == expected


@pytest.mark.parametrize('change', [{'seed': 1}, {'iteration': 1}, {'purpose': 'b'}, {'step': 1}])
def test_streams_are_independent(change):
    base = {'seed': 0, 'iteration': 0, 'purpose': 'a', 'step': 0}
    x, y = noise.normal(np, (20000,), **base), noise.normal(np, (20000,), **{**base, **change})
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.03


def test_uniform_distribution():
    x = noise.uniform(np, (100, 1001), 0, 0, 'u')
    assert x.dtype == np.float32 and x.shape == (100, 1001)
    assert 0 <= x.min() < 1e-3 and 1 - 1e-3 < x.max() < 1
    counts, _ = np.histogram(x, 16, (0, 1))
    expected = x.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square, 15 degrees of freedom: p < 1e-4


def test_normal_distribution():
    x = noise.normal(np, (100001,), 3, 4, 'z')
    assert x.dtype == np.float32 and x.shape == (100001,)
    moments = [np.mean(x.astype('d') ** k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.1)
    assert np.isfinite(x).all()


@given(st.integers(1, 1000), counters, counters, st.integers(0, 30))
def test_integers_are_a_pure_function_in_range(high, seed, iteration, n):
    drawn = noise.integers(np, high, (n, 2), seed, iteration, 'classes')
    np.testing.assert_array_equal(drawn, noise.integers(np, high, (n, 2), seed, iteration, 'classes'))
    assert drawn.dtype == np.int32 and drawn.shape == (n, 2) and (drawn >= 0).all() and (drawn < high).all()
    # The part of [0, 1) that a uniform number of the same stream falls into
    uniform = noise.uniform(np, (n, 2), seed, iteration, 'classes').astype('d')
    assert np.abs(drawn + 0.5 - uniform * high).max(initial=0) <= 0.5 + 1e-4


@pytest.mark.parametrize('high', [2, 10, 1000])
def test_integers_are_all_alike_likely(high):
    n = 200 * high
    counts = np.bincount(noise.integers(np, high, (n,), 0, 0, 'classes'), minlength=high)
    assert len(counts) == high
    chi_square = ((counts - 200) ** 2 / 200).sum()  # mean high - 1, variance twice that
    assert abs(chi_square - (high - 1)) < 4 * np.sqrt(2 * (high - 1))


@pytest.mark.parametrize('high', [1, 10, 1000, 2 ** 24 - 1, 2 ** 24])
def test_the_largest_uniform_number_gives_the_largest_integer(monkeypatch, high):
    monkeypatch.setattr(noise, 'uniform', lambda xp, shape, *_: xp.full(shape, 1 - 2.0 ** -24, 'f'))
    assert noise.integers(np, high, (3,), 0, 0, 'classes').tolist() == [high - 1] * 3
    monkeypatch.setattr(noise, 'uniform', lambda xp, shape, *_: xp.zeros(shape, 'f'))
    assert noise.integers(np, high, (3,), 0, 0, 'classes').tolist() == [0] * 3


@pytest.mark.parametrize('change', [{'seed': 1}, {'iteration': 1}, {'purpose': 'b'}, {'step': 1}])
def test_other_counters_other_integers(change):
    base = {'seed': 0, 'iteration': 0, 'purpose': 'a', 'step': 0}
    first, other = (noise.integers(np, 10, (1000,), **each) for each in (base, {**base, **change}))
    assert 50 < (first == other).sum() < 150  # 100, and 5 standard deviations


@given(st.integers(1, 200), counters, st.integers(0, 5))
def test_permutation(n, seed, epoch):
    order = noise.permutation(n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))


def test_permutations_differ_between_epochs():
    assert (noise.permutation(100, 0, 0) != noise.permutation(100, 0, 1)).any()


def test_random_state():
    assert noise.random_state(5, 'generator').rand() == noise.random_state(5, 'generator').rand()
    assert noise.random_state(5, 'generator').rand() != noise.random_state(6, 'generator').rand()
    assert noise.random_state(5, 'generator').rand() != noise.random_state(5, 'discriminator').rand()


def test_negative_counters_are_refused():
    with pytest.raises(ValueError, match='negative'):
        noise.bits(np, 1, -1, 0, 'z')
