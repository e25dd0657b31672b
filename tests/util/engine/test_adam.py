"""Adam piece by piece gives the bits that Chainer's gives."""
import chainer
import numpy as np
import pytest

from util.engine.switch import using_engine


class Weights(chainer.Link):
    """A few parameters, one of them longer than a piece."""

    def __init__(self, dtype='f'):
        super().__init__()
        random = np.random.RandomState(0)
        with self.init_scope():
            self.short = chainer.Parameter(random.standard_normal((3, 2)).astype(dtype))
            self.long = chainer.Parameter(random.standard_normal((5, 7001)).astype(dtype))
            self.without = chainer.Parameter(random.standard_normal(4).astype(dtype))


def trained(engine, dtype='f', **options):
    """Parameters and moments after five updates; one parameter never has a gradient."""
    link, random = Weights(dtype), np.random.RandomState(1)
    optimizer = chainer.optimizers.Adam(3e-3, 0.5, 0.9, **options).setup(link)
    with using_engine(engine):
        for _ in range(5):
            for parameter in link.short, link.long:
                parameter.grad = random.standard_normal(parameter.shape).astype(dtype)
            optimizer.update()
    moments = {path + '/' + key: x for path, p in link.namedparams() for key, x in (p.update_rule.state or {}).items()}
    return {**{path: p.array for path, p in link.namedparams()}, **moments}


@pytest.mark.parametrize('dtype, options', [
    ('f', {}), ('f', {'eta': 0.5}), ('f', {'eps': 1e-3}), ('d', {}), ('e', {}), ('f', {'amsgrad': True}),
    ('f', {'weight_decay_rate': 0.1}), ('f', {'adabound': True})])
def test_bits_are_those_of_chainer(dtype, options):
    stock, ours = trained('stock', dtype, **options), trained('numpy', dtype, **options)
    assert stock.keys() == ours.keys() and '/long/m' in ours
    for key, value in stock.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=key)
    assert (ours['/long'] != Weights(dtype).long.array).any()
