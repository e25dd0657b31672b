import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from util.files import UserError
from util.scores import COLUMNS, ScoreTable

NAMES = st.text(st.characters(exclude_categories=('Cs', 'Cc')), max_size=8)
NUMBERS = st.floats(allow_nan=False)


def rows(iterations, scorers):
    return st.fixed_dictionaries({
        'iteration': iterations, 'scorer': scorers, 'weights': st.sampled_from(['0a', '1b']),
        'protocol': st.sampled_from(['paper', '50k']),
        'score_mean': NUMBERS, 'score_std': NUMBERS, 'frechet_distance': NUMBERS, 'kernel_distance': NUMBERS,
        'kernel_distance_std': NUMBERS, 'samples': st.integers(2), 'splits': st.integers(1),
        'distance_samples': st.integers(2), 'kernel_subsets': NAMES, 'reference': NAMES})


ANY = rows(st.integers(0, 5), st.sampled_from(['digits', 'inception', 'a,b', '"']))
on_disk = settings(deadline=None, max_examples=20)  # each change of a table waits for the disk


def row(iteration, scorer='digits', **changed):
    return {'iteration': iteration, 'scorer': scorer, 'weights': '0a1b', 'protocol': 'paper', 'score_mean': 1.5,
            'score_std': 0.1, 'frechet_distance': 1 / 3, 'kernel_distance': -1e-5, 'kernel_distance_std': 0.5,
            'samples': 20, 'splits': 1, 'distance_samples': 10, 'kernel_subsets': '5 x 7',
            'reference': '359 digits test', **changed}


def table(path, *content):
    result = ScoreTable(str(path))
    for r in content:
        result.put(r)
    return result


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """One file for all examples of hypothesis: each begins by taking it away."""
    return tmp_path_factory.mktemp('scores') / 'scores.csv'


def fresh(path):
    path.unlink(missing_ok=True)
    return ScoreTable(str(path))


@on_disk
@given(rows(st.integers(0), NAMES))
def test_what_is_read_is_what_was_put(path, row):
    fresh(path).put(row)
    again, = ScoreTable(str(path)).rows
    assert again == row and tuple(again) == COLUMNS
    assert [type(v) for v in again.values()] == [type(row[k]) for k in COLUMNS]


@on_disk
@given(st.lists(ANY, max_size=5), st.integers(-1, 6))
def test_the_last_of_each_key_counts_and_later_iterations_can_be_dropped(path, puts, iteration):
    scores, expected = fresh(path), {}
    for r in puts:
        scores.put(r)
        expected[r['scorer'], r['weights'], r['protocol'], r['iteration']] = r
    expected = [expected[key] for key in sorted(expected)]
    assert scores.rows == expected == ScoreTable(str(path)).rows
    scores.drop_after(iteration)
    expected = [r for r in expected if r['iteration'] <= iteration]
    assert scores.rows == expected == ScoreTable(str(path)).rows


@on_disk
@given(st.lists(ANY, min_size=1, max_size=4), st.data())
def test_order_of_putting_does_not_matter(path, puts, data):
    puts = list({(r['scorer'], r['weights'], r['protocol'], r['iteration']): r for r in puts}.values())
    contents = []
    for some in (puts, data.draw(st.permutations(puts))):
        scores = fresh(path)
        for r in some:
            scores.put(r)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_the_file_to_the_byte(tmp_path):
    table(tmp_path / 'scores.csv', row(10), row(2, reference='a, "b"'))
    assert (tmp_path / 'scores.csv').read_bytes() == (
        b'iteration,scorer,weights,protocol,score_mean,score_std,frechet_distance,kernel_distance,kernel_distance_std,'
        b'samples,splits,distance_samples,kernel_subsets,reference\n'
        b'2,digits,0a1b,paper,1.5,0.1,0.3333333333333333,-1e-05,0.5,20,1,10,5 x 7,"a, ""b"""\n'
        b'10,digits,0a1b,paper,1.5,0.1,0.3333333333333333,-1e-05,0.5,20,1,10,5 x 7,359 digits test\n')


def test_looking_writes_nothing(tmp_path):
    scores = table(tmp_path / 'new' / 'scores.csv')
    scores.drop_after(3)
    assert scores.rows == [] and os.listdir(tmp_path) == []


def test_dropping_nothing_writes_nothing(tmp_path):
    scores = table(tmp_path / 'scores.csv', row(1), row(3))
    os.utime(tmp_path / 'scores.csv', (1, 1))
    scores.drop_after(3)
    assert os.stat(tmp_path / 'scores.csv').st_mtime == 1
    scores.drop_after(2)
    assert os.stat(tmp_path / 'scores.csv').st_mtime > 1 and scores.rows == [row(1)]


def test_dropping_all_leaves_a_table(tmp_path):
    table(tmp_path / 'scores.csv', row(1), row(3)).drop_after(0)
    assert (tmp_path / 'scores.csv').read_text() == ','.join(COLUMNS) + '\n'
    assert table(tmp_path / 'scores.csv').rows == []


def test_a_spreadsheets_line_ends_and_empty_lines_are_read(tmp_path):
    table(tmp_path / 'scores.csv', row(1), row(3))
    content = (tmp_path / 'scores.csv').read_bytes()
    (tmp_path / 'scores.csv').write_bytes(content.replace(b'\n', b'\r\n') + b'\r\n')
    assert table(tmp_path / 'scores.csv', row(2)).rows == [row(1), row(2), row(3)]
    assert b'\r' not in (tmp_path / 'scores.csv').read_bytes()


def test_a_file_that_cannot_be_written_keeps_its_content(tmp_path, monkeypatch):
    scores = table(tmp_path / 'scores.csv', row(1))
    content = (tmp_path / 'scores.csv').read_bytes()

    def refuse(*_):
        raise OSError(28, 'No space left on device')
    with monkeypatch.context() as context:
        context.setattr(os, 'fsync', refuse)
        with pytest.raises(UserError, match='cannot write .*scores.csv: No space left'):
            scores.put(row(2))
    assert (tmp_path / 'scores.csv').read_bytes() == content and os.listdir(tmp_path) == ['scores.csv']


HEADER = ','.join(COLUMNS) + '\n'
GOOD = '1,digits,0a1b,paper,1.5,0.1,30.5,0.01,0.001,20,1,10,5 x 7,r\n'


@pytest.mark.parametrize('content', [
    b'', b'\n', bytes(100), b'hello', HEADER.encode('utf-16'), (HEADER + GOOD).encode() + b'\x80\n',
    GOOD.encode(), HEADER.replace(',reference', '').encode(), HEADER.replace('\n', ',more\n').encode(),
    HEADER.replace('samples,splits', 'splits,samples').encode(), (HEADER + GOOD + '2,digits,1.5').encode(),
    (HEADER + GOOD.replace(',r\n', '\n')).encode(),
    (HEADER + '\0\n').encode(), (HEADER + GOOD).encode() + bytes(50), (HEADER + GOOD.replace('1.5', '1.5\0')).encode(),
    (HEADER + GOOD.replace('r\n', 'r,s\n')).encode(), (HEADER + GOOD.replace('1.5', 'high')).encode(),
    (HEADER + GOOD.replace('20', '2e1')).encode(), (HEADER + GOOD.replace('r\n', '"r\n')).encode(),
    (HEADER + GOOD.replace('digits', '"dig"its')).encode(),
    (HEADER + GOOD.replace('r\n', 200000 * 'r' + '\n')).encode(),
])
def test_damaged_file_is_one_line_and_stays(tmp_path, content):
    (tmp_path / 'scores.csv').write_bytes(content)
    with pytest.raises(UserError, match=r'scores\.csv is not a table of scores: .*delete it') as info:
        table(tmp_path / 'scores.csv')
    assert '\n' not in str(info.value)
    assert (tmp_path / 'scores.csv').read_bytes() == content


def test_what_is_left_of_a_truncated_file_is_refused_or_whole_rows(tmp_path):
    path, rows = tmp_path / 'scores.csv', [row(1), row(3, reference='1797, all')]
    table(path, *rows)
    content = path.read_bytes()
    whole, wrong = 0, []
    for n in range(len(content)):
        path.write_bytes(content[:n])
        try:
            left = ScoreTable(str(path)).rows
        except UserError:
            continue
        whole += 1
        if left != rows[:len(left)]:
            wrong.append(content[:n].splitlines()[-1])
    assert whole >= 2 and not wrong
