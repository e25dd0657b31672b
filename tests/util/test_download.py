"""util.download against a small server on 127.0.0.1 that misbehaves on demand."""
import hashlib
import http.server
import os
import socket
import ssl
import struct
import threading
import time
import urllib.error

import pytest

from util import download
from util.download import fetch
from util.files import UserError

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content``; ``server.faults`` holds what to do wrong, one entry a request."""

    def do_GET(self):
        asked, content = self.headers.get('Range'), self.server.content
        self.server.asked.append(asked)
        fault = self.server.faults.pop(0) if self.server.faults else None
        start = 0
        if fault == 'reset':
            return
        if fault == 'redirect':
            self.send_response(302)
            self.send_header('Location', self.server.elsewhere)
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if asked and fault != 'ignore range':
            start = int(asked[len('bytes='):-1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            first = start + 7 if fault == 'wrong range' else start
            self.send_header('Content-Range', f'bytes {first}-{len(content) - 1}/{len(content)}')
        else:
            self.send_response(200)
        body = content[start:]
        if fault != 'no length':
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if fault == 'stall':
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(0.6)
            return
        if fault == 'abort':
            self.wfile.write(body[:100_000])
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))  # a reset
            self.connection.close()
            return
        self.wfile.write(body[:100_000] if fault == 'break off' else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A running server; ``asked`` collects the Range headers that it was sent."""
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(download, '_PAUSE', 0.001)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.content, server.faults, server.asked = CONTENT, [], []
        server.url = f'http://127.0.0.1:{server.server_port}/file.tar.gz'
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path, content=CONTENT):
    fetch(server.url, str(path), len(content), hashlib.md5(content).hexdigest(), 'the file')


def leftovers(folder):
    return sorted(name for name in os.listdir(folder) if not name.endswith('.lock'))


def test_fetches_into_a_new_folder_and_only_once(server, tmp_path):
    path = tmp_path / 'new' / 'file'
    get(server, path)
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert leftovers(path.parent) == ['file']


@pytest.mark.parametrize('faults, asked', [
    (['break off', 'break off'], [None, 'bytes=100000-', 'bytes=200000-']),
    (['reset'], [None, None]),
    ([503, 'break off', 429], [None, None, 'bytes=100000-', 'bytes=100000-']),
    (['break off', 'ignore range'], [None, 'bytes=100000-']),
    (['break off', 'wrong range'], [None, 'bytes=100000-', None]),
    (['break off', 416], [None, 'bytes=100000-', None]),
    (['no length'], [None]),
])
def test_recovers(server, tmp_path, faults, asked):
    server.faults = list(faults)
    get(server, tmp_path / 'file')
    assert (tmp_path / 'file').read_bytes() == CONTENT
    assert server.asked == asked


def test_recovers_from_a_server_that_falls_silent(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, '_TIMEOUT', 0.2)
    server.faults = ['stall']
    get(server, tmp_path / 'file')
    assert server.asked == [None, 'bytes=1000-']
    assert (tmp_path / 'file').read_bytes() == CONTENT


def test_recovers_from_connections_that_are_reset(server, tmp_path):
    server.faults = ['abort'] * 3
    get(server, tmp_path / 'file')
    assert len(server.asked) == 4
    assert (tmp_path / 'file').read_bytes() == CONTENT


@pytest.mark.parametrize('have', [1, 12345, len(CONTENT) - 1])
def test_resumes_what_an_earlier_process_left(server, tmp_path, have):
    (tmp_path / 'file.part').write_bytes(CONTENT[:have])
    get(server, tmp_path / 'file')
    assert server.asked == [f'bytes={have}-']
    assert (tmp_path / 'file').read_bytes() == CONTENT
    assert leftovers(tmp_path) == ['file']


def test_a_complete_part_is_checked_without_a_request(server, tmp_path):
    (tmp_path / 'file.part').write_bytes(CONTENT)
    get(server, tmp_path / 'file')
    assert server.asked == []
    assert leftovers(tmp_path) == ['file']


def test_a_part_that_is_too_long_is_dropped(server, tmp_path):
    (tmp_path / 'file.part').write_bytes(b'x' * (len(CONTENT) + 1))
    get(server, tmp_path / 'file')
    assert server.asked == [None]
    assert (tmp_path / 'file').read_bytes() == CONTENT


def test_wrong_content_is_deleted_and_said(server, tmp_path):
    server.content = CONTENT[:-1] + b'?'
    with pytest.raises(UserError, match=MD5) as caught:
        get(server, tmp_path / 'file')
    assert '\n' not in str(caught.value)
    assert leftovers(tmp_path) == []


def test_a_sha256_or_none(server, tmp_path):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    fetch(server.url, str(tmp_path / 'file'), len(CONTENT), sha256, 'the file')
    assert (tmp_path / 'file').read_bytes() == CONTENT
    server.content = CONTENT[:-1] + b'?'
    with pytest.raises(UserError, match='has sha256 .* not ' + sha256):
        fetch(server.url, str(tmp_path / 'other'), len(CONTENT), sha256, 'the file')
    assert leftovers(tmp_path) == ['file']
    fetch(server.url, str(tmp_path / 'other'), len(CONTENT), None, 'the file')
    assert (tmp_path / 'other').read_bytes() == server.content


def test_the_size_is_checked_without_a_digest(server, tmp_path):
    with pytest.raises(UserError, match='bytes where 5 were expected'):
        fetch(server.url, str(tmp_path / 'file'), 5, None, 'the file')
    assert not (tmp_path / 'file').exists()


def test_a_damaged_part_does_not_survive(server, tmp_path):
    (tmp_path / 'file.part').write_bytes(b'?' * 1000)
    with pytest.raises(UserError, match='md5'):
        get(server, tmp_path / 'file')
    get(server, tmp_path / 'file')
    assert (tmp_path / 'file').read_bytes() == CONTENT


@pytest.mark.parametrize('part', [None, CONTENT[:1000]])
@pytest.mark.parametrize('length', [2000, len(CONTENT) + 5])
def test_another_size_is_refused_before_it_is_downloaded(server, tmp_path, part, length):
    if part:
        (tmp_path / 'file.part').write_bytes(part)
    server.content = b'x' * length
    with pytest.raises(UserError, match=f'{length} bytes where {len(CONTENT)}'):
        get(server, tmp_path / 'file')
    assert len(server.asked) == 1
    assert not (tmp_path / 'file').exists()


@pytest.mark.parametrize('status', [204, 403, 404])
def test_a_refusal_is_final(server, tmp_path, status):
    server.faults = [status]
    with pytest.raises(UserError, match=str(status)):
        get(server, tmp_path / 'file')
    assert len(server.asked) == 1


def test_a_wrong_certificate_is_final():
    error = urllib.error.URLError(ssl.SSLCertVerificationError('self-signed certificate'))
    assert isinstance(download._judge(error, 'https://example.org'), UserError)
    assert not isinstance(download._judge(urllib.error.URLError('no route'), 'https://example.org'), UserError)


def test_gives_up_after_some_fruitless_tries_and_keeps_what_came(server, tmp_path):
    server.faults = ['break off'] + ['reset'] * 100
    with pytest.raises(UserError, match='100,000 of 307,200 bytes are kept'):
        get(server, tmp_path / 'file')
    assert len(server.asked) == 1 + download._TRIES
    assert (tmp_path / 'file.part').read_bytes() == CONTENT[:100_000]
    server.faults = []
    get(server, tmp_path / 'file')
    assert (tmp_path / 'file').read_bytes() == CONTENT


def test_no_server(server, tmp_path):
    url = server.url.replace(str(server.server_port), '9')  # the discard port, where nothing listens
    with pytest.raises(UserError, match='in a row'):
        fetch(url, str(tmp_path / 'file'), 10, MD5, 'the file')


@pytest.mark.parametrize('url', [
    'http://example.org/x', 'ftp://example.org/x', 'file:///etc/passwd', 'http://127.0.0.1.example.org/'])
def test_only_https(url, tmp_path):
    with pytest.raises(UserError, match='https'):
        fetch(url, str(tmp_path / 'file'), 10, MD5, 'the file')
    assert os.listdir(tmp_path) == []


def test_a_redirection_is_followed_but_not_to_an_insecure_address(server, tmp_path):
    server.faults, server.elsewhere = ['redirect', 'redirect'], server.url + '?again'
    (tmp_path / 'file.part').write_bytes(CONTENT[:10])
    get(server, tmp_path / 'file')
    assert server.asked == ['bytes=10-'] * 3
    server.faults, server.elsewhere = ['redirect'], 'http://example.org/x'
    with pytest.raises(UserError, match='https'):
        get(server, tmp_path / 'other')


def test_an_unwritable_folder_is_one_line(server, tmp_path):
    (tmp_path / 'file').write_text('not a folder')
    with pytest.raises(UserError, match='cannot write') as caught:
        get(server, tmp_path / 'file' / 'below')
    assert '\n' not in str(caught.value)


def test_a_full_disk_is_one_line(server):
    if not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    with open('/dev/full', 'ab') as f, pytest.raises(OSError, match='No space'):
        download._fill(f, server.url, len(CONTENT), 'the file')
        f.flush()
    assert server.asked == [None]  # a disk that is full is not a connection that broke


def test_two_at_once_download_once(server, tmp_path, capsys):
    server.faults = ['break off']
    threads = [threading.Thread(target=get, args=(server, tmp_path / 'file')) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / 'file').read_bytes() == CONTENT
    assert server.asked == [None, 'bytes=100000-']


def test_a_second_process_says_that_it_waits(server, tmp_path, capsys):
    import filelock
    lock = filelock.FileLock(tmp_path / 'file.lock')
    lock.acquire()
    thread = threading.Thread(target=get, args=(server, tmp_path / 'file'))
    thread.start()
    deadline = time.time() + 10
    said = ''
    while 'waiting' not in said and time.time() < deadline:
        time.sleep(0.01)
        said += capsys.readouterr().err
    assert server.asked == []
    lock.release()
    thread.join()
    assert 'waiting' in said
    assert (tmp_path / 'file').read_bytes() == CONTENT


def test_shows_a_progress_bar_that_starts_where_it_resumes(server, tmp_path, capsys):
    (tmp_path / 'file.part').write_bytes(CONTENT[:len(CONTENT) // 2])
    get(server, tmp_path / 'file')
    error = capsys.readouterr().err
    assert 'the file:  50%' in error and 'the file: 100%' in error
