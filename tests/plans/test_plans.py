"""cuDNN has a plan for every layer of the paper's networks, in each direction and precision; no GPU is needed."""
import json
import pathlib
import shutil
import subprocess
import sys

import chainer.functions as F
import numpy as np
import pytest

import model
from tests.plans import stand_in
from tests.util.engine.fake_cudnn import Fake, put_numpy_in_cupys_place, replace_cpu_code
from util.config import resolve
from util.engine import cudnn

pytest.importorskip('cudnn', reason='needs the package nvidia-cudnn-frontend (make test-plans installs it)')
pytestmark = pytest.mark.skipif(shutil.which('gcc') is None, reason='needs gcc')

N = 64
ROOT = pathlib.Path(__file__).resolve().parents[2]
# As cuDNN describes them
COMMON = {'driverVer': 12080, 'cudaDeviceId': 0, 'maxGridSize': [2147483647, 65535, 65535],
          'maxBlockSize': [1024, 1024, 64], 'regsPerBlock': 65536, 'smCountOrigin': 1, 'warpSize': 32,
          'maxSharedMemoryPerBlock': 49152, 'reservedSharedMemoryPerBlock': 1024, 'maxRegistersPerSM': 65536,
          'maxCtasPerSM': 32, 'maxThreadsPerBlock': 1024, 'maxThreadsPerSM': 2048, 'pciDeviceId': 0, 'isTccDriver': 0,
          'supportCoopLaunch': 1, 'memoryBusWidth': 5120, 'totalGlobalMem': 85000000000}
DEVICES = {
    'A100': {**COMMON, 'deviceName': 'A100', 'deviceVer': 800, 'multiProcessorCount': 108, 'l2CacheSize': 41943040,
             'maxSharedMemoryPerBlockOptin': 166912, 'oversizedSharedMemoryPerBlock': 166912, 'smClockRateKHz': 1410000,
             'memClockRateKHz': 1593000},
    'H100': {**COMMON, 'deviceName': 'H100', 'deviceVer': 900, 'multiProcessorCount': 132, 'l2CacheSize': 52428800,
             'maxSharedMemoryPerBlockOptin': 232448, 'oversizedSharedMemoryPerBlock': 232448, 'smClockRateKHz': 1980000,
             'memClockRateKHz': 2619000},
}


class Recorder(cudnn.Cudnn):
    """Computes as the stand-in does, and notes what was asked for, as if of N pictures."""

    def __init__(self):
        super().__init__(Fake(), np, cudnn.PRECISIONS['fp32'])
        self.cases = []

    def _compute(self, kind, operands, b, shape, window):
        shapes = {name: x.shape if name in ('weight', 'filter') else (N, *x.shape[1:]) for name, x in operands.items()}
        shape_of_n = shape if kind == 'conv_wgrad' else (N, *shape[1:])
        case = [kind, shapes, shape_of_n, window, b is not None]
        if case not in self.cases:
            self.cases.append(case)
        return super()._compute(kind, operands, b, shape, window)


def cases_of(dataset, name, monkeypatch):
    """All kinds of work in a game's gradients: [kind, shapes, shape, window, bias] each."""
    config = resolve(dataset, name, 'none')
    row, size = config.model, config.dataset.size
    generator, discriminator = (build(row, size, 0) for build in (model.build_generator, model.build_discriminator))
    core = Recorder()
    put_numpy_in_cupys_place(monkeypatch)
    replace_cpu_code(monkeypatch, core)
    z = np.zeros((1, row['dim_z']), 'f')
    F.sum(discriminator(generator(z))).backward()
    return core.cases


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dataset, name', [('cifar10', 'cnn'), ('stl10', 'cnn'), ('cifar10', 'sndcgan'),
                                           ('cifar10', 'resnet'), ('digits', 'cnn')])
def test_every_layer_has_a_plan(dataset, name, device, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        layers = cases_of(dataset, name, patch)
    assert {kind for kind, *_ in layers} == {'conv_fprop', 'conv_dgrad', 'conv_wgrad'}
    cases = [[precision, *layer[:-1], fused] for precision in cudnn.PRECISIONS for layer in layers
             for fused in {False, layer[-1] and precision != 'bf16'}]
    result = subprocess.run([sys.executable, '-m', 'tests.plans.build'], cwd=ROOT, env=stand_in.make(tmp_path),
                            input=json.dumps({'device': DEVICES[device], 'cases': cases}), capture_output=True,
                            text=True, timeout=600)
    assert not result.returncode, result.stderr[-2000:]
    missing = [(case, answer) for case, answer in zip(cases, json.loads(result.stdout.splitlines()[-1]), strict=True)
               if isinstance(answer, str)]
    # Only the generator's biases, after a gradient of the input, are added apart
    assert not [case for case, _ in missing if not (case[-1] and case[1] == 'conv_dgrad')], missing


def test_what_cannot_be_is_seen(tmp_path):
    """A result whose size is another than that of the convolution."""
    case = ['tf32', 'conv_fprop', {'image': [N, 8, 8, 8], 'weight': [8, 8, 3, 3]}, [N, 8, 5, 5],
            [[1, 1], [1, 1], [1, 1]], False]
    result = subprocess.run([sys.executable, '-m', 'tests.plans.build'], cwd=ROOT, env=stand_in.make(tmp_path),
                            input=json.dumps({'device': DEVICES['H100'], 'cases': [case]}), capture_output=True,
                            text=True, timeout=600)
    assert result.returncode or isinstance(json.loads(result.stdout.splitlines()[-1])[0], str)
