"""The Makefile's sweeps: which runs they are, side by side, and what happens when one of them ends badly."""
import pytest

from tests.make_tree import METHODS, SETTINGS, Tree


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_a_new_method_has_its_target(tree):
    with open(tree.folder / 'configs' / 'methods.yml', 'a') as f:
        f.write('maximum_norm:\n  normalization: maximum\n')
    assert tree.runs('method-maximum_norm') == [['--method', 'maximum_norm']]
    assert tree.runs('methods', 'PROFILE=paper')[-1][1] == 'maximum_norm'


def test_values_reach_the_runs_of_a_sweep_as_they_are(tree):
    run = tree.runs('methods', 'TAG=a b', "DATA_DIR=it's", 'SET=a.b=1 c.d=2')[0]
    assert run == ['--method', 'none', '--iterations', '1000', '--data-dir', "it's", '--tag', 'a b',
                   '--set', 'a.b=1', '--set', 'c.d=2']


def test_settings_are_all_seven(tree):
    assert tree.runs('settings', 'SEED=2') == [
        ['--method', 'sn', '--setting', row, '--seed', '2'] for row in SETTINGS]


def test_methods_are_all_rows_in_their_order(tree):
    assert tree.runs('methods', 'PROFILE=paper') == [
        ['--method', method, '--profile', 'paper'] for method in METHODS]


def test_methods_are_shorter_in_the_quick_profile(tree):
    short = ['--iterations', '1000', '--tag', '1000']
    assert tree.runs('methods')[0] == ['--method', 'none', *short]
    assert tree.runs('methods', 'PROFILE=quick')[0][-4:] == short
    assert tree.runs('methods', 'ITERATIONS=9')[0] == ['--method', 'none', '--iterations', '9']
    tree.driver('| CUDA Version: 13.0 |')
    assert tree.runs('methods')[0] == ['--method', 'none']
    assert tree.runs('methods', 'DEVICE=cpu')[0] == ['--method', 'none', *short[:2], '--device', 'cpu', *short[2:]]


def test_the_grid_is_the_papers_methods_times_its_settings(tree):
    methods = ['weight_clipping', 'gan_gp', 'wgan_gp', 'batch_norm', 'layer_norm', 'weight_norm', 'orthonormal', 'sn']
    assert tree.runs('grid') == [['--method', m, '--setting', s] for m in methods for s in 'ABCDEF']


def test_methods_and_settings_of_the_grid_can_be_chosen(tree):
    assert tree.runs('grid', 'GRID_METHODS=none sn', 'GRID_SETTINGS=default D') == [
        ['--method', m, '--setting', s] for m in ('none', 'sn') for s in ('default', 'D')]


@pytest.mark.parametrize('sweep, count', [('resnet', 3), ('stl10', 9), ('imagenet', 4), ('bssn', 38), ('critic', 5)])
def test_other_sweeps(tree, sweep, count):
    runs = tree.runs(sweep, 'DATA_DIR=d')
    assert len(runs) == len({tuple(run) for run in runs}) == count


def test_scales_can_be_chosen(tree):
    assert [run[-1] for run in tree.runs('bssn', 'SCALES=1.2')] == 2 * ['method.scale=1.2']


def test_n_dis_with_each_seed_and_in_the_quick_profile_with_the_first(tree):
    assert len(tree.runs('n-dis', 'PROFILE=paper')) == 2 * 5 * 3
    quick = tree.runs('n-dis')
    assert len(quick) == 2 * 5 and all(run[run.index('--seed') + 1] == '0' for run in quick)
    seeds = [run[run.index('--seed') + 1] for run in tree.runs('n-dis', 'SEEDS=3 4', 'N_DIS=7')]
    assert seeds == ['3', '3', '4', '4']
    assert [run[-1][-1] for run in tree.runs('n-dis', 'N_DIS=2 7')] == ['2', '2', '7', '7']


def test_a_sweep_on_a_cpu_fills_its_cores(tree):
    tree.command('nproc', '#!/bin/sh\necho 5\n')
    assert 'OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}' in tree.make('-n', 'settings')[0]
    assert ' -j5 ' in tree.make('-n', 'settings')[0]
    assert ' -j5 ' not in tree.make('-n', '-j2', 'settings')[0]
    tree.driver('| CUDA Version: 13.0 |')
    on_gpu = tree.make('-n', 'settings')[0]
    assert ' -j5 ' not in on_gpu and 'OMP_NUM_THREADS' not in on_gpu


def test_a_run_that_diverges_does_not_stop_a_sweep_and_alone_it_tells(tree):
    tree.make('settings', FAIL='B', STATUS='3')
    assert len(tree.calls('train.py')) == 7
    assert 'setting-B] Error 3' in tree.make('setting-B', status=2, FAIL='B', STATUS='3')[1]


def test_keep_going_passes_a_failed_run(tree):
    out, err = tree.make('-k', 'settings', status=2, FAIL='B')
    assert len(tree.calls('train.py')) == 7
    assert 'setting-B] Error 1' in err and err.count('Error 1') == 1


def test_without_keep_going_a_failed_run_is_the_last(tree):
    tree.make('-j1', 'settings', status=2, FAIL='B')
    assert [line.split()[-1] for line in tree.calls('train.py')] == ['default', 'A', 'B']
