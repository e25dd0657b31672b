import dataclasses

import pytest
import yaml

from util import config
from util.config import Row, load_config, resolve
from util.files import UserError


def test_settings_are_the_papers_table_1_and_our_default():
    expected = {
        'default': (2e-4, 0.5, 0.9, 5), 'A': (1e-4, 0.5, 0.9, 5), 'B': (1e-4, 0.5, 0.999, 1),
        'C': (2e-4, 0.5, 0.999, 1), 'D': (1e-3, 0.5, 0.9, 5), 'E': (1e-3, 0.5, 0.999, 5), 'F': (1e-3, 0.9, 0.999, 5)}
    for name, values in expected.items():
        setting = resolve(profile='paper', setting=name).setting
        assert (setting.alpha, setting.beta1, setting.beta2, setting.n_dis) == values


def test_paper_profile():
    c = resolve(profile='paper')
    assert c.dataset.name == 'cifar10' and c.model.width == 64
    assert (c.profile.iterations, c.profile.batchsize, c.profile.evaluation_interval) == (50000, 64, 1000)


def test_quick_profile_scales_the_width():
    assert resolve(profile='quick').model.width == 16
    assert resolve(profile='quick', dataset='cifar10').dataset.name == 'cifar10'
    assert resolve(profile='quick', overrides=['model.width=24']).model.width == 24


def test_quick_profile_gives_every_setting_the_same_number_of_discriminator_updates():
    assert resolve(profile='quick').setting.name == 'quick' and resolve(profile='quick').profile.iterations == 2400
    assert resolve(profile='quick', setting='A').profile.iterations == 480
    assert resolve(profile='quick', overrides=['setting.n_dis=3']).profile.iterations == 800
    assert resolve(profile='quick', setting='A', iterations=7).profile.iterations == 7
    assert resolve(profile='quick', setting='A', overrides=['profile.iterations=9']).profile.iterations == 9
    assert 'discriminator_updates' not in resolve(profile='quick').profile


def test_overrides():
    overrides = ['setting.alpha=1e-4', 'setting.n_dis=2', 'method.factor=1.5', 'model.multiples=[1,1,1,1,1,1,1]']
    c = resolve(overrides=overrides, iterations=7, batchsize=3)
    assert (c.setting.alpha, c.setting.n_dis, c.method.factor, c.model.multiples) == (1e-4, 2, 1.5, (1,) * 7)
    assert (c.profile.iterations, c.profile.batchsize) == (7, 3)


@pytest.mark.parametrize('arguments, message', [
    ({'dataset': 'cifar100'}, r"--dataset: there is no 'cifar100'.*did you mean cifar10\?"),
    ({'method': 'snn'}, r"--method: there is no 'snn'.*did you mean sn\?"),
    ({'setting': 'G'}, r"--setting: there is no 'G' in configs/settings.yml, only: A, B"),
    ({'model': ''}, '--model'),
    ({'profile': 'slow'}, '--profile'),
    ({'overrides': ['setting.alhpa=1']}, r"setting has no key 'alhpa'.*did you mean alpha\?"),
    ({'overrides': ['seting.alpha=1']}, r"no section 'seting'.*did you mean setting\?"),
    ({'overrides': ['setting.alpha']}, r'expected SECTION\.KEY=VALUE'),
    ({'overrides': ['alpha=1']}, r'expected SECTION\.KEY=VALUE'),
    ({'overrides': ['setting.alpha=fast']}, 'expected a number'),
    ({'overrides': ['setting.n_dis=1.5']}, 'expected an integer'),
    ({'overrides': ['setting.n_dis=true']}, 'expected an integer'),
    ({'overrides': ['setting.alpha={']}, 'not a YAML value'),
    ({'overrides': ['setting.alpha=0']}, r'setting\.alpha must be a number above 0'),
    ({'overrides': ['setting.alpha=nan']}, r'setting\.alpha must be'),
    ({'overrides': ['setting.alpha=inf']}, r'setting\.alpha must be'),
    ({'overrides': ['setting.beta1=1']}, r'setting\.beta1 must be'),
    ({'overrides': ['setting.n_dis=0']}, r'setting\.n_dis must be'),
    ({'overrides': ['dataset.size=33']}, 'multiple of 8'),
    ({'overrides': ['method.factor=-1']}, r'method\.factor must be'),
    ({'overrides': ['model.multiples=[1]']}, 'seven integers'),
    ({'overrides': ['setting.alpha=null']}, r'setting\.alpha must be'),
    ({'overrides': ['protocol.splits=99999']}, r'protocol\.splits must not exceed protocol\.samples, 99999 > 50000'),
    ({'overrides': ['protocol.distance_samples=6000']}, r'distance_samples must not exceed protocol\.training_samples'),
    ({'overrides': ['protocol.reference=some']}, r"protocol\.reference must be 'train', 'test' or 'all'"),
    ({'overrides': ['protocol.reference_samples=1']}, r'protocol\.reference_samples must be an integer of at least 2'),
    ({'protocol': 'papre'}, r"no 'papre' in configs/protocols\.yml.*did you mean paper"),
    ({'iterations': 0}, '--iterations must be an integer of at least 1'),
    ({'batchsize': -1}, '--batchsize'),
    ({'seed': -1}, '--seed'),
])
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=message) as info:
        resolve(**arguments)
    assert '\n' not in str(info.value)


RESNET = {'model': 'resnet'}


@pytest.mark.parametrize('rows, key, values', [
    (RESNET, 'model.generator', ['[]', '[4]', '[4, 0]', '[4, -1]', '[4, 1.5]', '[4, true]', '[4, a]', 'null']),
    (RESNET, 'model.discriminator', ['[]', '[0]', '[2, -2]', '[2, 2.0]', '[[2]]', 'null']),
    (RESNET, 'model.downsamplings', ['-1', 'null']),
    (RESNET, 'model.conditional', ['project', '1', 'true', '[concat]', '{}']),
    (RESNET, 'model.concat_block', ['0', '-1', 'null']),
    (RESNET, 'model.dim_embed', ['0', 'null']),
    (RESNET, 'model.dense_bias', ['null']),
    ({}, 'model.multiples', ['[1, 1, 1, 1, 1, 1, 0]']),
    ({'method': 'wgan_gp'}, 'method.gradient_penalty', ['-1', '-1e-9', 'nan', 'inf', 'null']),
    ({'method': 'weight_clipping'}, 'method.limit', ['0', '-0.01', 'nan', 'inf', 'null']),
    ({'method': 'orthonormal'}, 'method.coefficient', ['-0.01', 'nan', 'inf', 'null']),
    ({'method': 'sn_gp'}, 'method.use_gamma', ['null']),
    ({}, 'setting.n_gen_ratio', ['0', '-2', 'null']),
    ({}, 'setting.decay_start', ['-1', '0.5', 'true', 'soon', '[1]']),
    ({}, 'dataset.n_classes', ['-1', 'null']),
])
def test_values_that_cannot_be_are_refused_by_name(rows, key, values):
    for value in values:
        with pytest.raises(UserError) as info:
            resolve(**rows, overrides=['{}={}'.format(key, value)])
        message = str(info.value)
        assert message.startswith(key + ' must be ') and '\n' not in message, (value, message)


@pytest.mark.parametrize('rows, key, values', [
    (RESNET, 'model.generator', ['4', 'wide']), (RESNET, 'model.discriminator', ['2']),
    (RESNET, 'model.downsamplings', ['1.5', 'true', 'two']), (RESNET, 'model.dense_bias', ['1', 'no bias']),
    ({'method': 'wgan_gp'}, 'method.gradient_penalty', ['true', 'ten', '[10]']),
    ({'method': 'weight_clipping'}, 'method.limit', ['true', 'little']),
    ({'method': 'orthonormal'}, 'method.coefficient', ['true', 'little']),
    ({'method': 'sn_gp'}, 'method.use_gamma', ['1', 'yes please']),
    ({}, 'setting.n_gen_ratio', ['1.5', 'true']), ({}, 'dataset.n_classes', ['10.5', 'ten']),
])
def test_values_of_another_type_are_refused_by_name(rows, key, values):
    for value in values:
        with pytest.raises(UserError) as info:
            resolve(**rows, overrides=['{}={}'.format(key, value)])
        message = str(info.value)
        assert message.startswith('--set {}={}: expected '.format(key, value)) and '\n' not in message, (value, message)


@pytest.mark.parametrize('rows, override, expected', [
    (RESNET, 'model.generator=[2, 1]', (2, 1)), (RESNET, 'model.discriminator=[1]', (1,)),
    (RESNET, 'model.downsamplings=0', 0), (RESNET, 'model.conditional=projection', 'projection'),
    ({'model': 'resnet_projection'}, 'model.conditional=null', None), (RESNET, 'model.conditional=concat', 'concat'),
    ({'method': 'none'}, 'method.gradient_penalty=10', 10.0), ({'method': 'wgan_gp'}, 'method.gradient_penalty=0', 0.0),
    ({'method': 'weight_clipping'}, 'method.limit=1', 1.0), ({'method': 'orthonormal'}, 'method.coefficient=0', 0.0),
    ({}, 'setting.n_gen_ratio=2', 2), ({}, 'setting.decay_start=0', 0), ({}, 'setting.decay_start=400000', 400000),
    ({'setting': 'resnet'}, 'setting.decay_start=null', None), ({}, 'dataset.n_classes=0', 0),
    ({'dataset': 'folder'}, 'dataset.n_classes=1000', 1000)])
def test_values_at_the_limits_are_taken(rows, override, expected):
    section, key = override.partition('=')[0].split('.')
    value = getattr(resolve(**rows, overrides=[override]), section)[key]
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize('key', ['dataset.n_classes', 'method.gradient_penalty', 'setting.n_gen_ratio',
                                 'setting.decay_start'])
def test_a_key_that_the_code_reads_of_every_row_must_be_in_the_file(tmp_path, key):
    tree, (section, name) = resolve().to_dict(), key.split('.')
    del tree[section][name]
    (tmp_path / 'config.yml').write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=key) as info:
        load_config(str(tmp_path / 'config.yml'))
    assert '\n' not in str(info.value)


@pytest.mark.parametrize('row, expected', [('resnet', (2e-4, 0.0, 0.9, 5, 2, 0)),
                                           ('imagenet', (2e-4, 0.0, 0.9, 5, 2, 400000))])
def test_settings_of_the_resnets_are_the_authors(row, expected):
    setting = resolve(setting=row).setting
    assert (setting.alpha, setting.beta1, setting.beta2, setting.n_dis, setting.n_gen_ratio,
            setting.decay_start) == expected


@pytest.mark.parametrize('row, loss, gradient_penalty', [
    ('none', 'log', 0), ('weight_clipping', 'log', 0), ('gan_gp', 'log', 10), ('wgan_gp', 'wasserstein', 10),
    ('batch_norm', 'log', 0), ('layer_norm', 'log', 0), ('weight_norm', 'log', 0), ('orthonormal', 'log', 0),
    ('sn', 'log', 0), ('sn_hinge', 'hinge', 0), ('orthonormal_hinge', 'hinge', 0), ('sn_gp', 'wasserstein', 10)])
def test_methods_have_the_losses_of_the_papers_table_2(row, loss, gradient_penalty):
    method = resolve(method=row).method
    assert (method.loss, method.gradient_penalty) == (loss, gradient_penalty)
    assert not method.get('use_gamma') or row == 'sn_gp'
    assert method.get('limit', 0.01) == 0.01


def test_a_protocol_that_flags_changed_has_a_star():
    assert config.protocol_label(resolve(protocol='50k').protocol) == '50k'
    assert config.protocol_label(resolve(protocol='50k', overrides=['protocol.splits=2']).protocol) == '50k*'
    assert config.protocol_label(Row('forgotten', {'samples': 2})) == 'forgotten*'


def test_is_frozen():
    c = resolve()
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.seed = 1
    with pytest.raises(AttributeError):
        c.setting.alpha = 1
    with pytest.raises(AttributeError):
        c.setting.missing  # noqa: B018
    with pytest.raises(TypeError):
        c.setting['alpha'] = 1


def test_round_trip(tmp_path):
    c = resolve(profile='quick', seed=3, device='cuda', overrides=['method.factor=2'])
    c.save(tmp_path / 'config.yml')
    again = load_config(str(tmp_path / 'config.yml'))
    assert again == c and not again.differences(c)


def test_differences_name_what_differs():
    here, there = resolve(overrides=['setting.alpha=0.1']), resolve(method='none')
    assert 'setting.alpha: 0.0002 there, 0.1 here' in here.differences(there)
    assert 'method.eps: absent there, 1e-12 here' in here.differences(there)
    assert 'method.name: none there, sn here' in here.differences(there)


@pytest.mark.parametrize('content', ['', '[', 'a: 1', 'dataset: 3', b'\xff\xfe\x00'])
def test_damaged_file(tmp_path, content):
    path = tmp_path / 'config.yml'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match='config.yml'):
        load_config(str(path))


def test_impossible_value_in_file(tmp_path):
    tree = resolve().to_dict()
    tree['setting']['n_dis'] = 0
    (tmp_path / 'config.yml').write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r'setting\.n_dis'):
        load_config(str(tmp_path / 'config.yml'))


@pytest.mark.parametrize('name', [3, None, ['sn']])
def test_a_name_in_file_that_is_none(tmp_path, name):
    tree = resolve().to_dict()
    tree['method']['name'] = name
    (tmp_path / 'config.yml').write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"'method\.name' is missing or wrong"):
        load_config(str(tmp_path / 'config.yml'))


def test_hostile_yaml_is_not_executed(tmp_path):
    (tmp_path / 'config.yml').write_text('!!python/object/apply:os.mkdir [%s/made]' % tmp_path)
    with pytest.raises(UserError, match='not valid YAML'):
        load_config(str(tmp_path / 'config.yml'))
    assert not (tmp_path / 'made').exists()


def test_every_row_resolves():
    for section, name in config.SECTIONS.items():
        for row in config._read_yaml(f'{config.CONFIGS}/{name}.yml'):
            assert getattr(resolve(**{section: row}), section).name == row


def test_row():
    row = Row('x', {'a': [1, 2]})
    assert row.a == row['a'] == (1, 2) and dict(row) == {'a': (1, 2)} and 'x' in repr(row)
