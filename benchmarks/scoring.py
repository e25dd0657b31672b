"""How fast pictures are scored on the CPU: the network, the distances, and how much memory it takes in all.

    python -m benchmarks.scoring [--pictures 64] [--rounds 5] [--samples 5000]

The network is timed beside torch-fidelity's reference, in batches of several sizes, interleaved in one run, where that
is installed (``make parity`` makes an environment with it: ``.venv-parity/bin/python -m benchmarks.scoring``). Both
have the same random weights and take 32x32 pictures: what they cost does not depend on the numbers in either.
"""
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.timing import describe_machine, measure  # isort: skip  (before Chainer, which needs util.compat)

import numpy as np

from tests.inception_weights import random_weights
from util import metrics
from util.cli import Parser, run_command
from util.config import resolve
from util.inception.layers import N_CLASSES, N_FEATURES
from util.inception.network import Inception
from util.reference import Reference
from util.scorer import CHUNK, look, score

REFERENCE_BATCHES = (64, 8, 4)  # torch-fidelity's default, and what suits a CPU's cache
N_REAL = 10000  # pictures to compare with, as in the paper


def random_pictures(n):
    """uint8, (n, 3, 32, 32)."""
    return np.random.RandomState(0).randint(0, 256, (n, 3, 32, 32)).astype(np.uint8)


def make_networks(arrays):
    """What is timed, name -> callable of pictures: this network and, where it is installed, the reference."""
    network = Inception.from_weights(arrays)
    networks = {'chainer': network}
    try:
        from tests.parity import reference
    except ImportError:
        return networks
    with tempfile.TemporaryDirectory() as folder:
        theirs = reference.load(arrays, folder)

    def in_batches(size):
        return lambda images: [reference.look(theirs, images[i:i + size]) for i in range(0, len(images), size)]
    return {**networks, **{'reference, {}'.format(size): in_batches(size) for size in REFERENCE_BATCHES}}


def describe_networks(seconds, n):
    """Lines of text: pictures a second, and the ratios to the reference, whose names tell its batches."""
    row = '{:13s} {:>9} {:>9} {:>12}'
    lines = [row.format('', 'min s', 'median s', 'pictures/s')]
    for name, times in seconds.items():
        lines.append(row.format(
            name, '%.3f' % min(times), '%.3f' % statistics.median(times), '%.2f' % (n / min(times))))
    references = {name: times for name, times in seconds.items() if name != 'chainer'}
    if not references:
        return [*lines, 'the reference is not installed here: make parity, then .venv-parity/bin/python']
    for name, times in references.items():
        ratios = [a / b for a, b in zip(seconds['chainer'], times, strict=True)]
        lines.append("time of chainer / time of {}: {:.3f} (of minima), {:.3f} (median of the rounds' ratios)".format(
            name, min(seconds['chainer']) / min(times), statistics.median(ratios)))
    return lines


def time_distances(n):
    """Seconds of each part of FID and KID of ``n`` pictures against ``N_REAL``, with features like the network's."""
    rng = np.random.RandomState(0)
    mix = rng.normal(size=(N_FEATURES, N_FEATURES)).astype('f') / np.sqrt(N_FEATURES)
    fake, real = (np.maximum(rng.normal(size=(size, N_FEATURES)).astype('f') @ mix, 0) for size in (n, N_REAL))
    of_fake, of_real = metrics.statistics(fake), metrics.statistics(real)
    tasks = {
        'statistics of {}'.format(n): lambda: metrics.statistics(fake),
        'statistics of {}'.format(N_REAL): lambda: metrics.statistics(real),
        'Frechet distance': lambda: metrics.frechet_distance(*of_fake, *of_real),
        'kernel distance, 100 x 1000': lambda: metrics.kernel_distance(fake, real, 100, min(1000, n, N_REAL))}
    return {name: min(times) for name, times in measure(tasks, 1).items()}


def score_in_this_process(n):
    """Score ``n`` pictures as a run does, and print the seconds and the largest memory of the process."""
    network, protocol = Inception.from_weights(random_weights()), resolve().protocol
    features = np.random.RandomState(1).uniform(size=(N_REAL, N_FEATURES)).astype('f')
    reference = Reference('', features, *metrics.statistics(features))
    start = time.perf_counter()
    chunks = (random_pictures(CHUNK)[:n - i] for i in range(0, n, CHUNK))
    score(*look(network, chunks, n, 'scoring'), reference, 1, protocol)
    seconds = time.perf_counter() - start
    print('scoring {} pictures: {:.0f} s, {:.2f} pictures/s, at most {:.2f} GiB of memory'.format(
        n, seconds, n / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20))


def main(argv=None):
    parser = Parser(prog='python -m benchmarks.scoring', description='Time the scoring of pictures on the CPU.')
    parser.add_argument('--pictures', type=int, default=64, help='pictures a round (default: 64)')
    parser.add_argument('--rounds', type=int, default=5, help='how often the networks are timed (default: 5)')
    parser.add_argument('--samples', type=int, default=5000,
                        help="generated pictures of the distances and of the whole (default: 5000, the paper's)")
    parser.add_argument('--only-whole', action='store_true', help='only score --samples pictures, in this process')
    args = parser.parse_args(argv)
    for flag, least in (('pictures', 1), ('rounds', 1), ('samples', 2)):
        if getattr(args, flag) < least:
            parser.error('--{} must be at least {}, not {}'.format(flag, least, getattr(args, flag)))
    if args.only_whole:
        return score_in_this_process(args.samples)
    print('\n'.join(describe_machine()))
    print('network:  {} pictures of 32x32, {} classes; {} rounds after one to warm up\n'.format(
        args.pictures, N_CLASSES, args.rounds), flush=True)
    images = random_pictures(args.pictures)
    tasks = {name: lambda network=network: network(images)
             for name, network in make_networks(random_weights()).items()}
    print('\n'.join(describe_networks(measure(tasks, args.rounds), args.pictures)) + '\n', flush=True)
    for name, seconds in time_distances(args.samples).items():
        print('{:28s} {:6.2f} s'.format(name, seconds), flush=True)
    print(flush=True)
    # In a process of its own, so that the memory is that of scoring alone
    return subprocess.run([sys.executable, '-m', 'benchmarks.scoring', '--only-whole', '--samples', str(args.samples)],
                          check=False).returncode


if __name__ == '__main__':
    sys.exit(run_command(main))
