"""The discriminator over training: sigma (paper, Figure 9), norms of gradients (BSSN's Figures 4 and 6), variances of
weights (its Figure 5).
"""
import itertools
import math

from matplotlib.lines import Line2D

from util import probe
from util.analysis import style
from util.analysis.runs import (
    best_of_methods,
    describe_group,
    finite,
    load_discriminator,
    read_log,
    read_probe,
    readable,
)
from util.analysis.table import NothingToDraw, Table
from util.normalization.base import used_weights
from util.probe import exact_sigmas
from util.scorer import label
from util.trainer import build_networks

SIGMA_COLUMNS = ('method', 'setting', 'seed', 'iteration', 'layer', 'what', 'sigma')
GRADIENT_COLUMNS = ('method', 'setting', 'seed', 'iteration', 'quantity', 'layer', 'value')
VARIANCE_COLUMNS = ('method', 'setting', 'seed', 'iteration', 'layer', 'variance', 'lecun', 'xavier')
ESTIMATED, EXACT, USED = 'estimate', 'exact', 'exact, as the layer computes with'
_UPDATES = 'generator updates'


def _about(run):
    return run.method, run.setting, run.config.seed


@style.styled
def draw_sigma(runs, skip):
    """Draw the largest singular value of each layer over training: the running estimate beside the exact value, and
    that of the weight that the layer computes with.

    Exact values are those of ``discriminator.csv``; without it, that of the newest snapshot.

    Args:
        runs (list of Run): A group; of each method the best run, where it keeps an estimate.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: A Table by ``SIGMA_COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has an estimate of sigma.

    """
    found = []
    for run, log in readable(best_of_methods(runs).values(), read_log, skip):
        estimates = [(int(entry['iteration']), key[len('sigma/'):], ESTIMATED, entry[key])
                     for entry in log for key in entry if key.startswith('sigma/') and finite(entry[key])]
        if estimates:
            found.append((run, estimates + _exact(run, skip)))
    if not found:
        raise NothingToDraw('wants runs of a method that divides by a singular value (sn, ssn ...); "make normalize" '
                            'makes one')
    rows = [(*_about(run), *entry) for run, entries in found for entry in entries]
    return Table(SIGMA_COLUMNS, rows), _draw_sigma(describe_group(runs), found)


def _exact(run, skip):
    """Exact values of a run: (iteration, layer, what, sigma) each."""
    names = {probe.SIGMA: EXACT, probe.SIGMA_USED: USED}
    for _, rows in readable([run], read_probe, skip):
        return [(row['iteration'], row['layer'], names[row['quantity']], row['value'])
                for row in rows if row['quantity'] in names]
    for _, (discriminator, iteration) in readable([run], load_discriminator, skip):
        return [(iteration, layer.name, what, sigma) for layer in used_weights(discriminator)
                for what, sigma in zip((EXACT, USED), exact_sigmas(layer), strict=True)]
    return []


def _draw_sigma(title, found):
    figure, axes = style.make_figure("Largest singular values of the discriminator's weights: " + title, len(found), 2,
                                     width=9, height=2.1 * len(found) + 0.7, sharex=True)
    layers = list(dict.fromkeys(entry[1] for _, entries in found for entry in entries))
    for (left, right), (run, entries) in zip(axes, found, strict=True):
        for i, layer in enumerate(layers):
            look = style.shade(i, len(layers))
            for axis, what in ((left, ESTIMATED), (right, USED)):
                points = [(at, value) for at, name, kind, value in entries if (name, kind) == (layer, what)]
                axis.plot(*_columns(points), markevery=max(len(points) // 8, 1), **look)
            points = [(at, value) for at, name, kind, value in entries if (name, kind) == (layer, EXACT)]
            left.plot(*_columns(points), linestyle='', marker='+', color='black', markersize=4)
        left.set_ylabel('{}, {}\n$\\sigma(W)$'.format(style.label(run.method), run.setting))
        right.set_ylabel('$\\sigma(\\bar W)$')
        left.sharey(axes[0, 0]) if left is not axes[0, 0] else None
        right.ticklabel_format(useOffset=False)
        used = [sigma for _, _, what, sigma in entries if what == USED]
        if used:  # around 1 differences of a rounding error would fill the axis
            right.set_ylim(min(used) - 0.05, max(used) + 0.05)
    style.log_scale(axes[0, 0])
    for axis in axes[-1]:
        axis.set_xlabel(_UPDATES)
    axes[0, 0].set_title('the parameter: estimates (lines), exact (+)')
    axes[0, 1].set_title('the weight that the layer computes with, exact')
    exact = Line2D([], [], linestyle='', marker='+', color='black', label='exact, by SVD')
    style.legend(figure, [*_layer_handles(layers), exact])
    return figure


def _columns(points):
    return zip(*sorted(points), strict=True) if points else ([], [])


def _layer_handles(layers):
    return [Line2D([], [], label=layer, **style.shade(i, len(layers))) for i, layer in enumerate(layers)]


@style.styled
def draw_gradients(runs, skip):
    """Draw norms of the discriminator's gradients over training, one line a method, and the score beside them.

    A panel for each layer's weight (the norm of the loss's gradient), two for the pictures, one for the score.

    Args:
        runs (list of Run): A group; of each method the best run.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: A Table by ``GRADIENT_COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has a ``discriminator.csv``.

    """
    rows, lines = [], {}
    for run, entries in readable(best_of_methods(runs).values(), read_probe, skip):
        for row in entries:
            if row['quantity'] in (probe.GRADIENT, probe.INPUT_GRADIENT):
                rows.append((*_about(run), row['iteration'], row['quantity'], row['layer'], row['value']))
                # 0 has no place on a logarithmic axis: NaN makes a gap
                lines.setdefault((row['quantity'], row['layer']), {}).setdefault(run.method, []).append(
                    (row['iteration'], row['value'] if row['value'] > 0 else math.nan))
        for row in run.scores:
            if finite(row['score_mean']):
                rows.append((*_about(run), row['iteration'], 'score', row['scorer'], row['score_mean']))
                lines.setdefault(('score', label(row['scorer'])), {}).setdefault(run.method, []).append(
                    (row['iteration'], row['score_mean']))
    if not rows:
        raise NothingToDraw('wants runs with a {}; "make methods" without PROBE=0 makes them'.format(probe.FILE))
    order = [*probe.QUANTITIES, 'score']
    panels = {key: lines[key] for key in sorted(lines, key=lambda key: order.index(key[0]))}
    titles = {probe.GRADIENT: 'weight of {}', probe.INPUT_GRADIENT: '{} pictures', 'score': '{}'}
    figure, axes = _panels('Gradients of the discriminator, gaps where they are exactly 0: ' + describe_group(runs),
                           {titles[quantity].format(layer): found for (quantity, layer), found in panels.items()})
    for axis, (quantity, _) in zip(axes, panels, strict=False):
        if quantity == 'score':
            axis.set_ylabel('score')
        else:
            style.log_scale(axis)
            axis.set_ylabel('$\\|\\partial L/\\partial W\\|_F$' if quantity == probe.GRADIENT else
                            'mean $\\|\\partial D/\\partial x\\|_2$')
    return Table(GRADIENT_COLUMNS, rows), figure


@style.styled
def draw_variances(runs, skip):
    """Draw the variance of the weights that the layers compute with over training, one line a method, against what
    LeCun's (1 / fan_in) and Xavier's (2 / (fan_in + fan_out)) initializations would have.

    Args:
        runs (list of Run): A group; of each method the best run.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: A Table by ``VARIANCE_COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has a ``discriminator.csv``.

    """
    rows, lines = [], {}
    # A group has one model, so that its layers are of the same shapes whatever the method
    theory = {layer.name: initial_variances(layer.weight.shape, layer.axis)
              for layer in used_weights(build_networks(runs[0].config)[1])}
    for run, entries in readable(best_of_methods(runs).values(), read_probe, skip):
        for row in entries:
            if row['quantity'] == probe.VARIANCE and row['layer'] in theory and row['value'] > 0:
                rows.append((*_about(run), row['iteration'], row['layer'], row['value'], *theory[row['layer']]))
                lines.setdefault(row['layer'], {}).setdefault(run.method, []).append((row['iteration'], row['value']))
    if not rows:
        raise NothingToDraw('wants runs with a {}; "make methods" without PROBE=0 makes them'.format(probe.FILE))
    looks = [{'color': 'black', 'linestyle': dashes, 'linewidth': 0.9, 'label': name} for name, dashes in (
        ('LeCun, 1 / fan_in', (0, (6, 2))), ('Xavier, 2 / (fan_in + fan_out)', (0, (1, 1))))]
    figure, axes = _panels('Variances of the weights that the discriminator computes with: ' + describe_group(runs),
                           lines, [Line2D([], [], **look) for look in looks])
    for i, (axis, layer) in enumerate(zip(axes, lines, strict=False)):
        for value, look in zip(theory[layer], looks, strict=True):
            axis.axhline(value, zorder=4, **look)  # weight normalization and orthonormal weights lie on LeCun's
        style.log_scale(axis)
        if i % 3 == 0:
            axis.set_ylabel('variance of the elements')
    return Table(VARIANCE_COLUMNS, rows), figure


def initial_variances(shape, axis=0):
    """The variances of LeCun's and Xavier's initializations for a weight of this shape, outputs along ``axis``.

    Returns:
        tuple: 1 / fan_in and 2 / (fan_in + fan_out), where a convolution's fans count its kernel's places.

    """
    size = 1
    for n in shape:
        size *= n
    fan_in, fan_out = size / shape[axis], size / shape[1 - axis]
    return 1 / fan_in, 2 / (fan_in + fan_out)


def _panels(title, panels, handles=()):
    """A figure of panels in three columns, name -> method -> points; returns it and its axes that are used."""
    count = -(-len(panels) // 3)
    figure, axes = style.make_figure(title, count, min(3, len(panels)), width=9, height=1.75 * count + 0.7)
    for axis, (name, found) in zip(axes.flat, panels.items(), strict=False):
        for method, points in found.items():
            axis.plot(*_columns(points), **style.line(method, markevery=max(len(points) // 6, 1)))
        axis.set_title(name)
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    for axis in itertools.islice(axes.flat, max(len(panels) - 3, 0), len(panels)):
        axis.set_xlabel(_UPDATES)
    methods = dict.fromkeys(method for found in panels.values() for method in found)
    style.legend(figure, [*style.method_handles(methods), *handles])
    return figure, list(axes.flat)
