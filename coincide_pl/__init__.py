"""Choose visual instruction-tuning data with COINCIDE, and finetune and compare on it.

What stands here is loaded when it is asked for, so that `import coincide_pl` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coincide_pl.data.readers import (
        ChatDataset,
        EasyVQA,
        LlavaJson,
        Mix,
        QuestionFile,
        Reader,
        ShardDataset,
    )
    from coincide_pl.datamodule import InstructionData
    from coincide_pl.models import GradientModule, ReferenceModule, TargetModule
    from coincide_pl.selection import (
        EL2N,
        All,
        CLIPScore,
        Coincide,
        D2Pruning,
        DataTailor,
        Dics,
        Distinct,
        HierarchicalKMeans,
        Icons,
        Less,
        Magic,
        Perplexity,
        PerSource,
        PreSel,
        Prism,
        Random,
        ScalSelect,
        Selection,
        Selector,
        SelfFilter,
        SelfSup,
        SemDeDup,
        Tive,
        VisNec,
        Xmas,
    )
    from coincide_pl.signals import Signal, load_signals

__version__ = "0.1.0"
__all__ = [
    "EL2N",
    "All",
    "CLIPScore",
    "ChatDataset",
    "Coincide",
    "D2Pruning",
    "DataTailor",
    "Dics",
    "Distinct",
    "EasyVQA",
    "GradientModule",
    "HierarchicalKMeans",
    "Icons",
    "InstructionData",
    "Less",
    "LlavaJson",
    "Magic",
    "Mix",
    "PerSource",
    "Perplexity",
    "PreSel",
    "Prism",
    "QuestionFile",
    "Random",
    "Reader",
    "ReferenceModule",
    "ScalSelect",
    "Selection",
    "Selector",
    "SelfFilter",
    "SelfSup",
    "SemDeDup",
    "ShardDataset",
    "Signal",
    "TargetModule",
    "Tive",
    "VisNec",
    "Xmas",
    "load_signals",
]
ROOMS = ("selection", "signals", "data.readers", "models", "datamodule")
"""Where the public names are, those that load least first."""


def __getattr__(name: str) -> Any:
    """Loads the room of a public name when the name is asked for."""
    if name in __all__:
        for room in ROOMS:
            if hasattr(module := import_module(f"{__name__}.{room}"), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
