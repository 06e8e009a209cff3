"""CLIP or SigLIP as a module of `predict`: embeddings of image and text, and how well they fit."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedModel, ProcessorMixin

from coincide_pl.data.clip import ClipEncoder
from coincide_pl.data.collation import Batch
from coincide_pl.errors import ModelError
from coincide_pl.models.loading import (
    DType,
    check_directory,
    checkpoint_fingerprint,
    first_line,
)
from coincide_pl.models.processors import load_processor

NO_IMAGE = -2.0
"""The score of a sample without an image: no cosine, so that whoever reads it can tell."""


class CLIPModule(lightning.LightningModule):
    """Gives the embeddings of a CLIP or SigLIP model, and their cosine, for each sample.

    `clip_image` and `clip_text` have norm 1, and `clip_score` is their cosine. A sample of several
    images has the mean of their embeddings, normalised again. One without an image has zeros in
    `clip_image`, and `NO_IMAGE` for a score.
    """

    encoder_class = ClipEncoder
    """Makes the batches that this module reads."""
    layers: list[int]

    def __init__(
        self, pretrained: str, dtype: DType = "float32", attn_implementation: str = "sdpa"
    ) -> None:
        """Reads config and processor; the model is loaded when a step needs it.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub, such as
                `openai/clip-vit-large-patch14`.
            dtype: in which the weights are held and the forward pass runs.
            attn_implementation: attention implementation of transformers.

        Raises:
            ModelError: there is no checkpoint, or none of this kind.
        """
        super().__init__()
        check_directory(pretrained, "config.json")
        self.pretrained = pretrained
        self.weights_dtype: DType = dtype
        self.attn_implementation = attn_implementation
        self.layers = []
        self.processor: ProcessorMixin = load_processor(pretrained)
        text = AutoConfig.from_pretrained(pretrained, trust_remote_code=False).get_text_config()
        self.text_length: int = text.max_position_embeddings
        tokenizer = self.processor.tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, self.text_length)
        self.model: PreTrainedModel | None = None

    def configure_model(self) -> None:
        """Loads the checkpoint.

        Raises:
            ModelError: the checkpoint has no model of images and texts.
        """
        if self.model is not None:
            return
        try:
            model = AutoModel.from_pretrained(
                self.pretrained,
                dtype=getattr(torch, self.weights_dtype),
                attn_implementation=self.attn_implementation,
                trust_remote_code=False,
            ).eval()
        except Exception as error:
            raise ModelError(f"{self.pretrained}: no model: {first_line(error)}") from error
        for method in ("get_image_features", "get_text_features"):
            if not hasattr(model, method):
                raise ModelError(
                    f"{self.pretrained}: {type(model).__name__} does not embed images and texts "
                    "apart, as CLIP and SigLIP do"
                )
        self.model = model

    @property
    def fingerprint(self) -> str:
        """Digest of the checkpoint that the signals come from."""
        return checkpoint_fingerprint(self.pretrained)

    @property
    def signals(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape of one row and dtype, as they are stored, of each signal, by name."""
        self.configure_model()
        assert self.model is not None
        config = self.model.config
        width = getattr(config, "projection_dim", None) or config.get_text_config().hidden_size
        return {
            "clip_image": ((width,), "float16"),
            "clip_text": ((width,), "float16"),
            "clip_score": ((), "float32"),
        }

    @torch.inference_mode()
    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Embeds each distinct image and each text.

        Returns:
            `clip_image` and `clip_text` float32 [B, D], `clip_score` float32 [B].
        """
        texts = F.normalize(self._texts(batch), dim=1)
        images = torch.zeros_like(texts)
        if batch.num_images:
            model: Any = self.model
            found = model.get_image_features(**batch.image_inputs).pooler_output.float()
            shown = F.normalize(found, dim=1)[batch.image_index]  # [occurrences, D]
            rows = torch.arange(len(texts), device=texts.device)
            owner = rows.repeat_interleave(batch.image_counts)
            images = F.normalize((owner == rows[:, None]).float() @ shown, dim=1)
        score = (images * texts).sum(1)
        score[batch.image_counts == 0] = NO_IMAGE
        return {"clip_image": images, "clip_text": texts, "clip_score": score}

    def _texts(self, batch: Batch) -> Tensor:
        """Embeddings [B, D] of the texts.

        SigLIP's reads the last place, and was trained with padding up to its length, unmasked.
        """
        model: Any = self.model
        ids, mask = batch.input_ids, batch.attention_mask
        if model.config.model_type.startswith("siglip"):
            pad = self.processor.tokenizer.pad_token_id
            short = self.text_length - ids.shape[1]
            ids = F.pad(ids.masked_fill(mask == 0, pad), (0, short), value=pad)
            return model.get_text_features(input_ids=ids).pooler_output.float()
        return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output.float()
