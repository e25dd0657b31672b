"""A small CNN that classifies pictures, for scores where the Inception network is not wanted, and how it is trained.

``python -m util.classifier DATASET`` trains it on any labelled row of ``configs/datasets.yml``. Its scores
compare runs on one data set; they are not Inception Scores and are never called so.
"""
import argparse
import dataclasses
import itertools
import os
import platform
import sys
import tempfile

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import training
from chainer.training import extensions

from util import config, noise
from util.cli import Parser, path, run_command
from util.dataset import load, split_name
from util.device import get_device
from util.files import UserError, atomic_write
from util.npz import DamagedFile, read_npz, write_npz

FORMAT = 'classifier-1'
_WEIGHT, _META = 'weight/', 'meta/'  # prefixes of the names in the file


class Classifier(chainer.Chain):
    """Four convolutions with batch normalization, global average pooling and a linear layer.

    Pictures of another height or width than ``size`` are resized to it (bilinear), as the Inception network does.

    Args:
        n_classes (int): Number of classes.
        width (int): Channels of the first convolution; the features have four times as many.
        size (int): Height and width of the pictures that it is trained on, at least 8.
        rng (numpy.random.RandomState): Where the initial weights are drawn from; ``None`` is NumPy's global state.

    """

    def __init__(self, n_classes=10, width=16, size=32, rng=None):
        super().__init__()
        self.n_classes, self.width, self.size = n_classes, width, size
        w = chainer.initializers.HeNormal(rng=rng)
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, width, 5, 2, 2, nobias=True, initialW=w)
            self.bn1 = L.BatchNormalization(width)
            self.conv2 = L.Convolution2D(width, 2 * width, 3, 1, 1, nobias=True, initialW=w)
            self.bn2 = L.BatchNormalization(2 * width)
            self.conv3 = L.Convolution2D(2 * width, 4 * width, 4, 2, 1, nobias=True, initialW=w)
            self.bn3 = L.BatchNormalization(4 * width)
            self.conv4 = L.Convolution2D(4 * width, 4 * width, 3, 1, 1, nobias=True, initialW=w)
            self.bn4 = L.BatchNormalization(4 * width)
            self.fc = L.Linear(4 * width, n_classes, initialW=w)

    def forward(self, x):
        """Turn pictures (N, 3, size, size) float32 in [-1, 1] into features (N, 4 width) and logits (N, n_classes)."""
        h = F.relu(self.bn1(self.conv1(x)))  # (N, width, size / 2, size / 2)
        h = F.relu(self.bn2(self.conv2(h)))
        h = F.relu(self.bn3(self.conv3(h)))  # (N, 4 width, size / 4, size / 4)
        h = F.relu(self.bn4(self.conv4(h)))
        features = F.mean(h, axis=(2, 3))
        return features, self.fc(features)

    def classify(self, images, batchsize=256):
        """Classify pictures in batches on the chain's device, in test mode and without backprop.

        Args:
            images (numpy.ndarray): uint8, (N, 3, H, W), RGB.
            batchsize (int): Pictures at a time.

        Returns:
            tuple of numpy.ndarray: Features (N, 4 width) and probabilities (N, n_classes), float32.

        Raises:
            ValueError: The pictures are of another type or shape.

        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f'pictures must be uint8 (N, 3, H, W), not {images.dtype} {images.shape}')
        features = np.empty((len(images), 4 * self.width), np.float32)
        probabilities = np.empty((len(images), self.n_classes), np.float32)
        with chainer.using_config('train', False), chainer.no_backprop_mode(), chainer.using_device(self.device):
            for start in range(0, len(images), batchsize):
                part = slice(start, start + batchsize)
                x = self.device.send(_to_float(images[part]))
                if x.shape[2:] != (self.size, self.size):
                    x = F.resize_images(x, (self.size, self.size), align_corners=False)
                h, logits = self(x)
                features[part] = chainer.get_device('@numpy').send(h.array)
                probabilities[part] = chainer.get_device('@numpy').send(F.softmax(logits).array)
        return features, probabilities


def _to_float(images):
    return images.astype(np.float32) / 127.5 - 1


# ----------------------------------------------------------------------------------------------------------- the file


@dataclasses.dataclass(frozen=True)
class Card:
    """What a file of weights says about itself.

    Attributes:
        name (str): The data set that it was trained on.
        n_classes, width, size (int): The arguments of :class:`Classifier`.
        accuracy (float): Share of the held-out pictures that it classified right.
        n_held_out (int): Number of held-out pictures.
        command (str): The command that made it.
        data (str): What exactly it was trained on, for people.
        fingerprint (str): Of that data.
        versions (str): Of what it was made with.
        format (str): Of the file.

    """

    name: str
    n_classes: int
    width: int
    size: int
    accuracy: float
    n_held_out: int
    command: str
    data: str
    fingerprint: str
    versions: str
    format: str = FORMAT


def save_classifier(path, classifier, card):
    """Write weights and card as one compressed npz without any pickled object. Equal input gives equal bytes.

    Raises:
        UserError: The file cannot be written.

    """
    with atomic_write(path) as temporary:
        _write(temporary, classifier, card)


def _write(path, classifier, card):
    arrays = {_META + key: np.array(value) for key, value in dataclasses.asdict(card).items()}
    weights = {}
    chainer.serializers.DictionarySerializer(weights).save(classifier)
    arrays.update((_WEIGHT + key, value) for key, value in weights.items())
    with open(path, 'wb') as f:
        write_npz(f, arrays, compress=True)


def load_classifier(path, command=None):
    """Read what :func:`save_classifier` wrote; nothing in the file is executed.

    Args:
        path (str): The file.
        command (str or None): The command that makes it, for the message when the file is bad.

    Returns:
        tuple: The :class:`Classifier`, on the CPU, and its :class:`Card`.

    Raises:
        UserError: The file is missing, damaged or of another kind.

    """
    cure = f'; make it with: {command}' if command else ''
    try:
        arrays = read_npz(path)
        card = _read_card(arrays)
        classifier = Classifier(card.n_classes, card.width, card.size)
        _set_weights(classifier, {k[len(_WEIGHT):]: v for k, v in arrays.items() if k.startswith(_WEIGHT)})
    except UserError as error:
        raise UserError(f'{error}{cure}') from error
    except (DamagedFile, KeyError, TypeError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise UserError(f'{path} is damaged or not a classifier of this project ({reason}){cure}') from error
    return classifier, card


def _read_card(arrays):
    if arrays.get(_META + 'format', np.array('')).item() != FORMAT:
        raise ValueError(f'it has no {FORMAT} card')
    kinds = {'int': int, 'float': float, 'str': str}
    values = {}
    for field in dataclasses.fields(Card):
        kind, value = kinds[getattr(field.type, '__name__', field.type)], arrays[_META + field.name].item()
        if type(value) is not kind:
            raise ValueError(f'{field.name} of its card is {value!r}')
        values[field.name] = value
    if not (2 <= values['n_classes'] <= 100000 and 1 <= values['width'] <= 4096 and 8 <= values['size'] <= 1024):
        raise ValueError('its card describes no network that could be')
    return Card(**values)


def _set_weights(classifier, weights):
    expected = {}
    chainer.serializers.DictionarySerializer(expected).save(classifier)
    for key, value in sorted(expected.items()):
        got = weights[key]
        # Chainer would broadcast an array of another shape into place
        if got.shape != value.shape or got.dtype != value.dtype or not np.isfinite(got).all():
            raise ValueError(f'{key} is not a finite {value.dtype} array of shape {value.shape}')
    chainer.serializers.NpzDeserializer(weights).load(classifier)


# ----------------------------------------------------------------------------------------------------------- training


def augment(images, labels, n_classes, seed, iteration, mirror=False):
    """Make a training batch: real pictures, and for each eight of them one of garbage, which belongs to no class.

    A generator shows its scorer many pictures that no data set has. A network that knows real pictures only is sure of
    the class of some of them (flat colours alone then score 4 of 10). So garbage is taught to be all classes alike, and
    everything comes at varied positions, contrasts, tints and levels of noise.

    Args:
        images (numpy.ndarray): uint8, (N, 3, H, W).
        labels (numpy.ndarray): int32, (N,).
        n_classes (int): Number of classes.
        seed, iteration (int): What all random numbers are functions of.
        mirror (bool): Turn half of the pictures left to right: right for photographs, wrong for digits.

    Returns:
        tuple of numpy.ndarray: Pictures (N + N // 8, 3, H, W), about -1 to 1, and target distributions
        (N + N // 8, n_classes), float32.

    """
    def uniform(purpose, *shape):
        return noise.uniform(np, shape, seed, iteration, 'classifier ' + purpose)

    n, _, h, w = images.shape
    garbage = _garbage(n // 8, h, w, uniform)
    real = _shift(_to_float(images), uniform('shift', 2, n), h // 10)
    if mirror:
        real = np.where(uniform('mirror', n, 1, 1, 1) < 0.5, real[..., ::-1], real)
    x = np.concatenate((real, garbage))
    alike = np.full((len(garbage), n_classes), 1 / n_classes, np.float32)
    targets = np.concatenate((np.eye(n_classes, dtype=np.float32)[labels], alike))
    m = len(x)
    contrast = 0.6 + 0.5 * uniform('contrast', m, 1, 1, 1) + 0.2 * (uniform('tint', m, 3, 1, 1) - 0.5)
    brightness = 0.3 * (uniform('brightness', m, 1, 1, 1) - 0.5)
    level = np.maximum(0, 0.6 * uniform('level', m, 1, 1, 1) - 0.3)  # half of the pictures stay clean
    return x * contrast + brightness + level * noise.normal(np, x.shape, seed, iteration, 'classifier noise'), targets


def _shift(x, unit, limit):
    """Move each picture by up to ``limit`` pixels both ways; its edges are repeated. ``unit`` is uniform, (2, N)."""
    n, _, h, w = x.shape
    dy, dx = np.floor(unit * (2 * limit + 1)).astype(np.int64) - limit
    rows = np.clip(np.arange(h) + dy[:, None], 0, h - 1)[:, None, :, None]
    columns = np.clip(np.arange(w) + dx[:, None], 0, w - 1)[:, None, None, :]
    return x[np.arange(n)[:, None, None, None], np.arange(3)[:, None, None], rows, columns]


def _garbage(n, h, w, uniform):
    """``n`` pictures of no class: white noise, flat colours and grey smears (these twice as often), in turn."""
    white = uniform('white', n, 3, h, w) * 2 - 1
    flat = np.broadcast_to(uniform('flat', n, 3, 1, 1) * 2 - 1, white.shape)
    coarse = uniform('smears', n, 1, 6, 6) * 3 - 2  # mostly dark, as strokes are
    smears = np.clip(F.resize_images(coarse, (h, w)).array, -1, 1).repeat(3, axis=1) if n else white
    kind = (np.arange(n) % 4)[:, None, None, None]
    return np.select([kind == 0, kind == 1], [white, flat], smears)


class _Updater(training.updaters.StandardUpdater):
    """An iteration on an augmented batch, whose iterator gives the pictures' numbers."""

    def __init__(self, iterator, optimizer, data, seed, mirror, device):
        super().__init__(iterator, optimizer, device=device)
        self._data, self._seed, self._mirror = data, seed, mirror

    def update_core(self):
        index = np.array(self.get_iterator('main').next())
        optimizer = self.get_optimizer('main')
        model = optimizer.target
        images, labels = self._data.images[index], self._data.labels[index]
        x, targets = augment(images, labels, model.n_classes, self._seed, self.iteration, self._mirror)
        _, logits = model(self.device.send(x))
        loss = -F.sum(self.device.send(targets) * F.log_softmax(logits)) / len(x)
        chainer.report({'loss': loss}, model)
        model.cleargrads()
        loss.backward()
        optimizer.update()


def train(data, held_out, n_classes, width=16, epochs=30, batchsize=64, seed=0, mirror=False, device='@numpy',
          out=sys.stdout):
    """Train a classifier: Adam, its step size falling linearly to 0. A function of the arguments on one machine.

    Args:
        data, held_out (util.dataset.Pictures): What to train on and what to measure with: ``images``, uint8
            (N, 3, H, H), and ``labels``, int32 (N,).
        n_classes, width, epochs, batchsize, seed (int): See :class:`Classifier` and the command line.
        mirror (bool): See :func:`augment`.
        device: A Chainer device or what :func:`chainer.get_device` takes for one.
        out: Where the table of losses and accuracies is printed.

    Returns:
        tuple: The :class:`Classifier` of the last epoch, and its accuracy on ``held_out``.

    """
    device = chainer.get_device(device)
    device.use()
    model = Classifier(n_classes, width, data.images.shape[2], rng=noise.random_state(seed, 'classifier weights'))
    model.to_device(device)
    optimizer = chainer.optimizers.Adam(alpha=3e-3)
    optimizer.setup(model)
    epoch = itertools.count()
    iterator = chainer.iterators.SerialIterator(
        range(len(data.images)), batchsize,
        order_sampler=lambda order, position: noise.permutation(len(order), seed, next(epoch)))
    updater = _Updater(iterator, optimizer, data, seed, mirror, device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.Trainer(updater, (epochs, 'epoch'), out=folder)
        iterations = -(-epochs * len(data.images) // batchsize)
        trainer.extend(extensions.LinearShift('alpha', (3e-3, 0), (0, iterations)))
        trainer.extend(lambda trainer: chainer.report({'held_out/accuracy': accuracy(model, held_out)}),
                       name='held_out', trigger=(1, 'epoch'), priority=training.PRIORITY_WRITER)
        trainer.extend(extensions.LogReport(trigger=(1, 'epoch')))
        trainer.extend(extensions.FailOnNonNumber())
        trainer.extend(extensions.PrintReport(['epoch', 'main/loss', 'held_out/accuracy', 'elapsed_time'], out=out))
        trainer.run()
    return model, accuracy(model, held_out)


def accuracy(classifier, data):
    """Share of pictures whose most probable class is their label."""
    return float((classifier.classify(data.images)[1].argmax(axis=1) == data.labels).mean())


def parse(argv=None):
    """Read the command line; what it does not say is in ``configs/scorers.yml``."""
    parser = Parser(
        prog='python -m util.classifier', description='Train the classifier that scores pictures.')
    parser.add_argument('dataset', help='a row of configs/datasets.yml whose pictures have labels')
    parser.add_argument('--out', '-o', type=path, help='the npz file to write (default: inception_model/DATASET.npz)')
    parser.add_argument('--width', type=int, help='channels of the first convolution')
    parser.add_argument('--epochs', type=int, help='sweeps over the pictures')
    parser.add_argument('--mirror', action=argparse.BooleanOptionalAction,
                        help='turn half of the training pictures left to right; not for digits and letters')
    parser.add_argument('--batchsize', '-b', type=int, default=64, help='pictures in a batch (default: 64)')
    parser.add_argument('--seed', type=int, default=0, help='of all random numbers (default: 0)')
    parser.add_argument('--device', '-d', default='cpu', help='cpu, auto, or the number of a GPU (default: cpu)')
    parser.add_argument('--data-dir', type=path, help='where the pictures are, for data sets that need it')
    args = parser.parse_args(argv)
    for key, value in config.scorer_row(args.dataset).items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    args.out = args.out or os.path.join(config.INCEPTION_MODEL, args.dataset + '.npz')
    for flag, least in (('width', 1), ('epochs', 1), ('batchsize', 8), ('seed', 0)):
        if getattr(args, flag) < least:
            raise UserError(f'--{flag} must be an integer of at least {least}, not {getattr(args, flag)}')
    return args


def main(argv=None):
    """The command line: train, measure, write."""
    args = parse(argv)
    row, device = config.resolve(dataset=args.dataset).dataset, get_device(args.device)
    if split_name(row, 'train') == split_name(row, 'test'):
        raise UserError(f'dataset {args.dataset}: its pictures are not split, and none could be held out')
    data, held_out = (load(row, split, args.data_dir) for split in ('train', 'test'))
    if data.labels is None:
        raise UserError(f'dataset {args.dataset}: its pictures have no labels, and a classifier needs them')
    n_classes = int(data.labels.max()) + 1
    with atomic_write(args.out) as temporary:  # open before the work: an unwritable --out is told at once
        model, share = train(data, held_out, n_classes, args.width, args.epochs, args.batchsize, args.seed, args.mirror,
                             device)
        model.to_device('@numpy')
        card = Card(
            name=args.dataset, n_classes=n_classes, width=args.width, size=model.size, accuracy=share,
            n_held_out=len(held_out.images), command=_command(args), data=data.source, fingerprint=data.fingerprint,
            versions=f'Python {platform.python_version()}, NumPy {np.__version__}, Chainer {chainer.__version__}')
        _write(temporary, model, card)
    size = os.path.getsize(args.out)
    print(f'{args.out}: {100 * share:.2f} % of {card.n_held_out} held-out pictures right, {size:,} bytes')


def _command(args):
    folder, name = os.path.split(args.out)
    out = os.path.join(os.path.basename(folder), name) if folder == config.INCEPTION_MODEL else args.out
    return (f'python -m util.classifier {args.dataset} --out {out} --width {args.width} --epochs {args.epochs} '
            f'--batchsize {args.batchsize} --seed {args.seed}' + ' --mirror' * args.mirror)


if __name__ == '__main__':
    sys.exit(run_command(main))
