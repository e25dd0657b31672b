"""Files of a small network's weights in all kinds, for the tests of converting and fetching them."""
import pytest

from tests import inception_files as files


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
    files.release(monkeypatch, made['inception.tgz'], made['graph.pb'], made['legacy.pth'])
    return made
