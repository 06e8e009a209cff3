"""ScalSelect: the samples that the data's main directions rest on."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.centered import Centered
from coincide_pl.selection.arrays.dtypes import Arrays, Floats
from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.text_only import TextOnly, text_only_rows
from coincide_pl.signals.image_tokens import AttendedImageToken


class ScalSelect(Selector):
    """Scalable training-free selection (Wu et al., arXiv 2602.11636, and the authors' `cur.py`).

    Rows are the mean states of the image tokens that the question looks at. Their columns are
    centered, X = U Σ Vᵀ; k is the smallest number of singular values with Σ_{j≤k} σ_j² ≥ 0.9 Σ σ²;
    a sample's score is its leverage ‖U_k[i]‖², and the highest are kept. U is never held: with the
    eigenvectors V of the D × D matrix XᵀX, summed up in blocks, U_k = X V_k Σ_k⁻¹. Scores are
    compared in float32, so that the last bits of float64 sums decide nothing; equal ones rank by
    row.

    `cur.py` can also standardize columns and normalize rows, and does so if nothing is said; the
    authors' `run_cur.sh` turns both off, so here columns are centered alone. Samples without an
    image have no row. The authors ran it on LLaVA-665K without these.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (AttendedImageToken,)

    def __init__(self, energy: float = 0.9, text_only: TextOnly = "none", seed: int = 0) -> None:
        """Checks the hyperparameters.

        Args:
            energy: share of Σ σ² that the k directions hold, in (0, 1].
            text_only: samples without an image that are picked: `none`, unless there are too few
                others, as in the authors' data; `share`, as many as their share of the data; `all`.
            seed: seed of the draw among samples without an image.

        Raises:
            SelectionError: an energy outside (0, 1].
        """
        if not 0 < energy <= 1:
            raise SelectionError(f"energy: {energy} is outside (0, 1]")
        self.energy = energy
        self.text_only: TextOnly = text_only
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """The samples with the highest leverage, then those without an image.

        Raises:
            SelectionError: more samples without an image than are to be picked.
        """
        cache = pool.cache.also({"signals": pool.fingerprints.get("signals")})
        found = cache.once(
            "leverage",
            {"energy": self.energy},
            lambda _: leverage(
                Centered.of(pool.rows(AttendedImageToken.name)), self.energy, pool.device
            ),
        )
        there = found["there"]
        texts = text_only_rows(there, count, self.text_only, self.seed)
        best = ranked(found["scores"], count - len(texts), "highest")
        rows = np.concatenate([np.flatnonzero(there)[best], texts])
        return Picks(rows, figures={"directions": int(found["directions"])})


def leverage(features: Centered, energy: float, device: str = "cpu") -> Arrays:
    """‖U_k[i]‖² of each row.

    Args:
        features: n rows [N, D].
        energy: share of Σ σ² that k directions hold.
        device: where products are computed.

    Returns:
        `scores` float32 [n], `there` bool [N], and `directions`, k.
    """
    width = features.rows.width
    squares, vectors = np.linalg.eigh(gram(features, device))  # σ² ascending, V
    squares = np.maximum(squares[::-1], 0)
    total = squares.sum()
    k = 0
    if total > 0:
        k = min(int(np.searchsorted(np.cumsum(squares) / total, energy)) + 1, width)
        k = int((squares[:k] > squares[0] * width * np.finfo(np.float64).eps).sum())
    axes = vectors[:, ::-1][:, :k] / np.sqrt(squares[:k])  # V_k Σ_k⁻¹
    scores = np.empty(len(features), np.float32)
    v = torch.from_numpy(np.ascontiguousarray(axes)).to(device)
    for span, block in features.blocks():
        scores[span] = (torch.from_numpy(block).to(device) @ v).square().sum(1).cpu().numpy()
    return {"scores": scores, "there": features.there, "directions": np.array(k)}


def gram(features: Centered, device: str) -> Floats:
    """XᵀX of rows X [n, D], float64 [D, D]."""
    width = features.rows.width
    if device == "cpu":  # numpy computes half of a product with the same matrix
        total = np.zeros((width, width))
        for _, block in features.blocks():
            total += block.T @ block
        return total
    summed = torch.zeros(width, width, dtype=torch.float64, device=device)
    for _, block in features.blocks():
        x = torch.from_numpy(block).to(device)
        summed.addmm_(x.T, x)
    found: Floats = summed.cpu().numpy()
    return found
