"""``make timing``: what is measured, what its CSV says, and the figure of it."""
import csv

import pytest

from benchmarks import methods
from tests.helpers import refused
from util import timings
from util.analysis import timing
from util.analysis.table import NothingToDraw
from util.cli import run_command
from util.config import resolve
from util.device import get_device

CPU = get_device('cpu')
SECONDS = {'none': [2., 4.], 'sn': [3., 4.4], 'wgan_gp': [8., 6.]}


def make_rows(**changes):
    configs = {method: resolve(profile='quick', setting='default', method=method) for method in SECONDS}
    return [{**row, **changes} for row in methods.describe(configs, SECONDS, 20, CPU)]


def test_ratios_and_seconds_by_hand():
    rows = {row['method']: row for row in make_rows()}
    assert [row['seconds_per_100'] for row in rows.values()] == [10., 15., 30.]  # the fastest of 20 updates, times 5
    assert [row['median_seconds_per_100'] for row in rows.values()] == pytest.approx([15., 18.5, 35.])
    assert [row['ratio'] for row in rows.values()] == [1., 1.5, 3.]
    assert [row['median_ratio'] for row in rows.values()] == pytest.approx([1, (1.5 + 1.1) / 2, (4 + 1.5) / 2])
    assert {(row['n_dis'], row['updates_timed'], row['rounds'], row['batchsize'], row['width']) for row in
            rows.values()} == {(5, 20, 2, 16, 16)}
    assert all(row['device'] and row['engine'] and row['date'] and 'chainer 7' in row['versions'] for row in
               rows.values())


def test_a_newer_measurement_replaces_the_same_and_keeps_others(tmp_path):
    path = str(tmp_path / 'timing.csv')
    for rows in (make_rows(), make_rows(device='NVIDIA X'), make_rows(date='later')):
        timings.put_timings(rows, path)
    found = timings.read_timings(path)
    assert len(found) == 6 and {(row['device'], row['date']) for row in found if row['date'] == 'later'} == {
        (found[0]['device'], 'later')}
    assert found[0].keys() == set(timings.COLUMNS) and found[1]['ratio'] == 1.5


def test_the_figure_has_ratios_and_seconds(tmp_path):
    path = str(tmp_path / 'timing.csv')
    timings.put_timings(make_rows(), path)
    timings.put_timings(make_rows(dataset='cifar10', profile='paper', updates_timed=100), path)
    table, figure = timing.draw_timing([], None, path)
    assert table.columns == timings.COLUMNS and len(table.rows) == 6
    titles = [axis.get_title() for axis in figure.axes]
    assert 'cifar10' in titles[0] and 'scaled' not in titles[0] and 'quick' not in titles[0]
    assert 'quick profile' in titles[1] and 'scaled from 20 updates' in titles[1]
    for axis in figure.axes:
        assert [bar.get_height() for bar in axis.patches] == [1., 1.5, 3.]
        assert [text.get_text() for text in axis.texts] == ['10 s', '15 s', '30 s']


def test_without_times_the_command_is_named(tmp_path):
    with pytest.raises(NothingToDraw, match='"make timing"'):
        timing.draw_timing([], None, str(tmp_path / 'none.csv'))
    (tmp_path / 'bad.csv').write_text('x,y\n1,2\n')
    with pytest.raises(NothingToDraw, match='bad.csv is not a table of times.*make timing'):
        timing.draw_timing([], None, str(tmp_path / 'bad.csv'))


def test_the_command_measures_all_methods_in_turns(tmp_path, capsys, monkeypatch):
    turns = []
    original = methods.make_turn

    def noted(resolved, *arguments):
        tiny = resolve(profile='quick', method=resolved.method.name, batchsize=2, overrides=['model.width=2'])
        turn = original(tiny, *arguments)
        return lambda: (turns.append(resolved.method.name), turn())
    monkeypatch.setattr(methods, 'make_turn', noted)
    path = tmp_path / 'timing.csv'
    assert run_command(methods.main, ['--profile', 'quick', '--device', 'cpu', '--engine', 'stock', '--methods', 'sn',
                                      '--rounds', '1', '--updates', '1', '--out', str(path)]) == 0
    assert turns == ['none', 'sn'] * 2  # a round to warm up
    with open(path, newline='') as f:
        rows = list(csv.DictReader(f))
    assert [(row['method'], row['engine'], row['profile'], row['rounds']) for row in rows] == [
        ('none', 'stock', 'quick', '1'), ('sn', 'stock', 'quick', '1')]
    out = capsys.readouterr().out
    assert 's for 100 updates' in out and str(path) in out


@pytest.mark.parametrize('arguments, message', [
    (['--rounds', '0'], '--rounds must be at least 1, not 0'), (['--updates', '0'], '--updates must be at least 1'),
    (['--methods', 'nothing'], 'nothing'), (['--device', 'abacus'], '--device abacus: expected auto, cpu')])
def test_refusals(arguments, message, tmp_path, capsys):
    status = run_command(methods.main, ['--profile', 'quick', '--out', str(tmp_path / 'x.csv'), *arguments])
    refused(capsys, status, message, silent=True)


def test_a_damaged_file_is_found_before_measuring(tmp_path, capsys):
    (tmp_path / 'x.csv').write_text('not,it\n')
    refused(capsys, run_command(methods.main, ['--profile', 'quick', '--device', 'cpu', '--out',
                                               str(tmp_path / 'x.csv')]), 'x.csv is not a table of times', silent=True)


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    assert run_command(methods.main, ['--profile', 'quick', '--device', '0', '--rounds', '1', '--updates', '1', '--out',
                                      str(tmp_path / 'timing.csv')]) == 0
    assert {row['engine'] for row in timings.read_timings(tmp_path / 'timing.csv')} == {'cuda'}
