"""Score and Frechet distance by method and setting (paper, Figures 1 and 2)."""
import statistics

from matplotlib.lines import Line2D

from util.analysis import style
from util.analysis.runs import describe_group, finite
from util.analysis.table import NothingToDraw, Table
from util.report.published import read_published
from util.report.runs import rank_setting
from util.scorer import INCEPTION
from util.scorer import label as scorer_label

COLUMNS = ('method', 'setting', 'scorer', 'protocol', 'iteration', 'runs', 'score', 'score_std', 'frechet_distance',
           'frechet_distance_std', 'diverged', 'paper_score', 'paper_frechet_distance')
_FAMILIES = {'sndcgan': 'cnn'}  # models that the paper's numbers of another stand beside


@style.styled
def draw_scores(runs, skip):
    """Draw the last score and Frechet distance of each method at each setting; several seeds give their mean and
    standard deviation.

    Args:
        runs (list of Run): A group.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: A Table by ``COLUMNS`` and a Figure.

    Raises:
        NothingToDraw: No run has come to its end and was scored there.

    """
    scorer, last = last_scores(runs, skip)
    if not last:
        raise NothingToDraw('wants runs that have ended and were scored; "make methods" or "make grid" makes them')
    cells = {}
    for run, row in last:
        cells.setdefault((run.method, run.setting), []).append((row, run.diverged))
    published = _published(runs[0]) if scorer[0] == INCEPTION else {}
    rows = [_row(method, setting, found, published.get(method, {})) for (method, setting), found in cells.items()]
    return Table(COLUMNS, rows), _draw(runs, scorer[0], [dict(zip(COLUMNS, row, strict=True)) for row in rows])


def last_scores(runs, skip):
    """The last scores of runs that have ended, by the scorer, weights and protocol that most of them have.

    Args:
        runs (list of Run): Whose.
        skip (callable): Gets each run that is left out, and why.

    Returns:
        tuple: The scorer, its weights and the protocol, or ``None`` without any run; and a list of (Run, row of
        ``scores.csv``).

    """
    found = [(run, row) for run in runs for row in [_last_score(run, skip)] if row]
    kinds = [(row['scorer'], row['weights'], row['protocol']) for _, row in found]
    commonest = max(dict.fromkeys(kinds), key=kinds.count, default=None)
    chosen = []
    for (run, row), kind in zip(found, kinds, strict=True):
        if kind == commonest:
            chosen.append((run, row))
        else:
            skip(run, 'it was scored by {} {}, protocol {}'.format(*kind))
    return commonest, chosen


def score_name(scorer):
    """What a scorer's score is called."""
    return 'Inception Score' if scorer == INCEPTION else scorer_label(scorer)


def _last_score(run, skip):
    if not run.ended:
        skip(run, 'it has not finished')
        return None
    rows = [row for row in run.scores if row['iteration'] > 0]
    if not rows:
        skip(run, 'it has no scores')
        return None
    return max(rows, key=lambda row: row['iteration'])


def _published(run):
    """The paper's numbers for this data set and model: method -> entry. None for the quick profile's networks."""
    if run.about['profile'] == 'quick' or run.about['changed']:
        return {}
    model = _FAMILIES.get(run.about['model'], run.about['model'])
    entries = [row for row in read_published()[0] if row['origin'] == 'paper' and row['score'] is not None
               and row['dataset'] == run.about['dataset'] and row.get('model') == model and 'method' in row]
    return {row['method']: row for row in reversed(entries)}  # of several lengths the first, which is the shortest


def _row(method, setting, found, paper):
    def mean(key):  # and standard deviation over runs, with N - 1
        values = [row[key] for row in found if finite(row[key])]
        return (statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None)
    diverged = sum(bad for _, bad in found)
    found = [row for row, _ in found]
    return (method, setting, found[0]['scorer'], found[0]['protocol'], max(row['iteration'] for row in found),
            len(found), *mean('score_mean'), *mean('frechet_distance'), diverged, paper.get('score'),
            paper.get('frechet_distance'))


def _draw(runs, scorer, rows):
    settings = sorted({row['setting'] for row in rows}, key=rank_setting)
    methods = list(dict.fromkeys(row['method'] for row in rows))
    title = 'Scores of the last generators: ' + describe_group(runs)
    if any(row['runs'] > 1 for row in rows):
        title += '\nmean over seeds, whiskers: standard deviation'
    figure, axes = style.make_figure(title, 2, width=min(max(7, 2 + 0.2 * len(rows)), 11), height=5, sharex=True)
    quantities = (('score', score_name(scorer)),
                  ('frechet_distance', 'FID' if scorer == INCEPTION else 'Frechet distance'))
    for axis, (key, text) in zip(axes[:, 0], quantities, strict=True):
        _bars(axis, key, rows, methods, settings)
        axis.set_ylabel('{}\n({} is better)'.format(text, 'higher' if key == 'score' else 'lower'))
        axis.grid(axis='x', visible=False)
    style.log_scale(axes[1, 0])
    distances = [row['frechet_distance'] for row in rows if row['frechet_distance']]
    if distances:  # bars need a foot, and 0 is not on this axis
        axes[1, 0].set_ylim(bottom=min(distances) / 2)
    if len(settings) > 1:
        axes[1, 0].set_xticks(range(len(settings)), settings)
        axes[1, 0].set_xlabel('setting')
    else:  # methods stand below their bars
        axes[1, 0].set_xticks(range(len(methods)), map(style.label, methods), rotation=40, ha='right',
                              rotation_mode='anchor')
        axes[1, 0].set_xlabel('method, setting {}'.format(settings[0]))
        middle, half = (len(methods) - 1) / 2, max(len(methods), 4) / 2 + 0.2
        axes[1, 0].set_xlim(middle - half, middle + half)
    paper = [Line2D([], [], color='black', linewidth=1.5, label="paper's Table 2\n(its best setting)")] * any(
        row['paper_score'] is not None for row in rows)
    handles = axes[0, 0].get_legend_handles_labels()[0] if len(settings) > 1 else []
    if handles or paper:
        style.legend(figure, handles + paper)
    return figure


def _bars(axis, key, rows, methods, settings):
    many = len(settings) > 1
    width = 0.85 / len(methods) if many else 0.8
    for row in rows:
        if row[key] is None:
            continue
        i = methods.index(row['method'])
        x = settings.index(row['setting']) + (i - (len(methods) - 1) / 2) * width if many else i
        axis.bar(x, row[key], width, **style.bar(row['method']))
        if row[key + '_std']:
            axis.errorbar(x, row[key], row[key + '_std'], color='black', linewidth=0.8, capsize=2)
        if row['diverged']:
            axis.annotate('div.', (x, row[key]), ha='center', va='bottom', fontsize=6)
        paper = row['paper_' + key]
        if paper is not None:
            axis.hlines(paper, x - width / 2, x + width / 2, color='black', linewidth=1.5)
