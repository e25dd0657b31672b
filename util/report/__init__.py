"""The tables of all runs beside the paper's numbers: ``make table``, or ``python -m util.report``.

Only what the Inception network gave is called an Inception Score, and only that stands in a column with the paper's
numbers; runs of the quick profile have tables of their own.
"""
