"""How long a discriminator step and a generator step take on the CPU, and how close that is to what the machine can do.

    python -m benchmarks.cpu_step [--width 64] [--batchsize 64] [--size 32] [--rounds 5] [--model cnn]

The steps are those of a run (``util.updater.GANUpdater``), with spectral normalization (``sn``) and without (``none``).
Each round times all four of them and a product of two large float32 matrices, so that whatever slows the machine meets
all alike. The rate of that product (sgemm) is what steps are measured against; only ratios compare between machines.
"""
import statistics
import sys

from benchmarks.timing import describe_machine, measure  # isort: skip  (before Chainer, which needs util.compat)

import chainer
import chainer.links as L
import numpy as np

from util import config, trainer
from util.cli import Parser, run_command

METHODS = ('sn', 'none')
SGEMM_SIZE = 2048  # rows and columns: 17 GFLOP, large enough for the full rate
N_DIS = 5  # discriminator steps an iteration, for the summary


class CountMultiplyAdds(chainer.LinkHook):
    """Link hook: multiply-adds of the convolutions and dense layers that are called under it.

    ``counts`` maps a layer's name to a number. Each output of a convolution or of a dense layer is a sum of as many
    products as one of its filters has weights; a deconvolution multiplies each input by as many. Biases, activations,
    batch normalization and the power iteration are not counted: beside these products they are small.
    """

    name = 'CountMultiplyAdds'

    def __init__(self):
        self.counts = {}

    def forward_postprocess(self, args):
        link = args.link
        if isinstance(link, (L.Convolution2D, L.Linear)):
            self.counts[link.name] = args.out.size * int(np.prod(link.W.shape[1:]))
        elif isinstance(link, L.Deconvolution2D):
            self.counts[link.name] = args.args[0].size * int(np.prod(link.W.shape[1:]))


def count_layers(network, shape):
    """Count the multiply-adds of one forward pass.

    Args:
        network (chainer.Chain): A generator or a discriminator.
        shape (tuple of int): Of its input: (N, dim_z) or (N, 3, H, W).

    Returns:
        dict: Layer's name -> multiply-adds, in the order of the calls.

    """
    counter = CountMultiplyAdds()
    # One example is enough, and in test mode neither u nor the batch statistics move
    with chainer.using_config('train', False), chainer.no_backprop_mode(), counter:
        network(np.zeros((1, *shape[1:]), 'f'))
    return {name: shape[0] * count for name, count in counter.counts.items()}


def count_steps(generator, discriminator):
    """Count the multiply-adds of both kinds of step from those of each layer's forward pass.

    The gradient of a layer's weight costs as much as its forward pass, and so does that of its input. No step needs all
    of them (see ``util/updater.py``).

    Args:
        generator, discriminator (dict): What :func:`count_layers` returns.

    Returns:
        dict: ``'D'`` and ``'G'`` -> multiply-adds.

    """
    g, d = sum(generator.values()), sum(discriminator.values())
    first_of_g, first_of_d = next(iter(generator.values())), next(iter(discriminator.values()))
    return {
        # Fakes; then real and fake: forward and both gradients, but none of the pictures
        'D': g + 2 * (3 * d - first_of_d),
        # G forward and both gradients, but none of z; D forward and the gradients of its inputs
        'G': 3 * g - first_of_g + 2 * d,
    }


def make_parts(args, method):
    """Networks and updater of a run of the paper profile, on random pictures."""
    overrides = ['model.width={}'.format(args.width), 'dataset.size={}'.format(args.size)]
    resolved = config.resolve('cifar10', args.model, method, overrides=overrides, batchsize=args.batchsize)
    shape = (4 * args.batchsize, 3, args.size, args.size)
    images = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    return trainer.build(resolved, chainer.get_device('@numpy'), images)


def make_tasks(parts):
    """What each round times: name -> callable."""
    a = np.random.RandomState(0).rand(SGEMM_SIZE, SGEMM_SIZE).astype('f')
    b, out = a.T.copy(), np.empty_like(a)
    tasks = {'sgemm': lambda: np.dot(a, b, out=out)}
    for method, part in parts.items():
        tasks['D, ' + method] = lambda updater=part.updater: updater.update_discriminator(0)
        tasks['G, ' + method] = part.updater.update_generator
    return tasks


def describe_times(seconds, work):
    """Lines of text: a table of the times, then the ratios.

    Args:
        seconds (dict): What :func:`benchmarks.timing.measure` returns.
        work (dict): ``'sgemm'``, ``'D'`` and ``'G'`` -> multiply-adds.

    """
    row = '{:8s} {:>9} {:>9} {:>14} {:>9} {:>9}'
    lines = [row.format('', 'min s', 'median s', '10^9 mult-adds', 'GFLOP/s', 'of sgemm')]
    sgemm = work['sgemm'] / min(seconds['sgemm'])
    for name, times in seconds.items():
        count = work[name.partition(',')[0]]
        rate = count / min(times)
        lines.append(row.format(name, '%.4f' % min(times), '%.4f' % statistics.median(times), '%.4f' % (1e-9 * count),
                                '%.2f' % (2e-9 * rate), '%.3f' % (rate / sgemm)))
    lines.append('')
    for step in 'DG':
        sn, none = seconds[step + ', sn'], seconds[step + ', none']
        ratios = [a / b for a, b in zip(sn, none, strict=True)]
        lines.append('{} step, sn / none: {:.3f} (of minima), {:.3f} (median of the rounds\' ratios)'.format(
            step, min(sn) / min(none), statistics.median(ratios)))
    iteration = min(seconds['G, sn']) + N_DIS * min(seconds['D, sn'])
    lines.append('one iteration, sn, n_dis {}: {:.3f} s; 50,000 of them: {:.1f} h'.format(
        N_DIS, iteration, iteration * 50000 / 3600))
    return lines


def main(argv=None):
    parser = Parser(prog='python -m benchmarks.cpu_step', description='Time D and G steps on the CPU beside sgemm.')
    parser.add_argument('--width', type=int, default=64, help="width of the networks (default: 64, the paper's)")
    parser.add_argument('--batchsize', '-b', type=int, default=64, help='pictures a step (default: 64)')
    parser.add_argument('--size', type=int, default=32, help='height and width of the pictures (default: 32)')
    parser.add_argument('--rounds', type=int, default=5, help='how often everything is timed (default: 5)')
    parser.add_argument('--model', default='cnn', help='a row of configs/models.yml (default: cnn)')
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error('--rounds must be at least 1, not {}'.format(args.rounds))
    parts = {method: make_parts(args, method) for method in METHODS}
    generator, discriminator = parts['none'].generator, parts['none'].discriminator
    work = {'sgemm': SGEMM_SIZE ** 3,
            **count_steps(count_layers(generator, (args.batchsize, generator.dim_z)),
                          count_layers(discriminator, (args.batchsize, 3, args.size, args.size)))}
    print('\n'.join(describe_machine()))
    print('steps:    model {}, width {}, batch {}, {}x{}; {} rounds after one to warm up; sgemm of {}x{}\n'.format(
        args.model, args.width, args.batchsize, args.size, args.size, args.rounds, SGEMM_SIZE, SGEMM_SIZE), flush=True)
    print('\n'.join(describe_times(measure(make_tasks(parts), args.rounds), work)))


if __name__ == '__main__':
    sys.exit(run_command(main))
