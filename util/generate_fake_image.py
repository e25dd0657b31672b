"""Grids of samples: a Trainer extension, and a command for any snapshot of any run.

    python -m util.generate_fake_image RUN [--iteration N] [--rows 10] [--columns 10] [--seed S] [--out FILE.png]
"""
import sys

import chainer
import numpy as np
from PIL import Image

import model
from util import noise, snapshot
from util.cli import Parser, path, run_command
from util.config import check_seed
from util.dataset import to_uint8
from util.device import get_device
from util.engine.switch import HELP, using_engine
from util.environment import last_engine
from util.files import UserError, atomic_write
from util.rundir import RunDirectory

GAP = 2  # pixels between the pictures of a grid


def generate(generator, n, seed, iteration=0, purpose='z of grid', batchsize=100, classes=None):
    """Draw ``n`` pictures with the generator in test mode (batch normalization by its running averages).

    Args:
        generator (chainer.Chain): Its ``dim_z`` and device are used.
        n (int): How many.
        seed, iteration, purpose: z is a function of them, see ``util/noise.py``; independent of ``batchsize``.
        classes (numpy.ndarray or None): int32 (n,), for a generator with classes; ``None`` draws them like z.

    Returns:
        numpy.ndarray: uint8, (n, 3, H, W).

    """
    return np.concatenate(list(generate_chunks(generator, n, seed, iteration, purpose, batchsize, classes)))


def generate_chunks(generator, n, seed, iteration, purpose, batchsize, classes=None):
    """Yield the pictures of :func:`generate`, ``batchsize`` at a time, where all might not fit in memory."""
    with chainer.using_device(generator.device):
        z = noise.normal(generator.xp, (n, generator.dim_z), seed, iteration, purpose)
        if generator.n_classes and classes is None:
            classes = noise.integers(generator.xp, generator.n_classes, (n,), seed, iteration, 'classes, ' + purpose)
        y = generator.device.send(classes)
    for i in range(0, n, batchsize):
        with chainer.using_config('train', False), chainer.no_backprop_mode(), chainer.using_device(generator.device):
            part = slice(i, i + batchsize)
            images = to_uint8(generator(z[part], None if y is None else y[part]).array)
        yield chainer.get_device('@numpy').send(images)


def grid_classes(generator, rows, columns):
    """The classes of a grid's pictures, int32 (rows * columns,): each row has its own, in turn. ``None`` without."""
    if not generator.n_classes:
        return None
    return (np.arange(rows * columns) // columns % generator.n_classes).astype(np.int32)


def grid(images, rows, columns):
    """Arrange uint8 pictures (rows * columns, 3, H, W) in a white-lined grid: uint8 (height, width, 3)."""
    n, channels, height, width = images.shape
    if n != rows * columns:
        raise ValueError('{} pictures do not fill {} x {}'.format(n, rows, columns))
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[y:y + height, x:x + width] = image.transpose(1, 2, 0)
    return canvas


def save_png(path, array):
    """Write uint8 (height, width, 3) as PNG. Raises UserError when that is impossible."""
    with atomic_write(path) as temporary:
        Image.fromarray(array).save(temporary, format='PNG')


class GenerateFakeImage(chainer.training.Extension):
    """Trainer extension: draws ``images/iter_*.png`` from one fixed z, so that the pictures can be watched improving.

    Args:
        generator (chainer.Chain): The generator in training.
        directory (RunDirectory): Where to.
        seed (int): The run's seed; the fixed z is a function of it.

    """

    priority = chainer.training.extension.PRIORITY_WRITER

    def __init__(self, generator, directory, seed, rows=10, columns=10):
        self._generator, self._directory, self._seed, self._shape = generator, directory, seed, (rows, columns)

    def __call__(self, trainer):
        rows, columns = self._shape
        images = generate(self._generator, rows * columns, self._seed,
                          classes=grid_classes(self._generator, rows, columns))
        save_png(self._directory.image(trainer.updater.iteration), grid(images, rows, columns))


class SaveGenerator(chainer.training.Extension):
    """Trainer extension: keeps ``gen_iter_*.npz`` for scoring and drawing later."""

    priority = chainer.training.extension.PRIORITY_WRITER

    def __init__(self, generator, directory):
        self._generator, self._directory = generator, directory

    def __call__(self, trainer):
        snapshot.save(self._directory.generator(trainer.updater.iteration), self._generator)


def load_generator(directory, iteration, device):
    """Load the generator that a run kept at an iteration (``None``: its last).

    Args:
        directory (RunDirectory): The run.
        iteration (int or None): Which.
        device (chainer.backend.Device): Where to.

    Raises:
        UserError: There is no such generator, or its file cannot be used.

    """
    config = directory.load_config()
    kept = directory.iterations('gen')
    if not kept:
        raise UserError('{} holds no gen_iter_*.npz yet'.format(directory.path))
    iteration = kept[-1] if iteration is None else iteration
    if iteration not in kept:
        raise UserError('--iteration {}: {} has generators of {} only'.format(
            iteration, directory.path, ', '.join(map(str, kept))))
    generator = model.build_generator(config.model, config.dataset.size, config.seed, config.dataset.n_classes)
    snapshot.load_generator(directory.generator(iteration), generator)
    generator.to_device(device)
    return generator, iteration


def main(argv=None):
    parser = Parser(prog='python -m util.generate_fake_image',
                    description='Draw a grid of pictures from a run.')
    parser.add_argument('run', type=path, help='directory of a run, such as results/runs/digits-cnn-sn-default-s0')
    parser.add_argument('--iteration', type=int, help='which generator (default: the last)')
    parser.add_argument('--rows', type=int, default=10, help='rows of the grid (default: 10)')
    parser.add_argument('--columns', type=int, default=10, help='columns of the grid (default: 10)')
    parser.add_argument('--seed', type=int,
                        help="the pictures' seed (default: the run's, so the same pictures as in images/)")
    parser.add_argument('--device', '-d', default='auto', help='auto, cpu, or the number of a GPU (default: auto)')
    parser.add_argument('--engine', default='auto', help=HELP)
    parser.add_argument('--out', '-o', type=path, help='PNG to write (default: RUN/images/samples_iter_N.png)')
    args = parser.parse_args(argv)
    if min(args.rows, args.columns) < 1:
        raise UserError('--rows and --columns must be at least 1')
    if args.seed is not None:
        check_seed(args.seed)
    directory = RunDirectory(args.run)
    device = get_device(args.device)
    generator, iteration = load_generator(directory, args.iteration, device)
    seed = directory.load_config().seed if args.seed is None else args.seed
    out = args.out or directory.file('images/samples_iter_%06d.png' % iteration)
    with using_engine(args.engine, last_engine(directory), device, print):
        images = generate(generator, args.rows * args.columns, seed,
                          classes=grid_classes(generator, args.rows, args.columns))
    save_png(out, grid(images, args.rows, args.columns))
    print(out)


if __name__ == '__main__':
    sys.exit(run_command(main))
