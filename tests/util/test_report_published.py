"""configs/published.yml: all of Table 2 is there, row by row, and what is wrong in it is said."""
import re

import pytest
import yaml

from tests.util.test_report import section
from util import config
from util.files import UserError
from util.report.markdown import render_markdown
from util.report.published import PUBLISHED, read_published
from util.report.runs import sort_rows

# Table 2: label: method and model here; IS, its deviation, FID of CIFAR-10; the same of STL-10
TABLE_2 = """
Real data                                  |                           | 11.24 .12  7.8     | 26.08 .26  7.9
Weight clipping                            | weight_clipping   cnn     |  6.41 .11 42.6     |  7.57 .10 64.2
GAN-GP                                     | gan_gp            cnn     |  6.93 .08 37.7     |
WGAN-GP                                    | wgan_gp           cnn     |  6.68 .06 40.2     |  8.42 .13 55.1
Batch Norm.                                | batch_norm        cnn     |  6.27 .10 56.3     |
Layer Norm.                                | layer_norm        cnn     |  7.19 .12 33.9     |  7.61 .12 75.6
Weight Norm.                               | weight_norm       cnn     |  6.84 .07 34.7     |  7.16 .10 73.4
Orthonormal                                | orthonormal       cnn     |  7.40 .12 29.0     |  8.56 .07 46.7
SN-GANs                                    | sn                cnn     |  7.42 .08 29.3     |  8.28 .09 53.1
Orthonormal (2x updates)                   | orthonormal       cnn     |                    |  8.67 .08 44.2
SN-GANs (2x updates)                       | sn                cnn     |                    |  8.69 .09 47.5
SN-GANs, hinge loss, Eq. (17)              | sn_hinge          cnn     |  7.58 .12 25.5     |
SN-GANs, hinge loss, Eq. (17) (2x updates) | sn_hinge          cnn     |                    |  8.79 .14 43.2
Orthonormal, hinge loss                    | orthonormal_hinge resnet  |  7.92 .04 23.8 .58 |  8.72 .06 42.4 .99
SN-GANs, hinge loss                        | sn_hinge          resnet  |  8.22 .05 21.7 .21 |  9.10 .04 40.1 .50
DCGAN                                      |                           |  6.64 .14          |  7.84 .07
LR-GANs (Yang et al. 2017)                 |                           |  7.17 .07          |
Warde-Farley and Bengio 2017               |                           |  7.72 .13          |  8.51 .13
WGAN-GP, ResNet (Gulrajani et al. 2017)    |                           |  7.86 .08          |
"""
# Appendix E, Table 7, and ImageNet: label: method, model; IS, deviation, FID
OTHERS = """
WGAN-GP + Frobenius norm          |                                 |
WGAN-GP + weight norm             |                                 |  6.36 .04 42.4
WGAN-GP + spectral norm           | sn_gp cnn                       |  7.20 .08 32.0
WGAN-GP, ResNet                   |                                 |  7.80 .11 24.5
WGAN-GP + spectral norm, ResNet   |                                 |  7.85 .06 23.6
WGAN-GP + spectral norm, ResNet, D 1.5 times as wide |              |  7.96 .06 22.5
SN-GANs, label concatenated       | sn_hinge resnet128_concat       | 21.1  .35
SN-GANs, projection discriminator | sn_hinge resnet128_projection   | 29.7
"""
NUMBERS = ('score', 'score_std', 'frechet_distance', 'frechet_distance_std')


def literal(text, column):
    """Rows of a table above: label -> names, numbers; only those with something in ``column``."""
    table = [[cell.strip() for cell in line.split('|')] for line in text.strip().splitlines()]
    return {row[0]: (row[1].split(), [float(x) for x in row[column].split()]) for row in table if row[column]}


@pytest.mark.parametrize('dataset, column', [('cifar10', 2), ('stl10', 3)])
def test_table_2_is_whole(dataset, column):
    rows = [row for row in read_published()[0] if row['dataset'] == dataset and 'Appendix' not in row.get('group', '')]
    wanted = literal(TABLE_2, column)
    assert [row['label'] for row in rows] == list(wanted)
    for row in rows:
        names, numbers = wanted[row['label']]
        model = row.get('model', '').replace('48', '')  # the ResNet for STL-10's size
        assert [row.get('method'), model] == (names or [None, '']), row
        assert [row[key] for key in NUMBERS if key in row] == numbers, row
        assert row['scorer'] == 'inception' and row['origin'] == 'paper' and row.get('outcome') is None


def test_the_rest_is_whole():
    rows = read_published()[0]
    rows = [row for row in rows if row['dataset'] == 'imagenet' or 'Appendix' in row.get('group', '')]
    wanted = literal(OTHERS, 2)
    assert [row['label'] for row in rows] == ['WGAN-GP + Frobenius norm', *wanted]
    assert rows[0]['outcome'] == 'collapsed early' and not set(NUMBERS[1:]) & set(rows[0]) and rows[0]['score'] is None
    for row in rows[1:]:
        assert [row[key] for key in ('method', 'model') if key in row] == wanted[row['label']][0]
        assert [row[key] for key in NUMBERS if key in row] == wanted[row['label']][1]
    assert all(row['source'] for row in rows)


def test_updates_and_groups_of_table_2():
    rows = read_published()[0]
    for row in rows:
        if row.get('model') == 'cnn' and row['method'] != 'sn_gp':
            assert row['iterations'] == (200000 if '2x' in row['label'] else 100000) and row['group'] == 'Standard CNN'
        elif row.get('model', '').startswith('resnet') and row['dataset'] != 'imagenet':
            assert row['group'] == 'ResNet' and 'iterations' not in row
    for name in ('cifar10', 'stl10'):
        groups = [row['group'].partition(',')[0] for row in rows if row['dataset'] == name and 'group' in row]
        assert list(dict.fromkeys(groups)) == ['Standard CNN', 'ResNet', 'Published by others']


def test_each_run_can_stand_beside_one_row_only():
    keys = [tuple(row.get(key) for key in ('dataset', 'model', 'method', 'iterations')) for row in read_published()[0]
            if 'method' in row]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize('section_of, key', [('methods', 'method'), ('models', 'model'), ('datasets', 'dataset'),
                                             ('protocols', 'protocol')])
def test_names_are_rows_of_configs(section_of, key):
    with open('{}/{}.yml'.format(config.CONFIGS, section_of), encoding='utf-8') as f:
        known = yaml.safe_load(f)
    assert {row[key] for row in read_published()[0] if key in row} <= set(known)


def published(tmp_path, **own):
    with open(PUBLISHED, encoding='utf-8') as f:
        tree = yaml.safe_load(f)
    path = tmp_path / 'published.yml'
    path.write_text(yaml.safe_dump({**tree, 'own': [own]}))
    return str(path)


OWN = {'label': 'my | first', 'dataset': 'cifar10', 'scorer': 'inception', 'settings': 'alpha 2e-4', 'score': 7,
       'source': 'lab notebook, page 12'}


def test_own_numbers(tmp_path):
    rows, about = read_published(published(tmp_path, **OWN))
    markdown = render_markdown(sort_rows(rows), about)
    row = section(markdown, 'Inception Scores')[-1]
    assert (row['run'], row['setting'], row['Inception Score']) == (r'own: my \| first', 'alpha 2e-4', '7.00')
    assert 'Own number "my | first": lab notebook, page 12' in markdown
    rows, about = read_published(published(tmp_path, **{**OWN, 'scorer': 'digits'}))
    markdown = render_markdown(sort_rows(rows), about)
    assert [row['run'] for row in section(markdown, 'Scores of other networks')] == [r'own: my \| first']
    assert section(markdown, 'Inception Scores') == []


def test_own_text_that_yaml_takes_for_a_number(tmp_path):
    rows, about = read_published(published(tmp_path, **{**OWN, 'label': 3, 'model': 4, 'dataset': 5}))
    markdown = render_markdown(sort_rows(rows), about)
    assert section(markdown, 'Inception Scores')[0]['run'] == 'own: 3'


def test_the_documented_entry_is_right(tmp_path):
    with open(PUBLISHED, encoding='utf-8') as f:
        comment = re.search(r'(?:^#   .*\n)+', f.read(), re.M).group()
    entry, = yaml.safe_load(re.sub(r'^#   ', '', comment, flags=re.M))
    rows, _ = read_published(published(tmp_path, **entry))
    assert rows[-1]['origin'] == 'own' and rows[-1]['score'] == 7.1


@pytest.mark.parametrize('change, message', [
    ({'source': None}, 'own: source is missing'), ({'settings': None}, 'own: settings is missing'),
    ({'scorer': None}, 'own: scorer is missing'), ({'fid': 3}, 'own: fid is unknown'),
    ({'score': 'seven'}, "own: score must be a number, not 'seven'"),
    ({'score': None}, 'own: score is missing'),
    ({'iterations': 'many'}, "own: iterations must be a number, not 'many'")])
def test_wrong_own_numbers(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_published(published(tmp_path, **{**OWN, **change}))


@pytest.mark.parametrize('text', ['[', 'paper: []', '3', '{source: a, protocol: b, paper: [1], own: []}', None])
def test_damaged_published_numbers(tmp_path, text):
    path = tmp_path / 'p.yml'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match='p.yml: expected source, protocol, paper, own'):
        read_published(str(path))


def test_a_wrong_number_of_the_paper(tmp_path):
    entry = {'label': 'a', 'dataset': 'cifar10', 'scorer': 'inception', 'method': 'sn'}
    for change, message in (({'model': 'cnn'}, 'paper: score is missing'), ({'score': 1.0}, 'paper: model is missing'),
                            ({'model': 'cnn', 'score': True}, 'paper: score must be a number, not True')):
        path = tmp_path / 'p.yml'
        path.write_text(yaml.safe_dump({'source': 's', 'protocol': 'p', 'own': [], 'paper': [{**entry, **change}]}))
        with pytest.raises(UserError, match=message):
            read_published(str(path))
