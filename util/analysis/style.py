"""How figures look: one colour, marker, line and hatch for each method in all of them, told apart in grey, too."""
import functools
import textwrap

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Method: name in legends, colour, marker, line, hatch. Colours are of Okabe and Ito's and Tol's palettes. Markers are
# those whose shapes differ when they are small; a blank behind one makes it hollow
_METHODS = {
    'none': ('no normalization', '#000000', 'o', '-', ''),
    'weight_clipping': ('weight clipping', '#E69F00', 's', '--', '//'),
    'gan_gp': ('GAN-GP', '#56B4E9', '^', '-.', '..'),
    'wgan_gp': ('WGAN-GP', '#0072B2', 'v', '-', 'xx'),
    'batch_norm': ('batch norm.', '#CC79A7', 'D', '--', '++'),
    'layer_norm': ('layer norm.', '#882255', 'P', ':', '\\\\'),
    'weight_norm': ('weight norm.', '#009E73', 'X', '--', '--'),
    'frobenius_norm': ('Frobenius norm', '#117733', '<', ':', 'oo'),
    'orthonormal': ('orthonormal', '#B8A100', '>', '-.', '||'),
    'orthonormal_hinge': ('orthonormal, hinge', '#665500', '> ', ':', '**'),
    'sn': ('SN', '#D55E00', '*', '-', ''),
    'sn_hinge': ('SN, hinge', '#AA3377', '* ', '--', '//..'),
    'sn_gp': ('SN, WGAN-GP', '#EE8866', 'd', '-.', '\\\\..'),
    'singular_value_clipping': ('sing. value clipping', '#777777', 's ', '--', 'xx..'),
    'ssn': ('SSN', '#44AA99', '^ ', '-.', '++..'),
    'bsn': ('BSN', '#332288', 'v ', '--', '||..'),
    'bssn': ('BSSN', '#6699CC', 'o ', '-', '--..'),
}
_OTHER = ('#999999', 'x', ':', 'OO')
PARAMETERS = {
    'font.size': 9, 'axes.titlesize': 9, 'axes.labelsize': 9, 'legend.fontsize': 8, 'xtick.labelsize': 8,
    'ytick.labelsize': 8, 'figure.titlesize': 10, 'axes.linewidth': 0.6, 'lines.linewidth': 1.1, 'lines.markersize': 4,
    'hatch.linewidth': 0.4, 'axes.grid': True, 'grid.linewidth': 0.4, 'grid.alpha': 0.4, 'axes.axisbelow': True,
    'legend.frameon': False, 'savefig.dpi': 160, 'svg.hashsalt': 'figures', 'svg.fonttype': 'none',
}


def label(method):
    """A method's name in a figure."""
    return _METHODS.get(method, (method,))[0]


def color(method):
    """A method's colour in all figures."""
    return _METHODS.get(method, (method, *_OTHER))[1]


def line(method, **more):
    """Keyword arguments of ``Axes.plot`` for a method's line."""
    name, tint, marker, dashes, _ = _METHODS.get(method, (method, *_OTHER))
    return {'color': tint, 'marker': marker[0], 'linestyle': dashes, 'label': name,
            'fillstyle': 'none' if marker.endswith(' ') else 'full', 'markersize': 6 if marker[0] == '*' else 4, **more}


def bar(method):
    """Keyword arguments of ``Axes.bar`` for a method's bars."""
    name, tint, _, _, hatch = _METHODS.get(method, (method, *_OTHER))
    return {'color': tint, 'hatch': hatch, 'edgecolor': 'white', 'linewidth': 0.5, 'label': name}


def shade(i, n):
    """Colour, marker and line of the i-th of n layers or snapshots, darker with i."""
    return {'color': matplotlib.colormaps['viridis'](0.85 * (1 - i / max(n - 1, 1))), 'marker': 'os^vDPX<>*'[i % 10],
            'linestyle': ('-', '--', '-.', ':')[i % 4]}


def make_figure(title, rows=1, columns=1, width=7., height=3., **options):
    """A Figure with a title and ``rows`` x ``columns`` axes (an array of two dimensions)."""
    with matplotlib.rc_context(PARAMETERS):
        figure = Figure(figsize=(width, height), layout='constrained')
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        lines = [textwrap.fill(part, int(width * 13)) for part in title.split('\n')]
        figure.suptitle('\n'.join(lines), x=0.01, ha='left')
    return figure, axes


def log_scale(axis):
    """Make the y axis of what has been drawn logarithmic: over few decades with ticks between the powers of ten."""
    axis.set_yscale('log')
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,), numticks=8))
    axis.yaxis.set_major_formatter(FuncFormatter(_format_power))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _format_power(x, _):
    digits, power = '{:e}'.format(x).split('e')
    if -3 <= int(power) <= 3:
        return '{:g}'.format(x)
    return '${}10^{{{}}}$'.format('' if float(digits) == 1 else '{:g}\\times'.format(float(digits)), int(power))


def styled(function):
    """Decorator: what ``function`` draws has these fonts and lines."""
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with matplotlib.rc_context(PARAMETERS):
            return function(*args, **kwargs)
    return wrapped


def legend(figure, handles, title=None):
    """A legend right of all axes, where it covers nothing."""
    unique = {handle.get_label(): handle for handle in handles}
    figure.legend(handles=list(unique.values()), loc='outside right center', title=title, handlelength=3)


def method_handles(methods):
    """What a legend shows of methods."""
    return [Line2D([], [], **line(method)) for method in methods]
