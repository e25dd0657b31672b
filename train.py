#!/usr/bin/env python3
"""Train one GAN: a row of each of configs/*.yml, and what the flags change. ``python train.py --help``"""
import os
import re
import sys

from util import compat, config, rundir, trainer
from util.cli import Parser, path, run_command
from util.device import get_device, kind
from util.engine.switch import HELP, using_engine
from util.environment import last_engine
from util.files import UserError


def make_parser():
    parser = Parser(description='Train one GAN. The same command again goes on with a run that was broken off.')
    row = parser.add_argument_group('what to run (rows of configs/)')
    row.add_argument('--profile', default='auto',
                     help='paper, quick, or auto: paper where a GPU answers, else quick (default: auto)')
    row.add_argument('--dataset', help="cifar10, stl10, imagenet, digits, folder (default: the profile's)")
    row.add_argument('--model', default='cnn',
                     help='cnn (paper, Table 3), sndcgan, resnet ...: configs/models.yml (default: cnn)')
    row.add_argument('--method', default='sn', help='sn, none, wgan_gp ...: configs/methods.yml (default: sn)')
    row.add_argument('--setting',
                     help="default, A to F of paper Table 1, resnet, imagenet, quick (default: the profile's)")
    row.add_argument('--protocol', help="how scores are taken: paper, 50k, imagenet, quick (default: the profile's)")
    row.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE',
                     help='override a key of a row; may be repeated')
    row.add_argument('--seed', type=int, default=0, help='all random numbers are functions of it (default: 0)')
    row.add_argument('--iterations', type=int, help="generator updates (default: the profile's)")
    row.add_argument('--batchsize', '-b', type=int, help="pictures a step (default: the profile's)")
    row.add_argument('--snapshot-interval', type=int, help="iterations between two snapshots (default: the profile's)")
    row.add_argument('--evaluation-interval', type=int,
                     help="iterations between two grids, generators and scores (default: the profile's)")
    row.add_argument('--display-interval', type=int,
                     help="iterations between two lines of the log (default: the profile's)")
    run = parser.add_argument_group('how to run it')
    run.add_argument('--device', '-d', default=None, help='auto, cpu (or -1), or the number of a GPU (default: auto)')
    run.add_argument('--engine', default='auto', help=HELP)
    run.add_argument('--capture', default='auto', choices=('auto', 'no'),
                     help='on a GPU, have each iteration in one CUDA graph, where the engine can be captured (default: '
                          'auto), or not (no)')
    run.add_argument('--gpu', '-g', default=None, help='deprecated: use --device')
    run.add_argument('--out', '-o', type=path,
                     help='directory of the run (default: results/runs/<dataset>-<model>-<method>-<setting>-s<seed>)')
    run.add_argument('--tag', help="added to the default directory's name, for runs that --set sets apart")
    run.add_argument('--resume', '-r', metavar='SNAPSHOT', type=path,
                     help="go on from this snapshot (default: the run's newest)")
    run.add_argument('--data-dir', type=path,
                     help='the folder of pictures (folder, imagenet), or a copy of the archive (cifar10, stl10)')
    run.add_argument('--scorer', help="which network scores the snapshots, or none (default: the data set's)")
    run.add_argument('--probe', type=int, metavar='N',
                     help='iterations between two looks at the discriminator, for figures, which change nothing; '
                          '0: none (default: as between two snapshots)')
    run.add_argument('--tensorboard', action='store_true',
                     help="write the log and the grids of samples for TensorBoard, too, into the run's tensorboard/")
    run.add_argument('--dry-run', action='store_true', help='print the resolved Config and stop')
    return parser


def _dashes(argv):
    """Chainer's examples spell flags with ``_``; both are accepted."""
    def flag(word):
        name, equals, value = word.partition('=')
        return name.replace('_', '-') + equals + value if word.startswith('--') else word
    return [flag(word) for word in argv]


def main(argv=None):
    args = make_parser().parse_args(_dashes(sys.argv[1:] if argv is None else argv))
    if args.gpu is not None:
        print('--gpu is deprecated, use --device', file=sys.stderr)
    device = get_device(args.device or args.gpu or 'auto')
    profile = args.profile
    if profile == 'auto':
        profile = 'paper' if kind(device) == 'cuda' else 'quick'
    resolved = config.resolve(
        args.dataset, args.model, args.method, args.setting, profile, args.set, args.seed, kind(device),
        args.protocol, iterations=args.iterations, batchsize=args.batchsize, snapshot_interval=args.snapshot_interval,
        evaluation_interval=args.evaluation_interval, display_interval=args.display_interval)
    if args.tag and not re.fullmatch(r'[\w.+=-]+', args.tag):
        raise UserError('--tag must be of letters, digits and _ . + = -, not {!r}'.format(args.tag))
    if args.probe is not None and args.probe < 0:
        raise UserError('--probe must be at least 0, not {}'.format(args.probe))
    if args.dry_run:
        print(resolved.to_yaml(), end='')
        return 0
    if args.profile == 'auto':
        print_profile(profile)
    directory = rundir.RunDirectory(args.out or rundir.default_path(resolved, args.tag))
    print('Run: {}'.format(os.path.relpath(directory.path)), flush=True)
    # A run goes on with the engine that it has, so that it ends with the same bits
    with using_engine(args.engine, last_engine(directory), device, say):
        return trainer.train(resolved, device, directory, args.data_dir, args.scorer, args.resume, say,
                             args.capture, args.probe, args.tensorboard)


def print_profile(profile):
    """Say which profile ``auto`` chose, why, and how to have the other."""
    if profile == 'quick':
        print("*** PROFILE quick: no GPU is used ({}). Small networks, minutes, NOT the paper's experiment. "
              "For that one: PROFILE=paper ***".format(compat.gpu_problem() or 'the CPU was asked for'), flush=True)
    else:
        print("*** PROFILE paper: a GPU answers; this is the paper's experiment. For minutes: PROFILE=quick ***",
              flush=True)


def say(line):
    print(line, flush=True)


if __name__ == '__main__':
    sys.exit(run_command(main))
