"""Vision models such as DINOv2 as a module of `predict`: a feature of each sample's images."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel

from coincide_pl.data.collation import Batch
from coincide_pl.data.vision import ImageEncoder
from coincide_pl.errors import ModelError
from coincide_pl.models.images import per_sample
from coincide_pl.models.loading import DType, first_line, load_whole, quietly
from coincide_pl.models.signals_module import SignalsModule
from coincide_pl.signals.choosing import chosen
from coincide_pl.signals.forward import Forward, ModelFacts, Needs
from coincide_pl.signals.signal import Signal


class VisionModule(SignalsModule):
    """Gives a feature of each sample's images, by any vision model of transformers.

    A sample of several images has the mean of their features, normalized again; one without an
    image has zeros.
    """

    about = "a vision model"
    encoder_class = ImageEncoder
    """Makes the batches that this module reads."""

    def __init__(
        self,
        pretrained: str,
        signals: list[str | Signal] | None = None,
        token: Literal["first", "mean"] = "first",
        dtype: DType = "float32",
        attn_implementation: str = "sdpa",
    ) -> None:
        """Reads the image processor; the model is loaded when a step needs it.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub, such as
                `facebook/dinov2-base`.
            signals: what to write: short names, class names, or class_path and init_args (default:
                image_features).
            token: which of the last layer's states is an image's feature: the first, which stands
                for the whole image in DINOv2 and other ViTs, or the mean of all.
            dtype: in which the weights are held and the forward pass runs.
            attn_implementation: attention implementation of transformers.

        Raises:
            ModelError: there is no checkpoint, or none with an image processor.
            SignalsError: no signals, a signal twice, or one that needs another model.
        """
        asked = chosen(signals or ["image_features"])
        super().__init__(pretrained, asked, dtype, attn_implementation, token=token)
        self.token = token
        try:
            with quietly():
                self.processor: Any = AutoImageProcessor.from_pretrained(
                    pretrained, use_fast=False, trust_remote_code=False
                )
        except Exception as error:
            raise ModelError(f"{pretrained}: no image processor: {first_line(error)}") from error

    def makes(self, needs: Needs) -> bool:
        """Whether a signal needs a feature of the images, and nothing else."""
        return needs == Needs(vision=True)

    def configure_model(self) -> None:
        """Loads the checkpoint.

        Raises:
            ModelError: the checkpoint's model reads more than images.
        """
        if self.model is not None:
            return
        model = load_whole(
            AutoModel,
            self.pretrained,
            "vision model",
            dtype=getattr(torch, self.weights_dtype),
            attn_implementation=self.attn_implementation,
        ).eval()
        if model.main_input_name != "pixel_values" or not hasattr(model.config, "hidden_size"):
            raise ModelError(
                f"{self.pretrained}: {type(model).__name__} does not read images alone, as DINOv2 "
                "does (models/clip reads a CLIP)"
            )
        self.model = model

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model, which the shapes of signals depend on."""
        self.configure_model()
        assert self.model is not None
        return ModelFacts(hidden_size=self.model.config.hidden_size)

    @torch.inference_mode()
    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Reads each distinct image once: rows of a batch [B, ...], by signal's name."""
        model = self.model
        assert model is not None
        features = torch.zeros(len(batch.rows), model.config.hidden_size, device=self.device)
        if batch.num_images:
            states = model(**batch.image_inputs).last_hidden_state.float()  # [images, tokens, D]
            found = states[:, 0] if self.token == "first" else states.mean(1)
            features = per_sample(F.normalize(found, dim=1), batch)
        forward = Forward(batch, image_embeddings=features)
        return {signal.name: signal.rows(forward) for signal in self.signals}
