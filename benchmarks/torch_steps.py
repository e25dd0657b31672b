"""The steps of ``util.updater.GANUpdater`` in PyTorch, as one would write them there."""
import typing

import torch
from torch.nn import functional

from benchmarks import cases, torch_networks
from util.engine.memory import keep_memory
from util.engine.threads import n_threads

_BELOW_256 = 255.99998474121094  # the float32 before 256


def log_discriminator(real, fake):
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def log_generator(fake):
    return functional.softplus(-fake).mean()


def hinge_discriminator(real, fake):
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def wasserstein_discriminator(real, fake):
    return fake.mean() - real.mean()


def linear_generator(fake):
    return -fake.mean()


# As util.loss.LOSSES: of the generator, of the discriminator
LOSSES = {'log': (log_generator, log_discriminator), 'hinge': (linear_generator, hinge_discriminator),
          'wasserstein': (linear_generator, wasserstein_discriminator)}


def gradient_penalty(discriminator, x_real, x_fake, epsilon):
    """As :func:`util.loss.gradient_penalty`."""
    x_hat = torch.lerp(x_fake, x_real, epsilon).requires_grad_()
    gradient, = torch.autograd.grad(discriminator(x_hat).sum(), x_hat, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


class Variant(typing.NamedTuple):
    """What a user of PyTorch may choose without changing what is computed.

    By default the memory format and the Adam that are fastest in general, and memory as PyTorch leaves it.

    Measured at full size on two cores (Xeon with AVX-512, PyTorch 2.13), seconds, minimum of the rounds:

    ======================  =====  =====  ========  ========  =========
    ..                      cnn D  cnn G  resnet D  resnet G  wgan_gp D
    ======================  =====  =====  ========  ========  =========
    channels last, fused    0.340  0.268  1.303     5.165     0.731
    channels last           0.345  0.273  1.293     5.137     0.729
    fused                   0.357  0.279  1.914     7.384     0.697
    neither (the defaults)  0.364  0.271  1.936     7.410     0.719
    ======================  =====  =====  ========  ========  =========

    Memory is a matter of the process, so it is not among the defaults. It counts for the ResNet: with ``kept``,
    in another run of these, 0.362, 0.284, 1.086, 3.625 and 0.745, and without 0.366, 0.288, 1.262, 5.814 and 0.763.
    """

    channels_last: bool = True  # the memory format, instead of NCHW
    fused: bool = True  # Adam in one pass over the numbers
    kept: bool = False  # malloc keeps what is freed, as the engines of this project let it; PyTorch leaves it as it is


VARIANTS = {'pytorch': Variant(), 'pytorch-nchw': Variant(channels_last=False), 'pytorch-unfused': Variant(fused=False),
            'pytorch-kept': Variant(kept=True)}


class Steps:
    """Networks, optimizers and pictures of a run, and its two steps.

    Args:
        config (Config): What is trained; see :func:`benchmarks.torch_networks.build`.
        images (numpy.ndarray): The pictures to train on, uint8 (N, 3, H, W).
        variant (Variant): How.

    """

    def __init__(self, config, images, variant=VARIANTS['pytorch']):
        setting, self.method, self.batchsize = config.setting, config.method, config.profile.batchsize
        self.n_gen_ratio = setting.n_gen_ratio
        self.generator_loss, self.discriminator_loss = LOSSES[config.method.loss]
        self.memory_format = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.generator, self.discriminator = (network.to(memory_format=self.memory_format)
                                              for network in torch_networks.build(config))
        self.gen_optimizer, self.dis_optimizer = (
            torch.optim.Adam(network.parameters(), setting.alpha, (setting.beta1, setting.beta2), fused=variant.fused)
            for network in (self.generator, self.discriminator))
        self._images, self._order = torch.from_numpy(images), ()

    def update_generator(self):
        """One step of the generator; returns the loss."""
        return self.generator_step(self._latent(self.n_gen_ratio * self.batchsize))

    def generator_step(self, z):
        """The same with z (N, dim_z) given."""
        self.discriminator.requires_grad_(False)  # its weights need no gradient here
        loss = self.generator_loss(self.discriminator(self.generator(z)))
        self.gen_optimizer.zero_grad()
        loss.backward()
        self.gen_optimizer.step()
        self.discriminator.requires_grad_(True)
        return loss.detach()

    def update_discriminator(self):
        """One step of the discriminator on new pictures; returns the loss, with its penalty."""
        x_real = self._batch()
        z, epsilon = self._latent(len(x_real)), torch.rand(len(x_real), 1, 1, 1)
        return self.discriminator_step(x_real, z, epsilon)

    def discriminator_step(self, x_real, z, epsilon):
        """The same with the pictures (N, 3, H, W), z (N, dim_z) and the penalty's epsilon (N, 1, 1, 1) given."""
        with torch.no_grad():
            x_fake = self.generator(z)
        loss = self.discriminator_loss(self.discriminator(x_real), self.discriminator(x_fake))
        if self.method.gradient_penalty:
            penalty = gradient_penalty(self.discriminator, x_real, x_fake, epsilon)
            loss = loss + self.method.gradient_penalty * penalty
        self.dis_optimizer.zero_grad()
        loss.backward()
        self.dis_optimizer.step()
        return loss.detach()

    def _latent(self, n):
        return torch.randn(n, self.generator.dim_z)

    def _batch(self):
        """The next pictures of an endless sequence of epochs, dequantised as :func:`util.dataset.to_float` does."""
        if len(self._order) < self.batchsize:
            self._order = torch.randperm(len(self._images))
        indices, self._order = self._order[:self.batchsize], self._order[self.batchsize:]
        x = self._images[indices] + torch.rand(len(indices), *self._images.shape[1:])
        return x.clamp_(max=_BELOW_256).mul_(1 / 128).sub_(1).contiguous(memory_format=self.memory_format)


def make_steps(engine, config):
    """Make the steps of a Config on random pictures, with as many threads as NumPy's BLAS has.

    Args:
        engine (str): One of ``VARIANTS``.
        config (Config): What is trained.

    Returns:
        dict: ``'D'`` and ``'G'`` -> callable.

    """
    torch.set_num_threads(n_threads())
    torch.manual_seed(0)
    if VARIANTS[engine].kept:
        keep_memory()
    steps = Steps(config, cases.random_images(config), VARIANTS[engine])
    return {'D': steps.update_discriminator, 'G': steps.update_generator}
