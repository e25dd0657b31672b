"""How long an iteration, a generator step and n_dis discriminator steps, takes on a GPU: Chainer and PyTorch.

    python -m benchmarks.gpu_step [--model cnn] [--batchsize 64] [--n-dis 5] [--rounds 5] [--out results/gpu-step.txt]

``make gpu-check`` runs it after the tests that need a GPU. Each variant (``benchmarks.gpu_cases``) has a process of its
own: its memory, its engine and its libraries are its alone. They begin to work one after the other, so that nothing
disturbs whoever tries out algorithms; in each round they take turns, and none works while another does. Times are the
device's, from event to event. Before, a few iterations from equal numbers say whether a variant computes what the
others do. What is not installed, or fails, is a row that says why. ``--device -1`` is for tests.
"""
import argparse
import contextlib
import functools
import sys
import time

from benchmarks import gpu_cases, gpu_rates, gpu_tables
from benchmarks.workers import Unavailable, Worker
from util.cli import Parser, path, run_command
from util.files import UserError, atomic_write

PARTS = ('kernels', 'rates')
END = 'end'
MOST = 400  # iterations of a turn
PATIENCE = 120  # seconds for what should take one or two
TRACING = 25  # seconds, after the limit, for what is not time but kernels


class Session:
    """The processes of some variants, and what is known of each.

    Args:
        args (argparse.Namespace): The command line.
        stack (contextlib.ExitStack): The processes end with it.
        say (callable): Is told how it goes.

    """

    def __init__(self, args, stack, say):
        self.args, self.say, self.begin = args, say, time.perf_counter()
        self.rows = {name: gpu_tables.Row() for name in args.variants}
        self.configs = {normalized: gpu_cases.resolve(
            args.model, normalized, args.width, args.batchsize, args.n_dis, args.size,
            'cpu' if args.device == '-1' else 'cuda') for normalized in (True, False)}
        self.measuring = stack.enter_context(Worker('rates', args.device, maker='benchmarks.gpu_rates'))
        self.workers = {}
        for name, row in self.rows.items():
            variant = gpu_cases.VARIANTS[name]
            if args.device == '-1' and variant.gpu_only:
                row.problem = 'needs a GPU'
                continue
            self.workers[name] = stack.enter_context(Worker(
                name, self.configs[variant.normalized], args.pictures, args.device, maker=variant.maker))

    def elapsed(self):
        return time.perf_counter() - self.begin

    def ask(self, name, task, *arguments, timeout=PATIENCE):
        """What a variant's process answers; ``None``, and the variant takes no further part, if it cannot.

        The task ``None`` is to be ready, the task ``END`` what it has begun.
        """
        problem = answer = None
        try:
            if task is None:
                self.workers[name].wait(timeout)
            elif task == END:
                problem, answer = self.workers[name].end(timeout)
            else:
                problem, answer = self.workers[name].run(task, *arguments, timeout=timeout)
        except (Unavailable, UserError) as error:
            problem = str(error)
        if problem:
            self.rows[name].problem = problem
            self.workers.pop(name).__exit__()
            self.say('{} takes no further part: {}'.format(name, problem))
        return answer

    def measure(self, task):
        """What the process that measures the device answers, or ``None``."""
        try:
            if task is None:
                return self.measuring.wait(PATIENCE)
            problem, answer = self.measuring.run(task, timeout=PATIENCE)
        except (Unavailable, UserError) as error:
            problem, answer = str(error), None
        if problem:
            self.say('the device: ' + problem)
        return answer

    def check(self):
        """Let each variant begin, and compare its numbers with the reference's."""
        from benchmarks import gpu_start  # now, and not above: PyTorch's processes import this module, and not Chainer
        images = gpu_cases.random_images(self.args.pictures, self.args.size)
        used = {gpu_cases.VARIANTS[name].normalized for name in self.workers}
        starts = {normalized: gpu_start.make_start(self.configs[normalized], images, gpu_cases.CHECKED)
                  for normalized in used}
        references = {}
        for name in list(self.workers):
            variant, row = gpu_cases.VARIANTS[name], self.rows[name]
            if self.elapsed() > self.args.limit:
                row.problem = 'no time was left'
                self.workers.pop(name).__exit__()
                continue
            before = self.elapsed()
            patience = PATIENCE
            if 'compile' in variant.options:
                patience = min(self.args.compile_limit, self.args.limit - before)
            result = self.ask(name, 'check', starts[variant.normalized], timeout=patience)
            if result is None:
                continue
            row.memory = result['memory']
            reference = gpu_cases.REFERENCE if variant.normalized else gpu_cases.REFERENCE_NONE
            if name == reference:
                references[variant.normalized] = result
            if variant.normalized in references:
                row.check = gpu_cases.compare(result, references[variant.normalized],
                                              starts[variant.normalized]['weights'], variant.precision)
            self.say('{}: {} ({:.1f} s)'.format(name, row.check, self.elapsed() - before))

    def take_turns(self):
        """Time all that work, in rounds; as many as there is time for, and one at least."""
        for i in range(self.args.rounds):
            if i and self.elapsed() > self.args.limit:
                self.say('after {} of {} rounds no time was left'.format(i, self.args.rounds))
                break
            for name in list(self.workers):
                turn = self.ask(name, 'turn', self.args.seconds, MOST)
                if turn is not None:
                    self.rows[name].ms += turn['ms']
                    self.rows[name].walls.append(turn['wall'])

    def count_kernels(self):
        """Have the kernels of each counted. All import what traces them at once, and then take turns."""
        for worker in self.workers.values():
            worker.begin('can_trace')
        can = [name for name in list(self.workers) if self.ask(name, END)]
        for name in can:
            if self.elapsed() > self.args.limit + TRACING:
                self.say('no time was left to count more kernels')
                break
            self.rows[name].kernels = self.ask(name, 'count', timeout=TRACING)


def work_of(config):
    """Multiply-adds of an iteration: each step's forward passes and gradients, as far as it needs them."""
    from benchmarks import counts
    steps = counts.count(config)
    return steps['G'] + config.setting.n_dis * steps['D']


def make_parser():
    parser = Parser(prog='python -m benchmarks.gpu_step', description=__doc__.partition('\n\n')[0],
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--model', default='cnn', choices=gpu_cases.METHODS, help='the networks')
    parser.add_argument('--batchsize', '-b', type=int, default=64, help='pictures a step')
    parser.add_argument('--n-dis', type=int, default=5, help='discriminator steps an iteration')
    parser.add_argument('--rounds', type=int, default=5, help='how often each takes a turn')
    parser.add_argument('--seconds', type=float, default=0.3, help='of a turn, about')
    parser.add_argument('--variants', nargs='+', default=list(gpu_cases.DEFAULT), choices=gpu_cases.VARIANTS,
                        help='what is timed')
    parser.add_argument('--without', nargs='+', default=[], choices=(*gpu_cases.VARIANTS, *PARTS),
                        help='what is left out: variants, counting kernels, the rates of products of matrices')
    parser.add_argument('--width', type=int, default=64, help="width of the networks; the paper's is 64")
    parser.add_argument('--size', type=int, default=32, help='height and width of the pictures')
    parser.add_argument('--pictures', type=int, default=50000, help='how many there are')
    parser.add_argument('--limit', type=float, default=140, help='seconds after which no further round begins')
    parser.add_argument('--compile-limit', type=float, default=60, help='seconds that torch.compile may take')
    parser.add_argument('--device', '-d', default='0', help='the number of a GPU; -1: the CPU, for tests')
    parser.add_argument('--out', type=path, help='a file for the table, besides')
    return parser


def parse(argv):
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.pictures < 1:
        parser.error('--rounds and --pictures must be at least 1')
    args.variants = [name for name in gpu_cases.VARIANTS if name in args.variants and name not in args.without]
    if not args.variants:
        parser.error('--without: nothing is left')
    from util.device import get_device, kind
    device = get_device(args.device)  # or a line that says why not
    args.device = '-1' if kind(device) == 'cpu' else device.name.rpartition(':')[2]
    return args


def main(argv=None):
    args = parse(argv)
    say = functools.partial(print, file=sys.stderr, flush=True)
    with contextlib.ExitStack() as stack:
        session = Session(args, stack, say)
        config = session.configs[True]
        session.measure(None)
        for name in list(session.workers):
            session.ask(name, None)
        name, cuda = session.measure('describe') or ('unknown', None)
        session.check()
        rates = {} if 'rates' in args.without else session.measure('rates') or {}
        session.take_turns()
        if 'kernels' not in args.without:
            session.count_kernels()
    head = ['python -m benchmarks.gpu_step ' + ' '.join(sys.argv[1:] if argv is None else argv),
            '{}: {}; {:.0f} s in all'.format(gpu_rates.today(), name, session.elapsed()),
            'versions: ' + gpu_rates.describe_versions(cuda),
            'model {}, method {}, setting {}; width {}, batch {}, n_dis {}, {}x{}; {} rounds'.format(
                args.model, config.method.name, gpu_cases.SETTINGS[args.model], args.width, args.batchsize, args.n_dis,
                args.size, args.size, args.rounds)]
    lines = [*head, '', *gpu_tables.describe(session.rows, work_of(config), rates), '', *gpu_tables.LEGEND]
    text = '\n'.join(line.rstrip() for line in lines) + '\n'
    if args.out:
        with atomic_write(args.out) as temporary, open(temporary, 'w', encoding='utf-8') as f:
            f.write(text)
    print(text, end='')
    if not any(row.ms for row in session.rows.values()):
        raise UserError('no variant could be timed')


if __name__ == '__main__':
    sys.exit(run_command(main))
