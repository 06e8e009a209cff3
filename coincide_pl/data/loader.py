"""A DataLoader that knows how far it is, so that training can go on inside an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from coincide_pl.data.batches import BatchSampler
from coincide_pl.data.collation import Batch, EncodedBatches


class BatchLoader(DataLoader[Batch]):
    """Loads the batches of a sampler; its state is how many of the epoch's it has given."""

    batches = 0

    def __init__(self, dataset: EncodedBatches, sampler: BatchSampler, **kwargs: Any) -> None:
        """Batches come ready from the dataset.

        Args:
            dataset: maps a list of rows to a batch.
            sampler: gives lists of rows.
            kwargs: of `torch.utils.data.DataLoader`.
        """
        super().__init__(dataset, sampler=sampler, **{**kwargs, "batch_size": None})

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.batches = getattr(self.sampler, "skip", 0)
        for batch in super().__iter__():
            self.batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch have been given; 0 at its end."""
        return {"batches": self.batches % max(1, len(self))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next epoch begins after as many batches."""
        self.sampler.skip = state["batches"]  # type: ignore[attr-defined]
