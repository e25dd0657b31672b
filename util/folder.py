"""Any folder of pictures as a data set, with a class for each sub-directory where that is how they lie."""
import hashlib
import os

import numpy as np
import tqdm
from PIL import Image

from util.files import UserError
from util.pictures import bombs_refused, middle_square, picture_names, read_rgb

DATA_DIR = 'the directory of pictures'  # what --data-dir must be
_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
_FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP')


def read(size, data_dir):
    """Read all pictures of a folder: upright, their middle squares, resized with a filter that averages.

    Args:
        size (int): Height and width of the result.
        data_dir (str or None): The flag ``--data-dir``, which is required: the folder.

    Returns:
        tuple: Pictures (uint8, (N, 3, size, size)) in the order of their names; labels (int32, (N,)), or ``None``
        unless every picture is in a sub-directory; a line that says what they are; an MD5 of names and pixels.

    Raises:
        UserError: The flag, the folder, or pictures in it are missing, or one cannot be read.

    """
    if data_dir is None:
        raise UserError('--data-dir is required with a dataset of source folder: ' + DATA_DIR)
    if not os.path.isdir(data_dir):
        raise UserError(f'--data-dir {data_dir}: there is no such directory')
    names = picture_names(data_dir, _SUFFIXES)
    if not names:
        raise UserError('--data-dir {}: there are no pictures ({}) in it'.format(data_dir, ', '.join(_SUFFIXES)))
    images = np.empty((len(names), 3, size, size), np.uint8)
    digest = hashlib.md5(usedforsecurity=False)
    with bombs_refused():
        for image, name in zip(images, tqdm.tqdm(names, 'pictures', disable=len(names) <= 1000), strict=True):
            picture = read_rgb(os.path.join(data_dir, name), _FORMATS, upright=True)
            resized = picture.resize((size, size), Image.Resampling.LANCZOS, box=middle_square(picture))
            image[...] = np.asarray(resized).transpose(2, 0, 1)
            digest.update(os.fsencode(name) + b'\0' + image.tobytes())
    labels, n_classes = labels_of(names)
    folder = os.path.basename(os.path.abspath(data_dir))
    classes = '' if labels is None else f' of {n_classes} ' + ('class' if n_classes == 1 else 'classes')
    source = f'{len(names)} pictures{classes} in the folder {folder}, cropped to squares and resized to {size}x{size}'
    return images, labels, source, digest.hexdigest()


def labels_of(names):
    """Number the classes that paths begin with.

    Args:
        names (list of str): Paths with ``/``.

    Returns:
        tuple: The position of each path's first directory among all of them, sorted (int32, (N,)), and how many there
        are; ``(None, 0)`` if a path has no directory.

    """
    if not all('/' in name for name in names):
        return None, 0
    directories = [name.split('/', 1)[0] for name in names]
    numbers = {directory: number for number, directory in enumerate(sorted(set(directories)))}
    return np.array([numbers[directory] for directory in directories], np.int32), len(numbers)
