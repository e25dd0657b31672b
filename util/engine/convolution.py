"""Convolution and its two gradients on float32 arrays whose memory has the channels last, in NumPy and BLAS.

Of each tile of the output the patches of the input are copied out, side by side, and multiplied with the weight while
they are in the processor's cache; nothing as large as all patches ever exists. The gradient of the input is a
convolution, too: with a stride s it is s * s of them, one for each place of an output modulo s.

Arrays have Chainer's shapes; where the channels lie in memory is up to the caller, results have them last. What is
computed depends on the number of threads (see ``util.engine.threads``), and on nothing else.
"""
import itertools
import typing

import numpy as np

from util.engine import layout
from util.engine.threads import scratch, split_map, worth

_TILE_BYTES = 4 << 20  # of patches that are copied out for one matrix product
# What a thread does in a microsecond, about, to tell whether others are worth it: multiply-adds, and bytes of patches
_PRODUCTS, _BYTES = 50_000, 4_000
# So few channels against four times as many: products first, then sums of them, moves less than patches first
_FEW = 16


class Window(typing.NamedTuple):
    """Where a convolution looks: output (y, x) sees inputs y * stride - pad + k * dilate, k from 0 to kernel - 1.

    Each is a pair, of rows and of columns. Inputs that are not there are 0; ``pad`` may be negative.
    """

    kernel: tuple
    stride: tuple
    pad: tuple
    dilate: tuple

    def flipped(self):
        """The window in which the inputs see the outputs, for stride 1."""
        pad = tuple((k - 1) * d - p for k, p, d in zip(self.kernel, self.pad, self.dilate, strict=True))
        return self._replace(pad=pad)


class Tile(typing.NamedTuple):
    """Pictures ``first`` to ``last`` - 1, of these the rows ``top`` to ``bottom`` - 1."""

    first: int
    last: int
    top: int
    bottom: int


def convolve(x, W, b, stride, pad, dilate, size):
    """Convolution: ``chainer.functions.convolution_2d``.

    Args:
        x (numpy.ndarray): (N, C, H, W), float32.
        W (numpy.ndarray): (O, C, kh, kw), float32.
        b (numpy.ndarray or None): (O,), float32.
        stride, pad, dilate (tuple of int): Of rows and of columns.
        size (tuple of int): (oh, ow), which need not fit: what lies beyond the input is 0.

    Returns:
        numpy.ndarray: (N, O, oh, ow), float32, channels last.

    """
    window = Window(W.shape[2:], stride, pad, dilate)
    y = layout.empty(len(x), len(W), *size)
    if stride == (1, 1) and _is_few(len(W), W.shape[1]):
        _spread(x, W.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], b, window.flipped(), y)
    else:
        matrix = W.transpose(0, 2, 3, 1).reshape(len(W), -1).T  # copied in long runs, and BLAS takes it transposed
        _multiply([_Job(x, matrix, window, y.transpose(0, 2, 3, 1))], b)
    return y


def gradient_of_input(gy, W, b, stride, pad, dilate, size):
    """Gradient of :func:`convolve` for its input, plus b: ``chainer.functions.deconvolution_2d``.

    Args:
        gy (numpy.ndarray): (N, O, oh, ow), float32.
        W (numpy.ndarray): (O, C, kh, kw), float32.
        b (numpy.ndarray or None): (C,), float32.
        stride, pad, dilate (tuple of int): Those of the convolution.
        size (tuple of int): (H, W), of its input.

    Returns:
        numpy.ndarray: (N, C, H, W), float32, channels last.

    """
    window = Window(W.shape[2:], stride, pad, dilate)
    gx = layout.empty(len(gy), W.shape[1], *size)
    mixed = any(s > 1 and d > 1 for s, d in zip(stride, dilate, strict=True))
    if mixed or _is_few(W.shape[1], len(W)):
        _spread(gy, W, b, window, gx)
    else:
        _multiply(_jobs_of_residues(gy, W, b, window, gx.transpose(0, 2, 3, 1)), b)
    return gx


def gradient_of_weight(x, gy, kernel, stride, pad, dilate):
    """Gradient of :func:`convolve` for its weight.

    Args:
        x (numpy.ndarray): (N, C, H, W), float32.
        gy (numpy.ndarray): (N, O, oh, ow), float32.
        kernel (tuple of int): (kh, kw).
        stride, pad, dilate (tuple of int): Those of the convolution.

    Returns:
        numpy.ndarray: (O, C, kh, kw), float32, C-contiguous.

    """
    window, c, o = Window(kernel, stride, pad, dilate), x.shape[1], gy.shape[1]
    if stride == (1, 1) and _is_few(o, c):  # patches of the array that has few channels
        product = _correlate(gy, x, window.flipped()).reshape(c, *kernel, o)[:, ::-1, ::-1]
        return np.ascontiguousarray(product.transpose(3, 0, 1, 2))
    return np.ascontiguousarray(_correlate(x, gy, window).reshape(o, *kernel, c).transpose(0, 3, 1, 2))


def _is_few(channels, others):
    return channels <= _FEW and 4 * channels <= others


class _Job(typing.NamedTuple):
    """One convolution with stride: ``out`` = patches of ``x`` times ``matrix``."""

    x: np.ndarray  # (N, C, H, W)
    matrix: np.ndarray  # (kh * kw * C, O)
    window: Window
    out: np.ndarray  # (N, oh, ow, O), maybe with gaps


def _multiply(jobs, b):
    """Carry out jobs, and add b (O,) to their results."""
    times = [_microseconds(job.out.size // job.out.shape[3], *job.matrix.shape) for job in jobs]
    threads, pieces = worth(sum(times)), []
    for job in jobs:
        n, oh, ow, _ = job.out.shape
        pieces += [(job, tile) for tile in _tiles(n, oh, 4 * ow * len(job.matrix), threads)]
    split_map(lambda piece: _multiply_tile(*piece, b), pieces, threads)


def _microseconds(places, columns, outputs):
    """About how long one thread takes to copy out patches, so many numbers of each place, and to multiply them."""
    return places * columns * (outputs / _PRODUCTS + 4 / _BYTES)


def _multiply_tile(job, tile, b):
    out = job.out[tile.first:tile.last, tile.top:tile.bottom]
    patches = _patches(job.x, job.window, tile, out.shape[2])
    shape = (len(patches), out.shape[3])
    product = out.reshape(shape) if out.flags.c_contiguous else scratch('product', shape)
    np.dot(patches, job.matrix, out=product)
    if b is not None:
        product += b
    if not out.flags.c_contiguous:
        out[...] = product.reshape(out.shape)


def _jobs_of_residues(gy, W, b, window, gx):
    """The convolutions of ``gy`` that fill ``gx`` (N, H, W, C), one for each place modulo the stride.

    An input at y meets the k-th row of the kernel where (y + pad - k * dilate) is a multiple of the stride: these k are
    every stride-th, or all of them, dilated, when the stride is 1. A place that meets none is filled at once.
    """
    by_tap = np.ascontiguousarray(W.transpose(2, 3, 0, 1))  # (kh, kw, O, C)
    jobs = []
    for residue in itertools.product(*map(range, window.stride)):
        axes = [_residue(*values) for values in zip(residue, window.stride, window.pad, window.dilate, window.kernel,
                                                    strict=True)]
        (first_row, taps_y, pad_y), (first_column, taps_x, pad_x) = axes
        out = gx[:, first_row::window.stride[0], first_column::window.stride[1]]
        if not taps_y or not taps_x:
            out[...] = 0 if b is None else b
        if not out.size or not taps_y or not taps_x:
            continue
        taps = by_tap[residue[0]::window.stride[0], residue[1]::window.stride[1]][::-1, ::-1]
        inner = Window((taps_y, taps_x), (1, 1), (pad_y, pad_x), window.dilate)
        jobs.append(_Job(gy, taps.reshape(-1, gx.shape[3]), inner, out))
    return jobs


def _residue(residue, stride, pad, dilate, kernel):
    """First place, number of taps and pad of the convolution of one residue, along one axis."""
    skipped = -(-(pad - residue) // stride)
    taps = len(range(residue, kernel, stride))
    return stride * skipped + residue - pad, taps, (taps - 1) * dilate - skipped


def _correlate(x, gy, window):
    """Sum over all places of gy's numbers times x's patches: (O, kh * kw * C).

    Each thread sums a part of the pictures, and the parts are added in order: so the bits depend on the number of
    threads only.
    """
    n, o, oh, ow = gy.shape
    columns = x.shape[1] * window.kernel[0] * window.kernel[1]
    # Where the product is large, adding it to the sum costs as much as making it, unless a tile has many places
    threads = worth(_microseconds(n * oh * ow, columns, o))
    tiles = _tiles(n, oh, 4 * ow * columns, threads, places=4 * o // ow)
    parts = min(threads, len(tiles))
    parts = [tiles[len(tiles) * i // parts:len(tiles) * (i + 1) // parts] for i in range(parts)]
    total, *others = split_map(lambda part: _correlate_part(x, gy, window, part, columns), parts)
    for other in others:
        total += other
    return total


def _correlate_part(x, gy, window, tiles, columns):
    total = np.empty((gy.shape[1], columns), 'f')
    product = scratch('sum', total.shape) if len(tiles) > 1 else None
    for i, tile in enumerate(tiles):
        g = gy.transpose(0, 2, 3, 1)[tile.first:tile.last, tile.top:tile.bottom]
        if not g.flags.c_contiguous:
            g, source = scratch('gradient', g.shape), g
            np.copyto(g, source)
        patches = _patches(x, window, tile, gy.shape[3])
        np.dot(g.reshape(-1, g.shape[3]).T, patches, out=product if i else total)
        if i:
            total += product
    return total


def _spread(gy, W, b, window, gx):
    """As :func:`gradient_of_input`, the other way: all products first, then each tap's are added where they belong.

    Moves less where ``gx`` has few channels, and takes any window.
    """
    n, o, oh, ow = gy.shape
    matrix = np.ascontiguousarray(W.transpose(2, 3, 1, 0)).reshape(-1, o)  # (kh * kw * C, O)
    threads = worth(_microseconds(n * oh * ow, len(matrix), o))
    tiles = _tiles(n, 1, 4 * oh * ow * len(matrix), threads)
    split_map(lambda tile: _spread_tile(gy[tile.first:tile.last], matrix, b, window, gx[tile.first:tile.last]), tiles,
              threads)


def _spread_tile(gy, matrix, b, window, gx):
    n, o, oh, ow = gy.shape
    c, (kh, kw) = gx.shape[1], window.kernel
    g = gy.transpose(0, 2, 3, 1)
    if not g.flags.c_contiguous:
        g, source = scratch('gradient', g.shape), g
        np.copyto(g, source)
    # Channels first for once, so that what is added lies in rows
    products = np.dot(matrix, g.reshape(-1, o).T, out=scratch('product', (kh * kw * c, n * oh * ow)))
    products = products.reshape(kh, kw, c, n, oh, ow)
    planes = scratch('planes', (c, n, *gx.shape[2:]))
    planes[...] = 0 if b is None else b[:, None, None, None]
    for j, i in itertools.product(range(kh), range(kw)):
        of_gx, of_gy = zip(*(_overlap(tap * d - p, s, size, there) for tap, d, p, s, size, there in zip(
            (j, i), window.dilate, window.pad, window.stride, gx.shape[2:], (oh, ow), strict=True)), strict=True)
        planes[(slice(None), slice(None), *of_gx)] += products[(j, i, slice(None), slice(None), *of_gy)]
    gx[...] = planes.transpose(1, 0, 2, 3)


def _overlap(offset, stride, size, there):
    """Those i of 0 to ``there`` - 1 for which i * stride + offset is one of 0 to ``size`` - 1: slices of both."""
    first = max(0, -(offset // stride))
    last = max(first, min(there, (size - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(start, start + (last - first - 1) * stride + 1 if last > first else start, stride), slice(first, last)


def _tiles(n, rows, bytes_of_row, threads, places=1):
    """Cut N pictures of so many rows into tiles of about ``_TILE_BYTES``, of even size.

    Args:
        n, rows (int): Pictures, and rows of each.
        bytes_of_row (int): Bytes of a row's patches.
        threads (int): As many tiles as a multiple of this, where there are so many pictures.
        places (int): A tile has so many rows, if there are so many.

    Returns:
        list of Tile

    """
    per_tile = max(1, places, _TILE_BYTES // bytes_of_row)
    if 2 * per_tile <= rows or per_tile < rows and n < threads:  # a picture is more than a tile
        parts = -(-rows // per_tile)
        bounds = [rows * i // parts for i in range(parts + 1)]
        return [Tile(i, i + 1, top, bottom) for i in range(n) for top, bottom in itertools.pairwise(bounds)]
    parts = -(-n * rows // per_tile)
    parts = min(n, -(-parts // threads) * threads)
    bounds = [n * i // parts for i in range(parts + 1)]
    return [Tile(first, last, 0, rows) for first, last in itertools.pairwise(bounds)]


def _patches(x, window, tile, ow):
    """What the places of a tile see.

    Args:
        x (numpy.ndarray): (N, C, H, W).
        window (Window): Where they look.
        tile (Tile): Of the output.
        ow (int): Columns of the output.

    Returns:
        numpy.ndarray: (places, kh * kw * C), C-contiguous; this thread's scratch memory, or a view of ``x``.

    """
    n, oh, (kh, kw), c = tile.last - tile.first, tile.bottom - tile.top, window.kernel, x.shape[1]
    top, left = tile.top * window.stride[0] - window.pad[0], -window.pad[1]
    height, width = ((size - 1) * s + (k - 1) * d + 1 for size, s, k, d in zip(
        (oh, ow), window.stride, window.kernel, window.dilate, strict=True))
    block = _block(x.transpose(0, 2, 3, 1)[tile.first:tile.last], top, max(height, 1), left, max(width, 1))
    of_picture, of_row, of_column, of_channel = block.strides
    strides = (of_picture, of_row * window.stride[0], of_column * window.stride[1],
               of_row * window.dilate[0], of_column * window.dilate[1], of_channel)
    view = np.lib.stride_tricks.as_strided(block, (n, oh, ow, kh, kw, c), strides, writeable=False)
    shape = (n * oh * ow, kh * kw * c)
    if view.flags.c_contiguous:  # a convolution of 1x1
        return view.reshape(shape)
    patches = scratch('patches', shape)
    np.copyto(patches.reshape(view.shape), view)
    return patches


def _block(x, top, height, left, width):
    """Rows and columns of x (N, H, W, C), which need not be there: then they are 0.

    Returns:
        numpy.ndarray: (N, height, width, C), whose rows are contiguous: scratch memory, or a view of ``x``.

    """
    n, h, w, c = x.shape
    itemsize = x.itemsize
    inside = top >= 0 and left >= 0 and top + height <= h and left + width <= w
    if inside and x.strides[3] == itemsize and x.strides[2] == c * itemsize:
        return x[:, top:top + height, left:left + width]
    block = scratch('block', (n, height, width, c))
    y0, y1 = _there(top, height, h)
    x0, x1 = _there(left, width, w)
    block[:, :y0] = 0
    block[:, y1:] = 0
    block[:, y0:y1, :x0] = 0
    block[:, y0:y1, x1:] = 0
    block[:, y0:y1, x0:x1] = x[:, top + y0:top + y1, left + x0:left + x1]
    return block


def _there(start, length, size):
    """Which of 0 to ``length`` - 1, counted from ``start``, are among 0 to ``size`` - 1: first, and last plus 1."""
    first = min(max(0, -start), length)
    return first, max(first, min(length, size - start))
