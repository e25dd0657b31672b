"""benchmarks/gpu_step.py on a CPU: all but a device's events. Speed is never asserted."""
from benchmarks import gpu_chainer  # isort: skip  (before Chainer, which needs util.compat)

import numpy as np
import pytest

from benchmarks import gpu_cases, gpu_rates, gpu_start, gpu_step, gpu_tables, gpu_timing
from util.cli import run_command

TINY = ['--device', '-1', '--width', '2', '--batchsize', '2', '--n-dis', '2', '--rounds', '1', '--seconds', '0.001',
        '--pictures', '9']


def run(*arguments):
    return run_command(gpu_step.main, [*TINY, *arguments])


def test_a_table(tmp_path, capsys):
    out = tmp_path / 'table.txt'
    assert not run('--variants', 'chainer', 'noise', 'captured', 'torch', '--without', 'kernels', '--out', str(out))
    text = capsys.readouterr().out
    assert out.read_text() == text
    rows = {line.partition('  ')[0].strip(): line for line in text.splitlines()}
    for name in 'Chainer as it comes', '+ noise, batches in one launch':
        median, least = map(float, rows[name][31:].split()[:2])
        assert 0 < least <= median and rows[name].endswith('ok 0e+00 1.000 1.000')
    assert 'left out: needs a GPU' in rows['+ captured iterations']
    assert 'ok' in rows['PyTorch eager'] or 'left out: No module named' in rows['PyTorch eager']
    assert 'not measured (wanted: < 5)' in text and 'DIFFER' not in text
    assert 'width 2, batch 2, n_dis 2, 32x32; 1 rounds' in text and 'tf32' in text


@pytest.mark.parametrize('arguments, said', [
    (['--variants', 'captured'], 'no variant could be timed'), (['--device', '77'], '--device 77'),
    (['--width', '0'], 'width')])
def test_nothing_to_time(tmp_path, capsys, arguments, said):
    assert run(*arguments, '--without', 'rates') == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('arguments, flag', [
    (['--rounds', '0'], '--rounds'), (['--variants', 'chainer', '--without', 'chainer'], '--without'),
    (['--variants', 'tensorflow'], '--variants')])
def test_bad_arguments(arguments, flag, capsys):
    assert run(*arguments) == 2
    line, = capsys.readouterr().err.splitlines()
    assert flag in line


def ends(seed):
    rng = np.random.RandomState(seed)
    return {'losses': [[1.0, 2.0]], 'weights': {name: {'W': rng.standard_normal(50)} for name in ('gen', 'dis')}}


def test_what_differs_is_seen():
    start = {name: {'W': np.zeros(50)} for name in ('gen', 'dis')}
    assert gpu_cases.compare(ends(0), ends(0), start, 'fp32').startswith('ok')
    assert gpu_cases.compare(ends(0), ends(1), start, 'tf32').startswith('DIFFERS')
    assert gpu_cases.compare({**ends(0), 'losses': [[np.nan, 2.0]]}, ends(0), start, 'bf16').startswith('DIFFERS')
    assert gpu_cases.compare({**ends(0), 'losses': [[1.0, 2.1]]}, ends(0), start, 'fp32').startswith('DIFFERS')


@pytest.mark.parametrize('wrong', ['weights', 'pictures'])
def test_another_iteration_differs(wrong):
    """The check sees a discriminator without its normalization, and other pictures."""
    config = gpu_cases.resolve('cnn', True, 4, 8, 2, 32, 'cpu')
    start = gpu_start.make_start(config, gpu_cases.random_images(20, 32), gpu_cases.CHECKED)

    def check(config, images):
        return gpu_chainer.Iteration(config, images, gpu_chainer.get_device('-1'), {}).check(start)
    images = gpu_cases.random_images(20, 32)
    right = check(config, images)
    other = gpu_cases.resolve('cnn', wrong != 'weights', 4, 8, 2, 32, 'cpu')
    result = check(other, images if wrong == 'weights' else 255 - images)
    assert gpu_cases.compare(right, check(config, images), start['weights'], 'fp32').startswith('ok')
    assert gpu_cases.compare(result, right, start['weights'], 'tf32').startswith('DIFFERS')


def rows(**ms):
    made = {}
    for name, value in ms.items():
        row = made[name.replace('_', '-')] = gpu_tables.Row()
        row.ms, row.walls, row.kernels, row.memory = [value, 2 * value, value], [4 * value / 3], (70, 0.5), 2 ** 21
    return made


def test_goals_by_hand():
    made = rows(captured=3.0, captured_none=2.0, torch=18.0, torch_graph=2.5)
    made['captured'].walls = [9.0]
    text = '\n'.join(gpu_tables.describe(made, 10 ** 9, {'tf32': 10.0}))
    assert '2.500 (wanted: < 5, met)' in text  # 50,000 times 3 ms
    assert '6.000 (wanted: >= 4, met)' in text and '1.200 (wanted: <= 1, NOT MET)' in text
    assert '1.500 (wanted: <= 1.03, NOT MET)' in text
    line = next(line for line in text.splitlines() if line.startswith('+ captured'))
    # median, least, PyTorch's / ours, 2 * 1e9 products / 3 ms, of 10 TFLOP/s, kernels, their ms, MiB, minutes
    assert line.split()[3:12] == ['3.000', '3.000', '6.00', '0.667', '7%', '70', '0.500', '2', '2.50']
    assert 'CLOCKS DIFFER: + captured iterations: 4.000 ms by events, 9.000' in text
    assert text.count('CLOCKS') == 1


def test_a_turn():
    calls = []
    turn = gpu_timing.take_turn(lambda: calls.append(1), gpu_timing.HostClock(), 0, 100)
    assert len(turn['ms']) == gpu_timing.LEAST == len(calls) - 1 and turn['wall'] > 0
    assert len(gpu_timing.take_turn(lambda: None, gpu_timing.HostClock(), 10, 5)['ms']) == 5


def test_what_goes_wrong_is_one_line():
    def fail():
        raise ValueError('two\nlines')
    assert gpu_timing.guarded(fail)() == ('ValueError: two lines', None)
    assert gpu_timing.guarded(lambda: 3)() == (None, 3)


def test_versions():
    assert 'numpy ' + np.__version__ in gpu_rates.describe_versions(None)
    assert 'cuda not found' in gpu_rates.describe_versions(None)
