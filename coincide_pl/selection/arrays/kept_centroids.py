"""Centroids of a clustering under way, kept for a run that goes on after a kill."""

from __future__ import annotations

import time

import numpy as np

from coincide_pl.processes import everywhere, largest
from coincide_pl.selection.arrays.dtypes import Floats
from coincide_pl.selection.cache import KEEP_EVERY, Checkpointer


class KeptCentroids:
    """The last centroids that all processes have kept, each those of its own clusters.

    They lie under the name of the clustering and the number of the iteration. A small file of the
    first process says of which iteration they are. It is written when all have written theirs, and
    only then those of the iteration before are deleted.
    """

    def __init__(self, name: str, clusters: slice, checkpointer: Checkpointer | None) -> None:
        """Reads nothing yet.

        Args:
            name: of the clustering.
            clusters: those of this process.
            checkpointer: keeps them; None for nothing.
        """
        self.name, self.clusters, self.checkpointer = name, clusters, checkpointer
        self.iteration, self.saved = -1, time.monotonic()

    def load(self) -> tuple[int, Floats | None]:
        """From which iteration to go on, and the centroids of own clusters; None at the start."""
        if self.checkpointer is None:
            return 0, None
        state = self.checkpointer.load(self.name)
        iteration = -1 if state is None else int(state["iteration"][0])
        arrays = self.checkpointer.load_share(f"{self.name}.{iteration}", self.clusters)
        if not everywhere(arrays is not None) or arrays is None:
            return 0, None
        self.iteration = iteration
        return iteration, arrays["centroids"]

    def keep(self, iteration: int, centroids: Floats) -> None:
        """Keeps the centroids that an iteration starts from, if it is time; all must call.

        Args:
            iteration: its number.
            centroids: float32 [own clusters, d].
        """
        if self.checkpointer is None:
            return
        due = time.monotonic() - self.saved > KEEP_EVERY
        if not largest(np.array([due], np.int64))[0]:
            return
        name = f"{self.name}.{iteration}"
        self.checkpointer.save_share(name, self.clusters, {"centroids": centroids})
        everywhere(True)
        self.checkpointer.save(self.name, {"iteration": np.array([iteration])})
        everywhere(True)
        self.checkpointer.forget(f"{self.name}.{self.iteration}")
        self.iteration, self.saved = iteration, time.monotonic()
