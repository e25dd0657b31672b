"""Rows of ``configs/`` and the command line -> one checked, frozen Config, which is written into each run.

A row is its own schema: ``--set SECTION.KEY=VALUE`` may change the keys that the row has, to values of the same type,
and to no others. What a value must be besides is in ``RULES``.
"""
import collections.abc
import dataclasses
import difflib
import math
import os

import yaml

from util.files import UserError, atomic_write

CONFIGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'configs')
INCEPTION_MODEL = os.path.join(os.path.dirname(CONFIGS), 'inception_model')  # the weights of what scores
SECTIONS = {'dataset': 'datasets', 'model': 'models', 'method': 'methods', 'setting': 'settings', 'profile': 'profiles',
            'protocol': 'protocols'}

_COUNT = ('an integer of at least 1', lambda x: type(x) is int and x >= 1)
_PLURAL = ('an integer of at least 2', lambda x: type(x) is int and x >= 2)
_POSITIVE = ('a number above 0', lambda x: _is_number(x) and x > 0)
_SWITCH = ('true or false', lambda x: type(x) is bool)
_FRACTION = ('a number from 0 up to, not including, 1', lambda x: _is_number(x) and 0 <= x < 1)
RULES = {
    'dataset.n_classes': ('an integer of at least 0', lambda x: type(x) is int and x >= 0),
    'dataset.part': ("'unlabeled' or 'labelled'", lambda x: x in ('unlabeled', 'labelled')),
    'dataset.size': ('a multiple of 8, at least 8', lambda x: type(x) is int and x >= 8 and x % 8 == 0),
    'model.width': _COUNT, 'model.dim_z': _COUNT, 'model.slope': _FRACTION, 'model.initial_scale': _POSITIVE,
    'model.multiples': ('seven integers of at least 1', lambda x: _are_counts(x) and len(x) == 7),
    'model.last': ("'convolution' or 'deconvolution'", lambda x: x in ('convolution', 'deconvolution')),
    'model.generator': ('at least two integers of at least 1', lambda x: _are_counts(x) and len(x) >= 2),
    'model.discriminator': ('integers of at least 1', lambda x: _are_counts(x) and len(x) >= 1),
    'model.downsamplings': ('an integer of at least 0', lambda x: type(x) is int and x >= 0),
    'model.dense_bn': _SWITCH, 'model.dense_bias': _SWITCH, 'model.concat_block': _COUNT, 'model.dim_embed': _COUNT,
    'model.conditional': ("'projection', 'concat' or null", lambda x: x in ('projection', 'concat', None)),
    'method.gradient_penalty': ('a number of at least 0', lambda x: _is_number(x) and x >= 0),
    'method.coefficient': ('a number of at least 0', lambda x: _is_number(x) and x >= 0),
    'method.limit': _POSITIVE, 'method.scale': _POSITIVE, 'method.use_gamma': _SWITCH,
    'method.n_power_iteration': _COUNT, 'method.eps': ('a number of at least 0', lambda x: _is_number(x) and x >= 0),
    'method.factor': ('a number above 0, or null', lambda x: x is None or _is_number(x) and x > 0),
    'setting.alpha': _POSITIVE, 'setting.beta1': _FRACTION, 'setting.beta2': _FRACTION, 'setting.n_dis': _COUNT,
    'setting.n_gen_ratio': _COUNT,
    'setting.decay_start': ('an integer of at least 0, or null', lambda x: x is None or type(x) is int and x >= 0),
    'profile.batchsize': _COUNT, 'profile.iterations': _COUNT,
    'profile.snapshot_interval': _COUNT, 'profile.evaluation_interval': _COUNT, 'profile.display_interval': _COUNT,
    'protocol.samples': _PLURAL, 'protocol.splits': _COUNT, 'protocol.training_samples': _PLURAL,
    'protocol.training_splits': _COUNT, 'protocol.distance_samples': _PLURAL,
    'protocol.reference': ("'train', 'test' or 'all'", lambda x: x in ('train', 'test', 'all')),
    'protocol.reference_samples': ('an integer of at least 2, or null', lambda x: x is None or _PLURAL[1](x)),
    'protocol.kernel_subsets': _COUNT, 'protocol.kernel_subset_size': _PLURAL,
}
# Keys of a protocol, and keys that they must not exceed
_ORDER = (('splits', 'samples'), ('training_splits', 'training_samples'), ('distance_samples', 'samples'),
          ('distance_samples', 'training_samples'))


# Keys that the code reads of every row, whatever its kind
_REQUIRED = {
    'dataset': ('source', 'size', 'split', 'scorer', 'n_classes'), 'model': ('architecture', 'width', 'dim_z'),
    'method': ('normalization', 'loss', 'gradient_penalty'),
    'setting': ('alpha', 'beta1', 'beta2', 'n_dis', 'n_gen_ratio', 'decay_start'),
    'profile': ('batchsize', 'iterations', 'snapshot_interval', 'evaluation_interval', 'display_interval'),
    'protocol': ('samples', 'splits', 'training_samples', 'training_splits', 'distance_samples', 'reference',
                 'reference_samples', 'kernel_subsets', 'kernel_subset_size'),
}


def _are_counts(x):
    return isinstance(x, tuple) and all(type(m) is int and m >= 1 for m in x)


def _is_number(x):
    return type(x) in (int, float) and math.isfinite(x)


class Row(collections.abc.Mapping):
    """A named row of ``configs/``: an immutable mapping whose keys are attributes, too."""

    def __init__(self, name, values):
        self.__dict__['name'] = name
        self.__dict__['_values'] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

    def __getitem__(self, key):
        return self._values[key]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)

    def __getattr__(self, key):
        try:
            return self.__dict__['_values'][key]
        except KeyError:
            raise AttributeError(key) from None

    def __setattr__(self, key, value):
        raise AttributeError('a Row cannot be changed')

    def __repr__(self):
        return 'Row({!r}, {!r})'.format(self.name, self._values)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run.

    Attributes:
        dataset, model, method, setting, profile, protocol (Row): The chosen rows with what was overridden.
        seed (int): All random numbers are functions of it.
        device (str): ``'cpu'`` or ``'cuda'``: their rounding differs.

    """

    dataset: Row
    model: Row
    method: Row
    setting: Row
    profile: Row
    protocol: Row
    seed: int = 0
    device: str = 'cpu'

    def to_dict(self):
        """The Config as plain dictionaries, lists, strings and numbers."""
        result = {}
        for section in SECTIONS:
            row = getattr(self, section)
            result[section] = {'name': row.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in row.items()}}
        return {**result, 'seed': self.seed, 'device': self.device}

    def to_yaml(self):
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def save(self, path):
        """Write the Config to ``path``. Raises UserError when that is impossible."""
        with atomic_write(path) as temporary, open(temporary, 'w', encoding='utf-8') as f:
            f.write(self.to_yaml())

    def differences(self, other):
        """One line for each value in which ``other`` differs: ``'setting.alpha: 0.0002 there, 0.001 here'``."""
        here, there = _flat(self.to_dict()), _flat(other.to_dict())
        return ['{}: {} there, {} here'.format(key, there.get(key, 'absent'), here.get(key, 'absent'))
                for key in dict.fromkeys([*here, *there]) if here.get(key, '') != there.get(key, '')]


def _flat(tree):
    flat = {}
    for key, value in tree.items():
        flat.update({key + '.' + k: v for k, v in value.items()} if isinstance(value, dict) else {key: value})
    return flat


def load_config(path):
    """Read the Config of a run from its ``config.yml``.

    Raises:
        UserError: It is missing or is not a Config.

    """
    try:
        return config_from_dict(_read_yaml(path), 'in {}'.format(path))
    except KeyError as error:
        raise UserError('{} is not the config.yml of a run of this version: {} is missing or wrong'.format(
            path, error)) from error


def config_from_dict(tree, where):
    """The Config of which :meth:`Config.to_dict` gave ``tree``; ``where`` says in messages where it is from.

    Raises:
        KeyError: A key is missing or is not what it must be.
        UserError: A value cannot be.

    """
    if not isinstance(tree, dict):
        raise KeyError('everything')
    rows = {}
    for section in SECTIONS:
        if not isinstance(tree[section], dict):
            raise KeyError(section)
        values = dict(tree[section])
        rows[section] = Row(values.pop('name'), values)
        if type(rows[section].name) is not str:
            raise KeyError(section + '.name')
        for key in _REQUIRED[section]:
            if key not in values:
                raise KeyError('{}.{}'.format(section, key))
    config = Config(seed=tree['seed'], device=tree['device'], **rows)
    _check(config, where)
    if config.device not in ('cpu', 'cuda'):
        raise KeyError('device')
    return config


def resolve(dataset=None, model='cnn', method='sn', setting=None, profile='paper', overrides=(), seed=0, device='cpu',
            protocol=None, **counts):
    """Look up the rows, apply what the command line changes, and check everything.

    Args:
        dataset, model, method, setting, profile, protocol (str): Names of rows; ``None`` for dataset, setting or
            protocol is the profile's own.
        overrides (sequence of str): ``'SECTION.KEY=VALUE'`` each, VALUE in YAML.
        counts (int or None): ``batchsize``, ``iterations``, ``snapshot_interval``, ``evaluation_interval``,
            ``display_interval``: replace the profile's where not ``None``.

    Returns:
        Config

    Raises:
        UserError: An unknown row or key, or a value that cannot be.

    """
    rows = {'profile': _row('profile', profile)}
    own = {key: rows['profile'].pop(key, None) for key in _OF_PROFILE}
    names = {'dataset': dataset or own['dataset'], 'model': model, 'method': method,
             'setting': setting or own['setting'], 'protocol': protocol or own['protocol']}
    rows.update((section, _row(section, name)) for section, name in names.items())
    scale = _of_profile(profile, own, 'width_scale', _POSITIVE)
    rows['model']['width'] = max(1, round(rows['model']['width'] * scale))
    rows['profile'].setdefault('iterations', None)  # where it follows from n_dis: known below
    for key, value in counts.items():
        if value is not None and not _COUNT[1](value):
            raise UserError('--{} must be {}, not {!r}'.format(key.replace('_', '-'), _COUNT[0], value))
        rows['profile'][key] = rows['profile'][key] if value is None else value
    for override in overrides:
        _override(rows, override)
    if rows['profile']['iterations'] is None and _COUNT[1](rows['setting']['n_dis']):
        updates = _of_profile(profile, own, 'discriminator_updates', _COUNT)
        rows['profile']['iterations'] = -(-updates // rows['setting']['n_dis'])
    names['profile'] = profile
    config = Config(seed=seed, device=device, **{section: Row(names[section], rows[section]) for section in SECTIONS})
    _check(config, 'in configs/ or the command line')
    return config


def protocol_label(protocol):
    """The name of a protocol's row, with a star when the row is not what ``configs/protocols.yml`` has."""
    table = _read_yaml(os.path.join(CONFIGS, SECTIONS['protocol'] + '.yml'))
    return protocol.name + '*' * (table.get(protocol.name) != dict(protocol))


def scorer_row(dataset):
    """How the classifier of a data set is trained: its row of ``configs/scorers.yml``, or ``others`` (dict)."""
    _row('dataset', dataset)
    table = _read_yaml(os.path.join(CONFIGS, 'scorers.yml'))
    return table.get(dataset, table['others'])


# Keys of a profile that other rows or values come from; a Config does not have them.
_OF_PROFILE = ('dataset', 'setting', 'protocol', 'width_scale', 'discriminator_updates')


def _of_profile(profile, values, key, rule):
    if not rule[1](values[key]):
        raise UserError('configs/profiles.yml: {} of {} must be {}, not {!r}'.format(
            key, profile, rule[0], values[key]))
    return values[key]


def _row(section, name):
    path = os.path.join(CONFIGS, SECTIONS[section] + '.yml')
    table = _read_yaml(path)
    if not isinstance(table, dict) or name not in table:
        names = sorted(map(str, table)) if isinstance(table, dict) else []
        raise UserError('--{}: there is no {!r} in configs/{}.yml, only: {}{}'.format(
            section, name, SECTIONS[section], ', '.join(names), _guess(str(name), names)))
    if not isinstance(table[name], dict):
        raise UserError('configs/{}.yml: row {} must be a mapping'.format(SECTIONS[section], name))
    return dict(table[name])


def _override(rows, text):
    key, equals, value = text.partition('=')
    section, dot, name = key.strip().partition('.')
    if not equals or not dot:
        raise UserError('--set {}: expected SECTION.KEY=VALUE, such as --set setting.alpha=0.0001'.format(text))
    if section not in rows:
        raise UserError('--set {}: there is no section {!r}, only: {}{}'.format(
            text, section, ', '.join(SECTIONS), _guess(section, SECTIONS)))
    if name not in rows[section]:
        raise UserError('--set {}: {} has no key {!r}, only: {}{}'.format(
            text, section, name, ', '.join(rows[section]), _guess(name, rows[section])))
    rows[section][name] = _like(rows[section][name], _parse(value), text)


def _parse(text):
    for number in (int, float):  # YAML 1.1 takes 1e-4 for a string
        try:
            return number(text)
        except ValueError:
            pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError('--set: {!r} is not a YAML value'.format(text)) from error


def _like(old, new, text):
    """``new`` when it has the type of ``old``; an integer may stand for a number. A null row takes anything that RULES
    let pass.
    """
    if isinstance(old, float) and type(new) is int:
        new = float(new)
    if old is not None and new is not None and type(old) is not type(new):
        raise UserError('--set {}: expected {}, like {!r}'.format(text, _TYPES.get(type(old), type(old).__name__), old))
    return new


_TYPES = {int: 'an integer', float: 'a number', bool: 'true or false', str: 'a name', list: 'a list in [ ]'}


def check_seed(seed, where=''):
    """Raise a UserError unless ``seed`` is one; ``where`` ends the message."""
    if type(seed) is not int or not 0 <= seed < 2 ** 32:
        raise UserError('--seed must be an integer from 0 to 4294967295, not {!r}{}'.format(seed, where))


def _check(config, where):
    check_seed(config.seed, ' ({})'.format(where))
    for section in SECTIONS:
        for key, value in getattr(config, section).items():
            rule = RULES.get(section + '.' + key)
            if rule is not None and not rule[1](value):
                raise UserError('{}.{} must be {}, not {!r} ({})'.format(section, key, rule[0], value, where))
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError('{}.{} must be finite, not {!r} ({})'.format(section, key, value, where))
    if config.model.get('conditional') and config.dataset.n_classes < 2:
        raise UserError('model.conditional: {} needs classes, but dataset.n_classes is {} ({})'.format(
            config.model.conditional, config.dataset.n_classes, where))
    for key, limit in _ORDER:
        if config.protocol[key] > config.protocol[limit]:
            raise UserError('protocol.{} must not exceed protocol.{}, {} > {} ({})'.format(
                key, limit, config.protocol[key], config.protocol[limit], where))


def _guess(word, known):
    close = difflib.get_close_matches(word, list(known), 1)
    return ' (did you mean {}?)'.format(close[0]) if close else ''


def _read_yaml(path):
    try:
        with open(path, encoding='utf-8') as f:
            return yaml.safe_load(f)
    except OSError as error:
        raise UserError('cannot read {}: {}'.format(path, error.strerror)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError('{} is not valid YAML: {}'.format(path, ' '.join(str(error).split()))) from error
