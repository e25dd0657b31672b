"""The steps of a run, ``util.updater.GANUpdater``, by an engine of ``util.engine``."""
from util import trainer  # isort: skip  (before Chainer, which needs util.compat)

import chainer

from benchmarks import cases
from util.engine import switch


def make_steps(engine, config):
    """Install an engine in this process, and make the steps of a Config on random pictures.

    Args:
        engine (str): One of ``util.engine.switch.ENGINES``.
        config (Config): What is trained.

    Returns:
        dict: ``'D'`` and ``'G'`` -> callable.

    Raises:
        UserError: The engine cannot be loaded.

    """
    switch.install(engine)
    updater = trainer.build(config, chainer.get_device('@numpy'), cases.random_images(config)).updater
    return {'D': lambda: updater.update_discriminator(0), 'G': updater.update_generator}
