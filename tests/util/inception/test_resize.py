import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from util.inception.resize import resize_bilinear


def by_hand(image, height, width):
    """Pixel by pixel, in float64: output i looks at i * in / out."""
    h, w = image.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y, x = i * h / height, j * w / width
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
            lower = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (x - left)
            out[i, j] = upper + (lower - upper) * (y - top)
    return out


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_values(h, w, height, width, seed):
    x = np.random.RandomState(seed).randint(0, 256, (2, 3, h, w)).astype('f')
    out = resize_bilinear(np, x, height, width)
    assert out.dtype == np.float32 and out.shape == (2, 3, height, width)
    for image, resized in zip(x.reshape(-1, h, w), out.reshape(-1, height, width), strict=True):
        # A neighbour may change where i * in / out is a whole number but for rounding; the value then does not
        np.testing.assert_allclose(resized, by_hand(image.astype('d'), height, width), atol=2e-3)


def test_the_same_size_is_the_same_to_the_bit():
    x = np.random.RandomState(0).uniform(0, 255, (1, 3, 299, 299)).astype('f')
    assert (resize_bilinear(np, x, 299, 299) == x).all()


def test_the_input_is_left_alone():
    x = np.random.RandomState(0).uniform(0, 255, (1, 3, 4, 5)).astype('f')
    before = x.copy()
    resize_bilinear(np, x, 9, 9)
    assert (x == before).all()


def test_the_last_rows_repeat_the_edge():
    # without align_corners the grid ends before the last pixel, so what is beyond it is the pixel itself
    out = resize_bilinear(np, np.arange(2, dtype='f').reshape(1, 1, 1, 2), 1, 4)
    assert out.tolist() == [[[[0, 0.5, 1, 1]]]]


@pytest.mark.parametrize('h, w', [(32, 32), (48, 37)])
def test_no_value_leaves_the_range_of_the_input(h, w):
    x = np.random.RandomState(0).uniform(0, 255, (1, 1, h, w)).astype('f')
    out = resize_bilinear(np, x, 299, 299)
    assert x.min() <= out.min() and out.max() <= x.max() + 1e-4
