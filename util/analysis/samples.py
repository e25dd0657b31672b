"""What the generators draw: methods by settings (paper, Figure 6), one z over training, and between two z's."""
import chainer
import numpy as np

from util import noise
from util.analysis import style
from util.analysis.runs import best_run, describe_group, describe_run, readable
from util.analysis.table import NothingToDraw, Table
from util.dataset import to_uint8
from util.generate_fake_image import generate, grid, grid_classes, load_generator
from util.report.runs import rank_setting

SAMPLE_COLUMNS = ('method', 'setting', 'seed', 'iteration', 'pictures')
PROGRESS_COLUMNS = ('method', 'setting', 'seed', 'iteration', 'z', 'mean_change')
INTERPOLATION_COLUMNS = ('method', 'setting', 'seed', 'iteration', 'pair', 'step', 'angle_degrees', 'mean_change')
_CPU = chainer.get_device('@numpy')
_WANTS = 'wants runs with a gen_iter_*.npz; "make normalize" makes one'
_STEPS = 12  # snapshots in the figure of progress


def read_generator(run, iteration=None):
    """A run's generator, the last by default, on the CPU, and its iteration. Raises UserError."""
    return load_generator(run.directory, iteration, _CPU)


@style.styled
def draw_samples(runs, skip, rows=4, columns=4):
    """Draw pictures of each method's last generator at each setting, all from the same z.

    Args:
        runs (list of Run): A group; of each method and setting the first.
        skip (callable): Gets each run that is left out, and why.
        rows, columns (int): Of one method's pictures at one setting.

    Returns:
        tuple: A Table by ``SAMPLE_COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has kept a generator.

    """
    cells, seed = {}, runs[0].config.seed
    for run, (generator, iteration) in readable(runs, read_generator, skip):
        if (run.method, run.setting) not in cells:
            pictures = generate(generator, rows * columns, seed, classes=grid_classes(generator, rows, columns))
            cells[run.method, run.setting] = run, iteration, grid(pictures, rows, columns)
    if not cells:
        raise NothingToDraw(_WANTS)
    table = [(*key, run.config.seed, iteration, rows * columns) for key, (run, iteration, _) in cells.items()]
    methods = list(dict.fromkeys(method for method, _ in cells))
    settings = sorted({setting for _, setting in cells}, key=rank_setting)
    title = 'Samples of the last generators: ' + describe_group(runs)
    across = min(6, len(cells))
    if len(methods) == 1 or len(settings) == 1:
        shape = -(-len(cells) // across), across
        places = {key: divmod(i, across) for i, key in enumerate(cells)}
    else:
        shape = len(methods), len(settings)
        places = {key: (methods.index(key[0]), settings.index(key[1])) for key in cells}
    figure, axes = style.make_figure(title, *shape, width=1.65 * max(shape[1], 2), height=1.75 * shape[0] + 0.4)
    for axis in axes.flat:
        axis.set_axis_off()
    for (method, setting), (i, j) in places.items():
        axes[i, j].imshow(cells[method, setting][2], interpolation='nearest')
        axes[i, j].set_title('{}, {}'.format(style.label(method), setting), fontsize=7)
    return Table(SAMPLE_COLUMNS, table), figure


def draw_over_training(run, skip, n):
    """Draw n pictures of one and the same z with each generator of a run: iteration -> uint8 (n, 3, H, W)."""
    found = {}
    for iteration in run.directory.iterations('gen'):
        for _, (generator, _) in readable([run], lambda run, at=iteration: read_generator(run, at), skip):
            found[iteration] = generate(generator, n, run.config.seed, classes=grid_classes(generator, n, 1))
    return found


@style.styled
def draw_progress(runs, skip, n=6):
    """Draw what some z's become over the generators of a group's best run.

    Returns:
        tuple: A Table by ``PROGRESS_COLUMNS``, the mean absolute change of a picture, of 255, since the generator
        before; and a Figure.

    Raises:
        NothingToDraw: No run has kept two generators.

    """
    run, pictures = _progress(runs, skip, n)
    iterations = sorted(pictures)
    rows = []
    for before, after in zip(iterations, iterations[1:], strict=False):
        change = abs(pictures[after].astype('d') - pictures[before]).mean(axis=(1, 2, 3))
        rows += [(run.method, run.setting, run.config.seed, after, i, float(c)) for i, c in enumerate(change)]
    shown = [iterations[i] for i in sorted(set(np.linspace(0, len(iterations) - 1, _STEPS).round().astype(int)))]
    figure = _columns_of_pictures('One z a row, over training: ' + describe_run(run), [pictures[i] for i in shown],
                                  shown, 'generator updates')
    return Table(PROGRESS_COLUMNS, rows), figure


def animate_progress(runs, skip, rows=6, columns=8):
    """The frames of an animation: the same z's drawn by each generator of a group's best run.

    Returns:
        tuple: A Table by ``SAMPLE_COLUMNS``, a row a frame, and the frames (list of uint8 (height, width, 3)).

    Raises:
        NothingToDraw: No run has kept two generators.

    """
    run, pictures = _progress(runs, skip, rows * columns)
    table = [(run.method, run.setting, run.config.seed, i, rows * columns) for i in sorted(pictures)]
    return Table(SAMPLE_COLUMNS, table), [grid(pictures[i], rows, columns) for i in sorted(pictures)]


def _progress(runs, skip, n):
    run = best_run([run for run in runs if len(run.directory.iterations('gen')) > 1])
    pictures = draw_over_training(run, skip, n) if run else {}
    if len(pictures) < 2:
        raise NothingToDraw('wants a run with two gen_iter_*.npz; "make normalize" makes one')
    return run, pictures


@style.styled
def draw_interpolation(runs, skip, pairs=6, steps=11):
    """Draw what the last generator of a group's best run makes of z's on the way from one z to another.

    Returns:
        tuple: A Table by ``INTERPOLATION_COLUMNS`` (the angle from the first z; the mean absolute change of the
        picture, of 255, since the step before) and a Figure.

    Raises:
        NothingToDraw: No run has kept a generator.

    """
    run = best_run([run for run in runs if run.directory.iterations('gen')])
    found = list(readable([run], read_generator, skip)) if run else []
    if not found:
        raise NothingToDraw(_WANTS)
    generator, iteration = found[0][1]
    ends = noise.normal(np, (2, pairs, generator.dim_z), run.config.seed, 0, 'z of interpolation')
    z = np.stack([interpolate(*ends, t) for t in np.linspace(0, 1, steps)])  # (steps, pairs, dim_z)
    y = grid_classes(generator, pairs, 1)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        pictures = [to_uint8(generator(part, y).array) for part in z]
    rows = []
    for step in range(steps):
        change = abs(pictures[step].astype('d') - pictures[max(step - 1, 0)]).mean(axis=(1, 2, 3))
        rows += [(run.method, run.setting, run.config.seed, iteration, pair, step,
                  _angle(ends[0, pair], z[step, pair]), float(change[pair])) for pair in range(pairs)]
    figure = _columns_of_pictures("Between two z's, a pair a row: " + describe_run(run), pictures,
                                  ['{:.0%}'.format(step / (steps - 1)) for step in range(steps)],
                                  'way from the left z to the right one')
    return Table(INTERPOLATION_COLUMNS, rows), figure


def interpolate(a, b, t):
    """Points on the arc from a to b, (n, dim) each: z ~ N(0, I) lies near a sphere, and a straight line would leave it.

    Args:
        a, b (numpy.ndarray): (n, dim).
        t (float): 0 gives a, 1 gives b.

    Returns:
        numpy.ndarray: (n, dim), float32.

    """
    def length(x):
        return np.linalg.norm(x, axis=1, keepdims=True)
    cosine = (a * b).sum(axis=1, keepdims=True) / (length(a) * length(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    sine = np.where(np.sin(angle) > 1e-6, np.sin(angle), 1)
    straight = np.sin(angle) <= 1e-6
    weights = [np.where(straight, w, np.sin(w * angle) / sine) for w in (1 - t, t)]
    return (weights[0] * a + weights[1] * b).astype('f')


def _angle(a, b):
    return float(np.degrees(np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))))


def _columns_of_pictures(title, columns, names, label):
    """A Figure of columns of pictures, each column with its name below."""
    n, _, height, width = columns[0].shape
    canvas = grid(np.stack(columns, 1).reshape(-1, *columns[0].shape[1:]), n, len(columns))
    figure, axes = style.make_figure(title, width=8, height=7.8 * canvas.shape[0] / canvas.shape[1] + 0.6)
    axis = axes[0, 0]
    axis.imshow(canvas, interpolation='nearest')
    step = canvas.shape[1] / len(columns)
    axis.set_xticks([step * (i + 0.5) for i in range(len(columns))], names)
    axis.set(yticks=[], xlabel=label)
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


