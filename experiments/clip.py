"""Teach a tiny CLIP to match captions and images, for want of real weights.

It sees the captioned pictures of an experiment's captions.py, so it can tell what they show, but
has never seen a question.
"""

import sys

import torch
from jsonargparse import auto_cli
from rich.progress import track
from torch.nn import functional as F
from transformers import CLIPModel

from coincide_pl.command.quiet import quiet
from coincide_pl.data.batches import Size, plan_shuffled
from coincide_pl.data.clip import ClipEncoder
from coincide_pl.data.collation import Batch, EncodedBatches
from coincide_pl.data.readers import LlavaJson
from coincide_pl.models import CLIPModule
from coincide_pl.models.loading import save_checkpoint
from coincide_pl.reporting.stages import timed


def train(
    pretrained: str,
    captions: str,
    output: str,
    epochs: int = 2,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    cache_dir: str = "~/.cache/coincide_pl",
) -> None:
    """Train a CLIP contrastively (Radford et al., 2021), equal captions of a batch all being right.

    Args:
        pretrained: checkpoint of the CLIP to start from.
        captions: LLaVA-format file of the captions.
        output: checkpoint directory to write.
        epochs: number of passes over the captions.
        batch_size: number of captions that are compared with each other.
        learning_rate: learning rate of AdamW at its start; it falls along a half cosine.
        seed: seed of the order of the captions.
        cache_dir: folder for the records in memory-mapped form.
    """
    quiet()
    with timed(output, "fit"):
        module = CLIPModule(pretrained)
        module.configure_model()
        model: CLIPModel = module.model.train()
        records = LlavaJson(captions).records(cache_dir)
        data = EncodedBatches(records, ClipEncoder(module.processor), image_cache=1 << 30)
        plans = [
            plan_shuffled(
                records.text_lengths,
                records.image_counts > 0,
                Size(batch_size),
                seed=seed,
                epoch=epoch,
            )
            for epoch in range(epochs)
        ]
        batches = [batch for plan in plans for batch in plan]
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
        for rows in track(batches, "training CLIP", disable=not sys.stdout.isatty()):
            loss = contrastive_loss(model, data[rows.tolist()])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"contrastive loss of the last batch: {loss.item():.2f}")
        save_checkpoint(output, model, module.processor)


def contrastive_loss(model: CLIPModel, batch: Batch) -> torch.Tensor:
    """Cross-entropy of images over texts and of texts over images; one image a text."""
    image = model.get_image_features(**batch.image_inputs).pooler_output[batch.image_index]
    text = model.get_text_features(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask
    ).pooler_output
    cosines = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # [B, B]
    logits = model.logit_scale.exp() * cosines
    same = (batch.input_ids[:, None] == batch.input_ids[None]).all(2).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


if __name__ == "__main__":
    auto_cli(train, as_positional=False)
