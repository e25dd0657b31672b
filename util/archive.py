"""Reading a tar.gz archive of unknown origin as a stream: nothing is extracted, and nothing unpacks without a bound."""
import contextlib
import gzip
import tarfile
import zlib

from util.files import UserError

_MAX_NAMES = 1 << 20  # bytes of a header that holds a long name or the like


class _Bounded:
    """What a gzip file unpacks to, refused beyond a limit: a few kB can unpack to many GB."""

    def __init__(self, stream, path, what, limit):
        self._stream, self._path, self._what, self._limit = stream, path, what, limit
        self._left = limit

    def read(self, n):
        block = self._stream.read(n)
        self._left -= len(block)
        if self._left < 0:
            raise UserError('{}: unpacks to more than {} ({} bytes)'.format(self._path, self._what, self._limit))
        return block


class _Header(tarfile.TarInfo):
    """A header that is not believed when it says that megabytes of names follow: tarfile would hold them in memory."""

    def _proc_member(self, archive):
        of_names = self.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
                                 tarfile.SOLARIS_XHDTYPE)
        if of_names and self.size > _MAX_NAMES:
            raise tarfile.HeaderError('a header of {} bytes'.format(self.size))
        return super()._proc_member(archive)


class _Member:
    """A file in the archive while its turn lasts. Reading it raises the same errors as asking for the next."""

    def __init__(self, file, path):
        self._file, self._path = file, path

    def read(self, n):
        with _damage_told(self._path):
            return self._file.read(n)


@contextlib.contextmanager
def _damage_told(path):
    try:
        yield
    # tarfile lets some ValueErrors of odd headers through, and calls itself for each header of a chain
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise UserError('{} is not a tar.gz archive, or is damaged or cut short: {}'.format(path, reason)) from error


def stream_files(path, what, wanted, max_size, max_total, max_members):
    """Yield the regular files that are wanted, in their order; links, sparse files and other names are passed over.

    A file can be read until the next one is asked for. The archive is read to its end, where its checksum is, so what
    was yielded counts only once this is exhausted.

    Args:
        path (str): The archive.
        what (str): What it should be, for messages, such as ``'a CIFAR-10 archive'``.
        wanted (callable): Takes a name in the archive; says whether that file is wanted.
        max_size, max_total, max_members (int): Largest number of bytes of a member, of bytes that all unpacks to, and
            of members.

    Yields:
        tuple: The name (str), an object whose ``read(n)`` gives the next ``n`` bytes, and the size in bytes (int).

    Raises:
        UserError: It is no tar.gz archive, is damaged, or exceeds a limit; ``read`` raises it, too.
        OSError: It cannot be read.

    """
    with _damage_told(path), gzip.open(path) as unpacked:
        stream = _Bounded(unpacked, path, what, max_total)
        with tarfile.open(fileobj=stream, mode='r|', tarinfo=_Header) as archive:
            for number, member in enumerate(archive):
                if member.size > max_size or number >= max_members:
                    raise UserError('{}: too large to be {} (at {!r:.80})'.format(path, what, member.name))
                if wanted(member.name) and member.isreg() and not member.issparse():
                    yield member.name, _Member(archive.extractfile(member), path), member.size
        while stream.read(1 << 20):
            pass


def read_files(path, what, wanted, max_size, max_total, max_members):
    """The same as :func:`stream_files`, with the content of a file, in memory, in the place of an object to read.

    Yields:
        tuple: The name (str) and the content (bytes).

    """
    for name, file, size in stream_files(path, what, wanted, max_size, max_total, max_members):
        yield name, file.read(size)
