"""Scaled and bidirectional spectral normalization (SSN, BSN, BSSN) as link hooks.

*Why Spectral Normalization Stabilizes GANs: Analysis and Improvements* (Lin, Sekar, Fanti; NeurIPS 2021,
arXiv 2009.02773).
"""
import chainer
import chainer.functions as F
import chainer.links as L
from chainer import backend

from util.normalization import power_iteration
from util.normalization.spectral import SpectralNormalization, is_finite
from util.normalization.weight_hook import output_axis


class ScaledSpectralNormalization(SpectralNormalization):
    """Spectral normalization times a constant: W_bar = scale W / sigma.

    Args:
        scale (float): The constant.
        n_power_iteration, eps, name, weight_name, rng: As of
            :class:`~util.normalization.spectral.SpectralNormalization`.

    """

    name = 'ScaledSpectralNormalization'

    def __init__(self, scale=1.0, n_power_iteration=1, eps=1e-12, name=None, weight_name='W', rng=None):
        if not is_finite(scale) or scale <= 0:
            raise ValueError('scale must be a number above 0, not {!r}'.format(scale))
        super().__init__(n_power_iteration, eps, scale, name=name, weight_name=weight_name, rng=rng)


class BidirectionalSpectralNormalization(ScaledSpectralNormalization):
    """Divides a convolution's weight by the mean of two largest singular values: those of the weight as an
    out x (in k k) and as an in x (out k k) matrix.

    W_bar = scale W / sigma_w with sigma_w = (sigma_1 + sigma_2) / 2, which is also what :meth:`sigma` gives. With scale
    1 this is BSN, with another one BSSN. A weight of two axes (``Linear``, ``EmbedID``) has one largest singular value
    and is normalized by that, as in the authors' code.

    Two vectors are kept, each with one round of the power method a call: ``<weight_name>_u``, (d_out,), and
    ``<weight_name>_u_in``, (d_in,). As in :class:`~util.normalization.spectral.SpectralNormalization`, and unlike in
    the authors' code, they advance in every call in training mode, and are constants of the gradient.

    Args:
        scale, n_power_iteration, eps, name, weight_name, rng: As of :class:`ScaledSpectralNormalization`.

    """

    name = 'BidirectionalSpectralNormalization'

    def __init__(self, scale=1.0, n_power_iteration=1, eps=1e-12, name=None, weight_name='W', rng=None):
        super().__init__(scale, n_power_iteration, eps, name, weight_name, rng)
        self.second_vector_name = weight_name + '_u_in'

    def _has_two(self, link):
        """Whether the weight has, or will have, more than two axes."""
        weight = getattr(link, self.weight_name)
        return weight.ndim > 2 if weight.is_initialized else not isinstance(link, L.Linear)

    def _names(self, link):
        return super()._names(link) + (self.second_vector_name,) * self._has_two(link)

    def attach(self, link):
        if self._has_two(link):
            link.add_persistent(self.second_vector_name, None)
        super().attach(link)

    def sigma_axes(self, link):
        return tuple(axis for _, axis in self._directions(link)) if self._has_two(link) else super().sigma_axes(link)

    def _prepare(self, link):
        super()._prepare(link)
        if hasattr(link, self.second_vector_name):
            self._prepare_vector(link, self.second_vector_name, 1 - output_axis(link), 'inputs')

    def can_be_ready(self, link):
        return not hasattr(link, self.second_vector_name) and super().can_be_ready(link)

    def normalize_weight(self, link):
        weight, config = getattr(link, self.weight_name), chainer.config
        if not hasattr(link, self.second_vector_name):
            return super().normalize_weight(link)
        self._prepare(link)
        with chainer.using_device(link.device):
            latest = getattr(link, self._latest_name)
            if not config.in_recomputing or latest is None:
                latest = [self._iterate(link, name, axis) for name, axis in self._directions(link)]
            direction = sum(self._gradient_of_sigma(weight, axis, u, v)
                            for (_, axis), (u, v) in zip(self._directions(link), latest, strict=True)) / 2
            W = weight if weight.dtype == direction.dtype else F.cast(weight, direction.dtype)
            sigma = F.sum(W * direction)  # u^T W v, averaged; its gradient is ``direction``
            if not config.in_recomputing:
                setattr(link, self._latest_name, latest)
                setattr(link, self.sigma_name, sigma.array)
            normalized = W * F.broadcast_to(self.factor / sigma, W.shape)
            return normalized if normalized.dtype == weight.dtype else F.cast(normalized, weight.dtype)

    def _directions(self, link):
        axis = output_axis(link)
        return (self.vector_name, axis), (self.second_vector_name, 1 - axis)

    def _iterate(self, link, name, axis):
        stored = getattr(link, name)
        keep = chainer.config.train and not chainer.config.in_recomputing
        return power_iteration.estimate(getattr(link, self.weight_name).array, stored, self.n_power_iteration,
                                        self.eps, axis, stored if keep else None)[:2]

    @staticmethod
    def _gradient_of_sigma(weight, axis, u, v):
        """u v^T in the layout of the weight."""
        xp = backend.get_array_module(u)
        return power_iteration.from_matrix(xp.outer(u, v), weight.shape, axis)
