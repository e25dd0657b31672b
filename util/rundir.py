"""The directory of a run: names of its files, who may write into it, and what is already there."""
import contextlib
import fcntl
import glob
import os
import re

from util import config as config_module
from util.files import UserError

RUNS = os.path.join(os.path.dirname(config_module.CONFIGS), 'results', 'runs')


def default_path(config, tag=None):
    """``results/runs/<dataset>-<model>-<method>-<setting>-s<seed>``, and ``-<tag>`` when there is one."""
    names = [getattr(config, section).name for section in ('dataset', 'model', 'method', 'setting')]
    return os.path.join(RUNS, '-'.join([*names, 's%d' % config.seed] + [tag] * bool(tag)))


class RunDirectory:
    """Names of the files of a run (see the table in the README). Making one touches nothing."""

    def __init__(self, path):
        self.path = os.path.abspath(path)

    def file(self, name):
        return os.path.join(self.path, name)

    @property
    def config(self):
        return self.file('config.yml')

    @property
    def environment(self):
        return self.file('environment.json')

    @property
    def done(self):
        return self.file('done')

    @property
    def diverged(self):
        return self.file('diverged')

    def generator(self, iteration):
        return self.file('gen_iter_%06d.npz' % iteration)

    def snapshot(self, iteration):
        return self.file('snapshot_iter_%06d.npz' % iteration)

    def image(self, iteration):
        return self.file(os.path.join('images', 'iter_%06d.png' % iteration))

    def iterations(self, kind):
        """Iterations of which there is a ``'gen'`` or ``'snapshot'`` file, in ascending order."""
        pattern = re.compile(kind + r'_iter_(\d{6,})\.npz')
        try:
            matches = map(pattern.fullmatch, os.listdir(self.path))
        except OSError:
            return []
        return sorted(int(m.group(1)) for m in matches if m)

    def load_config(self):
        """The Config of the run. Raises UserError when this is not the directory of a run."""
        if not os.path.isdir(self.path):
            raise UserError('{} is not a directory; expected one of a run, such as results/runs/...'.format(self.path))
        return config_module.load_config(self.config)

    def check_config(self, config):
        """Refuse to go on with another Config than the run's, naming the differences, or in a directory of no run."""
        if not os.path.exists(self.config):
            others = [name for name in _list(self.path) if not name.startswith('.')]
            if others:
                raise UserError('--out {}: it is not the directory of a run, and not empty (it has {})'.format(
                    self.path, others[0]))
            return
        differences = config.differences(self.load_config())
        if differences:
            raise UserError(
                '{} was begun with another Config ({}); give --out for a new run, or delete that directory'.format(
                    self.path, '; '.join(differences)))


class Lock:
    """Keeps a second process out of a run's directory, as a context manager; the kernel frees it however the process
    ends.

    Makes the directory. If nothing has been written into it at the end, removes what it made.

    Raises:
        UserError: Another process has the run, or the directory cannot be made or written.

    """

    def __init__(self, directory):
        self._path = directory.path

    def __enter__(self):
        self._made = _missing(self._path)
        try:
            os.makedirs(self._path, exist_ok=True)
            self._file = open(os.path.join(self._path, '.lock'), 'a')
        except OSError as error:
            self._remove_made()
            raise UserError('{}: cannot write there: {}'.format(self._path, error.strerror)) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            reason = 'another process is working on this run' if isinstance(error, BlockingIOError) else error.strerror
            raise UserError('{}: {}'.format(self._path, reason)) from error
        self._sweep()
        return self

    def _sweep(self):
        """Remove what a process left that was killed while it wrote."""
        for folder in (self._path, os.path.join(self._path, 'images')):
            for name in glob.glob(os.path.join(glob.escape(folder), '.*.tmp')):
                with contextlib.suppress(OSError):
                    os.unlink(name)

    def __exit__(self, *exc_info):
        if os.listdir(self._path) == ['.lock'] and self._made:
            os.unlink(self._file.name)
            self._remove_made()
        self._file.close()

    def _remove_made(self):
        for folder in self._made:
            try:
                os.rmdir(folder)
            except OSError:
                break


def _list(path):
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def _missing(path):
    """The folders of ``path`` that do not exist yet, innermost first."""
    missing = []
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        missing.append(path)
        path = os.path.dirname(path)
    return missing
