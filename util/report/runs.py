"""What the tables read of a run: its Config, its environment, its scores, and whether it diverged.

A run becomes rows (dicts), one a scorer, its weights and protocol; the published numbers are rows of the same kind.
"""
import csv
import json
import math
import os

import yaml

from util import cifar10, config, rundir, scores, stl10
from util.environment import read_environment
from util.files import UserError
from util.report.outcome import describe_outcome
from util.scorer import INCEPTION

SETTING = ('alpha', 'beta1', 'beta2', 'n_dis', 'n_gen_ratio', 'decay_start')
# Keys of the profile that do not change results, or that the tables show anyway
_SHOWN = ('iterations', 'snapshot_interval', 'evaluation_interval', 'display_interval')
ROWS_GONE = 'configs/ has its rows no more'
_NO_SCORE = {'scorer': '', 'weights': '', 'protocol': '', 'score': None}


def check_places(places):
    """Raise UserError unless each place to look for runs is a folder; the default one may not be there yet."""
    missing = [folder for folder in places if folder != rundir.RUNS and not os.path.isdir(folder)]
    if missing:
        raise UserError('RUNS: {} is not a directory'.format(missing[0]))


def find_runs(paths):
    """The directories of runs, scored or not, at and below ``paths``, sorted, each once."""
    return sorted({os.path.realpath(folder) for path in paths for folder, _, files in os.walk(path)
                   if 'scores.csv' in files or 'config.yml' in files})


def read_run(path):
    """Read a run: one row (a dict) a scorer, its weights and protocol, with its last and its best score.

    A run that diverged before it was scored is one row without a score.

    Raises:
        UserError: A file of the run is missing or damaged, or there are no scores and it did not diverge.

    """
    directory = rundir.RunDirectory(path)
    settings = directory.load_config()
    try:
        table = scores.ScoreTable(directory.file('scores.csv')).rows
        row = {**describe_config(settings), **_describe_environment(settings, read_environment(directory))}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError('a file of the run is missing or damaged: {!r}'.format(error)) from error
    done, planned = os.path.exists(directory.done), settings.profile.iterations
    # A run that went on from a snapshot by hand may have come to its end after all
    diverged_at = None if done else _read_diverged(directory.diverged)
    if not table and diverged_at is None:
        raise UserError('it has no scores')
    reached = planned if done else _how_far(directory, table) if diverged_at is None else diverged_at
    row.update(origin='run', label=os.path.basename(path), folder=path, finished=done, planned=planned,
               iterations=reached)
    groups = {}
    for score in table:
        groups.setdefault((score['scorer'], score['weights'], score['protocol']), []).append(score)
    if not groups:
        return [{**row, **_NO_SCORE, **describe_outcome([], done, diverged_at)}]
    return [{**row, **_last_and_best(groups[key]), **describe_outcome(groups[key], done, diverged_at)}
            for key in sorted(groups)]


def _how_far(directory, table):
    return max(directory.iterations('gen') + directory.iterations('snapshot') + [score['iteration'] for score in table])


def _read_diverged(path):
    """The iteration at which a run diverged; ``None`` when it did not."""
    try:
        with open(path, encoding='utf-8') as f:
            iteration = json.load(f)['iteration']
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError('{}: expected JSON with the key iteration: {!r}'.format(path, error)) from error
    if type(iteration) is not int or iteration < 0:
        raise UserError('{}: iteration must be an integer of at least 0, not {!r}'.format(path, iteration))
    return iteration


def describe_config(settings):
    """The names of a Config's rows, its setting's numbers, its seed, and what flags changed (a dict)."""
    names = {section: getattr(settings, section).name for section in config.SECTIONS}
    setting = {key: settings.setting.get(key) for key in SETTING}
    return {**names, **setting, 'seed': settings.seed, **_compare_with_rows(settings, names)}


def _compare_with_rows(settings, names):
    """What flags changed in the rows that the run is named after.

    Returns:
        dict: ``changed``, such as ``'model.width=16'``; ``length``: ``''`` when the number of iterations is the
        profile's, else that number.

    """
    try:
        plain = config.resolve(**names).to_dict()
    except UserError:
        return {'changed': ROWS_GONE, 'length': settings.profile.iterations}
    here = settings.to_dict()
    changed = [(section, key) for section in names for key, value in here[section].items()
               if section != 'protocol' and key not in _SHOWN and plain[section].get(key) != value]
    planned = here['profile']['iterations']
    return {'changed': ' '.join('{}.{}={}'.format(section, key, here[section][key]) for section, key in changed),
            'length': '' if planned == plain['profile']['iterations'] else planned}


def _describe_environment(settings, environment):
    data, sessions = environment['data'], environment['sessions']
    # A run may have been resumed elsewhere: each device and commit once, in order
    device, commit = (' then '.join(dict.fromkeys(s[key] or 'unknown' for s in sessions))
                      for key in ('device', 'commit'))
    published = {'cifar10': cifar10.ORIGINAL.md5, 'stl10': stl10.ORIGINAL.md5}.get(settings.dataset['source'])
    original = published in (None, data['fingerprint'])
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


def choose_table(row):
    """Which table a row belongs to: ``'paper'``, ``'inception'``, ``'other'`` or ``'quick'``."""
    if row['origin'] == 'paper':
        return 'paper'
    if row.get('profile') == 'quick':
        return 'quick'
    return 'inception' if row['scorer'] == INCEPTION else 'other'


def sort_rows(rows):
    """Sort by data set; in it the paper's numbers first, in its order, then others' and runs by model, setting
    (``default`` first), and method in the order of ``configs/methods.yml``.
    """
    methods = read_methods()

    def key(row):
        return (row['dataset'], ('paper', 'own', 'run').index(row['origin']), row.get('order', 0), row.get('model', ''),
                rank_setting(row['setting']), rank_method(row.get('method', ''), methods), row.get('seed', 0),
                row['label'], row['scorer'], row.get('weights', ''), row.get('protocol', ''))
    return sorted(rows, key=key)


def rank_setting(name):
    """To sort by: ``default`` first."""
    return name != 'default', name


def rank_method(name, methods):
    """To sort by: in the order of ``methods``; at the end what is not there."""
    return methods.index(name) if name in methods else len(methods), name


def read_methods():
    """The names of the rows of ``configs/methods.yml``, in its order.

    Raises:
        UserError: It cannot be read or is damaged.

    """
    path = os.path.join(config.CONFIGS, config.SECTIONS['method'] + '.yml')
    try:
        with open(path, encoding='utf-8') as f:
            return list(yaml.safe_load(f))
    except (OSError, ValueError, yaml.YAMLError, TypeError) as error:
        raise UserError('{}: expected one row a method: {!r}'.format(path, str(error))) from error
