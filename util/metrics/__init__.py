"""Scores of generated pictures as pure functions: arrays in, numbers out, float64, no network inside."""
from util.metrics.frechet import FewSamplesWarning, frechet_distance, statistics, warn_of_few_samples
from util.metrics.inception_score import inception_score
from util.metrics.kernel import kernel_distance

__all__ = ['FewSamplesWarning', 'frechet_distance', 'inception_score', 'kernel_distance', 'statistics',
           'warn_of_few_samples']
