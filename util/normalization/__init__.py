"""What changes the discriminator's weights or features: one module a method, chosen by name in ``configs/methods.yml``.
"""
import inspect

from util import noise
from util.files import UserError
from util.normalization.spectral import SpectralNormalization

HOOKS = {
    'spectral': SpectralNormalization,
}
_NOT_OPTIONS = ('normalization', 'loss')


def make(row, seed):
    """Turn a row of ``configs/methods.yml`` into what a discriminator applies to each link that carries a weight.

    Args:
        row (Mapping): ``normalization`` (a name in ``HOOKS``, or ``None``) and the keyword arguments of that hook.
        seed (int): The hooks' random numbers are functions of it.

    Returns:
        callable: Takes a link, returns it with a hook of its own. ``None`` when there is nothing to apply.

    Raises:
        UserError: There is no such normalization, or it has no such option.

    """
    name = row['normalization']
    if name is None:
        return None
    if name not in HOOKS:
        raise UserError('method.normalization must be null or one of {}, not {!r}'.format(', '.join(HOOKS), name))
    hook = HOOKS[name]
    options = {key: value for key, value in row.items() if key not in _NOT_OPTIONS}
    unknown = set(options) - set(inspect.signature(hook).parameters)
    if unknown:
        raise UserError('method: {} has no option {}'.format(name, ', '.join(sorted(unknown))))
    rng = noise.random_state(seed, 'normalization')
    return lambda link: link.add_hook(hook(rng=rng, **options))


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
