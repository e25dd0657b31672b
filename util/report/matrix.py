"""Methods by settings, as in the paper's Figures 1 and 2, but as tables: one a group of runs that can be compared."""
from typing import NamedTuple

from util.report.outcome import COLLAPSED_WORD, LEARNED_NOTHING_WORD
from util.report.runs import ROWS_GONE, choose_table, rank_method, rank_setting, read_methods
from util.scorer import INCEPTION, label

_MARKS = {COLLAPSED_WORD: 'c', LEARNED_NOTHING_WORD: '-'}
_DIVERGED = 'x'
# What the runs of a table have in common; `length` tells apart runs whose number of iterations a flag changed
_OF_RUN = ('profile', 'dataset', 'model', 'length', 'changed', 'data', 'original')
_OF_SCORE = ('scorer', 'weights', 'protocol')
NOTE = (
    'Score / Frechet distance of the last generator. (c): collapsed; (-): learned nothing; (x): diverged, and the '
    'numbers are those of the last generator that was scored before. Several runs of a method and setting, such as '
    'other seeds: the mean of those that have a score, with the number of runs. Left out: runs that have not finished, '
    'and those whose last generator was not scored that way.')


class Matrix(NamedTuple):
    """One such table: its caption, and lines of cells of which the first is the heading."""

    caption: str
    lines: list


def make_matrices(rows):
    """Make a Matrix of each group of runs that has at least two methods.

    Args:
        rows (list of dict): Runs, and published numbers, which are left out.

    Returns:
        list of Matrix: Inception Scores first, quick runs last.

    """
    runs = [row for row in rows if row['origin'] == 'run' and row['changed'] != ROWS_GONE and _is_final(row)]
    groups = {}
    for run in runs:
        if run['score'] is not None:
            groups.setdefault(_values(run, _OF_RUN + _OF_SCORE), []).append(run)
    for run in runs:  # diverged before the first score: it belongs to all groups of such runs, whatever scored them
        if run['score'] is None:
            for key in groups:
                if key[:len(_OF_RUN)] == _values(run, _OF_RUN):
                    groups[key].append(run)
    # Sorting keeps the order of the groups in a table
    chosen = sorted(groups.values(), key=lambda group: ('inception', 'other', 'quick').index(choose_table(group[0])))
    return [Matrix(_caption(group), _lines(group)) for group in chosen if len({run['method'] for run in group}) > 1]


def _is_final(row):
    """Whether nothing will come after a row's score."""
    return row['diverged_at'] is not None or row['finished'] and row['scored_at'] == row['planned']


def _values(row, keys):
    return tuple(row[key] for key in keys)


def _caption(group):
    first = group[0]  # one with a score
    counts = sorted({run['planned'] for run in group})
    iterations = ' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    parts = ['{dataset}, {model}'.format(**first), label(first['scorer']),
             '{scorer} {weights}, protocol {protocol}'.format(**first), '{} iterations'.format(iterations)]
    if first['profile'] == 'quick':
        parts.append("quick profile, not the paper's experiment")
    if not first['original']:
        parts.append('data NOT verified as the original archive')
    if first['changed']:
        parts.append('with ' + first['changed'])
    return '; '.join(parts)


def _lines(group):
    settings = sorted({run['setting'] for run in group}, key=rank_setting)
    methods = read_methods()
    heading = 'Inception Score / FID' if choose_table(group[0]) == INCEPTION else 'score / Frechet distance'
    lines = [['{}: method'.format(heading), *settings]]
    for method in sorted({run['method'] for run in group}, key=lambda name: rank_method(name, methods)):
        lines.append([method, *(_cell([run for run in group if (run['method'], run['setting']) == (method, setting)])
                                for setting in settings)])
    return lines


def _cell(runs):
    scored = [run for run in runs if run['score'] is not None]
    numbers = ''
    if scored:
        score, distance = (sum(run[key] for run in scored) / len(scored) for key in ('score', 'frechet_distance'))
        numbers = '{:.2f} / {:.1f}'.format(score, distance)
    marks = [_DIVERGED if run['diverged_at'] is not None else _MARKS.get(run['outcome'], '') for run in runs]
    said = marks[0] if len(runs) == 1 else _count(runs, marks)
    return ' '.join(filter(None, (numbers, said and '({})'.format(said))))


def _count(runs, marks):
    """``'3 runs: 1 c, 1 x'``; nothing where there are none."""
    counts = ', '.join('{} {}'.format(marks.count(mark), mark) for mark in dict.fromkeys(marks) if mark)
    return ': '.join(filter(None, ('{} runs'.format(len(runs)), counts))) if runs else ''
