import numpy as np

from util.inception.layers import LAYERS, N_FEATURES, STEPS, Block, walk


def test_the_network_has_94_convolutions_and_2048_features():
    assert len(LAYERS) == 94
    assert walk()[1] == N_FEATURES
    assert len({layer.name for layer in LAYERS}) == len({layer.torch_name for layer in LAYERS}) == 94
    assert sum(int(np.prod(layer.shape)) for layer in LAYERS) == 21751136


def test_channels_after_each_block():
    blocks = [step for step in STEPS if isinstance(step, Block)]
    widths = [192, 256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048]
    assert [walk((block,), n_in)[1] for block, n_in in zip(blocks, widths[:-1], strict=True)] == widths[1:]


def test_some_names_and_shapes_of_the_original():
    # read off the published conversion of the graph (torch-fidelity) and the graph's summary
    by_name = {layer.name: (layer.torch_name, layer.shape) for layer in LAYERS}
    assert by_name['conv'] == ('Conv2d_1a_3x3', (32, 3, 3, 3))
    assert by_name['mixed/tower/conv_1'] == ('Mixed_5b.branch5x5_2', (64, 48, 5, 5))
    assert by_name['mixed_3/conv'] == ('Mixed_6a.branch3x3', (384, 288, 3, 3))
    assert by_name['mixed_4/tower_1/conv_3'] == ('Mixed_6b.branch7x7dbl_4', (128, 128, 7, 1))
    assert by_name['mixed_8/tower/conv_1'] == ('Mixed_7a.branch3x3_2', (320, 192, 3, 3))
    assert by_name['mixed_10/tower/mixed/conv_1'] == ('Mixed_7c.branch3x3_2b', (384, 384, 3, 1))
    assert by_name['mixed_10/tower_2/conv'] == ('Mixed_7c.branch_pool', (192, 2048, 1, 1))
