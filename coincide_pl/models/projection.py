"""A random projection of gradients, of which no matrix is ever held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class _Draws:
    """What is drawn for one parameter of n numbers, in m pieces of d.

    Attributes:
        signs: int8 [m * d], 1 or -1.
        places: int64 [m, d], which number of a piece comes to lie at each place.
    """

    signs: Tensor
    places: Tensor


class Projection:
    """Projects vectors that come parameter by parameter: ⟨Sx, Sy⟩ is ⟨x, y⟩ on average.

    Each number gets a random sign. A parameter's numbers are then cut into pieces of d, each piece
    is shifted in a circle by a random step, and the pieces are summed. So two numbers of a piece
    never meet, and two of different pieces meet with probability 1/d: a count sketch (Charikar et
    al., 2002; Weinberger et al., 2009, arXiv 0902.2206), with the bounds of a dense matrix of
    random signs,

        E ⟨Sx, Sy⟩ = ⟨x, y⟩,    Var ⟨Sx, Sy⟩ ≤ (‖x‖² ‖y‖² + ⟨x, y⟩²) / d,

    in n steps, where that takes n d. What is drawn depends on the seed and the parameter's number
    alone, and comes from Philox: the same on every machine, CPU or GPU. A byte is held for each
    sign.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Draws nothing yet.

        Args:
            size: d, width of a projected vector.
            seed: of what is drawn.
        """
        self.size, self.seed = size, seed
        self._draws: dict[int, _Draws] = {}

    def __call__(self, number: int, values: Tensor) -> Tensor:
        """What a parameter's numbers add to the projection of the whole.

        Args:
            number: of the parameter among all of them.
            values: float32 [B, n].

        Returns:
            float32 [B, d].
        """
        draws = self._drawn(number, values)
        pieces, size = draws.places.shape
        padded = F.pad(values, (0, pieces * size - values.shape[1]))  # [B, m * d]
        signed = (padded * draws.signs).view(-1, pieces, size)
        return signed.gather(2, draws.places.expand(len(values), -1, -1)).sum(1)

    def _drawn(self, number: int, values: Tensor) -> _Draws:
        if number not in self._draws:
            pieces = -(-values.shape[1] // self.size)
            raw = np.random.Philox(key=[self.seed, number])
            shifts = raw.random_raw(pieces) % self.size
            words = raw.random_raw(-(-pieces * self.size // 64)).astype("<u8")
            bits = np.unpackbits(words.view(np.uint8))[: pieces * self.size]
            signs = torch.from_numpy(bits.view(np.int8) * 2 - 1).to(values.device)
            steps = torch.from_numpy(shifts.astype(np.int64)).to(values.device)
            every = torch.arange(self.size, device=values.device)
            self._draws[number] = _Draws(signs, (every - steps[:, None]) % self.size)
        return self._draws[number]
