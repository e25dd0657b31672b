"""The spectra of the discriminator's weights (paper, Figure 3), and those that are allowed (Figure 14)."""
import numpy as np

from util.analysis import style
from util.analysis.runs import best_of_methods, describe_group, load_discriminator, readable
from util.analysis.table import NothingToDraw, Table
from util.normalization.base import used_weights
from util.normalization.power_iteration import as_matrix

COLUMNS = ('method', 'setting', 'seed', 'iteration', 'layer', 'rank', 'squared_singular_value', 'scaled')
ALLOWED_COLUMNS = ('method', 'spectrum', 'rank', 'singular_value')
_MARKED = 12  # points of a line that get its marker


def spectra(discriminator):
    """The singular values of the weights that a discriminator computes with.

    Args:
        discriminator (chainer.Chain): On the CPU, initialised.

    Returns:
        dict: Layer -> its weight's singular values, float64, in descending order.

    """
    return {layer.name: np.linalg.svd(as_matrix(layer.used, layer.axis).astype('d'), compute_uv=False)
            for layer in used_weights(discriminator)}


@style.styled
def draw_spectra(runs, skip):
    """Draw the squared singular values of each layer, the largest scaled to 1, one line a method.

    Args:
        runs (list of Run): A group; of each method the best run.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: A Table by ``COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has a snapshot of its discriminator.

    """
    rows, lines = [], {}
    for run, (discriminator, iteration) in readable(best_of_methods(runs).values(), load_discriminator, skip):
        for layer, values in spectra(discriminator).items():
            if len(values) < 2:
                continue  # a single value is always the largest
            squares = values ** 2
            scaled = squares / (squares[0] or 1)
            lines.setdefault(layer, []).append((run.method, scaled))
            rows += [(run.method, run.setting, run.config.seed, iteration, layer, i, *pair)
                     for i, pair in enumerate(zip(map(float, squares), map(float, scaled), strict=True), 1)]
    if not lines:
        raise NothingToDraw('wants runs with a snapshot_iter_*.npz; "make methods" makes them')
    return Table(COLUMNS, rows), _draw(describe_group(runs), lines)


def _draw(title, lines):
    columns = min(4, len(lines))
    count = -(-len(lines) // columns)
    figure, axes = style.make_figure('Spectra of the weights that the discriminator computes with: ' + title,
                                     count, columns, width=9, height=2.2 * count + 0.6, sharey=True)
    for axis, (layer, found) in zip(axes.flat, lines.items(), strict=False):
        for method, scaled in found:
            every = max(len(scaled) // _MARKED, 1)
            axis.plot(np.arange(1, len(scaled) + 1), scaled, **style.line(method, markevery=every))
        axis.set_title(layer)
        axis.set_ylim(-0.02, 1.02)
    for axis in axes.flat[len(lines):]:
        axis.set_visible(False)
    figure.supxlabel('index of the singular value, the largest first', fontsize=8)
    figure.supylabel('squared singular value / the largest one', fontsize=8)
    style.legend(figure, style.method_handles(dict.fromkeys(method for found in lines.values() for method, _ in found)))
    return figure


def allowed_spectra(rank):
    """Spectra that weight normalization and spectral normalization allow a square weight of this rank.

    Weight normalization fixes the sum of the squares to the number of outputs (Equation 27): the more directions, the
    weaker each. Its singular values are divided by the root of that number, as in the paper's figure. Spectral
    normalization only bounds the largest, by 1.

    Returns:
        dict: (method, name of the spectrum) -> singular values (rank,).

    """
    def ranked(k):
        return np.where(np.arange(rank) < k, 1 / np.sqrt(k), 0.)
    half = max(rank // 2, 1)
    falling = np.linspace(1, 0, rank, endpoint=False)
    return {('weight_norm', 'all in one direction'): ranked(1),
            ('weight_norm', 'half of the directions alike'): ranked(half),
            ('weight_norm', 'all directions alike'): ranked(rank),
            ('weight_norm', 'falling linearly'): falling / np.linalg.norm(falling),
            ('sn', 'all in one direction'): (np.arange(rank) < 1).astype('d'),
            ('sn', 'half of the directions alike'): (np.arange(rank) < half).astype('d'),
            ('sn', 'all directions alike'): np.ones(rank),
            ('sn', 'falling linearly'): falling}


@style.styled
def draw_allowed(runs, skip, rank=50):
    """Draw :func:`allowed_spectra` of a square weight. It follows from the definitions; the runs do not matter.

    Returns:
        tuple: A Table by ``ALLOWED_COLUMNS`` and a Figure.

    """
    found = allowed_spectra(rank)
    figure, axes = style.make_figure('Spectra that a normalization allows a {0} x {0} weight'.format(rank), 1, 2,
                                     width=8, height=2.8, sharey=True)
    handles = []
    for axis, method, title in zip(axes.flat, ('weight_norm', 'sn'), (
            'weight norm., divided by the root of the outputs', 'spectral normalization'), strict=True):
        for i, (name, values) in enumerate((name, v) for (m, name), v in found.items() if m == method):
            handles += axis.plot(np.arange(1, rank + 1), values, label=name, markevery=(i * 2, 10),
                                 **style.shade(i, 4))
        axis.set(title=title, xlabel='index of the singular value, the largest first')
    axes[0, 0].set_ylabel('singular value')
    style.legend(figure, handles)
    return Table(ALLOWED_COLUMNS, [(*key, i, float(value)) for key, values in found.items()
                                   for i, value in enumerate(values, 1)]), figure
