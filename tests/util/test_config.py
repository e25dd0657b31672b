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
    assert resolve(profile='quick').setting.name == 'quick' and resolve(profile='quick').profile.iterations == 1200
    assert resolve(profile='quick', setting='A').profile.iterations == 240
    assert resolve(profile='quick', overrides=['setting.n_dis=3']).profile.iterations == 400
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
