"""The discriminator's loss on pictures that it learns from and on pictures held back (paper, Figure 15)."""
from matplotlib.lines import Line2D

from util import dataset, probe
from util.analysis import style
from util.analysis.runs import best_of_methods, describe_group, finite, read_probe, readable
from util.analysis.table import NothingToDraw, Table
from util.files import UserError
from util.scorer import label
from util.validation import TRAINING, VALIDATION

COLUMNS = ('method', 'setting', 'seed', 'iteration', 'quantity', 'pictures', 'value')
WANTS = 'wants runs with losses on training and validation data in {}; "make critic" makes them'.format(probe.FILE)
_LOOKS = {TRAINING: {'linestyle': '-', 'marker': 'o', 'markerfacecolor': 'white'},
          VALIDATION: {'linestyle': '--', 'marker': 'x'}}


@style.styled
def draw_critic(runs, skip):
    """Draw the discriminator's loss over training, a panel a method, and the scores beside them.

    Losses of different methods are of different kinds (``configs/methods.yml``), so that each has an axis of its own.
    A gap between the two lines says that the discriminator knows its training data by heart.

    Args:
        runs (list of Run): A group; of each method the best run.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: A Table by ``COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has looked at validation data.

    """
    rows, losses, scores = [], [], {}
    for run, entries in readable(best_of_methods(runs).values(), _read_losses, skip):
        about, points = (run.method, run.setting, run.config.seed), {}
        for row in entries:
            rows.append((*about, row['iteration'], probe.LOSS, row['layer'], row['value']))
            points.setdefault(row['layer'], []).append((row['iteration'], row['value']))
        losses.append((run, points))
        for row in run.scores:
            if finite(row['score_mean']):
                rows.append((*about, row['iteration'], 'score', row['scorer'], row['score_mean']))
                scores.setdefault(label(row['scorer']), {}).setdefault(run.method, []).append(
                    (row['iteration'], row['score_mean']))
    if not rows:
        raise NothingToDraw(WANTS)
    return Table(COLUMNS, rows), _draw(describe_group(runs), losses, scores)


def _read_losses(run):
    """The rows of a run's ``discriminator.csv`` that are losses. Raises UserError when there are none, and why."""
    split = dataset.split_name(run.config.dataset, run.config.dataset.split)
    if run.config.dataset.source in ('folder', 'imagenet'):
        raise UserError('its data set has no test split to validate on')
    if split != 'train':
        raise UserError('it was trained on split {} of its data, so that none is left to validate on '
                        '(SET=dataset.split=train)'.format(split))
    found = [row for row in read_probe(run) if row['quantity'] == probe.LOSS and finite(row['value'])]
    if not found:
        raise UserError('its {} has no losses: it was trained by an earlier version'.format(probe.FILE))
    return found


def _draw(title, losses, scores):
    panels = len(losses) + len(scores)
    across = min(3, panels)
    count = -(-panels // across)
    title = "The discriminator's loss, without penalties, on training and on validation data: " + title
    figure, axes = style.make_figure(title, count, across, width=9, height=2.1 * count + 0.7)
    for axis, (run, found) in zip(axes.flat, losses, strict=False):
        for pictures, points in found.items():
            axis.plot(*zip(*sorted(points), strict=True), color=style.color(run.method), **_LOOKS[pictures],
                      markevery=max(len(points) // 6, 1))
        axis.set_title('{}, {}'.format(style.label(run.method), run.setting))
        axis.set_ylabel('loss of D ({})'.format(run.config.method.loss))
    for axis, (scorer, found) in zip(axes.flat[len(losses):], scores.items(), strict=False):
        for method, points in found.items():
            axis.plot(*zip(*sorted(points), strict=True), **style.line(method, markevery=max(len(points) // 6, 1)))
        axis.set_title(scorer)
        axis.set_ylabel('score')
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    for axis in axes.flat[max(panels - across, 0):panels]:
        axis.set_xlabel('generator updates')
    kinds = [Line2D([], [], color='black', label='loss, {} data'.format(name), **look) for name, look in _LOOKS.items()]
    style.legend(figure, kinds + style.method_handles(dict.fromkeys(run.method for run, _ in losses)))
    return figure
