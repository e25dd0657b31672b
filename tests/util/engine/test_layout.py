import numpy as np

from util.engine import layout


def test_covered():
    x = np.zeros((2, 3), 'f')
    assert layout.covered(x) and layout.covered(x, x.T) and layout.covered(np.zeros((), 'f'))
    for other in (x.astype('d'), x.astype('e'), x.astype('>f4'), x[:0], None, 1., np.float32(1), x.view(np.matrix)):
        assert not layout.covered(x, other)


def test_channels_last(order, last):
    x = np.random.RandomState(0).standard_normal((2, 3, 4, 5)).astype('f')
    assert layout.channels_last(order(x)) == (order is last)
    assert layout.channels_last(layout.empty(2, 3, 4, 5)) and layout.empty(2, 3, 4, 5).shape == x.shape
    assert layout.channels_last(x[:, :1]) is False  # gaps
    assert layout.channels_last(np.ascontiguousarray(x[:, :1]))  # both orders are one
    assert not layout.channels_last(x[0])


def test_flat_and_in_order_of(order, last):
    x = np.random.RandomState(0).standard_normal((2, 3, 4, 5)).astype('f')
    assert (layout.flat(x) == x.ravel()).all()
    assert (layout.flat(last(x)) == x.transpose(0, 2, 3, 1).ravel()).all()
    assert np.shares_memory(layout.flat(y := last(x)), y)
    copy = layout.in_order_of(x, like := order(x))
    assert (copy == x).all() and (copy is x) == (x.strides == like.strides)
    assert (layout.flat(copy) is None) == (layout.flat(like) is None) or not like.flags.forc
    assert layout.in_order_of(like, like) is like
