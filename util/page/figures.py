"""The figures of the page: those of ``make figures`` where they are newer than the runs, else made here."""
import os

from util.analysis.__main__ import ALLOWED, FIGURES, TIMING
from util.analysis.__main__ import main as make_figures
from util.files import UserError
from util.page.captions import describe_figure, describe_numbers
from util.page.gather import QUICK
from util.page.images import embed, embed_animation
from util.page.markup import Markup, element, escape, section

OF_NO_RUN = (TIMING, ALLOWED)
# Photographs take less room as such, and nothing is lost that one could see
_DRAWINGS = frozenset(FIGURES) - {'samples', 'progress', 'interpolation', 'neighbours'}


def find_figures(folder, group, runs):
    """The figures of a group of runs that are not older than the runs' files.

    Args:
        folder (str): Where ``make figures`` has put them.
        group (str): The group's name.
        runs (list of Run): It.

    Returns:
        dict: Name -> path of the PNG or GIF file.

    """
    newest = max(map(_newest, runs), default=0)
    paths = {name: os.path.join(folder, group, name + ('.gif' if name == 'animation' else '.png'))
             for name in FIGURES if name not in OF_NO_RUN}
    return {name: path for name, path in paths.items() if os.path.exists(path) and os.path.getmtime(path) >= newest}


def _newest(run):
    with os.scandir(run.directory.path) as entries:
        return max(entry.stat().st_mtime for entry in entries
                   if entry.is_file() and not entry.name.startswith('.'))


def provide_figures(folder, groups):
    """Make all figures when those of a group are missing or older than its runs.

    Args:
        folder (str): Where they are, or will be.
        groups (dict): Name -> list of Run.

    Returns:
        dict: Name of the group -> what :func:`find_figures` returns.

    """
    if not all(find_figures(folder, group, runs) for group, runs in groups.items()):
        places = [run.directory.path for runs in groups.values() for run in runs]
        make_figures([*places, '--out', folder])
    return {group: find_figures(folder, group, runs) for group, runs in groups.items()}


def show_figures(folder, found, headings, skip):
    """The sections of figures, one a group, and one of those of no run.

    Args:
        folder (str): Where the figures are.
        found (dict): What :func:`provide_figures` returned.
        headings (dict): Name of a group -> what its runs have in common (str), and what marks it (Markup).
        skip (callable): Gets a line for each figure that cannot be shown.

    Returns:
        list of Markup

    """
    parts = []
    for group, paths in found.items():
        what, mark = headings[group]
        figures = [_show(name, path, what, mark, skip) for name, path in paths.items()]
        parts.append(section('figures-' + group, [what, ' ', mark], *figures, level=3))
    others = {name: os.path.join(folder, name + '.png') for name in OF_NO_RUN}
    figures = [_show(name, path, '', Markup(), skip) for name, path in others.items() if os.path.exists(path)]
    return [*parts, section('figures-of-no-run', 'Of no run', *figures, level=3)] if figures else parts


def _show(name, path, what, mark, skip):
    title, sentences = describe_figure(name)
    alt = '. '.join(filter(None, (title, what, QUICK if mark else '', 'What to see is said below')))
    try:
        if name == 'animation':
            picture = embed_animation(path, alt)
        else:
            picture = embed(path, alt, drawing=name in _DRAWINGS)
    except UserError as error:
        skip('left out a figure: {}'.format(error))
        return escape(None)
    again = element('code', 'make figures'), ', or alone: ', element(
        'code', '.venv/bin/python -m util.analysis --only ' + name)
    caption = [element('p', sentences), '\n']
    numbers = describe_numbers(name, os.path.splitext(path)[0] + '.csv')
    if numbers:
        caption += [element('p', numbers), '\n']
    caption.append(element('p', [mark, ' '] if mark else '', *again, class_='how'))
    # A drawing on a telephone scrolls in its box, so that it can be read; what moves waits to be asked
    box = element('div', picture, class_='scroll', role='region', aria_label=title, tabindex='0')
    if name == 'animation':
        box = element('details', element('summary', 'Play it'), box)
    return escape([element('h4', title), '\n', element('figure', box, '\n', element(
        'figcaption', *caption), class_='plot'), '\n'])
