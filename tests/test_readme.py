"""What the README promises: its files exist, its commands and names are real, and nothing is left to fill in."""
import os
import re

import pytest

from util import config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENTS = ['README.md', 'inception_model/README.md', 'results/README.md']


def read(name):
    with open(os.path.join(ROOT, name), encoding='utf-8') as f:
        return f.read()


@pytest.mark.parametrize('name', DOCUMENTS)
def test_links_lead_somewhere(name):
    for link in re.findall(r'\]\(([^)#]+)\)', read(name)):
        if not link.startswith('http'):
            assert os.path.exists(os.path.join(ROOT, os.path.dirname(name), link)), link


@pytest.mark.parametrize('name', DOCUMENTS)
def test_nothing_is_left_to_fill_in(name):
    assert not re.findall(r'@[A-Z_]+@|TODO|TBD|XXX', read(name))


def test_targets_exist():
    words = {word for line in read('Makefile').splitlines() if line.startswith('##') for word in line.split()}
    targets = set(re.findall(r'`make ([a-z][\w-]*)|^make ([a-z][\w-]*)', read('README.md'), re.M))
    targets = {a or b for a, b in targets}
    assert {'normalize', 'test', 'table', 'setting-C'} <= targets <= words


def test_files_of_the_layout_exist():
    layout = read('README.md').split('## The layout')[1].split('```')[1]
    for name in re.findall(r'\butil/[\w/]+\.py', layout):
        assert os.path.exists(os.path.join(ROOT, name)), name
    named = set(re.findall(r'[\w/]+\.py', layout))
    for name in os.listdir(os.path.join(ROOT, 'util')):
        if name.endswith('.py') and name != '__init__.py':
            assert {name, 'util/' + name} & named, name + ' is not in the layout'


def test_the_table_of_settings_is_that_of_the_rows():
    rows = re.findall(r'^\| `(\w+)`[^|]*' + 3 * r'\| ([\d.]+) ' + r'\| (\d) \|', read('README.md'), re.M)
    assert [row[0] for row in rows] == ['default', 'A', 'B', 'C', 'D', 'E', 'F', 'quick']
    for name, *values in rows:
        setting = config.resolve(profile='paper', setting=name).setting
        assert [setting.alpha, setting.beta1, setting.beta2, setting.n_dis] == [float(value) for value in values]
