"""One iteration: a generator step and n_dis discriminator steps (paper Algorithm 1 inside the usual GAN game)."""
import chainer

from util import noise


class GANUpdater(chainer.training.updaters.StandardUpdater):
    """Updates a generator once and a discriminator ``n_dis`` times an iteration, in the official code's order:
    generator first.

    All random numbers are functions of (seed, iteration, purpose, step), so the state is that of Chainer's own updater:
    parameters, optimizers, the iterator's counter and the iteration.

    Reports ``gen/loss``, ``dis/loss`` (of the iteration's last step) and what ``observe`` gives.

    Args:
        iterator (chainer.dataset.Iterator): Yields real pictures, (N, 3, H, W) float32 on the device.
        optimizers (dict): Chainer optimizers ``gen`` and ``dis``, set up on the networks.
        generator_loss, discriminator_loss (callable): Functions of logits, see ``util/loss.py``.
        n_dis (int): Discriminator steps an iteration.
        batchsize (int): Number of generated pictures a step.
        seed (int): The run's seed.
        observe (callable): Takes the discriminator, returns a dict of further 0-d arrays to report, such as its sigmas.

    """

    def __init__(self, iterator, optimizers, generator_loss, discriminator_loss, n_dis, batchsize, seed, observe=None):
        super().__init__(iterator, optimizers)
        self.generator, self.discriminator = optimizers['gen'].target, optimizers['dis'].target
        self.generator_loss, self.discriminator_loss = generator_loss, discriminator_loss
        self.n_dis, self.batchsize, self.seed = n_dis, batchsize, seed
        self._observe = observe

    def update_core(self):
        self.update_generator()
        for step in range(self.n_dis):
            self.update_discriminator(step)
        if self._observe is not None:
            chainer.report(self._observe(self.discriminator))

    def update_generator(self):
        """One step of the generator against the discriminator as it is."""
        x_fake = self.generator(self.latent('z of generator step'))
        loss = self.generator_loss(self.discriminator(x_fake))
        # Backward in two parts: the discriminator's weights need no gradient here, and chainer.grad leaves them out.
        x_fake.grad_var, = chainer.grad([loss], [x_fake])
        self.generator.cleargrads()
        x_fake.backward()
        self.get_optimizer('gen').update()
        chainer.report({'loss': loss.array}, self.generator)

    def update_discriminator(self, step):
        """Step number ``step`` of the iteration's discriminator steps: new real pictures and a new z each."""
        x_real = self.get_iterator('main').next()
        with chainer.no_backprop_mode():
            x_fake = self.generator(self.latent('z of discriminator step', step))
        # Two forwards, as in the official code: each advances the power iteration and has its own sigma.
        loss = self.discriminator_loss(self.discriminator(x_real), self.discriminator(x_fake.array))
        self.discriminator.cleargrads()
        loss.backward()
        self.get_optimizer('dis').update()
        chainer.report({'loss': loss.array}, self.discriminator)

    def latent(self, purpose, step=0):
        """z ~ N(0, I), (batchsize, dim_z) float32 on the generator's device."""
        shape = (self.batchsize, self.generator.dim_z)
        return noise.normal(self.generator.xp, shape, self.seed, self.iteration, purpose, step)
