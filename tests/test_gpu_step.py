"""How an iteration on a GPU is timed, checked and described, without one: on the CPU, and against numbers by hand."""
import functools
import re
import sys
import types

from util import trainer  # isort: skip  (before Chainer, which needs util.compat)

import chainer
import numpy as np
import pytest

from benchmarks import counts, gpu_cases, gpu_chainer, gpu_rates, gpu_start, gpu_step, gpu_tables, gpu_timing, workers
from util.cli import run_command
from util.device import get_device
from util.engine.flat_adam import FlatAdam
from util.files import UserError

TINY = ['--device', '-1', '--width', '2', '--size', '16', '-b', '2', '--n-dis', '2', '--pictures', '9', '--rounds', '2',
        '--seconds', '0']
run = functools.partial(run_command, gpu_step.main)


def tiny(model='cnn', normalized=True):
    return gpu_cases.resolve(model, normalized, 2, 2, 2, 16 if model == 'cnn' else 32, 'cpu')


def iterate(name, config, iterations=2):
    images = gpu_cases.random_images(9, config.dataset.size)
    start = gpu_start.make_start(config, images, iterations)
    iteration = gpu_chainer.Iteration(config, images, get_device('cpu'), gpu_cases.VARIANTS[name].options)
    return start, iteration, iteration.check(start)


# Clocks

class Clock(gpu_timing.HostClock):
    """Of a device on which an iteration takes 3 ms, and whose queue is looked at."""

    def __init__(self):
        self.calls, self.waited = 0, []

    def iterate(self):
        self.calls += 1

    def mark(self):
        return self.calls

    def between(self, start, stop):
        return 3 * (stop - start)

    def wait(self, mark):
        self.waited.append((mark, self.calls))


def test_a_turn():
    clock = Clock()
    turn = gpu_timing.take_turn(clock.iterate, clock, 60, 20)
    assert turn['ms'] == 20 * [3] and clock.calls == 21 and turn['wall'] >= 0  # one to warm up
    assert {calls - mark for mark, calls in clock.waited} == {gpu_timing.IN_FLIGHT - 1}
    assert len(gpu_timing.take_turn(clock.iterate, clock, 0, 20)['ms']) == gpu_timing.LEAST
    assert len(gpu_timing.take_turn(clock.iterate, clock, 0, 1)['ms']) == 1


def test_the_hosts_clock(monkeypatch):
    monkeypatch.setattr(gpu_timing.time, 'perf_counter', iter([1., 1.5]).__next__)
    clock = gpu_timing.HostClock()
    assert clock.between(clock.mark(), clock.mark()) == 500 and clock.free_memory() is None


class FakeEvent:
    def __init__(self, **options):
        self.options, self.calls = options, []

    def record(self):
        self.calls.append('record')

    def synchronize(self):
        self.calls.append('synchronize')

    def elapsed_time(self, other):
        return other.at - self.at


def test_clocks_of_devices_ask_their_own_framework():
    device = types.SimpleNamespace(synchronize=lambda: None)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(
        Event=FakeEvent, Device=lambda: device, get_elapsed_time=lambda a, b: b.at - a.at,
        runtime=types.SimpleNamespace(memGetInfo=lambda: (5, 9))))
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(
        Event=FakeEvent, synchronize=lambda: None, mem_get_info=lambda: (5, 9)))
    for clock in (gpu_timing.CupyClock(cupy), gpu_timing.TorchClock(torch)):
        a, b = clock.mark(), clock.mark()
        a.at, b.at = 1, 4
        clock.wait(a)
        clock.synchronize()
        assert a.calls == ['record', 'synchronize'] and clock.between(a, b) == 3 and clock.free_memory() == 5


def test_what_fails_is_one_line(capsys):
    assert gpu_timing.guarded(lambda x: x + 1)(1) == (None, 2)
    assert gpu_timing.guarded(lambda: 1 / 0)() == ('ZeroDivisionError: division by zero', None)
    assert 'Traceback' in capsys.readouterr().err


# Variants

def test_switches(monkeypatch):
    config = tiny()
    monkeypatch.setattr(trainer, 'optimizer_for', lambda device: FlatAdam)  # as on a GPU
    for name, grouped, flat in (('chainer', False, False), ('grouped', True, False), ('flat', True, True)):
        updater = iterate(name, config, 1)[1].updater
        assert hasattr(updater.discriminator.forward, '__wrapped__') == grouped
        for optimizer in updater.get_all_optimizers().values():
            assert type(optimizer) is (FlatAdam if flat else chainer.optimizers.Adam) and optimizer.t in (1, 2)
            rules = {type(p.update_rule) for p in optimizer.target.params()}
            assert rules == {type(optimizer.create_update_rule())}


@pytest.mark.parametrize('normalized', [True, False])
def test_variants_compute_the_same(normalized):
    config = tiny(normalized=normalized)
    start, _, reference = iterate('chainer', config)
    _, _, result = iterate('noise', config)
    assert gpu_cases.compare(result, reference, start['weights'], 'fp32') == 'ok 0e+00 1.000 1.000'
    assert len(start['vectors']) == (8 if normalized else 0)


def test_a_wrong_iteration_is_seen():
    config = tiny()
    start, _, reference = iterate('chainer', config)
    for change in ('fewer steps', 'no generator'):
        images = gpu_cases.random_images(9, 16)
        wrong = gpu_chainer.Iteration(config, images, get_device('cpu'), gpu_cases.VARIANTS['noise'].options)
        if change == 'fewer steps':
            wrong.updater.n_dis = 1
        else:
            wrong.updater.get_optimizer('gen').add_hook(lambda o: [p.grad.fill(0) for p in o.target.params()], 'none')
        assert gpu_cases.compare(wrong.check(start), reference, start['weights'], 'bf16').startswith('DIFFERS'), change
    broken = {**reference, 'losses': [[np.nan, 1]] * 2}
    assert gpu_cases.compare(broken, reference, start['weights'], 'bf16').startswith('DIFFERS')


@pytest.mark.parametrize('wrong', ['no normalization', 'other pictures'])
def test_another_iteration_is_seen(wrong):
    config, images = tiny(), gpu_cases.random_images(9, 16)
    start, _, reference = iterate('chainer', config)
    if wrong == 'no normalization':
        config = tiny(normalized=False)
    else:
        images = 255 - images
    other = gpu_chainer.Iteration(config, images, get_device('cpu'), {})
    assert gpu_cases.compare(other.check(start), reference, start['weights'], 'tf32').startswith('DIFFERS')


def test_the_start():
    start = gpu_start.make_start(tiny(), gpu_cases.random_images(9, 16), 2)
    first, second = start['inputs']
    assert first['z'].shape == (2, 128) and [x.shape for x in first['xs']] == 2 * [(2, 3, 16, 16)]
    draws = [first['z'], second['z'], *first['zs'], *second['zs']]
    assert len({x.tobytes() for x in draws}) == len(draws)
    W = start['weights']['dis']['conv3/W'].reshape(4, -1)
    u, v = start['vectors']['conv3']
    np.testing.assert_allclose(u @ W @ v, np.linalg.norm(W, 2), rtol=1e-5)


def test_alpha_is_a_runs_after_the_check():
    config = tiny()
    iteration = iterate('chainer', config)[1]
    assert {o.alpha for o in iteration.updater.get_all_optimizers().values()} == {config.setting.alpha}


def test_stock_noise():
    iteration = iterate('chainer', tiny(), 1)[1]
    iteration.use_stock_noise()
    drawn = iteration.updater.draw()
    assert drawn.generator[0].shape == (2, 128) and drawn.generator[0].dtype == np.float32
    x = drawn.discriminator[0].x_real
    assert x.shape == (2, 3, 16, 16) and x.dtype == np.float32 and -1 <= x.min() < x.max() < 1
    assert np.isfinite(float(iteration()['dis/loss']))


def test_iterations_that_are_not_captured_are_no_captured_ones():
    config = tiny()
    start, iteration, _ = iterate('noise', config, 1)
    iteration.updater.is_recorded = False
    iteration.said.append('Iterations are not captured')
    with pytest.raises(UserError, match='Iterations are not captured'):
        iteration.check(start)


@pytest.mark.parametrize('name, message', [('cudnn', 'engine must be auto or one of'), ('captured', 'need a GPU')])
def test_what_needs_a_gpu_says_so(name, message):
    with pytest.raises(UserError, match=message):
        gpu_chainer.make_steps(name, tiny(), 9, '-1')


@pytest.mark.parametrize('model, method', [('cnn', 'sn'), ('resnet', 'sn_hinge')])
def test_configs(model, method):
    with_sn, without = (gpu_cases.resolve(model, normalized, 64, 64, 3, 32, 'cuda') for normalized in (True, False))
    assert with_sn.method.name == method and without.method.normalization is None
    assert with_sn.method.loss == without.method.loss and with_sn.setting == without.setting
    assert with_sn.setting.n_dis == 3
    steps = counts.count(with_sn)
    assert gpu_step.work_of(with_sn) == steps['G'] + 3 * steps['D']


def test_each_variant_is_the_one_before_and_one_thing_more():
    names = 'chainer', 'grouped', 'flat', 'noise', 'cudnn', 'captured'
    options = [gpu_cases.VARIANTS[name].options for name in names]
    assert [len(o) for o in options] == [0, 1, 2, 3, 4, 5]
    assert all(before.items() <= after.items() for before, after in zip(options, options[1:], strict=False))


def test_kernels_are_counted_by_name_and_kind(monkeypatch):
    """With a stand-in for PyTorch's profiler."""
    kinds = types.SimpleNamespace(CUDA='cuda', CPU='cpu')

    def event(name, device_type, us, **more):
        return types.SimpleNamespace(name=name, device_type=device_type, **more,
                                     time_range=types.SimpleNamespace(elapsed_us=lambda: us))

    class Profile:
        def __init__(self, activities):
            assert activities == ['activity']

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def events(self):
            return [event('sn_rows', 'cuda', 1500), event('Memset (Device)', 'cuda', 9), event('gemm', 'cuda', 500),
                    event('cudaGraphLaunch', 'cpu', 9), event('step', 'cuda', 9, is_user_annotation=True)]
    torch, calls = types.ModuleType('torch'), []
    torch.autograd = types.ModuleType('torch.autograd')
    torch.autograd.DeviceType = kinds
    torch.cuda = types.SimpleNamespace(is_available=lambda: True)
    torch.profiler = types.SimpleNamespace(profile=Profile, ProfilerActivity=types.SimpleNamespace(CUDA='activity'))
    monkeypatch.setitem(sys.modules, 'torch', torch)
    monkeypatch.setitem(sys.modules, 'torch.autograd', torch.autograd)
    assert gpu_timing.count_kernels(lambda: calls.append(1), gpu_timing.HostClock()) == (2, 2)
    assert len(calls) == 2
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    assert gpu_timing.count_kernels(lambda: calls.append(1), gpu_timing.HostClock()) is None


# What is printed

def rows(**medians):
    made = {}
    for name, ms in medians.items():
        row = made[name.replace('_', '-')] = gpu_tables.Row()
        row.ms, row.walls, row.check = [ms + 1, ms, ms - 1] if ms else [], [ms] if ms else [], 'ok'
    return made


def test_describe():
    table = rows(chainer=60., captured=6., captured_none=5.9, torch=30., torch_graph=6.6, cudnn=None)
    table['captured'].kernels, table['captured'].memory = (812, 5.25), 3 << 29
    table['cudnn'].problem = 'cuDNN is not installed'
    lines = gpu_tables.describe(table, 6 * 10 ** 11, {'tf32': 400., 'bf16': 800.})
    cells = {line[:31].rstrip(): line[31:].split() for line in lines}
    # 2 x 0.6e12 operations in 6 ms are 200 TFLOP/s, half of 400; 50,000 times 6 ms are 5 min
    assert cells['+ captured iterations'] == '6.000 5.000 5.00 200 50% 812 5.250 1536 5.00 ok'.split()
    assert cells['Chainer as it comes'] == '60.000 59.000 0.50 20 - - - - 50.00 ok'.split()
    assert cells['+ cuDNN'] == 'left out: cuDNN is not installed'.split()
    text = '\n'.join(lines)
    for line in (r'50,000 iterations, captured, minutes: +5\.000 \(wanted: < 5, NOT MET\)',
                 r'PyTorch eager / captured: +5\.000 \(wanted: >= 4, met\)',
                 r'captured / PyTorch in a CUDA graph: +0\.909 \(wanted: <= 1, met\)',
                 r'spectral normalization / none, captured: +1\.017 \(wanted: <= 1\.03, met\)',
                 r'the same, eager: +not measured', r'large products .*: tf32 400\.0, bf16 800\.0'):
        assert re.search('^' + line, text, re.M), line
    assert 'DIFFER' not in text


def test_what_must_be_seen():
    table = rows(torch=30., captured=6.)
    table['captured'].check, table['torch'].walls = 'DIFFERS 1e+00 0.100 0.100', [60.]
    text = '\n'.join(gpu_tables.describe(table, 1, {}))
    assert 'NUMBERS DIFFER, so these are not times of the same iteration: + captured iterations' in text
    assert "CLOCKS DIFFER: PyTorch eager: 30.000 ms by events, 60.000 by this machine's clock" in text
    assert 'TFLOP/s: not measured' in text


@pytest.fixture
def without_pytorch(monkeypatch, tmp_path):
    """In the processes, too: they get this one's path."""
    (tmp_path / 'torch.py').write_text('raise ModuleNotFoundError("No module named \'torch\'")\n')
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_benchmark_runs(capsys, without_pytorch, tmp_path):
    out = tmp_path / 'results' / 'gpu-step.txt'
    assert run([*TINY, '--variants', 'chainer', 'noise', 'captured', 'torch', '--out', str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == out.read_text()
    for line in (r'model cnn, method sn, setting default; width 2, batch 2, n_dis 2, 16x16; 2 rounds',
                 r'Chainer as it comes +(\d+\.\d{3} +){2}- +\S+ +\d+% +- +- +- +\d+\.\d\d  ok 0e\+00 1\.000 1\.000$',
                 r'\+ noise, batches in one launch +\d+\.\d{3} .* ok ', 'versions: python 3',
                 r'\+ captured iterations +left out: needs a GPU$',
                 r"PyTorch eager +left out: No module named 'torch'$", r'large products.*: fp32 \d'):
        assert re.search('^' + line, printed.out, re.M), line
    assert max(map(len, printed.out.splitlines()[1:])) <= 140  # after the command
    assert [path.name for path in out.parent.iterdir()] == ['gpu-step.txt']


def test_nothing_can_be_timed(capsys, without_pytorch):
    assert run([*TINY, '--variants', 'torch', 'captured', '--without', 'rates', 'kernels']) == 2
    assert capsys.readouterr().err.splitlines()[-1] == 'error: no variant could be timed'


@pytest.mark.parametrize('arguments, message', [
    (['--rounds', '0'], '--rounds and --pictures must be at least 1'), (['--width', '0'], 'model.width must be'),
    (['--variants', 'x'], "--variants: invalid choice: 'x'"), (['--device', 'x'], '--device x: expected'),
    (['--variants', 'torch', '--without', 'torch'], '--without: nothing is left')])
def test_bad_input(capsys, arguments, message):
    assert run([*TINY, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1


def test_no_gpu_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr('util.compat.gpu_count', lambda: 0)
    monkeypatch.setattr('util.compat.gpu_problem', lambda: 'no driver')
    assert run([]) == 2
    assert capsys.readouterr().err == 'error: --device 0: there is no such GPU, none answers (no driver)\n'


def test_a_process_that_takes_too_long():
    with workers.Worker('rates', '-1', maker='benchmarks.gpu_rates') as worker:
        worker.wait()
        with pytest.raises(UserError, match='rates has not answered in 0 s'):
            worker.run('rates', timeout=0)


def test_versions_are_words():
    words = r'python 3\.\S+, numpy \S+, chainer 7\.8\.1, cupy .*, pytorch .*, cudnn .*, cuda 12\.4, driver .*'
    assert re.fullmatch(words, gpu_rates.describe_versions('12.4'))
