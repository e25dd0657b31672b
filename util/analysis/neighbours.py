"""The training pictures nearest to generated ones: does the generator repeat them?"""
import numpy as np

from util import dataset
from util.analysis import style
from util.analysis.runs import best_run, describe_run, readable
from util.analysis.samples import read_generator
from util.analysis.table import NothingToDraw, Table
from util.files import UserError
from util.generate_fake_image import generate, grid

COLUMNS = ('method', 'setting', 'seed', 'iteration', 'sample', 'rank', 'training_picture', 'distance')
_SHIPPED = 'digits'  # the one source of pictures that costs nothing to read
_TYPICAL = 200  # training pictures that the typical distance is taken of


def nearest(pictures, training, k, skip_self=False):
    """The k training pictures nearest to each picture by the root of the mean squared difference of pixels.

    Args:
        pictures (numpy.ndarray): uint8 (n, 3, H, W).
        training (numpy.ndarray): uint8 (N, 3, H, W), N at least k.
        k (int): How many.
        skip_self (bool): Leave out one at distance 0: the pictures are of ``training``.

    Returns:
        tuple: Their indices (n, k), nearest first, and distances (n, k), of 255.

    """
    a = pictures.reshape(len(pictures), -1).astype('f')
    lengths = (a ** 2).sum(axis=1, dtype='d')
    squares = np.empty((len(a), len(training)))
    for i in range(0, len(training), 1000):  # in float32 all at once would be four times the data set
        b = np.asarray(training[i:i + 1000]).reshape(-1, a.shape[1]).astype('f')
        squares[:, i:i + 1000] = lengths[:, None] - 2. * (a @ b.T) + (b ** 2).sum(axis=1, dtype='d')
    order = np.argsort(squares, axis=1, kind='stable')[:, :k + skip_self]
    # Exactly, now that they are few: the sums above cancel
    differences = a[:, None].astype('d') - np.asarray(training[order.ravel()]).reshape(*order.shape, -1)
    distances = np.sqrt((differences ** 2).mean(axis=2))
    if skip_self:
        order, distances = order[:, 1:], distances[:, 1:]
    return order, distances


@style.styled
def draw_neighbours(runs, skip, data_dir=None, n=8, k=5):
    """Draw samples of a group's best run, each beside the training pictures nearest to it.

    Args:
        runs (list of Run): A group.
        skip (callable): Gets each run that is left out, and why.
        data_dir (str or None): A copy of the run's data; without it only data that need no fetching are used.
        n, k (int): Samples, and nearest pictures of each.

    Returns:
        tuple: A Table by ``COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has kept a generator, or its training pictures are not at hand.

    """
    run = best_run([run for run in runs if run.directory.iterations('gen')])
    found = list(readable([run], read_generator, skip)) if run else []
    if not found:
        raise NothingToDraw('wants runs with a gen_iter_*.npz; "make normalize" makes one')
    generator, iteration = found[0][1]
    training = _load(run, data_dir)
    samples = generate(generator, n, run.config.seed)
    indices, distances = nearest(samples, training, k)
    some = training[:: max(len(training) // _TYPICAL, 1)]
    typical = float(np.median(nearest(some, training, 1, skip_self=True)[1]))
    rows = [(run.method, run.setting, run.config.seed, iteration, i, rank + 1, int(indices[i, rank]),
             float(distances[i, rank])) for i in range(n) for rank in range(k)]
    return Table(COLUMNS, rows), _draw(run, samples, np.asarray(training[indices.ravel()]), distances, typical)


def _load(run, data_dir):
    row = run.config.dataset
    if data_dir is None and row.source != _SHIPPED:
        raise NothingToDraw('wants the training pictures; "make figures DATA_DIR=" a copy of {} finds them'.format(
            row.source))
    try:
        pictures = dataset.load(row, row.split, None if row.source == _SHIPPED else data_dir)
    except UserError as error:
        raise NothingToDraw('wants the training pictures: {}'.format(error)) from error
    if pictures.fingerprint != run.data['fingerprint']:
        raise NothingToDraw('wants the pictures that the run was trained with (fingerprint {}), not others ({})'.format(
            run.data['fingerprint'], pictures.fingerprint))
    return pictures.images


def _draw(run, samples, neighbours, distances, typical):
    n, k = distances.shape
    lines = np.concatenate([samples[:, None], neighbours.reshape(n, k, *samples.shape[1:])], axis=1)
    title = 'Samples (left of each strip) and the nearest training pictures: {}\n' \
            'below each its distance, root mean square of pixels of 255; between a training picture and its nearest ' \
            'other one, median: {:.0f}'.format(describe_run(run), typical)
    figure, axes = style.make_figure(title, -(-n // 2), 2, width=8.5, height=0.9 * -(-n // 2) + 1)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, strip, numbers in zip(axes.flat, lines, distances, strict=False):
        canvas = grid(strip, 1, k + 1)
        axis.imshow(canvas, interpolation='nearest')
        step = canvas.shape[1] / (k + 1)
        for i, number in enumerate(numbers, 1):
            axis.text(step * (i + 0.5), canvas.shape[0], '{:.0f}'.format(number), ha='center', va='top', fontsize=7)
        axis.text(step / 2, canvas.shape[0], 'sample', ha='center', va='top', fontsize=7)
    return figure
