"""The papers' figures, made of whatever runs there are: ``make figures``, or ``python -m util.analysis``.

Each figure is a function ``runs, skip -> Table, Figure`` of one module here; ``skip`` gets each run that is left out,
and the reason (str).
"""
