"""Selectors, and COINCIDE's steps as plain functions of arrays, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coincide_pl.selection.methods.clip_score import CLIPScore
    from coincide_pl.selection.methods.coincide import Coincide
    from coincide_pl.selection.methods.d2_pruning import D2Pruning
    from coincide_pl.selection.methods.data_tailor import DataTailor
    from coincide_pl.selection.methods.dics import Dics
    from coincide_pl.selection.methods.distinct import Distinct
    from coincide_pl.selection.methods.el2n import EL2N
    from coincide_pl.selection.methods.everything import All
    from coincide_pl.selection.methods.hierarchical_kmeans import HierarchicalKMeans
    from coincide_pl.selection.methods.icons import Icons
    from coincide_pl.selection.methods.less import Less
    from coincide_pl.selection.methods.magic import Magic
    from coincide_pl.selection.methods.per_source import PerSource
    from coincide_pl.selection.methods.perplexity import Perplexity
    from coincide_pl.selection.methods.presel import PreSel
    from coincide_pl.selection.methods.prism import Prism
    from coincide_pl.selection.methods.scal_select import ScalSelect
    from coincide_pl.selection.methods.self_filter import SelfFilter
    from coincide_pl.selection.methods.self_sup import SelfSup
    from coincide_pl.selection.methods.semdedup import SemDeDup
    from coincide_pl.selection.methods.tive import Tive
    from coincide_pl.selection.methods.uniform import Random
    from coincide_pl.selection.methods.visnec import VisNec
    from coincide_pl.selection.methods.xmas import Xmas
    from coincide_pl.selection.selection import Selection
    from coincide_pl.selection.selector import Picks, Pool, Selector
    from coincide_pl.selection.steps.budgets import budgets
    from coincide_pl.selection.steps.density import density
    from coincide_pl.selection.steps.greedy_mmd import greedy_mmd
    from coincide_pl.selection.steps.pick import pick
    from coincide_pl.selection.steps.transferability import transferability

PLACES = {
    "CLIPScore": "methods.clip_score",
    "Coincide": "methods.coincide",
    "D2Pruning": "methods.d2_pruning",
    "Dics": "methods.dics",
    "DataTailor": "methods.data_tailor",
    "Distinct": "methods.distinct",
    "EL2N": "methods.el2n",
    "All": "methods.everything",
    "HierarchicalKMeans": "methods.hierarchical_kmeans",
    "PerSource": "methods.per_source",
    "Icons": "methods.icons",
    "Less": "methods.less",
    "Magic": "methods.magic",
    "Perplexity": "methods.perplexity",
    "PreSel": "methods.presel",
    "Prism": "methods.prism",
    "ScalSelect": "methods.scal_select",
    "SelfFilter": "methods.self_filter",
    "SelfSup": "methods.self_sup",
    "SemDeDup": "methods.semdedup",
    "Tive": "methods.tive",
    "Random": "methods.uniform",
    "VisNec": "methods.visnec",
    "Xmas": "methods.xmas",
    "Selection": "selection",
    "Picks": "selector",
    "Pool": "selector",
    "Selector": "selector",
    "budgets": "steps.budgets",
    "density": "steps.density",
    "greedy_mmd": "steps.greedy_mmd",
    "pick": "steps.pick",
    "transferability": "steps.transferability",
}
"""The module of each public name."""

__all__ = [
    "EL2N",
    "All",
    "CLIPScore",
    "Coincide",
    "D2Pruning",
    "DataTailor",
    "Dics",
    "Distinct",
    "HierarchicalKMeans",
    "Icons",
    "Less",
    "Magic",
    "PerSource",
    "Perplexity",
    "Picks",
    "Pool",
    "PreSel",
    "Prism",
    "Random",
    "ScalSelect",
    "Selection",
    "Selector",
    "SelfFilter",
    "SelfSup",
    "SemDeDup",
    "Tive",
    "VisNec",
    "Xmas",
    "budgets",
    "density",
    "greedy_mmd",
    "pick",
    "transferability",
]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
