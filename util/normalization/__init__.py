"""What changes the discriminator's weights or features: one class a method, chosen by name in ``configs/methods.yml``.
"""
import inspect

from util import noise
from util.files import UserError
from util.normalization.base import HookedWeights, Normalization
from util.normalization.bidirectional import BidirectionalSpectralNormalization, ScaledSpectralNormalization
from util.normalization.clipping import SingularValueClipping, WeightClipping
from util.normalization.features import BatchNormalization, LayerNormalization
from util.normalization.orthonormal import OrthonormalRegularization
from util.normalization.spectral import SpectralNormalization
from util.normalization.weight import FrobeniusNormalization, WeightNormalization
from util.normalization.weight_hook import WeightHook

# A name in configs/methods.yml: a link hook that each weight gets, or a Normalization
NORMALIZATIONS = {
    'spectral': SpectralNormalization,
    'scaled': ScaledSpectralNormalization,
    'bidirectional': BidirectionalSpectralNormalization,
    'weight': WeightNormalization,
    'frobenius': FrobeniusNormalization,
    'batch': BatchNormalization,
    'layer': LayerNormalization,
    'orthonormal': OrthonormalRegularization,
    'clipping': WeightClipping,
    'singular_value_clipping': SingularValueClipping,
}
_NOT_OPTIONS = ('normalization', 'loss', 'gradient_penalty')


def make(row, seed):
    """Make what a row of ``configs/methods.yml`` does to a discriminator.

    Args:
        row (Mapping): ``normalization`` (a name in ``NORMALIZATIONS``, or ``None``) and the keyword arguments of that
            class.
        seed (int): Its random numbers are functions of it.

    Returns:
        Normalization: For one discriminator.

    Raises:
        UserError: There is no such normalization, or it has no such option.

    """
    name = row['normalization']
    options = {key: value for key, value in row.items() if key not in _NOT_OPTIONS}
    if name is None:
        kind = Normalization
    elif name in NORMALIZATIONS:
        kind = NORMALIZATIONS[name]
    else:
        raise UserError('method.normalization must be null or one of {}, not {!r}'.format(
            ', '.join(NORMALIZATIONS), name))
    known = dict(inspect.signature(kind).parameters)
    random = known.pop('rng', None)
    unknown = set(options) - set(known) | set(options) & {'name', 'weight_name'}
    if unknown:
        raise UserError('method: {} has no option {}'.format(name, ', '.join(sorted(unknown))))
    missing = [key for key, p in known.items() if p.default is p.empty and key not in options]
    if missing:
        raise UserError('method: {} needs the option {}'.format(name, ', '.join(missing)))
    if random:
        options['rng'] = noise.random_state(seed, 'normalization')
    return HookedWeights(lambda: kind(**options)) if issubclass(kind, WeightHook) else kind(**options)


def observe(network):
    """The numbers worth logging of the normalized layers of a network.

    Args:
        network (chainer.Link): A network that has been called.

    Returns:
        dict: ``sigma/<layer>`` to the sigma of its latest call, a 0-d array on the network's device.

    """
    observed = {}
    for path, link in network.namedlinks(skipself=True):
        for hook in link.local_link_hooks.values():
            if isinstance(hook, SpectralNormalization):
                observed['sigma' + path] = hook.sigma(link)
    return observed
