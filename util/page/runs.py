"""The sections on runs themselves: what ran, where, what it draws, and how to make it again."""
import os

from util.analysis.runs import describe_family, describe_group
from util.files import UserError
from util.page.commands import make_command
from util.page.gather import BADGE, describe_seconds, describe_session, number_environments
from util.page.images import embed
from util.page.markup import Markup, drop_empty, element, prose, section, table

_WIDEST = 700  # pixels of a grid, of which those of 32x32 have 342
_ENVIRONMENT = ('device', 'engine', 'threads', 'commit', 'versions')


def badge(records):
    """What marks runs of the quick profile; nothing for others."""
    return BADGE if any(record.quick for record in records) else Markup()


def describe(records):
    """One line on what the runs of a group have in common, but for the quick profile, which :func:`badge` says."""
    runs = [record.run for record in records]
    of_one = len({run.config.setting.n_dis for run in runs if 'n_dis' in run.about['changed']}) <= 1
    parts = (describe_group if of_one else describe_family)(runs).split('; ')
    return '; '.join(part for part in parts if not part.startswith('quick profile'))


def show_runs(groups):
    """A table of runs for each group, and one of what they ran with.

    Args:
        groups (dict): Name -> list of Record.

    Returns:
        list of Markup

    """
    environments = number_environments([record for records in groups.values() for record in records])
    parts = [element('p', 'Updates are those of the generator. Time is that of all sessions of a run, drawing and '
                          'scoring included. What each ran with, E1 and so on, is below.', class_='quiet')]
    for records in groups.values():
        cells = [_run_cells(record, environments) for record in records]
        columns, rows = drop_empty(list(cells[0]), cells)
        parts.append(table([describe(records), ' ', badge(records)], columns, rows, name=describe(records)))
    data = {record.run.data['source']: None for records in groups.values() for record in records}
    parts += [element('h3', 'Data'), element('ul', *(element('li', source) for source in data))]
    rows = [[name, *key] for key, name in environments.items()]
    return [*parts, element('h3', 'What they ran with'), table('Environments', ['ran with', *_ENVIRONMENT], rows)]


def _run_cells(record, environments):
    settings, about = record.run.config, record.run.about
    planned = settings.profile.iterations
    with_ = dict.fromkeys(environments[tuple(describe_session(session).values())] for session in record.sessions)
    return {
        'run': record.run.name, 'method': record.run.method, 'setting': record.run.setting, 'seed': settings.seed,
        'updates': '{:,}'.format(planned) if record.reached == planned else '{:,} of {:,}'.format(
            record.reached, planned),
        'profile': settings.profile.name, 'changed': about['changed'], 'outcome': record.outcome,
        'begun (UTC)': record.began, 'sessions': len(record.sessions) if len(record.sessions) > 1 else None,
        'time': describe_seconds(record.seconds), 'ran with': ', '.join(with_)}


def show_samples(groups, skip):
    """The last grid of each run.

    Args:
        groups (dict): Name -> list of Record.
        skip (callable): Gets a line for each grid that cannot be shown.

    Returns:
        list of Markup

    """
    parts = []
    for name, records in groups.items():
        figures = [figure for record in records for figure in [_show_grid(record, skip)] if figure]
        if figures:
            parts.append(section('samples-' + name, [describe(records), ' ', badge(records)], element(
                'div', *figures, class_='samples'), level=3))
    return parts or [element('p', 'No run here has drawn pictures.')]


def _show_grid(record, skip):
    run = record.run
    drawn = [iteration for iteration in run.directory.iterations('gen')
             if os.path.exists(run.directory.image(iteration))]
    if not drawn:
        return None
    alt = 'Grid of pictures that {} draws after {:,} generator updates'.format(run.name, drawn[-1])
    try:
        picture = embed(run.directory.image(drawn[-1]), alt, widest=_WIDEST)
    except UserError as error:
        skip('left out the pictures of {}: {}'.format(os.path.relpath(run.directory.path), error))
        return None
    caption = [element('strong', run.method), ', setting {}, seed {}, after {:,} updates'.format(
        run.setting, run.config.seed, drawn[-1])]
    return element('figure', picture, '\n', element('figcaption', *caption, [' ', badge([record])])), '\n'


def show_commands(groups):
    """The command of each run, a table for each group, and those of figures, tables and this page."""
    parts = [element('p', *prose(
        'A run that is there is not repeated: rename its folder before. `...` stands for a place on the computer that '
        'it ran on, such as a copy of the data. The same bits need the versions above, too.'))]
    for records in groups.values():
        rows = [[record.run.name, element('code', make_command(record) or 'not recorded')] for record in records]
        parts.append(table([describe(records), ' ', badge(records)], ['run', 'command'], rows, name=describe(records)))
    return [*parts, table('Of all runs', ['what', 'command'], [
        ['all figures, as PNG, SVG and CSV', element('code', 'make figures')],
        ['all tables of scores', element('code', 'make table')],
        ['this page, with its figures', element('code', 'make report')]])]
