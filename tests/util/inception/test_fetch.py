"""Fetching the Inception weights from a server, and the command line of util.inception."""
import hashlib
import http.server
import os
import re
import threading

import chainer
import pytest

from tests import helpers
from tests import inception_files as files
from tests.helpers import tree
from util import download
from util.cli import run_command
from util.files import UserError
from util.inception import __main__ as command
from util.inception import convert, weights


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files`` (bytes by path); other paths are not found."""

    def do_GET(self):
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(released, tmp_path, monkeypatch):
    """A server of the released files, from which they are now fetched, and an empty download cache."""
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(download, '_PAUSE', 0.001)
    before = chainer.dataset.get_dataset_root()
    chainer.dataset.set_dataset_root(str(tmp_path / 'root'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.asked, server.files = [], {}
        for name, kind in ('tensorflow', 'inception.tgz'), ('pytorch', 'legacy.pth'):
            with open(released[kind], 'rb') as f:
                server.files['/' + name] = f.read()
            source, url = convert.SOURCES[name], f'http://127.0.0.1:{server.server_port}/{name}'
            monkeypatch.setitem(convert.SOURCES, name, convert.Source(url, source.size, source.sha256))
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    chainer.dataset.set_dataset_root(before)


def cached(tmp_path):
    """The downloads that are kept, by the name of their source."""
    names = {hashlib.md5(source.url.encode()).hexdigest(): name for name, source in convert.SOURCES.items()}
    found = os.listdir(tmp_path / 'root' / '_dl_cache')
    return sorted(names[name] for name in found if not name.endswith('.lock'))


def test_fetches_the_first_source_once(server, arrays, out, tmp_path, capsys):
    for _ in range(2):
        assert convert.fetch(str(out)).startswith('TensorFlow graph, sha256')
        files.equal(out, arrays)
        out.unlink()
    assert server.asked == ['/tensorflow']
    assert cached(tmp_path) == ['tensorflow']
    assert 'no weights' not in capsys.readouterr().err


@pytest.mark.parametrize('name', ['tensorflow', 'pytorch'])
def test_fetches_the_source_that_is_named(server, arrays, out, tmp_path, name):
    convert.fetch(str(out), name)
    files.equal(out, arrays)
    assert server.asked == ['/' + name]


def test_goes_on_to_the_second_source(server, arrays, out, tmp_path, capsys):
    del server.files['/tensorflow']
    assert convert.fetch(str(out)).startswith('PyTorch file')
    files.equal(out, arrays)
    assert server.asked == ['/tensorflow', '/pytorch']
    [line] = [line for line in capsys.readouterr().err.splitlines() if 'no weights' in line]
    assert line.startswith('no weights from tensorflow: ') and '404' in line


def test_all_sources_fail(server, out, capsys):
    server.files.clear()
    before = tree(out.parent)
    with pytest.raises(UserError, match='could not be fetched from tensorflow or pytorch') as e:
        convert.fetch(str(out))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('no weights from ')]
    assert [line.split()[3] for line in lines] == ['tensorflow:', 'pytorch:'] and all('404' in line for line in lines)
    assert '\n' not in str(e.value) and 'python -m util.inception convert FILE' in str(e.value)
    assert tree(out.parent) == before
    with pytest.raises(UserError, match='could not be fetched from pytorch') as e:
        convert.fetch(str(out), 'pytorch')
    assert 'tensorflow' not in str(e.value) and 'tensorflow' not in capsys.readouterr().err


def test_a_download_with_wrong_content_is_deleted(server, arrays, out, tmp_path, capsys):
    good = server.files['/tensorflow']
    server.files['/tensorflow'] = good[:-1000] + bytes(1000)  # of the right size, and the archive's hash is unknown
    with pytest.raises(UserError):
        convert.fetch(str(out), 'tensorflow')
    assert 'the download is deleted' in capsys.readouterr().err
    assert cached(tmp_path) == []
    assert not out.exists()
    server.files['/tensorflow'] = good
    convert.fetch(str(out), 'tensorflow')
    files.equal(out, arrays)
    assert server.asked == ['/tensorflow'] * 2


@pytest.mark.parametrize('name', ['tensorflow', 'pytorch'])
def test_a_wrong_file_in_the_cache_is_deleted(server, arrays, out, tmp_path, name, capsys):
    convert.fetch(str(out), name)
    [path] = [p for p in (tmp_path / 'root' / '_dl_cache').iterdir() if p.suffix != '.lock']
    path.write_bytes(b'wrong')
    with pytest.raises(UserError):
        convert.fetch(str(out), name)
    assert re.search('5 bytes .*: the download is deleted', capsys.readouterr().err)
    assert cached(tmp_path) == []
    convert.fetch(str(out), name)
    files.equal(out, arrays)


def test_an_unwritable_output_keeps_the_download(server, tmp_path):
    (tmp_path / 'file').write_text('no folder')
    with pytest.raises(UserError, match='cannot write'):
        convert.fetch(str(tmp_path / 'file' / 'a.npz'))
    assert cached(tmp_path) == ['tensorflow']
    assert server.asked == ['/tensorflow']


def test_a_cache_that_cannot_be_made(server, out, tmp_path, capsys):
    (tmp_path / 'root').write_text('no folder')
    with pytest.raises(UserError, match='could not be fetched'):
        convert.fetch(str(out))
    assert 'CHAINER_DATASET_ROOT' in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- the command line


def run(*argv):
    return run_command(command.main, list(map(str, argv)))


def test_convert_on_the_command_line(released, arrays, out, capsys):
    assert run('convert', released['graph.pb'], '--out', out) == 0
    output = capsys.readouterr()
    size = f'{out.stat().st_size:,}'
    digest = files.sha256(released['graph.pb'])
    assert output.out == f'{out}: {size} bytes, made from: TensorFlow graph, sha256 {digest}\n'
    assert output.err == ''
    files.equal(out, arrays)


def test_no_verify_on_the_command_line(made, arrays, out, capsys):
    helpers.refused(capsys, run('convert', made['legacy.pth'], '--out', out), made['legacy.pth'], '--no-verify',
                    silent=True)
    assert run('convert', made['legacy.pth'], '--out', out, '--no-verify') == 0
    assert 'made from: NOT the released PyTorch file' in capsys.readouterr().out
    files.equal(out, arrays)


def test_fetch_on_the_command_line(server, arrays, out, capsys):
    assert run('fetch', '--from', 'pytorch', '--out', out) == 0
    assert capsys.readouterr().out.count('\n') == 1
    files.equal(out, arrays)
    before = tree(out.parent)
    assert run('fetch', '--out', out) == 0
    assert capsys.readouterr().out == f'{out} is there already: nothing to do\n'
    assert server.asked == ['/pytorch']
    assert tree(out.parent) == before
    out.write_bytes(b'damaged')
    assert run('fetch', '--out', out) == 0
    assert 'it is made anew' in capsys.readouterr().err
    files.equal(out, arrays)


def test_fetch_replaces_weights_that_are_not_the_released_ones(server, arrays, out, capsys):
    weights.write(str(out), arrays, weights.Origin('some other file', False))
    assert run('fetch', '--out', out) == 0
    assert 'was made from: some other file; it is made anew' in capsys.readouterr().err
    assert weights.read(str(out))[1].released


def test_the_output_of_the_command_line_has_a_default():
    for argv in ['fetch'], ['convert', 'x']:
        assert command.parse(argv).out == weights.PATH


@pytest.mark.parametrize('argv, message', [
    ([], 'COMMAND'), (['get'], "'get'"), (['convert'], 'FILE'), (['fetch', '--from', 'here'], "'here'"),
    (['convert', '/no/such/file'], 'cannot read /no/such/file')])
def test_wrong_command_lines(capsys, argv, message):
    helpers.refused(capsys, run(*argv), message, silent=True)


def test_fetch_that_fails_on_the_command_line(server, out, capsys):
    server.files.clear()
    assert run('fetch', '--out', out) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and 'convert FILE' in lines[0]
    assert not out.exists()
