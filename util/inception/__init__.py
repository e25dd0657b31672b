"""The 2015-12-05 Inception network in Chainer, and the conversion of the weights that were released for it."""
from util.inception.network import Inception

__all__ = ['Inception']
