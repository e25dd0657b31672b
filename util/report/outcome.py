"""How a run ended: finished or not, diverged, collapsed, or without having learned anything."""
import math

# Both factors are choices of this kit; the paper defines neither word.
# A run has collapsed when its last Frechet distance is more than this many times the lowest that it had had ...
COLLAPSED = 2
# ... and has learned nothing when its last Frechet distance is more than this part of the untrained generator's.
LEARNED_NOTHING = 0.5
COLLAPSED_WORD, LEARNED_NOTHING_WORD = 'collapsed', 'learned nothing'
DEFINITIONS = (
    '`DIVERGED at N`: a NaN or an infinity ended the run at iteration N. `NOT FINISHED`: it has not reached its last '
    'iteration; `finished`: it has, and neither of the following is so.',
    '`collapsed`: the last Frechet distance is more than {} times the lowest of the run, and that lowest was at most '
    "{} times the untrained generator's (iteration 0).".format(COLLAPSED, LEARNED_NOTHING),
    "`learned nothing`: the last Frechet distance is more than {} times the untrained generator's, and the run has not "
    'collapsed.'.format(LEARNED_NOTHING),
    'Distances are compared within a run, and only those of the same scorer, weights and protocol. Where the untrained '
    'generator was not scored, only `collapsed` can be told.')


def describe_outcome(table, finished, diverged_at):
    """Say how a run ended, as far as its scores of one scorer, weights and protocol tell.

    Args:
        table (list of dict): Rows of its ``scores.csv``, all of one scorer, weights and protocol; may be empty.
        finished (bool): It reached its last iteration.
        diverged_at (int or None): The iteration of the first number that was none.

    Returns:
        dict: ``outcome`` in words, and what it follows from: ``diverged_at``, ``untrained_frechet_distance``,
        ``lowest_frechet_distance`` and ``lowest_at``, each ``None`` where there is none.

    """
    distances = {score['iteration']: score['frechet_distance'] for score in table
                 if math.isfinite(score['frechet_distance'])}
    lowest_at = min(distances, key=distances.get, default=None)
    if diverged_at is not None:
        outcome = 'DIVERGED at {}'.format(diverged_at)
    else:
        verdict = _judge(table, distances, lowest_at)
        outcome = (verdict or 'finished') if finished else ', '.join(filter(None, ('NOT FINISHED', verdict)))
    return {'outcome': outcome, 'diverged_at': diverged_at, 'untrained_frechet_distance': distances.get(0),
            'lowest_frechet_distance': distances.get(lowest_at), 'lowest_at': lowest_at}


def _judge(table, distances, lowest_at):
    """``'collapsed'``, ``'learned nothing'``, or ``''`` where neither is so or nothing can be said."""
    last_at = max(score['iteration'] for score in table)
    if last_at == 0 or last_at not in distances:
        return ''
    last, lowest = distances[last_at], distances[lowest_at]
    enough = LEARNED_NOTHING * distances.get(0, math.inf)
    if last > COLLAPSED * lowest and lowest <= enough:
        return COLLAPSED_WORD
    return LEARNED_NOTHING_WORD if last > enough else ''
