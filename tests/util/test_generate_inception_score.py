"""Scores of a run's generators, in training and again by way of the command; of a tiny run whose pictures differ."""
import functools
import json
import shutil
import types

import chainer
import numpy as np
import pytest
import yaml
from PIL import Image

import train
from tests import helpers
from tests.helpers import tree
from util import dataset, generate_inception_score, metrics
from util.cli import run_command
from util.config import resolve
from util.device import get_device
from util.engine.switch import using_engine
from util.generate_fake_image import generate, load_generator
from util.generate_inception_score import GenerateInceptionScore, make_run_scorer
from util.rundir import Lock, RunDirectory
from util.scorer import load_scorer
from util.scores import COLUMNS, ScoreTable

TINY = ['--profile', 'quick', '--device', 'cpu', '--iterations', '4', '--batchsize', '4', '--evaluation-interval', '2',
        '--snapshot-interval', '4', '--display-interval', '2', '--seed', '3', '--set', 'model.width=2',
        '--set', 'model.initial_scale=0.3', '--set', 'setting.alpha=0.01', '--set', 'protocol.reference=test',
        '--set', 'protocol.samples=30', '--set', 'protocol.splits=3', '--set', 'protocol.training_samples=21',
        '--set', 'protocol.training_splits=2', '--set', 'protocol.distance_samples=19',
        '--set', 'protocol.kernel_subsets=4', '--set', 'protocol.kernel_subset_size=5']
HEADER = ','.join(COLUMNS) + '\n'


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'finished'
    assert run_command(train.main, [*TINY, '--out', str(out)]) == 0
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / 'run')


refused = functools.partial(helpers.refused, silent=True)


def score(run, *arguments):
    return run_command(generate_inception_score.main, [str(run), '--device', 'cpu', *map(str, arguments)])


# In training

def test_the_scores_of_training_differ_from_each_other(finished):
    rows = ScoreTable(str(finished / 'scores.csv')).rows
    assert [row['iteration'] for row in rows] == [0, 2, 4]
    for key in ('score_mean', 'score_std', 'frechet_distance', 'kernel_distance'):
        assert len({row[key] for row in rows}) == 3, key
    assert all(1 < row['score_mean'] < 10 and 0 < row['score_std'] < 1 for row in rows)


@pytest.mark.parametrize('iteration, samples, splits', [(0, 21, 2), (4, 30, 3)])  # the last one is scored in full
def test_a_row_is_what_the_parts_give_when_put_together_by_hand(finished, iteration, samples, splits):
    generator, _ = load_generator(RunDirectory(finished), iteration, get_device('cpu'))
    network = load_scorer('digits')
    with using_engine('auto'):  # as the run
        features, probabilities = network(generate(generator, samples, 3, iteration, 'z of score'))
    real = dataset.load(resolve(dataset='digits').dataset, 'test')
    mean, std = metrics.inception_score(probabilities, splits)
    features, real_features = features[:19], network(real.images)[0]
    distance = metrics.frechet_distance(*metrics.statistics(features), *metrics.statistics(real_features))
    kernel, kernel_std = metrics.kernel_distance(features, real_features, 4, 5)
    row, = (r for r in ScoreTable(str(finished / 'scores.csv')).rows if r['iteration'] == iteration)
    assert {k: v for k, v in row.items() if isinstance(v, float)} == pytest.approx(
        {'score_mean': mean, 'score_std': std, 'frechet_distance': distance, 'kernel_distance': kernel,
         'kernel_distance_std': kernel_std})
    assert (row['scorer'], row['weights'], row['protocol']) == ('digits', network.fingerprint[:8], 'quick*')
    assert (row['samples'], row['splits'], row['distance_samples'], row['kernel_subsets']) == (
        samples, splits, 19, '4 x 5')
    assert row['reference'] == '{} digits test ({})'.format(len(real.images), real.fingerprint[:8])


def test_the_log_has_the_same_numbers_as_the_table(finished):
    rows = ScoreTable(str(finished / 'scores.csv')).rows[1:]
    log = json.loads((finished / 'log').read_text())
    assert [(e['score/mean'], e['score/std'], e['score/frechet'], e['score/kernel']) for e in log] == [
        (r['score_mean'], r['score_std'], r['frechet_distance'], r['kernel_distance']) for r in rows]


def at(iteration):
    return types.SimpleNamespace(updater=types.SimpleNamespace(iteration=iteration))


def test_extension_forgets_what_a_resumed_run_will_make_again(copy):
    directory = RunDirectory(copy)
    extension = GenerateInceptionScore(None, None, directory, 4)
    extension.initialize(at(2))
    assert [r['iteration'] for r in ScoreTable(directory.file('scores.csv')).rows] == [0, 2]
    before = tree(copy)
    extension.initialize(at(3))
    assert tree(copy) == before


def test_extension_writes_and_reports(tmp_path):
    row = {'iteration': 8, 'scorer': 's', 'weights': 'w', 'protocol': 'p', 'score_mean': 1.5, 'score_std': 0.25,
           'frechet_distance': 7.0, 'kernel_distance': 0.5, 'kernel_distance_std': 0.1, 'samples': 2, 'splits': 1,
           'distance_samples': 2, 'kernel_subsets': '1 x 2', 'reference': 'r'}
    calls, observation = [], {}
    extension = GenerateInceptionScore('G', lambda *a, full: calls.append((*a, full)) or row, RunDirectory(tmp_path), 9)
    with chainer.reporter.Reporter().scope(observation):
        extension(at(8))
        extension(at(9))
    assert calls == [('G', 8, False), ('G', 9, True)] and ScoreTable(str(tmp_path / 'scores.csv')).rows == [row]
    assert observation == {'score/mean': 1.5, 'score/std': 0.25, 'score/frechet': 7.0, 'score/kernel': 0.5}


def test_make_run_scorer_loads_pictures_only_when_they_are_others(monkeypatch):
    row, network = 'protocol.reference=train', load_scorer('digits')
    pictures = dataset.Pictures(np.random.RandomState(0).randint(0, 256, (9, 3, 32, 32)).astype('u1'), None, '', '', '')
    loaded = []
    monkeypatch.setattr(dataset, 'load', lambda row, split, data_dir: loaded.append((split, data_dir)) or pictures)
    same = resolve(profile='quick', overrides=[row, 'dataset.split=train'])
    for config, given in ((same, pictures), (resolve(profile='quick', overrides=[row]), pictures)):
        assert make_run_scorer(network, config, given, 'there').scorer is network
    assert loaded == [('train', 'there')]
    assert make_run_scorer(None, same, pictures) is None


# By way of the command

def test_scoring_again_gives_the_same_file(finished, copy, capsys):
    before = tree(copy)
    for remove in (True, False):
        if remove:
            (copy / 'scores.csv').unlink()
        np.random.seed(remove)
        assert score(copy) == 0
        assert tree(copy) == before
    assert before['scores.csv'] == (finished / 'scores.csv').read_bytes()


def test_what_is_printed(copy, capsys):
    assert score(copy) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    rows = ScoreTable(str(copy / 'scores.csv')).rows
    assert first.startswith('digit-classifier score: ') and 'nception' not in first
    assert len(lines) == 3
    for line, row in zip(lines, rows, strict=True):
        words = line.split()
        assert words[:2] == ['iteration', str(row['iteration'])]
        assert words[words.index('score') + 1] == '{:.3f}'.format(row['score_mean'])
        assert '{samples} / {splits}'.format(**row) in line
        assert 'Frechet distance {:.3f}, kernel distance {:.5f} +-'.format(
            row['frechet_distance'], row['kernel_distance']) in line
        assert line.endswith('(19 against {})'.format(row['reference']))


def test_some_iterations_in_any_order(finished, copy):
    (copy / 'scores.csv').unlink()
    assert score(copy, '--iteration', 4, 0) == 0
    header, *lines = (finished / 'scores.csv').read_text().splitlines(keepends=True)
    assert (copy / 'scores.csv').read_text() == header + lines[0] + lines[2]


def test_other_rows_stay_and_the_same_one_is_replaced(finished, copy, capsys):
    rows = ScoreTable(str(finished / 'scores.csv')).rows
    old = {**rows[1], 'scorer': 'another', 'score_mean': 9.5, 'reference': 'something, else'}
    table = ScoreTable(str(copy / 'scores.csv'))
    for row in (old, {**rows[1], 'score_mean': 5.0}, {**rows[2], 'score_mean': 6.0}):
        table.put(row)
    assert score(copy, '--iteration', 2) == 0
    assert ScoreTable(str(copy / 'scores.csv')).rows == [old, rows[0], rows[1], {**rows[2], 'score_mean': 6.0}]
    output = capsys.readouterr().out
    assert '9.500' not in output and '5.000' not in output and '6.000' in output


@pytest.mark.parametrize('arguments, message', [
    (['--scorer', 'nobody'], "no scorer 'nobody'"),
    (['--iteration', '3'], 'finished has no gen_iter_*.npz of 3'),
    (['--iteration', '0', '7', '5'], 'finished has no gen_iter_*.npz of 5, 7'),
    (['--iteration', '-1'], 'gen_iter_*.npz of -1'),
    (['--iteration', 'x'], '--iteration'),
    (['--iteration'], '--iteration'),
    (['--device', 'tpu'], '--device tpu: expected'),
    (['--device', '99'], '--device 99: there is no such GPU'),
    (['--unknown'], '--unknown'),
])
def test_bad_flags_write_nothing(finished, capsys, arguments, message):
    before = tree(finished)
    refused(capsys, score(finished, *arguments), message)
    assert tree(finished) == before


def test_missing_inception_weights(copy, capsys, no_network):
    before = tree(copy)
    assert score(copy, '--scorer', 'inception') == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: scorer inception: ')
    assert tree(copy) == before


def test_no_run(tmp_path, capsys):
    refused(capsys, score(tmp_path / 'missing'), 'missing is not a directory')
    refused(capsys, score(tmp_path), 'config.yml')
    refused(capsys, run_command(generate_inception_score.main, []), 'run')
    assert tree(tmp_path) == {}


def test_no_generators_yet(copy, capsys):
    for path in copy.glob('gen_iter_*.npz'):
        path.unlink()
    before = tree(copy)
    refused(capsys, score(copy), 'run has no gen_iter_*.npz yet')
    refused(capsys, score(copy, '--iteration', 4), 'run has no gen_iter_*.npz')
    assert tree(copy) == before


def test_damaged_generator(copy, capsys):
    path = copy / 'gen_iter_000002.npz'
    path.write_bytes(path.read_bytes()[:-100])
    before = tree(copy)
    refused(capsys, score(copy), str(path))
    assert tree(copy) == before
    assert score(copy, '--iteration', 0, 4) == 0


def test_while_another_process_works_on_the_run(copy, capsys):
    before = tree(copy)
    with Lock(RunDirectory(copy)):
        refused(capsys, score(copy), '{}: another process is working on this run'.format(copy))
    assert tree(copy) == before


ROW = '0,digits,0a1b,quick,1.5,0.5,30.25,0.1,0.01,21,2,19,4 x 5,359 digits test\n'


@pytest.mark.parametrize('content', [
    b'',
    (HEADER + ROW).encode() + b'\xff\xfe\n',
    HEADER.encode() + bytes(512),
    (HEADER + ROW.replace('1.5', '1\0.5')).encode(),
    (HEADER.replace(',reference', '') + ROW.replace(',359 digits test', '')).encode(),
    (HEADER + ROW + ROW[:12]).encode(),
    (HEADER + ROW.replace('0,', 'zero,', 1)).encode(),
])
def test_damaged_table(copy, capsys, content):
    (copy / 'scores.csv').write_bytes(content)
    before = tree(copy)
    refused(capsys, score(copy, '--iteration', 0), '{} is not a table of scores: '.format(copy / 'scores.csv'))
    assert tree(copy) == before


def test_table_that_is_a_folder(copy, capsys):
    (copy / 'scores.csv').unlink()
    (copy / 'scores.csv').mkdir()
    refused(capsys, score(copy), 'scores.csv')


def test_scorer_none_for_a_run_that_has_one(finished, capsys):
    before = tree(finished)
    status, error = score(finished, '--scorer', 'none'), capsys.readouterr().err
    assert status == 2 and error.startswith('error: --scorer') and error.count('\n') == 1
    assert 'the data set digits has none of its own' not in error  # it has; "none" was asked for
    assert tree(finished) == before


@pytest.fixture
def of_folder(copy):
    """The run as if it had been trained on a folder of three pictures, a data set without a scorer of its own."""
    config = yaml.safe_load((copy / 'config.yml').read_text())
    config['dataset'].update(name='folder', source='folder', scorer='none', split='train', n_classes=0)
    config['protocol']['reference'] = 'train'
    (copy / 'config.yml').write_text(yaml.safe_dump(config))
    (copy / 'scores.csv').unlink()
    pictures = copy.parent / 'pictures'
    pictures.mkdir()
    for i in range(3):
        array = np.random.RandomState(i).randint(0, 256, (40, 50, 3)).astype('u1')
        Image.fromarray(array).save(pictures / '{}.png'.format(i))
    begun_with(copy, pictures)
    return copy, ['--data-dir', str(pictures)]


def begun_with(run, pictures):
    environment = json.loads((run / 'environment.json').read_text())
    config = resolve(profile='quick', dataset='folder').dataset
    environment['data']['fingerprint'] = dataset.load(config, data_dir=str(pictures)).fingerprint
    (run / 'environment.json').write_text(json.dumps(environment))


def test_data_set_without_a_scorer(of_folder, capsys):
    run, data = of_folder
    before = tree(run)
    for arguments in ([], ['--scorer', 'none']):
        refused(capsys, score(run, *data, *arguments), '--scorer')
    assert tree(run) == before
    assert score(run, *data, '--scorer', 'digits') == 0
    rows = ScoreTable(str(run / 'scores.csv')).rows
    assert [r['iteration'] for r in rows] == [0, 2, 4]
    reference, = {r['reference'] for r in rows}
    assert reference.startswith('3 folder all (') and {r['scorer'] for r in rows} == {'digits'}


def test_another_protocol_and_other_weights_stand_beside(finished, copy, capsys):
    table = ScoreTable(str(copy / 'scores.csv'))
    table.put({**table.rows[0], 'weights': 'deadbeef', 'score_mean': 9.9})
    assert score(copy, '--iteration', 2, '--protocol', 'quick') == 0
    rows = ScoreTable(str(copy / 'scores.csv')).rows
    assert sorted((row['iteration'], row['protocol'], row['samples']) for row in rows) == [
        (0, 'quick*', 21), (0, 'quick*', 21), (2, 'quick', 1000), (2, 'quick*', 21), (4, 'quick*', 30)]
    assert [row for row in rows if row['weights'] != 'deadbeef' and row['protocol'] == 'quick*'] == ScoreTable(
        str(finished / 'scores.csv')).rows
    output = capsys.readouterr().out
    assert '; protocol quick\n' in output and '9.9' not in output
    assert score(copy, '--iteration', 0, '--full') == 0
    row, = (row for row in ScoreTable(str(copy / 'scores.csv')).rows
            if (row['iteration'], row['protocol']) == (0, 'quick*') and row['weights'] != 'deadbeef')
    assert (row['samples'], row['splits']) == (30, 3)


def test_a_folder_of_pictures_is_read_once_and_has_no_splits(of_folder, monkeypatch):
    run, data = of_folder
    loaded, load = [], dataset.load
    monkeypatch.setattr(dataset, 'load', lambda *args, **kwargs: loaded.append(args) or load(*args, **kwargs))
    assert score(run, *data, '--scorer', 'digits', '--protocol', 'quick', '--iteration', 0) == 0
    assert len(loaded) == 1


def test_pictures_are_needed_and_must_be_those_of_the_run(of_folder, capsys):
    run, data = of_folder
    before = tree(run)
    refused(capsys, score(run, '--scorer', 'digits'), '--data-dir')
    refused(capsys, score(run, '--scorer', 'digits', '--data-dir', 'missing'), 'missing')
    (run.parent / 'pictures' / '2.png').unlink()
    refused(capsys, score(run, '--scorer', 'digits', *data), '--data-dir: the pictures are not those')
    assert tree(run) == before


def test_a_single_real_picture_has_no_covariance(of_folder, capsys):
    run, data = of_folder
    for i in (1, 2):
        (run.parent / 'pictures' / '{}.png'.format(i)).unlink()
    begun_with(run, run.parent / 'pictures')
    before = tree(run)
    refused(capsys, score(run, '--scorer', 'digits', *data), 'picture')
    assert tree(run) == before
