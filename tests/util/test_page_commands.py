"""The command that makes a run again, and times in words."""
import json

import pytest

from tests.util.test_report import make_run
from util.page.commands import make_command
from util.page.gather import describe_seconds, read_records


@pytest.mark.parametrize('words, more, expected', [
    (['--method', 'sn', '--profile', 'auto'], {}, 'PROFILE=quick METHOD=sn ENGINE=stock'),
    (['--method=none', '--set', 'a.b=1', '--set', 'c.d=2', '-b', '8', '--evaluation_interval=3'], {'engine': 'numpy'},
     "PROFILE=quick METHOD=none ENGINE=numpy SET='a.b=1 c.d=2 profile.batchsize=8 profile.evaluation_interval=3'"),
    (['--data-dir', '/home/a/b', '-o/tmp/x', '--tensorboard', '--resume', 'x'], {'engine': 'onednn'},
     'PROFILE=quick ENGINE=onednn DATA_DIR=... OUT=...'),
    (['--engine', 'auto', '--tag', "it's $HOME"], {}, "PROFILE=quick ENGINE=auto TAG='it'\"'\"'s $$HOME'"),
])
def test_commands(tmp_path, words, more, expected):
    run = make_run(tmp_path / 'runs' / 'a')
    environment = json.loads((run / 'environment.json').read_text())
    environment['sessions'][0].update(command=['train.py', *words], **more)
    (run / 'environment.json').write_text(json.dumps(environment))
    assert command_of(tmp_path / 'runs') == 'make normalize ' + expected
    environment['sessions'][0]['threads'] = 1
    (run / 'environment.json').write_text(json.dumps(environment))
    assert command_of(tmp_path / 'runs') == 'OMP_NUM_THREADS=1 make normalize ' + expected


@pytest.mark.parametrize('command', [None, 3, [], ['train.py', '--unknown', '1'], ['train.py', '--set', 'a.b=[1, 2]'],
                                     ['train.py', '--method'], ['train.py', 5], ['train.py', 'x']])
def test_commands_that_cannot_be_told(tmp_path, command):
    run = make_run(tmp_path / 'runs' / 'a')
    environment = json.loads((run / 'environment.json').read_text())
    environment['sessions'][0]['command'] = command
    (run / 'environment.json').write_text(json.dumps(environment))
    assert command_of(tmp_path / 'runs') in ('', 'make normalize PROFILE=quick ENGINE=stock' * (command == []))


def command_of(folder):
    (record,), = read_records([str(folder)], print).values()
    return make_command(record)


@pytest.mark.parametrize('seconds, words', [
    (None, ''), (0.4, '0 s'), (59.4, '59 s'), (224, '3 min 44 s'), (3599.6, '1 h 0 min'), (691200, '192 h 0 min')])
def test_times_in_words(seconds, words):
    assert describe_seconds(seconds) == words
