"""Installation; the Makefile calls it. Chainer's own build needs ``setuptools<82``: see ``constraints.txt``."""
from setuptools import find_packages, setup

# What CuPy loads at run time, so that a machine with nothing but a driver suffices: the list of CuPy 14's own extra
# ``ctk``, spelled out because CuPy 13 has no such extra
TOOLKIT = 'cuda-toolkit[cublas,cudart,cufft,curand,cusolver,cusparse,nvrtc]'

# cuDNN's graph API for Python, 3 MB; later releases bring a compiler
CUDNN_FRONTEND = 'nvidia-cudnn-frontend>=1.14,<1.23'

# Intel's oneDNN 3.2, its last release as a package. It wants libgomp.so.1 of the system
ONEDNN = 'onednn-cpu-gomp>=2023.2,<2024; platform_machine == "x86_64" and sys_platform == "linux"'

setup(
    name='chainer-spectral-normalization',
    version='0.1.0',
    description='Spectral Normalization for GANs (Miyato et al., ICLR 2018) in Chainer and CuPy',
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=['util', 'util.*']),
    py_modules=['model', 'train'],
    install_requires=[
        'chainer==7.8.1',
        'filelock',
        'numpy>=1.26,<3',
        'pillow>=10.1',
        'protobuf',
        'pyyaml',
        'scikit-learn',
        'threadpoolctl',
        'tqdm',
    ],
    extras_require={
        # CuPy 13.6 is the last that takes NumPy 1.26, CuPy 14 the first that needs NumPy 2
        'cuda12': ['cupy-cuda12x>=13.6,<15', TOOLKIT + '==12.*', 'nvidia-cudnn-cu12>=9.8,<10', CUDNN_FRONTEND],
        'cuda13': ['cupy-cuda13x>=13.6,<15', TOOLKIT + '==13.*', 'nvidia-cudnn-cu13>=9.8,<10', CUDNN_FRONTEND],
        # enough to compile the CUDA kernels where no GPU is
        'kernels': ['cupy-cuda12x>=13.6,<15', 'nvidia-cuda-nvrtc-cu12', 'nvidia-cuda-runtime-cu12'],
        # enough to have cuDNN plan what a GPU would compute, 2 GB
        'plans': ['nvidia-cudnn-cu12>=9.8,<10', 'nvidia-cuda-nvrtc-cu12', CUDNN_FRONTEND],
        # training on a CPU in two thirds of the time, 39 MB
        'onednn': [ONEDNN],
        # what scores and speed are compared with: the TensorFlow originals as torch-fidelity reproduces them, PyTorch
        'parity': ['torch-fidelity==0.4.0', 'torch'],
        # chainer.testing and chainer.gradient_check import pkg_resources, which setuptools 82 no longer has
        'test': ['coverage>=7.10', 'hypothesis', ONEDNN, 'pytest>=8', 'pytest-cov>=7', 'ruff', 'setuptools<82'],
    },
)
