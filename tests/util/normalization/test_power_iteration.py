import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from util.normalization import kernels, power_iteration


def draw(shape, seed=0, dtype='d'):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


matrices = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-4, 4)).map(
    lambda W: W + 0.01 * draw(W.shape))  # never of zeros


def top(W):
    return np.linalg.svd(W, compute_uv=False)[0]


def test_one_round_is_the_papers():
    W, u = draw((5, 7)), draw(5, 1)
    v = W.T @ u / np.linalg.norm(W.T @ u)  # Equation 20
    right_u = W @ v / np.linalg.norm(W @ v)  # Equation 21
    new_u, new_v, sigma = power_iteration.power_iteration(W, u)
    np.testing.assert_allclose(new_v, v)
    np.testing.assert_allclose(new_u, right_u)
    np.testing.assert_allclose(sigma, right_u @ W @ v)  # Equation 19
    assert sigma.shape == () and isinstance(sigma, np.ndarray)
    np.testing.assert_array_equal(u, draw(5, 1))


def test_eps_is_added_to_the_length():
    W, u = np.array([[3.0, 4.0]]), np.array([2.0])
    new_u, v, sigma = power_iteration.power_iteration(W, u, eps=5)
    np.testing.assert_allclose(v, np.array([6, 8]) / 15)
    np.testing.assert_allclose(new_u, (50 / 15) / (50 / 15 + 5))
    np.testing.assert_allclose(sigma, new_u[0] * 50 / 15)


def test_rounds_are_repeated():
    W, u = draw((6, 4)), draw(6, 1)
    once = u
    for _ in range(3):
        once, v, sigma = power_iteration.power_iteration(W, once)
    for right, got in zip((once, v, sigma), power_iteration.power_iteration(W, u, 3), strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-13)


@pytest.mark.parametrize('shape', [(20, 30), (30, 20), (1, 9), (9, 1), (1, 1)])
def test_converges_to_the_singular_vectors(shape):
    W = draw(shape)
    U, s, V = np.linalg.svd(W)
    u, v, sigma = power_iteration.power_iteration(W, draw(shape[0], 1), 2000)
    np.testing.assert_allclose(sigma, s[0], rtol=1e-10)
    np.testing.assert_allclose(np.outer(u, v), np.outer(U[:, 0], V[0]), atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(matrices, st.integers(1, 4))
def test_never_more_than_the_top_singular_value_and_never_less_than_before(W, n):
    u = draw(len(W), 1)
    u, _, sigma = power_iteration.power_iteration(W, u, n)
    assert sigma <= top(W) * (1 + 1e-12)
    assert power_iteration.power_iteration(W, u)[2] >= sigma * (1 - 1e-9)  # eps shortens u a little


@settings(deadline=None, max_examples=60)
@given(matrices, st.floats(0.1, 1e3))
def test_a_scaled_weight_normalizes_to_the_same(W, c):
    u = draw(len(W), 1)
    W_bar, new_u, v, sigma = power_iteration.normalize(W, u)
    scaled = power_iteration.normalize(c * W, u)
    np.testing.assert_allclose(scaled[0], W_bar, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled[3], c * sigma, rtol=1e-6)


@pytest.mark.parametrize('shape,axis', [
    ((3, 5), 0), ((3, 5), 1), ((3, 5, 2, 4), 0), ((3, 5, 2, 4), 1), ((3, 5, 2), 2), ((3,), 0)])
def test_matrices(shape, axis):
    W = draw(shape)
    matrix = power_iteration.as_matrix(W, axis)
    assert matrix.shape == (shape[axis], W.size // shape[axis])
    for o in range(shape[axis]):
        np.testing.assert_array_equal(matrix[o], W.take(o, axis).ravel())
    back = power_iteration.from_matrix(matrix, shape, axis)
    np.testing.assert_array_equal(back, W)
    assert back.flags.c_contiguous


def test_a_plain_weight_is_not_copied():
    W = draw((3, 5, 2, 4))
    assert np.shares_memory(power_iteration.as_matrix(W), W)


@pytest.mark.parametrize('axis', [0, 1])
def test_normalize(axis):
    W, u = draw((3, 5, 2)), draw((3, 5)[axis], 1)
    stored = u.copy()
    W_bar, new_u, v, sigma = power_iteration.normalize(W, u, 2, 1e-12, 1.5, axis, stored)
    right = power_iteration.power_iteration(power_iteration.as_matrix(W, axis), u, 2)
    for got, expected in zip((new_u, v, sigma), right, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(W_bar, 1.5 * W / sigma)
    np.testing.assert_array_equal(stored, new_u)
    assert not np.shares_memory(stored, new_u)
    np.testing.assert_array_equal(u, draw((3, 5)[axis], 1))


def test_float16_is_summed_in_float32():
    W = np.full((4, 30000), 0.01, np.float16)  # a float16 sum of so many would stop growing on the way
    assert power_iteration.working_dtype(W.dtype) == np.float32
    W_bar, u, v, sigma = power_iteration.normalize(W, np.ones(4, np.float32))
    assert (W_bar.dtype, u.dtype, v.dtype, sigma.dtype) == (np.float16, np.float32, np.float32, np.float32)
    np.testing.assert_allclose(sigma, top(W.astype('d')), rtol=1e-5)
    np.testing.assert_allclose(W_bar, W.astype('d') / top(W.astype('d')), rtol=1e-3)
    g = power_iteration.gradient(W, W_bar, u, v, sigma)
    assert g.dtype == np.float16 and g.shape == W.shape


@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
def test_dtypes_stay(dtype):
    W = draw((3, 5, 2), dtype=dtype)
    working = power_iteration.working_dtype(W.dtype)
    results = power_iteration.normalize(W, draw(3, 1, working), 1, 1e-12, 1.5)
    assert [x.dtype for x in results] == [np.dtype(dtype)] + 3 * [working]
    assert power_iteration.gradient(W, W, *results[1:], 1.5).dtype == np.dtype(dtype)


@pytest.mark.parametrize('axis', [0, 1])
def test_gradient_of_the_weight_itself_along_the_weight_is_zero(axis):
    # W_bar does not change when W is scaled, so <gW, W> = 0 for every g
    W, g = draw((3, 5, 2)), draw((3, 5, 2), 2)
    _, u, v, sigma = power_iteration.normalize(W, draw((3, 5)[axis], 1), axis=axis)
    gW = power_iteration.gradient(W, g, u, v, sigma, 1.5, axis)
    assert np.abs(gW).max() > 0.1
    np.testing.assert_allclose((gW * W).sum(), 0, atol=1e-12)


def test_gradient_takes_arrays_that_are_not_contiguous():
    W, g = draw((4, 6)), draw((6, 4)).T
    _, u, v, sigma = power_iteration.normalize(W, draw(4, 1))
    np.testing.assert_allclose(power_iteration.gradient(W, g, u, v, sigma),
                               power_iteration.gradient(W, np.ascontiguousarray(g), u, v, sigma))


def test_kernels_are_for_the_gpu_only():
    assert not kernels.usable(draw((3, 4)))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 20000), st.integers(1, 20000))
def test_launches_fit_the_device(d_out, d_in):
    grids = kernels.grids(d_out, d_in)
    assert tuple(grids) == kernels.KERNEL_NAMES
    for blocks, threads in grids.values():
        assert 1 <= blocks < 2 ** 31 and 32 <= threads <= 1024 and threads & (threads - 1) == 0
    assert grids['sn_columns'][0] * 32 >= d_in and grids['sn_rows'][0] == d_out
    assert all(grids[name][1] <= 256 for name in kernels.KERNEL_NAMES if name != 'sn_columns')  # their caches
