"""``environment.json`` of a run, and what it says of device, code and time."""
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from util import environment
from util.dataset import Pictures
from util.device import get_device
from util.environment import check_data, read_environment, write_environment
from util.files import UserError
from util.rundir import RunDirectory

PICTURES = Pictures([1, 2, 3], None, 'digits', 'three digits', 'abc123')
OTHERS = Pictures([1, 2], None, 'digits', 'two digits', 'other')


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path)


def damage(directory, content):
    pathlib.Path(directory.environment).write_bytes(content)


def write(directory, start=0, pictures=PICTURES):
    """Write the file, and return what was said."""
    lines = []
    write_environment(directory, get_device('cpu'), pictures, start, lines.append)
    return lines


DAMAGED = [
    b'', b'{', b'[]', b'null', b'3', b'"text"', b'{}', b'\xff\xfe', bytes(3), b'{"data": {"fingerprint": "abc123"}}',
    b'{"sessions": [{}]}', b'{"data": {}, "sessions": [{}]}', b'{"data": {"fingerprint": "abc123"}, "sessions": []}',
    b'{"data": "abc123", "sessions": [{}]}', b'{"data": {"fingerprint": "abc123"}, "sessions": {"0": {}}}',
    b'{"data": {"fingerprint": "abc123"}, "sessions": "text"}', b'{"data": {"fingerprint": "abc123"}, "sessions": [1]}',
]


def test_what_is_written(directory, monkeypatch):
    monkeypatch.setattr('sys.argv', ['train.py', '--seed', '3'])
    assert write(directory) == []
    content = read_environment(directory)
    assert content == json.loads(pathlib.Path(directory.environment).read_text(encoding='utf-8'))
    assert content['data'] == {'source': 'three digits', 'fingerprint': 'abc123', 'pictures': 3}
    session, = content['sessions']
    assert session['from_iteration'] == 0 and session['command'] == ['train.py', '--seed', '3']
    assert session['device'].startswith('CPU, ') and session['commit'] == environment.commit()
    assert session['versions']['chainer'] == '7.8.1' and set(session['versions']) >= {'python', 'numpy', 'cupy', 'blas'}
    assert datetime.datetime.fromisoformat(session['started']).tzinfo is not None
    assert os.listdir(directory.path) == ['environment.json']


@pytest.mark.parametrize('captured', [None, False, True])
def test_what_is_captured(directory, captured):
    lines = []
    write_environment(directory, get_device('cpu'), PICTURES, 0, lines.append, captured=captured)
    assert read_environment(directory)['sessions'][0]['captured'] is captured
    write_environment(directory, get_device('cpu'), PICTURES, 2, lines.append, captured=not captured)
    assert len(lines) == 1 and 'with other captured: ' in lines[0]


def test_sessions_are_kept_until_a_run_starts_again(directory):
    seen = []
    for start in (0, 4, 6, 0, 2):
        assert write(directory, start) == []
        seen.append([s['from_iteration'] for s in read_environment(directory)['sessions']])
    assert seen == [[0], [0, 4], [0, 4, 6], [0], [0, 2]]


def test_a_run_that_came_without_the_file_gets_one(directory):
    assert read_environment(directory) == {}
    write(directory, 4)
    assert [s['from_iteration'] for s in read_environment(directory)['sessions']] == [4]


@pytest.mark.parametrize('content', DAMAGED)
def test_damaged_file_is_one_line_and_stays(directory, content):
    damage(directory, content)
    for call in (lambda: read_environment(directory), lambda: check_data(directory, PICTURES),
                 lambda: write(directory, 4)):
        with pytest.raises(UserError, match=r'environment\.json is damaged: ') as info:
            call()
        assert '\n' not in str(info.value)
    assert pathlib.Path(directory.environment).read_bytes() == content


def test_other_pictures_are_refused(directory):
    check_data(directory, OTHERS)  # nothing is known yet
    write(directory)
    check_data(directory, PICTURES)
    with pytest.raises(UserError, match='--data-dir: .*fingerprint other, was abc123'):
        check_data(directory, OTHERS)


@pytest.mark.parametrize('name, module, other', [
    ('device', environment, {'device_name': lambda device: 'CPU, 99 cores (abacus)'}),
    ('commit', environment, {'commit': lambda: '0123456789ab'}),
    ('versions', environment.compat, {'versions': lambda: {'python': '2.7'}}),
])
def test_what_can_change_the_last_bits_is_said(directory, monkeypatch, name, module, other):
    write(directory)
    with monkeypatch.context() as context:
        for key, value in other.items():
            context.setattr(module, key, value)
        line, = write(directory, 4)
    assert line.startswith('From iteration 4 on with other {}: '.format(name)) and directory.environment in line
    line, = write(directory, 6)  # and back again
    assert line.startswith('From iteration 6 on with other {}: '.format(name))
    assert write(directory, 8) == []
    assert read_environment(directory)['sessions'][1][name] == next(iter(other.values()))(*[None] * (name == 'device'))


def test_device_name():
    cores, machine = re.fullmatch(r'CPU, (\d+) cores \((.+)\)', environment.device_name(get_device('cpu'))).groups()
    assert 1 <= int(cores) <= os.cpu_count() and machine == os.uname().machine


def test_device_name_where_the_system_has_no_affinity(monkeypatch):
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 7)
    assert environment.device_name(get_device('cpu')).startswith('CPU, 7 cores (')


def test_now():
    now = datetime.datetime.fromisoformat(environment.now())
    assert now.utcoffset() == datetime.timedelta(0) and now.microsecond == 0
    assert abs(datetime.datetime.now(datetime.timezone.utc) - now) < datetime.timedelta(seconds=60)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder that stands for that of the project, in no git checkout."""
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path))
    monkeypatch.delenv('GIT_DIR', raising=False)
    (tmp_path / 'code' / 'util').mkdir(parents=True)
    monkeypatch.setattr(environment, '__file__', str(tmp_path / 'code' / 'util' / 'environment.py'))
    return tmp_path / 'code'


def git(folder, *arguments):
    command = ['git', '-c', 'user.name=Test', '-c', 'user.email=test@example.org', '-c', 'commit.gpgsign=false']
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_outside_git(code):
    assert environment.commit() is None


def test_commit_without_the_program_git(code, monkeypatch):
    monkeypatch.setenv('PATH', str(code))
    assert environment.commit() is None


def test_commit_when_git_does_not_answer(monkeypatch):
    def hang(command, **kwargs):
        assert kwargs['timeout'] <= 60
        raise subprocess.TimeoutExpired(command, kwargs['timeout'])
    monkeypatch.setattr(subprocess, 'run', hang)
    assert environment.commit() is None


@pytest.mark.skipif(shutil.which('git') is None, reason='git is not installed')
def test_commit(code):
    git(code, 'init', '--quiet')
    assert environment.commit() is None  # no commit yet
    (code / 'train.py').write_text('1')
    git(code, 'add', 'train.py')
    git(code, 'commit', '--quiet', '--message', 'first')
    head = git(code, 'rev-parse', 'HEAD')
    assert environment.commit() == head[:12]
    git(code, 'tag', '--annotate', 'v1', '--message', 'a tag does not hide it')
    assert environment.commit() == head[:12]
    (code / 'results').write_text('not of the code')
    assert environment.commit() == head[:12]
    (code / 'train.py').write_text('2')
    assert environment.commit() == head[:12] + '+'
