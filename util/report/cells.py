"""The cells of the tables, by column, before they are Markdown or HTML."""
from util.report.runs import SETTING
from util.report.spreadsheet import describe_data
from util.scorer import label

INCEPTION_HEADINGS = ('Inception Score', 'FID', 'KID x 1000')
OTHER_HEADINGS = ('score', 'Frechet distance', 'kernel distance x 1000')
_NAMES = ('dataset', 'model', 'method', 'setting', *SETTING, 'changed', 'profile', 'seed')


def paper_cells(line, data):
    """The cells of a Line of :mod:`util.report.comparison`: column -> text, number or None.

    Args:
        line (Line): The paper's numbers, ours, or both.
        data (list of str): The sources of all runs' data; a cell has the number of its own, from 1.

    Returns:
        dict

    """
    paper, run = line.published or {'score': None}, line.run or {'score': None}
    at = run.get('scored_at', run.get('iterations'))
    return {
        'method': line.label, 'paper IS': _score(paper) or paper.get('outcome'), 'paper FID': _frechet(paper),
        'variables': line.variables, 'our IS': _score(run), 'our FID': _frechet(run), 'model': run.get('model'),
        'setting': run.get('setting'), 'seed': run.get('seed'),
        'iterations': at if at == run.get('planned') else '{} of {planned}'.format(at, **run),
        'outcome': run.get('outcome'), 'of': line.n_runs or None, 'protocol': run.get('protocol'),
        'data': describe_data(run, data.index(run['data']) + 1) if 'data' in run else None}


def describe_sources(lines):
    """Where numbers of Lines are from that have a source of their own, each source once (list of str)."""
    labels = {}
    for line in lines:
        if line.published and 'source' in line.published:
            labels.setdefault(line.published['source'], []).append('"{}"'.format(line.label))
    return ['{}: {}'.format(', '.join(names), source) for source, names in labels.items()]


def run_cells(row, headings, data):
    """The cells of a run, or of somebody's own number: column -> text, number or None.

    Args:
        row (dict): A row of :func:`util.report.runs.read_run` or of ``configs/published.yml``.
        headings (tuple of str): What the score and its two distances are called.
        data (list of str): As of :func:`paper_cells`.

    Returns:
        dict

    """
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
