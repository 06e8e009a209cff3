"""From clusters to picks: density, budgets, and the order of picking."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from coincide_pl.selection.arrays.dtypes import ArrayLike, Floats, Ints, like
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.selector import Picks, target_count
from coincide_pl.selection.steps.budgets import budgets, official_budgets
from coincide_pl.selection.steps.checks import labels_of, numbers, positive
from coincide_pl.selection.steps.cluster_order import ClusterOrder
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
    positive("bandwidth", bandwidth)
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
        first, more = [], []  # the authors' picks, then those that make up for a shortfall
        for cluster in official.order:
            rows = order[cluster].rows
            if official.whole[cluster]:  # in record order, as in the authors' code
                first.append(rows)
            elif shares[cluster]:
                chosen = rows[np.asarray(greedy_mmd(order[cluster], int(shares[cluster])))]
                first.append(chosen[: official.counts[cluster]])
                more.append(chosen[official.counts[cluster] :])
    columns = {
        "size": order.sizes,
        "transferability": transferability,
        "density": dense,
        "selected": shares,
    }
    return Picks(np.concatenate(first + more), columns, labels=labels)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Logs how long a stage took."""
    begin = time.perf_counter()
    yield
    log.info("%s: %.1f s", name, time.perf_counter() - begin)
