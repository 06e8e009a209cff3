"""Embeddings of image and text by a CLIP or SigLIP model, and how well they fit."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from coincide_pl.signals.forward import Forward, ModelFacts, Needs, needed
from coincide_pl.signals.signal import Signal, StoredAs

NO_IMAGE = -2.0
"""The score of a sample without an image: no cosine, so that whoever reads it can tell."""
COMMAND = "coincide predict --config models/clip"


class ClipImage(Signal):
    """The embedding of a sample's images, of norm 1; zeros where there is none."""

    name = "clip_image"
    dtype: StoredAs = "float16"
    made_by: ClassVar[str] = COMMAND

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """An embedding."""
        return (model.projection_size,)

    @property
    def needs(self) -> Needs:
        """Both embeddings."""
        return Needs(embeddings=True)

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, D]; the mean of several images' embeddings, normalized again."""
        return needed(forward.image_embeddings, "embeddings")


class ClipText(Signal):
    """The embedding of what a sample says, of norm 1."""

    name = "clip_text"
    dtype: StoredAs = "float16"
    made_by: ClassVar[str] = COMMAND

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """An embedding."""
        return (model.projection_size,)

    @property
    def needs(self) -> Needs:
        """Both embeddings."""
        return Needs(embeddings=True)

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, D]."""
        return needed(forward.text_embeddings, "embeddings")


class ClipScore(Signal):
    """The cosine of a sample's image and text embeddings; `NO_IMAGE` where there is no image."""

    name = "clip_score"
    made_by: ClassVar[str] = COMMAND

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def needs(self) -> Needs:
        """Both embeddings."""
        return Needs(embeddings=True)

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]."""
        images = needed(forward.image_embeddings, "embeddings")
        texts = needed(forward.text_embeddings, "embeddings")
        score = (images * texts).sum(1)
        score[forward.batch.image_counts == 0] = NO_IMAGE
        return score
