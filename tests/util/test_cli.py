import os
import subprocess
import sys

import pytest

import train
from util import classifier, generate_inception_score
from util.cli import Parser, path, run_command
from util.files import UserError
from util.inception import __main__ as inception

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.parametrize('result, status', [(None, 0), (0, 0), (1, 1), (143, 143)])
def test_status_is_what_main_returns(capsys, result, status):
    seen = []
    assert run_command(lambda argv: seen.append(argv) or result, ['a', '--b']) == status
    assert seen == [['a', '--b']] and capsys.readouterr() == ('', '')


def test_without_arguments_main_looks_for_its_own():
    seen = []
    run_command(seen.append)
    assert seen == [None]


def fail(error):
    def main(argv):
        print('before')
        raise error
    return main


def test_user_error_is_one_line_and_status_2(capsys):
    assert run_command(fail(UserError('--rows must be {}, not "%d"'))) == 2
    assert capsys.readouterr() == ('before\n', 'error: --rows must be {}, not "%d"\n')


@pytest.mark.parametrize('error', [ValueError, OSError, SystemExit])
def test_other_errors_are_not_hidden(capsys, error):
    with pytest.raises(error):
        run_command(fail(error('x')))
    assert capsys.readouterr().err == ''


def test_ctrl_c_is_no_traceback(capsys):
    assert run_command(fail(KeyboardInterrupt())) == 130  # as a shell reports SIGINT
    assert capsys.readouterr() == ('before\n', 'interrupted\n')


def test_too_little_memory_is_one_line(capsys):
    assert run_command(fail(MemoryError('Unable to allocate\n 3 GiB'))) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: not enough memory: Unable to allocate 3 GiB') and error.count('\n') == 1


def parse(argv):
    parser = Parser(prog='command')
    parser.add_argument('run')
    parser.add_argument('--rows', type=int, choices=[1, 2])
    parser.parse_args(argv)


@pytest.mark.parametrize('argv, message', [
    ([], 'run'), (['x', '--rows', 'one'], '--rows'), (['x', '--rows', '3'], '--rows'), (['x', '--rows'], '--rows'),
    (['x', '--columns', '3'], '--columns'), (['x', 'y'], 'y')])
def test_argparse_errors_are_alike(capsys, argv, message):
    assert run_command(parse, argv) == 2
    output = capsys.readouterr()
    assert output.out == '' and output.err.count('\n') == 1
    assert output.err.startswith('error: ') and message in output.err and output.err.endswith(' (see --help)\n')


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as info:
        run_command(parse, ['--help'])
    assert info.value.code == 0 and capsys.readouterr().out.startswith('usage: command ')


def into_a_closed_pipe(code, *flags):
    """Run a ``main`` whose standard output has lost its reader, as with ``| head``."""
    program = 'import sys\nfrom util.cli import run_command\ndef main(argv):\n    {}\nsys.exit(run_command(main))'
    reader, writer = os.pipe()
    os.close(reader)
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONUNBUFFERED'}
    try:
        return subprocess.run([sys.executable, *flags, '-c', program.format(code)], cwd=ROOT, env=environment,
                              stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)


@pytest.mark.parametrize('code, flags', [
    ("print('x')", ['-u']),
    ("print(100000 * 'x')", []),
    ("print('x')", []),  # stays in the buffer until the end
])
def test_reader_has_gone(code, flags):
    process = into_a_closed_pipe(code, *flags)
    assert process.stderr == ''
    assert process.returncode == 141  # as a shell reports SIGPIPE


def test_errors_are_told_though_the_reader_of_the_output_has_gone():
    process = into_a_closed_pipe('raise __import__("util.files").files.UserError("no data")')
    assert (process.returncode, process.stderr) == (2, 'error: no data\n')


@pytest.mark.parametrize('parse, arguments, names', [
    (train.make_parser().parse_args, ['--out', '~/a', '--data-dir', '~/a', '--resume', '~/a'], 'out data_dir resume'),
    (classifier.parse, ['digits', '--out', '~/a', '--data-dir', '~/a'], 'out data_dir'),
    (generate_inception_score.parse, ['~/a', '--data-dir', '~/a'], 'run data_dir'),
    (inception.parse, ['convert', '~/a', '--out', '~/a'], 'file out')])
def test_home_in_paths(monkeypatch, parse, arguments, names):
    monkeypatch.setenv('HOME', '/at home')  # make hands OUT=~/a on as it stands
    assert path('~/a') == '/at home/a' and path('a~') == 'a~'
    args = parse(arguments)
    assert {getattr(args, name) for name in names.split()} == {'/at home/a'}
