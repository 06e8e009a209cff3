"""Metrics of generated answers, and the callback that keeps the score."""

from coincide_pl.evaluation.exact_match import Evaluate, ExactMatch

__all__ = ["Evaluate", "ExactMatch"]
