"""All tables as Markdown that can be read raw, too."""
import textwrap

from util.report import comparison, matrix, outcome
from util.report.runs import SETTING, choose_table
from util.report.spreadsheet import describe_data
from util.scorer import label

_NAMES = ('dataset', 'model', 'method', 'setting', *SETTING, 'changed', 'profile', 'seed')
_TITLES = {'cifar10': 'CIFAR-10', 'stl10': 'STL-10', 'imagenet': 'ImageNet'}
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
    headings = {'inception': ('Inception Score', 'FID', 'KID x 1000'),
                'other': ('score', 'Frechet distance', 'kernel distance x 1000')}
    parts += _runs_section('Inception Scores', tables['inception'], headings['inception'], data, notes)
    for name in (name for name in titles if tables[name]):
        parts += _runs_section(titles[name], tables[name], headings['other'], data, [NOT_INCEPTION])
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
            cells.append(_paper_cells(line, data))
        columns = list(_paper_cells(lines[0], data))
        parts += ['### ' + _TITLES.get(dataset, dataset), _table(columns, cells), *_sources(lines)]
    return parts


def _sources(lines):
    """Where numbers are from that have a source of their own, each source once."""
    labels = {}
    for line in lines:
        if line.published and 'source' in line.published:
            labels.setdefault(line.published['source'], []).append('"{}"'.format(line.label))
    notes = ['{}: {}'.format(', '.join(names), source) for source, names in labels.items()]
    return [_notes(notes)] if notes else []


def _paper_cells(line, data):
    paper, run = line.published or {'score': None}, line.run or {'score': None}
    at = run.get('scored_at', run.get('iterations'))
    return {
        'method': line.label, 'paper IS': _score(paper) or paper.get('outcome'), 'paper FID': _frechet(paper),
        'variables': line.variables, 'our IS': _score(run), 'our FID': _frechet(run), 'model': run.get('model'),
        'setting': run.get('setting'), 'seed': run.get('seed'),
        'iterations': at if at == run.get('planned') else '{} of {planned}'.format(at, **run),
        'outcome': run.get('outcome'), 'of': line.n_runs or None, 'protocol': run.get('protocol'),
        'data': describe_data(run, data.index(run['data']) + 1) if 'data' in run else None}


def _matrix_section(rows):
    matrices = matrix.make_matrices(rows)
    parts = []
    for caption, (heading, *lines) in matrices:
        parts += ['### ' + caption, _table(heading, [dict(zip(heading, line, strict=True)) for line in lines])]
    return ['## Methods by settings', _notes([matrix.NOTE]), *parts] if matrices else []


def _runs_section(title, rows, headings, data, notes):
    notes = notes + ['Own number "{label}": {source}'.format(**row) for row in rows if row['origin'] == 'own']
    cells = [_run_cells(row, headings, data) for row in rows]
    columns = [c for c in cells[0] if any(_text(line[c]) for line in cells)] if cells else []
    return ['## ' + title, _table(columns, cells) if cells else 'None.', *filter(None, [_notes(notes)])]


def _run_cells(row, headings, data):
    run = row['label'] if row['origin'] == 'run' else '{origin}: {label}'.format(**row)
    at = ' ({})'.format(row['scored_at']) if 'scored_at' in row else ''
    scorer = '{} ({})'.format(' '.join(filter(None, (row['scorer'], row.get('weights')))), label(row['scorer']))
    return {
        'run': run, **{key: row.get(key) for key in _NAMES},
        'iterations': '{iterations} of {planned}'.format(**row) if 'planned' in row else row.get('iterations'),
        'outcome': row.get('outcome'), headings[0]: (_score(row) or '') + at, headings[1]: _frechet(row),
        headings[2]: _kernel(row), 'best': '{best:.2f} ({best_at})'.format(**row) if 'best' in row else None,
        'scorer': scorer if row['scorer'] else None, 'protocol': row.get('protocol'), 'samples': row.get('samples'),
        'of the distances': '{distance_samples}, {kernel_subsets}'.format(**row) if 'distance_samples' in row else None,
        'compared with': row.get('reference'),
        'data': describe_data(row, data.index(row['data']) + 1) if 'data' in row else None,
        'device': row.get('device'), 'commit': row.get('commit')}


def _score(row):
    if row['score'] is None:
        return None
    return '{:.2f}'.format(row['score']) + _spread('{:.2f}', row.get('score_std'))


def _frechet(row):
    if row.get('frechet_distance') is None:
        return None
    return '{frechet_distance:.1f}'.format(**row) + _spread('{:.2f}', row.get('frechet_distance_std'))


def _kernel(row):
    if row.get('kernel_distance') is None:
        return None
    return '{:.2f}'.format(1000 * row['kernel_distance']) + _spread('{:.2f}', 1000 * row['kernel_distance_std'])


def _spread(form, deviation):
    return '' if deviation is None else ' +- ' + form.format(deviation)


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
