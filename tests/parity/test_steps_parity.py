"""That PyTorch's steps, beside which Chainer's are timed, compute the same: losses and all gradients, in float64.

The two power methods go in another order, so they agree where u and v have arrived: u and v are the first singular
vectors here, and that each forward takes one iteration is a test of its own.
"""
import types

import chainer
import numpy as np
import pytest
import torch

from benchmarks import cases, torch_networks, torch_steps
from benchmarks.torch_networks import module_of, parameter_of
from util import noise, trainer
from util.config import resolve
from util.normalization.weight_hook import WeightHook

RELATIVE = 1e-10  # of the largest number of each array
DEVICE = chainer.get_device('@numpy')


def config(name):
    return cases.resolve(cases.CASES[name], cases.CASES[name].method, width=3, batchsize=4, size=16)


def links(network):
    """Links that have parameters of their own: path -> link."""
    return {path[1:]: link for path, link in network.namedlinks() if link._params}


def all_parameters(ours, theirs):
    """Pairs of parameters that stand for each other: path -> (Chainer's, PyTorch's)."""
    return {path[1:]: (mine, parameter_of(theirs, path[1:])) for path, mine in ours.namedparams()}


def hooks(network):
    """Links with a normalized weight: path -> (link, hook)."""
    return {path: (link, hook) for path, link in links(network).items()
            for hook in link.local_link_hooks.values() if isinstance(hook, WeightHook)}


def copy(ours, theirs):
    """Give PyTorch's network the numbers of Chainer's, and both the singular vectors."""
    pairs = all_parameters(ours, theirs)
    assert {id(p) for _, p in pairs.values()} == {id(p) for p in theirs.parameters()}  # none is left out
    assert len(pairs) == len(list(ours.params()))
    with torch.no_grad():
        for mine, their in pairs.values():
            their.copy_(torch.from_numpy(mine.array))
        for path, (link, hook) in hooks(ours).items():
            u, _, v = np.linalg.svd(link.W.array.reshape(len(link.W), -1), full_matrices=False)
            getattr(link, hook.vector_name)[...] = u[:, 0]
            state = module_of(theirs, path).parametrizations.weight[0]
            state._u.copy_(torch.from_numpy(u[:, 0]))
            state._v.copy_(torch.from_numpy(v[0]))


class Both:
    """A run in Chainer and in PyTorch with the same numbers, float64, and the same inputs of a step."""

    def __init__(self, name, channels_last=True):
        resolved = config(name)
        rng = np.random.RandomState(1)
        with chainer.using_config('dtype', np.float64):
            self.ours = trainer.build(resolved, DEVICE, cases.random_images(resolved))
        variant = torch_steps.Variant(channels_last)
        self.theirs = torch_steps.Steps(resolved, cases.random_images(resolved), variant)
        for network in (self.theirs.generator, self.theirs.discriminator):
            network.double()
        for link in (*links(self.ours.generator).values(), *links(self.ours.discriminator).values()):
            for parameter in link.params():  # biases are 0 at first, and gradients of small weights mostly rounding
                parameter.array[...] += 0.2 * rng.normal(size=parameter.shape)
        self.networks = {'G': (self.ours.generator, self.theirs.generator),
                         'D': (self.ours.discriminator, self.theirs.discriminator)}
        for pair in self.networks.values():
            copy(*pair)
        n, size = resolved.profile.batchsize, resolved.dataset.size
        self.x = rng.uniform(-1, 1, (n, 3, size, size))
        self.z = {'discriminator step': rng.normal(size=(n, resolved.model.dim_z)),
                  'generator step': rng.normal(size=(n * resolved.setting.n_gen_ratio, resolved.model.dim_z))}
        self.epsilon = rng.uniform(size=(n, 1, 1, 1))

    def step(self, which, monkeypatch):
        """Carry out a step in both; the two losses, with penalties."""
        updater, z = self.ours.updater, self.z
        monkeypatch.setattr(updater, 'latent', lambda purpose, n, step=0: (z[purpose], None))
        monkeypatch.setattr(updater, 'get_iterator', lambda name: types.SimpleNamespace(next=lambda: self.x))
        monkeypatch.setattr(noise, 'uniform', lambda *args: self.epsilon)
        observation, reporter = {}, chainer.reporter.Reporter()
        for network in (self.ours.generator, self.ours.discriminator):
            reporter.add_observer('', network)
        with reporter.scope(observation):
            updater.update_discriminator(0) if which == 'D' else updater.update_generator()
        values = [torch.from_numpy(array) for array in (self.x, z['discriminator step'], self.epsilon)]
        theirs = (self.theirs.discriminator_step(*values) if which == 'D'
                  else self.theirs.generator_step(torch.from_numpy(z['generator step'])))
        return float(sum(observation.values())), float(theirs)


def assert_near(ours, theirs, what):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.dtype == theirs.dtype == np.float64 and ours.shape == theirs.shape, what
    assert abs(ours - theirs).max() <= RELATIVE * abs(ours).max(), what


STEPS = [(name, step) for name, case in cases.CASES.items() for step in case.steps]


@pytest.mark.parametrize('name, which', STEPS)
def test_outputs_agree(name, which):
    both = Both(name)
    ours, theirs = both.networks[which]
    x = both.x if which == 'D' else both.z['generator step']
    assert_near(ours(x).array, theirs(torch.from_numpy(x)), name)


@pytest.mark.parametrize('channels_last', [True, False])
@pytest.mark.parametrize('name, which', STEPS)
def test_losses_and_gradients_agree(name, which, channels_last, monkeypatch):
    both = Both(name, channels_last)
    before = {key: [p.array.copy() for p in network.params()] for key, (network, _) in both.networks.items()}
    ours, theirs = both.step(which, monkeypatch)
    assert ours == pytest.approx(theirs, rel=RELATIVE)
    pairs = all_parameters(*both.networks[which])
    still = {path for path, (mine, _) in pairs.items() if abs(mine.grad).max() < 1e-12}
    for path, (mine, their) in pairs.items():
        if path in still:  # a bias before batch normalization, or the critic's last one: rounding in both
            assert path.endswith('/b') and abs(their.grad.numpy()).max() < 1e-12, path
        else:
            assert_near(mine.grad, their.grad, path)
    # The step has moved this network in both, and the other in neither
    other = 'DG'.replace(which, '')
    for network in (which, other):
        for old, (mine, their) in zip(before[network], by_order(both, network), strict=True):
            assert their.requires_grad
            moved = [(old != p).any() for p in (mine.array, their.detach().numpy())]
            assert moved == [network == which] * 2 or network == which and abs(mine.grad).max() < 1e-12


def by_order(both, key):
    """Pairs of parameters in the order of Chainer's ``params()``."""
    pairs = {id(mine): (mine, their) for mine, their in all_parameters(*both.networks[key]).values()}
    return [pairs[id(p)] for p in both.networks[key][0].params()]


@pytest.mark.parametrize('which, forwards', [('D', 2), ('G', 1)])
def test_each_forward_takes_one_power_iteration(which, forwards, monkeypatch):
    both = Both('cnn')
    layer = module_of(both.theirs.discriminator, 'conv3')
    state = layer.parametrizations.weight[0]
    matrix = layer.parametrizations.weight.original.detach().flatten(1).numpy().copy()
    v = np.random.RandomState(2).normal(size=matrix.shape[1])
    state._v.copy_(torch.from_numpy(v))
    u = both.ours.discriminator.conv3.W_u[...] = np.random.RandomState(3).normal(size=len(matrix))
    both.step(which, monkeypatch)
    for _ in range(forwards):
        v = matrix.T @ (matrix @ v)
        u = matrix @ (matrix.T @ u)
    np.testing.assert_allclose(state._v.numpy(), v / np.linalg.norm(v), rtol=1e-9)
    np.testing.assert_allclose(both.ours.discriminator.conv3.W_u, u / np.linalg.norm(u), rtol=1e-9)


def test_batches_are_dequantised_alike():
    steps = torch_steps.Steps(config('cnn'), np.full((4, 3, 16, 16), 255, 'u1'))
    batch = steps._batch()
    assert batch.dtype == torch.float32 and batch.shape == (4, 3, 16, 16)
    assert 255 / 128 - 1 <= batch.min() < batch.max() < 1
    steps = torch_steps.Steps(config('cnn'), np.zeros((9, 3, 16, 16), 'u1'))
    assert -1 <= steps._batch().min() and steps._batch().max() < -1 + 1 / 128
    for _ in range(3):  # over the end of an epoch
        assert len(steps._batch()) == 4


@pytest.mark.parametrize('name', cases.CASES)
def test_steps_are_made_and_run(name):
    torch.manual_seed(0)
    steps = torch_steps.make_steps('pytorch', config(name))
    for step in cases.CASES[name].steps:
        assert torch.isfinite(steps[step]())


def test_what_is_not_here():
    for options in ({'model': 'sndcgan'}, {'method': 'batch_norm'}):
        with pytest.raises(ValueError, match='only'):
            torch_networks.build(resolve('cifar10', **options))
