"""The papers' figures of all runs: ``make figures``.

    python -m util.analysis [RUNS ...] [--out results/figures] [--only NAME ...]

Writes ``<group of runs>/<figure>.csv``, ``.png`` and ``.svg``; see ``util.analysis.runs.group_runs``.
"""
import functools
import os
import sys

from util import rundir
from util.analysis import neighbours, overtime, samples, score, spectra
from util.analysis.runs import group_runs, read_runs
from util.analysis.table import NothingToDraw, write_animation, write_figure, write_table
from util.cli import Parser, path, run_command
from util.files import UserError

ALLOWED = 'allowed'  # the one figure that no run changes
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
    missing = [folder for folder in args.runs if folder != rundir.RUNS and not os.path.isdir(folder)]
    if missing:
        raise UserError('RUNS: {} is not a directory'.format(missing[0]))
    groups = group_runs(read_runs(args.runs, lambda line: print(line, file=sys.stderr)))
    if ALLOWED in args.only:
        _make(FIGURES[ALLOWED], os.path.join(args.out, ALLOWED), ALLOWED, [])
    for group, runs in groups.items():
        for name in (name for name in args.only if name != ALLOWED):
            draw = FIGURES[name]
            if draw is neighbours.draw_neighbours:
                draw = functools.partial(draw, data_dir=args.data_dir)
            _make(draw, os.path.join(args.out, group, name), '{} of {}'.format(name, group), runs)


def _make(draw, target, what, runs):
    """Make one figure, and say where it is, or which runs it wants; and which runs were left out, by reason."""
    skipped, reason = {}, None
    try:
        table, figure = draw(runs, lambda run, why: skipped.setdefault(why, []).append(run.name))
        write_table(target + '.csv', table)
        animated = isinstance(figure, list)
        (write_animation if animated else write_figure)(target, figure)
        print(os.path.relpath(target + ('.gif' if animated else '.png')))
    except NothingToDraw as nothing:
        reason = nothing
    for why, names in skipped.items():
        print('{}: skipped {}: {}'.format(what, ', '.join(names), why), file=sys.stderr)
    if reason:
        print('{}: not drawn, it {}'.format(what, reason), file=sys.stderr)



if __name__ == '__main__':
    sys.exit(run_command(main))
