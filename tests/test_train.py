"""Whole runs, by way of the command line."""
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image

import train
from tests.helpers import FEW, refused
from tests.inception_weights import random_weights
from util import generate_inception_score, rundir
from util.cli import run_command
from util.inception import weights
from util.npz import fingerprint, read_npz
from util.rundir import Lock, RunDirectory
from util.scores import ScoreTable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY = ['--profile', 'quick', '--device', 'cpu', '--iterations', '6', '--batchsize', '4', '--evaluation-interval', '2',
        '--snapshot-interval', '2', '--display-interval', '1', '--set', 'model.width=2', '--set', 'setting.n_dis=1',
        '--set', 'model.initial_scale=0.3', '--set', 'setting.alpha=0.01', *FEW]
EXACT = ['gen_iter_000006.npz', 'images/iter_000006.png', 'scores.csv', 'images/iter_000004.png', 'gen_iter_000004.npz']


def start(out, *arguments):
    return run_command(train.main, [*TINY, '--out', str(out), *arguments])


def contents(out):
    return [(out / name).read_bytes() for name in EXACT]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'finished'
    # In a process of its own with another hash seed than any other's here: results must not depend on it
    process = popen(out, env={**os.environ, 'PYTHONHASHSEED': '1'})
    output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return out


def copy_until(source, target, iteration):
    """A copy of a finished run as it stood when it was killed after ``iteration``, with the newest two snapshots of
    that moment.
    """
    target.mkdir()
    (target / 'images').mkdir()
    for name in ('config.yml', 'environment.json', 'scores.csv', 'log'):
        (target / name).write_bytes((source / name).read_bytes())
    name = 'snapshot_iter_%06d.npz' % iteration
    (target / name).write_bytes((source / name).read_bytes())
    return target


def test_a_run_leaves_what_the_readme_promises(finished):
    expected = {'config.yml', 'environment.json', 'log', 'scores.csv', 'done', 'images', '.lock',
                'discriminator.csv'}
    expected |= {'gen_iter_%06d.npz' % i for i in (0, 2, 4, 6)} | {'snapshot_iter_%06d.npz' % i for i in (4, 6)}
    assert set(os.listdir(finished)) == expected
    assert sorted(os.listdir(finished / 'images')) == ['iter_%06d.png' % i for i in (0, 2, 4, 6)]
    assert Image.open(finished / 'images' / 'iter_000006.png').size == (342, 342)
    log = json.loads((finished / 'log').read_text())
    assert [entry['iteration'] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert {'gen/loss', 'dis/loss', 'sigma/conv1', 'sigma/dense', 'elapsed_time'} <= set(log[0])
    assert 'score/mean' in log[1]
    rows = ScoreTable(str(finished / 'scores.csv')).rows
    assert [r['iteration'] for r in rows] == [0, 2, 4, 6] and {r['samples'] for r in rows} == {20}
    assert all(1 <= r['score_mean'] <= 10 for r in rows) and {r['scorer'] for r in rows} == {'digits'}
    assert len({r['frechet_distance'] for r in rows}) == 4  # the generator did change
    environment = json.loads((finished / 'environment.json').read_text())
    assert environment['data']['pictures'] == 1797 and environment['sessions'][0]['versions']['chainer'] == '7.8.1'
    assert yaml.safe_load((finished / 'config.yml').read_text())['setting']['n_dis'] == 1


def test_a_finished_run_is_not_repeated(finished, capsys):
    before = {name: os.stat(finished / name).st_mtime_ns for name in os.listdir(finished)}
    assert start(finished) == 0
    assert 'finished already' in capsys.readouterr().out
    assert before == {name: os.stat(finished / name).st_mtime_ns for name in os.listdir(finished)}


@pytest.mark.parametrize('iteration', [1, 2, 3, 5])
def test_a_run_that_was_broken_off_ends_the_same(finished, tmp_path, monkeypatch, iteration):
    from util.updater import GANUpdater
    original = GANUpdater.update_discriminator

    def broken(self, step):
        if self.iteration == iteration:
            raise KeyboardInterrupt  # in the midst of an iteration; nothing is saved at that point
        original(self, step)
    with monkeypatch.context() as context:
        context.setattr(GANUpdater, 'update_discriminator', broken)
        assert start(tmp_path / 'run') == 128 + signal.SIGINT
    assert not (tmp_path / 'run' / 'done').exists()
    assert start(tmp_path / 'run') == 0
    assert contents(tmp_path / 'run') == contents(finished)
    for a, b in zip(*(json.loads((out / 'log').read_text()) for out in (finished, tmp_path / 'run')), strict=True):
        a, b = ({k: v for k, v in entry.items() if k != 'elapsed_time'} for entry in (a, b))
        assert a == b
    full, resumed = (read_npz(RunDirectory(out).snapshot(6)) for out in (finished, tmp_path / 'run'))
    assert full.keys() == resumed.keys()
    for key in full:
        if 'elapsed_time' not in key and '_log' not in key:
            np.testing.assert_array_equal(full[key], resumed[key], err_msg=key)


def popen(out, *arguments, **kwargs):
    return subprocess.Popen([sys.executable, 'train.py', *TINY, '--out', str(out), *arguments], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def wait_for(path, process):
    deadline = time.time() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.time() < deadline, 'nothing happened'
        time.sleep(0.01)


@pytest.mark.slow
def test_kill_9_and_again(tmp_path, finished):
    out = tmp_path / 'run'
    process = popen(out)
    wait_for(out / 'snapshot_iter_000002.npz', process)
    process.kill()
    process.communicate()
    assert not (out / 'done').exists()
    assert start(out) == 0
    assert contents(out) == contents(finished)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_say_how_to_go_on(tmp_path, number):
    out = tmp_path / 'run'
    arguments = ['--iterations', '100000', '--snapshot-interval', '100000', '--evaluation-interval', '100000']
    process = popen(out, *arguments)
    wait_for(out / 'log', process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, (output, errors)
    assert 'Stopped by {} at iteration'.format(number.name) in output and 'the same command goes on' in output
    assert 'Traceback' not in errors
    assert len(RunDirectory(out).iterations('snapshot')) == 1 and not (out / 'done').exists()


def test_stop_in_between_and_go_on_is_exact(tmp_path, finished, monkeypatch, capsys):
    from util.updater import GANUpdater
    original = GANUpdater.update_generator

    def interrupted(self):
        if self.iteration == 2:  # so the signal comes in the third iteration
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # make passes it on to who had it already
        original(self)
    with monkeypatch.context() as context:
        context.setattr(GANUpdater, 'update_generator', interrupted)
        assert start(tmp_path / 'run') == 128 + signal.SIGTERM
    assert RunDirectory(tmp_path / 'run').iterations('snapshot') == [2, 3]
    assert start(tmp_path / 'run') == 0
    assert 'Going on from iteration 3.' in capsys.readouterr().out
    assert contents(tmp_path / 'run') == contents(finished)


def test_damaged_snapshots(tmp_path, finished, capsys):
    out = copy_until(finished, tmp_path / 'run', 4)
    (out / 'snapshot_iter_000006.npz').write_bytes((finished / 'snapshot_iter_000006.npz').read_bytes()[:5000])
    assert start(out) == 0
    output = capsys.readouterr().out
    assert 'damaged snapshot, going back to the one before it' in output and 'Going on from iteration 4.' in output
    for name in EXACT[:3]:
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert RunDirectory(out).iterations('snapshot') == [4, 6] and (out / 'snapshot_iter_000006.npz.damaged').exists()


def test_a_snapshot_that_cannot_be_read_is_no_damaged_one(tmp_path, finished, capsys):
    out = copy_until(finished, tmp_path / 'run', 4)
    (out / 'snapshot_iter_000006.npz').mkdir()
    refused(capsys, start(out), 'snapshot_iter_000006.npz')
    assert RunDirectory(out).iterations('snapshot') == [4, 6]


def test_all_snapshots_damaged_starts_again_and_says_so(tmp_path, finished, capsys):
    out = copy_until(finished, tmp_path / 'run', 4)
    (out / 'snapshot_iter_000004.npz').write_bytes(b'')
    assert start(out) == 0
    assert 'starting again from the first iteration' in capsys.readouterr().out
    assert contents(out) == contents(finished)


def test_resume_from_a_given_snapshot(tmp_path, finished, capsys):
    source = finished / 'snapshot_iter_000004.npz'
    assert start(tmp_path / 'run', '--resume', str(source)) == 0
    assert 'Going on from iteration 4.' in capsys.readouterr().out
    assert (tmp_path / 'run' / EXACT[0]).read_bytes() == (finished / EXACT[0]).read_bytes()


def test_resume_from_what_is_no_snapshot_of_this_run(tmp_path, finished, capsys):
    source = str(finished / 'snapshot_iter_000004.npz')
    status = start(tmp_path / 'run', '--resume', source, '--seed', '1')
    refused(capsys, status, 'of another run (seed: 0 there, 1 here)')
    last = str(finished / 'snapshot_iter_000006.npz')
    refused(capsys, start(tmp_path / 'run', '--resume', last), 'nothing is left to do')
    generator = str(finished / 'gen_iter_000006.npz')
    refused(capsys, start(tmp_path / 'run', '--resume', generator), 'is not the snapshot of a run')
    np.save(tmp_path / 'x.npy', np.zeros(3))
    refused(capsys, start(tmp_path / 'run', '--resume', str(tmp_path / 'x.npy')), 'x.npy')
    assert os.listdir(tmp_path) == ['x.npy']


@pytest.mark.parametrize('arguments, message', [
    (['--dataset', 'mnist'], "--dataset: there is no 'mnist'"),
    (['--method', 'spectral'], '--method'),
    (['--setting', 'Z'], '--setting'),
    (['--model', 'resnet18'], '--model'),
    (['--profile', 'fast'], '--profile'),
    (['--set', 'setting.alhpa=1'], 'did you mean alpha?'),
    (['--set', 'method.loss=hing'], 'method.loss must be one of'),
    (['--set', 'model.architecture=transformer'], 'model.architecture must be one of cnn, resnet'),
    (['--set', 'dataset.source=nowhere'], 'dataset source'),
    (['--iterations', '0'], '--iterations must be'),
    (['--tag', '../x'], '--tag must be of letters'),
    (['--iterations', 'ten'], '--iterations'),
    (['--seed', '-3'], '--seed'),
    (['--device', '7'], '--device 7: there is no such GPU'),
    (['--device', 'tpu'], '--device tpu: expected'),
    (['--gpu', '9'], '--device 9'),
    (['--scorer', 'nobody'], 'nobody'),
    (['--resume', 'missing.npz'], 'cannot read missing.npz'),
    (['--unknown'], '--unknown'),
    (['--dataset', 'folder'], '--data-dir'),
    (['--dataset', 'imagenet', '--scorer', 'inception'], '--data-dir is required with a dataset of source imagenet'),
    (['--dataset', 'folder', '--data-dir', 'missing-folder'], 'missing-folder'),
    (['--dataset', 'cifar10', '--scorer', 'none', '--data-dir', 'missing-folder'], 'missing-folder'),
])
def test_bad_input_writes_nothing(tmp_path, capsys, arguments, message):
    if '--gpu' not in arguments:
        refused(capsys, start(tmp_path / 'new' / 'run', *arguments), message)
    else:
        base = [a for a in TINY if a not in ('--device', 'cpu')]
        assert run_command(train.main, [*base, '--out', str(tmp_path / 'new' / 'run'), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_missing_inception_weights_are_told_before_anything_is_read(tmp_path, capsys, no_network):
    # There are no pictures either; the scorer comes first
    arguments = ['--dataset', 'cifar10', '--data-dir', str(tmp_path / 'no-archive')]
    assert start(tmp_path / 'new' / 'run', *arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith('error: scorer inception: ')
    assert all(way in line for way in ('make inception', 'python -m util.inception convert FILE', 'SCORER=none'))
    assert os.listdir(tmp_path) == []


def test_a_run_that_the_inception_network_scores(tmp_path, capsys, monkeypatch):
    path = tmp_path / 'inception.npz'
    weights.write(str(path), random_weights(), weights.Origin('random numbers', False))
    monkeypatch.setattr(weights, 'PATH', str(path))
    (tmp_path / 'pictures').mkdir()
    for i in range(3):
        array = np.random.RandomState(i).randint(0, 256, (40, 50, 3)).astype('u1')
        Image.fromarray(array).save(tmp_path / 'pictures' / '{}.png'.format(i))
    data = ['--data-dir', str(tmp_path / 'pictures')]
    assert start(tmp_path / 'run', '--dataset', 'folder', *data, '--scorer', 'inception', '--iterations', '2',
                 '--set', 'protocol.samples=6', '--set', 'protocol.training_samples=4', '--set', 'protocol.splits=2',
                 '--set', 'protocol.distance_samples=4') == 0
    rows = ScoreTable(str(tmp_path / 'run' / 'scores.csv')).rows
    assert [(row['iteration'], row['samples'], row['splits']) for row in rows] == [(0, 4, 1), (2, 6, 2)]
    for row in rows:
        # Not the released weights, so no Inception Score
        assert (row['scorer'], row['weights']) == (
            'inception-unverified', fingerprint(random_weights())[:8])
        assert 1 <= row['score_mean'] <= 1008 and row['frechet_distance'] > 0 and row['kernel_subsets'] == '20 x 3'
    before = (tmp_path / 'run' / 'scores.csv').read_bytes()
    again = [str(tmp_path / 'run'), '--device', 'cpu', '--scorer', 'inception', '--iteration', '2', *data]
    assert run_command(generate_inception_score.main, again) == 0
    assert (tmp_path / 'run' / 'scores.csv').read_bytes() == before
    assert 'Inception Score' not in capsys.readouterr().out


def test_folder_without_or_with_broken_pictures(tmp_path, capsys):
    (tmp_path / 'pictures').mkdir()
    arguments = ['--dataset', 'folder', '--data-dir', str(tmp_path / 'pictures')]
    refused(capsys, start(tmp_path / 'run', *arguments), str(tmp_path / 'pictures'))
    Image.new('RGB', (40, 50)).save(tmp_path / 'pictures' / 'good.png')
    (tmp_path / 'pictures' / 'broken.png').write_bytes((tmp_path / 'pictures' / 'good.png').read_bytes()[:60])
    refused(capsys, start(tmp_path / 'run', *arguments), 'broken.png')
    assert sorted(os.listdir(tmp_path)) == ['pictures']


def test_folder_of_pictures_trains(tmp_path, capsys):
    (tmp_path / 'pictures').mkdir()
    for i in range(3):
        picture = np.random.RandomState(i).randint(0, 256, (50, 40, 3)).astype('u1')
        Image.fromarray(picture).save(tmp_path / 'pictures' / f'{i}.png')
    arguments = ['--dataset', 'folder', '--data-dir', str(tmp_path / 'pictures'), '--iterations', '2']
    assert start(tmp_path / 'run', *arguments) == 0
    assert 'this run draws pictures only' in capsys.readouterr().out
    assert not (tmp_path / 'run' / 'scores.csv').exists() and (tmp_path / 'run' / 'images' / 'iter_000002.png').exists()


@pytest.mark.parametrize('place', ['file/run', '/proc/run'])
def test_out_that_cannot_be_written(tmp_path, capsys, place):
    (tmp_path / 'file').write_text('')
    refused(capsys, start(tmp_path / place), 'cannot write there')


def test_changed_config_is_refused(tmp_path, finished, capsys):
    out = copy_until(finished, tmp_path / 'run', 4)
    refused(capsys, start(out, '--set', 'setting.alpha=0.5', '--iterations', '7'),
            'setting.alpha: 0.01 there, 0.5 here')
    refused(capsys, start(finished, '--iterations', '7'), 'profile.iterations: 6 there, 7 here')


def test_changed_data_is_refused(tmp_path, finished, capsys):
    out = copy_until(finished, tmp_path / 'run', 4)
    environment = json.loads((out / 'environment.json').read_text())
    environment['data']['fingerprint'] = 'other'
    (out / 'environment.json').write_text(json.dumps(environment))
    refused(capsys, start(out), 'the pictures are not those')


def test_two_runs_in_one_directory(tmp_path, capsys):
    with Lock(RunDirectory(tmp_path / 'run')):
        refused(capsys, start(tmp_path / 'run'), 'another process is working on this run')


@pytest.mark.slow
@pytest.mark.parametrize('limit, name', [(100, 'config.yml'), (3000, 'gen_iter_000000.npz'),
                                         (200_000, 'iter_000002.png'), (400_000, 'snapshot_iter_000002.npz')])
def test_full_disk(tmp_path, limit, name):
    """A limit on the size of files stands in for a full disk: writing fails half way, with the kernel's error."""
    out = tmp_path / 'run'
    # Coverage's own file would meet the limit, too
    environment = {key: value for key, value in os.environ.items() if not key.startswith('COVERAGE')}
    process = popen(out, env=environment,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1].startswith('error: cannot write ') and name in errors and 'Traceback' not in errors
    assert not list(tmp_path.rglob('*.tmp')) and not list(tmp_path.rglob(name))
    assert start(out) == 0  # with room again


def test_divergence_names_iteration_and_layer(tmp_path, capsys):
    assert start(tmp_path / 'run', '--set', 'setting.alpha=1e38') == 3
    output = capsys.readouterr().out
    assert 'Training has diverged: a NaN or an infinity at iteration 1: in gen/' in output
    assert not (tmp_path / 'run' / 'done').exists() and RunDirectory(tmp_path / 'run').iterations('gen') == [0]
    assert json.loads((tmp_path / 'run' / 'diverged').read_text())['iteration'] == 1
    process = popen(tmp_path / 'run', '--set', 'setting.alpha=1e38')
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3 and 'has diverged, which is its result' in output and errors == ''


def test_dry_run(tmp_path, capsys):
    assert start(tmp_path / 'run', '--dry-run') == 0
    assert yaml.safe_load(capsys.readouterr().out)['profile']['iterations'] == 6
    assert os.listdir(tmp_path) == []


def test_a_tag_ends_the_directorys_name(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, 'RUNS', str(tmp_path))
    for tag in ([], ['--tag', 'slope-0.2'], ['--tag', '']):
        assert run_command(train.main, [*TINY, '--iterations', '1', '--scorer', 'none', '--setting', 'C', *tag]) == 0
    assert sorted(os.listdir(tmp_path)) == ['digits-cnn-sn-C-s0', 'digits-cnn-sn-C-s0-slope-0.2']
    assert run_command(train.main, [*TINY, '--tag', 'x', '--out', str(tmp_path / 'mine'), '--iterations', '1']) == 0
    assert (tmp_path / 'mine' / 'done').exists() and len(os.listdir(tmp_path)) == 3


def test_underscores_and_auto_profile(capsys):
    assert run_command(train.main, ['--snapshot_interval', '9', '--device', 'cpu', '--dry_run']) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree['profile']['snapshot_interval'] == 9 and tree['profile']['name'] == 'quick'


def test_auto_says_loudly_what_it_chose(capsys):
    train.print_profile('quick')
    assert 'NOT the paper' in capsys.readouterr().out
    train.print_profile('paper')
    assert 'PROFILE=quick' in capsys.readouterr().out


def test_networks_that_cannot_be_are_refused_before_anything_is_fetched(tmp_path, capsys, no_network):
    for more in ([], ['--dry-run']):
        arguments = ['--dataset', 'stl10', '--model', 'resnet_projection', '--out', str(tmp_path / 'run'), *more]
        refused(capsys, run_command(train.main, ['--profile', 'quick', '--device', 'cpu', *arguments]),
                'model.conditional: projection needs classes, but dataset.n_classes is 0')
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('flags, expected', [([], 'auto'), (['--capture', 'no'], 'no'), (['--capture=auto'], 'auto')])
def test_capture_is_handed_on(monkeypatch, tmp_path, flags, expected):
    given = []
    monkeypatch.setattr(train.trainer, 'train', lambda *args: (given.append(args[7]), 0)[1])
    assert train.main(['--device', 'cpu', '--profile', 'quick', '--out', str(tmp_path), *flags]) == 0
    assert given == [expected]


def test_capture_is_auto_or_no(capsys):
    refused(capsys, run_command(train.main, ['--capture', 'yes']), '--capture', 'yes')
