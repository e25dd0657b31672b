"""Where the parts of many layers lie. What the kernels compute is tested in tests/kernels and tests/gpu."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from util.normalization import group_kernels


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(0, 1)), min_size=1,
                max_size=6))
def test_parts_of_layers_do_not_overlap(layers):
    layers = tuple((tuple(shape), axis) for shape, axis in layers)
    plan = group_kernels.plan(layers)
    for i, (row, following, (shape, axis)) in enumerate(zip(plan.table[:-1], plan.table[1:], layers, strict=True)):
        size = np.prod(shape)
        assert (row['d_out'], row['d_out'] * row['d_in']) == (shape[axis], size)
        assert row['weight'] % 64 == 0 and size <= following['weight'] - row['weight'] < size + 64
        assert following['vectors'] - row['vectors'] == 3 * row['d_out'] + 2 * row['d_in'] + 1
        assert (following['first'][:5] > row['first'][:5]).all()
        assert following['partial'] - row['partial'] == following['first'][3] - row['first'][3]
        assert plan.weights[i] == slice(row['weight'], row['weight'] + size)
        sizes = [part.stop - part.start for part in plan.vectors[i]]
        assert sizes == [row['d_in'], row['d_out'], row['d_out'], 1]
        assert plan.vectors[i][0].start == row['vectors'] + row['d_in']
        assert plan.vectors[i][-1].stop == following['vectors']
    assert plan[3:6] == tuple(plan.table[-1][key] for key in ('weight', 'vectors', 'partial'))
    assert list(plan.blocks.values()) == plan.table[-1]['first'][:5].tolist()
