"""Which tests can run here. Skipping is never silent: see the header of pytest, and what ``pytest -rs`` lists."""
import pathlib

import pytest

from util import compat

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
