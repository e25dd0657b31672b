"""Stand-ins for the libraries of NVIDIA's driver, so that cuDNN builds plans for a GPU that is not there.

cuDNN 9.8 and later take a description of a device in the place of a device. What still keeps the rest from starting is
``libcuda.so.1``, which only a driver brings, and a runtime that finds no device. The stand-ins have their functions;
those of the driver fail, which leaves out plans that cuDNN would compile while it runs.
"""
import ctypes.util
import os
import subprocess
import sysconfig

_DRIVER = '''
cuCtxGetCurrent cuCtxGetLimit cuCtxPopCurrent cuCtxPushCurrent cuDeviceGet cuDeviceGetCount cuDriverGetVersion
cuGetErrorName cuGetErrorString cuGetProcAddress cuGetProcAddress_v2 cuInit cuKernelGetAttribute cuKernelGetFunction
cuKernelSetAttribute cuLaunchCooperativeKernel cuLaunchKernel cuLaunchKernelEx cuLibraryGetKernel cuLibraryLoadData
cuLibraryLoadFromFile cuLibraryUnload cuLinkAddData cuLinkComplete cuLinkCreate cuLinkDestroy cuModuleGetFunction
cuModuleLoadData cuModuleUnload cuOccupancyMaxPotentialClusterSize cuStreamGetCtx cuTensorMapEncodeIm2col
cuTensorMapEncodeTiled
'''
_RUNTIME = '''
cudaDeviceSynchronize cudaEventCreate cudaEventDestroy cudaEventElapsedTime cudaEventRecord cudaEventSynchronize
cudaFree cudaGetDeviceProperties cudaGetDriverEntryPointByVersion cudaGetLastError cudaGraphAddChildGraphNode
cudaGraphAddMemsetNode cudaGraphChildGraphNodeGetGraph cudaGraphCreate cudaGraphDestroy cudaGraphGetNodes
cudaGraphGetRootNodes cudaGraphMemsetNodeSetParams cudaGraphNodeGetDependentNodes cudaKernelSetAttributeForDevice
cudaLaunchKernel cudaLibraryGetKernel cudaLibraryLoadData cudaLibraryUnload cudaMalloc cudaMemcpyAsync cudaMemsetAsync
cudaStreamBeginCapture cudaStreamCreate cudaStreamDestroy cudaStreamEndCapture cudaStreamIsCapturing
'''
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def make(folder):
    """Compile the stand-ins.

    Args:
        folder (pathlib.Path): Where to.

    Returns:
        dict: The environment of a process that shall find them, and the libraries of cuDNN's packages.

    """
    driver = ''.join('int {}(void) {{ return {}; }}\n'.format(name, _NO_DEVICE) for name in _DRIVER.split())
    runtime = ''.join('int {}(void) {{ return 0; }}\n'.format(name) for name in _RUNTIME.split())
    runtime += 'int cudaGetDevice(int* device) { *device = 0; return 0; }\n'
    runtime += 'const char* cudaGetErrorString(int error) { return "stand-in"; }\n'
    # The package refuses to start where it finds two; so take the place of the one that is there
    system = ctypes.util.find_library('cudart') or 'libcudart.so.12'
    for name, source in (('libcuda.so.1', driver), (system, runtime)):
        path = folder / (name + '.c')
        path.write_text(source)
        subprocess.run(['gcc', '-shared', '-fPIC', '-o', folder / name, path, '-Wl,-soname,' + name], check=True)
    packages = os.path.join(sysconfig.get_path('purelib'), 'nvidia')
    folders = [folder, *(os.path.join(packages, name, 'lib') for name in ('cudnn', 'cuda_nvrtc', 'cublas'))]
    return {**os.environ, 'LD_LIBRARY_PATH': os.pathsep.join(map(str, folders))}
