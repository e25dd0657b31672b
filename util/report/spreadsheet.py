"""The rows of the tables as CSV, with what is needed to plot them."""
import csv
import io

from util.report.runs import SETTING, choose_table
from util.scorer import INCEPTION

COLUMNS = (
    'table', 'origin', 'group', 'label', 'dataset', 'model', 'method', 'setting', *SETTING, 'changed', 'profile',
    'seed', 'iterations', 'planned', 'finished', 'outcome', 'diverged_at', 'inception_score', 'inception_score_std',
    'fid', 'fid_std', 'kid', 'kid_std', 'best_inception_score', 'other_score', 'other_score_std',
    'other_frechet_distance', 'other_kernel_distance', 'other_kernel_distance_std', 'best_other_score', 'scored_at',
    'best_at', 'untrained_frechet_distance', 'lowest_frechet_distance', 'lowest_at', 'scorer', 'weights', 'protocol',
    'samples', 'distance_samples', 'kernel_subsets', 'reference', 'data', 'device', 'commit', 'source')


def render_csv(rows):
    """Turn rows into CSV. Inception Scores and scores of other networks stand in different columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval='', extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    for row in rows:
        score, frechet, kernel = (('inception_score', 'fid', 'kid') if row['scorer'] == INCEPTION else
                                  ('other_score', 'other_frechet_distance', 'other_kernel_distance'))
        values = {score: row['score'], score + '_std': row.get('score_std'), 'best_' + score: row.get('best'),
                  frechet: row.get('frechet_distance'), frechet + '_std': row.get('frechet_distance_std'),
                  kernel: row.get('kernel_distance'), kernel + '_std': row.get('kernel_distance_std'),
                  'data': describe_data(row, row.get('data', ''))}
        writer.writerow({**row, **values, 'table': choose_table(row)})
    return text.getvalue()


def describe_data(row, name):
    """The name of a row's data, and whether it is what the name promises."""
    return '{}{}'.format(name, '' if row['original'] else ', NOT verified as the original archive')
