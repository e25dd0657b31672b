"""What real pictures look like to a scorer, and that it is looked at once."""
import concurrent.futures
import dataclasses
import os

import chainer
import numpy as np
import pytest

from util import metrics, reference
from util.dataset import Pictures
from util.files import UserError
from util.reference import load_reference


class Scorer:
    """Its features are four pixels of a picture; it counts how many pictures it saw."""

    name, fingerprint, device_kind = 'fake', 64 * 'a', 'cpu'

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return images[:, 0, :2, :2].reshape(len(images), 4).astype('f'), np.ones((len(images), 2), 'f') / 2


@pytest.fixture
def root(tmp_path):
    before = chainer.dataset.get_dataset_root()
    chainer.dataset.set_dataset_root(str(tmp_path / 'root'))
    yield tmp_path / 'root' / reference.FOLDER
    chainer.dataset.set_dataset_root(before)


def pictures(n=250, size=8, seed=0):
    images = np.random.RandomState(seed).randint(0, 256, (n, 3, size, size)).astype('u1')
    return Pictures(images, None, 'digits', 'some digits', 32 * 'b')


def load(*args, **options):
    said = []
    return load_reference(*args, say=said.append, **options), said


def test_values(root):
    scorer, real = Scorer(), pictures()
    found, said = load(scorer, real, 'test')
    features = real.images[:, 0, :2, :2].reshape(250, 4)
    assert found.features.dtype == np.float32 and (found.features == features).all()
    mean, cov = metrics.statistics(features)
    assert (found.mean == mean).all() and (found.cov == cov).all()
    assert found.name == '250 digits test (bbbbbbbb)' and scorer.seen == 250 and said == []


def test_the_second_time_nothing_is_looked_at_and_the_bits_are_the_same(root):
    scorer = Scorer()
    (first, _), (second, said) = load(scorer, pictures(), 'test'), load(scorer, pictures(), 'test')
    assert scorer.seen == 250 and said == []
    for key in ('features', 'mean', 'cov'):
        a, b = getattr(first, key), getattr(second, key)
        assert a.dtype == b.dtype and (a == b).all()
    assert [path.suffix for path in root.glob('*.npz')] == ['.npz']


def test_a_file_for_each_of_all_that_it_depends_on(root):
    def changed(**attributes):
        scorer = Scorer()
        vars(scorer).update(attributes)
        return scorer
    cases = [(Scorer(), pictures(), 'test', None), (changed(name='other'), pictures(), 'test', None),
             (changed(fingerprint=64 * 'c'), pictures(), 'test', None),
             (changed(device_kind='cuda'), pictures(), 'test', None),
             (Scorer(), pictures(seed=1), 'test', None), (Scorer(), pictures(size=9), 'test', None),
             (Scorer(), pictures(), 'train', None), (Scorer(), pictures(), 'test', 200)]
    for number, (scorer, real, split, n) in enumerate(cases, 1):
        load(scorer, real, split, n_samples=n)
        assert len(list(root.glob('*.npz'))) == number
        assert scorer.seen == (n or 250)


def test_all_of_the_pictures_are_all_however_they_are_asked_for(root):
    (one, _), (other, _) = load(Scorer(), pictures(), 'test', n_samples=250), load(Scorer(), pictures(), 'test')
    assert (one.features == other.features).all() and len(list(root.glob('*.npz'))) == 1


def test_few_pictures_are_warned_of_when_they_come_from_the_cache_too(root):
    for seen in (3, 0):
        scorer = Scorer()
        with pytest.warns(metrics.FewSamplesWarning, match='3 pictures, 4 dimensions'):
            load(scorer, pictures(3), 'test')
        assert scorer.seen == seen


def test_some_of_the_pictures_are_drawn_once_and_for_all(root):
    some, _ = load(Scorer(), pictures(), 'all', n_samples=20)
    chosen = np.sort(np.random.RandomState(2020).choice(250, 20, replace=False))  # torch-fidelity's rule
    assert (some.features == pictures().images[chosen][:, 0, :2, :2].reshape(20, 4)).all()
    assert some.name == '20 digits all (bbbbbbbb)' and len(set(chosen)) == 20


@pytest.mark.parametrize('n, wanted, message', [
    (1, None, 'at least 2 real pictures are needed to compare with; some digits has 1'),
    (0, None, 'at least 2 real pictures')])
def test_too_few_pictures(root, n, wanted, message):
    with pytest.raises(UserError, match=message):
        load(Scorer(), pictures(n), 'test', n_samples=wanted)
    assert not root.exists()


def test_more_than_there_are_is_all(root):
    assert load(Scorer(), pictures(30), 'test', n_samples=31)[0].name.startswith('30 digits')
    assert load(Scorer(), pictures(30), 'test', n_samples=30)[0].name.startswith('30 digits')


def test_of_a_mapped_file_the_pixels_are_not_read_to_find_what_is_kept(root, tmp_path):
    np.save(tmp_path / 'x.npy', pictures().images)
    mapped = dataclasses.replace(pictures(), images=np.load(tmp_path / 'x.npy', mmap_mode='r'))
    first, _ = load(Scorer(), mapped, 'all', n_samples=20)
    scorer = Scorer()
    again, _ = load(scorer, mapped, 'all', n_samples=20)
    assert (again.features == first.features).all() and scorer.seen == 0
    other = dataclasses.replace(mapped, fingerprint='c' * 32)
    load(scorer, other, 'all', n_samples=20)
    assert scorer.seen == 20


def test_runs_that_start_together_look_once(root):
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        scorers = [Scorer() for _ in range(3)]
        list(threads.map(lambda scorer: load(scorer, pictures(), 'test'), scorers))
    assert sorted(scorer.seen for scorer in scorers) == [0, 0, 250]


@pytest.mark.parametrize('damage', [
    lambda content: content[:-30], lambda content: b'', lambda content: b'x' * len(content)])
def test_a_damaged_file_is_made_again_and_said(root, damage):
    load(Scorer(), pictures(), 'test')
    path, = root.glob('*.npz')
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    scorer = Scorer()
    found, (line,) = load(scorer, pictures(), 'test')
    assert scorer.seen == 250 and line.startswith('computing anew') and str(path) in line and '\n' not in line
    assert path.read_bytes() == whole


def rewrite(path, **changes):
    with np.load(path) as arrays:
        content = {**arrays, **changes}
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize('changes', [
    {'format': np.array('reference 0')}, {'format': None}, {'mean': None}, {'features': np.zeros((249, 4), 'f')},
    {'features': np.zeros(250, 'f')}, {'features': np.zeros((250, 4))}, {'cov': np.zeros((4, 5))},
    {'more': np.zeros(1)}, {'format': np.array(['reference 1', 'reference 1'])},
    {'features': np.full((250, 4), np.nan, 'f')}, {'cov': np.full((4, 4), np.inf)}])
def test_another_content_is_not_believed(root, changes):
    load(Scorer(), pictures(), 'test')
    path, = root.glob('*.npz')
    rewrite(path, **changes)
    scorer = Scorer()
    _, said = load(scorer, pictures(), 'test')
    assert scorer.seen == 250 and len(said) == 1


def test_a_cache_that_cannot_be_written_is_said_and_no_reason_to_stop(root):
    root.parent.parent.mkdir()
    root.parent.write_text('a file where a folder should be')
    found, (line,) = load(Scorer(), pictures(), 'test')
    assert len(found.features) == 250 and line.startswith('not kept for the next time: cannot write')


def test_long_work_is_announced(root):
    _, (line,) = load(Scorer(), pictures(2001), 'test')
    assert '2001 real pictures' in line and os.path.dirname(line.split()[-1]) in str(root)
