"""The full state of a run on the disk, and generators: written whole, and believed only when whole."""
import os

import chainer
import numpy as np
import yaml
from chainer import serializers
from chainer.serializers import npz

from util.config import config_from_dict
from util.files import UserError, atomic_write
from util.npz import DamagedFile, read_npz, write_npz

_ABOUT = 'about/'  # prefix of what a snapshot says about its run


def save(path, target, **about):
    """Write the state of ``target`` (a link, an optimizer, a Trainer) as npz; equal states give equal bytes.

    Args:
        path (str): The file.
        target: What to save; all its parameters must be initialized.
        about (str): Texts to keep beside it.

    Raises:
        UserError: The file cannot be written.

    """
    arrays = {**npz.serialize(target), **{_ABOUT + key: np.array(text) for key, text in about.items()}}
    with atomic_write(path) as temporary, open(temporary, 'wb') as f:
        write_npz(f, arrays)


def load(path, target, check=None):
    """Restore ``target`` from the file; nothing in ``target`` changes unless the file has all that its networks need.

    Args:
        path (str): The file.
        target: What to restore.
        check (callable): Gets the texts that were saved beside it (a dict), and raises what it likes.

    Raises:
        DamagedFile: The content of the file is broken.
        UserError: The file cannot be read, or is whole and does not fit.

    """
    arrays = read_npz(path)
    if check is not None:
        check({key[len(_ABOUT):]: str(value) for key, value in arrays.items() if key.startswith(_ABOUT)})
    load_arrays(path, target, arrays)


def load_arrays(path, target, arrays):
    """Restore ``target`` from arrays by name, which came from ``path``; nothing changes unless all are there.

    Raises:
        UserError: They do not fit.

    """
    for key, value in _expected(target).items():
        if key not in arrays:
            raise UserError('{} does not fit: it has no {}'.format(path, key))
        if value.dtype != object and arrays[key].shape != value.shape:
            raise UserError('{} does not fit: {} has shape {}, expected {}'.format(
                path, key, arrays[key].shape, value.shape))
    try:
        serializers.NpzDeserializer(arrays).load(target)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError('{} was written by another version of this program: {}'.format(path, error)) from error


def _expected(target):
    """The keys that a file must have to restore ``target``, with arrays of the right shapes."""
    serializer = npz.DictionarySerializer()
    if isinstance(target, chainer.training.Trainer):  # one that has not run cannot be serialized whole
        target.updater.serialize(serializer['updater'])
    else:
        target.serialize(serializer)
    return {key: np.asarray(value) for key, value in serializer.target.items()}


def load_generator(path, generator):
    """Restore a generator from a ``gen_iter_*.npz``. Raises UserError naming the file when it cannot be used."""
    try:
        load(path, generator)
    except DamagedFile as error:
        raise UserError('damaged file {}'.format(error)) from error


class Snapshots:
    """The snapshots of one run.

    Args:
        directory (RunDirectory): The run.
        config (Config): The run's; kept in every snapshot, and compared when one is loaded.
        data (str): The fingerprint of the run's pictures; likewise.

    """

    def __init__(self, directory, config, data):
        self._directory, self._config, self._data = directory, config, data

    def save(self, trainer, keep=2):
        """Write the state of a Trainer, and delete all but the newest ``keep`` up to its iteration."""
        iteration = trainer.updater.iteration
        save(self._directory.snapshot(iteration), trainer, config=self._config.to_yaml(), data=self._data)
        old = [i for i in self._directory.iterations('snapshot') if i <= iteration]
        for i in old[:-keep]:
            os.unlink(self._directory.snapshot(i))

    def load(self, path, trainer):
        """Restore a Trainer from a file.

        Raises:
            DamagedFile: The content of the file is broken.
            UserError: It cannot be read, or is the snapshot of another run.

        """
        load(path, trainer, lambda about: self._check(path, about))

    def load_newest(self, trainer, say):
        """Restore a Trainer from the newest whole snapshot; broken ones are set aside as ``*.damaged``.

        Args:
            trainer (chainer.training.Trainer): What to restore.
            say (callable): Gets a line for each broken snapshot.

        Returns:
            int or None: The iteration of the snapshot; ``None`` when there is none.

        """
        for iteration in reversed(self._directory.iterations('snapshot')):
            path = self._directory.snapshot(iteration)
            try:
                self.load(path, trainer)
                return iteration
            except DamagedFile as error:
                say('damaged snapshot, going back to the one before it: {}'.format(error))
                os.replace(path, path + '.damaged')
        return None

    def _check(self, path, about):
        try:
            differences = self._config.differences(config_from_dict(yaml.safe_load(about['config']), 'in ' + str(path)))
            differences += ['data: {} there, {} here'.format(about['data'], self._data)] * (about['data'] != self._data)
        except (KeyError, yaml.YAMLError) as error:
            raise UserError('{} is not the snapshot of a run: {}'.format(path, ' '.join(str(error).split()))) from error
        if differences:
            raise UserError('{} is of another run ({})'.format(path, '; '.join(differences)))
