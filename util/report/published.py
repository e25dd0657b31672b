"""Reads ``configs/published.yml``: the paper's numbers, and the user's own earlier ones."""
import os

import yaml

from util import config
from util.files import UserError

PUBLISHED = os.path.join(config.CONFIGS, 'published.yml')
_REQUIRED = ('label', 'dataset', 'scorer')
_NUMBERS = ('score', 'score_std', 'frechet_distance', 'frechet_distance_std', 'iterations')
_OPTIONAL = ('group', 'model', 'method', 'settings', 'samples', 'protocol', 'reference', 'source', 'outcome', *_NUMBERS)


def read_published(path=PUBLISHED):
    """Read ``configs/published.yml``: rows like those of runs, and lines on the paper's numbers.

    Raises:
        UserError: It is damaged, or an entry lacks a key or has an unknown one.

    """
    try:
        with open(path, encoding='utf-8') as f:
            tree = yaml.safe_load(f)
        about = [' '.join(str(tree[key]).split()) for key in ('source', 'protocol')]
        entries = [(origin, dict(entry)) for origin in ('paper', 'own') for entry in tree[origin] or ()]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError('{}: expected source, protocol, paper, own: {!r}'.format(path, str(error))) from error
    return [_published_row(path, origin, entry, order) for order, (origin, entry) in enumerate(entries)], about


def _published_row(path, origin, entry, order):
    # The paper says of some methods how they failed, and gives no number
    required = _REQUIRED + (('settings', 'source', 'score') if origin == 'own' else
                            () if 'outcome' in entry else ('score',))
    if origin == 'paper' and 'method' in entry:  # a run is found by both
        required += ('model',)
    wrong = ['{} is missing'.format(key) for key in required if entry.get(key) is None]
    wrong += ['{} is unknown'.format(key) for key in entry if key not in _REQUIRED + _OPTIONAL]
    if wrong:
        raise UserError('{}: {}: {} in {}'.format(path, origin, wrong[0], entry))
    for key in _NUMBERS:
        if type(entry.get(key, 0)) not in (int, float):
            raise UserError('{}: {}: {} must be a number, not {!r}'.format(path, origin, key, entry[key]))
    entry = {key: value if key in _NUMBERS else str(value) for key, value in entry.items()}
    return {'score': None, **entry, 'setting': entry.get('settings', ''), 'origin': origin, 'original': True,
            'order': order}
