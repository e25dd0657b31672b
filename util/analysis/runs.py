"""What the figures read of runs, and which runs may stand in one figure."""
import csv
import itertools
import json
import math
import os
import re
from typing import NamedTuple

from util import config, probe, scores, snapshot
from util.analysis import style
from util.environment import read_environment
from util.files import UserError
from util.npz import DamagedFile, read_npz
from util.report.runs import describe_config, find_runs, rank_method, rank_setting, read_methods
from util.rundir import RunDirectory
from util.trainer import build_networks

_DISCRIMINATOR = 'updater/model:dis/'
_N_DIS = 'setting.n_dis='


class Run(NamedTuple):
    """A run whose Config, environment and scores could be read.

    Attributes:
        name (str): The name of its directory.
        directory (RunDirectory): Where its files are.
        config (Config): Its own.
        about (dict): Its names and numbers, of :func:`util.report.runs.describe_config`.
        data (dict): What its environment says of its data.
        scores (list of dict): The rows of its ``scores.csv``.

    """

    name: str
    directory: RunDirectory
    config: config.Config
    about: dict
    data: dict
    scores: list

    @property
    def method(self):
        return self.config.method.name

    @property
    def setting(self):
        return self.config.setting.name

    @property
    def ended(self):
        """Whether nothing more will come: it has finished, or diverged."""
        return os.path.exists(self.directory.done) or self.diverged

    @property
    def diverged(self):
        """Whether a NaN ended it."""
        return os.path.exists(self.directory.diverged) and not os.path.exists(self.directory.done)


def read_runs(places, say):
    """Read all runs at and below ``places``, by method, setting and seed; one that cannot be read is skipped with a
    line.

    Raises:
        UserError: There is none that can be read.

    """
    runs = []
    for folder in find_runs(places):
        try:
            runs.append(_read_run(folder))
        except UserError as error:
            say('skipped {}: {}'.format(os.path.relpath(folder), error))
    if not runs:
        raise UserError('no run in {}; "make normalize" makes one'.format(', '.join(map(os.path.relpath, places))))
    methods = read_methods()
    return sorted(runs, key=lambda run: (rank_method(run.method, methods), rank_setting(run.setting),
                                         run.config.seed, run.name))


def _read_run(folder):
    directory = RunDirectory(folder)
    settings = directory.load_config()
    try:
        data = dict(read_environment(directory)['data'])
        table = scores.ScoreTable(directory.file('scores.csv')).rows
        return Run(os.path.basename(folder), directory, settings, describe_config(settings),
                   {key: str(data[key]) for key in ('source', 'fingerprint')}, table)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError('a file of the run is missing or damaged: {!r}'.format(error)) from error


def group_runs(runs):
    """Runs that may stand in one figure: of one data set, model, profile, length and the same changes by flags.

    Returns:
        dict: A name for a folder -> list of Run.

    """
    groups = {}
    for run in runs:
        about = run.about
        key = (about['dataset'], about['model'], about['profile'], str(about['length']), _changes(about, 'method.'),
               run.data['fingerprint'])
        groups.setdefault(key, []).append(run)
    named = {}
    for key in sorted(groups):
        dataset, model, profile, length = key[:4]
        name = '-'.join(filter(None, (dataset, model, 'quick' if profile == 'quick' else '', length)))
        named[_new_name(named, name, key[4])] = groups[key]
    return named


def _new_name(named, name, changes):
    """A name that is not among ``named``: with what flags changed, and a number where that is not enough."""
    name = re.sub(r'[^\w.=+-]+', '_', name).lstrip('.')  # a folder's, whatever a run's config.yml says
    if name in named and changes:
        name += '-' + re.sub(r'[^\w.=+-]+', '_', changes)[:80]
    others = itertools.chain([name], ('{}-no{}'.format(name, i) for i in itertools.count(2)))
    return next(other for other in others if other not in named)


def find_families(runs):
    """Runs that differ in method, seed and n_dis only, where there are two n_dis or more: those of ``make n-dis``.

    Returns:
        dict: A name for a folder -> list of Run.

    """
    families, named = {}, {}
    for run in runs:
        about = run.about
        key = (about['dataset'], about['model'], about['profile'], about['setting'],
               str(run.config.profile.iterations), _changes(about, 'method.', _N_DIS), run.data['fingerprint'])
        families.setdefault(key, []).append(run)
    for key in sorted(families):
        if len({run.config.setting.n_dis for run in families[key]}) > 1:
            dataset, model, profile, setting, iterations = key[:5]
            name = '-'.join((dataset, model, *['quick'] * (profile == 'quick'), setting, iterations, 'n_dis'))
            named[_new_name(named, name, key[5])] = families[key]
    return named


def drop_n_dis(runs, families):
    """Runs without those whose n_dis a flag changed and that stand in a family: each would be a group of its own."""
    own = {run.directory.path for family in families.values() for run in family if _N_DIS in run.about['changed']}
    return [run for run in runs if run.directory.path not in own]


def describe_group(runs, *without):
    """One line on what the runs of a group have in common, for titles."""
    about = runs[0].about
    lengths = sorted({run.config.profile.iterations for run in runs})
    parts = ['{dataset}, {model}'.format(**about)]
    parts.append('{} generator updates'.format(' to '.join('{:,}'.format(n) for n in dict.fromkeys((
        lengths[0], lengths[-1])))))
    if about['profile'] == 'quick':
        parts.append("quick profile, not the paper's experiment")
    changes = _changes(about, 'method.', *without)
    if changes:
        parts.append('with ' + changes)
    return '; '.join(parts)


def describe_family(runs):
    """One line on what the runs of a family have in common, for titles."""
    return describe_group(runs, _N_DIS)


def _changes(about, *without):
    """What flags changed, but for keys that begin so, which are what figures compare."""
    return ' '.join(change for change in about['changed'].split(' ') if not change.startswith(without))


def describe_run(run):
    """One line on a run, for titles."""
    return '{}, setting {}; {}'.format(style.label(run.method), run.setting, describe_group([run]))


def best_run(runs):
    """The run with the highest last score, of those that have ended before others; ``None`` where there are none."""
    def rank(run):
        last = max(run.scores, key=lambda row: row['iteration'], default=None)
        score = last['score_mean'] if last and finite(last['score_mean']) else -math.inf
        return run.ended, score
    return max(runs, key=rank, default=None)


def best_of_methods(runs):
    """The best run of each method: method -> Run."""
    return {method: best_run([run for run in runs if run.method == method])
            for method in dict.fromkeys(run.method for run in runs)}


def readable(runs, read, skip):
    """Yield (run, read(run)); a run whose files are missing or damaged is handed to ``skip``."""
    for run in runs:
        try:
            yield run, read(run)
        except (UserError, DamagedFile) as error:
            skip(run, str(error))


def load_discriminator(run):
    """The discriminator of a run's newest whole snapshot, with its iteration.

    Raises:
        UserError: There is none, or it does not fit.
        DamagedFile: All that there are are damaged.

    """
    iterations = run.directory.iterations('snapshot')
    if not iterations:
        raise UserError('it has no snapshot_iter_*.npz')
    for iteration in reversed(iterations):
        try:
            arrays = read_npz(run.directory.snapshot(iteration))
            break
        except DamagedFile:
            if iteration == iterations[0]:
                raise
    discriminator = build_networks(run.config)[1]
    snapshot.load_arrays(run.directory.snapshot(iteration), discriminator, {
        key[len(_DISCRIMINATOR):]: value for key, value in arrays.items() if key.startswith(_DISCRIMINATOR)})
    return discriminator, iteration


def read_log(run):
    """The entries of a run's ``log``, dicts. Raises UserError when it is missing or damaged."""
    try:
        with open(run.directory.file('log'), encoding='utf-8') as f:
            entries = json.load(f)
        return [{key: float(value) for key, value in entry.items()} for entry in entries]
    except FileNotFoundError as error:
        raise UserError('it has no log') from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError('its log is damaged: {!r}'.format(error)) from error


def read_probe(run):
    """The rows of a run's ``discriminator.csv``. Raises UserError when there are none or they are damaged."""
    path = run.directory.file(probe.FILE)
    if not os.path.exists(path):
        raise UserError('it has no {}: it was trained without, or by an earlier version'.format(probe.FILE))
    try:
        rows = probe.read_rows(path)
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError('its {} is damaged: {}'.format(probe.FILE, error)) from error
    if not rows:
        raise UserError('its {} is empty'.format(probe.FILE))
    return rows


def finite(x):
    """Whether a number can be drawn."""
    return x is not None and math.isfinite(x)
