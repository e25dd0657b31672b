"""What Pillow does here: finding and opening picture files of unknown origin, converting to RGB, resizing arrays."""
import contextlib
import os
import warnings

import numpy as np
from PIL import Image, ImageOps

from util.files import UserError


def picture_names(root, suffixes):
    """Sorted paths of the picture files in a folder, at any depth; hidden files and folders are left out.

    Links are followed; a folder that is its own ancestor is left out.

    Args:
        root (str): The folder.
        suffixes (tuple of str): How their names end, in lower case.

    Returns:
        list of str: Relative to ``root`` and with ``/``.

    Raises:
        UserError: A folder cannot be read.

    """
    def refuse(error):
        raise UserError(f'cannot read {error.filename}: {error.strerror}')

    names = []
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder) + os.sep
        subfolders[:] = [name for name in subfolders if not name.startswith('.')
                         and not real.startswith(os.path.realpath(os.path.join(folder, name)) + os.sep)]
        names += [os.path.relpath(os.path.join(folder, name), root).replace(os.sep, '/') for name in files
                  if name.lower().endswith(suffixes) and not name.startswith('.')
                  and os.path.isfile(os.path.join(folder, name))]
    return sorted(names)


@contextlib.contextmanager
def bombs_refused():
    """While this lasts, what opens a picture refuses pictures of very many pixels, of which Pillow only warns.

    Warning filters belong to the whole process, so this stands around threads, not inside them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        yield


def read_rgb(path, formats, upright):
    """Read a picture file.

    Args:
        path (str): The file.
        formats (tuple of str): Pillow's names of the formats that are taken, whatever the file's name ends with.
        upright (bool): Turn the picture as its EXIF data say.

    Returns:
        PIL.Image.Image: RGB, in memory.

    Raises:
        UserError: It cannot be read, or is no picture of these formats.

    """
    try:
        with Image.open(path, formats=formats) as file:
            return _to_rgb(ImageOps.exif_transpose(file) if upright else file)
    except Exception as error:  # Pillow's readers raise nearly everything
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'cannot read the picture {path}: {reason}') from error


def middle_square(image):
    """The box (left, top, right, bottom) of the largest square in the middle of a picture."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return left, top, left + side, top + side


def _to_rgb(image):
    """Convert any mode to RGB: 16 bits lose the lower 8, transparency shows white."""
    if image.mode.startswith('I'):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert('RGB')


def resize(images, size, resample):
    """Resize pictures.

    Args:
        images (numpy.ndarray): uint8, (N, 3, H, W).
        size (int): Height and width of the result.
        resample (PIL.Image.Resampling): How.

    Returns:
        numpy.ndarray: uint8, (N, 3, size, size); ``images`` itself where they have that size.

    """
    if images.shape[2:] == (size, size):
        return images
    out = np.empty((len(images), 3, size, size), np.uint8)
    for target, image in zip(out, images, strict=True):
        resized = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), resample)
        target[...] = np.asarray(resized).transpose(2, 0, 1)
    return out
