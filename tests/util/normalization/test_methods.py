"""Every row of configs/methods.yml: what it promises still holds after training, and it goes on where it stopped."""
import doctest
import functools
import os

import numpy as np
import pytest
import yaml

import train
from tests.helpers import refused
from tests.tiny import PICTURES, as_matrix, iterate, make, singular_values, state, used_weights
from util import config, normalization, snapshot
from util.cli import run_command
from util.config import resolve
from util.files import UserError
from util.normalization import HookedWeights, Normalization, spectral

with open(os.path.join(config.CONFIGS, 'methods.yml'), encoding='utf-8') as f:
    METHODS = list(yaml.safe_load(f))
all_methods = pytest.mark.parametrize('method', METHODS)
X = (PICTURES[:4] / 128 - 1).astype('f')


# What a method promises: checks of a discriminator, the weights it used in a call, and the latest report

def unconstrained(discriminator, used, report):
    layers = [child for child in discriminator.children() if hasattr(child, 'W')]
    assert len(layers) == len(used) == 8 and set(report) == {'gen/loss', 'dis/loss'}
    for layer, W in zip(layers, used, strict=True):
        np.testing.assert_array_equal(W, layer.W.array)


def convolutions_within(limit, discriminator, used, report):
    assert all(np.abs(W).max() <= np.float32(limit) for W in used[:7]) and np.abs(used[7]).max() > limit


def penalized(discriminator, used, report):
    unconstrained(discriminator, used, {key: report[key] for key in report if key != 'dis/gradient_penalty'})
    assert report.get('dis/gradient_penalty', 0) > 0


def normal_features(axes, discriminator, used, report):
    norms = [child for child in discriminator.children() if child.name.startswith('norm')]
    assert len(norms) == 6
    for norm in norms:
        x = np.random.RandomState(0).standard_normal((3, norm.beta.size, 4, 4)).astype('f')
        h = norm(5 * x + 1).array - norm.beta.array[:, None, None]
        np.testing.assert_allclose(h.mean(axes), 0, atol=1e-5)
        np.testing.assert_allclose(h.var(axes), 1, rtol=1e-3)


def outputs_of_length_one(discriminator, used, report):
    for W in used:
        np.testing.assert_allclose(np.linalg.norm(as_matrix(W), axis=1), 1, rtol=1e-5)


def frobenius_norm_one(discriminator, used, report):
    np.testing.assert_allclose([np.sqrt((W ** 2).sum()) for W in used], 1, rtol=1e-5)


def nearly_orthonormal(discriminator, used, report):
    assert 'dis/penalty' in report
    for W in used:
        np.testing.assert_allclose(singular_values(W), 1, atol=0.02)  # 10 steps of 0.001, pulled by the loss


def largest_singular_value(value, discriminator, used, report):
    # One round a call, of a weight that moves: never below, and a few per cent above
    tops = np.array([singular_values(W)[0] for W in used]) / value
    assert tops.min() > 1 - 1e-5 and tops.max() < 1.05 and np.median(tops) < 1.01
    assert sum(key.startswith('sigma/') for key in report) == 8


def largest_singular_value_gamma(discriminator, used, report):
    layers = [child for child in discriminator.children() if hasattr(child, 'gamma')]
    assert len(layers) == 8
    scaled = [W / layer.gamma.array for layer, W in zip(layers, used, strict=True)]
    largest_singular_value(1, discriminator, scaled, report)
    assert report['dis/gradient_penalty'] > 0


def no_singular_value_above(limit, discriminator, used, report):
    assert max(singular_values(W)[0] for W in used) < limit * (1 + 1e-6)


def mean_of_two_singular_values(value, discriminator, used, report):
    means = np.array([(singular_values(W)[0] + singular_values(W, 1 if W.ndim > 2 else 0)[0]) / 2 for W in used])
    assert means.min() > (1 - 1e-5) * value and means.max() < 1.05 * value and np.median(means) < 1.01 * value


CHECKS = {
    'none': unconstrained,
    'weight_clipping': functools.partial(convolutions_within, 0.01),
    'gan_gp': penalized,
    'wgan_gp': penalized,
    'batch_norm': functools.partial(normal_features, (0, 2, 3)),
    'layer_norm': functools.partial(normal_features, (1, 2, 3)),
    'weight_norm': outputs_of_length_one,
    'frobenius_norm': frobenius_norm_one,
    'orthonormal': nearly_orthonormal,
    'orthonormal_hinge': nearly_orthonormal,
    'sn': functools.partial(largest_singular_value, 1),
    'sn_hinge': functools.partial(largest_singular_value, 1),
    'sn_gp': largest_singular_value_gamma,
    'singular_value_clipping': functools.partial(no_singular_value_above, 1),
    'ssn': functools.partial(largest_singular_value, 1.2),
    'bsn': functools.partial(mean_of_two_singular_values, 1),
    'bssn': functools.partial(mean_of_two_singular_values, 1.2),
}
# The loss, and lambda of the gradient penalty: log for all rows of the paper's Table 2 that do not say otherwise
LOSSES = {'wgan_gp': ('wasserstein', 10), 'sn_gp': ('wasserstein', 10), 'gan_gp': ('log', 10),
          **{method: ('hinge', 0) for method in ('orthonormal_hinge', 'sn_hinge', 'ssn', 'bsn', 'bssn')}}


@functools.cache
def trained(method):
    """A discriminator after ten updates in the aggressive setting D, the weights it uses then, and a report."""
    parts = make(method, 'model.initial_scale=0.3', setting='D')
    report = iterate(parts, 2)
    assert parts.updater.get_optimizer('dis').t == 10
    return parts.discriminator, used_weights(parts.discriminator, X), report


def test_every_method_is_checked():
    assert sorted(CHECKS) == sorted(METHODS)


@all_methods
def test_what_it_promises_holds_after_training(method):
    CHECKS[method](*trained(method))


@pytest.mark.parametrize('method', [method for method in METHODS if method != 'none'])
def test_the_checks_can_fail(method):
    with pytest.raises(AssertionError):
        CHECKS[method](*trained('none'))


@all_methods
def test_losses(method):
    row = resolve(method=method).method
    assert (row.loss, row.gradient_penalty) == LOSSES.get(method, ('log', 0))


def new_state(method, updates, path=None):
    """All state after so many more iterations, from the file if there is one."""
    np.random.seed(updates)
    parts = make(method, setting='B')
    if path is not None:
        snapshot.load(path, parts.updater)
    iterate(parts, updates)
    return parts.updater


@all_methods
def test_it_goes_on_where_it_stopped(method, tmp_path):
    snapshot.save(tmp_path / 'x.npz', new_state(method, 2))
    resumed, undisturbed = (state(new_state(method, *way)) for way in ((1, tmp_path / 'x.npz'), (3,)))
    assert resumed.keys() == undisturbed.keys() and resumed['iteration'] == 3
    for key in resumed:
        np.testing.assert_array_equal(resumed[key], undisturbed[key], err_msg=key)


@all_methods
def test_conditional_resnets_take_it(method):
    parts = make(method, model='resnet_projection', classes=2)
    before = {path: p.array.copy() for path, p in parts.discriminator.namedparams()}
    report = iterate(parts)
    assert all(np.isfinite(value) for value in report.values())
    assert any((p.array != before[path]).any() for path, p in parts.discriminator.namedparams() if 'embed' in path)


# sn_gp

def test_gamma_is_trained_and_starts_as_the_largest_singular_value():
    parts = make('sn_gp')
    layers = [child for child in parts.discriminator.children() if hasattr(child, 'W')]
    first = [float(layer.gamma.array) for layer in layers]
    np.testing.assert_allclose(first, [singular_values(layer.W.array)[0] for layer in layers], rtol=1e-5)
    optimized = {id(param) for param in parts.updater.get_optimizer('dis').target.params()}
    assert all(id(layer.gamma) in optimized and layer.gamma.update_rule is not None for layer in layers)
    iterate(parts)
    assert all(abs(float(layer.gamma.array) - gamma) > 1e-5 for layer, gamma in zip(layers, first, strict=True))


def test_only_sn_gp_has_gamma():
    assert [method for method in METHODS if any('gamma' in path for path, _ in make(
        method).discriminator.namedparams())] == ['sn_gp']


def test_the_example_in_the_hooks_docstring_runs():
    failed, attempted = doctest.testmod(spectral)
    assert failed == 0 and attempted == 6


# make

def row(**options):
    return {'normalization': None, 'loss': 'log', 'gradient_penalty': 0.0, **options}


def test_no_normalization_is_the_base():
    assert type(normalization.make(row(), 0)) is Normalization


def test_a_hook_is_made_for_each_link():
    made = normalization.make(row(normalization='weight', eps=0.5), 0)
    assert type(made) is HookedWeights
    parts = make('weight_norm')
    hooks = [hook for link in parts.discriminator.links() for hook in link.local_link_hooks.values()]
    assert len(hooks) == len(set(map(id, hooks))) == 8


@pytest.mark.parametrize('options, message', [
    ({'normalization': 'spectrum'}, 'method.normalization must be null or one of spectral, scaled, bidirectional, '),
    ({'normalization': 'weight', 'factor': 2.0}, 'weight has no option factor'),
    ({'normalization': 'clipping', 'limit': 1, 'b': 1, 'a': 1}, 'clipping has no option a, b'),
    ({'factor': 1}, 'has no option factor'),
    ({'normalization': 'spectral', 'rng': 3, 'name': 'x'}, 'spectral has no option name, rng'),
    ({'normalization': 'clipping'}, 'limit'),
    ({'normalization': 'singular_value_clipping'}, 'limit'),
    ({'normalization': 'orthonormal'}, 'coefficient'),
])
def test_make_refuses(options, message):
    with pytest.raises(UserError, match=message):
        normalization.make(row(**options), 0)


@pytest.mark.parametrize('method, override, message', [
    ('none', 'limit=1', "method has no key 'limit'"),
    ('weight_norm', 'factor=2', "method has no key 'factor'"),
    ('bssn', 'use_gamma=true', "method has no key 'use_gamma'"),
    ('sn', 'coefficient=1', "method has no key 'coefficient'"),
    ('weight_clipping', 'limit=0', 'method.limit must be a number above 0'),
    ('orthonormal', 'coefficient=-1', 'method.coefficient must be a number of at least 0'),
    ('batch_norm', 'use_gamma=1', 'expected true or false'),
    ('ssn', 'scale=0', 'method.scale must be a number above 0'),
    ('wgan_gp', 'gradient_penalty=-1', 'method.gradient_penalty must be a number of at least 0'),
    ('sn', 'normalization=frobenius', 'frobenius has no option factor, n_power_iteration, use_gamma'),
    ('none', 'normalization=clipping', 'limit'),
])
def test_options_of_another_method_and_values_that_cannot_be(tmp_path, capsys, method, override, message):
    status = run_command(train.main, ['--profile', 'quick', '--device', 'cpu', '--scorer', 'none', '--out', str(
        tmp_path / 'run'), '--method', method, '--set', 'method.' + override])
    refused(capsys, status, message)
    assert os.listdir(tmp_path) == []
