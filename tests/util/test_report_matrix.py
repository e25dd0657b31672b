"""Methods by settings: which runs stand in one table, and what a cell says."""
import pytest

from tests.util.test_report import make_paper_run, make_run, make_tables, section, sections
from util.report.matrix import make_matrices
from util.report.runs import read_run, sort_rows


def matrices(tmp_path):
    return make_matrices(sort_rows([row for path in sorted(tmp_path.iterdir()) for row in read_run(str(path))]))


def end_at(score, distance, lowest=None):
    return {'rows': [(0, 1.0, 50.0), (25, 2.0, lowest or distance), (50, score, distance)]}


def test_cells(tmp_path, capsys):
    runs = tmp_path / 'runs'
    make_run(runs / 'a', setting='A', **end_at(2.0, 20.0))
    make_run(runs / 'b', setting='default', **end_at(3.0, 10.0))
    make_run(runs / 'c', setting='A', method='none', **end_at(1.5, 45.0, lowest=10.0))
    make_run(runs / 'd', setting='B', method='none', **end_at(1.0, 49.0))
    make_run(runs / 'e', setting='C', method='none', rows=[(0, 1.0, 50.0), (25, 2.0, 30.0)], diverged_at=33)
    make_run(runs / 'f', setting='D', method='weight_clipping', rows=[], diverged_at=3)
    markdown, _, _ = make_tables(capsys, runs, tmp_path)
    head = 'score / Frechet distance: method'
    assert section(markdown, 'digits, cnn; digit-classifier score; digits 0a1b2c3d, protocol quick; 50 iterations') == [
        {head: 'none', 'default': '', 'A': '1.50 / 45.0 (c)', 'B': '1.00 / 49.0 (-)', 'C': '2.00 / 30.0 (x)', 'D': ''},
        {head: 'weight_clipping', 'default': '', 'A': '', 'B': '', 'C': '', 'D': '(x)'},
        {head: 'sn', 'default': '3.00 / 10.0', 'A': '2.00 / 20.0', 'B': '', 'C': '', 'D': ''}]
    assert '## Methods by settings' in markdown and '(c): collapsed; (-): learned nothing; (x): diverged' in markdown
    assert list(sections(markdown)).index('Methods by settings') == 4


def test_seeds(tmp_path):
    for seed, scores_of in enumerate([end_at(2.0, 20.0), end_at(3.0, 15.0), end_at(1.0, 45.0, lowest=9.0)]):
        make_run(tmp_path / 's{}'.format(seed), seed=seed, **scores_of)
    make_run(tmp_path / 's3', seed=3, rows=[], diverged_at=1)
    make_run(tmp_path / 'n0', method='none', **end_at(4.0, 8.0))
    make_run(tmp_path / 'n1', method='none', seed=1, **end_at(5.0, 10.0))
    (_, lines), = matrices(tmp_path)
    assert lines[1:] == [['none', '4.50 / 9.0 (2 runs)'], ['sn', '2.00 / 26.7 (4 runs: 1 c, 1 x)']]


def test_one_method_makes_no_matrix(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a')
    make_run(tmp_path / 'runs' / 'b', setting='A')
    assert 'Methods by settings' not in make_tables(capsys, tmp_path / 'runs', tmp_path)[0]


@pytest.mark.parametrize('other', [
    {'dataset': 'cifar10'}, {'model': 'sndcgan'}, {'name': 'mine'}, {'protocol_of_scores': 'paper'},
    {'iterations': 100, 'rows': [(100, 2.0)]}, {'profile': 'paper'}, {'overrides': ['model.width=8']},
    {'source': 'others'}, {'done': False}, {'rows': [(0, 1.0), (25, 2.0)]}])
def test_what_cannot_be_compared_stands_apart(tmp_path, other):
    make_run(tmp_path / 'a')
    make_run(tmp_path / 'b', method='none', **other)
    assert matrices(tmp_path) == []


def test_the_same_changes_stand_together_and_are_named(tmp_path):
    make_run(tmp_path / 'a', overrides=['model.width=8'])
    make_run(tmp_path / 'b', overrides=['model.width=8'], method='none')
    (caption, _), = matrices(tmp_path)
    assert caption.endswith("quick profile, not the paper's experiment; with model.width=8")


def test_settings_of_the_profile_s_length_stand_together(tmp_path):
    for method in ('none', 'sn'):
        for setting, iterations in (('A', 480), ('B', 2400)):
            make_run(tmp_path / (method + setting), method=method, setting=setting, iterations=None,
                     rows=[(iterations, 2.0)])
    (caption, lines), = matrices(tmp_path)
    assert '480 to 2400 iterations' in caption and lines[0][1:] == ['A', 'B']


def test_inception_scores_come_first_under_their_name(tmp_path):
    for method in ('none', 'sn'):
        make_run(tmp_path / ('quick-' + method), method=method)
        make_paper_run(tmp_path / ('other-' + method), name='cifar10', method=method)
        make_paper_run(tmp_path / ('paper-' + method), method=method, fingerprint='0123')
    first, second, third = matrices(tmp_path)
    assert first.lines[0][0] == 'Inception Score / FID: method' and 'NOT verified' in first.caption
    assert second.lines[0][0] == third.lines[0][0] == 'score / Frechet distance: method'
    assert 'quick profile' not in first.caption + second.caption and 'quick profile' in third.caption


def test_runs_whose_rows_are_gone_are_left_out(tmp_path):
    for method in ('none', 'sn'):
        run = make_run(tmp_path / method, method=method)
        text = (run / 'config.yml').read_text()
        (run / 'config.yml').write_text(text.replace('name: cnn', 'name: forgotten'))
    assert matrices(tmp_path) == []
