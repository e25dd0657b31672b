"""Puts a run together from a Config and carries it through: models, optimizers, updater, extensions, snapshots, resume.
"""
import dataclasses
import functools
import json
import os
import signal
import sys

import chainer
from chainer.training import extensions

import model
from util import dataset, loss, normalization, snapshot, validation
from util.captured import CapturedGANUpdater
from util.device import kind
from util.engine.flat_adam import FlatAdam
from util.engine.switch import current
from util.environment import check_data, now, write_environment
from util.files import UserError, atomic_write
from util.generate_fake_image import GenerateFakeImage, SaveGenerator
from util.generate_inception_score import GenerateInceptionScore, make_run_scorer
from util.npz import DamagedFile
from util.probe import Probe
from util.rundir import Lock
from util.scorer import load_scorer
from util.summaries import LogReport
from util.tensorboard import WriteTensorBoard, check_package
from util.updater import GANUpdater
from util.watch import EveryOrLast, NonNumberError, StopOnNonNumber, StopTrigger, Terminal, WriteLog

STATUS_DIVERGED = 3


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of, before there is a Trainer."""

    generator: chainer.Chain
    discriminator: chainer.Chain
    updater: GANUpdater


def build_networks(config):
    """Build the networks of a Config, on the CPU; all initial numbers are functions of the seed.

    Returns:
        tuple: The generator, the discriminator, and what is done to it (Normalization).

    Raises:
        UserError: The Config names a normalization that does not exist, or networks that cannot be built.

    """
    size, seed, n_classes = config.dataset.size, config.seed, config.dataset.n_classes
    normalizing = normalization.make(config.method, seed)
    return (model.build_generator(config.model, size, seed, n_classes),
            model.build_discriminator(config.model, size, seed, normalizing, n_classes), normalizing)


def build(config, device, images, labels=None, networks=None, capture=False, say=print):
    """Build networks, optimizers and updater on a device; all initial numbers are functions of the seed.

    Args:
        config (Config): The run's.
        device (chainer.backend.Device): Where everything lives.
        images (numpy.ndarray): The pictures to train on, uint8 (N, 3, H, W).
        labels (numpy.ndarray or None): Their classes, int32 (N,), for conditional networks.
        networks (tuple or None): What :func:`build_networks` returned; ``None``: it is called.
        capture (bool): Have iterations captured in a CUDA graph, on a GPU.
        say (callable): Gets a line where that cannot be done.

    Returns:
        Parts

    Raises:
        UserError: The Config names a loss or a normalization that does not exist, or networks that cannot be built.

    """
    method, setting, profile = config.method, config.setting, config.profile
    if method.loss not in loss.LOSSES:
        raise UserError('method.loss must be one of {}, not {!r}'.format(', '.join(loss.LOSSES), method.loss))
    generator, discriminator, normalizing = networks or build_networks(config)
    optimizers, Adam = {}, optimizer_for(device)
    for name, network in (('gen', generator), ('dis', discriminator)):
        network.to_device(device)
        optimizers[name] = Adam(setting.alpha, setting.beta1, setting.beta2).setup(network)
    normalizing.constrain(discriminator)  # the first weights, too
    iterator = dataset.BatchIterator(images, profile.batchsize, config.seed, device,
                                     labels if discriminator.n_classes else None)
    make_updater = functools.partial(CapturedGANUpdater, say=say) if capture else GANUpdater
    updater = make_updater(iterator, optimizers, loss.LOSSES[method.loss], setting.n_dis, profile.batchsize,
                           config.seed, normalizing, method.gradient_penalty, setting.n_gen_ratio)
    return Parts(generator, discriminator, updater)


def optimizer_for(device):
    """The class of both optimizers: the same Adam everywhere, of one launch an update on a GPU."""
    return FlatAdam if kind(device) == 'cuda' else chainer.optimizers.Adam


def can_capture(device):
    """Whether iterations on a device are worth the attempt to capture them: the engine in use has no cuBLAS in it."""
    return kind(device) == 'cuda' and current().startswith('cudnn')


def train(config, device, directory, data_dir=None, scorer_name=None, resume=None, say=print, capture='no',
          probe=None, tensorboard=False):
    """Train, or go on with, the run in ``directory`` until its last iteration.

    Args:
        config (Config): What to run.
        device (chainer.backend.Device): Where; its kind must be the Config's.
        directory (RunDirectory): Where everything is written. A finished run is left as it is.
        data_dir (str or None): A copy of the data at hand.
        scorer_name (str or None): ``None``: the data set's own; ``'none'``: pictures only.
        resume (str or None): Go on from this snapshot instead of the run's newest.
        say (callable): Gets lines for the user.
        capture (str): ``'auto'``: capture iterations in a CUDA graph where that can be done; ``'no'``: do not.
        probe (int or None): Iterations between two looks at the discriminator, for figures; 0: none. ``None``: as
            between two snapshots.
        tensorboard (bool): Write for TensorBoard, too.

    Returns:
        int: Exit status: 0; 128 plus the signal that stopped the run; 3 when training has diverged.

    Raises:
        UserError: Bad input or environment; nothing was written then that was not complete.

    """
    if tensorboard:
        check_package()
    directory.check_config(config)
    if os.path.exists(directory.done):
        say('{} is finished already'.format(directory.path))
        return 0
    if os.path.exists(directory.diverged) and resume is None:
        say('{} has diverged, which is its result; delete {} to go on from its newest snapshot'.format(
            directory.path, directory.diverged))
        return STATUS_DIVERGED
    device.use()
    with Lock(directory):
        # What can be refused at once comes first, and the scorer before the data, which may be many
        dataset.check_data_dir(config.dataset.source, data_dir)
        networks = build_networks(config)
        network = load_scorer(scorer_name or config.dataset.scorer, device)
        pictures = dataset.load(config.dataset, split=config.dataset.split, data_dir=data_dir)
        check_data(directory, pictures)
        if config.model.get('conditional'):
            dataset.check_classes(pictures, config.dataset.n_classes)
        scorer = make_run_scorer(network, config, pictures, data_dir, say=say)
        if scorer is None:
            say('No scorer for {}: this run draws pictures only.'.format(config.dataset.name))
        if (config.setting.decay_start or 0) >= config.profile.iterations:
            say('setting.decay_start is {}, and the last iteration {}: alpha does not fall in this run.'.format(
                config.setting.decay_start, config.profile.iterations))
        captured = capture == 'auto' and can_capture(device)
        parts = build(config, device, pictures.images, pictures.labels, networks, captured, say)
        stop = StopTrigger(config.profile.iterations)
        snapshots = snapshot.Snapshots(directory, config, pictures.fingerprint)
        samples = {} if probe == 0 else validation.load_samples(config, pictures, data_dir, say)
        trainer = make_trainer(config, directory, parts, stop, snapshots, scorer, probe, samples)
        if tensorboard:
            extend_with_tensorboard(trainer, config, directory)
        start = restore(trainer, directory, snapshots, resume, stop.last, say)
        if not os.path.exists(directory.config):
            config.save(directory.config)
        if os.path.exists(directory.diverged):  # and --resume wants to try again
            os.unlink(directory.diverged)
        write_environment(directory, device, pictures, start, say, current(),
                          captured if kind(device) == 'cuda' else None)
        return run(trainer, directory, stop, 'the same command without --resume' if resume else 'the same command', say)


def make_trainer(config, directory, parts, stop, snapshots, scorer, probe=None, samples=None):
    """Make the Chainer Trainer with all its extensions; ``probe`` as of :func:`train`, ``samples`` of ``Probe``."""
    profile = config.profile
    trainer = chainer.training.Trainer(parts.updater, stop, out=directory.path)
    evaluate, display, save = (EveryOrLast(period, profile.iterations) for period in (
        profile.evaluation_interval, profile.display_interval, profile.snapshot_interval))
    look = EveryOrLast(probe or profile.snapshot_interval, profile.iterations)
    models = {'gen': parts.generator, 'dis': parts.discriminator}
    trainer.extend(StopOnNonNumber(models, profile.display_interval, (stop.latch, evaluate, save, look),
                                   parts.updater.get_all_optimizers().values()))
    if probe != 0:
        trainer.extend(Probe(parts.updater, directory, samples), trigger=look)
    evaluations = [SaveGenerator(parts.generator, directory),
                   GenerateFakeImage(parts.generator, directory, config.seed)]
    columns = ['iteration', 'gen/loss', 'dis/loss']
    if scorer is not None:
        evaluations.append(GenerateInceptionScore(parts.generator, scorer, directory, profile.iterations))
        columns += ['score/mean', 'score/frechet']
    for extension in evaluations:
        trainer.extend(extension, trigger=evaluate, call_before_training=True)
    decay(trainer, config)
    trainer.extend(LogReport(trigger=display, filename=None))
    trainer.extend(WriteLog(directory), trigger=display)
    trainer.extend(extensions.PrintReport(columns + ['elapsed_time'], out=Terminal()), trigger=display)
    if sys.stdout.isatty():
        trainer.extend(extensions.ProgressBar(update_interval=1))
    trainer.extend(SaveSnapshot(snapshots), trigger=lambda t: stop.latched or save(t))
    return trainer


def extend_with_tensorboard(trainer, config, directory):
    """Let a Trainer write for TensorBoard whenever it adds to the log or draws a grid."""
    display, evaluate = (EveryOrLast(period, config.profile.iterations) for period in (
        config.profile.display_interval, config.profile.evaluation_interval))
    trainer.extend(WriteTensorBoard(directory), trigger=lambda t: display(t) or evaluate(t), call_before_training=True)


def decay(trainer, config):
    """Let both optimizers' alpha fall linearly to 0 from ``setting.decay_start`` to the last iteration, and log it."""
    start, last, alpha = config.setting.decay_start, config.profile.iterations, config.setting.alpha
    if start is None or start >= last:
        return
    for name, optimizer in trainer.updater.get_all_optimizers().items():
        trainer.extend(extensions.LinearShift('alpha', (alpha, 0), (start, last), optimizer), name=name + ' decay')
    trainer.extend(extensions.observe_value('alpha', lambda t: t.updater.get_optimizer('dis').alpha),
                   trigger=(1, 'iteration'))


class SaveSnapshot(chainer.training.Extension):
    """Trainer extension: writes the full state, after all other extensions."""

    priority = -100

    def __init__(self, snapshots):
        self._snapshots = snapshots

    def __call__(self, trainer):
        self._snapshots.save(trainer)


def restore(trainer, directory, snapshots, resume, last, say):
    """Go back to the newest whole snapshot, or the given one; returns its iteration, 0 without one."""
    if resume:
        try:
            snapshots.load(resume, trainer)
        except DamagedFile as error:
            raise UserError('--resume: damaged file {}'.format(error)) from error
        iteration = trainer.updater.iteration
        if iteration >= last and not os.path.exists(directory.generator(last)):
            raise UserError('--resume {}: it is of the last iteration, and nothing is left to do'.format(resume))
    else:
        before = directory.iterations('snapshot')
        iteration = snapshots.load_newest(trainer, say)
        if before and iteration is None:
            say('No snapshot of {} is usable: starting again from the first iteration.'.format(directory.path))
    if iteration is not None:
        say('Going on from iteration {}.'.format(iteration))
    return iteration or 0


def run(trainer, directory, stop, command, say):
    """Run the Trainer to its end, a signal or the first NaN; returns the exit status."""
    try:
        with stop:
            trainer.run(show_loop_exception_msg=False)
    except NonNumberError as error:
        with atomic_write(directory.diverged) as temporary, open(temporary, 'w') as f:
            json.dump({'iteration': error.iteration, 'reason': str(error), 'finished': now()}, f)
        say('Training has diverged: {}. {}'.format(error, _how_far(directory)))
        return STATUS_DIVERGED
    iteration = trainer.updater.iteration
    if iteration < stop.last:
        say('Stopped by {} at iteration {}; {} goes on from there ({}).'.format(
            signal.Signals(stop.signal).name, iteration, command, directory.path))
        return 128 + stop.signal
    with atomic_write(directory.done) as temporary, open(temporary, 'w') as f:
        json.dump({'iteration': iteration, 'elapsed_time': trainer.elapsed_time, 'finished': now()}, f)
    say('Finished: {}'.format(directory.path))
    return 0


def _how_far(directory):
    kept = directory.iterations('snapshot')
    if not kept:
        return 'There is no snapshot before that.'
    return 'The last state before that is {}.'.format(directory.snapshot(kept[-1]))
