"""Selectors, and COINCIDE's steps as plain functions of arrays."""

from coincide_pl.selection.all import All
from coincide_pl.selection.budgets import budgets
from coincide_pl.selection.coincide import Coincide, pick
from coincide_pl.selection.kernels import density, greedy_mmd
from coincide_pl.selection.random import Random
from coincide_pl.selection.selection import Selection
from coincide_pl.selection.selector import Picks, Pool, Selector
from coincide_pl.selection.transferability import transferability

__all__ = [
    "All",
    "Coincide",
    "Picks",
    "Pool",
    "Random",
    "Selection",
    "Selector",
    "budgets",
    "density",
    "greedy_mmd",
    "pick",
    "transferability",
]
