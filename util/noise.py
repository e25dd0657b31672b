"""Counter-based random numbers: a pure function of (seed, iteration, purpose), the same stream on CPU and GPU.

No state is kept anywhere, so a run that is killed and resumed draws what the undisturbed run would have drawn. The
generator is Philox 4x64-10 (Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011): NumPy's own on the
CPU, one CuPy kernel on the GPU. Normals come by Box and Muller's transform in float64, so the two devices agree to the
last place of float32.
"""
import functools
import zlib

import numpy as np

_KERNEL_SOURCE = r'''
extern "C" __global__
void philox_4x64(unsigned long long* out, long long n_blocks, unsigned long long key0, unsigned long long key1,
                 unsigned long long counter2, unsigned long long counter3) {
    const unsigned long long M0 = 0xD2E7470EE14C6C93ULL, M1 = 0xCA5A826395121157ULL;
    const unsigned long long W0 = 0x9E3779B97F4A7C15ULL, W1 = 0xBB67AE8584CAA73BULL;
    const long long threads = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n_blocks; i += threads) {
        // NumPy counts up before it draws: its first block has counter 1
        unsigned long long c0 = (unsigned long long)i + 1, c1 = 0, c2 = counter2, c3 = counter3, k0 = key0, k1 = key1;
        for (int round = 0; round < 10; ++round) {
            const unsigned long long h0 = __umul64hi(M0, c0), l0 = M0 * c0, h1 = __umul64hi(M1, c2), l1 = M1 * c2;
            c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
            k0 += W0; k1 += W1;
        }
        out[4 * i] = c0; out[4 * i + 1] = c1; out[4 * i + 2] = c2; out[4 * i + 3] = c3;
    }
}
'''


def _counter(seed, iteration, purpose, step):
    """The 128-bit key and 256-bit counter of a stream; the counter's low 128 bits count blocks of four draws."""
    if min(seed, iteration, step) < 0:
        raise ValueError('seed, iteration and step must not be negative: {}'.format((seed, iteration, step)))
    return (seed, zlib.crc32(purpose.encode())), (0, 0, step, iteration)


def bits(xp, n, seed, iteration, purpose, step=0):
    """Draw ``n`` random 64-bit words.

    Args:
        xp: ``numpy`` or ``cupy``: where the result lives.
        n (int): How many.
        seed (int): The run's seed, at least 0.
        iteration (int): The iteration (or epoch, or batch number) that the draw belongs to, at least 0.
        purpose (str): What the draw is for; different purposes are independent streams.
        step (int): Number of the draw within the iteration.

    Returns:
        numpy.ndarray or cupy.ndarray: uint64, (n,).

    """
    key, counter = _counter(seed, iteration, purpose, step)
    if xp is np:
        return np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64)).random_raw(n)
    return _bits_on_gpu(xp, n, key, counter)


def _bits_on_gpu(cupy, n, key, counter):  # pragma: no cover - gpu
    n_blocks = -(-n // 4)
    out = cupy.empty(4 * n_blocks, np.uint64)
    if n_blocks:
        args = (out, np.int64(n_blocks), *(np.uint64(x) for x in key + counter[2:]))
        _kernel()((min(-(-n_blocks // 128), 4096),), (128,), args)
    return out[:n]


@functools.cache
def _kernel():  # pragma: no cover - gpu
    import cupy
    return cupy.RawKernel(_KERNEL_SOURCE, 'philox_4x64')


def uniform(xp, shape, seed, iteration, purpose, step=0):
    """Draw uniform float32 numbers in [0, 1), of 24 random bits each; two from each 64-bit word.

    Args:
        shape (tuple of int): The shape of the result. The other arguments are those of :func:`bits`.

    Returns:
        numpy.ndarray or cupy.ndarray: float32.

    """
    n = int(np.prod(shape, dtype=np.int64))
    words = bits(xp, -(-n // 2), seed, iteration, purpose, step).view(np.uint32)[:n]
    return ((words >> np.uint32(8)).astype(np.float32) * np.float32(2.0 ** -24)).reshape(shape)


def normal(xp, shape, seed, iteration, purpose, step=0):
    """Draw standard normal float32 numbers. Arguments as of :func:`uniform`."""
    n = int(np.prod(shape, dtype=np.int64))
    half = -(-n // 2)
    unit = (bits(xp, 2 * half, seed, iteration, purpose, step) >> np.uint64(11)).astype(np.float64) * 2.0 ** -53
    radius = xp.sqrt(-2.0 * xp.log1p(-unit[:half]))  # 1 - u is never 0
    angle = 2.0 * np.pi * unit[half:]
    both = xp.concatenate((radius * xp.cos(angle), radius * xp.sin(angle)))
    return both[:n].astype(np.float32).reshape(shape)


def integers(xp, high, shape, seed, iteration, purpose, step=0):
    """Draw uniform int32 numbers from 0 to ``high`` - 1, at most 2^24. Other arguments: those of :func:`uniform`.
    """
    return (uniform(xp, shape, seed, iteration, purpose, step) * np.float32(high)).astype(np.int32)


def permutation(n, seed, epoch):
    """The order of ``n`` examples in an epoch: int64, (n,), on the CPU."""
    return np.argsort(bits(np, n, seed, epoch, 'order'), kind='stable')


def random_state(seed, purpose):
    """A ``numpy.random.RandomState`` for code that insists on one, such as Chainer's initializers."""
    words = bits(np, 4, seed, 0, purpose).view(np.uint32)
    return np.random.RandomState(words)
