"""CLIP or SigLIP as a module of `predict`: embeddings of image and text, and how well they fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, ProcessorMixin

from coincide_pl.data.clip import ClipEncoder
from coincide_pl.data.collation import Batch
from coincide_pl.errors import ModelError
from coincide_pl.models.images import per_sample
from coincide_pl.models.loading import DType, load_whole
from coincide_pl.models.processors import load_processor
from coincide_pl.models.signals_module import SignalsModule
from coincide_pl.signals.choosing import chosen
from coincide_pl.signals.forward import Forward, ModelFacts, Needs
from coincide_pl.signals.signal import Signal


class CLIPModule(SignalsModule):
    """Gives the embeddings of a CLIP or SigLIP model, and their cosine, for each sample.

    A sample of several images has the mean of their embeddings, normalized again; one without an
    image has zeros.
    """

    about = "a CLIP model"
    encoder_class = ClipEncoder
    """Makes the batches that this module reads."""

    def __init__(
        self,
        pretrained: str,
        signals: list[str | Signal] | None = None,
        dtype: DType = "float32",
        attn_implementation: str = "sdpa",
    ) -> None:
        """Reads config and processor; the model is loaded when a step needs it.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub, such as
                `openai/clip-vit-large-patch14`.
            signals: what to write: short names, class names, or class_path and init_args (default:
                clip_image, clip_text, clip_score).
            dtype: in which the weights are held and the forward pass runs.
            attn_implementation: attention implementation of transformers.

        Raises:
            ModelError: there is no checkpoint, or none of this kind.
            SignalsError: no signals, a signal twice, or one that needs another model.
        """
        asked = chosen(signals or ["clip_image", "clip_text", "clip_score"])
        super().__init__(pretrained, asked, dtype, attn_implementation)
        self.processor: ProcessorMixin = load_processor(pretrained)
        text = AutoConfig.from_pretrained(pretrained, trust_remote_code=False).get_text_config()
        self.text_length: int = text.max_position_embeddings
        tokenizer = self.processor.tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, self.text_length)

    def makes(self, needs: Needs) -> bool:
        """Whether a signal needs the embeddings, and nothing else."""
        return needs == Needs(embeddings=True)

    def configure_model(self) -> None:
        """Loads the checkpoint.

        Raises:
            ModelError: the checkpoint has no model of images and texts.
        """
        if self.model is not None:
            return
        model = load_whole(
            AutoModel,
            self.pretrained,
            "model",
            dtype=getattr(torch, self.weights_dtype),
            attn_implementation=self.attn_implementation,
        ).eval()
        for method in ("get_image_features", "get_text_features"):
            if not hasattr(model, method):
                raise ModelError(
                    f"{self.pretrained}: {type(model).__name__} does not embed images and texts "
                    "apart, as CLIP and SigLIP do"
                )
        self.model = model

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model, which the shapes of signals depend on."""
        self.configure_model()
        assert self.model is not None
        config = self.model.config
        width = getattr(config, "projection_dim", None) or config.get_text_config().hidden_size
        return ModelFacts(projection_size=width)

    @torch.inference_mode()
    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Embeds each distinct image and each text: rows of a batch [B, ...], by signal's name."""
        texts = F.normalize(self._texts(batch), dim=1)
        images = torch.zeros_like(texts)
        if batch.num_images:
            model: Any = self.model
            found = model.get_image_features(**batch.image_inputs).pooler_output.float()
            images = per_sample(F.normalize(found, dim=1), batch)
        forward = Forward(batch, image_embeddings=images, text_embeddings=texts)
        return {signal.name: signal.rows(forward) for signal in self.signals}

    def _texts(self, batch: Batch) -> Tensor:
        """Embeddings [B, D] of the texts.

        SigLIP's reads the last place, and was trained with padding up to its length, unmasked.
        """
        model: Any = self.model
        ids, mask = batch.input_ids, batch.attention_mask
        inputs = {"input_ids": ids, "attention_mask": mask}
        if model.config.model_type.startswith("siglip"):
            pad = self.processor.tokenizer.pad_token_id
            short = self.text_length - ids.shape[1]
            ids = F.pad(ids.masked_fill(mask == 0, pad), (0, short), value=pad)
            inputs = {"input_ids": ids}
        texts: Tensor = model.get_text_features(**inputs).pooler_output.float()
        return texts
