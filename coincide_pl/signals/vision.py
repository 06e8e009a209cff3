"""Features of images by a model that sees nothing else, such as DINOv2."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from coincide_pl.signals.forward import Forward, ModelFacts, Needs, needed
from coincide_pl.signals.signal import Signal, StoredAs


class ImageFeatures(Signal):
    """The feature of a sample's images, of norm 1; zeros where there is none."""

    name = "image_features"
    dtype: StoredAs = "float16"
    made_by: ClassVar[str] = "coincide predict --config models/dinov2 --model.signals='[{}]'"

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A feature."""
        return (model.hidden_size,)

    @property
    def needs(self) -> Needs:
        """Features of images."""
        return Needs(vision=True)

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, D]; the mean of several images' features, normalized again."""
        return needed(forward.image_embeddings, "features of images")
