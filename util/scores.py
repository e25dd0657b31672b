"""``scores.csv`` of a run: one row an iteration, scorer (with its weights) and protocol."""
import csv
import os

from util.files import UserError, atomic_write

COLUMNS = (
    'iteration', 'scorer', 'weights', 'protocol', 'score_mean', 'score_std', 'frechet_distance', 'kernel_distance',
    'kernel_distance_std', 'samples', 'splits', 'distance_samples', 'kernel_subsets', 'reference')
_KEY = ('scorer', 'weights', 'protocol', 'iteration')
_INTEGERS = ('iteration', 'samples', 'splits', 'distance_samples')
_NUMBERS = ('score_mean', 'score_std', 'frechet_distance', 'kernel_distance', 'kernel_distance_std')


class ScoreTable:
    """The rows of a ``scores.csv``, rewritten whole (atomically) at each change.

    Args:
        path (str): The file; read if it exists.

    Raises:
        UserError: The file exists and is not such a table.

    """

    def __init__(self, path):
        self.path = path
        self.rows = []
        if os.path.exists(path):
            try:
                with open(path, newline='', encoding='utf-8') as f:
                    if not f.read().endswith('\n'):
                        raise ValueError('it is cut off')
                    f.seek(0)
                    reader = csv.DictReader(f, strict=True)
                    if tuple(reader.fieldnames or ()) != COLUMNS:
                        raise ValueError('expected the columns ' + ','.join(COLUMNS))
                    self.rows = [_typed(row) for row in reader]
            except (OSError, TypeError, ValueError, csv.Error) as error:
                raise UserError('{} is not a table of scores: {}; delete it and score the run again'.format(
                    path, error)) from error

    def put(self, row):
        """Write a row (dict by ``COLUMNS``) in place of one of the same iteration, scorer, weights, protocol."""
        kept = [r for r in self.rows if _key(r) != _key(row)]
        self.rows = sorted([*kept, row], key=_key)
        self.write()

    def drop_after(self, iteration):
        """Forget rows of later iterations, which a resumed run will make again."""
        kept = [r for r in self.rows if r['iteration'] <= iteration]
        if len(kept) != len(self.rows):
            self.rows = kept
            self.write()

    def write(self):
        with atomic_write(self.path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as f:
            writer = csv.DictWriter(f, COLUMNS, lineterminator='\n')
            writer.writeheader()
            writer.writerows(self.rows)


def _key(row):
    return tuple(row[column] for column in _KEY)


def _typed(row):
    if None in row or None in row.values():
        raise ValueError('a row has too few or too many columns')
    return {k: int(v) if k in _INTEGERS else float(v) if k in _NUMBERS else str(v) for k, v in row.items()}
