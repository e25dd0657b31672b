"""The table of all scored runs beside the paper's numbers: ``make table``.

    python -m util.report [RUNS ...] [--out results]

Writes ``table.md`` and ``table.csv``. Only what the Inception network gave is called an Inception Score, and only that
stands in a column with the paper's numbers; runs of the quick profile have a table of their own.
"""
import csv
import io
import math
import os
import sys
import textwrap

import yaml

from util import cifar10, config, rundir, scores
from util.cli import Parser, path, run_command
from util.environment import read_environment
from util.files import UserError, atomic_write
from util.scorer import INCEPTION, label

PUBLISHED = os.path.join(config.CONFIGS, 'published.yml')
_REQUIRED, _NUMBERS = ('label', 'dataset', 'scorer', 'score'), ('score', 'score_std', 'frechet_distance')
_OPTIONAL = ('model', 'method', 'settings', 'iterations', 'score_std', 'frechet_distance', 'samples', 'protocol',
             'reference', 'source')
_SETTING = ('alpha', 'beta1', 'beta2', 'n_dis')
# Keys of the profile that do not change results, or that the table shows anyway
_SHOWN = ('iterations', 'snapshot_interval', 'evaluation_interval', 'display_interval')
_NAMES = ('dataset', 'model', 'method', 'setting', *_SETTING, 'changed', 'profile', 'seed')
CSV_COLUMNS = (
    'table', 'origin', 'label', *_NAMES, 'iterations', 'planned', 'finished', 'inception_score', 'inception_score_std',
    'fid', 'kid', 'kid_std', 'best_inception_score', 'other_score', 'other_score_std', 'other_frechet_distance',
    'other_kernel_distance', 'other_kernel_distance_std', 'best_other_score', 'scored_at', 'best_at', 'scorer',
    'weights', 'protocol', 'samples', 'distance_samples', 'kernel_subsets', 'reference', 'data', 'device', 'commit',
    'source')


def find_runs(paths):
    """The directories of runs, scored or not, at and below ``paths``, sorted, each once."""
    return sorted({os.path.realpath(folder) for path in paths for folder, _, files in os.walk(path)
                   if 'scores.csv' in files or 'config.yml' in files})


def read_run(path):
    """Read a run: one row (a dict) a scorer, its weights and protocol, with its last and its best score.

    Raises:
        UserError: A file of the run is missing or damaged, or there are no scores.

    """
    directory = rundir.RunDirectory(path)
    settings = directory.load_config()
    try:
        table = scores.ScoreTable(directory.file('scores.csv')).rows
        row = {**_describe_config(settings), **_describe_environment(settings, read_environment(directory))}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError('a file of the run is missing or damaged: {!r}'.format(error)) from error
    if not table:
        raise UserError('it has no scores')
    done, planned = os.path.exists(directory.done), settings.profile.iterations
    seen = directory.iterations('gen') + directory.iterations('snapshot') + [score['iteration'] for score in table]
    reached = planned if done else max(seen)
    row.update(origin='run', label=os.path.basename(path), finished=done, planned=planned, iterations=reached)
    groups = {}
    for score in table:
        groups.setdefault((score['scorer'], score['weights'], score['protocol']), []).append(score)
    return [{**row, **_last_and_best(groups[key])} for key in sorted(groups)]


def _describe_config(settings):
    names = {section: getattr(settings, section).name for section in config.SECTIONS}
    setting = {key: settings.setting[key] for key in _SETTING}
    return {**names, **setting, 'seed': settings.seed, 'changed': _changes(settings, names)}


def _changes(settings, names):
    """What flags changed in the rows that the run is named after, such as ``'model.width=16'``."""
    try:
        plain = config.resolve(**names).to_dict()
    except UserError:
        return 'configs/ has its rows no more'
    here = settings.to_dict()
    changed = [(section, key) for section in names for key, value in here[section].items()
               if section != 'protocol' and key not in _SHOWN and plain[section].get(key) != value]
    return ' '.join('{}.{}={}'.format(section, key, here[section][key]) for section, key in changed)


def _describe_environment(settings, environment):
    data, sessions = environment['data'], environment['sessions']
    # A run may have been resumed elsewhere: each device and commit once, in order
    device, commit = (' then '.join(dict.fromkeys(s[key] or 'unknown' for s in sessions))
                      for key in ('device', 'commit'))
    original = settings.dataset['source'] != 'cifar10' or data['fingerprint'] == cifar10.MD5
    return {'data': data['source'], 'original': original, 'device': device, 'commit': commit}


def _last_and_best(table):
    last = max(table, key=lambda s: s['iteration'])
    best = max(table, key=lambda s: -math.inf if math.isnan(s['score_mean']) else s['score_mean'])
    same = ('scorer', 'weights', 'protocol', 'frechet_distance', 'kernel_distance', 'kernel_distance_std',
            'distance_samples', 'kernel_subsets', 'reference')
    return {**{key: last[key] for key in same}, 'score': last['score_mean'],
            'score_std': last['score_std'] if last['splits'] > 1 else None,  # one part has no spread
            'scored_at': last['iteration'], 'best': best['score_mean'], 'best_at': best['iteration'],
            'samples': '{} / {}'.format(last['samples'], last['splits'])}


def read_published(path=PUBLISHED):
    """Read ``configs/published.yml``: rows like those of runs, and lines on the paper's numbers.

    Raises:
        UserError: It is damaged, or an entry lacks a key or has an unknown one.

    """
    try:
        with open(path, encoding='utf-8') as f:
            tree = yaml.safe_load(f)
        about = [' '.join(str(tree[key]).split()) for key in ('source', 'protocol')]
        entries = [(origin, dict(entry)) for origin in ('paper', 'own') for entry in tree[origin] or ()]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError('{}: expected source, protocol, paper, own: {!r}'.format(path, str(error))) from error
    return [_published_row(path, origin, entry) for origin, entry in entries], about


def _published_row(path, origin, entry):
    required = _REQUIRED + (('settings', 'source') if origin == 'own' else ())
    wrong = ['{} is missing'.format(key) for key in required if entry.get(key) is None]
    wrong += ['{} is unknown'.format(key) for key in entry if key not in _REQUIRED + _OPTIONAL]
    if wrong:
        raise UserError('{}: {}: {} in {}'.format(path, origin, wrong[0], entry))
    for key in _NUMBERS:
        if type(entry.get(key, 0)) not in (int, float):
            raise UserError('{}: {}: {} must be a number, not {!r}'.format(path, origin, key, entry[key]))
    entry = {key: value if key in _NUMBERS else str(value) for key, value in entry.items()}
    return {**entry, 'setting': entry.get('settings', ''), 'origin': origin, 'original': True}


def choose_table(row):
    """Which table a row belongs to: ``'inception'``, ``'other'`` or ``'quick'``."""
    if row.get('profile') == 'quick':
        return 'quick'
    return 'inception' if row['scorer'] == INCEPTION else 'other'


def sort_key(row):
    """By data set; in it the published numbers first, then model, method, setting (``default`` first), seed."""
    return (row['dataset'], ('paper', 'own', 'run').index(row['origin']), row.get('model', ''), row.get('method', ''),
            row['setting'] != 'default', row['setting'], row.get('seed', 0), row['label'], row['scorer'],
            row.get('protocol', ''))


def render_markdown(rows, about):
    """Turn rows, sorted, into Markdown that can be read raw, too; ``about`` are lines on the paper's numbers."""
    tables = {name: [row for row in rows if choose_table(row) == name] for name in ('inception', 'other', 'quick')}
    data = list(dict.fromkeys(row['data'] for row in rows if 'data' in row))
    parts = ['# Scores of the runs', INTRODUCTION]
    notes = ['Published: ' + line for line in about]
    if not any(row['origin'] == 'run' for row in tables['inception']):
        notes.insert(0, 'No run here has been scored with the Inception network.')
    names = ', '.join(sorted({row['dataset'] for row in tables['quick']}))
    titles = {'other': 'Scores of other networks',
              'quick': "Quick runs: {}, a quarter of the width - not the paper's experiment".format(names)}
    parts += _section('Inception Scores', tables['inception'], ('Inception Score', 'FID', 'KID x 1000'), data, notes)
    for name in (name for name in titles if tables[name]):
        parts += _section(titles[name], tables[name], ('score', 'Frechet distance', 'kernel distance x 1000'), data,
                          [NOT_INCEPTION])
    if data:
        parts += ['## Data', '\n'.join('{}. {}'.format(i, source) for i, source in enumerate(data, 1))]
    return '\n\n'.join(parts) + '\n'


INTRODUCTION = '''\
Made by `make table` from results/runs/ and configs/published.yml. A score is that of the run's last scored generator,
in brackets its iteration; `best` is the highest of the run. `protocol` is a row of configs/protocols.yml (with * where
flags changed it). `samples`: generated pictures / parts that they were split into for the score, of which +- is the
standard deviation. `of the distances`: generated pictures that these are taken of, and subsets of the kernel distance
(KID). `changed`: what flags changed in the rows that name the run.'''
NOT_INCEPTION = (
    '`scorer` is the network that scores. What is not Inception gives no Inception Score: the same formulas on another '
    "network's answers, which compare these runs with each other and with nothing published.")


def _section(title, rows, headings, data, notes):
    notes = notes + ['Own number "{label}": {source}'.format(**row) for row in rows if row['origin'] == 'own']
    cells = [_cells(row, headings, data) for row in rows]
    columns = [c for c in cells[0] if any(line[c] for line in cells)] if cells else []
    lines = [columns, *([line[c] for c in columns] for line in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ['-' * width for width in widths])
    table = ['| ' + ' | '.join(map(str.ljust, line, widths)) + ' |' for line in lines] if cells else ['None.']
    wrap = textwrap.TextWrapper(120, initial_indent='- ', subsequent_indent='  ')
    return ['## ' + title, '\n'.join(table), '\n'.join(map(wrap.fill, notes))]


def _cells(row, headings, data):
    run = row['label'] if row['origin'] == 'run' else '{origin}: {label}'.format(**row)
    iterations = '{iterations} of {planned}'.format(**row) if 'planned' in row else row.get('iterations')
    spread = '' if row.get('score_std') is None else ' +- {:.2f}'.format(row['score_std'])
    at = ' ({})'.format(row['scored_at']) if 'scored_at' in row else ''
    cells = {
        'run': run, **{key: row.get(key) for key in _NAMES}, 'iterations': iterations,
        'state': None if 'planned' not in row else 'finished' if row['finished'] else 'NOT FINISHED',
        headings[0]: '{:.2f}'.format(row['score']) + spread + at,
        headings[1]: '{frechet_distance:.1f}'.format(**row) if row.get('frechet_distance') is not None else None,
        headings[2]: _kernel(row),
        'best': '{best:.2f} ({best_at})'.format(**row) if 'best' in row else None,
        'scorer': '{} ({})'.format(' '.join(filter(None, (row['scorer'], row.get('weights')))), label(row['scorer'])),
        'protocol': row.get('protocol'), 'samples': row.get('samples'),
        'of the distances': '{distance_samples}, {kernel_subsets}'.format(**row) if 'distance_samples' in row else None,
        'compared with': row.get('reference'),
        'data': _data(row, data.index(row['data']) + 1) if 'data' in row else None,
        'device': row.get('device'), 'commit': row.get('commit')}
    return {key: '' if cell is None else ' '.join(str(cell).split()).replace('|', r'\|') for key, cell in cells.items()}


def _kernel(row):
    if row.get('kernel_distance') is None:
        return None
    return '{:.2f} +- {:.2f}'.format(1000 * row['kernel_distance'], 1000 * row['kernel_distance_std'])


def _data(row, name):
    return '{}{}'.format(name, '' if row['original'] else ', NOT verified as the original archive')


def render_csv(rows):
    """Turn rows into CSV. Inception Scores and scores of other networks stand in different columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval='', extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    for row in rows:
        score, frechet, kernel = (('inception_score', 'fid', 'kid') if row['scorer'] == INCEPTION else
                                  ('other_score', 'other_frechet_distance', 'other_kernel_distance'))
        values = {score: row['score'], score + '_std': row.get('score_std'), 'best_' + score: row.get('best'),
                  frechet: row.get('frechet_distance'), kernel: row.get('kernel_distance'),
                  kernel + '_std': row.get('kernel_distance_std'), 'data': _data(row, row.get('data', ''))}
        writer.writerow({**row, **values, 'table': choose_table(row)})
    return text.getvalue()


def main(argv=None):
    parser = Parser(prog='python -m util.report', description='Make the table of all scored runs.')
    parser.add_argument('runs', nargs='*', type=path, default=[rundir.RUNS],
                        help='runs, or folders of runs (default: results/runs)')
    parser.add_argument('--out', '-o', type=path, default=os.path.dirname(rundir.RUNS),
                        help='folder for table.md and table.csv (default: results)')
    args = parser.parse_args(argv)
    missing = [folder for folder in args.runs if folder != rundir.RUNS and not os.path.isdir(folder)]
    if missing:
        raise UserError('RUNS: {} is not a directory'.format(missing[0]))
    rows, (published, about) = [], read_published()
    for folder in find_runs(args.runs):
        try:
            rows += read_run(folder)
        except UserError as error:
            print('skipped {}: {}'.format(os.path.relpath(folder), error), file=sys.stderr)
    if not rows:
        places = ', '.join(map(os.path.relpath, args.runs))
        raise UserError('no scored run in {}; "make normalize" makes one'.format(places))
    rows = sorted(rows + published, key=sort_key)
    markdown = render_markdown(rows, about)
    for name, text in (('table.md', markdown), ('table.csv', render_csv(rows))):
        with atomic_write(os.path.join(args.out, name)) as temporary, open(temporary, 'w', encoding='utf-8') as f:
            f.write(text)
    print(markdown, end='')


if __name__ == '__main__':
    sys.exit(run_command(main))
