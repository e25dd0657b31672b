import os
import subprocess
import sys

import pytest

from util import rundir
from util.config import resolve
from util.files import UserError
from util.rundir import Lock, RunDirectory


def test_default_path():
    path = rundir.default_path(resolve(profile='quick', setting='B', seed=4))
    assert path.endswith(os.path.join('results', 'runs', 'digits-cnn-sn-B-s4'))


def test_names(tmp_path):
    directory = RunDirectory(tmp_path)
    assert os.path.basename(directory.generator(1000)) == 'gen_iter_001000.npz'
    assert os.path.basename(directory.snapshot(25)) == 'snapshot_iter_000025.npz'
    assert directory.image(0).endswith(os.path.join('images', 'iter_000000.png'))


def test_iterations(tmp_path):
    for name in ('gen_iter_000010.npz', 'gen_iter_000002.npz', 'gen_iter_1000000.npz', 'snapshot_iter_000003.npz',
                 'gen_iter_000004.npz.tmp', 'xgen_iter_000005.npz', 'gen_iter_abc.npz'):
        (tmp_path / name).write_text('')
    directory = RunDirectory(tmp_path)
    assert directory.iterations('gen') == [2, 10, 1000000] and directory.iterations('snapshot') == [3]
    assert RunDirectory(tmp_path / 'missing').iterations('gen') == []


def test_check_config(tmp_path):
    directory = RunDirectory(tmp_path)
    config = resolve(profile='quick')
    directory.check_config(config)
    config.save(directory.config)
    directory.check_config(resolve(profile='quick'))
    with pytest.raises(UserError, match=r'setting\.n_dis: 1 there, 2 here'):
        directory.check_config(resolve(profile='quick', overrides=['setting.n_dis=2']))


def test_load_config_of_no_run(tmp_path):
    with pytest.raises(UserError, match='is not a directory'):
        RunDirectory(tmp_path / 'x').load_config()
    with pytest.raises(UserError, match='config.yml'):
        RunDirectory(tmp_path).load_config()


def test_lock_keeps_a_second_process_out(tmp_path):
    directory = RunDirectory(tmp_path / 'run')
    code = ('import sys; sys.path.insert(0, {!r}); from util.rundir import *\n'
            'try: Lock(RunDirectory({!r})).__enter__()\n'
            'except UserError as e: print(e)').format(os.getcwd(), directory.path)
    with Lock(directory):
        output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert 'another process is working on this run' in output
    with Lock(directory):
        pass  # free again


def test_lock_removes_what_it_made_unless_used(tmp_path):
    directory = RunDirectory(tmp_path / 'a' / 'b')
    with pytest.raises(UserError), Lock(directory):
        raise UserError('no data')
    assert os.listdir(tmp_path) == []
    with Lock(directory), open(directory.config, 'w'):
        pass
    assert os.path.exists(directory.config)


def test_lock_of_an_impossible_place(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file/run: cannot write there'), Lock(RunDirectory(tmp_path / 'file' / 'run')):
        pass


def test_lock_sweeps_what_a_killed_process_left_and_nothing_else(tmp_path):
    for name in ('.gen_iter_000002.npz.abc.tmp', 'images/.iter_000002.png.abc.tmp', 'deeper/.x.tmp', 'x.tmp'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('')
    with Lock(RunDirectory(tmp_path)):
        pass
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if p.is_file())
    assert left == ['.lock', 'deeper/.x.tmp', 'x.tmp']


def test_a_directory_of_other_things_is_refused(tmp_path):
    (tmp_path / '.lock').write_text('')
    RunDirectory(tmp_path).check_config(resolve())
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(UserError, match='not the directory of a run, and not empty .it has thesis.tex'):
        RunDirectory(tmp_path).check_config(resolve())
