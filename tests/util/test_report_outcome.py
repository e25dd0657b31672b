"""How runs ended, by hand-made scores, and runs that diverged."""
import math

import pytest

from tests.util.test_report import make_paper_run, make_run, make_tables, section, sections
from util import scores
from util.report.outcome import describe_outcome


def outcome(distances, finished=True, diverged_at=None):
    table = [{'iteration': 10 * i, 'frechet_distance': float(x)} for i, x in enumerate(distances)]
    return describe_outcome(table, finished, diverged_at)


@pytest.mark.parametrize('distances, wanted', [
    ([100, 40, 20], 'finished'), ([100, 40, 50], 'finished'), ([100, 20, 40], 'finished'),
    ([100, 20, 40.1], 'collapsed'), ([100, 20, 10, 90], 'collapsed'), ([100, 50, 200], 'collapsed'),
    ([100, 90, 50.1], 'learned nothing'), ([100, 45, 60], 'learned nothing'), ([100, 100], 'learned nothing'),
    ([10, 25], 'learned nothing'), ([100, 60, 130], 'learned nothing'), ([100], 'finished'),
    ([math.nan, 90, 80], 'finished'), ([math.nan, 20, 80], 'collapsed'), ([100, 20, math.nan], 'finished'),
    ([100, math.nan, 60], 'learned nothing')])
def test_outcome(distances, wanted):
    assert outcome(distances)['outcome'] == wanted


def test_outcome_of_a_run_that_goes_on():
    assert [outcome(x, finished=False)['outcome'] for x in ([100, 20], [100, 20, 80], [100, 90])] == [
        'NOT FINISHED', 'NOT FINISHED, collapsed', 'NOT FINISHED, learned nothing']


def test_divergence_says_all():
    assert outcome([100, 20, 80], finished=False, diverged_at=23)['outcome'] == 'DIVERGED at 23'


def test_what_an_outcome_follows_from():
    assert outcome([100, 20, 80]) == {'outcome': 'collapsed', 'diverged_at': None, 'untrained_frechet_distance': 100,
                                      'lowest_frechet_distance': 20, 'lowest_at': 10}
    assert outcome([], finished=False, diverged_at=3) == {
        'outcome': 'DIVERGED at 3', 'diverged_at': 3, 'untrained_frechet_distance': None,
        'lowest_frechet_distance': None, 'lowest_at': None}


def test_a_run_without_a_score_of_the_untrained_generator(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a', rows=[(25, 2.0, 20.0), (50, 3.0, 30.0)])
    make_run(tmp_path / 'runs' / 'b', rows=[(25, 2.0, 20.0), (50, 1.0, 50.0)])
    rows = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Quick runs')
    assert [row['outcome'] for row in rows] == ['finished', 'collapsed']


def test_only_like_is_compared(tmp_path, capsys):
    """Scores of other weights or another protocol say nothing of these."""
    run = make_run(tmp_path / 'runs' / 'a', rows=[(0, 1.0, 100.0), (50, 5.0, 10.0)])
    table = scores.ScoreTable(str(run / 'scores.csv'))
    table.put({**table.rows[0], 'weights': 'f0e0d0c0', 'iteration': 50, 'frechet_distance': 99.0})
    table.put({**table.rows[0], 'protocol': '50k', 'iteration': 50, 'frechet_distance': 1.0})
    markdown, rows, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    assert {row['outcome'] for row in section(markdown, 'Quick runs')} == {'finished'}
    lowest = {(row['weights'], row['protocol']): (row['lowest_frechet_distance'], row['untrained_frechet_distance'])
              for row in rows if row['origin'] == 'run'}
    assert lowest == {('0a1b2c3d', 'quick'): ('10.0', '100.0'), ('f0e0d0c0', 'quick'): ('99.0', ''),
                      ('0a1b2c3d', '50k'): ('1.0', '')}


def test_the_definitions_stand_below_the_tables(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a')
    markdown = ' '.join(make_tables(capsys, tmp_path / 'runs', tmp_path)[0].split())
    below = markdown[markdown.index('## Quick runs'):]
    assert '`collapsed`: the last Frechet distance is more than 2 times the lowest of the run' in below
    assert "`learned nothing`: the last Frechet distance is more than 0.5 times the untrained generator's" in below


def test_a_run_that_diverged_with_scores(tmp_path, capsys):
    make_run(tmp_path / 'runs' / 'a', diverged_at=33, rows=[(0, 1.0), (25, 6.0)], iterations=100)
    markdown, rows, _ = make_tables(capsys, tmp_path / 'runs', tmp_path)
    row, = section(markdown, 'Quick runs')
    assert (row['outcome'], row['iterations'], row['score']) == ('DIVERGED at 33', '33 of 100', '6.00 (25)')
    row, = [row for row in rows if row['origin'] == 'run']
    assert (row['outcome'], row['diverged_at'], row['finished']) == ('DIVERGED at 33', '33', 'False')


@pytest.mark.parametrize('make, title', [(make_run, 'Quick runs'), (make_paper_run, 'Scores of other networks')])
def test_a_run_that_diverged_before_the_first_score(tmp_path, capsys, make, title):
    make(tmp_path / 'runs' / 'a', diverged_at=7, rows=[])
    run = make(tmp_path / 'runs' / 'b', diverged_at=0, rows=[], seed=1)
    (run / 'scores.csv').unlink(missing_ok=True)
    markdown, rows, err = make_tables(capsys, tmp_path / 'runs', tmp_path)
    assert [(row['run'], row['outcome'], row.get('score', ''), row.get('scorer', '')) for row in section(
        markdown, title)] == [('a', 'DIVERGED at 7', '', ''), ('b', 'DIVERGED at 0', '', '')]
    assert [title for title, table in sections(markdown).items() if any('run' in row for row in table)] == [
        name for name in sections(markdown) if name.startswith(title)]
    run, _ = [row for row in rows if row['origin'] == 'run']
    assert run['outcome'] == 'DIVERGED at 7' and run['other_score'] == run['inception_score'] == '' and err == ''


@pytest.mark.parametrize('text', ['{', '[]', '3', '{}', '{"iteration": "7"}', '{"iteration": -1}'])
def test_a_damaged_note_of_divergence(tmp_path, capsys, text):
    make_run(tmp_path / 'runs' / 'good')
    run = make_run(tmp_path / 'runs' / 'bad', diverged_at=7)
    (run / 'diverged').write_text(text)
    markdown, _, err = make_tables(capsys, tmp_path / 'runs', tmp_path)
    assert [row['run'] for row in section(markdown, 'Quick runs')] == ['good']
    assert err.count('\n') == 1 and 'bad/diverged: ' in err and 'iteration' in err


def test_a_run_that_finished_after_all(tmp_path, capsys):
    run = make_run(tmp_path / 'runs' / 'a', diverged_at=7)
    (run / 'done').write_text('{}')
    row, = section(make_tables(capsys, tmp_path / 'runs', tmp_path)[0], 'Quick runs')
    assert row['outcome'] == 'finished'
