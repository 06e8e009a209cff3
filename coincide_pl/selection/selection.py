"""A selection: which rows were picked, how, and from what; one file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from coincide_pl.errors import SelectionError
from coincide_pl.files import beside
from coincide_pl.interruption import interruption
from coincide_pl.selection.arrays.dtypes import Arrays

if TYPE_CHECKING:
    import pandas

PUBLIC = "coincide_pl.selection"
"""Selection files name this package's selectors by their place here, in whatever file they are."""
RENAMED = {"part": "keep", "density_with_self": "include_self"}
"""Options of selectors by the names that older selection files have."""


@dataclass(frozen=True)
class Selection:
    """Rows picked from a pool.

    Attributes:
        indices: int64 [count], rows of the pool in order of picking.
        pool_size: rows of the pool.
        selector: the selector's class path and hyperparameters.
        made_from: fingerprints of all it was made from.
        clusters: columns of per-cluster figures [K] by name, where there are clusters.
        figures: other figures of how it was made, by name.
        labels: int32 [pool_size], the cluster of each row, where there are clusters.
        path: the file that it was read from, if it was.
    """

    indices: npt.NDArray[np.int64]
    pool_size: int
    selector: dict[str, Any]
    made_from: dict[str, str]
    clusters: Arrays = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    labels: npt.NDArray[np.int32] | None = None
    path: Path | None = field(default=None, compare=False)

    @property
    def fingerprint(self) -> str:
        """Digest of the whole selection, 32 hexadecimal digits."""
        digest = hashlib.blake2b(self._head().encode(), digest_size=16)
        for name, values in self._arrays().items():
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """How, from what and how many were chosen, in today's names; not which."""
        return {
            "selector": current(self.selector),
            "made_from": self.made_from,
            "pool_size": self.pool_size,
            "count": len(self.indices),
        }

    def to_pandas(self) -> pandas.DataFrame:
        """A line for each picked row, in order of picking.

        Returns:
            Columns: `row` of the pool; where there are clusters, `cluster` and the cluster's
            figures, by their names.

        Raises:
            SelectionError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise SelectionError("to_pandas needs pandas: pip install pandas") from error
        frame = pandas.DataFrame({"row": self.indices})
        if self.labels is None:
            return frame
        frame["cluster"] = self.labels[self.indices]
        return frame.join(pandas.DataFrame(self.clusters), on="cluster")

    def save(self, path: str | Path) -> None:
        """Writes the file beside its place and renames it; equal selections give equal bytes."""
        content = {"head": json.loads(self._head()), "fingerprint": self.fingerprint}
        head = json.dumps({**content, "dtypes": self._dtypes()})
        with interruption.held(), beside(path) as aside:
            aside.write_bytes(save(self._arrays(), {"selection": head}))

    @classmethod
    def load(cls, path: str | Path) -> Selection:
        """Reads a selection file.

        Raises:
            SelectionError: it is missing, no selection, truncated or changed, or holds rows that
                repeat or that its pool does not have.
        """
        if not Path(path).is_file():
            raise SelectionError(f"{path}: no such selection file")
        try:
            with safe_open(path, "np") as file:
                content = json.loads(file.metadata()["selection"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            head = content["head"]
            clusters = {n[9:]: v for n, v in arrays.items() if n.startswith("clusters.")}
            selection = cls(
                arrays["indices"],
                head["pool_size"],
                head["selector"],
                head["made_from"],
                clusters,
                head["figures"],
                arrays.get("labels"),
                Path(path),
            )
            whole = selection.fingerprint == content["fingerprint"]
            whole &= selection._dtypes() == content.get("dtypes", selection._dtypes())
            whole &= selection.indices.dtype == np.int64
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise SelectionError(f"{path}: not a selection file, or a damaged one") from error
        if not whole:
            raise SelectionError(f"{path}: changed since it was written; select again")
        if fault := selection._fault():
            raise SelectionError(f"{path}: {fault}; select again")
        return selection

    def _fault(self) -> str | None:
        """What makes it no selection of its pool, if anything."""
        rows, pool = self.indices, self.pool_size
        if rows.ndim != 1 or not len(rows):
            return "it holds no rows"
        if rows.min() < 0 or rows.max() >= pool:
            return f"it holds a row that is not among those from 0 to {pool - 1}"
        if len(np.unique(rows)) < len(rows):
            return "it holds a row twice"
        if self.labels is not None and self.labels.shape != (pool,):
            return f"it has labels for {len(self.labels)} rows of {pool}"
        return None

    def _arrays(self) -> Arrays:
        named = {f"clusters.{name}": values for name, values in self.clusters.items()}
        labels = {} if self.labels is None else {"labels": self.labels}
        return {"indices": self.indices, **dict(sorted(named.items())), **labels}

    def _dtypes(self) -> dict[str, str]:
        return {name: str(values.dtype) for name, values in self._arrays().items()}

    def _head(self) -> str:
        return json.dumps(
            {
                "pool_size": self.pool_size,
                "selector": self.selector,
                "made_from": self.made_from,
                "figures": self.figures,
            },
            sort_keys=True,
        )


def current(selector: dict[str, Any]) -> dict[str, Any]:
    """A selector's class path and hyperparameters by the names that they have today."""
    path = selector["class_path"]
    if not path.startswith(f"{PUBLIC}."):
        return selector
    path = f"{PUBLIC}.{path.rpartition('.')[2]}"
    options = {RENAMED.get(name, name): value for name, value in selector["init_args"].items()}
    return {"class_path": path, "init_args": options}
