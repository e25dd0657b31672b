"""Which tests can run here. Skipping is never silent: see the header of pytest, and what ``pytest -rs`` lists."""
import dataclasses
import os
import pathlib
import tempfile

import pytest

from util import compat

# What is kept beside Chainer's data sets must not come from, or go to, the user's own. Chainer looks once, at import.
_ROOT = tempfile.TemporaryDirectory(prefix='chainer-dataset-root-')
os.environ['CHAINER_DATASET_ROOT'] = _ROOT.name

GPU_TESTS = pathlib.Path(__file__).parent / 'gpu'


def pytest_report_header():
    problem = compat.gpu_problem()
    return 'GPU tests: ' + ('skipped, no GPU answers ({})'.format(problem) if problem else
                            'run, GPUs that answer: {}'.format(compat.gpu_count()))


def pytest_collection_modifyitems(items):
    problem = compat.gpu_problem()
    for item in items:
        if GPU_TESTS in item.path.parents:
            item.add_marker(pytest.mark.gpu)
        if problem and item.get_closest_marker('gpu'):
            item.add_marker(pytest.mark.skip(reason='no GPU answers: ' + problem))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Inception's weights are not there and cannot be downloaded, which is found out at once."""
    from util import download
    from util.inception import convert, weights
    monkeypatch.setattr(weights, 'PATH', str(tmp_path / 'inception_model' / 'inception-2015-12-05.npz'))
    monkeypatch.setattr(download, '_PAUSE', 0.001)
    for name, source in convert.SOURCES.items():
        # Nobody listens at port 9 of this machine
        monkeypatch.setitem(convert.SOURCES, name, dataclasses.replace(source, url='http://127.0.0.1:9/' + name))
