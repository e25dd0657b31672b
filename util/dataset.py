"""Where pictures come from (CIFAR-10, scikit-learn's digits, any folder), and the batches that a run draws from them.

Pictures stay uint8, (N, 3, H, W), RGB, in memory or on the GPU; a batch becomes float32 when it is drawn. Batch
number k is a pure function of (seed, k), so a resumed run sees what the undisturbed run would have seen.
"""
import dataclasses
import hashlib
import os
import warnings

import chainer
import numpy as np
import tqdm
from chainer.backends import cuda
from PIL import Image, ImageOps

from util import cifar10, noise
from util.files import UserError

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
_FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP')
_BELOW_256 = float(np.nextafter(np.float32(256), np.float32(0)))


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """A set of pictures and what it exactly is.

    Attributes:
        images (numpy.ndarray): uint8, (N, 3, H, W), RGB.
        labels (numpy.ndarray or None): int32, (N,).
        name (str): ``'cifar10'``, ``'digits'`` or ``'folder'``.
        source (str): One line for people: what this is, for captions and for ``environment.json``.
        fingerprint (str): An MD5 in hexadecimal digits: of the archive (cifar10), of the batch files (cifar10 from an
            extracted archive), of the pixels (digits), of the names and pixels (folder).

    """

    images: np.ndarray
    labels: 'np.ndarray | None'
    name: str
    source: str
    fingerprint: str


def load(row, split='train', data_dir=None):
    """Load the pictures that a row of ``configs/datasets.yml`` names.

    Args:
        row (Mapping or object): Its ``source`` is ``'cifar10'``, ``'digits'`` or ``'folder'``; its ``size`` is the
            height and width of the result.
        split (str): ``'train'``, ``'test'`` or ``'all'``. CIFAR-10 has 50,000 and 10,000 pictures, ``'all'`` is train,
            then test. The digits are split once and for all, about 80 % to 20 % of each class; ``'all'`` is the 1,797
            in their own order. A folder is not split: every value gives all of it.
        data_dir (str or None): The flag ``--data-dir``. For cifar10 an archive in the layout of cifar-10-python.tar.gz,
            a folder with one of that name, or an extracted one; without it the original is fetched into Chainer's
            download cache. For folder, where it is required, the directory of pictures. The digits need none.

    Returns:
        Pictures

    Raises:
        UserError: Something is missing, broken, or not what it should be.

    """
    source, size = (row[key] if hasattr(row, 'keys') else getattr(row, key) for key in ('source', 'size'))
    loaders = {'cifar10': _load_cifar10, 'digits': _load_digits, 'folder': _load_folder}
    if source not in loaders:
        raise UserError('dataset source {!r} is not known; there are {}'.format(source, ', '.join(loaders)))
    if not isinstance(size, int) or size < 1:
        raise UserError(f'dataset size must be a positive integer, not {size!r}')
    if split not in ('train', 'test', 'all'):
        raise UserError(f"dataset split must be 'train', 'test' or 'all', not {split!r}")
    return loaders[source](size, split, data_dir)


def split_name(row, split):
    """What a split of the data set of a row really is: ``'all'`` where its pictures are not split."""
    return 'all' if row.source == 'folder' else split


def _load_cifar10(size, split, data_dir):
    images, labels, md5, origin = cifar10.read(split, data_dir)
    source = f'CIFAR-10, {len(images)} pictures ({split}), {origin}'
    if size != 32:
        source += f', resized to {size}x{size}'
    return Pictures(_resize(images, size, Image.Resampling.BILINEAR), labels, 'cifar10', source, md5)


def _resize(images, size, resample):
    """Resize uint8 (N, 3, H, W) pictures with Pillow."""
    if images.shape[2:] == (size, size):
        return images
    out = np.empty((len(images), 3, size, size), np.uint8)
    for target, image in zip(out, images, strict=True):
        resized = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), resample)
        target[...] = np.asarray(resized).transpose(2, 0, 1)
    return out


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
    images = _resize(np.repeat(grey[chosen, None], 3, axis=1), size, Image.Resampling.BICUBIC)
    source = f"scikit-learn's digits, {len(images)} pictures ({split}) of 8x8, resized to {size}x{size}"
    return Pictures(images, labels[chosen], 'digits', source, hashlib.md5(images, usedforsecurity=False).hexdigest())


def _load_folder(size, split, data_dir):
    if data_dir is None:
        raise UserError('--data-dir is required with a dataset of source folder: the directory of pictures')
    if not os.path.isdir(data_dir):
        raise UserError(f'--data-dir {data_dir}: there is no such directory')
    names = _picture_names(data_dir)
    if not names:
        raise UserError('--data-dir {}: there are no pictures ({}) in it'.format(data_dir, ', '.join(_SUFFIXES)))
    images = np.empty((len(names), 3, size, size), np.uint8)
    digest = hashlib.md5(usedforsecurity=False)
    for image, name in zip(images, tqdm.tqdm(names, 'pictures', disable=len(names) <= 1000), strict=True):
        image[...] = _read_picture(os.path.join(data_dir, name), size)
        digest.update(os.fsencode(name) + b'\0' + image.tobytes())
    folder = os.path.basename(os.path.abspath(data_dir))
    source = f'{len(names)} pictures in the folder {folder}, cropped to squares and resized to {size}x{size}'
    return Pictures(images, None, 'folder', source, digest.hexdigest())


def _picture_names(root):
    """Sorted paths, relative to ``root`` and with ``/``, of the pictures in it, at any depth, hidden ones left out."""
    def refuse(error):
        raise UserError(f'cannot read {error.filename}: {error.strerror}')

    names = []
    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith('.')]
        names += [os.path.relpath(os.path.join(folder, name), root).replace(os.sep, '/') for name in files
                  if name.lower().endswith(_SUFFIXES) and not name.startswith('.')]
    return sorted(names)


def _read_picture(path, size):
    """Read one file: upright, RGB, its middle square, resized with a filter that averages; uint8 (3, size, size)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as file:
                image = _to_rgb(ImageOps.exif_transpose(file))
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    except Exception as error:  # Pillow's readers raise nearly everything
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'cannot read the picture {path}: {reason}') from error
    return np.asarray(image).transpose(2, 0, 1)


def _to_rgb(image):
    """Convert any mode to RGB: 16 bits lose the lower 8, transparency shows white."""
    if image.mode.startswith('I'):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert('RGB')


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
        images (numpy.ndarray): uint8, (N, 3, H, W). Sent to the device once.
        batchsize (int): B.
        seed (int): The run's seed.
        device: A Chainer device, or what :func:`chainer.get_device` takes for one: CPU or GPU.

    Raises:
        ValueError: ``batchsize`` is below 1, or there are no pictures.

    """

    def __init__(self, images, batchsize, seed, device='@numpy'):
        if batchsize < 1 or not len(images):
            raise ValueError(f'expected pictures and a batchsize of at least 1: {len(images)} and {batchsize}')
        self.batch_size = batchsize
        self._device = chainer.get_device(device)
        self._images = self._device.send(images)
        self._seed = seed
        self._drawn = 0
        self._order_of = None, None  # epoch, its permutation on the device

    def __next__(self):
        """Draw the next batch: float32, (B, 3, H, W), on the device, in [-1, 1)."""
        xp, number = self._device.xp, self._drawn
        with chainer.using_device(self._device):
            images = self._images[self._indices(number)]
            uniform = noise.uniform(xp, images.shape, self._seed, number, 'dequantisation')
            batch = to_float(images, uniform)
        self._drawn = number + 1
        return batch

    def _indices(self, number):
        position, stop, parts = number * self.batch_size, (number + 1) * self.batch_size, []
        while position < stop:
            epoch, offset = divmod(position, len(self._images))
            if self._order_of[0] != epoch:
                self._order_of = epoch, self._device.send(noise.permutation(len(self._images), self._seed, epoch))
            parts.append(self._order_of[1][offset:offset + stop - position])
            position += len(parts[-1])
        return parts[0] if len(parts) == 1 else self._device.xp.concatenate(parts)

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
