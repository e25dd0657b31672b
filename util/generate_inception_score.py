"""Scores of snapshots: a Trainer extension, and a command that scores the generators of any run again.

    python -m util.generate_inception_score RUN [--scorer NAME] [--protocol NAME] [--iteration N ...]

Which network scores is a matter of ``util/scorer.py``; only what the Inception network gave is called an Inception
Score. How many pictures are taken, and what they are compared with, is a row of ``configs/protocols.yml``.
"""
import sys

import chainer
from tqdm import tqdm

from util import dataset
from util.cli import Parser, path, run_command
from util.config import protocol_label, resolve
from util.device import get_device
from util.engine.switch import HELP, using_engine
from util.environment import check_data, last_engine
from util.files import UserError
from util.generate_fake_image import generate_chunks, load_generator
from util.reference import load_reference
from util.rundir import Lock, RunDirectory
from util.scorer import CHUNK, load_scorer, look, score
from util.scores import ScoreTable


class RunScorer:
    """Scores generators of one run against its data; the network and the real pictures are looked at once.

    Args:
        scorer: See ``util/scorer.py``.
        config (Config): The run's.
        protocol (util.config.Row): The row of ``configs/protocols.yml`` to follow.
        reference (Reference): The real pictures to compare with.

    """

    def __init__(self, scorer, config, protocol, reference):
        self.scorer, self._config, self._protocol, self._reference = scorer, config, protocol, reference
        self._label = protocol_label(protocol)

    def __call__(self, generator, iteration, full):
        """Score a generator: a row of ``scores.csv``. The same generator always gets the same score.

        Args:
            generator (chainer.Chain): The generator.
            iteration (int): Its iteration.
            full (bool): Take the protocol's whole number of pictures, as for a run's last generator, and not only the
                number that it has for those in between.

        """
        protocol = self._protocol
        n, n_splits = ((protocol.samples, protocol.splits) if full else
                       (protocol.training_samples, protocol.training_splits))
        chunks = generate_chunks(generator, n, self._config.seed, iteration, 'z of score', CHUNK)
        result = score(*look(self.scorer, chunks, n, 'scoring'), self._reference, n_splits, protocol)
        return {'iteration': iteration, 'scorer': self.scorer.name, 'weights': self.scorer.fingerprint[:8],
                'protocol': self._label, **vars(result), 'reference': self._reference.name}


class GenerateInceptionScore(chainer.training.Extension):
    """Trainer extension: scores the generator, adds to ``scores.csv``, and reports ``score/mean``, ``score/std``,
    ``score/frechet`` and ``score/kernel``.

    Args:
        generator (chainer.Chain): The generator in training.
        scorer (RunScorer): What scores it.
        directory (RunDirectory): Where ``scores.csv`` is.
        last (int): The iteration whose generator is scored with the protocol's whole number of pictures.

    """

    priority = chainer.training.extension.PRIORITY_WRITER

    def __init__(self, generator, scorer, directory, last):
        self._generator, self._scorer, self._last = generator, scorer, last
        self.table = ScoreTable(directory.file('scores.csv'))

    def initialize(self, trainer):
        self.table.drop_after(trainer.updater.iteration)  # a resumed run makes the later ones again

    def __call__(self, trainer):
        iteration = trainer.updater.iteration
        row = self._scorer(self._generator, iteration, full=iteration == self._last)
        self.table.put(row)
        chainer.report({'score/mean': row['score_mean'], 'score/std': row['score_std'],
                        'score/frechet': row['frechet_distance'], 'score/kernel': row['kernel_distance']})


def make_run_scorer(scorer, config, pictures, data_dir=None, protocol=None, say=print):
    """Put together what scores the generators of a run.

    Args:
        scorer: What :func:`util.scorer.load_scorer` returned.
        config (Config): The run's.
        pictures (Pictures): The training data, used when that is what scores compare with.
        data_dir (str or None): As in training.
        protocol (util.config.Row or None): ``None``: the run's own.
        say (callable): Gets lines for the user.

    Returns:
        RunScorer or None: ``None`` when there is no scorer.

    Raises:
        UserError: The real pictures to compare with cannot be loaded, or are too few.

    """
    if scorer is None:
        return None
    protocol = protocol or config.protocol
    split = dataset.split_name(config.dataset, protocol.reference)
    if split != dataset.split_name(config.dataset, config.dataset.split):
        pictures = dataset.load(config.dataset, split=split, data_dir=data_dir)
    reference = load_reference(scorer, pictures, split, protocol.reference_samples, say)
    return RunScorer(scorer, config, protocol, reference)


def parse(argv=None):
    """Read the command line."""
    parser = Parser(prog='python -m util.generate_inception_score',
                    description='Score the generators of a run again.')
    parser.add_argument('run', type=path, help='directory of a run, such as results/runs/digits-cnn-sn-default-s0')
    parser.add_argument('--scorer', help="which network scores (default: the data set's)")
    parser.add_argument('--protocol', help="a row of configs/protocols.yml (default: the run's)")
    parser.add_argument('--iteration', type=int, nargs='+', help='which generators (default: all that the run kept)')
    parser.add_argument('--full', action='store_true',
                        help="take the protocol's whole number of pictures for all, not only for the run's last")
    parser.add_argument('--device', '-d', default='auto', help='auto, cpu, or the number of a GPU (default: auto)')
    parser.add_argument('--engine', default='auto', help=HELP)
    parser.add_argument('--data-dir', type=path, help='the real pictures, as in training')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    directory = RunDirectory(args.run)
    config = directory.load_config()
    device = get_device(args.device)
    protocol = resolve(protocol=args.protocol).protocol if args.protocol else config.protocol
    iterations = _choose(directory, args.iteration)
    device.use()
    name = args.scorer or config.dataset.scorer
    scorer = load_scorer(name, device)
    if scorer is None:
        raise UserError('--scorer none: there is nothing to do' if args.scorer else
                        '--scorer: the data set {} has none of its own; name one'.format(config.dataset.name))
    pictures = dataset.load(config.dataset, split=config.dataset.split, data_dir=args.data_dir)
    check_data(directory, pictures)
    run_scorer = make_run_scorer(scorer, config, pictures, args.data_dir, protocol)
    with Lock(directory), using_engine(args.engine, last_engine(directory), device, print):
        table = ScoreTable(directory.file('scores.csv'))
        for iteration in tqdm(iterations, desc='snapshots', unit='snapshot', disable=None):
            generator, _ = load_generator(directory, iteration, device)
            table.put(run_scorer(generator, iteration, args.full or iteration == config.profile.iterations))
    print_scores(table, scorer, protocol_label(protocol))


def _choose(directory, wanted):
    """The iterations to score; all that the run kept unless some are wanted."""
    kept = directory.iterations('gen')
    missing = sorted(set(wanted or kept) - set(kept))
    if not kept or missing:
        raise UserError('{} has no gen_iter_*.npz{}'.format(
            directory.path, ' of ' + ', '.join(map(str, missing)) if missing else ' yet'))
    return wanted or kept


def print_scores(table, scorer, protocol):
    """Print what a scorer gave to the generators of a run under a protocol."""
    print('{}; protocol {}'.format(scorer.describe(), protocol))
    for row in table.rows:
        if (row['scorer'], row['weights'], row['protocol']) == (scorer.name, scorer.fingerprint[:8], protocol):
            print('iteration {iteration:6d}  score {score_mean:6.3f} +- {score_std:.3f} ({samples} / {splits})  '
                  'Frechet distance {frechet_distance:.3f}, kernel distance {kernel_distance:.5f} +- '
                  '{kernel_distance_std:.5f} ({distance_samples} against {reference})'.format(**row))


if __name__ == '__main__':
    sys.exit(run_command(main))
