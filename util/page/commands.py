"""The make command that makes a run again, of the command that made it."""
import shlex

_VARIABLES = {
    '--profile': 'PROFILE', '--dataset': 'DATASET', '--model': 'MODEL', '--method': 'METHOD', '--setting': 'SETTING',
    '--protocol': 'PROTOCOL', '--scorer': 'SCORER', '--iterations': 'ITERATIONS', '--seed': 'SEED',
    '--device': 'DEVICE', '--engine': 'ENGINE', '--data-dir': 'DATA_DIR', '--out': 'OUT', '--tag': 'TAG',
    '--probe': 'PROBE', '--set': 'SET', '--gpu': 'DEVICE'}
_SHORT = {'-b': '--batchsize', '-d': '--device', '-g': '--gpu', '-o': '--out', '-r': '--resume'}
# What the Makefile has no variable for, but SET= can say
_KEYS = {'--batchsize': 'profile.batchsize', '--snapshot-interval': 'profile.snapshot_interval',
         '--evaluation-interval': 'profile.evaluation_interval', '--display-interval': 'profile.display_interval'}
_PLACES = {'DATA_DIR', 'OUT'}  # folders of the computer that it ran on
_SWITCHES = {'--tensorboard'}


def make_command(record):
    """The make command that makes a run again, from its first iteration on.

    It is that of the run's first session, with its profile and its engine, which make would choose anew, and with its
    number of threads, which can change last bits. ``...`` stands for places that are another computer's.

    Args:
        record (Record): The run.

    Returns:
        str: A line for a shell; empty where its ``environment.json`` does not say.

    """
    session, settings = record.sessions[0], record.run.config
    try:
        variables = _read_flags(session['command'][1:])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return ''
    variables['PROFILE'] = settings.profile.name
    if settings.device == 'cpu':
        # Runs that do not record an engine are older than all but Chainer's own code
        variables.setdefault('ENGINE', str(session.get('engine', 'stock') or 'auto'))
    for name in _PLACES & set(variables):
        variables[name] = '...'
    order = [*_VARIABLES.values()]
    words = ['{}={}'.format(name, shlex.quote(variables[name]).replace('$', '$$'))
             for name in sorted(variables, key=order.index)]
    threads = session.get('threads')
    prefix = ['OMP_NUM_THREADS=%d' % threads] if type(threads) is int else []
    return ' '.join([*prefix, 'make normalize', *words])


def _read_flags(words):
    """Flags of ``train.py`` as variables of the Makefile. Raises ValueError where there is no such variable."""
    variables, keys, words = {}, [], list(words)
    while words:
        flag, equals, value = words.pop(0).partition('=')
        if flag.startswith('--'):
            flag = flag.replace('_', '-')
        else:
            flag, value, equals = _SHORT[flag[:2]], flag[2:] + equals + value, flag[2:] + equals
        if flag in _SWITCHES:
            continue
        if not equals:
            value = words.pop(0)
        if flag == '--set':
            keys.append(value)
        elif flag in _KEYS:
            keys.append('{}={}'.format(_KEYS[flag], value))
        elif flag != '--resume':
            variables[_VARIABLES[flag]] = value
    if any(' ' in key for key in keys):
        raise ValueError('SET= separates keys by blanks')
    return {**variables, **({'SET': ' '.join(keys)} if keys else {})}
