"""What each target of the Makefile would run, and how it makes environments. Nothing is installed: Python is a fake."""
import os
import shlex
import shutil
import subprocess

import pytest

from tests.make_tree import FAKE_PYTHON, ROOT, SETTINGS, TARGETS, Tree


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_an_exported_cuda_is_not_ours(tree):
    assert 'CUDA none (no NVIDIA driver answers)' in tree.make('install', CUDA='/usr/local/cuda')[0]


def test_help_is_the_default_and_lists_every_target(tree):
    out, err = tree.make()
    assert (out, err) == tree.make('help')
    assert set(TARGETS) <= set(out.split())
    assert all(len(line) <= 120 for line in out.splitlines())
    assert tree.calls() == []


def test_every_target_that_is_phony_is_in_help(tree):
    database = tree.make('-pn', 'help')[0]
    phony = next(line for line in database.splitlines() if line.startswith('.PHONY:')).split()[1:]
    sweeps = ('method-', 'grid-', 'resnet-', 'stl10-', 'imagenet-', 'bssn-', 'n-dis-', 'critic-')
    assert sorted(target for target in phony if not target.startswith(sweeps)) == sorted(TARGETS)
    listed = tree.make('help')[0]
    assert all(sweep in listed for sweep in sweeps)


@pytest.mark.parametrize('arguments, expected', [
    (['normalize'], '--method sn'),
    (['normalize', 'METHOD=none', 'SETTING=C'], '--method none --setting C'),
    (['setting-A'], '--method sn --setting A'),
    (['setting-default', 'METHOD=none'], '--method none --setting default'),
    (['setting-B', 'SETTING=B'], '--method sn --setting B'),
    (['normalize', 'PROFILE=quick'], '--method sn --profile quick'),
    (['normalize', 'DATASET=digits'], '--method sn --dataset digits'),
    (['normalize', 'MODEL=sndcgan'], '--method sn --model sndcgan'),
    (['normalize', 'ITERATIONS=40'], '--method sn --iterations 40'),
    (['normalize', 'SEED=0'], '--method sn --seed 0'),
    (['normalize', 'DEVICE=-1'], '--method sn --device -1'),
    (['normalize', 'ENGINE=stock'], '--method sn --engine stock'),
    (['normalize', 'CAPTURE=no'], '--method sn --capture no'),
    (['normalize', 'DATA_DIR=/data'], '--method sn --data-dir /data'),
    (['normalize', 'OUT=run'], '--method sn --out run'),
    (['normalize', 'PROTOCOL=50k', 'SCORER=none'], '--method sn --protocol 50k --scorer none'),
    (['normalize', 'TAG=x y'], "--method sn --tag 'x y'"),
    (['method-wgan_gp', 'SETTING=D'], '--method wgan_gp --setting D'),
    (['grid-weight_norm-F'], '--method weight_norm --setting F'),
    (['resnet-resnet_projection-sn_hinge'], '--method sn_hinge --setting resnet --model resnet_projection'),
    (['stl10-cnn-sn'], '--method sn --setting B --dataset stl10 --model cnn'),
    (['stl10-cnn-orthonormal'], '--method orthonormal --setting C --dataset stl10 --model cnn'),
    (['stl10-cnn-wgan_gp'], '--method wgan_gp --setting default --dataset stl10 --model cnn'),
    (['stl10-resnet48-sn_hinge', 'SETTING=A'], '--method sn_hinge --setting A --dataset stl10 --model resnet48'),
    (['imagenet-resnet128_concat-sn_hinge', 'SEED=1', 'DATA_DIR=d'],
     '--method sn_hinge --setting imagenet --dataset imagenet --model resnet128_concat --protocol imagenet '
     '--iterations 450000 --seed 1 --data-dir d --evaluation-interval 10000 --snapshot-interval 10000'),
    (['imagenet-resnet128-sn_hinge', 'ITERATIONS=9', 'PROTOCOL=50k', 'DATA_DIR=d'],
     '--method sn_hinge --setting imagenet --dataset imagenet --model resnet128 --protocol 50k --iterations 9 '
     '--data-dir d --evaluation-interval 10000 --snapshot-interval 10000'),
    (['imagenet-resnet128-sn_hinge', 'ITERATIONS=', 'PROTOCOL= ', 'DATA_DIR=d'],
     '--method sn_hinge --setting imagenet --dataset imagenet --model resnet128 --protocol imagenet '
     '--iterations 450000 --data-dir d --evaluation-interval 10000 --snapshot-interval 10000'),
    (['bssn-ssn-0.7'], '--method ssn --setting B --model bsn_cnn --tag scale-0.7 --set method.scale=0.7'),
    (['bssn-bssn-4.0', 'TAG=x', 'MODEL=cnn', 'SET=a.b=1'],
     '--method bssn --setting B --model cnn --tag x-scale-4.0 --set method.scale=4.0 --set a.b=1'),
    (['bssn-ssn-1.2', 'TAG='], '--method ssn --setting B --model bsn_cnn --tag scale-1.2 --set method.scale=1.2'),
    (['n-dis-sn-20-1'],
     '--method sn --setting D --iterations 300 --seed 1 --tag n_dis-20 --set setting.n_dis=20'),
    (['n-dis-weight_norm-1-0', 'PROFILE=paper', 'TAG=x', 'SEED=0'],
     '--method weight_norm --setting D --profile paper --iterations 10000 --seed 0 --tag x-n_dis-1 '
     '--set setting.n_dis=1'),
    (['critic-sn_gp'], '--method sn_gp --iterations 1000 --tag split-train --set dataset.split=train'),
    (['critic-sn_gp', 'PROFILE=paper', 'SETTING=D'], '--method sn_gp --setting D --profile paper'),
    (['normalize', 'SET=a.b=1 c.d=2'], '--method sn --set a.b=1 --set c.d=2'),
    (['normalize', 'PROFILE=', 'METHOD=', 'SETTING=', 'SET=', 'OUT= '], '--method sn'),
    (['setting-F', 'OUT=r', 'SEED=1', 'PROFILE=paper', 'DATASET=folder', 'MODEL=cnn', 'ITERATIONS=2', 'DEVICE=0',
      'DATA_DIR=d', 'SET=a.b=1'],
     '--method sn --setting F --profile paper --dataset folder --model cnn --iterations 2 --seed 1 --device 0 '
     '--data-dir d --out r --set a.b=1'),
])
def test_variables_become_flags(tree, arguments, expected):
    assert tree.runs(*arguments) == [shlex.split(expected)]


def test_onednn(tree):
    tree.make('onednn', CUDA='none')
    assert tree.calls('--editable')[-1].endswith('--editable .[onednn]')
    calls = tree.calls()
    tree.make('onednn')  # once is enough
    assert tree.calls() == calls


def test_tensorboard(tree):
    tree.make('normalize', 'TENSORBOARD=1', CUDA='none')
    assert tree.calls('--editable')[-1].endswith('--editable .[tensorboard]')
    assert tree.calls('train.py') == ['train.py --method sn --tensorboard']
    assert tree.runs('setting-A', 'TENSORBOARD=0') == [['--method', 'sn', '--setting', 'A']]
    tree.make('settings', TENSORBOARD='1')
    assert len(tree.calls('--tensorboard')) == 8 and len(tree.calls('--editable')) == 2


@pytest.mark.parametrize('value', ["it's", 'two  words', '"quoted"', '$$HOME', 'a;b', 'a,b', '*', 'x)', '`x`'])
def test_values_reach_the_command_as_they_are(tree, value):
    assert tree.runs('normalize', 'OUT=' + value)[0][-2:] == ['--out', value.replace('$$', '$')]


def test_variables_come_from_the_environment_too(tree):
    assert '--seed' in tree.make('-n', 'normalize', SEED='3')[0]
    assert "--tag 'x-scale-0.7' --set method.scale=0.7" in tree.make('-n', 'bssn-ssn-0.7', TAG='x')[0]


@pytest.mark.parametrize('target, command', [
    ('table', '.venv/bin/python -m util.report'),
    ('figures', '.venv/bin/python -m util.analysis'),
    ('report', '.venv/bin/python -m util.page'),
    ('timing', '.venv/bin/python -m benchmarks.methods'),
    ('test', '.venv/bin/python -m pytest --cov --cov-report=term --durations=10'),
    ('lint', '.venv/bin/python -m ruff check .'),
    ('inception', '.venv/bin/python -m util.inception fetch'),
    ('parity', "DATA_DIR='' .venv-parity/bin/python -m pytest -rs tests/parity"),
    ('cpu-benchmark', '.venv-parity/bin/python -m benchmarks.cpu_step'),
    ('test-kernels', '.venv-kernels/bin/python -m pytest -rs tests/kernels'),
    ('test-plans', '.venv-plans/bin/python -m pytest -rs tests/plans'),
])
def test_commands_of_other_targets(tree, target, command):
    assert tree.make('-n', target)[0].splitlines()[-1] == command


@pytest.mark.parametrize('arguments, command', [
    (['inception', 'FROM=pytorch'], '-m util.inception fetch --from pytorch'),
    (['scorer', 'DATASET=cifar10'], '-m util.classifier cifar10'),
    (['timing', 'PROFILE=paper', 'DATASET=stl10', 'MODEL=cnn', 'SETTING=D', 'DEVICE=0', 'ENGINE=stock', 'SEED=1'],
     '-m benchmarks.methods --profile paper --dataset stl10 --model cnn --setting D --device 0 --engine stock'),
    (['scorer', 'DATASET=digits', 'SEED=2', 'DEVICE=0', 'DATA_DIR=a b', 'ITERATIONS=3'],
     '-m util.classifier digits --seed 2 --device 0 --data-dir a b')])
def test_commands_with_variables(tree, arguments, command):
    tree.make(*arguments)
    assert tree.calls()[-1].split() == command.split()


@pytest.mark.parametrize('arguments, message', [
    (['scorer'], 'DATASET=: name a data set whose pictures have labels'),
    (['install', 'CUDA=11'], 'CUDA=11: expected 12, 13 or none'),
    (['normalize', 'CUDA=yes'], 'CUDA=yes: expected 12, 13 or none'),
    (['settings', 'OUT=x'], 'OUT=x: is the folder of one run'),
    (['setting-A', 'normalize', 'OUT=x'], 'OUT=x: is the folder of one run'),
    (['setting-A', 'SETTING=B'], 'SETTING=B: contradicts setting-A'),
    (['settings', 'SETTING=B'], 'SETTING=B: contradicts settings'),
    (['grid', 'normalize', 'SETTING=B'], 'SETTING=B: contradicts grid'),
    (['grid-sn-A', 'METHOD=none'], 'METHOD=none: contradicts grid-sn-A'),
    (['resnet', 'MODEL=cnn'], 'MODEL=cnn: contradicts resnet'),
    (['imagenet-resnet128-sn_hinge', 'DATA_DIR=d', 'MODEL=cnn'], 'MODEL=cnn: contradicts imagenet-resnet128-sn_hinge'),
    (['stl10', 'DATASET=cifar10'], 'DATASET=cifar10: contradicts stl10'),
    (['imagenet'], "DATA_DIR=: name the folder of ImageNet's class folders"),
    (['methods', 'OUT=x'], 'OUT=x: is the folder of one run'),
    (['methods', 'METHOD=sn'], 'METHOD=sn: contradicts methods'),
    (['n-dis', 'SEED=1'], 'SEED=1: contradicts n-dis'),
    (['n-dis-sn-5-0', 'METHOD=none'], 'METHOD=none: contradicts n-dis-sn-5-0'),
    (['critic', 'METHOD=sn'], 'METHOD=sn: contradicts critic'),
    (['method-none', 'METHOD=sn'], 'METHOD=sn: contradicts method-none'),
])
def test_refusals_are_one_line(tree, arguments, message):
    assert message in tree.refusal(*arguments)


@pytest.mark.parametrize('smi, status, cuda', [
    ('| NVIDIA-SMI 550.54.14   Driver Version: 550.54.14   CUDA Version: 12.4     |', 0, '12'),
    ('| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0     |', 0, '13'),
    ('| NVIDIA-SMI 610.1  KMD Version: 610.1  CUDA UMD Version: 13.3  |', 0, '13'),
    ('| CUDA Version: 14.0 |', 0, '13'),
    ('| CUDA Version: 11.8 |', 0, 'none'),
    ('| CUDA Version: N/A |', 0, 'none'),
    ('Failed to initialize NVML', 18, 'none'),
])
def test_cuda_is_guessed_from_the_driver(tree, smi, status, cuda):
    tree.driver(smi, status)
    out, err = tree.make('install')
    assert 'installed in .venv, CUDA {} ('.format(cuda) in out.splitlines()[-1]
    assert tree.calls('--editable')[-1].split()[-1] == ('.' if cuda == 'none' else '.[cuda{}]'.format(cuda))


DRIVER = '| CUDA Version: 12.4 |'
GPU_CHECK = ['-m pytest -rs tests/gpu', '-m benchmarks.gpu_step --out results/gpu-step.txt']


@pytest.mark.parametrize('arguments, folder, extras', [
    ([], '.venv', ['.[cuda12]', '.[test]']), (['TORCH=1'], '.venv-torch', ['.[test,parity,cuda12]']),
    (['TORCH=0', 'CUDA=13'], '.venv', ['.[cuda13]', '.[test]'])])
def test_gpu_check(tree, arguments, folder, extras):
    tree.driver(DRIVER)
    out, _ = tree.make('gpu-check', *arguments)
    assert [line.split()[-1] for line in tree.calls('--editable')] == extras
    assert tree.calls()[-2:] == GPU_CHECK and folder + '/bin/python -m benchmarks.gpu_step' in out
    assert (tree.folder / folder).exists() and len(list(tree.folder.glob('.venv*'))) == 1


@pytest.mark.parametrize('arguments, message', [
    ([], 'no NVIDIA driver answers'), (['TORCH=1'], 'no NVIDIA driver answers'), (['CUDA=none'], 'as CUDA= says')])
def test_gpu_check_without_a_gpu(tree, arguments, message):
    error = tree.refusal('gpu-check', *arguments)
    assert 'gpu-check: needs an NVIDIA GPU (' + message in error


def test_gpu_check_asks_the_driver_where_there_was_none(tree):
    tree.make('install')
    tree.driver(DRIVER)
    tree.make('gpu-check')
    assert [line.split()[-1] for line in tree.calls('--editable')] == ['.', '.[cuda12]', '.[test]']


def test_gpu_check_on_another_gpu(tree):
    tree.driver(DRIVER)
    tree.make('gpu-check', 'DEVICE=1')
    assert tree.calls()[-1] == '-m benchmarks.gpu_step --device 1 --out results/gpu-step.txt'


@pytest.mark.parametrize('fail, others', [('pytest', 2), ('benchmarks', 2)])
def test_gpu_check_does_both_and_fails_where_one_does(tree, fail, others):
    tree.driver(DRIVER)
    tree.make('gpu-check', status=2, FAIL_AT=fail)
    assert tree.calls()[-others:] == GPU_CHECK


def test_cuda_given_is_not_guessed(tree):
    tree.driver('| CUDA Version: 12.4 |')
    assert 'CUDA none (as CUDA= says)' in tree.make('install', 'CUDA=none')[0]


def test_what_is_installed_stays_until_install_asks_again(tree):
    tree.make('install', 'CUDA=12')
    tree.driver('| CUDA Version: 13.0 |')
    tree.make('normalize')
    tree.make('normalize')
    assert len(tree.calls('--editable')) == 1
    tree.make('install')
    assert len(tree.calls('--editable')) == 2
    assert 'cupy-cuda12x' in tree.calls('uninstall')[-1]
    assert [path.name for path in (tree.folder / '.venv').glob('.installed-*')] == ['.installed-13']


def test_a_newer_setup_is_installed_again(tree):
    tree.make('install')
    later = os.stat(tree.folder / '.venv' / '.installed-none').st_mtime + 5
    os.utime(tree.folder / 'setup.py', (later, later))
    tree.make('install')
    assert len(tree.calls('--editable')) == 2


def test_test_tools_come_with_the_tests_only(tree):
    tree.make('normalize')
    assert [line.split()[-1] for line in tree.calls('--editable')] == ['.']
    tree.make('test')
    tree.make('lint')
    assert [line.split()[-1] for line in tree.calls('--editable')] == ['.', '.[test]']


def test_a_failed_installation_is_tried_again(tree):
    tree.command('python3', FAKE_PYTHON.replace('sleep 0.2', 'exit 1'))
    tree.make('install', status=2)
    assert not list((tree.folder / '.venv').glob('.installed-*'))
    shutil.rmtree(tree.folder / '.venv')
    tree.command('python3', FAKE_PYTHON)
    tree.make('install')


def test_jobs_side_by_side_install_once(tree):
    tree.make('-j', '8', 'settings', 'test', 'lint')
    assert [line.split()[-1] for line in tree.calls('--editable')] == ['.', '.[test]']
    assert len(tree.calls('train.py')) == 7


@pytest.mark.skipif(shutil.which('flock') is None, reason='no flock: makes side by side have no lock')
def test_makes_side_by_side_install_once(tree):
    processes = [tree.start('setting-' + row) for row in SETTINGS]
    for process in processes:
        assert process.wait(60) == 0
        process.stdout.close(), process.stderr.close()
    assert len(tree.calls('--editable')) == 1
    assert len(tree.calls('train.py')) == 7


def test_constraints_reach_pip_as_an_absolute_url(tree):
    tree.make('install', PIP_CONSTRAINT='/mine.txt')
    url = (tree.folder / 'constraints.txt').as_uri()
    assert (tree.folder.parent / 'constraints').read_text() == '/mine.txt {0}|{0}\n'.format(url)
    assert '%20' in url


def test_python_that_does_not_fit(tree):
    out, err = tree.make('install', status=2, UNFIT='yes')
    assert 'error: PYTHON (python3 ' in err and 'expected a Python 3.10 to 3.13' in err.splitlines()[0]
    out, err = tree.make('install', 'PYTHON=/no/such python', status=2)
    assert 'error: PYTHON (/no/such python): expected' in err.splitlines()[0]
    assert not (tree.folder / '.venv').exists()


@pytest.mark.parametrize('goals', [['report'], ['figures', 'report'], ['-j', '4', 'report', 'figures']])
def test_a_report_follows_its_figures(tree, goals):
    tree.make(*goals, 'DATA_DIR=d', CUDA='none')
    assert tree.calls('util.') == ['-m util.analysis --data-dir d', '-m util.page']


def test_python_given(tree):
    tree.command('my python', FAKE_PYTHON.replace('echo "$*"', 'echo "mine $*"'))
    tree.make('install', 'PYTHON={}/my python'.format(tree.bin))
    assert tree.calls('mine')


def test_clean_leaves_results_alone(tree):
    tree.make('install')
    kept = ['results/runs/a/done', 'results/__pycache__/x', 'util/a.py']
    gone = ['util/__pycache__/a.pyc', '.venv-kernels/x', 'build/x', 'a.egg-info/x', '.coverage', '.pytest_cache/x']
    for name in kept + gone:
        (tree.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.folder / name).touch()
    assert 'results/ was left alone' in tree.make('clean')[0]
    assert all((tree.folder / name).exists() for name in kept)
    assert not any((tree.folder / name).exists() for name in [*gone, '.venv'])
    assert not any((tree.folder / name).exists() for name in ['util/__pycache__', 'build', 'a.egg-info'])


@pytest.mark.parametrize('fail, expected', [('nothing', ['test', 'test-kernels']), ('test', ['test'])])
def test_continuous_integration(tree, fail, expected):
    shutil.copytree(ROOT / '.ci', tree.folder / '.ci')
    tree.command('make', '#!/bin/sh\necho "$*" >>../calls\n[ "$*" != {} ]\n'.format(fail))
    process = subprocess.run([tree.folder / '.ci' / 'run'], cwd='/', env={'PATH': '{}:/usr/bin:/bin'.format(tree.bin)})
    assert process.returncode == (fail != 'nothing')
    assert tree.calls() == expected
