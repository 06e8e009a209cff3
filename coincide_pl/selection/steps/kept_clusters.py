"""Clusters of k-means that are kept beside the signals, and used again."""

from __future__ import annotations

from typing import Any

from coincide_pl.processes import everywhere, own_share
from coincide_pl.selection.arrays.kmeans import Clusters, own_kmeans
from coincide_pl.selection.arrays.lloyd import state_name
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.cache import Cache


def kept_clusters(
    rows: Rows, num_clusters: int, cache: Cache, memory: int, device: str, **options: Any
) -> Clusters:
    """The clusters of some rows, with the centroids that this process owns.

    All processes must call together.

    Args:
        rows: [N, D].
        num_clusters: K.
        cache: made from the signals and from every option that the clusters depend on.
        memory: bytes for blocks and products.
        device: where products are computed.
        options: further arguments of `own_kmeans`.

    Raises:
        SelectionError: the rows can't be clustered.
    """
    own = own_share(num_clusters)
    found, kept = cache.load("clusters"), cache.load_share("centroids", own)
    if found is not None and "centroids" in found:  # as earlier versions kept them
        kept = {"centroids": found.pop("centroids")[own]}
    if everywhere(found is not None and kept is not None):
        assert found is not None
        assert kept is not None
        return Clusters.of(found, kept["centroids"])
    clusters = own_kmeans(
        rows, num_clusters, memory=memory, device=device, checkpointer=cache, **options
    )
    cache.save_share("centroids", own, {"centroids": clusters.centroids})
    everywhere(True)  # the others have kept theirs, too
    cache.save("clusters", clusters.arrays)
    cache.forget(state_name(clusters.seed))
    return clusters
