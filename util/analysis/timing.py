"""What a method costs: the time of 100 generator updates (paper, Figure 10)."""
from util import timings
from util.analysis import style
from util.analysis.table import NothingToDraw, Table
from util.files import UserError

_TITLE = ('Time of 100 generator updates with all their discriminator updates: the fastest turns; black: the median\n'
          "The paper says of SN: on CIFAR-10 about 110 to 120 % of weight normalization's time, on STL-10 about that "
          'of no normalization')
_ACROSS = 3


@style.styled
def draw_timing(runs, skip, path=None):
    """Draw the times that ``make timing`` measured as multiples of the time without a normalization.

    The bars are of the fastest turns, the marks on them of the median of the rounds' ratios. The paper prints no
    numbers of its bars, so none stand here.

    Args:
        runs, skip: Not used: it is no figure of runs.
        path (str or None): The CSV file that was written; ``None``: ``results/timing.csv``.

    Returns:
        tuple: A Table by ``util.timings.COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: Nothing was measured, or the file is damaged.

    """
    try:
        rows = timings.read_timings(path or timings.PATH)
    except UserError as error:
        raise NothingToDraw('wants times that can be read: {}'.format(error)) from error
    if not rows:
        raise NothingToDraw('wants times; "make timing" measures them')
    measured = {}
    for row in rows:
        measured.setdefault(tuple(row[key] for key in timings.KEY), []).append(row)
    across = min(len(measured), _ACROSS)
    count = -(-len(measured) // across)
    figure, axes = style.make_figure(_TITLE, count, across, width=max(3.2 * across, 5.2), height=3.1 * count + 0.6,
                                     sharey='row')
    for axis, found in zip(axes.flat, measured.values(), strict=False):
        _bars(axis, found)
        axis.set_ylim(0, 1.15 * max(max(row['ratio'], row['median_ratio']) for row in rows))
    for axis in axes.flat[len(measured):]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel('time, none = 1')
    return Table(timings.COLUMNS, [tuple(row[column] for column in timings.COLUMNS) for row in rows]), figure


def _bars(axis, rows):
    for i, row in enumerate(rows):
        axis.bar(i, row['ratio'], 0.7, **style.bar(row['method']))
        axis.hlines(row['median_ratio'], i - 0.2, i + 0.2, color='black', linewidth=1)
        top = max(row['ratio'], row['median_ratio'])
        axis.annotate('{:.3g} s'.format(row['seconds_per_100']), (i, top), (0, 2), textcoords='offset points',
                      ha='center', va='bottom')
    axis.axhline(1, color='black', linewidth=0.6, linestyle=':')
    axis.set_xticks(range(len(rows)), [style.label(row['method']) for row in rows], rotation=30, ha='right',
                    rotation_mode='anchor')
    axis.grid(axis='x', visible=False)
    first = rows[0]
    parts = [', quick profile'] * (first['profile'] == 'quick')
    parts += [', scaled from {updates_timed} updates'.format(**first)] * (first['updates_timed'] != 100)
    axis.set_title('{dataset} {size}x{size}, {model}{}\nbatch {batchsize}, n_dis {n_dis}{}\n{device}, {engine}'.format(
        *(parts + ['', ''])[:2], **first), fontsize=8)
