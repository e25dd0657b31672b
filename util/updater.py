"""One iteration: a generator step and n_dis discriminator steps (paper Algorithm 1 inside the usual GAN game)."""
import typing

import chainer

from util import noise
from util.loss import gradient_penalty
from util.normalization import Normalization, observe


class DiscriminatorDraws(typing.NamedTuple):
    """What is drawn for a discriminator step: arrays on the device, ``None`` where there is nothing to draw."""

    x_real: typing.Any   # real pictures, (N, 3, H, W)
    y_real: typing.Any   # their classes, (N,)
    z: typing.Any        # of the generated pictures, (N, dim_z)
    y_fake: typing.Any   # their classes
    epsilon: typing.Any  # where the gradient penalty looks, (N, 1, 1, 1)


def _copies(arrays):
    return tuple(None if array is None else array.copy() for array in arrays)


class Draws(typing.NamedTuple):
    """What is drawn for an iteration."""

    generator: tuple     # z and classes
    discriminator: list  # DiscriminatorDraws of each step

    def copy(self):
        """The same in new arrays."""
        return Draws(_copies(self.generator), [DiscriminatorDraws(*_copies(step)) for step in self.discriminator])

    def fill(self, other):
        """Put others' numbers, of the same shapes, into these arrays."""
        for mine, others in zip((self.generator, *self.discriminator), (other.generator, *other.discriminator),
                                strict=True):
            for array, new in zip(mine, others, strict=True):
                if array is not None:
                    array[...] = new


class GANUpdater(chainer.training.updaters.StandardUpdater):
    """Updates a generator once and a discriminator ``n_dis`` times an iteration, in the official code's order:
    generator first.

    All random numbers are functions of (seed, iteration, purpose, step), so the state is that of Chainer's own updater:
    parameters, optimizers, the iterator's counter and the iteration.

    Reports ``gen/loss``, ``dis/loss`` (of the iteration's last step, without penalties), ``dis/gradient_penalty`` and
    ``dis/penalty`` (each times its coefficient) where there is one, and ``sigma/<layer>``.

    Args:
        iterator (chainer.dataset.Iterator): Yields real pictures, (N, 3, H, W) float32, on the device; with labels,
            int32 (N,), beside them when the discriminator has classes.
        optimizers (dict): Chainer optimizers ``gen`` and ``dis``, set up on the networks.
        loss (util.loss.Loss): The game's two losses.
        n_dis (int): Discriminator steps an iteration.
        batchsize (int): Number of generated pictures in a discriminator step.
        seed (int): The run's seed.
        normalization (Normalization): What is done to the discriminator; its penalty and its constraint are used here.
        gradient_penalty (float): The lambda of :func:`util.loss.gradient_penalty`; 0 leaves it out.
        n_gen_ratio (int): A generator step takes this many times ``batchsize`` pictures (official: n_gen_samples).

    """

    def __init__(self, iterator, optimizers, loss, n_dis, batchsize, seed, normalization=None, gradient_penalty=0,
                 n_gen_ratio=1):
        super().__init__(iterator, optimizers)
        self.generator, self.discriminator = optimizers['gen'].target, optimizers['dis'].target
        self.loss, self.n_dis, self.batchsize, self.seed = loss, n_dis, batchsize, seed
        self.normalization = normalization or Normalization()
        self.gradient_penalty, self.n_gen_ratio = gradient_penalty, n_gen_ratio
        self._draws = None  # those that compute() works with

    def update_core(self):
        self.compute(self.draw())

    def draw(self):
        """Draw all that is random in the iteration at hand, and its real pictures.

        Returns:
            Draws

        """
        return Draws(self._draw_for_generator(), [self._draw_for_discriminator(i) for i in range(self.n_dis)])

    def compute(self, draws):
        """Do an iteration with what was drawn for it: all of its work, and nothing that only the host knows."""
        self._draws = draws
        try:
            self.update_generator()
            for step in range(self.n_dis):
                self.update_discriminator(step)
            self.report(observe(self.discriminator))
        finally:
            self._draws = None

    def report(self, values, observer=None):
        """``chainer.report``."""
        chainer.report(values, observer)

    def update_generator(self):
        """One step of the generator against the discriminator as it is, with what :meth:`compute` was given, or else
        with what is drawn now.
        """
        z, y = self._draws.generator if self._draws else self._draw_for_generator()
        x_fake = self.generator(z, y)
        loss = self.loss.generator(self.discriminator(x_fake, y))
        # Backward in two parts: the discriminator's weights need no gradient here, and chainer.grad leaves them out.
        x_fake.grad_var, = chainer.grad([loss], [x_fake])
        self.generator.cleargrads()
        x_fake.backward()
        self.get_optimizer('gen').update()
        self.report({'loss': loss.array}, self.generator)

    def update_discriminator(self, step):
        """Step number ``step`` of the iteration's discriminator steps: new real pictures and a new z each."""
        drawn = self._draws.discriminator[step] if self._draws else self._draw_for_discriminator(step)
        x_real, y_real, y_fake = drawn.x_real, drawn.y_real, drawn.y_fake
        with chainer.no_backprop_mode():
            x_fake = self.generator(drawn.z, y_fake).array
        # Two forwards, as in the official code: each advances the power iteration and has its own sigma.
        loss = self.loss.discriminator(self.discriminator(x_real, y_real), self.discriminator(x_fake, y_fake))
        penalties = self.penalties(drawn, x_fake)
        self.discriminator.cleargrads()
        sum(penalties.values(), loss).backward()
        self.get_optimizer('dis').update()
        self.normalization.constrain(self.discriminator)
        self.report({'loss': loss.array, **{name: p.array for name, p in penalties.items()}}, self.discriminator)

    def penalties(self, drawn, x_fake):
        """What is added to the discriminator's loss: name -> 0-d Variable."""
        penalties = {}
        if self.gradient_penalty:
            penalties['gradient_penalty'] = self.gradient_penalty * gradient_penalty(
                lambda x: self.discriminator(x, drawn.y_real), drawn.x_real, x_fake, drawn.epsilon)
        penalty = self.normalization.penalty(self.discriminator)
        return penalties if penalty is None else {**penalties, 'penalty': penalty}

    def _draw_for_generator(self):
        return self.latent('generator step', self.n_gen_ratio * self.batchsize)

    def _draw_for_discriminator(self, step):
        batch = self.get_iterator('main').next()
        x_real, y_real = batch if isinstance(batch, tuple) else (batch, None)
        z, y_fake = self.latent('discriminator step', self.batchsize, step)
        epsilon = None
        if self.gradient_penalty:
            shape = (self.batchsize, 1, 1, 1)
            epsilon = noise.uniform(self.generator.xp, shape, self.seed, self.iteration, 'gradient penalty', step)
        return DiscriminatorDraws(x_real, y_real, z, y_fake, epsilon)

    def latent(self, purpose, n, step=0):
        """z ~ N(0, I), (n, dim_z) float32, and classes, int32 (n,), all alike likely, or ``None``; on the device."""
        xp, classes = self.generator.xp, self.generator.n_classes
        z = noise.normal(xp, (n, self.generator.dim_z), self.seed, self.iteration, 'z of ' + purpose, step)
        if not classes:
            return z, None
        return z, noise.integers(xp, classes, (n,), self.seed, self.iteration, 'classes of ' + purpose, step)
