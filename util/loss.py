"""What generator and discriminator minimise: functions of the discriminator's logits (N, 1) that return a 0-d Variable.
"""
import chainer.functions as F


def log_discriminator(real, fake):
    """The discriminator's standard GAN loss, -E[log D(x)] - E[log(1 - D(G(z)))] with D the sigmoid of the logits.

    Goodfellow et al. (2014); the paper's Eq. (1). Batch means, as in the official code.
    """
    return F.mean(F.softplus(-real)) + F.mean(F.softplus(fake))


def log_generator(fake):
    """The generator's non-saturating loss, -E[log D(G(z))] (paper section 4: the form that its experiments use)."""
    return F.mean(F.softplus(-fake))


LOSSES = {
    'log': (log_generator, log_discriminator),
}
