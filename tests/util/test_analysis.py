"""The figures' numbers, and what becomes of runs that are missing something."""
import csv
import json
import os
import re
import shutil

import chainer
import numpy as np
import pytest
from PIL import Image

import train
from tests import tiny
from tests.helpers import refused
from tests.util.test_report import make_paper_run
from util import probe, scores, timings
from util.analysis import __main__, neighbours, overtime, samples, score, spectra, style
from util.analysis.__main__ import FIGURES, main
from util.analysis.runs import group_runs, load_discriminator, read_runs
from util.analysis.table import NothingToDraw
from util.cli import run_command
from util.npz import read_npz, write_npz
from util.report.runs import read_methods

METHODS = ('none', 'weight_norm', 'sn', 'bssn')


def train_run(out, method, iterations=4):
    arguments = ['--profile', 'quick', '--device', 'cpu', '--iterations', str(iterations), '--batchsize', '4', '--set',
                 'model.initial_scale=0.3', '--evaluation-interval', '2', '--snapshot-interval', '2',
                 '--display-interval', '1', '--scorer', 'none', '--set', 'model.width=2', '--method', method, '--out',
                 str(out)]
    assert run_command(train.main, arguments) == 0
    table = scores.ScoreTable(str(out / 'scores.csv'))
    for iteration in (0, iterations):
        table.put({'iteration': iteration, 'scorer': 'digits', 'weights': '0a', 'protocol': 'quick',
                   'score_mean': 1. + iteration + len(method), 'score_std': 0., 'frechet_distance': 9. - iteration,
                   'kernel_distance': 0., 'kernel_distance_std': 0., 'samples': 20, 'splits': 1,
                   'distance_samples': 20, 'kernel_subsets': '', 'reference': ''})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    for method in METHODS:
        train_run(folder / ('digits-' + method), method)
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'runs')


def runs_in(folder):
    return read_runs([str(folder)], print)


def of_column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


def skip(run, why):
    raise AssertionError('{}: {}'.format(run.name, why))


# Numbers

def test_scores(trained):
    table, _ = score.draw_scores(runs_in(trained), skip)
    assert of_column(table, 'method') == list(METHODS)
    assert of_column(table, 'score') == [5. + len(method) for method in METHODS]
    assert of_column(table, 'frechet_distance') == [5.] * 4
    assert set(of_column(table, 'paper_score')) == {None}  # the quick profile never stands beside the paper


def test_scores_beside_the_papers(tmp_path):
    for seed in (0, 1):
        make_paper_run(tmp_path / str(seed), method='sn', setting='A', seed=seed, iterations=50000,
                       rows=[(0, 1.), (50000, 7. + seed, 20. + seed)])
    table, figure = score.draw_scores(runs_in(tmp_path), skip)
    row, = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (row['runs'], row['score'], row['frechet_distance']) == (2, 7.5, 20.5)
    assert (row['score_std'], row['frechet_distance_std']) == pytest.approx((0.5 ** 0.5, 0.5 ** 0.5))
    assert (row['paper_score'], row['paper_frechet_distance']) == (7.42, 29.3)
    assert figure.axes[0].get_ylabel().startswith('Inception Score') and figure.axes[1].get_ylabel().startswith('FID')


def test_runs_that_are_not_at_their_end_have_no_place_among_scores(copied):
    (copied / 'digits-sn' / 'done').unlink()
    skipped = []
    table, _ = score.draw_scores(runs_in(copied), lambda run, why: skipped.append((run.name, why)))
    assert 'sn' not in of_column(table, 'method') and skipped == [('digits-sn', 'it has not finished')]


def test_spectra_are_those_of_numpys_svd(trained):
    table, _ = spectra.draw_spectra(runs_in(trained), skip)
    arrays = read_npz(trained / 'digits-none' / 'snapshot_iter_000004.npz')
    expected = tiny.singular_values(arrays['updater/model:dis/conv3/W']) ** 2
    rows = [row for row in table.rows if (row[0], row[4]) == ('none', 'conv3')]
    np.testing.assert_allclose([row[6] for row in rows], expected, rtol=1e-6)
    np.testing.assert_allclose([row[7] for row in rows], expected / expected[0], rtol=1e-6)
    assert [row[5] for row in rows] == [1, 2, 3, 4] and {row[3] for row in rows} == {4}


def test_spectra_are_those_of_normalized_weights(trained):
    table, _ = spectra.draw_spectra(runs_in(trained), skip)
    largest = {(row[0], row[4]): row[6] for row in table.rows if row[5] == 1}
    sums = {}
    for row in table.rows:
        sums[row[0], row[4]] = sums.get((row[0], row[4]), 0) + row[6]
    assert 0.99 < largest['sn', 'conv5'] < 1.5  # an estimate is never too large, and u is young
    assert sums['weight_norm', 'conv5'] == pytest.approx(8, rel=1e-5)  # Equation 27: the outputs


def test_known_weights_give_their_spectrum():
    discriminator = tiny.make('none').discriminator
    discriminator.conv1.W.array[...] = 0
    discriminator.conv1.W.array[0, 0, 0, 0], discriminator.conv1.W.array[1, 1, 1, 1] = 3, -4
    np.testing.assert_allclose(spectra.spectra(discriminator)['conv1'], [4, 3])


def test_the_spectrum_of_a_run_with_known_weights(copied):
    path = copied / 'digits-none' / 'snapshot_iter_000004.npz'
    arrays, key = read_npz(path), 'updater/model:dis/conv2/W'
    arrays[key] = np.random.RandomState(3).standard_normal(arrays[key].shape).astype('f')
    with open(path, 'wb') as f:
        write_npz(f, arrays)
    run, = (run for run in runs_in(copied) if run.method == 'none')
    table, _ = spectra.draw_spectra([run], skip)
    expected = np.linalg.svd(arrays[key].reshape(len(arrays[key]), -1).astype('d'), compute_uv=False) ** 2
    rows = [row for row in table.rows if row[4] == 'conv2']
    np.testing.assert_allclose([row[6] for row in rows], expected, rtol=1e-6)
    np.testing.assert_allclose([row[7] for row in rows], expected / expected[0], rtol=1e-6)


def test_allowed_spectra():
    allowed = spectra.allowed_spectra(6)
    for (method, _), values in allowed.items():
        assert len(values) == 6 and (np.diff(values) <= 0).all() and values.max() <= 1
        if method == 'weight_norm':  # divided by the root of the outputs
            assert (values ** 2).sum() == pytest.approx(1)
    assert {method for method, _ in allowed} == {'weight_norm', 'sn'}


def test_sigma(trained):
    table, _ = overtime.draw_sigma(runs_in(trained), skip)
    assert set(of_column(table, 'method')) == {'sn', 'bssn'}
    log = json.loads((trained / 'digits-sn' / 'log').read_text())
    found = {row[3:6]: row[6] for row in table.rows if row[0] == 'sn'}
    assert found[3, 'conv2', overtime.ESTIMATED] == log[2]['sigma/conv2']
    arrays = read_npz(trained / 'digits-sn' / 'snapshot_iter_000004.npz')
    assert found[4, 'conv2', overtime.EXACT] == pytest.approx(
        tiny.singular_values(arrays['updater/model:dis/conv2/W'])[0], rel=1e-5)


def test_sigma_without_the_extension_is_that_of_the_snapshot(copied):
    expected = [row for row in overtime.draw_sigma(runs_in(copied), skip)[0].rows
                if row[3] == 4 and row[5] != overtime.ESTIMATED]
    for method in METHODS:
        (copied / ('digits-' + method) / probe.FILE).unlink()
    rows = [row for row in overtime.draw_sigma(runs_in(copied), lambda *_: None)[0].rows
            if row[5] != overtime.ESTIMATED]
    assert sorted(row[:6] for row in rows) == sorted(row[:6] for row in expected)
    np.testing.assert_allclose([row[6] for row in sorted(rows)], [row[6] for row in sorted(expected)], rtol=1e-5)


def test_gradients_and_the_score_beside_them(trained):
    table, figure = overtime.draw_gradients(runs_in(trained), skip)
    rows = [row[3:] for row in table.rows if row[0] == 'none']
    logged = probe.read_rows(trained / 'digits-none' / probe.FILE)
    for row in logged:
        if row['quantity'] in (probe.GRADIENT, probe.INPUT_GRADIENT):
            assert (row['iteration'], row['quantity'], row['layer'], row['value']) in rows
    assert (4, 'score', 'digits', 9.) in rows
    shown = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert 'weight of conv7' in shown and 'generated pictures' in shown and len(shown) == 8 + 2 + 1


def test_a_discriminator_that_explodes_shows_it(copied):
    parts, rows = tiny.make('none'), []
    tiny.iterate(parts)
    for iteration in (2, 4):
        rows += [{'iteration': iteration, 'quantity': quantity, 'layer': layer, 'value': value}
                 for (quantity, layer), value in probe.look(parts.updater).items()]
        if iteration == 2:
            for name in ('conv%d' % i for i in range(1, 8)):
                parts.discriminator[name].W.array *= 10
            tiny.iterate(parts)
    probe.write_rows(str(copied / 'digits-none' / probe.FILE), rows)
    run, = (run for run in runs_in(copied) if run.method == 'none')
    table, figure = overtime.draw_gradients([run], skip)
    values = {row[3:6]: row[6] for row in table.rows}
    assert values[4, probe.INPUT_GRADIENT, 'real'] > 1e5 * values[2, probe.INPUT_GRADIENT, 'real'] > 0
    assert values[4, probe.GRADIENT, 'conv1'] > 1e3 * values[2, probe.GRADIENT, 'conv1'] > 0
    axis, = (axis for axis in figure.axes if axis.get_title() == 'real pictures')
    low, high = axis.get_ylim()
    assert axis.get_yscale() == 'log' and low < axis.lines[0].get_ydata()[0] < axis.lines[0].get_ydata()[1] < high


def test_variances_by_hand(trained):
    table, _ = overtime.draw_variances(runs_in(trained), skip)
    arrays = read_npz(trained / 'digits-none' / 'snapshot_iter_000004.npz')
    W = arrays['updater/model:dis/conv2/W']
    assert W.shape == (2, 2, 4, 4)
    row, = (row for row in table.rows if row[0] == 'none' and row[3:5] == (4, 'conv2'))
    assert row[5] == pytest.approx(np.mean(W.astype('d') ** 2) - np.mean(W.astype('d')) ** 2, rel=1e-5)
    assert row[6:] == (1 / 32, 2 / 64)


@pytest.mark.parametrize('shape, axis, expected', [
    ((5, 3, 4, 4), 0, (1 / 48, 2 / 128)), ((3, 5, 4, 4), 1, (1 / 48, 2 / 128)), ((1, 7), 0, (1 / 7, 2 / 8))])
def test_variances_of_initializations(shape, axis, expected):
    assert overtime.initial_variances(shape, axis) == pytest.approx(expected)


# Pictures

def test_interpolation_stays_on_the_arc():
    a, b = np.array([[2., 0, 0]]), np.array([[0, 2., 0]])
    np.testing.assert_allclose(samples.interpolate(a, b, 0), a)
    np.testing.assert_allclose(samples.interpolate(a, b, 1), b, atol=1e-6)
    np.testing.assert_allclose(samples.interpolate(a, b, 1 / 3), [[3 ** 0.5, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(samples.interpolate(a, a, 0.5), a)


def test_interpolation(trained):
    table, _ = samples.draw_interpolation(runs_in(trained), skip, pairs=2, steps=3)
    angles = np.array(of_column(table, 'angle_degrees')).reshape(3, 2)
    np.testing.assert_allclose(angles[0], 0, atol=0.1)
    np.testing.assert_allclose(angles[1], angles[2] / 2, rtol=0.1)  # the ends differ in length


def test_progress_and_its_animation(trained):
    table, _ = samples.draw_progress(runs_in(trained), skip, n=2)
    assert of_column(table, 'iteration') == [2, 2, 4, 4]
    table, frames = samples.animate_progress(runs_in(trained), skip, 2, 3)
    assert of_column(table, 'iteration') == [0, 2, 4] and len(frames) == 3
    assert set(of_column(table, 'method')) == {'weight_norm'}  # the highest score


def test_nearest_pictures():
    training = np.random.RandomState(0).randint(0, 256, (50, 3, 4, 4)).astype('u1')
    training[7] = training[3] // 2 + training[7] // 2
    indices, distances = neighbours.nearest(training[[3, 9]], training, 2)
    assert indices[:, 0].tolist() == [3, 9] and indices[0, 1] == 7 and distances[:, 0].tolist() == [0, 0]
    expected = np.sqrt(((training[3].astype('d') - training[7]) ** 2).mean())
    assert distances[0, 1] == pytest.approx(expected)
    others, apart = neighbours.nearest(training[[3, 9]], training, 1, skip_self=True)
    assert others[0, 0] == 7 and apart[0, 0] == pytest.approx(expected) and others[1, 0] != 9


# The command

@pytest.fixture(autouse=True)
def nothing_was_timed(monkeypatch, tmp_path):
    """Whatever this checkout's own results/timing.csv is."""
    monkeypatch.setattr(timings, 'PATH', str(tmp_path / 'timing.csv'))


def make(capsys, folder, out, *arguments):
    assert run_command(main, [str(folder), '--out', str(out), *arguments]) == 0
    return capsys.readouterr()


def test_every_figure(trained, tmp_path, capsys):
    output = make(capsys, trained, tmp_path)
    # Those of make n-dis and make critic are in test_analysis_sweeps.py, that of make timing in tests/test_timing.py
    elsewhere = {'n_dis', 'critic', 'timing'}
    wanted = [line for line in output.err.splitlines() if 'not drawn, it wants' in line]
    assert {re.match(r'\w+', line)[0] for line in wanted} == elsewhere
    assert all(re.search('"make [a-z-]+"', line) for line in wanted)
    group = tmp_path / 'digits-cnn-quick-4'
    for name in set(FIGURES) - elsewhere:
        folder = tmp_path if name == 'allowed' else group
        with open(folder / (name + '.csv'), newline='') as f:
            assert len(list(csv.reader(f))) > 1
        for kind in ('gif',) if name == 'animation' else ('png', 'svg'):
            assert (folder / '{}.{}'.format(name, kind)).stat().st_size > 1000, name
    with Image.open(group / 'animation.gif') as animation:
        assert animation.n_frames == 3


def test_the_same_runs_give_the_same_bytes(trained, tmp_path, capsys):
    for out in 'ab':
        make(capsys, trained, tmp_path / out, '--only', 'scores')
    for name in os.listdir(tmp_path / 'a' / 'digits-cnn-quick-4'):
        a, b = ((tmp_path / out / 'digits-cnn-quick-4' / name).read_bytes() for out in 'ab')
        assert a == b, name


def test_damaged_runs_are_skipped_with_a_line_each(copied, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(__main__, 'write_figure', lambda *_: None)  # takes most of the time
    (copied / 'digits-bssn' / 'config.yml').write_text('dataset: 1')
    for path in (copied / 'digits-sn').glob('snapshot_*'):
        path.write_bytes(path.read_bytes()[:-200])
    probed = copied / 'digits-none' / probe.FILE
    probed.write_text(probed.read_text()[:-9])
    (copied / 'digits-none' / 'gen_iter_000004.npz').write_bytes(b'no')
    output = make(capsys, copied, tmp_path / 'out', '--only', 'spectra', 'gradients', 'samples')
    lines = output.err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith('skipped ') and 'digits-bssn' in lines[0]
    assert lines[1].startswith('spectra: skipped digits-sn: ') and 'snapshot' in lines[1]
    assert lines[2].startswith('gradients: skipped digits-none: its discriminator.csv is damaged')
    assert lines[3].startswith('samples: skipped digits-none: ')
    assert len(output.out.splitlines()) == 3


def test_the_snapshot_before_a_damaged_one_is_taken(copied):
    path = copied / 'digits-sn' / 'snapshot_iter_000004.npz'
    path.write_bytes(path.read_bytes()[:-200])
    run, = (run for run in runs_in(copied) if run.method == 'sn')
    assert load_discriminator(run)[1] == 2


def test_figures_that_no_run_can_feed_say_what_they_want(copied, tmp_path, capsys):
    for path in copied.glob('*/*'):
        if path.name not in ('config.yml', 'environment.json', 'done'):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    output = make(capsys, copied, tmp_path / 'out')
    lines = [line for line in output.err.splitlines() if 'not drawn, it wants' in line]
    assert {re.match(r'\w+', line)[0] for line in lines} == set(FIGURES) - {'allowed'}
    assert all(re.search('"make [a-z-]+"', line) for line in lines)
    assert len(output.out.splitlines()) == 1


def test_no_runs(tmp_path, capsys):
    refused(capsys, run_command(main, [str(tmp_path), '--out', str(tmp_path / 'out')]), 'no run in', 'make normalize',
            silent=True)
    refused(capsys, run_command(main, [str(tmp_path / 'x')]), 'is not a directory', silent=True)
    assert not (tmp_path / 'out').exists()


def test_training_pictures_that_are_not_at_hand(tmp_path):
    make_paper_run(tmp_path / 'run')
    with pytest.raises(NothingToDraw, match='gen_iter'):
        neighbours.draw_neighbours(runs_in(tmp_path), skip)
    run, = runs_in(tmp_path)
    with pytest.raises(NothingToDraw, match='"make figures DATA_DIR=" a copy of cifar10'):
        neighbours._load(run, None)


def test_groups(copied):
    environment = copied / 'digits-none' / 'environment.json'
    about = json.loads(environment.read_text())
    about['data']['fingerprint'] = 'other'
    environment.write_text(json.dumps(about))
    groups = group_runs(runs_in(copied))
    assert sorted(map(len, groups.values())) == [1, 3] and len(groups) == 2
    assert all(name.startswith('digits-cnn-quick-4') for name in groups)


def test_each_method_has_a_look_of_its_own():
    methods = read_methods()
    assert len({style.color(method) for method in methods}) == len(methods)
    assert len({(line['marker'], line['fillstyle']) for line in map(style.line, methods)}) == len(methods)
    assert len({style.label(method) for method in methods}) == len(methods)
    assert style.label('maximum_norm') == 'maximum_norm'  # a method that somebody adds has the look of "other"


def test_drawing_leaves_random_numbers_alone(trained):
    before = np.random.get_state()[1].copy()
    samples.draw_samples(runs_in(trained), skip, 1, 2)
    assert np.array_equal(before, np.random.get_state()[1]) and chainer.config.train
