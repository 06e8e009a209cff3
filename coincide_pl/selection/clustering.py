"""Spherical k-means of any size: Faiss's Lloyd loop over an assigner that streams, exactly.

Which centroid is nearest is decided by inner products that are exact, so the clusters do not depend
on block sizes, threads, processes, or on the device and precision of the fast products that only
narrow the choice:

- features are float16, multiples of 2^-24, so sums of them in float64 are exact in any order;
- centroids are rounded to multiples of 2^-24 (their entries are at most 1), so an inner product
  with a float16 row of norm 1 is exact in float64 too;
- of equally near centroids the first is taken; initial centroids, and the rows trained on where
  there are more than 256 per centroid, are drawn by numpy from the seed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import logging
import math
import sys
import time
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import distributed

from coincide_pl.errors import SelectionError
from coincide_pl.selection.exact import STEP, rounded_unit
from coincide_pl.selection.health import Health, health
from coincide_pl.selection.rows import Rows

with contextlib.redirect_stdout(io.StringIO()):  # it tells that scipy is not there; not needed here
    from faiss.contrib.clustering import kmeans as faiss_kmeans

log = logging.getLogger(__name__)

Method = Literal["auto", "exact", "projected", "two_level"]

POINTS_PER_CENTROID = 256
"""Rows used per centroid to train, as Faiss does by default; all rows are assigned."""
MEMORY = 1 << 31
"""Bytes for blocks of rows and of products."""
EXACT, PROJECTED = 1e15, 1e17
"""Products and sums up to which `auto` clusters in full width, and at one level."""
EXACT_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Entries of pairs multiplied exactly at once: what a cache holds, or what keeps a GPU busy."""
MANY = 2048
"""Centroids from which bfloat16 pays: its products leave more rows to be decided exactly."""
KEEP_EVERY = 60.0
"""Seconds between the states that an interrupted clustering goes on from."""


@dataclass(frozen=True)
class Clusters:
    """What k-means came to.

    Attributes:
        centroids: float32 [K, D] of norm 1.
        labels: int64 [N], each row's cluster.
        method: how they were found; never `auto`.
        seed: of the draws; another than asked for after a restart.
        health: figures that tell whether they are any good.
    """

    centroids: np.ndarray
    labels: np.ndarray
    method: Method
    seed: int
    health: Health


class Keeper(Protocol):
    """Where an interrupted clustering leaves its state, and finds it again."""

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """What was saved under a name, if anything."""

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays under a name; what was there is replaced."""


def spherical_kmeans(
    features: np.ndarray,
    num_clusters: int,
    num_iterations: int = 50,
    seed: int = 1234,
    *,
    method: Method = "auto",
    projection: int = 512,
    restarts: int = 0,
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
    keeper: Keeper | None = None,
) -> Clusters:
    """Cluster rows by cosine.

    `exact` compares rows with centroids in full width. `projected` first adds up the columns, each
    with a random sign, in `projection` random groups (a count sketch: Charikar et al., 2002; inner
    products keep their mean, with a standard error of about 1 / sqrt(projection)), clusters the
    narrow rows, and takes the centroids of the clusters in full width. `two_level` clusters the
    narrow rows into sqrt(K) cells, and each cell into its share of the K clusters. `auto` takes the
    first of these whose operations, 2 N K D a round, are within bounds, and says so where it
    costs agreement with `exact`.

    All processes of a torch.distributed group take part, each with its share of the rows; all must
    call, and all get the same.

    Args:
        features: [N, D], any float dtype, also memory-mapped.
        num_clusters: K.
        num_iterations: of Lloyd's algorithm at most; it ends when no row changes its cluster.
        seed: of all draws.
        method: see above.
        projection: columns of the narrow rows.
        restarts: after a collapse, how often to try again with the next seed.
        memory: bytes for blocks of rows and products; centroids come on top.
        device: where products are computed.
        keeper: keeps what an interrupted call goes on from.

    Raises:
        SelectionError: more clusters than samples, features that are not finite, or a collapse:
            most centroids the same.
    """
    rows = Rows(features)
    n, width = len(rows), rows.width
    if not 0 < num_clusters <= n:
        raise SelectionError(f"num_clusters: can't make {num_clusters} clusters of {n} samples")
    if method == "auto":
        method = choose_method(n, width, num_clusters, num_iterations, projection)
    for attempt in range(restarts + 1):
        setting = Setting(num_iterations, seed + attempt, memory, torch.device(device), keeper)
        centroids, labels = cluster(rows, num_clusters, method, projection, setting)
        figures = health(labels, centroids)
        try:
            figures.check()
        except SelectionError as error:
            if attempt == restarts:
                raise
            log.warning("%s; trying seed %d", error, seed + attempt + 1)
            continue
        break
    return Clusters(centroids, labels, method, setting.seed, figures)


def cluster(
    rows: Rows, num_clusters: int, method: Method, projection: int, setting: Setting
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids float32 [K, D] and labels int64 [N] by one of the methods."""
    if method == "exact" or rows.width <= projection:
        return lloyd(rows, num_clusters, setting)
    narrow = Rows(sketch(rows, projection, setting))
    _, labels = (two_levels if method == "two_level" else lloyd)(narrow, num_clusters, setting)
    return unit_centroids(sums_by_label(rows, labels, num_clusters, setting)), labels


def choose_method(
    n: int, width: int, num_clusters: int, num_iterations: int, projection: int
) -> Method:
    """What `auto` stands for at a size; the size alone decides, so that it is so everywhere."""
    products = 2.0 * n * num_clusters * num_iterations
    if width <= projection or products * width <= EXACT:
        return "exact"
    method: Method = "projected" if products * projection <= PROJECTED else "two_level"
    log.warning(
        "clustering: exact would take up to %.1e operations, so rows are compared in %d dimensions "
        "(%s); this gives other clusters than exact, as much as another seed does (README of "
        "experiments/benchmarks); on a GPU set data.selector.clustering=exact",
        products * width,
        projection,
        method,
    )
    return method


@dataclass(frozen=True)
class Setting:
    """What every step of a clustering needs to know."""

    num_iterations: int
    seed: int
    memory: int
    device: torch.device
    keeper: Keeper | None = None


def lloyd(rows: Rows, num_clusters: int, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm by Faiss, one iteration a call, from initial centroids of our own.

    So a killed run goes on from its last centroids, and ends when nothing changes. Faiss also
    splits large clusters where some are empty.

    Returns:
        Centroids float32 [K, d] of norm 1, and labels int64 [n].
    """
    random = np.random.default_rng(setting.seed)
    sample = min(len(rows), POINTS_PER_CENTROID * num_clusters)
    train = rows
    if sample < len(rows):
        train = rows.subset(np.sort(random.choice(len(rows), sample, replace=False)))
    assigner = Assigner(train, num_clusters, setting)
    state = f"kmeans-{setting.seed}"
    kept = setting.keeper.load(state) if setting.keeper is not None else None
    if kept is not None:
        begin, centroids = int(kept["iteration"][0]), kept["centroids"].astype(np.float64)
    else:
        first = random.choice(sample, num_clusters, replace=False)
        order = np.argsort(first)
        centroids = np.empty((num_clusters, rows.width))
        centroids[order] = train.gather(first[order])
        begin = 0
    saved = time.monotonic()
    for iteration in track(
        range(begin, setting.num_iterations),
        f"{num_clusters} clusters of {len(train)} rows",
        console=Console(stderr=True),
        transient=True,
        disable=setting.keeper is None or not sys.stderr.isatty(),
    ):
        assigner.centroids = centroids
        with contextlib.redirect_stdout(io.StringIO()):
            centroids, (told,) = faiss_kmeans(
                num_clusters,
                assigner,
                niter=1,
                seed=setting.seed + iteration,
                verbose=False,
                return_stats=True,
            )
        log.debug("iteration %d: %d rows moved", iteration, assigner.moved)
        if not assigner.moved and not told["nsplit"]:
            break
        if setting.keeper is not None and time.monotonic() - saved > KEEP_EVERY:
            done = {"centroids": unit_centroids(centroids), "iteration": np.array([iteration + 1])}
            setting.keeper.save(state, done)
            saved = time.monotonic()
    centroids = unit_centroids(centroids)
    if train is not rows:
        assigner = Assigner(rows, num_clusters, setting, sums=False)
    assigner.assign_to(centroids)
    return centroids, assigner.labels


def two_levels(rows: Rows, num_clusters: int, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """About sqrt(K) cells, then each cell's share of the K clusters inside it.

    Returns:
        Centroids float32 [K, d] of norm 1, and labels int64 [n].
    """
    plain = replace(setting, keeper=None)
    _, cells = lloyd(rows, max(1, math.isqrt(num_clusters)), plain)
    sizes = np.bincount(cells)
    shares = np.diff(np.cumsum(sizes) * num_clusters // len(rows), prepend=0)
    # A cell gets a cluster at least where it has rows: the largest shares make up for it.
    shares = np.where(sizes > 0, np.maximum(shares, 1), 0)
    for _ in range(int(shares.sum()) - num_clusters):
        shares[shares.argmax()] -= 1
    order = np.argsort(cells, kind="stable")
    labels = np.empty(len(rows), np.int64)
    centroids = np.empty((num_clusters, rows.width), np.float32)
    end = np.cumsum(sizes)
    first = 0
    for cell, share in enumerate(shares.tolist()):
        if share:
            inside = order[end[cell] - sizes[cell] : end[cell]]
            centroids[first : first + share], own = lloyd(rows.subset(inside), share, plain)
            labels[inside] = own + first
            first += share
    return centroids, labels


def unit_centroids(centroids: np.ndarray) -> np.ndarray:
    """Rows of norm 1 (zero stays zero), float32, exactly multiples of 2^-24."""
    unit = np.empty(centroids.shape, np.float32)
    for start in range(0, len(unit), 256):
        some = torch.from_numpy(centroids[start : start + 256])
        unit[start : start + 256] = rounded_unit(some).numpy()
    return unit


class Assigner:
    """What Faiss's Lloyd loop asks of a data set, over rows that are read in blocks.

    A row is compared with all centroids only when its own has moved since the last time; otherwise
    with those that have, as no other can be nearer now. The sums of each cluster's rows are kept,
    and only rows that change their cluster are taken from one and added to the other; being exact,
    they are what a sum from the start would be.

    Attributes:
        centroids: [K, d], from which the next iteration starts.
        labels: int64 [n], each row's nearest centroid at the last assignment; -1 before the first.
        moved: rows that the last assignment gave to another centroid.
    """

    def __init__(self, rows: Rows, num_clusters: int, setting: Setting, sums: bool = True) -> None:
        """Reads nothing yet.

        Args:
            rows: to cluster.
            num_clusters: K.
            setting: memory and device are used.
            sums: whether sums are wanted.
        """
        self.rows, self.setting = rows, setting
        self.ranks, self.rank = group_size()
        n = len(rows)
        self.bounds = [n * i // self.ranks for i in range(self.ranks + 1)]
        self.own = slice(self.bounds[self.rank], self.bounds[self.rank + 1])
        self.labels = np.full(n, -1, np.int64)
        self.scores = np.full(n, -np.inf, np.float32)
        self.norms = np.full(n, np.nan, np.float32)
        self.sums = np.zeros((num_clusters, rows.width)) if sums else None
        self.unit = np.full((num_clusters, rows.width), np.nan, np.float32)
        self.moved = n
        self.dtype = fastest(setting.device) if num_clusters >= MANY else torch.float32

    def count(self) -> int:
        """Rows."""
        return len(self.rows)

    def dim(self) -> int:
        """Columns."""
        return self.rows.width

    def get_subset(self, indices: np.ndarray) -> np.ndarray:
        """The centroids to start from; Faiss would take rows at random."""
        return self.centroids

    centroids: np.ndarray

    def assign_to(
        self, centroids: np.ndarray, weights: None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Each row's nearest centroid, int64 [n], about its cosine, and the sums of rows [K, d]."""
        unit = unit_centroids(centroids)
        changed = (unit != self.unit).any(1)
        if not changed.any():
            self.moved = 0
            return self.labels, self.scores, self.sums
        self.unit = unit
        every = Nearest(unit, np.arange(len(unit)), self.dtype, self.setting.device)
        some = Nearest(unit, np.flatnonzero(changed), self.dtype, self.setting.device)
        sums = self.sums
        if self.ranks > 1 and sums is not None:
            sums = np.zeros_like(sums)
        moved, bad = 0, -1
        height = self._height(len(unit))
        share = np.arange(self.own.start, self.own.stop)
        groups = (share[i : i + height] for i in range(0, len(share), height))
        starts = range(self.own.start, self.own.stop, height)
        for start, block in zip(starts, self.rows.gathers(groups), strict=True):
            span = slice(start, start + len(block))
            old = self.labels[span].copy()
            if (old < 0).any():
                bad = max(bad, zero_unless_finite(block, self.rows, start))
            norms = self._norms(block, start)
            lost = changed[old] | (old < 0)
            for near, those in ((every, lost), (some, ~lost)):
                if those.any():
                    at = np.flatnonzero(those) + start
                    own = None if near is every else (self.labels[at], self.scores[at])
                    found = near(take(block, those), norms[those], own)
                    self.labels[at], self.scores[at] = found
            new = self.labels[span]
            moved += int((new != old).sum())
            if sums is not None:
                shift(sums, block, old, new)
        refuse(bad)
        self._exchange(sums)
        self.moved = int(summed(np.array([moved], np.float64))[0])
        return self.labels, self.scores, self.sums

    def _norms(self, block: np.ndarray, start: int) -> np.ndarray:
        span = slice(start, start + len(block))
        if np.isnan(self.norms[span]).any():
            self.norms[span] = torch.from_numpy(block).float().norm(dim=1).numpy()
        return self.norms[span]

    def _height(self, num_clusters: int) -> int:
        row = 2 * self.rows.row_bytes + 16 * self.rows.width + 8 * num_clusters
        return max(1, min(65536, self.setting.memory // 2 // row))

    def _exchange(self, sums: np.ndarray | None) -> None:
        """Give every process all labels, scores and sums."""
        if self.ranks == 1:
            return
        if self.sums is not None and sums is not None:
            self.sums += summed(sums)
        for array in (self.labels, self.scores):
            parts = [array[a:b] for a, b in itertools.pairwise(self.bounds)]
            array[:] = np.concatenate(gathered(parts, self.rank))


class Nearest:
    """The nearest of some centroids: fast products narrow the choice, exact ones decide.

    An inner product of vectors of norm 1 in float32 is off by at most d 2^-24, in whatever order it
    is summed; rounding both vectors to bfloat16, and the result, adds 2^-9 each. Centroids within
    twice that of the best are compared by their exact inner products.
    """

    def __init__(
        self, unit: np.ndarray, numbers: np.ndarray, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Moves the centroids to where they are needed.

        Args:
            unit: float32 [K, d], all centroids.
            numbers: int64 [k], ascending, those compared.
            dtype: of the fast products.
            device: of the fast products.
        """
        self.numbers, self.dtype, self.device = numbers, dtype, device
        self.unit = torch.from_numpy(unit).to(device)
        compared = self.unit if len(numbers) == len(unit) else self.unit[numbers]
        self.near = compared.to(dtype)
        self.rounding = STEP if dtype == torch.float32 else 2.0**-9
        self.error = 1.02 * unit.shape[1] * STEP + 3.1 * self.rounding

    def __call__(
        self,
        block: np.ndarray,
        norms: np.ndarray,
        own: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearest centroids of some rows.

        Args:
            block: [b, d].
            norms: float32 [b], of the rows.
            own: for rows that have a centroid beside these, its number int64 [b] and about its
                inner product float32 [b].

        Returns:
            Numbers int64 [b], and about the inner products float32 [b].
        """
        rows = torch.from_numpy(block).to(self.device)
        error = self.error * torch.from_numpy(norms).to(self.device)
        products = rows.to(self.dtype) @ self.near.T  # [b, k]
        best = products.max(1)
        least = best.values.float()
        if own is not None:
            least = least.maximum(torch.from_numpy(own[1]).to(self.device))
        least = least - 2 * error
        least = (least - 2 * self.rounding * least.abs()).to(products.dtype)  # never rounded up
        choices = products >= least[:, None]
        if own is None:
            labels = self.numbers[best.indices.cpu().numpy()]
            scores = best.values.float().cpu().numpy()
            open_rows = torch.nonzero(choices.sum(1) > 1)[:, 0]
        else:
            labels, scores = own[0].copy(), own[1].copy()
            open_rows = torch.nonzero(choices.any(1))[:, 0]
        if len(open_rows):
            place, which = choices[open_rows].nonzero(as_tuple=True)
            about = products[open_rows[place], which].float().cpu().numpy()
            row, number = open_rows[place].cpu().numpy(), self.numbers[which.cpu().numpy()]
            if own is not None:
                again = open_rows.cpu().numpy()
                row, number = np.append(row, again), np.append(number, own[0][again])
                about = np.append(about, own[1][again])
            order = np.lexsort((number, -self._exact(rows, row, number), row))
            first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
            labels[row[first]], scores[row[first]] = number[first], about[first]
        return labels, scores

    def _exact(self, rows: torch.Tensor, pair_rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Inner products of pairs, float64."""
        out = torch.empty(len(pair_rows), dtype=torch.float64, device=self.device)
        first, second = torch.from_numpy(pair_rows), torch.from_numpy(numbers)
        step = max(1, EXACT_AT_ONCE[self.device.type] // rows.shape[1])
        for start in range(0, len(out), step):
            span = slice(start, start + step)
            one = rows[first[span].to(self.device)].double()
            out[span] = one.mul_(self.unit[second[span].to(self.device)]).sum(1)
        return out.cpu().numpy()


def sketch(rows: Rows, width: int, setting: Setting) -> np.ndarray:
    """Rows made narrow: columns in random groups, each with a random sign, added up.

    Stretches of `width` columns are laid on each other, each turned by a random number of places.

    Returns:
        float16 [n, width]; the sums are exact before they are rounded.
    """
    random = np.random.default_rng([setting.seed, width])
    signs = torch.from_numpy(random.choice([-1.0, 1.0], rows.width))
    spans = [slice(i, min(i + width, rows.width)) for i in range(0, rows.width, width)]
    turns = random.integers(0, width, len(spans)).tolist()
    narrow = np.zeros((len(rows), width), np.float16)
    ranks, rank = group_size()
    ends = [len(rows) * i // ranks for i in range(ranks + 1)]
    height = max(1, min(4096, setting.memory // 4 // (12 * rows.width)))
    share = np.arange(ends[rank], ends[rank + 1])
    groups = (share[i : i + height] for i in range(0, len(share), height))
    at, bad = ends[rank], -1
    for block in rows.gathers(groups):
        bad = max(bad, zero_unless_finite(block, rows, at))
        total = torch.zeros(len(block), width, dtype=torch.float64)
        for span, turn in zip(spans, turns, strict=True):
            part = torch.from_numpy(block[:, span]).double().mul_(signs[span])
            cut = max(0, part.shape[1] - turn)  # column c goes to c - turn, round the end
            total[:, :cut] += part[:, part.shape[1] - cut :]
            total[:, width - turn : width - turn + part.shape[1] - cut] += part[
                :, : part.shape[1] - cut
            ]
        narrow[at : at + len(block)] = total.half().numpy()
        at += len(block)
    refuse(bad)
    if ranks > 1:
        parts = [narrow[a:b] for a, b in itertools.pairwise(ends)]
        narrow = np.concatenate(gathered(parts, rank))
    return narrow


def sums_by_label(
    rows: Rows, labels: np.ndarray, num_clusters: int, setting: Setting
) -> np.ndarray:
    """Sum of the rows of each cluster, float64 [K, D]."""
    ranks, rank = group_size()
    share = np.arange(len(rows) * rank // ranks, len(rows) * (rank + 1) // ranks)
    height = max(1, min(4096, setting.memory // 4 // (12 * rows.width)))
    groups = [share[i : i + height] for i in range(0, len(share), height)]
    sums = np.zeros((num_clusters, rows.width))
    for group, block in zip(groups, rows.gathers(iter(groups)), strict=True):
        shift(sums, block, np.full(len(block), -1), labels[group])
    return summed(sums)


def shift(sums: np.ndarray, block: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
    """Take rows from the sums of their old clusters (-1: none) and add them to their new ones."""
    total = torch.from_numpy(sums)
    moved = np.flatnonzero(old != new)
    for start in range(0, len(moved), 256):
        some = moved[start : start + 256]
        wide = torch.from_numpy(block[some]).double()
        total.index_add_(0, torch.from_numpy(new[some]), wide)
        had = np.flatnonzero(old[some] >= 0)
        if len(had):
            total.index_add_(0, torch.from_numpy(old[some][had]), wide[had], alpha=-1)


def zero_unless_finite(block: np.ndarray, rows: Rows, start: int) -> int:
    """Set rows with NaN or infinity to zero; the number of the last one's record, or -1."""
    if torch.isfinite(torch.from_numpy(block).sum(dtype=torch.float64)):
        return -1
    bad = np.flatnonzero(~np.isfinite(block).all(1))
    block[bad] = 0
    row = start + int(bad[-1])
    return row if rows.chosen is None else int(rows.chosen[row])


def refuse(bad: int) -> None:
    """Stop, in all processes, if any of them has met a row that is not finite.

    Raises:
        SelectionError: naming the record.
    """
    if group_size()[0] > 1:
        worst = torch.tensor([bad], device=_exchange_device())
        distributed.all_reduce(worst, distributed.ReduceOp.MAX)
        bad = int(worst)
    if bad >= 0:
        error = SelectionError(f"the features of record {bad} hold NaN or infinity")
        error.shared = True
        raise error


def take(block: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Some rows of a block, without a copy where it is all."""
    return block if mask.all() else block[mask]


@functools.cache
def fastest(device: torch.device) -> torch.dtype:
    """The faster precision for products here; which it is does not change the clusters."""
    if device.type == "cuda":
        return torch.bfloat16
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(768, 768, dtype=dtype)
        square @ square
        begin = time.perf_counter()
        square @ square
        seconds[dtype] = time.perf_counter() - begin
    return min(seconds, key=seconds.__getitem__)


def group_size() -> tuple[int, int]:
    """Processes that cluster together, and which of them this is."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def summed(array: np.ndarray) -> np.ndarray:
    """The sum over all processes; exact, so in any order."""
    if group_size()[0] > 1:
        total = torch.from_numpy(array).to(_exchange_device())
        distributed.all_reduce(total)
        array = total.cpu().numpy()
    return array


def gathered(parts: list[np.ndarray], rank: int) -> list[np.ndarray]:
    """Each process's own part, from all of them."""
    device = _exchange_device()
    out: list[np.ndarray] = []
    for source, part in enumerate(parts):
        tensor = torch.from_numpy(np.ascontiguousarray(part)).to(device)
        distributed.broadcast(tensor, source)
        out.append(tensor.cpu().numpy())
    return out


def _exchange_device() -> torch.device:
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
