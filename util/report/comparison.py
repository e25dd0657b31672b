"""The paper's tables with ours beside them: which run counts, and which of several stands there."""
import math
from typing import NamedTuple

from util.report.runs import rank_method, read_methods
from util.scorer import INCEPTION

# Models that stand beside the paper's rows of another model: the authors' code has other widths than the paper's
# standard CNN. Conditional networks are of no family: they see the classes, which the others do not.
_FAMILIES = {'sndcgan': 'cnn'}
WITHOUT_A_ROW = 'Without a row above'


class Line(NamedTuple):
    """A line of such a table.

    Attributes:
        group (str): The heading that it stands under; may be empty.
        label (str): What the line is called.
        variables (str): What a run needs to stand here, such as ``'METHOD=sn MODEL=cnn'``; empty where none does.
        published (dict or None): The paper's numbers.
        run (dict or None): Ours, a row of :func:`util.report.runs.read_run`.
        n_runs (int): How many runs that one was chosen from.

    """

    group: str
    label: str
    variables: str
    published: dict = None
    run: dict = None
    n_runs: int = 0


def compare_with_paper(rows):
    """Put runs beside the paper's numbers.

    Args:
        rows (list of dict): Published numbers and runs.

    Returns:
        dict: Data set -> list of Line: the paper's in its order, then methods that it does not have.

    """
    published = sorted((row for row in rows if row['origin'] == 'paper'), key=lambda row: row['order'])
    tables = {}
    for dataset in dict.fromkeys(row['dataset'] for row in published):
        entries = [row for row in published if row['dataset'] == dataset]
        protocols = {entry['protocol'] for entry in entries if 'protocol' in entry}
        tables[dataset] = _compare(entries, [row for row in rows if row['dataset'] == dataset
                                             and _counts(row, protocols)])
    return tables


def _counts(row, protocols):
    """Whether a row may stand beside the paper's: a run as ``configs/`` has it, with a score of the paper's kind, or
    with none because it diverged before the first.
    """
    if row['origin'] != 'run' or row['profile'] == 'quick' or row['changed']:
        return False
    if row['score'] is None:
        return True
    return row['scorer'] == INCEPTION and (row['protocol'] in protocols or not protocols)


def _compare(entries, runs):
    beside = {entry['order']: [] for entry in entries}
    others = {}
    for run in runs:
        entry = _find_entry(entries, run)
        if entry is None:
            others.setdefault(_key(run), []).append(run)
        else:
            beside[entry['order']].append(run)
    lines = [Line(entry.get('group', ''), entry['label'], _variables(entry), entry,
                  *_choose_best(beside[entry['order']])) for entry in entries]
    methods = read_methods()
    for model, method in sorted(others, key=lambda key: (key[0], rank_method(key[1], methods))):
        best, n_runs = _choose_best(others[model, method])
        lines.append(Line(WITHOUT_A_ROW, method, _variables(best), None, best, n_runs))
    return lines


def _variables(row):
    return 'METHOD={method} MODEL={model}'.format(**row) if 'method' in row else ''


def _key(row):
    """What a run and a published row must have in common, besides the data set."""
    model = row.get('model', '')
    return _FAMILIES.get(model, model), row.get('method', '')


def _find_entry(entries, run):
    """The published row that a run stands beside, or None: of those that differ by the number of iterations only, the
    longest that the run's score has reached, else the shortest.
    """
    same = sorted((entry for entry in entries if 'method' in entry and _key(entry) == _key(run)),
                  key=lambda entry: entry.get('iterations', 0))
    at = run.get('scored_at', run['iterations'])
    reached = [entry for entry in same if entry.get('iterations', 0) <= at]
    return (reached[-1:] or same[:1] or [None])[0]


def _choose_best(runs):
    """The row with the highest last score, and how many runs there are: one run may have been scored with several
    weights.
    """
    best = max(runs, key=lambda run: _number(run['score']), default=None)
    return best, len({run['folder'] for run in runs})


def _number(score):
    return -math.inf if score is None or math.isnan(score) else score
