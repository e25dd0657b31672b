"""How long 100 generator updates take by method, with all their discriminator updates: the paper's Figure 10.

    python -m benchmarks.methods [--profile auto] [--dataset NAME] [--model cnn] [--setting default]
                                 [--methods none weight_norm sn wgan_gp] [--device auto] [--engine auto] [--rounds 5]
                                 [--updates N] [--out results/timing.csv]

``make timing`` runs it, ``make figures`` draws what it writes. The updates are those of a run
(``util.updater.GANUpdater``), on random pictures of the data set's size, so that nothing is fetched. All methods are
built side by side, and take turns in every round, so that whatever slows the machine meets all alike. Only ratios
compare between machines. Nothing is scored, drawn or saved in between.
"""
from util import trainer  # isort: skip  (before Chainer, which needs util.compat)

import argparse
import functools
import sys

import numpy as np

from benchmarks import tables
from benchmarks.cases import random_images
from benchmarks.timing import measure
from util import compat, config, timings
from util.cli import Parser, path, run_command
from util.device import get_device, kind
from util.engine.switch import HELP, current, using_engine
from util.engine.threads import n_threads
from util.environment import commit, device_name, now
from util.files import UserError

PLAIN = 'none'  # what the others are compared with
METHODS = (PLAIN, 'weight_norm', 'sn', 'wgan_gp')
UPDATES = {'quick': 10}  # generator updates a turn; 100 in other profiles
PAUSE = 0.1  # seconds before each turn: threads ask for work a while before they sleep


def make_turn(resolved, device, updates):
    """Build a method's networks, and make what carries out its turn.

    Args:
        resolved (Config): What is trained.
        device (chainer.backend.Device): Where; it is waited for at the end of a turn.
        updates (int): Generator updates a turn.

    Returns:
        callable: Takes nothing.

    """
    images = random_images(resolved)
    labels = np.arange(len(images), dtype='i') % max(resolved.dataset.n_classes, 1)
    updater = trainer.build(resolved, device, images, labels).updater

    def turn():
        for _ in range(updates):
            updater.update()
        if kind(device) == 'cuda':  # pragma: no cover - gpu
            device.xp.cuda.get_current_stream().synchronize()
    return turn


def describe(configs, seconds, updates, device):
    """The rows of a measurement.

    Args:
        configs (dict): Method -> Config.
        seconds (dict): Method -> times of its turns, one a round.
        updates (int): Generator updates a turn.
        device (chainer.backend.Device): Where.

    Returns:
        list of dict: By ``util.timings.COLUMNS``.

    """
    versions = ', '.join('{} {}'.format(*pair) for pair in compat.versions().items() if pair[1])
    about = {'updates_timed': updates, 'device': device_name(device), 'commit': commit() or 'unknown', 'date': now(),
             'engine': current() if kind(device) == 'cpu' else 'cuda', 'threads': n_threads(), 'versions': versions}
    rows = []
    for method, times in seconds.items():
        c, (ratio, median_ratio) = configs[method], tables.ratios(times, seconds[PLAIN])
        rows.append({
            **about, **{section: getattr(c, section).name for section in ('dataset', 'model', 'setting', 'profile')},
            'size': c.dataset.size, 'batchsize': c.profile.batchsize, 'width': c.model.width, 'n_dis': c.setting.n_dis,
            'method': method, 'seconds_per_100': 100 / updates * min(times),
            'median_seconds_per_100': 100 / updates * float(np.median(times)), 'ratio': ratio,
            'median_ratio': median_ratio, 'rounds': len(times)})
    return rows


def make_parser():
    parser = Parser(prog='python -m benchmarks.methods', description=__doc__.partition('\n\n')[0],
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--profile', default='auto',
                        help='paper, quick, or auto: paper where a GPU answers, else quick')
    parser.add_argument('--dataset', help="whose size of pictures; the profile's where none is given")
    parser.add_argument('--model', default='cnn', help='a row of configs/models.yml')
    parser.add_argument('--setting', default='default', help="a row of configs/settings.yml; n_dis is that row's")
    parser.add_argument('--methods', nargs='+', default=list(METHODS),
                        help='rows of configs/methods.yml; {} is always among them'.format(PLAIN))
    parser.add_argument('--device', '-d', default='auto', help='auto, cpu, or the number of a GPU')
    parser.add_argument('--engine', default='auto', help=HELP.removesuffix(' (default: auto)'))
    parser.add_argument('--rounds', type=int, default=5, help='turns of each method, after one to warm up')
    parser.add_argument('--updates', type=int,
                        help='generator updates a turn; 10 in the quick profile, else 100, where none are given')
    parser.add_argument('--out', '-o', type=path, default=timings.PATH, help='CSV file')
    return parser


def main(argv=None):
    parser = make_parser()
    args = parser.parse_args(argv)
    device = get_device(args.device)
    profile = args.profile
    if profile == 'auto':
        profile = 'paper' if kind(device) == 'cuda' else 'quick'
    updates = UPDATES.get(profile, 100) if args.updates is None else args.updates
    for flag, value in (('--rounds', args.rounds), ('--updates', updates)):
        if value < 1:
            raise UserError('{} must be at least 1, not {}'.format(flag, value))
    timings.read_timings(args.out)  # damaged? Better now than after minutes
    say = functools.partial(print, flush=True)
    configs = {method: config.resolve(args.dataset, args.model, method, args.setting, profile, device=kind(device))
               for method in dict.fromkeys([PLAIN, *args.methods])}
    device.use()
    with using_engine(args.engine, None, device):
        say('{} turns of {} generator updates each, by turns, after one to warm up: {}'.format(
            args.rounds, updates, ', '.join(configs)))
        turns = {method: make_turn(c, device, updates) for method, c in configs.items()}
        rows = describe(configs, measure(turns, args.rounds, PAUSE), updates, device)
    timings.put_timings(rows, args.out)
    for row in rows:
        say('{method:24s} {seconds_per_100:8.2f} s for 100 updates, {ratio:.3f} of none ({median_ratio:.3f}, the '
            "median of the rounds' ratios)".format(**row))
    say('written to {}'.format(args.out))


if __name__ == '__main__':
    sys.exit(run_command(main))
