"""Pictures inside the page, as data URIs that take little room."""
import base64
import io

from PIL import Image, features

from util import pictures
from util.files import UserError
from util.page.markup import element

_COLOURS = 128  # of a drawing, whose lines and letters have few
_FRAMES = 12  # of an animation
_WEBP = features.check('webp')


def embed(path, alt, drawing=False, widest=1600):
    """An ``img`` element that holds a PNG file.

    Args:
        path (str): The file.
        alt (str): What it shows, in words.
        drawing (bool): It has lines and letters, which stay sharp where that takes less room.
        widest (int): Pixels of a side; a larger picture is made smaller.

    Returns:
        Markup

    Raises:
        UserError: The file is missing, or no such picture.

    """
    with pictures.bombs_refused():
        image = pictures.read_rgb(path, ('PNG',), upright=False)
    image.thumbnail((widest, widest))
    ways = [_encode(image, quality=70)]
    if drawing:
        few = image.quantize(_COLOURS, dither=Image.Dither.NONE).convert('RGB')
        ways.append(_encode(few, lossless=True))
    return _image(min(ways, key=len), image.size, alt)


def embed_animation(path, alt):
    """An ``img`` element that holds an animated GIF. Raises UserError when it cannot be read."""
    try:
        with pictures.bombs_refused(), Image.open(path, formats=('GIF',)) as animation:
            frames, durations = [], []
            last, n = animation.n_frames - 1, min(animation.n_frames, _FRAMES)
            for i in (round(last * j / max(n - 1, 1)) for j in range(n)):
                animation.seek(i)
                frames.append(animation.convert('RGB'))
                durations.append(animation.info.get('duration', 300))
            size = animation.size
    except Exception as error:  # Pillow's readers raise nearly everything
        raise UserError('cannot read the animation {}: {}'.format(path, ' '.join(str(error).split()))) from error
    first, *others = frames
    data = _encode(first, save_all=True, append_images=others, duration=durations, loop=0, quality=50)
    return _image(data, size, alt)


def _encode(image, **options):
    data = io.BytesIO()
    if _WEBP:
        image.save(data, 'WEBP', method=4, **options)
    else:  # a Pillow that was built without
        options = {key: value for key, value in options.items() if key not in ('quality', 'lossless')}
        image.save(data, 'PNG', optimize=True, **options)
    return data.getvalue()


def _image(data, size, alt):
    source = 'data:image/{};base64,{}'.format('webp' if _WEBP else 'png', base64.b64encode(data).decode())
    return element('img', src=source, width=size[0], height=size[1], alt=alt)
