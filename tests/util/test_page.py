"""The page of all runs: what is on it, what is not, and that nothing of a run's files becomes markup."""
import html.parser
import json
import os
import re
import shutil

import pytest
import yaml
from PIL import Image

from tests.helpers import refused
from tests.util.test_report import make_paper_run, make_run
from util import scores
from util.analysis.__main__ import FIGURES
from util.cli import run_command
from util.page import images, style
from util.page.__main__ import main
from util.page.captions import describe_figure
from util.page.figures import OF_NO_RUN
from util.page.gather import QUICK

VOID = {'br', 'img', 'link', 'meta', 'source'}
HOSTILE = '<script>alert("1")</script>\'"&<img src=x onerror=alert(1)>'


class Page(html.parser.HTMLParser):
    """Reads a page strictly: each element that is opened must be closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ''
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), 'an attribute twice'
        self.elements.append((tag, dict(attributes), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'style' not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]


def make(capsys, runs, out, *arguments):
    """Run the command; returns the page, what it said on stderr, and the file's text."""
    assert run_command(main, [str(runs), '--out', str(out), *arguments]) == 0
    text = out.read_text(encoding='utf-8')
    return Page(text), capsys.readouterr().err, text


def draw_grid(run, iteration=50, size=40):
    """Give a run a grid of pictures, and what looks like the generator that drew it."""
    (run / 'images').mkdir(exist_ok=True)
    Image.new('RGB', (size, size), 'red').save(run / 'images' / 'iter_{:06d}.png'.format(iteration))
    (run / 'gen_iter_{:06d}.npz'.format(iteration)).write_bytes(b'none')


def change(path, **keys):
    """Change keys of a run's config.yml: section=(key, value)."""
    tree = yaml.safe_load((path / 'config.yml').read_text())
    for section, (key, value) in keys.items():
        tree[section][key] = value
    (path / 'config.yml').write_text(yaml.safe_dump(tree))


def make_figures_up(folder, *groups, names=tuple(FIGURES)):
    """Files as of `make figures`, of the future, so that none is drawn: `util.analysis` has tests of its own."""
    picture = Image.new('RGB', (60, 30), 'green')
    for group in groups:
        (folder / group).mkdir(parents=True)
        for name in names:
            place = folder / name if name in OF_NO_RUN else folder / group / name
            ending = '.gif' if name == 'animation' else '.png'
            picture.save(place.with_suffix(ending), save_all=True, append_images=[Image.new('RGB', (60, 30))])
            os.utime(place.with_suffix(ending), (4e9, 4e9))
        (folder / group / 'scores.csv').write_text(
            'method,setting,score,frechet_distance\nsn,A,6.5,9.25\nnone,B,7,12\nbssn,C,,\n')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Two groups of runs with everything, and the page."""
    folder = tmp_path_factory.mktemp('whole')
    for seed in (0, 1):
        draw_grid(make_run(folder / 'runs' / 'digits-{}'.format(seed), seed=seed))
    make_run(folder / 'runs' / 'digits-none', method='none')
    draw_grid(make_paper_run(folder / 'runs' / 'cifar10-sn'))
    make_figures_up(folder / 'figures', 'digits-cnn-quick-50', 'cifar10-cnn-50')
    assert run_command(main, [str(folder / 'runs'), '--out', str(folder / 'report.html')]) == 0
    return folder


@pytest.fixture(scope='module')
def page(whole):
    return Page((whole / 'report.html').read_text(encoding='utf-8'))


@pytest.fixture
def few(tmp_path):
    """Two runs of the quick profile and one of the paper's, with a figure each."""
    draw_grid(make_run(tmp_path / 'runs' / 'quick'))
    make_run(tmp_path / 'runs' / 'quick-none', method='none')
    draw_grid(make_paper_run(tmp_path / 'runs' / 'paper', seed=1))
    make_figures_up(tmp_path / 'figures', 'digits-cnn-quick-50', 'cifar10-cnn-50', names=['scores'])
    return tmp_path


# What every page must be

def test_nothing_is_fetched_and_nothing_runs(whole, page):
    text = (whole / 'report.html').read_text(encoding='utf-8')
    assert 'http:' not in text and 'https:' not in text and 'url(' not in text and '@import' not in text
    assert not {'script', 'link', 'iframe', 'object', 'embed', 'form'} & {tag for tag, _, _ in page.elements}
    for _, attributes, _ in page.elements:
        assert attributes.get('src', 'data:image/').startswith('data:image/')
        assert attributes.get('href', '#').startswith('#')
        assert not any(key.startswith('on') or key == 'style' for key in attributes)


def test_links_lead_to_sections(page):
    identifiers = [attributes['id'] for _, attributes, _ in page.elements if 'id' in attributes]
    assert len(set(identifiers)) == len(identifiers)
    targets = [attributes['href'][1:] for attributes in page.all('a')]
    assert targets == ['runs', 'scores', 'figures', 'samples', 'commands', 'skipped']
    assert set(targets) <= set(identifiers)


def test_headings_go_down_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_pictures_have_words_and_sizes_and_captions(page):
    pictures = page.all('img')
    assert all(picture['alt'] and int(picture['width']) > 0 and int(picture['height']) > 0 for picture in pictures)
    assert len(page.all('figcaption')) == len(page.all('figure')) == len(pictures)
    assert all('figure' in inside for tag, _, inside in page.elements if tag == 'img')


def test_tables_have_captions_and_headings_with_scopes(page):
    assert len(page.all('caption')) == len(page.all('table')) > 4
    assert {attributes['scope'] for attributes in page.all('th')} <= {'col', 'row', 'rowgroup'}
    for tag, attributes, inside in page.elements:
        if tag == 'table':  # in a box that scrolls, which keys and screen readers find
            assert inside[-1] == 'div'
        if attributes.get('class') == 'scroll':
            assert attributes['tabindex'] == '0' and attributes['aria-label']


def test_a_telephone_is_told_its_width(page):
    viewport, = (meta['content'] for meta in page.all('meta') if meta.get('name') == 'viewport')
    assert viewport == 'width=device-width, initial-scale=1'


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize('colours', [style.LIGHT, style.DARK], ids=['light', 'dark'])
@pytest.mark.parametrize('text, ground', style.PAIRS)
def test_contrast_is_enough(colours, text, ground):
    a, b = sorted((luminance(colours[text]), luminance(colours[ground])))
    assert (b + 0.05) / (a + 0.05) >= 4.5


# What is on it

def test_every_figure_is_there_with_what_to_see_in_it(page):
    for name in FIGURES:
        title, sentence = describe_figure(name)
        assert title in page.text and sentence in page.text, name
        assert '--only ' + name in page.text
        assert any(picture['alt'].startswith(title) for picture in page.all('img'))
    numbers = 'Highest score: 7.00, no normalization at setting B. Lowest Frechet distance: 9.2, SN at setting A.'
    assert page.text.count(numbers) == 2


def test_a_figure_without_a_caption_of_its_own_has_what_its_function_says(monkeypatch):
    def draw(runs, skip):
        """Draw the time that a step takes
        by method.

        Args: ..."""
    monkeypatch.setitem(FIGURES, 'step_time', draw)
    assert describe_figure('step_time') == ('Step time', 'The time that a step takes by method.')


def test_runs_and_what_they_ran_with(page):
    for words in ('digits-0', 'cifar10-sn', 'finished', 'E1', 'CPU, 2 cores', 'abc123', '50'):
        assert words in page.text


def test_the_quick_profile_is_marked_wherever_it_appears(few, capsys):
    page, _, text = make(capsys, few / 'runs', few / 'report.html')
    parts = re.split('<section id="(.*?)">', text)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert {QUICK.replace("'", '&#x27;') in found[name] for name in found if 'quick' in name} == {True}
    for name in ('runs', 'scored', 'matrices', 'commands'):
        captions = re.findall('<caption>(.*?)</caption>', found[name])
        marked = [caption for caption in captions if 'class="mark"' in caption]
        assert marked and all('digits' in caption for caption in marked), name
        assert not any('cifar10' in caption for caption in marked)
    for caption in re.findall('<figcaption>(.*?)</figcaption>', found['figures-digits-cnn-quick-50'], re.S):
        assert 'class="mark"' in caption
    assert 'class="mark"' not in found['figures-cifar10-cnn-50'] + found['samples-cifar10-cnn-50']
    assert '2 of these runs are of the quick profile' in page.text


def test_other_scores_keep_their_names(few, capsys):
    page, _, text = make(capsys, few / 'runs', few / 'report.html')
    tables = re.findall('<table>.*?</table>', text, re.S)
    for table in tables:
        if 'digit-classifier score' in table:
            assert 'Inception Score' not in table and 'FID' not in table
    scored, = (table for table in tables if 'cifar10, Inception Score' in table)
    assert 'scope="col">FID<' in scored and '5.43' in scored
    ours, = (table for table in tables if 'CIFAR-10: the paper&#x27;s Table 2, and ours beside it' in table)
    assert 'our IS' in ours and '7.42 +- 0.08' in ours


def test_without_inception_scores_the_paper_stands_alone(tmp_path, capsys):
    make_paper_run(tmp_path / 'runs' / 'a', 'cifar10')
    page, _, text = make(capsys, tmp_path / 'runs', tmp_path / 'report.html')
    assert 'No run here has been scored with the Inception network' in page.text
    assert 'our IS' not in page.text and 'cifar10-classifier score' in page.text


def test_runs_without_scores(tmp_path, capsys):
    draw_grid(make_run(tmp_path / 'runs' / 'a', rows=(), done=False))
    page, _, _ = make(capsys, tmp_path / 'runs', tmp_path / 'report.html')
    assert 'No run here has been scored.' in page.text and 'NOT FINISHED' in page.text and '50 of 50' not in page.text


def test_the_same_runs_give_the_same_bytes(whole, capsys):
    again = whole / 'again' / 'report.html'
    text = make(capsys, whole / 'runs', again, '--figures', str(whole / 'figures'))[2]
    assert text == (whole / 'report.html').read_text(encoding='utf-8')
    assert os.listdir(whole / 'again') == ['report.html']  # the figures were not made again


def test_figures_that_are_missing_or_older_than_the_runs_are_made(few, capsys):
    figure = few / 'figures' / 'digits-cnn-quick-50' / 'scores.png'
    figure.write_bytes(b'old')
    os.utime(figure, (1e9, 1e9))
    page, _, _ = make(capsys, few / 'runs', few / 'report.html')
    drawn = figure.stat().st_mtime_ns
    assert figure.stat().st_size > 1000 and [int(image['width']) for image in page.all('img')][0] > 100
    make(capsys, few / 'runs', few / 'report.html')
    assert figure.stat().st_mtime_ns == drawn  # it is new enough


def test_large_pictures_are_made_smaller(tmp_path, capsys):
    draw_grid(make_run(tmp_path / 'runs' / 'a'), size=1300)
    page, _, _ = make(capsys, tmp_path / 'runs', tmp_path / 'report.html')
    assert [image['width'] for image in page.all('img') if image['alt'].startswith('Grid')] == ['700']


def test_a_pillow_without_webp(few, capsys, monkeypatch):
    monkeypatch.setattr(images, '_WEBP', False)
    page, _, _ = make(capsys, few / 'runs', few / 'report.html')
    assert all(image['src'].startswith('data:image/png;') for image in page.all('img'))


# What it must not do

def test_hostile_texts_stay_texts(tmp_path, capsys):
    run = make_run(tmp_path / 'runs' / HOSTILE.replace('/', '\N{DIVISION SLASH}'), name=HOSTILE, source=HOSTILE,
                   sessions=((HOSTILE, HOSTILE),), protocol_of_scores=HOSTILE)
    change(run, method=('name', HOSTILE))
    environment = json.loads((run / 'environment.json').read_text())
    environment['sessions'][0].update(started=HOSTILE, engine=HOSTILE, threads='\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}',
                                      versions={HOSTILE: HOSTILE}, command=['train.py', '--tag', HOSTILE])
    (run / 'environment.json').write_text(json.dumps(environment))
    table = scores.ScoreTable(str(run / 'scores.csv'))
    table.put({**table.rows[-1], 'reference': HOSTILE, 'iteration': 60})
    draw_grid(run, 60)
    page, _, text = make(capsys, tmp_path / 'runs', tmp_path / 'report.html')
    assert not page.all('script') and not [image for image in page.all('img') if image['src'] == 'x']
    assert '<script' not in text and '<img src=x' not in text
    assert not any(key.startswith('on') for _, attributes, _ in page.elements for key in attributes)
    assert page.text.count('<script>alert("1")</script>') > 5  # as text
    assert '\x1b' not in text and '\N{RIGHT-TO-LEFT OVERRIDE}' not in text


def test_names_that_are_no_formulas_and_no_folders(tmp_path, capsys):
    run = make_run(tmp_path / 'runs' / 'a')
    change(run, method=('name', r'$\no{'), dataset=('name', '../../above'), setting=('name', r'\$'))
    page, _, _ = make(capsys, tmp_path / 'runs', tmp_path / 'deep' / 'er' / 'report.html')
    assert r'$\no{' in page.text and page.all('img')
    assert {path.name for path in tmp_path.iterdir()} == {'runs', 'deep'}
    assert list((tmp_path / 'deep').iterdir()) == [tmp_path / 'deep' / 'er']


def test_a_name_that_is_not_utf_8(few, capsys):
    (few / 'runs' / 'quick' / 'done').write_text('{"elapsed_time": 3}')
    os.rename(few / 'runs' / 'quick', os.path.join(os.fsencode(few / 'runs'), b'a\xff'))
    page, _, _ = make(capsys, few / 'runs', few / 'report.html')
    assert 'a\N{REPLACEMENT CHARACTER}' in page.text


def test_no_runs(tmp_path, capsys):
    status = run_command(main, [str(tmp_path), '--out', str(tmp_path / 'report.html')])
    refused(capsys, status, 'no run in', 'make normalize', silent=True)
    refused(capsys, run_command(main, [str(tmp_path / 'x')]), 'is not a directory', silent=True)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(few, capsys):
    refused(capsys, run_command(main, [str(few / 'runs'), '--out', str(few / 'runs')]), '--out', 'is a folder')
    (few / 'file').write_text('')
    assert run_command(main, [str(few / 'runs'), '--out', str(few / 'file' / 'report.html'), '--figures',
                              str(few / 'figures')]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: cannot write ')


@pytest.mark.parametrize('name, content', [
    ('config.yml', 'dataset: 3'), ('config.yml', '['), ('environment.json', '{'), ('environment.json', None),
    ('environment.json', '{"data": {"source": "", "fingerprint": ""}, "sessions": [1, {}]}'),
    ('environment.json', '{"data": {"source": "", "fingerprint": ""}, "sessions": [{"device": []}]}'),
    ('scores.csv', 'iteration\n1'), ('scores.csv', '<b>'), ('diverged', '{')])
def test_damaged_runs_are_left_out_with_a_line_each(few, capsys, name, content):
    broken = shutil.copytree(few / 'runs' / 'quick', few / 'runs' / 'broken')
    (broken / 'done').unlink()
    (broken / name).unlink(missing_ok=True)
    if content is not None:
        (broken / name).write_text(content)
    page, error, _ = make(capsys, few / 'runs', few / 'report.html')
    lines = [line for line in error.splitlines() if 'broken' in line]
    assert len(lines) == 1 and lines[0].startswith('skipped ')
    left_out = page.text.split('What is left out')[-1]
    assert ' '.join(lines[0].split()) in ' '.join(left_out.split())
    assert 'broken' not in page.text.replace(lines[0], '')


def test_all_runs_damaged(few, capsys):
    for run in (few / 'runs').iterdir():
        (run / 'environment.json').write_text('{"data": {"source": "", "fingerprint": ""}, "sessions": [1, {}]}')
    assert run_command(main, [str(few / 'runs'), '--out', str(few / 'report.html')]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: no run in ')
    assert not (few / 'report.html').exists()


def test_a_damaged_picture_is_left_out(few, capsys):
    (few / 'runs' / 'quick' / 'images' / 'iter_000050.png').write_bytes(b'GIF89a')
    page, error, _ = make(capsys, few / 'runs', few / 'report.html')
    assert 'left out the pictures of ' in error and 'left out the pictures of ' in page.text
    grids = [image['alt'] for image in page.all('img') if image['alt'].startswith('Grid')]
    assert grids == ['Grid of pictures that paper draws after 50 generator updates']


def test_a_damaged_figure_is_left_out(few, capsys):
    for figure in (few / 'figures').glob('*/scores.png'):
        figure.write_bytes(b'no')
        os.utime(figure, (4e9, 4e9))
    page, error, _ = make(capsys, few / 'runs', few / 'report.html')
    assert error.count('left out a figure: ') == page.text.count('left out a figure: ') == 2
