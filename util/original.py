"""Archives that are fetched once from where they were published, or taken from ``--data-dir``: CIFAR-10's, STL-10's."""
import functools
import os
import sys
import typing

from util.download import cache_path, fetch, file_digest
from util.files import UserError


@functools.lru_cache
def _digest(path, size, modified):
    """The MD5 of a file, computed once as long as it stays the same: a run opens it to train and again to score."""
    return file_digest(path, 'md5')


class Original(typing.NamedTuple):
    """What is known about a published archive.

    Attributes:
        label (str): Its name for people.
        url, md5 (str): Where it is, and the MD5 of it.
        size (int): Its length in bytes.
        name, folder (str): The name of the file, and the folder that it unpacks to.
        notice (str): What to expect when it is downloaded.

    """

    label: str
    url: str
    md5: str
    size: int
    name: str
    folder: str
    notice: str

    def find(self, data_dir, member):
        """The path of the archive, or of the folder of an extracted one, which has ``member``.

        Args:
            data_dir (str or None): The flag ``--data-dir``: the archive, a folder with it, or an extracted one. Without
                it, the original in Chainer's download cache, where it is fetched to first if need be.
            member (str): A file that an extracted archive has.

        Raises:
            UserError: It is not there, or cannot be fetched.

        """
        if data_dir is None:
            return self._fetch()
        archive = os.path.join(data_dir, self.name)
        for path in data_dir, archive:
            if os.path.isfile(path):
                return path
        for folder in os.path.join(data_dir, self.folder), data_dir:
            if os.path.isfile(os.path.join(folder, member)):
                return folder
        raise UserError(f'--data-dir {data_dir}: there is neither {self.name} nor {self.folder}/{member}')

    def _fetch(self):
        path = cache_path(self.url)
        if not os.path.exists(path):
            print(f'{self.label} is downloaded from {self.url} ({self.notice}). Broken off, it goes on where it was; '
                  '--data-dir takes a copy at hand.', file=sys.stderr, flush=True)
            fetch(self.url, path, self.size, self.md5, self.label)
        return path

    def identify(self, path, data_dir):
        """Say which archive a file is: its MD5, and in words whether that is the original's.

        Raises:
            UserError: It is another in the cache, where only the original may be.

        """
        about = os.stat(path)
        md5 = _digest(path, about.st_size, about.st_mtime_ns)
        if md5 != self.md5 and data_dir is None:  # Chainer does not check what it caches
            raise UserError(f'{path} is not the original {self.label} archive: delete it to download it again, or use '
                            f'it as it is with --data-dir {path}')
        return md5, ('the original' if md5 == self.md5 else 'NOT the original but another') + f' archive, md5 {md5}'
