"""Fetching one large file over a slow and unreliable line: resumed, checked, never half there under its own name."""
import hashlib
import http.client
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import chainer
import filelock
import tqdm

from util.files import UserError

_TRIES = 5  # in a row that brought nothing new
_PAUSE = 2.0  # seconds after the first of them, doubled after each
_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 16  # bytes; about a second at the slowest rate that was seen


class _BrokenOff(Exception):
    """This try failed; another may not."""


class _WithoutRange(_BrokenOff):
    """The server answers requests for a range wrongly."""


class _CheckedRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url, path, size, digest, label):
    """Download ``url`` to ``path``, going on where an earlier call was broken off, and check it.

    The bytes so far are kept in ``path + '.part'``, which takes its final name only once size and digest are right. A
    second process that wants the same file waits for the first. Shows a progress bar on the standard error.

    Args:
        url (str): An https address (http is taken for 127.0.0.1 only), also after redirections.
        path (str): Where the file shall be. Nothing is done if it is there. Its folder is made when it is missing.
        size (int): Its size in bytes.
        digest (str or None): Its MD5 (32) or SHA-256 (64 hexadecimal digits); ``None`` checks the size only.
        label (str): What it is, for the progress bar and for messages.

    Raises:
        UserError: The server cannot be reached, refuses, or offers another file; the digest differs (what came is
            deleted then); or the disk refuses to write.

    """
    _check_url(url)
    part = path + '.part'
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        with _lock(path + '.lock', label):
            if os.path.exists(path):
                return
            with open(part, 'ab') as f:  # appends: every write goes to the end
                if f.tell() > size:
                    f.seek(f.truncate(0))
                _fill(f, url, size, label)
                os.fsync(f.fileno())
            if digest is not None:
                _check_digest(part, digest, url, label)
            os.replace(part, path)
    except OSError as error:  # those of the network do not come this far
        raise UserError(f'cannot write {part}: {error.strerror or error}') from error


def _check_digest(part, digest, url, label):
    kind = {32: 'md5', 64: 'sha256'}[len(digest)]
    found = file_digest(part, kind)
    if found != digest:
        os.unlink(part)
        raise UserError(f'{label} from {url} has {kind} {found}, not {digest}: the download is deleted, try again')


def cache_path(url):
    """Where a download is kept: under the name that Chainer's own downloads have in its cache.

    Raises:
        UserError: The cache cannot be made.

    """
    try:
        folder = chainer.dataset.get_dataset_directory('_dl_cache')
    except OSError as error:
        raise UserError(f'cannot make the download cache {error.filename} (CHAINER_DATASET_ROOT moves it): '
                        f'{error.strerror}') from error
    return os.path.join(folder, hashlib.md5(url.encode(), usedforsecurity=False).hexdigest())


def file_digest(path, kind):
    """A digest (``'md5'`` or ``'sha256'``) of a file's content, in hexadecimal digits. Raises OSError."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, 'rb') as f:
        for block in iter(lambda: f.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def _lock(path, label):
    lock = filelock.FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f'waiting for another process that is downloading {label}', file=sys.stderr, flush=True)
        return lock.acquire()


def _check_url(url):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != 'https' and (parts.scheme, parts.hostname) != ('http', '127.0.0.1'):
        raise UserError(f'refused to download from {url}: only https addresses are trusted')


def _fill(f, url, size, label):
    """Append to ``f`` until it has ``size`` bytes. Gives up after several tries in a row that brought nothing."""
    failures, ranged, start = 0, True, f.tell()
    interval = 0.5 if sys.stderr.isatty() else 60.0  # seconds: a log file gets a line a minute
    with tqdm.tqdm(total=size, initial=start, unit='B', unit_scale=True, desc=label, mininterval=interval) as bar:
        while start < size:
            try:
                _one_try(f, url, size, ranged, bar)
                reason = 'the connection was closed early'
            except _BrokenOff as error:
                ranged = ranged and not isinstance(error, _WithoutRange)
                reason = str(error)
            failures, start = (0 if f.tell() > start else failures + 1), f.tell()
            if failures == _TRIES:
                raise UserError(f'downloading {label} from {url} failed {failures} times in a row ({reason}); '
                                f'{start:,} of {size:,} bytes are kept, and another attempt goes on from there')
            if failures:
                time.sleep(_PAUSE * 2 ** (failures - 1))


def _one_try(f, url, size, ranged, bar):
    """Ask for what is missing and append what comes. Raises _BrokenOff when another try may help, else UserError."""
    have = f.tell()
    request = urllib.request.Request(url)
    if have and ranged:
        request.add_header('Range', f'bytes={have}-')
    try:
        response = urllib.request.build_opener(_CheckedRedirect).open(request, timeout=_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _judge(error, url) from error
    with response:
        skip = have - _first_byte(response, url, have, size)
        while have < size:
            try:
                block = response.read1(min(_CHUNK, skip or size - have))
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenOff(str(error) or type(error).__name__) from error
            if not block:
                return
            if skip:
                skip -= len(block)
                continue
            f.write(block)
            f.flush()
            have += len(block)
            bar.update(len(block))


def _judge(error, url):
    """The exception to raise for a request that failed."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == 416:  # fewer bytes than we expect, or ranges done wrongly: ask for the whole and compare sizes
            return _WithoutRange('HTTP status 416')
        if error.code < 500 and error.code not in (408, 425, 429):
            return UserError(f'cannot download {url}: HTTP status {error.code} ({error.reason})')
    reason = getattr(error, 'reason', error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UserError(f'cannot download {url}: {reason}')
    return _BrokenOff(str(reason) or type(reason).__name__)


def _first_byte(response, url, have, size):
    """The position in the file of the answer's first byte: ``have``, or 0 from a server that ignores ranges."""
    if response.status == 206:
        match = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', response.headers.get('Content-Range', ''))
        if match is None or int(match[1]) != have:
            raise _WithoutRange('the server sent another range than was asked for')
        first, total = have, match[2]
    elif response.status == 200:
        first, total = 0, response.headers.get('Content-Length', '*')
    else:
        raise UserError(f'cannot download {url}: HTTP status {response.status}')
    if total.isdecimal() and int(total) != size:
        raise UserError(f'{url} is now a file of {total} bytes where {size} were expected')
    return first
