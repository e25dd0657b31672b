"""One HTML file on all runs: ``make report``, or ``python -m util.page``.

It needs no network and no script. What comes from a run's files is text to it, never markup: see ``markup.py``.
"""
