"""Scores of generated pictures as pure functions: arrays in, numbers out, float64, no network inside."""
from util.metrics.frechet import frechet_distance, statistics
from util.metrics.inception_score import inception_score

__all__ = ['frechet_distance', 'inception_score', 'statistics']
