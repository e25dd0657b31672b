"""Where pictures come from (CIFAR-10, STL-10, ImageNet, scikit-learn's digits, any folder), and the batches that a run
draws from them.

Pictures stay uint8, (N, 3, H, W), RGB, in memory, on the GPU or in a mapped file; a batch becomes float32 when it is
drawn. Batch number k is a pure function of (seed, k), so a resumed run sees what the undisturbed run would have seen.
"""
import dataclasses
import functools
import hashlib

import chainer
import numpy as np
from chainer.backends import cuda
from PIL import Image

from util import cifar10, folder, imagenet, noise, stl10
from util.files import UserError
from util.pictures import resize
from util.prepared import gather, release

_BELOW_256 = float(np.nextafter(np.float32(256), np.float32(0)))
_NEED_A_FOLDER = {'folder': folder.DATA_DIR, 'imagenet': imagenet.DATA_DIR}
_RELEASE = 1 << 26  # bytes of pictures taken from a mapped file, after which its memory is given back


# Gathers, scales and dequantises: one thread, one block of the stream, eight numbers
KERNEL_SOURCES = {'dequantised_batch': noise.PHILOX_SOURCE + r'''
extern "C" __global__
void dequantised_batch(const unsigned char* images, const long long* indices, long long size, long long n, float* batch,
                       Stream stream) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x; 8 * block < n; block += step) {
        word words[4];
        philox(stream, block, words);
        for (int i = 0; i < 8 && 8 * block + i < n; ++i) {
            const long long j = 8 * block + i;
            const float level = (float)images[indices[j / size] * size + j % size] + uniform(words, i);
            batch[j] = fminf(level, BELOW_256) * 0.0078125f - 1.0f;
        }
    }
}
'''.replace('BELOW_256', '{!r}f'.format(_BELOW_256))}


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """A set of pictures and what it exactly is.

    Attributes:
        images (numpy.ndarray): uint8, (N, 3, H, W), RGB. For imagenet a read-only ``numpy.memmap``.
        labels (numpy.ndarray or None): int32, (N,).
        name (str): The source: ``'cifar10'``, ``'digits'``, ``'folder'``, ``'stl10'`` or ``'imagenet'``.
        source (str): One line for people: what this is, for captions and for ``environment.json``.
        fingerprint (str): An MD5 in hexadecimal digits: of the archive (cifar10, stl10), of the files read (the same
            from an extracted archive), of the pixels (digits), of the names and pixels (folder, imagenet).

    """

    images: np.ndarray
    labels: 'np.ndarray | None'
    name: str
    source: str
    fingerprint: str


def load(row, split='train', data_dir=None):
    """Load the pictures that a row of ``configs/datasets.yml`` names.

    Args:
        row (Mapping or object): Its ``source`` is ``'cifar10'``, ``'digits'``, ``'folder'``, ``'stl10'`` or
            ``'imagenet'``; its ``size`` is the height and width of the result. ``part``, for stl10: ``'unlabeled'`` or
            ``'labelled'``.
        split (str): ``'train'``, ``'test'`` or ``'all'``. CIFAR-10 has 50,000 and 10,000 pictures, STL-10 100,000
            unlabeled ones (or 5,000 labelled ones) and 8,000; ``'all'`` is train, then test. The digits are split once
            and for all, about 80 % to 20 % of each class; ``'all'`` is the 1,797 in their own order. A folder and
            ImageNet are not split: every value gives all of it.
        data_dir (str or None): The flag ``--data-dir``. For cifar10 and stl10 an archive in the layout of
            cifar-10-python.tar.gz or stl10_binary.tar.gz, a folder with one of that name, or an extracted one; without
            it the original is fetched into Chainer's download cache. For folder, where it is required, the directory of
            pictures; when all are in its sub-directories, these are their classes. For imagenet, where it is required,
            the directory of class directories, or a file that was prepared from it. The digits need none.

    Returns:
        Pictures

    Raises:
        UserError: Something is missing, broken, or not what it should be.

    """
    source, size, part = (_value(row, key, default) for key, default in (
        ('source', None), ('size', None), ('part', 'unlabeled')))
    loaders = {'cifar10': _load_cifar10, 'digits': _load_digits,
               'folder': lambda size, split, data_dir: folder.read(size, data_dir),
               'stl10': functools.partial(stl10.read, part),
               'imagenet': lambda size, split, data_dir: imagenet.read(size, data_dir)}
    if source not in loaders:
        raise UserError('dataset source {!r} is not known; there are {}'.format(source, ', '.join(loaders)))
    if not isinstance(size, int) or size < 1:
        raise UserError(f'dataset size must be a positive integer, not {size!r}')
    if split not in ('train', 'test', 'all'):
        raise UserError(f"dataset split must be 'train', 'test' or 'all', not {split!r}")
    check_data_dir(source, data_dir)
    images, labels, description, fingerprint = loaders[source](size, split, data_dir)
    return Pictures(images, labels, source, description, fingerprint)


def _value(row, key, default):
    """A value of a mapping or an object, or the default where it has none."""
    return row.get(key, default) if hasattr(row, 'keys') else getattr(row, key, default)


def check_classes(pictures, n_classes):
    """Refuse pictures, with a UserError, unless they have ``n_classes`` classes, for a GAN that draws from as many."""
    if pictures.labels is None:
        raise UserError(f'dataset.n_classes is {n_classes}, but these pictures have no classes: {pictures.source} (of '
                        'a folder, every picture in a sub-directory would have one)')
    found = int(pictures.labels.max()) + 1
    if found != n_classes:
        raise UserError(f'dataset.n_classes is {n_classes}, but these pictures have {found} classes: '
                        f'{pictures.source}; expected --set dataset.n_classes={found}')


def check_data_dir(source, data_dir):
    """Refuse, with a UserError, to load a source of pictures without the folder that it needs."""
    if data_dir is None and source in _NEED_A_FOLDER:
        raise UserError(f'--data-dir is required with a dataset of source {source}: {_NEED_A_FOLDER[source]}')


def split_name(row, split):
    """What a split of the data set of a row really is: ``'all'`` where its pictures are not split."""
    return 'all' if row.source in ('folder', 'imagenet') else split


def _load_cifar10(size, split, data_dir):
    images, labels, md5, origin = cifar10.read(split, data_dir)
    source = f'CIFAR-10, {len(images)} pictures ({split}), {origin}'
    if size != 32:
        source += f', resized to {size}x{size}'
    return resize(images, size, Image.Resampling.BILINEAR), labels, source, md5


def _load_digits(size, split, data_dir):
    from sklearn import datasets  # slow to import
    bunch = datasets.load_digits()
    labels = bunch.target.astype(np.int32)
    grey = (bunch.images * (255 / 16) + 0.5).astype(np.uint8)  # 0 .. 16 -> 0 .. 255
    held_out = np.zeros(len(labels), bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        held_out[members[noise.permutation(len(members), 0, digit)[:round(len(members) / 5)]]] = True
    chosen = {'train': ~held_out, 'test': held_out, 'all': np.full(len(labels), True)}[split]
    images = resize(np.repeat(grey[chosen, None], 3, axis=1), size, Image.Resampling.BICUBIC)
    source = f"scikit-learn's digits, {len(images)} pictures ({split}) of 8x8, resized to {size}x{size}"
    return images, labels[chosen], source, hashlib.md5(images, usedforsecurity=False).hexdigest()


def to_float(images, uniform):
    """Scale pictures to [-1, 1) with uniform dequantisation noise: x / 128 - 1 + u / 128, as the authors' code does.

    Args:
        images (numpy.ndarray or cupy.ndarray): uint8, any shape.
        uniform (numpy.ndarray or cupy.ndarray): float32 in [0, 1), the same shape.

    Returns:
        numpy.ndarray or cupy.ndarray: float32, the same bits on both devices.

    """
    if not isinstance(images, np.ndarray):  # pragma: no cover - gpu
        operation = f'x = min(k + u, {_BELOW_256!r}f) * 0.0078125f - 1.0f'
        return cuda.elementwise('uint8 k, float32 u', 'float32 x', operation, 'dequantise')(images, uniform)
    out = images + uniform
    np.minimum(out, np.float32(_BELOW_256), out=out)  # 255 + 0.9999999 is rounded to 256
    out *= np.float32(1 / 128)
    out -= np.float32(1)
    return out


def dequantised_batch(cupy, images, indices, seed, number):  # pragma: no cover - gpu
    """Pictures of a batch as :func:`to_float` makes them, with its stream's noise, by one launch.

    Args:
        cupy: The module.
        images (cupy.ndarray): uint8, (N, ...), C-contiguous.
        indices (cupy.ndarray): int64, (B,).
        seed, number (int): The run's seed, and the batch's number.

    Returns:
        cupy.ndarray: float32, (B, ...).

    """
    batch = cupy.empty((len(indices), *images.shape[1:]), np.float32)
    size = images.size // len(images)
    _batch_kernel()((noise.blocks(-(-batch.size // 8)),), (128,), (
        images, indices, np.int64(size), np.int64(batch.size), batch, noise.stream(seed, number, 'dequantisation')))
    return batch


@functools.cache
def _batch_kernel():  # pragma: no cover - gpu
    return cuda.cupy.RawKernel(KERNEL_SOURCES['dequantised_batch'], 'dequantised_batch')


def to_uint8(x):
    """Turn a generator's pictures into uint8: clip(127.5 x + 127.5, 0, 255), truncated, as the authors' code does.

    Args:
        x (numpy.ndarray or cupy.ndarray): float32, any shape, nominally in [-1, 1].

    Returns:
        numpy.ndarray or cupy.ndarray: uint8. Of what :func:`to_float` returns, within 1 of what it was given.

    """
    return (x * 127.5 + 127.5).clip(0, 255).astype(np.uint8)


class BatchIterator(chainer.dataset.Iterator):
    """Endless batches of dequantised pictures, each epoch in an order of its own.

    Batch k holds the pictures at the positions k B to k B + B - 1 of the endless sequence of epochs, so a batch may
    straddle epochs. Order and noise are functions of (seed, epoch) and (seed, k): the number of batches drawn is the
    only state.

    Args:
        images (numpy.ndarray): uint8, (N, 3, H, W). Sent to the device once; but of a ``numpy.memmap``, which is too
            large for that, each batch is gathered on the host.
        batchsize (int): B.
        seed (int): The run's seed.
        device: A Chainer device, or what :func:`chainer.get_device` takes for one: CPU or GPU.
        labels (numpy.ndarray or None): int32, (N,). With them, a batch is a tuple of pictures and their labels.

    Raises:
        ValueError: ``batchsize`` is below 1, there are no pictures, or not as many labels.

    """

    def __init__(self, images, batchsize, seed, device='@numpy', labels=None):
        if batchsize < 1 or not len(images):
            raise ValueError(f'expected pictures and a batchsize of at least 1: {len(images)} and {batchsize}')
        if labels is not None and len(labels) != len(images):
            raise ValueError(f'expected a label for each of {len(images)} pictures, not {len(labels)}')
        self.batch_size = batchsize
        self._device = chainer.get_device(device)
        self._mapped = isinstance(images, np.memmap)
        self._taken = 0  # bytes since the memory of a mapped file was given back
        # Where pictures, labels and their order are: gathering a batch needs all three in one place
        self._home = chainer.get_device('@numpy') if self._mapped else self._device
        self._images = images if self._mapped else self._home.send(images)
        self._labels = None if labels is None else self._home.send(np.asarray(labels, np.int32))
        self._seed = seed
        self._drawn = 0
        self._order_of = None, None  # epoch, its permutation

    def __next__(self):
        """Draw the next batch, on the device.

        Returns:
            numpy.ndarray or cupy.ndarray, or a tuple: Pictures, float32, (B, 3, H, W), in [-1, 1); where there are
            labels, also these, int32, (B,).

        """
        xp, number = self._device.xp, self._drawn
        with chainer.using_device(self._device):
            indices = self._indices(number)
            if self._mapped or xp is np:
                images = self._device.send(gather(self._images, indices) if self._mapped else self._images[indices])
                uniform = noise.uniform(xp, images.shape, self._seed, number, 'dequantisation')
                batch = to_float(images, uniform)
            else:  # pragma: no cover - gpu
                batch = dequantised_batch(xp, self._images, indices, self._seed, number)
            if self._labels is not None:
                batch = batch, self._device.send(self._labels[indices])
        if self._mapped:
            self._taken += images.nbytes
            if self._taken >= _RELEASE:
                release(self._images)
                self._taken = 0
        self._drawn = number + 1
        return batch

    def _indices(self, number):
        position, stop, parts = number * self.batch_size, (number + 1) * self.batch_size, []
        while position < stop:
            epoch, offset = divmod(position, len(self._images))
            if self._order_of[0] != epoch:
                self._order_of = epoch, self._home.send(noise.permutation(len(self._images), self._seed, epoch))
            parts.append(self._order_of[1][offset:offset + stop - position])
            position += len(parts[-1])
        return parts[0] if len(parts) == 1 else self._home.xp.concatenate(parts)

    @property
    def epoch(self):
        """int: Completed sweeps over the pictures."""
        return self._drawn * self.batch_size // len(self._images)

    @property
    def epoch_detail(self):
        """float: Sweeps over the pictures, with the fraction."""
        return self._drawn * self.batch_size / len(self._images)

    @property
    def previous_epoch_detail(self):
        """float or None: ``epoch_detail`` one batch ago; ``None`` before the first."""
        return (self._drawn - 1) * self.batch_size / len(self._images) if self._drawn else None

    @property
    def is_new_epoch(self):
        """bool: Whether the last batch completed a sweep."""
        return self._drawn > 0 and (self._drawn - 1) * self.batch_size // len(self._images) < self.epoch

    def serialize(self, serializer):
        """Save or restore the number of batches drawn."""
        self._drawn = int(serializer('batches', self._drawn))
