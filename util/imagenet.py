"""ImageNet (Russakovsky et al., IJCV 2015), or a part of it: a folder of class folders, prepared once.

Its 1.28 million pictures are neither fetched nor held in memory: at 128x128 they are a file of 63 GB.
"""
import hashlib
import os
import re
import sys

import numpy as np
from PIL import Image

from util import prepared
from util.engine.threads import parallel_map
from util.files import UserError
from util.folder import labels_of
from util.pictures import bombs_refused, middle_square, picture_names, read_rgb

DATA_DIR = 'the folder of class folders (n01440764 ...), or a file that was prepared from it'  # --data-dir must be it
_SUFFIXES = ('.jpeg', '.jpg', '.png')
_FORMATS = ('JPEG', 'PNG')  # whatever the suffix: one .JPEG of the original is a PNG
_CLASS = re.compile(r'n\d{8}')  # an identifier of WordNet
_NAME = 'imagenet'
_VERSION = '1'  # of how pictures are prepared: another one makes other files


def read(size, data_dir):
    """Map the pictures into memory, after preparing them if this was not done before.

    Args:
        size (int): Height and width of the result.
        data_dir (str or None): The flag ``--data-dir``, which is required: the folder of class folders
            (``n01440764`` ...), or a file that was prepared from one.

    Returns:
        tuple: Pictures (numpy.memmap, uint8, (N, 3, size, size)), ordered by class; labels (int32, (N,)), the positions
        of the classes among the sorted ones; a line that says what they are; an MD5 of names and pixels.

    Raises:
        UserError: The flag is missing; there is something else than classes of pictures, or a picture that cannot be
            read; there is no room for the prepared file, or it is damaged.

    """
    if data_dir is None:
        raise UserError('--data-dir is required with a dataset of source imagenet: ' + DATA_DIR)
    path = data_dir if os.path.isfile(data_dir) else _prepare(size, data_dir)
    result = prepared.read(path, _NAME, size)
    if result.labels is None:
        raise UserError(f'{path}: expected the labels of ImageNet in its .json')
    n_classes = int(result.labels.max()) + 1
    source = (f"{len(result.images)} pictures of {n_classes} classes in ImageNet's layout, cropped to squares and "
              f'resized to {size}x{size}')
    return result.images, result.labels, source, result.fingerprint


def _prepare(size, data_dir):
    """The path of the prepared file of a folder. Its name knows the names and sizes of the pictures, not the pixels."""
    names = _names(data_dir)
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(name) + b'\0%d\n' % _file_size(os.path.join(data_dir, name)))
    path = prepared.path_of(f'{_NAME}-v{_VERSION}-{size}-{digest.hexdigest()[:32]}.npy')

    def make(start, stop):
        def one(i):
            images[i - start] = _read_picture(os.path.join(data_dir, names[i]), size)

        images = np.empty((stop - start, 3, size, size), np.uint8)
        parallel_map(one, range(start, stop))
        return images, os.fsencode('\0'.join(names[start:stop]))

    with prepared.alone(path, 'ImageNet'):
        if not os.path.exists(path):
            if len(names) > 1000:
                print(f'{len(names)} pictures are prepared once, {len(names) * 3 * size * size:,} bytes in '
                      f'{os.path.dirname(path)}; broken off, this goes on where it was', file=sys.stderr, flush=True)
            with bombs_refused():
                prepared.prepare(path, _NAME, len(names), size, labels_of(names)[0], make, 'ImageNet')
    return path


def _names(data_dir):
    """The sorted paths of all pictures, relative to the folder, each in one of its class folders."""
    try:
        entries = sorted(entry for entry in os.listdir(data_dir) if not entry.startswith('.'))
    except OSError as error:
        raise UserError(f'--data-dir {data_dir}: cannot be read as a folder: {error.strerror}') from error
    classes = [entry for entry in entries if _CLASS.fullmatch(entry) and os.path.isdir(os.path.join(data_dir, entry))]
    # A loose list of synsets or an archive does no harm; what could be pictures that are left out does
    others = [entry for entry in entries if entry not in set(classes)
              and (os.path.isdir(os.path.join(data_dir, entry)) or entry.lower().endswith(_SUFFIXES))]
    if others or not classes:
        found = f', found {", ".join(map(repr, others[:3]))}' + ' ...' * (len(others) > 3) if others else ''
        raise UserError(f'--data-dir {data_dir}: expected folders named after classes (n01440764 ...) and nothing '
                        f'else, as in ILSVRC/Data/CLS-LOC/train{found}')
    names = []
    for entry in classes:
        members = picture_names(os.path.join(data_dir, entry), _SUFFIXES)
        if not members:
            raise UserError(f'--data-dir {data_dir}: there are no pictures ({", ".join(_SUFFIXES)}) in {entry}')
        names += [f'{entry}/{name}' for name in members]
    return names


def _file_size(path):
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error


def _read_picture(path, size):
    """The middle square, resized, uint8 (3, size, size): bilinear and not turned by EXIF data, as the authors' code."""
    picture = read_rgb(path, _FORMATS, upright=False)
    # Cropped first: with the box given to resize, as folders have it, the filter would reach beyond its edges
    square = picture.crop(middle_square(picture)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1)
