"""The papers' figures of all runs: ``make figures``.

    python -m util.analysis [RUNS ...] [--out results/figures] [--only NAME ...]

Writes ``<group of runs>/<figure>.csv``, ``.png`` and ``.svg``; see ``util.analysis.runs.group_runs``.
"""
import functools
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from util import rundir
from util.analysis import critic, n_dis, neighbours, overtime, samples, score, spectra, timing
from util.analysis.runs import drop_n_dis, find_families, group_runs, read_runs
from util.analysis.table import NothingToDraw, write_animation, write_figure, write_table
from util.cli import Parser, path, run_command
from util.report.runs import check_places

# Figures that are of no run, and the one that is of runs of several n_dis
ALLOWED, TIMING, N_DIS = 'allowed', 'timing', 'n_dis'
# Name of the files -> what draws the figure, (runs, skip) -> Table, Figure
FIGURES = {
    'scores': score.draw_scores,
    'spectra': spectra.draw_spectra,
    'sigma': overtime.draw_sigma,
    'samples': samples.draw_samples,
    'progress': samples.draw_progress,
    'animation': samples.animate_progress,
    'interpolation': samples.draw_interpolation,
    'neighbours': neighbours.draw_neighbours,
    'gradients': overtime.draw_gradients,
    'variances': overtime.draw_variances,
    'critic': critic.draw_critic,
    N_DIS: n_dis.draw_n_dis,
    TIMING: timing.draw_timing,
    ALLOWED: spectra.draw_allowed,
}


def main(argv=None):
    """The command line."""
    parser = Parser(prog='python -m util.analysis', description="Make the papers' figures of all runs.")
    parser.add_argument('runs', nargs='*', type=path, default=[rundir.RUNS],
                        help='runs, or folders of runs (default: results/runs)')
    parser.add_argument('--out', '-o', type=path, default=os.path.join(os.path.dirname(rundir.RUNS), 'figures'),
                        help='folder for the figures (default: results/figures)')
    parser.add_argument('--only', nargs='+', choices=list(FIGURES), metavar='NAME', default=list(FIGURES),
                        help='some of: {}'.format(', '.join(FIGURES)))
    parser.add_argument('--data-dir', type=path,
                        help='a copy of the training pictures, for the nearest ones (the digits need none)')
    args = parser.parse_args(argv)
    check_places(args.runs)
    runs, notes = [], Notes()
    if set(args.only) - {ALLOWED, TIMING}:
        runs = read_runs(args.runs, lambda line: print(line, file=sys.stderr))
    for name in (name for name in (ALLOWED, TIMING) if name in args.only):
        _make(FIGURES[name], os.path.join(args.out, name), [], notes.of(name))
    families = find_families(runs)
    if N_DIS in args.only:
        for family, members in families.items():
            _make(FIGURES[N_DIS], os.path.join(args.out, family, N_DIS), members, notes.of(N_DIS, family))
        if not families:
            notes.of(N_DIS).lack(n_dis.WANTS)
    for group, members in group_runs(drop_n_dis(runs, families)).items():
        for name in (name for name in args.only if name not in (ALLOWED, TIMING, N_DIS)):
            draw = FIGURES[name]
            if draw is neighbours.draw_neighbours:
                draw = functools.partial(draw, data_dir=args.data_dir)
            _make(draw, os.path.join(args.out, group, name), members, notes.of(name, group))
    notes.say(lambda line: print(line, file=sys.stderr))


class Notes:
    """Which runs were left out of which figures, and which figures no run could feed: a line each, said at the end."""

    def __init__(self):
        self._skipped, self._lacking = {}, {}

    def of(self, figure, group=None):
        """What notes of one figure of one group: an object with ``skip(run, why)`` and ``lack(why)``."""
        return _NotesOf(lambda run, why: self._skipped.setdefault((figure, why), []).append(run.name),
                        lambda why: self._lacking.setdefault((figure, why), []).append(group))

    def say(self, say):
        """Hand the lines to ``say``."""
        for (figure, why), names in self._skipped.items():
            say('{}: skipped {}: {}'.format(figure, _shorten(names), why))
        for (figure, why), groups in self._lacking.items():
            where = ' of ' + _shorten(groups) if groups[0] else ''
            say('{}{}: not drawn, it {}'.format(figure, where, why))


class _NotesOf(NamedTuple):
    skip: Callable
    lack: Callable


def _shorten(names, most=4):
    names = list(dict.fromkeys(names))
    more = len(names) - most
    return ', '.join(names) if more <= 1 else '{} and {} others'.format(', '.join(names[:most]), more)


def _make(draw, target, runs, notes):
    """Make one figure, and say where it is; what is missing goes to ``notes``."""
    try:
        table, figure = draw(runs, notes.skip)
    except NothingToDraw as nothing:
        notes.lack(str(nothing))
        return
    write_table(target + '.csv', table)
    animated = isinstance(figure, list)
    (write_animation if animated else write_figure)(target, figure)
    print(os.path.relpath(target + ('.gif' if animated else '.png')), flush=True)


if __name__ == '__main__':
    sys.exit(run_command(main))
