"""PreSel: tasks whose answers owe much to the question, and what is typical of their images."""

from __future__ import annotations

import math

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Bools, Floats, Ints
from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.selection.arrays.neighbors import nearest_neighbors
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.arrays.shares import shares
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.signals.likelihood import NegativeLogLikelihood
from coincide_pl.signals.rewritten import NllWithoutQuestion
from coincide_pl.signals.vision import ImageFeatures


class PreSel(Selector):
    """Pre-instruction data selection (Safaei et al., CVPR 2025, arXiv 2503.07591).

    A record's source is its task. A reference set is drawn at random from each task, and is picked
    first. It tells the importance of the M tasks,

        s_t = mean of L(answer | image, question) / L(answer | image)
        w_t ∝ exp(-s_t / T),  T = 1 / √M

    and each task gives its share w_t of what is left to pick. Its images are clustered, 1 % as many
    clusters as images; each cluster gives in proportion to its size the most typical, those with
    the highest mean cosine to their 5 nearest neighbors in it that are not picked yet.

    The paper asks for the instructions of images that are chosen without any; here they are there.
    Shares are those of its code for Vision-Flan, which knows that a task can run out of images. A
    cluster's share is exact to one sample, where that code rounds and then corrects. Samples
    without an image, which the paper leaves out, are picked when those with one are used up.
    """

    signals = (NegativeLogLikelihood, NllWithoutQuestion)
    by_all_processes = True

    def __init__(
        self,
        reference_fraction: float = 0.05,
        temperature: float | None = None,
        cluster_fraction: float = 0.01,
        num_neighbors: int = 5,
        features: str = ImageFeatures.name,
        num_iterations: int = 50,
        seed: int = 12345,
    ) -> None:
        """Checks the hyperparameters; the defaults are the paper's.

        Args:
            reference_fraction: share of the samples with an image that the reference set has; with
                0 all of them tell the importance, and none is picked first.
            temperature: T of the tasks' shares (default: 1 / √M for M tasks, as both of the
                authors' codes have it; one of their files is named after 2 / √M).
            cluster_fraction: number of clusters as a share of a task's samples.
            num_neighbors: number of neighbors that tell how typical a sample is.
            features: name of the signal that is clustered: `image_features` by DINOv2, or another
                embedding of images, such as `clip_image`.
            num_iterations: rounds of k-means at most.
            seed: seed of k-means and of the reference set.

        Raises:
            SelectionError: a value that makes no sense.
        """
        if not 0 <= reference_fraction <= 1:
            raise SelectionError(f"reference_fraction: {reference_fraction} is outside [0, 1]")
        positive(
            temperature=1.0 if temperature is None else temperature,
            cluster_fraction=cluster_fraction,
            num_neighbors=num_neighbors,
            num_iterations=num_iterations,
        )
        self.reference_fraction = reference_fraction
        self.temperature = temperature
        self.cluster_fraction = cluster_fraction
        self.num_neighbors = num_neighbors
        self.features = features
        self.num_iterations = num_iterations
        self.seed = seed

    @property
    def needs(self) -> tuple[SignalKind, ...]:
        """The two losses, and the features of images."""
        return (*self.signals, self.features)

    def pick(self, pool: Pool, count: int) -> Picks:
        """Draws the reference set, shares out the rest among tasks, and picks in each.

        Raises:
            SelectionError: the images of a task can't be clustered.
        """
        features = pool.rows(self.features, "features")
        shown = has_image(features)
        names, tasks = np.unique(pool.sources, return_inverse=True)
        tasks = np.where(shown, tasks, -1)
        sizes = np.bincount(tasks[shown], minlength=len(names))
        reference = self._reference(tasks, sizes, count)
        importance = self._importance(pool, tasks, reference, len(names))
        weights = np.exp(
            (importance.min() - importance) / (self.temperature or 1 / math.sqrt(len(names)))
        )
        left = sizes - np.bincount(tasks[reference], minlength=len(names))
        wanted = min(count - len(reference), int(left.sum()))
        given = shares(weights, left, wanted)
        taken = np.zeros(len(pool), bool)
        taken[reference] = True
        chosen = [reference]
        for task in np.flatnonzero(given):
            rows = np.flatnonzero(tasks == task)
            try:
                own = self._typical(features, rows, taken[rows], int(given[task]), pool.device)
            except SelectionError as error:
                raise SelectionError(f"source {str(names[task])!r}: {error}") from error
            chosen.append(own)
        missing = count - len(reference) - wanted
        chosen.append(np.flatnonzero(~shown)[:missing])
        indices = np.concatenate(chosen)
        groups = np.where(shown, tasks, len(names))  # the last: samples without an image
        columns = {
            "size": np.bincount(groups, minlength=len(names) + 1),
            "importance": np.append(importance, 0.0),
            "selected": np.bincount(groups[indices], minlength=len(names) + 1),
        }
        return Picks(indices, columns, {"tasks": names.tolist()}, groups)

    def _reference(self, tasks: Ints, sizes: Ints, count: int) -> Ints:
        """The reference set, at most `count` rows: a share of each task, drawn at random."""
        total = min(count, int(self.reference_fraction * sizes.sum()))
        numbers = shares(sizes, sizes, total)
        random = np.random.default_rng(self.seed)
        order = random.permutation(len(tasks))
        drawn = [order[tasks[order] == task][:number] for task, number in enumerate(numbers)]
        return np.sort(np.concatenate(drawn)).astype(np.int64)

    def _importance(self, pool: Pool, tasks: Ints, reference: Ints, num_tasks: int) -> Floats:
        """s_t [M], of the reference set, or of the whole task where that has none of it.

        A sample whose answer is empty, or cut off by the maximum length, has no ratio; a task
        without any has the others' mean.
        """
        loss = np.asarray(pool.signals[NegativeLogLikelihood.name], np.float64)
        without = np.asarray(pool.signals[NllWithoutQuestion.name], np.float64)
        read = (loss > 0) & (without > 0)
        ratios = np.divide(loss, without, out=np.full(len(loss), np.nan), where=read)
        told = np.zeros(len(tasks), bool)
        told[reference] = True
        found = np.full(num_tasks, np.nan)
        for task in range(num_tasks):
            own = ratios[tasks == task], ratios[(tasks == task) & told]
            known = [part[np.isfinite(part)] for part in own]
            some = known[1] if len(known[1]) else known[0]
            found[task] = some.mean() if len(some) else np.nan
        rest = found[np.isfinite(found)].mean() if np.isfinite(found).any() else 1.0
        return np.where(np.isfinite(found), found, rest)

    def _typical(self, features: Rows, rows: Ints, taken: Bools, count: int, device: str) -> Ints:
        """The most typical of a task's rows that are not taken, cluster by cluster."""
        number = max(1, int(self.cluster_fraction * len(rows)))
        labels = spherical_kmeans(
            features.subset(rows),
            number,
            self.num_iterations,
            self.seed,
            device=device,
            option="cluster_fraction",
        ).labels
        free = rows[~taken]
        labels = labels[~taken]
        sizes = np.bincount(labels, minlength=number)
        numbers = shares(sizes, sizes, count)
        order = np.argsort(labels, kind="stable")
        chosen = []
        for inside, most in zip(np.split(order, np.cumsum(sizes)[:-1]), numbers, strict=True):
            if most:
                members = free[inside]
                typicality = self._typicality(features.subset(members))
                chosen.append(members[np.lexsort((members, -typicality))[:most]])
        return np.concatenate(chosen)

    def _typicality(self, members: Rows) -> Floats:
        """The mean cosine of each row to its nearest neighbors among them, [n]; 0 for one alone."""
        if len(members) == 1:
            return np.zeros(1)
        found = nearest_neighbors(members, self.num_neighbors)
        cosines = np.where(found.rows >= 0, 1 - found.distances / 2, np.nan)
        typicality: Floats = np.nanmean(cosines, 1)
        return typicality


def has_image(features: Rows) -> Bools:
    """Which rows are not zero, bool [N]."""
    found = [features.floats(span, False).any(1) for span in features.float_spans()]
    return np.concatenate(found)
