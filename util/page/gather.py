"""What the page says of runs: where, when and how long each ran, and its scores."""
import json
import math
import os
import re
from typing import NamedTuple

from util.analysis.runs import Run, drop_n_dis, find_families, group_runs, read_log, read_runs
from util.environment import read_environment
from util.files import UserError
from util.page.markup import element
from util.report.runs import read_run

QUICK = "quick profile: not the paper's experiment"
BADGE = element('span', QUICK, class_='mark')
_DATE = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d')
NOT_RECORDED = 'not recorded'


class Record(NamedTuple):
    """A run, and what the page says of it.

    Attributes:
        run (Run): It.
        rows (list of dict): Its scores, of :func:`util.report.runs.read_run`; may be empty.
        outcome (str): How it ended, in words.
        reached (int): Its last iteration so far.
        sessions (list of dict): Of its ``environment.json``.
        seconds (float or None): How long it has taken, in all its sessions; ``None`` where that is not known.

    """

    run: Run
    rows: list
    outcome: str
    reached: int
    sessions: list
    seconds: float = None

    @property
    def quick(self):
        """Whether it is of the quick profile."""
        return self.run.about['profile'] == 'quick'

    @property
    def began(self):
        """When its first session began, UTC, to the minute (str); empty where that is not known."""
        match = _DATE.match(str(self.sessions[0].get('started')))
        return match.group().replace('T', ' ') if match else ''


def read_records(places, skip):
    """Read all runs at and below ``places``.

    Args:
        places (list of str): Runs, and folders of runs.
        skip (callable): Gets a line (str) for each run that is left out, and why.

    Returns:
        dict: The name of a group of runs that can be compared, or that differ in n_dis -> list of Record.

    Raises:
        UserError: There is no run that can be read.

    """
    records = {}
    for run in read_runs(places, skip):
        try:
            records[run.directory.path] = _read_record(run, skip)
        except UserError as error:
            skip('skipped {}: {}'.format(os.path.relpath(run.directory.path), error))
    if not records:
        raise UserError('no run in {} can be read'.format(', '.join(map(os.path.relpath, places))))
    groups = _group([record.run for record in records.values()])
    return {name: [records[run.directory.path] for run in runs] for name, runs in groups.items()}


def _group(runs):
    """Groups as figures have them: those of runs that can be compared, and families of several n_dis."""
    families = find_families(runs)
    groups = group_runs(drop_n_dis(runs, families))
    grouped = {run.directory.path for group in groups.values() for run in group}
    for name, family in families.items():
        groups[name] = [run for run in family if run.directory.path not in grouped]
    return groups


def _read_record(run, skip):
    sessions = read_environment(run.directory)['sessions']
    if not all(isinstance(session, dict) for session in sessions):
        raise UserError('its environment.json is damaged')
    # Without scores its end is told by its files alone
    finished = os.path.exists(run.directory.done)
    planned = run.config.profile.iterations
    rows, outcome = [], 'DIVERGED' if run.diverged else 'finished' if finished else 'NOT FINISHED'
    reached = planned if finished else max(run.directory.iterations('gen') + run.directory.iterations('snapshot'),
                                           default=0)
    if run.scores or run.diverged:
        rows = read_run(run.directory.path)
        outcome, reached = rows[0]['outcome'], rows[0]['iterations']
    return Record(run, rows, outcome, reached, sessions, _read_seconds(run, skip))


def _read_seconds(run, skip):
    """The elapsed time that ``done`` says, or the end of the log."""
    try:
        with open(run.directory.done, encoding='utf-8') as f:
            seconds = float(json.load(f)['elapsed_time'])
    except (OSError, ValueError, KeyError, TypeError):
        try:
            seconds = read_log(run)[-1]['elapsed_time']
        except (UserError, IndexError, KeyError) as error:
            skip('left out the time of {}: {}'.format(os.path.relpath(run.directory.path), error))
            return None
    return seconds if math.isfinite(seconds) else None


def describe_seconds(seconds):
    """A time as people say it: ``'3 min 44 s'``."""
    if seconds is None:
        return ''
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return '{:,} h {} min'.format(hours, minutes_left)
    return '{} min {} s'.format(minutes, rest) if minutes else '{} s'.format(rest)


def describe_session(session):
    """Where and with what a session ran, as columns of a table (dict of str)."""
    versions = session.get('versions')
    versions = versions if isinstance(versions, dict) else {}
    return {'device': str(session.get('device')), 'engine': _known(session, 'engine', 'none'),
            'threads': _known(session, 'threads', NOT_RECORDED), 'commit': _known(session, 'commit', 'unknown'),
            'versions': ', '.join('{} {}'.format(*pair) for pair in versions.items() if pair[1] is not None)}


def _known(session, key, nothing):
    value = session.get(key, NOT_RECORDED)
    return nothing if value is None else str(value)


def number_environments(records):
    """All that sessions ran with, each once, in the order of the runs.

    Returns:
        dict: What :func:`describe_session` says, as a tuple of its values -> ``'E1'``, ``'E2'`` ...

    """
    found = dict.fromkeys(tuple(describe_session(session).values()) for record in records
                          for session in record.sessions)
    return {key: 'E%d' % i for i, key in enumerate(found, 1)}
