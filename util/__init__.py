"""The reproduction kit's own library. Importing any of it makes Chainer 7.8 importable (see ``compat``)."""
from util import compat  # noqa: F401
