"""What a run writes for TensorBoard: the log and the grids, each step once, and nothing else changes."""
import importlib.util
import io
import json
import os
import shutil
import struct

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

import train
from tests.helpers import refused, signal_in, tree
from tests.util.test_trainer import TINY, ends_like
from util import tensorboard
from util.cli import run_command


def start(out, *arguments):
    return run_command(train.main, [*TINY, '--evaluation-interval', '3', '--tensorboard', '--out', str(out),
                                    *arguments])


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'written'
    assert start(out) == 0
    return out


def read_events(out):
    """The events of the one file that a run has: the format is length, its checksum, the event, its checksum."""
    path, = (out / tensorboard.FOLDER).iterdir()
    data, events = path.read_bytes(), []
    while data:
        length, = struct.unpack('<Q', data[:8])
        events.append(Event.FromString(data[12:12 + length]))
        data = data[16 + length:]
    return events


def scalars(out):
    return {(event.step, value.tag): value.simple_value for event in read_events(out)
            for value in event.summary.value if not value.HasField('image')}


def images(out):
    return {event.step: value.image for event in read_events(out)
            for value in event.summary.value if value.HasField('image')}


def is_complete(out):
    """Each entry of the log and each grid once, in order, and nothing else."""
    log = json.loads((out / 'log').read_text())
    found = scalars(out)
    assert sorted(found) == sorted((entry['iteration'], key) for entry in log for key in entry if key != 'iteration')
    for entry in log:
        for key in entry:
            if key != 'iteration':
                assert found[entry['iteration'], key] == pytest.approx(entry[key]), key
    assert sorted(images(out)) == [0, 3, 6]
    events = [event for event in read_events(out) if event.HasField('summary')]
    assert len(events) == len(log) + 3  # no step twice
    times = [event.wall_time for event in events if not event.summary.value[0].HasField('image')]
    assert times == sorted(times)
    return True


def test_the_log_and_the_grids(written):
    assert is_complete(written)
    assert {'gen/loss', 'dis/loss', 'sigma/conv1'} < {tag for _, tag in scalars(written)}
    for iteration, image in images(written).items():
        png = (written / 'images' / 'iter_{:06d}.png'.format(iteration)).read_bytes()
        assert image.encoded_image_string == png
        assert (image.width, image.height) == Image.open(io.BytesIO(png)).size


def test_it_changes_no_bit(written, tmp_path):
    assert run_command(train.main, [*TINY, '--evaluation-interval', '3', '--out', str(tmp_path / 'without')]) == 0
    assert not (tmp_path / 'without' / tensorboard.FOLDER).exists()
    assert ends_like(tmp_path / 'without', written)
    plain, also = (json.loads((out / 'log').read_text()) for out in (tmp_path / 'without', written))
    assert [{**entry, 'elapsed_time': 0} for entry in plain] == [{**entry, 'elapsed_time': 0} for entry in also]


def test_a_killed_run_goes_on_without_a_step_twice(written, tmp_path):
    out = shutil.copytree(written, tmp_path / 'run', ignore=shutil.ignore_patterns(
        'done', '*_iter_000006.*'))  # killed in iteration 5 or 6: its file has steps after the snapshot's
    before = os.listdir(out / tensorboard.FOLDER)[0]
    os.rename(out / tensorboard.FOLDER / before, out / tensorboard.FOLDER / (before + '.of-the-session-before'))
    assert start(out) == 0
    assert ends_like(out, written) and is_complete(out)
    assert any(event.session_log.status == SessionLog.START and event.step == 0 for event in read_events(out))


def test_stopped_and_gone_on(written, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_in(patch, 3)
        assert start(tmp_path / 'run') == 128 + 15
    assert sorted(images(tmp_path / 'run')) == [0, 3]
    assert start(tmp_path / 'run') == 0
    assert is_complete(tmp_path / 'run')


def test_a_run_that_was_begun_without_it_is_whole(written, tmp_path):
    out = shutil.copytree(written, tmp_path / 'run', ignore=shutil.ignore_patterns(
        'done', '*_iter_000006.*', tensorboard.FOLDER))
    assert start(out) == 0
    assert is_complete(out)


def test_a_run_that_begins_again_forgets_what_was(written, tmp_path):
    out = shutil.copytree(written, tmp_path / 'run', ignore=shutil.ignore_patterns('done', 'snapshot_*'))
    assert start(out) == 0
    assert is_complete(out)


def test_without_the_package_nothing_is_written(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *more: None if name == 'tensorboardX' else
                        find(name, *more))
    status = start(tmp_path / 'run')
    refused(capsys, status, '--tensorboard needs the package tensorboardX', "'.[tensorboard]'", 'TENSORBOARD=1')
    assert tree(tmp_path) == {}


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'run').mkdir()
    assert run_command(train.main, [*TINY, '--iterations', '2', '--out', str(tmp_path / 'run')]) == 0
    (tmp_path / 'run' / 'done').unlink()
    (tmp_path / 'run' / 'snapshot_iter_000002.npz').unlink()
    (tmp_path / 'run' / tensorboard.FOLDER).write_text('a file')
    status = run_command(train.main, [*TINY, '--iterations', '2', '--tensorboard', '--out', str(tmp_path / 'run')])
    assert status == 2 and 'cannot write' in capsys.readouterr().err.splitlines()[-1]
