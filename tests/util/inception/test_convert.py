"""util.inception.convert and its command line: all kinds of files give the same weights, and wrong ones give none."""
import hashlib
import http.server
import os
import re
import threading

from util import compat  # noqa: F401

# isort: split
import chainer
import numpy as np
import pytest

from tests import helpers
from tests import inception_files as files
from tests.helpers import tree
from tests.inception_weights import random_weights
from util import download
from util.cli import run_command
from util.files import UserError
from util.inception import __main__ as command
from util.inception import convert, weights


def sha256(path):
    return download.file_digest(path, 'sha256')


def release(monkeypatch, tgz=None, pb=None, pth=None):
    """Let files at hand be the released ones."""
    if tgz:
        source = convert.SOURCES['tensorflow']
        monkeypatch.setitem(convert.SOURCES, 'tensorflow', convert.Source(source.url, os.path.getsize(tgz), None))
    if pb:
        monkeypatch.setattr(convert, 'GRAPH_SIZE', os.path.getsize(pb))
        monkeypatch.setattr(convert, 'GRAPH_SHA256', sha256(pb))
    if pth:
        source = convert.Source(convert.SOURCES['pytorch'].url, os.path.getsize(pth), sha256(pth))
        monkeypatch.setitem(convert.SOURCES, 'pytorch', source)


def equal(path, expected):
    found, _ = weights.read(str(path))
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def source_of(path):
    with np.load(path) as content:
        return content['meta/source'].item()


def refused(match, path, out, **how):
    """Conversion fails with one line that names the file, and leaves nothing."""
    before = tree(out.parent)
    with pytest.raises(UserError, match=match) as caught:
        convert.convert(str(path), str(out), **how)
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)
    assert tree(out.parent) == before
    out.write_bytes(b'old')
    with pytest.raises(UserError):
        convert.convert(str(path), str(out), **how)
    assert tree(out.parent) == {**before, out.name: b'old'}
    out.unlink()


# --------------------------------------------------------------------------------------------------- the whole network


@pytest.fixture(scope='module')
def whole():
    return random_weights()


@pytest.mark.parametrize('kind', files.KINDS)
def test_each_kind_gives_the_same_weights(tmp_path, whole, kind):
    source, out = files.make(tmp_path, kind, whole), tmp_path / 'a.npz'
    text = convert.convert(source, str(out), verify=False)
    os.unlink(source)
    equal(out, whole)
    assert source_of(out) == text
    out.unlink()  # 96 MB
    assert text.startswith('NOT the released ' + ('PyTorch' if 'pth' in kind else 'TensorFlow'))


# ------------------------------------------------------------------------------------------------------ a small network


@pytest.fixture
def arrays(monkeypatch):
    files.small_network(monkeypatch)
    return files.small_weights()


@pytest.fixture
def out(tmp_path):
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out' / 'a.npz'


@pytest.fixture
def made(arrays, tmp_path):
    """A file of each kind, none of them the released one."""
    return {kind: files.make(tmp_path, kind, arrays) for kind in files.KINDS}


@pytest.fixture
def released(made, monkeypatch):
    """The same, now the released ones, except that PyTorch's is of the old kind."""
    release(monkeypatch, made['inception.tgz'], made['graph.pb'], made['legacy.pth'])
    return made


def test_the_released_files_are_those_that_everybody_knows():
    assert [source.size for source in convert.SOURCES.values()] == [88931400, 95628359]
    assert convert.SOURCES['pytorch'].sha256.startswith('6726825d')
    assert '6726825d.pth' in convert.SOURCES['pytorch'].url
    assert convert.GRAPH_SIZE == 95673916
    assert all(len(digest) == 64 for digest in (convert.GRAPH_SHA256, convert.SOURCES['pytorch'].sha256))
    assert list(convert.SOURCES) == ['tensorflow', 'pytorch']


@pytest.mark.parametrize('kind', ['inception.tgz', 'graph.pb', 'legacy.pth'])
def test_released_files_are_verified(released, arrays, out, kind):
    text = convert.convert(released[kind], str(out))
    equal(out, arrays)
    graph = sha256(released['graph.pb'])
    assert text == ('PyTorch file, sha256 ' + sha256(released[kind]) if 'pth' in kind else
                    'TensorFlow graph, sha256 ' + graph)


def test_equal_bytes_twice(released, tmp_path):
    for name, kind in ('a', 'inception.tgz'), ('b', 'inception.tgz'), ('c', 'graph.pb'):
        convert.convert(released[kind], str(tmp_path / name))
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes() == (tmp_path / 'c').read_bytes()


def test_counters_and_the_training_branch_are_passed_over(arrays, out, tmp_path):
    tensors = files.torch_tensors(arrays, counters=False)
    tensors['AuxLogits.conv0.conv.weight'] = np.zeros((1, 2, 1, 1), np.float32)
    (tmp_path / 'a').write_bytes(files.torch_bytes(tensors, False))
    convert.convert(str(tmp_path / 'a'), str(out), verify=False)
    equal(out, arrays)


@pytest.mark.parametrize('kind', files.KINDS)
def test_a_wrong_size(released, out, kind):
    with open(released[kind], 'ab') as f:
        f.write(b'\0')
    refused('bytes where .* were expected .*--no-verify', released[kind], out)


@pytest.mark.parametrize('kind', ['inception.tgz', 'graph.pb', 'legacy.pth'])
def test_a_wrong_hash(released, arrays, out, tmp_path, kind):
    arrays['conv/W'][0, 0, 0, 0] += 1
    path = files.make(tmp_path, kind, arrays)
    refused('sha256 [0-9a-f]{64} where [0-9a-f]{64} was expected .*--no-verify', path, out)
    assert 'NOT the released' in convert.convert(path, str(out), verify=False)
    equal(out, arrays)
    assert not weights.read(str(out))[1].released


@pytest.mark.parametrize('verify', [True, False])
@pytest.mark.parametrize('kind', ['inception.tgz', 'graph.pb', 'legacy.pth'])
def test_released_files_make_released_weights(released, out, kind, verify):
    convert.convert(released[kind], str(out), verify=verify)
    assert weights.read(str(out))[1].released


@pytest.mark.parametrize('kind', files.KINDS)
@pytest.mark.parametrize('part', [0, 1, 10, 0.2, 0.5, 0.8, 0.99])
def test_cut_short(released, out, kind, part):
    content = open(released[kind], 'rb').read()
    with open(released[kind], 'wb') as f:
        f.write(content[:part if isinstance(part, int) else int(part * len(content))])
    refused('bytes where', released[kind], out)
    refused('damaged|missing|a node of that name', released[kind], out, verify=False)


@pytest.mark.parametrize('kind', files.KINDS)
@pytest.mark.parametrize('name, change, match', [
    ('conv_3/beta', None, 'conv_3/batchnorm/beta|Conv2d_3b_1x1.bn.bias'),
    ('softmax/b', None, 'softmax/biases|fc.bias'),
    ('conv/W', lambda array: array[:, :, :2], r'conv/conv2d_params|conv/W is float32 of shape \(4, 3, 2, 3\)'),
    ('softmax/W', lambda array: array.T, r'softmax/weights|softmax/W is float32 of shape \(6, 7\)'),
    ('conv/mean', lambda array: array * np.float32('nan'), 'conv/mean holds numbers that are not finite'),
    ('conv/var', lambda array: -array, 'conv/var holds negative'),
])
def test_wrong_weights_are_refused_in_any_case(arrays, out, tmp_path, monkeypatch, kind, name, change, match):
    if change is None:
        nodes, tensors = files.graph_nodes(arrays), files.torch_tensors(arrays)
        gone = [key for key in (*nodes, *tensors) if key in match.split('|')]
        assert len(gone) == 2
        monkeypatch.setattr(files, 'graph_nodes', lambda _: {k: v for k, v in nodes.items() if k not in gone})
        monkeypatch.setattr(files, 'torch_tensors', lambda _: {k: v for k, v in tensors.items() if k not in gone})
    else:
        arrays[name] = np.ascontiguousarray(change(arrays[name]))
    path = files.make(tmp_path, kind, arrays)
    refused(match, path, out, verify=False)
    if kind != 'zip.pth':
        release(monkeypatch, *(path if kind == k else None for k in ('inception.tgz', 'graph.pb', 'legacy.pth')))
        if kind != 'inception.tgz':
            refused(match, path, out)


def test_an_unknown_tensor(arrays, out, tmp_path):
    tensors = {**files.torch_tensors(arrays), 'odd\nname': np.zeros(1, np.float32)}
    (tmp_path / 'a').write_bytes(files.torch_bytes(tensors, True))
    refused(r"'odd\\nname' is no array", tmp_path / 'a', out, verify=False)


def test_files_that_cannot_be_read(arrays, out, tmp_path):
    refused('cannot read', tmp_path / 'none', out)
    refused('cannot read', tmp_path / 'out', out.parent.parent / 'b.npz')


# -------------------------------------------------------------------------------------------------------- the downloads


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
        equal(out, arrays)
        out.unlink()
    assert server.asked == ['/tensorflow']
    assert cached(tmp_path) == ['tensorflow']
    assert 'no weights' not in capsys.readouterr().err


@pytest.mark.parametrize('name', ['tensorflow', 'pytorch'])
def test_fetches_the_source_that_is_named(server, arrays, out, tmp_path, name):
    convert.fetch(str(out), name)
    equal(out, arrays)
    assert server.asked == ['/' + name]


def test_goes_on_to_the_second_source(server, arrays, out, tmp_path, capsys):
    del server.files['/tensorflow']
    assert convert.fetch(str(out)).startswith('PyTorch file')
    equal(out, arrays)
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
    equal(out, arrays)
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
    equal(out, arrays)


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
    assert output.out == f'{out}: {size} bytes, made from: TensorFlow graph, sha256 {sha256(released["graph.pb"])}\n'
    assert output.err == ''
    equal(out, arrays)


def test_no_verify_on_the_command_line(made, arrays, out, capsys):
    helpers.refused(capsys, run('convert', made['legacy.pth'], '--out', out), made['legacy.pth'], '--no-verify',
                    silent=True)
    assert run('convert', made['legacy.pth'], '--out', out, '--no-verify') == 0
    assert 'made from: NOT the released PyTorch file' in capsys.readouterr().out
    equal(out, arrays)


def test_fetch_on_the_command_line(server, arrays, out, capsys):
    assert run('fetch', '--from', 'pytorch', '--out', out) == 0
    assert capsys.readouterr().out.count('\n') == 1
    equal(out, arrays)
    before = tree(out.parent)
    assert run('fetch', '--out', out) == 0
    assert capsys.readouterr().out == f'{out} is there already: nothing to do\n'
    assert server.asked == ['/pytorch']
    assert tree(out.parent) == before
    out.write_bytes(b'damaged')
    assert run('fetch', '--out', out) == 0
    assert 'it is made anew' in capsys.readouterr().err
    equal(out, arrays)


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
