"""From clusters to picks: density, budgets, and the order of picking."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from coincide_pl import ranks
from coincide_pl.processes import joined
from coincide_pl.selection.arrays.dtypes import ArrayLike, Floats, Ints, like
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.selector import Picks, target_count
from coincide_pl.selection.steps.budgets import budgets, official_budgets
from coincide_pl.selection.steps.checks import labels_of, numbers, positive
from coincide_pl.selection.steps.cluster_order import ClusterOrder, KnownCluster
from coincide_pl.selection.steps.density import density
from coincide_pl.selection.steps.greedy_mmd import greedy_mmd

log = logging.getLogger(__name__)


def pick(
    features: ArrayLike,
    labels: ArrayLike,
    transferability: ArrayLike,
    fraction: float,
    temperature: float = 0.1,
    bandwidth: float = 1.0,
    memory: int = MEMORY,
) -> ArrayLike:
    """From cluster labels to picks, as the authors' code does it.

    Args:
        features: [N, D].
        labels: int [N], the row's cluster, 0 to K - 1.
        transferability: S, [K].
        fraction: of the N samples; int(fraction * N) are picked.
        temperature: τ of the budgets.
        bandwidth: σ of the kernel.
        memory: bytes of rows and kernel held at once.

    Returns:
        Rows int64 [count]: cluster by cluster from the largest share to the smallest, in order of
        picking, then the rows that make up for a walk that ended short.

    Raises:
        SelectionError: a parameter out of range, or a label without transferability.

    Example:
        >>> import numpy as np
        >>> features = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        >>> labels, transferability = np.array([0, 0, 1, 1]), np.array([0.5, 0.5])
        >>> pick(features, labels, transferability, fraction=0.5)
        array([2, 0])
    """
    positive(bandwidth=bandwidth)
    rows, scores = Rows(features), numbers("transferability", transferability)
    owner = labels_of(labels, len(rows), len(scores))
    count = target_count(fraction, len(rows))
    order = ClusterOrder(rows, owner, len(scores), bandwidth, memory)
    picks = pick_from_clusters(order, owner, scores, count, temperature)
    return like(np.asarray(picks.indices), features)


def pick_from_clusters(
    order: ClusterOrder,
    labels: Ints,
    transferability: Floats,
    count: int,
    temperature: float,
    include_self: bool = True,
) -> Picks:
    """The paper's steps once there are clusters and their transferability.

    Args:
        order: the clusters, with what is known of them; it learns the rest.
        labels: the cluster of each row, int [N].
        transferability: S, [K].
        count: how many rows.
        temperature: τ.
        include_self: whether density counts each sample's pair with itself.
    """
    with stage("density and order of picking"):
        order.learn()
    dense = np.asarray(density(order, labels, include_self=include_self))
    shares = np.asarray(budgets(transferability, dense, order.sizes, count, temperature))
    official = official_budgets(transferability, dense, order.sizes, count, temperature)
    with stage("picks"):
        order.learn(np.where(official.whole, 0, shares))
        chosen = [
            _chosen(known, int(share), bool(whole))
            for known, share, whole in zip(
                order, shares[order.own], official.whole[order.own], strict=True
            )
        ]
    rows = joined(np.concatenate([*chosen, np.zeros(0, np.int64)]))  # of all clusters, one by one
    ends = np.cumsum(shares)
    walk = [slice(ends[i] - shares[i], ends[i]) for i in official.order]
    first = [rows[at][: official.counts[i]] for i, at in zip(official.order, walk, strict=True)]
    more = [rows[at][official.counts[i] :] for i, at in zip(official.order, walk, strict=True)]
    columns = {
        "size": order.sizes,
        "transferability": transferability,
        "density": dense,
        "selected": shares,
    }
    return Picks(np.concatenate(first + more), columns, labels=labels)


def _chosen(cluster: KnownCluster, count: int, whole: bool) -> Ints:
    """Rows of a cluster in order of picking; in record order where it is taken whole."""
    places = np.arange(count) if whole or not count else np.asarray(greedy_mmd(cluster, count))
    rows: Ints = cluster.rows[places]
    return rows


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Logs how long a stage took, once for all processes."""
    begin = time.perf_counter()
    yield
    if ranks.speaks():
        log.info("%s: %.1f s", name, time.perf_counter() - begin)
