"""The tables of all runs beside the paper's numbers: ``make table``.

    python -m util.report [RUNS ...] [--out results]

Writes ``table.md`` and ``table.csv``.
"""
import os
import sys

from util import rundir
from util.cli import Parser, path, run_command
from util.files import UserError, atomic_write
from util.report.markdown import render_markdown
from util.report.published import read_published
from util.report.runs import check_places, find_runs, read_run, sort_rows
from util.report.spreadsheet import render_csv


def main(argv=None):
    """The command line."""
    parser = Parser(prog='python -m util.report', description="Make the tables of all runs beside the paper's numbers.")
    parser.add_argument('runs', nargs='*', type=path, default=[rundir.RUNS],
                        help='runs, or folders of runs (default: results/runs)')
    parser.add_argument('--out', '-o', type=path, default=os.path.dirname(rundir.RUNS),
                        help='folder for table.md and table.csv (default: results)')
    args = parser.parse_args(argv)
    published, about = read_published()
    rows = sort_rows(_read_runs(args.runs) + published)
    markdown = render_markdown(rows, about)
    for name, text in (('table.md', markdown), ('table.csv', render_csv(rows))):
        with atomic_write(os.path.join(args.out, name)) as temporary, open(temporary, 'w', encoding='utf-8') as f:
            f.write(text)
    print(markdown, end='')


def _read_runs(places):
    """Read all runs at and below ``places``; a run that cannot be read is skipped with a line on stderr."""
    check_places(places)
    rows = []
    for folder in find_runs(places):
        try:
            rows += read_run(folder)
        except UserError as error:
            print('skipped {}: {}'.format(os.path.relpath(folder), error), file=sys.stderr)
    if not rows:
        names = ', '.join(map(os.path.relpath, places))
        raise UserError('no scored run in {}; "make normalize" makes one'.format(names))
    return rows


if __name__ == '__main__':
    sys.exit(run_command(main))
