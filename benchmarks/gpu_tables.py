"""What ``benchmarks.gpu_step`` prints."""
import statistics

from benchmarks import gpu_cases
from benchmarks.gpu_cases import VARIANTS

ITERATIONS = 50000
_ROW = '{:31s} {:>9} {:>9} {:>7} {:>8} {:>6} {:>8} {:>9} {:>8} {:>7}  {}'
_HEAD = ('an iteration', 'median ms', 'min ms', 'eager/', 'TFLOP/s', 'of it', 'kernels', 'kernel ms', 'MiB', 'minutes',
         'numbers')
LEGEND = """
Each + is the row above and one thing more. eager/: PyTorch eager's median divided by this one. TFLOP/s: exact products
of the convolutions and dense layers of the iteration, twice their number / median; of it: of the device's rate above,
in this precision. kernels, kernel ms: of one iteration, traced by PyTorch's profiler (CUPTI), which sees those of CuPy
and of CUDA graphs, too; '-': not traced. MiB: device memory taken, the CUDA context aside, held for reuse included.
minutes: of 50,000 iterations, without scoring. numbers: after {} iterations from equal weights and inputs, the losses'
largest relative distance from Chainer as it comes (no normalization: from cuDNN without it), and the cosines of the
changes of the generator's and the discriminator's parameters with its own.
""".strip().format(gpu_cases.CHECKED).splitlines()
CLOCKS = 0.1  # events and this machine's clock may differ so much


class Row:
    """What is known of a variant.

    Attributes:
        problem (str or None): Why there is nothing.
        check (str): What :func:`gpu_cases.compare` says.
        memory (int or None): Bytes.
        kernels (tuple or None): Of :func:`gpu_timing.count_kernels`.
        ms, walls (list of float): Milliseconds of all iterations; the clock's, one a turn.

    """

    def __init__(self):
        self.problem = self.memory = self.kernels = None
        self.check, self.ms, self.walls = '-', [], []

    @property
    def median(self):
        return statistics.median(self.ms) if self.ms else None


def describe(rows, work, rates):
    """Lines of text: the table, and how it compares with what is wanted.

    Args:
        rows (dict): Name of a variant -> Row.
        work (int): Multiply-adds of an iteration.
        rates (dict): Precision -> TFLOP/s of a large product of matrices; may lack some.

    Returns:
        list of str

    """
    eager = _median(rows, gpu_cases.TORCH_EAGER)
    lines = [_ROW.format(*_HEAD)]
    lines += [_describe_row(VARIANTS[name], row, work, rates, eager) for name, row in rows.items()]
    lines.append('')
    lines.append('large products of matrices, TFLOP/s: ' + (', '.join(
        '{} {:.1f}'.format(kind, rate) for kind, rate in rates.items()) or 'not measured'))
    return [line.rstrip() for line in [*lines, *describe_goals(rows), *describe_clocks(rows)]]


def _median(rows, name):
    return rows[name].median if name in rows else None


def _describe_row(variant, row, work, rates, eager):
    if not row.ms:
        return '{:31s} left out: {}'.format(variant.what, row.problem or 'no time was left')
    teraflops = 2e-9 * work / row.median
    rate = rates.get(variant.precision)
    return _ROW.format(
        variant.what, '%.3f' % row.median, '%.3f' % min(row.ms), '%.2f' % (eager / row.median) if eager else '-',
        '%.3g' % teraflops, '%.0f%%' % (100 * teraflops / rate) if rate else '-',
        *(('%d' % row.kernels[0], '%.3f' % row.kernels[1]) if row.kernels else ('-', '-')),
        '-' if row.memory is None else '%.0f' % (row.memory / 2 ** 20), '%.2f' % (row.median * ITERATIONS / 6e4),
        row.check + (', then: ' + row.problem if row.problem else ''))


def describe_goals(rows):
    """Lines of text: each thing wanted, what was measured, and whether it is met."""
    best, graph = _median(rows, gpu_cases.BEST), _median(rows, gpu_cases.TORCH_GRAPH)
    eager = _median(rows, gpu_cases.TORCH_EAGER)
    bare, ours_eager = _median(rows, gpu_cases.BEST_NONE), _median(rows, gpu_cases.EAGER)
    bare_eager = _median(rows, gpu_cases.EAGER_NONE)
    goals = [
        ('50,000 iterations, captured, minutes', best and best * ITERATIONS / 6e4, '< 5', lambda x: x < 5),
        ('PyTorch eager / captured', best and eager and eager / best, '>= 4', lambda x: x >= 4),
        ('captured / PyTorch in a CUDA graph', best and graph and best / graph, '<= 1', lambda x: x <= 1),
        ('spectral normalization / none, captured', best and bare and best / bare, '<= 1.03', lambda x: x <= 1.03),
        ('the same, eager', ours_eager and bare_eager and ours_eager / bare_eager, None, None)]
    lines = []
    for what, value, wanted, is_met in goals:
        said = 'not measured' if value is None else '%.3f' % value
        if wanted:
            said += ' (wanted: {}{})'.format(wanted, '' if value is None else ', met' if is_met(value) else ', NOT MET')
        lines.append('{:42s} {}'.format(what + ':', said))
    wrong = [VARIANTS[name].what for name, row in rows.items() if 'DIFFERS' in row.check]
    if wrong:
        lines.append('NUMBERS DIFFER, so these are not times of the same iteration: ' + '; '.join(wrong))
    return lines


def describe_clocks(rows):
    """Lines of text: variants whose events and this machine's clock disagree, so that the events may miss work."""
    lines = []
    for name, row in rows.items():
        if row.ms and abs(statistics.fmean(row.ms) / statistics.fmean(row.walls) - 1) > CLOCKS:
            lines.append("CLOCKS DIFFER: {}: {:.3f} ms by events, {:.3f} by this machine's clock".format(
                VARIANTS[name].what, statistics.fmean(row.ms), statistics.fmean(row.walls)))
    return lines
