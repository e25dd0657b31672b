"""Spectral normalization as a link hook.

*Spectral Normalization for Generative Adversarial Networks* (Miyato et al., ICLR 2018).
"""
import math
import numbers

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend

from util.normalization import power_iteration
from util.normalization.weight_hook import WeightHook, output_axis


class SpectralNormalization(WeightHook):
    """Divides a link's weight by its largest singular value whenever the link is called (paper, Algorithm 1).

    The link computes with W_bar = factor W / sigma (times gamma); its parameter stays the unnormalized W. The estimate
    sigma = u^T W v comes from one round of the power method that starts from the u of the call before. u and v are
    constants of the gradient (Equations 11, 12), and every call keeps its own, so several calls may come before one
    backward; the gradient can be differentiated again.

    In training mode (``chainer.config.train``) each call advances u, as in the authors' code; in test mode the same
    is computed and nothing is kept but sigma. A call that ``F.forget`` repeats uses the vectors of the link's latest
    call and keeps nothing.

    Usable on any link whose weight is a parameter: ``Linear``, ``ConvolutionND``, ``DeconvolutionND`` and their 1, 2
    and 3-dimensional kinds, ``EmbedID``, lazily initialised or not. A weight is taken as a matrix of d_out rows:
    (d_out, d_in h w) for a convolution and, outputs being its axis 1, a deconvolution. All state is the link's,
    so one hook may serve many links, and copies, ``to_device`` and serialization work as for the link itself:

    - ``<weight_name>_u``, a persistent value: u, (d_out,), of the weight's dtype (float32 for float16); ``None`` until
      a lazily initialised link is initialised.
    - ``<weight_name>_sigma``, a plain attribute: sigma of the latest call, before ``factor``; see :meth:`sigma`.
    - ``gamma``, a parameter, with ``use_gamma``: a scalar of the weight's dtype.

    A weight of zeros has no direction: its W_bar is NaN.

    The layers of a network can be normalized all at once, with the same results: see ``together.py``.

    Args:
        n_power_iteration (int): Rounds of the power method a call. The paper finds that one is enough.
        eps (float): Added to the length of a vector that is normalized; the authors' value.
        factor (float): The largest singular value that the weight gets. ``None`` is 1.
        use_gamma (bool): Multiply by a learned scalar ``gamma``, which starts as the largest singular value of the
            initial weight, found exactly (paper, appendix E). It is registered when the hook is added: before
            ``optimizer.setup``.
        name (str): Name of the hook. ``None`` is the default.
        weight_name (str): The parameter to normalize.
        rng (numpy.random.RandomState or numpy.random.Generator): Where the first u is drawn from, N(0, 1); ``None``
            is NumPy's global state.

    Attributes:
        vector_name (str): Where u is kept on a link.
        sigma_name (str): Where sigma is kept on a link.

    Raises:
        ValueError: An argument is out of its range. Also by ``link.add_hook``, and the hook is then not added: the
            link has no such parameter, it is not a floating-point array of at least one axis and one element, or the
            names above are taken.

    .. admonition:: Example

        >>> import numpy as np
        >>> import chainer.links as L
        >>> hook = SpectralNormalization()
        >>> layer = L.Convolution2D(3, 8, 3).add_hook(hook)
        >>> layer(np.ones((1, 3, 5, 5), np.float32)).shape
        (1, 8, 3, 3)
        >>> layer.W_u.shape, hook.sigma(layer).shape
        ((8,), ())

    """

    name = 'SpectralNormalization'

    def __init__(self, n_power_iteration=1, eps=1e-12, factor=None, use_gamma=False, name='SpectralNormalization',
                 weight_name='W', rng=None):
        if not isinstance(n_power_iteration, numbers.Integral) or n_power_iteration < 1 or n_power_iteration is True:
            raise ValueError('n_power_iteration must be a whole number above 0, not {!r}'.format(n_power_iteration))
        if not is_finite(eps) or eps < 0:
            raise ValueError('eps must be a number of at least 0, not {!r}'.format(eps))
        if factor is not None and (not is_finite(factor) or factor <= 0):
            raise ValueError('factor must be a number above 0 or None, not {!r}'.format(factor))
        if rng is not None and not hasattr(rng, 'standard_normal'):
            raise ValueError('rng must be a numpy.random.RandomState or Generator or None, not {!r}'.format(rng))
        super().__init__(name, weight_name)
        self.n_power_iteration = int(n_power_iteration)
        self.eps = float(eps)
        self.factor = None if factor is None else float(factor)
        self.use_gamma = bool(use_gamma)
        self.vector_name = weight_name + '_u'
        self.sigma_name = weight_name + '_sigma'
        self._latest_name = '_' + weight_name + '_latest'  # (u, v) of the latest call, for F.forget
        self._ready_name = '_' + weight_name + '_ready'  # what util.normalization.together has made for the next call
        self.rng = rng

    def sigma(self, link):
        """The estimate of the largest singular value that the latest call of ``link`` divided its weight by.

        Args:
            link (chainer.Link): A link that has this hook.

        Returns:
            numpy.ndarray or cupy.ndarray: (), on the device that the link was on; never copied to the host. ``None``
            before the first call.

        """
        return getattr(link, self.sigma_name)

    def sigma_axes(self, link):
        """The axes of the link's weight that count rows in the matrices whose largest singular values :meth:`sigma`
        estimates the mean of.
        """
        return output_axis(link),

    def attach(self, link):
        link.add_persistent(self.vector_name, None)
        setattr(link, self.sigma_name, None)
        setattr(link, self._latest_name, None)
        setattr(link, self._ready_name, None)
        weight = getattr(link, self.weight_name)
        if self.use_gamma:
            with link.init_scope():
                link.gamma = chainer.Parameter(_TopSingularValue(weight, output_axis(link)))
            link.gamma.to_device(link.device)
        if weight.is_initialized:
            self._prepare(link)

    def detach(self, link):
        for name in (*self._names(link), self._latest_name, self._ready_name):
            delattr(link, name)

    def _names(self, link):
        """The attributes of a link that are the hook's."""
        return (self.vector_name, self.sigma_name) + ('gamma',) * self.use_gamma

    def normalize_weight(self, link):
        """The weight that the next call of ``link`` would use, as that call makes it: in training mode u advances.

        Args:
            link (chainer.Link): A link that has this hook and is initialised.

        Returns:
            chainer.Variable: Like the weight.

        """
        self._prepare(link)
        with chainer.using_device(link.device):
            normalized, latest, sigma = self._take_ready(link) or self._normalize(link)
            if not chainer.config.in_recomputing:
                setattr(link, self._latest_name, latest)
                setattr(link, self.sigma_name, sigma)
            return link.gamma * normalized if self.use_gamma else normalized

    def _normalize(self, link):
        """The weight without gamma, (u, v) and sigma."""
        weight, axis, config = getattr(link, self.weight_name), output_axis(link), chainer.config
        factor = 1.0 if self.factor is None else self.factor
        stored, latest, W_bar = getattr(link, self.vector_name), getattr(link, self._latest_name), None
        if config.in_recomputing and latest is not None:
            (u, v), sigma = latest, self.sigma(link)
        else:
            keep = config.train and not config.in_recomputing
            W_bar, u, v, sigma = power_iteration.normalize(
                weight.array, stored, self.n_power_iteration, self.eps, factor, axis, stored if keep else None)
        return Normalize(u, v, sigma, factor, axis, W_bar).apply((weight,))[0], (u, v), sigma

    def can_be_ready(self, link):
        """Whether all that the next call of a link needs is there, and the call will take what is ready.

        Args:
            link (chainer.Link): A link that has this hook.

        """
        weight, vector = getattr(link, self.weight_name), getattr(link, self.vector_name)
        if not weight.is_initialized or vector is None or getattr(link, self._ready_name) is not None:
            return False
        xp, axis = link.xp, output_axis(link)
        return (xp in (np, chainer.backends.cuda.cupy) and weight.size and vector.shape == weight.shape[axis:axis + 1]
                and all(backend.get_array_module(array) is xp for array in (weight.array, vector))
                and vector.dtype == power_iteration.working_dtype(weight.dtype))

    def set_ready(self, link, ready):
        """Let the next call of a link take the weight that is made already (util.normalization.together.Ready)."""
        setattr(link, self._ready_name, ready)

    def discard_ready(self, link):
        """Undo :meth:`set_ready`, unless a call has taken the weight."""
        ready = link.__dict__.get(self._ready_name)
        if ready is not None:
            setattr(link, self._ready_name, None)
            ready.undo()

    def _take_ready(self, link):
        """What :meth:`_normalize` would return, if it is ready and still right; else ``None``."""
        ready = getattr(link, self._ready_name)
        if ready is None or chainer.config.in_recomputing:
            return None
        if not ready.fits(getattr(link, self.weight_name), getattr(link, self.vector_name)):
            self.discard_ready(link)
            return None
        setattr(link, self._ready_name, None)
        *latest, sigma = ready.vectors
        return ready.W_bar, tuple(latest), sigma

    def check(self, link):
        weight, kind = getattr(link, self.weight_name), type(link).__name__
        taken = [n for n in self._names(link) if hasattr(link, n)]
        if taken:
            raise ValueError('{} already has an attribute {}: is {!r} normalized twice?'.format(
                kind, ', '.join(taken), self.weight_name))
        if weight.is_initialized:
            self._check_weight(link)

    def _check_weight(self, link):
        weight, axis = getattr(link, self.weight_name), output_axis(link)
        if link.xp is not np and link.xp is not chainer.backends.cuda.cupy:
            raise ValueError('spectral normalization takes NumPy and CuPy, not the arrays of {}'.format(link.device))
        if weight.dtype.kind != 'f' or weight.ndim <= axis or weight.size == 0:
            raise ValueError('{}.{} must be floating-point with an axis {} and at least one element, not {}, {}'.format(
                type(link).__name__, self.weight_name, axis, weight.dtype, weight.shape))

    def _prepare(self, link):
        """See that u and gamma are there and fit the weight, which is initialised. Only then is anything drawn."""
        weight, axis = getattr(link, self.weight_name), output_axis(link)
        self._prepare_vector(link, self.vector_name, axis, 'outputs')
        if self.use_gamma and not link.gamma.is_initialized:
            link.gamma.initializer = _TopSingularValue(weight, axis)  # not that of a link this is a copy of
            link.gamma.initialize(())

    def _prepare_vector(self, link, name, axis, what):
        """See that the vector ``name`` is there and is as long as the weight's axis, which counts ``what``."""
        vector, weight = getattr(link, name), getattr(link, self.weight_name)
        shape, dtype = (weight.shape[axis],) if weight.ndim > axis else (), power_iteration.working_dtype(weight.dtype)
        if vector is None:
            self._check_weight(link)
            vector = (np.random if self.rng is None else self.rng).standard_normal(shape).astype(dtype)
        if vector.shape != shape:
            raise ValueError('{}.{} has shape {}, but the weight has {} {}'.format(
                type(link).__name__, name, vector.shape, *shape, what))
        if vector.dtype != dtype or backend.get_array_module(vector) is not link.xp:  # drawn just now, or loaded
            vector = link.device.send(vector.astype(dtype))
        setattr(link, name, vector)


def normalize(W, u, v, factor=1.0, axis=0):
    """W_bar = factor W / (u^T W v), differentiable any number of times with u and v constant (Equations 11 and 12).

    Args:
        W (chainer.Variable or array): The weight, of any shape that has ``axis``.
        u, v (numpy.ndarray or cupy.ndarray): (d_out,) and (d_in,), of ``power_iteration.working_dtype(W.dtype)``.
        factor (float): As of :class:`SpectralNormalization`.
        axis (int): The axis of W that counts outputs.

    Returns:
        chainer.Variable: Like W.

    """
    return Normalize(u, v, None, factor, axis).apply((W,))[0]


class Normalize(chainer.FunctionNode):
    """W -> factor W / sigma with sigma = u^T W v. sigma and the result are given if they are known already."""

    def __init__(self, u, v, sigma, factor, axis, W_bar=None):
        super().__init__()
        self.u, self.v, self.sigma, self.factor, self.axis, self.W_bar = u, v, sigma, factor, axis, W_bar

    def forward(self, inputs):
        self.retain_inputs((0,))
        W, = inputs
        W_bar, self.W_bar = self.W_bar, None  # the graph need not hold it for the node's sake
        if self.sigma is None:
            xp = backend.get_array_module(W)
            matrix = power_iteration.as_matrix(W, self.axis).astype(self.u.dtype, copy=False)
            self.sigma = xp.asarray(xp.dot(self.u, xp.dot(matrix, self.v)))
        return power_iteration.scale(W, self.sigma, self.factor) if W_bar is None else W_bar,

    def backward(self, indexes, grad_outputs):
        W, = self.get_retained_inputs()
        return NormalizeGradient(self.u, self.v, self.sigma, self.factor, self.axis).apply((W, grad_outputs[0]))


class NormalizeGradient(chainer.FunctionNode):
    """W, g -> factor / sigma (g - (<g, W> / sigma) S) with S = u v^T, the gradient of :class:`Normalize`."""

    def __init__(self, u, v, sigma, factor, axis):
        super().__init__()
        self.u, self.v, self.sigma, self.factor, self.axis = u, v, sigma, factor, axis

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        W, g = inputs
        return power_iteration.gradient(W, g, self.u, self.v, self.sigma, self.factor, self.axis),

    def backward(self, indexes, grad_outputs):
        """With c the gradient of the output, s = <c, S>, a = <g, W>, and everything a function of W and g again:

        for W: factor (-<c, g> / sigma^2 S - s / sigma^2 g + 2 a s / sigma^3 S); for g: factor / sigma (c - s / sigma
            W).
        """
        dtype, xp = self.u.dtype, backend.get_array_module(self.u)
        W, g = self.get_retained_inputs()
        result_dtype = W.dtype
        W, g, c = (x if x.dtype == dtype else F.cast(x, dtype) for x in (W, g, grad_outputs[0]))
        S = power_iteration.from_matrix(xp.outer(self.u, self.v), W.shape, self.axis)
        sigma, s = F.sum(W * S), F.sum(c * S)

        def times(scalar, x):
            return F.broadcast_to(scalar, x.shape) * x

        results = []
        for index in indexes:
            if index == 0:
                along = 2 * F.sum(g * W) * s / sigma - F.sum(c * g)
                result = times(along / sigma ** 2, S) - times(s / sigma ** 2, g)
            else:
                result = times(1 / sigma, c) - times(s / sigma ** 2, W)
            result = self.factor * result
            results.append(result if result_dtype == dtype else F.cast(result, result_dtype))
        return tuple(results)


class _TopSingularValue(chainer.Initializer):
    """Fills a scalar with a parameter's largest singular value, exactly; with NaN while that parameter has no value.

    That is so only while a file is loaded, which then overwrites it.
    """

    def __init__(self, weight, axis):
        self.weight, self.axis = weight, axis

    @property
    def dtype(self):
        return self.weight.dtype if self.weight.is_initialized else getattr(self.weight.initializer, 'dtype', None)

    def __call__(self, array):
        if not self.weight.is_initialized:
            array[...] = math.nan
            return
        W = chainer.backends.cuda.to_cpu(self.weight.array)  # once in a link's life: the same value on every device
        matrix = power_iteration.as_matrix(W, self.axis)
        array[...] = float(np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[0])


def is_finite(x):
    """Whether x is a real number, and no bool."""
    return isinstance(x, numbers.Real) and not isinstance(x, bool) and math.isfinite(x)
