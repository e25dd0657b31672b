"""How long discriminator (D) and generator (G) steps take on the CPU: stock Chainer, this project's engines, PyTorch.

    python -m benchmarks.cpu_step [--cases cnn resnet wgan_gp] [--engines stock numpy onednn pytorch] [--rounds 5]
                                  [--width 64] [--batchsize 64] [--size 32]

``make cpu-benchmark`` runs it in an environment with PyTorch and oneDNN; what is not installed is left out.

Chainer's steps are those of a run (``util.updater.GANUpdater``), PyTorch's do the same (``benchmarks.torch_steps``,
``tests/parity``). Each engine has a process of its own for each network. In each round they take turns, one step at a
time, so that whatever slows the machine meets all alike, and none works while another does. Only ratios compare between
machines. A product of two large float32 matrices (sgemm), timed along with them, says what the machine can do.
"""
import argparse
import contextlib
import functools
import sys

import numpy as np

from benchmarks import cases, tables
from benchmarks.timing import describe_machine, measure
from benchmarks.workers import Unavailable, Worker
from util.cli import Parser, run_command
from util.files import UserError

SGEMM_SIZE = 2048  # rows and columns: 17 GFLOP, large enough for the full rate
PAUSE = 0.1  # seconds before each step: BLAS's and OpenMP's threads ask for work a while before they sleep
CURES = {engine: ' (make cpu-benchmark has it)' for engine in (cases.PYTORCH, *cases.VARIANTS)}


def make_sgemm():
    """A product of two matrices: a callable."""
    a = np.random.RandomState(0).rand(SGEMM_SIZE, SGEMM_SIZE).astype('f')
    b, out = a.T.copy(), np.empty_like(a)
    return lambda: np.dot(a, b, out=out)


def start(stack, engines, config, say):
    """Start a worker for each engine, and wait until they are ready.

    Args:
        stack (contextlib.ExitStack): The workers end with it.
        engines (list of str): Which. Those that cannot be used here are removed.
        config (Config): What is trained.
        say (callable): Is told of these, and why.

    Returns:
        dict: Engine -> Worker.

    Raises:
        UserError: None of the engines can be used.

    """
    workers = {engine: stack.enter_context(Worker(engine, config)) for engine in engines}
    for engine, worker in list(workers.items()):
        try:
            worker.wait()
        except Unavailable as problem:
            say('{} is left out: {}{}'.format(engine, problem, CURES.get(engine, '')))
            engines.remove(engine)
            del workers[engine]
    if not workers:
        raise UserError('--engines: none of them can be used here')
    return workers


def time_case(case, engines, resolve, rounds, say):
    """Time the steps of a case.

    Args:
        case (Case): Which.
        engines (list of str): By which; see :func:`start`.
        resolve (callable): Case and method -> Config.
        rounds (int): How many.
        say (callable): Is told what is left out.

    Returns:
        tuple: Step, or ``'sgemm'``, -> engine -> times, one a round; engine -> the most memory, MiB.

    """
    with contextlib.ExitStack() as stack:
        workers = start(stack, engines, resolve(case, case.method), say)
        named, own = dict(workers), [engine for engine in workers if engine in cases.CHAINER]
        if case.beside and own:  # by the last, which "auto" would take
            beside, = start(stack, own[-1:], resolve(case, case.beside), say).values()
            named['{}, {}'.format(own[-1], case.beside)] = beside
        tasks = {(tables.SGEMM, 'numpy'): make_sgemm()}
        for step in case.steps:
            tasks.update({(step, name): functools.partial(worker.run, step) for name, worker in named.items()})
        seconds = {}
        for (step, name), times in measure(tasks, rounds, PAUSE).items():
            seconds.setdefault(step, {})[name] = times
        return seconds, {engine: worker.peak_memory() for engine, worker in workers.items()}


def make_parser():
    parser = Parser(prog='python -m benchmarks.cpu_step', description=__doc__.partition('\n\n')[0],
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--cases', nargs='+', default=list(cases.CASES), choices=cases.CASES, help='networks')
    parser.add_argument('--engines', nargs='+', default=list(cases.DEFAULT), choices=cases.ENGINES,
                        help='what computes; pytorch-nchw and pytorch-unfused are PyTorch with its default memory '
                             'format and with its default Adam, pytorch-kept with memory kept as the engines keep it')
    parser.add_argument('--width', type=int, default=64, help="width of the networks; the paper's is 64")
    parser.add_argument('--batchsize', '-b', type=int, default=64, help='pictures a step; a G step of the ResNet takes '
                                                                        'twice as many')
    parser.add_argument('--size', type=int, default=32, help='height and width of the pictures')
    parser.add_argument('--rounds', type=int, default=5, help='how often everything is timed, after once to warm up')
    return parser


def main(argv=None):
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error('--rounds must be at least 1, not {}'.format(args.rounds))
    resolve = functools.partial(cases.resolve, width=args.width, batchsize=args.batchsize, size=args.size)
    chosen = {name: cases.CASES[name] for name in dict.fromkeys(args.cases)}
    configs = {name: resolve(case, case.method) for name, case in chosen.items()}
    engines, memory, say = [e for e in cases.ENGINES if e in args.engines], {}, functools.partial(print, flush=True)
    say('\n'.join([*describe_machine(), *tables.LEGEND]))
    for name, case in chosen.items():
        setting, profile = configs[name].setting, configs[name].profile
        say('\n{}: model {}, method {}, setting {}; width {}, batch {}, {}x{}; {} rounds after one to warm up'.format(
            name, *case[:3], args.width, args.batchsize, args.size, args.size, args.rounds))
        seconds, memory[name] = time_case(case, engines, resolve, args.rounds, say)
        from benchmarks import counts  # now, and not above: PyTorch's process imports this module, and not Chainer
        work = {tables.SGEMM: SGEMM_SIZE ** 3, **counts.count(configs[name])}
        say('\n'.join(tables.describe_times(seconds, work, case, setting.n_dis, profile.iterations)))
    say('\n' + '\n'.join(tables.describe_memory(memory)))


if __name__ == '__main__':
    sys.exit(run_command(main))
