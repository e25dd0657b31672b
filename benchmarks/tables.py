"""What ``benchmarks.cpu_step`` prints of times and memory."""
import statistics

from benchmarks.cases import PYTORCH, STOCK

_ROW = '{:8s} {:14s} {:>9} {:>9} {:>9}   {:>16} {:>16}'
SGEMM = 'sgemm'
LEGEND = ["stock / it: how many times as fast as stock Chainer; it / pytorch: its time divided by PyTorch's. Both of",
          "minima, and in brackets the median of the rounds' ratios."]


def ratios(a, b):
    """Times a by times b, which were taken in the same rounds: of the minima, and the median of the rounds' ratios."""
    return min(a) / min(b), statistics.median(x / y for x, y in zip(a, b, strict=True))


def add_iterations(seconds, work, n_dis):
    """Add whole iterations, one G step and ``n_dis`` D steps, to times and multiply-adds that have both.

    Args:
        seconds (dict): Step -> engine -> times, one a round.
        work (dict): Step -> multiply-adds.
        n_dis (int): D steps an iteration.

    Returns:
        tuple: The name of what was added, or ``None``; times and multiply-adds with it.

    """
    if not {'D', 'G'} <= set(seconds):
        return None, seconds, work
    name, d = 'G + {} D'.format(n_dis), seconds['D']
    sums = {engine: [g + n_dis * x for g, x in zip(times, d[engine], strict=True)]
            for engine, times in seconds['G'].items()}
    return name, {**seconds, name: sums}, {**work, name: work['G'] + n_dis * work['D']}


def describe_times(seconds, work, case, n_dis, iterations):
    """Lines of text: a table of the times of a case, and what is said of them besides.

    Args:
        seconds (dict): Step, or ``'sgemm'``, -> engine -> times, one a round. An engine with the case's method beside
            is named so: ``'numpy, none'``.
        work (dict): Step, or ``'sgemm'``, -> multiply-adds.
        case (Case): Which.
        n_dis (int): D steps an iteration.
        iterations (int): Of a whole run.

    Returns:
        list of str

    """
    whole, seconds, work = add_iterations(seconds, work, n_dis)
    lines = [_ROW.format('step', 'engine', 'min s', 'median s', 'GFLOP/s', 'stock / it', 'it / pytorch')]
    for step, by_engine in seconds.items():
        lines += [_describe_row(step, engine, by_engine, work[step]) for engine in by_engine]
    if case.beside:
        lines += _describe_beside(seconds, case)
    if whole:
        lines.append('{:,} iterations: {}'.format(iterations, ', '.join(
            '{} {:.1f} h'.format(engine, min(times) * iterations / 3600)
            for engine, times in seconds[whole].items() if ',' not in engine)))
    return [line.rstrip() for line in lines]


def _describe_row(step, engine, by_engine, work):
    times, same = by_engine[engine], ',' not in engine  # another method's times are no ratio to stock's
    stock, torch = (by_engine.get(name) if same and step != SGEMM else None for name in (STOCK, PYTORCH))
    return _ROW.format(step, engine, '%.4f' % min(times), '%.4f' % statistics.median(times),
                       '%.1f' % (2e-9 * work / min(times)),
                       '%.2f (%.2f)' % ratios(stock, times) if stock else '-',
                       '%.3f (%.3f)' % ratios(times, torch) if torch else '-')


def _describe_beside(seconds, case):
    lines = []
    for step in case.steps:
        for label, times in seconds[step].items():
            engine, _, method = label.partition(', ')
            if method == case.beside:
                lines.append("{} step, {} / {}, {}: {:.3f} (of minima), {:.3f} (median of the rounds' ratios)".format(
                    step, case.method, method, engine, *ratios(seconds[step][engine], times)))
    return lines


def describe_memory(memory):
    """Lines of text: the most memory that each engine's process had.

    Args:
        memory (dict): Name of a case -> engine -> MiB.

    Returns:
        list of str

    """
    row = '{:14s}' + ' {:>9}' * len(memory)
    engines = dict.fromkeys(engine for by_engine in memory.values() for engine in by_engine)
    return [row.format('peak, MiB', *memory)] + [row.format(engine, *(
        '%.0f' % by_engine[engine] if engine in by_engine else '-' for by_engine in memory.values()))
        for engine in engines]
