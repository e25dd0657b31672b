"""The score against the number of discriminator updates a generator update (paper, Figure 11)."""
import statistics

from util.analysis import style
from util.analysis.runs import describe_family
from util.analysis.score import last_scores, score_name
from util.analysis.table import NothingToDraw, Table

COLUMNS = ('method', 'setting', 'n_dis', 'scorer', 'protocol', 'iteration', 'runs', 'score', 'score_std', 'score_min',
           'score_max', 'diverged')
WANTS = 'wants runs of one setting and length with two n_dis or more; "make n-dis" makes them'


@style.styled
def draw_n_dis(runs, skip):
    """Draw the last score against n_dis, one line a method: the mean over seeds, and their standard deviation as bars.

    Args:
        runs (list of Run): A family, of :func:`util.analysis.runs.find_families`.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: A Table by ``COLUMNS``, ``score_std`` with N - 1, empty for a single run; and a Figure.

    Raises:
        NothingToDraw: No run has come to its end and was scored there.

    """
    scorer, found = last_scores(runs, skip)
    if not found:
        raise NothingToDraw(WANTS)
    cells = {}
    for run, row in found:
        cells.setdefault((run.method, run.config.setting.n_dis), []).append((run, row))
    rows = [_row(method, n_dis, cells[method, n_dis]) for method in dict.fromkeys(run.method for run in runs)
            for n_dis in sorted(n for m, n in cells if m == method)]
    return Table(COLUMNS, rows), _draw(runs, scorer[0], rows)


def _row(method, n_dis, found):
    scores = [row['score_mean'] for _, row in found]
    run, row = found[0]
    return (method, run.setting, n_dis, row['scorer'], row['protocol'], row['iteration'], len(found),
            statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None, min(scores), max(scores),
            sum(run.diverged for run, _ in found))


def _draw(runs, scorer, rows):
    seeds = sorted({run.config.seed for run in runs})
    title = 'Score by n_dis, setting {}: {}\n{}'.format(
        runs[0].setting, describe_family(runs), 'one seed, {}'.format(*seeds) if len(seeds) == 1 else
        'mean and standard deviation over seeds {}'.format(', '.join(map(str, seeds))))
    figure, axes = style.make_figure(title, width=6.5, height=3.2)
    axis, methods = axes[0, 0], list(dict.fromkeys(row[0] for row in rows))
    for method in methods:
        points = [dict(zip(COLUMNS, row, strict=True)) for row in rows if row[0] == method]
        axis.plot([p['n_dis'] for p in points], [p['score'] for p in points], **style.line(method))
        spread = [p for p in points if p['score_std'] is not None]
        axis.errorbar([p['n_dis'] for p in spread], [p['score'] for p in spread], [p['score_std'] for p in spread],
                      linestyle='', capsize=3, color=style.color(method))
        for p in points:
            if p['diverged']:
                axis.annotate('{} div.'.format(p['diverged']), (p['n_dis'], p['score']), (0, -4),
                              textcoords='offset points', ha='center', va='top', fontsize=6)
    axis.set_xscale('log')
    values = sorted({row[2] for row in rows})
    axis.set_xticks(values, map(str, values))
    axis.set_xticks([], minor=True)
    axis.set_xlabel('n_dis, discriminator updates a generator update')
    axis.set_ylabel('{}\n(higher is better)'.format(score_name(scorer)))
    style.legend(figure, style.method_handles(methods))
    return figure

