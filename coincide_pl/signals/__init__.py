"""Signals: per-sample numbers that selectors choose by, their classes and their store on disk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coincide_pl.signals.activations import Activations
    from coincide_pl.signals.answer_tokens import BridgingRelevance, SkillNeurons
    from coincide_pl.signals.clip import ClipImage, ClipScore, ClipText
    from coincide_pl.signals.consistency import ResponseConsistency, VisualConsistency
    from coincide_pl.signals.difficulty import Difficulty
    from coincide_pl.signals.embeddings import LastToken, MeanToken
    from coincide_pl.signals.filling import SignalsWriter
    from coincide_pl.signals.forward import Forward, LayerOutput, ModelFacts, Needs, Predictions
    from coincide_pl.signals.gradients import AdamGradient, Gradient, GradientNorm, Task
    from coincide_pl.signals.image_tokens import AttendedImageToken, MeanImageToken
    from coincide_pl.signals.likelihood import El2n, Margin, NegativeLogLikelihood
    from coincide_pl.signals.manifest import Manifest, StoredSignal
    from coincide_pl.signals.rewritten import (
        Instruction,
        NllBlurred,
        NllQuestion,
        NllQuestionByAnswer,
        NllWithoutImage,
        NllWithoutQuestion,
    )
    from coincide_pl.signals.signal import Signal
    from coincide_pl.signals.spectra import CrossAttention, LastTokenState, TokenSpectrum
    from coincide_pl.signals.store import Signals, SignalsStore, load_signals
    from coincide_pl.signals.vision import ImageFeatures
    from coincide_pl.signals.writer import WriteDifficulty, WriteSignals

FILES = (
    "forward",
    "signal",
    "activations",
    "likelihood",
    "rewritten",
    "consistency",
    "answer_tokens",
    "vision",
    "embeddings",
    "image_tokens",
    "spectra",
    "clip",
    "difficulty",
    "gradients",
    "manifest",
    "filling",
    "store",
)
"""Where the public names are; only what writes a store, in `writer`, loads lightning."""

__all__ = [
    "Activations",
    "AdamGradient",
    "AttendedImageToken",
    "BridgingRelevance",
    "ClipImage",
    "ClipScore",
    "ClipText",
    "CrossAttention",
    "Difficulty",
    "El2n",
    "Forward",
    "Gradient",
    "GradientNorm",
    "ImageFeatures",
    "Instruction",
    "LastToken",
    "LastTokenState",
    "LayerOutput",
    "Manifest",
    "Margin",
    "MeanImageToken",
    "MeanToken",
    "ModelFacts",
    "Needs",
    "NegativeLogLikelihood",
    "NllBlurred",
    "NllQuestion",
    "NllQuestionByAnswer",
    "NllWithoutImage",
    "NllWithoutQuestion",
    "Predictions",
    "ResponseConsistency",
    "Signal",
    "Signals",
    "SignalsStore",
    "SignalsWriter",
    "SkillNeurons",
    "StoredSignal",
    "Task",
    "TokenSpectrum",
    "VisualConsistency",
    "WriteDifficulty",
    "WriteSignals",
    "load_signals",
]


def __getattr__(name: str) -> Any:
    """Loads the file of a public name when the name is asked for."""
    if name in __all__:
        for file in (*FILES, "writer"):
            if hasattr(module := import_module(f"{__name__}.{file}"), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
