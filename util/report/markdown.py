"""All tables as Markdown that can be read raw, too."""
import textwrap

from util.report import comparison, matrix, outcome
from util.report.cells import INCEPTION_HEADINGS, OTHER_HEADINGS, describe_sources, paper_cells, run_cells
from util.report.runs import choose_table

TITLES = {'cifar10': 'CIFAR-10', 'stl10': 'STL-10', 'imagenet': 'ImageNet'}
INTRODUCTION = '''\
Made by `make table` from results/runs/ and configs/published.yml. A score is that of the run's last scored generator,
in brackets its iteration; `best` is the highest of the run. `protocol` is a row of configs/protocols.yml (with * where
flags changed it). `samples`: generated pictures / parts that they were split into for the score, of which +- is the
standard deviation. `of the distances`: generated pictures that these are taken of, and subsets of the kernel distance
(KID). `changed`: what flags changed in the rows that name the run.'''
OURS = (
    'Ours: a run of that data set, METHOD and MODEL (sndcgan counts as cnn), not of the quick profile, with no value '
    'changed by a flag, scored with the Inception network by the protocol `paper` (ImageNet: `imagenet`). Empty: '
    'nothing of the kind was run, or configs/ has no rows for it.',
    'Of several runs (settings, seeds, numbers of iterations) it is the one with the highest last Inception Score, as '
    'Table 2 takes the best setting; `of` says from how many it was chosen. The FID is of the same run.',
    'Beside a row of 2x updates stand runs that have come that far; others only where the method has no other row.',
    "Our +- is over the parts of one generator's pictures, in the ResNet rows, too, where the paper's numbers are "
    'means over training runs: there ours, the best run, has the easier task.',
    "Of STL-10 our FID compares with the 8,000 test pictures, all that there are; the paper's with 10,000, and it does "
    'not say which.')
NOT_INCEPTION = (
    '`scorer` is the network that scores. What is not Inception gives no Inception Score: the same formulas on another '
    "network's answers, which compare these runs with each other and with nothing published.")


def render_markdown(rows, about):
    """Turn rows, sorted, into Markdown; ``about`` are lines on the paper's numbers."""
    tables = {name: [row for row in rows if choose_table(row) == name] for name in ('inception', 'other', 'quick')}
    data = list(dict.fromkeys(row['data'] for row in rows if 'data' in row))
    notes = []
    if not any(row['origin'] == 'run' for row in tables['inception']):
        notes.append('No run here has been scored with the Inception network.')
    names = ', '.join(sorted({row['dataset'] for row in tables['quick']}))
    titles = {'other': 'Scores of other networks',
              'quick': "Quick runs: {}, a quarter of the width - not the paper's experiment".format(names)}
    parts = ['# Scores of the runs', INTRODUCTION, *_paper_section(rows, data, about), *_matrix_section(rows)]
    parts += _runs_section('Inception Scores', tables['inception'], INCEPTION_HEADINGS, data, notes)
    for name in (name for name in titles if tables[name]):
        parts += _runs_section(titles[name], tables[name], OTHER_HEADINGS, data, [NOT_INCEPTION])
    if data:
        parts += ['## Outcomes', _notes(outcome.DEFINITIONS)]
        parts += ['## Data', '\n'.join('{}. {}'.format(i, source) for i, source in enumerate(data, 1))]
    return '\n\n'.join(parts) + '\n'


def _paper_section(rows, data, about):
    parts = ["## The paper's Table 2, and ours beside it", _notes([*('Published: ' + line for line in about), *OURS])]
    for dataset, lines in comparison.compare_with_paper(rows).items():
        cells, group = [], ''
        for line in lines:
            if line.group != group:
                cells.append({'method': '*{}*'.format(line.group)})
            group = line.group
            cells.append(paper_cells(line, data))
        columns = list(paper_cells(lines[0], data))
        parts += ['### ' + TITLES.get(dataset, dataset), _table(columns, cells),
                  *filter(None, [_notes(describe_sources(lines))])]
    return parts


def _matrix_section(rows):
    matrices = matrix.make_matrices(rows)
    parts = []
    for caption, (heading, *lines) in matrices:
        parts += ['### ' + caption, _table(heading, [dict(zip(heading, line, strict=True)) for line in lines])]
    return ['## Methods by settings', _notes([matrix.NOTE]), *parts] if matrices else []


def _runs_section(title, rows, headings, data, notes):
    notes = notes + ['Own number "{label}": {source}'.format(**row) for row in rows if row['origin'] == 'own']
    cells = [run_cells(row, headings, data) for row in rows]
    columns = [c for c in cells[0] if any(_text(line[c]) for line in cells)] if cells else []
    return ['## ' + title, _table(columns, cells) if cells else 'None.', *filter(None, [_notes(notes)])]


def _table(columns, cells):
    """Align a table: ``cells`` is a dict a line; what it lacks stays empty."""
    lines = [list(columns), *([_text(line.get(column)) for column in columns] for line in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(map(str.ljust, line, widths)) + ' |' for line in lines)


def _text(cell):
    return '' if cell is None else ' '.join(str(cell).split()).replace('|', r'\|')


def _notes(lines):
    wrap = textwrap.TextWrapper(120, initial_indent='- ', subsequent_indent='  ')
    return '\n'.join(map(wrap.fill, lines))
