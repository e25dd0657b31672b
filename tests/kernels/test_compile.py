"""Every CUDA kernel of the project compiles for the GPUs that it is meant for; no GPU is needed."""
import importlib
import pathlib
import re

import pytest

pytestmark = pytest.mark.kernels
cupy = pytest.importorskip('cupy', reason='needs CuPy (make test-kernels installs it)')

ARCHITECTURES = ('sm_80', 'sm_90')  # A100, H100 and H200
# Each has KERNEL_SOURCES: name -> CUDA source
MODULES = ('util.noise', 'util.dataset', 'util.normalization.kernels', 'util.normalization.group_kernels',
           'util.engine.flat_adam', 'util.engine.scalars', 'util.engine.cudnn')


def collect():
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        found.update({name.rpartition('.')[2] + ':' + key: source for key, source in module.KERNEL_SOURCES.items()})
    return found


SOURCES = collect()


@pytest.fixture(scope='module')
def nvrtc():
    try:
        from cupy.cuda import nvrtc
        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as e:
        pytest.skip('needs NVRTC, the package nvidia-cuda-nvrtc-cu12 (make test-kernels installs it): {}'.format(e))
    return nvrtc


def cubin(source, architecture):
    from cupy.cuda import compiler
    options = ('-arch=' + architecture, '-std=c++17')
    return compiler._NVRTCProgram(source, 'kernel.cu', method='cubin').compile(options)[0]


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('name', sorted(SOURCES))
def test_compiles(nvrtc, name, architecture):
    binary = cubin(SOURCES[name], architecture)
    assert binary[:4] == b'\x7fELF'
    for kernel in re.findall(r'__global__\s+void\s+(\w+)', SOURCES[name]):
        assert b'.text.' + kernel.encode() + b'\0' in binary


def test_an_error_is_seen(nvrtc):
    from cupy.cuda.compiler import CompileException
    with pytest.raises(CompileException):
        cubin('extern "C" __global__ void broken() { undefined(); }', 'sm_90')


def test_every_kernel_is_checked():
    root = pathlib.Path(__file__).resolve().parents[2]
    written = {kernel for path in (root / 'util').rglob('*.py')
               for kernel in re.findall(r'__global__\s+void\s+(\w+)', path.read_text())}
    checked = {kernel for source in SOURCES.values() for kernel in re.findall(r'__global__\s+void\s+(\w+)', source)}
    assert written == checked
