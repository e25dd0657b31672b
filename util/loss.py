"""What generator and discriminator minimise: functions of the discriminator's logits (N, 1) that return a 0-d Variable.

All are batch means. Losses come in pairs, by the names of ``configs/methods.yml``: see ``LOSSES``.
"""
import typing

import chainer
import chainer.functions as F


def log_discriminator(real, fake):
    """The discriminator's standard GAN loss, -E[log D(x)] - E[log(1 - D(G(z)))] with D the sigmoid of the logits.

    Goodfellow et al. (2014); the paper's Eq. (1).
    """
    return F.mean(F.softplus(-real)) + F.mean(F.softplus(fake))


def log_generator(fake):
    """The generator's non-saturating loss, -E[log D(G(z))] (paper section 4: the form that its experiments use)."""
    return F.mean(F.softplus(-fake))


def hinge_discriminator(real, fake):
    """The discriminator's hinge loss, E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (paper Eq. 16)."""
    return F.mean(F.relu(1 - real)) + F.mean(F.relu(1 + fake))


def wasserstein_discriminator(real, fake):
    """The critic's loss, E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017; paper appendix D.4)."""
    return F.mean(fake) - F.mean(real)


def linear_generator(fake):
    """-E[D(G(z))]: the generator's loss that goes with the hinge (paper Eq. 17) and the Wasserstein loss."""
    return -F.mean(fake)


class Loss(typing.NamedTuple):
    """The two sides of a game: ``generator(fake)`` and ``discriminator(real, fake)``."""

    generator: typing.Callable
    discriminator: typing.Callable


LOSSES = {
    'log': Loss(log_generator, log_discriminator),
    'hinge': Loss(linear_generator, hinge_discriminator),
    'wasserstein': Loss(linear_generator, wasserstein_discriminator),
}


def gradient_penalty(discriminator, x_real, x_fake, epsilon):
    """E[(||gradient of D at x_hat|| - 1)^2] with x_hat = epsilon x + (1 - epsilon) G(z), one epsilon an example.

    Gulrajani et al. (2017); paper appendix D.4. It is multiplied by lambda elsewhere.

    Args:
        discriminator (callable): Takes pictures, returns logits (N, 1).
        x_real, x_fake (numpy.ndarray or cupy.ndarray): Pictures, (N, 3, H, W) float32.
        epsilon (numpy.ndarray or cupy.ndarray): (N, 1, 1, 1), in [0, 1).

    Returns:
        chainer.Variable: (), differentiable with respect to the discriminator's parameters.

    """
    x_hat = chainer.Variable(epsilon * x_real + (1 - epsilon) * x_fake)
    gradient, = chainer.grad([F.sum(discriminator(x_hat))], [x_hat], enable_double_backprop=True)
    norm = F.sqrt(F.batch_l2_norm_squared(gradient) + 1e-24)  # the root's own gradient is infinite at 0
    return F.mean((norm - 1) ** 2)
