"""Selectors, and COINCIDE's steps as plain functions of arrays."""

from coincide_pl.selection.methods.clip_score import CLIPScore
from coincide_pl.selection.methods.coincide import Coincide, pick
from coincide_pl.selection.methods.d2_pruning import D2Pruning
from coincide_pl.selection.methods.el2n import EL2N
from coincide_pl.selection.methods.everything import All
from coincide_pl.selection.methods.perplexity import Perplexity
from coincide_pl.selection.methods.self_filter import SelfFilter
from coincide_pl.selection.methods.self_sup import SelfSup
from coincide_pl.selection.methods.semdedup import SemDeDup
from coincide_pl.selection.methods.uniform import Random
from coincide_pl.selection.selection import Selection
from coincide_pl.selection.selector import Picks, Pool, Selector
from coincide_pl.selection.steps.budgets import budgets
from coincide_pl.selection.steps.kernels import density, greedy_mmd
from coincide_pl.selection.steps.transferability import transferability

__all__ = [
    "EL2N",
    "All",
    "CLIPScore",
    "Coincide",
    "D2Pruning",
    "Perplexity",
    "Picks",
    "Pool",
    "Random",
    "Selection",
    "Selector",
    "SelfFilter",
    "SelfSup",
    "SemDeDup",
    "budgets",
    "density",
    "greedy_mmd",
    "pick",
    "transferability",
]
