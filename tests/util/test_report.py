"""The tables of runs: which run stands where, under which name, and what they never say."""
import csv
import io
import json
import os
import re

import pytest

from util import cifar10, config, rundir, scores
from util.cli import run_command
from util.config import resolve
from util.files import UserError
from util.report.__main__ import main
from util.report.markdown import render_markdown
from util.report.runs import read_methods

SCORES = ((0, 1.0), (25, 6.0), (50, 5.4321))
ABOUT = ['the source', 'the protocol']


def make_run(path, name='digits', rows=SCORES, done=True, fingerprint='f', splits=1, source="scikit-learn's digits",
             sessions=(('CPU, 2 cores', 'abc123'),), protocol_of_scores='quick', diverged_at=None, **options):
    """Write what the tables read of a run: its Config, environment and scores, (iteration, score[, Frechet distance])
    each.
    """
    path.mkdir(parents=True)
    resolve(**{'profile': 'quick', 'iterations': 50, **options}).save(str(path / 'config.yml'))
    environment = {'data': {'source': source, 'fingerprint': fingerprint, 'pictures': 10},
                   'sessions': [{'device': device, 'commit': commit} for device, commit in sessions]}
    (path / 'environment.json').write_text(json.dumps(environment))
    table = scores.ScoreTable(str(path / 'scores.csv'))
    for iteration, mean, *distance in rows:
        table.put({'iteration': iteration, 'scorer': name, 'weights': '0a1b2c3d', 'protocol': protocol_of_scores,
                   'score_mean': mean, 'score_std': 0.125, 'samples': 2000, 'splits': splits,
                   'frechet_distance': distance[0] if distance else 30.26 if iteration else 100.,
                   'kernel_distance': 0.0123, 'kernel_distance_std': 0.002, 'distance_samples': 1000,
                   'kernel_subsets': '20 x 500', 'reference': '1797 digits all'})
    if done and diverged_at is None:
        (path / 'done').write_text('{}')
    if diverged_at is not None:
        reason = {'iteration': diverged_at, 'reason': 'in gen/l4/W', 'finished': 'now'}
        (path / 'diverged').write_text(json.dumps(reason))
    return path


def make_paper_run(path, name='inception', **options):
    source = 'CIFAR-10, 50000 pictures (train), the original archive'
    return make_run(path, name, **{'profile': 'paper', 'fingerprint': cifar10.ORIGINAL.md5, 'source': source,
                                   'protocol_of_scores': 'paper', **options})


def sections(markdown):
    """Heading -> list of rows of its table, each a dict; checks that the columns are aligned."""
    found = {}
    for part in re.split('\n###? ', markdown)[1:]:
        lines = [line for line in part.splitlines() if line.startswith('|')]
        assert len({tuple(m.start() for m in re.finditer(r'(?<!\\)\|', line)) for line in lines}) <= 1, 'not aligned'
        table = [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines]
        found[part.splitlines()[0]] = [dict(zip(table[0], row, strict=True)) for row in table[2:]]
    return found


def section(markdown, start):
    title, = [title for title in sections(markdown) if title.startswith(start)]
    # A Config may have settings that these tests do not look at
    return [{key: cell for key, cell in row.items() if key not in ('n_gen_ratio', 'decay_start')}
            for row in sections(markdown)[title]]


def make_tables(capsys, runs, out):
    """Run the command; returns Markdown, rows of the CSV, and stderr."""
    assert run_command(main, [str(runs), '--out', str(out)]) == 0
    captured = capsys.readouterr()
    markdown = (out / 'table.md').read_text()
    assert captured.out == markdown
    return markdown, list(csv.DictReader(io.StringIO((out / 'table.csv').read_text()))), captured.err


def test_a_quick_run(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a-run', setting='C', seed=7)
    markdown, rows, err = make_tables(capsys, tmp_path / 'runs', tmp_path / 'out')
    title = "Quick runs: digits, a quarter of the width - not the paper's experiment"
    assert section(markdown, title) == [{
        'run': 'a-run', 'dataset': 'digits', 'model': 'cnn', 'method': 'sn', 'setting': 'C', 'alpha': '0.0002',
        'beta1': '0.5', 'beta2': '0.999', 'n_dis': '1', 'profile': 'quick', 'seed': '7', 'iterations': '50 of 50',
        'outcome': 'finished', 'score': '5.43 (50)', 'Frechet distance': '30.3',
        'kernel distance x 1000': '12.30 +- 2.00', 'best': '6.00 (25)',
        'scorer': 'digits 0a1b2c3d (digit-classifier score)', 'protocol': 'quick', 'samples': '2000 / 1',
        'of the distances': '1000, 20 x 500', 'compared with': '1797 digits all', 'data': '1',
        'device': 'CPU, 2 cores', 'commit': 'abc123'}]
    assert "1. scikit-learn's digits" in markdown and err == ''
    row, = [row for row in rows if row['origin'] == 'run']
    assert row['table'] == 'quick' and float(row['other_score']) == 5.4321 and float(row['best_other_score']) == 6
    assert (float(row['other_kernel_distance']), row['kid'], row['weights']) == (0.0123, '', '0a1b2c3d')
    assert (row['outcome'], row['untrained_frechet_distance'], row['lowest_at']) == ('finished', '100.0', '25')
    assert row['best_at'] == '25' and row['inception_score'] == row['fid'] == row['best_inception_score'] == ''


def test_the_paper_s_numbers(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a')
    markdown, rows, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    table = section(markdown, 'CIFAR-10')
    assert [(row['method'], row['paper IS'], row['paper FID']) for row in table
            if row['method'] == 'Real data' or row['variables'].startswith('METHOD=sn ')] == [
        ('Real data', '11.24 +- 0.12', '7.8'), ('SN-GANs', '7.42 +- 0.08', '29.3')]
    assert not any(row['our IS'] or row['our FID'] or row['setting'] for row in table)
    assert section(markdown, 'Inception Scores') == []
    assert 'No run here has been scored with the Inception network.' in markdown
    assert '1802.05957' in markdown and '5,000 generated pictures, 10 times' in ' '.join(markdown.split())
    paper = [row for row in rows if row['origin'] == 'paper']
    assert {row['table'] for row in paper} == {'paper'} and not any(row['other_score'] for row in paper)
    assert {'11.24', '7.42', '7.58'} < {row['inception_score'] for row in paper}
    assert [row['setting'] for row in paper if row['label'] == 'SN-GANs'] == ['A-F, best letter not stated', 'B']
    assert [row['fid_std'] for row in paper if row['inception_score'] == '8.22'] == ['0.21']


def test_only_inception_stands_beside_the_paper(tmp_path, capsys):
    make_paper_run(tmp_path / 'runs' / 'a', splits=10, iterations=50)
    make_paper_run(tmp_path / 'runs' / 'b', name='digits', dataset='digits')
    make_run(tmp_path / 'runs' / 'c')
    make_run(tmp_path / 'runs' / 'd', name='inception', dataset='cifar10', fingerprint=cifar10.ORIGINAL.md5)
    markdown, rows, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    inception = section(markdown, 'Inception Scores')
    assert [row['run'] for row in inception] == ['a']
    assert [row['our IS'] for row in section(markdown, 'CIFAR-10') if row['our IS']] == ['5.43 +- 0.12']
    assert inception[-1]['Inception Score'] == '5.43 +- 0.12 (50)' and inception[-1]['profile'] == 'paper'
    assert inception[-1]['FID'] == '30.3' and inception[-1]['KID x 1000'] == '12.30 +- 2.00'
    assert [row['run'] for row in section(markdown, 'Scores of other networks')] == ['b']
    assert [row['run'] for row in section(markdown, 'Quick runs: cifar10, digits')] == ['d', 'c']
    for title, table in sections(markdown).items():
        if title not in ('Inception Scores', 'CIFAR-10', 'STL-10', 'ImageNet'):
            assert not re.search('Inception Score|IS|FID|KID', ' '.join(key for row in table for key in row))
    assert {row['label'] for row in rows if row['other_score']} == {'b', 'c'}
    assert 'No run here has been scored' not in markdown


def test_a_run_that_has_not_finished_says_so(tmp_path, capsys):
    run = make_run(tmp_path / 'runs' / 'a', done=False, iterations=100)
    (run / 'snapshot_iter_000075.npz').write_text('')
    markdown, rows, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    row, = section(markdown, 'Quick runs')
    assert (row['iterations'], row['outcome'], row['score']) == ('75 of 100', 'NOT FINISHED', '5.43 (50)')
    row, = [row for row in rows if row['origin'] == 'run']
    assert (row['finished'], row['iterations'], row['planned']) == ('False', '75', '100')


def test_order(tmp_path, capsys):
    wanted = [
        ('cifar10', 'cnn', 'sn', 'A', 0), ('digits', 'cnn', 'sn', 'default', 2), ('digits', 'cnn', 'sn', 'default', 10),
        ('digits', 'cnn', 'none', 'A', 0), ('digits', 'cnn', 'sn', 'A', 0), ('digits', 'cnn', 'sn', 'F', 0),
        ('digits', 'cnn', 'none', 'quick', 0), ('digits', 'sndcgan', 'none', 'B', 0)]
    keys = ('dataset', 'model', 'method', 'setting', 'seed')
    for i, values in enumerate(reversed(wanted)):
        make_run(tmp_path / 'runs' / str(i), **dict(zip(keys, values, strict=True)))
    table = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Quick runs')
    assert [tuple(row[key] for key in keys) for row in table] == [(*row[:4], str(row[4])) for row in wanted]


@pytest.mark.parametrize('text', ['[', '', '3', None])
def test_methods_that_cannot_be_read(tmp_path, monkeypatch, text):
    monkeypatch.setattr(config, 'CONFIGS', str(tmp_path))
    if text is not None:
        (tmp_path / 'methods.yml').write_text(text)
    with pytest.raises(UserError, match='methods.yml: expected one row a method'):
        read_methods()


def test_what_flags_changed_is_said(tmp_path, capsys):
    overrides = ['model.width=16', 'setting.n_dis=1', 'protocol.kernel_subsets=3']
    make_paper_run(tmp_path / 'runs' / 'a', overrides=overrides, batchsize=32)
    make_paper_run(tmp_path / 'runs' / 'b', seed=1, display_interval=3, snapshot_interval=7)
    table = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Inception Scores')
    changed = {row['run']: row['changed'] for row in table}
    assert changed['a'] == 'model.width=16 setting.n_dis=1 profile.batchsize=32' and changed['b'] == ''


def test_rows_that_are_gone_are_said(tmp_path, capsys):
    run = make_run(tmp_path / 'runs' / 'a')
    text = (run / 'config.yml').read_text()
    (run / 'config.yml').write_text(text.replace('name: cnn', 'name: forgotten'))
    row, = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Quick runs')
    assert row['model'] == 'forgotten' and row['changed'] == 'configs/ has its rows no more'


def test_another_archive_is_said(tmp_path, capsys):
    source = 'CIFAR-10, 50000 pictures (train), NOT the original but another archive, md5 0123'
    make_paper_run(tmp_path / 'runs' / 'a', fingerprint='0123', source=source)
    make_paper_run(tmp_path / 'runs' / 'b', seed=1)
    markdown, rows, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    data = {row['run']: row['data'] for row in section(markdown, 'Inception Scores')}
    assert data['a'] == '1, NOT verified as the original archive' and data['b'] == '2'
    assert '\n1. ' + source + '\n' in markdown
    assert [row['data'] for row in rows if row['label'] == 'a'] == [source + ', NOT verified as the original archive']


def test_devices_and_commits_of_a_resumed_run(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a', sessions=[('CPU', 'c1'), ('NVIDIA H200', 'c1'), ('CPU', None)])
    row, = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Quick runs')
    assert (row['device'], row['commit']) == ('CPU then NVIDIA H200', 'c1 then unknown')


def test_a_line_a_scorer_and_protocol(tmp_path, capsys):
    run = make_run(tmp_path / 'runs' / 'a')
    table = scores.ScoreTable(str(run / 'scores.csv'))
    table.put({**table.rows[0], 'scorer': 'mine', 'iteration': 25})
    table.put({**table.rows[0], 'protocol': 'paper', 'iteration': 25})
    table.put({**table.rows[0], 'protocol': 'quick', 'weights': 'f0e0d0c0', 'iteration': 25})
    rows = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Quick runs')
    assert [(row['scorer'], row['protocol'], row['score']) for row in rows] == [
        ('digits 0a1b2c3d (digit-classifier score)', 'paper', '1.00 (25)'),
        ('digits 0a1b2c3d (digit-classifier score)', 'quick', '5.43 (50)'),
        ('digits f0e0d0c0 (digit-classifier score)', 'quick', '1.00 (25)'),
        ('mine 0a1b2c3d (mine-classifier score)', 'quick', '1.00 (25)')]


def test_scores_that_are_no_numbers(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a', rows=[(0, float('nan')), (25, 2.0), (50, float('nan'))])
    row, = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Quick runs')
    assert (row['score'], row['best']) == ('nan (50)', '2.00 (25)')


@pytest.mark.parametrize('name, content', [
    ('config.yml', None), ('config.yml', b'dataset: 1'), ('scores.csv', None), ('scores.csv', b'a,b\n1,2\n'),
    ('scores.csv', b'\xff\xfe\x00'), ('scores.csv', ','.join(scores.COLUMNS).encode()),
    ('scores.csv', ','.join(scores.COLUMNS).encode() + b'\n25,digits,w,p,x,0,1,1,1,2,1,2,1 x 2,r'),
    ('environment.json', None), ('environment.json', b'{"data"'), ('environment.json', b'{"data": {}, "sessions": []}'),
    ('environment.json', b'[]')])
def test_damaged_runs_are_skipped_with_a_line(tmp_path, capsys, name, content):
    make_run(tmp_path / 'runs' / 'good')
    bad = make_run(tmp_path / 'runs' / 'bad')
    (bad / name).unlink()
    if content is not None:
        (bad / name).write_bytes(content)
    markdown, _, err = make_tables(capsys, tmp_path / 'runs', tmp_path)
    assert [row['run'] for row in section(markdown, 'Quick runs')] == ['good']
    assert re.fullmatch(r'skipped \S*bad: .+\n', err)


@pytest.mark.parametrize('path', ['runs', 'runs/a', 'missing'])
def test_no_runs(tmp_path, capsys, path):
    run = make_run(tmp_path / 'runs' / 'a')
    (run / 'scores.csv').unlink()
    assert run_command(main, [str(tmp_path / path), '--out', str(tmp_path / 'out')]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('error: ') and os.path.basename(path) in last
    assert not (tmp_path / 'out').exists()


def test_without_arguments(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rundir, 'RUNS', str(tmp_path / 'results' / 'runs'))
    assert run_command(main, []) == 2
    assert 'no scored run in' in capsys.readouterr().err
    make_run(tmp_path / 'results' / 'runs' / 'group' / 'a')
    assert run_command(main, []) == 0
    assert sorted(os.listdir(tmp_path / 'results')) == ['runs', 'table.csv', 'table.md']


def test_a_run_that_is_named_twice_stands_once(tmp_path, capsys):
    run = make_run(tmp_path / 'runs' / 'a')
    assert run_command(main, [str(run), str(tmp_path / 'runs'), '--out', str(tmp_path)]) == 0
    assert len(section(capsys.readouterr().out, 'Quick runs')) == 1


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a')
    (tmp_path / 'file').write_text('')
    assert run_command(main, [str(tmp_path / 'runs'), '--out', str(tmp_path / 'file')]) == 2
    assert 'cannot write' in capsys.readouterr().err


def test_markdown_of_nothing():
    markdown = render_markdown([], ABOUT)
    assert sections(markdown) == {"The paper's Table 2, and ours beside it": [], 'Inception Scores': []}
    assert '- Published: the protocol' in markdown
