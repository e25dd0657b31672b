"""Writing files so that nobody ever sees half of one, and the error that users see."""
import contextlib
import os
import tempfile


class UserError(Exception):
    """Bad input or a bad environment: one clear line that names the flag, key or file and what was expected.

    Command lines print it as ``error: ...`` and exit with status 2, without a traceback.
    """


@contextlib.contextmanager
def atomic_write(path):
    """Yield a temporary path beside ``path``; on success flush it to the disk and rename it to ``path``.

    On any failure the temporary file is removed and ``path`` keeps its old content.

    Args:
        path (str): The file to write. Its folder is made when it is missing.

    Raises:
        UserError: The operating system refuses to write (full disk, no permission, not a folder).

    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or '.'
    temporary = None
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix='.' + os.path.basename(path) + '.', suffix='.tmp', dir=folder)
        os.close(handle)
        yield temporary
        with open(temporary, 'rb+') as f:
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError('cannot write {}: {}'.format(path, error.strerror or error)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask():
    # mkstemp makes files private (0600); results are shared like any other file. Reading the mask means setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
