"""Chainer runs on this NumPy, and questions about GPUs are answered whatever is or is not installed."""
import importlib.machinery
import os
import subprocess
import sys
import types

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.backends import cuda

from util import compat


def python(code):
    """Run ``code`` in a new interpreter in the repository's root and return what it prints."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return subprocess.run([sys.executable, '-c', code], cwd=root, check=True, text=True, stdout=subprocess.PIPE).stdout


def test_util_makes_chainer_importable():
    assert python('import util, chainer; print(chainer.__version__)') == '7.8.1\n'


def test_install_changes_nothing_that_is_there():
    before = np.sctypes, np.__dict__['float'], sys.modules['chainer._environment_check']
    compat.install()
    after = np.sctypes, np.__dict__['float'], sys.modules['chainer._environment_check']
    assert all(x is y for x, y in zip(before, after, strict=True))


def test_convolution_forward_and_backward():
    link = L.Convolution2D(2, 3, 3, pad=1, initialW=np.ones((3, 2, 3, 3), 'f'))
    link.cleargrads()
    x = chainer.Variable(np.ones((1, 2, 4, 4), 'f'))
    y = link(x)
    F.sum(y).backward()
    assert y.array.dtype == np.float32
    windows = np.array([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])  # pixels under the kernel
    np.testing.assert_array_equal(y.array[0, 0], 2 * windows)
    np.testing.assert_array_equal(x.grad[0, 0], 3 * windows)
    np.testing.assert_array_equal(link.W.grad[2, 1], [[9, 12, 9], [12, 16, 12], [9, 12, 9]])


def test_as_strided_needs_sctypes():
    x = chainer.Variable(np.arange(4, dtype='f'))
    y = F.as_strided(x, (3, 2), (1, 1))
    F.sum(y).backward()
    np.testing.assert_array_equal(y.array, [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(x.grad, [1, 2, 2, 1])


def test_resize_images_needs_float():
    y = F.resize_images(np.array([[[[0, 2]]]], 'f'), (1, 3))
    np.testing.assert_array_equal(y.array, [[[[0, 1, 2]]]])


def test_count_and_problem_agree():
    count, problem = compat.gpu_count(), compat.gpu_problem()
    assert isinstance(count, int)
    assert (count > 0) == (problem is None)


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', None)
    assert compat.gpu_count() == 0
    assert 'CuPy is not installed' in compat.gpu_problem()


def fake_cupy(monkeypatch, count, nvrtc=lambda: (12, 9), available=True):
    cupy = types.ModuleType('cupy')
    cupy.__spec__ = importlib.machinery.ModuleSpec('cupy', None)
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceCount=count), nvrtc=types.SimpleNamespace(getVersion=nvrtc))
    monkeypatch.setitem(sys.modules, 'cupy', cupy)
    monkeypatch.setattr(cuda, 'cupy', cupy)
    monkeypatch.setattr(cuda, 'available', available)


def refuse(message):
    def raise_():
        raise RuntimeError(message)
    return raise_


def test_gpus_that_answer(monkeypatch):
    fake_cupy(monkeypatch, lambda: 3)
    assert (compat.gpu_count(), compat.gpu_problem()) == (3, None)


@pytest.mark.parametrize('arguments, message', [
    ({'count': refuse('cudaErrorInsufficientDriver:\n too old')}, 'cudaErrorInsufficientDriver: too old'),
    ({'count': lambda: 0}, 'no GPU'),
    ({'count': lambda: 1, 'nvrtc': refuse('no libnvrtc.so.12')}, 'no libnvrtc.so.12'),
    ({'count': lambda: 1, 'available': False}, 'cannot be imported: libcublas.so.12 is missing'),
    ({'count': refuse('x' * 1000)}, 'xxx...'),
])
def test_gpus_that_do_not_answer(monkeypatch, arguments, message):
    monkeypatch.setattr(cuda, '_resolution_error', ImportError('libcublas.so.12 is missing'))
    fake_cupy(monkeypatch, **arguments)
    assert compat.gpu_count() == 0
    problem = compat.gpu_problem()
    assert message in problem
    assert '\n' not in problem and len(problem) < 250


def fake_installed_cupy(monkeypatch, tmp_path, version, library):
    (tmp_path / 'cuda' / 'libs').mkdir(parents=True)
    (tmp_path / 'cuda' / 'libs' / library).touch()
    monkeypatch.setattr(compat, '_cupy_folder', lambda: str(tmp_path))
    monkeypatch.setattr(compat, '_cupy_version', lambda: version)
    loaded = []
    monkeypatch.setattr(compat, '_load_cuda_libraries', lambda: loaded.append(version))
    monkeypatch.setenv('CHAINER_CUDNN', 'to be put back after the test')
    monkeypatch.delenv('CHAINER_CUDNN')
    return loaded


def test_cupy_14_has_no_cudnn_and_finds_its_libraries(monkeypatch, tmp_path):
    loaded = fake_installed_cupy(monkeypatch, tmp_path, '14.2.0', 'cublas.so')
    compat.install()
    assert os.environ['CHAINER_CUDNN'] == '0'
    assert loaded == []


def test_cupy_13_may_have_cudnn_and_needs_its_libraries_loaded(monkeypatch, tmp_path):
    loaded = fake_installed_cupy(monkeypatch, tmp_path, '13.6.0', 'cudnn.cpython-311-x86_64-linux-gnu.so')
    compat.install()
    assert 'CHAINER_CUDNN' not in os.environ
    assert loaded == ['13.6.0']


def test_users_choice_of_cudnn_stands(monkeypatch, tmp_path):
    fake_installed_cupy(monkeypatch, tmp_path, '14.2.0', 'cublas.so')
    monkeypatch.setenv('CHAINER_CUDNN', '1')
    compat.install()
    assert os.environ['CHAINER_CUDNN'] == '1'


def test_libraries_are_loaded_from_wheels_in_order(monkeypatch, tmp_path):
    for name in ('cublas/lib/libcublas.so.12', 'cublas/lib/libcublasLt.so.12', 'cuda_nvrtc/lib/libnvrtc.so.12',
                 'cuda_nvrtc/lib/libnvrtc-builtins.so.12.9', 'cufft/lib/libcufft.so.11'):
        path = tmp_path / 'nvidia' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.delitem(sys.modules, 'nvidia', raising=False)
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    loaded = []
    monkeypatch.setattr(compat.ctypes, 'CDLL', lambda path, mode: loaded.append(os.path.basename(path)))
    compat._load_cuda_libraries()
    assert loaded == ['libnvrtc.so.12', 'libcublasLt.so.12', 'libcublas.so.12', 'libcufft.so.11']


def test_no_libraries_in_wheels(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, 'nvidia', raising=False)
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.setattr(compat.ctypes, 'CDLL', refuse('nothing to load'))
    compat._load_cuda_libraries()


def test_versions():
    versions = compat.versions()
    assert list(versions) == ['python', 'numpy', 'chainer', 'cupy', 'onednn', 'blas']
    assert versions['python'] == sys.version.split()[0]
    assert versions['numpy'] == np.__version__
    assert versions['chainer'] == chainer.__version__
    assert versions['blas'] is None or 'blas' in versions['blas'] or 'mkl' in versions['blas']


def test_version_of_cupy(monkeypatch):
    def version(name):
        if name == 'cupy-cuda13x':
            return '14.2.0'
        raise compat.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compat.importlib.metadata, 'version', version)
    assert compat._cupy_version() == '14.2.0'
