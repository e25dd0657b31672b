"""The figures of ``make n-dis`` and ``make critic``: their numbers, and which runs cannot feed them."""
import math
import re

import pytest

from tests.util.test_analysis import runs_in, skip
from tests.util.test_report import make_run
from util import probe
from util.analysis import critic, n_dis
from util.analysis.__main__ import main
from util.analysis.runs import drop_n_dis, find_families, group_runs
from util.analysis.table import NothingToDraw
from util.cli import run_command


def make_n_dis(folder, method, n, seed, score, **options):
    make_run(folder / '{}-{}-{}'.format(method, n, seed), method=method, seed=seed, setting='D',
             overrides=['setting.n_dis={}'.format(n)], rows=[(0, 1.), (50, score)], **options)


@pytest.fixture
def swept(tmp_path):
    for seed in (0, 1):
        for n in (1, 5, 20):
            make_n_dis(tmp_path, 'sn', n, seed, n + seed)
    make_n_dis(tmp_path, 'weight_norm', 1, 0, 3.)
    make_n_dis(tmp_path, 'weight_norm', 5, 0, 2., diverged_at=51)
    return tmp_path


def test_scores_by_n_dis_are_means_over_seeds(swept):
    (name, runs), = find_families(runs_in(swept)).items()
    assert name == 'digits-cnn-quick-D-50-n_dis'
    table, figure = n_dis.draw_n_dis(runs, skip)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row['method'], row['n_dis'], row['runs'], row['score']) for row in rows] == [
        ('weight_norm', 1, 1, 3.), ('weight_norm', 5, 1, 2.), ('sn', 1, 2, 1.5), ('sn', 5, 2, 5.5), ('sn', 20, 2, 20.5)]
    assert rows[0]['score_std'] is None and rows[2]['score_std'] == pytest.approx(math.sqrt(0.5))
    assert (rows[2]['score_min'], rows[2]['score_max'], rows[1]['diverged']) == (1., 2., 1)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ['1', '5', '20']
    assert [text.get_text() for text in axis.texts] == ['1 div.']


def test_runs_of_the_sweep_are_no_groups_of_their_own(swept):
    make_run(swept / 'other', overrides=['setting.n_dis=3'])  # alone, it is a run like others
    runs = runs_in(swept)
    rest = drop_n_dis(runs, find_families(runs))
    assert sorted(run.config.setting.n_dis for run in rest) == [3, 5, 5, 5]
    assert set(group_runs(rest)) == {'digits-cnn-quick-50', 'digits-cnn-quick-50-setting.n_dis=3'}


def test_one_n_dis_is_no_sweep(tmp_path, capsys):
    make_n_dis(tmp_path, 'sn', 5, 0, 2.)
    assert run_command(main, [str(tmp_path), '--out', str(tmp_path / 'out'), '--only', 'n_dis']) == 0
    output = capsys.readouterr()
    assert output.out == '' and output.err == 'n_dis: not drawn, it {}\n'.format(n_dis.WANTS)
    assert '"make n-dis"' in n_dis.WANTS


def test_runs_of_a_sweep_that_have_not_finished(tmp_path):
    for n in (1, 5):
        make_n_dis(tmp_path, 'sn', n, 0, 2., done=False)
    skipped = []
    with pytest.raises(NothingToDraw, match='make n-dis'):
        n_dis.draw_n_dis(runs_in(tmp_path), lambda run, why: skipped.append(why))
    assert skipped == ['it has not finished'] * 2


def make_validated(folder, method, *losses, **options):
    """A run whose discriminator.csv has these losses, (iteration, training, validation) each."""
    path = make_run(folder / method, method=method, **{'overrides': ['dataset.split=train'], **options})
    probe.write_rows(str(path / probe.FILE), [
        {'iteration': iteration, 'quantity': quantity, 'layer': layer, 'value': value}
        for iteration, *values in losses for quantity, layer, value in (
            (probe.SIGMA, 'conv1', 1.), *zip([probe.LOSS] * 2, ('training', 'validation'), values, strict=True))])
    return path


def test_losses_on_both_kinds_of_data_with_the_score_beside(tmp_path):
    make_validated(tmp_path, 'sn', (25, 0.5, 0.625), (50, 0.25, 0.75))
    make_validated(tmp_path, 'wgan_gp', (25, -3., -2.), (50, -4., math.inf))
    table, figure = critic.draw_critic(runs_in(tmp_path), skip)
    found = {(row[0], row[3], row[5]): row[6] for row in table.rows if row[4] == probe.LOSS}
    assert found == {('sn', 25, 'training'): 0.5, ('sn', 25, 'validation'): 0.625, ('sn', 50, 'training'): 0.25,
                     ('sn', 50, 'validation'): 0.75, ('wgan_gp', 25, 'training'): -3.,
                     ('wgan_gp', 25, 'validation'): -2., ('wgan_gp', 50, 'training'): -4.}
    assert [row[3:] for row in table.rows if row[4] == 'score' and row[0] == 'sn'] == [
        (0, 'score', 'digits', 1.), (25, 'score', 'digits', 6.), (50, 'score', 'digits', 5.4321)]
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_ylabel() for axis in shown] == ['loss of D (wasserstein)', 'loss of D (log)', 'score']
    assert {line.get_linestyle() for line in shown[0].lines} == {'-', '--'}


@pytest.mark.parametrize('options, reason', [
    ({'overrides': []}, 'trained on split all of its data.*SET=dataset.split=train'),
    ({'dataset': 'folder', 'overrides': []}, 'no test split'),
    ({}, 'discriminator.csv has no losses')])
def test_runs_that_cannot_feed_it_are_told_apart(tmp_path, options, reason):
    make_validated(tmp_path, 'sn', **options)
    probe.write_rows(str(tmp_path / 'sn' / probe.FILE), [
        {'iteration': 1, 'quantity': probe.SIGMA, 'layer': 'conv1', 'value': 1.}])
    skipped = []
    with pytest.raises(NothingToDraw, match='make critic'):
        critic.draw_critic(runs_in(tmp_path), lambda run, why: skipped.append(why))
    assert len(skipped) == 1 and re.search(reason, skipped[0])
