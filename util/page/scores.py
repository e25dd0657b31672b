"""The tables of scores: the paper's beside ours, methods by settings, all scored runs: the numbers of `make table`."""
from util.page.gather import BADGE
from util.page.markup import Markup, bullets, drop_empty, element, prose, section, table
from util.report import comparison, matrix, outcome
from util.report.cells import INCEPTION_HEADINGS, OTHER_HEADINGS, describe_sources, paper_cells, run_cells
from util.report.markdown import NOT_INCEPTION, OURS, TITLES
from util.report.runs import choose_table, sort_rows
from util.scorer import INCEPTION, label

_QUICK = "; quick profile, not the paper's experiment"  # what captions of util.report.matrix say of such runs
# Of the columns of `make table` those that the table of runs does not have
_COLUMNS = ('run', 'iterations', 'outcome', 'best', 'protocol', 'samples', 'of the distances', 'compared with')


def show_scores(records, published, about):
    """The sections of scores.

    Args:
        records (list of Record): All runs.
        published (list of dict): Rows of ``configs/published.yml``.
        about (list of str): Lines on the paper's numbers.

    Returns:
        list of Markup

    """
    rows = sort_rows([row for record in records for row in record.rows] + published)
    ours = [row for row in rows if row['origin'] == 'run']
    if not ours:
        return [element('p', 'No run here has been scored.')]
    data = list(dict.fromkeys(row['data'] for row in ours))
    return [element('p', *prose('All of it as text: `make table`, which writes results/table.md and table.csv.')),
            _show_paper(rows, ours, data, about), _show_matrices(rows), _show_runs(ours, data)]


def _show_paper(rows, ours, data, about):
    """The paper's table of each data set of which there are runs, with ours beside it."""
    parts = []
    if not any(row['scorer'] == INCEPTION for row in ours):
        parts.append(element('p', 'No run here has been scored with the Inception network, so the columns of ours are '
                                  'missing: scores of other networks cannot stand in them.'))
    for dataset, lines in comparison.compare_with_paper(rows).items():
        if dataset not in {row['dataset'] for row in ours}:
            continue
        cells = [paper_cells(line, data) for line in lines]
        columns, found = drop_empty(list(cells[0]), cells)
        body, group = [], ''
        for line, row in zip(lines, found, strict=True):
            body += [[line.group]] * (line.group not in ('', group)) + [row]
            group = line.group
        parts += [table("{}: the paper's Table 2{}".format(TITLES.get(dataset, dataset), ', and ours beside it' * any(
            line.run for line in lines)), columns, body), bullets(describe_sources(lines))]
    if not any('<table' in part for part in parts):
        return Markup()
    notes = ['Published: ' + line for line in about] + list(OURS)
    return section('paper', "The paper's Table 2", *parts, element('details', element('summary', 'How to read it'),
                                                                   bullets(notes)), level=3)


def _show_matrices(rows):
    matrices = matrix.make_matrices(rows)
    if not matrices:
        return Markup()
    parts = [table([caption.replace(_QUICK, ''), ' ', BADGE] if _QUICK in caption else caption, heading, lines,
                   name=caption) for caption, (heading, *lines) in matrices]
    return section('matrices', 'Methods by settings', element('p', matrix.NOTE, class_='quiet'), *parts, level=3)


def _show_runs(ours, data):
    """All scored runs, a table for each network that scored, profile and data set."""
    groups = {}
    for row in ours:
        key = row['scorer'], row['weights'], row['profile'] == 'quick', row['dataset']
        groups.setdefault(key, []).append(row)
    parts = []
    for (scorer, weights, quick, dataset), rows in sorted(groups.items(),
                                                          key=lambda item: (item[0][0] != INCEPTION, item[0])):
        inception = scorer == INCEPTION and choose_table(rows[0]) == INCEPTION
        name = label(scorer) if scorer else 'not scored'
        headings = INCEPTION_HEADINGS if inception else (name, *OTHER_HEADINGS[1:])
        cells = [run_cells(row, headings, data) for row in rows]
        wanted = [*_COLUMNS[:3], *headings, *_COLUMNS[3:]]
        columns, found = drop_empty(wanted, cells)
        caption = '{}, {}{}'.format(dataset, name, weights and ', weights {}'.format(weights))
        parts.append(table([caption, ' ', BADGE] if quick else caption, columns, found, name=caption))
    notes = [*([NOT_INCEPTION] if any(row['scorer'] != INCEPTION for row in ours) else []), *outcome.DEFINITIONS]
    introduction = element('p', *prose(
        'The score is that of the last scored generator, in brackets its iteration; `best` is the highest of the run.'))
    return section('scored', 'All scored runs', introduction, *parts, element(
        'details', element('summary', 'What the words mean'), bullets(notes)), level=3)
