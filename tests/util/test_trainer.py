"""What tests/test_train.py does not look at: refusals of --resume, records of a resumed run, ends that are none."""
import json
import os
import shutil
import signal
import sys
import types

import chainer
import numpy as np
import pytest

import train
from tests.helpers import refused, signal_in, tree
from util import trainer, watch
from util.captured import CapturedGANUpdater
from util.cli import run_command
from util.config import resolve
from util.device import get_device
from util.engine.flat_adam import FlatAdam
from util.generate_inception_score import GenerateInceptionScore
from util.npz import read_npz
from util.rundir import RunDirectory
from util.updater import GANUpdater

TINY = ['--profile', 'quick', '--device', 'cpu', '--iterations', '6', '--batchsize', '4', '--evaluation-interval', '6',
        '--snapshot-interval', '2', '--display-interval', '1', '--scorer', 'none', '--set', 'model.width=2',
        '--set', 'model.initial_scale=0.3']
CPU = get_device('cpu')


def start(out, *arguments):
    return run_command(train.main, [*TINY, '--out', str(out), *arguments])


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'finished'
    assert start(out) == 0
    return out


@pytest.fixture
def killed(finished, tmp_path):
    """The run as it stood when it was killed after iteration 4."""
    return shutil.copytree(finished, tmp_path / 'run', ignore=shutil.ignore_patterns('done', '*_iter_000006.*'))


def ends_like(out, finished):
    for name in ('gen_iter_000006.npz', 'images/iter_000006.png'):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    return (out / 'done').exists()


def sessions(out):
    return [s['from_iteration'] for s in json.loads((out / 'environment.json').read_text())['sessions']]


# --resume

def without(ending):
    return lambda arrays: {k: v for k, v in arrays.items() if not k.endswith(ending)}


def with_another_shape(ending):
    return lambda arrays: {k: v[:-1] if k.endswith(ending) else v for k, v in arrays.items()}


def with_text(key, text):
    return lambda arrays: {**arrays, 'about/' + key: np.array(text)}


@pytest.mark.parametrize('change, message', [
    (lambda arrays: {}, 'is not the snapshot of a run'),
    (without('about/config'), 'is not the snapshot of a run'),
    (without('about/data'), 'is not the snapshot of a run'),
    (with_text('config', '['), 'is not the snapshot of a run'),
    (with_text('config', 'dataset: 3'), 'is not the snapshot of a run'),
    (with_text('data', 'abc123'), 'of another run (data: abc123 there, '),
    (without('model:gen/deconv1/W'), 'it has no updater/model:gen/deconv1/W'),
    (without('model:dis/conv7/W_u'), 'it has no updater/model:dis/conv7/W_u'),
    (without('main/batches'), 'it has no updater/iterator:main/batches'),
    (with_another_shape('model:gen/dense/W'), 'updater/model:gen/dense/W has shape (255, 128), expected (256, 128)'),
    (without('_snapshot_elapsed_time'), 'was written by another version of this program'),
])
def test_resume_from_a_snapshot_that_does_not_fit(finished, tmp_path, capsys, change, message):
    path, arrays = tmp_path / 'x.npz', read_npz(finished / 'snapshot_iter_000004.npz')
    np.savez(path, **change(arrays))
    status = start(tmp_path / 'run', '--resume', str(path))
    refused(capsys, status, message)
    assert os.listdir(tmp_path) == ['x.npz']


@pytest.mark.parametrize('name', ['gen_iter_000006.npz', 'config.yml', 'log', 'images', 'images/iter_000006.png'])
def test_resume_from_another_file_of_the_run(finished, tmp_path, capsys, name):
    refused(capsys, start(tmp_path / 'run', '--resume', str(finished / name)), str(finished / name))
    assert os.listdir(tmp_path) == []


def test_resume_from_nothing_though_the_run_has_snapshots(killed, capsys):
    before = tree(killed)
    refused(capsys, start(killed, '--resume', 'missing.npz'), 'missing.npz')
    assert tree(killed) == before


def test_resume_from_the_older_one_of_the_runs_snapshots(finished, tmp_path, capsys):
    out = shutil.copytree(finished, tmp_path / 'run', ignore=shutil.ignore_patterns('done', 'gen_iter_000006.npz'))
    assert start(out, '--resume', str(out / 'snapshot_iter_000004.npz')) == 0
    assert 'Going on from iteration 4.' in capsys.readouterr().out
    assert ends_like(out, finished) and sessions(out) == [0, 4]
    assert (out / 'snapshot_iter_000006.npz').stat().st_mtime_ns > (finished / 'done').stat().st_mtime_ns


# What a run that went on has

def test_sessions_of_a_run_that_went_on(killed, finished):
    assert sessions(finished) == [0]
    config = os.stat(killed / 'config.yml')
    first = json.loads((killed / 'environment.json').read_text())
    assert start(killed) == 0
    assert ends_like(killed, finished) and sessions(killed) == [0, 4]
    now = json.loads((killed / 'environment.json').read_text())
    assert now['data'] == first['data'] and now['sessions'][0] == first['sessions'][0]
    assert os.stat(killed / 'config.yml').st_ino == config.st_ino  # not written again
    log = json.loads((killed / 'log').read_text())
    assert [entry['iteration'] for entry in log] == [1, 2, 3, 4, 5, 6]


def test_sessions_of_a_run_that_began_again(killed):
    for path in killed.glob('snapshot_iter_*.npz'):
        path.write_bytes(b'')
    assert start(killed) == 0
    assert sessions(killed) == [0]


@pytest.mark.parametrize('content', ['', '{"data": {', '[]', '{"data": {}, "sessions": []}'])
def test_damaged_environment_is_refused(killed, capsys, content):
    (killed / 'environment.json').write_text(content)
    before = tree(killed)
    refused(capsys, start(killed), '{} is damaged: '.format(killed / 'environment.json'))
    assert tree(killed) == before


def test_what_a_killed_process_left_half_written_is_removed(killed, finished):
    stale = [killed / '.snapshot_iter_000006.npz.a1b2.tmp', killed / 'images' / '.iter_000006.png.c3d4.tmp']
    mine = [killed / 'notes.tmp', killed / '.hidden', killed / 'images' / 'notes.tmp']
    for path in stale + mine:
        path.write_bytes(b'half')
    assert start(killed) == 0
    assert not any(path.exists() for path in stale) and all(path.read_bytes() == b'half' for path in mine)
    assert ends_like(killed, finished)


def test_files_that_only_look_stale_elsewhere_stay(killed):
    (killed / 'other').mkdir()
    others = [folder / '.snapshot_iter_000006.npz.a1b2.tmp' for folder in (killed.parent, killed / 'other')]
    for path in others:
        path.write_bytes(b'of another run')
    assert start(killed) == 0
    assert all(path.read_bytes() == b'of another run' for path in others)


@pytest.mark.parametrize('name', ['thesis.tex', 'gen_iter_000004.npz', 'images'])
def test_a_folder_with_other_things_is_refused(tmp_path, capsys, name):
    (tmp_path / name).mkdir() if name == 'images' else (tmp_path / name).write_bytes(b'mine')
    refused(capsys, start(tmp_path), '--out {}: it is not the directory of a run'.format(tmp_path))
    assert os.listdir(tmp_path) == [name]


def test_an_empty_folder_is_as_good_as_none(tmp_path, finished):
    (tmp_path / '.hidden').write_bytes(b'')
    assert start(tmp_path) == 0
    assert ends_like(tmp_path, finished)


# Ends

@pytest.mark.parametrize('iteration, snapshots', [(1, [1]), (4, [2, 4]), (5, [4, 5])])
def test_stopped(finished, tmp_path, monkeypatch, capsys, iteration, snapshots):
    out = tmp_path / 'run'
    with monkeypatch.context() as context:
        signal_in(context, iteration)
        assert start(out) == 128 + signal.SIGTERM
    output = capsys.readouterr().out
    assert 'Stopped by SIGTERM at iteration {}; the same command goes on'.format(iteration) in output
    assert str(out) in output
    assert RunDirectory(out).iterations('snapshot') == snapshots and not (out / 'done').exists()
    assert start(out) == 0
    assert 'Going on from iteration {}.'.format(iteration) in capsys.readouterr().out
    assert ends_like(out, finished) and sessions(out) == [0, iteration]


def test_stopped_in_the_last_iteration_is_finished(finished, tmp_path, monkeypatch):
    signal_in(monkeypatch, 6)
    assert start(tmp_path / 'run') == 0
    assert ends_like(tmp_path / 'run', finished)


def test_stopped_after_resume_goes_on_without_it(finished, tmp_path, monkeypatch, capsys):
    out, resume = tmp_path / 'run', ['--resume', str(finished / 'snapshot_iter_000004.npz')]
    with monkeypatch.context() as context:
        signal_in(context, 5)
        assert start(out, *resume) == 128 + signal.SIGTERM
    assert 'at iteration 5; the same command without --resume goes on' in capsys.readouterr().out
    assert start(out) == 0
    assert ends_like(out, finished) and sessions(out) == [4, 5]


def poison(monkeypatch, iteration):
    """Have a weight become NaN in an iteration."""
    original = GANUpdater.update_discriminator

    def poisoned(self, step):
        original(self, step)
        if self.iteration == iteration - 1:  # it is counted after the update
            self.discriminator.conv3.W.array[0, 0] = np.nan
    monkeypatch.setattr(GANUpdater, 'update_discriminator', poisoned)


@pytest.mark.parametrize('iteration, last', [(1, None), (4, 2), (5, 4)])
def test_divergence_says_what_there_is_to_go_back_to(tmp_path, monkeypatch, capsys, iteration, last):
    out = tmp_path / 'run'
    poison(monkeypatch, iteration)
    assert start(out) == trainer.STATUS_DIVERGED == 3
    output = capsys.readouterr().out
    assert 'an infinity at iteration {}: in dis/conv3/W'.format(iteration) in output
    if last is None:
        assert 'There is no snapshot before that.' in output
    else:
        path = RunDirectory(out).snapshot(last)
        assert 'The last state before that is {}.'.format(path) in output and os.path.exists(path)
    assert RunDirectory(out).iterations('snapshot') == list(range(2, iteration, 2)) and not (out / 'done').exists()
    diverged = json.loads((out / 'diverged').read_text())
    assert set(diverged) == {'iteration', 'reason', 'finished'} and diverged['iteration'] == iteration
    assert diverged['reason'] == 'a NaN or an infinity at iteration {}: in dis/conv3/W'.format(iteration)
    assert list(out.rglob('*.tmp')) == []


@pytest.fixture
def diverged(tmp_path, monkeypatch, capsys):
    """A run that has diverged in iteration 5."""
    with monkeypatch.context() as context:
        poison(context, 5)
        assert start(tmp_path / 'run') == 3
    capsys.readouterr()
    return tmp_path / 'run'


def test_a_run_that_has_diverged_is_not_repeated(diverged, monkeypatch, capsys):
    before = tree(diverged)
    monkeypatch.setattr(trainer, 'build', None)  # it would be called
    assert start(diverged) == 3
    output = capsys.readouterr().out
    assert '{} has diverged, which is its result; delete {} to go on'.format(diverged, diverged / 'diverged') in output
    assert tree(diverged) == before
    refused(capsys, start(diverged, '--seed', '1'), 'was begun with another Config (seed: 0 there, 1 here)')


def test_it_goes_on_once_the_file_is_deleted(diverged, finished, capsys):
    (diverged / 'diverged').unlink()
    assert start(diverged) == 0
    assert 'Going on from iteration 4.' in capsys.readouterr().out
    assert ends_like(diverged, finished) and not (diverged / 'diverged').exists()


def test_resume_tries_again(diverged, finished, monkeypatch):
    resume = ['--resume', str(diverged / 'snapshot_iter_000004.npz')]
    with monkeypatch.context() as context:
        signal_in(context, 5)
        assert start(diverged, *resume) == 128 + signal.SIGTERM
    assert not (diverged / 'diverged').exists()
    assert start(diverged) == 0  # which is what it says when it stops
    assert ends_like(diverged, finished) and sessions(diverged) == [0, 4, 5]


def test_resume_that_diverges_again(diverged, monkeypatch):
    before = json.loads((diverged / 'diverged').read_text())
    poison(monkeypatch, 4)
    assert start(diverged, '--resume', str(diverged / 'snapshot_iter_000002.npz')) == 3
    assert (before['iteration'], json.loads((diverged / 'diverged').read_text())['iteration']) == (5, 4)


def test_a_resume_that_is_refused_changes_nothing(diverged, capsys):
    before = tree(diverged)
    refused(capsys, start(diverged, '--resume', 'missing.npz'), 'missing.npz')
    assert tree(diverged) == before


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize('method', ['weight_clipping', 'singular_value_clipping', 'orthonormal', 'wgan_gp', 'bssn'])
def test_every_method_can_diverge(tmp_path, capsys, method):
    assert start(tmp_path / 'run', '--method', method, '--set', 'setting.alpha=1e38') == 3
    assert json.loads((tmp_path / 'run' / 'diverged').read_text())['iteration'] <= 2


def test_a_log_that_cannot_be_written(killed, capsys):
    (killed / 'log').unlink()
    (killed / 'log').mkdir()
    refused(capsys, start(killed), 'cannot write {}: '.format(killed / 'log'))
    assert not (killed / 'done').exists() and RunDirectory(killed).iterations('snapshot') == [4]
    assert list(killed.rglob('*.tmp')) == []


def test_done_says_how_it_ended(finished):
    done = json.loads((finished / 'done').read_text())
    assert set(done) == {'iteration', 'elapsed_time', 'finished'}
    assert done['iteration'] == 6 and done['elapsed_time'] > 0


# Parts

@pytest.fixture
def made(tmp_path):
    config = resolve(profile='quick', iterations=6, overrides=['model.width=2'])
    images = np.zeros((8, 3, 32, 32), 'u1')

    def make(scorer=None):
        parts = trainer.build(config, CPU, images)
        return trainer.make_trainer(config, RunDirectory(tmp_path), parts, watch.StopTrigger(6), None, scorer)
    return make


def test_iterations_are_captured_on_request_where_the_engine_allows_it(monkeypatch):
    config = resolve(profile='quick', iterations=6, overrides=['model.width=2'])
    for capture in (False, True):
        updater = trainer.build(config, CPU, np.zeros((8, 3, 32, 32), 'u1'), capture=capture).updater
        assert isinstance(updater, CapturedGANUpdater) == capture
        updater.update()
    assert not trainer.can_capture(CPU)
    for engine, right in (('stock', False), ('numpy', False), ('cudnn', True), ('cudnn-tf32', True)):
        with monkeypatch.context() as context:
            context.setattr(trainer, 'current', lambda engine=engine: engine)
            assert not trainer.can_capture(CPU)
            context.setattr(trainer, 'kind', lambda device: 'cuda')
            assert trainer.can_capture(CPU) is right


def test_extensions(made, capsys):
    def names(made):
        return set(made._extensions)
    common = {'StopOnNonNumber', 'SaveGenerator', 'GenerateFakeImage', 'LogReport', 'WriteLog', 'PrintReport',
              'SaveSnapshot', 'Probe'}
    assert names(made()) == common
    assert names(made(lambda *_: {})) == common | {'GenerateInceptionScore'}
    assert isinstance(made(lambda *_: {}).get_extension('GenerateInceptionScore'), GenerateInceptionScore)


def test_a_terminal_gets_a_progress_bar(made, monkeypatch):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    assert 'ProgressBar' in made()._extensions


def test_no_escape_sequences_without_a_terminal(tmp_path, capsys):
    assert start(tmp_path / 'run', '--iterations', '2') == 0
    output = capsys.readouterr()
    assert '\033' not in output.out + output.err and '\r' not in output.out
    lines = [line.split() for line in output.out.splitlines()]
    assert ['iteration', 'gen/loss', 'dis/loss', 'elapsed_time'] in lines
    assert [line[0] for line in lines if line and line[0].isdigit()] == ['1', '2']


def test_all_initial_weights_are_a_function_of_the_seed():
    images = np.zeros((8, 3, 32, 32), 'u1')
    states = []
    for seed in (0, 0, 1):
        np.random.seed(len(states))
        parts = trainer.build(resolve(profile='quick', seed=seed, overrides=['model.width=2']), CPU, images)
        states.append({path: p.array for part in (parts.generator, parts.discriminator)
                       for path, p in part.namedparams() if path.endswith('/W')})
    assert all((states[0][path] == states[1][path]).all() for path in states[0])
    assert all((states[0][path] != states[2][path]).any() for path in states[0])


def test_a_gpu_has_an_optimizer_of_its_own():
    assert trainer.optimizer_for(CPU) is chainer.optimizers.Adam
    assert trainer.optimizer_for(types.SimpleNamespace(name='@cupy:0')) is FlatAdam


def test_optimizers_have_the_settings_numbers():
    config = resolve(profile='quick', setting='F', overrides=['model.width=2'])
    updater = trainer.build(config, CPU, np.zeros((8, 3, 32, 32), 'u1')).updater
    for name in ('gen', 'dis'):
        hyperparam = updater.get_optimizer(name).hyperparam
        assert (hyperparam.alpha, hyperparam.beta1, hyperparam.beta2) == (1e-3, 0.9, 0.999)
    assert updater.n_dis == 5 and updater.batchsize == config.profile.batchsize
