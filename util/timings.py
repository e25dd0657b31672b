"""``results/timing.csv``: how long generator updates take by method, one row a method of each measurement."""
import csv
import os

from util import rundir
from util.files import UserError, atomic_write

PATH = os.path.join(os.path.dirname(rundir.RUNS), 'timing.csv')
# What was measured; a newer measurement of the same replaces the rows of the older one
KEY = ('dataset', 'model', 'setting', 'profile', 'device', 'engine')
# seconds_per_100: of 100 generator updates with all their discriminator updates, the fastest turn, scaled from
# updates_timed; median_seconds_per_100: the median of the turns. ratio: seconds_per_100 divided by that of the method
# none; median_ratio: the median of the rounds' ratios.
_INTEGERS = ('size', 'batchsize', 'width', 'n_dis', 'updates_timed', 'rounds', 'threads')
_NUMBERS = ('seconds_per_100', 'median_seconds_per_100', 'ratio', 'median_ratio')
COLUMNS = (*KEY[:4], 'size', 'batchsize', 'width', 'n_dis', 'method', *_NUMBERS, 'updates_timed', 'rounds',
           *KEY[4:], 'threads', 'versions', 'commit', 'date')


def read_timings(path=PATH):
    """Read the rows (dicts by ``COLUMNS``); none where there is no file. Raises UserError when it is damaged."""
    if not os.path.exists(path):
        return []
    try:
        with open(path, newline='', encoding='utf-8') as f:
            reader = csv.DictReader(f, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError('expected the columns ' + ','.join(COLUMNS))
            return [_typed(row) for row in reader]
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise UserError('{} is not a table of times: {}; delete it and measure again ("make timing")'.format(
            path, error)) from error


def _typed(row):
    if None in row or None in row.values():
        raise ValueError('a row has too few or too many columns')
    return {k: int(v) if k in _INTEGERS else float(v) if k in _NUMBERS else v for k, v in row.items()}


def put_timings(rows, path=PATH):
    """Write the rows of a measurement in place of those of an older one of the same (``KEY``), and keep all others.

    Args:
        rows (list of dict): By ``COLUMNS``, with one and the same ``KEY``.
        path (str): The file.

    Raises:
        UserError: It is damaged or cannot be written.

    """
    def key(row):
        return tuple(str(row[column]) for column in KEY)
    kept = [row for row in read_timings(path) if key(row) != key(rows[0])]
    with atomic_write(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator='\n')
        writer.writeheader()
        for row in sorted([*kept, *rows], key=key):  # stable: methods stay as they were measured
            writer.writerow({k: '{:.6g}'.format(v) if isinstance(v, float) else v for k, v in row.items()})
