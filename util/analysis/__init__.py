"""The papers' figures, made of whatever runs there are: ``make figures``, or ``python -m util.analysis``.

Each figure is a function ``runs, say -> Table, Figure`` of one module here; ``say`` gets a line for each run that it has
to leave out.
"""
