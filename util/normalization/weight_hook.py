"""Link hooks that let a link compute with another weight than its parameter: the one place where weights are replaced.
"""
import chainer
import chainer.links as L


class WeightHook(chainer.LinkHook):
    """Base of hooks that put a function of a link's weight in the weight's place whenever the link is called.

    The link's parameter stays what it is, and is what the optimizer moves; the gradient goes through
    :meth:`normalize_weight`, the one method that a subclass must have. Usable on any link whose weight is a parameter,
    lazily initialised or not. A link that raises in ``forward``, or a hook that does, leaves the parameter in place.

    A subclass keeps what it must keep on the link (``add_persistent`` in :meth:`attach`), so that one hook may serve
    many links, and copies, ``to_device`` and serialization work as for the link itself.

    Args:
        name (str): Name of the hook. ``None`` is the class's own.
        weight_name (str): The parameter to replace.

    Raises:
        ValueError: ``weight_name`` cannot name a parameter. Also by ``link.add_hook``, and the hook is then not added:
            the link cannot be served.

    """

    name = 'WeightHook'

    def __init__(self, name=None, weight_name='W'):
        if not isinstance(weight_name, str) or not weight_name.isidentifier():
            raise ValueError("weight_name must name a parameter, such as 'W', not {!r}".format(weight_name))
        self.weight_name = weight_name
        if name is not None:
            self.name = name

    def __enter__(self):
        raise NotImplementedError('{0} belongs to one link: link.add_hook({0}())'.format(type(self).__name__))

    def __exit__(self, *_):
        raise NotImplementedError

    def normalize_weight(self, link):
        """The weight that the next call of ``link`` uses.

        Args:
            link (chainer.Link): A link that has this hook and is initialised.

        Returns:
            chainer.Variable: Like the weight.

        """
        raise NotImplementedError

    def check(self, link):
        """Raise ValueError if the hook cannot serve the link, which may not be initialised yet."""

    def attach(self, link):
        """Put on a link what the hook keeps there."""

    def detach(self, link):
        """Undo :meth:`attach`."""

    def added(self, link):
        try:
            self._check_weight_is_there(link)
            self.check(link)
            self._check_alone(link)
        except ValueError:
            hooks = link.local_link_hooks  # Chainer has listed the hook already
            for key in [k for k, hook in hooks.items() if hook is self]:
                del hooks[key]
            raise
        self.attach(link)

    def _check_weight_is_there(self, link):
        weight, kind = getattr(link, self.weight_name, None), type(link).__name__
        if not isinstance(weight, chainer.Parameter) or self.weight_name not in link._params:
            raise ValueError('{} has no parameter {!r} to normalize'.format(kind, self.weight_name))
        bases = type(link).__mro__
        if any('__call__' in vars(base) for base in bases[bases.index(chainer.Link) + 1:]):  # called instead of forward
            raise ValueError('{} has a __call__ from a base class behind Link, which is not supported'.format(kind))

    def _check_alone(self, link):
        for hook in link.local_link_hooks.values():
            if isinstance(hook, WeightHook) and hook is not self and hook.weight_name == self.weight_name:
                raise ValueError('{}: {!r} has the hook {} already, and there can be one'.format(
                    type(link).__name__, self.weight_name, hook.name))

    def deleted(self, link):
        self.detach(link)
        swap = link.__dict__.get('forward')
        if isinstance(swap, _ForwardWithWeights):
            swap.weights.pop(self.weight_name, None)

    def forward_preprocess(self, args):
        link = args.link
        if not getattr(link, self.weight_name).is_initialized:
            _initialize_lazily(link, args.args, args.kwargs)
        _ForwardWithWeights.of(link).weights[self.weight_name] = self.normalize_weight(link)


class _ForwardWithWeights:
    """Stands in for ``link.forward`` for one call: puts the normalized weights in and, whatever happens, W back.

    A hook's ``forward_postprocess`` would not do: it is not called when ``forward`` raises, and a link left with a
    normalized weight in its parameter's place would save that, or could not be trained on.
    """

    def __init__(self, link, inner):
        self.link, self.inner, self.weights = link, inner, {}

    @classmethod
    def of(cls, link):
        """The one of ``link``, made if need be; it may be left over from a call that another hook stopped."""
        current = link.__dict__.get('forward')
        if not isinstance(current, cls) or current.link is not link:
            link.__dict__['forward'] = current = cls(link, current if not isinstance(current, cls) else current.inner)
        return current

    def __call__(self, *args, **kwargs):
        attributes = self.link.__dict__
        if self.inner is None:
            del attributes['forward']
        else:
            attributes['forward'] = self.inner  # somebody's own
        parameters = {name: attributes[name] for name in self.weights}
        attributes.update(self.weights)
        try:
            return self.link.forward(*args, **kwargs)
        finally:
            attributes.update(parameters)


def output_axis(link):
    """The axis of a link's weight that counts outputs."""
    return 1 if isinstance(link, (L.Deconvolution2D, L.DeconvolutionND)) else 0


def _initialize_lazily(link, args, kwargs):
    """Initialise a link's parameters for the input of a call, as its ``forward`` would."""
    if not hasattr(link, '_initialize_params'):
        raise ValueError('{} is not initialised, and how to is not known'.format(type(link).__name__))
    if not args and 'x' not in kwargs:
        raise TypeError('{} is not initialised and was called without an input'.format(type(link).__name__))
    x = args[0] if args else kwargs['x']
    if isinstance(link, L.Linear):
        n_batch_axes = args[1] if len(args) > 1 else kwargs.get('n_batch_axes', 1)
        link._initialize_params(chainer.utils.size_of_shape(x.shape[n_batch_axes:]))
    else:
        link._initialize_params(x.shape[1])
