"""What Chainer 7.8 still asks of NumPy, setuptools and CuPy; imported by ``util/__init__.py``, so before Chainer.

Chainer 7.8.1 is the last release (2022). Three things that it uses are gone since: ``numpy.distutils`` and
``pkg_resources`` (its check of the environment), ``numpy.sctypes`` (``as_strided``) and ``numpy.float``
(``resize_images``).

Also here, because everything else stands on it: how many GPUs answer, and which versions run.
"""
import ctypes
import glob
import importlib.metadata
import importlib.util
import os
import platform
import sys
import types
import warnings

import numpy as np

# In the order of their dependence on each other
_CUDA_LIBRARIES = ('nvJitLink', 'nvrtc', 'cublasLt', 'cublas', 'cusparse', 'cusolver', 'cufft', 'curand')


def install():
    """Put back what Chainer asks for. Safe to call twice; changes nothing that is there."""
    if 'chainer._environment_check' not in sys.modules:
        module = types.ModuleType('chainer._environment_check')
        module.check = lambda: None  # its only function warns of conflicting wheels, by way of pkg_resources
        sys.modules['chainer._environment_check'] = module
    if not hasattr(np, 'sctypes'):
        np.sctypes = {
            'int': [np.int8, np.int16, np.int32, np.int64],
            'uint': [np.uint8, np.uint16, np.uint32, np.uint64],
            'float': [np.float16, np.float32, np.float64, np.longdouble],
            'complex': [np.complex64, np.complex128, np.clongdouble],
            'others': [bool, object, bytes, str, np.void],
        }
    if 'float' not in np.__dict__:  # hasattr would make NumPy warn
        np.float = float
    cupy = _cupy_folder()
    if cupy is not None:
        _prepare_cupy(cupy)


def _cupy_folder():
    """Where CuPy's compiled modules are, found without importing it; None where CuPy is not installed."""
    spec = importlib.util.find_spec('cupy_backends')
    return os.path.dirname(spec.origin) if spec is not None and spec.origin else None


def _prepare_cupy(folder):
    if not glob.glob(os.path.join(folder, 'cuda', 'libs', 'cudnn*')):
        # CuPy 14 has no cuDNN at all; Chainer would ask its user to install it
        os.environ.setdefault('CHAINER_CUDNN', '0')
    # Only a run over several GPUs would need NCCL, which the wheels do not bring
    warnings.filterwarnings('ignore', r'\s*nccl library could not be loaded', UserWarning)
    version = _cupy_version()
    if version is not None and version.startswith('13.'):
        _load_cuda_libraries()


def _load_cuda_libraries():
    """Load NVIDIA's libraries out of their wheels, where CuPy 13 does not look (CuPy 14 does)."""
    spec = importlib.util.find_spec('nvidia')
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for name in _CUDA_LIBRARIES:
        for folder in folders:
            for path in sorted(glob.glob(os.path.join(folder, '*', 'lib', 'lib{}.so.1*'.format(name)))):
                ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def gpu_count():
    """How many GPUs can be used.

    Returns:
        int: 0 wherever :func:`gpu_problem` has something to tell. Never raises.

    """
    return _ask_gpus()[0]


def gpu_problem():
    """Why no GPU can be used.

    Returns:
        str or None: One line; None where a GPU answers. Never raises.

    """
    return _ask_gpus()[1]


def _ask_gpus():
    if importlib.util.find_spec('cupy') is None:
        return 0, 'CuPy is not installed; "make install CUDA=12" (or CUDA=13) installs it'
    from chainer.backends import cuda  # now, not above: this module prepares Chainer's import
    if not cuda.available:  # means that an import failed
        return 0, 'CuPy cannot be imported: {}'.format(_one_line(cuda._resolution_error))
    try:
        count = cuda.cupy.cuda.runtime.getDeviceCount()
        cuda.cupy.cuda.nvrtc.getVersion()  # CuPy compiles its kernels
    except Exception as error:  # CuPy has no common class for what the driver and the loader refuse
        return 0, 'CuPy reports: {}'.format(_one_line(error))
    return count, None if count else 'CuPy reports: no GPU'


def _one_line(error):
    text = ' '.join(str(error).split())
    return text if len(text) <= 200 else text[:197] + '...'


def versions():
    """What runs here, for the record that each run keeps.

    Returns:
        dict: ``python``, ``numpy``, ``chainer``, ``cupy``, ``onednn`` and ``blas``, each a str, or None for what is not
        there. ``blas`` names the library that multiplies NumPy's matrices, and its kernels: results are the same to the
        last bit only where these are.

    """
    return {
        'python': platform.python_version(),
        'numpy': np.__version__,
        'chainer': importlib.metadata.version('chainer'),
        'cupy': _cupy_version(),
        'onednn': _version('onednn-cpu-gomp'),
        'blas': _blas(),
    }


def _cupy_version():
    return _version('cupy-cuda12x', 'cupy-cuda13x', 'cupy')


def _version(*distributions):
    """Of the first of them that is installed; None where none is."""
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


def _blas():
    from threadpoolctl import threadpool_info
    rows = [row for row in threadpool_info() if row['user_api'] == 'blas']
    # SciPy's wheels bring a BLAS of their own
    rows = [row for row in rows if 'numpy' in row['filepath'].lower()] or rows
    return '; '.join('{} {} {}'.format(
        row['internal_api'], row['version'], row.get('architecture', '')) for row in rows) or None


install()
