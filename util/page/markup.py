"""HTML elements out of text: whatever is not :class:`Markup` is escaped, so nothing of a run's files can be markup."""
import html

_VOID = frozenset(('br', 'img', 'link', 'meta', 'source'))
_SHORT = 36  # characters of a cell that are not broken into lines


class Markup(str):
    """Text that is HTML already. Only the functions here, and constants, make some."""

    __slots__ = ()


def escape(content):
    """Content as HTML: Markup as it is, ``None`` as nothing, lists one after the other, all else escaped.

    Characters that are not printable (controls, those that turn the direction of writing, halves of surrogates, as in
    names of files that are not UTF-8) become U+FFFD.

    """
    if isinstance(content, Markup):
        return content
    if content is None:
        return Markup()
    if isinstance(content, list | tuple):
        return Markup(''.join(map(escape, content)))
    text = ''.join(c if c.isprintable() or c == '\n' else '\N{REPLACEMENT CHARACTER}' for c in str(content))
    return Markup(html.escape(text))


def element(name, /, *content, **attributes):
    """An element.

    Args:
        name (str): Such as ``'p'``.
        content: What it holds, see :func:`escape`.
        attributes: ``None`` leaves one out, ``True`` gives it no value; ``class_`` is ``class``, ``aria_label``
            is ``aria-label``.

    Returns:
        Markup

    """
    start = '<' + name
    for key, value in attributes.items():
        key = key.strip('_').replace('_', '-')
        if value is True:
            start += ' ' + key
        elif value is not None:
            start += ' {}="{}"'.format(key, escape(value))
    if name in _VOID:
        return Markup(start + '>')
    return Markup('{}>{}</{}>'.format(start, escape(content), name))


def prose(text):
    """Text in which what stands between backticks is code."""
    return [element('code', part) if i % 2 else escape(part) for i, part in enumerate(str(text).split('`'))]


def bullets(lines):
    """A list of lines, each as of :func:`prose`; nothing without lines."""
    return element('ul', *(element('li', *prose(line)) for line in lines), class_='notes') if lines else Markup()


def section(identifier, title, *content, level=2):
    """A section with its heading; links lead to its identifier."""
    return escape([element('section', '\n', element('h%d' % level, title), '\n', *content, id=identifier), '\n'])


def table(caption, columns, rows, name=None):
    """A table in a box that scrolls sideways where the page is narrower; the first cell of each row is its heading.

    Args:
        caption: What stands above it, text or Markup.
        columns (list of str): The headings.
        rows (list of list): A cell a column; a row of one cell is a heading across all columns. A cell that is
            ``None`` or ``''`` stays empty.
        name (str or None): What the box is called to those who hear the page; the caption, where that is text.

    Returns:
        Markup

    """
    head = element('thead', element('tr', *(element('th', column, scope='col') for column in columns)))
    body = element('tbody', *(_row(row, len(columns)) for row in rows))
    # The inner span stays in view while the table scrolls below it
    whole = element('table', element('caption', element('span', caption)), '\n', head, '\n', body)
    return escape([element('div', whole, class_='scroll', role='region', aria_label=name or caption, tabindex='0'),
                   '\n'])


def _row(cells, n_columns):
    first, *others = cells
    if not others and n_columns > 1:
        return [element('tr', element('th', first, colspan=n_columns, scope='rowgroup', class_='group')), '\n']
    cells = [element('td', cell, class_='short' if _is_short(cell) else None) for cell in others]
    return [element('tr', element('th', first, scope='row'), *cells), '\n']


def _is_short(cell):
    return not isinstance(cell, Markup) and len(str(cell)) <= _SHORT


def drop_empty(columns, rows):
    """Columns, and rows (dicts by column), as :func:`table` takes them, without columns in which nothing stands."""
    kept = [column for column in columns if any(row.get(column) not in (None, '') for row in rows)]
    return kept, [[row.get(column) for column in kept] for row in rows]
