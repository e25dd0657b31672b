"""Whole runs by each engine: the same bits twice and after a resume, which goes on with the engine of the run."""
import json

import numpy as np
import pytest
import threadpoolctl

import train
from tests.helpers import FEW, refused, signal_in
from util.cli import run_command
from util.engine import threads
from util.engine.switch import AUTO, ENGINES, current
from util.npz import read_npz
from util.rundir import RunDirectory

TINY = ['--profile', 'quick', '--device', 'cpu', '--iterations', '6', '--batchsize', '8', '--evaluation-interval', '3',
        '--snapshot-interval', '3', '--display-interval', '3', '--set', 'model.width=4', *FEW]


def start(out, *arguments):
    with threadpoolctl.threadpool_limits(2, 'blas'):
        return run_command(train.main, [*TINY, '--out', str(out), *arguments])


def arrays(out):
    """All that a run has at its end, but for times."""
    content = read_npz(RunDirectory(out).snapshot(6))
    return {key: value for key, value in content.items() if 'elapsed_time' not in key and '_log' not in key}


def same(a, b):
    a, b = arrays(a), arrays(b)
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def engines(out):
    return [session['engine'] for session in json.loads((out / 'environment.json').read_text())['sessions']]


def interrupted(out, monkeypatch, *arguments):
    with monkeypatch.context() as context:
        signal_in(context, 4)
        assert start(out, *arguments) == 128 + 15


def test_the_same_bits_twice_and_after_a_resume(engine, tmp_path, monkeypatch):
    for name in 'once', 'twice':
        assert start(tmp_path / name, '--engine', engine) == 0
        assert current() == 'stock' and not threads._blas.kept
    assert same(tmp_path / 'once', tmp_path / 'twice')
    interrupted(tmp_path / 'stopped', monkeypatch, '--engine', engine)
    assert start(tmp_path / 'stopped') == 0
    assert same(tmp_path / 'once', tmp_path / 'stopped')
    assert engines(tmp_path / 'stopped') == [engine, engine]
    for name in 'images/iter_000006.png', 'scores.csv', 'gen_iter_000006.npz':
        assert len({(tmp_path / run / name).read_bytes() for run in ('once', 'twice', 'stopped')}) == 1
    assert start(tmp_path / 'stock', '--engine', 'stock') == 0
    assert not same(tmp_path / 'once', tmp_path / 'stock')  # it did compute


def test_a_run_goes_on_with_its_engine(tmp_path, monkeypatch, capsys):
    interrupted(tmp_path / 'run', monkeypatch, '--engine', 'stock')
    assert start(tmp_path / 'run') == 0
    assert engines(tmp_path / 'run') == ['stock', 'stock']
    assert 'last bits' not in capsys.readouterr().out


@pytest.mark.parametrize('recorded', ['numpy', 'of the future'])
def test_another_engine_is_said(tmp_path, monkeypatch, capsys, recorded):
    interrupted(tmp_path / 'run', monkeypatch, '--engine', 'numpy')
    path = tmp_path / 'run' / 'environment.json'
    path.write_text(path.read_text().replace('"engine": "numpy"', '"engine": "{}"'.format(recorded)))
    monkeypatch.setitem(AUTO, 'cpu', ('stock',))
    expected = recorded if recorded in ENGINES['cpu'] else 'stock'
    assert start(tmp_path / 'run') == 0
    assert engines(tmp_path / 'run') == [recorded, expected]
    output = capsys.readouterr().out
    assert ('with other engine: the last bits' in output) == (expected != recorded)


def test_unknown_is_refused(tmp_path, capsys):
    refused(capsys, start(tmp_path / 'run', '--engine', 'cudnn'), "--engine must be auto or one of stock", "'cudnn'")
    assert not (tmp_path / 'run').exists()
