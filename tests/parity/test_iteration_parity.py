"""That the whole iterations that ``benchmarks.gpu_step`` times are the same in Chainer and PyTorch, on the CPU here."""
import numpy as np
import pytest
import torch

from benchmarks import gpu_cases, gpu_chainer, gpu_start, gpu_torch
from util.device import get_device
from util.files import UserError


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """So little work is slower with more, and much slower beside others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def setup(model, normalized=True):
    config = gpu_cases.resolve(model, normalized, 8, 8, 3, 16 if model == 'cnn' else 32, 'cpu')
    images = gpu_cases.random_images(40, config.dataset.size)
    return config, images, gpu_start.make_start(config, images, gpu_cases.CHECKED)


def chainers(config, images, start):
    return gpu_chainer.Iteration(config, images, get_device('cpu'), gpu_cases.VARIANTS['chainer'].options).check(start)


def torchs(config, images, start, **options):
    return gpu_torch.Iteration(config, images, 'cpu', options).check(start)


@pytest.fixture(scope='module')
def cnn():
    case = setup('cnn')
    return case, chainers(*case)


@pytest.mark.parametrize('model, normalized', [('cnn', True), ('cnn', False), ('resnet', True), ('resnet', False)])
def test_iterations_agree(model, normalized):
    case = setup(model, normalized)
    found = gpu_cases.compare(torchs(*case), chainers(*case), case[2]['weights'], 'fp32')
    assert found.startswith('ok '), found


def test_bfloat16_is_near(cnn):
    case, reference = cnn
    found = gpu_cases.compare(torchs(*case, autocast=True), reference, case[2]['weights'], 'bf16')
    assert found.startswith('ok ') and not found.startswith('ok 0e+00'), found


def test_compiled_functions_have_both_networks_in_them(cnn, monkeypatch):
    case, reference = cnn
    compile, graphs = torch.compile, []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward
    monkeypatch.setattr(torch, 'compile', lambda function, mode: compile(function, backend=backend, fullgraph=True))
    found = gpu_cases.compare(torchs(*case, compile='default'), reference, case[2]['weights'], 'fp32')
    assert found.startswith('ok ') and len(graphs) == 2, found  # none is compiled again


def test_the_inputs_are_not_written_to(cnn):
    case, _ = cnn
    before = case[2]['inputs'][0]['z'].copy()
    torchs(*case)
    np.testing.assert_array_equal(case[2]['inputs'][0]['z'], before)


@pytest.mark.parametrize('change', ['same pictures', 'same z', 'same draws', 'other u'])
def test_a_wrong_iteration_is_seen(cnn, change):
    case, reference = cnn
    config, images, start = case
    inputs = start['inputs']
    if change == 'same draws':
        wrong = {**start, 'inputs': inputs[:1] * len(inputs)}
    elif change == 'other u':
        vectors = {path: (u[::-1].copy(), v[::-1].copy()) for path, (u, v) in start['vectors'].items()}
        wrong = {**start, 'vectors': vectors}
    else:
        key = 'xs' if change == 'same pictures' else 'zs'
        wrong = {**start, 'inputs': [{**x, key: x[key][:1] * 3} for x in inputs]}
    found = gpu_cases.compare(torchs(config, images, wrong), reference, start['weights'], 'fp32')
    assert found.startswith('DIFFERS '), found


def test_pictures_go_over_the_end_of_an_epoch(cnn):
    config, images, _ = cnn[0]
    steps = gpu_torch.Iteration(config, images, 'cpu', {})
    for _ in range(4):  # 24 of 40 pictures each
        steps.choose()
        assert len(set(steps._number_of.flatten().tolist())) == 24
        assert all(torch.isfinite(loss) for loss in steps.drawn())


def test_a_process_does_all_that_is_asked(cnn):
    config, _, start = cnn[0]
    tasks = gpu_torch.make_steps('torch', config, 40, '-1')
    problem, result = tasks['check'](start)
    assert problem is None and len(result['losses']) == gpu_cases.CHECKED and result['memory'] is None
    assert len(tasks['turn'](0, 5)[1]['ms']) == 3
    assert tasks['can_trace']() == (None, False) and tasks['count']() == (None, None)
    for name in ('torch-graph', 'torch-compile', 'torch-bf16'):
        with pytest.raises(UserError, match='needs a GPU'):
            gpu_torch.make_steps(name, config, 40, '-1')
