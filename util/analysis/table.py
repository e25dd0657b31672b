"""The numbers of a figure, and how figure and numbers are written."""
import csv
from typing import NamedTuple

from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from PIL import Image

from util.analysis import style
from util.files import atomic_write


class Table(NamedTuple):
    """The numbers of a figure: names of columns, and rows of values."""

    columns: tuple
    rows: list


class NothingToDraw(Exception):
    """No run can feed a figure; the message says which ones could."""


def write_table(path, table):
    """Write a Table as CSV. Raises UserError when that is impossible."""
    with atomic_write(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(table.columns)
        writer.writerows([_cell(value) for value in row] for row in table.rows)


def _cell(value):
    return '{:.6g}'.format(value) if isinstance(value, float) else value


@style.styled
def write_figure(path, figure):
    """Write a matplotlib figure as ``path``.png and ``path``.svg: the same numbers give the same bytes.

    Raises:
        UserError: They cannot be written.

    """
    _mend_formulas(figure)
    for kind, metadata in (('png', {'Software': None}), ('svg', {'Date': None, 'Creator': None})):
        with atomic_write('{}.{}'.format(path, kind)) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)
        figure.set_layout_engine('none')  # it is laid out now; to do it again would take a quarter of the time


def _mend_formulas(figure):
    """Have texts with dollars that are no formula, such as a run's names may be, drawn as they are."""
    parser = MathTextParser('agg')
    for text in figure.findobj(Text):
        try:
            for line in filter(lambda line: '$' in line, text.get_text().splitlines()):
                parser.parse(line)
        except ValueError:
            text.set_parse_math(False)


def write_animation(path, frames, seconds=0.3):
    """Write frames (uint8 (height, width, 3)) as ``path``.gif, which goes round; the last one stays longer.

    Raises:
        UserError: It cannot be written.

    """
    first, *others = map(Image.fromarray, frames)
    durations = [int(1000 * seconds)] * len(others) + [int(6000 * seconds)]
    with atomic_write(path + '.gif') as temporary:
        first.save(temporary, format='GIF', save_all=True, append_images=others, duration=durations, loop=0)
