"""What each figure is, and what to see in it."""
import csv

from util.analysis import style
from util.analysis.__main__ import FIGURES

# Figure -> its heading, and what to see in it
_CAPTIONS = {
    'scores': (
        'Scores by method and setting',
        'Above the score (higher is better), below the Frechet distance (lower is better) of the last generators; '
        'several seeds give their mean. The paper finds spectral normalization ahead, and least disturbed by '
        'aggressive settings (its Figures 1 and 2): see whether its bars stay high from setting to setting.'),
    'spectra': (
        "Spectra of the discriminator's weights",
        'Squared singular values of the weights as the layers compute with them, the largest scaled to 1. A line that '
        'falls at once is a layer that looks at few features; the paper finds this for weight normalization and weight '
        'clipping, and broad spectra for spectral normalization (its Figure 3).'),
    'sigma': (
        'Largest singular values over training',
        'Left the running estimates (lines) beside exact values (+), which should lie on them; right the largest '
        'singular value of the normalized weight, which should stay near what the method fixes it to, as a rule 1: '
        'then one power iteration an update is enough (paper, Figure 9).'),
    'samples': (
        'Samples by method and setting',
        'Pictures of the last generators, all from the same z. See which are sharp, and whether those of one cell '
        'differ from each other: copies of one picture are a collapse (paper, Figure 6).'),
    'progress': (
        'The same z over training',
        'Each row is one z, drawn by later and later generators. Pictures that settle mean that training has come to '
        'rest; pictures that go on changing into others mean that it goes round.'),
    'animation': (
        'The same z over training, moving',
        'The same pictures by generators that were kept, twelve at most, in turn; the last one stays longer.'),
    'interpolation': (
        "Between two z's",
        "From left to right z moves from one random point to another. A gradual change from picture to picture speaks "
        'for a generator that has learned what lies between; jumps speak for one that has learned single pictures.'),
    'neighbours': (
        'The nearest training pictures',
        'Samples, each beside the training pictures nearest to it, and how far these are. A distance far below the '
        'typical one between training pictures, which the title gives, would be a copy.'),
    'gradients': (
        "Gradients of the discriminator",
        "Norms of the gradients with respect to each layer's weight and to pictures. Lines that shoot up are "
        'gradients that explode, lines that fall to nothing a generator that is no longer taught (Lin et al., Figures '
        '4 and 6); the last panel has the scores beside them.'),
    'variances': (
        "Variances of the discriminator's weights",
        'Variances of the weights as the layers compute with them, against those of two classic initializations. '
        "Spectral normalization is said to keep them near LeCun's for all of training (Lin et al., Figure 5)."),
    'critic': (
        "The discriminator's loss on training and on held-back pictures",
        'A gap between the two lines says that the discriminator knows its training data by heart; the score is beside '
        'it (paper, Figure 15). Losses of different methods are of different kinds: compare gaps, not heights.'),
    'n_dis': (
        'Scores by n_dis',
        'The last score against the number of discriminator updates for one of the generator. In the paper weight '
        'normalization gets worse with more of them, and spectral normalization does not (its Figure 11).'),
    'timing': (
        'What each method costs',
        'The time of 100 generator updates as a multiple of that without a normalization (paper, Figure 10). A '
        'gradient penalty needs a second pass, spectral normalization a step of the power method a layer.'),
    'allowed': (
        'What the normalizations allow',
        'No run is in this figure: it follows from the definitions. Weight normalization fixes the sum of the '
        'squares, so that many directions must be weak ones; spectral normalization bounds only the largest (paper, '
        'Figure 14).'),
}


def describe_figure(name):
    """The heading of a figure, and sentences on what to see in it; of one without a caption of its own what its
    function says of itself.

    Returns:
        tuple: Two str.

    """
    if name in _CAPTIONS:
        return _CAPTIONS[name]
    sentence = ' '.join((FIGURES[name].__doc__ or '').split('\n\n')[0].split())
    sentence = sentence.removeprefix('Draw ')
    return name.replace('_', ' ').capitalize(), sentence[:1].upper() + sentence[1:]


def describe_numbers(name, path):
    """A sentence with the numbers of a figure, of its CSV file; empty where there is nothing to say.

    Args:
        name (str): The figure.
        path (str): Its CSV file.

    Returns:
        str

    """
    if name != 'scores':
        return ''
    try:
        with open(path, newline='', encoding='utf-8') as f:
            rows = list(csv.DictReader(f))
        score = max((row for row in rows if row['score']), key=lambda row: float(row['score']))
        distance = min((row for row in rows if row['frechet_distance']), key=lambda row: float(row['frechet_distance']))
        return 'Highest score: {:.2f}, {}. Lowest Frechet distance: {:.1f}, {}.'.format(
            float(score['score']), _who(score), float(distance['frechet_distance']), _who(distance))
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return ''


def _who(row):
    return '{} at setting {}'.format(style.label(row['method']), row['setting'])
