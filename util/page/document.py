"""The whole page, of its sections."""
from util.page.gather import QUICK
from util.page.markup import Markup, element, escape, section
from util.page.style import style_sheet

TITLE = 'Spectral normalization for GANs: report of the runs'


def render(records, contents):
    """The page.

    Args:
        records (list of Record): All runs.
        contents (list of tuple): Identifier, title, and content (list of Markup) of each section.

    Returns:
        str: HTML.

    """
    head = element('head', '\n', element('meta', charset='utf-8'), '\n',
                   element('meta', name='viewport', content='width=device-width, initial-scale=1'), '\n',
                   element('meta', name='color-scheme', content='light dark'), '\n',
                   element('title', TITLE), '\n', element('style', Markup('\n' + style_sheet())), '\n')
    links = [element('li', element('a', title, href='#' + identifier)) for identifier, title, _ in contents]
    navigation = element('nav', element('h2', 'Contents', id='contents'), element('ol', *links),
                         aria_labelledby='contents')
    sections = [section(identifier, title, *content) for identifier, title, content in contents]
    body = element('body', '\n', element('header', '\n', element('h1', TITLE), '\n', *_introduce(records)), '\n',
                   navigation, '\n', element('main', '\n', *sections), '\n')
    return escape([Markup('<!DOCTYPE html>\n'), element('html', '\n', head, '\n', body, '\n', lang='en'), '\n'])


def _introduce(records):
    """What is here, in a few lines."""
    quick = sum(record.quick for record in records)
    datasets = ', '.join(dict.fromkeys(record.run.config.dataset.name for record in records))
    dates = [record.began for record in records if record.began]
    yield element('p', 'Runs of the reproduction kit for "Spectral Normalization for Generative Adversarial Networks" '
                       '(Miyato, Kataoka, Koyama, Yoshida; ICLR 2018) in Chainer: what ran, where, how it scored, what '
                       'it draws, and how to make it again.')
    devices = dict.fromkeys(str(session.get('device')) for record in records for session in record.sessions)
    facts = [('runs', '{} ({} finished)'.format(len(records), sum(
        record.outcome != 'NOT FINISHED' and not record.run.diverged and record.run.ended for record in records))),
             ('data sets', datasets), ('devices', '; '.join(devices)),
             ('begun', ' to '.join(dict.fromkeys((min(dates), max(dates)))) + ' UTC' if dates else '')]
    yield element('dl', *([element('dt', name), element('dd', value)] for name, value in facts if value))
    if quick:
        which = 'All runs here' if quick == len(records) else '{} of these runs'.format(quick)
        yield element('p', element('span', QUICK, class_='mark'), ' ', which,
                      ' are of the quick profile: small networks, for a first look. Their numbers say nothing about '
                      "the paper's, and are marked wherever they stand.")
