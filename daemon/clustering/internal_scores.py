"""Internal scores of a clustering: how compact and how separate its clusters are.

Exact up to float rounding, from a memory map, in blocks: scikit-learn has the same three, but wants
all rows in memory and, for the silhouette, all pairs. On unit rows both can be had from the
centroids. Noise is left out. Truth is not asked, and on data of many kinds of scenes these scores
rank settings against it (docs/concepts.md): they must not choose parameters alone.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.clustering.descriptor_rows import block_rows
from daemon.clustering.space import unit_rows
from daemon.clustering.stages import Progress

SILHOUETTE_ROWS: Final = 20_000
"""Clustered rows above which the silhouette is the mean of so many drawn at random."""
CENTROID_ROWS: Final = 512
"""Centroids that are compared with all others at a time."""
ROUNDING: Final = 1e-14
"""Squared length, of unit rows in float32, that is rounding."""

DoubleArray = NDArray[np.float64]
Told = Callable[[int], None]
"""Called with the rows that are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalScores:
    """The scores; None with a `reason` where they have no meaning.

    `calinski_harabasz`: 0 and more, higher is better. `davies_bouldin`: 0 and more, lower is
    better; both by Euclidean distance between unit rows. `silhouette`: -1 to 1, higher is better,
    by cosine distance; the mean of `silhouette_rows` clustered rows, `silhouette_sampled` where
    these are not all.
    """

    calinski_harabasz: float | None = None
    davies_bouldin: float | None = None
    silhouette: float | None = None
    silhouette_sampled: bool = False
    silhouette_rows: int = 0
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The scores by name."""
        return asdict(self)


def score_clustering(
    vectors: NDArray[Any], labels: NDArray[np.int64], *, seed: int = 0, progress: Progress
) -> InternalScores:
    """Score flat clusters.

    Args:
        vectors: (n, dim), real dtype, every row with a direction; may be a memory map.
        labels: (n,), clusters 0 to k - 1 without a gap, noise -1.
        seed: Chooses the rows of a sampled silhouette.
        progress: Told as rows are read.
    """
    clusters, clustered = int(labels.max(initial=-1)) + 1, np.flatnonzero(labels >= 0)
    if clusters < 2:
        return InternalScores(reason="they compare clusters, and there are fewer than two")
    if len(clustered) == clusters:
        return InternalScores(reason="every cluster has one row only")
    n, sizes = len(vectors), np.bincount(labels[clustered], minlength=clusters)
    total = 2 * n + min(len(clustered), SILHOUETTE_ROWS)

    def told(before: int) -> Told:
        return lambda done: progress("scoring", before + done, total)

    centroids = _centroids(vectors, labels, sizes, told(0))
    spread, scatter = _spread(vectors, labels, centroids, sizes, told(n))
    if scatter <= ROUNDING * len(clustered):
        return InternalScores(reason="every row is its cluster's centre")
    drawn = _draw(clustered, seed)
    return InternalScores(
        calinski_harabasz=_calinski_harabasz(centroids, sizes, scatter),
        davies_bouldin=_davies_bouldin(centroids, spread),
        silhouette=_silhouette(vectors, labels, centroids, sizes, drawn, told(2 * n)),
        silhouette_sampled=len(drawn) < len(clustered),
        silhouette_rows=len(drawn),
    )


def _draw(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The rows of the silhouette, ascending."""
    if len(rows) <= SILHOUETTE_ROWS:
        return rows
    drawn = np.random.default_rng(seed).choice(rows, SILHOUETTE_ROWS, replace=False)
    return np.sort(drawn)


def _centroids(
    vectors: NDArray[Any],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int64],
    told: Told,
) -> DoubleArray:
    """Mean unit row (k, dim) of each cluster."""
    from scipy.sparse import csr_array

    sums = np.zeros((len(sizes), vectors.shape[1]))
    step = block_rows(vectors)
    for start in range(0, len(vectors), step):
        rows = np.flatnonzero(labels[start : start + step] >= 0)
        if len(rows):
            own = labels[start : start + step][rows]
            # the few clusters of a block only: a sum over all of them would cost k a block
            there, place = np.unique(own, return_inverse=True)
            shape = (len(there), len(rows))
            adder = csr_array((np.ones(len(rows)), (place, np.arange(len(rows)))), shape)
            sums[there] += adder @ unit_rows(vectors[start : start + step][rows])
        told(min(start + step, len(vectors)))
    return sums / sizes[:, None]


def _spread(
    vectors: NDArray[Any],
    labels: NDArray[np.int64],
    centroids: DoubleArray,
    sizes: NDArray[np.int64],
    told: Told,
) -> tuple[DoubleArray, float]:
    """Mean distance to the centroid (k,), and the sum of all squared distances."""
    sums, scatter = np.zeros(len(sizes)), 0.0
    step = block_rows(vectors)
    for start in range(0, len(vectors), step):
        rows = np.flatnonzero(labels[start : start + step] >= 0)
        if len(rows):
            own = labels[start : start + step][rows]
            away = unit_rows(vectors[start : start + step][rows]) - centroids[own]
            squares = np.einsum("ij,ij->i", away, away)
            sums += np.bincount(own, np.sqrt(squares), minlength=len(sizes))
            scatter += float(squares.sum())
        told(min(start + step, len(vectors)))
    return sums / sizes, scatter


def _calinski_harabasz(centroids: DoubleArray, sizes: NDArray[np.int64], scatter: float) -> float:
    """Calinski and Harabasz 1974."""
    n, k = int(sizes.sum()), len(sizes)
    middle = sizes @ centroids / n
    between = float(sizes @ ((centroids - middle) ** 2).sum(axis=1))
    return between * (n - k) / (scatter * (k - 1))


def _davies_bouldin(centroids: DoubleArray, spread: DoubleArray) -> float:
    """Davies and Bouldin 1979."""
    from sklearn.metrics.pairwise import euclidean_distances

    worst = np.empty(len(spread))
    for start in range(0, len(spread), CENTROID_ROWS):
        stop = min(start + CENTROID_ROWS, len(spread))
        apart = euclidean_distances(centroids[start:stop], centroids)
        # as in scikit-learn: coinciding centroids, the own one among them, do not count
        apart[apart == 0] = np.inf
        apart[np.arange(stop - start), np.arange(start, stop)] = np.inf
        worst[start:stop] = ((spread[start:stop, None] + spread) / apart).max(axis=1)
    return float(worst.mean())


def _silhouette(
    vectors: NDArray[Any],
    labels: NDArray[np.int64],
    centroids: DoubleArray,
    sizes: NDArray[np.int64],
    drawn: NDArray[np.int64],
    told: Told,
) -> float:
    """Mean silhouette (Rousseeuw 1987) of some rows, each against all members of all clusters.

    The mean cosine distance of a unit row to a cluster is one minus its product with the
    cluster's mean, so that no pair of rows is ever compared and a sample biases nothing.
    """
    total = 0.0
    middles = centroids.T.astype(np.float32)
    step = max(1, min(block_rows(vectors), (64 << 20) // (4 * len(sizes))))
    for start in range(0, len(drawn), step):
        rows = drawn[start : start + step]
        own, here = labels[rows], np.arange(len(rows))
        distance = 1 - unit_rows(vectors[rows]) @ middles
        others = np.maximum(sizes[own] - 1, 1)
        # the row itself is among its own cluster, at distance zero
        inside = distance[here, own] * sizes[own] / others
        distance[here, own] = np.inf
        nearest = distance.min(axis=1)
        larger = np.maximum(inside, nearest)
        alone = (sizes[own] == 1) | (larger <= 0)
        total += float(np.where(alone, 0, (nearest - inside) / np.where(alone, 1, larger)).sum())
        told(min(start + step, len(drawn)))
    return total / len(drawn)
