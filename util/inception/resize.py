"""Bilinear resizing as TensorFlow 1 did it, which is how the Inception graph resizes its input."""


def resize_bilinear(xp, x, height, width):
    """Resize pictures like ``tf.image.resize_bilinear`` of TensorFlow 1 with ``align_corners=False``.

    Output pixel i looks at the input at i * (in / out): no half pixels, so all is shifted up and left a little. All
    arithmetic is float32 and in TensorFlow's order, along the rows first: on a CPU the result is TensorFlow's to the
    bit.

    Args:
        xp: ``numpy`` or ``cupy``.
        x (array): (N, C, H, W), float32.
        height, width (int): Of the result.

    Returns:
        array: (N, C, height, width), float32.

    """
    left, right, across = _grid(xp, x.shape[3], width)
    x = _mix(x[..., left], x[..., right], across)
    above, below, down = _grid(xp, x.shape[2], height)
    return _mix(x[:, :, above], x[:, :, below], down[:, None])


def _mix(a, b, share):
    b -= a  # both are copies
    b *= share
    a += b
    return a


def _grid(xp, n_in, n_out):
    """Indices of the two neighbours of each output pixel, and how far it is from the first."""
    position = xp.arange(n_out, dtype='f') * xp.float32(n_in / n_out)
    low = position.astype('i')
    return low, xp.minimum(low + 1, n_in - 1), position - low.astype('f')
