"""Self-Filter's first stage: a score net that is trained together with the target model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coincide_pl.data.collation import Batch
from coincide_pl.data.encoding import IGNORE
from coincide_pl.data.served import served
from coincide_pl.models.target import TargetModule
from coincide_pl.signals.clip import ClipImage, ClipText
from coincide_pl.signals.difficulty import Difficulty
from coincide_pl.signals.forward import Forward

BLOCK = 65536


class SelfFilterModule(TargetModule):
    """Trains a model and, beside it, a net that says which samples it learns easily.

    Section 3.2 of Chen et al. (Findings of ACL 2024, arXiv 2402.12501): with o_i = w · x_i for a
    sample's CLIP image and text embeddings x_i, and ℓ_i its loss, a batch's loss is

        L = Σ_i softmax(o)_i ℓ_i

    so the net learns to give weight to what has little loss, and -o is a sample's difficulty. The
    embeddings are read from the signals store that `data.signals` names. After the fit `signals` in
    the run's directory holds the `difficulty` of all training records.
    """

    def __init__(
        self, pretrained: str, score_learning_rate: float | None = None, **kwargs: Any
    ) -> None:
        """Adds the score net to a target module.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub.
            score_learning_rate: of the score net (default: the optimizer's).
            kwargs: of `TargetModule`.
        """
        super().__init__(pretrained, **kwargs)
        self.score_learning_rate = score_learning_rate
        self.score_net: nn.Linear | None = None

    def configure_model(self) -> None:
        """Loads the checkpoint; finds the embeddings; the net begins at equal weights."""
        super().configure_model()
        if self.score_net is not None:
            return
        data, name = served(self.trainer), type(self).__name__
        self.embeddings = [data.signal(signal.name, name) for signal in (ClipImage, ClipText)]
        self.score_net = nn.Linear(sum(part.shape[1] for part in self.embeddings), 1, bias=False)
        nn.init.zeros_(self.score_net.weight)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The target module's, and the net's."""
        assert self.score_net is not None
        group: dict[str, Any] = {"params": list(self.score_net.parameters())}
        if self.score_learning_rate is not None:
            group["lr"] = self.score_learning_rate
        return [*super().parameter_groups(), group]

    def scores(self, rows: np.ndarray) -> Tensor:
        """The net's outputs float32 [B] for some records."""
        assert self.score_net is not None
        parts = [torch.from_numpy(part[rows].astype(np.float32)) for part in self.embeddings]
        scores: Tensor = self.score_net(torch.cat(parts, 1).to(self.device))[:, 0]
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's samples' losses, weighted by the softmax of their scores."""
        logits, labels = self(batch)
        answers = batch.labels[:, 1:] != IGNORE
        tokens = F.cross_entropy(logits, labels, reduction="none")
        sums = tokens.new_zeros(len(answers)).index_add(0, answers.nonzero()[:, 0], tokens)
        losses = sums / answers.sum(1).clamp(min=1)  # [B]
        weights = self.scores(batch.rows.cpu().numpy()).softmax(0)
        loss = (weights * losses).sum()
        self.train_accuracy(logits.detach().argmax(-1) == labels)
        rows = len(batch.rows)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=rows)
        self.log("train/token_accuracy", self.train_accuracy, prog_bar=True, batch_size=rows)
        return loss

    @torch.inference_mode()
    def difficulty(self) -> np.ndarray:
        """The difficulty float32 [N] of all training records."""
        num_rows, signal = len(self.embeddings[0]), Difficulty()
        blocks = (
            np.arange(start, min(start + BLOCK, num_rows)) for start in range(0, num_rows, BLOCK)
        )
        parts = [signal.rows(Forward(None, scores=self.scores(rows))) for rows in blocks]
        return torch.cat(parts).cpu().numpy()
