"""One HTML file on all runs, with figures, tables and pictures inside: ``make report``.

    python -m util.page [RUNS ...] [--out results/report.html] [--figures results/figures]

The same runs and figures give the same bytes.
"""
import os
import sys

from util import rundir
from util.cli import Parser, path, run_command
from util.files import UserError, atomic_write
from util.page.document import render
from util.page.figures import provide_figures, show_figures
from util.page.gather import read_records
from util.page.markup import element
from util.page.runs import badge, describe, show_commands, show_runs, show_samples
from util.page.scores import show_scores
from util.report.published import read_published
from util.report.runs import check_places


def main(argv=None):
    """The command line."""
    parser = Parser(prog='python -m util.page', description='Make one HTML file on all runs.')
    parser.add_argument('runs', nargs='*', type=path, default=[rundir.RUNS],
                        help='runs, or folders of runs (default: results/runs)')
    parser.add_argument('--out', '-o', type=path, default=os.path.join(os.path.dirname(rundir.RUNS), 'report.html'),
                        help='file to write (default: results/report.html)')
    parser.add_argument('--figures', type=path, metavar='FOLDER',
                        help='where "make figures" has put its figures; they are made there when they are missing, or '
                             "older than the runs (default: figures, beside the file)")
    args = parser.parse_args(argv)
    check_places(args.runs)
    if os.path.isdir(args.out):
        raise UserError('--out: {} is a folder, and not a file'.format(args.out))
    lines = []

    def skip(line):
        lines.append(line)
        print(line, file=sys.stderr)
    groups = read_records(args.runs, skip)
    page = make_page(groups, args.figures or os.path.join(os.path.dirname(args.out), 'figures'), skip, lines)
    with atomic_write(args.out) as temporary, open(temporary, 'w', encoding='utf-8') as f:
        f.write(page)
    print(os.path.relpath(args.out))


def make_page(groups, folder, skip, lines):
    """Make the page.

    Args:
        groups (dict): Name of a group -> list of Record.
        folder (str): Where figures are, or will be.
        skip (callable): Gets a line for whatever is left out.
        lines (list of str): What ``skip`` has got so far, and gets.

    Returns:
        str: HTML.

    """
    records = [record for group in groups.values() for record in group]
    runs = {name: [record.run for record in group] for name, group in groups.items()}
    headings = {name: (describe(group), badge(group)) for name, group in groups.items()}
    figures = show_figures(folder, provide_figures(folder, runs), headings, skip)
    contents = [('runs', 'What was run', show_runs(groups)),
                ('scores', 'Scores', show_scores(records, *read_published())),
                ('figures', 'Figures', figures or [element('p', 'No figure could be made of these runs.')]),
                ('samples', 'Samples', show_samples(groups, skip)),
                ('commands', 'How to make it again', show_commands(groups))]
    if lines:  # now that all has been read
        contents.append(('skipped', 'What is left out', [element('ul', *(element('li', line) for line in lines))]))
    return render(records, contents)


if __name__ == '__main__':
    sys.exit(run_command(main))
