"""Scores of snapshots: a Trainer extension, and a command that scores the generators of any run again.

    python -m util.generate_inception_score RUN [--scorer NAME] [--iteration N ...]

Which network scores is a matter of ``util/scorer.py``; only what the Inception network gave is called an Inception
Score.
"""
import sys

import chainer
from tqdm import tqdm

from util import dataset
from util.cli import Parser, run_command
from util.device import get_device
from util.environment import check_data
from util.files import UserError
from util.generate_fake_image import generate, load_generator
from util.rundir import Lock, RunDirectory
from util.scorer import load_scorer, reference_statistics, score
from util.scores import ScoreTable


class RunScorer:
    """Scores generators of one run against its data; the network and the real data's statistics are loaded once.

    Args:
        scorer (Scorer): See ``util/scorer.py``.
        config (Config): The run's; decides number of pictures and the real data to compare with.
        pictures (Pictures): The real ones to compare with.

    """

    def __init__(self, scorer, config, pictures):
        self.scorer, self._config = scorer, config
        self._reference = reference_statistics(scorer, pictures.images)
        self._reference_name = '{} {} {} ({:.8})'.format(
            len(pictures.images), config.dataset.name, config.dataset.score_split, pictures.fingerprint)

    def __call__(self, generator, iteration):
        """Score a generator: a row of ``scores.csv``. The same generator always gets the same score."""
        profile = self._config.profile
        images = generate(generator, profile.score_samples, self._config.seed, iteration, 'z of score')
        result = score(*self.scorer(images), self._reference, profile.score_splits)
        return {
            'iteration': iteration, 'scorer': self.scorer.name,
            'score_mean': result.score_mean, 'score_std': result.score_std, 'frechet_distance': result.frechet_distance,
            'samples': result.n_samples, 'splits': result.n_splits, 'reference': self._reference_name,
        }


class GenerateInceptionScore(chainer.training.Extension):
    """Trainer extension: scores the generator, adds to ``scores.csv``, and reports ``score/mean``, ``score/std``,
    ``score/frechet``.
    """

    priority = chainer.training.extension.PRIORITY_WRITER

    def __init__(self, generator, scorer, directory):
        self._generator, self._scorer = generator, scorer
        self.table = ScoreTable(directory.file('scores.csv'))

    def initialize(self, trainer):
        self.table.drop_after(trainer.updater.iteration)  # a resumed run makes the later ones again

    def __call__(self, trainer):
        row = self._scorer(self._generator, trainer.updater.iteration)
        self.table.put(row)
        chainer.report({'score/mean': row['score_mean'], 'score/std': row['score_std'],
                        'score/frechet': row['frechet_distance']})


def make_run_scorer(config, device, scorer_name=None, data_dir=None, pictures=None):
    """Load the scorer of a run and what it compares with.

    Args:
        config (Config): The run's.
        device (chainer.backend.Device): Where the scorer works.
        scorer_name (str or None): ``None``: the data set's own.
        data_dir (str or None): As in training.
        pictures (Pictures or None): The training data, used when that is what scores compare with.

    Returns:
        RunScorer or None: ``None`` when the data set has no scorer.

    Raises:
        UserError: The scorer cannot be loaded, or the data cannot.

    """
    scorer = load_scorer(scorer_name or config.dataset.scorer, device)
    if scorer is None:
        return None
    if pictures is None or config.dataset.score_split != config.dataset.split:
        pictures = dataset.load(config.dataset, split=config.dataset.score_split, data_dir=data_dir)
    if len(pictures.images) < 2:
        raise UserError('--scorer {}: at least 2 real pictures are needed to compare with'.format(scorer.name))
    return RunScorer(scorer, config, pictures)


def main(argv=None):
    parser = Parser(prog='python -m util.generate_inception_score',
                    description='Score the generators of a run again.')
    parser.add_argument('run', help='directory of a run, such as results/runs/digits-cnn-sn-default-s0')
    parser.add_argument('--scorer', help="which network scores (default: the data set's)")
    parser.add_argument('--iteration', type=int, nargs='+', help='which generators (default: all that the run kept)')
    parser.add_argument('--device', '-d', default='auto', help='auto, cpu, or the number of a GPU (default: auto)')
    parser.add_argument('--data-dir', help='the real pictures, as in training')
    args = parser.parse_args(argv)
    directory = RunDirectory(args.run)
    config = directory.load_config()
    device = get_device(args.device)
    kept = directory.iterations('gen')
    missing = sorted(set(args.iteration or kept) - set(kept))
    if not kept or missing:
        raise UserError('{} has no gen_iter_*.npz{}'.format(
            directory.path, ' of ' + ', '.join(map(str, missing)) if missing else ' yet'))
    device.use()
    pictures = dataset.load(config.dataset, split=config.dataset.split, data_dir=args.data_dir)
    check_data(directory, pictures)
    scorer = make_run_scorer(config, device, args.scorer, args.data_dir, pictures)
    if scorer is None:
        raise UserError('--scorer none: there is nothing to do' if args.scorer else
                        '--scorer: the data set {} has none of its own; name one'.format(config.dataset.name))
    with Lock(directory):
        table = ScoreTable(directory.file('scores.csv'))
        for iteration in tqdm(args.iteration or kept, desc='scoring', unit='snapshot', disable=None):
            generator, _ = load_generator(directory, iteration, device)
            table.put(scorer(generator, iteration))
    print_scores(table, scorer.scorer)


def print_scores(table, scorer):
    """Print what a scorer gave to the generators of a run."""
    print(scorer.describe())
    for row in table.rows:
        if row['scorer'] == scorer.name:
            print('iteration {iteration:6d}  score {score_mean:6.3f} +- {score_std:.3f}  '
                  'Frechet distance {frechet_distance:.3f}'.format(**row))


if __name__ == '__main__':
    sys.exit(run_command(main))
