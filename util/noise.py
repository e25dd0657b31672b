"""Counter-based random numbers: a pure function of (seed, iteration, purpose), the same stream on CPU and GPU.

No state is kept anywhere, so a run that is killed and resumed draws what the undisturbed run would have drawn. The
generator is Philox 4x64-10 (Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011): NumPy's own on the
CPU, one launch on the GPU. Normals come by Box and Muller's transform in float64, so the two devices agree to the
last place of float32.
"""
import functools
import zlib

import numpy as np

# A stream: two words of key, the two upper ones of the counter. The lower ones count blocks of four words.
PHILOX_SOURCE = r'''
typedef unsigned long long word;
struct Stream { word key0, key1, counter2, counter3; };

// The four words of a block of the stream, counted from 0.
__device__ void philox(Stream stream, long long block, word* out) {
    const word M0 = 0xD2E7470EE14C6C93ULL, M1 = 0xCA5A826395121157ULL;
    const word W0 = 0x9E3779B97F4A7C15ULL, W1 = 0xBB67AE8584CAA73BULL;
    // NumPy counts up before it draws: its first block has counter 1
    word c0 = (word)block + 1, c1 = 0, c2 = stream.counter2, c3 = stream.counter3, k0 = stream.key0, k1 = stream.key1;
    for (int round = 0; round < 10; ++round) {
        const word h0 = __umul64hi(M0, c0), l0 = M0 * c0, h1 = __umul64hi(M1, c2), l1 = M1 * c2;
        c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
        k0 += W0; k1 += W1;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}
// The uniform number i, 0 to 7, of a block.
__device__ float uniform(const word* words, int i) {
    const unsigned bits = (unsigned)(words[i / 2] >> 32 * (i % 2));
    return (float)(bits >> 8) * 5.9604644775390625e-8f;  // 2^-24
}
'''
_BODY = r'''
extern "C" __global__
void philox_bits(word* out, long long n, Stream stream) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * block < n; block += step) {
        word words[4];
        philox(stream, block, words);
        for (int i = 0; i < 4 && 4 * block + i < n; ++i) out[4 * block + i] = words[i];
    }
}
extern "C" __global__
void philox_uniform(float* out, long long n, Stream stream) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x; 8 * block < n; block += step) {
        word words[4];
        philox(stream, block, words);
        for (int i = 0; i < 8 && 8 * block + i < n; ++i) out[8 * block + i] = uniform(words, i);
    }
}
// Box and Muller: of words i and half + i the numbers i and half + i.
extern "C" __global__
void philox_normal(float* out, long long n, long long half, Stream stream) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < half; i += step) {
        word words[4];
        philox(stream, i / 4, words);
        const double first = (double)(words[i % 4] >> 11) * 1.1102230246251565e-16;  // 2^-53
        philox(stream, (half + i) / 4, words);
        const double second = (double)(words[(half + i) % 4] >> 11) * 1.1102230246251565e-16;
        const double radius = sqrt(-2.0 * log1p(-first)), angle = 6.283185307179586 * second;
        out[i] = (float)(radius * cos(angle));
        if (half + i < n) out[half + i] = (float)(radius * sin(angle));
    }
}
'''
KERNEL_SOURCES = {'noise': PHILOX_SOURCE + _BODY}
STREAM = np.dtype([(name, 'u8') for name in ('key0', 'key1', 'counter2', 'counter3')])


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
    if xp is not np:  # pragma: no cover - gpu
        return _on_gpu(xp, 'philox_bits', (n,), np.uint64, n, 4, (), seed, iteration, purpose, step)
    key, counter = _counter(seed, iteration, purpose, step)
    return np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64)).random_raw(n)


def stream(seed, iteration, purpose, step=0):
    """A stream as a kernel takes it, by value: a structured array of one element. Arguments as of :func:`bits`."""
    key, counter = _counter(seed, iteration, purpose, step)
    return np.array((*key, *counter[2:]), STREAM)


def blocks(n, threads=128):
    """So many blocks of threads for ``n`` threads' work: each may have more than one piece."""
    return min(-(-n // threads), 4096)


def _on_gpu(cupy, name, shape, dtype, n, a_thread, more, *of_stream):  # pragma: no cover - gpu
    """What a kernel draws, ``a_thread`` numbers a thread: (shape), of the dtype."""
    out = cupy.empty(shape, dtype)
    if n:
        _kernel(name)((blocks(-(-n // a_thread)),), (128,), (out, np.int64(n), *more, stream(*of_stream)))
    return out


@functools.cache
def _kernel(name):  # pragma: no cover - gpu
    import cupy
    return cupy.RawKernel(KERNEL_SOURCES['noise'], name)


def uniform(xp, shape, seed, iteration, purpose, step=0):
    """Draw uniform float32 numbers in [0, 1), of 24 random bits each; two from each 64-bit word.

    Args:
        shape (tuple of int): The shape of the result. The other arguments are those of :func:`bits`.

    Returns:
        numpy.ndarray or cupy.ndarray: float32.

    """
    n = int(np.prod(shape, dtype=np.int64))
    if xp is not np:  # pragma: no cover - gpu
        return _on_gpu(xp, 'philox_uniform', shape, np.float32, n, 8, (), seed, iteration, purpose, step)
    words = bits(xp, -(-n // 2), seed, iteration, purpose, step).view(np.uint32)[:n]
    return ((words >> np.uint32(8)).astype(np.float32) * np.float32(2.0 ** -24)).reshape(shape)


def normal(xp, shape, seed, iteration, purpose, step=0):
    """Draw standard normal float32 numbers. Arguments as of :func:`uniform`."""
    n = int(np.prod(shape, dtype=np.int64))
    half = -(-n // 2)
    if xp is not np:  # pragma: no cover - gpu
        more = np.int64(half),
        return _on_gpu(xp, 'philox_normal', shape, np.float32, n, 2, more, seed, iteration, purpose, step)
    unit = (bits(xp, 2 * half, seed, iteration, purpose, step) >> np.uint64(11)).astype(np.float64) * 2.0 ** -53
    radius = np.sqrt(-2.0 * np.log1p(-unit[:half]))  # 1 - u is never 0
    angle = 2.0 * np.pi * unit[half:]
    both = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))
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
