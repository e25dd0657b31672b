"""What a run was made with: ``environment.json`` of its directory."""
import datetime
import json
import os
import subprocess
import sys

from util import compat
from util.device import kind
from util.engine.threads import n_threads
from util.files import UserError, atomic_write

# What can change the last bits of a result
_DECIDING = ('device', 'engine', 'captured', 'threads', 'commit', 'versions')


def write_environment(directory, device, pictures, start, say, engine=None, captured=None):
    """Write ``environment.json``: the data, and a list of the sessions that the run was made in.

    Args:
        directory (RunDirectory): The run.
        device (chainer.backend.Device): Where it runs.
        pictures (Pictures): What it is trained on.
        start (int): The iteration that this session goes on from; from 0, earlier sessions are forgotten.
        say (callable): Gets a line when something differs from the session before that can change the last bits.
        engine (str or None): What computes, see ``util/engine/switch.py``.
        captured (bool or None): Whether iterations are captured in a CUDA graph where they can be; ``None`` on a CPU.

    Raises:
        UserError: The file cannot be written, or the one of an earlier session is damaged.

    """
    sessions = read_environment(directory).get('sessions', []) if start else []
    session = {'from_iteration': start, 'started': now(), 'command': sys.argv, 'device': device_name(device),
               'engine': engine, 'captured': captured, 'threads': n_threads(), 'commit': commit(),
               'versions': compat.versions()}
    if sessions:
        changed = [key for key in _DECIDING if sessions[-1].get(key) != session[key]]
        if changed:
            say('From iteration {} on with other {}: the last bits of the result may differ. See {}'.format(
                start, ', '.join(changed), directory.environment))
    sessions.append(session)
    data = {'source': pictures.source, 'fingerprint': pictures.fingerprint, 'pictures': len(pictures.images)}
    with atomic_write(directory.environment) as temporary, open(temporary, 'w', encoding='utf-8') as f:
        json.dump({'data': data, 'sessions': sessions}, f, indent=2)


def read_environment(directory):
    """The content of ``environment.json``, a dict; empty when there is none. Raises UserError when it is damaged."""
    if not os.path.exists(directory.environment):
        return {}
    try:
        with open(directory.environment, encoding='utf-8') as f:
            content = json.load(f)
        content['data']['fingerprint'], content['sessions'][-1].get  # noqa: B018
    except (OSError, ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise UserError('{} is damaged: {}'.format(directory.environment, error)) from error
    return content


def last_engine(directory):
    """What computed in a run's last session; ``None`` where that is not recorded, or there was none."""
    return (read_environment(directory).get('sessions') or [{}])[-1].get('engine')


def check_data(directory, pictures):
    """Refuse, with a UserError, to go on with other pictures than the run was begun with."""
    recorded = read_environment(directory).get('data', {}).get('fingerprint', pictures.fingerprint)
    if recorded != pictures.fingerprint:
        raise UserError('--data-dir: the pictures are not those that {} was begun with (fingerprint {}, was {})'.format(
            directory.path, pictures.fingerprint, recorded))


def device_name(device):
    """The device as people know it: ``'CPU, 2 cores (x86_64)'`` or ``'NVIDIA H200'``."""
    if kind(device) == 'cuda':  # pragma: no cover - gpu
        return device.xp.cuda.runtime.getDeviceProperties(device.device.id)['name'].decode()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return 'CPU, {} cores ({})'.format(cores, os.uname().machine)


def commit():
    """The commit of the code, with ``+`` when the tree differs from it; ``None`` outside a git checkout."""
    command = ['git', 'describe', '--always', '--abbrev=12', '--dirty=+', '--exclude=*']
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        described = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def now():
    """The time, UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
