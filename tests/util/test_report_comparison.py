"""The paper's Table 2 with ours beside it: which run counts, where it stands, and which of several is shown."""
import math

import pytest

from tests.util.test_report import make_paper_run, make_run, make_tables, section
from util import scores
from util.report.comparison import WITHOUT_A_ROW, compare_with_paper
from util.report.published import read_published
from util.report.runs import read_run, sort_rows


def beside(tmp_path, dataset='cifar10'):
    """Label -> name of the run beside it, of all runs in ``tmp_path``; other lines by group and label."""
    rows = [row for path in sorted(tmp_path.iterdir()) for row in read_run(str(path))]
    lines = compare_with_paper(sort_rows(rows + read_published()[0]))[dataset]
    return {line.label if line.published else (line.group, line.label): line.run['label']
            for line in lines if line.run}


def end_at(score, distance=30.0, iteration=50000):
    """Scores of a run that ends with this one."""
    return {'rows': [(0, 1.0, 300.0), (iteration, score, distance)], 'splits': 10, 'iterations': iteration}


def test_the_line_of_a_run(tmp_path, capsys):
    make_paper_run(tmp_path / 'runs' / 'a', setting='C', seed=3, **end_at(7.3, 28.26))
    markdown, _, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    row, = [row for row in section(markdown, 'CIFAR-10') if row['our IS']]
    assert row == {
        'method': 'SN-GANs', 'paper IS': '7.42 +- 0.08', 'paper FID': '29.3', 'variables': 'METHOD=sn MODEL=cnn',
        'our IS': '7.30 +- 0.12', 'our FID': '28.3', 'model': 'cnn', 'setting': 'C', 'seed': '3', 'iterations': '50000',
        'outcome': 'finished', 'of': '1', 'protocol': 'paper', 'data': '1'}


def test_groups_and_order_are_the_paper_s(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a')
    markdown, _, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    assert markdown.index('### CIFAR-10') < markdown.index('### STL-10') < markdown.index('### ImageNet')
    assert markdown.index('### ImageNet') < markdown.index('## Inception Scores') < markdown.index('## Quick runs')
    names = [row['method'] for row in section(markdown, 'STL-10')]
    assert names[:3] == ['Real data', '*Standard CNN*', 'Weight clipping']
    assert names[-6:-3] == ['*ResNet*', 'Orthonormal, hinge loss', 'SN-GANs, hinge loss']
    table = {row['method']: row for row in section(markdown, 'CIFAR-10')}
    assert table['WGAN-GP + Frobenius norm']['paper IS'] == 'collapsed early'
    assert table['SN-GANs, hinge loss']['paper FID'] == '21.7 +- 0.21'
    assert {row['paper FID'] for row in section(markdown, 'ImageNet')} == {''}


@pytest.mark.parametrize('options, label', [
    ({}, 'SN-GANs'), ({'model': 'sndcgan'}, 'SN-GANs'), ({'method': 'sn_hinge'}, 'SN-GANs, hinge loss, Eq. (17)'),
    ({'method': 'sn_hinge', 'model': 'resnet'}, 'SN-GANs, hinge loss'), ({'method': 'gan_gp'}, 'GAN-GP'),
    ({'method': 'sn_gp'}, 'WGAN-GP + spectral norm'), ({'method': 'weight_norm'}, 'Weight Norm.'),
    ({'method': 'none'}, (WITHOUT_A_ROW, 'none')), ({'method': 'bssn'}, (WITHOUT_A_ROW, 'bssn')),
    ({'method': 'frobenius_norm'}, (WITHOUT_A_ROW, 'frobenius_norm')),
    ({'model': 'resnet'}, (WITHOUT_A_ROW, 'sn')),
    ({'method': 'sn_hinge', 'model': 'resnet_projection'}, (WITHOUT_A_ROW, 'sn_hinge'))])
def test_matching(tmp_path, options, label):
    make_paper_run(tmp_path / 'a', **options)
    assert beside(tmp_path) == {label: 'a'} and beside(tmp_path, 'stl10') == {}


def test_matching_of_other_data_sets(tmp_path):
    make_paper_run(tmp_path / 'a', dataset='stl10', method='sn_hinge', model='resnet48')
    make_paper_run(tmp_path / 'b', dataset='imagenet', method='sn_hinge', model='resnet128_concat',
                   protocol_of_scores='imagenet')
    make_paper_run(tmp_path / 'c', dataset='stl10-labelled', method='gan_gp')
    assert beside(tmp_path, 'stl10') == {'SN-GANs, hinge loss': 'a'} and beside(tmp_path) == {}
    assert beside(tmp_path, 'imagenet') == {'SN-GANs, label concatenated': 'b'}


def test_what_does_not_stand_beside_the_paper(tmp_path):
    make_run(tmp_path / 'quick', name='inception', dataset='cifar10', protocol_of_scores='paper')
    make_paper_run(tmp_path / 'other-scorer', name='cifar10')
    make_paper_run(tmp_path / 'unverified', name='inception-unverified')
    make_paper_run(tmp_path / 'other-protocol', protocol_of_scores='50k')
    make_paper_run(tmp_path / 'changed-protocol', protocol_of_scores='paper*')
    make_paper_run(tmp_path / 'changed', overrides=['model.width=32'])
    make_paper_run(tmp_path / 'batch', batchsize=32)
    assert beside(tmp_path) == {}


def test_the_best_last_score_is_shown(tmp_path, capsys):
    runs = tmp_path / 'runs'
    make_paper_run(runs / 'a', setting='A', **end_at(7.1, 20.0))
    make_paper_run(runs / 'b', setting='B', **end_at(7.4, 25.0))
    make_paper_run(runs / 'c', setting='B', seed=1, **{**end_at(7.2), 'rows': [(0, 1.0), (1000, 9.0), (50000, 7.2)]})
    make_paper_run(runs / 'd', setting='C', rows=[(0, 1.0), (50000, math.nan)], iterations=50000)
    make_paper_run(runs / 'e', setting='D', rows=[], diverged_at=5)
    # The same run, scored with other weights, is no other run
    table = scores.ScoreTable(str(runs / 'b' / 'scores.csv'))
    table.put({**table.rows[-1], 'weights': 'f0e0d0c0', 'score_mean': 7.3})
    markdown = make_tables(capsys, runs, tmp_path)[0]
    row, = [row for row in section(markdown, 'CIFAR-10') if row['of']]
    assert [row[key] for key in ('method', 'our IS', 'our FID', 'setting', 'seed', 'of')] == [
        'SN-GANs', '7.40 +- 0.12', '25.0', 'B', '0', '5']
    assert 'the highest last Inception Score, as Table 2 takes the best setting' in ' '.join(markdown.split())


def test_twice_the_updates_stand_beside_twice_the_updates(tmp_path):
    stl = {'dataset': 'stl10'}
    make_paper_run(tmp_path / 'half', **stl, **end_at(8.0))
    make_paper_run(tmp_path / 'twice', **stl, **end_at(8.1, iteration=200000), seed=1)
    make_paper_run(tmp_path / 'going-on', **stl, method='orthonormal', done=False,
                   **{**end_at(8.1, iteration=100000), 'iterations': 200000})
    make_paper_run(tmp_path / 'hinge', **stl, method='sn_hinge', **end_at(8.2))
    make_paper_run(tmp_path / 'cifar', **end_at(7.0, iteration=200000))
    assert beside(tmp_path, 'stl10') == {
        'SN-GANs': 'half', 'SN-GANs (2x updates)': 'twice', 'Orthonormal': 'going-on',
        'SN-GANs, hinge loss, Eq. (17) (2x updates)': 'hinge'}
    assert beside(tmp_path) == {'SN-GANs': 'cifar'}


def test_how_far_a_run_is_and_how_it_ended(tmp_path, capsys):
    make_paper_run(tmp_path / 'runs' / 'a', done=False, **{**end_at(7.0, iteration=1000), 'iterations': 50000})
    make_paper_run(tmp_path / 'runs' / 'b', method='batch_norm', rows=[], diverged_at=5, iterations=50000)
    make_paper_run(tmp_path / 'runs' / 'c', method='bsn', rows=[(0, 1.0, 99.0), (50000, 1.1, 98.0)], iterations=50000)
    rows = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'CIFAR-10')
    keys = ('method', 'our IS', 'our FID', 'iterations', 'outcome', 'protocol')
    assert [tuple(row[key] for key in keys) for row in rows if row['of']] == [
        ('Batch Norm.', '', '', '5 of 50000', 'DIVERGED at 5', ''),
        ('SN-GANs', '7.00 +- 0.12', '30.0', '1000 of 50000', 'NOT FINISHED', 'paper'),
        ('bsn', '1.10', '98.0', '50000', 'learned nothing', 'paper')]
    assert [row['method'] for row in rows][-2:] == ['*Without a row above*', 'bsn']
    assert (rows[-1]['paper IS'], rows[-1]['variables']) == ('', 'METHOD=bsn MODEL=cnn')


def test_methods_that_the_paper_does_not_have_stand_in_order(tmp_path):
    for name in ('bssn', 'none', 'ssn'):
        make_paper_run(tmp_path / name, method=name)
    make_paper_run(tmp_path / 'best', method='ssn', setting='A', rows=[(50, 8.0)])
    assert list(beside(tmp_path).items()) == [
        ((WITHOUT_A_ROW, 'none'), 'none'), ((WITHOUT_A_ROW, 'ssn'), 'best'),
        ((WITHOUT_A_ROW, 'bssn'), 'bssn')]


def test_another_archive_is_said_there_too(tmp_path, capsys):
    make_paper_run(tmp_path / 'runs' / 'a', fingerprint='0123')
    row, = [row for row in section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'CIFAR-10') if row['of']]
    assert row['data'] == '1, NOT verified as the original archive'
