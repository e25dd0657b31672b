"""The benchmark's counts against sums done by hand, and the structure of what it prints. Speed is never asserted."""
import collections
import re
import types

from benchmarks import cpu_step, scoring, timing  # isort: skip  (before Chainer, which needs util.compat)

import chainer
import pytest

import model
from util.config import resolve


def test_multiply_adds_of_layers():
    row = resolve().model
    d = cpu_step.count_layers(model.build_discriminator(row, 32, 0), (64, 3, 32, 32))
    # 3x3, stride 1: 32x32 outputs of 64 channels, 64 pictures; each is a sum over 3 channels and 9 places
    assert d['conv1'] == 64 * 64 * 32 * 32 * 27 == 113246208
    # 4x4, stride 2: 16x16 outputs
    assert d['conv2'] == 64 * 64 * 16 * 16 * 64 * 16
    assert d['dense'] == 64 * 4 * 4 * 512
    assert list(d) == ['conv%d' % i for i in range(1, 8)] + ['dense']
    g = cpu_step.count_layers(model.build_generator(row, 32, 0), (64, 128))
    assert g['dense'] == 64 * 128 * 4 * 4 * 512
    # Deconvolution: 4x4 inputs of 512 channels, each times a 4x4 patch of 256 channels
    assert g['deconv1'] == 64 * 4 * 4 * 512 * 256 * 16
    assert g['last'] == 64 * 3 * 32 * 32 * 64 * 9
    assert list(g) == ['dense', 'deconv1', 'deconv2', 'deconv3', 'last']


def test_a_last_layer_that_is_a_deconvolution_costs_the_same():
    rows = [resolve(model='sndcgan', overrides=['model.width=4', 'model.last=' + last]).model
            for last in ('convolution', 'deconvolution')]
    counts = [cpu_step.count_layers(model.build_generator(row, 32, 0), (2, 128))['last'] for row in rows]
    assert counts[0] > 0
    # 32x32 outputs of 3 channels, 4 * 9 products each; or 32x32 inputs of 4 channels, 3 * 9 products each
    assert counts[0] == counts[1] == 2 * 32 * 32 * 3 * 4 * 9


def test_multiply_adds_of_steps():
    # Two layers each, with forward passes of 1 and 10 (G), 100 and 1000 (D).
    # D step: G forward 11; D forward twice 2200; gradients of weights 2200; of inputs but the first layer's 2000.
    # G step: G forward 11, weights 11, inputs but the first's 10; D forward 1100, inputs 1100.
    steps = cpu_step.count_steps({'dense': 1, 'last': 10}, {'conv1': 100, 'dense': 1000})
    assert steps == {'D': 11 + 2200 + 2200 + 2000, 'G': 11 + 11 + 10 + 1100 + 1100}


class CountCalls(chainer.FunctionHook):
    name = 'CountCalls'

    def __init__(self):
        self.calls = collections.Counter()

    def forward_preprocess(self, function, inputs):
        self.calls[function.label] += 1


@pytest.mark.parametrize('step, expected', [
    # Seven convolutions, twice, and G's last; gradients of weights; of inputs (deconvolutions) but the first; G's three
    ('D', {'Convolution2DFunction': 14 + 1, 'Convolution2DGradW': 14, 'Deconvolution2DFunction': 12 + 3}),
    # D's seven and G's last; the gradients of the inputs of G's deconvolutions are convolutions
    ('G', {'Convolution2DFunction': 7 + 1 + 3, 'Convolution2DGradW': 4, 'Deconvolution2DFunction': 7 + 3 + 1})])
def test_steps_do_what_is_counted(step, expected):
    args = types.SimpleNamespace(width=2, size=32, model='cnn', batchsize=2)
    tasks = cpu_step.make_tasks({'none': cpu_step.make_parts(args, 'none')})
    with CountCalls() as hook:
        tasks[step + ', none']()
    assert {key: hook.calls[key] for key in expected} == expected


def test_counting_does_not_move_u():
    args = types.SimpleNamespace(width=2, size=32, model='cnn', batchsize=2)
    d = cpu_step.make_parts(args, 'sn').discriminator
    cpu_step.count_layers(d, (2, 3, 32, 32))
    hook, = d.conv1.local_link_hooks.values()
    before = getattr(d.conv1, hook.vector_name).copy()
    cpu_step.count_layers(d, (2, 3, 32, 32))
    assert (getattr(d.conv1, hook.vector_name) == before).all()


def test_measure_leaves_out_the_warm_up():
    calls = []
    seconds = timing.measure({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, 2)
    assert ''.join(calls) == 'ababab'  # interleaved
    assert [len(times) for times in seconds.values()] == [2, 2] and min(seconds['a']) >= 0


def test_describe_times():
    seconds = {'sgemm': [1., 2., 4.], 'D, sn': [6., 3., 4.], 'G, sn': [2., 2., 2.], 'D, none': [4., 2., 2.],
               'G, none': [1., 2., 4.]}
    text = '\n'.join(cpu_step.describe_times(seconds, {'sgemm': 10 * 10 ** 9, 'D': 15 * 10 ** 9, 'G': 4 * 10 ** 9}))
    # 15e9 multiply-adds in 3 s are 10 GFLOP/s, half of the product's 20
    assert re.search(r'^D, sn +3\.0000 +4\.0000 +15\.0000 +10\.00 +0\.500$', text, re.M)
    assert 'D step, sn / none: 1.500 (of minima), 1.500' in text
    assert 'G step, sn / none: 2.000 (of minima), 1.000' in text
    assert '17.000 s; 50,000 of them: 236.1 h' in text


def test_the_benchmark_runs(capsys):
    arguments = ['--width', '2', '--batchsize', '2', '--rounds', '1']
    assert cpu_step.run_command(cpu_step.main, arguments) == 0
    out = capsys.readouterr().out
    for line in (
            r'machine:  \S.*\d+ of \d+ cores usable', r'versions: python 3\..*numpy .*chainer 7\.8', r'blas:     \S',
            r'steps:    model cnn, width 2, batch 2, 32x32; 1 rounds', r'one iteration, sn, n_dis 5: '):
        assert re.search('^' + line, out, re.M), line
    numbers = r' +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d\d +\d\.\d{3}$'
    for name in ('sgemm', 'D, sn', 'G, sn', 'D, none', 'G, none'):
        assert re.search('^' + name + numbers, out, re.M), name
    assert re.search(r'^sgemm .* 1\.000$', out, re.M)


@pytest.mark.parametrize('arguments, message', [
    (['--rounds', '0'], '--rounds must be at least 1'), (['--width', '0'], 'model.width must be'),
    (['--batchsize', '0'], '--batchsize must be'), (['--size', '30'], 'dataset.size must be'),
    (['--model', 'x'], "there is no 'x' in configs/models.yml"), (['--widht', '2'], 'unrecognized arguments: --widht')])
def test_bad_input(capsys, arguments, message):
    assert cpu_step.run_command(cpu_step.main, ['--rounds', '1', *arguments]) == 2
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
