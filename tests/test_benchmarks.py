"""The benchmarks' counts against sums done by hand, and the structure of what they print. Speed is never asserted."""
import collections
import functools
import re

from benchmarks import chainer_steps  # isort: skip  (before Chainer, which needs util.compat)

import chainer
import pytest

import model
from benchmarks import cases, counts, cpu_step, scoring, tables, timing, workers
from util.config import resolve
from util.files import UserError
from util.trainer import build_networks

# Multiply-adds

def test_multiply_adds_of_layers():
    row = resolve().model
    d = counts.count_layers(model.build_discriminator(row, 32, 0), (64, 3, 32, 32))
    # 3x3, stride 1: 32x32 outputs of 64 channels, 64 pictures; each is a sum over 3 channels and 9 places
    assert d.layers['conv1'] == d.outermost == 64 * 64 * 32 * 32 * 27 == 113246208
    # 4x4, stride 2: 16x16 outputs
    assert d.layers['conv2'] == 64 * 64 * 16 * 16 * 64 * 16
    assert d.layers['dense'] == 64 * 4 * 4 * 512
    assert list(d.layers) == ['conv%d' % i for i in range(1, 8)] + ['dense']
    g = counts.count_layers(model.build_generator(row, 32, 0), (64, 128))
    assert g.layers['dense'] == g.outermost == 64 * 128 * 4 * 4 * 512
    # Deconvolution: 4x4 inputs of 512 channels, each times a 4x4 patch of 256 channels
    assert g.layers['deconv1'] == 64 * 4 * 4 * 512 * 256 * 16
    assert g.layers['last'] == 64 * 3 * 32 * 32 * 64 * 9
    assert list(g.layers) == ['dense', 'deconv1', 'deconv2', 'deconv3', 'last']


def test_a_last_layer_that_is_a_deconvolution_costs_the_same():
    rows = [resolve(model='sndcgan', overrides=['model.width=4', 'model.last=' + last]).model
            for last in ('convolution', 'deconvolution')]
    both = [counts.count_layers(model.build_generator(row, 32, 0), (2, 128)).layers['last'] for row in rows]
    # 32x32 outputs of 3 channels, 4 * 9 products each; or 32x32 inputs of 4 channels, 3 * 9 products each
    assert both[0] == both[1] == 2 * 32 * 32 * 3 * 4 * 9


def test_multiply_adds_of_a_resnet():
    row = resolve(model='resnet', overrides=['model.width=2']).model
    d = counts.count_layers(model.build_discriminator(row, 32, 0), (5, 3, 32, 32))
    assert len(d.layers) == 4 * 2 + 2 + 1  # names of layers repeat, their paths do not
    # The shortcut's convolution has the halved picture; it and the first convolution look at pictures
    assert d.layers['block1/shortcut'] == 5 * 16 * 16 * 4 * 3
    assert d.outermost == d.layers['block1/shortcut'] + 5 * 32 * 32 * 4 * 3 * 9
    # As wide as the input, 16x16, before the second block halves it
    assert d.layers['block2/conv2'] == 5 * 16 * 16 * 4 * 4 * 9


def test_multiply_adds_of_steps():
    # Two layers each, with forward passes of 1 and 10 (G), 100 and 1000 (D).
    # D step: G forward 11; D forward twice 2200; gradients of weights 2200; of inputs but the first layer's 2000.
    # G step: G forward 11, weights 11, inputs but the first's 10; D forward 1100, inputs 1100.
    g, d = counts.Counts({'dense': 1, 'last': 10}, 1), counts.Counts({'conv1': 100, 'dense': 1000}, 100)
    steps = {'D': 11 + 2200 + 2200 + 2000, 'G': 11 + 11 + 10 + 1100 + 1100}
    assert counts.count_steps(g, d) == steps
    # The penalty: forward 1100, gradients of all inputs 1100; of these for weights 1100, for what came into all but the
    # last layer 100
    assert counts.count_steps(g, d, 2, True) == {'D': steps['D'] + 3 * 1100 + 100, 'G': 2 * steps['G']}


class CountCalls(chainer.FunctionHook):
    name = 'CountCalls'

    def __init__(self):
        self.calls = collections.Counter()

    def forward_preprocess(self, function, inputs):
        self.calls[function.label] += 1


def tiny(name, method=None):
    case = cases.CASES[name]
    return cases.resolve(case, method or case.method, width=2, batchsize=2, size=32)


# Three numbers: of convolutions, of their gradients for weights, of deconvolutions
@pytest.mark.parametrize('name, step, expected', [
    # Seven convolutions, twice, and G's last; gradients of weights; of inputs (deconvolutions) but the first; G's three
    ('cnn', 'D', (14 + 1, 14, 12 + 3)),
    # D's seven and G's last; the gradients of the inputs of G's deconvolutions are convolutions
    ('cnn', 'G', (7 + 1 + 3, 4, 7 + 3 + 1)),
    # Besides: seven and the gradients for what came into their deconvolutions; weights; gradients of all inputs
    ('wgan_gp', 'D', (14 + 1 + 7 + 7, 14 + 7, 12 + 3 + 7)),
    # Ten convolutions, of which two look at pictures; G's three blocks of three, and its last
    ('resnet', 'D', (20 + 10, 20, 16)), ('resnet', 'G', (10 + 10, 10, 10 + 10))])
def test_steps_do_what_is_counted(name, step, expected):
    steps = chainer_steps.make_steps('stock', tiny(name))
    with CountCalls() as hook:
        steps[step]()
    labels = 'Convolution2DFunction', 'Convolution2DGradW', 'Deconvolution2DFunction'
    assert tuple(hook.calls[label] for label in labels) == expected


def test_counting_does_not_move_u():
    d = build_networks(tiny('cnn'))[1]
    counts.count_layers(d, (2, 3, 32, 32))
    hook, = d.conv1.local_link_hooks.values()
    before = getattr(d.conv1, hook.vector_name).copy()
    counts.count_layers(d, (2, 3, 32, 32))
    assert (getattr(d.conv1, hook.vector_name) == before).all()


# Steps

def test_measure_leaves_out_the_warm_up():
    calls = []
    seconds = timing.measure({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, 2)
    assert ''.join(calls) == 'ababab'  # interleaved
    assert [len(times) for times in seconds.values()] == [2, 2] and min(seconds['a']) >= 0


def test_measure_does_not_count_the_pause(monkeypatch):
    clock = []
    monkeypatch.setattr(timing.time, 'sleep', lambda seconds: clock.append(seconds))
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: sum(clock))
    assert timing.measure({'a': lambda: clock.append(1)}, 2, pause=7) == {'a': [1, 1]}


SECONDS = {'sgemm': {'numpy': [1., 2., 4.]},
           'D': {'stock': [6., 3., 4.], 'numpy': [2., 2., 4.], 'pytorch': [1., 2., 1.], 'numpy, none': [4., 1., 2.]},
           'G': {'stock': [4., 4., 8.], 'numpy': [2., 1., 2.], 'pytorch': [2., 2., 4.], 'numpy, none': [1., 1., 4.]}}
WORK = {'sgemm': 10 * 10 ** 9, 'D': 15 * 10 ** 9, 'G': 4 * 10 ** 9}


def test_describe_times():
    lines = tables.describe_times(SECONDS, WORK, cases.CASES['cnn'], 5, 50000)
    rows = [re.split('  +', line) for line in lines]
    assert rows[1:6] == [
        ['sgemm', 'numpy', '1.0000', '2.0000', '20.0', '-', '-'],
        # 15e9 multiply-adds in 3 s are 10 GFLOP/s
        ['D', 'stock', '3.0000', '4.0000', '10.0', '1.00 (1.00)', '3.000 (4.000)'],
        ['D', 'numpy', '2.0000', '2.0000', '15.0', '1.50 (1.50)', '2.000 (2.000)'],
        ['D', 'pytorch', '1.0000', '1.0000', '30.0', '3.00 (4.00)', '1.000 (1.000)'],
        ['D', 'numpy, none', '1.0000', '2.0000', '30.0', '-', '-']]
    # One G and five D: 34, 19 and 28 s; 12, 11 and 22 s
    assert ['G + 5 D', 'stock', '19.0000', '28.0000', '8.3', '1.00 (1.00)', '2.714 (3.111)'] in rows
    assert ['G + 5 D', 'numpy', '11.0000', '12.0000', '14.4', '1.73 (1.73)', '1.571 (1.714)'] in rows
    assert lines[-3:] == [
        "D step, sn / none, numpy: 2.000 (of minima), 2.000 (median of the rounds' ratios)",
        "G step, sn / none, numpy: 1.000 (of minima), 1.000 (median of the rounds' ratios)",
        '50,000 iterations: stock 263.9 h, numpy 152.8 h, pytorch 97.2 h']


def test_describe_times_of_one_step_without_what_is_compared_with():
    lines = tables.describe_times({'sgemm': {'numpy': [1.]}, 'D': {'numpy': [2.]}}, WORK, cases.CASES['wgan_gp'], 5, 9)
    assert [re.split('  +', line) for line in lines[2:]] == [['D', 'numpy', '2.0000', '2.0000', '15.0', '-', '-']]


def test_describe_memory():
    lines = tables.describe_memory({'cnn': {'stock': 1234.5, 'pytorch': 99.9}, 'resnet': {'stock': 7}})
    assert [line.split() for line in lines] == [
        ['peak,', 'MiB', 'cnn', 'resnet'], ['stock', '1234', '7'], ['pytorch', '100', '-']]


@pytest.fixture
def without_pytorch(monkeypatch, tmp_path):
    """In the processes, too: they get this one's path."""
    (tmp_path / 'torch.py').write_text('raise ModuleNotFoundError("No module named \'torch\'")\n')
    monkeypatch.syspath_prepend(str(tmp_path))


run = functools.partial(cpu_step.run_command, cpu_step.main)


def test_the_benchmark_runs(capsys, without_pytorch):
    assert run(['--width', '2', '--batchsize', '2', '--rounds', '1', '--cases', 'cnn', 'wgan_gp']) == 0
    out = capsys.readouterr().out
    assert out.count("pytorch is left out: No module named 'torch' (make cpu-benchmark has it)\n") == 1
    engines = ['stock', 'numpy'] + ['onednn'] * ('onednn is left out: ' not in out)  # as this environment has it
    for line in (
            r'machine:  \S.*\d+ of \d+ cores usable', r'versions: python 3\..*numpy .*chainer 7\.8.*pytorch \S',
            r'blas:     \S', r'cnn: model cnn, method sn, setting default; width 2, batch 2, 32x32; 1 rounds after one',
            r'D step, sn / none, {}: \d'.format(engines[-1]), r'50,000 iterations: stock \d+\.\d h, numpy \d'):
        assert re.search('^' + line, out, re.M), line
    of_cnn, of_wgan_gp = (collections.Counter(re.findall(r'^([DG]|G \+ 5 D) +(\S+) +\d+\.\d{4} ', text, re.M))
                          for text in out.split('\nwgan_gp: '))
    assert of_cnn == {(step, engine): 1 for step in ('D', 'G', 'G + 5 D') for engine in engines}
    assert of_wgan_gp == {('D', engine): 1 for engine in engines}
    memory = [line.split() for line in out.split('\npeak, MiB')[1].splitlines()]
    assert [row[0] for row in memory[1:]] == engines and memory[0] == ['cnn', 'wgan_gp']
    assert all(float(value) > 10 for row in memory[1:] for value in row[1:])


def test_the_benchmark_without_any_engine(capsys, without_pytorch):
    assert run(['--width', '2', '--cases', 'cnn', '--engines', 'pytorch', 'pytorch-nchw']) == 2
    assert capsys.readouterr().err == 'error: --engines: none of them can be used here\n'


def test_a_process_that_has_ended():
    with workers.Worker('numpy', tiny('resnet')) as worker:
        worker.wait()
        worker.run('D')
        worker._process.kill()
        for ask in (worker.peak_memory, lambda: worker.run('G')):
            with pytest.raises(UserError, match='of numpy has ended with exit status -9: was there enough memory'):
                ask()


@pytest.mark.parametrize('arguments, message', [
    (['--rounds', '0'], '--rounds must be at least 1'), (['--width', '0'], 'model.width must be'),
    (['--batchsize', '0'], '--batchsize must be'), (['--size', '30'], 'dataset.size must be'),
    (['--cases', 'x'], "--cases: invalid choice: 'x'"), (['--engines', 'x'], "--engines: invalid choice: 'x'"),
    (['--widht', '2'], 'unrecognized arguments: --widht')])
def test_bad_input(capsys, arguments, message):
    assert run(['--rounds', '1', *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1


# Scoring

def test_describe_networks():
    text = '\n'.join(scoring.describe_networks({'chainer': [3., 4., 5.], 'reference, 8': [2., 2., 4.]}, 6))
    assert re.search(r'^chainer +3\.000 +4\.000 +2\.00$', text, re.M)
    assert re.search(r'^reference, 8 +2\.000 +2\.000 +3\.00$', text, re.M)
    assert 'time of chainer / time of reference, 8: 1.500 (of minima), 1.500' in text
    assert 'make parity' in scoring.describe_networks({'chainer': [3.]}, 6)[-1]


def test_parts_of_the_scoring_benchmark_run(monkeypatch, capsys):
    monkeypatch.setattr(scoring, 'N_REAL', 40)
    seconds = scoring.time_distances(30)
    assert list(seconds) == ['statistics of 30', 'statistics of 40', 'Frechet distance', 'kernel distance, 100 x 1000']
    assert all(value > 0 for value in seconds.values())
    assert run_command_of_scoring('--only-whole', '--samples', '3') == 0
    assert re.search(r'scoring 3 pictures: \d+ s, .* pictures/s, at most \d\.\d\d GiB', capsys.readouterr().out)


@pytest.mark.parametrize('flag, value', [('--pictures', '0'), ('--rounds', '0'), ('--samples', '1')])
def test_bad_input_of_scoring(capsys, flag, value):
    assert run_command_of_scoring(flag, value) == 2
    assert capsys.readouterr().err.startswith('error: {} must be at least '.format(flag))


def run_command_of_scoring(*arguments):
    return cpu_step.run_command(scoring.main, list(arguments))
